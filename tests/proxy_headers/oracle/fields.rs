//! Which fields are lost, by which rule.

use http::{HeaderMap, HeaderValue, Version};

use super::{PROTECTED, Setup, WRITTEN};

/// The elements of all lines of a list, without the empty ones.
pub(super) fn elements<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    let lines = headers.get_all(name).iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let elements = elements.map(<[u8]>::trim_ascii);
    elements.filter(|element| !element.is_empty()).collect()
}

/// Whether a list has this element, in capitals or not.
pub(super) fn has(headers: &HeaderMap, name: &str, element: &str) -> bool {
    let is = |known: &&[u8]| known.eq_ignore_ascii_case(element.as_bytes());
    elements(headers, name).iter().any(is)
}

/// The only line of the field.
#[track_caller]
pub(super) fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    assert!(lines.next().is_none(), "{name} has several lines");
    Some(line.to_str().expect("ASCII"))
}

/// RFC 9110 §7.6.1 and §11.7, and CVE-2016-5385.
const HOP_BY_HOP: [&str; 11] = [
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy",
    "proxy-authenticate",
    "proxy-authentication-info",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// For all recipients, so that nobody may name them in `Connection` (RFC 9110 §7.6.1).
const FOR_ALL: [&str; 14] = [
    "authorization",
    "cache-control",
    "content-encoding",
    "content-length",
    "content-range",
    "content-type",
    "cookie",
    "date",
    "expires",
    "host",
    "max-forwards",
    "set-cookie",
    "vary",
    "via",
];

/// What nobody may say behind a body (RFC 9110 §6.5.1).
const NO_TRAILERS: [&str; 31] = [
    // Framing and routing.
    "content-length",
    "host",
    "max-forwards",
    "trailer",
    "via",
    // Authentication.
    "authorization",
    "cookie",
    "set-cookie",
    "www-authenticate",
    // Modifiers of the request.
    "accept-encoding",
    "cache-control",
    "expect",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "origin",
    "pragma",
    "range",
    "referer",
    // Controls of the response.
    "age",
    "date",
    "expires",
    "location",
    "retry-after",
    "vary",
    "warning",
    // How the content is to be read.
    "content-encoding",
    "content-range",
    "content-type",
];

/// A name as a CGI script sees it.
pub(super) fn cgi(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(plain).collect()
}

/// Whether some server takes a field of this name for where a request comes from, or what it was before.
pub(super) fn is_claim(name: &str) -> bool {
    let name = cgi(name);
    let families = ["x_forwarded_", "x_original_"];
    let endings = [
        "client_ip",
        "connecting_ip",
        "connection_ip",
        "forwarded_for",
        "real_ip",
    ];
    families.iter().any(|family| name.starts_with(family))
        || endings.iter().any(|ending| name.ends_with(ending))
        || [
            // Where from.
            "cdn_src_ip",
            "cf_connecting_ipv6",
            "cf_pseudo_ipv4",
            "cloudfront_viewer_address",
            "forwarded",
            "remote_addr",
            "x_appengine_user_ip",
            "x_azure_clientip",
            "x_azure_socketip",
            "x_envoy_external_address",
            "x_envoy_internal",
            "x_forwarded",
            "x_originating_ip",
            "x_proxyuser_ip",
            "x_real_port",
            "x_remote_addr",
            "x_remote_ip",
            // What it was.
            "front_end_https",
            "x_host",
            "x_rewrite_url",
            "x_scheme",
            "x_url_scheme",
        ]
        .contains(&&*name)
}

/// The rule by which a field goes that concerns the connection it came over.
pub(super) fn of_the_connection(
    headers: &HeaderMap,
    name: &str,
    unnamable: impl Fn(&str) -> bool,
) -> Option<&'static str> {
    let is_named = || has(headers, "connection", name);
    if HOP_BY_HOP.contains(&name) {
        Some("it is of the connection")
    } else if is_named() && !FOR_ALL.contains(&name) && !is_claim(name) && !unnamable(name) {
        Some("Connection names it")
    } else {
        None
    }
}

/// What a layer outside has set, or a proxy of ours, is not for the sender to take away.
pub(super) fn is_unnamable(name: &str) -> bool {
    name == PROTECTED || WRITTEN.contains(&name)
}

/// Each field that is not `written` by the layer is lost by a rule, or it is there as it came.
#[track_caller]
pub(super) fn assert_fields(
    before: &HeaderMap,
    after: &HeaderMap,
    written: &[&str],
    lost_by: impl Fn(&str) -> Option<&'static str>,
) {
    for name in before.keys().chain(after.keys()) {
        let text = name.as_str();
        if written.contains(&text) {
            continue;
        }
        match lost_by(text) {
            Some(rule) => assert!(!after.contains_key(name), "{text} is left, though {rule}"),
            None => assert!(
                after.get_all(name).iter().eq(before.get_all(name)),
                "{text} was changed or lost, by no rule"
            ),
        }
    }
}

/// Trailers are as they came, but for those that nobody may send.
#[track_caller]
pub(super) fn assert_trailers(before: Option<&HeaderMap>, after: Option<&HeaderMap>) {
    let (Some(before), Some(after)) = (before, after) else {
        assert_eq!(before.is_some(), after.is_some());
        return;
    };
    assert_fields(before, after, &[], |name| {
        if NO_TRAILERS.contains(&name) {
            Some("no trailer may say it")
        } else if is_claim(name) {
            Some("it is a claim")
        } else {
            of_the_connection(before, name, |_| false)
        }
    });
}

/// Whether a body is coded in another way than `chunked`, once.
pub(super) fn is_coded(headers: &HeaderMap) -> bool {
    let codings = elements(headers, "transfer-encoding");
    let is_chunked = matches!(&*codings, [only] if only.eq_ignore_ascii_case(b"chunked"));
    headers.contains_key("transfer-encoding") && !is_chunked
}

#[track_caller]
pub(super) fn assert_via(setup: &Setup, received: Version, before: &HeaderMap, after: &HeaderMap) {
    let own: Option<&[u8]> = setup.via.then_some(match received {
        Version::HTTP_09 => b"0.9 front",
        Version::HTTP_10 => b"1.0 front",
        Version::HTTP_2 => b"2.0 front",
        Version::HTTP_3 => b"3.0 front",
        _ => b"1.1 front",
    });
    let before = before.get_all("via").iter().map(HeaderValue::as_bytes);
    let after = after.get_all("via").iter().map(HeaderValue::as_bytes);
    assert!(after.eq(before.chain(own)), "each proxy adds itself");
}
