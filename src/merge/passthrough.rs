//! One backend, as it is.

use std::any::Any;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Request, Response, StatusCode};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::UnusableResponse;
use super::failure::{Hook, OnBackendFailure};
use super::layer::above_zero;
use super::ledger::{OVERSIZED, is_timeout};
use super::upload::PassthroughBody;
use crate::body::{OwnAnswer, ResponseBody};
use crate::deadline::{Deadline, Timer};
use crate::error::{
    BoxError, BuildError, ClientFault, Problem, cause_ref, contain, discard, panic_message,
};
use crate::fields::{MAX_FIELDS, MAX_HEAD, is_oversized};
use crate::outcome::BranchError;

/// Answers with what one service says, untouched: for a route that has a single backend.
///
/// A merge treats one branch as it treats two; this is what to ask for instead. Nothing is taken from the request
/// (credentials, conditions, ranges, extensions) or from the response, as long as its head is within
/// [bounds](Self::max_response_fields): it streams frame by frame, a 404 stays a 404, and an upgrade can pass. What fails
/// becomes an answer, as with a merge: a fault of the client's its 4xx, a timeout 504, anything else, a panic for one, 502.
/// So it mounts wherever a merge does. That the request's body failed is the client's fault: the inner service gets it as a
/// [`PassthroughBody`], whose error says so.
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use watershed::merge::{PassthroughBody, PassthroughLayer};
///
/// # tokio_test::block_on(async {
/// let service = ServiceBuilder::new()
///     .layer(PassthroughLayer::new())
///     .service(service_fn(|_: Request<PassthroughBody<Full<Bytes>>>| async {
///         Err::<Response<Full<Bytes>>, _>(std::io::Error::other("refused by 10.0.0.7"))
///     }));
/// let response = service.oneshot(Request::<Full<Bytes>>::default()).await.unwrap();
/// assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
/// # });
/// ```
#[derive(Debug, Clone)]
pub struct PassthroughLayer {
    within: Duration,
    max_fields: usize,
    max_head: usize,
    on_failure: Hook<OnBackendFailure>,
}

impl PassthroughLayer {
    /// Waits for the head of the response until the request's [`Deadline`], if it has one.
    #[must_use]
    pub fn new() -> Self {
        Self {
            within: Duration::MAX,
            max_fields: MAX_FIELDS,
            max_head: MAX_HEAD,
            on_failure: Hook::NONE,
        }
    }

    /// Waits for the head of the response for `limit` at the most, counted from the call. The response's body is not timed.
    /// If the time has run out before the service is ready, it is not called. Default: no limit of its own.
    ///
    /// The upload counts: if the backend answers when it has read the request, a client that takes longer than this to send
    /// it is answered with 504.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    #[must_use]
    #[track_caller]
    pub fn within(self, limit: Duration) -> Self {
        BuildError::expect(self.try_within(limit))
    }

    /// As [`within`](Self::within), for a limit that is configured.
    ///
    /// # Errors
    ///
    /// If `limit` is zero, which no call could keep.
    pub fn try_within(mut self, limit: Duration) -> Result<Self, BuildError> {
        self.within = above_zero(limit)?;
        Ok(self)
    }

    /// The most fields of a response. One with more is answered with 502. Default: 128. A
    /// [`ProxyHeadersLayer`](crate::proxy_headers::ProxyHeadersLayer) outside, and a `Client` inside, have such
    /// bounds of their own.
    #[must_use]
    pub fn max_response_fields(mut self, fields: usize) -> Self {
        self.max_fields = fields;
        self
    }

    /// The most bytes of the names and values of a response's fields. A response with more is answered with 502. Default:
    /// 64 KiB.
    #[must_use]
    pub fn max_response_head_bytes(mut self, bytes: usize) -> Self {
        self.max_head = bytes;
        self
    }

    fn is_oversized(&self, headers: &HeaderMap) -> bool {
        is_oversized(headers, self.max_fields, self.max_head)
    }

    /// Runs `hook` for every answer of the layer's own, before it is returned: for a log, as the answer itself says little. A
    /// later hook takes the place of an earlier one.
    ///
    /// The error is that of the inner service, its causes in its [sources](std::error::Error::source), or what else there was
    /// instead of a response; of one whose head is over the bound, an [`UnusableResponse`]. What the client did wrong is a
    /// [`ClientFault`] there. The hook must not block. Its panics are contained.
    ///
    /// ```
    /// use watershed::merge::PassthroughLayer;
    ///
    /// let layer = PassthroughLayer::new().on_failure(|error| eprintln!("the backend: {error}"));
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn on_failure(
        mut self,
        hook: impl Fn(&BranchError<BoxError>) + Send + Sync + 'static,
    ) -> Self {
        self.on_failure = Hook::new(Arc::new(hook));
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
            layer: self.clone(),
        }
    }
}

