//! What a request has to be before it is passed on.

use bytes::Bytes;
use http::header::{
    AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderValue, MAX_FORWARDS, TE, UPGRADE,
};
use http::uri::{self, PathAndQuery};
use http::{HeaderMap, Method, Response, StatusCode, Uri, Version, request};

use super::forwarded::{self, is_host, is_token};
use super::layer::Config;
use crate::error::Problem;
use crate::fields::{is_coded, settle_length, strip_hop_by_hop, tokens};
use crate::params::Peer;

/// Why a request is not passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is wrong, or more than this proxy does.
    Problem(StatusCode, &'static str),
    /// It is answered here: an `OPTIONS` that is not passed on.
    NoContent,
    /// There is no [`Peer`].
    NoPeer,
}

impl Refusal {
    pub(super) fn into_response(self) -> Response<Bytes> {
        match self {
            Self::Problem(status, detail) => Problem::new(status).detail(detail).into_response(),
            Self::NoContent => {
                let mut response = Response::new(Bytes::new());
                *response.status_mut() = StatusCode::NO_CONTENT;
                response
            }
            Self::NoPeer => {
                let problem = Problem::new(StatusCode::INTERNAL_SERVER_ERROR)
                    .detail("the server does not say where a request comes from");
                let mut response = problem.into_response();
                response.extensions_mut().insert(super::MissingPeer);
                response
            }
        }
    }
}

const fn bad_request(detail: &'static str) -> Refusal {
    Refusal::Problem(StatusCode::BAD_REQUEST, detail)
}

/// What has to be remembered of a request until its response is here.
#[derive(Debug, Default)]
pub(super) struct Exchange {
    /// The protocols that the request asks to change to.
    pub(super) upgrade: Option<HeaderValue>,
    /// Whether it could have asked for one: it has no content; HTTP/1.0 has none, and a stream of HTTP/2 can't become
    /// another protocol (RFC 9113 §8.6).
    pub(super) may_upgrade: bool,
    /// Whether a success opens a tunnel: it is a `CONNECT`.
    pub(super) may_open_tunnel: bool,
}

/// The most names in a head: `HeaderMap` panics where it would come to hold more than 24 576, and some are ours.
pub(super) const MAX_NAMES: usize = 24_000;

/// Makes `parts` what this proxy sends on.
pub(super) fn admit(
    config: &Config,
    parts: &mut request::Parts,
    has_content: bool,
) -> Result<Exchange, Refusal> {
    if parts.headers.keys_len() > MAX_NAMES {
        return Err(Refusal::Problem(
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request has too many fields",
        ));
    }
    let peer = peer(config, parts)?;
    settle_host(parts)?;
    check_method(config, parts, has_content)?;
    count_forwards(parts)?;
    if is_coded(&parts.headers) {
        return Err(Refusal::Problem(
            StatusCode::NOT_IMPLEMENTED,
            "this proxy knows no transfer coding but chunked",
        ));
    }

    let headers = &mut parts.headers;
    let trailers = wants_trailers(headers);
    // Not in the middle of a message (RFC 9110 §7.8): the rest of it would be the new protocol's.
    let may_upgrade = parts.version == Version::HTTP_11 && !has_content;
    let upgrade = may_upgrade
        .then(|| upgrade(headers, &config.upgrades))
        .flatten();
    strip_hop_by_hop(headers, &config.unnamable);
    settle_length(headers).map_err(|_| bad_request("the request's Content-Length is not one"))?;
    if parts.version >= Version::HTTP_2 {
        put_cookie_together(headers);
    }
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
    if let Some(protocols) = &upgrade {
        put_upgrade(headers, protocols.clone());
    }
    let host = headers.get(HOST).cloned();
    forwarded::rewrite(
        headers,
        config.style,
        &config.trusted,
        &config.protected,
        peer,
        host.as_ref(),
    )
    .map_err(|_| bad_request("a quoted string of the request's Forwarded has no end"))?;
    config.add_via(headers, parts.version);
    Ok(Exchange {
        upgrade,
        may_upgrade,
        may_open_tunnel: parts.method == Method::CONNECT,
    })
}

