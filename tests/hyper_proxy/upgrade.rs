//! Changing the protocol: only if both ends want to, and only to a WebSocket.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::{Backend, answer, json};
use crate::caller::{Caller, request};
use crate::process::{Proxy, Run};
use crate::wire::ask::{Ask, BOTH_PROTOCOLS, Protocol};
use crate::{NOISE, within};

const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==";
const ASKS: [&str; 4] = [
    "Connection: keep-alive, Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    KEY,
];
const SWITCHES: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Switches, and sends back what it is sent.
pub(crate) fn switches() -> Backend {
    Backend::new(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.send(SWITCHES).await;
            while let Some(byte) = peer.wire.exactly(1).await {
                peer.send(byte).await;
            }
            peer.closed().await;
        }
    })
}

/// RFC 9110 §8.6: a 101 has no body, whatever the backend says.
#[tokio::test]
async fn a_101_has_no_length() {
    for field in [
        "Content-Length: 5",
        "Transfer-Encoding: chunked",
        "Content-Length: x",
    ] {
        let head = SWITCHES.replacen("\r\n", &format!("\r\n{field}\r\n"), 1);
        let backend = Backend::hangs_after(format!("{head}behind"));
        let proxy = Run::to(&backend).start().await;
        let mut caller = proxy.connect().await;
        caller.send(request("GET", "/", &ASKS, "")).await;
        let head = within(caller.wire.head()).await.expect("an answer");
        assert_eq!(head.framing(), None, "{field}");
        if head.start.contains("101") {
            assert_eq!(
                within(caller.wire.exactly(6)).await.as_deref(),
                Some(&b"behind"[..])
            );
        }
    }
}

/// B38: bytes that are sent before the 101 are the new protocol's, and the backend's to judge: no part of the request, and
/// no request.
#[tokio::test]
async fn what_is_sent_before_the_101_is_behind_it() {
    let backend = switches();
    let proxy = Run::to(&backend).start().await;
    let smuggled = request("GET", "/smuggled", &[], "");
    for cut in [0, 1, smuggled.len()] {
        let mut caller = proxy.connect().await;
        caller
            .send([&request("GET", "/", &ASKS, "")[..], &smuggled[..cut]].concat())
            .await;
        let head = within(caller.wire.head()).await.expect("an answer");
        assert!(head.start.starts_with("HTTP/1.1 101"), "{head:?}");
        caller.send(&smuggled[cut..]).await;
        let echoed = within(caller.wire.exactly(smuggled.len())).await;
        assert_eq!(echoed.as_ref(), Some(&smuggled));
    }
    for request in backend.requests() {
        assert_eq!(request.target, "/");
        assert_eq!(request.head.framing(), None);
    }
}

/// B38: and if the backend refuses, they are the next request, as they would have been without an upgrade; the backend has
/// seen nothing of them before.
#[tokio::test]
async fn what_is_sent_before_a_refusal_is_the_next_request() {
    let backend = Backend::replies(|request| match request.field("upgrade") {
        Some(_) => answer("403 Forbidden", &[], "no"),
        None => json("{}"),
    });
    let proxy = Run::to(&backend).start().await;
    let mut caller = proxy.connect().await;
    let upgrade = request("GET", "/", &ASKS, "");
    let next = request("GET", "/next", &["X-Next: 1"], "");
    caller.send([upgrade, next].concat()).await;
    let refusal = caller.answer_of_the_server().await;
    assert_eq!((refusal.status, refusal.text()), (403, "no"));
    let answer = caller.answer_of_the_server().await;
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    let requests = backend.requests();
    assert_eq!(requests.len(), 2);
    // Judged as any other.
    assert_eq!(requests[1].target, "/next");
    assert_eq!(requests[1].field("x-forwarded-for"), Some("127.0.0.1"));
}

/// The connections stay what they were.
#[tokio::test]
async fn a_backend_may_refuse() {
    for (status, fields) in [
        ("200 OK", &["Upgrade: websocket"][..]),
        (
            "403 Forbidden",
            &["Connection: Upgrade", "Upgrade: websocket"],
        ),
        (
            "426 Upgrade Required",
            &["Connection: Upgrade", "Upgrade: websocket"],
        ),
        (
            "426 Upgrade Required",
            &["Connection: Upgrade", "Upgrade: h2c, websocket, TLS/1.3"],
        ),
        (
            "426 Upgrade Required",
            &["Connection: Upgrade", "Upgrade: h2c"],
        ),
        ("503 Service Unavailable", &["Retry-After: 1"]),
    ] {
        let backend = Backend::answers(answer(status, fields, "no"));
        let proxy = Run::to(&backend).start().await;
        let mut caller = proxy.connect().await;
        for _ in 0..3 {
            caller.send(request("GET", "/", &ASKS, "")).await;
            let answer = caller.answer_of_the_server().await;
            assert_eq!(
                (answer.status.to_string().as_str(), answer.text()),
                (&status[..3], "no")
            );
            // Which protocol would do is told with a 426, and no other than may pass.
            let tells = status.starts_with("426") && fields[1].contains("websocket");
            let upgrade = answer.field("upgrade");
            assert_eq!(upgrade, tells.then_some("websocket"), "{fields:?}");
        }
        assert_eq!(backend.record().connections, 1);
    }
}

