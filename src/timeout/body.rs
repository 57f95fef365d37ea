//! The body that is held to its call's deadline, and to a limit between its frames.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::task::unconstrained;
use tokio::time::{Instant, Sleep};

use super::clock::Clock;
use crate::body::Chunks;
use crate::deadline::{InlineTimer, Phase, TimedOut, Turns};
use crate::error::{BoxError, contain};

pin_project! {
    /// A body that ends with [`TimedOut`](crate::deadline::TimedOut) if it has not ended at the deadline of its call, or
    /// if it has kept its reader waiting for a frame for too long.
    ///
    /// The deadline is absolute: a body that drips is ended as one that stalls, and so is one that has its next frame ready
    /// whenever its reader comes. Only a body that says how long it is, and whose rest is there, all of it, at the first
    /// look after the deadline, may be read out: its reader is late and not the body. That rest is held for it, and is at
    /// most 1 MiB in 8192 frames. An idle limit counts only while the reader waits. After the error the body is over,
    /// and the inner one gone. Frames, trailers, `size_hint` and `is_end_stream` pass through.
    #[derive(Debug)]
    pub struct TimeoutBody<B> {
        #[pin]
        state: State<B>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<B> {
        Open {
            #[pin]
            inner: B,
            // Boxed: many bodies have none, and these should not be larger for it.
            limits: Option<Pin<Box<Limits>>>,
        },
        // Boxed: it is rare. The inner body is gone.
        Rest { rest: Box<Rest> },
        Failed,
    }
}

pin_project! {
    /// What a body is held to.
    #[derive(Debug)]
    pub(super) struct Limits {
        clock: Clock,
        #[pin]
        timer: InlineTimer,
        #[pin]
        idle: Idle,
    }
}

impl Limits {
    /// The clock's deadline, and a limit between frames; or nothing, if there is neither.
    #[inline]
    pub(super) fn new(clock: Clock, idle: Duration) -> Option<Pin<Box<Self>>> {
        let is_limited = clock.enforces().is_some() || idle != Duration::MAX;
        is_limited.then(|| Self::boxed(clock, idle))
    }

    fn boxed(clock: Clock, idle: Duration) -> Pin<Box<Self>> {
        Box::pin(Self {
            clock,
            timer: InlineTimer::new(Turns::default()),
            idle: Idle::new(idle),
        })
    }
}

impl<B> TimeoutBody<B> {
    pub(super) fn new(inner: B, limits: Option<Pin<Box<Limits>>>) -> Self {
        Self {
            state: State::Open { inner, limits },
        }
    }

    /// The inner body, unless it is gone: once its time has run out, or all of its rest has been taken over.
    pub fn get_ref(&self) -> Option<&B> {
        match &self.state {
            State::Open { inner, .. } => Some(inner),
            State::Rest { .. } | State::Failed => None,
        }
    }

    /// Drops the inner body (DESIGN rule 3). If it panics as it goes, what it came to is still told.
    ///
    /// ## Open => (Rest | Failed)
    fn finish(self: Pin<&mut Self>, end: State<B>) {
        let mut state = self.project().state;
        contain(|| state.set(end));
    }
}

impl<B> Body for TimeoutBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    /// A frame that is here in time wins over the timer. After the deadline the reader waits for nothing more; but a body
    /// that says how long it is, and that is there to its end when it is first looked at then, was finished in time: what is
    /// left of it is taken over, and read out however late its reader is. Of one that does not say, nobody knows whether it
    /// would ever end; and one that says it may still make each frame when it is asked, and so is asked for all of them now.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut last_look = false;
        let error = loop {
            let (mut inner, limits) = match self.as_mut().project().state.project() {
                StateProj::Open { inner, limits } => (inner, limits),
                StateProj::Rest { rest } => return Poll::Ready(rest.next(cx).map(Ok)),
                StateProj::Failed => return Poll::Ready(None),
            };
            let polled = inner.as_mut().poll_frame(cx);
            let Some(limits) = limits else {
                return polled.map_err(Into::into);
            };
            let mut limits = limits.as_mut().project();
            let timed_out = match polled {
                Poll::Ready(Some(Ok(frame))) if limits.clock.armed().is_overdue() => {
                    let mut rest = Box::new(Rest::new(frame));
                    match rest.take_all(inner, cx) {
                        Poll::Ready(Ok(())) => {
                            self.as_mut().finish(State::Rest { rest });
                            continue;
                        }
                        Poll::Ready(Err(error)) => break error,
                        Poll::Pending => break limits.clock.timed_out(Phase::Body).into(),
                    }
                }
                Poll::Ready(frame) => {
                    limits.idle.waits_no_more();
                    return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
                }
                Poll::Pending => match (
                    limits.timer.as_mut().poll(limits.clock.armed(), cx),
                    limits.idle.poll(cx),
                ) {
                    (Poll::Ready(()), _) => limits.clock.timed_out(Phase::Body),
                    (Poll::Pending, Poll::Ready(timed_out)) => timed_out,
                    (Poll::Pending, Poll::Pending) => return Poll::Pending,
                },
            };
            // The limit may have come between the two looks, and a frame with it (DESIGN rule 6).
            if last_look {
                break timed_out.into();
            }
            last_look = true;
        };
        self.finish(State::Failed);
        Poll::Ready(Some(Err(error)))
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Open { inner, .. } => inner.is_end_stream(),
            State::Rest { rest } => rest.is_empty(),
            State::Failed => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Open { inner, .. } => inner.size_hint(),
            State::Rest { rest } => rest.chunks.size_hint(),
            State::Failed => SizeHint::with_exact(0),
        }
    }
}

