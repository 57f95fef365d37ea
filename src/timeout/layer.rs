//! The answering flavour: what can be chosen, and the layer.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use tower::Layer;

use super::answer::Answer;
use super::detach::DetachedTimeoutLayer;
use super::service::Timeout;
use super::task::Late;
use crate::background::Background;
use crate::deadline::TimedOut;
use crate::error::BuildError;

/// From when on a call's time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Start {
    /// Once this layer is called: time spent waiting for the inner service to be ready counts. The default, as the caller
    /// has been waiting since.
    #[default]
    Ready,
    /// Once the inner service is ready and is called: for a limit on the work and not on the queue before it. Until then
    /// only a [`Deadline`](crate::deadline::Deadline) that the request brings along holds.
    Call,
}

/// How much of a response has to be there in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Scope {
    /// The head. How long the body takes depends on who reads it as well. The default; [`idle`](TimeoutLayer::idle) bounds
    /// what the body's own side does.
    #[default]
    Head,
    /// The head and all of the body, by the same instant. A body that is not over then ends with [`TimedOut`], which the
    /// client sees as one that was cut short. But if its length is known, and at the first poll after that instant all that
    /// is left is available without waiting, it counts as finished in time and may be read at leisure: up to 1 MiB in
    /// 8192 frames, which are held for it.
    HeadAndBody,
}

/// Answers calls that take too long: see the [module docs](super).
#[derive(Debug, Clone)]
pub struct TimeoutLayer {
    policy: Arc<Policy>,
}

/// What is chosen, for all calls of a service.
#[derive(Clone)]
pub(super) struct Policy {
    pub(super) limit: Duration,
    pub(super) start: Start,
    pub(super) scope: Scope,
    pub(super) idle: Duration,
    pub(super) share_headers: bool,
    pub(super) answer: Answer,
    pub(super) on_timeout: Option<Arc<OnTimeout>>,
}

type OnTimeout = dyn Fn(&TimedOut) + Send + Sync;

impl TimeoutLayer {
    /// Answers after `limit` with 504 and a problem document. `Duration::MAX`, and whatever else the clock can't represent,
    /// is no limit of its own.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    #[must_use]
    #[track_caller]
    pub fn new(limit: Duration) -> Self {
        BuildError::expect(Self::try_new(limit))
    }

    /// Answers after `limit` with 504 and a problem document.
    ///
    /// # Errors
    ///
    /// If `limit` is zero, which no call could keep.
    pub fn try_new(limit: Duration) -> Result<Self, BuildError> {
        if limit.is_zero() {
            return Err(BuildError::new("a timeout of zero would answer every call"));
        }
        Ok(Self {
            policy: Arc::new(Policy {
                limit,
                start: Start::default(),
                scope: Scope::default(),
                idle: Duration::MAX,
                share_headers: false,
                answer: Answer::new(),
                on_timeout: None,
            }),
        })
    }

    fn with(mut self, change: impl FnOnce(&mut Policy)) -> Self {
        change(Arc::make_mut(&mut self.policy));
        self
    }

    /// The status of the answer. Default: 504.
    ///
    /// # Panics
    ///
    /// If it is informational (1xx), which ends no request.
    #[must_use]
    #[track_caller]
    pub fn status(mut self, status: StatusCode) -> Self {
        Arc::make_mut(&mut self.policy).answer.status(status);
        self
    }

