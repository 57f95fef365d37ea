//! What the branches are asked: the caller's method, body and end-to-end fields, at a target that nobody escapes from.

use serde_json::Value;

use crate::backend::{Backend, json};
use crate::caller::{chunk, request};
use crate::process::{Gateway, Run};
use crate::serving::Http2;
use crate::wire::ask::{Ask, BOTH_PROTOCOLS};
use crate::wire::http1::Framing;

/// Two backends, `a` with and `b` without credentials, behind `/dash/{id}` and, for the first success, `/first/{id}`.
struct Rig {
    a: Backend,
    b: Backend,
    gateway: Gateway,
}

impl Rig {
    async fn new() -> Self {
        let (a, b) = (Backend::json("{}"), Backend::json("{}"));
        let gateway = Run::new()
            .route("/dash/{id}")
            .branch("a", &a, "/users/{id}")
            .branch("b", &b, "/orders?user={id}")
            .flag("credentials", "a")
            .route("/first/{id}")
            .branch("a", &a, "/users/{id}")
            .branch("b", &b, "/orders?user={id}")
            .flag("credentials", "a")
            .flag("merge", "first")
            .start()
            .await;
        Self { a, b, gateway }
    }

    /// Sends a request that is answered with both parts.
    async fn send(&self, bytes: impl AsRef<[u8]>) {
        self.gateway.send(bytes).await.complete(BOTH);
    }
}

const BOTH: &str = r#"{"a":{},"b":{}}"#;

// L40, L41
#[tokio::test]
async fn every_branch_gets_the_method_and_the_whole_body() {
    for method in [
        "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND", "GET",
    ] {
        let rig = Rig::new().await;
        let body = "body of ".to_owned() + method;
        rig.send(request(method, "/dash/7", &["Content-Type: text/x"], &body))
            .await;
        for (backend, target) in [(&rig.a, "/users/7"), (&rig.b, "/orders?user=7")] {
            let request = backend.request();
            assert_eq!((&*request.method, &*request.target), (method, target));
            assert_eq!(request.text(), body);
            assert_eq!(request.field("content-type"), Some("text/x"));
            let framing = request.head.framing();
            assert_eq!(framing, Some(Framing::Length(body.len())));
        }
    }
}

#[tokio::test]
async fn a_request_without_a_body_has_none() {
    for method in ["GET", "DELETE", "OPTIONS", "POST"] {
        let rig = Rig::new().await;
        rig.send(request(method, "/dash/7", &[], "")).await;
        for backend in [&rig.a, &rig.b] {
            let request = backend.request();
            assert_eq!((&*request.method, request.text()), (method, ""));
            let framing = (method == "POST").then_some(Framing::Length(0));
            assert_eq!(request.head.framing(), framing);
        }
    }
}

// L40, B21
#[tokio::test]
async fn a_chunked_body_reaches_every_branch_whole() {
    for method in ["POST", "GET"] {
        let rig = Rig::new().await;
        let mut caller = rig.gateway.connect().await;
        let head = request(method, "/dash/7", &["Transfer-Encoding: chunked"], "");
        caller.send(head).await;
        // Both branches have begun when the body goes on.
        for backend in [&rig.a, &rig.b] {
            backend.until(|record| record.requests.len() == 1).await;
        }
        caller.send(chunk(b"one ")).await;
        caller.send(chunk(b"two")).await;
        caller.send("0\r\n\r\n").await;
        caller.answer().await.complete(BOTH);
        for backend in [&rig.a, &rig.b] {
            assert_eq!(backend.request().text(), "one two");
        }
    }
}

