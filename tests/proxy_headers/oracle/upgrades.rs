//! To which protocols a connection may change (RFC 9110 §7.8).

use http::{HeaderMap, Version, request};

use super::fields::{elements, has, only};
use super::{Setup, Whole};

pub(super) fn is_tchar(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

/// Those of the protocols in `Upgrade` that may be, as they were written.
pub(super) fn allowed_protocols(headers: &HeaderMap) -> String {
    let protocols = elements(headers, "upgrade").into_iter();
    let protocols = protocols.filter_map(|protocol| std::str::from_utf8(protocol).ok());
    let is_allowed = |protocol: &&str| {
        let (name, version) = protocol.split_once('/').unwrap_or((protocol, "13"));
        let is_token = !version.is_empty() && version.chars().all(is_tchar);
        name.eq_ignore_ascii_case("websocket") && is_token
    };
    protocols.filter(is_allowed).collect::<Vec<_>>().join(", ")
}

/// Whether a connection could change its protocol after this request.
pub(super) fn may_upgrade(setup: &Setup, request: &Whole<request::Parts>) -> bool {
    setup.upgrade && request.head.version == Version::HTTP_11 && request.is_over
}

/// What a request asks to change to, as far as it may.
pub(super) fn asked(setup: &Setup, request: &Whole<request::Parts>) -> String {
    let headers = &request.head.headers;
    if has(headers, "connection", "upgrade") && may_upgrade(setup, request) {
        allowed_protocols(headers)
    } else {
        String::new()
    }
}

#[track_caller]
pub(super) fn assert_upgrade(headers: &HeaderMap, protocols: &str) {
    let said = (!protocols.is_empty()).then_some(protocols);
    assert_eq!(only(headers, "upgrade"), said);
    assert_eq!(only(headers, "connection"), said.map(|_| "upgrade"));
}
