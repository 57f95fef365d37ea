//! B16: the methods and targets that are about a proxy itself.

use super::{Ask, BOTH_PROTOCOLS, Protocol, Rig};

#[tokio::test]
async fn nobody_gets_a_tunnel() {
    let rig = Rig::new().await;
    let own = rig.backend.address();
    for target in [own.to_string(), "evil.test:443".to_owned()] {
        let bytes = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        rig.server.send(bytes).await.problem(501);
        let mut http2 = rig.server.http2().await;
        let fields = [(":method", "CONNECT"), (":authority", &target)];
        http2.headers(1, &fields, false).await;
        let answer = http2.heard(1).await.answer();
        answer.problem(501);
    }
    assert_eq!(rig.backend.record().connections, 0);
}

#[tokio::test]
async fn nobody_is_told_what_was_sent() {
    let rig = Rig::new().await;
    for protocol in BOTH_PROTOCOLS {
        for ask in [
            Ask::new("TRACE", "/x/7"),
            Ask::new("TRACE", "/x/7").field("Max-Forwards", "0"),
            Ask::new("TRACE", "/x/7").field("Authorization", "Bearer token"),
            Ask::new("TRACE", "/x/7").body("body"),
        ] {
            rig.refuses(protocol, &ask, 501).await;
        }
    }
    assert_eq!(rig.backend.record().connections, 0);
}

#[tokio::test]
async fn an_asterisk_is_for_options_only() {
    let rig = Rig::new().await;
    for protocol in BOTH_PROTOCOLS {
        rig.refuses(protocol, &Ask::new("OPTIONS", "*"), 204).await;
        for method in ["GET", "HEAD", "POST", "DELETE", "PROPFIND"] {
            if (protocol, method) == (Protocol::Http1, "HEAD") {
                continue; // No body to read.
            }
            let ask = Ask::new(method, "*");
            let answer = rig.server.ask(protocol, &ask).await;
            assert_eq!(answer.status, 400, "{protocol:?}: {ask:?}");
        }
    }
    assert_eq!(rig.backend.record().connections, 0);
}

// B24
#[tokio::test]
async fn an_answer_to_head_has_no_content() {
    let rig = Rig::new().await;
    let mut caller = rig.server.connect().await;
    let mut http2 = rig.server.http2().await;
    // Refused by the layers within, and by the outermost.
    for (round, target) in [(0, "/x/%2e%2e"), (1, "/x/a%2f..%2f..%2fb"), (2, "*")] {
        let head = Ask::new("HEAD", target);
        caller.send(head.http1().0).await;
        assert_eq!(caller.answer_to_head().await.status, 400, "{target}");
        let stream = 2 * round + 1;
        head.send_over_http2(&mut http2, stream).await;
        let answer = http2.heard(stream).await.answer();
        assert_eq!((answer.status, &*answer.body), (400, &b""[..]), "{target}");
    }
    // Nothing of a body came, or this would not be the next answer.
    assert_eq!(caller.ask(&Ask::get("/x/7")).await.text(), "{}");
}

#[tokio::test]
async fn max_forwards_is_counted_down() {
    let rig = Rig::new().await;
    for protocol in BOTH_PROTOCOLS {
        let options = |value: &str| Ask::new("OPTIONS", "/x/7").field("Max-Forwards", value);
        for (value, left) in [
            ("1", "0"),
            ("10", "9"),
            ("007", "6"),
            ("4294967296", "4294967294"),
            ("99999999999999999999999999", "4294967294"),
        ] {
            let request = rig.passes(protocol, &options(value)).await;
            assert_eq!(request.field("max-forwards"), Some(left));
        }
        rig.refuses(protocol, &options("0"), 204).await;
        for value in ["-1", "+1", "1.5", "x", "0x1", "1, 1", "1 1", ""] {
            rig.refuses(protocol, &options(value), 400).await;
        }
        let twice = options("5").field("Max-Forwards", "5");
        rig.refuses(protocol, &twice, 400).await;
        let bytes = Ask::new("OPTIONS", "/x/7").field("Max-Forwards", b"\xff");
        rig.refuses(protocol, &bytes, 400).await;
        // Of no other method.
        let ask = Ask::get("/x/7").field("Max-Forwards", "0");
        let request = rig.passes(protocol, &ask).await;
        assert_eq!(request.field("max-forwards"), Some("0"));
    }
}

/// The target of a request is a path, whatever the method: hyper or we say so.
#[tokio::test]
async fn what_is_no_target_is_refused() {
    let rig = Rig::new().await;
    for target in [
        "evil.test/x/7",
        "x/7",
        "?x",
        "",
        "x/7 /x/8",
        "http://",
        "http:///x/7",
        "/x/\x7f",
        "/x/\0",
    ] {
        let bytes = format!("GET {target} HTTP/1.1\r\nHost: g\r\n\r\n");
        rig.refuses_bytes(bytes, 400).await;
    }
    // The form of CONNECT.
    rig.refuses_bytes(
        "GET evil.test:80 HTTP/1.1\r\nHost: evil.test:80\r\n\r\n",
        400,
    )
    .await;
    rig.refuses_bytes("GET evil.test HTTP/1.1\r\nHost: evil.test\r\n\r\n", 400)
        .await;
}
