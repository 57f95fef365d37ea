//! The body of a response, and the end of the exchange that waits for it.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Version;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use crate::client::ClientError;
use crate::client::exchange::Exchange;
use crate::error::BoxError;

/// The body of a response.
///
/// Frames, trailers, `size_hint` and `is_end_stream` are as they come in.
///
/// # Errors
///
/// A [`ClientError`] for which [`is_response_body`](ClientError::is_response_body) holds if the body is shorter than the
/// server had announced, is misframed, or its stream was reset. A body that ended without an error is whole.
///
/// # Cancellation
///
/// Dropping it before its end gives up the HTTP/1.1 connection, or the HTTP/2 stream. Once it is over or dropped, what is left
/// of the request's body may still be sent for five seconds: see [`Client`](crate::client::Client#cancellation).
pub struct ClientBody {
    /// Until it is over: over HTTP/2, who has it keeps the stream.
    incoming: Option<Incoming>,
    version: Version,
    answer: Option<Answer>,
}

impl ClientBody {
    pub(crate) fn new(incoming: Incoming, version: Version, answer: Option<Answer>) -> Self {
        let body = Self {
            incoming: Some(incoming),
            version,
            answer,
        };
        body.notice_its_end();
        body
    }

    fn notice_its_end(&self) {
        match &self.answer {
            Some(answer) if self.is_end_stream() => answer.finish(),
            _ => {}
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let this = &mut *self;
        let Some(incoming) = &mut this.incoming else {
            return Poll::Ready(None);
        };
        Poll::Ready(match ready!(Pin::new(&mut *incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.notice_its_end();
                Some(Ok(frame))
            }
            Some(Err(error)) => {
                let answer = this.answer.take();
                Some(Err(ClientError::from_body(error, answer.as_ref())))
            }
            // To hyper, a stream that is reset without an error has ended, whatever was still to come (RFC 9113 §8.1).
            None if this.version == Version::HTTP_2 && !incoming.is_end_stream() => {
                let answer = this.answer.take();
                this.incoming = None;
                Some(Err(ClientError::from_reset(answer.as_ref())))
            }
            None => {
                this.answer = None;
                this.incoming = None;
                None
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}

impl fmt::Debug for ClientBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.size_hint();
        f.debug_struct("ClientBody").field("left", &left).finish()
    }
}

/// The end of an exchange that waits for the response. When it is dropped, the response is over.
pub(crate) struct Answer(pub(super) Arc<Exchange<Instant>>);

impl Answer {
    /// The error that the request's body ended with.
    ///
    /// Over HTTP/1.1 hyper hands that error on. Over HTTP/2 the body is sent by a task of its own: the error is logged, and
    /// the call fails with a reset of the stream, as if the server had been at fault.
    pub(crate) fn take_error(&self) -> Option<BoxError> {
        self.0.take_error()
    }

    pub(super) fn finish(&self) {
        self.0.finish(Instant::now());
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.finish();
    }
}
