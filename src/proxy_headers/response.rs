//! What a response has to be before it is passed back.

use http::header::{CONTENT_LENGTH, HeaderValue, UPGRADE};
use http::{StatusCode, Version, response};
use http_body::SizeHint;

use super::layer::Config;
use super::request::{Exchange, Refusal, allowed_protocols, put_upgrade};
use crate::fields::{is_coded, is_oversized, settle_length, strip_hop_by_hop, tokens};

const fn bad_gateway(detail: &'static str) -> Refusal {
    Refusal::Problem(StatusCode::BAD_GATEWAY, detail)
}

/// Whether what has this status has no content (RFC 9110 §15.3.5, §15.3.6, §15.4.5), whatever the backend sends along: over
/// HTTP/2, hyper's server would send it on.
pub(super) fn is_without_content(status: StatusCode) -> bool {
    [
        StatusCode::NO_CONTENT,
        StatusCode::RESET_CONTENT,
        StatusCode::NOT_MODIFIED,
    ]
    .contains(&status)
}

/// Makes `head` what this proxy sends back. `content` is what its body says of itself, if it is not left out for `HEAD`.
pub(super) fn pass_back(
    config: &Config,
    exchange: &Exchange,
    head: &mut response::Parts,
    content: Option<SizeHint>,
) -> Result<(), Refusal> {
    if is_oversized(&head.headers, config.max_fields, config.max_head) {
        return Err(bad_gateway("the head of the response is over its bound"));
    }
    if is_coded(&head.headers) {
        return Err(bad_gateway("the response is in an unknown transfer coding"));
    }
    let switched = head.status == StatusCode::SWITCHING_PROTOCOLS;
    if head.status.is_informational() && !switched {
        return Err(bad_gateway("the response is only an interim one"));
    }
    let asked = exchange.upgrade.as_ref();
    let upgrade = asked
        .filter(|_| switched)
        .and_then(|asked| chosen(head, asked.as_bytes()));
    if switched && upgrade.is_none() {
        // To what nobody has asked for: the client would take what comes for the answer to its next request.
        return Err(bad_gateway("the response changes the protocol unasked"));
    }
    // Without the protocols that it asks for, a 426 says nothing (RFC 9110 §15.5.22).
    let required = (exchange.may_upgrade && head.status == StatusCode::UPGRADE_REQUIRED)
        .then(|| allowed_protocols(&head.headers, &config.upgrades))
        .flatten();
    strip_hop_by_hop(&mut head.headers, &config.unnamable);
    settle_content(exchange, head, content)?;
    if let Some(protocols) = upgrade.or(required) {
        put_upgrade(&mut head.headers, protocols);
    }
    config.add_via(&mut head.headers, head.version);
    // How the backend speaks is between us and it: a server takes this for its own version (RFC 9112 §2.3), and would end a
    // body by closing, which no caller can tell from one that broke off.
    head.version = Version::HTTP_11;
    Ok(())
}

/// One length, which is that of the content; or none, where there is to be none.
///
/// What has no content, such as the answer to `HEAD`, could do without a length that is none. But the answer to `GET` with
/// the same head is a 502, and a backend of which nobody knows where its answers end is no better for this one.
fn settle_content(
    exchange: &Exchange,
    head: &mut response::Parts,
    content: Option<SizeHint>,
) -> Result<(), Refusal> {
    let status = head.status;
    let opens_tunnel = exchange.may_open_tunnel && status.is_success();
    let has_none = is_without_content(status) && status != StatusCode::NOT_MODIFIED;
    if status.is_informational() || opens_tunnel || has_none {
        // RFC 9110 §8.6, §9.3.6, §15.3.6: there is nothing to say.
        head.headers.remove(CONTENT_LENGTH);
        return Ok(());
    }
    let said = settle_length(&mut head.headers)
        .map_err(|_| bad_gateway("the response's Content-Length is not one"))?;
    // That of a 304 is the one that the content would have.
    let content = content.filter(|_| status != StatusCode::NOT_MODIFIED);
    let fits = |said: u64, content: &SizeHint| {
        content.lower() <= said && content.upper().is_none_or(|upper| said <= upper)
    };
    match said.zip(content) {
        // A server believes the head: who reads the answer would wait for more, or take the rest for the next one.
        Some((said, content)) if !fits(said, &content) => Err(bad_gateway(
            "the response's Content-Length is not that of its content",
        )),
        _ => Ok(()),
    }
}

/// The one protocol that the response changes to, if that was asked for.
fn chosen(head: &response::Parts, asked: &[u8]) -> Option<HeaderValue> {
    let mut chosen = tokens(&head.headers, &UPGRADE);
    let (Some(protocol), None) = (chosen.next(), chosen.next()) else {
        return None;
    };
    let mut asked = asked.split(|&byte| byte == b',').map(<[u8]>::trim_ascii);
    let was_asked = asked.any(|asked| asked.eq_ignore_ascii_case(protocol));
    // Without the empty elements around it, which may be the whole of another line.
    was_asked
        .then(|| HeaderValue::from_bytes(protocol).ok())
        .flatten()
}
