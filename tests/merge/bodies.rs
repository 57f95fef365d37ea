//! Bodies of parts: budgets, content types, and what is no document.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use serde_json::json;
use tower::{Layer, service_fn};
use watershed::clone_request::TeeBody;
use watershed::merge::{FirstSuccess, JsonMerge, JsonPartLayer, Quorum};
use watershed::outcome::Branch;
use watershed::rewrite::{RewriteLayer, UriTemplate};
use watershed::test_util::{Reply, Scripted, ScriptedError};

use crate::common::{a, answer, b, listed, optional};
use crate::support::{Answer, Bomb, FedBody, Feed, Hand, HttpBranch, ask, get, merged};

type Replies = Hand<Response<FedBody>>;

async fn only(merge: JsonMerge, reply: Reply) -> Answer {
    answer(merge, [optional("x", reply)]).await
}

#[track_caller]
fn assert_failed(answer: &Answer, why: &str) {
    let problem = answer.assert_problem(502);
    assert_eq!(listed(&problem), [("x", why)]);
}

// B32
#[tokio::test]
async fn the_byte_budget_is_exact_announced_or_not() {
    let document = r#"{"a":"12345"}"#;
    let length = document.len();
    for frames in [
        Reply::json(document),
        Reply::status(200).frames([document]),
        Reply::status(200).frames(document.split_inclusive(':')),
        Reply::status(200).frames(["", document, ""]),
    ] {
        for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
            let fits = only(merge.clone(), frames.clone()).await;
            assert_eq!(fits.status, 200);
            for (bytes, fits) in [
                (length, true),
                (length + 1, true),
                (length - 1, false),
                (0, false),
            ] {
                let answer = only(merge.clone().max_bytes(bytes), frames.clone()).await;
                match fits {
                    true => assert_eq!(answer.status, 200),
                    false => assert_failed(&answer, "larger than its budget"),
                }
            }
        }
    }
}

// B32
#[tokio::test]
async fn what_announces_too_much_is_not_read() {
    for (limit, announced) in [
        (10, 11),
        (1 << 20, (1 << 20) + 1),
        (0, 1),
        (1 << 20, 1 << 40),
    ] {
        let hand = Replies::new();
        let (feed, body) = Feed::announcing(announced);
        hand.finish(Response::new(body));
        let branches = [Branch::new("x", hand)];
        let answer = ask(
            &merged(JsonMerge::group().max_bytes(limit), branches),
            get("/"),
        )
        .await;
        assert_failed(&answer, "larger than its budget");
        assert_eq!(feed.polls(), 0);
        assert!(feed.is_dropped());
    }
}

// B32
#[tokio::test]
async fn the_defaults_are_a_mebibyte_100_000_values_and_128_levels() {
    let string = |length: usize| format!("[\"{}\"]", "x".repeat(length - 4));
    let numbers = |values: usize| format!("[{}0]", "0,".repeat(values - 2));
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    for (document, why) in [
        (string(1 << 20), None),
        (string((1 << 20) + 1), Some("larger than its budget")),
        (numbers(100_000), None),
        (numbers(100_001), Some("it has more than 100000 values")),
        (nested(128), None),
        (nested(129), Some("it is nested deeper than 128")),
    ] {
        for merge in [JsonMerge::group(), JsonMerge::array()] {
            let answer = only(merge, Reply::json(document.clone())).await;
            match why {
                None => assert_eq!((answer.status, answer.complete()), (200, true)),
                Some(why) => assert_failed(&answer, why),
            }
        }
    }
}

