//! Header fields that belong to one connection and not to the message, or that say where the message ends.

mod credentials;
mod length;
mod trailers;

use http::HeaderMap;
use http::header::{self, HeaderName, HeaderValue};

pub(crate) use credentials::{drop_credentials, restore, withhold};
pub(crate) use length::{said_length, settle_length};
pub(crate) use trailers::{HeldTrailers, strip_trailers};

/// The fields that concern one connection only (RFC 9110 §7.6.1), and those of a proxy's own (§11.7); and `Proxy`, which is
/// nobody's field, but which a CGI script takes for the proxy to use (CVE-2016-5385).
const HOP_BY_HOP: [HeaderName; 11] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("http2-settings"),
    HeaderName::from_static("proxy"),
    header::PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    header::PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Whether a field is one that only the server may set: it concerns one connection, or the framing of the message.
pub(crate) fn is_of_the_connection(name: &HeaderName) -> bool {
    HOP_BY_HOP.contains(name) || *name == header::CONTENT_LENGTH || *name == header::TRAILER
}

/// The fields that are for all recipients of a message: no sender may nominate them (RFC 9110 §7.6.1), and who does wants
/// the next hop to read another message than we do.
const FOR_ALL: [HeaderName; 14] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::EXPIRES,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::VARY,
    header::VIA,
];

/// Removes the fields that concern one connection only: the known ones, and those that any `Connection` line nominates.
///
/// Nobody can nominate a `protected` field away, nor one that every recipient of the message needs, nor what a proxy has said
/// of where the message comes from (CVE-2022-31813, CVE-2024-45410): whether that is believed is not for the sender to say.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap, protected: &[HeaderName]) {
    if headers.contains_key(header::CONNECTION) {
        // What every other message says names a field that goes anyway.
        let usual = |name: &&[u8]| {
            let names: [&[u8]; 2] = [b"keep-alive", b"upgrade"];
            names.iter().any(|usual| name.eq_ignore_ascii_case(usual))
        };
        let nominated: Vec<HeaderName> = tokens(headers, &header::CONNECTION)
            .filter(|name| !usual(name))
            // Looked up first, as that takes no memory: a line may name thousands.
            .filter(|name| std::str::from_utf8(name).is_ok_and(|name| headers.contains_key(name)))
            .filter_map(|name| HeaderName::from_bytes(name).ok())
            .filter(|name| !FOR_ALL.contains(name) && !protected.contains(name) && !is_claim(name))
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    // Where both say how long the body is, the coding is right (RFC 9112 §6.3).
    if headers.contains_key(header::TRANSFER_ENCODING) {
        headers.remove(header::CONTENT_LENGTH);
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Whether a body is in a transfer coding that is still to be undone: whoever reads HTTP/1.1 undoes `chunked`, once. With its
/// name gone, nobody could (RFC 9112 §6.1).
pub(crate) fn is_coded(headers: &HeaderMap) -> bool {
    if !headers.contains_key(header::TRANSFER_ENCODING) {
        return false;
    }
    let mut codings = tokens(headers, &header::TRANSFER_ENCODING);
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    !codings.next().is_some_and(is_chunked) || codings.next().is_some()
}

/// The elements of all lines of a field that is a list, without the empty ones. Not for fields with quoted strings.
pub(crate) fn tokens<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl DoubleEndedIterator<Item = &'a [u8]> + use<'a> {
    let lines = headers.get_all(name).iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    elements
        .map(<[u8]>::trim_ascii)
        .filter(|element| !element.is_empty())
}

/// Whether a field is one by which a proxy tells where a request came from, or what it was before: whoever can write it can
/// pretend to be somebody else. CGI and its like take `_` for `-`, and some of them every other character as well.
pub(crate) fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    if name.bytes().all(|byte| plain(byte) == byte) {
        return is_plain_claim(name);
    }
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    is_plain_claim(&name.chars().map(plain).collect::<String>())
}

/// Whether somebody may take one name for the other.
pub(crate) fn looks_like(one: &HeaderName, other: &HeaderName) -> bool {
    let [one, other] = [one, other].map(|name| name.as_str().bytes().map(plain));
    one.eq(other)
}

fn plain(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() {
        byte
    } else {
        b'-'
    }
}

fn is_plain_claim(name: &str) -> bool {
    const PREFIXES: [&str; 2] = ["x-forwarded-", "x-original-"];
    // As vendors name theirs: `ali-cdn-real-ip`, `x-nf-client-connection-ip`, `x-vercel-forwarded-for`.
    const SUFFIXES: [&str; 5] = [
        "client-ip",
        "connecting-ip",
        "connection-ip",
        "forwarded-for",
        "real-ip",
    ];
    matches!(
        name,
        "cdn-src-ip"
            | "cf-connecting-ipv6"
            | "cf-pseudo-ipv4"
            | "cloudfront-viewer-address"
            | "forwarded"
            | "front-end-https"
            | "remote-addr"
            | "x-appengine-user-ip"
            | "x-azure-clientip"
            | "x-azure-socketip"
            | "x-envoy-external-address"
            | "x-envoy-internal"
            | "x-forwarded"
            | "x-host"
            | "x-originating-ip"
            | "x-proxyuser-ip"
            | "x-real-port"
            | "x-remote-addr"
            | "x-remote-ip"
            | "x-rewrite-url"
            | "x-scheme"
            | "x-url-scheme"
    ) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// The most fields in the head of a response that is passed on, and the most bytes of their names and values.
pub(crate) const MAX_FIELDS: usize = 128;
pub(crate) const MAX_HEAD: usize = 64 * 1024;

/// Whether a head is over either of these bounds.
pub(crate) fn is_oversized(headers: &HeaderMap, fields: usize, bytes: usize) -> bool {
    let len = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    headers.len() > fields || headers.iter().map(len).sum::<usize>() > bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn every_connection_line_is_honoured() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-one"),
            ("connection", ", X-Two , ,\t,\u{e9},"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("proxy-authorization", "secret"),
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes()).expect("a value");
            headers.append(HeaderName::from_static(name), value);
        }
        strip_hop_by_hop(&mut headers, &[]);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-three"]
        );
    }

    // B07
    #[test]
    fn what_is_for_all_or_protected_can_not_be_nominated() {
        const OURS: HeaderName = HeaderName::from_static("x-auth-user");
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (
                header::CONNECTION,
                "host, x-auth-user, x-other, Cache-Control",
            ),
            (header::HOST, "a"),
            (OURS, "7"),
            (HeaderName::from_static("x-other"), "1"),
            (header::CACHE_CONTROL, "no-store"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers, &[OURS]);
        assert!(!headers.contains_key("x-other"));
        assert_eq!(headers.len(), 3, "{headers:?}");
    }
}
