//! The inner service's body, or our own.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::Chunks;

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

/// How an answer that a layer makes itself is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OwnAnswer {
    Whole,
    /// To HEAD.
    HeadOnly,
}

impl OwnAnswer {
    pub(crate) fn to(method: &Method) -> Self {
        if method == Method::HEAD {
            Self::HeadOnly
        } else {
            Self::Whole
        }
    }

    pub(crate) fn give(self, response: Response<Bytes>) -> Response<Chunks> {
        let response = response.map(Chunks::from);
        match self {
            Self::Whole => response,
            Self::HeadOnly => without_content(response),
        }
    }
}

/// The answer to HEAD: the head that GET would have, its length included (RFC 9110 §9.3.2). hyper's server leaves the content
/// off over HTTP/1.1 only.
pub(crate) fn without_content<B: Body>(mut response: Response<B>) -> Response<Chunks> {
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
    response.map(|_| Chunks::new())
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt, Full};

    use super::*;

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
    fn an_answer_to_head_says_the_length_that_it_would_have() {
        for (status, expected) in [
            (StatusCode::OK, Some("4")),
            (StatusCode::NOT_FOUND, Some("4")),
            // A mistake of whoever made it, which a length would pass on.
            (StatusCode::NO_CONTENT, None),
            (StatusCode::EARLY_HINTS, None),
        ] {
            let mut response = Response::new(Full::<Bytes>::from("body"));
            *response.status_mut() = status;
            let response = without_content(response);
            let length = response.headers().get(CONTENT_LENGTH);
            let length = length.map(|length| length.to_str().expect("digits"));
            assert_eq!((length, response.status()), (expected, status));
            assert!(response.body().is_end_stream());
        }
    }
}
