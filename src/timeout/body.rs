//! The body that is held to its call's deadline, and to a limit between its frames.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::clock::Clock;
use crate::deadline::{InlineTimer, Phase, TimedOut};
use crate::error::BoxError;

pin_project! {
    /// A body that ends with [`TimedOut`](crate::deadline::TimedOut) if it has not ended at the deadline of its call, or
    /// if it has kept its reader waiting for a frame for too long.
    ///
    /// The deadline is absolute: a body that drips is ended as one that stalls. Only what is here of a body that says how
    /// long it is may be read out after it, as its reader is late and not the body. An idle limit counts only while the
    /// reader waits. After the error the body is over, and the inner one gone. Frames, trailers, `size_hint` and `is_end_stream` pass through.
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
        Failed,
    }
}

pin_project! {
    #[derive(Debug)]
    struct Limits {
        clock: Clock,
        #[pin]
        timer: InlineTimer,
        #[pin]
        idle: Idle,
    }
}

impl<B> TimeoutBody<B> {
    /// Held to the clock's deadline, and to a limit between frames.
    pub(super) fn new(inner: B, clock: Clock, idle: Duration) -> Self {
        let is_limited = clock.enforces().is_some() || idle != Duration::MAX;
        let limits = is_limited.then(|| {
            Box::pin(Limits {
                clock,
                timer: InlineTimer::new(clock.armed()),
                idle: Idle::new(idle),
            })
        });
        Self {
            state: State::Open { inner, limits },
        }
    }

    /// Held to nothing.
    pub(super) fn unlimited(inner: B) -> Self {
        Self {
            state: State::Open {
                inner,
                limits: None,
            },
        }
    }

    /// Drops the inner body (DESIGN rule 3). If it panics as it goes, the error is still told.
    ///
    /// ## Open => Failed
    fn fail(self: Pin<&mut Self>) {
        let mut state = self.project().state;
        let _ = catch_unwind(AssertUnwindSafe(|| state.set(State::Failed)));
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
    /// that says how long it is may be read out as long as it is here: it was finished in time, and its reader is late. Of
    /// one that does not say, nobody knows whether it would ever end.
    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let StateProj::Open { mut inner, limits } = self.as_mut().project().state.project() else {
            return Poll::Ready(None);
        };
        let polled = inner.as_mut().poll_frame(cx);
        let Some(limits) = limits else {
            return polled.map_err(Into::into);
        };
        let mut limits = limits.as_mut().project();
        let timed_out = match polled {
            Poll::Ready(Some(Ok(_)))
                if limits.clock.armed().is_overdue() && inner.size_hint().exact().is_none() =>
            {
                limits.clock.timed_out(Phase::Body)
            }
            Poll::Ready(frame) => {
                limits.idle.waits_no_more();
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            }
            Poll::Pending => match (limits.timer.as_mut().poll(cx), limits.idle.poll(cx)) {
                (Poll::Ready(()), _) => limits.clock.timed_out(Phase::Body),
                (Poll::Pending, Poll::Ready(timed_out)) => timed_out,
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
            },
        };
        self.fail();
        Poll::Ready(Some(Err(timed_out.into())))
    }

    fn is_end_stream(&self) -> bool {
        match &self.state {
            State::Open { inner, .. } => inner.is_end_stream(),
            State::Failed => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.state {
            State::Open { inner, .. } => inner.size_hint(),
            State::Failed => SizeHint::with_exact(0),
        }
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
    }
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            sleep: None,
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
        if now >= at {
            let elapsed = now.saturating_duration_since(since);
            return Poll::Ready(TimedOut::new(Phase::Idle, elapsed, limit));
        }
        if this.sleep.is_none() {
            this.sleep.set(Some(tokio::time::sleep_until(at)));
        }
        let mut sleep = this.sleep.as_pin_mut().expect("set above");
        if begins {
            sleep.as_mut().reset(at);
        }
        let timed_out = || TimedOut::new(Phase::Idle, since.elapsed(), limit);
        sleep.poll(cx).map(|()| timed_out())
    }
}