/// What was there of a body at its deadline: its end, and all before it.
#[derive(Debug, Default)]
struct Rest {
    chunks: Chunks,
    trailers: Option<HeaderMap>,
}

impl Rest {
    const MAX_BYTES: u64 = 1024 * 1024;

    /// What a merge answers with may be as many: so many bytes, in frames of 128.
    const MAX_FRAMES: usize = 8 * 1024;

    fn new(first: Frame<Bytes>) -> Self {
        let mut rest = Self::default();
        rest.push(first);
        rest
    }

    /// Takes what is left of a body that says how long it is. Pending if that is not all there, or too much: nobody is woken.
    fn take_all<B>(
        &mut self,
        mut inner: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let announced = inner.size_hint().exact().unwrap_or(u64::MAX);
        if self.chunks.len().saturating_add(announced) > Self::MAX_BYTES {
            return Poll::Pending;
        }
        // That the reader's task has used its share of this turn must not look as if a frame were not there.
        let all = poll_fn(|cx| self.poll_all(inner.as_mut(), cx));
        pin!(unconstrained(all)).poll(cx)
    }

    fn poll_all<B>(
        &mut self,
        mut inner: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), BoxError>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        // The first one is here already.
        for _ in 1..=Self::MAX_FRAMES {
            if inner.is_end_stream() {
                return Poll::Ready(Ok(()));
            }
            match ready!(inner.as_mut().poll_frame(cx)) {
                Some(Ok(frame)) => self.push(frame),
                Some(Err(error)) => return Poll::Ready(Err(error.into())),
                None => return Poll::Ready(Ok(())),
            }
            // It may be longer than it said.
            if self.chunks.len() > Self::MAX_BYTES {
                break;
            }
        }
        Poll::Pending
    }

    fn push(&mut self, frame: Frame<Bytes>) {
        match frame.into_data() {
            Ok(data) => self.chunks.push(data),
            Err(frame) => self.trailers = frame.into_trailers().ok(),
        }
    }

    fn next(&mut self, cx: &mut Context<'_>) -> Option<Frame<Bytes>> {
        match Pin::new(&mut self.chunks).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => Some(frame),
            _ => self.trailers.take().map(Frame::trailers),
        }
    }

    fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.trailers.is_none()
    }
}

pin_project! {
    /// A limit for each wait.
    #[derive(Debug)]
    struct Idle {
        limit: Duration,
        // Since when the reader has been waiting.
        since: Option<Instant>,
        // Kept from frame to frame.
        #[pin]
        sleep: Option<Sleep>,
        turns: Turns,
    }
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            sleep: None,
            turns: Turns::default(),
        }
    }

    fn waits_no_more(self: Pin<&mut Self>) {
        *self.project().since = None;
    }

    /// The reader waits.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<TimedOut> {
        let mut this = self.project();
        let limit = *this.limit;
        if limit == Duration::MAX {
            return Poll::Pending;
        }
        let now = Instant::now();
        let begins = this.since.is_none();
        let since = *this.since.get_or_insert(now);
        let Some(at) = since.checked_add(limit) else {
            return Poll::Pending;
        };
        if begins {
            *this.turns = Turns::default();
        }
        if now < at {
            if this.sleep.is_none() {
                this.sleep.set(Some(tokio::time::sleep_until(at)));
            }
            let mut sleep = this.sleep.as_pin_mut().expect("set above");
            if begins {
                sleep.as_mut().reset(at);
            }
            ready!(sleep.poll(cx));
        }
        ready!(this.turns.poll_over(at, cx));
        Poll::Ready(TimedOut::new(Phase::Idle, since.elapsed(), limit))
    }
}
