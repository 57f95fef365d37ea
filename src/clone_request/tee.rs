//! The body that several branches read at once.

use std::error::Error;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::core::{Blocked, Failure, Keep, Reader, Rest, Signal};
use crate::body::BoxBody;
use crate::deadline::{Deadline, Timer};
use crate::error::{BoxError, ClientFault, cause_ref};

/// A request body with any number of concurrent readers: one source, and no byte copied, unless it comes in so
/// many small frames that they have to be joined.
///
/// Every clone is a reader of its own and starts where the reader that it was cloned from stands. Trailers, `size_hint` and
/// `is_end_stream` pass through to every reader.
///
/// # How much is kept
///
/// With [`new`](Self::new), all that has been read from the source, up to a limit, until the last reader is dropped. Readers
/// can't hold each other up, whatever their speed, and one that never starts costs memory within that limit and nothing else.
///
/// With [`stream`](Self::stream), what the slowest reader has not read yet, of which there is a window. A reader that needs
/// more than that waits for the slowest; one that holds the window for `stall` while another waits is out, with
/// [`TeeError::is_lagged`], and the others go on. It makes no difference why it holds it: that it was polled once and never
/// again, was cloned and never started, or is stuck. However many have stopped, they cost the others one `stall`, or two if
/// some stopped level with the fastest. A reader that reads *something* within `stall` stays, and sets the pace for all: if
/// that is too slow, give its branch a timeout.
///
/// # Errors
///
/// If the source is larger than the limit, or fails, every reader gets the same [`TeeError`].
///
/// # Cancellation
///
/// Any reader may be dropped at any byte; its share of a window is let go. The source is read on behalf of whoever still
/// waits, and dropped with the last reader.
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
    Reader {
        reader: Reader<BoxBody>,
        stall: Stall,
    },
}

/// A reader's patience with those that hold the window.
struct Stall {
    limit: Duration,
    /// Armed while the reader is blocked: since when, and until when.
    timer: Option<(Blocked, Timer)>,
}

impl Stall {
    fn new(limit: Duration) -> Self {
        Self { limit, timer: None }
    }

    /// Ready once the window has stood still for the limit, with what there was to see when it began to.
    fn poll(&mut self, blocked: Blocked, cx: &mut Context<'_>) -> Poll<Blocked> {
        let (since, timer) = match &mut self.timer {
            Some(armed) if armed.0.moves == blocked.moves => armed,
            stale => stale.insert((blocked, Timer::new(Deadline::after(self.limit)))),
        };
        timer.poll(cx).map(|()| *since)
    }
}

