//! What may be said about caching an answer of several parts (RFC 9111 §5.2.2).

use std::time::Duration;

use http::HeaderMap;
use http::header::{AGE, CACHE_CONTROL, HeaderName, HeaderValue, VARY};

use crate::body::Completeness;

/// The strictest of the parts' `Cache-Control`.
#[derive(Debug)]
pub(super) struct CacheControl {
    no_store: bool,
    no_cache: bool,
    private: bool,
    must_revalidate: bool,
    public: bool,
    /// The shortest that a part stays fresh; `None` as soon as one doesn't say.
    max_age: Option<Duration>,
}

impl CacheControl {
    /// Of no part yet: nothing is forbidden.
    pub(super) fn new() -> Self {
        Self {
            no_store: false,
            no_cache: false,
            private: false,
            must_revalidate: false,
            public: true,
            max_age: Some(Duration::MAX),
        }
    }

    pub(super) fn add(&mut self, headers: &HeaderMap) {
        let mut public = false;
        let mut max_age = None::<u64>;
        for line in headers.get_all(CACHE_CONTROL) {
            for directive in line.as_bytes().split(|&byte| byte == b',') {
                let mut halves = directive.splitn(2, |&byte| byte == b'=');
                let name = halves.next().unwrap_or_default().trim_ascii();
                match name.to_ascii_lowercase().as_slice() {
                    b"no-store" => self.no_store = true,
                    b"no-cache" => self.no_cache = true,
                    b"private" => self.private = true,
                    b"must-revalidate" | b"proxy-revalidate" => self.must_revalidate = true,
                    b"public" => public = true,
                    b"max-age" | b"s-maxage" => {
                        // What can't be read is stale (RFC 9111 §4.2.1).
                        let seconds = halves.next().and_then(seconds).unwrap_or(0);
                        max_age = Some(max_age.map_or(seconds, |known| known.min(seconds)));
                    }
                    _ => {}
                }
            }
        }
        self.public &= public;
        // A part that has been in a cache has used up some of its time.
        let age = headers
            .get(AGE)
            .and_then(|age| seconds(age.as_bytes()))
            .unwrap_or(0);
        let fresh = max_age.map(|max_age| Duration::from_secs(max_age.saturating_sub(age)));
        self.max_age = self
            .max_age
            .zip(fresh)
            .map(|(shortest, fresh)| shortest.min(fresh));
    }

    /// The field, if there is anything to say. What is missing from an incomplete answer may be there at the next request,
    /// so nobody is told for how long to keep that; but a part's `no-store`, `no-cache` and `private` hold still: a cache may
    /// have a lifetime of its own for what says nothing.
    pub(super) fn value(&self, completeness: Completeness) -> Option<HeaderValue> {
        if self.no_store {
            return Some(HeaderValue::from_static("no-store"));
        }
        let mut directives = Vec::new();
        if self.private {
            directives.push("private".to_owned());
        }
        if self.no_cache {
            directives.push("no-cache".to_owned());
        }
        if completeness == Completeness::Complete {
            if let Some(max_age) = self.max_age.filter(|max_age| *max_age != Duration::MAX) {
                if self.public && !self.private {
                    directives.push("public".to_owned());
                }
                directives.push(format!("max-age={}", max_age.as_secs()));
            }
            if self.must_revalidate {
                directives.push("must-revalidate".to_owned());
            }
        }
        if directives.is_empty() {
            return None;
        }
        HeaderValue::try_from(directives.join(", ")).ok()
    }
}

/// Delta seconds (RFC 9111 §1.2.2), quoted or not; more than fits is the most that fits.
fn seconds(value: &[u8]) -> Option<u64> {
    let value = value.trim_ascii();
    let digits = match value {
        [b'"', digits @ .., b'"'] => digits,
        digits => digits,
    };
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |seconds, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        Some(seconds.saturating_mul(10).saturating_add(digit))
    })
}

/// The union of the parts' `Vary` (RFC 9110 §12.5.5).
#[derive(Debug, Default)]
pub(super) struct Vary {
    /// In the order in which they came.
    names: Vec<HeaderName>,
    /// By everything: because a part says so, or says what can't be repeated.
    any: bool,
}

impl Vary {
    /// More names than any honest backend sends, and longer ones.
    const MAX_NAMES: usize = 32;
    const MAX_LEN: usize = 64;

