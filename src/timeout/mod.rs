//! A time limit for one call, as a typed error: for the client side of a stack.
//!
//! A timeout that starts with the call lets a service that is never ready wait for ever, and one that ends with the head
//! lets a body stall for ever: a slow head and a slow body take twice the time that was meant. Here one absolute deadline
//! spans readiness, head and body.
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
//! # tokio_test::block_on(async {
//! # tokio::time::pause();
//! let service = ServiceBuilder::new()
//!     .layer(ClientTimeoutLayer::new(Duration::from_millis(500)))
//!     .service(service_fn(|_: Request<()>| async {
//!         std::future::pending::<Result<Response<Full<Bytes>>, std::io::Error>>().await
//!     }));
//!
//! let error = service.oneshot(Request::new(())).await.unwrap_err();
//! let timed_out = cause_ref::<TimedOut>(error.as_ref()).unwrap();
//! assert_eq!(timed_out.phase, Phase::Head);
//! # });
//! ```
//!
//! # Which deadline it enforces
//!
//! The earlier of its own limit and the request's [`Deadline`](crate::deadline::Deadline); or none, if a layer outside
//! enforces that instant or an earlier one already: then that layer answers, and this one would only get in its way. What
//! it enforces it announces to the inner service, in the same extension.
//!
//! A layer outside that waits for the head only, as one does that streams the body on, is done when the head has come. The
//! body is therefore held to this layer's own limit in any case.

mod body;
mod client;

pub use body::TimeoutBody;
pub use client::{ClientTimeout, ClientTimeoutFuture, ClientTimeoutLayer};
