//! Errors as values, and errors as answers.
//!
//! Inside a client stack a failure is a typed error, usually boxed as a [`BoxError`]; [`cause_ref`] finds a type in its
//! chain of sources. At the edge a failure is a [`Problem`]: an `application/problem+json` answer (RFC 9457) that names
//! the branch and the reason, and never an internal address or the text of an upstream error.
//!
//! ```
//! use http::StatusCode;
//! use watershed::error::Problem;
//!
//! let answer = Problem::new(StatusCode::BAD_GATEWAY)
//!     .detail("a required branch failed")
//!     .member("branch", "orders")
//!     .into_response();
//! assert_eq!(answer.headers()["content-type"], "application/problem+json");
//! assert_eq!(
//!     answer.body(),
//!     &br#"{"title":"Bad Gateway","status":502,"detail":"a required branch failed","branch":"orders"}"#[..],
//! );
//! ```

use std::any::Any;
use std::borrow::Cow;
use std::error::Error;
use std::panic::{AssertUnwindSafe, catch_unwind};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{Response, StatusCode};

/// An error of any type, as Tower's stacks pass them on.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Finds an error of type `E` in `error` or in its chain of [sources](Error::source).
///
/// Layers wrap the errors of what they hold, so `downcast_ref` alone misses a cause behind a buffer or a client.
///
/// ```
/// use watershed::error::{BoxError, ClientFault, cause_ref};
///
/// let error: BoxError = ClientFault::bad_request("the path has no id").into();
/// assert!(cause_ref::<ClientFault>(error.as_ref()).is_some());
/// assert!(cause_ref::<std::io::Error>(error.as_ref()).is_none());
/// ```
#[must_use]
pub fn cause_ref<'a, E: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a E> {
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(found) = error.downcast_ref::<E>() {
            return Some(found);
        }
        current = error.source();
    }
    None
}

/// A configuration that can't be built: the `Err` of every `try_new`.
///
/// The matching `new` panics with the same message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct BuildError {
    message: Cow<'static, str>,
}

impl BuildError {
    /// An error that says `message`.
    pub fn new(message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            message: message.into(),
        }
    }

    /// Unwraps the result of a `try_new` for the `new` beside it.
    #[track_caller]
    pub(crate) fn expect<T>(result: Result<T, Self>) -> T {
        match result {
            Ok(built) => built,
            Err(error) => panic!("{error}"),
        }
    }
}

/// The request itself is at fault: its body is over the limit or broken, or a value in its path can't be used.
///
/// Any layer may put one into the chain of its error. A merge that finds one answers with its
/// [status](ClientFault::status), whatever the other branches said.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct ClientFault {
    status: StatusCode,
    detail: Cow<'static, str>,
}

impl ClientFault {
    /// A fault that is answered with `status`. `detail` is shown to the client: it names what is wrong with the request
    /// and nothing of our side.
    pub fn new(status: StatusCode, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            status,
            detail: detail.into(),
        }
    }

    /// `400 Bad Request`.
    pub fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// `413 Content Too Large`, for a body of over `limit` bytes.
    #[must_use]
    pub fn too_large(limit: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request body is larger than {limit} bytes"),
        )
    }

    /// The fault of a request whose body has failed with `error`: the one in its chain, if it says so itself.
    pub(crate) fn of_body(error: &(dyn Error + 'static)) -> Self {
        if let Some(known) = cause_ref::<Self>(error) {
            known.clone()
        } else if cause_ref::<http_body_util::LengthLimitError>(error).is_some() {
            let status = StatusCode::PAYLOAD_TOO_LARGE;
            Self::new(status, "the request body is too large")
        } else {
            Self::unreadable_body()
        }
    }

    pub(crate) fn unreadable_body() -> Self {
        Self::bad_request("the request body could not be read")
    }

    /// The status that answers this fault.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// This fault as an answer.
    #[must_use]
    pub fn to_problem(&self) -> Problem {
        Problem::new(self.status).detail(self.detail.clone())
    }
}

/// An answer of `application/problem+json` (RFC 9457).
///
/// See the [module docs](self) for an example.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    detail: Option<Cow<'static, str>>,
    headers: Vec<(HeaderName, HeaderValue)>,
    /// Rendered members, each `,"name":value`.
    members: Vec<u8>,
}

impl Problem {
    /// A problem of the type `about:blank`: its title is the status' own phrase.
    #[must_use]
    pub fn new(status: StatusCode) -> Self {
        Self {
            status,
            detail: None,
            headers: Vec::new(),
            members: Vec::new(),
        }
    }