    pub(super) fn add(&mut self, headers: &HeaderMap) {
        for line in headers.get_all(VARY) {
            for name in line.as_bytes().split(|&byte| byte == b',') {
                let name = name.trim_ascii();
                if name.is_empty() || self.any {
                    continue;
                }
                match HeaderName::from_bytes(name) {
                    Ok(known) if self.names.contains(&known) => {}
                    Ok(name)
                        if name != "*"
                            && name.as_str().len() <= Self::MAX_LEN
                            && self.names.len() < Self::MAX_NAMES =>
                    {
                        self.names.push(name);
                    }
                    _ => self.any = true,
                }
            }
        }
    }

    pub(super) fn value(&self) -> Option<HeaderValue> {
        if self.any {
            return Some(HeaderValue::from_static("*"));
        }
        if self.names.is_empty() {
            return None;
        }
        let names: Vec<&str> = self.names.iter().map(HeaderName::as_str).collect();
        HeaderValue::try_from(names.join(", ")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Parts<'a> = &'a [&'a [(&'static str, &'static str)]];

    fn strictest(parts: Parts<'_>, completeness: Completeness) -> Option<String> {
        let mut strictest = CacheControl::new();
        for part in parts {
            let mut headers = HeaderMap::new();
            for (name, value) in *part {
                headers.append(*name, HeaderValue::from_static(value));
            }
            strictest.add(&headers);
        }
        let value = strictest.value(completeness)?;
        Some(value.to_str().expect("ASCII").to_owned())
    }

    // L48
    #[test]
    fn the_strictest_part_rules() {
        let cc = "cache-control";
        for (parts, want) in [
            (&[][..], None),
            (&[&[][..]][..], None),
            (
                &[&[(cc, "max-age=60")], &[(cc, "max-age=10")]],
                Some("max-age=10"),
            ),
            (
                &[&[(cc, "public, max-age=60")], &[(cc, "Public,max-age=90")]],
                Some("public, max-age=60"),
            ),
            (
                &[&[(cc, "public, max-age=60")], &[(cc, "max-age=90")]],
                Some("max-age=60"),
            ),
            (&[&[(cc, "max-age=60")], &[]], None),
            (
                &[&[(cc, "private, max-age=60")], &[(cc, "public, max-age=9")]],
                Some("private, max-age=9"),
            ),
            (&[&[(cc, "private")], &[]], Some("private")),
            (
                &[&[(cc, "max-age=60")], &[(cc, "no-store")]],
                Some("no-store"),
            ),
            (
                &[&[(cc, "no-cache"), (cc, "max-age=5, must-revalidate")]],
                Some("no-cache, max-age=5, must-revalidate"),
            ),
            (
                &[&[(cc, "max-age=60, s-maxage=\"20\"")]],
                Some("max-age=20"),
            ),
            (&[&[(cc, "max-age=60"), ("age", "59")]], Some("max-age=1")),
            (&[&[(cc, "max-age=60"), ("age", "600")]], Some("max-age=0")),
            (&[&[(cc, "max-age=soon")]], Some("max-age=0")),
            (&[&[(cc, "max-age")]], Some("max-age=0")),
        ] {
            let strictest = strictest(parts, Completeness::Complete);
            assert_eq!(strictest.as_deref(), want, "{parts:?}");
        }
    }

    // L48
    #[test]
    fn an_incomplete_answer_says_only_what_is_forbidden() {
        let cc = "cache-control";
        for (parts, want) in [
            (&[&[(cc, "public, max-age=60")][..]][..], None),
            (&[&[(cc, "max-age=60, must-revalidate")]], None),
            (&[&[(cc, "private, max-age=60")], &[]], Some("private")),
            (&[&[(cc, "no-cache, private")]], Some("private, no-cache")),
            (
                &[&[(cc, "max-age=60")], &[(cc, "no-store")]],
                Some("no-store"),
            ),
        ] {
            let strictest = strictest(parts, Completeness::Incomplete);
            assert_eq!(strictest.as_deref(), want, "{parts:?}");
        }
    }

    #[test]
    fn vary_is_united() {
        let mut vary = Vary::default();
        let mut headers = HeaderMap::new();
        assert_eq!(vary.value(), None);
        headers.append(VARY, HeaderValue::from_static("Accept, Origin"));
        headers.append(VARY, HeaderValue::from_static("accept"));
        vary.add(&headers);
        assert_eq!(vary.value().expect("some"), "accept, origin");
        headers.append(VARY, HeaderValue::from_static("*"));
        vary.add(&headers);
        assert_eq!(vary.value().expect("some"), "*");
    }
}