// B32
#[tokio::test]
async fn the_budgets_of_values_and_depth_are_exact() {
    for (document, nodes, depth) in [
        ("{}", 1, 1),
        (r#"{"a":1}"#, 2, 1),
        (r#"{"a":[1,2,{"b":{}}],"c":"x"}"#, 7, 4),
        (r#"{"a":{"b":{"c":{"d":null}}}}"#, 5, 4),
    ] {
        for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
            let exact = merge.clone().max_nodes(nodes).max_depth(depth);
            assert_eq!(only(exact, Reply::json(document)).await.status, 200);
            let answer = only(merge.clone().max_nodes(nodes - 1), Reply::json(document)).await;
            assert_failed(&answer, &format!("it has more than {} values", nodes - 1));
            let answer = only(merge.max_depth(depth - 1), Reply::json(document)).await;
            assert_failed(&answer, &format!("it is nested deeper than {}", depth - 1));
        }
    }
}

// B32
#[tokio::test]
async fn a_budget_is_each_parts_own() {
    let document = Reply::json("[1,2,3]");
    let merge = JsonMerge::group().max_nodes(4).max_bytes(7).max_depth(1);
    let branches = [
        optional("x", document.clone()),
        optional("y", Reply::json("[1,2,3,4]")),
        optional("z", document),
    ];
    answer(merge, branches)
        .await
        .assert_document(r#"{"x":[1,2,3],"z":[1,2,3]}"#, false);
}

#[test]
fn budgets_that_cant_be_kept_are_refused() {
    for build in [
        || JsonMerge::group().max_depth(1025),
        || JsonMerge::group().max_bytes(1 << 32),
    ] {
        assert!(std::panic::catch_unwind(build).is_err());
    }
    let _ = JsonMerge::group().max_depth(1024).max_bytes((1 << 32) - 1);
}

// B24
#[tokio::test]
async fn the_body_of_an_answer_that_has_no_document_is_not_read() {
    let statuses = [204, 205, 301, 304, 400, 404, 500, 503];
    for status in statuses {
        for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
            let hand = Replies::new();
            // It claims to have one, and never ends.
            let (feed, body) = Feed::announcing(7);
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            response
                .headers_mut()
                .insert("content-length", HeaderValue::from_static("7"));
            response
                .headers_mut()
                .insert("content-type", HeaderValue::from_static("application/json"));
            hand.finish(response);
            let answer = ask(&merged(merge, [Branch::new("x", hand)]), get("/")).await;
            assert_eq!(answer.status, if status < 300 { 200 } else { 502 });
            assert_eq!(feed.polls(), 0);
            assert!(feed.is_dropped());
        }
    }
}

// B35
#[tokio::test]
async fn the_content_type_has_to_say_json() {
    let typed = |lines: &[&'static str]| {
        let reply = Reply::status(200).body(r#"{"a":1}"#);
        lines
            .iter()
            .fold(reply, |reply, line| reply.header("content-type", *line))
    };
    for lines in [
        &[][..],
        &["application/json"],
        &["APPLICATION/JSON"],
        &["application/json; charset=utf-8"],
        &["application/json;charset=\"UTF-8\""],
        &["application/json; version=2"],
        &["application/hal+json"],
        &["application/problem+json"],
        &["text/json"],
    ] {
        only(JsonMerge::object(), typed(lines))
            .await
            .assert_document(r#"{"a":1}"#, true);
    }
    for lines in [
        &["text/html"][..],
        &["text/plain"],
        &["text/html; x=application/json"],
        &["application/jsonp"],
        &["application/json-seq"],
        &["application/x-ndjson"],
        &["application/javascript"],
        &["json"],
        &[""],
        &["application/json; charset=utf-16"],
        &["application/json; charset=iso-8859-1"],
        &["application/json", "text/html"],
        &["text/html", "application/json"],
    ] {
        let answer = only(JsonMerge::object(), typed(lines)).await;
        assert_failed(&answer, "its content type is not JSON");
    }
}

// B30
#[tokio::test]
async fn an_encoding_that_was_not_asked_for_is_a_failure() {
    let encoded = |lines: &[&'static str]| {
        let reply = a();
        lines
            .iter()
            .fold(reply, |reply, line| reply.header("content-encoding", *line))
    };
    for lines in [&["identity"][..], &["Identity, identity"], &[""]] {
        only(JsonMerge::object(), encoded(lines))
            .await
            .assert_document(r#"{"a":1}"#, true);
    }
    for lines in [
        &["gzip"][..],
        &["br"],
        &["identity, gzip"],
        &["identity", "deflate"],
        &["x"],
    ] {
        let answer = only(JsonMerge::object(), encoded(lines)).await;
        assert_failed(&answer, "its content encoding was not asked for");
    }
}

// L19, B34
#[tokio::test]
async fn what_is_no_object_has_no_place_in_a_union() {
    for document in ["[1]", "[]", "7", "\"x\"", "true"] {
        let reply = || Reply::json(document);
        let alone = only(JsonMerge::object(), reply()).await;
        assert_failed(&alone, "its document is not an object");
        answer(
            JsonMerge::object(),
            [optional("x", a()), optional("y", reply())],
        )
        .await
        .assert_document(r#"{"a":1}"#, false);
        // Grouped, both are kept, and so are two of them.
        let grouped = |key: &str| {
            Branch::http(
                key,
                JsonPartLayer::new()
                    .group(key)
                    .layer(Scripted::reply(reply())),
            )
        };
        answer(
            JsonMerge::object(),
            [optional("x", a()), grouped("g"), grouped("h")],
        )
        .await
        .assert_document(&format!(r#"{{"a":1,"g":{document},"h":{document}}}"#), true);
        answer(
            JsonMerge::group(),
            [optional("x", reply()), optional("y", reply())],
        )
        .await
        .assert_document(&format!(r#"{{"x":{document},"y":{document}}}"#), true);
    }
    // `null` is nothing, and something is missing.
    answer(
        JsonMerge::object(),
        [optional("x", a()), optional("y", Reply::json(" null "))],
    )
    .await
    .assert_document(r#"{"a":1}"#, false);
}

// B36
#[tokio::test(start_paused = true)]
async fn no_answer_shows_what_an_upstream_said_or_where_it_is() {
    const SECRET: &str = "s3cret";
    let with_fields = |reply: Reply| {
        [
            "server",
            "location",
            "x-upstream",
            "set-cookie",
            "content-type",
            "etag",
            "via",
        ]
        .into_iter()
        .fold(reply, |reply, name| reply.header(name, SECRET))
    };
    let mut replies = vec![
        Reply::fail(format!("connect to http://{SECRET}.internal:9002 refused")),
        Reply::error(Deep(ScriptedError::new(SECRET))),
        Reply::panic(format!("index out of bounds: {SECRET}")),
        Reply::json(format!("<html>{SECRET}</html>")),
        Reply::json(format!("[\"{SECRET}\"")),
        Reply::json(format!("{{\"{SECRET}\":")).then_fail(),
        with_fields(Reply::status(200)).body(SECRET),
        Reply::status(200)
            .header("content-encoding", SECRET)
            .body(SECRET),
    ];
    for status in [
        300, 302, 304, 400, 401, 403, 404, 407, 409, 422, 429, 500, 502, 503, 504,
    ] {
        replies.push(with_fields(Reply::status(status)).body(SECRET));
    }
    for reply in replies {
        let failing = |required: bool| {
            let branch = optional("x", reply.clone());
            if required { branch.required() } else { branch }
        };
        let located = || {
            let template = UriTemplate::new("http://s3cret.internal/{missing}");
            Branch::http("z", RewriteLayer::new(template).layer(Scripted::reply(a())))
        };
        for required in [true, false] {
            for with in [true, false] {
                let branches = || {
                    let mut branches = vec![failing(required), located()];
                    if with {
                        branches.push(optional("y", b()));
                    }
                    branches
                };
                let mut answers = Vec::new();
                for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
                    let merge = merge.failure_details().server_timing();
                    answers.push(ask(&merged(merge, branches()), get("/")).await);
                }
                answers.push(ask(&merged(Quorum::of(3), branches()), get("/")).await);
                if matches!(&reply, reply if !format!("{reply:?}").contains("status: 200")) {
                    answers.push(ask(&merged(FirstSuccess::new(), branches()), get("/")).await);
                }
                for answer in answers {
                    let shown = format!("{answer:?}");
                    assert!(
                        !shown.contains(SECRET) && !shown.contains("internal"),
                        "{shown}"
                    );
                }
            }
        }
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("s3cret: {0}")]
struct Deep(#[source] ScriptedError);

/// A body of one frame, that may panic.
struct Panicky {
    on_poll: bool,
    data: Option<Bytes>,
    _bomb: Option<Bomb>,
}

impl Body for Panicky {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.on_poll {
            // With what panics in turn as it goes.
            std::panic::panic_any(Bomb("on purpose"));
        }
        Poll::Ready(self.data.take().map(|data| Ok(Frame::data(data))))
    }
}

fn panicky(status: u16, on_poll: bool) -> HttpBranch {
    let answer = move |_: Request<TeeBody>| async move {
        let mut response = Response::new(Panicky {
            on_poll,
            data: Some(Bytes::from(r#"{"a":1}"#)),
            _bomb: (!on_poll).then(|| Bomb("on purpose")),
        });
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        Ok::<_, Infallible>(response)
    };
    Branch::http("panicky", service_fn(answer))
}

#[tokio::test]
async fn a_body_that_panics_while_it_is_read_is_the_failure_of_its_branch() {
    let branches = [panicky(200, true), optional("y", b())];
    answer(JsonMerge::group(), branches)
        .await
        .assert_document(r#"{"y":{"b":2}}"#, false);
    let failed = answer(JsonMerge::group(), [panicky(200, true)]).await;
    assert_eq!(
        listed(&failed.assert_problem(502)),
        [("panicky", "panicked")]
    );
    let branches = [panicky(200, true), optional("y", b())];
    let merge = FirstSuccess::new().collected(99);
    assert_eq!(
        ask(&merged(merge, branches), get("/")).await.body,
        r#"{"b":2}"#
    );
}

#[tokio::test]
async fn a_body_that_panics_on_its_way_out_does_not_cost_the_answer() {
    // Read to its end; not read; over its budget.
    for (status, merge) in [
        (200, JsonMerge::group()),
        (204, JsonMerge::group()),
        (500, JsonMerge::group()),
        (200, JsonMerge::group().max_bytes(3)),
    ] {
        let branches = [panicky(status, false), optional("y", Reply::json("2"))];
        let answer = answer(merge, branches).await;
        assert_eq!(
            (answer.status, &answer.json()["y"]),
            (200, &json!(2)),
            "{status}"
        );
    }
    // An answer that nobody wants: it lost, or it failed.
    for status in [200, 500] {
        let branches = || [optional("y", b()), panicky(status, false)];
        let first = ask(&merged(FirstSuccess::new(), branches()), get("/")).await;
        assert_eq!((first.status, &*first.body), (200, r#"{"b":2}"#));
        let quorum = ask(&merged(Quorum::of(1), branches()), get("/")).await;
        assert_eq!((quorum.status, &*quorum.body), (200, r#"{"b":2}"#));
    }
}
