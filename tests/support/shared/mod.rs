//! What every example does as a server: the same tests for each of them.
//!
//! A test target that uses them has in its root `async fn front(&Backend, hops: usize) -> Server`, as for the tests of
//! hostile callers. It waits for its backend for longer than the drain at its end takes.

mod serving;
mod shutdown;

use crate::backend::Backend;
use crate::wire::process::Server;

/// An example in front of a backend that believes nobody.
async fn front(backend: &Backend) -> Server {
    crate::front(backend, 0).await
}
