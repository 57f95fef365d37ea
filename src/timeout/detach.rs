//! Work that goes on when its time is up: the layer, the service and the future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::answer::Asked;
use super::body::TimeoutBody;
use super::call::{Call, Launch, ToCall};
use super::clock::Clock;
use super::future::{Answered, Answering};
use super::layer::Policy;
use super::service::Prepare;
use super::task::{OnLate, Task, Work};
use crate::background::{Background, Permit};
use crate::body::ResponseBody;
use crate::deadline::Deadline;

/// A [`TimeoutLayer`](super::TimeoutLayer) whose inner work goes on after the deadline: made by its
/// [`detach`](super::TimeoutLayer::detach).
///
/// For work that must be finished once it has begun, and for a handler that never yields: dropping that is not possible,
/// so an attached one holds up its own timeout. On a runtime with several threads a detached one is answered for in time.
///
/// The inner service is made ready in the caller's task, and then called in a task of the [`Background`]. Whatever comes
/// of that after the deadline, or after the caller has gone, is handed to `on_late`, once: a response, an error or a
/// panic. The work counts until its caller has taken what came of it, or `on_late` has returned, whose panics are
/// contained: a shutdown that leaves nothing unfinished has waited for every hook. Past its limit, a shutdown counts what
/// a caller has yet to take as well, and leaves it there.
///
/// Work that the background aborts has come to nothing, and only [`Unfinished`](crate::background::Unfinished) tells of
/// it; if its caller still waits, it is answered 503, with what was [pinned](super::ResponseHeaders::pin). That answer has
/// [`Sealed::Cancelled`](super::Sealed::Cancelled) in its extensions, and no [`TimedOut`](crate::deadline::TimedOut): so
/// layers outside can tell it from a 503 of the inner service.
///
/// The permit is taken when the service is called. If none is free, or the background is shut down, the call is made as
/// without `detach`: at the deadline, or with its caller, it is dropped.
///
/// The request of a detached call does not carry this layer's own limit, which is not the work's. A deadline that it came
/// with is marked as announced, as no timer outside reaches the task (DESIGN rule 6).
///
/// ```
/// use std::time::Duration;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use tower::{ServiceBuilder, ServiceExt, service_fn};
/// use watershed::background::Background;
/// use watershed::timeout::{Late, TimeoutLayer};
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
/// let background = Background::new(64);
/// let service = ServiceBuilder::new()
///     .layer(TimeoutLayer::new(Duration::from_secs(1)).detach(background.clone(), |late| {
///         if let Late::Response(response) = late {
///             assert_eq!(response.status(), StatusCode::CREATED);
///         }
///     }))
///     .service(service_fn(|_: Request<()>| async {
///         tokio::time::sleep(Duration::from_secs(3)).await; // writes an order
///         let response = Response::builder().status(StatusCode::CREATED);
///         Ok::<_, http::Error>(response.body(Full::<bytes::Bytes>::default())?)
///     }));
///
/// let answer = service.oneshot(Request::new(())).await.unwrap();
/// assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
/// assert_eq!(background.running(), 1);
/// assert_eq!(background.shutdown(Duration::from_secs(10)).await.aborted, 0);
/// # }
/// ```
pub struct DetachedTimeoutLayer<B, E> {
    policy: Arc<Policy>,
    background: Background,
    on_late: Arc<OnLate<B, E>>,
}

impl<B, E> DetachedTimeoutLayer<B, E> {
    pub(super) fn new(
        policy: Arc<Policy>,
        background: Background,
        on_late: Arc<OnLate<B, E>>,
    ) -> Self {
        Self {
            policy,
            background,
            on_late,
        }
    }
}

impl<B, E> Clone for DetachedTimeoutLayer<B, E> {
    fn clone(&self) -> Self {
        Self {
            policy: Arc::clone(&self.policy),
            background: self.background.clone(),
            on_late: Arc::clone(&self.on_late),
        }
    }
}

impl<S, B, E> Layer<S> for DetachedTimeoutLayer<B, E> {
    type Service = DetachedTimeout<S, B, E>;

    fn layer(&self, inner: S) -> DetachedTimeout<S, B, E> {
        DetachedTimeout {
            inner,
            layer: self.clone(),
        }
    }
}

impl<B, E> fmt::Debug for DetachedTimeoutLayer<B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedTimeoutLayer")
            .field("policy", &self.policy)
            .field("background", &self.background)
            .finish_non_exhaustive()
    }
}

