//! Turns a gather into one response.
//!
//! In Lura the parts are merged as they arrive, so the slowest wins a conflict; a success that comes at the deadline is
//! kept or dropped at random; and the error of a failed backend, with its address, is the answer's text. Here order is the
//! declared order, never arrival. A failed branch is data. And a merge always answers (`Error = Infallible`), so it mounts
//! in axum as it is.
//!
//! ```
//! use std::time::Duration;
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use http_body_util::{BodyExt, Full};
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//! use watershed::clone_request::{CloneRequestLayer, TeeBody};
//! use watershed::fanout::FanOut;
//! use watershed::merge::{JsonMerge, MergeLayer};
//! use watershed::outcome::Branch;
//!
//! # tokio_test::block_on(async {
//! let user = service_fn(|_: Request<TeeBody>| async {
//!     Ok::<_, std::convert::Infallible>(Response::new(Full::from(r#"{"id": 7}"#)))
//! });
//! let orders = service_fn(|_: Request<TeeBody>| async {
//!     Err::<Response<Full<Bytes>>, _>(std::io::Error::other("refused"))
//! });
//!
//! let service = ServiceBuilder::new()
//!     .layer(CloneRequestLayer::new())
//!     .layer(MergeLayer::new(JsonMerge::group()).within(Duration::from_secs(2)))
//!     .service(FanOut::new([
//!         Branch::http("user", user).required(),
//!         Branch::http("orders", orders),
//!     ]));
//!
//! let response = service.oneshot(Request::new(Full::<Bytes>::default())).await.unwrap();
//! assert_eq!(response.headers()["watershed-complete"], "false");
//! let body = response.into_body().collect().await.unwrap().to_bytes();
//! assert_eq!(body, r#"{"user":{"id": 7}}"#);
//! # });
//! ```
//!
//! The first success instead of all:
//!
//! ```
//! use watershed::merge::{FirstSuccess, MergeLayer, Quorum};
//!
//! let any_replica = MergeLayer::new(FirstSuccess::new());
//! let most_replicas = MergeLayer::new(Quorum::majority());
//! # let _ = (any_replica, most_replicas);
//! ```
//!
//! # What is answered
//!
//! The first row that matches:
//!
//! | case | answer |
//! |---|---|
//! | the client's fault, seen anywhere (its body over the limit or broken, a value in its path) | 413, 400 or 414, even if branches answered 2xx |
//! | a required branch failed: the first declared one | 504 if it was late; its own 4xx, except those of the hop (407, 408, 421, 425, 426, 431) and a 401 without a challenge; else 502 |
//! | two branches gave one key, and the policy is [`Conflict::Error`] | 502 |
//! | at least one branch is present | 200; complete if every branch is present or was skipped |
//! | every branch was skipped by its condition | 200 without content (`{}`, `[]`), complete |
//! | none is present | 504 if all were late, else 502 |
//!
//! *Present* is a 2xx whose document could be read; 204 and 205 are empty parts; 3xx is a failure, and to [`JsonMerge`] so
//! are 206 and 226, which are parts of a document. *Late* is what the deadline ended, a timeout inside the branch (of a
//! layer, or of the connection), or a service that was not ready in time. An error is `application/problem+json` that names
//! the branch and the reason in our words; of the branch's own answer it keeps `Retry-After` (with a 4xx), the
//! `WWW-Authenticate` of a 401 and the `Allow` of a 405. A required branch that has failed is answered at once, if no
//! earlier required one is pending.
//!
//! If there is no gather to merge, the answer is 503 (the fan-out is overloaded), 504 (it was not reached in time), the 4xx
//! of a [`ClientFault`](crate::error::ClientFault), or 502. A merge that panics is answered with 500.
//!
//! Every answer carries `watershed-complete: true|false` and the extension [`Completeness`](crate::body::Completeness). A
//! branch that says `false` of its own answer makes the whole incomplete.
//!
//! # Seeing why a branch failed
//!
//! An answer tells its caller little of what went wrong inside. [`MergeLayer::on_failure`] and
//! [`PassthroughLayer::on_failure`] are given all that is known of it: the error of the branch, with the chain of its causes.
//!
//! # What the branches are asked
//!
//! A part of a representation, or none of it, can't be merged: `Range`, `If-*` and `Expect` are taken from the request, and
//! by those that make one body of the parts ([`JsonMerge`], [`merge_parts`]) `Accept-Encoding`, too. To their branches HEAD
//! goes as GET, and the merged head is answered without a body. `Authorization` and `Cookie` go only to branches that say
//! [`.credentials()`](crate::outcome::Branch::credentials).
//!
//! # What is kept of the parts' heads
//!
//! By [`JsonMerge`]: the strictest `Cache-Control`, whose lifetime is on complete answers only, and the union of `Vary`.
//! Nothing else: no `Set-Cookie`, no `Server`.

use http::header::ACCEPT_ENCODING;
use http::{HeaderMap, Method};

mod cache;
mod collect;
mod context;
mod document;
mod failure;
mod first_success;
mod json_merge;
mod json_part;
mod layer;
mod ledger;
mod parts;
mod passthrough;
mod quorum;
mod splice;
mod timing;
mod union;
mod upload;

pub use context::{Merge, MergeContext};
pub use failure::UnusableResponse;
pub use first_success::FirstSuccess;
pub use json_merge::{Conflict, JsonMerge};
pub use json_part::{JsonPart, JsonPartFuture, JsonPartLayer};
pub use layer::{MergeFuture, MergeLayer, MergeService};
pub use parts::{MergeParts, Part, merge_parts};
pub use passthrough::{Passthrough, PassthroughFuture, PassthroughLayer};
pub use quorum::Quorum;
pub use upload::PassthroughBody;

/// What a merge that reads the bodies takes from the request.
fn strip_for_collection(method: &mut Method, headers: &mut HeaderMap) {
    context::strip_partial(headers);
    headers.remove(ACCEPT_ENCODING);
    if *method == Method::HEAD {
        *method = Method::GET;
    }
}
