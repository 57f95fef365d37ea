//! The layer that turns a gather into a response.

use std::convert::Infallible;
use std::fmt;
use std::future::{Future, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use tower::{Layer, Service, ServiceExt};

use super::failure::{Hook, OnFailure};
use super::{Merge, MergeContext};
use crate::body::{Completeness, OwnAnswer, ResponseBody, without_content};
use crate::clone_request::BodyWatch;
use crate::deadline::{Deadline, Timer};
use crate::error::{BoxError, BuildError, ClientFault, Problem, cause_ref, contain, discard};
use crate::fanout::FanOutError;
use crate::fields::withhold;
use crate::outcome::{BranchError, BranchId, Gather};

/// Merges what the inner service gathers: see the [module docs](super).
#[derive(Debug)]
pub struct MergeLayer<M> {
    merge: Arc<M>,
    within: Duration,
    on_failure: Hook<OnFailure>,
}

impl<M> MergeLayer<M> {
    /// Answers as `merge` says. The gather ends at the request's [`Deadline`], if it has one.
    pub fn new(merge: M) -> Self {
        Self {
            merge: Arc::new(merge),
            within: Duration::MAX,
            on_failure: Hook::NONE,
        }
    }

    /// Ends the gather after `limit` at the latest. What has not finished by then is
    /// [`BranchError::DeadlineExceeded`]: a late branch costs its own part and not the answer. Default: no limit of its
    /// own.
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
    /// If `limit` is zero, which no branch could keep.
    pub fn try_within(mut self, limit: Duration) -> Result<Self, BuildError> {
        self.within = above_zero(limit)?;
        Ok(self)
    }

    /// Runs `hook` for every branch whose outcome is a failure, before the answer is returned: for a log, as the answer
    /// itself names the branch and little else. A later hook takes the place of an earlier one.
    ///
    /// The error is that of the branch, its causes in its [sources](std::error::Error::source): a refused connection, a
    /// template without its parameter, the deadline, a panic. A response that can't be used is an
    /// [`UnusableResponse`](super::UnusableResponse), one of any status that is no success as well. What the client did wrong
    /// is a [`ClientFault`] there. A branch that was skipped, or dropped because the answer was known without it, has not
    /// failed.
    ///
    /// [`merge_parts`](super::merge_parts) leaves to its closure whether a response is a failure; that, and a merge of your
    /// own, can [report it](MergeContext::report_failure).
    ///
    /// The hook runs in the middle of the merge, so it must not block. Its panics are contained.
    ///
    /// ```
    /// use watershed::error::cause_ref;
    /// use watershed::merge::{JsonMerge, MergeLayer, UnusableResponse};
    ///
    /// let layer = MergeLayer::new(JsonMerge::group()).on_failure(|branch, error| {
    ///     let response = cause_ref::<UnusableResponse>(error);
    ///     // Not even a line for what this backend does not have.
    ///     if response.and_then(UnusableResponse::status) != Some(http::StatusCode::NOT_FOUND) {
    ///         eprintln!("{branch}: {error}");
    ///     }
    /// });
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn on_failure(
        mut self,
        hook: impl Fn(&BranchId, &BranchError<BoxError>) + Send + Sync + 'static,
    ) -> Self {
        self.on_failure = Hook::new(Arc::new(hook));
        self
    }
}

/// A limit of zero would have every call answered and none made.
pub(super) fn above_zero(limit: Duration) -> Result<Duration, BuildError> {
    if limit.is_zero() {
        return Err(BuildError::new("a limit of zero would answer every call"));
    }
    Ok(limit)
}

impl<M> Clone for MergeLayer<M> {
    fn clone(&self) -> Self {
        Self {
            merge: Arc::clone(&self.merge),
            within: self.within,
            on_failure: self.on_failure.clone(),
        }
    }
}

impl<S, M> Layer<S> for MergeLayer<M> {
    type Service = MergeService<S, M>;

    fn layer(&self, inner: S) -> Self::Service {
        MergeService {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of [`MergeLayer`].
///
/// # Readiness
///
/// It is always ready: each call drives a clone of the inner service in its own future.
///
/// # Errors
///
/// None: it answers every request. A panic in the merge itself is answered with 500, a fan-out that is
/// [overloaded](FanOutError::Overloaded) with 503, any other failure of the inner service itself, such as a panic, with 502.
///
/// # Cancellation
///
/// Dropping its future drops the gather, and every branch with it. When it answers early, what still runs is dropped
/// before the answer is returned.
pub struct MergeService<S, M> {
    inner: S,
    layer: MergeLayer<M>,
}

impl<S, M> MergeService<S, M> {
    inner_accessors!();
}

impl<S: Clone, M> Clone for MergeService<S, M> {
    fn clone(&self) -> Self {
        Self {
            inner: self.inner.clone(),
            layer: self.layer.clone(),
        }
    }
}

impl<S: fmt::Debug, M: fmt::Debug> fmt::Debug for MergeService<S, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeService")
            .field("inner", &self.inner)
            .field("layer", &self.layer)
            .finish()
    }
}

impl<S, M, B, F, T, E> Service<Request<B>> for MergeService<S, M>
where
    S: Service<Request<B>, Response = Gather<F>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Send + 'static,
    F: Future<Output = Result<T, BranchError<E>>> + Send + 'static,
    T: Send + 'static,
    E: Send + 'static,
    M: Merge<Gather<F>> + Send + Sync + 'static,
    M::Body: Body<Data = Bytes> + Send + 'static,
{
    type Response = Response<ResponseBody<M::Body>>;
    type Error = Infallible;
    type Future = MergeFuture<M::Body>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let method = request.method().clone();
        let own = OwnAnswer::to(&method);
        let deadline = self.deadline(&mut request);
        let body = request.extensions_mut().remove::<BodyWatch>();
        let cx = MergeContext {
            method,
            deadline,
            body,
            on_failure: self.layer.on_failure.clone(),
        };
        let mut asked = request.method().clone();
        let mut headers = std::mem::take(request.headers_mut());
        let prepare = || self.layer.merge.prepare(&mut asked, &mut headers);
        if contain(prepare).is_none() {
            return MergeFuture {
                inner: Some(Box::pin(ready(unmergeable(own)))),
                own,
            };
        }
        withhold(&mut headers, request.extensions_mut());
        *request.headers_mut() = headers;
        *request.method_mut() = asked;

        let inner = contain(|| self.inner.clone());
        let merge = Arc::clone(&self.layer.merge);
        MergeFuture {
            inner: Some(Box::pin(async move {
                let gathered = match inner {
                    Some(inner) => gathered(inner.oneshot(request), cx.deadline).await,
                    None => Err(uncallable()),
                };
                let response = match gathered {
                    Ok(mut gather) => {
                        gather.end_at(cx.deadline);
                        merge.merge(cx, gather).await.map(ResponseBody::inner)
                    }
                    Err(problem) => problem.into_response().map(ResponseBody::own),
                };
                let response = marked(response);
                match own {
                    OwnAnswer::Whole => response,
                    OwnAnswer::HeadOnly => without_content(response).map(ResponseBody::own),
                }
            })),
            own,
        }
    }
}

impl<S, M> MergeService<S, M> {
    /// The earlier of the layer's own limit and what was announced. It is enforced here even if a layer outside does so as
    /// well: that one would lose all that has been gathered, and at a tie this one, being inside, comes first. The branches
    /// are told.
    fn deadline<B>(&self, request: &mut Request<B>) -> Deadline {
        let inherited = request.extensions().get::<Deadline>().copied();
        if inherited.is_none() && self.layer.within == Duration::MAX {
            return Deadline::NEVER;
        }
        let own = Deadline::after(self.layer.within);
        let deadline = inherited.unwrap_or(Deadline::NEVER).earlier(own);
        deadline.enforced().put_in(request.extensions_mut());
        deadline
    }
}

/// The gather, if the inner service has one before the deadline. Layers may stand between it and the fan-out: their panics
/// are failures of theirs, and none of the merge's.
async fn gathered<F, G, E>(call: F, deadline: Deadline) -> Result<G, Problem>
where
    F: Future<Output = Result<G, E>>,
    E: Into<BoxError>,
{
    let mut call = pin!(Some(call));
    let mut timer = Timer::new(deadline);
    let mut work = |cx: &mut Context<'_>| {
        let call = call.as_mut().as_pin_mut().expect("until it has ended");
        match contain(|| call.poll(cx)) {
            Some(polled) => polled.map_err(|error| refused(&error.into())),
            None => Poll::Ready(Err(uncallable())),
        }
    };
    let called = poll_fn(|cx| timer.poll_work(cx, &mut work)).await;
    contain(|| call.set(None));
    called.unwrap_or_else(|| {
        let late = Problem::new(StatusCode::GATEWAY_TIMEOUT);
        Err(late.detail("the branches could not be called in time"))
    })
}

