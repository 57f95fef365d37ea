//! The body that several branches read at once.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::core::{Failure, Reader, Rest, Signal};
use crate::body::BoxBody;
use crate::error::{BoxError, ClientFault};

/// A request body with any number of concurrent readers: one source, no byte copied.
///
/// Every clone is a reader of its own and starts where the reader that it was cloned from stands. What has been read from
/// the source is kept until the last reader is dropped, up to a limit; so readers can't hold each other up, whatever their
/// speed, and a reader that never starts costs nobody anything but memory within that limit.
///
/// Trailers, `size_hint` and `is_end_stream` pass through to every reader.
///
/// # Errors
///
/// If the source is larger than the limit, or fails, every reader gets the same [`TeeError`].
///
/// # Cancellation
///
/// Any reader may be dropped at any byte. The source is read on behalf of whoever still waits, and dropped with the last.
///
/// ```
/// use bytes::Bytes;
/// use http_body_util::{BodyExt, Full};
/// use watershed::clone_request::TeeBody;
///
/// # tokio_test::block_on(async {
/// let one = TeeBody::new(Full::new(Bytes::from("once")), 1024);
/// let other = one.clone();
/// assert_eq!(one.collect().await.unwrap().to_bytes(), "once");
/// assert_eq!(other.collect().await.unwrap().to_bytes(), "once");
/// # });
/// ```
pub struct TeeBody {
    kind: Kind,
}

enum Kind {
    Empty,
    /// The rest is one chunk: nothing is shared but its bytes.
    One(Bytes),
    Reader(Reader<BoxBody>),
}

impl TeeBody {
    /// A tee over `body`, of which at most `limit` bytes are kept.
    pub fn new<B>(body: B, limit: u64) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let kind = if body.is_end_stream() {
            Kind::Empty
        } else {
            Kind::Reader(Reader::new(BoxBody::new(body), limit))
        };
        Self { kind }
    }

    /// A body without bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self { kind: Kind::Empty }
    }

    /// What tells a merge that the body was at fault, even if no branch says so.
    pub(super) fn watch(&self) -> Option<BodyWatch> {
        match &self.kind {
            Kind::Reader(reader) => Some(BodyWatch(Arc::clone(reader.signal()))),
            Kind::Empty | Kind::One(_) => None,
        }
    }
}

impl From<Bytes> for TeeBody {
    /// A body that is here already needs no limit: it is shared, not kept.
    fn from(bytes: Bytes) -> Self {
        let kind = if bytes.is_empty() {
            Kind::Empty
        } else {
            Kind::One(bytes)
        };
        Self { kind }
    }
}

impl Clone for TeeBody {
    fn clone(&self) -> Self {
        let kind = match &self.kind {
            Kind::Empty => Kind::Empty,
            Kind::One(bytes) => Kind::One(bytes.clone()),
            Kind::Reader(reader) => match reader.rest() {
                Some(Rest::Empty) => Kind::Empty,
                Some(Rest::One(bytes)) => Kind::One(bytes),
                None => Kind::Reader(reader.clone()),
            },
        };
        Self { kind }
    }
}

impl fmt::Debug for TeeBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.size_hint();
        f.debug_struct("TeeBody").field("left", &left).finish()
    }
}

impl Body for TeeBody {
    type Data = Bytes;
    type Error = TeeError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TeeError>>> {
        if let Kind::Reader(reader) = &mut self.kind {
            return reader.poll_frame(cx).map_err(TeeError::new);
        }
        match std::mem::replace(&mut self.kind, Kind::Empty) {
            Kind::One(bytes) => Poll::Ready(Some(Ok(Frame::data(bytes)))),
            _ => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Empty => true,
            Kind::One(_) => false,
            Kind::Reader(reader) => reader.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::One(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Reader(reader) => reader.size_hint(),
        }
    }
}

/// The error of every reader of a [`TeeBody`] whose source is too large or has failed.
///
/// Either is the client's fault: a [`ClientFault`] is in its chain of sources, and a merge answers 413 or 400.
#[derive(Debug, Clone)]
pub struct TeeError {
    fault: ClientFault,
    cause: Option<Arc<BoxError>>,
}

impl TeeError {
    fn new(failure: Failure) -> Self {
        let unreadable = || ClientFault::bad_request("the request body could not be read");
        let (fault, cause) = match failure {
            Failure::TooLarge { limit } => (ClientFault::too_large(limit), None),
            Failure::Source(error) => (unreadable(), Some(error)),
            Failure::Panicked => (unreadable(), None),
        };
        Self { fault, cause }
    }

    /// The error that the source ended with, if that is what happened.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        self.cause.as_deref().map(AsRef::as_ref)
    }
}

impl fmt::Display for TeeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cause {
            Some(cause) => write!(f, "{}: {cause}", self.fault),
            None => self.fault.fmt(f),
        }
    }
}

impl Error for TeeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&self.fault)
    }
}

/// An extension of a request whose body is a [`TeeBody`]: whether that body turned out to be at fault.
#[derive(Debug, Clone)]
pub(crate) struct BodyWatch(Arc<Signal>);

impl BodyWatch {
    pub(crate) fn fault(&self) -> Option<ClientFault> {
        self.0.failure().map(|failure| TeeError::new(failure).fault)
    }
}
