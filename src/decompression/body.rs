//! The body that decodes what it reads.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::codec::{Decoder, Step};
use super::head::{Coding, undo};
use crate::error::BoxError;

/// Why a compressed body could not be decoded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DecompressionError {
    /// It is larger than its limit of `limit` bytes.
    #[error("the decoded body is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The body ended, and its compressed data had not.
    #[error("the {coding} data is cut short")]
    Truncated {
        /// How it was compressed.
        coding: Coding,
    },
    /// The body went on behind the end of its compressed data.
    #[error("something follows the {coding} data")]
    Trailing {
        /// How it was compressed.
        coding: Coding,
    },
    /// It is not what its `Content-Encoding` says, or a checksum is wrong.
    #[error("it is not {coding} data")]
    Corrupt {
        /// How it should have been compressed.
        coding: Coding,
        /// What the decoder said.
        source: io::Error,
    },
}

pin_project! {
    /// A body that is decoded as it is read, or one that passes as it is.
    ///
    /// A frame of a decoded body has 4 KiB at most, and one poll decodes a bounded amount. Whatever can be decoded of the
    /// bytes that have come is given before more is waited for. Its length is unknown. An error of the inner body passes as
    /// it is; one of the compressed data is a [`DecompressionError`]. After either it is over. Trailers pass, without the
    /// digests of the compressed bytes.
    pub struct DecompressionBody<B> {
        #[pin]
        inner: B,
        state: State,
    }
}

enum State {
    Plain,
    Decoding(Box<Decoding>),
    Over,
}

struct Decoding {
    decoder: Decoder,
    limit: u64,
    /// Compressed bytes that have come.
    received: u64,
    /// Decoded bytes that have been given.
    given: u64,
    trailers: Option<HeaderMap>,
}

impl<B> DecompressionBody<B> {
    /// The inner body. It is not to be had otherwise: its bytes are compressed, and some of them may be in the decoder.
    pub fn get_ref(&self) -> &B {
        &self.inner
    }

    pub(super) fn plain(inner: B) -> Self {
        Self {
            inner,
            state: State::Plain,
        }
    }

    pub(super) fn decoded(inner: B, coding: Coding, limit: u64) -> Self {
        Self {
            inner,
            state: State::Decoding(Box::new(Decoding {
                decoder: Decoder::new(coding),
                limit,
                received: 0,
                given: 0,
                trailers: None,
            })),
        }
    }
}

impl Decoding {
    /// Steps that give no bytes in one poll: empty frames, and data that stands for nothing. At most 16 KiB are decoded in each.
    const STEPS_A_POLL: usize = 16;
    /// Headers and flushes: how much longer than its content a compressed body may be.
    const OVERHEAD: u64 = 64 * 1024;

    fn poll_frame<B>(
        &mut self,
        mut body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Option<Frame<Bytes>>, BoxError>>
    where
        B: Body<Data = Bytes>,
        B::Error: Into<BoxError>,
    {
        for _ in 0..Self::STEPS_A_POLL {
            match self.decoder.step()? {
                Step::Data(data) => {
                    self.given += data.len() as u64;
                    if self.given > self.limit {
                        return Poll::Ready(Err(self.too_large()));
                    }
                    return Poll::Ready(Ok(Some(Frame::data(data))));
                }
                Step::Again => {}
                Step::Hungry => match ready!(body.as_mut().poll_frame(cx)) {
                    None => self.decoder.end(),
                    Some(Err(error)) => return Poll::Ready(Err(error.into())),
                    Some(Ok(frame)) => match frame.into_data() {
                        Ok(data) => {
                            self.received = self.received.saturating_add(data.len() as u64);
                            if self.received > self.limit.saturating_add(Self::OVERHEAD) {
                                return Poll::Ready(Err(self.too_large()));
                            }
                            self.decoder.feed(data)?;
                        }
                        Err(frame) => {
                            if let Ok(mut trailers) = frame.into_trailers() {
                                undo(&mut trailers);
                                self.trailers = Some(trailers);
                            }
                            self.decoder.end();
                        }
                    },
                },
                Step::End => return Poll::Ready(Ok(self.trailers.take().map(Frame::trailers))),
            }
        }
        // Data without end that stands for nothing must not keep the thread and the clock from others.
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn too_large(&self) -> BoxError {
        DecompressionError::TooLarge { limit: self.limit }.into()
    }
}

impl<B> Body for DecompressionBody<B>
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
        let this = self.project();
        let decoding = match this.state {
            State::Plain => return this.inner.poll_frame(cx).map_err(Into::into),
            State::Decoding(decoding) => decoding,
            State::Over => return Poll::Ready(None),
        };
        let frame = ready!(decoding.poll_frame(this.inner, cx)).transpose();
        // ## Decoding => Over
        //
        // At the end, behind trailers, and behind an error: the decoder's memory goes with it.
        if !matches!(&frame, Some(Ok(frame)) if frame.is_data()) {
            *this.state = State::Over;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self.state {
            State::Plain => self.inner.is_end_stream(),
            State::Decoding(_) => false,
            State::Over => true,
        }
    }

    /// The compressed length says nothing about the decoded one.
    fn size_hint(&self) -> SizeHint {
        match self.state {
            State::Plain => self.inner.size_hint(),
            State::Decoding(_) => SizeHint::default(),
            State::Over => SizeHint::with_exact(0),
        }
    }
}

impl<B: fmt::Debug> fmt::Debug for DecompressionBody<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.state {
            State::Plain => "plain",
            State::Decoding(_) => "decoding",
            State::Over => "over",
        };
        f.debug_struct("DecompressionBody")
            .field("inner", &self.inner)
            .field("state", &state)
            .finish()
    }
}
