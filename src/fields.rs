//! Header fields that belong to one connection and not to the message.

use http::header::{self, HeaderName, HeaderValue};
use http::{Extensions, HeaderMap};

/// The fields that concern one connection only (RFC 9110 §7.6.1), and those of a proxy's own (§11.7).
const HOP_BY_HOP: [HeaderName; 10] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("http2-settings"),
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

/// Removes the fields that concern one connection only: the known ones, and those that any `Connection` line nominates.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        let nominated: Vec<HeaderName> = headers
            .get_all(header::CONNECTION)
            .iter()
            .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
            .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
            .collect();
        for name in nominated {
            headers.remove(name);
        }
    }
    for name in &HOP_BY_HOP {
        headers.remove(name);
    }
}

/// The caller's credentials.
const CREDENTIALS: [HeaderName; 2] = [header::AUTHORIZATION, header::COOKIE];

/// The credentials that a merge has taken from a request, as an extension of it: a branch gets them back only if it is said
/// to be one that may see them.
#[derive(Debug, Clone)]
pub(crate) struct Withheld(Vec<(HeaderName, HeaderValue)>);

/// Takes the credentials out of a request's head and lays them aside in its extensions.
pub(crate) fn withhold(headers: &mut HeaderMap, extensions: &mut Extensions) {
    // What a merge outside has laid aside was not meant for this one.
    extensions.remove::<Withheld>();
    let mut taken = Vec::new();
    for name in CREDENTIALS {
        if let header::Entry::Occupied(field) = headers.entry(&name) {
            let (name, values) = field.remove_entry_mult();
            taken.extend(values.map(|value| (name.clone(), value)));
        }
    }
    if !taken.is_empty() {
        extensions.insert(Withheld(taken));
    }
}

/// Puts what was laid aside back; but a field that a layer of ours has set in between stands alone.
pub(crate) fn restore(headers: &mut HeaderMap, extensions: &mut Extensions) {
    if let Some(Withheld(fields)) = extensions.remove() {
        let ours = CREDENTIALS.map(|name| headers.contains_key(&name).then_some(name));
        for (name, value) in fields {
            if !ours.iter().flatten().any(|ours| *ours == name) {
                headers.append(name, value);
            }
        }
    }
}

/// Drops the credentials, laid aside or not.
pub(crate) fn drop_credentials(headers: &mut HeaderMap, extensions: &mut Extensions) {
    extensions.remove::<Withheld>();
    for name in CREDENTIALS {
        headers.remove(name);
    }
}

/// Removes the trailer fields that nobody may send: those for framing, routing, authentication, request modifiers and
/// content (RFC 9110 §6.5.1). What a head may not carry past us, a trailer may not either.
pub(crate) fn strip_trailers(trailers: &mut HeaderMap) {
    const FORBIDDEN: [HeaderName; 27] = [
        header::ACCEPT_ENCODING,
        header::AUTHORIZATION,
        header::CACHE_CONTROL,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::CONTENT_TYPE,
        header::COOKIE,
        header::EXPECT,
        header::FORWARDED,
        header::HOST,
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_NONE_MATCH,
        header::IF_RANGE,
        header::IF_UNMODIFIED_SINCE,
        header::MAX_FORWARDS,
        header::ORIGIN,
        header::PRAGMA,
        header::RANGE,
        header::REFERER,
        header::SET_COOKIE,
        header::TRAILER,
        header::VIA,
        HeaderName::from_static("x-forwarded-for"),
        HeaderName::from_static("x-forwarded-host"),
        HeaderName::from_static("x-forwarded-proto"),
    ];
    strip_hop_by_hop(trailers);
    for name in FORBIDDEN {
        trailers.remove(name);
    }
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
            ("connection", "X-Two , ,\u{1}"),
            ("x-one", "1"),
            ("x-two", "2"),
            ("x-three", "3"),
            ("keep-alive", "1"),
            ("te", "trailers"),
            ("proxy-authorization", "secret"),
        ] {
            let value = HeaderValue::from_bytes(value.as_bytes());
            if let Ok(value) = value {
                headers.append(HeaderName::from_static(name), value);
            }
        }
        headers.append("connection", HeaderValue::from_static("x-two"));
        strip_hop_by_hop(&mut headers);
        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-three"]
        );
    }
}
