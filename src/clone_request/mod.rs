//! Makes a request cloneable, so that every branch can be given its own.
//!
//! Lura copies a request's head shallowly where it believes that nobody will write to it, and its body not at all: in a
//! POST route with two GET backends the two read one stream, and answered "complete" with the body divided between them.
//! Here a clone is a request of its own. The head is cloned under one [`HeadPolicy`], applied once to the request itself,
//! so that all branches, the last included, start from the same; and the body is a [`TeeBody`], which every clone reads
//! from where it was cloned.
//!
//! ```
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use watershed::clone_request::{CloneRequestLayer, TeeBody};
//!
//! # tokio_test::block_on(async {
//! let service = ServiceBuilder::new()
//!     .layer(CloneRequestLayer::new().limit(64 * 1024))
//!     .service(service_fn(|request: Request<TeeBody>| async move {
//!         let again = request.clone();
//!         let first = request.into_body().collect().await.unwrap().to_bytes();
//!         let second = again.into_body().collect().await.unwrap().to_bytes();
//!         assert_eq!(first, second);
//!         Ok::<_, std::convert::Infallible>(Response::new(Full::new(second)))
//!     }));
//!
//! let request = Request::post("/").body(Full::new(Bytes::from("hello"))).unwrap();
//! let response = service.oneshot(request).await.unwrap();
//! assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
//! # });
//! ```
//!
//! # Sent again
//!
//! The request that comes out of this layer is `Clone`, so that code of your own can keep a copy and send it again: a retry
//! policy of Tower, for one. A clone that is made before the request is sent starts with the first byte.
//!
//! ```
//! use std::future::{Ready, ready};
//! use bytes::Bytes;
//! use http::{Request, Response, StatusCode};
//! use http_body_util::{BodyExt, Full};
//! use tower::retry::{Policy, RetryLayer};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use watershed::clone_request::{CloneRequestLayer, TeeBody, TeeError};
//!
//! /// Once more after a 503.
//! #[derive(Clone)]
//! struct Once(bool);
//!
//! impl<E> Policy<Request<TeeBody>, Response<Full<Bytes>>, E> for Once {
//!     type Future = Ready<()>;
//!
//!     fn retry(
//!         &mut self,
//!         _: &mut Request<TeeBody>,
//!         result: &mut Result<Response<Full<Bytes>>, E>,
//!     ) -> Option<Ready<()>> {
//!         let unavailable = |answer: &Response<_>| answer.status() == StatusCode::SERVICE_UNAVAILABLE;
//!         let again = !self.0 && result.as_ref().is_ok_and(unavailable);
//!         self.0 = true;
//!         again.then(|| ready(()))
//!     }
//!
//!     fn clone_request(&mut self, request: &Request<TeeBody>) -> Option<Request<TeeBody>> {
//!         // A streamed body can't be sent again: then there is one try.
//!         request.body().replayable().is_ok().then(|| request.clone())
//!     }
//! }
//!
//! # tokio_test::block_on(async {
//! # use std::sync::atomic::{AtomicU32, Ordering};
//! # static CALLS: AtomicU32 = AtomicU32::new(0);
//! let service = ServiceBuilder::new()
//!     .layer(CloneRequestLayer::new())
//!     .layer(RetryLayer::new(Once(false)))
//!     .service(service_fn(|request: Request<TeeBody>| async {
//!         // A backend that reads the body, and is unavailable the first time.
//!         let body = request.into_body().collect().await?.to_bytes();
//!         let mut answer = Response::new(Full::new(body));
//!         if CALLS.fetch_add(1, Ordering::Relaxed) == 0 {
//!             *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
//!         }
//!         Ok::<_, TeeError>(answer)
//!     }));
//!
//! let request = Request::post("/").body(Full::new(Bytes::from("hello"))).unwrap();
//! let response = service.oneshot(request).await.unwrap();
//! assert_eq!(response.status(), StatusCode::OK);
//! assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "hello");
//! # });
//! ```
//!
//! # Differences from a replay buffer
//!
//! Retry layers that keep the body of the first attempt (linkerd's `ReplayBody` is the best of them) have one reader at a time:
//! a second that is polled while the first lives is a panic there, and a hedge or a fan-out can't use it. Here any number read
//! at once, each from where it was cloned, and one that is dropped half-way changes nothing for the others. The price is one
//! limit for all: a body larger than it fails the first attempt as well, where a replay buffer would only give up the replay.
//! To let such bodies pass, [`stream`](CloneRequestLayer::stream) them.
//!
//! # Limits
//!
//! A body is kept whole, up to [`limit`](CloneRequestLayer::limit) bytes (default 1 MiB). One that announces more is
//! answered with `413 Content Too Large` before anything is read; one that turns out longer fails its readers with a
//! [`TeeError`], for which a merge answers 413 as well, even if branches have answered.
//!
//! For uploads of any length, [`stream`](CloneRequestLayer::stream) keeps no more than a window. Then a branch that does not
//! read holds up the others, for a time that is bounded. Every branch has to run at once, which
//! [`FanOut`](crate::fanout::FanOut) sees to.
//!
//! `Expect: 100-continue` keeps its meaning: the client's body is asked for when the first branch reads it, and not before.

mod core;
mod head;
mod service;
mod tee;

pub use head::HeadPolicy;
pub use service::{CloneRequest, CloneRequestFuture, CloneRequestLayer};
pub(crate) use tee::BodyWatch;
pub use tee::{NotReplayable, TeeBody, TeeError};
