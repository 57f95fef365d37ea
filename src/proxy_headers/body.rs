//! The body whose trailers say no more than trailers may.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::fields::{HeldTrailers, strip_trailers};

pin_project! {
    /// A body that was passed on: without the trailers that nobody may send (RFC 9110 §6.5.1), such as those for framing,
    /// routing and authentication, and without those that claim where a request came from.
    ///
    /// Everything else of it passes through as it comes: frames, the other trailers, `size_hint`, `is_end_stream`, errors.
    #[derive(Debug)]
    pub struct ProxyHeadersBody<B> {
        #[pin]
        inner: HeldTrailers<B, fn(&mut HeaderMap)>,
    }
}

impl<B> ProxyHeadersBody<B> {
    pub(super) fn new(inner: B) -> Self {
        Self {
            inner: HeldTrailers::new(inner, strip_trailers),
        }
    }

    /// The inner body. It is not to be had by `&mut`: what is read past this one keeps its trailers.
    pub fn get_ref(&self) -> &B {
        self.inner.get_ref()
    }

    /// The inner body, with whatever its trailers say.
    pub fn into_inner(self) -> B {
        self.inner.into_inner()
    }
}

impl<B: Body> Body for ProxyHeadersBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        self.project().inner.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
