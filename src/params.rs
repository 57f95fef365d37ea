//! The plain values that a router and a server leave in a request. They are on the ground floor because the head policy
//! keeps them as well.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::error::ClientFault;

/// The parameters of the matched route, by name, as an extension of the request: `{id}` is `7` in `/users/7`.
///
/// Values are *decoded* already, once. The crate owns no router: fill it from the one you have.
///
/// ```
/// use watershed::rewrite::PathParams;
///
/// // From a router that decodes, such as axum's:
/// let params = PathParams::from_iter([("id", "a b")]);
/// assert_eq!(params.get("id"), Some("a b"));
///
/// // From one that hands out the raw path, such as matchit:
/// let params = PathParams::decode([("id", "a%20b")]).unwrap();
/// assert_eq!(params.get("id"), Some("a b"));
/// assert!(PathParams::decode([("id", "%ff")]).is_err());
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PathParams {
    params: Arc<[(Box<str>, Box<str>)]>,
}

impl PathParams {
    /// Percent-decodes raw values of a path, once (RFC 3986 §2.4). `+` is a plus sign.
    ///
    /// # Errors
    ///
    /// A [`ClientFault`] (400) if a `%` is not followed by two hexadecimal digits, or a value is not UTF-8.
    pub fn decode<'a>(
        raw: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ClientFault> {
        raw.into_iter()
            .map(|(name, value)| match decode(value) {
                Some(value) => Ok((name.into(), value.into())),
                None => Err(ClientFault::bad_request(format!(
                    "the path parameter {name:?} is not percent-encoded UTF-8"
                ))),
            })
            .collect::<Result<_, _>>()
            .map(|params| Self { params })
    }

    /// The value of `name`; the first, if a router gives it twice.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter()
            .find(|(known, _)| *known == name)
            .map(|(_, value)| value)
    }

    /// All names and values, in the router's order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.params.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl<K: Into<Box<str>>, V: Into<Box<str>>> FromIterator<(K, V)> for PathParams {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(params: I) -> Self {
        let params = params.into_iter();
        Self {
            params: params
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        }
    }
}

impl fmt::Debug for PathParams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// The connection that a request came by, as an extension of the request: from where, and whether over TLS.
///
/// A server on a Unix socket has no address to give: whoever connects there is on this machine, so it says loopback.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Peer {
    addr: SocketAddr,
    tls: bool,
}

impl Peer {
    /// The peer at `addr`, over plain TCP.
    #[must_use]
    pub fn new(addr: SocketAddr) -> Self {
        Self { addr, tls: false }
    }

    /// The same peer, over TLS.
    #[must_use]
    pub fn over_tls(self) -> Self {
        Self { tls: true, ..self }
    }

    /// Whether it came over TLS.
    #[must_use]
    pub fn is_tls(&self) -> bool {
        self.tls
    }

    /// Its address.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }
}

fn decode(raw: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            let (high, low) = (digit()?, digit()?);
            decoded.push((high << 4 | low) as u8);
        } else {
            decoded.push(byte);
        }
    }
    String::from_utf8(decoded).ok()
}
