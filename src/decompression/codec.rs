//! One body's decoder: tower-http's, and what that leaves open.
//!
//! tower-http decodes, but looks away at the ends: bytes behind the end of the compressed data are dropped if they came in
//! one frame with it, a second gzip member among them. So it is fed here, chunk by chunk, and what it has left of a chunk
//! is counted.

use std::convert::Infallible;
use std::future::ready;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes};
use http::header::CONTENT_ENCODING;
use http::{HeaderValue, Request, Response};
use http_body::{Body, Frame};
use tower::{Service, service_fn};
use tower_http::decompression::{Decompression, DecompressionBody};

use super::body::DecompressionError;
use super::head::Coding;
use crate::error::BoxError;
use crate::sync::{AtomicUsize, Ordering};

/// What decoding has come to.
pub(super) enum Step {
    /// Some bytes of the content, never none.
    Data(Bytes),
    /// Nothing yet, and there is more to decode.
    Again,
    /// Nothing until it is fed, or told that the body has ended.
    Hungry,
    /// The body has ended, and so has the compressed data.
    End,
}

pub(super) struct Decoder {
    coding: Coding,
    inner: Box<DecompressionBody<Feed>>,
    /// What was fed and is not in the decoder's hands.
    waiting: Bytes,
    fresh: bool,
    members: usize,
}

impl Decoder {
    /// The most that one step decodes.
    const CHUNK: usize = 16 * 1024;
    /// Each begins with a new decoder, and may be 20 bytes long.
    const MEMBERS: usize = 1024;

    pub(super) fn new(coding: Coding) -> Self {
        Self {
            coding,
            inner: decode(coding, Feed::default()),
            waiting: Bytes::new(),
            fresh: true,
            members: 1,
        }
    }

    /// The next bytes of the body. It has to be hungry.
    pub(super) fn feed(&mut self, data: Bytes) -> Result<(), DecompressionError> {
        debug_assert!(self.waiting.is_empty(), "it is not hungry");
        if let (true, Some(first)) = (self.fresh, data.first()) {
            self.fresh = false;
            // Where RFC 7932 §9.1 has an invalid pattern, the decoder knows a window of up to a gigabyte.
            if self.coding == Coding::Brotli && first & 0x7f == 0x11 {
                return Err(self.corrupt("it asks for a larger window than there is in RFC 7932"));
            }
        }
        self.waiting = data;
        Ok(())
    }

    /// The body has ended.
    pub(super) fn end(&mut self) {
        self.inner.get_mut().ended = true;
    }

    pub(super) fn step(&mut self) -> Result<Step, DecompressionError> {
        let feed = self.inner.get_mut();
        // One chunk at a time: what is left of the last one may be the next member's.
        if feed.next.is_empty() && feed.left().is_empty() {
            let len = self.waiting.len().min(Self::CHUNK);
            feed.next = self.waiting.split_to(len);
        }
        // What it waits for is in our hands, so nobody has to be woken.
        let mut cx = Context::from_waker(Waker::noop());
        match Pin::new(&mut *self.inner).poll_frame(&mut cx) {
            Poll::Pending if self.waiting.is_empty() => Ok(Step::Hungry),
            Poll::Pending => Ok(Step::Again),
            Poll::Ready(None) => self.at_end(),
            Poll::Ready(Some(Err(error))) => self.failed(error),
            Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                Ok(data) if !data.is_empty() => Ok(Step::Data(data)),
                _ => Ok(Step::Again),
            },
        }
    }

    fn failed(&mut self, error: BoxError) -> Result<Step, DecompressionError> {
        match error.downcast::<io::Error>() {
            Ok(_) if self.inner.get_ref().ended => Err(DecompressionError::Truncated {
                coding: self.coding,
            }),
            Ok(source) => Err(DecompressionError::Corrupt {
                coding: self.coding,
                source: *source,
            }),
            // An error of tower-http's own: it has ended, and was given a chunk that it leaves as it is.
            Err(_) if self.inner.get_ref().is_untouched() => self.at_end(),
            // It has none but that one; if it had, that would be no end.
            Err(_) => Err(self.corrupt("the decoder failed")),
        }
    }

    /// The compressed data has ended; maybe the chunk has not.
    fn at_end(&mut self) -> Result<Step, DecompressionError> {
        let feed = self.inner.get_mut();
        debug_assert!(feed.next.is_empty(), "a chunk would be lost");
        let left = feed.left();
        match (self.coding, left.first()) {
            (_, None) => Ok(Step::End),
            // Another member (RFC 1952 §2.2): its content goes on where that of the last one ended.
            (Coding::Gzip, Some(0x1f)) => {
                let feed = Feed {
                    next: left,
                    ended: feed.ended,
                    ..Feed::default()
                };
                self.inner = decode(self.coding, feed);
                self.members += 1;
                if self.members > Self::MEMBERS {
                    return Err(self.corrupt("it has too many members"));
                }
                Ok(Step::Again)
            }
            (coding, Some(_)) => Err(DecompressionError::Trailing { coding }),
        }
    }

    fn corrupt(&self, why: &'static str) -> DecompressionError {
        DecompressionError::Corrupt {
            coding: self.coding,
            source: io::Error::new(io::ErrorKind::InvalidData, why),
        }
    }
}

