//! The server's side: its flags, what is on standard output and error, connections, ordinary requests, the demo.

use crate::backend::{Backend, answer};
use crate::caller::request;
use crate::process::Run;
use crate::wire::ask::{Ask, BOTH_PROTOCOLS, Protocol};
use crate::wire::hpack;
use crate::wire::http1::Framing;
use crate::wire::http2::{CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS};
use crate::within;

/// Fields that are the two ends' business.
const END_TO_END: [(&str, &str); 14] = [
    ("accept", "text/html"),
    ("accept-encoding", "gzip, br"),
    ("authorization", "Bearer token"),
    ("cookie", "a=1; b=2"),
    ("if-match", "\"e\""),
    ("if-modified-since", "Sat, 01 Jan 2000 00:00:00 GMT"),
    ("if-none-match", "\"e\""),
    ("if-range", "\"e\""),
    ("origin", "https://caller.test"),
    ("range", "bytes=0-1"),
    ("referer", "https://caller.test/x"),
    ("user-agent", "test"),
    ("via", "1.0 before"),
    ("x-own", "1"),
];

/// A passthrough takes nothing from a request or an answer that is the two ends' business.
#[tokio::test]
async fn requests_and_answers_pass_as_they_are() {
    let fields = [
        "ETag: \"e\"",
        "Vary: accept",
        "Content-Range: bytes 0-1/9",
        "X-Own: 2",
    ];
    let backend = Backend::answers(answer("206 Partial Content", &fields, "ab"));
    let proxy = Run::to(&backend).start().await;
    for protocol in BOTH_PROTOCOLS {
        for method in [
            "GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "X-OWN",
        ] {
            let body = if method == "GET" { "" } else { "body" };
            let ask = END_TO_END
                .iter()
                .fold(Ask::new(method, "/a?b=c"), |ask, (name, value)| {
                    ask.field(name, value)
                });
            let answer = proxy.ask(protocol, &ask.body(body)).await;
            assert_eq!((answer.status, answer.text()), (206, "ab"));
            for (name, value) in [("etag", "\"e\""), ("vary", "accept"), ("x-own", "2")] {
                assert_eq!(answer.field(name), Some(value));
            }
            assert_eq!(answer.field("watershed-complete"), None);
            let request = backend.requests().pop().expect("a request");
            assert_eq!((&*request.method, &*request.target), (method, "/a?b=c"));
            assert_eq!(request.text(), body);
            for (name, value) in END_TO_END {
                assert_eq!(request.field(name), Some(value), "{method} {protocol:?}");
            }
            let framing = match (protocol, body) {
                (_, "") => None,
                (Protocol::Http1, _) => Some(Framing::Length(4)),
                // Nobody has said how long it is.
                (Protocol::Http2, _) => Some(Framing::Chunked),
            };
            assert_eq!(request.head.framing(), framing, "{method} {protocol:?}");
        }
    }
}

/// What else may be expected is the backend's to judge.
#[tokio::test]
async fn another_expectation_is_passed_on() {
    let backend = Backend::json("{}");
    let proxy = Run::to(&backend).start().await;
    let bytes = request("POST", "/", &["Expect: more"], "body");
    assert_eq!(proxy.send(bytes).await.text(), "{}");
    assert_eq!(backend.request().field("expect"), Some("more"));
}

/// B21: the backend decides on the head alone.
#[tokio::test]
async fn what_is_expected_may_be_refused() {
    let backend = Backend::new(|mut peer| async move {
        if peer.head().await.is_some() {
            let fields = ["Connection: close"];
            peer.send(answer("417 Expectation Failed", &fields, "no"))
                .await;
            peer.finish().await;
        }
    });
    let proxy = Run::to(&backend).start().await;
    let mut caller = proxy.connect().await;
    let fields = ["Expect: 100-continue", "Content-Length: 1000000"];
    caller.send(request("POST", "/", &fields, "")).await;
    let mut answer = caller.answer_of_the_server().await;
    if answer.status == 100 {
        answer = caller.answer_of_the_server().await;
    }
    assert_eq!((answer.status, answer.text()), (417, "no"));
    // Nothing of what comes is a request.
    caller
        .send(request("GET", "/smuggled", &[], "").repeat(3))
        .await;
    caller.closed().await;
    assert_eq!(backend.requests().len(), 1);
}

