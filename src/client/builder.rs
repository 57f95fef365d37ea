//! What can be configured, and how the parts are put together.

use std::time::Duration;

use http_body::Body;
use hyper_util::client::legacy;
use hyper_util::rt::TokioTimer;

use super::Client;
use super::connector::{Connector, Protocol, Transport, tcp};
use super::linger::Executor;
use crate::error::{BoxError, BuildError};

/// As good as for ever: what is longer is not timed, because the pool adds it to the clock's now.
const FOR_EVER: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// How long an HTTP/2 server may take to say that it is still there.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// As many fields as hyper reads of an HTTP/1.1 head without an allocation for them.
const HYPER_FIELDS: usize = 100;

/// Configures a [`Client`]: see [`Client::builder`].
#[derive(Debug, Clone)]
pub struct ClientBuilder {
    connect_timeout: Duration,
    idle_timeout: Duration,
    max_idle_per_host: usize,
    max_response_fields: usize,
    max_response_head_bytes: u32,
    http2_only: bool,
    http2_keep_alive: Option<Duration>,
    #[cfg(feature = "tls")]
    roots: super::tls::Roots,
}

impl ClientBuilder {
    /// The defaults.
    #[must_use]
    pub fn new() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(90),
            max_idle_per_host: 64,
            max_response_fields: HYPER_FIELDS,
            max_response_head_bytes: 64 * 1024,
            http2_only: false,
            http2_keep_alive: None,
            #[cfg(feature = "tls")]
            roots: super::tls::Roots::default(),
        }
    }

    /// How long making a connection may take: name lookup, TCP and TLS together. Default: 5 s. A name with several addresses
    /// shares it out among them. `Duration::MAX` waits as long as the kernel does.
    #[must_use]
    pub fn connect_timeout(mut self, limit: Duration) -> Self {
        self.connect_timeout = limit;
        self
    }

    /// How long a connection is kept without a request. Default: 90 s. Choose less than the servers do: a request that is
    /// sent as the server closes fails. Zero keeps none, `Duration::MAX` keeps them until the server closes.
    #[must_use]
    pub fn idle_timeout(mut self, limit: Duration) -> Self {
        self.idle_timeout = limit;
        self
    }

    /// How many connections to one scheme, host and port are kept without a request. Default: 64. Zero keeps none. It does not
    /// bound how many are in use.
    #[must_use]
    pub fn max_idle_per_host(mut self, connections: usize) -> Self {
        self.max_idle_per_host = connections;
        self
    }

    /// How many header fields the head of an HTTP/1.1 response may have; one with more is malformed. Default: 100. Another
    /// number costs an allocation for each response. HTTP/2 bounds bytes only.
    ///
    /// A [`ProxyHeadersLayer`](crate::proxy_headers::ProxyHeadersLayer) has a bound of its own.
    #[must_use]
    pub fn max_response_fields(mut self, fields: usize) -> Self {
        self.max_response_fields = fields;
        self
    }

    /// How many bytes of names and values the head of an HTTP/2 response may have; the call fails with more. Default: 64 KiB.
    /// Over HTTP/1.1 it is about 400 KiB, whatever is said here.
    #[must_use]
    pub fn max_response_head_bytes(mut self, bytes: u32) -> Self {
        self.max_response_head_bytes = bytes;
        self
    }

    /// Speaks HTTP/2 to every server, without asking: prior knowledge for `http://` ("h2c"), and the only protocol that is
    /// offered for `https://`.
    #[must_use]
    pub fn http2_only(mut self) -> Self {
        self.http2_only = true;
        self
    }

    /// Asks the server of an HTTP/2 connection every `interval` whether it is still there, as long as a call on it waits.
    /// Default: never. If it doesn't say so within ten seconds, those calls fail, and the next one makes a new connection:
    /// without it, one that has vanished holds the calls to its host until the kernel gives up. Servers may close connections
    /// that ask too often; gRPC's want five minutes, unless they are told otherwise. `Duration::MAX` is never.
    #[must_use]
    pub fn http2_keep_alive_interval(mut self, interval: Duration) -> Self {
        self.http2_keep_alive = (interval < FOR_EVER).then_some(interval);
        self
    }

    /// Trusts the certificates in `pem`, one or several, in addition to the bundled roots of Mozilla's list. If it can't be
    /// read, [`try_build`](Self::try_build) says so.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn add_root_pem(mut self, pem: &[u8]) -> Self {
        self.roots.add_pem(pem);
        self
    }

    /// The client.
    ///
    /// # Panics
    ///
    /// Where [`try_build`](Self::try_build) returns an error.
    #[must_use]
    #[track_caller]
    pub fn build<B>(self) -> Client<B>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        BuildError::expect(self.try_build())
    }

    /// The client.
    ///
    /// # Errors
    ///
    /// If the connect timeout, the keep-alive interval or a bound of the response's head is zero, or what was given as a root
    /// is not a PEM certificate.
    pub fn try_build<B>(self) -> Result<Client<B>, BuildError>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        if self.connect_timeout.is_zero() {
            return Err(BuildError::new(
                "a connect timeout of zero would fail every call",
            ));
        }
        if self.max_response_fields == 0 || self.max_response_head_bytes == 0 {
            return Err(BuildError::new(
                "a response head of zero fields or bytes would fail every call",
            ));
        }
        if self
            .http2_keep_alive
            .is_some_and(|interval| interval.is_zero())
        {
            return Err(BuildError::new(
                "a keep-alive interval of zero would ask without a pause",
            ));
        }
        let protocol = if self.http2_only {
            Protocol::Http2
        } else {
            Protocol::Http1
        };
        // The pool asks for an idle timeout of zero only when a connection is wanted again, and holds it until then.
        let max_idle = if self.idle_timeout.is_zero() {
            0
        } else {
            self.max_idle_per_host
        };
        let connect_timeout = self.connect_timeout;
        let idle_timeout = (self.idle_timeout < FOR_EVER).then_some(self.idle_timeout);
        // HTTP/2 counts 32 bytes more for each field (RFC 9113 §6.5.2).
        let fields = u32::try_from(self.max_response_fields).unwrap_or(u32::MAX);
        let header_list = fields.saturating_mul(32);
        let header_list = header_list.saturating_add(self.max_response_head_bytes);
        let mut client = legacy::Client::builder(Executor);
        client
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(idle_timeout)
            .pool_max_idle_per_host(max_idle)
            .http2_max_header_list_size(header_list);
        if let Some(interval) = self.http2_keep_alive {
            client
                .timer(TokioTimer::new())
                .http2_keep_alive_interval(interval)
                .http2_keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        }
        if self.max_response_fields != HYPER_FIELDS {
            client.http1_max_headers(self.max_response_fields);
        }
        let connector = Connector::new(self.transport()?, connect_timeout, protocol);
        Ok(Client::over(client.build(connector)))
    }

    #[cfg(not(feature = "tls"))]
    fn transport(self) -> Result<Transport, BuildError> {
        Ok(tcp(self.connect_timeout))
    }

    #[cfg(feature = "tls")]
    fn transport(self) -> Result<Transport, BuildError> {
        super::tls::over(tcp(self.connect_timeout), self.roots, self.http2_only)
    }
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self::new()
    }
}
