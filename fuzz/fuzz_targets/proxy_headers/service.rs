//! The service behind the layer, and the bodies.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request};
use http_body::{Body, Frame};
use tower::Service;

/// Some data, and trailers.
pub(crate) struct TwoFrames {
    data: bool,
    trailers: Option<HeaderMap>,
}

impl TwoFrames {
    pub(crate) fn new(data: bool, trailers: Option<HeaderMap>) -> Self {
        Self { data, trailers }
    }

    pub(crate) fn trailers(&self) -> Option<&HeaderMap> {
        self.trailers.as_ref()
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
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"data")))));
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
}

/// Reads a body to its end; its trailers.
pub(crate) fn read<B: Body<Data = Bytes>>(body: B) -> Option<HeaderMap> {
    let mut body = pin!(body);
    let mut trailers = None;
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let ended = body.is_end_stream();
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Pending => panic!("pending, though nothing is to be waited for"),
            Poll::Ready(None) => return trailers,
            Poll::Ready(Some(frame)) => {
                assert!(!ended, "a frame behind the announced end");
                let Ok(frame) = frame else { panic!("an error") };
                if let Ok(fields) = frame.into_trailers() {
                    assert!(trailers.replace(fields).is_none());
                }
            }
        }
    }
}

/// What the service was asked, and the trailers of it.
pub(crate) type Seen = Rc<RefCell<Option<(request::Parts, Option<HeaderMap>)>>>;

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
        let (head, body) = request.into_parts();
        *self.seen.borrow_mut() = Some((head, read(body)));
        ready(Ok(self.response.take().expect("called once")))
    }
}
