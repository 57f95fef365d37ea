//! What `proxy_headers` may pass on and back, said once more from the specifications, and not by the code that is held
//! against it: by the properties here, and by the fuzz target `proxy_headers`, which includes this file.
//!
//! Each field is lost by a rule that has a name, or it is there as it came; each message is refused by one, or it is passed.

mod fields;
mod lengths;
mod refusals;
mod requests;
mod responses;
mod upgrades;
mod way;
mod whole;

use std::net::{IpAddr, SocketAddr};

use http::{HeaderName, Request};
use watershed::proxy_headers::{ForwardedStyle, Peer, ProxyHeadersLayer, TrustedHops};

pub(crate) use refusals::assert_refused;
pub(crate) use requests::assert_passed_on;
pub(crate) use responses::assert_passed_back;
pub(crate) use whole::Whole;

/// How a layer is set up, and who asks it.
#[derive(Debug, Clone)]
pub(crate) struct Setup {
    pub(crate) peer: SocketAddr,
    /// Whether the server says who it is that asks.
    pub(crate) says_peer: bool,
    pub(crate) tls: bool,
    pub(crate) believes: Believes,
    pub(crate) in_forwarded: bool,
    pub(crate) style: ForwardedStyle,
    pub(crate) connect: bool,
    pub(crate) options: bool,
    pub(crate) trace: bool,
    pub(crate) upgrade: bool,
    pub(crate) via: bool,
    /// Fields and bytes, if not as by default.
    pub(crate) max_head: Option<(usize, usize)>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Believes {
    Last(usize),
    /// Those in 10.0.0.0/8.
    Network,
}

/// What trusted proxies write besides the two fields that all of them do.
const WRITTEN: [&str; 3] = ["x-forwarded-host", "x-forwarded-port", "x-client-cert"];
/// What a layer outside has set.
const PROTECTED: &str = "x-protected";

impl Setup {
    pub(crate) fn layer(&self) -> ProxyHeadersLayer {
        let mut trusted = match self.believes {
            Believes::Last(count) => TrustedHops::last(count),
            Believes::Network => TrustedHops::networks(["10.0.0.0/8"]),
        };
        if self.in_forwarded {
            trusted = trusted.in_forwarded();
        }
        let mut layer = ProxyHeadersLayer::new()
            .trusted_hops(trusted.writing(WRITTEN.map(HeaderName::from_static)))
            .forwarded(self.style)
            .protect([HeaderName::from_static(PROTECTED)]);
        if self.connect {
            layer = layer.forward_connect();
        }
        if self.options {
            layer = layer.forward_options_asterisk();
        }
        if self.trace {
            layer = layer.forward_trace();
        }
        if self.upgrade {
            layer = layer.allow_upgrade("WebSocket");
        }
        if self.via {
            layer = layer.via("front");
        }
        if let Some((fields, bytes)) = self.max_head {
            layer = layer
                .max_response_fields(fields)
                .max_response_head_bytes(bytes);
        }
        layer
    }

    /// Puts the peer into a request, as the server would.
    pub(crate) fn introduce<B>(&self, request: &mut Request<B>) {
        let peer = Peer::new(self.peer);
        if self.says_peer {
            let peer = if self.tls { peer.over_tls() } else { peer };
            request.extensions_mut().insert(peer);
        }
    }

    fn believes_peer(&self) -> bool {
        self.believes(Some(self.addr()), 0)
    }

    /// Whether the hop at this address is believed, the `nth` before us.
    fn believes(&self, hop: Option<IpAddr>, nth: usize) -> bool {
        match self.believes {
            Believes::Last(count) => nth < count.min(64),
            Believes::Network => nth < 64 && is_ours(hop),
        }
    }

    fn addr(&self) -> IpAddr {
        self.peer.ip().to_canonical()
    }

    fn proto(&self) -> &'static str {
        if self.tls { "https" } else { "http" }
    }
}

fn is_ours(addr: Option<IpAddr>) -> bool {
    matches!(addr, Some(IpAddr::V4(addr)) if addr.octets()[0] == 10)
}
