//! Bodies: the inner one or our own bytes, a byte budget, and the mark that says whether an answer is whole.
//!
//! ```
//! use bytes::Bytes;
//! use http_body_util::{BodyExt, Full};
//! use watershed::body::{Chunks, ResponseBody};
//!
//! # tokio_test::block_on(async {
//! // A layer that answers some calls itself returns one body type for both.
//! let theirs: ResponseBody<Full<Bytes>> = ResponseBody::inner(Full::from("from the service"));
//! let ours: ResponseBody<Full<Bytes>> = ResponseBody::own(Chunks::from(Bytes::from("from the layer")));
//! assert_eq!(theirs.collect().await.unwrap().to_bytes(), "from the service");
//! assert_eq!(ours.collect().await.unwrap().to_bytes(), "from the layer");
//! # });
//! ```

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, HeaderName};
use http::{HeaderValue, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::error::BoxError;

/// `watershed-complete: true|false`, on every merged answer.
pub const COMPLETE: HeaderName = HeaderName::from_static("watershed-complete");

/// Whether an answer holds all that it should.
///
/// A layer marks its answer with this extension; over the wire the same is said by the header [`COMPLETE`]. A merge reads
/// both from its branches, so a merge of merges is complete only if every part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completeness {
    /// Nothing is missing.
    Complete,
    /// Something that should be in the answer is not.
    Incomplete,
}

impl Completeness {
    /// What `response` says of itself: its extension, else its header. A response that says nothing is complete.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Self {
        if let Some(mark) = response.extensions().get::<Self>() {
            return *mark;
        }
        match response.headers().get(COMPLETE) {
            Some(value) if value.as_bytes().eq_ignore_ascii_case(b"false") => Self::Incomplete,
            _ => Self::Complete,
        }
    }

    /// Writes the mark on `response`: the extension and the header.
    pub fn mark<B>(self, response: &mut Response<B>) {
        response.extensions_mut().insert(self);
        let value = match self {
            Self::Complete => HeaderValue::from_static("true"),
            Self::Incomplete => HeaderValue::from_static("false"),
        };
        response.headers_mut().insert(COMPLETE, value);
    }
}

/// A body of our own bytes, in one frame or several, that never fails.
///
/// Several frames let a large value travel from a branch to the answer without being copied.
#[derive(Debug, Clone, Default)]
pub struct Chunks {
    first: Bytes,
    rest: VecDeque<Bytes>,
    len: u64,
}

impl Chunks {
    /// A body without bytes.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a frame. An empty one is not kept.
    pub fn push(&mut self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        self.len += chunk.len() as u64;
        if self.first.is_empty() && self.rest.is_empty() {
            self.first = chunk;
        } else {
            self.rest.push_back(chunk);
        }
    }

    /// The bytes that are left.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether no byte is left.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl From<Bytes> for Chunks {
    fn from(bytes: Bytes) -> Self {
        let mut chunks = Self::new();
        chunks.push(bytes);
        chunks
    }
}

impl Body for Chunks {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.len == 0 {
            return Poll::Ready(None);
        }
        let next = self.rest.pop_front().unwrap_or_default();
        let chunk = std::mem::replace(&mut self.first, next);
        self.len -= chunk.len() as u64;
        Poll::Ready(Some(Ok(Frame::data(chunk))))
    }

    fn is_end_stream(&self) -> bool {
        self.len == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.len)
    }
}

pin_project! {
    /// A response body that is the inner service's or our own bytes.
    ///
    /// Frames, trailers, `size_hint` and `is_end_stream` of the inner body pass through.
    #[derive(Debug)]
    pub struct ResponseBody<B> {
        #[pin]
        kind: Kind<B>,
    }
}

pin_project! {
    #[project = KindProj]
    #[derive(Debug)]
    enum Kind<B> {
        Inner { #[pin] body: B },
        Own { chunks: Chunks },
    }
}

impl<B> ResponseBody<B> {
    /// The inner service's body.
    pub fn inner(body: B) -> Self {
        Self {
            kind: Kind::Inner { body },
        }
    }

    /// Our own bytes.
    pub fn own(chunks: impl Into<Chunks>) -> Self {
        Self {
            kind: Kind::Own {
                chunks: chunks.into(),
            },
        }
    }

    /// A body without bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self::own(Chunks::new())
    }
}

