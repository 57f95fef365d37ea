//! `Forwarded` (RFC 7239) and `X-Forwarded-*`: what is read of them, and how they are written.

use std::fmt::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::header::{FORWARDED, HeaderName, HeaderValue};
use http::{HeaderMap, header};

use super::TrustedHops;
use crate::fields::{is_claim, looks_like, tokens};
use crate::params::Peer;

const X_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// The fields that tell a backend for whom this proxy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum ForwardedStyle {
    /// `X-Forwarded-For`, `X-Forwarded-Host` and `X-Forwarded-Proto`, which most servers read.
    #[default]
    XForwarded,
    /// `Forwarded` (RFC 7239).
    Rfc7239,
    /// Both, saying the same.
    Both,
    /// None. A backend sees this proxy only.
    Omit,
}

impl ForwardedStyle {
    fn has_x_forwarded(self) -> bool {
        matches!(self, Self::XForwarded | Self::Both)
    }

    fn has_forwarded(self) -> bool {
        matches!(self, Self::Rfc7239 | Self::Both)
    }
}

/// One hop on the way: for whom, over what, and by which name its proxy was asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hop {
    pub(super) node: Node,
    host: Option<HeaderValue>,
    proto: Option<HeaderValue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Node {
    Addr(IpAddr),
    /// `unknown`, or a name that hides the address (RFC 7239 §6.3).
    Hidden(String),
}

impl Node {
    pub(super) fn addr(&self) -> Option<IpAddr> {
        match self {
            Self::Addr(addr) => Some(*addr),
            Self::Hidden(_) => None,
        }
    }

    /// A node (RFC 7239 §6), or an address as it stands.
    fn parse(text: &str) -> Option<Self> {
        if let Ok(addr) = text.parse::<IpAddr>() {
            return Some(Self::Addr(addr.to_canonical()));
        }
        let is_hidden = |text: &str| {
            let hides = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            text.starts_with('_') && text.len() > 1 && text.bytes().all(hides)
        };
        let name = match text.rsplit_once(':') {
            Some((name, port)) if is_port(port) || is_hidden(port) => name,
            _ => text,
        };
        let bracketed = name
            .strip_prefix('[')
            .and_then(|rest| rest.strip_suffix(']'));
        if let Some(addr) = bracketed {
            let addr: Ipv6Addr = addr.parse().ok()?;
            return Some(Self::Addr(IpAddr::V6(addr).to_canonical()));
        }
        if let Ok(addr) = name.parse::<Ipv4Addr>() {
            return Some(Self::Addr(addr.into()));
        }
        let hides = is_hidden(name) || name.eq_ignore_ascii_case("unknown");
        hides.then(|| Self::Hidden(name.to_owned()))
    }
}

/// What a request claims of a hop.
pub(super) enum Claim {
    Hop(Hop),
    /// It is none.
    Malformed,
    /// It is in a line of which nobody knows where its elements are.
    Illegible,
}

impl From<Option<Hop>> for Claim {
    fn from(hop: Option<Hop>) -> Self {
        hop.map_or(Self::Malformed, Self::Hop)
    }
}

/// A line that had to be read is [illegible](Claim::Illegible).
#[derive(Debug, Clone, Copy)]
pub(super) struct Illegible;

