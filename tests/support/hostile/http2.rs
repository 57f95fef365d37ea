//! What only HTTP/2 can say, frame by frame. Most of it never gets past hyper and h2.

use super::{Ask, Protocol, Rig};
use crate::backend::Backend;
use crate::wire::hpack;
use crate::wire::http2::*;

type Field<'a> = (&'a str, &'a [u8]);

const GET: [Field<'_>; 4] = [
    (":method", b"GET"),
    (":scheme", b"http"),
    (":authority", b"caller.test"),
    (":path", b"/x/7"),
];

impl Rig {
    /// How the server reacts to a head.
    async fn heard(&self, fields: &[Field<'_>]) -> Heard {
        let mut http2 = self.server.http2().await;
        http2.headers(1, fields, true).await;
        http2.heard(1).await
    }
}

fn with<'a>(fields: &[Field<'a>]) -> Vec<Field<'a>> {
    [&GET[..], fields].concat()
}

fn instead<'a>(name: &str, value: &'a [u8]) -> Vec<Field<'a>> {
    let fields = GET.into_iter();
    fields
        .map(|(known, old)| (known, if known == name { value } else { old }))
        .collect()
}

fn without(name: &str) -> Vec<Field<'static>> {
    GET.into_iter()
        .filter(|(known, _)| *known != name)
        .collect()
}

/// Malformed by RFC 9113 §8.1.1: h2 resets the stream.
#[tokio::test]
async fn what_is_malformed_is_reset_by_h2() {
    let rig = Rig::new().await;
    for fields in [
        with(&[("connection", b"x-one")]),
        with(&[("connection", b"close")]),
        with(&[("keep-alive", b"timeout=5")]),
        with(&[("proxy-connection", b"close")]),
        with(&[("transfer-encoding", b"chunked")]),
        with(&[("upgrade", b"websocket")]),
        with(&[("te", b"gzip")]),
        with(&[("te", b"trailers, gzip")]),
        with(&[("te", b"\xff")]),
        with(&[("x-one", b"1"), (":path", b"/x/8")]),
        with(&[(":method", b"GET")]),
        with(&[(":path", b"/x/8")]),
        with(&[(":authority", b"other.test")]),
        with(&[(":status", b"200")]),
        with(&[(":protocol", b"websocket")]),
        without(":method"),
        without(":scheme"),
        without(":path"),
        instead(":path", b""),
        instead(":path", b"/x/7 HTTP/1.1"),
        instead(":path", b"/x/7\r\nx-injected: 1"),
        instead(":path", b"/x/\0"),
        instead(":authority", b"a\r\nb"),
        instead(":authority", b"a.test/x"),
        instead(":authority", b"a b"),
        instead(":scheme", b"ht tp"),
    ] {
        let heard = rig.heard(&fields).await;
        assert!(
            matches!(heard, Heard::Reset(PROTOCOL_ERROR)),
            "{fields:?}: {heard:?}"
        );
    }
    assert_eq!(rig.backend.record().connections, 0);
    rig.passes(Protocol::Http2, &Ask::get("/x/7")).await;
}

/// For what is no field at all, h2 gives the connection up.
#[tokio::test]
async fn what_is_no_field_ends_the_connection_by_h2() {
    let rig = Rig::new().await;
    for fields in [
        with(&[("X-Upper", b"1")]),
        with(&[("x upper", b"1")]),
        with(&[("x:y", b"1")]),
        with(&[("x-\u{e9}", b"1")]),
        with(&[("", b"1")]),
        with(&[("x-nul", b"a\0b")]),
        with(&[("x-cr", b"a\rb")]),
        with(&[("x-lf", b"a\nb")]),
        with(&[("x-injecting", b"a\r\nx-injected: 1")]),
        with(&[(":version", b"HTTP/1.1")]),
        instead(":method", b"GET /x/8"),
        instead(":method", b""),
        instead(":authority", b"\xff"),
        instead(":path", b"/x/\xff"),
    ] {
        let heard = rig.heard(&fields).await;
        assert!(
            matches!(heard, Heard::GoAway(PROTOCOL_ERROR)),
            "{fields:?}: {heard:?}"
        );
    }
    assert_eq!(rig.backend.record().connections, 0);
    rig.passes(Protocol::Http2, &Ask::get("/x/7")).await;
}

