//! The service and its future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::uri::Scheme;
use http::{Method, Request, Response, Uri, Version};
use http_body::Body;
use hyper_util::client::legacy;
use tower::Service;

use super::body::{Answer, RequestBody, announce};
use super::connector::Connector;
use super::{ClientBody, ClientBuilder, ClientError};
use crate::error::BoxError;

/// A pooled HTTP client for requests with a body `B`.
///
/// See the [module docs](super) for an example and for what it leaves to others. A clone is one `Arc` and shares the pool.
/// A body that is not `Unpin` has to be boxed.
///
/// # Readiness
///
/// It is always ready, and holds no capacity for a caller that is ready but does not call. It does not bound how many
/// calls run at once.
///
/// # Errors
///
/// A [`ClientError`] if there was no response. A response of any status is a response. What fails after its head is the
/// error of its [body](ClientBody).
///
/// # Cancellation
///
/// Dropping the future, or the body of the response, cancels the exchange: an HTTP/1.1 connection is closed, of an HTTP/2
/// connection only that stream is reset. Nobody else's call is affected. A connection that is still being made is given up.
///
/// A server may answer before it has read the request. When its response is over (read to its end, or dropped), the body of
/// the request may go on for five more seconds, so that it can end and the connection be used again. After that it is dropped,
/// and the connection closed, or the stream reset: neither a caller that stalls in the middle of an upload nor a server that
/// leaves it unread holds them for longer. The same goes for a call that is dropped in the middle of an upload: hyper sends what
/// it has taken of it before it closes, if the server reads.
///
/// Over HTTP/2 a server makes room for each stream. The last piece of a body, which hyper has been given and there is no room
/// for, stays until there is, or the connection ends: what is large is best sent in several.
///
/// # Panics
///
/// Polling the future outside of a Tokio runtime with I/O and time enabled panics.
pub struct Client<B> {
    inner: Arc<legacy::Client<Connector, RequestBody<B>>>,
}

impl Client<()> {
    /// To configure a client; [`build`](ClientBuilder::build) takes the body type from where the client is used.
    #[must_use]
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }
}

impl<B> Client<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    /// A client with the defaults of [`ClientBuilder`].
    #[must_use]
    pub fn new() -> Self {
        ClientBuilder::new().build()
    }

    pub(super) fn over(inner: legacy::Client<Connector, RequestBody<B>>) -> Self {
        Self {
            inner: Arc::new(inner),
        }
    }
}

impl<B> Default for Client<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    fn default() -> Self {
        Self::new()
    }
}

impl<B> Clone for Client<B> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<B> fmt::Debug for Client<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

impl<B> Service<Request<B>> for Client<B>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<ClientBody>;
    type Error = ClientError;
    type Future = ClientFuture;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ClientError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> ClientFuture {
        if let Err(reason) = check(request.method(), request.uri()) {
            return ClientFuture {
                state: State::Refused(Some(ClientError::invalid(reason))),
            };
        }
        let (mut parts, body) = request.into_parts();
        // hyper would send HTTP/1.0 on, and refuse HTTP/2 where the server speaks HTTP/1.1.
        parts.version = Version::HTTP_11;
        let announced = announce(&parts.method, &mut parts.headers, &body);
        let (body, answer) = RequestBody::new(body, announced);
        ClientFuture {
            state: State::Sent {
                future: self.inner.request(Request::from_parts(parts, body)),
                answer,
            },
        }
    }
}

/// Whether a request can be sent as it is, or why not.
fn check(method: &Method, uri: &Uri) -> Result<(), &'static str> {
    if method == Method::CONNECT {
        return Err("CONNECT asks for a tunnel, and this client opens none");
    }
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err("its URI names no scheme and authority");
    };
    if *scheme == Scheme::HTTPS {
        if cfg!(not(feature = "tls")) {
            return Err("its URI is an https one, and the feature `tls` is off");
        }
    } else if *scheme != Scheme::HTTP {
        return Err("its URI is neither an http nor an https one");
    }
    // A user name is there to make one host look like another: RFC 9110 §4.2.4 would have it treated as an error.
    if authority.as_str().contains('@') {
        return Err("its URI holds a user name");
    }
    if authority.host().is_empty() {
        return Err("its URI names no host");
    }
    // A port that is none is `None` as well, and would be taken for the default one.
    let port = &authority.as_str()[authority.host().len()..];
    if port.len() > 1 && authority.port_u16().is_none() {
        return Err("the port in its URI is none");
    }
    Ok(())
}

/// The future of a [`Client`]: the head of the response.
///
/// Dropping it cancels the call: see [`Client`].
#[must_use = "a future does nothing unless it is polled"]
pub struct ClientFuture {
    state: State,
}

enum State {
    Sent {
        future: legacy::ResponseFuture,
        answer: Option<Answer>,
    },
    Refused(Option<ClientError>),
}

impl Future for ClientFuture {
    type Output = Result<Response<ClientBody>, ClientError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.state {
            State::Sent { future, answer } => {
                let result = ready!(Pin::new(future).poll(cx));
                let answer = answer.take();
                Poll::Ready(match result {
                    Ok(response) => {
                        let version = response.version();
                        Ok(response.map(|body| ClientBody::new(body, version, answer)))
                    }
                    Err(error) => Err(ClientError::from_exchange(error, answer.as_ref())),
                })
            }
            State::Refused(error) => {
                Poll::Ready(Err(error.take().expect("polled after it had finished")))
            }
        }
    }
}

impl fmt::Debug for ClientFuture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientFuture").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_not_be_sent_is_refused() {
        for uri in [
            "http://a/b",
            "http://a:80",
            "http://a:/b",
            "http://[::1]:8080/",
            "http://[::1]/",
        ] {
            assert_eq!(check(&Method::GET, &uri.parse().unwrap()), Ok(()), "{uri}");
        }
        for uri in [
            "/b",
            "a:80",
            "*",
            "ftp://a/b",
            "http://u@a/b",
            "http://u:p@a/b",
            "http://:80/",
            "http://a:99999/",
            "http://[::1]:99999/",
        ] {
            let Ok(parsed) = uri.parse() else { continue };
            assert!(check(&Method::GET, &parsed).is_err(), "{uri}");
        }
        for uri in ["a:80", "http://a:80/"] {
            assert!(check(&Method::CONNECT, &uri.parse().unwrap()).is_err());
        }
    }

    fn assert_shared<T: Clone + Send + Sync>() {}
    fn assert_send<T: Send>() {}

    /// `Send`, and nothing else.
    struct Plain(#[allow(dead_code)] std::cell::Cell<u8>);

    #[test]
    fn a_client_is_shared_whatever_its_body_is() {
        assert_shared::<Client<Plain>>();
        assert_send::<ClientFuture>();
        assert_send::<ClientBody>();
        assert_send::<ClientError>();
    }
}
