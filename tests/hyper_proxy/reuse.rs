//! Connections to a backend that are used again: what is left on one is never somebody's answer.

use tokio::sync::watch;

use crate::backend::{Backend, answer, json};
use crate::caller::{Answer, request};
use crate::process::{Proxy, Run};
use crate::wire::ask::{Ask, BOTH_PROTOCOLS, Protocol};
use crate::within;

async fn proxy(backend: &Backend) -> Proxy {
    Run::to(backend).start().await
}

// B24
#[tokio::test]
async fn a_body_where_none_can_be_is_nobody_s() {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nUPSTREAM";
    for (head, status) in [
        ("HTTP/1.1 204 No Content\r\nContent-Length: 46\r\n\r\n", 204),
        (
            "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
            204,
        ),
        ("HTTP/1.1 204 No Content\r\n\r\n", 204),
        (
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 46\r\n\r\n",
            304,
        ),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", 304),
        (
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            205,
        ),
    ] {
        for body in ["", smuggled] {
            let backend = Backend::answers(format!("{head}{body}"));
            let proxy = proxy(&backend).await;
            let mut caller = proxy.connect().await;
            for protocol in BOTH_PROTOCOLS.repeat(3) {
                let answer = match protocol {
                    // All on one connection.
                    Protocol::Http1 => caller.ask(&Ask::get("/")).await,
                    Protocol::Http2 => proxy.ask(protocol, &Ask::get("/")).await,
                };
                is_this_or_502(&answer, status, b"");
                if status == 204 {
                    // RFC 9110 §8.6, RFC 9112 §6.1.
                    assert_eq!(answer.field("content-length"), None, "{answer:?}");
                }
                assert_eq!(answer.field("transfer-encoding"), None, "{answer:?}");
            }
        }
    }
}

/// A connection that is given up may take the next request with it, never answer it wrongly.
#[track_caller]
fn is_this_or_502(answer: &Answer, status: u16, body: &[u8]) {
    if answer.status == 502 {
        answer.problem(502);
    } else {
        assert_eq!((answer.status, &*answer.body), (status, body));
    }
}

// B24
#[tokio::test]
async fn an_answer_to_head_has_no_body() {
    for (bytes, length) in [
        (json("\"UPSTREAM\""), Some("10")),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n".to_vec(),
            Some("10"),
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            None,
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nUPSTREAM\r\n0\r\n\r\n"
                .to_vec(),
            None,
        ),
    ] {
        let backend = Backend::answers(bytes);
        let proxy = proxy(&backend).await;
        let head = Ask::new("HEAD", "/");
        let mut caller = proxy.connect().await;
        let mut http2 = proxy.http2().await;
        for round in 0..5 {
            caller.send(head.http1().0).await;
            let answer = caller.answer_to_head().await;
            if answer.status != 502 {
                assert_eq!(answer.field("content-length"), length);
            }
            let stream = 2 * round + 1;
            head.send_over_http2(&mut http2, stream).await;
            let answer = http2.heard(stream).await.answer();
            if answer.status != 502 {
                assert_eq!(answer.field("content-length"), length);
            }
            assert_eq!(answer.body, b"");
        }
    }
}

/// B28: bytes behind an answer are never the next answer.
#[tokio::test]
async fn what_comes_behind_an_answer_is_no_answer() {
    let smuggled = answer(
        "200 OK",
        &["Content-Type: application/json"],
        "\"UPSTREAM\"",
    );
    for real in [
        json("{}"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\n{}".to_vec(),
    ] {
        let backend = Backend::answers([real, smuggled.clone()].concat());
        let proxy = proxy(&backend).await;
        let mut caller = proxy.connect().await;
        let mut answered = 0;
        for protocol in BOTH_PROTOCOLS.repeat(10) {
            let answer = match protocol {
                Protocol::Http1 => caller.ask(&Ask::get("/")).await,
                Protocol::Http2 => proxy.ask(protocol, &Ask::get("/")).await,
            };
            answered += usize::from(answer.status == 200);
            is_this_or_502(&answer, 200, b"{}");
        }
        // Each on a connection of its own: none was taken again.
        let record = backend.record();
        assert!(answered > 0);
        assert!(
            record.connections >= answered,
            "{answered} {}",
            record.connections
        );
    }
}

/// B28: an answer that nobody has asked for yet.
#[tokio::test]
async fn what_comes_before_a_request_is_no_answer() {
    let (sent, mut sends) = watch::channel(0);
    let backend = Backend::new(move |mut peer| {
        let sent = sent.clone();
        async move {
            while peer.request().await.is_some() {
                peer.send(json("{}")).await;
                peer.send(json("\"UPSTREAM\"")).await;
                sent.send_modify(|count| *count += 1);
            }
        }
    });
    let proxy = proxy(&backend).await;
    for protocol in BOTH_PROTOCOLS.repeat(10) {
        let answer = proxy.ask(protocol, &Ask::get("/")).await;
        is_this_or_502(&answer, 200, b"{}");
        // It is there before the next request is: which of two came first on the wire, nobody could tell.
        let asked = backend.requests().len();
        within(sends.wait_for(|count| *count == asked))
            .await
            .unwrap();
    }
}

/// B37: a connection on which the backend has not read the request is not used for the next one.
#[tokio::test]
async fn an_unread_request_is_not_the_next_one() {
    let (read, mut reads) = watch::channel(Vec::new());
    let early = Backend::new(move |mut peer| {
        let read = read.clone();
        async move {
            while let Some((request, _)) = peer.head().await {
                peer.send(json("{}")).await;
                if request.method == "POST" {
                    let rest = peer.wire.rest().await;
                    read.send_modify(|seen| seen.push(rest));
                    return;
                }
            }
        }
    });
    let proxy = proxy(&early).await;
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let mut caller = proxy.connect().await;
        let head = request("POST", "/", &[framing], "");
        caller.send(head).await;
        assert_eq!(caller.answer_of_the_server().await.text(), "{}");
        // The caller has not ended its body, and others ask.
        for protocol in BOTH_PROTOCOLS.repeat(5) {
            let answer = proxy.ask(protocol, &Ask::get("/other")).await;
            assert_eq!(answer.text(), "{}");
        }
        drop(caller);
    }
    drop(proxy);
    let all = within(reads.wait_for(|seen| seen.len() == 2)).await;
    for rest in &*all.unwrap() {
        assert_eq!(String::from_utf8_lossy(rest), "");
    }
}
