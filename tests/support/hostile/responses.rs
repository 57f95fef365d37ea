//! What a backend can't make a proxy say.

use super::{Ask, BOTH_PROTOCOLS, Protocol};
use crate::backend::{Backend, answer};

// B29
#[tokio::test]
async fn fields_of_the_backend_s_connection_go_no_further() {
    let fields = [
        "Connection: X-One, close",
        "Connection: x-two ,, keep-alive, content-type, set-cookie, cache-control",
        "X-One: UPSTREAM",
        "X-Two: UPSTREAM",
        "X-Two: UPSTREAM",
        "Keep-Alive: timeout=5",
        "Proxy-Authenticate: Basic",
        "Proxy-Connection: keep-alive",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
        "TE: trailers",
        "Set-Cookie: a=1; HttpOnly",
        "Set-Cookie: b=2",
        "Cache-Control: private",
        "Content-Type: text/x",
        "Server: backend",
        "X-Three: 3",
    ];
    let backend = Backend::closes_after(answer("200 OK", &fields, "{}"));
    let server = crate::front(&backend, 0).await;
    for protocol in BOTH_PROTOCOLS {
        let answer = server.ask(protocol, &Ask::get("/x/7")).await;
        assert_eq!(answer.status, 200);
        for name in [
            "connection",
            "http2-settings",
            "keep-alive",
            "proxy-authenticate",
            "proxy-connection",
            "te",
            "upgrade",
            "x-one",
            "x-two",
        ] {
            assert_eq!(answer.head.fields.all(name), [""; 0], "{protocol:?}");
        }
        let cookies = answer.head.fields.all("set-cookie");
        assert_eq!(cookies, ["a=1; HttpOnly", "b=2"]);
        for (name, value) in [
            ("cache-control", "private"),
            ("content-type", "text/x"),
            ("server", "backend"),
            ("x-three", "3"),
        ] {
            assert_eq!(answer.field(name), Some(value));
        }
    }
}

/// A length beside chunks is dropped: a caller must not cut by it.
#[tokio::test]
async fn a_length_beside_chunks_reaches_no_caller() {
    for fields in [
        "Content-Length: 3\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 3",
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\nContent-Length: 4",
    ] {
        let bytes = format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n7\r\nchunked\r\n0\r\n\r\n");
        let backend = Backend::answers(bytes);
        let server = crate::front(&backend, 0).await;
        for protocol in BOTH_PROTOCOLS.repeat(2) {
            let answer = server.ask(protocol, &Ask::get("/x/7")).await;
            if answer.status == 502 {
                answer.problem(502);
                continue;
            }
            assert_eq!((answer.status, answer.text()), (200, "chunked"));
            // Who has collected the body knows how long it is.
            assert!([None, Some("7")].contains(&answer.field("content-length")));
        }
    }
}

/// How a backend speaks is between it and us.
#[tokio::test]
async fn an_old_backend_is_answered_for_in_our_version() {
    for answer in [
        "HTTP/1.0 200 OK\r\n\r\n{}",
        "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}",
    ] {
        let backend = Backend::closes_after(answer);
        let server = crate::front(&backend, 0).await;
        let mut caller = server.connect().await;
        for _ in 0..3 {
            let answer = caller.ask(&Ask::get("/x/7")).await;
            assert_eq!(answer.head.start, "HTTP/1.1 200 OK");
            assert_eq!(answer.text(), "{}");
        }
    }
}

// B24
#[tokio::test]
async fn a_205_has_no_content() {
    let backend = Backend::answers(answer("205 Reset Content", &[], "EVIL"));
    let server = crate::front(&backend, 0).await;
    for protocol in BOTH_PROTOCOLS {
        let answer = server.ask(protocol, &Ask::get("/x/7")).await;
        assert_eq!((answer.status, answer.text()), (205, ""));
        assert_ne!(answer.field("content-length"), Some("4"));
    }
}

// B24
#[tokio::test]
async fn a_204_has_no_length() {
    let bytes = "HTTP/1.1 204 No Content\r\nContent-Length: 46\r\n\r\n";
    let backend = Backend::closes_after(bytes);
    let server = crate::front(&backend, 0).await;
    for protocol in BOTH_PROTOCOLS {
        let answer = server.ask(protocol, &Ask::get("/x/7")).await;
        assert_eq!((answer.status, answer.field("content-length")), (204, None));
    }
}

/// B26: of several equal lengths one is passed on; what is none is no answer, also where there is no content to cut by it, and
/// what was asked for behind it is answered.
#[tokio::test]
async fn a_length_is_one_or_the_answer_is_none() {
    for (lengths, is_one) in [
        ("Content-Length: 4", true),
        ("Content-Length: 4\r\nContent-Length: 4", true),
        ("Content-Length: 4, 4", true),
        ("Content-Length: 4,4", true),
        ("Content-Length: 4 , 4", true),
        ("Content-Length: 4\r\nContent-Length: 5", false),
        ("Content-Length: 4, 5", false),
        ("Content-Length: , 4", false),
        ("Content-Length: ", false),
        ("Content-Length: abc", false),
        ("Content-Length: +4", false),
        ("Content-Length: 0x4", false),
    ] {
        let backend = Backend::replies(move |request| {
            let content = if request.method == "HEAD" { "" } else { "true" };
            let kind = "Content-Type: application/json";
            format!("HTTP/1.1 200 OK\r\n{kind}\r\n{lengths}\r\n\r\n{content}").into_bytes()
        });
        let server = crate::front(&backend, 0).await;
        let (head, get) = (Ask::new("HEAD", "/x/7"), Ask::get("/x/7"));
        let status = if is_one { 200 } else { 502 };
        for _ in 0..2 {
            let mut caller = server.connect().await;
            caller.send([head.http1().0, get.http1().0].concat()).await;
            for answer in [
                caller.answer_to_head().await,
                server.ask(Protocol::Http2, &head).await,
            ] {
                assert_eq!(answer.status, status, "{lengths}: {answer:?}");
                assert!(!is_one || answer.field("content-length") == Some("4"));
            }
            for answer in [
                caller.answer().await,
                server.ask(Protocol::Http2, &get).await,
            ] {
                match is_one {
                    true => assert_eq!((answer.status, answer.text()), (200, "true")),
                    false => _ = answer.problem(502),
                }
                assert!(!is_one || answer.field("content-length") == Some("4"));
            }
        }
    }
}
