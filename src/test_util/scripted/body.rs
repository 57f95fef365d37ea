//! The body of a reply.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::core::Shared;
use super::error::ScriptedError;
use super::reply::End;
use crate::deadline::Timer;
use crate::error::BoxError;
use crate::sync::lock;

/// The response body of [`Scripted`](super::Scripted).
///
/// # Errors
///
/// A [`ScriptedError`] after its data, if the script says [`then_fail`](super::Reply::then_fail).
pub struct ScriptedBody {
    /// What is left of the time before the first frame.
    pub(super) delay: Option<Timer>,
    pub(super) frames: VecDeque<Bytes>,
    pub(super) trailers: Option<HeaderMap>,
    pub(super) end: End,
    pub(super) announced: bool,
    /// Its end has been handed out.
    pub(super) over: bool,
    pub(super) shared: Arc<Shared>,
}

impl ScriptedBody {
    fn end(&mut self) {
        self.over = true;
        lock(&self.shared.log).bodies_finished += 1;
    }
}

impl Body for ScriptedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        if this.over {
            return Poll::Ready(None);
        }
        if let Some(delay) = &mut this.delay {
            ready!(delay.poll(cx));
            this.delay = None;
        }
        if let Some(data) = this.frames.pop_front() {
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
        Poll::Ready(match this.end {
            End::Hang => return Poll::Pending,
            End::Fail => {
                this.end();
                Some(Err(ScriptedError::new("the body was cut short").into()))
            }
            End::Clean => match this.trailers.take() {
                Some(trailers) => Some(Ok(Frame::trailers(trailers))),
                None => {
                    this.end();
                    None
                }
            },
        })
    }

    fn is_end_stream(&self) -> bool {
        let nothing_left = self.frames.is_empty() && self.trailers.is_none();
        self.over || (self.announced && self.delay.is_none() && nothing_left)
    }

    fn size_hint(&self) -> SizeHint {
        if self.announced || self.over {
            SizeHint::with_exact(self.frames.iter().map(|data| data.len() as u64).sum())
        } else {
            SizeHint::default()
        }
    }
}

impl Drop for ScriptedBody {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let at_its_end = self.is_end_stream();
        let mut log = lock(&self.shared.log);
        if at_its_end {
            log.bodies_finished += 1;
        } else {
            log.bodies_dropped += 1;
        }
    }
}

impl fmt::Debug for ScriptedBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ScriptedBody")
            .field("frames", &self.frames)
            .field("trailers", &self.trailers)
            .field("end", &self.end)
            .finish_non_exhaustive()
    }
}