/// All at once, and nothing of one is in another.
#[tokio::test]
async fn concurrent_requests_do_not_cross() {
    let echo = Backend::replies(|request| {
        let id = request.field("x-id").unwrap_or_default();
        answer(
            "200 OK",
            &[&format!("X-Id: {id}")],
            format!("{} {id} {}", request.target, request.text()),
        )
    });
    let proxy = Run::to(&echo).start().await;
    let calls = (0..100).map(|id| {
        let proxy = &proxy;
        async move {
            let id = id.to_string();
            let ask = Ask::new("POST", &format!("/{id}"))
                .field("X-Id", &id)
                .body(id.repeat(100));
            for protocol in BOTH_PROTOCOLS {
                let answer = proxy.ask(protocol, &ask).await;
                assert_eq!(answer.text(), format!("/{id} {id} {}", id.repeat(100)));
                assert_eq!(answer.field("x-id"), Some(&*id));
            }
        }
    });
    futures_util::future::join_all(calls).await;
}

/// And over one connection.
#[tokio::test]
async fn streams_do_not_cross() {
    let echo = Backend::replies(|request| answer("200 OK", &[], &request.target));
    let proxy = Run::to(&echo).start().await;
    let mut http2 = proxy.http2().await;
    let streams: Vec<u32> = (0..50).map(|id| 2 * id + 1).collect();
    for stream in &streams {
        Ask::get(&format!("/{stream}"))
            .send_over_http2(&mut http2, *stream)
            .await;
    }
    let mut bodies = std::collections::BTreeMap::new();
    while bodies.len() < streams.len() {
        let frame = http2.next().await.expect("a frame");
        if frame.kind == DATA && !frame.payload.is_empty() {
            bodies.insert(frame.stream, frame.payload);
        }
    }
    for stream in streams {
        assert_eq!(bodies[&stream], format!("/{stream}").into_bytes());
    }
}

/// B20: the example's bounds on what a caller sends, which hyper keeps. A head as large as they allow passes.
#[tokio::test]
async fn the_head_of_a_request_is_bounded_by_hyper() {
    let backend = Backend::json("{}");
    let proxy = Run::to(&backend).start().await;
    // With Host, 128 fields.
    let most = request("GET", "/", &["X-Field: 1"; 127], "");
    let large = request(
        "GET",
        "/",
        &[&format!("X-Long: {}", "x".repeat(60 << 10))],
        "",
    );
    for bytes in [most, large] {
        assert_eq!(proxy.send(bytes).await.status, 200);
    }
    let many = request("GET", "/", &["X-Field: 1"; 128], "");
    let long = |length| {
        request(
            "GET",
            "/",
            &[&format!("X-Long: {}", "x".repeat(length))],
            "",
        )
    };
    let longest = request("GET", &format!("/{}", "x".repeat(1 << 16)), &[], "");
    for bytes in [many, long(1 << 16), long(1 << 20), longest] {
        let mut caller = proxy.connect().await;
        caller.send(bytes).await;
        assert_eq!(caller.answer_of_the_server().await.status, 431);
    }
    // Over HTTP/2 each field counts for 32 bytes more.
    for (fields, status) in [(60, 200), (64, 431)] {
        let mut http2 = proxy.http2().await;
        let ask = (0..fields).fold(Ask::get("/"), |ask, _| {
            ask.field("x-long", "x".repeat(1000))
        });
        let block = hpack::encode(&ask.http2());
        let (first, rest) = block.split_at(10_000);
        http2.frame(HEADERS, END_STREAM, 1, first).await;
        let (rest, last) = rest.split_at(rest.len() - 10_000);
        for rest in rest.chunks(1 << 14) {
            http2.frame(CONTINUATION, 0, 1, rest).await;
        }
        http2.frame(CONTINUATION, END_HEADERS, 1, last).await;
        assert_eq!(http2.heard(1).await.answer().status, status);
    }
    assert_eq!(backend.requests().len(), 3);
}

