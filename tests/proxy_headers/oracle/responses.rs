//! What a response is when it is passed back.

use http::{HeaderName, HeaderValue, request, response};

use super::Setup;
use super::fields::{
    assert_fields, assert_nothing_left, assert_via, elements, is_coded, is_unnamable,
    of_the_connection,
};
use super::upgrades::{allowed_protocols, asked, assert_upgrade, may_upgrade};

/// What the caller was answered is what the inner service has, made fit; returns whether it is, or a 502 instead.
#[track_caller]
pub(crate) fn assert_passed_back(
    setup: &Setup,
    request: &request::Parts,
    has_content: bool,
    before: &response::Parts,
    after: &response::Parts,
) -> bool {
    let status = before.status.as_u16();
    let (fields, bytes) = setup.max_head.unwrap_or((128, 64 * 1024));
    let len = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let is_over =
        before.headers.len() > fields || before.headers.iter().map(len).sum::<usize>() > bytes;

    let asked = asked(setup, request, has_content);
    let chosen = match (status, &*elements(&before.headers, "upgrade")) {
        (101, [chosen]) => {
            let chosen = std::str::from_utf8(chosen).unwrap_or_default();
            let mut asked = asked.split(", ");
            asked.any(|asked| asked.eq_ignore_ascii_case(chosen)) && !chosen.is_empty()
        }
        _ => false,
    };
    if is_over || is_coded(&before.headers) || (status < 200 && !chosen) {
        assert_eq!(after.status, 502);
        assert_nothing_left(&after.headers);
        return false;
    }
    assert_eq!(after.status, status);
    // Claims are of requests; in a response they are fields as any other.
    let written = ["connection", "upgrade", "via"];
    assert_fields(&before.headers, &after.headers, &written, |name| {
        if name == "content-length" && status == 204 {
            Some("there is no content")
        } else {
            of_the_connection(&before.headers, name, is_unnamable)
        }
    });
    assert_via(setup, before.version, &before.headers, &after.headers);
    let protocols = match status {
        101 | 426 if may_upgrade(setup, request, has_content) => allowed_protocols(&before.headers),
        _ => String::new(),
    };
    assert_upgrade(&after.headers, &protocols);
    true
}
