//! For tests of what is built on this crate: a scripted backend, and an audit of isolation.
//!
//! The defects that this crate is about stay invisible to tests that look at answers only. Lura's regression test for
//! mixed paths makes one call after the other and counts how often each address was hit. When two of its backends divide
//! one request body between them, no race detector says a word, and some of these answers are marked as complete. And
//! the answer is right although a branch that should have been cancelled still runs.
//!
//! [`Scripted`] is a backend that does what its script says, at the virtual instant that it says, and records what became
//! of every call: so that a test can say that the loser *was dropped*. [`Isolation`] gives every branch call a stamp and
//! checks, next to the client, that the request that is sent is that call's own.
//!
//! Turn it on where it is needed only:
//!
//! ```toml
//! [dev-dependencies]
//! watershed = { version = "0.1", features = ["test-util"] }
//! ```
//!
//! # A scripted backend
//!
//! ```
//! use std::time::Duration;
//! use futures_util::StreamExt;
//! use http::Request;
//! use tower::ServiceExt;
//! use watershed::clone_request::TeeBody;
//! use watershed::fanout::FanOut;
//! use watershed::outcome::Branch;
//! use watershed::test_util::{Reply, Scripted};
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let quick = Scripted::new([
//!     Reply::json(r#"{"from":"quick"}"#).after(Duration::from_millis(5)),
//!     Reply::status(503).header("retry-after", 1),
//! ]);
//! let slow = Scripted::reply(Reply::hang());
//! let race = FanOut::new([
//!     Branch::http("slow", slow.clone()),
//!     Branch::http("quick", quick.clone()),
//! ]);
//!
//! let request = Request::get("/7").body(TeeBody::empty()).unwrap();
//! let mut gather = race.oneshot(request).await.unwrap();
//! assert_eq!(gather.next().await.unwrap().branch.name(), "quick");
//! drop(gather);
//!
//! assert_eq!(quick.calls()[0].uri.path(), "/7");
//! assert_eq!((slow.started(), slow.finished(), slow.dropped()), (1, 0, 1));
//! # }
//! ```
//!
//! # An audit of isolation
//!
//! ```
//! use futures_util::StreamExt;
//! use http::Request;
//! use tower::{Layer, ServiceExt};
//! use watershed::clone_request::TeeBody;
//! use watershed::fanout::FanOut;
//! use watershed::outcome::Branch;
//! use watershed::test_util::{Isolation, Scripted};
//!
//! # #[tokio::main(flavor = "current_thread")] async fn main() {
//! let isolation = Isolation::new();
//! let client = Scripted::echo();
//! let audited = |name: &'static str| {
//!     let innermost = isolation.check(name).layer(client.clone());
//!     // … the layers of the branch …
//!     Branch::http(name, isolation.stamp(name).layer(innermost))
//! };
//! let fan_out = FanOut::new([audited("users"), audited("orders")]);
//!
//! let request = Request::get("/7").body(TeeBody::empty()).unwrap();
//! let gather = fan_out.oneshot(request).await.unwrap();
//! assert_eq!(gather.count().await, 2);
//!
//! isolation.assert_clean();
//! // An audit that has looked at nothing is clean as well: say how much there was to see.
//! assert_eq!(isolation.checked(), 2);
//! # }
//! ```

mod isolation;
mod scripted;

pub use isolation::{
    Check, CheckFuture, CheckLayer, Crossed, Crossing, CrossingKind, Isolation, STAMP, Stamp,
    StampFuture, StampLayer, Stamped,
};
pub use scripted::{RecordedCall, Reply, Scripted, ScriptedBody, ScriptedError, ScriptedFuture};
