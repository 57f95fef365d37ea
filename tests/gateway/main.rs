//! What the example `gateway` promises, end to end: its own process in front of backends of which most are hostile, and
//! callers of which some are.
//!
//! `cargo test` builds the example first; for `cargo test --test gateway` alone, `cargo build --examples` does.
//!
//! The names in comments are the cases of the project's lists (L: fan-out and merge, B: bad input). Nothing here sleeps: a
//! test waits for what it expects, under a deadline. Every gateway is also held to what goes for all of them, when it is
//! dropped: one line on standard output and no panic; every answer, when it is read: no address, port or text of a
//! backend, and errors are problems; every request that a backend was sent: one `Host`, its own, and sound framing.
#![cfg(feature = "client")]

mod branches;
#[path = "../support/hostile/mod.rs"]
mod callers;
#[cfg(feature = "decompression")]
#[path = "../support/coding.rs"]
mod coding;
#[cfg(feature = "decompression")]
mod compressed;
mod deadlines;
mod flags;
mod hostile;
mod limits;
mod merges;
mod process;
mod serving;
#[path = "../support/shared/mod.rs"]
mod shared;
#[path = "../support/wire/mod.rs"]
mod wire;

use std::net::SocketAddr;

use backend::Request;
use wire::{NOISE, backend, caller, within};

/// For the tests that every example is held to.
async fn front(backend: &backend::Backend, hops: usize) -> process::Gateway {
    run(backend, hops).start().await
}

fn run(backend: &backend::Backend, hops: usize) -> process::Run {
    process::Run::new()
        .flag("trusted-hops", &hops.to_string())
        .route("/x/{id}")
        .branch("a", backend, "/x/{id}")
        .flag("merge", "first")
        .flag("credentials", "a")
        .flag("timeout", "15s")
}

/// What goes for every request to any backend.
#[track_caller]
fn check(request: &Request, address: SocketAddr) {
    assert_eq!(
        request.head.fields.all("host"),
        [address.to_string()],
        "{request:?}"
    );
    for name in [
        "connection",
        "expect",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "range",
        "te",
        "upgrade",
    ] {
        assert_eq!(request.head.fields.all(name), [""; 0], "{request:?}");
    }
    // Asserts that it is either a length or a coding.
    request.head.framing();
    assert!(request.target.starts_with('/'), "{request:?}");
    assert!(!request.target.starts_with("//"), "{request:?}");
    let clean = |byte: u8| byte.is_ascii_graphic() && !br#""<>\^`{|}#"#.contains(&byte);
    assert!(request.target.bytes().all(clean), "{request:?}");
    let path = request.target.split('?').next().unwrap_or_default();
    let path = path.replace("%2e", ".").replace("%2E", ".");
    let dots = |segment: &str| segment == "." || segment == "..";
    assert!(!path.split('/').any(dots), "{request:?}");
}
