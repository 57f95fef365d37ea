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
//! use tower::{Service, ServiceBuilder, ServiceExt, service_fn};
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
//! # Limits
//!
//! A body is kept whole, up to [`limit`](CloneRequestLayer::limit) bytes (default 1 MiB). One that announces more is
//! answered with `413 Content Too Large` before anything is read; one that turns out longer fails its readers with a
//! [`TeeError`], for which a merge answers 413 as well.

mod core;
mod head;
mod service;
mod tee;

pub use head::HeadPolicy;
pub use service::{CloneRequest, CloneRequestFuture, CloneRequestLayer};
pub(crate) use tee::BodyWatch;
pub use tee::{TeeBody, TeeError};
