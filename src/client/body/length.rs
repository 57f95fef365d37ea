//! What the head of a request says of the length of its body.

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method};
use http_body::Body;

use crate::fields::settle_length;

/// Makes the head say of the body what the body says of itself, and returns the announced length.
///
/// hyper believes the head. A `Content-Length` that was left over from another body would be sent with this one, and the
/// server would read the next request on that connection as the rest of it.
pub(crate) fn announce<B: Body>(method: &Method, headers: &mut HeaderMap, body: &B) -> Option<u64> {
    let exact = if body.is_end_stream() {
        Some(0)
    } else {
        body.size_hint().exact()
    };
    if let Some(length) = exact {
        let expects_content = [Method::POST, Method::PUT, Method::PATCH].contains(method);
        if headers.contains_key(CONTENT_LENGTH) {
            if settle_length(headers) != Ok(exact) {
                headers.insert(CONTENT_LENGTH, length.into());
            }
        } else if length == 0 && expects_content {
            // RFC 9110 §8.6; hyper announces every length but this one.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        return exact;
    }
    if let Ok(Some(said)) = settle_length(headers) {
        return Some(said);
    }
    // Not a length.
    headers.remove(CONTENT_LENGTH);
    // hyper takes a GET of unknown length for one without a body, unless it is told otherwise.
    if !headers.contains_key(TRANSFER_ENCODING) && [Method::GET, Method::HEAD].contains(method) {
        headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    None
}