// B05
#[tokio::test]
async fn a_stream_without_one_host_is_refused() {
    let rig = Rig::new().await;
    for fields in [
        without(":authority"),
        instead(":authority", b"user@a.test"),
        instead(":authority", b":80"),
        instead(":authority", b"a.test:99999"),
        instead(":authority", b"a,b"),
        with(&[("host", b"a b")]),
        with(&[("host", b"caller.test"), ("host", b"caller.test")]),
        with(&[("host", b"caller.test"), ("host", b"evil.test")]),
        with(&[("host", b"user@caller.test")]),
        with(&[("host", b"\xff")]),
        with(&[("host", b"")]),
    ] {
        rig.heard(&fields).await.answer().problem(400);
    }
    // h2 refuses an empty one on its own.
    let heard = rig.heard(&instead(":authority", b"")).await;
    assert!(matches!(heard, Heard::Reset(PROTOCOL_ERROR)), "{heard:?}");
    assert_eq!(rig.backend.record().connections, 0);
    // `Host` stands in for `:authority`.
    let fields = [&without(":authority")[..], &[("host", b"a.test")]].concat();
    let answer = rig.heard(&fields).await.answer();
    assert_eq!(answer.status, 200);
    let request = rig.backend.request();
    assert_eq!(request.field("x-forwarded-host"), Some("a.test"));
}

/// B15, B16: what is no path.
#[tokio::test]
async fn a_path_begins_with_a_slash() {
    let rig = Rig::new().await;
    rig.heard(&instead(":path", b"*"))
        .await
        .answer()
        .problem(400);
    for path in [&b"x/7"[..], b"http://evil.test/x/7", b"evil.test:80"] {
        let heard = rig.heard(&instead(":path", path)).await;
        assert!(matches!(heard, Heard::Reset(PROTOCOL_ERROR)), "{heard:?}");
    }
    assert_eq!(rig.backend.record().connections, 0);
    // One that is empty is the root, for which one of the examples has no route.
    let answer = rig.heard(&instead(":path", b"?x")).await.answer();
    assert!([200, 404].contains(&answer.status), "{answer:?}");
    for request in rig.backend.requests() {
        assert_eq!(request.target, "/?x");
    }
}

/// How a client has come is seen on its connection, whatever it says: who ends its TLS may say `https`.
#[tokio::test]
async fn a_scheme_is_nothing_but_a_claim() {
    let rig = Rig::new().await;
    for scheme in [&b"https"[..], b"HTTP", b"HttpS"] {
        let answer = rig.heard(&instead(":scheme", scheme)).await.answer();
        assert_eq!(answer.status, 200, "{scheme:?}");
    }
    // RFC 9110 §7.4: nothing here is of these.
    for scheme in [&b"ftp"[..], b"file", b"javascript", b"ws"] {
        let heard = rig.heard(&instead(":scheme", scheme)).await;
        heard.answer().problem(400);
    }
    for request in rig.backend.requests() {
        assert_eq!(request.target, "/x/7");
        assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    }
}

// B16
#[tokio::test]
async fn nobody_gets_a_tunnel_through_a_stream() {
    const CONNECT: Field<'_> = (":method", b"CONNECT");
    let rig = Rig::new().await;
    for (fields, status) in [
        (vec![CONNECT, (":authority", b"evil.test:80")], 501),
        (vec![CONNECT, (":authority", b"evil.test")], 400),
        (vec![CONNECT, (":authority", b"user@evil.test:80")], 400),
        (vec![CONNECT], 400),
    ] {
        rig.heard(&fields).await.answer().problem(status);
    }
    // With a path; and to WebSocket, by RFC 8441, which the server has not offered.
    let ordinary = instead(":method", b"CONNECT");
    let extended = [&ordinary[..], &[(":protocol", b"websocket")]].concat();
    for fields in [ordinary, extended] {
        let heard = rig.heard(&fields).await;
        assert!(matches!(heard, Heard::Reset(PROTOCOL_ERROR)), "{heard:?}");
    }
    assert_eq!(rig.backend.record().connections, 0);
}

