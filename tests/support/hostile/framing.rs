//! How long a request is: what can be read in two ways is not passed on, and what nobody reads is not the next request.

use super::{Ask, Protocol, Rig};
use crate::caller::{Caller, chunk, request};
use crate::within;

// B01, B02, B04, B17: hyper's own answers.
#[tokio::test]
async fn what_can_be_read_in_two_ways_is_refused_by_hyper() {
    let rig = Rig::new().await;
    for fields in [
        "Content-Length: 1\r\nContent-Length: 2",
        "Content-Length: 3, 3",
        "Content-Length: +3",
        "Content-Length: -1",
        "Content-Length: 0x3",
        "Content-Length: 3 3",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        "Transfer-Encoding: \u{e9}, chunked",
        "Transfer-Encoding : chunked",
        "X-Folded: a\r\n b",
        " X-Folded: a",
        "X-Space : a",
        "X-Nul: a\0b",
        "X\0: a",
        "X(: a",
        "X-\u{e9}: a",
        ": no name",
        "no colon",
        "X-CR: a\rb",
    ] {
        let bytes = format!("POST /x/7 HTTP/1.1\r\nHost: g\r\n{fields}\r\n\r\n0\r\n\r\n");
        let mut caller = rig.server.connect().await;
        caller.send(bytes).await;
        let answer = caller.answer_of_the_server().await;
        assert_eq!(answer.status, 400, "{fields}: {answer:?}");
        caller.closed().await;
    }
    for bytes in [
        "POST /x/7 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /x/7 HTTP/1.0\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "GET /x/7 HTTP/3.0\r\nHost: g\r\n\r\n",
        "GET /x/7 HTTP/1.2\r\nHost: g\r\n\r\n",
        "GET /x/7 HTTP/0.9\r\nHost: g\r\n\r\n",
        "GET /x/7 http/1.1\r\nHost: g\r\n\r\n",
        "GET /x/7\r\n\r\n",
        "G\u{e9}T /x/7 HTTP/1.1\r\nHost: g\r\n\r\n",
        "G(T /x/7 HTTP/1.1\r\nHost: g\r\n\r\n",
        " /x/7 HTTP/1.1\r\nHost: g\r\n\r\n",
        "\0\0\0\0\r\n\r\n",
        "{\"json\":1}\r\n\r\n",
    ] {
        rig.refuses_bytes(bytes, 400).await;
    }
    assert_eq!(rig.backend.record().connections, 0);
    rig.passes(Protocol::Http1, &Ask::get("/x/7")).await;
}

/// B01: the same length twice is one length, for hyper.
#[tokio::test]
async fn a_length_that_is_said_twice_is_taken_by_hyper_and_said_once() {
    let rig = Rig::new().await;
    let fields = ["Content-Length: 4", "Content-Length: 4"];
    let bytes = [&request("POST", "/x/7", &fields, "")[..], b"body"].concat();
    let mut caller = rig.server.connect().await;
    caller.send(bytes).await;
    let answer = caller.answer_of_the_server().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    // The backend asserts that there is one.
    assert_eq!(rig.backend.request().text(), "body");
    assert_eq!(rig.backend.request().field("content-length"), Some("4"));
}

// B03: hyper takes the coding and drops the length.
#[tokio::test]
async fn a_length_beside_chunks_reaches_nobody() {
    let rig = Rig::new().await;
    for fields in [
        ["Content-Length: 3", "Transfer-Encoding: chunked"],
        ["Transfer-Encoding: chunked", "Content-Length: 3"],
    ] {
        let mut bytes = request("POST", "/x/7", &fields, "");
        bytes.extend(chunk(b"chunked"));
        bytes.extend(b"0\r\n\r\n");
        let mut caller = rig.server.connect().await;
        caller.send(bytes).await;
        let answer = caller.answer_of_the_server().await;
        assert_eq!((answer.status, answer.text()), (200, "{}"));
        let request = rig.backend.requests().pop().expect("a request");
        assert_eq!(request.text(), "chunked");
    }
}

