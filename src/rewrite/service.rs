//! The layer that gives a request the URI of a template.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::HOST;
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{Method, Request, Uri};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::{PathParams, RewriteError, UriTemplate};
use crate::error::{BoxError, BuildError};

type ParamsFrom = Arc<dyn Fn(&Parts) -> Option<PathParams> + Send + Sync>;

/// Gives every request the URI of a [`UriTemplate`]: see the [module docs](super).
#[derive(Clone)]
pub struct RewriteLayer {
    template: Arc<UriTemplate>,
    params_from: Option<ParamsFrom>,
    keeps_path: bool,
}

impl RewriteLayer {
    /// Takes the parameters from the request's [`PathParams`] extension.
    #[must_use]
    pub fn new(template: UriTemplate) -> Self {
        Self {
            template: Arc::new(template),
            params_from: None,
            keeps_path: false,
        }
    }

    /// Appends the request's own path and query to the template's path, as they are: for a reverse proxy, which sends on
    /// whatever it is asked for. A path with a dot segment, which could climb out of the template's, is refused: a
    /// [`RewriteError::Value`]. So is one with a raw `\` or an encoded NUL, which not every server reads as what it is.
    /// `OPTIONS *` is sent on as that, to the template's authority.
    ///
    /// ```
    /// # use http::Request;
    /// # use tower::{ServiceBuilder, ServiceExt, service_fn};
    /// use watershed::rewrite::{RewriteLayer, UriTemplate};
    ///
    /// # tokio_test::block_on(async {
    /// let service = ServiceBuilder::new()
    ///     .layer(RewriteLayer::new(UriTemplate::new("http://shop.internal/v1")).keep_path())
    ///     .service(service_fn(|request: Request<()>| async move {
    ///         Ok::<_, watershed::error::BoxError>(request.uri().to_string())
    ///     }));
    /// let request = Request::get("/orders/a%2Fb?page=2").body(()).unwrap();
    /// let sent = service.oneshot(request).await.unwrap();
    /// assert_eq!(sent, "http://shop.internal/v1/orders/a%2Fb?page=2");
    /// # });
    /// ```
    ///
    /// # Panics
    ///
    /// If the template has a query.
    #[must_use]
    #[track_caller]
    pub fn keep_path(self) -> Self {
        BuildError::expect(self.try_keep_path())
    }

    /// As [`keep_path`](Self::keep_path), for a template that is configured.
    ///
    /// # Errors
    ///
    /// If the template has a query.
    pub fn try_keep_path(mut self) -> Result<Self, BuildError> {
        if self.template.has_query() {
            let message = format!("\"{}\" has a query: no path can follow", self.template);
            return Err(BuildError::new(message));
        }
        self.keeps_path = true;
        Ok(self)
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
        let none = PathParams::default();
        let given;
        let params = match &self.params_from {
            Some(source) => {
                given = source(parts).unwrap_or_default();
                &given
            }
            None => parts.extensions.get().unwrap_or(&none),
        };
        // It asks about a server, not about anything below a path (RFC 9110 §9.3.7).
        let is_about_server = parts.method == Method::OPTIONS && parts.uri.path() == "*";
        if self.keeps_path && is_about_server {
            Ok(self.template.at(PathAndQuery::from_static("*")))
        } else if self.keeps_path {
            self.template.expand_before(params, &parts.uri)
        } else {
            self.template.expand(params)
        }
    }
}

impl fmt::Debug for RewriteLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RewriteLayer")
            .field("template", &self.template)
            .field("keeps_path", &self.keeps_path)
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
///
/// # Cancellation
///
/// Dropping its future drops the inner call.
#[derive(Debug, Clone)]
pub struct Rewrite<S> {
    inner: S,
    layer: RewriteLayer,
}

impl<S> Rewrite<S> {
    inner_accessors!();
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
