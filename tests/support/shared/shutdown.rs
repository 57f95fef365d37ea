//! SIGTERM: open requests finish, nothing new is accepted, and it never takes much more than five seconds.

use std::time::Duration;

use tokio::time::Instant;

use super::front;
use crate::backend::{Backend, json};
use crate::caller::request;
use crate::wire::ask::Ask;
use crate::wire::process::DRAIN;

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

#[tokio::test]
async fn an_idle_server_exits_at_once() {
    let mut server = front(&Backend::json("{}")).await;
    // A kept connection of each version, one that never said anything, and one that was left.
    let mut kept = server.connect().await;
    assert_eq!(kept.get("/x/7").await.text(), "{}");
    let mut http2 = server.http2().await;
    Ask::get("/x/7").send_over_http2(&mut http2, 1).await;
    assert_eq!(http2.heard(1).await.answer().text(), "{}");
    let silent = server.connect().await;
    drop(server.connect().await);
    let start = Instant::now();
    server.terminate();
    http2.closed().await;
    server.exits_after(Duration::ZERO, start).await;
    kept.closed().await;
    silent.closed().await;
}

#[tokio::test]
async fn an_open_request_is_finished_and_a_new_one_refused() {
    let (backend, open) = gated();
    let mut server = front(&backend).await;
    let mut caller = server.connect().await;
    caller.send(request("GET", "/x/7", &[], "")).await;
    let mut http2 = server.http2().await;
    Ask::get("/x/8").send_over_http2(&mut http2, 1).await;
    backend.until(|record| record.requests.len() == 2).await;

    server.terminate();
    server.refuses_connections().await;
    open.send_replace(true);
    let start = Instant::now();
    let answer = caller.answer().await;
    assert_eq!(answer.text(), "{}");
    assert_eq!(answer.field("connection"), Some("close"));
    caller.closed().await;
    assert_eq!(http2.heard(1).await.answer().text(), "{}");
    http2.closed().await;
    server.exits_after(Duration::ZERO, start).await;
}

/// The body is still on its way when the signal comes.
#[tokio::test]
async fn an_open_request_may_finish_its_body() {
    let backend = Backend::json("{}");
    let mut server = front(&backend).await;
    let mut caller = server.connect().await;
    caller
        .send(request("POST", "/x/7", &["Content-Length: 4"], ""))
        .await;
    backend.until(|record| record.requests.len() == 1).await;
    server.terminate();
    server.refuses_connections().await;
    let start = Instant::now();
    caller.send("body").await;
    assert_eq!(caller.answer().await.text(), "{}");
    assert_eq!(backend.request().text(), "body");
    server.exits_after(Duration::ZERO, start).await;
}

#[tokio::test]
async fn a_request_that_hangs_is_given_five_seconds() {
    let backend = Backend::hangs();
    let mut server = front(&backend).await;
    let mut caller = server.connect().await;
    caller.send(request("GET", "/x/7", &[], "")).await;
    // Half a request counts for no more.
    let mut half = server.connect().await;
    half.send("GET /x/7 HTTP/1.1\r\nHos").await;
    backend.until(|record| record.requests.len() == 1).await;

    let start = Instant::now();
    server.terminate();
    server.exits_after(DRAIN, start).await;
    // Nothing that could pass for an answer.
    caller.closed().await;
    half.closed().await;
    backend.until(|record| record.closed == 1).await;
}

#[tokio::test]
async fn a_second_signal_changes_nothing() {
    let (backend, open) = gated();
    let mut server = front(&backend).await;
    let mut caller = server.connect().await;
    caller.send(request("GET", "/x/7", &[], "")).await;
    backend.until(|record| record.requests.len() == 1).await;
    server.terminate();
    server.refuses_connections().await;
    server.terminate();
    open.send_replace(true);
    let start = Instant::now();
    assert_eq!(caller.answer().await.text(), "{}");
    server.exits_after(Duration::ZERO, start).await;
}
