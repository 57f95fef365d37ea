//! The mark that says whether an answer is whole.

use http::header::HeaderName;
use http::{HeaderValue, Response};

/// `watershed-complete: true|false`, on every merged answer.
pub const COMPLETE: HeaderName = HeaderName::from_static("watershed-complete");

/// Whether an answer holds all that it should.
///
/// A layer marks its answer with this extension; over the wire the same is said by the header [`COMPLETE`]. A merge reads
/// both from its branches, so a merge of merges is complete only if every part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Completeness {
    /// Nothing is missing.
    Complete,
    /// Something that should be in the answer is not.
    Incomplete,
}

impl Completeness {
    pub(crate) fn complete_if(nothing_is_missing: bool) -> Self {
        if nothing_is_missing {
            Self::Complete
        } else {
            Self::Incomplete
        }
    }

    /// What `response` says of itself: its extension, else its header. A response that says nothing is complete.
    #[must_use]
    pub fn of<B>(response: &Response<B>) -> Self {
        if let Some(mark) = response.extensions().get::<Self>() {
            return *mark;
        }
        match response.headers().get(COMPLETE) {
            Some(value) if value.as_bytes().eq_ignore_ascii_case(b"false") => Self::Incomplete,
            _ => Self::Complete,
        }
    }

    /// Writes the mark on `response`: the extension and the header.
    pub fn mark<B>(self, response: &mut Response<B>) {
        response.extensions_mut().insert(self);
        let value = match self {
            Self::Complete => HeaderValue::from_static("true"),
            Self::Incomplete => HeaderValue::from_static("false"),
        };
        response.headers_mut().insert(COMPLETE, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mark_is_read_from_the_extension_first() {
        let mut response = Response::new(());
        assert_eq!(Completeness::of(&response), Completeness::Complete);
        response
            .headers_mut()
            .insert(COMPLETE, HeaderValue::from_static("False"));
        assert_eq!(Completeness::of(&response), Completeness::Incomplete);
        response.extensions_mut().insert(Completeness::Complete);
        assert_eq!(Completeness::of(&response), Completeness::Complete);
    }
}
