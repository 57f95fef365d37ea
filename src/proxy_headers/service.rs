//! The service and its future.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, SizeHint};
use pin_project_lite::pin_project;
use tower::Service;

use super::ProxyHeadersBody;
use super::layer::Config;
use super::request::{Exchange, Refusal, admit};
use super::response::{is_without_content, pass_back};
use crate::body::{ResponseBody, without_content};

/// The service of [`ProxyHeadersLayer`](super::ProxyHeadersLayer).
///
/// # Readiness
///
/// It is ready when the inner service is.
///
/// # Errors
///
/// Those of the inner service. A request or response that is wrong becomes an answer: see the [table](super#answers).
///
/// # Cancellation
///
/// Dropping its future drops the inner call.
#[derive(Debug, Clone)]
pub struct ProxyHeaders<S> {
    inner: S,
    config: Arc<Config>,
}

impl<S> ProxyHeaders<S> {
    pub(super) fn new(inner: S, config: Arc<Config>) -> Self {
        Self { inner, config }
    }

    inner_accessors!();
}

impl<S, B, ResBody> Service<Request<B>> for ProxyHeaders<S>
where
    S: Service<Request<ProxyHeadersBody<B>>, Response = Response<ResBody>>,
    B: Body,
    ResBody: Body<Data = Bytes>,
{
    type Response = Response<ResponseBody<ProxyHeadersBody<ResBody>>>;
    type Error = S::Error;
    type Future = ProxyHeadersFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let is_head = parts.method == Method::HEAD;
        let state = match admit(&self.config, &mut parts, !body.is_end_stream()) {
            Ok(exchange) => {
                let request = Request::from_parts(parts, ProxyHeadersBody::new(body));
                State::Called {
                    future: self.inner.call(request),
                    exchange,
                    config: Arc::clone(&self.config),
                }
            }
            Err(refusal) => State::Refused { refusal },
        };
        ProxyHeadersFuture { state, is_head }
    }
}

pin_project! {
    /// The future of [`ProxyHeaders`].
    #[derive(Debug)]
    pub struct ProxyHeadersFuture<F> {
        #[pin]
        state: State<F>,
        is_head: bool,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Called { #[pin] future: F, exchange: Exchange, config: Arc<Config> },
        Refused { refusal: Refusal },
    }
}

impl<F, ResBody, E> Future for ProxyHeadersFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    ResBody: Body<Data = Bytes>,
{
    type Output = Result<Response<ResponseBody<ProxyHeadersBody<ResBody>>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let passed = match this.state.project() {
            StateProj::Called {
                future,
                exchange,
                config,
            } => {
                let (mut head, body) = ready!(future.poll(cx))?.into_parts();
                let content = match body.is_end_stream() {
                    true if *this.is_head => None,
                    true => Some(SizeHint::with_exact(0)),
                    false => Some(body.size_hint()),
                };
                pass_back(config, exchange, &mut head, content).map(|()| {
                    // The rest of it is given up: nobody reads what may have no end.
                    let body = match is_without_content(head.status) {
                        true => ResponseBody::empty(),
                        false => ResponseBody::inner(ProxyHeadersBody::new(body)),
                    };
                    Response::from_parts(head, body)
                })
            }
            StateProj::Refused { refusal } => Err(*refusal),
        };
        let response = passed.unwrap_or_else(|refusal| {
            let response: Response<Bytes> = refusal.into_response();
            response.map(ResponseBody::own)
        });
        // One that has no content says itself how long it would be.
        Poll::Ready(Ok(if *this.is_head && !response.body().is_end_stream() {
            without_content(response).map(ResponseBody::own)
        } else {
            response
        }))
    }
}