    /// What went wrong with this request, in words that a client may read.
    #[must_use]
    pub fn detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    /// Adds an extension member with a string value.
    #[must_use]
    pub fn member(mut self, name: &str, value: &str) -> Self {
        self.members.push(b',');
        write_json_str(&mut self.members, name);
        self.members.push(b':');
        write_json_str(&mut self.members, value);
        self
    }

    /// Adds an extension member whose value is JSON already.
    #[must_use]
    pub(crate) fn json_member(mut self, name: &str, json: &[u8]) -> Self {
        self.members.push(b',');
        write_json_str(&mut self.members, name);
        self.members.push(b':');
        self.members.extend_from_slice(json);
        self
    }

    /// Adds a header to the answer, such as `Retry-After`.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The status of the answer.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The answer itself: a status, its headers, and the whole body.
    #[must_use]
    pub fn into_response(self) -> Response<Bytes> {
        let mut body = Vec::with_capacity(96 + self.members.len());
        body.extend_from_slice(b"{\"title\":");
        write_json_str(&mut body, self.status.canonical_reason().unwrap_or("Error"));
        body.extend_from_slice(b",\"status\":");
        body.extend_from_slice(self.status.as_str().as_bytes());
        if let Some(detail) = &self.detail {
            body.extend_from_slice(b",\"detail\":");
            write_json_str(&mut body, detail);
        }
        body.extend_from_slice(&self.members);
        body.push(b'}');

        let mut response = Response::new(Bytes::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        for (name, value) in self.headers {
            headers.append(name, value);
        }
        response
    }
}

/// Appends `text` as a JSON string (RFC 8259 §7), escaping no more than it must.
pub(crate) fn write_json_str(out: &mut Vec<u8>, text: &str) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for &byte in text.as_bytes() {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0..=0x1f => {
                out.extend_from_slice(b"\\u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
}

/// Runs code that is not ours, and whose panic is nobody else's failure: `None` then.
pub(crate) fn contain<T>(foreign: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(foreign)).map_err(bury).ok()
}

/// Drops what is not ours, and has no use any more.
pub(crate) fn discard<T>(value: T) {
    contain(|| drop(value));
}

/// Drops what a panic came with. That is not ours either, and may panic as it goes.
#[cold]
fn bury(payload: Box<dyn Any + Send>) {
    let drop_it = |payload| catch_unwind(AssertUnwindSafe(|| drop(payload)));
    if let Err(Err(last)) = drop_it(payload).map_err(drop_it) {
        // Who goes on like this could do so for ever.
        std::mem::forget(last);
    }
}

/// What a panic said, for a typed failure of the one that panicked.
#[cold]
pub(crate) fn panic_message(payload: Box<dyn Any + Send>) -> Cow<'static, str> {
    let payload = match payload.downcast::<&'static str>() {
        Ok(text) => return Cow::Borrowed(*text),
        Err(payload) => payload,
    };
    match payload.downcast::<String>() {
        Ok(text) => Cow::Owned(*text),
        Err(payload) => {
            bury(payload);
            Cow::Borrowed("a panic without a message")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] ClientFault);

    #[test]
    fn a_cause_is_found_behind_a_wrapper() {
        let error: BoxError = Outer(ClientFault::too_large(3)).into();
        let fault = cause_ref::<ClientFault>(error.as_ref()).expect("a fault");
        assert_eq!(fault.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    /// Panics as it goes, with another of its kind: so many times.
    struct Relay(u32);

    impl Drop for Relay {
        fn drop(&mut self) {
            if let Some(left) = self.0.checked_sub(1) {
                std::panic::panic_any(Self(left));
            }
        }
    }

    #[test]
    fn what_a_panic_comes_with_may_panic_as_it_goes() {
        for relays in 0..9 {
            assert!(contain(|| std::panic::panic_any(Relay(relays))).is_none());
            discard(Relay(relays));
            let message = panic_message(Box::new(Relay(relays)));
            assert_eq!(message, "a panic without a message");
        }
        assert_eq!(contain(|| 7), Some(7));
    }

    #[test]
    fn strings_are_escaped_as_serde_json_escapes_them() {
        for text in [
            "",
            "plain",
            "a\"b\\c",
            "\n\r\t\u{0}\u{1f}",
            "h\u{e9}\u{1f600}\u{7f}",
        ] {
            let mut out = Vec::new();
            write_json_str(&mut out, text);
            let back: String = serde_json::from_slice(&out).expect("valid JSON");
            assert_eq!(back, text);
        }
    }
}
