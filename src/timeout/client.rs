//! The error flavour: layer, service and future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tower::{Layer, Service};

use super::body::TimeoutBody;
use crate::deadline::{Deadline, Phase, TimedOut, Timer};
use crate::error::{BoxError, BuildError};

/// Fails calls that take too long with [`TimedOut`]: see the [module docs](super).
#[derive(Debug, Clone, Copy)]
pub struct ClientTimeoutLayer {
    limit: Duration,
}

impl ClientTimeoutLayer {
    /// At most `limit` from the call to the end of the body. `Duration::MAX` is no limit of its own.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    #[must_use]
    #[track_caller]
    pub fn new(limit: Duration) -> Self {
        BuildError::expect(Self::try_new(limit))
    }

    /// At most `limit` from the call to the end of the body.
    ///
    /// # Errors
    ///
    /// If `limit` is zero, which no call could keep.
    pub fn try_new(limit: Duration) -> Result<Self, BuildError> {
        if limit.is_zero() {
            return Err(BuildError::new("a timeout of zero would fail every call"));
        }
        Ok(Self { limit })
    }
}

impl<S> Layer<S> for ClientTimeoutLayer {
    type Service = ClientTimeout<S>;

    fn layer(&self, inner: S) -> ClientTimeout<S> {
        ClientTimeout {
            inner,
            limit: self.limit,
        }
    }
}

/// The service of [`ClientTimeoutLayer`].
///
/// # Readiness
///
/// It is always ready: each call drives a clone of the inner service in its own future, so that the time until that is
/// ready counts.
///
/// # Errors
///
/// [`TimedOut`], else those of the inner service. A body that runs over ends with [`TimedOut`], too. A call that comes when
/// the deadline that this layer enforces has passed never reaches the inner service.
///
/// # Panics
///
/// When it has to wait outside a Tokio runtime with a timer.
///
/// # Cancellation
///
/// Dropping the future drops the inner call. At the deadline that is dropped before the error is returned.
#[derive(Debug, Clone)]
pub struct ClientTimeout<S> {
    inner: S,
    limit: Duration,
}

impl<S> ClientTimeout<S> {
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
}

impl<S, B, ResBody> Service<Request<B>> for ClientTimeout<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<TimeoutBody<ResBody>>;
    type Error = BoxError;
    type Future = ClientTimeoutFuture<S, Request<B>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let inherited = request.extensions().get::<Deadline>().copied();
        let clock = Clock::start(self.limit, inherited);
        if let Some(deadline) = clock.enforces() {
            request.extensions_mut().insert(deadline.enforced());
        }
        ClientTimeoutFuture {
            state: State::Ready {
                service: self.inner.clone(),
                request: Some(request),
            },
            clock: Some(clock),
        }
    }
}

/// One call's time: how long it has, and the timer.
#[derive(Debug)]
pub(super) struct Clock {
    timer: Timer,
    /// The layer's own deadline, whoever enforces another.
    own: Deadline,
    started: Instant,
}

impl Clock {
    fn start(limit: Duration, inherited: Option<Deadline>) -> Self {
        let own = Deadline::after(limit);
        let deadline = Deadline::to_arm(own, inherited).unwrap_or(Deadline::NEVER);
        Self {
            timer: Timer::new(deadline),
            own,
            started: Instant::now(),
        }
    }

    /// The deadline, unless it never comes.
    fn enforces(&self) -> Option<Deadline> {
        let deadline = self.timer.deadline();
        deadline.instant().map(|_| deadline)
    }

    /// The head is here. Whoever enforces the deadline outside may have been waiting for just that: if this layer has left
    /// it to them so far, its own limit holds for the body.
    fn for_body(self) -> Self {
        match self.enforces() {
            Some(_) => self,
            None => Self {
                timer: Timer::new(self.own),
                ..self
            },
        }
    }

    fn has_passed(&self) -> bool {
        self.timer.deadline().has_passed()
    }

    pub(super) fn is_overdue(&self) -> bool {
        self.timer.deadline().is_overdue()
    }

    pub(super) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.poll(cx)
    }

    pub(super) fn timed_out(&self, phase: Phase) -> TimedOut {
        let elapsed = self.started.elapsed();
        let deadline = self.timer.deadline().instant();
        let limit = deadline.map_or(elapsed, |at| {
            at.saturating_duration_since(self.started.into_std())
        });
        TimedOut::new(phase, elapsed, limit)
    }
}

pin_project! {
    /// The future of [`ClientTimeout`].
    pub struct ClientTimeoutFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, S::Future>,
        clock: Option<Clock>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, F> {
        Ready { service: S, request: Option<Req> },
        Called { #[pin] future: F },
        Done,
    }
}

impl<S, B, ResBody> Future for ClientTimeoutFuture<S, Request<B>>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<TimeoutBody<ResBody>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let clock = this.clock.as_mut().expect("polled after it had finished");
        let result = loop {
            let (polled, phase) = match this.state.as_mut().project() {
                // ## Ready => (Called | Done)
                //
                // Waiting for readiness is part of the call's time. A call that comes too late is not made.
                StateProj::Ready { service, request } => match service.poll_ready(cx) {
                    Poll::Ready(Ok(())) if clock.has_passed() => {
                        break Err(clock.timed_out(Phase::Readiness).into());
                    }
                    Poll::Ready(Ok(())) => {
                        let request = request.take().expect("called once");
                        let future = service.call(request);
                        this.state.set(State::Called { future });
                        continue;
                    }
                    Poll::Ready(Err(error)) => (Poll::Ready(Err(error)), Phase::Readiness),
                    Poll::Pending => (Poll::Pending, Phase::Readiness),
                },
                // ## Called => Done
                //
                // At a tie, finished work wins: the timer is looked at only if the call has nothing.
                StateProj::Called { future } => (future.poll(cx), Phase::Head),
                StateProj::Done => unreachable!("the clock has been taken"),
            };
            if let Poll::Ready(result) = polled {
                break result.map_err(Into::into);
            }
            ready!(clock.poll(cx));
            break Err(clock.timed_out(phase).into());
        };
        // The inner call goes before its end is told.
        this.state.set(State::Done);
        let clock = this.clock.take().expect("present above");
        Poll::Ready(
            result.map(|response| response.map(|body| TimeoutBody::new(body, clock.for_body()))),
        )
    }
}

impl<S, Req> fmt::Debug for ClientTimeoutFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTimeoutFuture")
            .finish_non_exhaustive()
    }
}
