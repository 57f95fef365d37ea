//! The backend itself.

use std::fmt;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::Service;

use super::body::ScriptedBody;
use super::core::{Log, Running, Script, Shared};
use super::error::ScriptedError;
use super::future::{ScriptedFuture, run};
use super::record::RecordedCall;
use super::reply::Reply;
use crate::deadline::{Deadline, Timer};
use crate::error::BoxError;
use crate::sync::{Mutex, MutexGuard, lock};

/// A backend that does what its script says, and records what became of every call.
///
/// See the [module docs](crate::test_util) for an example. Clones share the script, its position and the record, whatever
/// the branch or the task that they are in: keep one to ask.
///
/// A script is a list of [replies](Reply), one per call, in the order of the calls; the last one is given to all further
/// calls as well.
///
/// # Readiness
///
/// It is ready at once, unless [`never_ready`](Self::never_ready), [`ready_after`](Self::ready_after) or
/// [`ready_fails`](Self::ready_fails) say otherwise. A clone starts unready, and so does every further call.
///
/// # Errors
///
/// What the script says, and the error of a request body that could not be read, boxed as it is.
///
/// # Panics
///
/// `call` panics if `poll_ready` has not said ready since the last call *on this very clone*: to call a clone of the
/// service that was ready is the mistake that most services forgive and a loaded one does not.
///
/// # Cancellation
///
/// Dropping the future ends the call, and counts as [`dropped`](Self::dropped). A call counts as
/// [`started`](Self::started) even if its future is never polled.
pub struct Scripted {
    shared: Arc<Shared>,
    readiness: Readiness,
    request_body: RequestBody,
    kept_calls: usize,
    timer: Option<Timer>,
    ready: bool,
}

#[derive(Debug, Clone)]
enum Readiness {
    AtOnce,
    After(Duration),
    Never,
    Fails(ScriptedError),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RequestBody {
    Read,
    Ignored,
}

impl Scripted {
    /// A backend that gives these replies, one per call, and the last one to all further calls.
    ///
    /// # Panics
    ///
    /// If there is none.
    #[must_use]
    #[track_caller]
    pub fn new(replies: impl IntoIterator<Item = Reply>) -> Self {
        let replies: Vec<_> = replies.into_iter().collect();
        assert!(!replies.is_empty(), "a script needs a reply");
        Self::with(Script::List(replies))
    }

    /// A backend that gives this reply to every call.
    #[must_use]
    pub fn reply(reply: Reply) -> Self {
        Self::new([reply])
    }

    /// A backend whose reply depends on what it has received. A panic in `reply` is one of the call.
    #[must_use]
    pub fn from_fn(reply: impl Fn(&RecordedCall) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(Script::Computed(Box::new(reply)))
    }

    /// A backend that answers 200 with what it has received:
    /// `{"method":"GET","path":"/a","query":"b=c","headers":{"accept":"*/*"},"body":""}`.
    ///
    /// `query` is `null` if there is none, and `body` if it was not read. Header names are sorted, and the lines of one
    /// field joined by a comma (RFC 9110 §5.3). Bytes that are not UTF-8 become replacement characters.
    #[must_use]
    pub fn echo() -> Self {
        Self::reply(Reply::echo())
    }

    /// A backend that never becomes ready.
    #[must_use]
    pub fn never_ready() -> Self {
        Self {
            readiness: Readiness::Never,
            ..Self::reply(Reply::hang())
        }
    }

    /// A backend whose `poll_ready` fails, with a [`ScriptedError`] that says `text`.
    #[must_use]
    pub fn ready_fails(text: impl Into<String>) -> Self {
        Self {
            readiness: Readiness::Fails(ScriptedError::new(text)),
            ..Self::reply(Reply::hang())
        }
    }

    /// Becomes ready this long after it has first been asked. Every clone waits on its own, and anew for every call.
    #[must_use]
    pub fn ready_after(mut self, delay: Duration) -> Self {
        self.readiness = Readiness::After(delay);
        self
    }

