//! A caller: one connection, byte for byte, and what it makes of an answer.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::Value;

use super::backend::{Backend, SECRET};
use super::http1::{Body, Fields, Framing, Head, Wire};
use super::within;

/// A request's bytes, with a `Content-Length` if there is a body.
pub(crate) fn request(method: &str, target: &str, fields: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("{method} {target} HTTP/1.1\r\nHost: gateway.test\r\n");
    for field in fields {
        text.push_str(field);
        text.push_str("\r\n");
    }
    if !body.is_empty() {
        text.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(body);
    text.into_bytes()
}

/// One chunk of a body.
pub(crate) fn chunk(bytes: &[u8]) -> Vec<u8> {
    let size = format!("{:x}\r\n", bytes.len());
    [size.as_bytes(), bytes, b"\r\n"].concat()
}

/// A connection to the gateway.
pub(crate) struct Caller {
    pub(crate) wire: Wire,
    /// What no answer may name.
    backends: Arc<[Backend]>,
}

impl Caller {
    pub(crate) async fn new(gateway: SocketAddr, backends: Arc<[Backend]>) -> Self {
        let wire = within(Wire::connect(gateway)).await.expect("a connection");
        Self { wire, backends }
    }

    /// Sends; that the gateway may have closed shows in the answer.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.wire.send(bytes)).await;
    }

    pub(crate) async fn get(&mut self, target: &str) -> Answer {
        self.send(request("GET", target, &[], "")).await;
        self.answer().await
    }

    pub(crate) async fn answer(&mut self) -> Answer {
        let answer = self.answer_of_the_server().await;
        if answer.status >= 400 {
            answer.problem(answer.status);
        }
        answer
    }

    pub(crate) async fn answer_to_head(&mut self) -> Answer {
        let head = within(self.wire.head()).await.expect("an answer");
        Answer::new(head, Body::default(), &self.backends)
    }

    /// An answer that may be the HTTP library's own, which has no body to a request that it can't read.
    pub(crate) async fn answer_of_the_server(&mut self) -> Answer {
        let head = within(self.wire.head()).await.expect("an answer");
        let body = match (head.framing(), head.start.split(' ').nth(1)) {
            (_, Some("100" | "101" | "204" | "304")) => Body::default(),
            (framing, _) => {
                let framing = framing.unwrap_or(Framing::UntilClosed);
                let body = within(self.wire.body(framing)).await;
                assert!(body.whole, "cut short: {head:?}");
                body
            }
        };
        Answer::new(head, body, &self.backends)
    }

    /// The gateway closes, and says nothing more before.
    pub(crate) async fn closed(mut self) {
        let rest = within(self.wire.rest()).await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

/// What the gateway answers.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: Head,
    pub(crate) body: Vec<u8>,
    pub(crate) trailers: Fields,
}

impl Answer {
    /// No answer says where the backends are (B36).
    #[track_caller]
    pub(crate) fn new(head: Head, body: Body, backends: &[Backend]) -> Self {
        let status = head.start.split(' ').nth(1);
        let status = status.and_then(|status| status.parse().ok());
        let answer = Self {
            status: status.expect("a status"),
            head,
            body: body.bytes,
            trailers: body.trailers,
        };
        let text = format!("{:?}{}", answer.head, answer.lossy());
        for backend in backends {
            assert!(
                !text.contains(&format!(":{}", backend.address().port())),
                "{text}"
            );
        }
        assert!(!text.contains("127.0.0.1"), "{text}");
        assert!(!text.contains("[::1]"), "{text}");
        assert!(!text.contains("localhost"), "{text}");
        answer
    }

    fn lossy(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.body)
    }

    #[track_caller]
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.fields.get(name)
    }

    #[track_caller]
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("UTF-8")
    }

    /// A merged document: all of it is there.
    #[track_caller]
    pub(crate) fn complete(&self, text: &str) {
        self.merged(text, "true");
    }

    /// A merged document: something is missing.
    #[track_caller]
    pub(crate) fn incomplete(&self, text: &str) {
        self.merged(text, "false");
        // Nobody should keep it (L48).
        assert_eq!(self.field("cache-control"), None);
    }

    #[track_caller]
    fn merged(&self, text: &str, complete: &str) {
        assert_eq!((self.status, &*self.lossy()), (200, text), "{self:?}");
        assert_eq!(self.field("watershed-complete"), Some(complete), "{self:?}");
        assert_eq!(self.field("content-type"), Some("application/json"));
    }

    /// An error of ours (RFC 9457), with nothing in it that a backend said.
    #[track_caller]
    pub(crate) fn problem(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{self:?}: {}", self.lossy());
        let kind = self.field("content-type");
        assert_eq!(kind, Some("application/problem+json"), "{self:?}");
        assert!(!self.lossy().contains(SECRET), "{}", self.lossy());
        let problem: Value = serde_json::from_slice(&self.body).expect("JSON");
        assert_eq!(problem["status"], status, "{problem}");
        assert!(problem["title"].is_string(), "{problem}");
        problem
    }

    /// The same of a merge, which marks it.
    #[track_caller]
    pub(crate) fn merge_problem(&self, status: u16) -> Value {
        assert_eq!(self.field("watershed-complete"), Some("false"), "{self:?}");
        self.problem(status)
    }
}
