//! Why there is no answer, or less of one: for who runs the proxy, and not for who asks it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::StatusCode;

use crate::error::{BoxError, contain};
use crate::outcome::{BranchError, BranchId};

/// A response that came and is of no use: the cause of a failure, in the [`BranchError::Service`] that a hook is given by
/// [`MergeLayer::on_failure`](super::MergeLayer::on_failure) or
/// [`PassthroughLayer::on_failure`](super::PassthroughLayer::on_failure).
///
/// Its text is the `reason` that a problem gives for the branch, such as `status 503` or `it is not JSON`: nothing of what
/// the response said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct UnusableResponse {
    status: Option<StatusCode>,
    reason: Cow<'static, str>,
}

impl UnusableResponse {
    pub(super) fn new(status: Option<StatusCode>, reason: Cow<'static, str>) -> Self {
        Self { status, reason }
    }

    /// Its status, if that is what is wrong with it: it is no success, or the success of a part of a document.
    #[must_use]
    pub fn status(&self) -> Option<StatusCode> {
        self.status
    }
}

/// The hook of a merge.
pub(super) type OnFailure = dyn Fn(&BranchId, &BranchError<BoxError>) + Send + Sync;

/// The hook of a passthrough, whose one backend has no name.
pub(super) type OnBackendFailure = dyn Fn(&BranchError<BoxError>) + Send + Sync;

/// A hook, if there is one.
pub(super) struct Hook<F: ?Sized> {
    hook: Option<Arc<F>>,
}

impl<F: ?Sized> Hook<F> {
    pub(super) const NONE: Self = Self { hook: None };

    pub(super) fn new(hook: Arc<F>) -> Self {
        Self { hook: Some(hook) }
    }

    /// Runs it by `call`. A panic is nobody's failure but the hook's.
    pub(super) fn run(&self, call: impl FnOnce(&F)) {
        if let Some(hook) = &self.hook {
            contain(|| call(hook));
        }
    }
}

impl<F: ?Sized> Clone for Hook<F> {
    fn clone(&self) -> Self {
        Self {
            hook: self.hook.clone(),
        }
    }
}

impl<F: ?Sized> fmt::Debug for Hook<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.hook.is_some().fmt(f)
    }
}
