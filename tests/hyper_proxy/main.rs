//! What the example `hyper_proxy` promises, end to end: its own process between callers and a backend that both say
//! whatever they like, byte for byte.
//!
//! `cargo test` builds the example first; for `cargo test --test hyper_proxy` alone, `cargo build --examples` does.
//!
//! The names in comments are the cases of the project's list of bad input (B). Nothing here sleeps: a test waits for what it
//! expects, under a deadline. What goes for every process, answer and request is checked wherever there is one: see
//! `tests/support/wire`.
#![cfg(feature = "client")]

mod backends;
#[path = "../support/hostile/mod.rs"]
mod hostile;
mod process;
mod reuse;
mod serving;
#[path = "../support/shared/mod.rs"]
mod shared;
mod shutdown;
mod streaming;
mod targets;
mod upgrade;
mod uploads;
mod websocket;
#[path = "../support/wire/mod.rs"]
mod wire;

use std::net::SocketAddr;

use backend::Request;
use process::{Proxy, Run};
use wire::{NOISE, backend, caller, within};

/// For the tests that every example is held to.
async fn front(backend: &backend::Backend, hops: usize) -> Proxy {
    run(backend, hops).start().await
}

fn run(backend: &backend::Backend, hops: usize) -> Run {
    Run::to(backend).flag("trusted-hops", &hops.to_string())
}

/// What goes for every request to a backend.
#[track_caller]
fn check(request: &Request, address: SocketAddr) {
    let fields = &request.head.fields;
    assert_eq!(fields.all("host"), [address.to_string()], "{request:?}");
    for name in [
        "forwarded",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "http2-settings",
        "x-real-ip",
        "x_forwarded_for",
    ] {
        assert_eq!(fields.all(name), [""; 0], "{request:?}");
    }
    match request.field("upgrade") {
        None => assert_eq!(request.field("connection"), None, "{request:?}"),
        Some(protocol) => {
            assert!(protocol.eq_ignore_ascii_case("websocket"), "{request:?}");
            assert_eq!(request.field("connection"), Some("upgrade"));
        }
    }
    assert!(
        [None, Some("trailers")].contains(&request.field("te")),
        "{request:?}"
    );
    // All callers are at the same address as the backend.
    let way = request.field("x-forwarded-for").expect("for whom we ask");
    let caller = way.rsplit(", ").next();
    assert_eq!(caller, Some(&*address.ip().to_string()), "{request:?}");
    assert!(request.field("x-forwarded-proto").is_some(), "{request:?}");
    // Asserts that it is either a length or a coding.
    request.head.framing();
    assert!(request.target.starts_with('/'), "{request:?}");
    let path = request.target.split('?').next().unwrap_or_default();
    let path = path.to_ascii_lowercase().replace("%2e", ".");
    let path = path.replace("%2f", "/").replace("%5c", "\\");
    let dots = |segment: &str| segment == "." || segment == "..";
    assert!(!path.split(['/', '\\']).any(dots), "{request:?}");
    for name in request.body.trailers.names() {
        assert!(
            name.starts_with("x-") && !name.starts_with("x-forwarded"),
            "{request:?}"
        );
    }
}
