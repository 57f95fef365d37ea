//! What a scripted backend received.

use bytes::Bytes;
use http::header::HeaderValue;
use http::{HeaderMap, Method, Uri, Version};

use crate::error::write_json_str;

/// What a [`Scripted`](super::Scripted) backend received in one call.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct RecordedCall {
    /// When the service was called, by the runtime's clock: on a paused one, differences are exact.
    pub at: std::time::Instant,
    /// The request's method.
    pub method: Method,
    /// The request's target.
    pub uri: Uri,
    /// The request's version.
    pub version: Version,
    /// The request's header fields.
    pub headers: HeaderMap,
    /// The request's body, once it has been read to its end.
    pub body: Option<Bytes>,
    /// The request's trailers, if it had any, once its body has been read.
    pub trailers: Option<HeaderMap>,
}

impl RecordedCall {
    pub(super) fn to_json(&self) -> Bytes {
        fn string_or_null(out: &mut Vec<u8>, text: Option<&str>) {
            match text {
                Some(text) => write_json_str(out, text),
                None => out.extend_from_slice(b"null"),
            }
        }

        let mut out = b"{\"method\":".to_vec();
        write_json_str(&mut out, self.method.as_str());
        out.extend_from_slice(b",\"path\":");
        write_json_str(&mut out, self.uri.path());
        out.extend_from_slice(b",\"query\":");
        string_or_null(&mut out, self.uri.query());
        out.extend_from_slice(b",\"headers\":{");
        // Sorted: a map's own order is nothing to compare by.
        let mut names: Vec<_> = self.headers.keys().collect();
        names.sort_by_key(|name| name.as_str());
        for (index, name) in names.into_iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            let lines = self.headers.get_all(name).iter();
            let lines: Vec<_> = lines.map(HeaderValue::as_bytes).collect();
            write_json_str(&mut out, name.as_str());
            out.push(b':');
            write_json_str(&mut out, &String::from_utf8_lossy(&lines.join(&b", "[..])));
        }
        out.extend_from_slice(b"},\"body\":");
        let body = self.body.as_deref().map(String::from_utf8_lossy);
        string_or_null(&mut out, body.as_deref());
        out.push(b'}');
        out.into()
    }
}