// L41: a backend that has no use for the body doesn't keep its sibling from all of it.
#[tokio::test]
async fn a_branch_that_ignores_the_body_takes_nothing_from_its_sibling() {
    let ignores = Backend::new(|mut peer| async move {
        if peer.head().await.is_some() {
            peer.send(json("{}")).await;
            peer.finish().await;
        }
    });
    let reads = Backend::json("{}");
    let gateway = Run::new()
        .route("/x")
        .branch("ignores", &ignores, "/")
        .branch("reads", &reads, "/")
        .flag("timeout", "15s")
        .start()
        .await;
    let body = "x".repeat(1 << 20);
    let mut caller = gateway.connect().await;
    let head = format!(
        "POST /x HTTP/1.1\r\nHost: g\r\nContent-Length: {}\r\n\r\n",
        1 << 20
    );
    caller.send(head).await;
    caller.send(&body[..10]).await;
    ignores.until(|record| record.requests.len() == 1).await;
    caller.send(&body[10..]).await;
    let answer = caller.answer().await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let request = reads.request();
    assert!(request.body.whole);
    assert_eq!(request.text(), body);
}

/// What a passthrough may hand on, a merge can't use.
#[tokio::test]
async fn no_branch_is_offered_another_protocol_or_trailers() {
    let rig = Rig::new().await;
    let fields = [
        "Connection: Upgrade, TE",
        "Upgrade: websocket",
        "TE: trailers",
        "X-Three: 3",
    ];
    for merge in ["dash", "first"] {
        let bytes = request("GET", &format!("/{merge}/7"), &fields, "");
        assert_eq!(rig.gateway.send(bytes).await.status, 200);
    }
    // The backends assert the rest of it, of every request.
    for request in rig.a.requests().iter().chain(&rig.b.requests()) {
        assert_eq!(request.field("x-three"), Some("3"));
    }
}

// B07: what `Connection` nominates can't unframe a request.
#[tokio::test]
async fn nominated_framing_fields_do_no_harm() {
    let rig = Rig::new().await;
    let fields = [
        "Connection: host, content-length, content-type, transfer-encoding",
        "Content-Type: text/x",
    ];
    rig.send(request("POST", "/dash/7", &fields, "body")).await;
    for backend in [&rig.a, &rig.b] {
        assert_eq!(backend.request().text(), "body");
    }
}

#[tokio::test]
async fn a_json_merge_asks_for_whole_plain_representations() {
    let fields = [
        "Accept-Encoding: gzip, br",
        "Range: bytes=0-1",
        "If-Match: \"e\"",
        "If-None-Match: \"e\"",
        "If-Modified-Since: Sat, 01 Jan 2000 00:00:00 GMT",
        "If-Unmodified-Since: Sat, 01 Jan 2000 00:00:00 GMT",
        "If-Range: \"e\"",
        "Accept-Language: de",
    ];
    let rig = Rig::new().await;
    rig.send(request("GET", "/dash/7", &fields, "")).await;
    for backend in [&rig.a, &rig.b] {
        let request = backend.request();
        assert_eq!(request.field("accept-encoding"), None);
        assert_eq!(request.field("accept-language"), Some("de"));
    }

    // The first success is answered as it is, so the caller's encodings are as good here.
    let a = Backend::json("{}");
    let gateway = Run::new()
        .route("/first")
        .branch("a", &a, "/")
        .flag("merge", "first")
        .start()
        .await;
    let answer = gateway.send(request("GET", "/first", &fields, "")).await;
    answer.complete("{}");
    let encodings = a.request().field("accept-encoding").map(str::to_owned);
    assert_eq!(encodings.as_deref(), Some("gzip, br"));
}

#[tokio::test]
async fn credentials_go_where_they_are_wanted() {
    let rig = Rig::new().await;
    let fields = [
        "Authorization: Bearer token",
        "Cookie: a=1",
        "Cookie: b=2",
        "X-Other: 1",
    ];
    rig.send(request("GET", "/dash/7", &fields, "")).await;
    let trusted = rig.a.request();
    assert_eq!(trusted.field("authorization"), Some("Bearer token"));
    let cookies = trusted.head.fields.all("cookie").join("; ");
    assert_eq!(cookies, "a=1; b=2");
    let other = rig.b.request();
    assert_eq!(other.field("authorization"), None);
    assert_eq!(other.head.fields.all("cookie"), [""; 0]);
    assert_eq!(other.field("x-other"), Some("1"));
}

