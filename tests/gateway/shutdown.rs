//! SIGTERM: open requests finish, nothing new is accepted, and it never takes much more than five seconds.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::Instant;

use crate::backend::{Backend, json};
use crate::caller::request;
use crate::process::{Gateway, Run};
use crate::serving::Http2;
use crate::{NOISE, within};

const DRAIN: Duration = Duration::from_secs(5);

/// A backend that answers once it is allowed to.
fn gated() -> (Backend, tokio::sync::watch::Sender<bool>) {
    let (open, gate) = tokio::sync::watch::channel(false);
    let backend = Backend::new(move |mut peer| {
        let mut gate = gate.clone();
        async move {
            while peer.request().await.is_some() {
                if gate.wait_for(|open| *open).await.is_err() {
                    return;
                }
                peer.send(json("{}")).await;
            }
        }
    });
    (backend, open)
}

async fn gateway(backend: &Backend) -> Gateway {
    let run = Run::new().route("/x").branch("a", backend, "/");
    run.flag("timeout", "1h").start().await
}

async fn refuses_connections(gateway: &Gateway) {
    within(async {
        while TcpStream::connect(gateway.address).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

/// It exits with success, without waiting for anybody.
async fn exits_at_once(gateway: &mut Gateway, since: Instant) {
    assert_eq!(gateway.exited().await.code(), Some(0));
    let elapsed = since.elapsed();
    assert!(elapsed < NOISE, "{elapsed:?}");
}

#[tokio::test]
async fn an_idle_gateway_exits_at_once() {
    let backend = Backend::json("{}");
    let mut gateway = gateway(&backend).await;
    // A kept connection of each version, one that never said anything, and one that was left.
    let mut kept = gateway.connect().await;
    kept.get("/x").await.complete(r#"{"a":{}}"#);
    let http2 = Http2::connect(&gateway).await;
    http2.send("GET", "/x", &[], String::new()).await;
    let silent = gateway.connect().await;
    drop(gateway.connect().await);
    let start = Instant::now();
    gateway.terminate();
    exits_at_once(&mut gateway, start).await;
    kept.closed().await;
    silent.closed().await;
}

#[tokio::test]
async fn an_open_request_is_finished_and_a_new_one_refused() {
    let (backend, open) = gated();
    let mut gateway = gateway(&backend).await;
    let mut caller = gateway.connect().await;
    caller.send(request("GET", "/x", &[], "")).await;
    let http2 = Http2::connect(&gateway).await;
    let http2 = tokio::spawn(async move {
        let (head, body) = http2.send("GET", "/x", &[], String::new()).await;
        (head.status.as_u16(), body)
    });
    backend.until(|record| record.requests.len() == 2).await;

    gateway.terminate();
    refuses_connections(&gateway).await;
    open.send_replace(true);
    let start = Instant::now();
    let answer = caller.answer().await;
    answer.complete(r#"{"a":{}}"#);
    assert_eq!(answer.field("connection"), Some("close"));
    caller.closed().await;
    let (status, body) = http2.await.unwrap();
    assert_eq!((status, &body[..]), (200, &br#"{"a":{}}"#[..]));
    exits_at_once(&mut gateway, start).await;
}

/// The body is still on its way when the signal comes.
#[tokio::test]
async fn an_open_request_may_finish_its_body() {
    let backend = Backend::json("{}");
    let mut gateway = gateway(&backend).await;
    let mut caller = gateway.connect().await;
    caller
        .send(request("POST", "/x", &["Content-Length: 4"], ""))
        .await;
    backend.until(|record| record.requests.len() == 1).await;
    gateway.terminate();
    refuses_connections(&gateway).await;
    let start = Instant::now();
    caller.send("body").await;
    caller.answer().await.complete(r#"{"a":{}}"#);
    assert_eq!(backend.request().text(), "body");
    exits_at_once(&mut gateway, start).await;
}

#[tokio::test]
async fn a_request_that_hangs_is_given_five_seconds() {
    let backend = Backend::hangs();
    let mut gateway = gateway(&backend).await;
    let mut caller = gateway.connect().await;
    caller.send(request("GET", "/x", &[], "")).await;
    // Half a request counts for no more.
    let mut half = gateway.connect().await;
    half.send("GET /x HTTP/1.1\r\nHos").await;
    backend.until(|record| record.requests.len() == 1).await;

    let start = Instant::now();
    gateway.terminate();
    assert_eq!(gateway.exited().await.code(), Some(0));
    let elapsed = start.elapsed();
    assert!(elapsed >= DRAIN - Duration::from_millis(500), "{elapsed:?}");
    assert!(elapsed < DRAIN + NOISE, "{elapsed:?}");
    // Nothing that could pass for an answer.
    caller.closed().await;
    half.closed().await;
    backend.until(|record| record.closed == 1).await;
}

#[tokio::test]
async fn a_second_signal_changes_nothing() {
    let (backend, open) = gated();
    let mut gateway = gateway(&backend).await;
    let mut caller = gateway.connect().await;
    caller.send(request("GET", "/x", &[], "")).await;
    backend.until(|record| record.requests.len() == 1).await;
    gateway.terminate();
    refuses_connections(&gateway).await;
    gateway.terminate();
    open.send_replace(true);
    let start = Instant::now();
    caller.answer().await.complete(r#"{"a":{}}"#);
    exits_at_once(&mut gateway, start).await;
}