/// The service of [`DetachedTimeoutLayer`].
///
/// # Readiness
///
/// It is always ready: each call drives a clone of the inner service in its own future. What waits for that is not
/// detached: it has not begun.
///
/// # Errors
///
/// Those of the inner service, in time.
///
/// For an error type with a `dyn Error` in it, such as [`BoxError`](crate::error::BoxError), rustc rejects
/// `tokio::spawn(async { detached.oneshot(req).await })`: "one type is more general than the other". Make the future
/// outside of the block, `tokio::spawn(detached.oneshot(req))`, or `.call(req)` in it. axum (`Infallible`) is not affected.
///
/// # Panics
///
/// Outside a Tokio runtime with a timer. A panic of the inner service that comes in time is passed on.
///
/// # Cancellation
///
/// Dropping the future lets the inner call go on, once it has begun.
pub struct DetachedTimeout<S, B, E> {
    inner: S,
    layer: DetachedTimeoutLayer<B, E>,
}

impl<S, B, E> DetachedTimeout<S, B, E> {
    inner_accessors!();
}

impl<S: Clone, B, E> Clone for DetachedTimeout<S, B, E> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S: fmt::Debug, B, E> fmt::Debug for DetachedTimeout<S, B, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedTimeout")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}

impl<S, B, ResBody, E> Service<Request<B>> for DetachedTimeout<S, ResBody, E>
where
    S: Service<Request<B>, Response = Response<ResBody>, Error = E> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    ResBody: Send + 'static,
    E: Send + 'static,
{
    type Response = Response<ResponseBody<TimeoutBody<ResBody>>>;
    type Error = E;
    type Future = DetachedTimeoutFuture<S, Request<B>, ResBody>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), E>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let layer = &self.layer;
        let (clock, core) = layer.policy.begin(&request);
        let asked = Asked::by(request.method());
        let launch = Detach {
            prepare: Prepare {
                call_limit: layer.policy.call_limit(),
                core: core.clone(),
            },
            permit: layer.background.try_permit().ok(),
            _background: layer.background.clone(),
            on_late: Arc::clone(&layer.on_late),
        };
        let call = Call::new(self.inner.clone(), request, launch, clock);
        DetachedTimeoutFuture {
            inner: Answering::new(call, core, Arc::clone(&layer.policy), asked),
        }
    }
}

/// How a call is made: in a task of its own if there is room for one.
struct Detach<B, E> {
    prepare: Prepare,
    permit: Option<Permit>,
    /// Held for as long as somebody waits: work is aborted when it is nobody's.
    _background: Background,
    on_late: Arc<OnLate<B, E>>,
}

impl<S, B, ResBody, E> Launch<S, Request<B>> for Detach<ResBody, E>
where
    S: Service<Request<B>, Response = Response<ResBody>, Error = E> + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    ResBody: Send + 'static,
    E: Send + 'static,
{
    /// `None` if the work was aborted.
    type Output = Option<Response<ResBody>>;
    type Work = Work<S::Future, ResBody, E>;

    const ELSEWHERE: bool = true;

    fn launch(&mut self, start: &mut ToCall<S, Request<B>>, clock: &mut Clock) -> Self::Work {
        let request = start.request_mut();
        let inherited = request.extensions().get::<Deadline>().copied();
        self.prepare.prepare(request, clock);
        let Some(permit) = self.permit.take() else {
            return Work::Attached {
                future: start.call(),
            };
        };
        // What is enforced out here does not reach the task.
        let extensions = request.extensions_mut();
        match inherited {
            Some(deadline) => deadline.announced().put_in(extensions),
            None => drop(extensions.remove::<Deadline>()),
        }
        let (mut service, request) = start.take().expect("until it is called");
        let work = async move { service.call(request).await };
        Work::Task {
            task: Task::start(permit, work, &self.on_late),
        }
    }
}

pin_project! {
    /// The future of [`DetachedTimeout`].
    pub struct DetachedTimeoutFuture<S, Req, B>
    where
        S: Service<Req>,
    {
        #[pin]
        inner: Answering<S, Req, Detach<B, S::Error>, Work<S::Future, B, S::Error>>,
    }
}

impl<S, B, ResBody> Future for DetachedTimeoutFuture<S, Request<B>, ResBody>
where
    S: Service<Request<B>, Response = Response<ResBody>> + Send + 'static,
    S::Future: Send,
    S::Error: Send + 'static,
    B: Send + 'static,
    ResBody: Send + 'static,
{
    type Output = Answered<ResBody, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<S, Req, B> fmt::Debug for DetachedTimeoutFuture<S, Req, B>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DetachedTimeoutFuture")
            .finish_non_exhaustive()
    }
}