/// hyper undoes the chunks and no other coding, so the others would be lost with the field (RFC 9112 §6.1).
#[tokio::test]
async fn a_body_in_another_coding_is_not_passed_on_without_its_name() {
    let rig = Rig::new().await;
    for coding in [
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked",
    ] {
        let head = request("POST", "/x/7", &[coding], "");
        let bytes = [&head[..], &chunk(b"coded"), b"0\r\n\r\n"].concat();
        rig.server.send(bytes).await.problem(501);
    }
    assert_eq!(rig.backend.record().connections, 0);
    for coding in ["chunked", "CHUNKED", " , chunked"] {
        let coding = format!("Transfer-Encoding: {coding}");
        let head = request("POST", "/x/7", &[&coding], "");
        let bytes = [&head[..], &chunk(b"body"), b"0\r\n\r\n"].concat();
        let answer = rig.server.send(bytes).await;
        assert_eq!((answer.status, answer.text()), (200, "{}"), "{coding}");
    }
}

/// The chunks of a request that are none end it: no backend takes what has come for the whole.
#[tokio::test]
async fn a_chunk_that_is_none_ends_the_request() {
    for chunks in [
        "zz\r\nbody\r\n0\r\n\r\n",
        "-4\r\nbody\r\n0\r\n\r\n",
        "+4\r\nbody\r\n0\r\n\r\n",
        "0x4\r\nbody\r\n0\r\n\r\n",
        " 4\r\nbody\r\n0\r\n\r\n",
        "4\r\nbodyX\r\n0\r\n\r\n",
        "4\r\nbody0\r\n\r\n",
        "10000000000000004\r\nbody\r\n0\r\n\r\n",
        "4\r\nbody\r\n0\r\nno colon\r\n\r\n",
        "4\r\nbody\r\n0\r\nX-Nul: \0\r\n\r\n",
    ] {
        let rig = Rig::new().await;
        let mut bytes = request("POST", "/x/7", &["Transfer-Encoding: chunked"], "");
        bytes.extend(chunks.as_bytes());
        bytes.extend(request("GET", "/x/smuggled", &[], ""));
        let mut caller = rig.server.connect().await;
        caller.send(bytes).await;
        let rest = rest(caller).await;
        assert!(!rest.contains(" 200 "), "{chunks:?}: {rest}");
        for request in rig.backend.requests() {
            assert!(!request.body.whole, "{chunks:?}: {request:?}");
        }
    }
}

/// Who sends what is no body, or only half of one, and listens for the answer, is told so: that is no failure of the backend's.
#[tokio::test]
async fn a_broken_body_is_the_callers_fault() {
    let rig = Rig::new().await;
    let extension = format!("4;{}\r\nbody\r\n0\r\n\r\n", "x".repeat(20_000));
    for (chunks, ends) in [
        ("g\r\nbody\r\n0\r\n\r\n", false),
        ("3\nabc\n", false),
        ("4\r\nbody\r\ng\r\n", false),
        ("4\r\nbodyX\r\n0\r\n\r\n", false),
        (&extension, false),
        ("4\r\nbody\r\n0\r\nno colon\r\n\r\n", false),
        ("4\r\nbody\r\n", true),
        ("4\r\nbo", true),
    ] {
        let mut caller = rig.server.connect().await;
        let head = request("POST", "/x/7", &["Transfer-Encoding: chunked"], "");
        caller.send([&head, chunks.as_bytes()].concat()).await;
        if ends {
            caller.wire.shutdown().await;
        }
        let problem = caller.answer().await.problem(400);
        let detail = "the request body could not be read";
        assert_eq!(problem["detail"], detail, "{chunks:.40}");
    }
    for request in rig.backend.requests() {
        assert!(!request.body.whole, "{request:?}");
    }
}

/// What follows the size of a chunk is nobody's business; hyper bounds how much of it there may be.
#[tokio::test]
async fn extensions_of_a_chunk_are_not_passed_on() {
    let rig = Rig::new().await;
    let head = request("POST", "/x/7", &["Transfer-Encoding: chunked"], "");
    let chunks = "4;name=value;\"quoted\"\r\nbody\r\n0;last\r\n\r\n";
    let answer = rig
        .server
        .send([&head[..], chunks.as_bytes()].concat())
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(rig.backend.request().text(), "body");
    let mut bytes = head;
    for _ in 0..1000 {
        bytes.extend(format!("1;{}\r\nx\r\n", "x".repeat(100)).bytes());
    }
    bytes.extend(b"0\r\n\r\n");
    let mut caller = rig.server.connect().await;
    caller.send(bytes).await;
    let rest = rest(caller).await;
    assert!(!rest.contains(" 200 "), "{rest}");
}

