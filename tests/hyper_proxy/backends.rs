//! Backends that lie, stop in the middle, or say too much.

use std::time::Duration;

use tokio::time::Instant;

use crate::backend::{Backend, SECRET, answer, json};
use crate::caller::{chunk, request};
use crate::hostile::answers::*;
use crate::process::{Proxy, Run};
use crate::wire::ask::{Ask, BOTH_PROTOCOLS, Protocol};
use crate::{NOISE, within};

async fn proxy(backend: &Backend) -> Proxy {
    Run::to(backend).start().await
}

/// The body of an answer, as far as it has come, and whether it is whole.
async fn body(proxy: &Proxy, protocol: Protocol, ask: &Ask) -> (Vec<u8>, bool) {
    match protocol {
        Protocol::Http1 => {
            let mut caller = proxy.connect().await;
            caller.send(ask.http1().0).await;
            // What goes wrong at once may leave not even a head.
            let Some(head) = within(caller.wire.head()).await else {
                return (Vec::new(), false);
            };
            assert!(head.start.starts_with("HTTP/1.1 200"), "{head:?}");
            let framing = head.framing().expect("an end that shows");
            let body = within(caller.wire.body(framing)).await;
            (body.bytes, body.whole)
        }
        Protocol::Http2 => {
            let mut http2 = proxy.http2().await;
            http2.headers(1, &ask.http2(), true).await;
            let Ok((head, mut whole)) = http2.head(1).await else {
                return (Vec::new(), false);
            };
            assert_eq!(head.fields.get(":status"), Some("200"));
            let mut bytes = Vec::new();
            while !whole {
                let Some((piece, ended)) = http2.chunk(1).await else {
                    break;
                };
                bytes.extend(piece);
                whole = ended;
            }
            (bytes, whole)
        }
    }
}

/// The proxy answers in the backend's place, and says nothing of it.
async fn fails(name: &str, backend: &Backend, status: u16) {
    let proxy = Run::to(backend)
        .flag("timeout-ms", if status == 504 { "200" } else { "20000" })
        .start()
        .await;
    for protocol in BOTH_PROTOCOLS {
        for method in ["GET", "POST"] {
            let answer = proxy.ask(protocol, &Ask::new(method, "/")).await;
            assert_eq!(answer.status, status, "{name}: {answer:?}");
            answer.problem(status);
            let head = format!("{:?}", answer.head);
            assert!(!head.contains(SECRET), "{name}: {head}");
        }
    }
}

// B26, B36
#[tokio::test]
async fn a_malformed_head_is_a_502() {
    for head in MALFORMED_FIELDS {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nUPSTREAM");
        fails(head, &Backend::closes_after(bytes), 502).await;
    }
    for start in MALFORMED_STARTS {
        let bytes = format!("{start}\r\nContent-Length: 2\r\n\r\n{{}}");
        fails(start, &Backend::closes_after(bytes), 502).await;
    }
    for bytes in OTHER_PROTOCOLS {
        fails("another protocol", &Backend::closes_after(bytes), 502).await;
    }
}

// B27, B36
#[tokio::test]
async fn half_a_head_is_a_502() {
    for bytes in CUT_HEADS {
        fails(bytes, &Backend::closes_after(bytes), 502).await;
    }
    fails("nobody there", &Backend::refuses(), 502).await;
    let resets = Backend::new(|peer| async move { drop(peer) });
    fails("gone at once", &resets, 502).await;
}

// B36
#[tokio::test]
async fn a_backend_that_does_not_answer_is_a_504() {
    for half in [
        "",
        "H",
        "HTTP/1.1 200 OK\r\nX: y\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n",
    ] {
        let backend = Backend::hangs_after(half);
        fails(half, &backend, 504).await;
        // And is left alone.
        backend.until(|record| record.closed == 4).await;
    }
}

/// The time is for the head. What it ends, it ends in time.
#[tokio::test]
async fn a_drip_is_no_head() {
    let drip = Backend::new(|mut peer| async move {
        if peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\n").await;
            let mut paces = tokio::time::interval(Duration::from_millis(20));
            while peer.send("X-Drip: UPSTREAM\r\n").await {
                paces.tick().await;
            }
            peer.finish().await;
        }
    });
    let proxy = Run::to(&drip).flag("timeout-ms", "300").start().await;
    for protocol in BOTH_PROTOCOLS {
        let start = Instant::now();
        let answer = proxy.ask(protocol, &Ask::get("/")).await;
        answer.problem(504);
        let elapsed = start.elapsed();
        assert!(elapsed >= Duration::from_millis(300), "{elapsed:?}");
        assert!(elapsed < Duration::from_millis(300) + NOISE, "{elapsed:?}");
    }
    drip.until(|record| record.closed == 2).await;
}