/// The answer to a fan-out that gave no gather.
fn refused(error: &BoxError) -> Problem {
    let error = error.as_ref();
    if let Some(FanOutError::Overloaded { .. }) = cause_ref(error) {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail("too many requests are in flight")
    } else if let Some(fault) = cause_ref::<ClientFault>(error) {
        fault.to_problem()
    } else {
        uncallable()
    }
}

fn uncallable() -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY).detail("the branches could not be called")
}

/// The answer when the merge itself is at fault: it has panicked, or gives no answer that can be passed on.
pub(super) fn unmergeable<B>(own: OwnAnswer) -> Response<ResponseBody<B>> {
    let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR);
    let problem = problem.detail("the answers could not be merged");
    own.give(marked(problem.into_response()))
        .map(ResponseBody::own)
}

/// Every merged answer says whether it is complete.
fn marked<B>(mut response: Response<B>) -> Response<B> {
    if response.extensions().get::<Completeness>().is_none() {
        Completeness::complete_if(response.status().is_success()).mark(&mut response);
    }
    response
}

/// The future of [`MergeService`].
pub struct MergeFuture<B> {
    /// Taken when it has finished, or panicked.
    inner: Option<Merging<B>>,
    own: OwnAnswer,
}

type Merging<B> = Pin<Box<dyn Future<Output = Response<ResponseBody<B>>> + Send>>;

impl<B> Future for MergeFuture<B> {
    type Output = Result<Response<ResponseBody<B>>, Infallible>;

    /// ## Merging => Answered
    ///
    /// A merge always answers. If it panics, that is its failure and nobody else's, and the one 500 that there is.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let inner = self.inner.as_mut().expect("polled after it had finished");
        let response = match contain(|| inner.as_mut().poll(cx)) {
            Some(polled) => task::ready!(polled),
            None => unmergeable(self.own),
        };
        discard(self.inner.take());
        Poll::Ready(Ok(response))
    }
}

impl<B> fmt::Debug for MergeFuture<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MergeFuture").finish_non_exhaustive()
    }
}
