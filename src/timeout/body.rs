//! The body that is held to its call's deadline.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::client::Clock;
use crate::deadline::Phase;
use crate::error::BoxError;

pin_project! {
    /// A body that ends with [`TimedOut`](crate::deadline::TimedOut) if it has not ended at the deadline of its call.
    ///
    /// The deadline is absolute: a body that drips is ended as one that stalls. After the error it is over. Frames, trailers,
    /// `size_hint` and `is_end_stream` pass through.
    #[derive(Debug)]
    pub struct TimeoutBody<B> {
        #[pin]
        inner: B,
        clock: Clock,
        failed: bool,
    }
}

impl<B> TimeoutBody<B> {
    pub(super) fn new(inner: B, clock: Clock) -> Self {
        Self {
            inner,
            clock,
            failed: false,
        }
    }
}

impl<B> Body for TimeoutBody<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    /// A frame that is here in time wins over the timer; one that is here late does not, or a body that always has one
    /// would outrun its deadline.
    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = self.project();
        if *this.failed {
            return Poll::Ready(None);
        }
        match this.inner.poll_frame(cx) {
            Poll::Ready(Some(Ok(_))) if this.clock.is_overdue() => {}
            Poll::Ready(frame) => return Poll::Ready(frame.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => ready!(this.clock.poll(cx)),
        }
        *this.failed = true;
        let error = this.clock.timed_out(Phase::Body);
        Poll::Ready(Some(Err(error.into())))
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
