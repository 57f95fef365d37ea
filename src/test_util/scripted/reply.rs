//! What a scripted backend says to one call.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Response, StatusCode};

use super::body::ScriptedBody;
use super::core::Shared;
use super::error::ScriptedError;
use super::record::RecordedCall;
use crate::deadline::{Deadline, Timer};
use crate::error::BoxError;

/// What a [`Scripted`](super::Scripted) backend says to one call.
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
    pub(super) kind: Kind,
    pub(super) after: Duration,
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
    body_after: Option<Duration>,
    trailers: Option<HeaderMap>,
    end: End,
}

#[derive(Debug, Clone)]
pub(super) enum Kind {
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
pub(super) enum End {
    Clean,
    Hang,
    Fail,
}

/// A boxed error can't be cloned, and the last reply of a script is given again and again.
#[derive(Clone)]
pub(super) struct MakeError(pub(super) Arc<dyn Fn() -> BoxError + Send + Sync>);

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

    /// 200 with what was received as JSON: see [`Scripted::echo`](super::Scripted::echo).
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

    pub(super) fn into_response(
        self,
        call: &RecordedCall,
        shared: &Arc<Shared>,
    ) -> Response<ScriptedBody> {
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
