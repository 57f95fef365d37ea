//! What several test files use: answers read to their end, stacks, and services and bodies that a test moves by hand.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use serde_json::Value;
use tower::{Layer, Service, ServiceExt};
use watershed::body::Completeness;
use watershed::clone_request::{CloneRequest, TeeBody};
use watershed::error::BoxError;
use watershed::fanout::{FanOut, HttpService};
use watershed::merge::{MergeLayer, MergeService};
use watershed::outcome::Branch;

pub(crate) const MS: Duration = Duration::from_millis(1);

pub(crate) fn get(uri: &str) -> Request<Empty<Bytes>> {
    Request::get(uri).body(Empty::new()).expect("a request")
}

pub(crate) fn post(uri: &str, body: impl Into<Bytes>) -> Request<Full<Bytes>> {
    let body = Full::new(body.into());
    Request::post(uri).body(body).expect("a request")
}

/// A response that has been read to its end.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answer {
    pub(crate) async fn read<B>(response: Response<B>) -> Self
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        let marked = response.extensions().get::<Completeness>().copied();
        let (head, body) = response.into_parts();
        let body = body.collect().await.map_err(Into::into);
        let bytes = body.expect("a whole body").to_bytes();
        let answer = Self {
            status: head.status.as_u16(),
            headers: head.headers,
            body: String::from_utf8(bytes.to_vec()).expect("UTF-8"),
        };
        if let Some(marked) = marked {
            assert_eq!(answer.complete(), marked == Completeness::Complete);
        }
        answer
    }

    /// What `watershed-complete` says.
    #[track_caller]
    pub(crate) fn complete(&self) -> bool {
        match self.field("watershed-complete") {
            Some("true") => true,
            Some("false") => false,
            other => panic!("watershed-complete is {other:?}"),
        }
    }

    /// The only line of the field.
    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.get_all(name).iter();
        let line = lines.next()?;
        assert!(lines.next().is_none(), "{name} has several lines");
        Some(line.to_str().expect("ASCII"))
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        match serde_json::from_str(&self.body) {
            Ok(value) => value,
            Err(error) => panic!("{error}: {:?}", self.body),
        }
    }

    /// An answer of 200 with this document.
    #[track_caller]
    pub(crate) fn assert_document(&self, document: &str, complete: bool) {
        assert_eq!((self.status, &*self.body), (200, document), "{self:?}");
        assert_eq!(self.complete(), complete, "{self:?}");
        assert_eq!(self.field("content-type"), Some("application/json"));
    }

    /// A problem answer of this status; returns its document.
    #[track_caller]
    pub(crate) fn assert_problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(
            self.field("content-type"),
            Some("application/problem+json"),
            "{self:?}"
        );
        let problem = self.json();
        assert_eq!(problem["status"], status, "{self:?}");
        assert!(problem["title"].is_string(), "{self:?}");
        problem
    }
}

/// Calls a clone of `service` and reads its answer.
pub(crate) async fn ask<S, B, R>(service: &S, request: Request<B>) -> Answer
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    S::Error: fmt::Debug,
    R: Body<Data = Bytes>,
    R::Error: Into<BoxError>,
{
    Answer::read(service.clone().oneshot(request).await.expect("an answer")).await
}

pub(crate) type HttpBranch = Branch<HttpService, Request<TeeBody>>;
pub(crate) type Stack<M, S = HttpService> =
    CloneRequest<MergeService<FanOut<S, Request<TeeBody>>, M>>;

/// The usual stack: clone, merge, fan out.
pub(crate) fn stack<M, S>(
    layer: &MergeLayer<M>,
    branches: impl IntoIterator<Item = Branch<S, Request<TeeBody>>>,
) -> Stack<M, S> {
    CloneRequest::new(layer.layer(FanOut::new(branches)))
}

pub(crate) fn merged<M, S>(
    merge: M,
    branches: impl IntoIterator<Item = Branch<S, Request<TeeBody>>>,
) -> Stack<M, S> {
    stack(&MergeLayer::new(merge), branches)
}

/// Runs `future` on a paused clock of its own.
pub(crate) fn on_paused_clock<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime")
        .block_on(future)
}

/// A service whose call ends when the test says so, and that counts what is done to it. Clones are one and the same.
pub(crate) struct Hand<T> {
    state: Arc<Mutex<HandState<T>>>,
}

struct HandState<T> {
    calls: usize,
    polls: usize,
    drops: usize,
    output: Option<Result<T, BoxError>>,
    waker: Option<Waker>,
}

impl<T> Hand<T> {
    pub(crate) fn new() -> Self {
        Self {
            state: Arc::new(Mutex::new(HandState {
                calls: 0,
                polls: 0,
                drops: 0,
                output: None,
                waker: None,
            })),
        }
    }

    pub(crate) fn several(number: usize) -> Vec<Self> {
        (0..number).map(|_| Self::new()).collect()
    }

