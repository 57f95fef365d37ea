//! The body of a request to the one backend of a passthrough.

use std::error::Error;
use std::fmt;
use std::iter::successors;
use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::ledger::is_timeout;
use crate::error::{BoxError, ClientFault, cause_ref};

pin_project! {
    /// The body of a request behind a [`PassthroughLayer`](super::PassthroughLayer): as it came, frames, trailers,
    /// `size_hint` and `is_end_stream`.
    ///
    /// Its error has a [`ClientFault`] in its chain: 400, or 413 if it is a
    /// [`LengthLimitError`](http_body_util::LengthLimitError). So whatever sends it does not pass for a backend that failed.
    /// An error that has one already, or a timeout such as [`TimedOut`](crate::deadline::TimedOut), goes on as it is.
    #[derive(Debug)]
    pub struct PassthroughBody<B> {
        #[pin]
        inner: B,
    }
}

impl<B> PassthroughBody<B> {
    pub(super) fn new(inner: B) -> Self {
        Self { inner }
    }

    /// The body as it came, whose errors don't say whose fault they are.
    pub fn get_ref(&self) -> &B {
        &self.inner
    }

    /// The same, for good.
    pub fn into_inner(self) -> B {
        self.inner
    }
}

impl<B> Body for PassthroughBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let polled = self.project().inner.poll_frame(cx);
        polled.map_err(|error| blame(error.into()))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

/// Says whose fault it is, unless the error does.
#[cold]
fn blame(error: BoxError) -> BoxError {
    if cause_ref::<ClientFault>(error.as_ref()).is_some() || is_timeout(error.as_ref()) {
        return error;
    }
    let fault = ClientFault::of_body(error.as_ref());
    UploadFailed { error, fault }.into()
}

/// A request's body that has failed. Its text is all that is known of the failure, for a log.
#[derive(Debug)]
struct UploadFailed {
    error: BoxError,
    fault: ClientFault,
}

impl fmt::Display for UploadFailed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)?;
        successors(self.error.source(), |error| (*error).source())
            .try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl Error for UploadFailed {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.fault)
    }
}
