//! One request to several branches at once, each with its own copy.
//!
//! In Lura 2.6.1 parallel backend calls shared one request object: each wrote its own path into it, and about 5 % of the
//! calls went to a sibling's path (luraproject/lura#719). Here a branch gets its own request *by value*: nothing that one
//! branch does to it can be seen by another, because there is nothing that they share.
//!
//! [`FanOut`] knows nothing of HTTP and decides nothing. Its response is a [`Gather`](crate::outcome::Gather): the stream of
//! the branches' outcomes. The layers of [`merge`](crate::merge) turn it into one response.
//!
//! ```
//! use bytes::Bytes;
//! use futures_util::StreamExt;
//! use http::{Request, Response};
//! use http_body_util::Full;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use watershed::clone_request::{CloneRequestLayer, TeeBody};
//! use watershed::fanout::FanOut;
//! use watershed::outcome::Branch;
//!
//! # tokio_test::block_on(async {
//! let users = service_fn(|_: Request<TeeBody>| async {
//!     Ok::<_, std::convert::Infallible>(Response::new(Full::from("{}")))
//! });
//! let orders = service_fn(|_: Request<TeeBody>| async {
//!     Err::<Response<Full<Bytes>>, _>(std::io::Error::other("refused"))
//! });
//!
//! // `Branch::http` erases each stack to one type, so that different ones fit side by side.
//! let fan_out = FanOut::new([
//!     Branch::http("users", users).required(),
//!     Branch::http("orders", orders),
//! ]);
//!
//! let request = Request::new(TeeBody::empty());
//! let mut gather = fan_out.oneshot(request).await.unwrap();
//! while let Some(outcome) = gather.next().await {
//!     assert_eq!(outcome.result.is_ok(), outcome.branch.name() == "users");
//! }
//! # });
//! ```

mod future;
mod http_branch;
mod service;

pub use future::BranchFuture;
pub use http_branch::{CredentialsLayer, HttpFuture, HttpService, WithCredentials};
pub use service::{FanOut, FanOutError, FanOutLayer};