/// The peer, also for the services inside.
fn peer(config: &Config, parts: &mut request::Parts) -> Result<Option<Peer>, Refusal> {
    if let Some(peer_from) = &config.peer_from {
        match peer_from(&parts.extensions) {
            Some(peer) => parts.extensions.insert(peer),
            None => parts.extensions.remove(),
        };
    }
    let peer = parts.extensions.get().copied();
    if peer.is_none() && config.needs_peer() {
        return Err(Refusal::NoPeer);
    }
    Ok(peer)
}

/// One `Host`, which is the authority that the request is for (RFC 9112 §3.2, RFC 9113 §8.3.1); the target keeps the path
/// only, so that nobody takes the client's word for where to send it.
fn settle_host(parts: &mut request::Parts) -> Result<(), Refusal> {
    let mut lines = parts.headers.get_all(HOST).iter();
    let (line, another) = (lines.next(), lines.next());
    if another.is_some() {
        return Err(bad_request("the request has more than one Host"));
    }
    if line.is_some_and(|line| !is_host(line.as_bytes())) {
        return Err(bad_request("the request's Host is not one"));
    }
    let host = match parts.uri.authority() {
        Some(authority) => {
            let text = Some(authority.as_str()).filter(|text| is_host(text.as_bytes()));
            let host = text.and_then(|text| HeaderValue::from_str(text).ok());
            Some(host.ok_or(bad_request("the request's target names no host"))?)
        }
        None => None,
    };
    let is_named = match parts.version {
        Version::HTTP_09 | Version::HTTP_10 => true,
        Version::HTTP_11 => line.is_some(),
        _ => line.is_some() || host.is_some(),
    };
    if !is_named {
        return Err(bad_request("the request has no Host"));
    }
    let is_http =
        |scheme: &str| scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    // RFC 9110 §7.4. Who ends the TLS of a plain connection may well say `https`.
    if !parts.uri.scheme_str().is_none_or(is_http) {
        return Err(bad_request("the request's target is of another scheme"));
    }
    if let Some(host) = host {
        parts.headers.insert(HOST, host);
    }
    if parts.method == Method::CONNECT {
        // One with a scheme is for another protocol in a stream of HTTP/2 (RFC 8441 §4).
        let port = parts.uri.authority().and_then(uri::Authority::port_u16);
        return if parts.uri.scheme().is_some() || port.is_some() {
            Ok(())
        } else {
            // RFC 9110 §9.3.6: there is none by default.
            Err(bad_request("a CONNECT is for a host and a port"))
        };
    }
    let Some(path) = parts.uri.path_and_query().and_then(own_path) else {
        return Err(bad_request("the request's target has no path"));
    };
    if parts.uri.authority().is_some() || parts.uri.scheme().is_some() {
        // By its parts: read again, a path that begins with `//` would be an authority.
        let mut target = uri::Parts::default();
        target.path_and_query = Some(path);
        parts.uri = Uri::from_parts(target).unwrap_or_default();
    }
    Ok(())
}

/// The path as it is sent, if it is one: `/` stands for none (RFC 9112 §3.2.1), of which `http` says that it is one, and
/// then writes nothing.
fn own_path(path: &PathAndQuery) -> Option<PathAndQuery> {
    match path.as_str() {
        "/" => Some(PathAndQuery::from_static("/")),
        "*" => Some(path.clone()),
        text if text.starts_with('/') => Some(path.clone()),
        text if text.starts_with('?') => format!("/{text}").try_into().ok(),
        _ => None,
    }
}

/// The methods that are not for a resource behind this proxy (RFC 9110 §9.3.6 to §9.3.8).
fn check_method(
    config: &Config,
    parts: &mut request::Parts,
    has_content: bool,
) -> Result<(), Refusal> {
    let asterisk = parts.uri.path() == "*";
    match parts.method {
        Method::CONNECT if !config.forwards_connect => Err(Refusal::Problem(
            StatusCode::NOT_IMPLEMENTED,
            "this proxy opens no tunnels",
        )),
        Method::TRACE if !config.forwards_trace => Err(Refusal::Problem(
            StatusCode::NOT_IMPLEMENTED,
            "this proxy passes no TRACE on",
        )),
        _ if asterisk && parts.method != Method::OPTIONS => {
            Err(bad_request("the target * is for OPTIONS"))
        }
        Method::TRACE if has_content => Err(bad_request("a TRACE has no content")),
        Method::TRACE => {
            // It comes back in the response, for any script to read.
            parts.headers.remove(AUTHORIZATION);
            parts.headers.remove(COOKIE);
            Ok(())
        }
        Method::OPTIONS if asterisk && !config.forwards_options => Err(Refusal::NoContent),
        _ => Ok(()),
    }
}