/// Who runs it sees why there was no answer, who asks does not.
#[tokio::test]
async fn why_the_backend_failed_is_a_line_on_standard_error() {
    let chunked = request("POST", "/", &["Transfer-Encoding: chunked"], "");
    let broken = [&chunked[..], b"g\r\n"].concat();
    let ordinary = request("GET", "/", &[], "");
    let malformed = "HTTP/1.1 200 OK\r\nContent-Length: +9\r\n\r\n";
    let large = format!("X-Long: {}", "x".repeat(1 << 16));
    let large = answer("200 OK", &[&large], "");
    for (backend, bytes, status, why, cause) in [
        (
            Backend::refuses(),
            &ordinary,
            502,
            "no connection could be made: ",
            "refused",
        ),
        (
            Backend::closes_after(malformed),
            &ordinary,
            502,
            "the response is not valid HTTP: ",
            "content-length",
        ),
        (
            Backend::answers(large),
            &ordinary,
            502,
            "its head is over the bound",
            "",
        ),
        (
            Backend::hangs(),
            &ordinary,
            504,
            "not finished at the deadline",
            "",
        ),
        (
            Backend::json("{}"),
            &broken,
            400,
            "the body of the request failed: ",
            "chunk",
        ),
    ] {
        let mut proxy = Run::to(&backend).flag("timeout-ms", "300").start().await;
        let answer = proxy.send(bytes).await;
        assert_eq!(answer.status, status, "{why}");
        assert!(
            !answer.text().contains(why.trim_end_matches(": ")),
            "{answer:?}"
        );
        let line = proxy.stderr_line().await;
        let told = line
            .strip_prefix("hyper_proxy: ")
            .and_then(|told| told.strip_prefix(why));
        let causes = told.unwrap_or_else(|| panic!("{line}"));
        // With its causes, where there are any.
        assert_eq!(causes.is_empty(), cause.is_empty(), "{line}");
        assert!(causes.to_lowercase().contains(cause), "{line}");
        proxy.terminate();
        assert_eq!(proxy.exited().await.code(), Some(0));
        assert_eq!(proxy.stderr(), format!("{line}\n"));
    }
}

/// Whoever leaves is worked for no longer, be it before the answer or while that has nothing to say.
#[tokio::test]
async fn a_caller_that_leaves_ends_its_request() {
    let quiet = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    for bytes in ["", quiet] {
        let backend = Backend::hangs_after(bytes);
        let proxy = Run::to(&backend).start().await;
        let mut caller = proxy.connect().await;
        caller.send(request("GET", "/", &[], "")).await;
        let mut http2 = proxy.http2().await;
        Ask::get("/").send_over_http2(&mut http2, 1).await;
        backend.until(|record| record.requests.len() == 2).await;
        if !bytes.is_empty() {
            within(caller.wire.head()).await.expect("a head");
            within(caller.wire.chunk()).await.expect("an event");
            http2.head(1).await.expect("a head");
            http2.chunk(1).await.expect("an event");
        }
        drop(caller);
        backend.until(|record| record.closed == 1).await;
        drop(http2);
        backend.until(|record| record.closed == 2).await;
    }
}

/// The first line tells where; the demo's backend is there, and what to try works.
#[tokio::test]
async fn without_a_backend_there_is_a_demo_to_try() {
    let mut proxy = Run::new().start().await;
    let line = proxy.stderr_line().await;
    let urls: Vec<&str> = line
        .split(' ')
        .filter(|word| word.starts_with("http://"))
        .collect();
    let origin = format!("http://{}", proxy.address);
    assert_eq!(urls, [format!("{origin}/"), format!("{origin}/events")]);
    // It shows what a backend gets, which says where the caller is.
    let mut caller = proxy.connect().await;
    caller
        .send(request("GET", "/", &["X-Forwarded-For: 192.0.2.1"], ""))
        .await;
    let head = within(caller.wire.head()).await.expect("an answer");
    assert!(head.start.starts_with("HTTP/1.1 200"), "{head:?}");
    let body = within(caller.wire.body(head.framing().expect("a length"))).await;
    let text = String::from_utf8(body.bytes).unwrap();
    assert!(
        text.contains("\"x-forwarded-for\": \"127.0.0.1\""),
        "{text}"
    );

    caller.send(request("GET", "/events", &[], "")).await;
    let head = within(caller.wire.head()).await.expect("an answer");
    assert_eq!(head.fields.get("content-type"), Some("text/event-stream"));
    for id in 0..5 {
        let event = within(caller.wire.chunk()).await.expect("an event");
        assert_eq!(String::from_utf8_lossy(&event), format!("data: {id}\n\n"));
    }
    assert_eq!(within(caller.wire.chunk()).await, Some(Vec::new()));
    let answer = proxy.ask(Protocol::Http2, &Ask::get("/unknown")).await;
    assert_eq!(answer.status, 404);
}

