//! The layer and what it is configured to do.

use std::fmt;
use std::sync::Arc;

use http::header::{HeaderName, HeaderValue, VIA};
use http::{Extensions, HeaderMap, Version};
use tower::Layer;

use super::forwarded::{is_host, is_token};
use super::request::MAX_NAMES;
use super::{ForwardedStyle, ProxyHeaders, TrustedHops};
use crate::error::BuildError;
use crate::fields::{MAX_FIELDS, MAX_HEAD};
use crate::params::Peer;

/// Makes requests and responses fit to be passed on: see the [module docs](super).
#[derive(Clone)]
pub struct ProxyHeadersLayer {
    config: Config,
}

#[derive(Clone)]
pub(super) struct Config {
    pub(super) trusted: TrustedHops,
    pub(super) style: ForwardedStyle,
    pub(super) peer_from: Option<PeerFrom>,
    pub(super) protected: Vec<HeaderName>,
    /// What no `Connection` line takes away: these, and what trusted proxies write.
    pub(super) unnamable: Vec<HeaderName>,
    /// In lower case.
    pub(super) upgrades: Vec<Box<str>>,
    pub(super) forwards_connect: bool,
    pub(super) forwards_options: bool,
    pub(super) forwards_trace: bool,
    pub(super) via: Option<Box<str>>,
    pub(super) max_fields: usize,
    pub(super) max_head: usize,
}

pub(super) type PeerFrom = Arc<dyn Fn(&Extensions) -> Option<Peer> + Send + Sync>;

impl Config {
    /// Whether there is something to say that only the peer of the connection tells.
    pub(super) fn needs_peer(&self) -> bool {
        self.style != ForwardedStyle::Omit
    }

    /// `Via` (RFC 9110 §7.6.3).
    pub(super) fn add_via(&self, headers: &mut HeaderMap, received: Version) {
        let Some(name) = &self.via else { return };
        let version = match received {
            Version::HTTP_09 => "0.9",
            Version::HTTP_10 => "1.0",
            Version::HTTP_2 => "2.0",
            Version::HTTP_3 => "3.0",
            _ => "1.1",
        };
        if let Ok(value) = HeaderValue::try_from(format!("{version} {name}")) {
            headers.append(VIA, value);
        }
    }
}

impl ProxyHeadersLayer {
    /// Believes nobody, writes `X-Forwarded-*`, and lets no upgrade, `CONNECT`, `TRACE` or `OPTIONS *` through.
    #[must_use]
    pub fn new() -> Self {
        Self {
            config: Config {
                trusted: TrustedHops::none(),
                style: ForwardedStyle::XForwarded,
                peer_from: None,
                protected: Vec::new(),
                unnamable: Vec::new(),
                upgrades: Vec::new(),
                forwards_connect: false,
                forwards_options: false,
                forwards_trace: false,
                via: None,
                max_fields: MAX_FIELDS,
                max_head: MAX_HEAD,
            },
        }
    }

    /// Which proxies in front of this one are believed. Default: none.
    #[must_use]
    pub fn trusted_hops(mut self, trusted: TrustedHops) -> Self {
        self.config.trusted = trusted;
        self
    }

    /// The fields that tell a backend for whom this proxy asks. Default: `X-Forwarded-*`.
    #[must_use]
    pub fn forwarded(mut self, style: ForwardedStyle) -> Self {
        self.config.style = style;
        self
    }

    /// Where the server has left the address of the connection's peer, if not as a [`Peer`]. The services inside see it as
    /// one.
    ///
    /// ```
    /// use std::net::SocketAddr;
    /// use watershed::proxy_headers::{Peer, ProxyHeadersLayer};
    ///
    /// // As axum does with `into_make_service_with_connect_info`; its type is `ConnectInfo<SocketAddr>`.
    /// # #[derive(Clone)] struct ConnectInfo<T>(T);
    /// let layer = ProxyHeadersLayer::new().peer_from(|extensions| {
    ///     let ConnectInfo(addr) = extensions.get::<ConnectInfo<SocketAddr>>()?;
    ///     Some(Peer::new(*addr))
    /// });
    /// # let _ = layer;
    /// ```
    #[must_use]
    pub fn peer_from(
        mut self,
        peer_from: impl Fn(&Extensions) -> Option<Peer> + Send + Sync + 'static,
    ) -> Self {
        self.config.peer_from = Some(Arc::new(peer_from));
        self
    }

