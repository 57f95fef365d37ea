//! The layer that gives a request the URI of a template.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::HOST;
use http::request::Parts;
use http::{Request, Uri};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{PathParams, RewriteError, UriTemplate};
use crate::error::BoxError;

type ParamsFrom = Arc<dyn Fn(&Parts) -> Option<PathParams> + Send + Sync>;

/// Gives every request the URI of a [`UriTemplate`]: see the [module docs](super).
#[derive(Clone)]
pub struct RewriteLayer {
    template: Arc<UriTemplate>,
    params_from: Option<ParamsFrom>,
}

impl RewriteLayer {
    /// Takes the parameters from the request's [`PathParams`] extension.
    #[must_use]
    pub fn new(template: UriTemplate) -> Self {
        Self {
            template: Arc::new(template),
            params_from: None,
        }
    }

    /// Takes the parameters from `source` instead.
    #[must_use]
    pub fn params_from(
        mut self,
        source: impl Fn(&Parts) -> Option<PathParams> + Send + Sync + 'static,
    ) -> Self {
        self.params_from = Some(Arc::new(source));
        self
    }

    fn uri(&self, parts: &Parts) -> Result<Uri, RewriteError> {
        match &self.params_from {
            Some(source) => self.template.expand(&source(parts).unwrap_or_default()),
            None => match parts.extensions.get() {
                Some(params) => self.template.expand(params),
                None => self.template.expand(&PathParams::default()),
            },
        }
    }
}

impl fmt::Debug for RewriteLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RewriteLayer")
            .field("template", &self.template)
            .finish_non_exhaustive()
    }
}

impl<S> Layer<S> for RewriteLayer {
    type Service = Rewrite<S>;

    fn layer(&self, inner: S) -> Rewrite<S> {
        Rewrite {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of [`RewriteLayer`].
///
/// An absolute template also decides where the request goes, so the `Host` that it came with is removed: the client
/// writes the one that fits the authority (RFC 9110 §7.2).
///
/// # Readiness
///
/// It is ready when the inner service is.
///
/// # Errors
///
/// [`RewriteError`] if the template can't be expanded, else those of the inner service.
#[derive(Debug, Clone)]
pub struct Rewrite<S> {
    inner: S,
    layer: RewriteLayer,
}

impl<S> Rewrite<S> {
    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, to be changed.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, B> Service<Request<B>> for Rewrite<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = RewriteFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, body) = request.into_parts();
        let state = match self.layer.uri(&parts) {
            Ok(uri) => {
                if uri.authority().is_some() {
                    parts.headers.remove(HOST);
                }
                parts.uri = uri;
                State::Inner {
                    future: self.inner.call(Request::from_parts(parts, body)),
                }
            }
            Err(error) => State::Failed { error: Some(error) },
        };
        RewriteFuture { state }
    }
}

pin_project! {
    /// The future of [`Rewrite`].
    #[derive(Debug)]
    pub struct RewriteFuture<F> {
        #[pin]
        state: State<F>,
    }
}

pin_project! {
    #[project = StateProj]
    #[derive(Debug)]
    enum State<F> {
        Inner { #[pin] future: F },
        Failed { error: Option<RewriteError> },
    }
}

impl<F, T, E> Future for RewriteFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project().state.project() {
            StateProj::Inner { future } => future.poll(cx).map_err(Into::into),
            StateProj::Failed { error } => {
                let error = error.take().expect("polled after it had finished");
                Poll::Ready(Err(error.into()))
            }
        }
    }
}
