//! The usual door for HTTP: any stack, erased to one service type.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt};

use crate::body::BoxBody;
use crate::clone_request::TeeBody;
use crate::error::BoxError;
use crate::fields::{drop_credentials, restore};
use crate::outcome::Branch;

/// Whether the caller's `Authorization` and `Cookie` go to the branch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Credentials {
    Withheld,
    Forwarded,
}

/// An HTTP service of any stack, erased: see [`Branch::http`].
#[derive(Clone)]
pub struct HttpService {
    inner: BoxCloneSyncService<Request<TeeBody>, Response<BoxBody>, BoxError>,
    credentials: Credentials,
}

impl Branch<HttpService, Request<TeeBody>> {
    /// A branch around any HTTP service. It is erased to one type (boxed body and [`BoxError`]), so that branches with
    /// different stacks fit into one fan-out; that costs three allocations a call.
    ///
    /// The caller's `Authorization` and `Cookie` are withheld from it: see [`credentials`](Self::credentials).
    pub fn http<S, B>(name: impl Into<std::sync::Arc<str>>, service: S) -> Self
    where
        S: Service<Request<TeeBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let erased = service
            .map_response(|response: Response<B>| response.map(BoxBody::new))
            .map_err(Into::into);
        Self::new(
            name,
            HttpService {
                inner: BoxCloneSyncService::new(erased),
                credentials: Credentials::Withheld,
            },
        )
    }

    /// Lets the caller's `Authorization` and `Cookie` through to this branch. Say so only for a backend that is meant to
    /// see them: with several backends behind one route, the others would get them as well.
    #[must_use]
    pub fn credentials(self) -> Self {
        self.map_service(|service| HttpService {
            credentials: Credentials::Forwarded,
            ..service
        })
    }
}

impl fmt::Debug for HttpService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpService")
            .field("credentials", &self.credentials)
            .finish_non_exhaustive()
    }
}

impl Service<Request<TeeBody>> for HttpService {
    type Response = Response<BoxBody>;
    type Error = BoxError;
    type Future = HttpFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<TeeBody>) -> HttpFuture {
        let mut headers = std::mem::take(request.headers_mut());
        match self.credentials {
            Credentials::Withheld => drop_credentials(&mut headers, request.extensions_mut()),
            Credentials::Forwarded => restore(&mut headers, request.extensions_mut()),
        }
        *request.headers_mut() = headers;
        HttpFuture {
            inner: self.inner.call(request),
        }
    }
}

/// Lets the caller's `Authorization` and `Cookie` through to a branch that is not made by [`Branch::http`], whose own
/// [`.credentials()`](Branch::credentials) does the same. A merge lays them aside; this layer puts them back.
///
/// ```
/// use tower::ServiceBuilder;
/// use watershed::fanout::{CredentialsLayer, FanOutLayer};
/// use watershed::outcome::Branch;
/// use watershed::rewrite::{RewriteLayer, UriTemplate};
/// # type Request = http::Request<watershed::clone_request::TeeBody>;
///
/// let trusted = ServiceBuilder::new()
///     .layer(CredentialsLayer::new())
///     .layer(RewriteLayer::new(UriTemplate::new("http://users.internal/me")))
///     .into_inner();
/// let layer: FanOutLayer<_, Request> = FanOutLayer::new([Branch::new("me", trusted)]);
/// # let _ = layer;
/// ```
#[derive(Debug, Clone, Copy, Default)]
#[non_exhaustive]
pub struct CredentialsLayer {}

impl CredentialsLayer {
    /// The layer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }
}

impl<S> Layer<S> for CredentialsLayer {
    type Service = WithCredentials<S>;

    fn layer(&self, inner: S) -> WithCredentials<S> {
        WithCredentials { inner }
    }
}

/// The service of [`CredentialsLayer`]. It is ready when the inner one is, and fails as that does.
#[derive(Debug, Clone)]
pub struct WithCredentials<S> {
    inner: S,
}

impl<S> WithCredentials<S> {
    inner_accessors!();
}

impl<S, B> Service<Request<B>> for WithCredentials<S>
where
    S: Service<Request<B>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = S::Future;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> S::Future {
        let mut headers = std::mem::take(request.headers_mut());
        restore(&mut headers, request.extensions_mut());
        *request.headers_mut() = headers;
        self.inner.call(request)
    }
}

/// The future of an [`HttpService`].
pub struct HttpFuture {
    inner: Pin<Box<dyn Future<Output = Result<Response<BoxBody>, BoxError>> + Send>>,
}

impl Future for HttpFuture {
    type Output = Result<Response<BoxBody>, BoxError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.inner.as_mut().poll(cx)
    }
}

impl fmt::Debug for HttpFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpFuture").finish_non_exhaustive()
    }
}
