//! Whom to believe about where a request came from.

use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderName;

use super::forwarded::{Claim, Hop, Illegible};
use crate::error::BuildError;

/// Which proxies in front of this one are believed when they say for whom they ask.
///
/// Anybody can send `X-Forwarded-For: 127.0.0.1`. What a request claims is therefore dropped, but for the part that was
/// written by a proxy which is known to be ours. The list of hops is read from the right, beginning with the peer of the
/// connection, as far as the trust goes.
///
/// ```
/// use watershed::proxy_headers::TrustedHops;
///
/// let nobody = TrustedHops::none();
/// let the_load_balancer = TrustedHops::last(1);
/// let the_mesh = TrustedHops::networks(["10.0.0.0/8", "fd00::/8"]);
/// assert!(TrustedHops::try_networks(["10.0.0.0/33"]).is_err());
/// # let _ = (nobody, the_load_balancer, the_mesh);
/// ```
#[derive(Debug, Clone)]
pub struct TrustedHops {
    who: Who,
    rfc7239: bool,
    also: Arc<[HeaderName]>,
}

#[derive(Debug, Clone)]
enum Who {
    Last(usize),
    Within(Arc<[Network]>),
}

impl TrustedHops {
    /// The most hops that are kept, however far the trust goes.
    const MAX: usize = 64;

    /// Nobody: the default. The first hop is the peer.
    #[must_use]
    pub fn none() -> Self {
        Self::last(0)
    }

    /// The last `count` proxies before this one, the peer of the connection among them; 64 at the most. Right if every
    /// request passes exactly so many: whoever can reach this proxy without passing them can pretend to be anybody. Each of
    /// them has to append to `X-Forwarded-For`, and to append to `X-Forwarded-Proto` or to overwrite it.
    #[must_use]
    pub fn last(count: usize) -> Self {
        Self {
            who: Who::Last(count.min(Self::MAX)),
            rfc7239: false,
            also: Arc::new([]),
        }
    }

    /// Proxies in these networks (`192.0.2.0/24`, `2001:db8::/32`, or one address), as many in a row as there are, 64 at
    /// the most; a hop whose address is hidden ends the row. Right if nobody else can send from there.
    ///
    /// # Panics
    ///
    /// If one of them is no network.
    #[must_use]
    #[track_caller]
    pub fn networks<'a>(networks: impl IntoIterator<Item = &'a str>) -> Self {
        BuildError::expect(Self::try_networks(networks))
    }

    /// Proxies in these networks.
    ///
    /// # Errors
    ///
    /// If one of them is no network.
    pub fn try_networks<'a>(
        networks: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, BuildError> {
        let networks = networks.into_iter().map(|text| {
            Network::parse(text)
                .ok_or_else(|| BuildError::new(format!("{text:?} is not a network of addresses")))
        });
        Ok(Self {
            who: Who::Within(networks.collect::<Result<_, _>>()?),
            rfc7239: false,
            also: Arc::new([]),
        })
    }

    /// They write `Forwarded` (RFC 7239), not `X-Forwarded-For` and `-Proto`. Only one of the two is ever read: a proxy that
    /// writes one hands the other on as the client has sent it.
    #[must_use]
    pub fn in_forwarded(mut self) -> Self {
        self.rfc7239 = true;
        self
    }

    /// Further fields that they write, such as `X-Forwarded-Host` or `X-Client-Cert`: believed as well, and dropped if somebody
    /// else has sent them, also under a name that only looks like theirs.
    ///
    /// Most load balancers write `X-Forwarded-For` and `-Proto` and hand on any other field of that family as the client has
    /// sent it, so these are dropped by default. Name one only if every one of the proxies overwrites it. With
    /// [`ForwardedStyle::Omit`](super::ForwardedStyle::Omit) none is handed on.
    #[must_use]
    pub fn writing(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        let known = self.also.iter().cloned();
        self.also = known.chain(names).collect();
        self
    }

    /// The fields that they write besides.
    pub(super) fn written(&self) -> &[HeaderName] {
        &self.also
    }

    pub(super) fn reads_forwarded(&self) -> bool {
        self.rfc7239
    }

    /// Whether the hop at `addr` is believed, which is the `nth` from the right, the peer being 0.
    pub(super) fn believes(&self, addr: Option<IpAddr>, nth: usize) -> bool {
        match &self.who {
            Who::Last(count) => nth < *count,
            Who::Within(networks) => {
                let holds = |addr| networks.iter().any(|network| network.holds(addr));
                nth < Self::MAX && addr.is_some_and(holds)
            }
        }
    }

    /// The hops that are believed, from left to right, of those that a request claims, from right to left.
    ///
    /// A hop that is none ends them: one who is believed has said it. But a line can be illegible by what stood in it before
    /// one who is believed added to it. If that ended them as well, whoever sends a single quote would be taken for the last
    /// of our own proxies.
    pub(super) fn believed(
        &self,
        peer: IpAddr,
        mut claimed: impl Iterator<Item = Claim>,
    ) -> Result<Vec<Hop>, Illegible> {
        let mut hops = Vec::new();
        let mut addr = Some(peer);
        // What nobody believes isn't even read.
        while self.believes(addr, hops.len()) {
            match claimed.next() {
                Some(Claim::Hop(hop)) => {
                    addr = hop.node.addr();
                    hops.push(hop);
                }
                Some(Claim::Illegible) => return Err(Illegible),
                Some(Claim::Malformed) | None => break,
            }
        }
        hops.reverse();
        Ok(hops)
    }
}