/// The caller would take what follows for the answer to its next request.
#[tokio::test]
async fn a_101_that_nobody_has_asked_for_is_a_502() {
    let secret = format!("{SWITCHES}UPSTREAM");
    for protocol in BOTH_PROTOCOLS {
        let backend = Backend::hangs_after(secret.clone());
        let proxy = Run::to(&backend).start().await;
        for method in ["GET", "POST"] {
            let answer = proxy.ask(protocol, &Ask::new(method, "/")).await;
            assert_eq!(answer.status, 502, "{answer:?}");
            answer.problem(502);
            assert_eq!(answer.field("upgrade"), None);
        }
        // Asked for in a way that is none.
        if protocol == Protocol::Http1 {
            for fields in [
                &["Upgrade: websocket", KEY][..],
                &["Connection: Upgrade", KEY],
                &["Connection: Upgrade", "Upgrade: h2c"],
                &["Connection: Upgrade", "Upgrade: xwebsocket, websocketx"],
                &["Connection: xUpgrade", "Upgrade: websocket"],
            ] {
                let bytes = request("GET", "/", fields, "");
                let answer = proxy.send(bytes).await;
                assert_eq!(answer.status, 502, "{fields:?}");
            }
        }
        for request in backend.requests() {
            assert_eq!(request.field("upgrade"), None);
        }
        backend
            .until(|record| record.closed == record.connections)
            .await;
    }
}

#[tokio::test]
async fn a_101_to_another_protocol_is_a_502() {
    for fields in [
        "Connection: Upgrade\r\nUpgrade: h2c",
        "Connection: Upgrade\r\nUpgrade: UPSTREAM",
        "Connection: Upgrade\r\nUpgrade: websocket, h2c",
        "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c",
        "Connection: Upgrade\r\nUpgrade: websocket/2",
        "Connection: Upgrade\r\nUpgrade: ",
        "Connection: Upgrade\r\nUpgrade: \u{e9}",
        "Connection: Upgrade",
        "X: y",
    ] {
        let bytes = format!("HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\nUPSTREAM");
        let backend = Backend::hangs_after(bytes);
        let proxy = Run::to(&backend).start().await;
        let answer = proxy.send(request("GET", "/", &ASKS, "")).await;
        assert_eq!(answer.status, 502, "{fields:?}: {answer:?}");
        assert_eq!(answer.field("upgrade"), None);
        backend.until(|record| record.closed == 1).await;
    }
}

// B10
#[tokio::test]
async fn no_other_protocol_is_asked_for() {
    let backend = Backend::json("{}");
    let proxy = Run::to(&backend).start().await;
    for (fields, asked) in [
        (
            &[
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c",
                "HTTP2-Settings: AAMAAABk",
            ][..],
            None,
        ),
        (&["Connection: Upgrade", "Upgrade: TLS/1.2"], None),
        (&["Connection: Upgrade", "Upgrade: connect-udp"], None),
        (
            &[
                "Connection: Upgrade, HTTP2-Settings",
                "Upgrade: h2c, WebSocket",
                "HTTP2-Settings: AAMAAABk",
            ],
            Some("WebSocket"),
        ),
        (
            &[
                "Connection: close",
                "Connection: x, UPGRADE",
                "Upgrade: h2c",
                "Upgrade: websocket",
            ],
            Some("websocket"),
        ),
        (
            &["Connection: Upgrade", "Upgrade: \u{e9}, websocket, \u{ff}"],
            Some("websocket"),
        ),
    ] {
        let bytes = request("GET", "/", fields, "");
        let bytes: Vec<u8> = String::from_utf8(bytes)
            .unwrap()
            .chars()
            .map(|char| char as u8)
            .collect();
        let answer = proxy.send(bytes).await;
        assert_eq!((answer.status, answer.text()), (200, "{}"));
        let request = backend.requests().pop().expect("a request");
        assert_eq!(request.field("upgrade"), asked, "{fields:?}");
        assert_eq!(request.field("http2-settings"), None);
    }
}

/// A stream of HTTP/2 can't become another protocol (RFC 9113 §8.6), nor can HTTP/1.0 (RFC 9110 §7.8).
#[tokio::test]
async fn only_http_1_1_can_change() {
    let backend = switches();
    let proxy = Run::to(&backend).start().await;
    let bytes = "GET / HTTP/1.0\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    proxy.send(bytes).await.problem(502);
    assert_eq!(backend.request().field("upgrade"), None);
    // Over HTTP/2 the fields are malformed: see the tests of its frames. By RFC 8441 nobody has been offered it.
    let ask = Ask::get("/").field("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==");
    let answer = proxy.ask(Protocol::Http2, &ask).await;
    answer.problem(502);
    for request in backend.requests() {
        assert_eq!(request.field("upgrade"), None);
    }
}