/// B20: hyper bounds the trailers as well.
#[tokio::test]
async fn trailers_without_end_are_given_up_by_hyper() {
    let rig = Rig::new().await;
    for trailers in [
        "X-Trailer: 1\r\n".repeat(10_000),
        format!("X-Trailer: {}\r\n", "x".repeat(1 << 20)),
    ] {
        let mut bytes = request("POST", "/x/7", &["Transfer-Encoding: chunked"], "");
        bytes.extend(chunk(b"body"));
        bytes.extend(b"0\r\n");
        bytes.extend(trailers.bytes());
        bytes.extend(b"\r\n");
        let mut caller = rig.server.connect().await;
        caller.send(bytes).await;
        let rest = rest(caller).await;
        assert!(!rest.contains(" 200 "), "{rest}");
    }
    assert!(
        rig.backend
            .requests()
            .iter()
            .all(|request| !request.body.whole)
    );
}

/// B18: hyper takes a bare line feed for the end of a line, in the head. A proxy before us that doesn't must not be one that
/// passes it on.
#[tokio::test]
async fn bare_line_feeds_are_line_ends_for_hyper() {
    let rig = Rig::new().await;
    for bytes in [
        "GET /x/7 HTTP/1.1\nHost: g\nX-One: 1\n\n",
        "GET /x/7 HTTP/1.1\r\nHost: g\nX-One: 1\r\n\n",
        "\r\n\nGET /x/7 HTTP/1.1\r\nHost: g\r\nX-One: 1\n\r\n",
    ] {
        let answer = rig.server.send(bytes).await;
        assert_eq!(answer.status, 200, "{bytes}");
        let request = rig.backend.requests().pop().expect("a request");
        assert_eq!(request.field("x-one"), Some("1"));
    }
    // Not behind the size of a chunk.
    let head = request("POST", "/x/7", &["Transfer-Encoding: chunked"], "");
    let bytes = [&head[..], b"4\nbody\n0\n\n"].concat();
    let mut caller = rig.server.connect().await;
    caller.send(bytes).await;
    let rest = rest(caller).await;
    assert!(!rest.contains(" 200 "), "{rest}");
}

/// B37: a body that nobody reads is not the next request.
#[tokio::test]
async fn nothing_is_smuggled_behind_a_refused_request() {
    let rig = Rig::new().await;
    let smuggled = "GET /x/smuggled HTTP/1.1\r\nHost: g\r\n\r\n";
    let many = smuggled.repeat(10_000);
    for (method, target, status) in [
        ("TRACE", "/x/7", "501"),
        ("POST", "*", "400"),
        ("POST", "/x/%2e%2e", "400"),
        ("OPTIONS", "*", "204"),
    ] {
        for body in [smuggled, &many] {
            let with_length = request(method, target, &[], body);
            let chunked = request(method, target, &["Transfer-Encoding: chunked"], "");
            let chunked = [&chunked[..], &chunk(body.as_bytes()), b"0\r\n\r\n"].concat();
            for bytes in [with_length, chunked] {
                let mut caller = rig.server.connect().await;
                caller.send(bytes).await;
                caller.send(last()).await;
                let rest = rest(caller).await;
                assert!(rest.starts_with(&format!("HTTP/1.1 {status}")), "{rest}");
                // The last one is answered as well, or not, as the connection is closed.
                let second = rest.match_indices("HTTP/1.1 ").nth(1);
                let second = second.map_or("", |(place, _)| &rest[place..]);
                assert!(
                    second.is_empty() || second.starts_with("HTTP/1.1 204"),
                    "{rest}"
                );
                assert!(rest.matches("HTTP/1.1 ").count() <= 2, "{rest}");
            }
        }
    }
    assert_eq!(rig.backend.requests().len(), 0);
}

