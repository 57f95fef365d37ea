//! Why a message is not passed on, and what is answered instead.

use http::uri::Authority;
use http::{HeaderMap, HeaderName, Method, Version, request, response};
use watershed::proxy_headers::{ForwardedStyle, MissingPeer};

use super::fields::is_coded;
use super::lengths::said_length;
use super::requests::is_host;
use super::way::believed;
use super::{Setup, Whole};

/// Each rule that a request breaks, and the status that says so. Which of them is said, if there are several, is open.
pub(super) fn refusals(setup: &Setup, request: &Whole<request::Parts>) -> Vec<(u16, &'static str)> {
    if !setup.says_peer && setup.style != ForwardedStyle::Omit {
        // Nothing else is looked at.
        return vec![(500, "nobody says where it comes from")];
    }
    let request::Parts {
        method,
        uri,
        version,
        headers,
        ..
    } = &request.head;
    let hosts = headers.get_all("host").iter();
    let hosts: Vec<_> = hosts
        .map(|host| host.to_str().unwrap_or_default())
        .collect();
    let authority = uri.authority().map(Authority::as_str);
    let is_named = !hosts.is_empty() || (*version > Version::HTTP_11 && authority.is_some());
    let is_http = |scheme: &str| ["http", "https"].contains(&&*scheme.to_ascii_lowercase());
    let has_port = uri.port_u16().is_some();

    let [is_connect, is_options, is_trace] =
        [Method::CONNECT, Method::OPTIONS, Method::TRACE].map(|known| *method == known);
    let is_asterisk = uri.path() == "*";
    let has_path = uri.path().starts_with('/') || is_asterisk;
    let forwards = max_forwards(headers);
    let is_last = forwards.as_ref().is_ok_and(|left| *left == Some(0));
    let is_claimed_well = setup.style == ForwardedStyle::Omit || believed(setup, headers).is_ok();

    let rules = [
        (400, "it has several hosts", hosts.len() > 1),
        (
            400,
            "its host is none",
            !hosts.iter().all(|host| is_host(host)),
        ),
        (
            400,
            "its target names no host",
            !authority.is_none_or(is_host),
        ),
        (
            400,
            "it has no host",
            !is_named && *version > Version::HTTP_10,
        ),
        (
            400,
            "its target is of another scheme",
            !uri.scheme_str().is_none_or(is_http),
        ),
        (
            400,
            "a tunnel is to a port",
            is_connect && uri.scheme().is_none() && !has_port,
        ),
        (400, "its target has no path", !is_connect && !has_path),
        (400, "the target is for OPTIONS", is_asterisk && !is_options),
        (400, "a TRACE has no content", is_trace && !request.is_over),
        (
            400,
            "the hops left are no number",
            (is_options || is_trace) && forwards.is_err(),
        ),
        (
            400,
            "its length is no number",
            said_length(headers).is_err(),
        ),
        (400, "nobody knows who was claimed", !is_claimed_well),
        (204, "it is for this hop", is_options && is_last),
        (
            204,
            "it is for this server",
            is_options && is_asterisk && !setup.options,
        ),
        (501, "there are no tunnels", is_connect && !setup.connect),
        (501, "a TRACE shows too much", is_trace && !setup.trace),
        (501, "a TRACE ends here", is_trace && is_last),
        (501, "it is coded", is_coded(headers)),
    ];
    let broken = rules.into_iter().filter(|(.., is_broken)| *is_broken);
    broken.map(|(status, rule, _)| (status, rule)).collect()
}

/// How many hops `Max-Forwards` leaves (RFC 9110 §7.6.2), as far as we count.
pub(super) fn max_forwards(headers: &HeaderMap) -> Result<Option<u32>, ()> {
    let lines: Vec<_> = headers.get_all("max-forwards").iter().collect();
    let text = match lines[..] {
        [] => return Ok(None),
        [line] => line.to_str().map_err(drop)?,
        _ => return Err(()),
    };
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_digit()) {
        return Err(());
    }
    Ok(Some(text.parse().unwrap_or(u32::MAX)))
}

/// A request that the layer has answered itself breaks a rule, and that is what the answer says.
#[track_caller]
pub(crate) fn assert_refused(
    setup: &Setup,
    before: &Whole<request::Parts>,
    answered: &Whole<response::Parts>,
) {
    let (status, broken) = (answered.head.status.as_u16(), refusals(setup, before));
    assert!(
        broken.iter().any(|(known, _)| *known == status),
        "{status}, though it breaks {broken:?}: {before:?}"
    );
    let is_lost = answered.head.extensions.get::<MissingPeer>().is_some();
    assert_eq!(is_lost, status == 500);
    assert_own(&before.head.method, answered);
}

/// An answer of the layer's own is a problem, or nothing, and nothing besides; to `HEAD` it only says how long it is.
#[track_caller]
pub(super) fn assert_own(method: &Method, answered: &Whole<response::Parts>) {
    let mut names: Vec<_> = answered
        .head
        .headers
        .keys()
        .map(HeaderName::as_str)
        .collect();
    names.sort_unstable();
    let (is_empty, expected) = match (answered.head.status.as_u16(), method) {
        (204, _) => (true, &[][..]),
        (_, &Method::HEAD) => (true, &["content-length", "content-type"][..]),
        _ => (false, &["content-type"][..]),
    };
    assert_eq!(names, expected);
    assert_eq!(answered.is_over, is_empty);
    assert_eq!(answered.content.is_empty(), is_empty);
    assert!(answered.trailers.is_none());
}
