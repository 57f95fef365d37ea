//! A backend that does what its script says, and records what became of every call.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tower::Service;

use crate::deadline::{Deadline, Timer};
use crate::error::{BoxError, write_json_str};
use crate::sync::{Mutex, MutexGuard, lock};

/// What a [`Scripted`] backend says to one call.
///
/// Delays are those of the runtime's clock, so a test with a paused clock waits for none of them.
///
/// ```
/// use std::time::Duration;
/// use watershed::test_util::Reply;
///
/// // The head after 10 ms, two frames 20 ms later, and then the connection breaks.
/// let cut_short = Reply::status(200)
///     .header("content-type", "application/json")
///     .after(Duration::from_millis(10))
///     .frames([r#"{"a":"#, "1"])
///     .body_after(Duration::from_millis(20))
///     .then_fail();
/// # let _ = cut_short;
/// ```
#[derive(Debug, Clone)]
pub struct Reply {
    kind: Kind,
    after: Duration,
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
    body_after: Option<Duration>,
    trailers: Option<HeaderMap>,
    end: End,
}

#[derive(Debug, Clone)]
enum Kind {
    Answer,
    Hang,
    Fail(MakeError),
    Panic(String),
}

#[derive(Debug, Clone)]
enum Content {
    /// Its length is announced.
    Whole(Bytes),
    /// Its length is not.
    Frames(Vec<Bytes>),
    /// What was received, as JSON.
    Echo,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Clean,
    Hang,
    Fail,
}

/// A boxed error can't be cloned, and the last reply of a script is given again and again.
#[derive(Clone)]
struct MakeError(Arc<dyn Fn() -> BoxError + Send + Sync>);

impl fmt::Debug for MakeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0)().fmt(f)
    }
}

impl Reply {
    fn new(kind: Kind) -> Self {
        Self {
            kind,
            after: Duration::ZERO,
            status: StatusCode::OK,
            headers: HeaderMap::new(),
            content: Content::Whole(Bytes::new()),
            body_after: None,
            trailers: None,
            end: End::Clean,
        }
    }

    /// An answer with this status and, until a [`body`](Self::body) or [`frames`](Self::frames) follow, an empty body.
    ///
    /// # Panics
    ///
    /// If `status` is not a status code.
    #[must_use]
    #[track_caller]
    pub fn status<S>(status: S) -> Self
    where
        S: TryInto<StatusCode>,
        S::Error: fmt::Debug,
    {
        Self {
            status: status.try_into().expect("a status code"),
            ..Self::new(Kind::Answer)
        }
    }

    /// 200 with a body of `application/json`. That it *is* JSON is not checked.
    #[must_use]
    pub fn json(body: impl Into<Bytes>) -> Self {
        let json = HeaderValue::from_static("application/json");
        Self::status(StatusCode::OK)
            .header(CONTENT_TYPE, json)
            .body(body)
    }

    /// 200 with what was received as JSON: see [`Scripted::echo`].
    #[must_use]
    pub fn echo() -> Self {
        Self {
            content: Content::Echo,
            ..Self::json("")
        }
    }

    /// No answer, ever.
    #[must_use]
    pub fn hang() -> Self {
        Self::new(Kind::Hang)
    }

    /// The service fails, with a [`ScriptedError`] that says `text`.
    #[must_use]
    pub fn fail(text: impl Into<String>) -> Self {
        Self::error(ScriptedError::new(text))
    }

    /// The service fails with a clone of `error`.
    #[must_use]
    pub fn error(error: impl Error + Clone + Send + Sync + 'static) -> Self {
        let make = move || BoxError::from(error.clone());
        Self::new(Kind::Fail(MakeError(Arc::new(make))))
    }

    /// The service's future panics with `text`. The call counts as finished.
    #[must_use]
    pub fn panic(text: impl Into<String>) -> Self {
        Self::new(Kind::Panic(text.into()))
    }

    /// Adds a line to the head.
    ///
    /// # Panics
    ///
    /// If either is not fit for a header.
    #[must_use]
    #[track_caller]
    pub fn header<N, V>(mut self, name: N, value: V) -> Self
    where
        N: TryInto<HeaderName>,
        N::Error: fmt::Debug,
        V: TryInto<HeaderValue>,
        V::Error: fmt::Debug,
    {
        self.headers.append(
            name.try_into().expect("a field name"),
            value.try_into().expect("a field value"),
        );
        self
    }

