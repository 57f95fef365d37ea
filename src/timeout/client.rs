//! The error flavour: layer, service and future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::answer::Asked;
use super::body::{Limits, TimeoutBody};
use super::call::{Call, Launch, ToCall};
use super::clock::Clock;
use crate::deadline::Deadline;
use crate::error::{BoxError, BuildError, contain};

/// Fails calls that take too long with [`TimedOut`](crate::deadline::TimedOut): see the [module docs](super).
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
/// [`TimedOut`](crate::deadline::TimedOut), else those of the inner service. A body that runs over ends with it, too,
/// but not a connection that is handed over (101, or 2xx to CONNECT). A call that comes when the deadline that this layer
/// enforces has passed never reaches the inner service.
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
    inner_accessors!();
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

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let inherited = request.extensions().get::<Deadline>().copied();
        let clock = Clock::start(self.limit, inherited);
        let asked = Asked::by(request.method());
        ClientTimeoutFuture {
            call: Call::new(self.inner.clone(), request, Plain, clock),
            asked,
        }
    }
}

/// Calls the service and says what is enforced.
struct Plain;

impl<S, B> Launch<S, Request<B>> for Plain
where
    S: Service<Request<B>>,
{
    type Output = S::Response;
    type Work = S::Future;

    fn launch(&mut self, start: &mut ToCall<S, Request<B>>, clock: &mut Clock) -> S::Future {
        if let Some(deadline) = clock.enforces() {
            deadline
                .enforced()
                .put_in(start.request_mut().extensions_mut());
        }
        start.call()
    }
}

pin_project! {
    /// The future of [`ClientTimeout`].
    pub struct ClientTimeoutFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        call: Call<S, Req, Plain, S::Future>,
        asked: Asked,
    }
}

impl<S, B, ResBody> Future for ClientTimeoutFuture<S, Request<B>>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<TimeoutBody<ResBody>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut call = this.call;
        let mut last_look = false;
        loop {
            // The inner call goes before its end is told.
            if let Poll::Ready(result) = call.as_mut().poll(cx) {
                let clock = call.clock();
                call.finish();
                return Poll::Ready(match result {
                    Ok(response) => {
                        // No timer touches a connection that is not HTTP any more.
                        let limits = if this.asked.upgrades(response.status()) {
                            None
                        } else {
                            Limits::new(clock.for_body(), Duration::MAX)
                        };
                        Ok(response.map(|body| TimeoutBody::new(body, limits)))
                    }
                    Err(error) => Err(error.into()),
                });
            }
            ready!(call.as_mut().poll_deadline(cx));
            if last_look {
                let timed_out = call.timed_out();
                // Late work that panics as it goes must not take the error along.
                contain(|| call.finish());
                return Poll::Ready(Err(timed_out.into()));
            }
            last_look = true;
        }
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
