//! Connections and ordinary requests, and what is said of them on standard error.

use super::front;
use crate::backend::{Backend, json};
use crate::caller::request;
use crate::wire::ask::{Ask, BOTH_PROTOCOLS};

// B21
#[tokio::test]
async fn a_caller_that_expects_100_is_told_to_go_on() {
    let backend = Backend::json("{}");
    let server = front(&backend).await;
    let mut caller = server.connect().await;
    let fields = ["Expect: 100-continue", "Content-Length: 4"];
    for _ in 0..2 {
        caller.send(request("POST", "/x/7", &fields, "")).await;
        assert_eq!(caller.answer().await.status, 100);
        caller.send("body").await;
        assert_eq!(caller.answer().await.text(), "{}");
        assert_eq!(backend.requests().pop().expect("a request").text(), "body");
    }
    // It need not wait.
    caller
        .send(request("POST", "/x/7", &fields[..1], "body"))
        .await;
    let mut answer = caller.answer().await;
    if answer.status == 100 {
        answer = caller.answer().await;
    }
    assert_eq!(answer.text(), "{}");
    assert_eq!(backend.requests().pop().expect("a request").text(), "body");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let backend = Backend::json("{}");
    let server = front(&backend).await;
    let mut caller = server.connect().await;
    let mut http2 = server.http2().await;
    for round in 0..20 {
        assert_eq!(caller.get("/x/7").await.text(), "{}");
        // An error of ours closes nothing either.
        caller.get("/x/%2e%2e").await.problem(400);
        let stream = 4 * round + 1;
        Ask::get("/x/7").send_over_http2(&mut http2, stream).await;
        assert_eq!(http2.heard(stream).await.answer().text(), "{}");
        let refused = Ask::get("/x/%2e%2e");
        refused.send_over_http2(&mut http2, stream + 2).await;
        http2.heard(stream + 2).await.answer().problem(400);
    }
    let record = backend.record();
    assert_eq!(record.requests.len(), 40);
    assert!(record.connections < 10, "{}", record.connections);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let echo = Backend::replies(|request| json(format!("{:?}", request.target)));
    let server = front(&echo).await;
    let mut caller = server.connect().await;
    let bytes: Vec<u8> = (0..10)
        .flat_map(|id| request("POST", &format!("/x/{id}"), &[], "body"))
        .collect();
    caller.send(bytes).await;
    for id in 0..10 {
        assert_eq!(caller.answer().await.text(), format!("\"/x/{id}\""));
    }
}

#[tokio::test]
async fn an_http_1_0_caller_is_answered_and_let_go() {
    let backend = Backend::answers(
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    );
    let server = front(&backend).await;
    let mut caller = server.connect().await;
    caller.send("GET /x/7 HTTP/1.0\r\n\r\n").await;
    let answer = caller.answer().await;
    assert_eq!(answer.text(), "{}");
    assert!(answer.head.start.starts_with("HTTP/1.0 "), "{answer:?}");
    assert_eq!(answer.field("transfer-encoding"), None);
    caller.closed().await;
}

/// Whatever protocol it may be going to speak.
#[tokio::test]
async fn a_caller_that_says_nothing_is_let_go() {
    let server = front(&Backend::json("{}")).await;
    let mut silent = Vec::new();
    for half in ["", "PRI * HTTP/2.0\r\n", "G", "GET /x/7 HTTP/1.1\r\nHos"] {
        let mut caller = server.connect().await;
        caller.send(half).await;
        silent.push(caller.closed());
    }
    futures_util::future::join_all(silent).await;
    assert_eq!(server.get("/x/7").await.text(), "{}");
}

/// Byte by byte, and with bare line feeds: hyper takes both (B18).
#[tokio::test]
async fn an_odd_but_clear_request_is_taken() {
    let backend = Backend::json("{}");
    let server = front(&backend).await;
    let mut caller = server.connect().await;
    for byte in request("POST", "/x/7", &["X-Long: value"], "body") {
        caller.send([byte]).await;
    }
    assert_eq!(caller.answer().await.text(), "{}");
    caller.send("\r\nGET /x/8 HTTP/1.1\nHost: g\n\n").await;
    assert_eq!(caller.answer().await.text(), "{}");
    let targets: Vec<String> = backend
        .requests()
        .into_iter()
        .map(|seen| seen.target)
        .collect();
    assert_eq!(targets, ["/x/7", "/x/8"]);
}

/// Nothing is said of a request that is answered, and of a failing backend no more than a line each time: nothing that the
/// backend said.
#[tokio::test]
async fn requests_leave_next_to_nothing_on_standard_error() {
    let malformed = "HTTP/1.1 200 OK\r\nContent-Length: +9\r\n\r\nUPSTREAM";
    for (backend, status) in [
        (Backend::json("{}"), 200),
        (Backend::closes_after(malformed), 502),
        (Backend::refuses(), 502),
    ] {
        let mut server = front(&backend).await;
        let asked = BOTH_PROTOCOLS.repeat(2);
        for protocol in &asked {
            let answer = server.ask(*protocol, &Ask::get("/x/7")).await;
            assert_eq!(answer.status, status);
        }
        server.terminate();
        assert_eq!(server.exited().await.code(), Some(0));
        let most = if status == 200 { 0 } else { asked.len() };
        let said = server.stderr();
        assert!(said.lines().count() <= most, "{said}");
        assert!(!said.contains("UPSTREAM"), "{said}");
    }
}