/// Replaces what `headers` claim of the way here by what is believed of it, and adds the peer.
pub(super) fn rewrite(
    headers: &mut HeaderMap,
    style: ForwardedStyle,
    trusted: &TrustedHops,
    protected: &[HeaderName],
    peer: Option<Peer>,
    host: Option<&HeaderValue>,
) -> Result<(), Illegible> {
    let Some(peer) = peer.filter(|_| style != ForwardedStyle::Omit) else {
        drop_claims(headers, trusted, |name| protected.contains(name));
        return Ok(());
    };
    let addr = peer.addr().ip().to_canonical();
    let mut hops = if trusted.reads_forwarded() {
        trusted.believed(addr, from_forwarded(headers))?
    } else {
        trusted.believed(addr, from_x_forwarded(headers))?
    };
    let mut own = Hop {
        node: Node::Addr(addr),
        host: host.cloned(),
        proto: Some(HeaderValue::from_static(if peer.is_tls() {
            "https"
        } else {
            "http"
        })),
    };
    let believes_peer = trusted.believes(Some(addr), 0);
    if believes_peer && !trusted.reads_forwarded() {
        // Its statements are about the first of the hops; a proxy that names no hop still says what it was asked.
        let nth = hops.len().max(1);
        let first = hops.first_mut().unwrap_or(&mut own);
        let said = |name: HeaderName| nth_from_right(headers, &name, nth);
        if trusted.written().contains(&X_HOST) {
            let host = said(X_HOST).filter(|host| is_host(host.as_bytes()));
            first.host = host.or(first.host.take());
        }
        first.proto = said(X_PROTO).filter(is_scheme).or(first.proto.take());
    }
    hops.push(own);

    drop_claims(headers, trusted, |name| {
        protected.contains(name) || (believes_peer && trusted.written().contains(name))
    });
    for name in [X_FOR, X_HOST, X_PROTO, FORWARDED] {
        headers.remove(name);
    }
    if style.has_x_forwarded() {
        put(headers, X_FOR, list(&hops, write_addr));
        // The first that anybody has said it of: what the client has asked for.
        let said =
            |of: fn(&Hop) -> &Option<HeaderValue>| hops.iter().find_map(|hop| of(hop).clone());
        if let Some(host) = said(|hop| &hop.host) {
            headers.insert(X_HOST, host);
        }
        if let Some(proto) = said(|hop| &hop.proto) {
            headers.insert(X_PROTO, proto);
        }
    }
    if style.has_forwarded() {
        put(headers, FORWARDED, list(&hops, write_element));
    }
    Ok(())
}

/// What was not written by a proxy of ours is removed.
fn drop_claims(
    headers: &mut HeaderMap,
    trusted: &TrustedHops,
    is_kept: impl Fn(&HeaderName) -> bool,
) {
    // Those that nearly every request of a proxy has, without a list of them.
    for name in [X_FOR, X_HOST, X_PROTO, FORWARDED] {
        if !is_kept(&name) {
            headers.remove(name);
        }
    }
    let is_theirs = |name: &HeaderName| {
        let mut written = trusted.written().iter();
        written.any(|known| looks_like(known, name))
    };
    let goes = |name: &&HeaderName| (is_claim(name) || is_theirs(name)) && !is_kept(name);
    let claims: Vec<HeaderName> = headers.keys().filter(goes).cloned().collect();
    for name in claims {
        headers.remove(name);
    }
}

fn put(headers: &mut HeaderMap, name: HeaderName, value: String) {
    // All of it is checked: it can't fail.
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}

fn list(hops: &[Hop], write: fn(&mut String, &Hop) -> std::fmt::Result) -> String {
    let mut list = String::with_capacity(48 * hops.len());
    for hop in hops {
        if !list.is_empty() {
            list.push_str(", ");
        }
        // Writing to a string can't fail.
        let _ = write(&mut list, hop);
    }
    list
}

/// From right to left, as that is how far the trust goes.
fn from_x_forwarded(headers: &HeaderMap) -> impl Iterator<Item = Claim> {
    tokens(headers, &X_FOR).rev().map(|token| {
        let node = std::str::from_utf8(token).ok().and_then(Node::parse);
        let (host, proto) = (None, None);
        node.map(|node| Hop { node, host, proto }).into()
    })
}

/// What the hop that is the `nth` from the right has said: each adds its own at the end, or leaves the first one's alone.
fn nth_from_right(headers: &HeaderMap, name: &HeaderName, nth: usize) -> Option<HeaderValue> {
    let said = tokens(headers, name).rev().take(nth).last()?;
    HeaderValue::from_bytes(said).ok()
}

fn is_scheme(value: &HeaderValue) -> bool {
    let scheme = value.as_bytes();
    let may_follow = |byte: &u8| byte.is_ascii_alphanumeric() || b"+-.".contains(byte);
    scheme.first().is_some_and(u8::is_ascii_alphabetic) && scheme.iter().all(may_follow)
}

