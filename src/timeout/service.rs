//! The answering flavour: the service.

use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use http::{Request, Response};
use tower::Service;

use super::answer::Asked;
use super::body::TimeoutBody;
use super::call::{Call, Launch, ToCall};
use super::clock::Clock;
use super::core::Core;
use super::future::{Answering, TimeoutFuture};
use super::headers::ResponseHeaders;
use super::layer::{Policy, Start};
use crate::body::ResponseBody;
use crate::deadline::Deadline;

/// The service of [`TimeoutLayer`](super::TimeoutLayer).
///
/// # Readiness
///
/// It is always ready: each call drives a clone of the inner service in its own future.
///
/// # Errors
///
/// Those of the inner service, unchanged, its readiness errors included: they never become a timeout. A body that is held
/// to a time fails with [`TimedOut`](crate::deadline::TimedOut). A call that comes when the deadline that this layer
/// enforces has passed is answered, and never reaches the inner service.
///
/// # Panics
///
/// When it has to wait outside a Tokio runtime with a timer. A panic of the inner service is passed on.
///
/// # Cancellation
///
/// Dropping the future drops the inner call. At the deadline that is dropped before the answer is returned. What never
/// yields can't be dropped: see [`detach`](super::TimeoutLayer::detach).
#[derive(Debug, Clone)]
pub struct Timeout<S> {
    inner: S,
    policy: Arc<Policy>,
}

impl<S> Timeout<S> {
    pub(super) fn new(inner: S, policy: Arc<Policy>) -> Self {
        Self { inner, policy }
    }

    inner_accessors!();
}

impl<S, B, ResBody> Service<Request<B>> for Timeout<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
{
    type Response = Response<ResponseBody<TimeoutBody<ResBody>>>;
    type Error = S::Error;
    type Future = TimeoutFuture<S, Request<B>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (clock, core) = self.policy.begin(&request);
        let asked = Asked::by(request.method());
        let prepare = Prepare {
            call_limit: self.policy.call_limit(),
            core: core.clone(),
        };
        let call = Call::new(self.inner.clone(), request, prepare, clock);
        TimeoutFuture::new(Answering::new(call, core, Arc::clone(&self.policy), asked))
    }
}

impl Policy {
    /// What a call starts with: its clock, and the core of its header fields if these are shared.
    #[inline]
    pub(super) fn begin<B>(&self, request: &Request<B>) -> (Clock, Option<Arc<Core>>) {
        let inherited = request.extensions().get::<Deadline>().copied();
        let limit = match self.start {
            Start::Ready => self.limit,
            Start::Call => Duration::MAX,
        };
        let core = self.share_headers.then(|| Arc::new(Core::new()));
        (Clock::start(limit, inherited), core)
    }

    /// The limit that begins with the inner call.
    pub(super) fn call_limit(&self) -> Option<Duration> {
        (self.start == Start::Call).then_some(self.limit)
    }
}

/// What a request needs before the inner service is called: the deadline, and the handle to the header fields.
pub(super) struct Prepare {
    pub(super) call_limit: Option<Duration>,
    pub(super) core: Option<Arc<Core>>,
}

impl Prepare {
    pub(super) fn prepare<B>(&mut self, request: &mut Request<B>, clock: &mut Clock) {
        let extensions = request.extensions_mut();
        if let Some(limit) = self.call_limit {
            *clock = Clock::start(limit, extensions.get().copied());
        }
        if let Some(deadline) = clock.enforces() {
            deadline.enforced().put_in(extensions);
        }
        if let Some(core) = self.core.take() {
            let deadline = extensions.get::<Deadline>().copied();
            let deadline = deadline.unwrap_or(Deadline::NEVER);
            extensions.insert(ResponseHeaders::new(core, deadline));
        }
    }
}

impl<S, B> Launch<S, Request<B>> for Prepare
where
    S: Service<Request<B>>,
{
    type Output = S::Response;
    type Work = S::Future;

    fn launch(&mut self, start: &mut ToCall<S, Request<B>>, clock: &mut Clock) -> S::Future {
        self.prepare(start.request_mut(), clock);
        start.call()
    }
}