    /// Fields that neither a `Connection` line takes away, nor the rule that nobody is believed: for what a layer *outside*
    /// of this one has set. Fields that layers inside set need no protection.
    ///
    /// The fields that this layer writes itself (`X-Forwarded-For`, `-Host`, `-Proto`, `Forwarded`) it overwrites, unless it is
    /// to [`Omit`](ForwardedStyle::Omit) them. Trailers are another matter: a client can send one of any such name, and a
    /// backend must not take it for a header (RFC 9110 §6.5.1).
    #[must_use]
    pub fn protect(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        self.config.protected.extend(names);
        self
    }

    /// Lets a request of HTTP/1.1 without content change to this protocol, such as `websocket`. The server then has to
    /// connect the two ends. Default: none; `Upgrade` is removed.
    ///
    /// What follows is between the two ends. `h2c` would be a way around everything that this proxy checks.
    ///
    /// # Panics
    ///
    /// If `protocol` is not the name of one (RFC 9110 §7.8).
    #[must_use]
    #[track_caller]
    pub fn allow_upgrade(self, protocol: &str) -> Self {
        BuildError::expect(self.try_allow_upgrade(protocol))
    }

    /// As [`allow_upgrade`](Self::allow_upgrade), for a protocol that is configured.
    ///
    /// # Errors
    ///
    /// If `protocol` is not the name of one.
    pub fn try_allow_upgrade(mut self, protocol: &str) -> Result<Self, BuildError> {
        if !is_token(protocol.as_bytes()) {
            let message = format!("{protocol:?} is not the name of a protocol");
            return Err(BuildError::new(message));
        }
        let protocol = protocol.to_ascii_lowercase();
        self.config.upgrades.push(protocol.into_boxed_str());
        Ok(self)
    }

    /// Passes `CONNECT` on. Default: 501. It is the one request whose target stays what the client has said, authority and
    /// all: whether to go there is for the service inside to decide.
    #[must_use]
    pub fn forward_connect(mut self) -> Self {
        self.config.forwards_connect = true;
        self
    }

    /// Passes `OPTIONS *` on. Default: it is answered with 204, as it asks about this server (RFC 9110 §9.3.7).
    #[must_use]
    pub fn forward_options_asterisk(mut self) -> Self {
        self.config.forwards_options = true;
        self
    }

    /// Passes `TRACE` on, without credentials, as it is answered with what it says. Default: 501.
    #[must_use]
    pub fn forward_trace(mut self) -> Self {
        self.config.forwards_trace = true;
        self
    }

    /// Adds `Via` in both directions, with this name for the proxy (RFC 9110 §7.6.3). Default: it doesn't.
    ///
    /// # Panics
    ///
    /// If `name` is not a token or a host.
    #[must_use]
    #[track_caller]
    pub fn via(self, name: &str) -> Self {
        BuildError::expect(self.try_via(name))
    }

    /// As [`via`](Self::via), for a name that is configured.
    ///
    /// # Errors
    ///
    /// If `name` is not a token or a host.
    pub fn try_via(mut self, name: &str) -> Result<Self, BuildError> {
        if !is_token(name.as_bytes()) && !is_host(name.as_bytes()) {
            let message = format!("{name:?} is not a name for a proxy");
            return Err(BuildError::new(message));
        }
        self.config.via = Some(name.into());
        Ok(self)
    }

    /// The most fields of a response. One with more is answered with 502. Default: 128; no more than 24 000 can be passed
    /// back.
    #[must_use]
    pub fn max_response_fields(mut self, fields: usize) -> Self {
        self.config.max_fields = fields.min(MAX_NAMES);
        self
    }

    /// The most bytes of the names and values of a response's fields. A response with more is answered with 502. Default:
    /// 64 KiB.
    #[must_use]
    pub fn max_response_head_bytes(mut self, bytes: usize) -> Self {
        self.config.max_head = bytes;
        self
    }
}

impl Default for ProxyHeadersLayer {
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for ProxyHeadersLayer {
    type Service = ProxyHeaders<S>;

    fn layer(&self, inner: S) -> ProxyHeaders<S> {
        let mut config = self.config.clone();
        config.unnamable = config.protected.clone();
        config.unnamable.extend_from_slice(config.trusted.written());
        ProxyHeaders::new(inner, Arc::new(config))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("trusted", &self.trusted)
            .field("style", &self.style)
            .field("protected", &self.protected)
            .field("upgrades", &self.upgrades)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProxyHeadersLayer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProxyHeadersLayer")
            .field("config", &self.config)
            .finish()
    }
}
