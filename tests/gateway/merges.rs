//! The four merges, who wins a conflict, and the answer table.

use std::time::Duration;

use serde_json::json as value;

use crate::NOISE;
use crate::backend::{Backend, SECRET, answer, json};
use crate::caller::{Answer, Caller, request};
use crate::process::{Gateway, Run};
use crate::wire::ask::{Ask, BOTH_PROTOCOLS, Protocol};

const A: &str = r#"{"a":1}"#;
const B: &str = r#"{"b":2}"#;

/// A gateway with two branches, `a` and `b`, behind `/x`.
async fn pair(a: &Backend, b: &Backend, flags: &[(&str, &str)]) -> Gateway {
    let run = Run::new()
        .route("/x")
        .branch("a", a, "/")
        .branch("b", b, "/");
    let run = flags
        .iter()
        .fold(run, |run, (flag, value)| run.flag(flag, value));
    run.start().await
}

fn status(status: &str) -> Backend {
    Backend::answers(answer(status, &["Content-Type: text/plain"], SECRET))
}

/// Once they have both been asked, the second answers, and the first after it.
fn second_first(first: &str, second: &str) -> (Backend, Backend) {
    let second = Backend::closes_after(json(second).as_slice());
    // The gateway has closed the second's connection, so it has read all of it.
    let record = second.watch();
    (Backend::json_after(first, move || record.closed(1)), second)
}

/// The answers to HEAD, on this connection and over HTTP/2. Over that, none has a body; on the connection, what comes next
/// shows it.
async fn heads(gateway: &Gateway, caller: &mut Caller, target: &str) -> [Answer; 2] {
    let ask = Ask::new("HEAD", target);
    caller.send(ask.http1().0).await;
    let http1 = caller.answer_to_head().await;
    let http2 = gateway.ask(Protocol::Http2, &ask).await;
    assert_eq!(http2.body, b"", "{http2:?}");
    [http1, http2]
}