/// A chunked request that announces these trailers, and what comes behind its chunks.
fn with_trailers(trailers: &[(&str, &str)]) -> (Vec<u8>, Vec<u8>) {
    let names: Vec<&str> = trailers.iter().map(|(name, _)| *name).collect();
    let announced = format!("Trailer: {}", names.join(", "));
    let fields = ["Transfer-Encoding: chunked", &announced];
    let mut bytes = request("POST", "/dash/7", &fields, "");
    bytes.extend(chunk(b"body"));
    let lines = trailers
        .iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"));
    let end = format!("0\r\n{}\r\n", lines.collect::<String>());
    (bytes, end.into_bytes())
}

/// The trailers that reach `a` and `b`.
async fn trailers_sent(rig: &Rig, trailers: &[(&str, &str)]) -> [Vec<String>; 2] {
    let (bytes, end) = with_trailers(trailers);
    let mut caller = rig.gateway.connect().await;
    caller.send(bytes).await;
    // Neither can know yet how long the body is.
    for backend in [&rig.a, &rig.b] {
        backend.until(|record| record.requests.len() == 1).await;
    }
    caller.send(end).await;
    caller.answer().await.complete(BOTH);
    [&rig.a, &rig.b].map(|backend| {
        let request = backend.request();
        assert_eq!(request.text(), "body");
        let names = request.body.trailers.names();
        names.into_iter().map(str::to_owned).collect()
    })
}

// B11
#[tokio::test]
async fn credentials_do_not_slip_through_as_trailers() {
    let rig = Rig::new().await;
    let trailers = [("Authorization", "Bearer t"), ("Cookie", "c=1")];
    let [_, without_credentials] = trailers_sent(&rig, &trailers).await;
    assert_eq!(without_credentials, [""; 0]);
}