/// tower-http makes its bodies in its service, and nowhere else.
fn decode(coding: Coding, feed: Feed) -> Box<DecompressionBody<Feed>> {
    let mut response = Response::new(feed);
    let coding = HeaderValue::from_static(coding.as_str());
    response.headers_mut().insert(CONTENT_ENCODING, coding);
    let mut response = Some(response);
    let mut service = Decompression::new(service_fn(|_: Request<()>| {
        ready(Ok::<_, Infallible>(response.take().expect("called once")))
    }));
    let future = pin!(service.call(Request::new(())));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(Ok(response)) => Box::new(response.into_body()),
        Poll::Ready(Err(never)) => match never {},
        Poll::Pending => unreachable!("the response was there"),
    }
}

/// The body that tower-http reads: a chunk at a time.
#[derive(Default)]
struct Feed {
    next: Bytes,
    /// The chunk that was taken last, and how much of it is left.
    last: Bytes,
    left: Arc<AtomicUsize>,
    ended: bool,
}

impl Feed {
    /// What the decoder has not taken of its last chunk.
    fn left(&self) -> Bytes {
        let left = self.left.load(Ordering::Relaxed);
        self.last.slice(self.last.len() - left..)
    }

    /// Whether there is a last chunk and the decoder has taken nothing of it.
    fn is_untouched(&self) -> bool {
        !self.last.is_empty() && self.left.load(Ordering::Relaxed) == self.last.len()
    }
}

impl Body for Feed {
    type Data = Chunk;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Chunk>, Infallible>>> {
        // A decoder that is not at its end takes all of a chunk before it asks for the next.
        if self.left.load(Ordering::Relaxed) > 0 {
            return Poll::Ready(None);
        }
        if self.next.is_empty() {
            return if self.ended {
                Poll::Ready(None)
            } else {
                Poll::Pending
            };
        }
        let bytes = std::mem::take(&mut self.next);
        self.left.store(bytes.len(), Ordering::Relaxed);
        self.last = bytes.clone();
        let left = Arc::clone(&self.left);
        Poll::Ready(Some(Ok(Frame::data(Chunk { bytes, left }))))
    }
}

/// Bytes that tell how many of them are left. One owner at a time looks at the number: it is shared for want of a way to ask.
struct Chunk {
    bytes: Bytes,
    left: Arc<AtomicUsize>,
}

impl Buf for Chunk {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, len: usize) {
        self.bytes.advance(len);
        self.left.store(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // A later tower-http may wrap what its codecs say.
    #[test]
    fn an_error_of_another_type_is_no_end() {
        let taken = |len: usize| {
            let mut decoder = Decoder::new(Coding::Deflate);
            let feed = decoder.inner.get_mut();
            feed.next = Bytes::from_static(b"12345");
            let mut cx = Context::from_waker(Waker::noop());
            let Poll::Ready(Some(Ok(frame))) = Pin::new(feed).poll_frame(&mut cx) else {
                panic!("no frame");
            };
            let Ok(mut chunk) = frame.into_data() else {
                panic!("no chunk");
            };
            chunk.advance(len);
            decoder
        };
        for mut decoder in [Decoder::new(Coding::Gzip), taken(1), taken(5)] {
            let error = decoder.failed("something else".into()).err();
            assert!(matches!(error, Some(DecompressionError::Corrupt { .. })));
        }
        let error = taken(0).failed("extra bytes".into()).err();
        assert!(matches!(error, Some(DecompressionError::Trailing { .. })));
    }
}