/// The service of [`PassthroughLayer`].
///
/// # Readiness
///
/// It is always ready: each call drives a clone of the inner service in its own future, within the time that it has.
///
/// # Errors
///
/// None: it answers every request, a panic of the inner service with 502. A panic of a response's body goes on to its
/// reader: the head is out, and a server that is cut off in the middle of a body tells its client so.
///
/// # Panics
///
/// When it has to wait outside a Tokio runtime with a timer.
///
/// # Cancellation
///
/// Dropping its future drops the inner call. At the deadline that is dropped before the 504 is returned.
#[derive(Debug, Clone)]
pub struct Passthrough<S> {
    inner: S,
    layer: PassthroughLayer,
}

impl<S> Passthrough<S> {
    inner_accessors!();
}

impl<S, B, ResBody> Service<Request<B>> for Passthrough<S>
where
    S: Service<Request<PassthroughBody<B>>, Response = Response<ResBody>> + Clone,
    S::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = Infallible;
    type Future = PassthroughFuture<S, Request<PassthroughBody<B>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let own = OwnAnswer::to(request.method());
        let inherited = request.extensions().get::<Deadline>().copied();
        let limit = Deadline::after(self.layer.within);
        let deadline = match Deadline::to_arm(limit, inherited) {
            Some(deadline) => {
                if deadline.instant().is_some() {
                    deadline.enforced().put_in(request.extensions_mut());
                }
                deadline
            }
            None => Deadline::NEVER,
        };
        let state = match catch_unwind(AssertUnwindSafe(|| self.inner.clone())) {
            Ok(service) => State::Ready {
                service,
                request: Some(request.map(PassthroughBody::new)),
            },
            Err(payload) => State::Failed {
                error: Some(panicked(payload)),
            },
        };
        PassthroughFuture {
            state,
            timer: Timer::new(deadline),
            own,
            layer: self.layer.clone(),
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
        layer: PassthroughLayer,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, F> {
        Ready { service: S, request: Option<Req> },
        Called { #[pin] future: F },
        Failed { error: Option<BranchError<BoxError>> },
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
        let answered = matches!(this.state.as_mut().project(), StateProj::Answered);
        assert!(!answered, "polled after it had finished");
        let deadline = this.timer.deadline();
        let call = |cx: &mut Context<'_>| {
            let polled = AssertUnwindSafe(|| this.state.as_mut().poll(cx, deadline));
            let contained = catch_unwind(polled);
            contained.unwrap_or_else(|payload| Poll::Ready(Err(panicked(payload))))
        };
        // At a tie, finished work wins (DESIGN rule 6).
        let answered = match ready!(this.timer.poll_work(cx, call)) {
            Some(Ok(response)) if this.layer.is_oversized(response.headers()) => {
                discard(response);
                let unusable = UnusableResponse::new(None, OVERSIZED.into());
                Err(BranchError::Service(unusable.into()))
            }
            Some(answered) => answered,
            None => Err(BranchError::DeadlineExceeded),
        };
        // ## (Ready | Called | Failed) => Answered
        //
        // The call is dropped before anybody is told how it ended. If it panics as it goes, that is still how it ended.
        contain(|| this.state.set(State::Answered));
        Poll::Ready(Ok(match answered {
            Ok(response) => response.map(ResponseBody::inner),
            Err(error) => {
                this.layer.on_failure.run(|hook| hook(&error));
                let answer = this.own.give(problem(&error).into_response());
                discard(error);
                answer.map(ResponseBody::own)
            }
        }))
    }
}

impl<S, Req> State<S, Req, S::Future>
where
    S: Service<Req>,
    S::Error: Into<BoxError>,
{
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        deadline: Deadline,
    ) -> Poll<Result<S::Response, BranchError<BoxError>>> {
        loop {
            let called = match self.as_mut().project() {
                // ## Ready => Called
                //
                // Waiting for readiness is part of the call's time. A call that comes too late is not made.
                StateProj::Ready { service, request } => match ready!(service.poll_ready(cx)) {
                    Ok(()) if deadline.has_passed() => {
                        return Poll::Ready(Err(BranchError::DeadlineExceeded));
                    }
                    Ok(()) => service.call(request.take().expect("until it is called")),
                    Err(error) => return Poll::Ready(Err(BranchError::Service(error.into()))),
                },
                StateProj::Called { future } => {
                    let polled = future.poll(cx);
                    return polled.map_err(|error| BranchError::Service(error.into()));
                }
                StateProj::Failed { error } => {
                    return Poll::Ready(Err(error.take().expect("until it is answered")));
                }
                StateProj::Answered => unreachable!("its future has finished"),
            };
            self.set(State::Called { future: called });
        }
    }
}

fn panicked(payload: Box<dyn Any + Send>) -> BranchError<BoxError> {
    BranchError::Panicked(panic_message(payload))
}

fn problem(error: &BranchError<BoxError>) -> Problem {
    let late = match error {
        BranchError::Service(error) => {
            if let Some(fault) = cause_ref::<ClientFault>(error.as_ref()) {
                return fault.to_problem();
            }
            is_timeout(error.as_ref())
        }
        error => matches!(error, BranchError::DeadlineExceeded),
    };
    if late {
        Problem::new(StatusCode::GATEWAY_TIMEOUT).detail("there was no response in time")
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