async fn fails(run: Run, why: &[&str]) {
    let exit = run.exits().await;
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert_eq!(exit.stdout, "");
    assert!(!exit.stderr.contains("panicked"), "{exit:?}");
    for why in why {
        assert!(exit.stderr.contains(why), "{why}: {}", exit.stderr);
    }
}

#[tokio::test]
async fn a_wrong_flag_is_explained() {
    for (flag, value) in [
        ("listen", "nowhere"),
        ("listen", "127.0.0.1"),
        ("listen", "127.0.0.1:99999"),
        ("backend", ""),
        ("backend", "/path"),
        ("backend", "127.0.0.1:80"),
        ("backend", "ftp://127.0.0.1/"),
        ("backend", "http://"),
        ("backend", "http://user@127.0.0.1/"),
        ("backend", "http://127.0.0.1/?query"),
        ("backend", "http://127.0.0.1/{id}"),
        ("backend", "http://{host}/"),
        ("backend", "http://127.0.0.1:99999/"),
        ("backend", "http://127.0.0.1/../x"),
        ("backend", "http://127.0.0.1/#x"),
        ("trusted-hops", "-1"),
        ("trusted-hops", "one"),
        ("trusted-hops", "65"),
        ("trusted-hops", ""),
        ("timeout-ms", "0"),
        ("timeout-ms", "1s"),
        ("timeout-ms", "-1"),
        ("timeout-ms", "99999999999999999999"),
    ] {
        fails(
            Run::new().arg(format!("--{flag}={value}")),
            &[&format!("--{flag}")],
        )
        .await;
    }
    fails(Run::new().arg("--unknown"), &["--unknown"]).await;
    fails(Run::new().arg("unknown"), &["unknown"]).await;
    fails(Run::new().arg("--backend"), &["--backend"]).await;
    let twice = Run::new().flag("timeout-ms", "1").flag("timeout-ms", "2");
    fails(twice, &["--timeout-ms"]).await;
}

#[tokio::test]
async fn help_names_every_flag() {
    let version = Run::new().arg("--version").exits().await;
    let said = format!("hyper_proxy {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((version.code, version.stdout), (Some(0), said));
    let exit = Run::new().arg("--help").exits().await;
    assert_eq!((exit.code, &*exit.stderr), (Some(0), ""));
    for flag in ["--listen", "--backend", "--trusted-hops", "--timeout-ms"] {
        assert!(exit.stdout.contains(flag), "{}", exit.stdout);
    }
}

#[tokio::test]
async fn an_address_that_is_taken_is_said_so() {
    let backend = Backend::json("{}");
    let taken = backend.address().to_string();
    let exit = Run::to(&backend).flag("listen", &taken).exits().await;
    assert_eq!(exit.code, Some(1));
    assert_eq!(exit.stdout, "");
    assert_eq!(exit.stderr.matches('\n').count(), 1, "{exit:?}");
    let start = format!("hyper_proxy: --listen {taken}: ");
    assert!(exit.stderr.starts_with(&start), "{exit:?}");
    assert!(exit.stderr.to_lowercase().contains("in use"), "{exit:?}");
}

/// Without the feature it could reach no such backend.
#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn a_backend_over_tls_needs_the_feature() {
    for url in ["https://127.0.0.1/", "HTTPS://backend.test/v1"] {
        let run = Run::new().flag("backend", url);
        fails(run, &["--backend", "needs the feature tls"]).await;
    }
}

#[cfg(feature = "tls")]
#[tokio::test]
async fn a_backend_may_be_spoken_to_over_tls() {
    let refuses = format!("https://{}/", Backend::refuses().address());
    let proxy = Run::new().flag("backend", &refuses).start().await;
    proxy.get("/").await.problem(502);
}

/// The largest time is as good as none.
#[tokio::test]
async fn any_time_will_do() {
    let backend = Backend::json("{}");
    let longest = u64::MAX.to_string();
    let proxy = Run::to(&backend).flag("timeout-ms", &longest).start().await;
    assert_eq!(proxy.get("/").await.text(), "{}");
}
