//! The service behind the layer, and the bodies.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request};
use http_body::{Body, Frame, SizeHint};
use tower::Service;

use crate::oracle::Whole;

const CONTENT: &[u8] = b"data";

/// Some data, and trailers.
#[derive(Debug, Clone)]
pub(crate) struct TwoFrames {
    data: bool,
    trailers: Option<HeaderMap>,
}

impl TwoFrames {
    pub(crate) fn new(data: bool, trailers: Option<HeaderMap>) -> Self {
        Self { data, trailers }
    }
}

impl Body for TwoFrames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::take(&mut self.data) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(CONTENT)))));
        }
        Poll::Ready(
            self.trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        !self.data && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.data { CONTENT.len() as u64 } else { 0 })
    }
}

/// What the service was asked.
pub(crate) type Seen = Rc<RefCell<Option<Whole<request::Parts>>>>;

/// Answers with what is there, and keeps what it was asked.
pub(crate) struct Inner {
    pub(crate) seen: Seen,
    pub(crate) response: Option<Response<TwoFrames>>,
}

impl<B: Body<Data = Bytes>> Service<Request<B>> for Inner {
    type Response = Response<TwoFrames>;
    type Error = Infallible;
    type Future = Ready<Result<Response<TwoFrames>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        *self.seen.borrow_mut() = Some(Whole::request(request));
        ready(Ok(self.response.take().expect("called once")))
    }
}
