//! What a response is when it is passed back.

use http::{HeaderName, HeaderValue, Method, request, response};

use super::fields::{
    assert_fields, assert_trailers, assert_via, elements, is_coded, is_unnamable,
    of_the_connection, only,
};
use super::lengths::{assert_length, said_length};
use super::refusals::assert_own;
use super::upgrades::{allowed_protocols, asked, assert_upgrade, may_upgrade};
use super::{Setup, Whole};

/// What the caller was answered is what the inner service has, made fit; or a 502, if it breaks a rule.
#[track_caller]
pub(crate) fn assert_passed_back(
    setup: &Setup,
    request: &Whole<request::Parts>,
    before: &Whole<response::Parts>,
    after: &Whole<response::Parts>,
) {
    let broken = broken(setup, request, before);
    if !broken.is_empty() {
        assert_eq!(after.head.status, 502, "though {broken:?}");
        assert_own(&request.head.method, after);
        return;
    }
    let (given, left) = (&before.head.headers, &after.head.headers);
    let status = before.head.status.as_u16();
    assert_eq!(after.head.status, status, "by no rule: {before:?}");
    // Claims are of requests; in a response they are fields as any other.
    let written = ["connection", "content-length", "upgrade", "via"];
    assert_fields(given, left, &written, |name| {
        of_the_connection(given, name, is_unnamable)
    });
    assert_via(setup, before.head.version, given, left);
    let protocols = match status {
        101 | 426 if may_upgrade(setup, request) => allowed_protocols(given),
        _ => String::new(),
    };
    assert_upgrade(left, &protocols);

    let is_head = request.head.method == Method::HEAD;
    if says_no_length(&request.head, status) {
        assert_eq!(only(left, "content-length"), None);
    } else if is_head && status != 304 && !before.is_over {
        // That of what is left out.
        let length = before.content.len().to_string();
        assert_eq!(only(left, "content-length"), Some(&*length));
    } else {
        assert_length(given, left);
    }
    // RFC 9110 §15.3.5, §15.3.6, §15.4.5.
    if is_head || [204, 205, 304].contains(&status) {
        assert!(after.is_over && after.content.is_empty() && after.trailers.is_none());
    } else {
        assert_eq!(after.is_over, before.is_over);
        assert_eq!(after.content, before.content);
        assert_trailers(before.trailers.as_ref(), after.trailers.as_ref());
    }
}

/// Each rule that a response breaks.
fn broken(
    setup: &Setup,
    request: &Whole<request::Parts>,
    response: &Whole<response::Parts>,
) -> Vec<&'static str> {
    let (status, headers) = (response.head.status.as_u16(), &response.head.headers);
    let (fields, bytes) = setup.max_head.unwrap_or((128, 64 * 1024));
    let len = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let is_over = headers.len() > fields || headers.iter().map(len).sum::<usize>() > bytes;

    let asked = asked(setup, request);
    let chosen = match (status, &*elements(headers, "upgrade")) {
        (101, [chosen]) => {
            let chosen = std::str::from_utf8(chosen).unwrap_or_default();
            let mut asked = asked.split(", ");
            asked.any(|asked| asked.eq_ignore_ascii_case(chosen)) && !chosen.is_empty()
        }
        _ => false,
    };

    let said = match says_no_length(&request.head, status) {
        true => Ok(None),
        false => said_length(headers),
    };
    // How long the content would be, nobody but the sender knows.
    let is_unknown = status == 304 || (request.head.method == Method::HEAD && response.is_over);
    let is_long = |said: u64| is_unknown || said == response.content.len() as u64;

    let rules = [
        ("its head is over the bounds", is_over),
        ("it is coded", is_coded(headers)),
        ("it is an interim one", status < 200 && status != 101),
        ("nobody has asked for the change", status == 101 && !chosen),
        ("its length is no number", said.is_err()),
        (
            "its length is not its content's",
            said.is_ok_and(|said| !said.is_none_or(is_long)),
        ),
    ];
    let broken = rules.into_iter().filter(|(_, is_broken)| *is_broken);
    broken.map(|(rule, _)| rule).collect()
}

/// Whether no length is to be said (RFC 9110 §8.6, §9.3.6, §15.3.6).
fn says_no_length(request: &request::Parts, status: u16) -> bool {
    let opens_tunnel = request.method == Method::CONNECT && (200..300).contains(&status);
    status < 200 || [204, 205].contains(&status) || opens_tunnel
}