impl<B> Body for ResponseBody<B>
where
    B: Body<Data = Bytes>,
{
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        match self.project().kind.project() {
            KindProj::Inner { body } => body.poll_frame(cx),
            KindProj::Own { chunks } => Pin::new(chunks)
                .poll_frame(cx)
                .map_err(|never| match never {}),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.kind {
            Kind::Inner { body } => body.is_end_stream(),
            Kind::Own { chunks } => chunks.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.kind {
            Kind::Inner { body } => body.size_hint(),
            Kind::Own { chunks } => chunks.size_hint(),
        }
    }
}

/// The answer to HEAD: the head that GET would have, its length included (RFC 9110 §9.3.2). hyper's server leaves the content
/// off over HTTP/1.1 only.
pub(crate) fn without_content<B: Body<Data = Bytes>>(
    mut response: Response<ResponseBody<B>>,
) -> Response<ResponseBody<B>> {
    let body = response.body();
    let (status, ends) = (response.status(), body.is_end_stream());
    // RFC 9110 §8.6: these have no length to say.
    if !ends && !status.is_informational() && status != StatusCode::NO_CONTENT {
        if let Some(len) = body.size_hint().exact() {
            response
                .headers_mut()
                .insert(CONTENT_LENGTH, HeaderValue::from(len));
        }
    }
    response.map(|_| ResponseBody::empty())
}

/// A body of any type behind one allocation, with its error boxed.
///
/// Frames, trailers, `size_hint` and `is_end_stream` pass through.
pub struct BoxBody {
    inner: Pin<Box<dyn Body<Data = Bytes, Error = BoxError> + Send>>,
}

impl BoxBody {
    /// Erases the type of `body`.
    pub fn new<B>(body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        Self {
            inner: Box::pin(Boxed { body }),
        }
    }
}

impl fmt::Debug for BoxBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxBody").finish_non_exhaustive()
    }
}

impl Body for BoxBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.inner.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

pin_project! {
    struct Boxed<B> {
        #[pin]
        body: B,
    }
}

impl<B> Body for Boxed<B>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.project().body.poll_frame(cx).map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Why a body could not be collected.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CollectError {
    /// It is larger than its budget of `limit` bytes.
    #[error("the body is larger than {limit} bytes")]
    TooLarge {
        /// The budget in bytes.
        limit: usize,
    },
    /// It ended with an error: cut short, reset, or misframed.
    #[error("the body ended with an error")]
    Body(#[source] BoxError),
}

/// The whole of a body.
#[derive(Debug, Clone)]
pub(crate) struct Collected {
    pub(crate) bytes: Bytes,
    /// Whether collecting has copied the bytes already: a body of one frame is taken as it is.
    pub(crate) copied: bool,
}

/// Collects a body within a budget of bytes. One that announces more fails before it is read.
#[derive(Debug)]
pub(crate) struct Collect<B> {
    body: B,
    limit: usize,
    first: Bytes,
    joined: BytesMut,
}

impl<B> Collect<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    const FRAMES_A_POLL: usize = 64;

    pub(crate) fn new(body: B, limit: usize) -> Self {
        Self {
            body,
            limit,
            first: Bytes::new(),
            joined: BytesMut::new(),
        }
    }

