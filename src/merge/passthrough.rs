//! One backend, as it is.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::ledger::is_timeout;
use crate::body::{OwnAnswer, ResponseBody};
use crate::deadline::{Deadline, Timer};
use crate::error::{BoxError, ClientFault, Problem, cause_ref};

/// Answers with what one service says, untouched: for a route that has a single backend.
///
/// A merge treats one branch as it treats two; this is what to ask for instead. Nothing is taken from the request
/// (credentials, conditions, ranges, extensions) or from the response: it streams frame by frame, a 404 stays a 404, and
/// an upgrade can pass. What fails becomes an answer, as with a merge: a fault of the client's its 4xx, a timeout 504,
/// anything else 502. So it mounts wherever a merge does.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use watershed::merge::PassthroughLayer;
///
/// # tokio_test::block_on(async {
/// let service = ServiceBuilder::new()
///     .layer(PassthroughLayer::new())
///     .service(service_fn(|_: Request<Full<Bytes>>| async {
///         Err::<Response<Full<Bytes>>, _>(std::io::Error::other("refused by 10.0.0.7"))
///     }));
/// let response = service.oneshot(Request::default()).await.unwrap();
/// assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct PassthroughLayer {
    within: Duration,
}

impl PassthroughLayer {
    /// Waits for the head of the response until the request's [`Deadline`], if it has one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            within: Duration::MAX,
        }
    }

    /// Waits for the head of the response for `limit` at the most, counted from the call. The response's body is not timed.
    /// If the time has run out before the service is ready, it is not called. Default: no limit of its own.
    ///
    /// The upload counts: if the backend answers when it has read the request, a client that takes longer than this to send
    /// it is answered with 504.
    #[must_use]
    pub fn within(mut self, limit: Duration) -> Self {
        self.within = limit;
        self
    }
}

impl Default for PassthroughLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for PassthroughLayer {
    type Service = Passthrough<S>;

    fn layer(&self, inner: S) -> Passthrough<S> {
        Passthrough {
            inner,
            within: self.within,
        }
    }
}

/// The service of [`PassthroughLayer`].
///
/// # Readiness
///
/// It is always ready: each call drives a clone of the inner service in its own future, within the time that it has.
///
/// # Cancellation
///
/// Dropping its future drops the inner call. At the deadline that is dropped before the 504 is returned.
#[derive(Debug, Clone)]
pub struct Passthrough<S> {
    inner: S,
    within: Duration,
}

impl<S> Passthrough<S> {
    inner_accessors!();
}

impl<S, B, ResBody> Service<Request<B>> for Passthrough<S>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = Infallible;
    type Future = PassthroughFuture<S, Request<B>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let own = OwnAnswer::to(request.method());
        let inherited = request.extensions().get::<Deadline>().copied();
        let limit = Deadline::after(self.within);
        let deadline = match Deadline::to_arm(limit, inherited) {
            Some(deadline) => {
                if deadline.instant().is_some() {
                    deadline.enforced().put_in(request.extensions_mut());
                }
                deadline
            }
            None => Deadline::NEVER,
        };
        PassthroughFuture {
            state: State::Ready {
                service: self.inner.clone(),
                request: Some(request),
            },
            timer: Timer::new(deadline),
            own,
        }
    }
}

pin_project! {
    /// The future of [`Passthrough`].
    pub struct PassthroughFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, S::Future>,
        timer: Timer,
        own: OwnAnswer,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, F> {
        Ready { service: S, request: Option<Req> },
        Called { #[pin] future: F },
        Answered,
    }
}

impl<S, B, ResBody> Future for PassthroughFuture<S, Request<B>>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
{
    type Output = Result<Response<ResponseBody<ResBody>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let answered = match this.state.as_mut().poll(cx, this.timer.deadline()) {
            Poll::Ready(Some(Ok(response))) => Ok(response),
            Poll::Ready(Some(Err(error))) => Err(failed(&error.into())),
            Poll::Ready(None) => Err(late()),
            // At a tie, finished work wins (DESIGN rule 6).
            Poll::Pending => {
                ready!(this.timer.poll(cx));
                Err(late())
            }
        };
        // ## (Ready | Called) => Answered
        //
        // The call is dropped before anybody is told how it ended.
        this.state.set(State::Answered);
        Poll::Ready(Ok(match answered {
            Ok(response) => response.map(ResponseBody::inner),
            Err(problem) => {
                let answer = this.own.give(problem.into_response());
                answer.map(ResponseBody::own)
            }
        }))
    }
}

impl<S, Req> State<S, Req, S::Future>
where
    S: Service<Req>,
{
    /// What the service says; nothing, if it was too late to call it.
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        deadline: Deadline,
    ) -> Poll<Option<Result<S::Response, S::Error>>> {
        loop {
            let called = match self.as_mut().project() {
                // ## Ready => Called
                //
                // Waiting for readiness is part of the call's time. A call that comes too late is not made.
                StateProj::Ready { service, request } => match ready!(service.poll_ready(cx)) {
                    Ok(()) if deadline.has_passed() => return Poll::Ready(None),
                    Ok(()) => service.call(request.take().expect("until it is called")),
                    Err(error) => return Poll::Ready(Some(Err(error))),
                },
                StateProj::Called { future } => return future.poll(cx).map(Some),
                StateProj::Answered => panic!("polled after it had finished"),
            };
            self.set(State::Called { future: called });
        }
    }
}

fn late() -> Problem {
    Problem::new(StatusCode::GATEWAY_TIMEOUT).detail("there was no response in time")
}

fn failed(error: &BoxError) -> Problem {
    let error = error.as_ref();
    if let Some(fault) = cause_ref::<ClientFault>(error) {
        fault.to_problem()
    } else if is_timeout(error) {
        late()
    } else {
        Problem::new(StatusCode::BAD_GATEWAY).detail("the backend failed")
    }
}

impl<S, Req> fmt::Debug for PassthroughFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PassthroughFuture").finish_non_exhaustive()
    }
}