/// In the middle of a message the protocol can't change (RFC 9110 §7.8): the rest of the body would be the new one's.
#[tokio::test]
async fn a_request_with_a_body_asks_for_no_upgrade() {
    let backend = Backend::json("{}");
    let proxy = Run::to(&backend).start().await;
    let answer = proxy.send(request("POST", "/", &ASKS, "body")).await;
    assert_eq!(answer.status, 200);
    let sent = backend.request();
    assert_eq!(sent.text(), "body");
    assert_eq!(sent.field("upgrade"), None);
    // A backend that changes it all the same is not believed, and nothing of the body gets through the tunnel.
    let backend = Backend::new(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.send(SWITCHES).await;
            peer.closed().await;
        }
    });
    let proxy = Run::to(&backend).start().await;
    let fields = [&ASKS[..], &["Content-Length: 100"]].concat();
    let bytes = request("POST", "/", &fields, "")
        .into_iter()
        .chain(*b"body");
    let mut caller = proxy.connect().await;
    caller.send(bytes.collect::<Vec<_>>()).await;
    caller.answer().await.problem(502);
}

/// A tunnel, as its client has it.
pub(crate) async fn opens(proxy: &Proxy) -> Caller {
    let mut caller = proxy.connect().await;
    caller.send(request("GET", "/", &ASKS, "")).await;
    let head = within(caller.wire.head()).await.expect("an answer");
    assert!(head.start.starts_with("HTTP/1.1 101"), "{head:?}");
    caller
}

/// One direction may end before the other.
#[tokio::test]
async fn half_of_a_connection_may_be_closed() {
    let backend = Backend::new(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.send(SWITCHES).await;
            let all = peer.wire.rest().await;
            peer.send(format!("{} in all", all.len())).await;
            peer.finish().await;
        }
    });
    let proxy = Run::to(&backend).start().await;
    let mut caller = opens(&proxy).await;
    caller.send("all of it").await;
    caller.wire.shutdown().await;
    let rest = within(caller.wire.rest()).await;
    assert_eq!(String::from_utf8_lossy(&rest), "9 in all");

    // And the other way round.
    let backend = Backend::new(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.send(format!("{SWITCHES}all of it")).await;
            peer.wire.shutdown().await;
            assert_eq!(peer.wire.rest().await, b"9 in all");
            peer.closed().await;
        }
    });
    let proxy = Run::to(&backend).start().await;
    let mut caller = opens(&proxy).await;
    let rest = within(caller.wire.rest()).await;
    assert_eq!(String::from_utf8_lossy(&rest), "all of it");
    caller.send("9 in all").await;
    caller.wire.shutdown().await;
    backend.until(|record| record.closed == 1).await;
}

/// But not for ever: who says nothing more may be gone, and his tunnel with him.
#[tokio::test]
async fn the_other_half_is_closed_in_time() {
    const HALF_OPEN: Duration = Duration::from_secs(10);
    let in_time = |since: Instant| {
        let elapsed = since.elapsed();
        assert!(elapsed > HALF_OPEN - NOISE, "{elapsed:?}");
        assert!(elapsed < HALF_OPEN + NOISE, "{elapsed:?}");
    };
    let client_ends = async {
        // Neither writes nor closes.
        let backend = Backend::new(|mut peer| async move {
            if peer.head().await.is_some() {
                peer.send(SWITCHES).await;
                peer.wire.rest().await;
                std::future::pending::<()>().await;
            }
        });
        let proxy = Run::to(&backend).start().await;
        let mut caller = opens(&proxy).await;
        let start = Instant::now();
        caller.wire.shutdown().await;
        caller.closed().await;
        in_time(start);
    };
    let backend_ends = async {
        let backend = Backend::new(|mut peer| async move {
            if peer.head().await.is_some() {
                peer.send(SWITCHES).await;
                peer.finish().await;
            }
        });
        let proxy = Run::to(&backend).start().await;
        let mut caller = opens(&proxy).await;
        let start = Instant::now();
        assert_eq!(within(caller.wire.rest()).await, b"");
        assert!(start.elapsed() < NOISE);
        backend.until(|record| record.closed == 1).await;
        in_time(start);
    };
    futures_util::future::join(client_ends, backend_ends).await;
}

/// B38: nothing of them has gone to the backend by then.
#[tokio::test]
async fn what_is_sent_before_the_101_waits_for_it() {
    let (read, mut reads) = watch::channel(Vec::new());
    let backend = Backend::new(move |mut peer| {
        let read = read.clone();
        async move {
            if peer.head().await.is_some() {
                let fields = ["Connection: close"];
                peer.send(answer("403 Forbidden", &fields, "no")).await;
                let rest = peer.wire.rest().await;
                read.send_modify(|all| all.push(rest));
            }
        }
    });
    let proxy = Run::to(&backend).start().await;
    let mut caller = proxy.connect().await;
    let upgrade = request("GET", "/", &ASKS, "");
    caller
        .send([&upgrade[..], b"\0\x01 not HTTP at all"].concat())
        .await;
    let refusal = caller.answer_of_the_server().await;
    assert_eq!((refusal.status, refusal.text()), (403, "no"));
    let read = within(reads.wait_for(|all| !all.is_empty())).await.unwrap();
    assert_eq!(*read, [b""]);
}
