//! What a request is when it is passed on.

use std::net::Ipv6Addr;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Version, request};
use watershed::proxy_headers::ForwardedStyle;

use super::fields::{
    assert_fields, assert_trailers, assert_via, cgi, has, is_claim, is_unnamable,
    of_the_connection, only,
};
use super::lengths::assert_length;
use super::refusals::{max_forwards, refusals};
use super::upgrades::{asked, assert_upgrade};
use super::way::assert_claims;
use super::{PROTECTED, Setup, WRITTEN, Whole};

/// What the inner service was given is fit to be passed on.
#[track_caller]
pub(crate) fn assert_passed_on(
    setup: &Setup,
    request: &Whole<request::Parts>,
    seen: &Whole<request::Parts>,
) {
    let broken = refusals(setup, request);
    assert!(broken.is_empty(), "passed on, though {broken:?}");
    assert_eq!(seen.is_over, request.is_over);
    assert_eq!(seen.content, request.content);
    assert_trailers(request.trailers.as_ref(), seen.trailers.as_ref());

    let (before, after) = (&request.head, &seen.head);
    assert_eq!(
        (&after.method, after.version),
        (&before.method, before.version)
    );
    let written = [
        "connection",
        "content-length",
        "cookie",
        "forwarded",
        "host",
        "max-forwards",
        "te",
        "upgrade",
        "via",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ];
    let believes = setup.believes_peer() && setup.style != ForwardedStyle::Omit;
    assert_fields(&before.headers, &after.headers, &written, |name| {
        let is_believed = believes && WRITTEN.contains(&name);
        let is_theirs = WRITTEN.iter().any(|known| cgi(known) == cgi(name));
        if (is_claim(name) || is_theirs) && !is_believed && name != PROTECTED {
            Some("it is a claim that nobody believes")
        } else if name == "authorization" && after.method == Method::TRACE {
            Some("it would come back to any script")
        } else {
            of_the_connection(&before.headers, name, is_unnamable)
        }
    });
    let asks_for_trailers = has(&before.headers, "te", "trailers");
    let te = asks_for_trailers.then_some("trailers");
    assert_eq!(only(&after.headers, "te"), te);
    assert_upgrade(&after.headers, &asked(setup, request));
    assert_length(&before.headers, &after.headers);
    assert_via(setup, before.version, &before.headers, &after.headers);
    assert_cookie(before, after);
    assert_target(setup, before, after);
    assert_forwards(setup, before, after);
    assert_claims(setup, before, after);
}

/// One field, whatever HTTP/2 has cut it into (RFC 9113 §8.2.3); none that comes back with a `TRACE`.
#[track_caller]
fn assert_cookie(before: &request::Parts, after: &request::Parts) {
    let lines = before.headers.get_all("cookie").iter();
    let mut lines: Vec<_> = lines.map(|line| line.as_bytes().to_vec()).collect();
    if before.version >= Version::HTTP_2 && lines.len() > 1 {
        lines = vec![lines.join(&b"; "[..])];
    }
    if before.method == Method::TRACE {
        lines.clear();
    }
    let after = after.headers.get_all("cookie").iter();
    assert!(after.map(HeaderValue::as_bytes).eq(lines), "the cookie");
}

/// One host, which is the authority of the target; of the target, the path and the query only (RFC 9112 §3.2).
#[track_caller]
fn assert_target(setup: &Setup, before: &request::Parts, after: &request::Parts) {
    let host = only(&after.headers, "host");
    assert!(host.is_some() || after.version <= Version::HTTP_10);
    assert!(host.is_none_or(is_host), "{host:?}");
    assert!(host.is_none_or(|host| host.parse::<Authority>().is_ok()));
    match before.uri.authority() {
        Some(authority) => assert_eq!(host, Some(authority.as_str())),
        None => assert_eq!(after.headers.get("host"), before.headers.get("host")),
    }
    if after.method == Method::CONNECT {
        assert!(setup.connect);
        assert_eq!(after.uri, before.uri);
        assert!(after.uri.authority().is_some());
        return;
    }
    assert_eq!((after.uri.scheme(), after.uri.authority()), (None, None));
    assert_eq!(after.uri.path(), before.uri.path());
    assert_eq!(after.uri.query(), before.uri.query());
    let text = after.uri.to_string();
    assert_eq!(after.uri.path_and_query().expect("a path").as_str(), text);
    let asterisk = text == "*" && after.method == Method::OPTIONS && setup.options;
    assert!(text.starts_with('/') || asterisk, "{text}");
}

/// `Max-Forwards` (RFC 9110 §7.6.2).
#[track_caller]
fn assert_forwards(setup: &Setup, before: &request::Parts, after: &request::Parts) {
    assert!(after.method != Method::TRACE || setup.trace);
    let (given, left) = (&before.headers, &after.headers);
    if ![Method::OPTIONS, Method::TRACE].contains(&after.method) {
        let lines = |headers: &HeaderMap| -> Vec<HeaderValue> {
            headers.get_all("max-forwards").iter().cloned().collect()
        };
        assert_eq!(lines(left), lines(given));
        return;
    }
    let given = max_forwards(given).expect("another is refused");
    let left = max_forwards(left).expect("a number");
    assert_eq!(left.map(|left| left + 1), given);
}

/// `host[:port]` (RFC 3986 §3.2.2), of what no reader takes for the end of it.
pub(super) fn is_host(text: &str) -> bool {
    let (sound, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((addr, rest)) = rest.split_once(']') else {
                return false;
            };
            (addr.parse::<Ipv6Addr>().is_ok(), rest)
        }
        None => {
            let (host, _) = text.split_once(':').unwrap_or((text, ""));
            let good = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'*+=".contains(c);
            let sound = !host.is_empty() && host.chars().all(good);
            (sound, &text[host.len()..])
        }
    };
    let is_number = |port: &str| port.is_empty() || is_port(port);
    sound && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_number))
}

pub(super) fn is_port(text: &str) -> bool {
    let digits = text.trim_start_matches('0');
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_digit())
        && digits.len() <= 5
        && digits.parse::<u32>().unwrap_or(0) <= 65_535
}