    /// How long the head takes, or the failure or the panic that comes instead, once the request has been read. Default:
    /// no time.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// The whole body, in one frame, or in none if it is empty. Its length is announced in the `size_hint`, unless the
    /// body does not end well.
    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.content = Content::Whole(body.into());
        self
    }

    /// The body's data frames, exactly these. As in the chunked coding, no length is announced, and only the end of the
    /// body says that there is no more.
    #[must_use]
    pub fn frames<I>(mut self, frames: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<Bytes>,
    {
        self.content = Content::Frames(frames.into_iter().map(Into::into).collect());
        self
    }

    /// How long after the head the body's first frame comes, or its end if it has none. Default: no time.
    #[must_use]
    pub fn body_after(mut self, delay: Duration) -> Self {
        self.body_after = Some(delay);
        self
    }

    /// A frame of trailers after the data. A body that does not end well never comes to it.
    #[must_use]
    pub fn trailers(mut self, trailers: HeaderMap) -> Self {
        self.trailers = Some(trailers);
        self
    }

    /// After its data the body stalls: neither a frame nor the end.
    #[must_use]
    pub fn then_hang(mut self) -> Self {
        self.end = End::Hang;
        self
    }

    /// After its data the body fails with a [`ScriptedError`], as one does that is cut short.
    #[must_use]
    pub fn then_fail(mut self) -> Self {
        self.end = End::Fail;
        self
    }

    fn into_response(self, call: &RecordedCall, shared: &Arc<Shared>) -> Response<ScriptedBody> {
        let announced = self.end == End::Clean && !matches!(self.content, Content::Frames(_));
        let whole = |bytes: Bytes| Some(bytes).filter(|bytes| !bytes.is_empty());
        let frames = match self.content {
            Content::Whole(bytes) => whole(bytes).into_iter().collect(),
            Content::Frames(frames) => frames.into(),
            Content::Echo => whole(call.to_json()).into_iter().collect(),
        };
        let mut response = Response::new(ScriptedBody {
            delay: self
                .body_after
                .map(|delay| Timer::new(Deadline::after(delay))),
            frames,
            trailers: self.trailers,
            end: self.end,
            announced,
            over: false,
            shared: Arc::clone(shared),
        });
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// The failure of a script: of the service, of its readiness, or of a body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct ScriptedError {
    text: String,
}

impl ScriptedError {
    /// An error that says `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self { text: text.into() }
    }
}

/// What a [`Scripted`] backend received in one call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecordedCall {
    /// When the service was called, by the runtime's clock: on a paused one, differences are exact.
    pub at: std::time::Instant,
    /// The request's method.
    pub method: Method,
    /// The request's target.
    pub uri: Uri,
    /// The request's version.
    pub version: Version,
    /// The request's header fields.
    pub headers: HeaderMap,
    /// The request's body, once it has been read to its end.
    pub body: Option<Bytes>,
    /// The request's trailers, if it had any, once its body has been read.
    pub trailers: Option<HeaderMap>,
}

impl RecordedCall {
    fn to_json(&self) -> Bytes {
        fn string_or_null(out: &mut Vec<u8>, text: Option<&str>) {
            match text {
                Some(text) => write_json_str(out, text),
                None => out.extend_from_slice(b"null"),
            }
        }

        let mut out = b"{\"method\":".to_vec();
        write_json_str(&mut out, self.method.as_str());
        out.extend_from_slice(b",\"path\":");
        write_json_str(&mut out, self.uri.path());
        out.extend_from_slice(b",\"query\":");
        string_or_null(&mut out, self.uri.query());
        out.extend_from_slice(b",\"headers\":{");
        // Sorted: a map's own order is nothing to compare by.
        let mut names: Vec<_> = self.headers.keys().collect();
        names.sort_by_key(|name| name.as_str());
        for (index, name) in names.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let lines = self.headers.get_all(name).iter();
            let lines: Vec<_> = lines.map(HeaderValue::as_bytes).collect();
            write_json_str(&mut out, name.as_str());
            out.push(b':');
            write_json_str(&mut out, &String::from_utf8_lossy(&lines.join(&b", "[..])));
        }
        out.extend_from_slice(b"},\"body\":");
        let body = self.body.as_deref().map(String::from_utf8_lossy);
        string_or_null(&mut out, body.as_deref());
        out.push(b'}');
        out.into()
    }
}

/// A backend that does what its script says, and records what became of every call.
///
/// See the [module docs](super) for an example. Clones share the script, its position and the record, whatever the branch
/// or the task that they are in: keep one to ask.
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
enum RequestBody {
    Read,
    Ignored,
}

enum Script {
    List(Vec<Reply>),
    Computed(Box<dyn Fn(&RecordedCall) -> Reply + Send + Sync>),
}

struct Shared {
    script: Script,
    log: Mutex<Log>,
}

#[derive(Debug, Default)]
struct Log {
    calls: Vec<RecordedCall>,
    started: usize,
    finished: usize,
    dropped: usize,
    peak: usize,
    bodies_finished: usize,
    bodies_dropped: usize,
}

impl Log {
    fn in_flight(&self) -> usize {
        self.started - self.finished - self.dropped
    }
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

/// The future of [`Scripted`].
pub struct ScriptedFuture {
    inner: Pin<Box<dyn Future<Output = Result<Response<ScriptedBody>, BoxError>> + Send>>,
}

impl Future for ScriptedFuture {
    type Output = Result<Response<ScriptedBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for ScriptedFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedFuture").finish_non_exhaustive()
    }
}

