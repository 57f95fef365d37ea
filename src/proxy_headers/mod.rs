//! Makes requests and responses fit to be passed on by a proxy.
//!
//! A proxy that passes a message on unchanged also passes on what was meant for the proxy alone. `Connection: x-auth-user`
//! removes the field by which an authenticating layer had told the backend who asks; `X-Forwarded-For: 127.0.0.1` makes a
//! stranger an administrator; a second `Host` is the one that the backend reads; a `101` that nobody has asked for turns the
//! rest of a keep-alive connection into a tunnel. Each of these holes was found in a proxy that is in use: see the security
//! advisories of Pingora and axum-reverse-proxy, and RFC 9110 §7.6 for what a proxy should do.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::Empty;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use watershed::proxy_headers::{Peer, ProxyHeadersBody, ProxyHeadersLayer};
//!
//! # tokio_test::block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(ProxyHeadersLayer::new())
//!     .service(service_fn(|request: Request<ProxyHeadersBody<Empty<Bytes>>>| async move {
//!         assert_eq!(request.headers()["x-forwarded-for"], "192.0.2.7");
//!         assert_eq!(request.headers()["x-forwarded-host"], "shop.example");
//!         assert!(!request.headers().contains_key("keep-alive"));
//!         Ok::<_, std::convert::Infallible>(Response::new(Empty::<Bytes>::new()))
//!     }));
//!
//! let mut request = Request::get("/orders")
//!     .header("host", "shop.example")
//!     .header("x-forwarded-for", "127.0.0.1")
//!     .header("keep-alive", "timeout=5")
//!     .body(Empty::new())
//!     .unwrap();
//! // Whoever accepts the connections knows it.
//! request.extensions_mut().insert(Peer::new("192.0.2.7:49152".parse().unwrap()));
//! let response = service.oneshot(request).await.unwrap();
//! assert_eq!(response.status(), 200);
//! # });
//! ```
//!
//! # Where it stands
//!
//! Outermost: outside of any layer that sets fields for the backend, so that no client can have them removed or pretend
//! that it has set them. If a layer has to stand outside of it, [`protect`](ProxyHeadersLayer::protect) what that sets.
//!
//! # Requests
//!
//! * The fields of the connection are removed: `Connection` and whatever any line of it names, `Keep-Alive`, `Proxy-*`,
//!   `Transfer-Encoding`, `Upgrade`, and of `TE` all but `trailers` (RFC 9110 §7.6.1). Fields that are for every recipient, such as
//!   `Host` and `Content-Type`, can't be named away.
//! * The request has one `Host`, which is its authority: the one in the target, if there is one there (RFC 9112 §3.2). The
//!   target keeps the path and the query only, so that nothing inside sends it where the client says.
//! * A cookie that HTTP/2 has cut into several fields is one again (RFC 9113 §8.2.3).
//! * Fields that claim where the request came from are removed, under every name that servers read, except what a
//!   [trusted](TrustedHops) proxy wrote; then the peer is added, in the [style](ForwardedStyle) of your choice.
//! * Of several equal `Content-Length` one is left.
//! * `Max-Forwards` is counted down for `OPTIONS` and `TRACE` (RFC 9110 §7.6.2).
//! * Trailers lose what no trailer may say (RFC 9110 §6.5.1), and are never merged into the head.
//!
//! # Responses
//!
//! The fields of the connection are removed, trailers are held to the same rule, and the head is within its bounds
//! ([fields](ProxyHeadersLayer::max_response_fields), [bytes](ProxyHeadersLayer::max_response_head_bytes)). It says one
//! `Content-Length` or none, and none that is not its content's (RFC 9110 §8.6). A 204, 205 or 304 has no content, and no
//! trailers: what the backend sends along is dropped unread. A `101` passes if it is to a protocol that the request asked for
//! and [may](ProxyHeadersLayer::allow_upgrade); connecting the two ends is up to the server, as the example `hyper_proxy`
//! shows.
//!
//! # Answers
//!
//! | the layer answers | if |
//! |---|---|
//! | 204 | `OPTIONS *`, or an `OPTIONS` whose `Max-Forwards` is 0 |
//! | 400 | there is no `Host` (but in HTTP/1.0), more than one, or one with a user name, without a host, or malformed; the target has no path, is `*` for another method, or of a scheme other than `http` and `https`; `Max-Forwards` or `Content-Length` is no number; a `TRACE` has content; a quote in a `Forwarded` that is to be believed has no end |
//! | 431 | there are more than 24 000 different fields |
//! | 500, with [`MissingPeer`] among its extensions | nobody has said where the request came from |
//! | 501 | `CONNECT`, `TRACE`; the body is in a transfer coding other than `chunked` |
//! | 502 | the response is an interim one, changes to a protocol that was not asked for, is in a transfer coding other than `chunked`, has a `Content-Length` that is none or not that of its content, or its head is over the bound |
//!
//! The answer to `HEAD`, whoever has made it, has the length of its content and no content: over HTTP/2, hyper's server would
//! send it.

mod body;
mod forwarded;
mod layer;
mod request;
mod response;
mod service;
mod trust;

pub use crate::params::Peer;
pub use body::ProxyHeadersBody;
pub use forwarded::ForwardedStyle;
pub use layer::ProxyHeadersLayer;
pub use service::{ProxyHeaders, ProxyHeadersFuture};
pub use trust::TrustedHops;

/// There is no [`Peer`] in a request, and nothing to make one from: an extension of the answer, for a layer outside.
///
/// Put one in where connections are accepted, or say [where it is](ProxyHeadersLayer::peer_from).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the request has no `Peer`: the server has not said where it came from")]
pub struct MissingPeer;
