//! How a connection is made: one bound over name lookup, TCP and TLS.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use tower::Service;

use crate::error::{BoxError, cause_ref};

#[cfg(not(feature = "tls"))]
pub(super) type Transport = HttpConnector;
#[cfg(feature = "tls")]
pub(super) type Transport = hyper_rustls::HttpsConnector<HttpConnector>;

type Io = <Transport as Service<Uri>>::Response;

/// How often the kernel asks an idle peer whether it is still there, so that one that vanished is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// No connection in time.
#[derive(Debug, thiserror::Error)]
#[error("connecting took longer than {limit:?}")]
pub(super) struct ConnectTimedOut {
    pub(super) limit: Duration,
}

/// The protocol of a connection on which none was negotiated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    Http2,
}

/// Makes the pool's connections.
#[derive(Clone)]
pub(super) struct Connector {
    transport: Transport,
    limit: Duration,
    protocol: Protocol,
}

/// The TCP half of a transport.
pub(super) fn tcp(limit: Duration) -> HttpConnector {
    let mut tcp = HttpConnector::new();
    // The scheme is checked before a request is sent, and with TLS on top it is an https one.
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_keepalive(Some(KEEP_ALIVE));
    tcp.set_keepalive_interval(Some(KEEP_ALIVE));
    // Shared out among the addresses of a name, so that one that never answers leaves time for the next.
    tcp.set_connect_timeout(Some(limit));
    tcp
}

impl Connector {
    pub(super) fn new(transport: Transport, limit: Duration, protocol: Protocol) -> Self {
        Self {
            transport,
            limit,
            protocol,
        }
    }
}

impl Service<Uri> for Connector {
    type Response = Link;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Link, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.transport.poll_ready(cx).map_err(boxed)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let Self {
            limit, protocol, ..
        } = *self;
        let connecting = self.transport.call(uri);
        Box::pin(async move {
            let made = tokio::time::timeout(limit, connecting).await;
            match made.map(|made| made.map_err(boxed)) {
                Ok(Ok(io)) => Ok(Link { io, protocol }),
                // The share of one address may have run out before the whole.
                Ok(Err(error)) if !timed_out(&error) => Err(error),
                _ => Err(ConnectTimedOut { limit }.into()),
            }
        })
    }
}

/// Without TLS the error has a type of its own.
fn boxed(error: impl Into<BoxError>) -> BoxError {
    error.into()
}

fn timed_out(error: &BoxError) -> bool {
    cause_ref::<io::Error>(error.as_ref())
        .is_some_and(|error| error.kind() == io::ErrorKind::TimedOut)
}

/// A connection.
pub(super) struct Link {
    io: Io,
    protocol: Protocol,
}

impl Connection for Link {
    fn connected(&self) -> Connected {
        // A fresh mark: the one of the TCP stream would put its addresses into the extensions of every response.
        let connected = Connected::new();
        // HTTP/2 by prior knowledge is announced as if it had been negotiated. With hyper's own switch for it, all calls to a
        // host wait for the first one's connection, and fail if that call is dropped (hyper #3199); this way each call
        // connects for itself, and those that come second join the connection that came first.
        if self.protocol == Protocol::Http2 || self.io.connected().is_negotiated_h2() {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

impl Read for Link {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for Link {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}
