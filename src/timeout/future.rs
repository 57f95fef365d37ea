//! The answering flavour: the future, in which it is decided who answers.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::Service;

use super::answer::{self, Asked};
use super::body::{Limits, TimeoutBody};
use super::call::{Call, Launch};
use super::core::{Core, Sealed, Write, apply, discard_each};
use super::layer::{Policy, Scope};
use super::service::Prepare;
use crate::body::ResponseBody;
use crate::error::contain;

pin_project! {
    /// The future of [`Timeout`](super::Timeout).
    pub struct TimeoutFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        inner: Answering<S, Req, Prepare, S::Future>,
    }
}

impl<S, Req> TimeoutFuture<S, Req>
where
    S: Service<Req>,
{
    pub(super) fn new(inner: Answering<S, Req, Prepare, S::Future>) -> Self {
        Self { inner }
    }
}

impl<S, B, ResBody> Future for TimeoutFuture<S, Request<B>>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
{
    type Output = Answered<ResBody, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().inner.poll(cx)
    }
}

impl<S, Req> fmt::Debug for TimeoutFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TimeoutFuture").finish_non_exhaustive()
    }
}

/// What the caller gets.
pub(super) type Answered<B, E> = Result<TimedResponse<B>, E>;

/// The layer's response: the inner one's, or its own.
type TimedResponse<B> = Response<ResponseBody<TimeoutBody<B>>>;

pin_project! {
    /// A call, and the one place where its end is decided.
    pub(super) struct Answering<S, Req, L, W> {
        // Goes before the call: a handler that is dropped with its caller finds its header fields sealed.
        seal: Seal,
        #[pin]
        call: Call<S, Req, L, W>,
        policy: Arc<Policy>,
        asked: Asked,
    }
}

impl<S, Req, L> Answering<S, Req, L, L::Work>
where
    S: Service<Req>,
    L: Launch<S, Req>,
{
    pub(super) fn new(
        call: Call<S, Req, L, L::Work>,
        core: Option<Arc<Core>>,
        policy: Arc<Policy>,
        asked: Asked,
    ) -> Self {
        Self {
            seal: Seal { core },
            call,
            policy,
            asked,
        }
    }

    /// ## Open => (Committed | Failed | Deadline | Cancelled | Panicked)
    ///
    /// One of them, and then there is the one answer. Work that is finished is dropped before the seal, so that what it
    /// says as it goes is still heard; work that is late after it, and before the answer is returned.
    pub(super) fn poll<ResBody>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Answered<ResBody, S::Error>>
    where
        L::Output: Into<Option<Response<ResBody>>>,
    {
        let mut last_look = false;
        loop {
            let mut this = self.as_mut().project();
            let unwinding = Unwinding(this.seal);
            let polled = this.call.as_mut().poll(cx);
            if polled.is_ready() {
                this.call.as_mut().finish();
            }
            std::mem::forget(unwinding);
            if let Poll::Ready(result) = polled {
                return Poll::Ready(self.finished(result));
            }
            ready!(this.call.as_mut().poll_deadline(cx));
            if last_look {
                return Poll::Ready(Ok(self.late()));
            }
            last_look = true;
        }
    }

    /// ## Open => (Committed | Failed | Cancelled)
    #[inline]
    fn finished<ResBody>(
        self: Pin<&mut Self>,
        result: Result<L::Output, S::Error>,
    ) -> Answered<ResBody, S::Error>
    where
        L::Output: Into<Option<Response<ResBody>>>,
    {
        match result.map(Into::into) {
            Ok(Some(response)) => Ok(self.committed(response)),
            Ok(None) => Ok(self.given_up()),
            Err(error) => {
                self.project().seal.seal(Sealed::Failed);
                Err(error)
            }
        }
    }

    /// ## Open => Committed
    #[inline]
    fn committed<ResBody>(
        self: Pin<&mut Self>,
        mut response: Response<ResBody>,
    ) -> TimedResponse<ResBody> {
        let this = self.project();
        let staged = this.seal.seal(Sealed::Committed);
        if !staged.is_empty() {
            apply(staged, response.headers_mut());
        }
        let (clock, idle) = (this.call.clock(), this.policy.idle);
        let limits = match this.policy.scope {
            // No timer touches a connection that is not HTTP any more.
            _ if this.asked.upgrades(response.status()) => None,
            Scope::Head => Limits::new(clock.stopped(), idle),
            Scope::HeadAndBody => Limits::new(clock.for_body(), idle),
        };
        response.map(|body| ResponseBody::inner(TimeoutBody::new(body, limits)))
    }

    /// ## Open => Cancelled
    #[cold]
    fn given_up<ResBody>(self: Pin<&mut Self>) -> TimedResponse<ResBody> {
        let this = self.project();
        let pinned = this.seal.seal(Sealed::Cancelled);
        answer::given_up(pinned, *this.asked).map(ResponseBody::own)
    }

    /// ## Open => Deadline
    fn late<ResBody>(self: Pin<&mut Self>) -> TimedResponse<ResBody> {
        let this = self.project();
        let timed_out = this.call.timed_out();
        let pinned = this.seal.seal(Sealed::Deadline);
        // Late work that panics as it goes must not take the answer along.
        contain(|| this.call.finish());
        let answer = this.policy.answer.make(&timed_out, pinned, *this.asked);
        if let Some(hook) = &this.policy.on_timeout {
            contain(|| hook(&timed_out));
        }
        answer.map(ResponseBody::own)
    }
}

/// The call's end of its header fields, if these are shared: until it is sealed, dropping it cancels.
struct Seal {
    core: Option<Arc<Core>>,
}

impl Seal {
    /// What belongs on the answer.
    #[inline]
    fn seal(&mut self, how: Sealed) -> Vec<Write> {
        let core = self.core.take();
        core.and_then(|core| core.seal(how)).unwrap_or_default()
    }
}

impl Drop for Seal {
    fn drop(&mut self) {
        if self.core.is_some() {
            discard_each(self.seal(Sealed::Cancelled));
        }
    }
}

/// Dropped only while a panic of the inner service unwinds; that goes on to the caller as it is.
struct Unwinding<'a>(&'a mut Seal);

impl Drop for Unwinding<'_> {
    fn drop(&mut self) {
        self.0.seal(Sealed::Panicked);
    }
}
