//! The bodies: the one of a response, and what a request's own leaves behind when it fails.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::ClientError;
use crate::error::{BoxError, panic_message};
use crate::sync::{Mutex, lock};

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
/// Dropping it before its end gives up the HTTP/1.1 connection, or the HTTP/2 stream.
pub struct ClientBody {
    incoming: Incoming,
    fault: Option<BodyFault>,
}

impl ClientBody {
    pub(super) fn new(incoming: Incoming, fault: Option<BodyFault>) -> Self {
        Self { incoming, fault }
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
        Pin::new(&mut this.incoming)
            .poll_frame(cx)
            .map_err(|error| ClientError::from_body(error, this.fault.as_ref()))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Debug for ClientBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.size_hint();
        f.debug_struct("ClientBody").field("left", &left).finish()
    }
}

/// Where a request's body leaves the error that it ended with.
///
/// Over HTTP/1.1 hyper hands that error on. Over HTTP/2 the body is sent by a task of its own: the error is logged, and the
/// call fails with a reset of the stream, as if the server had been at fault.
#[derive(Clone, Default)]
pub(super) struct BodyFault {
    error: Arc<Mutex<Option<BoxError>>>,
}

impl BodyFault {
    pub(super) fn take(&self) -> Option<BoxError> {
        lock(&self.error).take()
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

/// The body of a request, as hyper sends it.
pub(super) struct RequestBody<B> {
    body: B,
    fault: Option<BodyFault>,
    /// What is still to come of the announced length. hyper would cut a longer body off, as if it were whole, and after a
    /// shorter one wait for an answer that the server will not give.
    left: Option<u64>,
}

impl<B: Body> RequestBody<B> {
    /// A body of the `announced` length, if one is. One that is over before it begins can't fail, and gets no place for an
    /// error.
    pub(super) fn new(body: B, announced: Option<u64>) -> (Self, Option<BodyFault>) {
        let fault = (!body.is_end_stream()).then(BodyFault::default);
        let body = Self {
            body,
            fault: fault.clone(),
            left: announced,
        };
        (body, fault)
    }

    fn is_short(&self) -> bool {
        self.left.is_some_and(|left| left > 0)
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
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = &mut *self;
        // This runs in the task of the connection, which over HTTP/2 carries other calls too: a panic ends this one only.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx)));
        let error: BoxError = match polled {
            Ok(Poll::Pending) => return Poll::Pending,
            Ok(Poll::Ready(frame)) => match frame.transpose() {
                Ok(frame) => match this.account(frame.as_ref()) {
                    Ok(()) => return Poll::Ready(frame.map(Ok)),
                    Err(error) => error.into(),
                },
                Err(error) => error.into(),
            },
            Err(payload) => panic_message(payload.as_ref()).into(),
        };
        let Some(fault) = &this.fault else {
            return Poll::Ready(Some(Err(error)));
        };
        *lock(&fault.error) = Some(error);
        Poll::Ready(Some(Err(BodyFailed.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.is_short()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Makes the head say of the body what the body says of itself, and returns the announced length.
///
/// hyper believes the head. A `Content-Length` that was left over from another body would be sent with this one, and the
/// server would read the next request on that connection as the rest of it.
pub(super) fn announce<B: Body>(method: &Method, headers: &mut HeaderMap, body: &B) -> Option<u64> {
    let exact = if body.is_end_stream() {
        Some(0)
    } else {
        body.size_hint().exact()
    };
    if let Some(length) = exact {
        let expects_content = [Method::POST, Method::PUT, Method::PATCH].contains(method);
        if headers.contains_key(CONTENT_LENGTH) {
            if said_length(headers) != exact {
                headers.insert(CONTENT_LENGTH, length.into());
            }
        } else if length == 0 && expects_content {
            // RFC 9110 §8.6; hyper announces every length but this one.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        return exact;
    }
    if !headers.contains_key(TRANSFER_ENCODING) {
        let said = said_length(headers);
        if said.is_some() {
            return said;
        }
        // hyper takes a GET of unknown length for one without a body, unless it is told otherwise.
        if [Method::GET, Method::HEAD].contains(method) {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    // Overruled by the transfer coding, or not a length.
    headers.remove(CONTENT_LENGTH);
    None
}

/// The one `Content-Length`, if it is one.
fn said_length(headers: &HeaderMap) -> Option<u64> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let digits = std::str::from_utf8(line.as_bytes()).ok()?;
    // `parse` would take a sign as well.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}
