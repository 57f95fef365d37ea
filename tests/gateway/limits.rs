//! Sizes and times: of a request's body and head, of a backend's answer.

use std::time::Duration;

use crate::NOISE;
use crate::backend::{Backend, answer, json};
use crate::caller::{chunk, request};
use crate::process::{Gateway, Run};
use crate::serving::Http2;

const LIMIT: usize = 1000;

/// Two branches behind `/x`, and request bodies of up to `LIMIT` bytes.
async fn gateway(a: &Backend, b: &Backend, merge: &str) -> Gateway {
    Run::new()
        .flag("max-request-body", &LIMIT.to_string())
        .route("/x")
        .branch("a", a, "/")
        .branch("b", b, "/")
        .flag("merge", merge)
        .flag("timeout", "15s")
        .start()
        .await
}

mod request_body {
    use super::*;

    #[tokio::test]
    async fn one_of_just_the_limit_passes() {
        let (a, b) = (Backend::json("{}"), Backend::json("{}"));
        let gateway = gateway(&a, &b, "group").await;
        let body = "x".repeat(LIMIT);
        gateway
            .post("/x", &body)
            .await
            .complete(r#"{"a":{},"b":{}}"#);
        let mut bytes = request("POST", "/x", &["Transfer-Encoding: chunked"], "");
        for part in body.as_bytes().chunks(LIMIT / 4) {
            bytes.extend(chunk(part));
        }
        bytes.extend(b"0\r\n\r\n");
        gateway.send(bytes).await.complete(r#"{"a":{},"b":{}}"#);
        for backend in [&a, &b] {
            for request in backend.requests() {
                assert_eq!(request.text(), body);
            }
        }
    }

    #[tokio::test]
    async fn one_that_announces_more_is_refused_unread() {
        let (a, b) = (Backend::json("{}"), Backend::json("{}"));
        for merge in ["group", "object", "array", "first"] {
            let gateway = gateway(&a, &b, merge).await;
            for length in [LIMIT + 1, 1 << 40] {
                let field = format!("Content-Length: {length}");
                let answer = gateway.send(request("POST", "/x", &[&field], "")).await;
                answer.problem(413);
                // Not even asked for (RFC 9110 §10.1.1).
                let fields = [&*field, "Expect: 100-continue"];
                let answer = gateway.send(request("POST", "/x", &fields, "")).await;
                answer.problem(413);
            }
            // A caller who sends it all the same gets the answer, too.
            let body = "x".repeat(256 * 1024);
            gateway.post("/x", &body).await.problem(413);
        }
        assert_eq!(a.record().connections + b.record().connections, 0);
    }

    /// Whatever the other branch has answered by then.
    #[tokio::test]
    async fn one_that_turns_out_larger_is_refused() {
        for merge in ["group", "object", "array"] {
            for (before, after) in [(0, LIMIT + 1), (LIMIT, 1), (1, LIMIT), (10, 1 << 20)] {
                let eager = Backend::new(|mut peer| async move {
                    if peer.head().await.is_some() {
                        peer.send(json("{}")).await;
                        peer.finish().await;
                    }
                });
                let reads = Backend::json("{}");
                let gateway = gateway(&eager, &reads, merge).await;
                let mut caller = gateway.connect().await;
                let head = request("POST", "/x", &["Transfer-Encoding: chunked"], "");
                caller.send(head).await;
                if before > 0 {
                    caller.send(chunk(&vec![b'x'; before])).await;
                }
                // The answer of this one has come and gone.
                eager.until(|record| record.closed == 1).await;
                reads.until(|record| record.requests.len() == 1).await;
                caller.send(chunk(&vec![b'x'; after])).await;
                caller.answer().await.merge_problem(413);
                // To this one it is no whole request.
                reads.until(|record| record.closed == 1).await;
                assert!(!reads.request().body.whole);
            }
        }
    }

    #[tokio::test]
    async fn one_that_turns_out_larger_is_refused_for_the_first_success_too() {
        let (a, b) = (Backend::json("{}"), Backend::json("{}"));
        let gateway = gateway(&a, &b, "first").await;
        let mut bytes = request("POST", "/x", &["Transfer-Encoding: chunked"], "");
        bytes.extend(chunk(&[b'x'; LIMIT + 1]));
        bytes.extend(b"0\r\n\r\n");
        gateway.send(bytes).await.merge_problem(413);
    }

    #[tokio::test]
    async fn one_over_http_2_is_refused() {
        let (a, b) = (Backend::json("{}"), Backend::json("{}"));
        let gateway = gateway(&a, &b, "group").await;
        let http2 = Http2::connect(&gateway).await;
        let (head, _) = http2.send("POST", "/x", &[], "x".repeat(LIMIT)).await;
        assert_eq!(head.status, 200);
        let (head, _) = http2.send("POST", "/x", &[], "x".repeat(LIMIT + 1)).await;
        assert_eq!(head.status, 413);
    }

    #[tokio::test]
    async fn none_may_be_allowed_at_all() {
        let a = Backend::json("{}");
        let gateway = Run::new()
            .route("/x")
            .branch("a", &a, "/")
            .flag("max-request-body", "0")
            .start()
            .await;
        gateway.get("/x").await.complete(r#"{"a":{}}"#);
        gateway.post("/x", "").await.complete(r#"{"a":{}}"#);
        gateway.post("/x", "1").await.problem(413);
        let mut bytes = request("POST", "/x", &["Transfer-Encoding: chunked"], "");
        bytes.extend(b"0\r\n\r\n");
        gateway.send(bytes).await.complete(r#"{"a":{}}"#);
    }

    /// A caller who stops in the middle of its body is not waited for beyond the timeout.
    #[tokio::test]
    async fn one_that_stalls_is_not_waited_for() {
        let a = Backend::json("{}");
        for merge in ["group", "first"] {
            let gateway = Run::new()
                .route("/x")
                .branch("a", &a, "/")
                .flag("merge", merge)
                .flag("timeout", "200ms")
                .start()
                .await;
            let mut caller = gateway.connect().await;
            let head = request("POST", "/x", &["Content-Length: 10"], "");
            let start = tokio::time::Instant::now();
            caller.send(head).await;
            caller.send("half").await;
            let answer = caller.answer().await;
            assert!([400, 408, 504].contains(&answer.status), "{answer:?}");
            let elapsed = start.elapsed();
            assert!(elapsed < Duration::from_millis(200) + NOISE, "{elapsed:?}");
        }
    }

    /// One that breaks is the caller's fault, too.
    #[tokio::test]
    async fn one_that_is_misframed_is_refused() {
        let (a, b) = (Backend::json("{}"), Backend::json("{}"));
        let gateway = gateway(&a, &b, "group").await;
        for chunks in ["zz\r\n", "3\r\nxxxx\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"] {
            let fields = ["Transfer-Encoding: chunked"];
            let mut bytes = request("POST", "/x", &fields, "");
            bytes.extend(chunks.as_bytes());
            gateway.send(bytes).await.merge_problem(400);
        }
        // No backend has had a whole request.
        for backend in [&a, &b] {
            assert!(backend.requests().iter().all(|seen| !seen.body.whole));
        }
    }
}

mod request_head {
    use super::*;

    const HEAD: usize = 16 * 1024;

    #[tokio::test]
    async fn a_large_one_is_refused_and_the_next_is_served() {
        let a = Backend::json("{}");
        let gateway = Run::new()
            .route("/x/{id}")
            .branch("a", &a, "/")
            .start()
            .await;
        let fits = "x".repeat(HEAD / 2);
        let fields = [format!("X-Long: {fits}")];
        let bytes = request("GET", "/x/7", &[&fields[0]], "");
        gateway.send(bytes).await.complete(r#"{"a":{}}"#);

        let long = format!("X-Long: {}", "x".repeat(HEAD));
        let short = format!("X: {}", "x".repeat(90));
        let path = format!("/x/{}", "x".repeat(HEAD));
        let query = format!("/x/7?{}", "x".repeat(HEAD));
        for (target, fields) in [
            ("/x/7", vec![&*long]),
            ("/unknown", vec![&*long]),
            (&path, vec![]),
            (&query, vec![]),
            // Each of them is small.
            ("/x/7", vec![&*short; 99]),
        ] {
            let count = fields.len();
            let mut caller = gateway.connect().await;
            caller.send(request("GET", target, &fields, "")).await;
            let answer = caller.answer().await;
            match count {
                99 => answer.complete(r#"{"a":{}}"#),
                _ => drop(answer.problem(431)),
            }
            // It was read to its end, so the connection is as good as ever.
            caller.get("/x/7").await.complete(r#"{"a":{}}"#);
        }
    }

    /// So many that they are large together, or more than a server likes to count.
    #[tokio::test]
    async fn one_of_many_small_fields_is_a_problem() {
        let a = Backend::json("{}");
        let gateway = Run::new().route("/x").branch("a", &a, "/").start().await;
        for count in [101, 150, 500, 2000] {
            let bytes = request("GET", "/x", &vec!["X: 1"; count], "");
            let size = bytes.len();
            let answer = gateway.send(bytes).await;
            if answer.status == 200 {
                assert!(size < HEAD, "{count}");
                answer.complete(r#"{"a":{}}"#);
            } else {
                answer.problem(431);
            }
            gateway.get("/x").await.complete(r#"{"a":{}}"#);
        }
    }

    /// Heads of which hyper reads no end.
    fn endless() -> impl Iterator<Item = String> {
        [70 * 1024, 1 << 20].into_iter().flat_map(|size| {
            let endless = "x".repeat(size);
            [
                format!("GET /x HTTP/1.1\r\nHost: g\r\nX-Long: {endless}"),
                format!("GET /{endless}"),
            ]
        })
    }

    #[tokio::test]
    async fn an_endless_one_is_refused_and_the_next_is_served() {
        let a = Backend::json("{}");
        let gateway = Run::new().route("/x").branch("a", &a, "/").start().await;
        for bytes in endless() {
            let mut caller = gateway.connect().await;
            caller.send(bytes).await;
            let answer = caller.answer_of_the_server().await;
            assert!([414, 431].contains(&answer.status), "{answer:?}");
            gateway.get("/x").await.complete(r#"{"a":{}}"#);
        }
        assert_eq!(a.requests().len(), 4);
    }

    #[tokio::test]
    async fn a_large_one_over_http_2_is_refused() {
        let a = Backend::json("{}");
        let gateway = Run::new().route("/x").branch("a", &a, "/").start().await;
        let http2 = Http2::connect(&gateway).await;
        let fields = [("x-long", "x".repeat(HEAD))];
        let (head, body) = http2.send("GET", "/x", &fields, String::new()).await;
        assert_eq!(head.status, 431);
        assert_eq!(head.kind.as_deref(), Some("application/problem+json"));
        let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["status"], 431);
        // Only that stream.
        let (head, _) = http2.send("GET", "/x", &[], String::new()).await;
        assert_eq!(head.status, 200);
        assert_eq!(a.requests().len(), 1);
    }
}

mod response {
    use super::*;

    fn chunked(text: &str) -> Vec<u8> {
        let mut bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
        for part in text.as_bytes().chunks(7) {
            bytes.extend(chunk(part));
        }
        bytes.extend(b"0\r\n\r\n");
        bytes
    }

    #[tokio::test]
    async fn just_the_limit_passes_and_a_byte_more_does_not() {
        let text = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
        let backend = Backend::new(move |mut peer| async move {
            if let Some(request) = peer.request().await {
                let mut words = request.target[1..].split('/');
                let (kind, size) = (words.next(), words.next());
                let text = text(size.and_then(|size| size.parse().ok()).unwrap_or(2));
                peer.send(match kind {
                    Some("length") => json(&text),
                    Some("chunked") => chunked(&text),
                    _ => format!("HTTP/1.1 200 OK\r\n\r\n{text}").into_bytes(),
                })
                .await;
                peer.finish().await;
            }
        });
        let mut run = Run::new();
        for merge in ["group", "array", "first"] {
            run = run
                .route(&format!("/{merge}/{{kind}}/{{size}}"))
                .branch("a", &backend, "/{kind}/{size}")
                .flag("merge", merge)
                .flag("max-response-body", "20KiB");
        }
        let gateway = run.start().await;
        for (merge, around) in [("group", 6), ("array", 2), ("first", 0)] {
            for kind in ["length", "chunked", "until-closed"] {
                let size = 20 * 1024;
                let answer = gateway.get(&format!("/{merge}/{kind}/{size}")).await;
                assert_eq!(answer.status, 200, "{merge} {kind}");
                assert_eq!(answer.body.len(), size + around);
                let over = gateway.get(&format!("/{merge}/{kind}/{}", size + 1)).await;
                over.merge_problem(502);
            }
        }
    }

    /// What floods is cut off at the limit, not at the timeout.
    #[tokio::test]
    async fn a_flood_is_cut_off() {
        for (head, wave) in [
            ("HTTP/1.1 200 OK\r\n\r\n[", "0,".repeat(8 * 1024)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "4000\r\n".to_owned() + &"0".repeat(0x4000) + "\r\n",
            ),
            ("HTTP/1.1 200 OK\r\n", "X-Flood: UPSTREAM\r\n".repeat(1000)),
            ("HTTP/1.1 200 OK\r\nX-Flood: ", "x".repeat(16 * 1024)),
            ("HTTP/1.1 200 ", "x".repeat(16 * 1024)),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;",
                "x".repeat(16 * 1024),
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n",
                "X-Flood: UPSTREAM\r\n".repeat(1000),
            ),
        ] {
            let (sent, total) = tokio::sync::watch::channel(None);
            let flood = Backend::new(move |mut peer| {
                let (wave, sent) = (wave.clone(), sent.clone());
                async move {
                    if peer.request().await.is_some() {
                        peer.send(head).await;
                        let mut bytes = 0;
                        while bytes < 64 << 20 && peer.send(&wave).await {
                            bytes += wave.len();
                        }
                        sent.send_replace(Some(bytes));
                        peer.finish().await;
                    }
                }
            });
            let gateway = Run::new()
                .route("/x")
                .branch("a", &Backend::json("{}"), "/")
                .branch("b", &flood, "/")
                .flag("timeout", "1h")
                .start()
                .await;
            gateway.get("/x").await.incomplete(r#"{"a":{}}"#);
            let mut total = total;
            let total = crate::within(total.wait_for(Option::is_some))
                .await
                .unwrap();
            // The kernel's buffers hold the most of it.
            assert!(total.unwrap() < 32 << 20, "{head:?}: {total:?}");
        }
    }

    /// B22: interim answers without end cost the branch's part at the deadline.
    #[tokio::test]
    async fn a_flood_of_interim_answers_ends_at_the_deadline() {
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
        let a = Backend::json("{}");
        let gateway = Run::new()
            .route("/x")
            .branch("a", &a, "/")
            .branch("b", &flood, "/")
            .flag("timeout", "300ms")
            .start()
            .await;
        let (answer, elapsed) = gateway.timed("/x").await;
        answer.incomplete(r#"{"a":{}}"#);
        assert!(elapsed < Duration::from_millis(300) + NOISE, "{elapsed:?}");
        flood.until(|record| record.closed == 1).await;
    }

    /// A byte now and then keeps nothing alive beyond the deadline.
    #[tokio::test]
    async fn a_drip_ends_at_the_deadline() {
        let a = Backend::json("{}");
        for (head, drop) in [
            ("", "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"),
            ("HTTP/1.1 200 OK\r\n", "X-Drip: x\r\n"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[", "1,"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                "1\r\n[\r\n",
            ),
            ("HTTP/1.1 200 OK\r\n\r\n", " "),
        ] {
            for time in [("timeout", "300ms"), ("branch-timeout", "b=300ms")] {
                let drip = Backend::new(move |mut peer| async move {
                    if peer.request().await.is_some() {
                        peer.send(head).await;
                        let mut paces = tokio::time::interval(Duration::from_millis(50));
                        for byte in drop.bytes().cycle() {
                            paces.tick().await;
                            if !peer.send([byte]).await {
                                break;
                            }
                        }
                        peer.closed().await;
                    }
                });
                let gateway = Run::new()
                    .route("/x")
                    .branch("a", &a, "/")
                    .branch("b", &drip, "/")
                    .flag(time.0, time.1)
                    .start()
                    .await;
                let (answer, elapsed) = gateway.timed("/x").await;
                answer.incomplete(r#"{"a":{}}"#);
                assert!(elapsed >= Duration::from_millis(300), "{elapsed:?}");
                assert!(elapsed < Duration::from_millis(300) + NOISE, "{elapsed:?}");
                drip.until(|record| record.closed == 1).await;
            }
        }
    }

    /// A backend that neither answers nor accepts more is only late.
    #[tokio::test]
    async fn a_backend_that_does_not_read_is_late() {
        let a = Backend::json("{}");
        let stuck = Backend::new(|mut peer| async move {
            if peer.head().await.is_some() {
                std::future::pending::<()>().await;
            }
        });
        let gateway = Run::new()
            .flag("max-request-body", "64MiB")
            .route("/x")
            .branch("a", &a, "/")
            .branch("stuck", &stuck, "/")
            .flag("branch-timeout", "stuck=300ms")
            .flag("timeout", "15s")
            .start()
            .await;
        // More than the kernel holds for it.
        let body = "x".repeat(8 << 20);
        let mut caller = gateway.connect().await;
        caller.send(request("POST", "/x", &[], &body)).await;
        caller.answer().await.incomplete(r#"{"a":{}}"#);
        assert_eq!(a.request().body.bytes.len(), 8 << 20);
    }

    #[tokio::test]
    async fn a_limit_of_one_branch_leaves_its_sibling_alone() {
        let slow = Backend::hangs();
        let record = slow.watch();
        let a = Backend::json_after("{}", move || record.closed(1));
        let gateway = Run::new()
            .route("/x")
            .branch("a", &a, "/")
            .branch("slow", &slow, "/")
            .branch("refuses", &Backend::refuses(), "/")
            .flag("branch-timeout", "slow=100ms")
            .flag("timeout", "15s")
            .start()
            .await;
        // `a` answers only after `slow` has been given up.
        gateway.get("/x").await.incomplete(r#"{"a":{}}"#);
    }

    /// Other answers than a success are not read, whatever their size.
    #[tokio::test]
    async fn a_failure_is_not_read() {
        let large = answer("404 Not Found", &[], "UPSTREAM".repeat(1 << 17));
        let endless = "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\nUPSTREAM";
        for backend in [Backend::answers(large), Backend::hangs_after(endless)] {
            for flag in [("require", "a"), ("merge", "first")] {
                let gateway = Run::new()
                    .route("/x")
                    .branch("a", &backend, "/")
                    .flag("timeout", "15s")
                    .flag(flag.0, flag.1)
                    .start()
                    .await;
                let status = if flag.0 == "require" { 404 } else { 502 };
                gateway.get("/x").await.merge_problem(status);
            }
        }
    }
}
