//! The usual door for HTTP: any stack, erased to one service type.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE};
use http::{Request, Response};
use http_body::Body;
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt};

use crate::body::BoxBody;
use crate::clone_request::TeeBody;
use crate::error::BoxError;
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
        if self.credentials == Credentials::Withheld {
            request.headers_mut().remove(AUTHORIZATION);
            request.headers_mut().remove(COOKIE);
        }
        HttpFuture {
            inner: self.inner.call(request),
        }
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