/// A body may take as long as it likes.
#[tokio::test]
async fn a_slow_body_is_no_late_answer() {
    let slow = Backend::new(|mut peer| async move {
        if peer.request().await.is_some() {
            let mut paces = tokio::time::interval(Duration::from_millis(100));
            for piece in [
                "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n",
                "s",
                "l",
                "o",
                "w",
            ] {
                paces.tick().await;
                peer.send(piece).await;
            }
            peer.closed().await;
        }
    });
    let proxy = Run::to(&slow).flag("timeout-ms", "250").start().await;
    for protocol in BOTH_PROTOCOLS {
        // The time is too short for the body, and on a busy machine now and then for the head.
        let answer = within(async {
            loop {
                let answer = proxy.ask(protocol, &Ask::get("/")).await;
                if answer.status != 504 {
                    return answer;
                }
            }
        });
        let answer = answer.await;
        assert_eq!((answer.status, answer.text()), (200, "slow"));
    }
}

/// B27: what has begun can't become a 502; nor does it seem to have ended.
#[tokio::test]
async fn an_answer_that_is_cut_short_is_cut_short() {
    for answer in CUT_BODIES {
        let backend = Backend::closes_after(answer);
        let proxy = proxy(&backend).await;
        for protocol in BOTH_PROTOCOLS {
            let (bytes, whole) = body(&proxy, protocol, &Ask::get("/")).await;
            assert!(!whole, "{protocol:?}: {answer}");
            assert!(b"{}UPSTREAM".starts_with(&bytes), "{answer}: {bytes:?}");
        }
    }
}

/// hyper undoes the chunks and no other coding: nobody could tell what the rest is.
#[tokio::test]
async fn an_answer_in_another_coding_is_a_502() {
    for coding in [
        "gzip, chunked",
        "chunked, chunked",
        "gzip",
        "UPSTREAM, chunked",
    ] {
        let bytes = format!(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n8\r\nUPSTREAM\r\n0\r\n\r\n"
        );
        fails(coding, &Backend::closes_after(bytes), 502).await;
    }
}

/// B20, B27: nor does what would never end become an end.
#[tokio::test]
async fn what_is_around_a_body_is_bounded() {
    let head =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Trailer\r\n\r\n2\r\n{}\r\n";
    for flood in [
        format!("0\r\n{}\r\n", "X-Trailer: UPSTREAM\r\n".repeat(10_000)),
        format!("0\r\nX-Trailer: {}\r\n\r\n", "UPSTREAM".repeat(1 << 17)),
        format!("0;{}\r\n\r\n", "UPSTREAM".repeat(1 << 17)),
        format!(
            "{}0\r\n\r\n",
            format!("1;{}\r\n \r\n", "UPSTREAM".repeat(10)).repeat(10_000)
        ),
    ] {
        let backend = Backend::closes_after(format!("{head}{flood}"));
        let proxy = proxy(&backend).await;
        for protocol in BOTH_PROTOCOLS {
            let ask = Ask::get("/").field("TE", "trailers");
            let (_, whole) = body(&proxy, protocol, &ask).await;
            assert!(!whole, "{protocol:?}: {}", &flood[..20]);
        }
    }
}

/// A backend may have had enough while it is still being asked.
#[tokio::test]
async fn an_upload_fails_as_anything_else() {
    let gone = Backend::new(|mut peer| async move {
        // Closes with what it has not read: that is a reset.
        peer.head().await;
    });
    let hangs = Backend::new(|mut peer| async move {
        peer.head().await;
        peer.closed().await;
    });
    for (backend, status) in [(gone, 502), (hangs, 504)] {
        let proxy = Run::to(&backend)
            .flag("timeout-ms", if status == 504 { "300" } else { "20000" })
            .start()
            .await;
        let mut caller = proxy.connect().await;
        let head = request("POST", "/", &["Transfer-Encoding: chunked"], "");
        caller.send([head, chunk(b"half")].concat()).await;
        caller.answer().await.problem(status);
        // What follows is nobody's request.
        caller.send(request("GET", "/smuggled", &[], "")).await;
        caller.closed().await;

        let mut http2 = proxy.http2().await;
        http2
            .headers(1, &Ask::new("POST", "/").http2(), false)
            .await;
        http2.data(1, b"half", false).await;
        http2.heard(1).await.answer().problem(status);
        // Only the stream is over.
        Ask::new("OPTIONS", "*")
            .send_over_http2(&mut http2, 3)
            .await;
        assert_eq!(http2.heard(3).await.answer().status, 204);
        for request in backend.requests() {
            assert_eq!(request.target, "/");
        }
    }
}

