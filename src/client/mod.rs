//! A ready pooled HTTP client, with HTTPS by the feature `tls`, as a Tower service.
//!
//! The program that brought Dubbo-go down (its issue #2758) made a client for each request: then no connection is used
//! twice, and nothing bounds how many there are. Here the pool is the client. Make one, clone it (a clone is one `Arc`) into
//! every stack that calls out, and all of them share its connections.
//!
//! ```
//! use bytes::Bytes;
//! use http::Request;
//! use http_body_util::{BodyExt, Full};
//! use tower::ServiceExt;
//! use watershed::client::Client;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), watershed::error::BoxError> {
//! # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! # let address = listener.local_addr()?;
//! # let app = axum::Router::new().route("/greeting", axum::routing::get(|| async { "hello" }));
//! # tokio::spawn(async move { axum::serve(listener, app).await });
//! let client = Client::new();
//!
//! let request = Request::get(format!("http://{address}/greeting")).body(Full::<Bytes>::default())?;
//! let response = client.clone().oneshot(request).await?;
//! assert_eq!(response.status(), 200);
//! assert_eq!(response.into_body().collect().await?.to_bytes(), "hello");
//! # Ok(())
//! # }
//! ```
//!
//! Configured, and as a branch of a fan-out:
//!
//! ```
//! use std::time::Duration;
//! use watershed::client::Client;
//! use watershed::clone_request::TeeBody;
//! use watershed::outcome::Branch;
//!
//! let client: Client<TeeBody> = Client::builder()
//!     .connect_timeout(Duration::from_secs(1))
//!     .idle_timeout(Duration::from_secs(20))
//!     .max_idle_per_host(16)
//!     .build();
//! let branch = Branch::http("orders", client);
//! # let _ = branch;
//! ```
//!
//! # What it does, and what it leaves to others
//!
//! * **Versions.** `http://` is HTTP/1.1, or HTTP/2 with [`http2_only`](ClientBuilder::http2_only). `https://` is what the
//!   server picks of HTTP/2 and HTTP/1.1 (ALPN). The version of the request that is passed in says how it reached *us*, so it
//!   is not looked at: a request that came by HTTP/2 or HTTP/1.0 goes on like any other.
//! * **Retries.** A request is sent once. There is one exception, which can't repeat anything: if a pooled connection turns
//!   out to be closed before the first byte of the request was written to it, the request goes to another connection.
//!   A connection that closes later fails the call, whatever the method; repeating it is for a retry layer to decide, and
//!   [`ClientError::is_unsent`] tells it when that is safe.
//! * **Redirects** are answers like any other; none is followed.
//! * **Time.** Only [connecting](ClientBuilder::connect_timeout) is bounded here. How long an answer may take is for a timeout
//!   layer around the client, or the deadline of the gather that it is a branch of.
//! * **Header fields** pass as they are, but for a `Host` where HTTP/1.1 needs one and there is none. Taking off what belongs
//!   to one hop only, and choosing the `Host`, is for the layers outside. The head of a response may have
//!   [100 fields](ClientBuilder::max_response_fields) over HTTP/1.1, and
//!   [64 KiB](ClientBuilder::max_response_head_bytes) over HTTP/2.
//! * **The length of a request** is what its body says. A `Content-Length` of something else, left over from another body, is
//!   put right, because a server would take the next request for the rest of this one. If only the head knows a length, a body
//!   that is longer or shorter fails the call.
//! * **`Expect: 100-continue`** is not waited for: the body follows at once. Informational responses are skipped.
//! * **Upgrades.** The answer `101` is passed on, with what hyper's `upgrade::on` looks for in its extensions.
//! * **`CONNECT`** is refused with a typed error, as is a URI with a user name: a proxy that dials what its callers write
//!   there is open to the world.
//!
//! # Connections
//!
//! A connection whose response was not read to its end is closed, never used again, unless the rest had arrived already;
//! so is one on which a server sent more than it had announced, and one on which the rest of a request still has to be sent
//! five seconds after the end of the response. Each connection is driven by a task on the Tokio runtime in
//! which the call was made. It ends when the peer closes, when the connection has been idle for
//! [`idle_timeout`](ClientBuilder::idle_timeout), or, once idle, when the last clone of the client is dropped.
//!
//! Over HTTP/2 all calls to a host share one connection. If its peer vanishes without a word, that is noticed by TCP only,
//! which may take minutes; until then calls on it end by their own timeouts.

mod body;
mod builder;
mod connector;
mod error;
mod exchange;
mod linger;
mod service;
#[cfg(feature = "tls")]
mod tls;

pub use body::ClientBody;
pub use builder::ClientBuilder;
pub use error::ClientError;
pub use service::{Client, ClientFuture};
