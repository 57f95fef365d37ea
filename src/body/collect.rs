//! The whole of a body, within a budget.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use http_body::Body;

use crate::error::BoxError;

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
    /// Whether it was last pending of itself.
    is_paused: bool,
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
            is_paused: false,
        }
    }

    /// Trailers are read and dropped: a collected body has nowhere to put them.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Collected, CollectError>> {
        let limit = self.limit;
        self.is_paused = false;
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
        self.is_paused = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Whether it is pending because it has had its share, and not because the body had nothing.
    pub(crate) fn is_paused(&self) -> bool {
        self.is_paused
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
    use std::convert::Infallible;

    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

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
}