/// The time that a request takes to come counts, and nobody is blamed for it.
#[tokio::test]
async fn a_slow_upload_is_a_504() {
    let backend = Backend::json("{}");
    let proxy = Run::to(&backend).flag("timeout-ms", "300").start().await;
    let mut caller = proxy.connect().await;
    let head = request("POST", "/", &["Content-Length: 4"], "");
    caller.send([&head[..], b"bod"].concat()).await;
    let problem = caller.answer().await.problem(504);
    assert_eq!(problem["detail"], "there was no response in time");
    backend.until(|record| record.closed == 1).await;
    assert!(!backend.request().body.whole);
}

/// An answer without a length ends when the backend closes; a caller sees it end.
#[tokio::test]
async fn an_answer_until_the_backend_closes_is_whole() {
    let backend = Backend::closes_after("HTTP/1.1 200 OK\r\n\r\nall of it");
    let old = Backend::closes_after("HTTP/1.0 200 OK\r\n\r\nall of it");
    for backend in [backend, old] {
        let proxy = proxy(&backend).await;
        for protocol in BOTH_PROTOCOLS {
            let (bytes, whole) = body(&proxy, protocol, &Ask::get("/")).await;
            assert_eq!((&*bytes, whole), (&b"all of it"[..], true));
        }
    }
}

// B22
#[tokio::test]
async fn interim_answers_go_before_the_answer() {
    for interim in [
        "HTTP/1.1 103 Early Hints\r\nLink: </UPSTREAM>\r\n\r\n".to_owned(),
        "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
        "HTTP/1.1 102 Processing\r\n\r\n".repeat(50),
        "HTTP/1.1 199 UPSTREAM\r\nContent-Length: 5\r\n\r\n".to_owned(),
    ] {
        let bytes = [interim.as_bytes(), &json("{}")].concat();
        let backend = Backend::answers(bytes);
        let proxy = proxy(&backend).await;
        for protocol in BOTH_PROTOCOLS.repeat(2) {
            let answer = proxy.ask(protocol, &Ask::get("/")).await;
            assert_eq!((answer.status, answer.text()), (200, "{}"));
            assert_eq!(answer.field("link"), None);
        }
    }
}

// B22
#[tokio::test]
async fn a_flood_of_interim_answers_ends_in_time() {
    let flood = Backend::new(|mut peer| async move {
        if peer.request().await.is_some() {
            // At its full speed it would only show how fast this machine parses heads.
            let mut paces = tokio::time::interval(Duration::from_millis(1));
            let interim = "HTTP/1.1 103 Early Hints\r\nLink: </UPSTREAM>\r\n\r\n";
            while peer.send(interim.repeat(10)).await {
                paces.tick().await;
            }
            peer.finish().await;
        }
    });
    fails("a flood", &flood, 504).await;
    flood.until(|record| record.closed == 4).await;
}

// B19
#[tokio::test]
async fn any_byte_in_any_field_of_an_answer_does_no_harm() {
    let sent: String = (0x80..=0xff_u8).map(char::from).collect();
    for names in [
        &[
            "X-Bytes",
            "Cache-Control",
            "Vary",
            "Server",
            "Content-Type",
            "Set-Cookie",
            "Location",
        ][..],
        &[
            "Connection",
            "Keep-Alive",
            "Upgrade",
            "TE",
            "Trailer",
            "X-Bytes",
            "Via",
        ],
    ] {
        let mut bytes = b"HTTP/1.1 200 \xff\xe9\r\n".to_vec();
        for name in names {
            bytes.extend([name.as_bytes(), b": "].concat());
            bytes.extend(0x80..=0xff_u8);
            bytes.extend(b"\r\n");
        }
        bytes.extend(b"Content-Length: 2\r\n\r\n{}");
        let backend = Backend::closes_after(bytes);
        let proxy = proxy(&backend).await;
        for protocol in BOTH_PROTOCOLS {
            let answer = proxy.ask(protocol, &Ask::get("/")).await;
            assert_eq!((answer.status, answer.text()), (200, "{}"));
            for name in names {
                let name = name.to_ascii_lowercase();
                let hop = ["connection", "keep-alive", "upgrade", "te"].contains(&&*name);
                let expected = (!hop).then_some(&*sent);
                assert_eq!(answer.field(&name), expected, "{name}");
            }
        }
    }
}

