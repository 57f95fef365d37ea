//! How long a message says that it is (RFC 9110 §8.6).

use http::HeaderMap;

use super::fields::only;

/// One number, however often it is said. Beside a transfer coding it says nothing (RFC 9112 §6.3).
pub(super) fn said_length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    if headers.contains_key("transfer-encoding") {
        return Ok(None);
    }
    let mut said = Vec::new();
    for line in headers.get_all("content-length") {
        for number in line.to_str().map_err(drop)?.split(',') {
            said.push(number_in(number.trim_matches([' ', '\t'])).ok_or(())?);
        }
    }
    said.dedup();
    match said[..] {
        [] => Ok(None),
        [length] => Ok(Some(length)),
        _ => Err(()),
    }
}

fn number_in(text: &str) -> Option<u64> {
    let is_number = text.chars().all(|c| c.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// It is said once: as it came, if it came so.
#[track_caller]
pub(super) fn assert_length(before: &HeaderMap, after: &HeaderMap) {
    let said = said_length(before).expect("another is refused");
    let lines: Vec<_> = before.get_all("content-length").iter().collect();
    let as_it_came = match (said, &lines[..]) {
        (Some(_), [line]) => line.to_str().ok().filter(|line| number_in(line).is_some()),
        _ => None,
    };
    let expected = as_it_came.map(str::to_owned);
    let expected = expected.or(said.map(|said| said.to_string()));
    assert_eq!(only(after, "content-length"), expected.as_deref());
}
