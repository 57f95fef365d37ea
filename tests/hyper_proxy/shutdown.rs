//! SIGTERM, as far as it is not as in every example: answers that stream are finished, tunnels are left for a while.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::caller::{chunk, request};
use crate::process::Run;
use crate::upgrade::{opens, switches};
use crate::wire::ask::Ask;
use crate::wire::process::DRAIN;
use crate::within;

/// Sends a head, half a body, and the other half, each once it may.
fn in_steps() -> (Backend, watch::Sender<usize>) {
    let (step, steps) = watch::channel(0);
    let backend = Backend::new(move |mut peer| {
        let mut steps = steps.clone();
        async move {
            if peer.request().await.is_none() {
                return;
            }
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n";
            for (place, piece) in [head, "8\r\n and all\r\n0\r\n\r\n"].iter().enumerate() {
                let allowed = steps.wait_for(|step| *step > place).await.is_ok();
                assert!(allowed);
                peer.send(piece).await;
            }
            peer.closed().await;
        }
    });
    (backend, step)
}

/// Whether the signal comes before its head, or in the middle of its body.
#[tokio::test]
async fn an_open_answer_is_finished_over_http_1() {
    for in_body in [false, true] {
        let (backend, step) = in_steps();
        let mut proxy = Run::to(&backend).start().await;
        let mut caller = proxy.connect().await;
        caller.send(request("GET", "/", &[], "")).await;
        backend.until(|record| record.requests.len() == 1).await;
        let mut body = Vec::new();
        if in_body {
            step.send_replace(1);
            within(caller.wire.head()).await.expect("a head");
            body = chunk(&within(caller.wire.chunk()).await.expect("a chunk"));
        }
        proxy.terminate();
        proxy.refuses_connections().await;
        step.send_replace(2);
        let start = Instant::now();
        if !in_body {
            let head = within(caller.wire.head()).await.expect("a head");
            assert_eq!(head.fields.get("connection"), Some("close"));
        }
        body.extend(within(caller.wire.rest()).await);
        let whole = "4\r\nhalf\r\n8\r\n and all\r\n0\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&body), whole);
        proxy.exits_after(Duration::ZERO, start).await;
    }
}

#[tokio::test]
async fn an_open_answer_is_finished_over_http_2() {
    for in_body in [false, true] {
        let (backend, step) = in_steps();
        let mut proxy = Run::to(&backend).start().await;
        let mut http2 = proxy.http2().await;
        Ask::get("/").send_over_http2(&mut http2, 1).await;
        backend.until(|record| record.requests.len() == 1).await;
        let (mut body, mut whole) = (Vec::new(), false);
        if in_body {
            step.send_replace(1);
            http2.head(1).await.expect("a head");
            body = http2.chunk(1).await.expect("a chunk").0;
        }
        proxy.terminate();
        proxy.refuses_connections().await;
        step.send_replace(2);
        let start = Instant::now();
        if !in_body {
            http2.head(1).await.expect("a head");
        }
        while !whole {
            let (piece, ended) = http2.chunk(1).await.expect("the rest");
            body.extend(piece);
            whole = ended;
        }
        assert_eq!(String::from_utf8_lossy(&body), "half and all");
        http2.closed().await;
        proxy.exits_after(Duration::ZERO, start).await;
    }
}

/// A tunnel is carried on for as long as anything may take.
#[tokio::test]
async fn a_tunnel_is_given_five_seconds() {
    let backend = switches();
    let mut proxy = Run::to(&backend).start().await;
    let mut caller = opens(&proxy).await;
    let start = Instant::now();
    proxy.terminate();
    proxy.refuses_connections().await;
    caller.send("still here").await;
    let echoed = within(caller.wire.exactly(10)).await;
    assert_eq!(echoed.as_deref(), Some(&b"still here"[..]));
    proxy.exits_after(DRAIN, start).await;
    caller.closed().await;
    backend.until(|record| record.closed == 1).await;
}

/// A tunnel that ends in time is waited for, and no longer.
#[tokio::test]
async fn a_tunnel_may_end_by_itself() {
    let backend = switches();
    let mut proxy = Run::to(&backend).start().await;
    let mut caller = opens(&proxy).await;
    proxy.terminate();
    proxy.refuses_connections().await;
    let start = Instant::now();
    caller.wire.shutdown().await;
    drop(caller);
    backend.until(|record| record.closed == 1).await;
    proxy.exits_after(Duration::ZERO, start).await;
}