    /// Trailers are read and dropped: a collected body has nowhere to put them.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Collected, CollectError>> {
        let limit = self.limit;
        // A body that always has a frame, be it an empty one, must not keep the thread and the clock from its siblings.
        for _ in 0..Self::FRAMES_A_POLL {
            if self.body.size_hint().lower() > (limit - self.held()) as u64 {
                return Poll::Ready(Err(CollectError::TooLarge { limit }));
            }
            let Some(frame) = ready!(Pin::new(&mut self.body).poll_frame(cx)) else {
                return Poll::Ready(Ok(self.take()));
            };
            let frame = match frame {
                Ok(frame) => frame,
                Err(error) => return Poll::Ready(Err(CollectError::Body(error.into()))),
            };
            if let Ok(mut data) = frame.into_data() {
                let len = data.remaining();
                if len > limit - self.held() {
                    return Poll::Ready(Err(CollectError::TooLarge { limit }));
                }
                self.push(data.copy_to_bytes(len));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn held(&self) -> usize {
        self.first.len() + self.joined.len()
    }

    fn push(&mut self, chunk: Bytes) {
        if self.held() == 0 {
            self.first = chunk;
            return;
        }
        if self.joined.is_empty() {
            // One allocation for all if the length is announced, and honestly.
            let left = self.limit - self.held() - chunk.len();
            let announced = self.body.size_hint().lower().min(left as u64) as usize;
            self.joined
                .reserve(self.first.len() + chunk.len() + announced);
            self.joined
                .extend_from_slice(&std::mem::take(&mut self.first));
        }
        self.joined.extend_from_slice(&chunk);
    }

    fn take(&mut self) -> Collected {
        if self.joined.is_empty() {
            Collected {
                bytes: std::mem::take(&mut self.first),
                copied: false,
            }
        } else {
            Collected {
                bytes: self.joined.split().freeze(),
                copied: true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::{BodyExt, Full, StreamBody};
    use std::convert::Infallible;

    fn frames(
        parts: &[&'static str],
    ) -> impl Body<Data = Bytes, Error = Infallible> + Unpin + use<> {
        let frames: Vec<_> = parts
            .iter()
            .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))))
            .collect();
        StreamBody::new(futures_util::stream::iter(frames))
    }

    async fn collect<B>(body: B, limit: usize) -> Result<Collected, CollectError>
    where
        B: Body + Unpin,
        B::Error: Into<BoxError>,
    {
        let mut collect = Collect::new(body, limit);
        std::future::poll_fn(|cx| collect.poll(cx)).await
    }

    #[tokio::test]
    async fn a_body_of_one_frame_is_not_copied() {
        let bytes = Bytes::from_static(b"{}");
        let whole = collect(Full::new(bytes.clone()), 2).await.expect("within");
        assert_eq!(whole.bytes.as_ptr(), bytes.as_ptr());
        assert!(!whole.copied);
    }

    #[tokio::test]
    async fn frames_are_joined_and_counted_against_the_budget() {
        let whole = collect(frames(&["ab", "", "cd", "e"]), 5)
            .await
            .expect("within");
        assert_eq!(whole.bytes, "abcde");
        assert!(whole.copied);
        let error = collect(frames(&["ab", "cd", "e"]), 4)
            .await
            .expect_err("over");
        assert!(matches!(error, CollectError::TooLarge { limit: 4 }));
    }

    #[tokio::test]
    async fn an_announced_length_over_the_budget_fails_before_it_is_read() {
        let error = collect(Full::new(Bytes::from_static(b"abc")), 2)
            .await
            .expect_err("over");
        assert!(matches!(error, CollectError::TooLarge { limit: 2 }));
    }

    #[tokio::test]
    async fn chunks_keep_their_length_as_they_are_read() {
        let mut chunks = Chunks::new();
        for part in ["ab", "", "cde", "f"] {
            chunks.push(Bytes::from_static(part.as_bytes()));
        }
        let mut body = ResponseBody::<Full<Bytes>>::own(chunks);
        let mut read = Vec::new();
        while !body.is_end_stream() {
            let left = body.size_hint().exact().expect("exact");
            assert_eq!(left, 6 - read.len() as u64);
            let frame = body.frame().await.expect("a frame").expect("no error");
            read.extend_from_slice(&frame.into_data().expect("data"));
        }
        assert_eq!(read, b"abcdef");
        assert!(body.frame().await.is_none());
    }

    #[test]
    fn the_mark_is_read_from_the_extension_first() {
        let mut response = Response::new(());
        assert_eq!(Completeness::of(&response), Completeness::Complete);
        response
            .headers_mut()
            .insert(COMPLETE, HeaderValue::from_static("False"));
        assert_eq!(Completeness::of(&response), Completeness::Incomplete);
        response.extensions_mut().insert(Completeness::Complete);
        assert_eq!(Completeness::of(&response), Completeness::Complete);
    }
}
