//! A time limit for a call, whose answer owns its header fields.
//!
//! A timeout that lets its answer and the late handler write into one response has two owners of one map: in another
//! system that was a fatal concurrent write, and, with the layers in the documented order, one caller's body inside
//! another's answer. Here the answer is a response of its own, so the layer may stand anywhere; the late work is dropped
//! before the answer is returned; and a task that has a field to add to the response
//! is given a [handle](ResponseHeaders), which accepts a write or refuses it, and never loses it.
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use watershed::deadline::{Phase, TimedOut};
//! use watershed::timeout::{ResponseHeaders, TimeoutLayer};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(TimeoutLayer::new(Duration::from_secs(2)).share_headers())
//!     .service(service_fn(|request: Request<()>| async move {
//!         let headers: &ResponseHeaders = request.extensions().get().unwrap();
//!         headers.insert(HeaderName::from_static("x-cache"), HeaderValue::from_static("miss")).unwrap();
//!         headers.pin(HeaderName::from_static("x-request-id"), HeaderValue::from_static("7")).unwrap();
//!         std::future::pending::<Result<Response<Full<Bytes>>, std::io::Error>>().await
//!     }));
//!
//! let answer = service.oneshot(Request::new(())).await.unwrap();
//! assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
//! // What was staged is gone with the handler; what was pinned is on either answer.
//! assert!(!answer.headers().contains_key("x-cache"));
//! assert_eq!(answer.headers()["x-request-id"], "7");
//! // The mark of an answer that the layer made.
//! let timed_out: &TimedOut = answer.extensions().get().unwrap();
//! assert_eq!(timed_out.phase, Phase::Head);
//! # }
//! ```
//!
//! # Which one
//!
//! | layer | when the time has run out | for |
//! |---|---|---|
//! | [`TimeoutLayer`] | an answer of its own; errors of the inner service stay what they are | the server's side |
//! | [`TimeoutLayer::detach`] | the same, and the inner work goes on, bounded and accounted for | work that must be finished, handlers that never yield |
//! | [`ClientTimeoutLayer`] | an error, [`TimedOut`](crate::deadline::TimedOut); its deadline spans the body | the client's side: a branch |
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use watershed::deadline::{Phase, TimedOut};
//! use watershed::error::cause_ref;
//! use watershed::timeout::ClientTimeoutLayer;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let service = ServiceBuilder::new()
//!     .layer(ClientTimeoutLayer::new(Duration::from_millis(500)))
//!     .service(service_fn(|_: Request<()>| async {
//!         std::future::pending::<Result<Response<Full<Bytes>>, std::io::Error>>().await
//!     }));
//!
//! let error = service.oneshot(Request::new(())).await.unwrap_err();
//! let timed_out = cause_ref::<TimedOut>(error.as_ref()).unwrap();
//! assert_eq!(timed_out.phase, Phase::Head);
//! # }
//! ```
//!
//! # Which deadline they enforce
//!
//! The earlier of their own limit and the request's [`Deadline`](crate::deadline::Deadline); or none, if a layer outside
//! enforces that instant or an earlier one already: then that layer answers, and this one would only get in its way. What
//! they enforce they announce to the inner service, in the same extension.
//!
//! At a tie, finished work wins: at the deadline the inner service is asked once more, and what it has by then counts. So it
//! does if the task that waits has used up its turn (Tokio lets a task make so much progress in one): then it is asked in the
//! next. What always has something more to do is late after one more; within 10 ms of the deadline, after 64.
//!
//! A layer outside that waits for the head only, as one does that streams the body on, is done when the head has come. A
//! body that is in the scope of a layer in here is therefore held to that layer's own limit in any case.

mod answer;
mod body;
mod call;
mod client;
mod clock;
mod core;
mod detach;
mod future;
mod headers;
mod layer;
mod service;
mod task;

pub use self::core::{Sealed, WriteError};
pub use body::TimeoutBody;
pub use client::{ClientTimeout, ClientTimeoutFuture, ClientTimeoutLayer};
pub use detach::{DetachedTimeout, DetachedTimeoutFuture, DetachedTimeoutLayer};
pub use future::TimeoutFuture;
pub use headers::{ResponseHeaders, SealedFuture};
pub use layer::{Scope, Start, TimeoutLayer};
pub use service::Timeout;
pub use task::Late;
