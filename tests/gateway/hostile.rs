//! Backends that lie, stop in the middle, or say too much.

use tokio::sync::watch;

use crate::backend::{Backend, SECRET, answer, json};
use crate::callers::answers::*;
use crate::process::{Gateway, Run};
use crate::wire::ask::{Ask, BOTH_PROTOCOLS};
use crate::within;

const A: &str = r#"{"a":1}"#;

/// Behind `/part` the hostile one beside a good one, behind `/all` alone, behind `/first` alone and as it is.
async fn gateway(hostile: &Backend, good: &Backend) -> Gateway {
    Run::new()
        .route("/part")
        .branch("a", good, "/")
        .branch("b", hostile, "/")
        .route("/all")
        .branch("b", hostile, "/")
        .route("/required")
        .branch("a", good, "/")
        .branch("b", hostile, "/")
        .flag("require", "b")
        .route("/first")
        .branch("b", hostile, "/")
        .flag("merge", "first")
        .start()
        .await
}

/// The branch has failed for a JSON merge, and its text is nowhere.
async fn fails_as_json(name: &str, hostile: &Backend) {
    let good = Backend::json(A);
    let gateway = gateway(hostile, &good).await;
    for protocol in BOTH_PROTOCOLS {
        let answer = gateway.ask(protocol, &Ask::get("/part")).await;
        assert_eq!(answer.text(), r#"{"a":{"a":1}}"#, "{name}");
        answer.incomplete(r#"{"a":{"a":1}}"#);
        for target in ["/all", "/required"] {
            let answer = gateway.ask(protocol, &Ask::get(target)).await;
            assert_eq!(answer.status, 502, "{name}: {answer:?}");
            answer.merge_problem(502);
        }
    }
}

/// The branch has failed for every merge.
async fn fails(name: &str, hostile: &Backend) {
    fails_as_json(name, hostile).await;
    let gateway = gateway(hostile, &Backend::json(A)).await;
    for protocol in BOTH_PROTOCOLS {
        let answer = gateway.ask(protocol, &Ask::get("/first")).await;
        assert_eq!(answer.status, 502, "{name}: {answer:?}");
        answer.merge_problem(502);
    }
}

// B26, B36, L21
#[tokio::test]
async fn a_malformed_head_is_a_failure() {
    for head in MALFORMED_FIELDS {
        let bytes = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\nUPSTREAM");
        fails(head, &Backend::closes_after(bytes)).await;
    }
    for start in MALFORMED_STARTS {
        let bytes = format!("{start}\r\nContent-Length: 2\r\n\r\n{{}}");
        fails(start, &Backend::closes_after(bytes)).await;
    }
    for bytes in OTHER_PROTOCOLS {
        fails("another protocol", &Backend::closes_after(bytes)).await;
    }
}

// B27, L21
#[tokio::test]
async fn an_answer_that_is_cut_short_is_a_failure() {
    for bytes in CUT_HEADS.iter().chain(&CUT_BODIES) {
        fails(bytes, &Backend::closes_after(*bytes)).await;
    }
}

// B30, B35
#[tokio::test]
async fn an_answer_that_is_no_plain_json_is_a_failure() {
    let kinds: [&[&str]; 14] = [
        &["Content-Type: text/html"],
        &["Content-Type: text/plain"],
        &["Content-Type: application/xml"],
        &["Content-Type: application/jsonp"],
        &["Content-Type: application/x-json-stream"],
        &["Content-Type: multipart/form-data"],
        &["Content-Type: application/json; charset=latin1"],
        &["Content-Type: application/json; charset=utf-16"],
        &["Content-Type: application/json", "Content-Type: text/html"],
        &["Content-Type: "],
        &["Content-Type: application/json", "Content-Encoding: gzip"],
        &["Content-Type: application/json", "Content-Encoding: br"],
        &["Content-Encoding: identity, gzip"],
        &["Content-Encoding: UPSTREAM"],
    ];
    for kind in kinds {
        let hostile = Backend::answers(answer("200 OK", kind, r#"{"k":"UPSTREAM"}"#));
        fails_as_json(&kind.join(", "), &hostile).await;
    }
    let page = "<!doctype html><title>UPSTREAM</title>";
    let html = answer("200 OK", &["Content-Type: text/html"], page);
    fails_as_json("a page", &Backend::answers(html)).await;
    fails_as_json("a page that says JSON", &Backend::json(page)).await;
    let gzip =
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\xae\x05\x00\x43\xbf\xa6\xa3\x02\x00\x00\x00";
    let fields = ["Content-Type: application/json"];
    let unsaid = answer("200 OK", &fields, gzip);
    fails_as_json("gzip that doesn't say so", &Backend::answers(unsaid)).await;
}

#[tokio::test]
async fn what_is_json_by_another_name_is_taken() {
    let kinds: [&[&str]; 8] = [
        &["Content-Type: application/json; charset=utf-8"],
        &["Content-Type: APPLICATION/JSON;charset=\"UTF-8\""],
        &["Content-Type: application/hal+json"],
        &["Content-Type: application/problem+json"],
        &["Content-Type: text/json"],
        &["Content-Encoding: identity"],
        &["Content-Encoding: "],
        &[],
    ];
    for kind in kinds {
        let backend = Backend::answers(answer("200 OK", kind, A));
        let gateway = gateway(&backend, &Backend::json("{}")).await;
        gateway.get("/all").await.complete(r#"{"b":{"a":1}}"#);
    }
}

#[tokio::test]
async fn text_that_is_not_one_json_document_is_a_failure() {
    for text in [
        &b""[..],
        b" ",
        b"{",
        b"{\"k\":\"UPSTREAM\"",
        b"{\"k\":\"UPSTREAM\"}}",
        b"{\"k\":\"UPSTREAM\"} {}",
        b"{}\0",
        b"{} UPSTREAM",
        b"{}{}",
        b"{},",
        b"\xef\xbb\xbf{}",
        b"{\"k\":\"\xff\"}",
        b"\xff\xfe{\0}\0",
        b"{\"k\":\"\t\"}",
        b"{\"k\":\"\\x\"}",
        b"{\"k\":\"\\u12\"}",
        b"{k:1}",
        b"{'k':1}",
        b"{\"k\":1,}",
        b"[1,]",
        b"[01]",
        b"[1.]",
        b"[.5]",
        b"[+1]",
        b"[NaN]",
        b"[Infinity]",
        b"[0x1]",
        b"nul",
        b"True",
        b"// UPSTREAM\n{}",
        b"\"UPSTREAM",
        b"data: {}\n\n",
        b"{\"k\":1 \"UPSTREAM\":2}",
    ] {
        let name = String::from_utf8_lossy(text).into_owned();
        fails_as_json(&name, &Backend::answers(json(text))).await;
    }
}

// B32
#[tokio::test]
async fn a_document_of_too_many_values_is_a_failure() {
    let array = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
    let good = Backend::json(A);
    // The array itself counts.
    let most = Backend::json(&array(100_000));
    let gateway = gateway(&most, &good).await;
    let answer = gateway.get("/all").await;
    answer.complete(&format!(r#"{{"b":{}}}"#, array(100_000)));
    fails_as_json("100 001 values", &Backend::json(&array(100_001))).await;
    let objects = format!("[{}{{}}]", "{},".repeat(200_000));
    fails_as_json("200 000 objects", &Backend::json(&objects)).await;
    let members = format!("{{{}\"k\":0}}", "\"k\":0,".repeat(150_000));
    fails_as_json("150 000 members", &Backend::json(&members)).await;
}

// B32
#[tokio::test]
async fn a_document_that_is_nested_too_deep_is_a_failure() {
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let good = Backend::json(A);
    let deepest = Backend::json(&nested(128));
    let gateway = gateway(&deepest, &good).await;
    let answer = gateway.get("/all").await;
    answer.complete(&format!(r#"{{"b":{}}}"#, nested(128)));
    fails_as_json("129 deep", &Backend::json(&nested(129))).await;
    fails_as_json("very deep", &Backend::json(&nested(500_000))).await;
    let open = "[".repeat(1_000_000);
    fails_as_json("only open", &Backend::json(&open)).await;
    let objects = "{\"k\":".repeat(1000) + "0" + &"}".repeat(1000);
    fails_as_json("deep objects", &Backend::json(&objects)).await;
}

// B22
#[tokio::test]
async fn interim_answers_go_before_the_answer() {
    for interim in [
        "HTTP/1.1 103 Early Hints\r\nLink: </UPSTREAM>\r\n\r\n".to_owned(),
        "HTTP/1.1 100 Continue\r\n\r\n".to_owned(),
        "HTTP/1.1 102 Processing\r\n\r\n".repeat(50),
    ] {
        let bytes = [interim.as_bytes(), &json(A)].concat();
        let backend = Backend::answers(bytes);
        let gateway = gateway(&backend, &Backend::json("{}")).await;
        for protocol in BOTH_PROTOCOLS.repeat(2) {
            gateway
                .ask(protocol, &Ask::get("/all"))
                .await
                .complete(r#"{"b":{"a":1}}"#);
            let answer = gateway.ask(protocol, &Ask::get("/first")).await;
            answer.complete(A);
            assert_eq!(answer.field("link"), None);
        }
    }
}

// B24
#[tokio::test]
async fn a_body_where_none_can_be_is_not_read() {
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n\"UPSTREAM\"";
    for head in [
        "HTTP/1.1 204 No Content\r\nContent-Length: 58\r\n\r\n",
        "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
    ] {
        for body in ["", smuggled] {
            let backend = Backend::answers(format!("{head}{body}"));
            let gateway = gateway(&backend, &Backend::json(A)).await;
            for protocol in BOTH_PROTOCOLS.repeat(2) {
                let answer = gateway.ask(protocol, &Ask::get("/part")).await;
                answer.complete(r#"{"a":{"a":1},"b":null}"#);
                assert_eq!(gateway.ask(protocol, &Ask::get("/first")).await.status, 204);
            }
        }
    }
    for head in [
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 58\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\n\r\n",
    ] {
        for body in ["", smuggled] {
            let backend = Backend::answers(format!("{head}{body}"));
            for _ in 0..3 {
                fails("304", &backend).await;
            }
        }
    }
}

// B28: bytes behind an answer are never the next answer.
#[tokio::test]
async fn what_comes_behind_an_answer_is_no_answer() {
    let smuggled = answer(
        "200 OK",
        &["Content-Type: application/json"],
        r#""UPSTREAM""#,
    );
    for real in [
        json("{}"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n".to_vec(),
    ] {
        let backend = Backend::answers([real, smuggled.clone()].concat());
        let gateway = gateway(&backend, &Backend::json(A)).await;
        for protocol in BOTH_PROTOCOLS.repeat(10) {
            let answer = gateway.ask(protocol, &Ask::get("/all")).await;
            // A connection that is given up may take a request with it, never the wrong answer.
            match answer.status {
                200 => answer.complete(r#"{"b":{}}"#),
                _ => drop(answer.merge_problem(502)),
            }
            let answer = gateway.ask(protocol, &Ask::get("/first")).await;
            match answer.status {
                200 => assert_eq!(answer.text(), "{}"),
                _ => drop(answer.merge_problem(502)),
            }
        }
    }
}

// B28: an answer that nobody has asked for yet.
#[tokio::test]
async fn what_comes_before_a_request_is_no_answer() {
    let (sent, mut sends) = watch::channel(0);
    let backend = Backend::new(move |mut peer| {
        let sent = sent.clone();
        async move {
            while peer.request().await.is_some() {
                peer.send(json("{}")).await;
                peer.send(json(r#""UPSTREAM""#)).await;
                sent.send_modify(|count| *count += 1);
            }
        }
    });
    let gateway = gateway(&backend, &Backend::json(A)).await;
    for protocol in BOTH_PROTOCOLS.repeat(10) {
        let answer = gateway.ask(protocol, &Ask::get("/all")).await;
        assert!(!answer.text().contains(SECRET), "{}", answer.text());
        // It is there before the next request is: which of two came first on the wire, nobody could tell.
        let asked = backend.requests().len();
        let seen = within(sends.wait_for(|count| *count == asked)).await;
        drop(seen.expect("the backend is there"));
    }
}

// B19
#[tokio::test]
async fn any_byte_in_a_field_of_an_answer_does_no_harm() {
    let mut bytes = b"HTTP/1.1 200 \xff\xe9\r\nX-Bytes: ".to_vec();
    bytes.extend(0x80..=0xff_u8);
    bytes.extend(b"\r\nCache-Control: \xff\r\nVary: \xff\r\nWatershed-Complete: \xff\r\n");
    bytes.extend(b"Content-Length: 2\r\n\r\n{}");
    let backend = Backend::answers(bytes);
    let gateway = gateway(&backend, &Backend::json(A)).await;
    let sent: String = (0x80..=0xff_u8).map(char::from).collect();
    for protocol in BOTH_PROTOCOLS {
        let answer = gateway.ask(protocol, &Ask::get("/all")).await;
        answer.complete(r#"{"b":{}}"#);
        let answer = gateway.ask(protocol, &Ask::get("/first")).await;
        assert_eq!((answer.status, answer.text()), (200, "{}"));
        assert_eq!(answer.field("x-bytes"), Some(&*sent));
    }
}

// B20
#[tokio::test]
async fn a_head_of_many_fields_is_bounded() {
    let fields = vec!["X-Field: UPSTREAM"; 1000];
    let backend = Backend::answers(answer("200 OK", &fields, "{}"));
    fails("1000 fields", &backend).await;
}

/// A backend that closes between requests costs nothing: the next request finds another connection.
#[tokio::test]
async fn a_backend_that_closes_is_asked_again_on_a_new_connection() {
    let fields = ["Content-Type: application/json", "Connection: close"];
    let backend = Backend::closes_after(answer("200 OK", &fields, "{}"));
    let gateway = gateway(&backend, &Backend::json(A)).await;
    for _ in 0..10 {
        gateway.get("/all").await.complete(r#"{"b":{}}"#);
    }
    assert_eq!(backend.record().connections, 10);
}

/// A request is sent once: if the backend closes a kept connection under it, that is a failure and not a second try of
/// what may have been done already.
#[tokio::test]
async fn no_request_is_sent_twice() {
    let backend = Backend::new(|mut peer| async move {
        // Says nothing of it, and closes.
        if peer.request().await.is_some() {
            peer.send(json("{}")).await;
        }
    });
    let unread = Backend::new(|peer| async move { drop(peer) });
    let gateway = Run::new()
        .route("/x")
        .branch("a", &backend, "/")
        .branch("b", &unread, "/")
        .start()
        .await;
    let calls = 50;
    for id in 0..calls {
        let answer = gateway.post("/x", &format!("body {id}")).await;
        match answer.status {
            200 => answer.incomplete(r#"{"a":{}}"#),
            _ => drop(answer.merge_problem(502)),
        }
    }
    let mut bodies: Vec<String> = backend
        .requests()
        .iter()
        .map(|request| request.text().to_owned())
        .collect();
    let sent = bodies.len();
    bodies.sort_unstable();
    bodies.dedup();
    assert_eq!(bodies.len(), sent);
    assert!(unread.record().connections >= calls);
}

/// Only one in a row of answers is broken, and only that one fails.
#[tokio::test]
async fn a_failure_does_not_stick() {
    let backend = Backend::new(|mut peer| async move {
        let broken = peer.connection % 2 == 1;
        if peer.request().await.is_some() {
            peer.send(match broken {
                true => b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nUPSTREAM".to_vec(),
                false => answer("200 OK", &["Connection: close"], "{}"),
            })
            .await;
            peer.finish().await;
        }
    });
    let gateway = gateway(&backend, &Backend::json(A)).await;
    for _ in 0..5 {
        gateway.get("/all").await.complete(r#"{"b":{}}"#);
        gateway.get("/all").await.merge_problem(502);
    }
}
