//! What the example `gateway` promises, end to end: its own process in front of backends of which most are hostile, and
//! callers of which some are.
//!
//! `cargo test` builds the example first; for `cargo test --test gateway` alone, `cargo build --example gateway` does.
//!
//! The names in comments are the cases of the project's lists (L: fan-out and merge, B: bad input). Nothing here sleeps: a
//! test waits for what it expects, under a deadline. Every gateway is also held to what goes for all of them, when it is
//! dropped: one line on standard output and no panic; every answer, when it is read: no address, port or text of a
//! backend, and errors are problems; every request that a backend was sent: one `Host`, its own, and sound framing.
#![cfg(feature = "client")]

mod backend;
mod branches;
mod caller;
mod flags;
mod hostile;
mod limits;
mod merges;
mod process;
mod serving;
mod shutdown;
mod wire;

use std::future::Future;
use std::time::Duration;

/// What a test waits for comes, or the test has failed.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it did not come in time")
}

/// How much later than it should a thing may happen on a busy machine.
const NOISE: Duration = Duration::from_secs(2);
