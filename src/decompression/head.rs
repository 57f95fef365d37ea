//! What a head says of its body's coding, and what is left of it once that is undone.

use std::fmt;

use http::header::{ACCEPT_RANGES, CONTENT_ENCODING, CONTENT_LENGTH, ETAG, HeaderName};
use http::{HeaderMap, HeaderValue, StatusCode};

/// A content coding (RFC 9110 §8.4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Coding {
    /// `gzip`, also as `x-gzip` (RFC 1952).
    Gzip,
    /// `deflate`, which is the zlib format (RFC 1950).
    Deflate,
    /// `br` (RFC 7932).
    Brotli,
}

impl Coding {
    /// As `Content-Encoding` has it.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Brotli => "br",
        }
    }

    fn named(token: &[u8]) -> Option<Self> {
        let is = |name: &str| token.eq_ignore_ascii_case(name.as_bytes());
        if is("gzip") || is("x-gzip") {
            Some(Self::Gzip)
        } else if is("deflate") {
            Some(Self::Deflate)
        } else if is("br") {
            Some(Self::Brotli)
        } else {
            None
        }
    }
}

impl fmt::Display for Coding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The codings that are undone.
#[derive(Debug, Clone, Copy)]
pub(super) struct Codings {
    gzip: bool,
    deflate: bool,
    brotli: bool,
}

impl Codings {
    /// Those that cost what they give.
    pub(super) const CHEAP: Self = Self {
        gzip: true,
        deflate: true,
        brotli: false,
    };

    pub(super) fn with(self, coding: Coding) -> Self {
        self.set(coding, true)
    }

    pub(super) fn without(self, coding: Coding) -> Self {
        self.set(coding, false)
    }

    fn set(mut self, coding: Coding, on: bool) -> Self {
        match coding {
            Coding::Gzip => self.gzip = on,
            Coding::Deflate => self.deflate = on,
            Coding::Brotli => self.brotli = on,
        }
        self
    }

    fn has(self, coding: Coding) -> bool {
        match coding {
            Coding::Gzip => self.gzip,
            Coding::Deflate => self.deflate,
            Coding::Brotli => self.brotli,
        }
    }

    /// What is asked for: never `deflate`, which comes with and without a header.
    pub(super) fn accept(self) -> HeaderValue {
        HeaderValue::from_static(match (self.gzip, self.brotli) {
            (true, true) => "gzip, br",
            (true, false) => "gzip",
            (false, true) => "br",
            (false, false) => "identity",
        })
    }

    /// The coding that is to be undone in an answer with this head, if it is the only one and one of these.
    pub(super) fn to_undo(self, status: StatusCode, headers: &HeaderMap) -> Option<Coding> {
        // No content; or a part or a delta of the *compressed* bytes, of which the rest is missing.
        let whole = !status.is_informational()
            && !matches!(
                status,
                StatusCode::NO_CONTENT
                    | StatusCode::RESET_CONTENT
                    | StatusCode::PARTIAL_CONTENT
                    | StatusCode::IM_USED
            );
        if !whole {
            return None;
        }
        let mut codings = headers
            .get_all(CONTENT_ENCODING)
            .iter()
            .flat_map(|line| line.as_bytes().split(|&byte| byte == b','))
            .map(<[u8]>::trim_ascii)
            .filter(|token| !token.is_empty() && !token.eq_ignore_ascii_case(b"identity"));
        let coding = Coding::named(codings.next()?)?;
        (codings.next().is_none() && self.has(coding)).then_some(coding)
    }
}

/// The digests of the compressed bytes: RFC 9530, and its two predecessors.
const DIGESTS: [HeaderName; 4] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

/// Takes from a head, or from trailers, what described the compressed bytes.
pub(super) fn undo(headers: &mut HeaderMap) {
    headers.remove(CONTENT_ENCODING);
    headers.remove(CONTENT_LENGTH);
    headers.remove(ACCEPT_RANGES);
    for name in &DIGESTS {
        headers.remove(name);
    }
    weaken(headers);
}

/// A strong validator stands for the bytes that it came with (RFC 9110 §8.8.1): these are others.
fn weaken(headers: &mut HeaderMap) {
    let Some(tag) = headers.get(ETAG) else { return };
    if tag.as_bytes().starts_with(b"W/") {
        return;
    }
    match HeaderValue::from_maybe_shared([b"W/", tag.as_bytes()].concat()) {
        Ok(weak) => drop(headers.insert(ETAG, weak)),
        Err(_) => drop(headers.remove(ETAG)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Codings {
        Codings::CHEAP.with(Coding::Brotli)
    }

    fn to_undo(codings: Codings, status: u16, lines: &[&'static str]) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(CONTENT_ENCODING, HeaderValue::from_static(line));
        }
        let status = StatusCode::from_u16(status).expect("a status");
        codings.to_undo(status, &headers)
    }

    // B30
    #[test]
    fn the_only_coding_is_found_in_any_spelling() {
        for (lines, coding) in [
            (&["gzip"][..], Some(Coding::Gzip)),
            (&["X-GZip"], Some(Coding::Gzip)),
            (&[" deflate\t"], Some(Coding::Deflate)),
            (&["BR"], Some(Coding::Brotli)),
            (&["identity, br ,"], Some(Coding::Brotli)),
            (&["", "Identity", ", gzip"], Some(Coding::Gzip)),
            (&[], None),
            (&[""], None),
            (&["identity"], None),
            (&["zstd"], None),
            (&["gzip, br"], None),
            (&["gzip, gzip"], None),
            (&["gzip", "gzip"], None),
            (&["gzip", "aes128gcm"], None),
            (&["gzip;q=1"], None),
            (&["gzip br"], None),
            (&["gzi"], None),
        ] {
            assert_eq!(to_undo(all(), 200, lines), coding, "{lines:?}");
        }
    }

    // B24
    #[test]
    fn only_whole_representations_are_decoded() {
        for status in [101, 204, 205, 206, 226] {
            assert_eq!(to_undo(all(), status, &["gzip"]), None, "{status}");
        }
        for status in [200, 203, 304, 404, 416, 500] {
            let coding = to_undo(all(), status, &["gzip"]);
            assert_eq!(coding, Some(Coding::Gzip), "{status}");
        }
    }

    #[test]
    fn what_is_left_out_is_neither_asked_for_nor_decoded() {
        for (without, accept) in [
            (&[][..], "gzip, br"),
            (&[Coding::Deflate], "gzip, br"),
            (&[Coding::Brotli], "gzip"),
            (&[Coding::Gzip], "br"),
            (&[Coding::Gzip, Coding::Brotli], "identity"),
        ] {
            let codings = without.iter().fold(all(), |all, one| all.without(*one));
            assert_eq!(codings.accept(), accept);
            for coding in [Coding::Gzip, Coding::Deflate, Coding::Brotli] {
                let undone = to_undo(codings, 200, &[coding.as_str()]).is_some();
                assert_eq!(undone, !without.contains(&coding), "{coding}, {without:?}");
            }
        }
    }

    #[test]
    fn a_strong_validator_becomes_a_weak_one() {
        for (tag, weak) in [
            (&b"\"a\""[..], &b"W/\"a\""[..]),
            (b"W/\"a\"", b"W/\"a\""),
            (b"\"\xff\"", b"W/\"\xff\""),
            (b"", b"W/"),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(ETAG, HeaderValue::from_bytes(tag).expect("a value"));
            undo(&mut headers);
            assert_eq!(headers[ETAG].as_bytes(), weak);
        }
    }
}