    /// Adds a header field to the answer. It replaces a field of that name in the
    /// default answer, such as `content-type`.
    ///
    /// # Panics
    ///
    /// If the field is one of the connection (RFC 9110 §7.6.1) or of the framing, which are the server's to set.
    #[must_use]
    #[track_caller]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        Arc::make_mut(&mut self.policy).answer.header(name, value);
        self
    }

    /// The body of the answer, whose type is for [`header`](Self::header) to say. Default: a problem document
    /// (RFC 9457), or nothing if the status has no content. The answer to HEAD has the head only.
    #[must_use]
    pub fn body(self, body: impl Into<Bytes>) -> Self {
        let body = body.into();
        self.with(|policy| policy.answer.body(body))
    }

    /// Makes the answer of how the time ran out, instead of [`status`](Self::status), [`header`](Self::header) and
    /// [`body`](Self::body). Fields of the connection and of the framing are removed from what it makes. If it panics, or
    /// makes an informational response, the configured answer is given.
    #[must_use]
    pub fn respond_with(
        self,
        respond: impl Fn(&TimedOut) -> Response<Bytes> + Send + Sync + 'static,
    ) -> Self {
        let respond = Arc::new(respond);
        self.with(|policy| policy.answer.respond_with(respond))
    }

    /// Runs `hook` for every timeout answer, just before its caller gets it, and for nothing else: a body that is cut short
    /// later tells whoever reads it. Its panics are contained.
    ///
    /// It is not told for which call: to count by route, read [`TimedOut`] from the answer's extensions in a layer outside,
    /// which knows the route.
    #[must_use]
    pub fn on_timeout(self, hook: impl Fn(&TimedOut) + Send + Sync + 'static) -> Self {
        let hook = Arc::new(hook);
        self.with(|policy| policy.on_timeout = Some(hook))
    }

    /// Whether the time until the inner service is ready counts. Default: [`Start::Ready`], it does.
    #[must_use]
    pub fn start(self, start: Start) -> Self {
        self.with(|policy| policy.start = start)
    }

    /// How much of the response has to be there in time. Default: [`Scope::Head`].
    #[must_use]
    pub fn scope(self, scope: Scope) -> Self {
        self.with(|policy| policy.scope = scope)
    }

    /// How long the response's body may keep its reader waiting for one frame; beyond it the body ends with [`TimedOut`] in
    /// [`Phase::Idle`](crate::deadline::Phase::Idle). A reader that takes its time costs the body nothing. Default:
    /// [`Duration::MAX`], no limit.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    #[must_use]
    #[track_caller]
    pub fn idle(self, limit: Duration) -> Self {
        BuildError::expect(self.try_idle(limit))
    }

    /// As [`idle`](Self::idle).
    ///
    /// # Errors
    ///
    /// If `limit` is zero.
    pub fn try_idle(self, limit: Duration) -> Result<Self, BuildError> {
        if limit.is_zero() {
            return Err(BuildError::new(
                "an idle limit of zero would cut every body short",
            ));
        }
        Ok(self.with(|policy| policy.idle = limit))
    }

    /// Gives the inner service a handle to its answer's header fields: [`ResponseHeaders`](super::ResponseHeaders), in the
    /// extensions of the request.
    ///
    /// Below several such layers the handle is that of the innermost. To test a handler that needs one, wrap it in this
    /// layer, with a limit of [`Duration::MAX`].
    #[must_use]
    pub fn share_headers(self) -> Self {
        self.with(|policy| policy.share_headers = true)
    }

    /// Lets the inner work go on after the deadline, or after its caller has gone, as a task of `background`; and hands how
    /// it ended to `on_late`.
    ///
    /// It comes last: what it returns has none of these options. See [`DetachedTimeoutLayer`].
    #[must_use]
    pub fn detach<B, E>(
        self,
        background: Background,
        on_late: impl Fn(Late<B, E>) + Send + Sync + 'static,
    ) -> DetachedTimeoutLayer<B, E> {
        DetachedTimeoutLayer::new(self.policy, background, Arc::new(on_late))
    }
}

impl<S> Layer<S> for TimeoutLayer {
    type Service = Timeout<S>;

    fn layer(&self, inner: S) -> Timeout<S> {
        Timeout::new(inner, Arc::clone(&self.policy))
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("limit", &self.limit)
            .field("start", &self.start)
            .field("scope", &self.scope)
            .field("idle", &self.idle)
            .field("share_headers", &self.share_headers)
            .field("answer", &self.answer)
            .field("on_timeout", &self.on_timeout.is_some())
            .finish()
    }
}
