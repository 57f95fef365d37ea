//! The body that is held to its call's deadline, and to a limit between its frames.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::clock::Clock;
use crate::deadline::{Phase, TimedOut, Timer};
use crate::error::BoxError;

pin_project! {
    /// A body that ends with [`TimedOut`](crate::deadline::TimedOut) if it has not ended at the deadline of its call, or if it
    /// has kept its reader waiting for a frame for too long.
    ///
    /// The deadline is absolute: a body that drips is ended as one that stalls. An idle limit counts only while the reader waits:
    /// a reader that takes its time costs the body nothing. After the error the body is over. Frames, trailers, `size_hint`
    /// and `is_end_stream` pass through.
    #[derive(Debug)]
    pub struct TimeoutBody<B> {
        #[pin]
        inner: B,
        clock: Clock,
        timer: Timer,
        idle: Idle,
        failed: bool,
    }
}

impl<B> TimeoutBody<B> {
    pub(super) fn new(inner: B, clock: Clock, idle: Duration) -> Self {
        Self {
            inner,
            clock,
            timer: Timer::new(clock.armed()),
            idle: Idle::new(idle),
            failed: false,
        }
    }

    /// A body that no timer touches: that of a connection which is not HTTP any more.
    pub(super) fn untouched(inner: B, clock: Clock) -> Self {
        Self::new(inner, clock.stopped(), Duration::MAX)
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
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut this = self.project();
        if *this.failed {
            return Poll::Ready(None);
        }
        let timed_out = match this.inner.as_mut().poll_frame(cx) {
            Poll::Ready(Some(Ok(_)))
                if this.timer.deadline().is_overdue()
                    && this.inner.size_hint().exact().is_none() =>
            {
                this.clock.timed_out(Phase::Body)
            }
            Poll::Ready(frame) => {
                this.idle.waits_no_more();
                return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
            }
            Poll::Pending => match (this.timer.poll(cx), this.idle.poll(cx)) {
                (Poll::Ready(()), _) => this.clock.timed_out(Phase::Body),
                (Poll::Pending, Poll::Ready(timed_out)) => timed_out,
                (Poll::Pending, Poll::Pending) => return Poll::Pending,
            },
        };
        *this.failed = true;
        Poll::Ready(Some(Err(timed_out.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.failed || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        match self.failed {
            true => SizeHint::with_exact(0),
            false => self.inner.size_hint(),
        }
    }
}

/// A limit for each wait.
#[derive(Debug)]
struct Idle {
    limit: Duration,
    /// Since when the reader has been waiting.
    since: Option<Instant>,
    /// Kept from frame to frame.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Idle {
    fn new(limit: Duration) -> Self {
        Self {
            limit,
            since: None,
            sleep: None,
        }
    }

    fn waits_no_more(&mut self) {
        self.since = None;
    }

    /// The reader waits.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<TimedOut> {
        if self.limit == Duration::MAX {
            return Poll::Pending;
        }
        let now = Instant::now();
        let begins = self.since.is_none();
        let since = *self.since.get_or_insert(now);
        let Some(at) = since.checked_add(self.limit) else {
            return Poll::Pending;
        };
        if now >= at {
            let elapsed = now.saturating_duration_since(since);
            return Poll::Ready(TimedOut::new(Phase::Idle, elapsed, self.limit));
        }
        let sleep = self
            .sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
        if begins {
            sleep.as_mut().reset(at);
        }
        sleep
            .as_mut()
            .poll(cx)
            .map(|()| TimedOut::new(Phase::Idle, self.limit, self.limit))
    }
}