impl TeeBody {
    /// A tee over `body` that keeps all of it, up to `limit` bytes.
    pub fn new<B>(body: B, limit: u64) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self::with(body, Keep::All { limit }, Duration::MAX)
    }

    /// A tee over `body` that streams: no more than `window` bytes are kept, and one frame of the source.
    ///
    /// A reader that holds the window for `stall` while another waits has failed. The timer is tokio's, armed only while a
    /// reader waits. `Duration::MAX` waits for ever, and so may hang if a reader never goes on.
    ///
    /// # Panics
    ///
    /// If `window` is zero. A reader that has to wait panics outside a Tokio runtime with a timer.
    #[track_caller]
    pub fn stream<B>(body: B, window: u64, stall: Duration) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        assert!(window > 0, "a window of zero would keep no frame");
        Self::with(body, Keep::Window { bytes: window }, stall)
    }

    fn with<B>(body: B, keep: Keep, stall: Duration) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let kind = if body.is_end_stream() {
            Kind::Empty
        } else {
            Kind::Reader {
                reader: Reader::new(BoxBody::new(body), keep),
                stall: Stall::new(stall),
            }
        };
        Self { kind }
    }

    /// Whether the whole of it can be read again by a clone made now: for code that sends a request more than once.
    ///
    /// # Errors
    ///
    /// [`NotReplayable`] if the body is streamed through a window, so that what has been read is gone; or if it has turned
    /// out larger than the limit.
    pub fn replayable(&self) -> Result<(), NotReplayable> {
        let Kind::Reader { reader, .. } = &self.kind else {
            return Ok(());
        };
        match (reader.keep(), reader.signal().failure()) {
            (Keep::Window { .. }, _) => Err(NotReplayable::Streamed),
            (_, Some(Failure::TooLarge { limit })) => Err(NotReplayable::TooLarge { limit }),
            _ => Ok(()),
        }
    }

    /// Whether it is streamed through a window.
    pub(crate) fn is_streamed(&self) -> bool {
        matches!(self.replayable(), Err(NotReplayable::Streamed))
    }

    /// A body without bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self { kind: Kind::Empty }
    }

    /// What tells a merge that the body was at fault, even if no branch says so.
    pub(super) fn watch(&self) -> Option<BodyWatch> {
        match &self.kind {
            Kind::Reader { reader, .. } => Some(BodyWatch(Arc::clone(reader.signal()))),
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

impl From<Rest> for Kind {
    fn from(rest: Rest) -> Self {
        match rest {
            Rest::Empty => Self::Empty,
            Rest::One(bytes) => Self::One(bytes),
        }
    }
}

impl Clone for TeeBody {
    fn clone(&self) -> Self {
        let kind = match &self.kind {
            Kind::Empty => Kind::Empty,
            Kind::One(bytes) => Kind::One(bytes.clone()),
            Kind::Reader { reader, stall } => match reader.rest() {
                Some(rest) => rest.into(),
                None => Kind::Reader {
                    reader: reader.clone(),
                    stall: Stall::new(stall.limit),
                },
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
        if let Kind::Reader { reader, stall } = &mut self.kind {
            let Some(rest) = reader.rest() else {
                return poll_reader(reader, stall, cx).map_err(TeeError::new);
            };
            // From here on nothing is shared but the bytes.
            self.kind = rest.into();
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
            Kind::Reader { reader, .. } => match reader.rest() {
                Some(rest) => matches!(rest, Rest::Empty),
                None => reader.is_end_stream(),
            },
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Empty => SizeHint::with_exact(0),
            Kind::One(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Kind::Reader { reader, .. } => match reader.rest() {
                Some(Rest::Empty) => SizeHint::with_exact(0),
                Some(Rest::One(bytes)) => SizeHint::with_exact(bytes.len() as u64),
                None => reader.size_hint(),
            },
        }
    }
}

/// ## Waiting => (Waiting | Frame | Lagged)
///
/// A reader that waits for the window gives those who hold it as long as they may, and then goes on without them.
fn poll_reader(
    reader: &mut Reader<BoxBody>,
    stall: &mut Stall,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
    loop {
        let polled = reader.poll_frame(cx);
        if polled.is_ready() {
            stall.timer = None;
            return polled;
        }
        let Some(blocked) = reader.blocked() else {
            stall.timer = None;
            return Poll::Pending;
        };
        let since = ready!(stall.poll(blocked, cx));
        stall.timer = None;
        reader.evict(since);
    }
}

/// The error of a reader of a [`TeeBody`].
///
/// A source that is too large, or that fails, is the client's fault: a [`ClientFault`] is in the error's chain of sources,
/// and a merge answers 413 or 400. That a reader has lagged is the failure of whoever read.
#[derive(Debug, Clone)]
pub struct TeeError {
    failure: Failure,
    fault: Option<ClientFault>,
}

impl TeeError {
    fn new(failure: Failure) -> Self {
        let fault = match &failure {
            Failure::TooLarge { limit } => Some(ClientFault::too_large(*limit)),
            Failure::Panicked => Some(ClientFault::unreadable_body()),
            Failure::Lagged => None,
            Failure::Source(cause) => {
                let cause: &(dyn Error + 'static) = cause.as_ref().as_ref();
                // A tee of a tee: what happened to the outer one has happened to this one.
                if let Some(outer) = cause_ref::<Self>(cause) {
                    return outer.clone();
                }
                Some(ClientFault::of_body(cause))
            }
        };
        Self { failure, fault }
    }

    /// Whether the body is larger than its limit.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        matches!(self.failure, Failure::TooLarge { .. })
    }

    /// Whether this reader held the window for too long.
    #[must_use]
    pub fn is_lagged(&self) -> bool {
        matches!(self.failure, Failure::Lagged)
    }

    /// The error that the source ended with, if that is what happened.
    #[must_use]
    pub fn cause(&self) -> Option<&(dyn Error + Send + Sync + 'static)> {
        match &self.failure {
            Failure::Source(cause) => Some(cause.as_ref().as_ref()),
            _ => None,
        }
    }
}

impl fmt::Display for TeeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.fault, self.cause()) {
            (Some(fault), Some(cause)) => write!(f, "{fault}: {cause}"),
            (Some(fault), None) => fault.fmt(f),
            (None, _) => f.write_str("this reader of the request body held up the others"),
        }
    }
}

impl Error for TeeError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.fault
            .as_ref()
            .map(|fault| fault as &(dyn Error + 'static))
    }
}

/// Why a request can't be sent again: see [`TeeBody::replayable`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotReplayable {
    /// The body is streamed through a window.
    #[error("the request body is streamed, and what has been read of it is gone")]
    Streamed,
    /// The body is larger than what may be kept.
    #[error("the request body is larger than the {limit} bytes that are kept")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
}

/// An extension of a request whose body is a [`TeeBody`]: whether that body turned out to be at fault.
#[derive(Debug, Clone)]
pub(crate) struct BodyWatch(Arc<Signal>);

impl BodyWatch {
    pub(crate) fn fault(&self) -> Option<ClientFault> {
        TeeError::new(self.0.failure()?).fault
    }
}
