//! The closure door: the branches' whole answers, in declared order.

use std::fmt;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body::Body;

use super::collect::{Collector, arrival_index, next_batch};
use super::layer::unmergeable;
use super::ledger::Ledger;
use super::{Merge, MergeContext, strip_for_collection};
use crate::body::{Completeness, OwnAnswer, ResponseBody};
use crate::error::{BoxError, discard};
use crate::fields::{MAX_FIELDS, MAX_HEAD, is_oversized};
use crate::outcome::{BranchError, BranchId, Gather};

/// What one branch answered, its whole body included.
#[derive(Debug)]
#[non_exhaustive]
pub struct Part {
    /// Which branch.
    pub branch: BranchId,
    /// Whether it is required.
    pub required: bool,
    /// From its first poll until its body had ended.
    pub elapsed: Duration,
    /// Its response, of any status, or why there is none. A body that was cut short or over the limit is a
    /// [`BranchError::Service`] around a [`CollectError`](crate::body::CollectError).
    pub result: Result<Response<Bytes>, BranchError<BoxError>>,
}

impl Part {
    /// The part of a branch that is not required and took no time: for tests of a closure.
    pub fn new(branch: BranchId, result: Result<Response<Bytes>, BranchError<BoxError>>) -> Self {
        Self {
            branch,
            required: false,
            elapsed: Duration::ZERO,
            result,
        }
    }

    /// Whether nothing is missing for want of this part: it is a success, complete itself, or was skipped.
    fn is_whole(&self) -> bool {
        match &self.result {
            Ok(response) => {
                response.status().is_success()
                    && Completeness::of(response) == Completeness::Complete
            }
            Err(error) => matches!(error, BranchError::Skipped),
        }
    }
}

/// A merge by `closure`: it is given every branch's part, in declared order, when all have finished or the gather has
/// ended, and returns the answer.
///
/// Bodies are collected while the other branches run, each within [`max_bytes`](MergeParts::max_bytes). A fault of the
/// client's (see [`MergeContext::client_fault`]) is answered before the closure is asked. What failures and missing parts
/// mean is up to the closure. An answer with a head of over 128 fields or 64 KiB is a fault of the closure's, as a panic is: it
/// is answered with 500. If its answer is a success and has no mark of [`Completeness`], it is complete if every part
/// is a success, complete itself, or was skipped.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::{BodyExt, Full};
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use watershed::clone_request::{CloneRequestLayer, TeeBody};
/// use watershed::fanout::FanOut;
/// use watershed::merge::{MergeLayer, merge_parts};
/// use watershed::outcome::Branch;
///
/// # tokio_test::block_on(async {
/// let backend = |text: &'static str| service_fn(move |_: Request<TeeBody>| async move {
///     Ok::<_, std::convert::Infallible>(Response::new(Full::from(text)))
/// });
/// let service = ServiceBuilder::new()
///     .layer(CloneRequestLayer::new())
///     .layer(MergeLayer::new(merge_parts(|_, parts| async move {
///         let lengths = parts.iter().map(|part| match &part.result {
///             Ok(response) => format!("{}: {}\n", part.branch, response.body().len()),
///             Err(_) => format!("{}: none\n", part.branch),
///         });
///         Response::new(Full::<Bytes>::from(lengths.collect::<String>()))
///     })))
///     .service(FanOut::new([
///         Branch::http("one", backend("1")),
///         Branch::http("three", backend("333")),
///     ]));
///
/// let response = service.oneshot(Request::new(Full::<Bytes>::default())).await.unwrap();
/// assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "one: 1\nthree: 3\n");
/// # });
/// ```
pub fn merge_parts<C, Fut, B>(closure: C) -> MergeParts<C>
where
    C: Fn(MergeContext, Vec<Part>) -> Fut,
    Fut: Future<Output = Response<B>>,
{
    MergeParts {
        closure,
        limit: 1 << 20,
    }
}

/// The merge of [`merge_parts`].
#[derive(Clone)]
pub struct MergeParts<C> {
    closure: C,
    limit: usize,
}

impl<C> MergeParts<C> {
    /// The most bytes of one part. Default: 1 MiB.
    #[must_use]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.limit = bytes;
        self
    }
}

impl<C> fmt::Debug for MergeParts<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeParts")
            .field("closure", &format_args!("{}", std::any::type_name::<C>()))
            .field("limit", &self.limit)
            .finish()
    }
}

impl<F, B, E, C, Fut, Out> Merge<Gather<F>> for MergeParts<C>
where
    F: Future<Output = Result<Response<B>, BranchError<E>>> + Send,
    B: Body<Data = Bytes> + Unpin + Send,
    B::Error: Into<BoxError>,
    E: Into<BoxError> + Send,
    C: Fn(MergeContext, Vec<Part>) -> Fut + Sync,
    Fut: Future<Output = Response<Out>> + Send,
    Out: Send,
{
    type Body = ResponseBody<Out>;

    fn prepare(&self, method: &mut Method, headers: &mut HeaderMap) {
        strip_for_collection(method, headers);
    }

    async fn merge(&self, cx: MergeContext, gather: Gather<F>) -> Response<ResponseBody<Out>> {
        let mut ledger = Ledger::new(cx.clone(), &gather);
        let mut parts = Vec::with_capacity(gather.members().len());
        let mut collector = Collector::new(gather, |_| true, self.limit, cx.deadline());
        loop {
            let batch = next_batch(&mut collector, arrival_index).await;
            if batch.is_empty() {
                break;
            }
            for arrival in batch {
                if let Err(error) = &arrival.result {
                    ledger.error(&arrival.branch, error);
                }
                parts.push(Part {
                    branch: arrival.branch,
                    required: arrival.required,
                    elapsed: arrival.elapsed,
                    result: arrival.result.map(|collection| {
                        let body = collection.body.map(|body| body.bytes);
                        Response::from_parts(collection.head, body.unwrap_or_default())
                    }),
                });
            }
            if let Some(fault) = ledger.fault() {
                drop(collector);
                return fault.to_problem().into_response().map(ResponseBody::own);
            }
        }
        drop(collector);
        parts.sort_unstable_by_key(|part| part.branch.index());
        // A closure that does not say takes what it was given for granted: then so do we.
        let completeness = Completeness::complete_if(parts.iter().all(Part::is_whole));
        let response = (self.closure)(cx, parts).await;
        if is_oversized(response.headers(), MAX_FIELDS, MAX_HEAD) {
            discard(response);
            return unmergeable(OwnAnswer::Whole);
        }
        let mut response = response.map(ResponseBody::inner);
        if response.extensions().get::<Completeness>().is_none() && response.status().is_success() {
            completeness.mark(&mut response);
        }
        response
    }
}
