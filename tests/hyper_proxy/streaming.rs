//! Bodies of both directions pass as they come, and so do the trailers that may.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};

use crate::backend::{Backend, answer, json};
use crate::caller::{chunk, request};
use crate::process::Run;
use crate::wire::ask::{Ask, BOTH_PROTOCOLS, Protocol};
use crate::wire::http1::{Framing, Wire};
use crate::within;

const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Sends every piece of a body back as soon as it has come.
fn echo() -> Backend {
    Backend::new(|mut peer| async move {
        while let Some((request, _)) = peer.head().await {
            peer.send(CHUNKED).await;
            let mut left = match request.head.framing().expect("a body") {
                Framing::Length(length) => Some(length),
                _ => None,
            };
            loop {
                let piece = match &mut left {
                    Some(0) => Some(Vec::new()),
                    Some(length) => {
                        *length -= 5;
                        peer.wire.exactly(5).await
                    }
                    None => peer.wire.chunk().await,
                };
                let Some(piece) = piece else { return };
                if piece.is_empty() {
                    break;
                }
                peer.send(chunk(&piece)).await;
            }
            if left.is_none() {
                assert_eq!(peer.wire.exactly(2).await.as_deref(), Some(&b"\r\n"[..]));
            }
            peer.send("0\r\n\r\n").await;
        }
    })
}

/// The next bytes of an answer's body, however they are cut.
async fn read(wire: &mut Wire, length: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < length {
        bytes.extend(within(wire.chunk()).await.expect("a chunk"));
    }
    bytes
}

/// The backend gets what the caller has sent before the caller sends more, and the caller gets what the backend has made of
/// it.
#[tokio::test]
async fn a_body_passes_piece_by_piece() {
    let proxy = Run::to(&echo()).start().await;
    let mut caller = proxy.connect().await;
    for framing in ["Transfer-Encoding: chunked", "Content-Length: 50"] {
        caller.send(request("POST", "/", &[framing], "")).await;
        let head = within(caller.wire.head()).await.expect("an answer");
        assert_eq!(head.framing(), Some(Framing::Chunked));
        for id in 0..10 {
            let piece = format!("one {id}");
            match framing.starts_with('T') {
                true => caller.send(chunk(piece.as_bytes())).await,
                false => caller.send(&piece).await,
            }
            assert_eq!(read(&mut caller.wire, 5).await, piece.as_bytes());
        }
        if framing.starts_with('T') {
            caller.send("0\r\n\r\n").await;
        }
        assert_eq!(within(caller.wire.chunk()).await, Some(Vec::new()));
        assert_eq!(within(caller.wire.exactly(2)).await, Some(b"\r\n".to_vec()));
    }
}

#[tokio::test]
async fn a_body_passes_frame_by_frame() {
    let proxy = Run::to(&echo()).start().await;
    let mut http2 = proxy.http2().await;
    let fields = Ask::new("POST", "/").http2();
    for stream in [1, 3] {
        http2.headers(stream, &fields, false).await;
        let (head, ended) = http2.head(stream).await.expect("an answer");
        assert_eq!((head.fields.get(":status"), ended), (Some("200"), false));
        for id in 0..10 {
            let piece = format!("one {id}");
            http2.data(stream, piece.as_bytes(), false).await;
            let (echoed, _) = http2.chunk(stream).await.expect("a frame");
            assert_eq!(echoed, piece.as_bytes());
        }
        http2.data(stream, b"", true).await;
        assert_eq!(http2.chunk(stream).await, Some((Vec::new(), true)));
    }
}

/// A body may be longer than any buffer.
#[tokio::test]
async fn a_body_may_be_long() {
    let proxy = Run::to(&Backend::replies(|request| {
        answer("200 OK", &[], &request.body.bytes)
    }))
    .start()
    .await;
    let body: Vec<u8> = (0..8 << 20).map(|at: u32| (at % 251) as u8).collect();
    for protocol in BOTH_PROTOCOLS {
        let ask = Ask::new("PUT", "/").body(&body);
        // Too long to be sent before anything is read.
        let answer = match protocol {
            Protocol::Http1 => proxy.ask(protocol, &ask).await,
            Protocol::Http2 => {
                let mut http2 = proxy.http2().await;
                http2.headers(1, &ask.http2(), false).await;
                http2.upload(1, &body).await;
                http2.heard(1).await.answer()
            }
        };
        assert_eq!(answer.status, 200);
        assert!(answer.body == body, "{protocol:?}");
    }
}

