//! Concurrency-safe proxy building blocks for [Tower](tower).
//!
//! A watershed is both the ridge where water divides and the land that gathers it again: one request divides into branches,
//! the branches gather into one response. Wrap the services that you have; the crate owns no server, no router and no
//! configuration file.
//!
//! ```text
//! request ─▶ deadline ─▶ clone_request ─▶ fanout ═▶ branch stack ═▶ any tower Service: client, router, handler
//!                                            ║       rewrite, timeout, and whatever layers you have
//! response ◀────────────────────── merge ◀═══╝  a stream of outcomes, one per branch
//! ```
//!
//! # A stack
//!
//! ```
//! # use std::time::Duration;
//! # use bytes::Bytes;
//! # use http::{Request, Response};
//! # use http_body_util::{BodyExt, Full};
//! # use tower::{ServiceBuilder, ServiceExt};
//! use watershed::clone_request::CloneRequestLayer;
//! use watershed::fanout::FanOut;
//! use watershed::merge::{JsonMerge, MergeLayer};
//! use watershed::outcome::Branch;
//! # let users = tower::service_fn(|_: Request<watershed::clone_request::TeeBody>| async {
//! #     Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::from(r#"{"id":7}"#)))
//! # });
//! # let orders = users.clone();
//!
//! let dashboard = ServiceBuilder::new()
//!     .layer(CloneRequestLayer::new())
//!     .layer(MergeLayer::new(JsonMerge::group()).within(Duration::from_secs(2)))
//!     .service(FanOut::new([
//!         Branch::http("user", users).required().credentials(),
//!         Branch::http("orders", orders),
//!     ]));
//! # tokio_test::block_on(async {
//! # let response = dashboard.oneshot(Request::new(Full::<Bytes>::default())).await.unwrap();
//! # assert_eq!(response.headers()["watershed-complete"], "true");
//! # let body = response.into_body().collect().await.unwrap().to_bytes();
//! # assert_eq!(body, r#"{"user":{"id":7},"orders":{"id":7}}"#);
//! # });
//! ```
//!
//! It answers `{"user": …, "orders": …}`. If `orders` fails or is late, the answer lacks it and says
//! `watershed-complete: false`; if `user` does, the answer is its failure. Nothing that one branch does to its request can
//! be seen by the other.
//!
//! # The blocks
//!
//! | module | what it is for |
//! |---|---|
//! | [`clone_request`] | makes a request cloneable per branch: which fields and extensions it carries, and a body with many readers |
//! | [`fanout`] | runs every branch on its own copy of the request |
//! | [`outcome`] | branches, how they ended, and the stream that gathers them |
//! | [`merge`] | turns that stream into one response: JSON documents, the first success, a quorum, a closure |
//! | [`rewrite`] | path and URI templates that a parameter can't escape from |
//! | [`proxy_headers`] | what a proxy owes to RFC 9110 in both directions, and whom it believes about the client |
//! | [`timeout`] | one deadline over readiness, head and body of a call: an answer that owns its header fields, or a typed error |
//! | [`deadline`] | an absolute deadline that travels with a request, and over the wire |
//! | [`background`] | work that outlives its caller: counted, bounded, drained at shutdown |
//! | [`decompression`] | compressed answers of a branch, decoded within a bound (feature `decompression`) |
//! | [`client`] | a ready pooled HTTP(S) client as a Tower service (feature `client`, on by default) |
//! | [`body`], [`error`] | response bodies of our own, budgets, problem answers, finding a cause in a chain |
//! | [`test_util`] | a scripted backend, and an audit that no call crosses another (feature `test-util`) |
//!
//! # What holds everywhere
//!
//! * Nothing mutable is shared between calls or between branches.
//! * Dropping a response future cancels everything under it. The blocks spawn nothing but what you hand to a
//!   [`Background`](background::Background) (the connections of the [`client`] are tasks of hyper's); what waits for a time
//!   needs a Tokio runtime with its timer.
//! * A panic in one branch is the failure of that branch.
//! * Every buffer has a limit, and passing it is a typed outcome: a request body 1 MiB, a part 1 MiB, 100 000 values and
//!   128 levels, 64 branches a call, 1024 calls in flight, 5 s until a service is ready, 64 staged header fields, 64 tasks
//!   in the background.
//! * Same inputs, same output: the order, the winner of a conflict, the status.
//! * Bad input is answered with `application/problem+json` that names the branch and the reason, and never an internal
//!   address or the text of an upstream error.
//!
//! # Features
//!
//! | feature | default | what it brings |
//! |---|---|---|
//! | `client` | yes | the [`client`] module (hyper, hyper-util) |
//! | `tls` | no | HTTPS for it (hyper-rustls with ring, the Mozilla root certificates) |
//! | `decompression` | no | the [`decompression`] module (tower-http; gzip, deflate and brotli in Rust alone) |
//! | `test-util` | no | the [`test_util`] module |

#![cfg_attr(docsrs, feature(doc_cfg))]
#![cfg_attr(not(test), warn(clippy::disallowed_methods, clippy::unwrap_used))]

/// What every service around an `inner: S` offers.
macro_rules! inner_accessors {
    () => {
        /// The inner service.
        pub fn get_ref(&self) -> &S {
            &self.inner
        }

        /// The inner service, to be changed.
        pub fn get_mut(&mut self) -> &mut S {
            &mut self.inner
        }

        /// The inner service, without the layer.
        pub fn into_inner(self) -> S {
            self.inner
        }
    };
}

pub mod background;
pub mod body;
#[cfg(feature = "client")]
#[cfg_attr(docsrs, doc(cfg(feature = "client")))]
pub mod client;
pub mod clone_request;
pub mod deadline;
#[cfg(feature = "decompression")]
#[cfg_attr(docsrs, doc(cfg(feature = "decompression")))]
pub mod decompression;
pub mod error;
pub mod fanout;
pub mod merge;
pub mod outcome;
pub mod proxy_headers;
pub mod rewrite;
#[cfg(feature = "test-util")]
#[cfg_attr(docsrs, doc(cfg(feature = "test-util")))]
pub mod test_util;
pub mod timeout;

mod fields;
mod json;
mod params;
mod sync;
mod waiters;

/// The guide's code is compiled and run with the tests.
#[cfg(doctest)]
mod guide {
    #[doc = include_str!("../docs/clone_request.md")]
    mod clone_request {}
    #[doc = include_str!("../docs/fanout.md")]
    mod fanout {}
    #[doc = include_str!("../docs/merge.md")]
    mod merge {}
    #[doc = include_str!("../docs/migrating.md")]
    mod migrating {}
    #[doc = include_str!("../docs/proxy_headers.md")]
    mod proxy_headers {}
    #[doc = include_str!("../docs/rewrite.md")]
    mod rewrite {}
    #[doc = include_str!("../docs/testing.md")]
    mod testing {}
    #[doc = include_str!("../docs/timeout.md")]
    mod timeout {}

    #[cfg(feature = "client")]
    #[doc = include_str!("../docs/README.md")]
    mod readme {}
    #[cfg(feature = "client")]
    #[doc = include_str!("../docs/client.md")]
    mod client {}
    #[cfg(feature = "decompression")]
    #[doc = include_str!("../docs/decompression.md")]
    mod decompression {}
}