// B20
#[tokio::test]
async fn the_head_of_an_answer_is_bounded() {
    let many = vec!["X-Field: UPSTREAM"; 1000];
    let long = format!("X-Long: UPSTREAM{}", "x".repeat(64 << 10));
    let longer = format!("X-Long: UPSTREAM{}", "x".repeat(1 << 20));
    for fields in [&many[..], &[&long], &[&longer]] {
        let backend = Backend::closes_after(answer("200 OK", fields, "{}"));
        fails("a huge head", &backend, 502).await;
    }
    let endless = Backend::new(|mut peer| async move {
        if peer.request().await.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nX-Long: ").await;
            while peer.send("UPSTREAM".repeat(1000)).await {}
            peer.closed().await;
        }
    });
    fails("a head without end", &endless, 502).await;
    // hyper's client takes a hundred fields.
    let most = vec!["X-Field: 1"; 99];
    let proxy = proxy(&Backend::answers(answer("200 OK", &most, "{}"))).await;
    for protocol in BOTH_PROTOCOLS {
        let answer = proxy.ask(protocol, &Ask::get("/")).await;
        assert_eq!(answer.head.fields.all("x-field").len(), 99);
    }
    let more = vec!["X-Field: UPSTREAM"; 100];
    fails(
        "101 fields",
        &Backend::closes_after(answer("200 OK", &more, "{}")),
        502,
    )
    .await;
    // One that is large, as heads go.
    let long = format!("X-Long: {}", "x".repeat(60 << 10));
    let backend = Backend::answers(answer("200 OK", &[&long], "{}"));
    let proxy = Run::to(&backend).start().await;
    let answer = proxy.ask(Protocol::Http1, &Ask::get("/")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.field("x-long").map(str::len), Some(60 << 10));
}

/// What a backend says on purpose is the caller's to see, whatever it is.
#[tokio::test]
async fn an_error_of_the_backend_s_is_passed_on() {
    for status in ["401", "404", "418", "429", "500", "503", "599", "999"] {
        let fields = ["WWW-Authenticate: Basic", "Retry-After: 1"];
        let bytes = answer(&format!("{status} Why"), &fields, "its own words");
        let backend = Backend::answers(bytes);
        let proxy = proxy(&backend).await;
        for protocol in BOTH_PROTOCOLS {
            let answer = proxy.ask(protocol, &Ask::get("/")).await;
            assert_eq!(answer.status.to_string(), status);
            assert_eq!(answer.text(), "its own words");
            assert_eq!(answer.field("www-authenticate"), Some("Basic"));
            assert_eq!(answer.field("retry-after"), Some("1"));
        }
    }
}

// B26
#[tokio::test]
async fn a_304_says_one_length_and_is_answered() {
    for (lengths, status) in [
        ("Content-Length: 4", 304),
        ("Content-Length: 4\r\nContent-Length: 4", 304),
        ("Content-Length: 4, 4", 304),
        ("Content-Length: 4\r\nContent-Length: 5", 502),
        ("Content-Length: x", 502),
    ] {
        let bytes = format!("HTTP/1.1 304 Not Modified\r\nETag: \"1\"\r\n{lengths}\r\n\r\n");
        let backend = Backend::answers(bytes);
        let proxy = proxy(&backend).await;
        for protocol in BOTH_PROTOCOLS {
            let answer = proxy.ask(protocol, &Ask::get("/")).await;
            assert_eq!(answer.status, status, "{lengths}: {answer:?}");
            // hyper leaves it out, over HTTP/1.1.
            let length = answer.field("content-length");
            assert!(status == 502 || [None, Some("4")].contains(&length));
        }
    }
}
