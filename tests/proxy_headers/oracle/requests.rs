//! What a request is when it is passed on, and why it is not.

use std::net::Ipv6Addr;

use http::uri::Authority;
use http::{HeaderMap, HeaderValue, Method, Version, request, response};
use watershed::proxy_headers::ForwardedStyle;

use super::fields::{
    assert_fields, assert_nothing_left, assert_via, cgi, has, is_claim, is_coded, is_unnamable,
    of_the_connection, only,
};
use super::upgrades::{asked, assert_upgrade};
use super::way::assert_claims;
use super::{PROTECTED, Setup, WRITTEN};

/// What the inner service was given is fit to be passed on.
#[track_caller]
pub(crate) fn assert_passed_on(
    setup: &Setup,
    before: &request::Parts,
    has_content: bool,
    after: &request::Parts,
) {
    assert_eq!(
        (&after.method, after.version),
        (&before.method, before.version)
    );
    let written = [
        "connection",
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
    assert_upgrade(&after.headers, &asked(setup, before, has_content));
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
    let number = |text: &str| text.parse::<u128>().unwrap_or(u128::MAX);
    let given = only(given, "max-forwards").map(|given| number(given).min(u32::MAX.into()));
    let left = only(left, "max-forwards").map(number);
    assert_eq!(left.map(|left| left + 1), given);
}

/// A request that the layer has answered itself gave a reason to.
#[track_caller]
pub(crate) fn assert_refused(before: &request::Parts, answered: &response::Parts) {
    let status = answered.status.as_u16();
    assert!([204, 400, 501].contains(&status), "{status}");
    let mut hosts = before.headers.get_all("host").iter();
    let host = hosts.next().filter(|_| hosts.next().is_none());
    let is_plain = host.is_some_and(|host| host.to_str().is_ok_and(is_host))
        && ![Method::OPTIONS, Method::TRACE, Method::CONNECT].contains(&before.method)
        && before.uri.authority().is_none()
        && before.uri.path().starts_with('/')
        && !is_coded(&before.headers);
    assert!(!is_plain, "refused for nothing: {before:?}");
    assert_nothing_left(&answered.headers);
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
