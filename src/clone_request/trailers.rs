//! Holds the trailers of a request's body to the head policy.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::HeadPolicy;

pin_project! {
    /// The inner body, with the trailers that the policy leaves.
    pub(super) struct PolicyBody<B> {
        #[pin]
        inner: B,
        policy: HeadPolicy,
    }
}

impl<B> PolicyBody<B> {
    pub(super) fn new(inner: B, policy: HeadPolicy) -> Self {
        Self { inner, policy }
    }
}

impl<B: Body<Data = Bytes>> Body for PolicyBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        this.inner.poll_frame(cx).map_ok(|mut frame| {
            if let Some(trailers) = frame.trailers_mut() {
                this.policy.apply_to_trailers(trailers);
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