/// A backend that sends an event each time that it is told to.
fn events() -> (Backend, Arc<Semaphore>) {
    let next = Arc::new(Semaphore::new(0));
    let told = Arc::clone(&next);
    let backend = Backend::new(move |mut peer| {
        let told = Arc::clone(&told);
        async move {
            if peer.request().await.is_none() {
                return;
            }
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                        Cache-Control: no-cache\r\nTransfer-Encoding: chunked\r\n\r\n";
            peer.send(head).await;
            for id in 0.. {
                tokio::select! {
                    permit = told.acquire() => permit.expect("open").forget(),
                    rest = peer.wire.rest() => {
                        assert_eq!(rest, b"");
                        break;
                    }
                }
                peer.send(chunk(format!("id: {id}\ndata: x\n\n").as_bytes()))
                    .await;
            }
            peer.closed().await;
        }
    });
    (backend, next)
}

#[tokio::test]
async fn events_pass_one_by_one() {
    for protocol in BOTH_PROTOCOLS {
        let (backend, next) = events();
        // The time is for the head only, and the body may take longer.
        let proxy = Run::to(&backend).start().await;
        let ask = Ask::get("/events").field("Accept", "text/event-stream");
        match protocol {
            Protocol::Http1 => {
                let mut caller = proxy.connect().await;
                caller.send(ask.http1().0).await;
                let head = within(caller.wire.head()).await.expect("an answer");
                let kind = head.fields.get("content-type");
                assert_eq!(kind, Some("text/event-stream"));
                for id in 0..5 {
                    next.add_permits(1);
                    let event = within(caller.wire.chunk()).await;
                    assert_eq!(event, Some(format!("id: {id}\ndata: x\n\n").into()));
                }
            }
            Protocol::Http2 => {
                let mut http2 = proxy.http2().await;
                http2.headers(1, &ask.http2(), true).await;
                let (head, _) = http2.head(1).await.expect("an answer");
                let kind = head.fields.get("content-type");
                assert_eq!(kind, Some("text/event-stream"));
                for id in 0..5 {
                    next.add_permits(1);
                    let event = http2.chunk(1).await;
                    let expected = format!("id: {id}\ndata: x\n\n").into_bytes();
                    assert_eq!(event, Some((expected, false)));
                }
            }
        }
        // The caller is gone: so is the proxy, for the backend.
        backend.until(|record| record.closed == 1).await;
    }
}

/// An upload goes on while nothing has been answered, and the backend sees how far it is.
#[tokio::test]
async fn an_upload_is_not_collected() {
    let (seen, mut sees) = watch::channel(0);
    let backend = Backend::new(move |mut peer| {
        let seen = seen.clone();
        async move {
            if peer.head().await.is_none() {
                return;
            }
            while let Some(piece) = peer.wire.chunk().await {
                seen.send_modify(|count| *count += piece.len());
                if piece.is_empty() {
                    peer.send(json("{}")).await;
                    break;
                }
            }
            peer.finish().await;
        }
    });
    let proxy = Run::to(&backend).start().await;
    let mut caller = proxy.connect().await;
    let head = request("POST", "/", &["Transfer-Encoding: chunked"], "");
    caller.send(head).await;
    for sent in 1..=10 {
        caller.send(chunk(b"x")).await;
        within(sees.wait_for(|count| *count == sent)).await.unwrap();
    }
    caller.send("0\r\n\r\n").await;
    assert_eq!(caller.answer().await.text(), "{}");

    let mut http2 = proxy.http2().await;
    http2
        .headers(1, &Ask::new("POST", "/").http2(), false)
        .await;
    for sent in 11..=20 {
        http2.data(1, b"x", false).await;
        within(sees.wait_for(|count| *count == sent)).await.unwrap();
    }
    http2.data(1, b"", true).await;
    assert_eq!(http2.heard(1).await.answer().text(), "{}");
}

/// More than all the buffers on the way hold, the kernel's included.
const MOST: usize = 64 << 20;

/// As long as it may take to hold somebody up for good.
const STUCK: Duration = Duration::from_secs(1);

/// A caller that reads nothing is not read for: what the backend has to say waits there.
#[tokio::test]
async fn an_answer_that_nobody_reads_is_not_collected() {
    for protocol in BOTH_PROTOCOLS {
        let (taken, mut takes) = watch::channel(None);
        let backend = Backend::new(move |mut peer| {
            let taken = taken.clone();
            async move {
                if peer.request().await.is_none() {
                    return;
                }
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {MOST}\r\n\r\n"))
                    .await;
                let mut sent = 0;
                let piece = vec![b'x'; 1 << 16];
                while sent < MOST {
                    let sending = peer.send(&piece);
                    if !matches!(tokio::time::timeout(STUCK, sending).await, Ok(true)) {
                        break;
                    }
                    sent += piece.len();
                }
                taken.send_replace(Some(sent));
                peer.closed().await;
            }
        });
        let proxy = Run::to(&backend).start().await;
        let mut caller = proxy.connect().await;
        let mut http2 = proxy.http2().await;
        match protocol {
            Protocol::Http1 => caller.send(Ask::get("/").http1().0).await,
            Protocol::Http2 => Ask::get("/").send_over_http2(&mut http2, 1).await,
        }
        let taken = *within(takes.wait_for(Option::is_some)).await.unwrap();
        assert!(taken < Some(MOST), "{protocol:?}: {taken:?}");
        // Nobody else is held up.
        let answer = proxy.ask(protocol, &Ask::new("TRACE", "/")).await;
        assert_eq!(answer.status, 501);
    }
}

