//! An example as a process, backends and callers around it, and nothing between them that would put right what it gets
//! wrong.
//!
//! A test target that uses it has in its root `fn check(&Request, SocketAddr)`, which holds every request that any backend
//! was sent to what goes for all of them. What else goes for all: a process says one line on standard output and does not
//! panic; no answer names an address, a port or a text of a backend, and errors are problems.
#![allow(dead_code, reason = "each test target uses a part of it")]

pub(crate) mod ask;
pub(crate) mod backend;
pub(crate) mod caller;
pub(crate) mod hpack;
pub(crate) mod http1;
pub(crate) mod http2;
pub(crate) mod process;

use std::future::Future;
use std::time::Duration;

/// What a test waits for comes, or the test has failed.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it did not come in time")
}

/// How much later than it should a thing may happen on a busy machine.
pub(crate) const NOISE: Duration = Duration::from_secs(2);