impl Default for TrustedHops {
    fn default() -> Self {
        Self::none()
    }
}

#[derive(Debug, Clone, Copy)]
struct Network {
    addr: IpAddr,
    bits: u32,
}

impl Network {
    fn parse(text: &str) -> Option<Self> {
        let (addr, bits) = match text.split_once('/') {
            Some((addr, bits)) => (addr, Some(bits)),
            None => (text, None),
        };
        let addr: IpAddr = addr.parse().ok()?;
        let all = if addr.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            // `parse` would take a sign as well.
            Some(bits) if bits.bytes().all(|byte| byte.is_ascii_digit()) => bits.parse().ok()?,
            Some(_) => return None,
            None => all,
        };
        if bits > all {
            return None;
        }
        // As the addresses are that it is held against.
        match (addr, addr.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(addr)) if bits >= 96 => Some(Self {
                addr: addr.into(),
                bits: bits - 96,
            }),
            _ => Some(Self { addr, bits }),
        }
    }

    fn holds(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let mask = u32::MAX.checked_shl(32 - self.bits).unwrap_or(0);
                u32::from(net) & mask == u32::from(addr) & mask
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let mask = u128::MAX.checked_shl(128 - self.bits).unwrap_or(0);
                u128::from(net) & mask == u128::from(addr) & mask
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_its_addresses_and_no_other() {
        for (network, inside, outside) in [
            (
                "0.0.0.0/0",
                &["0.0.0.0", "255.255.255.255"][..],
                &["::1"][..],
            ),
            (
                "10.0.0.0/8",
                &["10.0.0.0", "10.255.255.255"],
                &["11.0.0.0", "9.255.255.255"],
            ),
            ("10.1.2.3", &["10.1.2.3"], &["10.1.2.2"]),
            ("10.1.2.3/31", &["10.1.2.2", "10.1.2.3"], &["10.1.2.4"]),
            ("::/0", &["::1", "ffff::"], &["10.0.0.1"]),
            ("2001:db8::/33", &["2001:db8:7fff::"], &["2001:db8:8000::"]),
            ("::1", &["::1"], &["::2", "127.0.0.1"]),
            ("::ffff:10.0.0.0/104", &["10.1.2.3"], &["11.0.0.0", "::1"]),
        ] {
            let network = Network::parse(network).expect("a network");
            for addr in inside {
                assert!(network.holds(addr.parse().expect("an address")), "{addr}");
            }
            for addr in outside {
                assert!(!network.holds(addr.parse().expect("an address")), "{addr}");
            }
        }
        for text in [
            "",
            "/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "::/129",
            "10.0.0/8",
            "10.0.0.0/+8",
            "a/8",
        ] {
            assert!(Network::parse(text).is_none(), "{text}");
        }
    }
}