/// Whether it is `host[:port]`, with a host and without a user name.
pub(super) fn is_host(value: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(value) else {
        return false;
    };
    let (valid, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((addr, port)) => (addr.parse::<Ipv6Addr>().is_ok(), port),
        None => {
            let (name, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            // Of what else RFC 3986 allows in a name, `,` and `;` would end it in the fields where we write it, parentheses
            // are a comment in `Via`, and what `%2E` is depends on who decodes it.
            let may_stand =
                |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'*+=".contains(&byte);
            (!name.is_empty() && name.bytes().all(may_stand), port)
        }
    };
    // RFC 3986 §3.2.3: the port may be empty.
    valid
        && (port.is_empty()
            || port
                .strip_prefix(':')
                .is_some_and(|port| port.is_empty() || is_port(port)))
}

/// `parse` would take a sign as well.
fn is_port(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

/// The elements of all `Forwarded` lines, from right to left as well, and no further than they are asked for.
fn from_forwarded(headers: &HeaderMap) -> impl Iterator<Item = Claim> {
    let lines = headers.get_all(header::FORWARDED).iter().rev();
    lines.flat_map(|line| {
        let elements = split_quoted(line.as_bytes(), b',');
        // A quote that never ends.
        let ill = elements.is_none().then_some(Claim::Illegible);
        let elements = elements.unwrap_or_default().into_iter().rev();
        let elements = elements.filter(|element| !element.is_empty());
        let claims = elements.map(|element| parse_element(element).into());
        claims.chain(ill)
    })
}

/// `for=192.0.2.60;proto=http;by=203.0.113.43`.
fn parse_element(element: &[u8]) -> Option<Hop> {
    let (mut node, mut host, mut proto, mut by) = (None, None, None, None);
    for pair in split_quoted(element, b';')? {
        if pair.is_empty() {
            continue;
        }
        let equals = pair.iter().position(|&byte| byte == b'=')?;
        let (name, value) = (&pair[..equals], unquote(&pair[equals + 1..])?);
        let known = match &*name.to_ascii_lowercase() {
            b"for" => &mut node,
            b"host" => &mut host,
            b"proto" => &mut proto,
            b"by" => &mut by,
            name if is_token(name) => continue,
            _ => return None,
        };
        // Each may occur once (RFC 7239 §4).
        if known.replace(value).is_some() {
            return None;
        }
    }
    let value = |text: Option<String>| HeaderValue::try_from(text?).ok();
    Some(Hop {
        node: Node::parse(&node?)?,
        host: value(host).filter(|host| is_host(host.as_bytes())),
        proto: value(proto).filter(is_scheme),
    })
}

fn write_addr(list: &mut String, hop: &Hop) -> std::fmt::Result {
    match &hop.node {
        Node::Addr(addr) => write!(list, "{addr}"),
        Node::Hidden(name) => write!(list, "{name}"),
    }
}

fn write_element(list: &mut String, hop: &Hop) -> std::fmt::Result {
    match &hop.node {
        Node::Addr(IpAddr::V6(addr)) => write!(list, "for=\"[{addr}]\"")?,
        Node::Addr(addr) => write!(list, "for={addr}")?,
        Node::Hidden(name) => write!(list, "for={name}")?,
    }
    for (name, value) in [("host", &hop.host), ("proto", &hop.proto)] {
        if let Some(Ok(value)) = value.as_ref().map(HeaderValue::to_str) {
            let quote = if is_token(value.as_bytes()) { "" } else { "\"" };
            write!(list, ";{name}={quote}{value}{quote}")?;
        }
    }
    Ok(())
}

/// RFC 9110 §5.6.2.
pub(super) fn is_token(text: &[u8]) -> bool {
    let tchar = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(tchar)
}

/// Splits at each `separator` outside of a quoted string, and trims; `None` if a quoted string has no end.
fn split_quoted(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let (mut parts, mut start) = (Vec::new(), 0);
    let (mut quoted, mut escaped) = (false, false);
    for (at, &byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if byte == separator && !quoted => {
                parts.push(text[start..at].trim_ascii());
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[start..].trim_ascii());
    (!quoted).then_some(parts)
}

/// A token, or what a quoted string holds (RFC 9110 §5.6.4).
fn unquote(value: &[u8]) -> Option<String> {
    let Some(rest) = value.strip_prefix(b"\"") else {
        // RFC 7239 wants quotes around an address with colons; not everybody writes them.
        let plain = |byte: &u8| is_token(&[*byte]) || b":[]".contains(byte);
        let text = (!value.is_empty() && value.iter().all(plain)).then_some(value)?;
        return String::from_utf8(text.to_vec()).ok();
    };
    let inner = rest.strip_suffix(b"\"")?;
    let (mut text, mut escaped) = (Vec::with_capacity(inner.len()), false);
    for &byte in inner {
        match byte {
            _ if escaped => {
                text.push(byte);
                escaped = false;
            }
            b'\\' => escaped = true,
            b'"' => return None,
            _ => text.push(byte),
        }
    }
    if escaped {
        return None;
    }
    String::from_utf8(text).ok()
}
