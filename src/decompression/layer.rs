//! Layer, service and future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, RANGE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::body::DecompressionBody;
use super::head::{Coding, Codings, undo};
use crate::error::BoxError;

/// Asks for compressed answers and decodes them: see the [module docs](super).
#[derive(Debug, Clone, Copy)]
pub struct DecompressionLayer {
    codings: Codings,
    limit: u64,
}

impl DecompressionLayer {
    /// Decodes `gzip` and `deflate`, up to 16 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            codings: Codings::CHEAP,
            limit: 16 << 20,
        }
    }

    /// The most bytes that a body may have when it is decoded; one that goes on ends with
    /// [`DecompressionError::TooLarge`](super::DecompressionError). Default: 16 MiB; `u64::MAX` is no limit.
    ///
    /// It is for what is streamed on: a merge that collects has its own budget, and the smaller of the two holds. A body that
    /// is not decoded isn't counted. Compressed bytes are held to the same limit, with 64 KiB to spare: more of them than
    /// of decoded ones is no compression.
    #[must_use]
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.limit = bytes;
        self
    }

    /// Decodes `coding` as well, and asks for it. For [`Brotli`](Coding::Brotli), which is not decoded by default: a bomb of
    /// brotli costs up to 24 MiB for its window before the first byte of it is counted, whatever the budget is.
    #[must_use]
    pub fn with(mut self, coding: Coding) -> Self {
        self.codings = self.codings.with(coding);
        self
    }

    /// Does not decode `coding`, nor ask for it.
    #[must_use]
    pub fn without(mut self, coding: Coding) -> Self {
        self.codings = self.codings.without(coding);
        self
    }
}

impl Default for DecompressionLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for DecompressionLayer {
    type Service = Decompression<S>;

    fn layer(&self, inner: S) -> Decompression<S> {
        Decompression {
            inner,
            layer: *self,
        }
    }
}

/// The service of [`DecompressionLayer`].
///
/// # Readiness
///
/// It is ready when the inner service is.
///
/// # Errors
///
/// Those of the inner service. A body that can't be decoded ends with a
/// [`DecompressionError`](super::DecompressionError).
///
/// # Cancellation
///
/// Dropping the future drops the inner call, dropping the body the inner body: nothing is read ahead.
#[derive(Debug, Clone)]
pub struct Decompression<S> {
    inner: S,
    layer: DecompressionLayer,
}

impl<S> Decompression<S> {
    inner_accessors!();
}

impl<S, ReqBody, B> Service<Request<ReqBody>> for Decompression<S>
where
    S: Service<Request<ReqBody>, Response = Response<B>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Response = Response<DecompressionBody<B>>;
    type Error = S::Error;
    type Future = DecompressionFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let head_only = request.method() == Method::HEAD;
        let headers = request.headers_mut();
        // Offsets into compressed bytes are of no use to whoever sees decoded ones.
        let accept = if headers.contains_key(RANGE) {
            HeaderValue::from_static("identity")
        } else {
            self.layer.codings.accept()
        };
        headers.insert(ACCEPT_ENCODING, accept);
        DecompressionFuture {
            inner: self.inner.call(request),
            layer: self.layer,
            head_only,
        }
    }
}

pin_project! {
    /// The future of [`Decompression`].
    #[derive(Debug)]
    pub struct DecompressionFuture<F> {
        #[pin]
        inner: F,
        layer: DecompressionLayer,
        // Whether the request was HEAD.
        head_only: bool,
    }
}

impl<F, B, E> Future for DecompressionFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    type Output = Result<Response<DecompressionBody<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        let status = response.status();
        let Some(coding) = this.layer.codings.to_undo(status, response.headers()) else {
            return Poll::Ready(Ok(response.map(DecompressionBody::plain)));
        };
        undo(response.headers_mut());
        // These have the head of the answer that would have had a body (RFC 9110 §9.3.2, §15.4.5).
        let has_body = !*this.head_only && status != StatusCode::NOT_MODIFIED;
        Poll::Ready(Ok(response.map(|body| {
            // Without a byte there is no document, compressed or not.
            if has_body && !body.is_end_stream() {
                DecompressionBody::decoded(body, coding, this.layer.limit)
            } else {
                DecompressionBody::plain(body)
            }
        })))
    }
}