/// B01, B02: h2 holds the frames of a body to its length.
#[tokio::test]
async fn a_length_that_is_not_the_body_s_is_reset_by_h2() {
    let rig = Rig::new().await;
    for (lengths, body) in [
        (&["4"][..], "bodyX"),
        (&["5"], "body"),
        (&["4", "5"], "body"),
        (&["+4"], "body"),
        (&["-4"], "body"),
        (&["4, 4"], "body"),
        (&["x"], "body"),
        (&["99999999999999999999999"], "body"),
        (&[""], "body"),
        (&["0"], "body"),
        (&["4"], ""),
    ] {
        let mut fields = instead(":method", b"POST");
        fields.extend(
            lengths
                .iter()
                .map(|length| ("content-length", length.as_bytes())),
        );
        let mut http2 = rig.server.http2().await;
        http2.headers(1, &fields, body.is_empty()).await;
        if !body.is_empty() {
            http2.data(1, body.as_bytes(), true).await;
        }
        match http2.heard(1).await {
            Heard::Reset(PROTOCOL_ERROR) => {}
            // For h2 this is a zero. Until it sees that there is more, it is ours to refuse.
            Heard::Answer(answer) if *lengths == [""] => _ = answer.problem(400),
            heard => panic!("{lengths:?}: {heard:?}"),
        }
    }
    // Where one has begun, its end has reached nobody, unless it had announced that there is no more than its head.
    for request in rig.backend.requests() {
        let is_over = request.field("content-length") == Some("0");
        assert!(is_over || !request.body.whole, "{request:?}");
    }
    // The same length twice is one length.
    let mut fields = instead(":method", b"POST");
    fields.extend([("content-length", &b"4"[..]); 2]);
    let mut http2 = rig.server.http2().await;
    http2.headers(1, &fields, false).await;
    http2.data(1, b"body", true).await;
    assert_eq!(http2.heard(1).await.answer().status, 200);
    let request = rig.backend.requests().pop().expect("a request");
    assert_eq!(
        (request.text(), request.field("content-length")),
        ("body", Some("4"))
    );
}

// B11
#[tokio::test]
async fn trailers_are_fields_for_h2() {
    let rig = Rig::new().await;
    let post = instead(":method", b"POST");
    for (trailers, code) in [
        (&[("x-sum", "1"), (":method", "GET")][..], "stream"),
        (&[("connection", "close")], "stream"),
        (&[("te", "gzip")], "stream"),
        (&[("X-Upper", "1")], "connection"),
        (&[("x-nul", "\0")], "connection"),
    ] {
        let mut http2 = rig.server.http2().await;
        http2.headers(1, &post, false).await;
        http2.data(1, b"body", false).await;
        http2.headers(1, trailers, true).await;
        match http2.heard(1).await {
            Heard::Reset(PROTOCOL_ERROR) => assert_eq!(code, "stream", "{trailers:?}"),
            Heard::GoAway(PROTOCOL_ERROR) => assert_eq!(code, "connection", "{trailers:?}"),
            heard => panic!("{trailers:?}: {heard:?}"),
        }
    }
    // Trailers that end nothing.
    let mut http2 = rig.server.http2().await;
    http2.headers(1, &post, false).await;
    http2.data(1, b"body", false).await;
    http2.headers(1, &[("x-sum", "1")], false).await;
    let heard = http2.heard(1).await;
    assert!(matches!(heard, Heard::Reset(PROTOCOL_ERROR)), "{heard:?}");
    assert!(
        rig.backend
            .requests()
            .iter()
            .all(|request| !request.body.whole)
    );

    // Alone, it drops pseudo-fields. They reach nobody.
    for trailers in [[(":path", "/x/8")], [(":status", "200")]] {
        let mut http2 = rig.server.http2().await;
        http2.headers(1, &post, false).await;
        http2.data(1, b"body", false).await;
        http2.headers(1, &trailers, true).await;
        assert_eq!(http2.heard(1).await.answer().status, 200);
        let request = rig.backend.requests().pop().expect("a request");
        assert_eq!((&*request.target, request.text()), ("/x/7", "body"));
        assert_eq!(request.body.trailers.names(), [""; 0]);
    }
}