    /// Whether the whole request body is read, and recorded, before anything is answered. Default: yes. The body is held
    /// in memory, without a limit of its own. If not, the body is dropped unread once the answer is there.
    #[must_use]
    pub fn reads_request_body(mut self, reads: bool) -> Self {
        self.request_body = if reads {
            RequestBody::Read
        } else {
            RequestBody::Ignored
        };
        self
    }

    /// How many calls are recorded in [`calls`](Self::calls): the first ones. Default: 10 000. All further calls are
    /// answered and counted alike.
    #[must_use]
    pub fn keep_calls(mut self, calls: usize) -> Self {
        self.kept_calls = calls;
        self
    }

    /// What was received, in the order of the calls; one that runs still, or was dropped, is in it as well.
    #[must_use]
    pub fn calls(&self) -> Vec<RecordedCall> {
        self.log().calls.clone()
    }

    /// The calls so far.
    #[must_use]
    pub fn started(&self) -> usize {
        self.log().started
    }

    /// The calls that ended by themselves: with a head, an error or a panic.
    #[must_use]
    pub fn finished(&self) -> usize {
        self.log().finished
    }

    /// The calls whose future was dropped before it finished.
    #[must_use]
    pub fn dropped(&self) -> usize {
        self.log().dropped
    }

    /// The calls that are neither finished nor dropped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.log().in_flight()
    }

    /// The most calls that have been in flight at once.
    #[must_use]
    pub fn peak_in_flight(&self) -> usize {
        self.log().peak
    }

    /// The response bodies that were read to their end, be it an error. A body that says of itself that it is at its end
    /// (`is_end_stream`) needs no more reading.
    #[must_use]
    pub fn bodies_finished(&self) -> usize {
        self.log().bodies_finished
    }

    /// The response bodies that were dropped before their end.
    #[must_use]
    pub fn bodies_dropped(&self) -> usize {
        self.log().bodies_dropped
    }

    fn with(script: Script) -> Self {
        Self {
            shared: Arc::new(Shared {
                script,
                log: Mutex::default(),
            }),
            readiness: Readiness::AtOnce,
            request_body: RequestBody::Read,
            kept_calls: 10_000,
            timer: None,
            ready: false,
        }
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        lock(&self.shared.log)
    }
}

impl Clone for Scripted {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            readiness: self.readiness.clone(),
            request_body: self.request_body,
            kept_calls: self.kept_calls,
            // A clone never copies readiness (DESIGN rule 2).
            timer: None,
            ready: false,
        }
    }
}

impl fmt::Debug for Scripted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Scripted");
        if let Script::List(replies) = &self.shared.script {
            debug.field("replies", replies);
        }
        let log = self.log();
        debug
            .field("readiness", &self.readiness)
            .field("started", &log.started)
            .field("finished", &log.finished)
            .field("dropped", &log.dropped)
            .finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Scripted
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ScriptedBody>;
    type Error = BoxError;
    type Future = ScriptedFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        match &self.readiness {
            Readiness::AtOnce => {}
            Readiness::After(delay) => {
                let timer = self
                    .timer
                    .get_or_insert_with(|| Timer::new(Deadline::after(*delay)));
                ready!(timer.poll(cx));
            }
            Readiness::Never => return Poll::Pending,
            Readiness::Fails(error) => return Poll::Ready(Err(error.clone().into())),
        }
        self.ready = true;
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ScriptedFuture {
        let ready = std::mem::take(&mut self.ready);
        assert!(
            ready,
            "called without having been ready since the last call"
        );
        self.timer = None;
        let (head, body) = request.into_parts();
        let call = RecordedCall {
            at: tokio::time::Instant::now().into_std(),
            method: head.method,
            uri: head.uri,
            version: head.version,
            headers: head.headers,
            body: None,
            trailers: None,
        };
        let running = Running::start(&self.shared, &call, self.kept_calls);
        ScriptedFuture {
            inner: Box::pin(run(running, call, body, self.request_body)),
        }
    }
}
