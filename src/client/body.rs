//! The bodies: the one of a response, and what a request's own leaves behind when it fails.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
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

/// The body of a request, as hyper sends it.
pub(super) struct RequestBody<B> {
    body: B,
    fault: Option<BodyFault>,
}

impl<B: Body> RequestBody<B> {
    /// A body that is over before it begins can't fail, and gets no place for an error.
    pub(super) fn new(body: B) -> (Self, Option<BodyFault>) {
        let fault = (!body.is_end_stream()).then(BodyFault::default);
        let body = Self {
            body,
            fault: fault.clone(),
        };
        (body, fault)
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
        let polled = catch_unwind(AssertUnwindSafe(|| {
            Pin::new(&mut this.body)
                .poll_frame(cx)
                .map_err(Into::<BoxError>::into)
        }))
        .unwrap_or_else(|payload| Poll::Ready(Some(Err(panic_message(payload.as_ref()).into()))));
        polled.map_err(|error| match &this.fault {
            Some(fault) => {
                *lock(&fault.error) = Some(error);
                BodyFailed.into()
            }
            None => error,
        })
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
