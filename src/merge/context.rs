//! What a merge is, and what it is told.

use std::future::Future;

use http::header::{EXPECT, HeaderName, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH};
use http::header::{IF_RANGE, IF_UNMODIFIED_SINCE, RANGE};
use http::{HeaderMap, Method, Response};

use super::failure::{Hook, OnFailure, UnusableResponse};
use crate::clone_request::BodyWatch;
use crate::deadline::Deadline;
use crate::error::{BoxError, ClientFault};
use crate::outcome::{BranchError, BranchId};

/// Turns a gather of type `G` into one response.
///
/// [`JsonMerge`](super::JsonMerge), [`FirstSuccess`](super::FirstSuccess), [`Quorum`](super::Quorum) and
/// [`merge_parts`](super::merge_parts) are the ready ones. Implement it yourself for an answer that is decided while the
/// branches still run; if you need all of them collected first, the closure of `merge_parts` is less work.
///
/// A merge always answers. What it returns should carry the mark of [`Completeness`](crate::body::Completeness); if it has
/// none, the layer adds the one that the status suggests.
pub trait Merge<G> {
    /// The body of its response.
    type Body;

    /// Takes from the request what the branches must not be asked: [`MergeLayer`](super::MergeLayer) calls it before the
    /// fan-out. By default what would make branches answer with a part of a representation, or none: `Range`, `If-*` and
    /// `Expect`.
    fn prepare(&self, method: &mut Method, headers: &mut HeaderMap) {
        let _ = method;
        strip_partial(headers);
    }

    /// Consumes the gather. It has been given the deadline of the context already.
    fn merge(
        &self,
        cx: MergeContext,
        gather: G,
    ) -> impl Future<Output = Response<Self::Body>> + Send;
}

/// Removes the fields that ask for a part of a representation or for none of it, which no merge could put together.
pub(super) fn strip_partial(headers: &mut HeaderMap) {
    const PARTIAL: [HeaderName; 7] = [
        EXPECT,
        IF_MATCH,
        IF_MODIFIED_SINCE,
        IF_NONE_MATCH,
        IF_RANGE,
        IF_UNMODIFIED_SINCE,
        RANGE,
    ];
    for name in PARTIAL {
        headers.remove(name);
    }
}

/// What a merge knows of the request.
#[derive(Debug, Clone)]
pub struct MergeContext {
    pub(super) method: Method,
    pub(super) deadline: Deadline,
    pub(super) body: Option<BodyWatch>,
    pub(super) on_failure: Hook<OnFailure>,
}

impl MergeContext {
    /// For tests of a merge of your own: a request of this method that may take as long as it likes.
    #[must_use]
    pub fn new(method: Method) -> Self {
        Self {
            method,
            deadline: Deadline::NEVER,
            body: None,
            on_failure: Hook::NONE,
        }
    }

    /// The same with a deadline.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Deadline) -> Self {
        self.deadline = deadline;
        self
    }

    /// The client's method, before [`Merge::prepare`]. A merge need not care for HEAD: the layer drops the body.
    #[must_use]
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// When the gather ends, and the reading of bodies with it.
    #[must_use]
    pub fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// What is wrong with the request's body, if that has shown by now: it is over its limit, or it broke. A branch may
    /// have answered nevertheless.
    #[must_use]
    pub fn client_fault(&self) -> Option<ClientFault> {
        self.body.as_ref().and_then(BodyWatch::fault)
    }

    /// Tells the hook of [`MergeLayer::on_failure`](super::MergeLayer::on_failure), if there is one, why `branch` is missing.
    /// The ready merges do so for all that they count as a failure; a merge of your own does it itself.
    pub fn report_failure(&self, branch: &BranchId, error: &BranchError<BoxError>) {
        self.on_failure.run(|hook| hook(branch, error));
    }

    /// The same of a response that can't be used.
    pub(super) fn report_unusable(
        &self,
        branch: &BranchId,
        response: impl FnOnce() -> UnusableResponse,
    ) {
        self.on_failure
            .run(|hook| hook(branch, &BranchError::Service(response().into())));
    }
}