/// What is no frame that may stand there: h2 gives the connection up, and others are served.
#[tokio::test]
async fn a_frame_out_of_place_ends_the_connection_by_h2() {
    let rig = Rig::new().await;
    let get = |stream| headers(stream, &GET, true);
    let whole = END_HEADERS | END_STREAM;
    for (name, frames, code) in [
        (
            "data for nobody",
            vec![frame(DATA, END_STREAM, 1, b"x")],
            PROTOCOL_ERROR,
        ),
        (
            "data for all",
            vec![frame(DATA, END_STREAM, 0, b"x")],
            PROTOCOL_ERROR,
        ),
        ("a head for all", vec![get(0)], PROTOCOL_ERROR),
        ("a stream of the server's", vec![get(2)], PROTOCOL_ERROR),
        ("a stream from before", vec![get(3), get(1)], PROTOCOL_ERROR),
        (
            "data behind the end",
            vec![get(1), frame(DATA, 0, 1, b"x")],
            PROTOCOL_ERROR,
        ),
        (
            "too much in a frame",
            vec![frame(DATA, 0, 1, &[0; 1 << 15])],
            FRAME_SIZE_ERROR,
        ),
        (
            "the rest of nothing",
            vec![frame(CONTINUATION, END_HEADERS, 1, b"")],
            PROTOCOL_ERROR,
        ),
        (
            "a ping in a head",
            vec![
                frame(HEADERS, END_STREAM, 1, b""),
                frame(PING, 0, 0, &[0; 8]),
            ],
            PROTOCOL_ERROR,
        ),
        (
            "half a field",
            vec![frame(HEADERS, whole, 1, &[0, 9])],
            PROTOCOL_ERROR,
        ),
        (
            "no such place in the table",
            vec![frame(HEADERS, whole, 1, &[0xff, 9])],
            PROTOCOL_ERROR,
        ),
        (
            "a push to the server",
            vec![frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])],
            PROTOCOL_ERROR,
        ),
        (
            "half a setting",
            vec![frame(SETTINGS, 0, 0, &[0; 5])],
            PROTOCOL_ERROR,
        ),
        (
            "a window of nothing",
            vec![frame(WINDOW_UPDATE, 0, 0, &[0; 4])],
            PROTOCOL_ERROR,
        ),
    ] {
        let mut http2 = rig.server.http2().await;
        http2.frames(&frames).await;
        assert_eq!(http2.goes_away().await, code, "{name}");
    }
    rig.passes(Protocol::Http2, &Ask::get("/x/7")).await;
}

/// A head that never ends (CVE-2024-27316 elsewhere) is not collected for ever.
#[tokio::test]
async fn a_head_without_end_is_given_up_by_h2() {
    let rig = Rig::new().await;
    let piece = hpack::encode(&[("x-long", "x".repeat(1000))]);
    for piece in [&piece[..], b""] {
        let mut http2 = rig.server.http2().await;
        http2
            .frame(HEADERS, END_STREAM, 1, &hpack::encode(&GET))
            .await;
        http2
            .frames(&vec![frame(CONTINUATION, 0, 1, piece); 20_000])
            .await;
        assert_eq!(http2.goes_away().await, ENHANCE_YOUR_CALM);
    }
    rig.passes(Protocol::Http2, &Ask::get("/x/7")).await;
}

/// Rapid reset (CVE-2023-44487): who takes back request after request loses the connection.
#[tokio::test]
async fn request_after_request_taken_back_ends_the_connection_by_h2() {
    let rig = Rig::new().await;
    let mut http2 = rig.server.http2().await;
    let frames: Vec<Vec<u8>> = (0..5_000).flat_map(|id| taken_back(2 * id + 1)).collect();
    http2.frames(&frames).await;
    assert_eq!(http2.goes_away().await, ENHANCE_YOUR_CALM);
    assert!(rig.backend.requests().len() < 500);
    rig.passes(Protocol::Http2, &Ask::get("/x/7")).await;
}

fn taken_back(stream: u32) -> [Vec<u8>; 2] {
    let reset = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
    [headers(stream, &GET, true), reset]
}

/// Nobody is asked for longer than somebody waits.
#[tokio::test]
async fn a_request_that_is_taken_back_is_taken_back_from_the_backend() {
    let backend = Backend::hangs();
    let server = crate::front(&backend, 0).await;
    let mut http2 = server.http2().await;
    for asked in 1..=20 {
        let [request, reset] = taken_back(2 * asked - 1);
        http2.frames(&[request]).await;
        let asked = asked as usize;
        backend.until(|record| record.requests.len() == asked).await;
        http2.frames(&[reset]).await;
        backend.until(|record| record.closed == asked).await;
    }
}

/// A body that breaks off has not ended.
#[tokio::test]
async fn half_a_body_over_http_2_is_no_request() {
    for leaves in [false, true] {
        let rig = Rig::new().await;
        let mut http2 = rig.server.http2().await;
        http2.headers(1, &instead(":method", b"POST"), false).await;
        http2.data(1, b"half", false).await;
        rig.backend.until(|record| record.requests.len() == 1).await;
        if leaves {
            drop(http2);
        } else {
            http2.frame(RST_STREAM, 0, 1, &CANCEL.to_be_bytes()).await;
        }
        rig.backend.until(|record| record.closed == 1).await;
        assert!(!rig.backend.request().body.whole);
    }
}
