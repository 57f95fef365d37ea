//! The layer, its service and its future.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{HeadPolicy, TeeBody};
use crate::body::{Chunks, OwnAnswer, ResponseBody};
use crate::error::{BoxError, BuildError, ClientFault};

/// Makes every request cloneable: see the [module docs](super).
#[derive(Debug, Clone)]
pub struct CloneRequestLayer {
    head: HeadPolicy,
    body: BodyPolicy,
}

#[derive(Debug, Clone, Copy)]
enum BodyPolicy {
    Keep { limit: u64 },
    Stream { window: u64, stall: Duration },
}

impl CloneRequestLayer {
    /// All end-to-end fields, and a body of up to 1 MiB.
    #[must_use]
    pub fn new() -> Self {
        Self {
            head: HeadPolicy::end_to_end(),
            body: BodyPolicy::Keep { limit: 1 << 20 },
        }
    }

    /// Keeps a request's body whole for its clones, up to so many bytes. Default: 1 MiB. It is the safe choice: readers
    /// can't hold each other up, and a clone can be sent again.
    #[must_use]
    pub fn limit(mut self, bytes: u64) -> Self {
        self.body = BodyPolicy::Keep { limit: bytes };
        self
    }

    /// Streams a request's body through a window instead, for uploads of any length: see [`TeeBody::stream`]. 64 KiB and
    /// 5 s are a good start. The price: a branch that does not read holds up the others for `stall`, and then has failed;
    /// and nothing can be sent again. How long a body may be is then up to the server.
    ///
    /// # Panics
    ///
    /// If `window` is zero.
    #[must_use]
    #[track_caller]
    pub fn stream(self, window: u64, stall: Duration) -> Self {
        BuildError::expect(self.try_stream(window, stall))
    }

    /// As [`stream`](Self::stream), for a window that is configured.
    ///
    /// # Errors
    ///
    /// If `window` is zero.
    pub fn try_stream(mut self, window: u64, stall: Duration) -> Result<Self, BuildError> {
        if window == 0 {
            return Err(BuildError::new("a window of zero would keep no frame"));
        }
        self.body = BodyPolicy::Stream { window, stall };
        Ok(self)
    }

    /// Which fields and extensions are cloned. Default: [`HeadPolicy::end_to_end`].
    #[must_use]
    pub fn head(mut self, policy: HeadPolicy) -> Self {
        self.head = policy;
        self
    }
}

impl Default for CloneRequestLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for CloneRequestLayer {
    type Service = CloneRequest<S>;

    fn layer(&self, inner: S) -> Self::Service {
        CloneRequest {
            inner,
            config: self.clone(),
        }
    }
}

/// The service of [`CloneRequestLayer`].
///
/// # Readiness
///
/// It is ready when the inner service is.
///
/// # Errors
///
/// Those of the inner service. A body that announces more than the limit is answered with 413 at once, and one that turns
/// out to be longer fails its readers with [`TeeError`](super::TeeError).
#[derive(Debug, Clone)]
pub struct CloneRequest<S> {
    inner: S,
    config: CloneRequestLayer,
}

impl<S> CloneRequest<S> {
    /// Around `inner`, with the defaults of [`CloneRequestLayer::new`].
    pub fn new(inner: S) -> Self {
        CloneRequestLayer::new().layer(inner)
    }

    inner_accessors!();
}

impl<S, B, ResBody> Service<Request<B>> for CloneRequest<S>
where
    S: Service<Request<TeeBody>, Response = Response<ResBody>>,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<ResponseBody<ResBody>>;
    type Error = S::Error;
    type Future = CloneRequestFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let CloneRequestLayer { head, body: policy } = &self.config;
        if let BodyPolicy::Keep { limit } = *policy {
            if request.body().size_hint().lower() > limit {
                let rejected = ClientFault::too_large(limit).to_problem().into_response();
                let rejected = OwnAnswer::to(request.method()).give(rejected);
                return CloneRequestFuture {
                    state: State::Rejected {
                        response: Some(rejected),
                    },
                };
            }
        }
        let mut extensions = std::mem::take(request.extensions_mut());
        head.apply(request.headers_mut(), &mut extensions);
        let mut request = request.map(|body| match *policy {
            BodyPolicy::Keep { limit } => TeeBody::new(head.hold(body), limit),
            BodyPolicy::Stream { window, stall } => TeeBody::stream(head.hold(body), window, stall),
        });
        if let Some(watch) = request.body().watch() {
            extensions.insert(watch);
        }
        *request.extensions_mut() = extensions;
        CloneRequestFuture {
            state: State::Inner {
                future: self.inner.call(request),
            },
        }
    }
}

pin_project! {
    /// The future of [`CloneRequest`].
    #[derive(Debug)]
    pub struct CloneRequestFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Inner { #[pin] future: F },
        Rejected { response: Option<Response<Chunks>> },
    }
}

impl<F, ResBody, E> Future for CloneRequestFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
{
    type Output = Result<Response<ResponseBody<ResBody>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(Ok(match self.project().state.project() {
            StateProj::Inner { future } => ready!(future.poll(cx))?.map(ResponseBody::inner),
            StateProj::Rejected { response } => response
                .take()
                .expect("polled after it had finished")
                .map(ResponseBody::own),
        }))
    }
}