/// `Max-Forwards` (RFC 9110 §7.6.2).
fn count_forwards(parts: &mut request::Parts) -> Result<(), Refusal> {
    if ![Method::OPTIONS, Method::TRACE].contains(&parts.method) {
        return Ok(());
    }
    let mut lines = parts.headers.get_all(MAX_FORWARDS).iter();
    let Some(line) = lines.next() else {
        return Ok(());
    };
    let digits = line.as_bytes();
    let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    if lines.next().is_some() || !is_number {
        return Err(bad_request("the request's Max-Forwards is not a number"));
    }
    // What is larger than we count to becomes what we count to, as it says there.
    let left = digits.iter().fold(0_u32, |number, digit| {
        number
            .saturating_mul(10)
            .saturating_add(u32::from(digit - b'0'))
    });
    let Some(left) = left.checked_sub(1) else {
        return Err(match parts.method {
            Method::OPTIONS => Refusal::NoContent,
            _ => Refusal::Problem(StatusCode::NOT_IMPLEMENTED, "this proxy answers no TRACE"),
        });
    };
    parts.headers.insert(MAX_FORWARDS, left.into());
    Ok(())
}

/// HTTP/2 cuts a cookie into fields, to compress it better; nobody else knows what that means (RFC 9113 §8.2.3).
fn put_cookie_together(headers: &mut HeaderMap) {
    let crumbs: Vec<&[u8]> = headers
        .get_all(COOKIE)
        .iter()
        .map(HeaderValue::as_bytes)
        .collect();
    if crumbs.len() < 2 {
        return;
    }
    if let Ok(mut cookie) = HeaderValue::from_bytes(&crumbs.join(&b"; "[..])) {
        cookie.set_sensitive(
            headers
                .get_all(COOKIE)
                .iter()
                .any(HeaderValue::is_sensitive),
        );
        headers.insert(COOKIE, cookie);
    }
}

/// Whether the client takes trailers: all of `TE` that concerns more than one hop.
fn wants_trailers(headers: &HeaderMap) -> bool {
    headers.contains_key(TE)
        && tokens(headers, &TE).any(|token| token.eq_ignore_ascii_case(b"trailers"))
}

/// Those of the protocols asked for that may be.
fn upgrade(headers: &HeaderMap, allowed: &[Box<str>]) -> Option<HeaderValue> {
    if allowed.is_empty() || !headers.contains_key(UPGRADE) {
        return None;
    }
    if !tokens(headers, &CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade")) {
        return None;
    }
    allowed_protocols(headers, allowed)
}

/// Those of the protocols in `Upgrade` that may be.
pub(super) fn allowed_protocols(headers: &HeaderMap, allowed: &[Box<str>]) -> Option<HeaderValue> {
    let protocols: Vec<&[u8]> = tokens(headers, &UPGRADE)
        .filter(|protocol| {
            let mut parts = protocol.split(|&byte| byte == b'/');
            let (name, version) = (parts.next().unwrap_or_default(), parts.next());
            let is_name = |known: &str| name.eq_ignore_ascii_case(known.as_bytes());
            // RFC 9110 §7.8.
            let is_one = version.is_none_or(is_token) && parts.next().is_none();
            is_one && allowed.iter().any(|known| is_name(known))
        })
        .collect();
    if protocols.is_empty() {
        return None;
    }
    HeaderValue::from_bytes(&protocols.join(&b", "[..])).ok()
}

/// Says that the connection changes to one of these.
pub(super) fn put_upgrade(headers: &mut HeaderMap, protocols: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocols);
}
