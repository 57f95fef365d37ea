//! A message with all that there is of it.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::{HeaderMap, Request, Response, request, response};
use http_body::Body;

/// A head, and what was read of the body.
#[derive(Debug)]
pub(crate) struct Whole<H> {
    pub(crate) head: H,
    /// Whether the body was over before it began.
    pub(crate) is_over: bool,
    pub(crate) content: Vec<u8>,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Whole<request::Parts> {
    pub(crate) fn request<B: Body<Data = Bytes>>(request: Request<B>) -> Self {
        let (head, body) = request.into_parts();
        Self::read(head, body)
    }
}

impl Whole<response::Parts> {
    pub(crate) fn response<B: Body<Data = Bytes>>(response: Response<B>) -> Self {
        let (head, body) = response.into_parts();
        Self::read(head, body)
    }
}

impl<H> Whole<H> {
    /// Reads a body that has to wait for nothing, and keeps what it says of itself.
    fn read<B: Body<Data = Bytes>>(head: H, body: B) -> Self {
        let mut body = pin!(body);
        let (is_over, hint) = (body.is_end_stream(), body.size_hint());
        let (mut content, mut trailers) = (Vec::new(), None);
        let mut cx = Context::from_waker(Waker::noop());
        loop {
            let ended = body.is_end_stream();
            let frame = match body.as_mut().poll_frame(&mut cx) {
                Poll::Pending => panic!("pending, though nothing is to be waited for"),
                Poll::Ready(None) => break,
                Poll::Ready(Some(frame)) => frame,
            };
            assert!(!ended, "a frame behind the announced end");
            let Ok(frame) = frame else { panic!("an error") };
            match frame.into_data() {
                Ok(data) => content.extend_from_slice(&data),
                Err(frame) => {
                    let Ok(fields) = frame.into_trailers() else {
                        panic!("a frame of another kind")
                    };
                    assert!(trailers.replace(fields).is_none());
                }
            }
        }
        let length = content.len() as u64;
        assert!(hint.lower() <= length && hint.upper().is_none_or(|upper| length <= upper));
        Self {
            head,
            is_over,
            content,
            trailers,
        }
    }
}