// L01, L18
#[tokio::test]
async fn two_backends_are_merged_in_every_mode() {
    let (a, b) = (Backend::json(A), Backend::json(B));
    for (mode, text) in [
        ("group", r#"{"a":{"a":1},"b":{"b":2}}"#),
        ("object", r#"{"a":1,"b":2}"#),
        ("array", r#"[{"a":1},{"b":2}]"#),
    ] {
        let gateway = pair(&a, &b, &[("merge", mode)]).await;
        gateway.get("/x").await.complete(text);
    }
    let gateway = pair(&a, &b, &[("merge", "first")]).await;
    let answer = gateway.get("/x").await;
    match answer.text() {
        A => answer.complete(A),
        _ => answer.complete(B),
    }
}

#[tokio::test]
async fn the_first_success_does_not_wait_for_the_others() {
    for declared_first in [true, false] {
        let hangs = Backend::hangs();
        let record = hangs.watch();
        let fast = Backend::json_after(A, move || record.requests(1));
        let flags = [("merge", "first"), ("timeout", "1m")];
        let gateway = match declared_first {
            true => pair(&fast, &hangs, &flags).await,
            false => pair(&hangs, &fast, &flags).await,
        };
        gateway.get("/x").await.complete(A);
        // The loser was dropped.
        hangs.until(|record| record.closed == 1).await;
    }
}

// L02
#[tokio::test]
async fn one_branch_is_merged_like_several() {
    let a = Backend::json(A);
    let modes = [
        ("group", r#"{"a":{"a":1}}"#),
        ("object", A),
        ("array", r#"[{"a":1}]"#),
        ("first", A),
    ];
    let run = modes.iter().fold(Run::new(), |run, (mode, _)| {
        run.route(&format!("/{mode}"))
            .branch("a", &a, "/")
            .flag("merge", mode)
    });
    let gateway = run.start().await;
    for (mode, text) in modes {
        gateway.get(&format!("/{mode}")).await.complete(text);
    }
}

// L15, L16
#[tokio::test]
async fn a_conflict_is_decided_by_declared_order() {
    let first = r#"{"k":{"first":1},"f":1}"#;
    let second = r#"{"s":2,"k":{"second":2}}"#;
    for (flags, text) in [
        (&[][..], r#"{"f":1,"s":2,"k":{"second":2}}"#),
        (&[("conflict", "last")], r#"{"f":1,"s":2,"k":{"second":2}}"#),
        (&[("conflict", "first")], r#"{"k":{"first":1},"f":1,"s":2}"#),
    ] {
        let (a, b) = second_first(first, second);
        let flags = [&[("merge", "object")], flags].concat();
        let gateway = pair(&a, &b, &flags).await;
        gateway.get("/x").await.complete(text);
    }
    let (a, b) = second_first(first, second);
    let flags = [("merge", "object"), ("conflict", "error")];
    let gateway = pair(&a, &b, &flags).await;
    let problem = gateway.get("/x").await.merge_problem(502);
    assert_eq!(problem["first"], "a");
    assert_eq!(problem["second"], "b");
}

#[tokio::test]
async fn without_a_conflict_error_is_no_error() {
    let (a, b) = (Backend::json(A), Backend::json(B));
    let flags = [("merge", "object"), ("conflict", "error")];
    let gateway = pair(&a, &b, &flags).await;
    gateway.get("/x").await.complete(r#"{"a":1,"b":2}"#);
}

#[tokio::test]
async fn parts_stand_in_declared_order() {
    for (mode, text) in [
        ("group", r#"{"a":{"a":1},"b":{"b":2}}"#),
        ("array", r#"[{"a":1},{"b":2}]"#),
        ("object", r#"{"a":1,"b":2}"#),
    ] {
        let (a, b) = second_first(A, B);
        let gateway = pair(&a, &b, &[("merge", mode)]).await;
        gateway.get("/x").await.complete(text);
    }
}

// B34
#[tokio::test]
async fn odd_keys_collide_as_what_they_mean() {
    for (first, second, text) in [
        (
            r#"{"__proto__":1}"#,
            r#"{"__proto__":{"x":2}}"#,
            r#"{"__proto__":{"x":2}}"#,
        ),
        (r#"{"k":1}"#, r#"{"\u006b":2}"#, r#"{"\u006b":2}"#),
        (r#"{"k":1,"k":2}"#, r#"{"z":3}"#, r#"{"k":2,"z":3}"#),
        (
            r#"{"a.b":1,"a":{"b":2}}"#,
            r#"{"a.b":3}"#,
            r#"{"a":{"b":2},"a.b":3}"#,
        ),
        (r#"{"":1}"#, r#"{"":2}"#, r#"{"":2}"#),
        (r#"{"K":1}"#, r#"{"k":2}"#, r#"{"K":1,"k":2}"#),
        (r#"{"k":[1]}"#, r#"{"k":{"a":1}}"#, r#"{"k":{"a":1}}"#),
        (r#"{}"#, r#"{}"#, r#"{}"#),
    ] {
        for protocol in BOTH_PROTOCOLS {
            let (a, b) = second_first(first, second);
            let gateway = pair(&a, &b, &[("merge", "object")]).await;
            let answer = gateway.ask(protocol, &Ask::get("/x")).await;
            answer.complete(text);
        }
    }
}

// B34: a branch's own name is no problem for the group either.
#[tokio::test]
async fn any_name_groups() {
    let a = Backend::json(A);
    let gateway = Run::new()
        .route("/x")
        .branch("__proto__", &a, "/")
        .branch("quo\"te\\", &a, "/")
        .branch("snow \u{2603}", &a, "/")
        .start()
        .await;
    for protocol in BOTH_PROTOCOLS {
        gateway.ask(protocol, &Ask::get("/x")).await.complete(
            "{\"__proto__\":{\"a\":1},\"quo\\\"te\\\\\":{\"a\":1},\"snow \u{2603}\":{\"a\":1}}",
        );
    }
}

// L19
#[tokio::test]
async fn an_array_is_a_part_unless_objects_are_united() {
    let (a, b) = (Backend::json("[1,2]"), Backend::json(B));
    for (mode, text) in [
        ("group", r#"{"a":[1,2],"b":{"b":2}}"#),
        ("array", r#"[[1,2],{"b":2}]"#),
    ] {
        let gateway = pair(&a, &b, &[("merge", mode)]).await;
        gateway.get("/x").await.complete(text);
    }
    let gateway = pair(&a, &b, &[("merge", "object")]).await;
    gateway.get("/x").await.incomplete(B);
}

#[tokio::test]
async fn any_json_value_is_a_part() {
    for text in [
        "0", "-1.5e300", "\"x\"", "true", "null", "[]", "{}", " [ 1 ] ",
    ] {
        let (a, b) = (Backend::json(text), Backend::json(B));
        let gateway = pair(&a, &b, &[]).await;
        let expected = format!(r#"{{"a":{},"b":{{"b":2}}}}"#, text.trim());
        gateway.get("/x").await.complete(&expected);
    }
}

// L53
#[tokio::test]
async fn numbers_and_strings_keep_their_text() {
    let text = r#"{"n":12345678901234567890.10,"e":1E+2,"z":-0.0,"s":"\u00e9\/é","big":1e999}"#;
    let (a, b) = (Backend::json(text), Backend::json("{}"));
    let modes = [
        ("group", format!(r#"{{"a":{text},"b":{{}}}}"#)),
        ("object", text.to_owned()),
        ("array", format!("[{text},{{}}]")),
    ];
    for (mode, expected) in modes {
        let gateway = pair(&a, &b, &[("merge", mode)]).await;
        gateway.get("/x").await.complete(&expected);
    }
}

// L22
#[tokio::test]
async fn every_success_is_one_and_204_is_an_empty_part() {
    for line in ["200 OK", "201 Created", "202 Accepted", "203 N", "299 X"] {
        let a = Backend::answers(answer(line, &["Content-Type: application/json"], A));
        let gateway = pair(&a, &Backend::json(B), &[]).await;
        gateway
            .get("/x")
            .await
            .complete(r#"{"a":{"a":1},"b":{"b":2}}"#);
    }
    for (head, status) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", 204),
        (
            "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n",
            205,
        ),
    ] {
        let (a, b) = (Backend::answers(head), Backend::json(B));
        let gateway = pair(&a, &b, &[]).await;
        gateway
            .get("/x")
            .await
            .complete(r#"{"a":null,"b":{"b":2}}"#);
        let gateway = pair(&a, &b, &[("merge", "object")]).await;
        gateway.get("/x").await.complete(B);
        let gateway = pair(&a, &a, &[]).await;
        gateway.get("/x").await.complete(r#"{"a":null,"b":null}"#);
        let gateway = pair(&a, &a, &[("merge", "object")]).await;
        gateway.get("/x").await.complete("{}");
        let gateway = pair(&a, &a, &[("merge", "first")]).await;
        let first = gateway.get("/x").await;
        assert_eq!((first.status, first.text()), (status, ""));
        assert_eq!(first.field("watershed-complete"), Some("true"));
    }
}

/// Nobody has asked for a part of a document, or for what differs from an older one.
#[tokio::test]
async fn a_partial_success_is_none() {
    for line in ["206 Partial Content", "226 IM Used"] {
        let a = Backend::answers(answer(line, &["Content-Type: application/json"], A));
        let gateway = pair(&a, &Backend::json(B), &[]).await;
        gateway.get("/x").await.incomplete(r#"{"b":{"b":2}}"#);
    }
}

// L03, L21, and L04 with each of them twice
#[tokio::test]
async fn a_branch_that_fails_costs_its_own_part() {
    let a = Backend::json(A);
    let refuses = Backend::refuses();
    let empty = Backend::json("");
    let text = Backend::answers(answer("200 OK", &["Content-Type: text/plain"], SECRET));
    let not_json = Backend::json(SECRET);
    let dropped = Backend::closes_after([]);
    let (busy, moved) = (status("503 Service Unavailable"), status("302 Found"));
    let failing: [(&str, &Backend); 7] = [
        ("empty", &empty),
        ("text", &text),
        ("not-json", &not_json),
        ("dropped", &dropped),
        ("refused", &refuses),
        ("busy", &busy),
        ("moved", &moved),
    ];
    let mut run = Run::new();
    for (name, backend) in failing {
        for merge in ["group", "object", "array"] {
            run = run
                .route(&format!("/{merge}/{name}"))
                .branch("a", &a, "/")
                .branch("b", backend, "/")
                .flag("merge", merge)
                .route(&format!("/none/{merge}/{name}"))
                .branch("b", backend, "/")
                .branch("c", backend, "/")
                .flag("merge", merge);
        }
    }
    let gateway = run.start().await;
    for (name, _) in failing {
        for (merge, text) in [
            ("group", r#"{"a":{"a":1}}"#),
            ("object", A),
            ("array", r#"[{"a":1}]"#),
        ] {
            let answer = gateway.get(&format!("/{merge}/{name}")).await;
            answer.incomplete(text);
            let answer = gateway.get(&format!("/none/{merge}/{name}")).await;
            let problem = answer.merge_problem(502);
            assert_eq!(problem["branches"][0]["branch"], "b", "{problem}");
            assert_eq!(problem["branches"][1]["branch"], "c", "{problem}");
        }
    }
}

/// Who runs it sees why, who asks does not.
#[tokio::test]
async fn why_a_branch_failed_is_a_line_on_standard_error() {
    let hangs = Backend::hangs();
    for (failing, why) in [
        (Backend::refuses(), "no connection could be made: "),
        (Backend::json(SECRET), "it is not JSON"),
        (status("503 Service Unavailable"), "status 503"),
        (hangs, "not finished at the deadline"),
    ] {
        let a = Backend::json(A);
        let mut gateway = pair(&a, &failing, &[("timeout", "300ms")]).await;
        gateway.get("/x").await.incomplete(r#"{"a":{"a":1}}"#);
        let line = gateway.stderr_line().await;
        let told = line.strip_prefix("gateway: /x b: ");
        let told = told.unwrap_or_else(|| panic!("{line}"));
        assert!(told.starts_with(why), "{line}");
        // With its cause, where there is one.
        let cause = told.strip_prefix(why).unwrap_or_default();
        assert_eq!(cause.contains("refused"), why.ends_with(": "), "{line}");
        gateway.terminate();
        assert_eq!(gateway.exited().await.code(), Some(0));
        assert_eq!(gateway.stderr(), format!("{line}\n"));
    }
}

// L09
#[tokio::test]
async fn a_late_branch_costs_its_own_part_at_the_deadline() {
    let gateway_of = |merge: &'static str| async move {
        let (a, hangs) = (Backend::json(A), Backend::hangs());
        let flags = [("timeout", "300ms"), ("merge", merge)];
        let gateway = pair(&a, &hangs, &flags).await;
        let timed = gateway.timed("/x").await;
        // It was given up.
        hangs.until(|record| record.closed == 1).await;
        timed
    };
    for (merge, text) in [
        ("group", r#"{"a":{"a":1}}"#),
        ("object", A),
        ("array", r#"[{"a":1}]"#),
    ] {
        let (answer, elapsed) = gateway_of(merge).await;
        answer.incomplete(text);
        assert!(elapsed >= Duration::from_millis(300), "{elapsed:?}");
        assert!(elapsed < Duration::from_millis(300) + NOISE, "{elapsed:?}");
    }
}

// L10, L12
#[tokio::test]
async fn if_all_are_late_it_is_a_timeout() {
    let (a, b) = (Backend::hangs(), Backend::hangs());
    let half = Backend::hangs_after("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{");
    let mut run = Run::new();
    for merge in ["group", "object", "array", "first"] {
        run = run
            .route(&format!("/{merge}/2"))
            .branch("a", &a, "/")
            .branch("b", &b, "/")
            .flag("merge", merge)
            .flag("timeout", "200ms")
            .route(&format!("/{merge}/1"))
            .branch("a", &a, "/")
            .flag("merge", merge)
            .flag("timeout", "200ms")
            .route(&format!("/{merge}/body"))
            .branch("a", &a, "/")
            .branch("half", &half, "/")
            .flag("merge", merge)
            .flag("timeout", "200ms")
            .route(&format!("/{merge}/own"))
            .branch("a", &a, "/")
            .branch("half", &half, "/")
            .flag("merge", merge)
            .flag("branch-timeout", "a=200ms")
            .flag("branch-timeout", "half=100ms")
            .flag("timeout", "1h");
    }
    let gateway = run.start().await;
    for merge in ["group", "object", "array", "first"] {
        for case in ["2", "1", "body", "own"] {
            let (answer, elapsed) = gateway.timed(&format!("/{merge}/{case}")).await;
            answer.merge_problem(504);
            assert!(elapsed >= Duration::from_millis(200), "{elapsed:?}");
            assert!(elapsed < Duration::from_millis(200) + NOISE, "{elapsed:?}");
        }
    }
}

#[tokio::test]
async fn if_some_are_late_and_some_fail_it_is_a_bad_gateway() {
    for merge in ["group", "object", "array", "first"] {
        let (hangs, busy) = (Backend::hangs(), status("503 Busy"));
        let flags = [("timeout", "200ms"), ("merge", merge)];
        let gateway = pair(&hangs, &busy, &flags).await;
        let problem = gateway.get("/x").await.merge_problem(502);
        assert_eq!(problem["branches"][1]["reason"], "status 503", "{problem}");
    }
}

// L23
#[tokio::test]
async fn a_required_branch_gives_the_answer_its_status() {
    let fields = [
        "Retry-After: 7",
        "WWW-Authenticate: Basic realm=\"r\"",
        "WWW-Authenticate: Bearer",
        "Content-Type: text/html",
    ];
    let a = Backend::json(A);
    for (from, to) in [
        (400, 400),
        (401, 401),
        (403, 403),
        (404, 404),
        (407, 502),
        (408, 502),
        (409, 409),
        (410, 410),
        (421, 502),
        (422, 422),
        (425, 502),
        (429, 429),
        (431, 502),
        (451, 451),
        (499, 499),
        (301, 502),
        (304, 502),
        (500, 502),
        (503, 502),
        (504, 502),
        (599, 502),
    ] {
        let body = if from == 304 { "" } else { SECRET };
        let b = Backend::closes_after(answer(&format!("{from} {SECRET}"), &fields, body));
        let gateway = pair(&a, &b, &[("require", "b")]).await;
        let answer = gateway.get("/x").await;
        let problem = answer.merge_problem(to);
        assert_eq!(problem["branch"], "b", "{problem}");
        let after = (to != 502).then_some("7");
        assert_eq!(answer.field("retry-after"), after, "{from}");
        let challenges: &[_] = match to {
            401 => &["Basic realm=\"r\"", "Bearer"],
            _ => &[],
        };
        assert_eq!(answer.head.fields.all("www-authenticate"), challenges);
    }
    // Without a challenge a 401 tells the caller nothing.
    let b = status("401 Unauthorized");
    let gateway = pair(&a, &b, &[("require", "b")]).await;
    gateway.get("/x").await.merge_problem(502);
}

#[tokio::test]
async fn a_required_branch_that_is_late_is_a_timeout() {
    let (a, hangs) = (Backend::json(A), Backend::hangs());
    for time in [("timeout", "200ms"), ("branch-timeout", "b=200ms")] {
        let gateway = pair(&a, &hangs, &[("require", "b"), time]).await;
        let (answer, elapsed) = gateway.timed("/x").await;
        assert_eq!(answer.merge_problem(504)["branch"], "b");
        assert!(elapsed < Duration::from_millis(200) + NOISE, "{elapsed:?}");
    }
}

#[tokio::test]
async fn a_required_branch_that_can_not_be_merged_is_a_bad_gateway() {
    let a = Backend::json(A);
    for b in [
        Backend::json(SECRET),
        Backend::json(""),
        Backend::closes_after([]),
        Backend::answers(answer("200 OK", &["Content-Type: text/html"], SECRET)),
    ] {
        let gateway = pair(&a, &b, &[("require", "b")]).await;
        assert_eq!(gateway.get("/x").await.merge_problem(502)["branch"], "b");
    }
    let gateway = pair(&a, &Backend::refuses(), &[("require", "b")]).await;
    assert_eq!(gateway.get("/x").await.merge_problem(502)["branch"], "b");
}

#[tokio::test]
async fn a_required_branch_that_fails_is_not_waited_past() {
    let (hangs, missing) = (Backend::hangs(), status("404 Not Found"));
    let gateway = pair(&hangs, &missing, &[("require", "b"), ("timeout", "1h")]).await;
    gateway.get("/x").await.merge_problem(404);
}

#[tokio::test]
async fn of_two_required_branches_the_first_declared_answers() {
    let (second, third) = (status("403 Forbidden"), status("410 Gone"));
    let closed = second.watch();
    // It is the last to fail.
    let first = Backend::new(move |mut peer| {
        let closed = closed.clone();
        async move {
            if peer.request().await.is_some() {
                closed.requests(1).await;
                peer.send(answer("404 Not Found", &[], "")).await;
                peer.closed().await;
            }
        }
    });
    let gateway = Run::new()
        .route("/x")
        .branch("optional", &third, "/")
        .branch("first", &first, "/")
        .branch("second", &second, "/")
        .flag("require", "second")
        .flag("require", "first")
        .start()
        .await;
    let problem = gateway.get("/x").await.merge_problem(404);
    assert_eq!(problem["branch"], "first");
}

// L48
#[tokio::test]
async fn only_a_complete_answer_may_be_cached() {
    let cached = |age: u32| {
        let field = format!("Cache-Control: public, max-age={age}");
        let fields = ["Content-Type: application/json", &field, "Vary: Accept"];
        Backend::answers(answer("200 OK", &fields, "{}"))
    };
    let (a, b) = (cached(60), cached(30));
    let gateway = pair(&a, &b, &[]).await;
    let answer = gateway.get("/x").await;
    answer.complete(r#"{"a":{},"b":{}}"#);
    assert_eq!(answer.field("cache-control"), Some("public, max-age=30"));
    assert_eq!(answer.field("vary"), Some("accept"));

    let gateway = pair(&a, &Backend::refuses(), &[]).await;
    // It asserts that there is no Cache-Control.
    gateway.get("/x").await.incomplete(r#"{"a":{}}"#);
    let gateway = pair(&a, &Backend::json("{}"), &[]).await;
    let answer = gateway.get("/x").await;
    assert_eq!(answer.field("cache-control"), None);
}

// B29
#[tokio::test]
async fn a_json_merge_keeps_no_other_field() {
    let fields = [
        "Content-Type: application/json",
        "Connection: x-a",
        "Connection: x-b",
        "X-A: 1",
        "X-B: 1",
        "X-C: 1",
        "Set-Cookie: a=1",
        "Set-Cookie: b=1",
        "Server: UPSTREAM",
        "ETag: \"x\"",
        "Keep-Alive: timeout=5",
        "Watershed-Complete: true",
        "Location: http://127.0.0.1/",
    ];
    let a = Backend::answers(answer("200 OK", &fields, "{}"));
    let gateway = pair(&a, &a, &[]).await;
    for protocol in BOTH_PROTOCOLS {
        let answer = gateway.ask(protocol, &Ask::get("/x")).await;
        answer.complete(r#"{"a":{},"b":{}}"#);
        let mut names = answer.head.fields.names();
        // Over HTTP/2 the status is one of them.
        names.retain(|name| *name != ":status");
        names.sort_unstable();
        let expected = [
            "content-length",
            "content-type",
            "date",
            "watershed-complete",
        ];
        assert_eq!(names, expected, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_part_that_says_it_is_incomplete_makes_the_whole_so() {
    let fields = [
        "Content-Type: application/json",
        "Watershed-Complete: false",
    ];
    let a = Backend::answers(answer("200 OK", &fields, A));
    let b = Backend::json(B);
    let gateway = pair(&a, &b, &[]).await;
    gateway
        .get("/x")
        .await
        .incomplete(r#"{"a":{"a":1},"b":{"b":2}}"#);
}

// B24
#[tokio::test]
async fn head_is_answered_with_the_head_of_get() {
    let backend = Backend::json(A);
    let gateway = pair(&backend, &backend, &[]).await;
    let mut caller = gateway.connect().await;
    for answer in heads(&gateway, &mut caller, "/x").await {
        answer.complete("");
        let length = r#"{"a":{"a":1},"b":{"a":1}}"#.len().to_string();
        assert_eq!(answer.field("content-length"), Some(&*length));
    }
    // Nothing of a body came, or this would not be the next answer.
    caller
        .get("/x")
        .await
        .complete(r#"{"a":{"a":1},"b":{"a":1}}"#);
    for request in backend.requests() {
        assert_eq!(request.method, "GET");
    }
}

// B24
#[tokio::test]
async fn head_of_an_error_has_no_body_either() {
    let gateway = pair(&Backend::refuses(), &Backend::refuses(), &[]).await;
    let mut caller = gateway.connect().await;
    for (target, status) in [("/x", 502), ("/unknown", 404)] {
        for answer in heads(&gateway, &mut caller, target).await {
            assert_eq!(answer.status, status);
            let kind = answer.field("content-type");
            assert_eq!(kind, Some("application/problem+json"));
        }
    }
    caller.get("/x").await.merge_problem(502);
}

mod first {
    use super::*;

    /// The good branch answers only once the bad one has been given up.
    async fn passed_over(bad: impl Fn() -> Backend, flags: &[(&str, &str)]) {
        for bad_is_first in [true, false] {
            let bad = bad();
            let record = bad.watch();
            let good = Backend::json_after(A, move || record.closed(1));
            let flags = [&[("merge", "first"), ("timeout", "15s")], flags].concat();
            let gateway = match bad_is_first {
                true => pair(&bad, &good, &flags).await,
                false => pair(&good, &bad, &flags).await,
            };
            gateway.get("/x").await.complete(A);
        }
    }

    #[tokio::test]
    async fn a_failure_is_passed_over() {
        for status in ["503 Busy", "404 Not Found", "301 Moved", "101 Switching"] {
            passed_over(|| Backend::closes_after(answer(status, &[], SECRET)), &[]).await;
        }
        passed_over(|| Backend::closes_after([]), &[]).await;
    }

    #[tokio::test]
    async fn a_body_that_is_cut_short_is_passed_over() {
        for cut in [
            "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nUPSTREAM",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nUPSTREAM\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nUPSTREAM\r\n0\r\n",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nUPSTREAM\r\n",
        ] {
            passed_over(|| Backend::closes_after(cut), &[]).await;
        }
    }

    #[tokio::test]
    async fn a_body_that_is_too_large_is_passed_over() {
        let size = [("max-response-body", "7")];
        let large = answer("200 OK", &[], SECRET);
        passed_over(|| Backend::closes_after(large.clone()), &size).await;
        let chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                      7\r\nUPSTREA\r\n1\r\nM\r\n0\r\n\r\n";
        passed_over(|| Backend::closes_after(chunks), &size).await;
        let endless = "HTTP/1.1 200 OK\r\n\r\nUPSTREAM";
        passed_over(|| Backend::hangs_after(endless), &size).await;
    }

    #[tokio::test]
    async fn a_body_that_is_late_is_passed_over() {
        for late in ["", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nUPSTREAM"] {
            let bad = Backend::hangs_after(late);
            let record = bad.watch();
            let good = Backend::json_after(A, move || record.closed(1));
            let gateway = pair(
                &bad,
                &good,
                &[
                    ("merge", "first"),
                    ("timeout", "15s"),
                    ("branch-timeout", "a=100ms"),
                ],
            )
            .await;
            gateway.get("/x").await.complete(A);
        }
    }

    #[tokio::test]
    async fn a_body_is_whole_or_there_is_none() {
        // Alone, so that there is nothing to pass it over for.
        for (bytes, status) in [
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nUPSTREAM",
                502,
            ),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nUPSTREAM\r\n",
                502,
            ),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nUPSTREAM123",
                502,
            ),
        ] {
            let backend = Backend::closes_after(bytes);
            let gateway = Run::new()
                .route("/x")
                .branch("a", &backend, "/")
                .flag("merge", "first")
                .flag("max-response-body", "10")
                .start()
                .await;
            gateway.get("/x").await.merge_problem(status);
        }
    }

    #[tokio::test]
    async fn if_all_fail_it_is_a_bad_gateway_that_names_them() {
        let (busy, refuses) = (status("503 Busy"), Backend::refuses());
        let gateway = pair(&busy, &refuses, &[("merge", "first")]).await;
        let problem = gateway.get("/x").await.merge_problem(502);
        let expected = value!([
            {"branch": "a", "reason": "status 503"},
            {"branch": "b", "reason": "failed"},
        ]);
        assert_eq!(problem["branches"], expected);
    }

    // B29
    #[tokio::test]
    async fn the_winner_is_answered_as_it_is_but_for_its_hop() {
        let fields = [
            "Content-Type: text/plain; charset=latin1",
            "Connection: x-a, close",
            "Connection: X-B",
            "X-A: 1",
            "X-B: 1",
            "X-C: 1",
            "Keep-Alive: timeout=5",
            "Proxy-Authenticate: Basic",
            "Upgrade: h2c",
            "Set-Cookie: a=1",
            "Set-Cookie: b=2",
            "ETag: \"e\"",
            "Cache-Control: max-age=60",
        ];
        let body = b"\xff\x00not JSON\r\n";
        let backend = Backend::closes_after(answer("203 Odd", &fields, body));
        let gateway = Run::new()
            .route("/x")
            .branch("a", &backend, "/")
            .flag("merge", "first")
            .start()
            .await;
        for protocol in BOTH_PROTOCOLS {
            let answer = gateway.ask(protocol, &Ask::get("/x")).await;
            assert_eq!((answer.status, &answer.body[..]), (203, &body[..]));
            let kind = answer.field("content-type");
            assert_eq!(kind, Some("text/plain; charset=latin1"));
            assert_eq!(answer.head.fields.all("set-cookie"), ["a=1", "b=2"]);
            let mut names = answer.head.fields.names();
            // Over HTTP/2 the status is one of them.
            names.retain(|name| *name != ":status");
            names.sort_unstable();
            names.dedup();
            let expected = [
                "cache-control",
                "content-length",
                "content-type",
                "date",
                "etag",
                "set-cookie",
                "watershed-complete",
                "x-c",
            ];
            assert_eq!(names, expected, "{protocol:?}");
        }
    }

    #[tokio::test]
    async fn an_encoding_that_the_caller_accepts_passes() {
        let fields = ["Content-Encoding: gzip", "Content-Type: application/json"];
        let backend = Backend::answers(answer("200 OK", &fields, b"\x1f\x8b\x08"));
        let gateway = pair(&backend, &backend, &[("merge", "first")]).await;
        let accepts = request("GET", "/x", &["Accept-Encoding: gzip"], "");
        let answer = gateway.send(accepts).await;
        assert_eq!(answer.field("content-encoding"), Some("gzip"));
        assert_eq!(answer.body, b"\x1f\x8b\x08");
    }

    #[tokio::test]
    async fn head_goes_as_head() {
        // A backend that answers HEAD with a body: none of it may be read as the next answer (B24).
        let backend = Backend::replies(|request| match &*request.method {
            "HEAD" => answer("200 OK", &["X-Head: 1"], "HTTP/1.1 200 UPSTREAM\r\n\r\n"),
            _ => json(A),
        });
        let gateway = pair(&backend, &backend, &[("merge", "first")]).await;
        let mut caller = gateway.connect().await;
        for _ in 0..5 {
            for answer in heads(&gateway, &mut caller, "/x").await {
                assert_eq!(answer.status, 200);
                assert_eq!(answer.field("x-head"), Some("1"));
                assert_eq!(answer.field("watershed-complete"), Some("true"));
            }
            caller.get("/x").await.complete(A);
        }
        assert!(backend.requests().iter().any(|seen| seen.method == "HEAD"));
    }
}