/// A backend that reads nothing is not read for: what the caller has to say waits there.
#[tokio::test]
async fn a_body_that_nobody_reads_is_not_collected() {
    let backend = Backend::new(|mut peer| async move {
        if peer.head().await.is_some() {
            std::future::pending::<()>().await;
        }
    });
    let proxy = Run::to(&backend).start().await;
    let mut caller = proxy.connect().await;
    let length = format!("Content-Length: {MOST}");
    caller.send(request("POST", "/", &[&length], "")).await;
    let piece = vec![b'x'; 1 << 16];
    let mut sent = 0;
    while sent < MOST {
        let sending = caller.wire.send(&piece);
        if tokio::time::timeout(STUCK, sending).await.is_err() {
            break;
        }
        sent += piece.len();
    }
    assert!(sent < MOST, "{sent}");

    let mut http2 = proxy.http2().await;
    http2
        .headers(1, &Ask::new("POST", "/").http2(), false)
        .await;
    let (body, mut sent) = (vec![b'x'; MOST], 0);
    let sending = http2.send_body(1, &body, &mut sent);
    assert!(tokio::time::timeout(5 * STUCK, sending).await.is_err());
    assert!(sent < MOST, "{sent}");
}

// B11
#[tokio::test]
async fn trailers_of_a_request_are_kept() {
    let backend = Backend::json("{}");
    let proxy = Run::to(&backend).start().await;
    for protocol in BOTH_PROTOCOLS {
        let mut ask = Ask::new("POST", "/")
            .body("body")
            .trailer("X-Sum", "1")
            .trailer("X-Bytes", b"\xff")
            .trailer("Content-Length", "99")
            .trailer("Authorization", "Bearer token");
        if protocol == Protocol::Http2 {
            ask = ask.field("trailer", "x-sum, x-bytes, content-length, authorization");
        }
        let answer = proxy.ask(protocol, &ask).await;
        assert_eq!(answer.status, 200);
        let request = backend.requests().pop().expect("a request");
        let trailers: Vec<_> = request.body.trailers.iter().collect();
        assert_eq!(trailers, [("x-sum", "1"), ("x-bytes", "\u{ff}")]);
        assert_eq!(request.field("authorization"), None);
        assert_eq!(request.field("x-sum"), None);
    }
    // hyper sends those that were announced: a caller over HTTP/2 need not announce them, and loses them.
    let ask = Ask::new("POST", "/").body("body").trailer("X-Sum", "1");
    proxy.ask(Protocol::Http2, &ask).await;
    let request = backend.requests().pop().expect("a request");
    assert_eq!(
        (request.text(), request.body.trailers.names().len()),
        ("body", 0)
    );
}

// B11
#[tokio::test]
async fn trailers_of_a_response_are_kept() {
    let names = "X-Sum, X-Bytes, Content-Length, Set-Cookie, Host, Connection, X-Forwarded-For";
    let mut bytes = format!(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: {names}\r\n\r\n4\r\nbody\r\n0\r\n"
    )
    .into_bytes();
    for name in names.split(", ") {
        let value = if name == "X-Bytes" {
            &b"\xff"[..]
        } else {
            b"1"
        };
        bytes.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend(b"\r\n");
    let backend = Backend::answers(bytes);
    let proxy = Run::to(&backend).start().await;
    for protocol in BOTH_PROTOCOLS {
        for te in [Some("trailers"), None] {
            let mut ask = Ask::get("/");
            if let Some(te) = te {
                ask = ask.field("TE", te);
            }
            let answer = proxy.ask(protocol, &ask).await;
            assert_eq!((answer.status, answer.text()), (200, "body"));
            let mut trailers: Vec<_> = answer.trailers.iter().collect();
            trailers.sort_unstable();
            // Over HTTP/1.1 hyper sends them to those who say that they take them.
            match (protocol, te) {
                (Protocol::Http1, None) => assert_eq!(trailers, []),
                _ => assert_eq!(trailers, [("x-bytes", "\u{ff}"), ("x-sum", "1")]),
            }
            for name in ["set-cookie", "x-sum", "x-forwarded-for", "content-length"] {
                assert_eq!(answer.field(name), None);
            }
            let request = backend.requests().pop().expect("a request");
            assert_eq!(request.field("te"), te);
        }
    }
}
