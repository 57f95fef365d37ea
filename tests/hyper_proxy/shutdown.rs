//! SIGTERM: what has begun is finished, tunnels are left for a while, nothing new is accepted.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::Backend;
use crate::caller::{chunk, request};
use crate::process::{Proxy, Run};
use crate::upgrade::{opens, switches};
use crate::wire::ask::Ask;
use crate::{NOISE, within};

const DRAIN: Duration = Duration::from_secs(5);

/// It exits with success, after this time.
async fn exits(proxy: &mut Proxy, since: Instant, after: Duration) {
    assert_eq!(proxy.exited().await.code(), Some(0));
    let elapsed = since.elapsed();
    assert!(elapsed + Duration::from_millis(500) >= after, "{elapsed:?}");
    assert!(elapsed < after + NOISE, "{elapsed:?}");
}

async fn refuses_connections(proxy: &Proxy) {
    within(async {
        while TcpStream::connect(proxy.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_idle_proxy_exits_at_once() {
    let backend = Backend::json("{}");
    let mut proxy = Run::to(&backend).start().await;
    // A kept connection of each version, and one that never said anything.
    let mut kept = proxy.connect().await;
    assert_eq!(kept.get("/").await.text(), "{}");
    let mut http2 = proxy.http2().await;
    Ask::get("/").send_over_http2(&mut http2, 1).await;
    assert_eq!(http2.heard(1).await.answer().text(), "{}");
    let silent = proxy.connect().await;
    let start = Instant::now();
    proxy.terminate();
    http2.closed().await;
    exits(&mut proxy, start, Duration::ZERO).await;
    kept.closed().await;
    silent.closed().await;
}

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
        refuses_connections(&proxy).await;
        step.send_replace(2);
        let start = Instant::now();
        if !in_body {
            let head = within(caller.wire.head()).await.expect("a head");
            assert_eq!(head.fields.get("connection"), Some("close"));
        }
        body.extend(within(caller.wire.rest()).await);
        let whole = "4\r\nhalf\r\n8\r\n and all\r\n0\r\n\r\n";
        assert_eq!(String::from_utf8_lossy(&body), whole);
        exits(&mut proxy, start, Duration::ZERO).await;
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
        refuses_connections(&proxy).await;
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
        exits(&mut proxy, start, Duration::ZERO).await;
    }
}

/// What would take for ever is given up, as is a tunnel; it is carried for until then.
#[tokio::test]
async fn what_does_not_end_is_given_five_seconds() {
    let hangs = Backend::hangs();
    let (tunnels, calls) = (switches(), hangs.clone());
    let tunnel = async {
        let mut proxy = Run::to(&tunnels).start().await;
        let mut caller = opens(&proxy).await;
        let start = Instant::now();
        proxy.terminate();
        refuses_connections(&proxy).await;
        caller.send("still here").await;
        let echoed = within(caller.wire.exactly(10)).await;
        assert_eq!(echoed.as_deref(), Some(&b"still here"[..]));
        exits(&mut proxy, start, DRAIN).await;
        caller.closed().await;
    };
    let call = async {
        let mut proxy = Run::to(&calls).start().await;
        let mut caller = proxy.connect().await;
        caller.send(request("GET", "/", &[], "")).await;
        calls.until(|record| record.requests.len() == 1).await;
        let start = Instant::now();
        proxy.terminate();
        exits(&mut proxy, start, DRAIN).await;
        // Nothing that could pass for an answer.
        caller.closed().await;
        calls.until(|record| record.closed == 1).await;
    };
    futures_util::future::join(tunnel, call).await;
}

/// A tunnel that ends in time is waited for, and no longer.
#[tokio::test]
async fn a_tunnel_may_end_by_itself() {
    let backend = switches();
    let mut proxy = Run::to(&backend).start().await;
    let mut caller = opens(&proxy).await;
    proxy.terminate();
    refuses_connections(&proxy).await;
    let start = Instant::now();
    caller.wire.shutdown().await;
    drop(caller);
    backend.until(|record| record.closed == 1).await;
    exits(&mut proxy, start, Duration::ZERO).await;
}