// B11
#[tokio::test]
async fn fields_of_the_hop_and_of_the_framing_are_no_trailers() {
    let rig = Rig::new().await;
    let trailers = [
        ("Proxy-Authorization", "Basic x"),
        ("Connection", "close"),
        ("Keep-Alive", "timeout=5"),
        ("Upgrade", "h2c"),
        ("TE", "trailers"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Length", "99"),
        ("Host", "evil.test"),
    ];
    for sent in trailers_sent(&rig, &trailers).await {
        assert_eq!(sent, [""; 0]);
    }
}

/// However soon the body has ended: on a second branch, or on a later call whose connections are there already.
#[tokio::test]
async fn trailers_reach_every_branch_or_none() {
    let rig = Rig::new().await;
    let (bytes, end) = with_trailers(&[("X-Sum", "1")]);
    let bytes = [bytes, end].concat();
    let (callers, each) = (32, 20);
    let calls = (0..callers).map(|_| async {
        let mut caller = rig.gateway.connect().await;
        for _ in 0..each {
            caller.send(&bytes).await;
            caller.answer().await.complete(BOTH);
        }
    });
    futures_util::future::join_all(calls).await;
    let requests = [rig.a.requests(), rig.b.requests()].concat();
    let sums = requests
        .iter()
        .filter(|request| request.body.trailers.get("x-sum").is_some())
        .count();
    assert_eq!(requests.len(), 2 * callers * each);
    assert!(
        [0, requests.len()].contains(&sums),
        "{sums} of {}",
        requests.len()
    );
}

// B05, B06
#[tokio::test]
async fn the_host_is_the_backend_s_whatever_the_caller_s_is() {
    for bytes in [
        "GET /dash/7 HTTP/1.1\r\nHost: evil.test\r\n\r\n",
        "GET http://evil.test/dash/7 HTTP/1.1\r\nHost: other.test\r\n\r\n",
        "GET http://evil.test:1/dash/7 HTTP/1.1\r\nHost: evil.test:1\r\n\r\n",
        "GET /dash/7 HTTP/1.0\r\nConnection: close\r\n\r\n",
    ] {
        let rig = Rig::new().await;
        rig.send(bytes).await;
        // The backends assert that there is one Host, their own.
        assert_eq!(rig.a.request().target, "/users/7");
        assert_eq!(rig.b.request().target, "/orders?user=7");
    }
    let rig = Rig::new().await;
    for bytes in [
        "GET /dash/7 HTTP/1.1\r\nHost: a.test\r\nHost: b.test\r\n\r\n",
        "GET /dash/7 HTTP/1.1\r\n\r\n",
        "GET /dash/7 HTTP/1.1\r\nHost: \r\n\r\n",
        "GET /dash/7 HTTP/1.1\r\nHost: a b/@\r\n\r\n",
    ] {
        rig.gateway.send(bytes).await.problem(400);
    }
    assert_eq!(rig.a.record().connections + rig.b.record().connections, 0);
}

#[tokio::test]
async fn the_caller_s_query_is_not_the_backend_s() {
    let rig = Rig::new().await;
    let bytes = request("GET", "/dash/7?user=8&x={id}&%2e%2e/?#", &[], "");
    let mut caller = rig.gateway.connect().await;
    caller.send(bytes).await;
    let answer = caller.answer_of_the_server().await;
    if answer.status == 200 {
        assert_eq!(rig.a.request().target, "/users/7");
        assert_eq!(rig.b.request().target, "/orders?user=7");
    }
}

// B13
#[tokio::test]
async fn a_value_can_not_leave_its_place() {
    let rig = Rig::new().await;
    for (value, encoded) in [
        ("7", "7"),
        ("a%2fb", "a%2Fb"),
        ("a%2Fb", "a%2Fb"),
        ("%252e%252e", "%252e%252e"),
        ("%252e%252e%252fadmin", "%252e%252e%252fadmin"),
        ("a%3fb%3dc", "a%3Fb%3Dc"),
        ("a%26user%3d8", "a%26user%3D8"),
        ("a&user=8", "a%26user%3D8"),
        ("a%23b", "a%23b"),
        ("a%0d%0aX-Injected:%201", "a%0D%0AX-Injected%3A%201"),
        ("a+b%20c", "a%2Bb%20c"),
        ("%7bid%7d", "%7Bid%7D"),
        ("a;b=c,d", "a%3Bb%3Dc%2Cd"),
        ("%40evil.test", "%40evil.test"),
        ("http:%2f%2fevil.test", "http%3A%2F%2Fevil.test"),
        ("...", "..."),
        (".a", ".a"),
        ("%c3%a9", "%C3%A9"),
    ] {
        rig.send(request("GET", &format!("/dash/{value}"), &[], ""))
            .await;
        let (a, b) = (rig.a.requests(), rig.b.requests());
        let (a, b) = (&a.last().unwrap().target, &b.last().unwrap().target);
        assert_eq!(a, &format!("/users/{encoded}"), "{value}");
        assert_eq!(b, &format!("/orders?user={encoded}"), "{value}");
    }
    assert_eq!(rig.a.requests().len(), 18);
}

// B13
#[tokio::test]
async fn a_value_that_would_climb_is_refused() {
    let rig = Rig::new().await;
    for value in [
        "..",
        ".",
        "%2e%2e",
        "%2E%2e",
        ".%2e",
        "%2e",
        "..%2f..%2fadmin",
        "..%2F..%2Fadmin",
        "a%2f..%2f..%2fadmin",
        "..%5cadmin",
        "%2e%2e%5cadmin",
        "a%2f%2e%2e",
        "a%00b",
        "..%00",
        "%",
        "%2",
        "%zz",
        "a%",
        "%ff",
        "%c3%28",
        "%c0%ae%c0%ae",
        "%ed%a0%80",
    ] {
        for route in ["dash", "first"] {
            let ask = Ask::get(&format!("/{route}/{value}"));
            for protocol in BOTH_PROTOCOLS {
                rig.gateway.ask(protocol, &ask).await.problem(400);
            }
        }
    }
    // `b` has the value in its query, where it could do no harm; it may have been asked before `a` refused it.
    assert_eq!(rig.a.requests().len(), 0);
}

// B13
#[tokio::test]
async fn a_value_is_one_segment() {
    let rig = Rig::new().await;
    for target in [
        "/dash/../admin",
        "/dash/7/../../admin",
        "/dash/7/",
        "/dash/",
        "/dash",
        "/dash//7",
        "/DASH/7",
        "/%64ash/7",
        "//dash/7",
        "/./dash/7",
    ] {
        let answer = rig.gateway.get(target).await;
        answer.problem(404);
    }
    assert_eq!(rig.a.record().connections + rig.b.record().connections, 0);
}

// B13, B15
#[tokio::test]
async fn a_rest_of_the_path_can_not_leave_its_place_either() {
    let backend = Backend::json("{}");
    let gateway = Run::new()
        .route("/{*rest}")
        .branch("a", &backend, "/files/{rest}")
        .start()
        .await;
    for (target, expected) in [
        ("/a/b", Some("/files/a%2Fb")),
        ("//evil.test/x", Some("/files/%2Fevil.test%2Fx")),
        (
            "/http://evil.test/",
            Some("/files/http%3A%2F%2Fevil.test%2F"),
        ),
        ("/a//b", Some("/files/a%2F%2Fb")),
        ("/..", None),
        ("/a/../b", None),
        ("/a/%2e%2e/b", None),
        ("/a/..%2fb", None),
        ("/a/./b", None),
    ] {
        let answer = gateway.get(target).await;
        match expected {
            Some(expected) => {
                answer.complete(r#"{"a":{}}"#);
                assert_eq!(backend.requests().last().unwrap().target, expected);
            }
            None => drop(answer.problem(400)),
        }
    }
    assert_eq!(backend.requests().len(), 4);
}

// B15, B16
#[tokio::test]
async fn a_target_is_never_an_address() {
    let rig = Rig::new().await;
    let own = rig.a.address();
    for bytes in [
        "GET //evil.test/x HTTP/1.1\r\nHost: g\r\n\r\n".to_owned(),
        format!("GET //{own}/users/7 HTTP/1.1\r\nHost: g\r\n\r\n"),
        format!("GET http://{own}/users/7 HTTP/1.1\r\nHost: {own}\r\n\r\n"),
        "GET http://evil.test HTTP/1.1\r\nHost: evil.test\r\n\r\n".to_owned(),
    ] {
        let answer = rig.gateway.send(&bytes).await;
        answer.problem(404);
    }
    for bytes in [
        format!("CONNECT {own} HTTP/1.1\r\nHost: {own}\r\n\r\n"),
        "TRACE /dash/7 HTTP/1.1\r\nHost: g\r\n\r\n".to_owned(),
    ] {
        let answer = rig.gateway.send(&bytes).await;
        answer.problem(501);
    }
    let bytes = "OPTIONS * HTTP/1.1\r\nHost: g\r\n\r\n";
    assert_eq!(rig.gateway.send(bytes).await.status, 204);
    for bytes in [
        "GET evil.test/dash/7 HTTP/1.1\r\nHost: g\r\n\r\n",
        "GET dash/7 HTTP/1.1\r\nHost: g\r\n\r\n",
        "GET  HTTP/1.1\r\nHost: g\r\n\r\n",
        "GET /dash/7 /dash/8 HTTP/1.1\r\nHost: g\r\n\r\n",
    ] {
        let mut caller = rig.gateway.connect().await;
        caller.send(bytes).await;
        let status = caller.answer_of_the_server().await.status;
        assert!([400, 404].contains(&status), "{bytes}: {status}");
    }
    assert_eq!(rig.a.record().connections + rig.b.record().connections, 0);
}

// B13, B19
#[tokio::test]
async fn bytes_beyond_ascii_in_a_target_are_encoded_or_refused() {
    let rig = Rig::new().await;
    for value in [
        &b"\xff"[..],
        b"\xc3\xa9",
        b"\x80",
        b"a\x7fb",
        b"a\x00b",
        b"a\tb",
    ] {
        let bytes = [b"GET /dash/", value, b" HTTP/1.1\r\nHost: g\r\n\r\n"].concat();
        let mut caller = rig.gateway.connect().await;
        caller.send(bytes).await;
        let status = caller.answer_of_the_server().await.status;
        assert!([200, 400].contains(&status), "{value:?}: {status}");
    }
    rig.send(request("GET", "/dash/7", &[], "")).await;
    // The backends assert that every target is made of what may stand in one.
}

/// A caller who goes away in the middle of its body has sent no request to any branch.
#[tokio::test]
async fn half_a_body_is_no_branch_s_request() {
    let rig = Rig::new().await;
    let mut caller = rig.gateway.connect().await;
    let head = request("POST", "/dash/7", &["Content-Length: 10"], "");
    caller.send([&head[..], b"half"].concat()).await;
    for backend in [&rig.a, &rig.b] {
        backend.until(|record| record.requests.len() == 1).await;
    }
    drop(caller);
    for backend in [&rig.a, &rig.b] {
        backend.until(|record| record.closed == 1).await;
        assert!(!backend.request().body.whole);
    }
}

/// A caller who goes away is worked for no longer.
#[tokio::test]
async fn a_caller_that_leaves_ends_its_branches() {
    let hangs = Backend::hangs();
    let gateway = Run::new()
        .route("/x")
        .branch("a", &hangs, "/")
        .branch("b", &hangs, "/")
        .flag("timeout", "1h")
        .start()
        .await;
    let mut caller = gateway.connect().await;
    caller.send(request("GET", "/x", &[], "")).await;
    hangs.until(|record| record.requests.len() == 2).await;
    drop(caller);
    hangs.until(|record| record.closed == 2).await;
}

/// L42, L43: all at once, over HTTP/1.1 and HTTP/2, and nothing of one is in another.
#[tokio::test]
async fn two_hundred_concurrent_requests_do_not_cross() {
    const CALLS: usize = 200;
    // Nobody is answered before everybody has been asked.
    let echo = || {
        let (all, here) = tokio::sync::watch::channel(0);
        Backend::new(move |mut peer| {
            let (all, mut here) = (all.clone(), here.clone());
            async move {
                while let Some(request) = peer.request().await {
                    all.send_modify(|count| *count += 1);
                    let everybody = crate::within(here.wait_for(|count| *count >= CALLS)).await;
                    drop(everybody);
                    let echo = serde_json::json!({
                        "method": request.method,
                        "target": request.target,
                        "field": request.field("x-id"),
                        "cookie": request.field("cookie"),
                        "body": request.text(),
                    });
                    peer.send(json(echo.to_string())).await;
                }
            }
        })
    };
    let (users, orders) = (echo(), echo());
    let gateway = Run::new()
        .route("/dash/{id}")
        .branch("users", &users, "/users/{id}/profile")
        .branch("orders", &orders, "/orders?user={id}")
        .flag("credentials", "orders")
        .flag("timeout", "15s")
        .start()
        .await;
    let http2 = Http2::connect(&gateway).await;
    let calls = (0..CALLS).map(|id| {
        let (gateway, http2) = (&gateway, http2.clone());
        async move {
            let fields = [&*format!("X-Id: field-{id}"), &*format!("Cookie: id={id}")];
            let body = format!("body-{id}-").repeat(id * 7 + 1);
            let answer: Value = if id % 2 == 0 {
                let bytes = request("POST", &format!("/dash/id-{id}"), &fields, &body);
                let answer = gateway.send(bytes).await;
                serde_json::from_slice(&answer.body).unwrap()
            } else {
                let fields = [
                    ("x-id", format!("field-{id}")),
                    ("cookie", format!("id={id}")),
                ];
                let target = format!("/dash/id-{id}");
                let answer = http2.send("POST", &target, &fields, body.clone()).await;
                serde_json::from_slice(&answer.1).unwrap()
            };
            let expected = |target: &str, cookie: Option<String>| {
                serde_json::json!({
                    "method": "POST",
                    "target": target,
                    "field": format!("field-{id}"),
                    "cookie": cookie,
                    "body": body,
                })
            };
            let users = expected(&format!("/users/id-{id}/profile"), None);
            let orders = expected(&format!("/orders?user=id-{id}"), Some(format!("id={id}")));
            assert_eq!(answer["users"], users);
            assert_eq!(answer["orders"], orders);
        }
    });
    futures_util::future::join_all(calls).await;
    for backend in [&users, &orders] {
        assert_eq!(backend.requests().len(), CALLS);
    }
}