    fn state(&self) -> MutexGuard<'_, HandState<T>> {
        self.state.lock().expect("not poisoned")
    }

    /// How often the service was called.
    pub(crate) fn calls(&self) -> usize {
        self.state().calls
    }

    /// How often its futures were polled.
    pub(crate) fn polls(&self) -> usize {
        self.state().polls
    }

    /// How many of its futures are gone, finished or not.
    pub(crate) fn drops(&self) -> usize {
        self.state().drops
    }

    /// The call ends with `output`.
    pub(crate) fn finish(&self, output: T) {
        self.end(Ok(output));
    }

    pub(crate) fn fail(&self, error: impl Into<BoxError>) {
        self.end(Err(error.into()));
    }

    fn end(&self, output: Result<T, BoxError>) {
        self.state().output = Some(output);
        self.wake();
    }

    /// Wakes whoever polled last, with or without a result.
    pub(crate) fn wake(&self) {
        let waker = self.state().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The waker of the last poll, kept.
    pub(crate) fn waker(&self) -> Option<Waker> {
        self.state().waker.clone()
    }
}

impl<T> Clone for Hand<T> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
        }
    }
}

impl<Req, T> Service<Req> for Hand<T> {
    type Response = T;
    type Error = BoxError;
    type Future = HandFuture<T>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> HandFuture<T> {
        self.state().calls += 1;
        HandFuture { hand: self.clone() }
    }
}

pub(crate) struct HandFuture<T> {
    hand: Hand<T>,
}

impl<T> Future for HandFuture<T> {
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.hand.state();
        state.polls += 1;
        match state.output.take() {
            Some(output) => Poll::Ready(output),
            None => {
                state.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl<T> Drop for HandFuture<T> {
    fn drop(&mut self) {
        self.hand.state().drops += 1;
    }
}

/// The test's end of a [`FedBody`].
#[derive(Clone)]
pub(crate) struct Feed {
    state: Arc<Mutex<FeedState>>,
}

struct FeedState {
    frames: VecDeque<Result<Frame<Bytes>, BoxError>>,
    ended: bool,
    /// What is announced and not handed out yet.
    announced: Option<u64>,
    waker: Option<Waker>,
    polls: usize,
    dropped: bool,
}

/// A body whose frames come from the test.
pub(crate) struct FedBody {
    feed: Feed,
}

impl Feed {
    /// A body that announces nothing.
    pub(crate) fn new() -> (Self, FedBody) {
        Self::announcing(None)
    }

    /// A body that announces its length.
    pub(crate) fn announcing(length: impl Into<Option<u64>>) -> (Self, FedBody) {
        let feed = Self {
            state: Arc::new(Mutex::new(FeedState {
                frames: VecDeque::new(),
                ended: false,
                announced: length.into(),
                waker: None,
                polls: 0,
                dropped: false,
            })),
        };
        let body = FedBody { feed: feed.clone() };
        (feed, body)
    }

    fn state(&self) -> MutexGuard<'_, FeedState> {
        self.state.lock().expect("not poisoned")
    }

    pub(crate) fn data(&self, data: impl Into<Bytes>) {
        self.push(Ok(Frame::data(data.into())));
    }

    pub(crate) fn trailers(&self, trailers: HeaderMap) {
        self.push(Ok(Frame::trailers(trailers)));
    }

    pub(crate) fn fail(&self, error: impl Into<BoxError>) {
        self.push(Err(error.into()));
    }

    fn push(&self, frame: Result<Frame<Bytes>, BoxError>) {
        self.state().frames.push_back(frame);
        self.wake();
    }

    pub(crate) fn end(&self) {
        self.state().ended = true;
        self.wake();
    }

    pub(crate) fn wake(&self) {
        let waker = self.state().waker.take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(crate) fn polls(&self) -> usize {
        self.state().polls
    }

    pub(crate) fn is_dropped(&self) -> bool {
        self.state().dropped
    }
}

impl Body for FedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let mut state = self.feed.state();
        state.polls += 1;
        let Some(frame) = state.frames.pop_front() else {
            if state.ended {
                return Poll::Ready(None);
            }
            state.waker = Some(cx.waker().clone());
            return Poll::Pending;
        };
        if let (Ok(frame), Some(announced)) = (&frame, &mut state.announced) {
            *announced -= frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        Poll::Ready(Some(frame))
    }

    fn is_end_stream(&self) -> bool {
        let state = self.feed.state();
        state.frames.is_empty() && state.ended
    }

    fn size_hint(&self) -> SizeHint {
        let announced = self.feed.state().announced;
        announced.map_or_else(SizeHint::default, SizeHint::with_exact)
    }
}

impl fmt::Debug for FedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FedBody")
    }
}

impl Drop for FedBody {
    fn drop(&mut self) {
        self.feed.state().dropped = true;
    }
}

/// Panics when it is dropped.
pub(crate) struct Bomb(pub(crate) &'static str);

impl Drop for Bomb {
    fn drop(&mut self) {
        // A second panic during the first would abort the process.
        if !std::thread::panicking() {
            panic!("{}", self.0);
        }
    }
}

/// Percent-decodes once.
pub(crate) fn percent_decode(text: &str) -> Vec<u8> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        let mut digit = || char::from(bytes.next().expect("a digit")).to_digit(16);
        decoded.push(match byte {
            b'%' => {
                let (high, low) = (digit().expect("a digit"), digit().expect("a digit"));
                u8::try_from(high << 4 | low).expect("a byte")
            }
            byte => byte,
        });
    }
    decoded
}