/// One call, from its start until it has finished or is dropped.
struct Running {
    shared: Arc<Shared>,
    index: usize,
    finished: bool,
}

impl Running {
    fn start(shared: &Arc<Shared>, call: &RecordedCall, kept: usize) -> Self {
        let mut log = lock(&shared.log);
        let index = log.started;
        log.started += 1;
        log.peak = log.peak.max(log.in_flight());
        // Without a gap, so that the call's number is its place.
        if log.calls.len() == index && index < kept {
            log.calls.push(call.clone());
        }
        Self {
            shared: Arc::clone(shared),
            index,
            finished: false,
        }
    }

    fn record_body(&self, call: &RecordedCall) {
        if let Some(recorded) = lock(&self.shared.log).calls.get_mut(self.index) {
            recorded.body.clone_from(&call.body);
            recorded.trailers.clone_from(&call.trailers);
        }
    }

    fn reply(&self, call: &RecordedCall) -> Reply {
        match &self.shared.script {
            Script::List(replies) => replies[self.index.min(replies.len() - 1)].clone(),
            Script::Computed(reply) => reply(call),
        }
    }

    fn finish(&mut self) {
        self.finished = true;
        lock(&self.shared.log).finished += 1;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.finished {
            lock(&self.shared.log).dropped += 1;
        }
    }
}

async fn run<B>(
    mut running: Running,
    mut call: RecordedCall,
    body: B,
    request_body: RequestBody,
) -> Result<Response<ScriptedBody>, BoxError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    // Not read, it is held until there is an answer: the client would still be sending it.
    let mut unread = Some(body);
    if request_body == RequestBody::Read {
        let body = unread.take().expect("set just now");
        match read(body).await {
            Ok((body, trailers)) => {
                call.body = Some(body);
                call.trailers = trailers;
                running.record_body(&call);
            }
            Err(error) => {
                running.finish();
                return Err(error.into());
            }
        }
    }
    let reply = match catch_unwind(AssertUnwindSafe(|| running.reply(&call))) {
        Ok(reply) => reply,
        Err(payload) => {
            running.finish();
            resume_unwind(payload);
        }
    };
    if !reply.after.is_zero() {
        tokio::time::sleep(reply.after).await;
    }
    if let Kind::Hang = reply.kind {
        return pending().await;
    }
    drop(unread);
    running.finish();
    match reply.kind {
        Kind::Panic(text) => panic!("{text}"),
        Kind::Fail(error) => Err((error.0)()),
        Kind::Answer | Kind::Hang => Ok(reply.into_response(&call, &running.shared)),
    }
}

async fn read<B>(body: B) -> Result<(Bytes, Option<HeaderMap>), B::Error>
where
    B: Body<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut bytes = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame?.into_data() {
            Ok(data) => bytes.extend_from_slice(&data),
            Err(frame) => trailers = frame.into_trailers().ok(),
        }
    }
    Ok((bytes.freeze(), trailers))
}

/// The response body of [`Scripted`].
///
/// # Errors
///
/// A [`ScriptedError`] after its data, if the script says [`then_fail`](Reply::then_fail).
pub struct ScriptedBody {
    /// What is left of the time before the first frame.
    delay: Option<Timer>,
    frames: VecDeque<Bytes>,
    trailers: Option<HeaderMap>,
    end: End,
    announced: bool,
    /// Its end has been handed out.
    over: bool,
    shared: Arc<Shared>,
}

impl ScriptedBody {
    fn end(&mut self) {
        self.over = true;
        lock(&self.shared.log).bodies_finished += 1;
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        if let Some(delay) = &mut this.delay {
            ready!(delay.poll(cx));
            this.delay = None;
        }
        if let Some(data) = this.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(match this.end {
            End::Hang => return Poll::Pending,
            End::Fail => {
                this.end();
                Some(Err(ScriptedError::new("the body was cut short").into()))
            }
            End::Clean => match this.trailers.take() {
                Some(trailers) => Some(Ok(Frame::trailers(trailers))),
                None => {
                    this.end();
                    None
                }
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        let nothing_left = self.frames.is_empty() && self.trailers.is_none();
        self.over || (self.announced && self.delay.is_none() && nothing_left)
    }

    fn size_hint(&self) -> SizeHint {
        if self.announced || self.over {
            SizeHint::with_exact(self.frames.iter().map(|data| data.len() as u64).sum())
        } else {
            SizeHint::default()
        }
    }
}

impl Drop for ScriptedBody {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let at_its_end = self.is_end_stream();
        let mut log = lock(&self.shared.log);
        if at_its_end {
            log.bodies_finished += 1;
        } else {
            log.bodies_dropped += 1;
        }
    }
}

impl fmt::Debug for ScriptedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedBody")
            .field("frames", &self.frames)
            .field("trailers", &self.trailers)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
