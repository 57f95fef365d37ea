//! The fields behind a body.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::HeaderMap;
use http::header::{self, HeaderName};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::{is_claim, strip_hop_by_hop};

/// Removes the trailer fields that nobody may send: those for framing, routing, authentication, request modifiers, response
/// controls and content (RFC 9110 §6.5.1). What a head may not carry past us, a trailer may not either.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    const FORBIDDEN: [HeaderName; 31] = [
        header::ACCEPT_ENCODING,
        header::AGE,
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::DATE,
        header::EXPECT,
        header::EXPIRES,
        header::HOST,
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_UNMODIFIED_SINCE,
        header::LOCATION,
        header::MAX_FORWARDS,
        header::ORIGIN,
        header::PRAGMA,
        header::RANGE,
        header::REFERER,
        header::RETRY_AFTER,
        header::SET_COOKIE,
        header::TRAILER,
        header::VARY,
        header::VIA,
        header::WARNING,
        header::WWW_AUTHENTICATE,
    ];
    strip_hop_by_hop(trailers, &[]);
    for name in FORBIDDEN {
        trailers.remove(name);
    }
    let claims: Vec<HeaderName> = trailers
        .keys()
        .filter(|name| is_claim(name))
        .cloned()
        .collect();
    for name in claims {
        trailers.remove(name);
    }
}

pin_project! {
    /// The inner body, with what `hold` leaves of its trailers.
    #[derive(Debug)]
    pub(crate) struct HeldTrailers<B, F> {
        #[pin]
        inner: B,
        hold: F,
    }
}

impl<B, F> HeldTrailers<B, F> {
    pub(crate) fn new(inner: B, hold: F) -> Self {
        Self { inner, hold }
    }

    pub(crate) fn get_ref(&self) -> &B {
        &self.inner
    }

    pub(crate) fn into_inner(self) -> B {
        self.inner
    }
}

impl<B: Body, F: FnMut(&mut HeaderMap)> Body for HeldTrailers<B, F> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        this.inner.poll_frame(cx).map_ok(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                (this.hold)(trailers);
            }
            frame
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
