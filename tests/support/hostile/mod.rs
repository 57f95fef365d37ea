//! What no caller may achieve, over HTTP/1.1 and over HTTP/2: the same tests for every example.
//!
//! A test target that uses them has in its root `fn run(&Backend, hops: usize) -> Run`: an example that sends `/x/{id}` on to
//! the backend's `/x/{id}`, answers with what that says, and believes so many proxies before it; and `async fn front`, which
//! starts it.
//!
//! What the HTTP library decides is pinned as well: a test that says so shows its behaviour, not ours.

pub(crate) mod answers;
mod early;
mod fields;
mod forwarded;
mod framing;
mod host;
mod http2;
mod ipv6;
mod methods;
mod responses;

use crate::backend::{Backend, Request};
use crate::wire::ask::{Ask, BOTH_PROTOCOLS, Protocol};
use crate::wire::process::Server;

/// A backend that answers everything, behind a proxy.
struct Rig {
    backend: Backend,
    server: Server,
}

impl Rig {
    async fn new() -> Self {
        Self::trusting(0).await
    }

    async fn trusting(hops: usize) -> Self {
        let backend = Backend::json("{}");
        let server = crate::front(&backend, hops).await;
        Self { backend, server }
    }

    /// Sends what is passed on, and returns what the backend got.
    async fn passes(&self, protocol: Protocol, ask: &Ask) -> Request {
        let before = self.backend.requests().len();
        let answer = self.server.ask(protocol, ask).await;
        assert_eq!((answer.status, answer.text()), (200, "{}"), "{ask:?}");
        let mut requests = self.backend.requests();
        assert_eq!(requests.len(), before + 1, "{ask:?}");
        requests.pop().expect("one")
    }

    /// Sends what is answered with this status, and does not reach the backend.
    async fn refuses(&self, protocol: Protocol, ask: &Ask, status: u16) {
        let before = self.backend.requests().len();
        let answer = self.server.ask(protocol, ask).await;
        assert_eq!(answer.status, status, "{protocol:?}: {ask:?}");
        if status >= 400 {
            answer.problem(status);
        }
        assert_eq!(self.backend.requests().len(), before, "{ask:?}");
    }

    /// Sends raw bytes that are answered with this status by whomever, and do not reach the backend.
    async fn refuses_bytes(&self, bytes: impl AsRef<[u8]>, status: u16) {
        let bytes = bytes.as_ref();
        let text = String::from_utf8_lossy(bytes);
        let before = self.backend.requests().len();
        let mut caller = self.server.connect().await;
        caller.send(bytes).await;
        let answer = caller.answer_of_the_server().await;
        assert_eq!(answer.status, status, "{text}");
        assert_eq!(self.backend.requests().len(), before, "{text}");
    }
}
