//! The body of a request, and how long it may go on.

use std::io::IoSlice;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::time::Instant;

use super::Answer;
use crate::client::exchange::Exchange;
use crate::client::linger::{self, LINGER, Linger};
use crate::error::{BoxError, panic_message};

/// Has something that is still to be sent, as long as it lives.
struct Unsent(Arc<Exchange<Instant>>);

impl Clone for Unsent {
    fn clone(&self) -> Self {
        self.0.hold();
        Self(Arc::clone(&self.0))
    }
}

impl Drop for Unsent {
    fn drop(&mut self) {
        self.0.sent();
    }
}

/// The end of an exchange that sends the request's body.
struct Sender {
    unsent: Unsent,
    /// Since the response is over.
    linger: Linger,
    /// Whether the task that polls the body knows of it.
    begun: bool,
}

impl Sender {
    fn begin(&mut self) {
        if !std::mem::replace(&mut self.begun, true) {
            linger::begin(&self.unsent.0);
        }
    }

    /// Whether the body has had its time, if another piece of it has come.
    fn is_late(&mut self) -> bool {
        let over = self.unsent.0.over();
        over.is_some_and(|over| self.linger.has_passed(over))
    }

    /// Ready when the body has had its time, if it waits.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.unsent.0.over_or_wake(cx.waker()) {
            Some(over) => self.linger.poll(over, cx),
            None => Poll::Pending,
        }
    }
}

/// A piece of a request's body. hyper drops it when it is written.
pub(crate) struct Piece<D> {
    data: D,
    _unsent: Option<Unsent>,
}

impl<D: Buf> Buf for Piece<D> {
    fn remaining(&self) -> usize {
        self.data.remaining()
    }

    fn chunk(&self) -> &[u8] {
        self.data.chunk()
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        self.data.chunks_vectored(slices)
    }

    fn advance(&mut self, count: usize) {
        self.data.advance(count);
    }

    fn copy_to_bytes(&mut self, length: usize) -> Bytes {
        self.data.copy_to_bytes(length)
    }
}

/// What hyper is told in place of the error itself.
#[derive(Debug, thiserror::Error)]
#[error("the request body failed")]
struct BodyFailed;

/// A body is not of the length that the request announces.
#[derive(Debug, thiserror::Error)]
#[error("the request body is not of its announced length")]
struct WrongLength;

/// The response has been over for so long that the rest of the request is given up.
#[derive(Debug, thiserror::Error)]
#[error("the request body went on for more than {LINGER:?} after the end of the response")]
struct Unwanted;

/// The body of a request, as hyper sends it.
pub(crate) struct RequestBody<B> {
    body: B,
    sender: Option<Sender>,
    /// What is still to come of the announced length. hyper would cut a longer body off, as if it were whole, and after a
    /// shorter one wait for an answer that the server will not give.
    left: Option<u64>,
}

impl<B: Body> RequestBody<B> {
    /// A body of the `announced` length, if one is. One that is over before it begins can't fail and outlasts no response,
    /// so it shares nothing.
    pub(crate) fn new(body: B, announced: Option<u64>) -> (Self, Option<Answer>) {
        let exchange = (!body.is_end_stream()).then(|| Arc::new(Exchange::new()));
        let body = Self {
            body,
            sender: exchange.clone().map(|exchange| Sender {
                unsent: Unsent(exchange),
                linger: Linger::default(),
                begun: false,
            }),
            left: announced,
        };
        (body, exchange.map(Answer))
    }

    fn is_short(&self) -> bool {
        self.left.is_some_and(|left| left > 0)
    }

    /// Whether it goes on although it has had its time. At a tie, its end wins.
    fn is_late(&mut self) -> bool {
        let ends = self.body.is_end_stream() || self.left == Some(0);
        !ends && self.sender.as_mut().is_some_and(Sender::is_late)
    }

    fn piece(&self, frame: Frame<B::Data>) -> Frame<Piece<B::Data>> {
        frame.map_data(|data| Piece {
            data,
            _unsent: self.sender.as_ref().map(|sender| sender.unsent.clone()),
        })
    }

    /// Counts a frame, or the end.
    fn account(&mut self, frame: Option<&Frame<B::Data>>) -> Result<(), WrongLength> {
        if let Some(data) = frame.and_then(Frame::data_ref) {
            if let Some(left) = &mut self.left {
                *left = left
                    .checked_sub(data.remaining() as u64)
                    .ok_or(WrongLength)?;
            }
        } else if self.is_short() {
            return Err(WrongLength);
        }
        Ok(())
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Piece<B::Data>;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece<B::Data>>, BoxError>>> {
        let this = &mut *self;
        // This runs in the task of the connection, which over HTTP/2 carries other calls too: a panic ends this one only.
        let polled = linger::apart(|| {
            catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx)))
        });
        if let Some(sender) = &mut this.sender {
            sender.begin();
        }
        let error: BoxError = match polled {
            Ok(Poll::Pending) => {
                return match &mut this.sender {
                    Some(sender) => sender.poll_late(cx).map(|()| Some(Err(Unwanted.into()))),
                    None => Poll::Pending,
                };
            }
            Ok(Poll::Ready(frame)) => match frame.transpose() {
                Ok(frame) => match this.account(frame.as_ref()) {
                    Ok(()) if frame.as_ref().is_some_and(Frame::is_data) && this.is_late() => {
                        return Poll::Ready(Some(Err(Unwanted.into())));
                    }
                    Ok(()) => return Poll::Ready(frame.map(|frame| Ok(this.piece(frame)))),
                    Err(error) => error.into(),
                },
                Err(error) => error.into(),
            },
            Err(payload) => panic_message(payload).into(),
        };
        let Some(sender) = &this.sender else {
            return Poll::Ready(Some(Err(error)));
        };
        sender.unsent.0.fail(error);
        Poll::Ready(Some(Err(BodyFailed.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.is_short()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests;
