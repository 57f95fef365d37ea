//! How long a message says it is.

use http::HeaderMap;
use http::header::{CONTENT_LENGTH, HeaderValue, TRANSFER_ENCODING};

/// A `Content-Length` that is none, or that says several.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadLength;

/// The length that a head says, in one field or in several equal ones. Beside a transfer coding it says nothing
/// (RFC 9112 §6.3).
pub(crate) fn said_length(headers: &HeaderMap) -> Result<Option<u64>, BadLength> {
    if headers.contains_key(TRANSFER_ENCODING) {
        return Ok(None);
    }
    let mut said = None;
    for line in headers.get_all(CONTENT_LENGTH) {
        for length in line.as_bytes().split(|&byte| byte == b',') {
            let length = parse(length.trim_ascii()).ok_or(BadLength)?;
            if said.replace(length).is_some_and(|other| other != length) {
                return Err(BadLength);
            }
        }
    }
    Ok(said)
}

/// Leaves of `Content-Length` one field with one number, which is returned, or none. Nobody may send another (RFC 9110 §8.6):
/// of two that read a list, each may take another element of it for the length.
pub(crate) fn settle_length(headers: &mut HeaderMap) -> Result<Option<u64>, BadLength> {
    if !headers.contains_key(CONTENT_LENGTH) {
        return Ok(None);
    }
    let Some(said) = said_length(headers)? else {
        headers.remove(CONTENT_LENGTH);
        return Ok(None);
    };
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let is_number = |line: &HeaderValue| parse(line.as_bytes()).is_some();
    if !lines.next().is_some_and(is_number) || lines.next().is_some() {
        headers.insert(CONTENT_LENGTH, said.into());
    }
    Ok(Some(said))
}

fn parse(length: &[u8]) -> Option<u64> {
    // `parse` would take a sign as well.
    let is_number = length.iter().all(u8::is_ascii_digit);
    let digits = std::str::from_utf8(length).ok().filter(|_| is_number)?;
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            let line = HeaderValue::from_bytes(line.as_bytes()).expect("a value");
            headers.append(CONTENT_LENGTH, line);
        }
        headers
    }

    #[test]
    fn equal_lengths_become_one() {
        for (lines, length) in [
            (&["4"][..], 4),
            (&["04"], 4),
            (&["0"], 0),
            (&["4", "4"], 4),
            (&["4, 4"], 4),
            (&["4,4 ,\t4", " 04 "], 4),
            (&["18446744073709551615"], u64::MAX),
        ] {
            let mut headers = head(lines);
            assert_eq!(said_length(&headers), Ok(Some(length)));
            assert_eq!(settle_length(&mut headers), Ok(Some(length)));
            let left: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
            assert_eq!(left.len(), 1, "{lines:?}");
            assert_eq!(parse(left[0].as_bytes()), Some(length), "{lines:?}");
        }
        assert_eq!(settle_length(&mut head(&[])), Ok(None));
    }

    #[test]
    fn what_is_no_length_is_none() {
        for lines in [
            &["4, 5"][..],
            &["4", "5"],
            &["4,"],
            &[", 4"],
            &["4,,4"],
            &["4", ""],
            &[""],
            &["+4"],
            &["-4"],
            &["0x4"],
            &["4.0"],
            &["4 4"],
            &["abc"],
            &["\u{664}"],
            &["18446744073709551616"],
        ] {
            assert_eq!(said_length(&head(lines)), Err(BadLength), "{lines:?}");
            let mut headers = head(lines);
            assert_eq!(settle_length(&mut headers), Err(BadLength), "{lines:?}");
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
            assert_eq!(said_length(&headers), Ok(None), "{lines:?}");
            assert_eq!(settle_length(&mut headers), Ok(None), "{lines:?}");
            assert!(!headers.contains_key(CONTENT_LENGTH));
        }
    }
}
