//! Compressed answers on their way through the layer.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use tower::{Layer, ServiceExt, service_fn};
use watershed::decompression::{Coding, DecompressionBody, DecompressionError, DecompressionLayer};
use watershed::error::BoxError;

/// What the layer makes of `response`.
pub(crate) async fn through<B>(
    layer: DecompressionLayer,
    method: Method,
    response: Response<B>,
) -> Response<DecompressionBody<B>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut response = Some(response);
    let service = layer.layer(service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(response.take().expect("one call")))
    }));
    let request = Request::builder().method(method).body(());
    let Ok(response) = service.oneshot(request.expect("a request")).await;
    response
}

pub(crate) fn encoded<B>(coding: &str, body: B) -> Response<B> {
    let response = Response::builder().header("content-encoding", coding);
    response.body(body).expect("a response")
}

pub(crate) fn frames(parts: Vec<Bytes>) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
    let frames = parts.into_iter().map(|part| Ok(Frame::data(part)));
    StreamBody::new(futures_util::stream::iter(frames))
}

/// Every coding, brotli among them.
pub(crate) fn all() -> DecompressionLayer {
    DecompressionLayer::new().with(Coding::Brotli)
}

/// Reads `parts`, one frame each, as a body in `coding`.
pub(crate) async fn read_frames(
    layer: DecompressionLayer,
    coding: &str,
    parts: Vec<Bytes>,
) -> Result<Bytes, DecompressionError> {
    let response = through(layer, Method::GET, encoded(coding, frames(parts))).await;
    let mut body = response.into_body();
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let data = frame.into_data().expect("data");
                assert!(!data.is_empty() && data.len() <= 4096, "{}", data.len());
                read.extend_from_slice(&data);
            }
            Err(error) => {
                assert!(body.is_end_stream());
                assert_eq!(body.size_hint().exact(), Some(0));
                assert!(body.frame().await.is_none());
                return Err(*error.downcast().expect("an error of decoding"));
            }
        }
    }
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
    Ok(read.into())
}

pub(crate) async fn read(coding: &str, compressed: &[u8]) -> Result<Bytes, DecompressionError> {
    let whole = vec![Bytes::copy_from_slice(compressed)];
    read_frames(all(), coding, whole).await
}

/// A body that makes its frames on the spot and counts them.
pub(crate) struct Endless {
    frame: Bytes,
    given: Arc<AtomicUsize>,
}

impl Endless {
    pub(crate) fn new(frame: impl Into<Bytes>) -> (Self, Arc<AtomicUsize>) {
        let given = Arc::new(AtomicUsize::new(0));
        let body = Self {
            frame: frame.into(),
            given: Arc::clone(&given),
        };
        (body, given)
    }
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.given.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
    }
}
