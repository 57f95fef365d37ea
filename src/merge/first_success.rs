//! The first branch that succeeds.

use std::future::Future;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Response, StatusCode, Version, response};
use http_body::Body;

use super::collect::{Collection, Collector, arrival_index, next_batch, outcome_index};
use super::ledger::{Failure, Ledger, can_answer};
use super::{Merge, MergeContext};
use crate::body::{Chunks, Completeness, ResponseBody};
use crate::error::{BoxError, Problem, discard};
use crate::fields::{settle_length, strip_hop_by_hop};
use crate::outcome::{BranchError, Gather};

/// Answers with the first success (2xx), as that branch sent it; the other branches are dropped before it is returned.
///
/// Of branches that succeed in the same poll the first declared one wins. Branches that fail are passed over; if none
/// succeeds, the answer follows the table in the [module docs](super). A branch that is marked as required has no special
/// place here, unless it fails before another succeeds.
///
/// The branches are asked for whole representations (see [`Merge::prepare`]), and in any encoding that the client accepts.
///
/// A head over its bound (128 fields, 64 KiB), or with a `Content-Length` that is none, is no success.
///
/// By default the body is streamed, frame by frame, once the head has come: what the body does then is past changing. With
/// [`collected`](Self::collected) a branch has succeeded only when its whole body is here.
#[derive(Debug, Clone, Default)]
pub struct FirstSuccess {
    collect: Option<usize>,
}

impl FirstSuccess {
    /// Streams the first success.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A success is one whose body has come whole, within `max_bytes` and the gather's deadline. One that is cut short,
    /// too large or late has failed, and another branch may win. Trailers are dropped.
    #[must_use]
    pub fn collected(mut self, max_bytes: usize) -> Self {
        self.collect = Some(max_bytes);
        self
    }
}

impl<F, B, E> Merge<Gather<F>> for FirstSuccess
where
    F: Future<Output = Result<Response<B>, BranchError<E>>> + Send,
    B: Body<Data = Bytes> + Unpin + Send,
    B::Error: Into<BoxError>,
    E: Into<BoxError> + Send,
{
    type Body = ResponseBody<B>;

    async fn merge(&self, cx: MergeContext, gather: Gather<F>) -> Response<ResponseBody<B>> {
        // The answer to HEAD has no body to wait for.
        match self.collect {
            Some(limit) if cx.method() != Method::HEAD => collected(cx, gather, limit).await,
            _ => streamed(cx, gather).await,
        }
    }
}

async fn streamed<F, B, E>(cx: MergeContext, mut gather: Gather<F>) -> Response<ResponseBody<B>>
where
    F: Future<Output = Result<Response<B>, BranchError<E>>>,
    E: Into<BoxError>,
{
    let mut ledger = Ledger::new(cx, &gather);
    loop {
        let batch = next_batch(&mut gather, outcome_index).await;
        if batch.is_empty() {
            return nobody(&ledger);
        }
        let mut first = None;
        for outcome in batch {
            match outcome.result {
                Ok(response) if !can_answer(response.status(), response.headers()) => {
                    ledger.rejected(&outcome.branch, response);
                }
                Ok(response) if first.is_none() => first = Some(response),
                Ok(response) => discard(response),
                Err(error) => ledger.error(&outcome.branch, &error.map(Into::into)),
            }
        }
        if let Some(response) = first {
            drop(gather);
            return winner(&ledger, response.map(ResponseBody::inner));
        }
        if let Some(problem) = ledger.early() {
            drop(gather);
            return answer(problem);
        }
    }
}

async fn collected<F, B, E>(
    cx: MergeContext,
    gather: Gather<F>,
    limit: usize,
) -> Response<ResponseBody<B>>
where
    F: Future<Output = Result<Response<B>, BranchError<E>>>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    let deadline = cx.deadline();
    let mut ledger = Ledger::new(cx, &gather);
    let wanted = |head: &response::Parts| can_answer(head.status, &head.headers);
    let mut collector = Collector::new(gather, wanted, limit, deadline);
    loop {
        let batch = next_batch(&mut collector, arrival_index).await;
        if batch.is_empty() {
            return nobody(&ledger);
        }
        let mut first = None;
        for arrival in batch {
            match arrival.result {
                Ok(success) if wanted(&success.head) => {
                    first.get_or_insert(success);
                }
                Ok(failure) => ledger.failed(&arrival.branch, Failure::status(&failure.head)),
                Err(error) => ledger.error(&arrival.branch, &error),
            }
        }
        if let Some(Collection { head, body }) = first {
            drop(collector);
            let body = body.map(|body| Chunks::from(body.bytes));
            let mut response =
                Response::from_parts(head, ResponseBody::own(body.unwrap_or_default()));
            // The body says it, and is here.
            response.headers_mut().remove(CONTENT_LENGTH);
            return winner(&ledger, response);
        }
        if let Some(problem) = ledger.early() {
            drop(collector);
            return answer(problem);
        }
    }
}

/// The response of the branch that is answered with, unless the client is at fault.
pub(super) fn winner<B>(
    ledger: &Ledger,
    mut response: Response<ResponseBody<B>>,
) -> Response<ResponseBody<B>> {
    if let Some(fault) = ledger.fault() {
        return answer(fault.to_problem());
    }
    let completeness = Completeness::of(&response);
    strip_hop_by_hop(response.headers_mut(), &[]);
    // A branch with none that can be settled is no winner.
    let _ = settle_length(response.headers_mut());
    // The version is the branch's hop's.
    *response.version_mut() = Version::default();
    completeness.mark(&mut response);
    response
}

/// The answer if no branch succeeded: nothing, complete, if that is because none was asked.
pub(super) fn nobody<B>(ledger: &Ledger) -> Response<ResponseBody<B>> {
    match ledger.settle() {
        Ok(completeness) => {
            let mut response = Response::new(ResponseBody::empty());
            *response.status_mut() = StatusCode::OK;
            completeness.mark(&mut response);
            response
        }
        Err(problem) => answer(problem),
    }
}

pub(super) fn answer<B>(problem: Problem) -> Response<ResponseBody<B>> {
    problem.into_response().map(ResponseBody::own)
}