/// B37: nor is one that the backend answers before it has come.
#[tokio::test]
async fn nothing_is_smuggled_behind_an_early_answer() {
    let early = crate::backend::Backend::new(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.send(crate::backend::json("{}")).await;
            peer.finish().await;
        }
    });
    let server = crate::front(&early, 0).await;
    let smuggled = request("GET", "/x/smuggled", &[], "");
    for framing in ["Content-Length: 1000000", "Transfer-Encoding: chunked"] {
        let asked = early.requests().len();
        let mut caller = server.connect().await;
        caller.send(request("POST", "/x/7", &[framing], "")).await;
        early.until(|record| record.requests.len() > asked).await;
        let answer = caller.answer_of_the_server().await;
        assert_eq!(answer.status, 200, "{answer:?}");
        // As a body they are neither as long as was said, nor chunks.
        caller.send(smuggled.repeat(3)).await;
        caller.closed().await;
    }
    for request in early.requests() {
        assert_eq!(request.target, "/x/7", "{request:?}");
    }
}

/// B38: an HTTP/1.0 request has no chunks, and ends where its length says.
#[tokio::test]
async fn a_request_of_http_1_0_is_as_long_as_it_says() {
    let rig = Rig::new().await;
    let bytes = "POST /x/7 HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: 4\r\n\r\nbodyGET /x/8 HTTP/1.0\r\n\r\n";
    let mut caller = rig.server.connect().await;
    caller.send(bytes).await;
    let rest = rest(caller).await;
    assert_eq!(rest.matches("HTTP/1.0 200 ").count(), 2, "{rest}");
    let requests = rig.backend.requests();
    assert_eq!(requests[0].text(), "body");
    assert_eq!((&*requests[1].target, requests[1].text()), ("/x/8", ""));
    // Without a length, there is no body: what follows is another request.
    let before = requests.len();
    let bytes = "POST /x/7 HTTP/1.0\r\n\r\nGET /x/smuggled HTTP/1.1\r\nHost: g\r\n\r\n";
    let mut caller = rig.server.connect().await;
    caller.send(bytes).await;
    let answer = caller.answer_of_the_server().await;
    assert_eq!(answer.status, 200);
    caller.closed().await;
    assert_eq!(rig.backend.requests().len(), before + 1);
}

/// A caller who goes away in the middle of its body has sent no request to anybody.
#[tokio::test]
async fn half_a_body_is_no_request() {
    for (fields, half) in [
        ("Content-Length: 10", "12345"),
        ("Transfer-Encoding: chunked", "5\r\n12345\r\n"),
        ("Transfer-Encoding: chunked", "5\r\n12345\r\n0\r\n"),
        ("Transfer-Encoding: chunked", "5\r\n123"),
    ] {
        let rig = Rig::new().await;
        let mut caller = rig.server.connect().await;
        caller.send(request("POST", "/x/7", &[fields], "")).await;
        caller.send(half).await;
        rig.backend.until(|record| record.requests.len() == 1).await;
        drop(caller);
        rig.backend.until(|record| record.closed == 1).await;
        assert!(!rig.backend.request().body.whole);
    }
}

/// B10: what began as HTTP/1.1 stays it.
#[tokio::test]
async fn a_connection_can_not_become_http_2() {
    let rig = Rig::new().await;
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    for fields in [
        &[][..],
        &[
            "Connection: Upgrade, HTTP2-Settings",
            "Upgrade: h2c",
            "HTTP2-Settings: AAMAAABkAAQAAP__",
        ],
    ] {
        let mut caller = rig.server.connect().await;
        caller.send(request("GET", "/x/7", fields, "")).await;
        let answer = caller.answer_of_the_server().await;
        assert_eq!((answer.status, answer.field("upgrade")), (200, None));
        caller.send(preface).await;
        caller.closed().await;
    }
}

/// A caller that closes its half, as if it had said all, is gone for hyper, and its request with it.
#[tokio::test]
async fn who_says_that_no_more_comes_is_gone_for_hyper() {
    let backend = crate::backend::Backend::hangs();
    let server = crate::front(&backend, 0).await;
    let mut caller = server.connect().await;
    caller.send(request("GET", "/x/7", &[], "")).await;
    backend.until(|record| record.requests.len() == 1).await;
    caller.wire.shutdown().await;
    caller.closed().await;
    backend.until(|record| record.closed == 1).await;
}

/// What the server sends until it closes.
async fn rest(mut caller: Caller) -> String {
    let rest = within(caller.wire.rest()).await;
    String::from_utf8_lossy(&rest).into_owned()
}

/// A request whose answer is known, and behind which the connection is closed.
fn last() -> Vec<u8> {
    request("OPTIONS", "*", &["Connection: close"], "")
}
