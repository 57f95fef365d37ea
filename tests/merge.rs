//! What the merges answer: the table of answers row by row, JSON documents against a reference, and when they answer.

mod support;

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full};
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};
use tower::util::{BoxCloneSyncService, Either};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use watershed::body::{Completeness, ResponseBody};
use watershed::clone_request::{CloneRequestLayer, TeeBody};
use watershed::deadline::{Deadline, Phase, TimedOut};
use watershed::error::{BoxError, ClientFault};
use watershed::fanout::{BranchFuture, CredentialsLayer, FanOut, FanOutLayer, HttpService};
use watershed::merge::{
    Conflict, FirstSuccess, JsonMerge, JsonPartLayer, Merge, MergeLayer, PassthroughLayer, Quorum,
    merge_parts,
};
use watershed::outcome::{Branch, BranchError, Gather};
use watershed::rewrite::{PathParams, RewriteLayer, UriTemplate};
use watershed::test_util::{RecordedCall, Reply, Scripted, ScriptedError};
use watershed::timeout::ClientTimeoutLayer;

use support::{
    Answer, Bomb, FedBody, Feed, Hand, HttpBranch, MS, Stack, ask, get, merged, on_paused_clock,
    post, stack,
};

fn optional(name: &str, reply: Reply) -> HttpBranch {
    Branch::http(name, Scripted::reply(reply))
}

fn required(name: &str, reply: Reply) -> HttpBranch {
    optional(name, reply).required()
}

/// The answer of a merge over these branches, without a deadline.
async fn answer<const N: usize>(merge: JsonMerge, branches: [HttpBranch; N]) -> Answer {
    ask(&merged(merge, branches), get("/")).await
}

fn a() -> Reply {
    Reply::json(r#"{"a":1}"#)
}

fn b() -> Reply {
    Reply::json(r#"{"b":2}"#)
}

/// What a merge of HTTP branches is.
trait Merges:
    Merge<Gathered, Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static>
    + Send
    + Sync
    + 'static
{
}

type Gathered = Gather<BranchFuture<HttpService, Request<TeeBody>>>;

impl<M> Merges for M where
    M: Merge<Gathered, Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static>
        + Send
        + Sync
        + 'static
{
}

/// The branches that a problem lists, with their reasons.
fn listed(problem: &Value) -> Vec<(&str, &str)> {
    let branches = problem["branches"].as_array().expect("a list");
    branches
        .iter()
        .map(|branch| {
            let text = |name: &str| branch[name].as_str().expect("a text");
            (text("branch"), text("reason"))
        })
        .collect()
}

mod table {
    use super::*;

    // L01
    #[tokio::test]
    async fn what_all_branches_answer_is_merged_and_complete() {
        let branches = || [optional("x", a()), optional("y", b())];
        for (merge, document) in [
            (JsonMerge::object(), r#"{"a":1,"b":2}"#),
            (JsonMerge::group(), r#"{"x":{"a":1},"y":{"b":2}}"#),
            (JsonMerge::array(), r#"[{"a":1},{"b":2}]"#),
        ] {
            answer(merge, branches())
                .await
                .assert_document(document, true);
        }
    }

    // L02
    #[tokio::test]
    async fn one_branch_is_treated_as_two_are() {
        for (merge, document) in [
            (JsonMerge::object(), r#"{"a":1}"#),
            (JsonMerge::group(), r#"{"x":{"a":1}}"#),
            (JsonMerge::array(), r#"[{"a":1}]"#),
        ] {
            let branch = optional("x", a().header("x-own", "1").header("etag", "\"1\""));
            let answer = answer(merge.clone(), [branch]).await;
            answer.assert_document(document, true);
            assert!(answer.field("x-own").is_none() && answer.field("etag").is_none());

            // Its failure is no answer of its own either.
            let failed = optional("x", Reply::status(404).body("not here"));
            let problem = super::answer(merge, [failed]).await.assert_problem(502);
            assert_eq!(listed(&problem), [("x", "status 404")]);
        }
    }

    // L03
    #[tokio::test]
    async fn a_failed_branch_costs_its_own_part_only() {
        for status in [
            206, 226, 300, 301, 302, 304, 307, 400, 401, 403, 404, 408, 418, 429, 500, 502, 503,
            504, 599,
        ] {
            let fresh = a().header("cache-control", "max-age=60");
            let failed = Reply::status(status)
                .header("cache-control", "max-age=60")
                .body(r#"{"b":2}"#);
            for (merge, document) in [
                (JsonMerge::object(), r#"{"a":1}"#),
                (JsonMerge::group(), r#"{"x":{"a":1}}"#),
                (JsonMerge::array(), r#"[{"a":1}]"#),
            ] {
                let answer = answer(
                    merge,
                    [optional("x", fresh.clone()), optional("y", failed.clone())],
                )
                .await;
                answer.assert_document(document, false);
                assert_eq!(answer.field("cache-control"), None);
            }
        }
    }

    // L04, L05, L49
    #[tokio::test]
    async fn if_every_branch_fails_the_problem_lists_them_in_declared_order() {
        let cases: [(Reply, &str); 8] = [
            (Reply::status(503).body("overloaded"), "status 503"),
            (Reply::status(404), "status 404"),
            (Reply::status(302).header("location", "/x"), "status 302"),
            (Reply::fail("refused by 10.0.0.7"), "failed"),
            (Reply::panic("at line 7"), "panicked"),
            (Reply::json(""), "it is not JSON"),
            (Reply::json("{").then_fail(), "its body was cut short"),
            (
                Reply::status(200).header("content-type", "text/html"),
                "its content type is not JSON",
            ),
        ];
        for (first, first_reason) in &cases {
            for (second, second_reason) in &cases {
                for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
                    let branches = [optional("x", first.clone()), optional("y", second.clone())];
                    let answer = answer(merge, branches).await;
                    let problem = answer.assert_problem(502);
                    assert_eq!(
                        listed(&problem),
                        [("x", *first_reason), ("y", *second_reason)]
                    );
                    assert!(!answer.complete());
                }
            }
        }
    }

    // L06
    #[tokio::test]
    async fn a_branch_that_is_incomplete_makes_the_whole_incomplete() {
        let say = |complete: &'static str| a().header("watershed-complete", complete);
        for (reply, complete) in [
            (say("true"), true),
            (say("false"), false),
            (say("FALSE"), false),
            (a(), true),
        ] {
            let branches = [optional("x", b()), optional("y", reply)];
            answer(JsonMerge::object(), branches)
                .await
                .assert_document(r#"{"b":2,"a":1}"#, complete);
        }
    }

    // L07, L08, L49
    #[tokio::test]
    async fn empty_and_incomplete_parts_are_no_error() {
        let empty = || Reply::status(204).header("watershed-complete", "false");
        for (merge, both, one) in [
            (JsonMerge::object(), "{}", r#"{"a":1}"#),
            (
                JsonMerge::group(),
                r#"{"x":null,"y":null}"#,
                r#"{"x":{"a":1},"y":null}"#,
            ),
            (JsonMerge::array(), "[null,null]", r#"[{"a":1},null]"#),
        ] {
            answer(
                merge.clone(),
                [optional("x", empty()), optional("y", empty())],
            )
            .await
            .assert_document(both, false);
            answer(merge.clone(), [optional("x", a()), optional("y", empty())])
                .await
                .assert_document(one, false);
            // Without that mark nothing is missing.
            let complete = || optional("y", Reply::status(204));
            answer(merge, [optional("x", a()), complete()])
                .await
                .assert_document(one, true);
        }
    }

    // L22, B24
    #[tokio::test]
    async fn any_2xx_is_a_success_and_204_and_205_are_empty_parts() {
        // A part of a document, and a delta, are none.
        for status in (200..300u16).filter(|status| !matches!(status, 206 | 226)) {
            // What such an answer says of its content is not believed.
            let reply = Reply::status(status)
                .header("content-type", "application/json")
                .body(r#"{"b":2}"#);
            let is_empty = matches!(status, 204 | 205);
            for (merge, whole, empty) in [
                (JsonMerge::object(), r#"{"a":1,"b":2}"#, r#"{"a":1}"#),
                (
                    JsonMerge::group(),
                    r#"{"x":{"a":1},"y":{"b":2}}"#,
                    r#"{"x":{"a":1},"y":null}"#,
                ),
                (
                    JsonMerge::array(),
                    r#"[{"a":1},{"b":2}]"#,
                    r#"[{"a":1},null]"#,
                ),
            ] {
                let branches = [optional("x", a()), optional("y", reply.clone()).required()];
                let document = if is_empty { empty } else { whole };
                answer(merge, branches)
                    .await
                    .assert_document(document, true);
            }
        }
    }

    // L21, B27, B35
    #[tokio::test]
    async fn what_is_no_document_is_a_failure() {
        for reply in [
            Reply::json(""),
            Reply::json("  \n"),
            Reply::json("plain text"),
            Reply::json("<html></html>"),
            Reply::json("{"),
            Reply::json(r#"{"b":2"#),
            Reply::json(r#"{"b":2}}"#),
            Reply::json(r#"{"b":2} trailing"#),
            Reply::json(r#"{"b":2}{"b":3}"#),
            Reply::json(r#"{"b":2,}"#),
            Reply::json("{'b':2}"),
            Reply::json("{b:2}"),
            Reply::json("{\"b\":NaN}"),
            Reply::json("{\"b\":01}"),
            Reply::json("\u{feff}{}"),
            Reply::json(&b"{\"b\":\"\xff\"}"[..]),
            // Cut short, though what has come is a document.
            Reply::json(r#"{"b":2}"#).then_fail(),
            Reply::status(200).frames([r#"{"b":"#, "2}"]).then_fail(),
            Reply::fail("connection refused"),
            Reply::error(ScriptedError::new("connection reset")),
        ] {
            for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
                let branches = [optional("x", a()), optional("y", reply.clone())];
                let partial = answer(merge.clone(), branches).await;
                assert_eq!((partial.status, partial.complete()), (200, false));
                assert!(partial.body.contains(r#"{"a":1"#) && !partial.body.contains('y'));
                let alone = answer(merge, [required("y", reply.clone())]).await;
                alone.assert_problem(502);
            }
        }
    }

    // L33, L49
    #[tokio::test]
    async fn what_its_condition_skips_is_not_missing() {
        let wants = |path: &'static str| {
            move |request: &Request<TeeBody>| request.uri().path().contains(path)
        };
        let branches = || {
            [
                optional("x", a()).when(wants("x")),
                optional("y", b()).when(wants("y")),
                required("z", Reply::json(r#"{"c":3}"#)).when(wants("z")),
            ]
        };
        for (merge, answers) in [
            (
                JsonMerge::object(),
                [
                    r#"{"a":1,"b":2,"c":3}"#,
                    r#"{"a":1}"#,
                    r#"{"a":1,"c":3}"#,
                    r#"{"c":3}"#,
                    "{}",
                ],
            ),
            (
                JsonMerge::group(),
                [
                    r#"{"x":{"a":1},"y":{"b":2},"z":{"c":3}}"#,
                    r#"{"x":{"a":1}}"#,
                    r#"{"x":{"a":1},"z":{"c":3}}"#,
                    r#"{"z":{"c":3}}"#,
                    "{}",
                ],
            ),
            (
                JsonMerge::array(),
                [
                    r#"[{"a":1},{"b":2},{"c":3}]"#,
                    r#"[{"a":1}]"#,
                    r#"[{"a":1},{"c":3}]"#,
                    r#"[{"c":3}]"#,
                    "[]",
                ],
            ),
        ] {
            let service = merged(merge, branches());
            for (path, document) in ["/xyz", "/x", "/xz", "/z", "/"].into_iter().zip(answers) {
                ask(&service, get(path))
                    .await
                    .assert_document(document, true);
            }
        }
    }

    // L33
    #[tokio::test]
    async fn skipped_and_failed_is_none_present() {
        for (reply, status) in [(Reply::status(503), 502), (Reply::error(late()), 504)] {
            let branches = [optional("x", a()).when(|_| false), optional("y", reply)];
            let problem = answer(JsonMerge::object(), branches)
                .await
                .assert_problem(status);
            // What was skipped has not failed.
            assert_eq!(listed(&problem).len(), 1);
        }
    }

    // L33
    #[tokio::test]
    async fn every_merge_answers_200_without_content_if_all_is_skipped() {
        fn branches() -> [HttpBranch; 3] {
            ["x", "y", "z"].map(|name| optional(name, a()).when(|_| false))
        }
        let answers = [
            ask(&merged(JsonMerge::object(), branches()), get("/")).await,
            ask(&merged(FirstSuccess::new(), branches()), get("/")).await,
            ask(
                &merged(FirstSuccess::new().collected(9), branches()),
                get("/"),
            )
            .await,
            ask(&merged(Quorum::majority(), branches()), get("/")).await,
            ask(&merged(Quorum::of(1), branches()), get("/")).await,
            ask(&merged(Quorum::of(2), branches()), get("/")).await,
            ask(&merged(Quorum::of(3), branches()), get("/")).await,
        ];
        for (index, answer) in answers.into_iter().enumerate() {
            assert_eq!(answer.status, 200, "{index}: {answer:?}");
            assert!(answer.complete());
            assert!(matches!(&*answer.body, "" | "{}"));
        }
    }

    /// A timeout somewhere inside a branch.
    fn late() -> TimedOut {
        TimedOut::new(Phase::Head, MS, MS)
    }

    // L23
    #[tokio::test]
    async fn the_4xx_of_a_required_branch_is_answered_with_our_body() {
        for status in 400..500u16 {
            let reply = Reply::status(status)
                .header("retry-after", 7)
                .header("server", "internal")
                .header("set-cookie", "a=b")
                .body("upstream text");
            for optional_sibling in [true, false] {
                let sibling = if optional_sibling {
                    optional("x", a())
                } else {
                    required("x", a())
                };
                let answer =
                    answer(JsonMerge::object(), [sibling, required("y", reply.clone())]).await;
                let expected = match status {
                    // They concern the hop; a 401 without a challenge is of no use.
                    401 | 407 | 408 | 421 | 425 | 426 | 431 => 502,
                    other => other,
                };
                let problem = answer.assert_problem(expected);
                assert_eq!(problem["branch"], "y");
                assert_eq!(problem["reason"], format!("status {status}"));
                let retry_after = (expected != 502).then_some("7");
                assert_eq!(answer.field("retry-after"), retry_after, "{status}");
                assert!(!answer.complete());
                assert!(answer.field("server").is_none() && answer.field("set-cookie").is_none());
            }
        }
    }

    // L23
    #[tokio::test]
    async fn a_401_keeps_its_challenges() {
        let reply = Reply::status(401)
            .header("www-authenticate", "Basic realm=\"x\"")
            .header("www-authenticate", "Bearer")
            .header("retry-after", 1);
        let answer = answer(JsonMerge::group(), [required("x", reply)]).await;
        answer.assert_problem(401);
        let challenges: Vec<_> = answer.headers.get_all("www-authenticate").iter().collect();
        assert_eq!(challenges, ["Basic realm=\"x\"", "Bearer"]);
        // Nobody else's challenge is passed on.
        for status in [403, 404, 407, 500] {
            let reply = Reply::status(status).header("www-authenticate", "Basic");
            let answer = super::answer(JsonMerge::group(), [required("x", reply)]).await;
            assert_eq!(answer.field("www-authenticate"), None);
        }
    }

    // L49
    #[tokio::test]
    async fn a_405_keeps_what_is_allowed() {
        let reply = Reply::status(405).header("allow", "GET, HEAD");
        let answer = answer(JsonMerge::group(), [required("x", reply)]).await;
        answer.assert_problem(405);
        assert_eq!(answer.field("allow"), Some("GET, HEAD"));
        for status in [404, 500] {
            let reply = Reply::status(status).header("allow", "GET");
            let answer = super::answer(JsonMerge::group(), [required("x", reply)]).await;
            assert_eq!(answer.field("allow"), None);
        }
    }

    // L23, B36
    #[tokio::test]
    async fn retry_after_is_kept_if_it_is_a_time() {
        for (value, kept) in [
            ("0", true),
            ("120", true),
            ("Wed, 21 Oct 2015 07:28:00 GMT", true),
            ("", false),
            ("-1", false),
            ("soon", false),
            ("1.5", false),
            ("7; ask 10.0.0.7", false),
            ("99999999999999999999", false),
        ] {
            for status in [404, 429] {
                let reply = Reply::status(status).header("retry-after", value);
                let answer = answer(JsonMerge::group(), [required("x", reply)]).await;
                answer.assert_problem(status);
                assert_eq!(answer.field("retry-after"), kept.then_some(value));
            }
        }
    }

    // L23
    #[tokio::test]
    async fn a_required_branch_that_fails_otherwise_is_502() {
        let statuses = (300..400u16).chain(500..600).map(|status| {
            Reply::status(status)
                .header("location", "http://internal/")
                .header("retry-after", 7)
        });
        let others = [
            Reply::fail("refused"),
            Reply::panic("oops"),
            Reply::json("{"),
        ];
        for reply in statuses.chain(others) {
            let answer = answer(
                JsonMerge::object(),
                [optional("x", a()), required("y", reply)],
            )
            .await;
            let problem = answer.assert_problem(502);
            assert_eq!(problem["branch"], "y");
            assert_eq!(problem["detail"], "a required branch failed");
            assert!(answer.field("location").is_none() && answer.field("retry-after").is_none());
        }
    }

    // L23
    #[tokio::test(start_paused = true)]
    async fn a_required_branch_that_is_late_is_504() {
        let slow = |_: Request<TeeBody>| pending::<Result<Response<Empty<Bytes>>, BoxError>>();
        let fails = |error: fn() -> BoxError| {
            service_fn(move |_: Request<TeeBody>| async move {
                Err::<Response<Empty<Bytes>>, _>(error())
            })
        };
        let branches: [HttpBranch; 6] = [
            optional("typed", Reply::error(late())),
            Branch::http(
                "tower",
                fails(|| tower::timeout::error::Elapsed::new().into()),
            ),
            Branch::http(
                "io",
                fails(|| io::Error::from(io::ErrorKind::TimedOut).into()),
            ),
            Branch::http(
                "client",
                ClientTimeoutLayer::new(MS).layer(service_fn(slow)),
            ),
            Branch::http("unready", Scripted::never_ready()),
            Branch::http("slow", service_fn(slow)),
        ];
        for branch in branches {
            let name = branch.name().to_owned();
            let layer = MergeLayer::new(JsonMerge::object()).within(Duration::from_secs(10));
            let service = stack(&layer, [optional("x", a()), branch.clone().required()]);
            let problem = ask(&service, get("/")).await.assert_problem(504);
            assert_eq!(problem["branch"], name);
            // And late is late if it was not required.
            let problem = ask(&stack(&layer, [branch]), get("/"))
                .await
                .assert_problem(504);
            assert_eq!(listed(&problem).len(), 1);
        }
    }

    // L23
    #[tokio::test]
    async fn the_first_declared_of_the_required_ones_that_failed_decides() {
        let replies = [
            Reply::json("{}"),
            Reply::status(404),
            Reply::status(503),
            Reply::error(late()),
            Reply::status(403),
        ];
        let expected = [None, Some(404), Some(502), Some(504), Some(403)];
        for first in 0..5 {
            for second in 0..5 {
                for third in 0..5 {
                    let order = [first, second, third];
                    let branches = order.map(|index| replies[index].clone());
                    let [x, y, z] = branches;
                    // Which of them are required.
                    for mask in 0..8usize {
                        let mut branches = [
                            optional("x", x.clone()),
                            optional("y", y.clone()),
                            optional("z", z.clone()),
                        ];
                        for (bit, branch) in branches.iter_mut().enumerate() {
                            if mask >> bit & 1 == 1 {
                                *branch = branch.clone().required();
                            }
                        }
                        let decides = (0..3)
                            .filter(|bit| mask >> bit & 1 == 1)
                            .find_map(|bit| expected[order[bit]].map(|status| (bit, status)));
                        let answer = answer(JsonMerge::object(), branches).await;
                        match decides {
                            Some((bit, status)) => {
                                let problem = answer.assert_problem(status);
                                assert_eq!(problem["branch"], ["x", "y", "z"][bit]);
                            }
                            None => assert!(
                                matches!(answer.status, 200 | 502 | 504),
                                "no required branch failed: {answer:?}"
                            ),
                        }
                    }
                }
            }
        }
    }

    // L10
    #[tokio::test]
    async fn none_present_is_504_only_if_all_were_late() {
        let late = || Reply::error(late());
        for (replies, status) in [
            ([late(), late()], 504),
            ([late(), Reply::status(503)], 502),
            ([Reply::fail("refused"), late()], 502),
            ([Reply::status(504), Reply::status(504)], 502),
        ] {
            let [x, y] = replies;
            for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
                let branches = [optional("x", x.clone()), optional("y", y.clone())];
                let problem = answer(merge, branches).await.assert_problem(status);
                assert_eq!(problem["detail"], "no branch answered");
            }
        }
    }

    // L24
    #[tokio::test]
    async fn failure_details_say_why_a_part_is_missing() {
        let failing = || {
            [
                optional("x", a()),
                optional("b2", Reply::status(503).body("upstream text")),
                optional("b3", Reply::fail("refused by 10.0.0.7")),
                optional("b4", Reply::json("nonsense")),
                optional("b5", b()).when(|_| false),
            ]
        };
        let details = r#""error_b2":{"reason":"status 503","status":503},"error_b3":{"reason":"failed"},"error_b4":{"reason":"it is not JSON"}"#;
        let merge = JsonMerge::object().failure_details();
        answer(merge, failing())
            .await
            .assert_document(&format!(r#"{{"a":1,{details}}}"#), false);
        let merge = JsonMerge::group().failure_details();
        answer(merge, failing())
            .await
            .assert_document(&format!(r#"{{"x":{{"a":1}},{details}}}"#), false);
        // An array has no place for them, and off is the default.
        let merge = JsonMerge::array().failure_details();
        answer(merge, failing())
            .await
            .assert_document(r#"[{"a":1}]"#, false);
        answer(JsonMerge::object(), failing())
            .await
            .assert_document(r#"{"a":1}"#, false);
    }

    // L24
    #[tokio::test]
    async fn failure_details_are_in_the_problem_if_all_fail() {
        for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
            for merge in [merge.clone(), merge.failure_details()] {
                let branches = [
                    optional("b1", Reply::status(503)),
                    optional("b2", Reply::fail("refused")),
                ];
                let answer = answer(merge, branches).await;
                let problem = answer.assert_problem(502);
                assert_eq!(
                    problem["branches"],
                    json!([
                        {"branch": "b1", "reason": "status 503"},
                        {"branch": "b2", "reason": "failed"},
                    ])
                );
                assert!(problem.get("error_b1").is_none());
            }
        }
    }

    // L24, B34
    #[tokio::test]
    async fn a_detail_wins_over_a_member_of_that_name() {
        let liar = || Reply::json(r#"{"error_y":"all is well","z":1}"#);
        for policy in [
            Conflict::First,
            Conflict::Last,
            Conflict::Deep,
            Conflict::Error,
        ] {
            for branches in [
                [optional("x", liar()), optional("y", Reply::status(500))],
                [optional("y", Reply::status(500)), optional("x", liar())],
            ] {
                let merge = JsonMerge::object().failure_details().on_conflict(policy);
                let answer = answer(merge, branches).await;
                assert_eq!(
                    answer.json(),
                    json!({"z": 1, "error_y": {"reason": "status 500", "status": 500}})
                );
            }
        }
    }

    // L48
    #[tokio::test]
    async fn a_complete_answer_may_be_cached_as_its_strictest_part() {
        let part = |lines: &[(&'static str, &'static str)]| {
            lines
                .iter()
                .fold(Reply::json("{}"), |reply, (name, value)| {
                    reply.header(*name, *value)
                })
        };
        const CC: &str = "cache-control";
        for (x, y, cache_control) in [
            (
                &[(CC, "max-age=60")][..],
                &[(CC, "max-age=10")][..],
                Some("max-age=10"),
            ),
            (&[(CC, "max-age=60")], &[], None),
            (
                &[(CC, "public, max-age=9")],
                &[(CC, "public, max-age=60")],
                Some("public, max-age=9"),
            ),
            (
                &[(CC, "private, max-age=9")],
                &[(CC, "public, max-age=5")],
                Some("private, max-age=5"),
            ),
            (&[(CC, "no-store")], &[(CC, "max-age=60")], Some("no-store")),
            (&[(CC, "no-cache")], &[(CC, "max-age=60")], Some("no-cache")),
            (
                &[(CC, "max-age=60"), (CC, "must-revalidate")],
                &[(CC, "max-age=60")],
                Some("max-age=60, must-revalidate"),
            ),
            (
                &[(CC, "max-age=60"), ("age", "50")],
                &[(CC, "max-age=20")],
                Some("max-age=10"),
            ),
            (&[], &[], None),
        ] {
            for (first, second) in [(x, y), (y, x)] {
                let branches = [optional("x", part(first)), optional("y", part(second))];
                let complete = answer(JsonMerge::group(), branches).await;
                assert_eq!(complete.field(CC), cache_control, "{first:?} {second:?}");
                // What is skipped has no say; what is missing forbids it.
                let branches = [
                    optional("x", part(first)),
                    optional("y", part(second)),
                    optional("z", part(&[(CC, "no-store")])).when(|_| false),
                ];
                let skipped = answer(JsonMerge::group(), branches).await;
                assert_eq!(skipped.field(CC), cache_control);
                let branches = [
                    optional("x", part(first)),
                    optional("y", part(second)),
                    optional("z", Reply::status(500)),
                ];
                let incomplete = answer(JsonMerge::group(), branches).await;
                assert_eq!(incomplete.field(CC), None);
            }
        }
    }

    // L48
    #[tokio::test]
    async fn vary_is_united_and_nothing_else_of_the_heads_is_kept() {
        let x = a()
            .header("vary", "Accept, Origin")
            .header("set-cookie", "a=b")
            .header("server", "internal")
            .header("x-powered-by", "x")
            .header("etag", "\"1\"")
            .header("link", "</x>")
            .header("content-length", "7")
            .header("connection", "close")
            .header("expires", "Thu, 01 Jan 1970 00:00:00 GMT");
        let y = b()
            .header("vary", "origin")
            .header("vary", "X-Tenant")
            .header("set-cookie", "c=d");
        let answer = answer(JsonMerge::object(), [optional("x", x), optional("y", y)]).await;
        assert_eq!(answer.field("vary"), Some("accept, origin, x-tenant"));
        let mut names: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "vary", "watershed-complete"]);

        let star = [
            optional("x", a().header("vary", "accept")),
            optional("y", b().header("vary", "*")),
        ];
        let answer = super::answer(JsonMerge::object(), star).await;
        assert_eq!(answer.field("vary"), Some("*"));
    }

    #[tokio::test(start_paused = true)]
    async fn server_timing_lists_the_branches_in_declared_order_if_asked() {
        let branches = || {
            [
                optional("slow one", a().after(20 * MS)),
                optional("quick", b().body_after(5 * MS)),
                optional("failed", Reply::status(500).after(7 * MS)),
            ]
        };
        let answer = answer(JsonMerge::object().server_timing(), branches()).await;
        assert_eq!(
            answer.field("server-timing"),
            Some("slow_one;dur=20.000, quick;dur=5.000, failed;dur=7.000;desc=failed")
        );
        let answer = super::answer(JsonMerge::object(), branches()).await;
        assert_eq!(answer.field("server-timing"), None);
    }
}

mod fault {
    use super::*;

    /// A stack whose requests may have three bytes.
    fn limited<M>(merge: M, branches: impl IntoIterator<Item = HttpBranch>) -> Stack<M>
    where
        M: Send + Sync,
    {
        let inner = MergeLayer::new(merge).layer(FanOut::new(branches));
        CloneRequestLayer::new().limit(3).layer(inner)
    }

    /// Answers 200 whatever becomes of the request's body.
    fn swallowing(name: &str) -> HttpBranch {
        Branch::http(
            name,
            service_fn(|request: Request<TeeBody>| async {
                let _ = request.into_body().collect().await;
                Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("{}"))))
            }),
        )
    }

    fn post_frames<const N: usize>(frames: [&'static str; N]) -> Request<FedBody> {
        let (feed, body) = Feed::new();
        for frame in frames {
            feed.data(frame);
        }
        feed.end();
        Request::post("/").body(body).unwrap()
    }

    /// All merges that there are, over the same branches.
    async fn ask_all(
        branches: fn() -> Vec<HttpBranch>,
        request: fn() -> Request<FedBody>,
    ) -> Vec<Answer> {
        let parts = merge_parts(|_, _| async { Response::new(Full::new(Bytes::from("asked"))) });
        vec![
            ask(&limited(JsonMerge::object(), branches()), request()).await,
            ask(&limited(JsonMerge::group(), branches()), request()).await,
            ask(&limited(JsonMerge::array(), branches()), request()).await,
            ask(&limited(FirstSuccess::new(), branches()), request()).await,
            ask(
                &limited(FirstSuccess::new().collected(99), branches()),
                request(),
            )
            .await,
            ask(&limited(Quorum::of(1), branches()), request()).await,
            ask(&limited(Quorum::of(2), branches()), request()).await,
            ask(&limited(parts, branches()), request()).await,
        ]
    }

    // L23
    #[tokio::test]
    async fn a_body_over_its_limit_is_413_even_if_branches_answered() {
        fn request() -> Request<FedBody> {
            post_frames(["ab", "cd"])
        }
        let shapes: [fn() -> Vec<HttpBranch>; 4] = [
            // One branch says so; the others have answered without reading it.
            || {
                vec![
                    Branch::http("x", Scripted::reply(a()).reads_request_body(false)),
                    optional("y", b()),
                ]
            },
            || vec![optional("x", a()), required("y", b())],
            // All that read it have kept it to themselves.
            || {
                vec![
                    Branch::http("x", Scripted::reply(a()).reads_request_body(false)),
                    swallowing("y"),
                ]
            },
            || vec![swallowing("x").required(), swallowing("y")],
        ];
        for branches in shapes {
            for answer in ask_all(branches, request).await {
                let problem = answer.assert_problem(413);
                assert_eq!(problem["detail"], "the request body is larger than 3 bytes");
            }
        }
        // A body within the limit is no fault.
        fn small() -> Request<FedBody> {
            post_frames(["a", "bc"])
        }
        for answer in ask_all(shapes[1], small).await {
            assert_eq!(answer.status, 200);
        }
    }

    // L39
    #[tokio::test]
    async fn a_body_that_breaks_is_400_even_if_branches_answered() {
        fn request() -> Request<FedBody> {
            let (feed, body) = Feed::new();
            feed.data("a");
            feed.fail(io::Error::other("reset by 10.0.0.7"));
            Request::post("/").body(body).unwrap()
        }
        let shapes: [fn() -> Vec<HttpBranch>; 2] = [
            || {
                vec![
                    Branch::http("x", Scripted::reply(a()).reads_request_body(false)),
                    optional("y", b()),
                ]
            },
            || vec![swallowing("x"), swallowing("y")],
        ];
        for branches in shapes {
            for answer in ask_all(branches, request).await {
                let problem = answer.assert_problem(400);
                assert_eq!(problem["detail"], "the request body could not be read");
            }
        }
    }

    // L23
    #[tokio::test]
    async fn a_body_that_nobody_read_is_nobodys_fault() {
        let unread =
            |name: &str| Branch::http(name, Scripted::reply(a()).reads_request_body(false));
        let service = limited(JsonMerge::group(), [unread("x"), unread("y")]);
        let answer = ask(&service, post_frames(["abcd"])).await;
        assert_eq!((answer.status, answer.complete()), (200, true));
    }

    fn templated(name: &str, template: &str) -> HttpBranch {
        let layer = RewriteLayer::new(UriTemplate::new(template));
        Branch::http(name, layer.layer(Scripted::reply(a())))
    }

    fn with_id(id: &str) -> Request<FedBody> {
        let mut request = post_frames([]);
        request
            .extensions_mut()
            .insert(PathParams::from_iter([("id", id)]));
        request
    }

    // B13
    #[tokio::test]
    async fn a_bad_value_in_the_path_is_400_even_if_branches_answered() {
        fn request() -> Request<FedBody> {
            with_id("../admin")
        }
        let shapes: [fn() -> Vec<HttpBranch>; 3] = [
            || {
                vec![
                    optional("x", a()),
                    templated("y", "http://users.internal/{id}"),
                ]
            },
            || {
                vec![
                    templated("x", "http://users.internal/{id}"),
                    optional("y", a()),
                ]
            },
            || vec![templated("x", "/a/{id}").required(), required("y", a())],
        ];
        for branches in shapes {
            for answer in ask_all(branches, request).await {
                let problem = answer.assert_problem(400);
                assert!(!answer.body.contains("internal") && !answer.body.contains("admin"));
                assert!(
                    problem["detail"]
                        .as_str()
                        .expect("a detail")
                        .contains("\"id\"")
                );
            }
        }
        // One that is harmless in its place.
        fn fine() -> Request<FedBody> {
            with_id("a/b")
        }
        for answer in ask_all(shapes[0], fine).await {
            assert_eq!(answer.status, 200);
        }
    }

    #[tokio::test]
    async fn a_path_that_gets_too_long_is_414() {
        fn request() -> Request<FedBody> {
            with_id(&"x".repeat(1 << 16))
        }
        let branches = || vec![optional("x", a()), templated("y", "/{id}")];
        for answer in ask_all(branches, request).await {
            answer.assert_problem(414);
        }
    }

    #[tokio::test]
    async fn a_value_that_our_router_did_not_give_is_our_failure() {
        let branches = [optional("x", a()), templated("y", "/{id}")];
        let answer = ask(&limited(JsonMerge::group(), branches), post_frames([])).await;
        answer.assert_document(r#"{"x":{"a":1}}"#, false);
        let branches = [optional("x", a()), templated("y", "/{id}").required()];
        let answer = ask(&limited(JsonMerge::group(), branches), post_frames([])).await;
        answer.assert_problem(502);
    }

    #[tokio::test]
    async fn any_layer_may_say_that_the_client_is_at_fault() {
        let fault = ClientFault::new(StatusCode::UNPROCESSABLE_ENTITY, "the cart is empty");
        for wrapped in [
            Reply::error(fault.clone()),
            Reply::error(Wrapped(fault.clone())),
        ] {
            let branches = [required("x", a()), optional("y", wrapped)];
            let problem = answer(JsonMerge::group(), branches)
                .await
                .assert_problem(422);
            assert_eq!(problem["detail"], "the cart is empty");
        }
    }

    #[derive(Debug, Clone, thiserror::Error)]
    #[error("the branch failed")]
    struct Wrapped(#[source] ClientFault);

    // L23
    #[tokio::test]
    async fn a_fault_goes_before_the_failure_of_a_required_branch() {
        let bad_value = || templated("y", "/{id}");
        let reads = || optional("y", b());
        for failed in [
            Reply::status(404),
            Reply::fail("refused"),
            Reply::panic("oops"),
        ] {
            let failed = || {
                Branch::http(
                    "x",
                    Scripted::reply(failed.clone()).reads_request_body(false),
                )
                .required()
            };
            // Both are known in the same poll.
            for branches in [[failed(), bad_value()], [bad_value(), failed()]] {
                let answer = ask(&limited(JsonMerge::group(), branches), with_id("..")).await;
                answer.assert_problem(400);
            }
            for branches in [[failed(), reads()], [reads(), failed()]] {
                let answer = ask(
                    &limited(JsonMerge::group(), branches),
                    post_frames(["abcd"]),
                )
                .await;
                answer.assert_problem(413);
            }
        }
    }

    #[test]
    fn a_fault_is_answered_at_once() {
        let hands = Hand::<Response<Full<Bytes>>>::several(3);
        let branch = |(index, hand): (usize, &Hand<_>)| {
            Branch::new(format!("b{index}"), hand.clone()).required()
        };
        let mut service = merged(JsonMerge::group(), hands.iter().enumerate().map(branch));
        let mut call = task::spawn(service.call(get("/")));
        assert_pending!(call.poll());
        hands[2].fail(ClientFault::bad_request("the cart is empty"));
        let response = assert_ready!(call.poll()).expect("infallible");
        assert_eq!(response.status(), 400);
        assert_eq!(hands.iter().map(Hand::drops).collect::<Vec<_>>(), [1, 1, 1]);
    }
}

mod deadlines {
    use super::*;

    /// Lura's "endpoint timeout".
    const E: Duration = Duration::from_millis(400);

    /// Answers so many thousandths of `E` after the call: with its head, or with the end of its body.
    fn after(name: &str, thousandths: u32, whole: bool) -> HttpBranch {
        let delay = E * thousandths / 1000;
        let reply = Reply::json(format!(r#"{{"{name}":1}}"#));
        optional(
            name,
            if whole {
                reply.body_after(delay)
            } else {
                reply.after(delay)
            },
        )
    }

    fn within(limit: Duration) -> MergeLayer<JsonMerge> {
        MergeLayer::new(JsonMerge::object()).within(limit)
    }

    // L09, L11
    #[tokio::test(start_paused = true)]
    async fn a_late_branch_costs_its_own_part_at_the_exact_deadline() {
        for (first, second, takes, complete) in [
            (500, 5000, 1000, false),
            (500, 1001, 1000, false),
            (500, 750, 750, true),
            (500, 925, 925, true),
            // At a tie, finished work wins.
            (500, 1000, 1000, true),
            (0, 0, 0, true),
            (1000, 1000, 1000, true),
            (0, 5000, 1000, false),
        ] {
            for whole in [false, true] {
                for swapped in [false, true] {
                    let start = Instant::now();
                    let mut branches = vec![after("a", first, whole), after("b", second, whole)];
                    if swapped {
                        branches.reverse();
                    }
                    let answer = ask(&stack(&within(E), branches), get("/")).await;
                    assert_eq!(start.elapsed(), E * takes / 1000, "{first} {second}");
                    let document = match (complete, swapped) {
                        (true, false) => r#"{"a":1,"b":1}"#,
                        (true, true) => r#"{"b":1,"a":1}"#,
                        (false, _) => r#"{"a":1}"#,
                    };
                    answer.assert_document(document, complete);
                }
            }
        }
    }

    // L10, L12
    #[tokio::test(start_paused = true)]
    async fn if_all_are_late_it_is_504_at_the_exact_deadline() {
        for delays in [&[1001][..], &[5000], &[1001, 5000], &[5000, 5000, 2000]] {
            for whole in [false, true] {
                let start = Instant::now();
                let branches = delays
                    .iter()
                    .enumerate()
                    .map(|(index, delay)| after(&format!("b{index}"), *delay, whole));
                let answer = ask(&stack(&within(E), branches), get("/")).await;
                let problem = answer.assert_problem(504);
                assert_eq!(start.elapsed(), E);
                let names: Vec<_> = listed(&problem)
                    .iter()
                    .map(|(name, _)| (*name).to_owned())
                    .collect();
                let expected: Vec<_> = (0..delays.len()).map(|index| format!("b{index}")).collect();
                assert_eq!(names, expected);
                assert!(
                    listed(&problem)
                        .iter()
                        .all(|(_, why)| *why == "deadline exceeded")
                );
            }
        }
    }

    // L13
    #[tokio::test(start_paused = true)]
    async fn a_branch_that_ignores_everything_is_not_waited_for() {
        let deaf = Scripted::reply(Reply::hang());
        let stalled = Scripted::reply(Reply::json(r#"{"c":1}"#).then_hang());
        let start = Instant::now();
        let branches = [
            optional("a", a()),
            Branch::http("deaf", deaf.clone()),
            Branch::http("stalled", stalled.clone()),
        ];
        let response = stack(&within(E), branches)
            .oneshot(get("/"))
            .await
            .expect("infallible");
        assert_eq!(start.elapsed(), E);
        // They are gone before the answer is there.
        assert_eq!((deaf.dropped(), stalled.bodies_dropped()), (1, 1));
        Answer::read(response)
            .await
            .assert_document(r#"{"a":1}"#, false);
    }

    // L23
    #[tokio::test(start_paused = true)]
    async fn a_required_branch_that_is_late_is_504_at_the_deadline() {
        for (name, branches) in [
            (
                "late",
                vec![optional("a", a()), after("late", 2000, false).required()],
            ),
            (
                "late",
                vec![after("late", 2000, true).required(), optional("a", a())],
            ),
            // A failed optional one changes nothing.
            (
                "late",
                vec![
                    optional("a", Reply::status(500)),
                    after("late", 2000, false).required(),
                ],
            ),
            // Its own deadline goes before the later failure of another that is required.
            (
                "late",
                vec![
                    after("late", 2000, false).required(),
                    required("b", Reply::status(404)),
                ],
            ),
        ] {
            let start = Instant::now();
            let problem = ask(&stack(&within(E), branches), get("/"))
                .await
                .assert_problem(504);
            assert_eq!(
                (problem["branch"].as_str(), start.elapsed()),
                (Some(name), E)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_its_limit_and_the_announced_deadline_ends_it() {
        for (own, announced, takes) in [
            (Some(400), Some(100), 100),
            (Some(100), Some(400), 100),
            (None, Some(100), 100),
            (Some(100), None, 100),
        ] {
            for enforced in [false, true] {
                let start = Instant::now();
                let layer = match own {
                    Some(own) => within(MS * own),
                    None => MergeLayer::new(JsonMerge::object()),
                };
                let mut request = get("/");
                if let Some(announced) = announced {
                    let deadline = Deadline::after(MS * announced);
                    let deadline = if enforced {
                        deadline.enforced()
                    } else {
                        deadline
                    };
                    request.extensions_mut().insert(deadline);
                }
                let branches = [optional("a", a()), after("b", 5000, false)];
                let answer = ask(&stack(&layer, branches), request).await;
                answer.assert_document(r#"{"a":1}"#, false);
                assert_eq!(start.elapsed(), MS * takes);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_branches_are_told_the_deadline_and_that_it_is_enforced() {
        let told = |request: Request<TeeBody>| async move {
            let deadline = request.extensions().get::<Deadline>().copied();
            let text = format!("{:?}", deadline.map(|d| (d.remaining(), d.is_enforced())));
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(format!("{text:?}")))))
        };
        let branch = || [Branch::http("a", service_fn(told))];
        let answer = ask(&stack(&within(E), branch()), get("/")).await;
        assert_eq!(answer.status, 502, "a text is no object");
        let layer = MergeLayer::new(JsonMerge::array());
        let answer = ask(&stack(&layer.clone().within(E), branch()), get("/")).await;
        assert_eq!(answer.json(), json!(["Some((400ms, true))"]));
        let answer = ask(&stack(&layer, branch()), get("/")).await;
        assert_eq!(answer.json(), json!(["None"]));
    }

    // L12
    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_has_passed_asks_nobody() {
        let backend = Scripted::reply(a());
        let branches = || {
            [
                Branch::http("a", backend.clone()),
                Branch::http("b", backend.clone()),
            ]
        };
        let mut request = get("/");
        request
            .extensions_mut()
            .insert(Deadline::after(Duration::ZERO));
        advance(MS).await;
        let layer = MergeLayer::new(JsonMerge::object());
        ask(&stack(&layer, branches()), request)
            .await
            .assert_problem(504);
        ask(&stack(&within(Duration::ZERO), branches()), get("/"))
            .await
            .assert_problem(504);
        assert_eq!(backend.started(), 0);
    }

    // T08
    #[tokio::test(start_paused = true)]
    async fn what_is_done_at_the_deadline_is_in_the_answer() {
        for run in 0..2_000u32 {
            let delay = MS * (1 + run % 50);
            let reply = |text: &'static str| match run % 3 {
                0 => Reply::json(text).after(delay),
                1 => Reply::json(text).body_after(delay),
                _ => Reply::status(200).frames([text]).after(delay),
            };
            let branches = [
                optional("a", reply(r#"{"a":1}"#)),
                optional("b", reply(r#"{"b":2}"#)),
                optional("c", Reply::hang()),
            ];
            let answer = ask(&stack(&within(delay), branches), get("/")).await;
            answer.assert_document(r#"{"a":1,"b":2}"#, false);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_that_is_not_ready_is_late_and_the_others_are_not() {
        let start = Instant::now();
        let fan_out = FanOut::new([
            Branch::http("a", Scripted::never_ready()),
            Branch::http("b", Scripted::reply(b()).ready_after(30 * MS)),
        ])
        .ready_within(50 * MS);
        let service = CloneRequestLayer::new().layer(within(E).layer(fan_out));
        ask(&service, get("/"))
            .await
            .assert_document(r#"{"b":2}"#, false);
        assert_eq!(start.elapsed(), 50 * MS);
    }
}

mod leaving {
    use super::*;

    type Replies = Hand<Response<FedBody>>;

    fn hands<M>(merge: M, required: &[bool]) -> (Vec<Replies>, Stack<M, Replies>) {
        let hands = Hand::several(required.len());
        let branches = hands
            .iter()
            .zip(required)
            .enumerate()
            .map(|(index, (hand, required))| {
                let branch = Branch::new(format!("b{index}"), hand.clone());
                match required {
                    true => branch.required(),
                    false => branch,
                }
            });
        let service = merged(merge, branches);
        (hands, service)
    }

    fn drops(hands: &[Replies]) -> Vec<usize> {
        hands.iter().map(Hand::drops).collect()
    }

    fn status(status: u16) -> Response<FedBody> {
        let (feed, body) = Feed::new();
        feed.end();
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
    }

    fn document(text: &'static str) -> Response<FedBody> {
        let (feed, body) = Feed::new();
        feed.data(text);
        feed.end();
        Response::new(body)
    }

    // L23
    #[test]
    fn a_required_failure_is_answered_at_once_if_no_earlier_required_one_is_pending() {
        // Optional ones are not waited for, before or after it.
        let (hands, mut service) = hands(JsonMerge::object(), &[false, true, true, false]);
        let mut call = task::spawn(service.call(get("/")));
        assert_pending!(call.poll());
        hands[1].finish(status(404));
        let response = assert_ready!(call.poll()).expect("infallible");
        assert_eq!(response.status(), 404);
        // All others are gone before the answer is there.
        assert_eq!(drops(&hands), [1, 1, 1, 1]);
    }

    // L23
    #[test]
    fn a_required_failure_waits_for_the_earlier_required_ones() {
        // What the earlier one says, and what is answered then.
        for (earlier, answered) in [(403, 403), (500, 502), (200, 404)] {
            let (hands, mut service) = hands(JsonMerge::object(), &[true, false, true, true]);
            let mut call = task::spawn(service.call(get("/")));
            assert_pending!(call.poll());
            hands[3].finish(status(503));
            assert_pending!(call.poll());
            hands[2].finish(status(404));
            assert_pending!(call.poll());
            match earlier {
                200 => hands[0].finish(document("{}")),
                earlier => hands[0].finish(status(earlier)),
            }
            let response = assert_ready!(call.poll()).expect("infallible");
            assert_eq!(response.status(), answered);
            assert_eq!(drops(&hands), [1, 1, 1, 1]);
        }
    }

    // L23
    #[test]
    fn an_earlier_required_one_is_pending_until_its_body_has_ended() {
        let (hands, mut service) = hands(JsonMerge::object(), &[true, true]);
        let mut call = task::spawn(service.call(get("/")));
        assert_pending!(call.poll());
        let (feed, body) = Feed::new();
        hands[0].finish(Response::new(body));
        hands[1].finish(status(404));
        assert_pending!(call.poll());
        feed.data("{");
        assert_pending!(call.poll());
        // It fails after all, and goes first.
        feed.end();
        let response = assert_ready!(call.poll()).expect("infallible");
        assert_eq!(response.status(), 502);
        assert!(feed.is_dropped());
    }

    #[test]
    fn a_required_failure_drops_the_bodies_that_are_being_read() {
        let (hands, mut service) = hands(JsonMerge::object(), &[false, true]);
        let mut call = task::spawn(service.call(get("/")));
        assert_pending!(call.poll());
        let (feed, body) = Feed::new();
        feed.data("{");
        hands[0].finish(Response::new(body));
        assert_pending!(call.poll());
        hands[1].finish(status(404));
        let _response = assert_ready!(call.poll()).expect("infallible");
        assert!(feed.is_dropped());
    }

    #[test]
    fn an_optional_failure_waits_for_all() {
        let (hands, mut service) = hands(JsonMerge::object(), &[false, true, false]);
        let mut call = task::spawn(service.call(get("/")));
        assert_pending!(call.poll());
        hands[0].finish(status(500));
        assert_pending!(call.poll());
        hands[1].finish(document(r#"{"a":1}"#));
        assert_pending!(call.poll());
        hands[2].finish(document(r#"{"b":2}"#));
        let response = assert_ready!(call.poll()).expect("infallible");
        let answer = tokio_test::block_on(Answer::read(response));
        answer.assert_document(r#"{"a":1,"b":2}"#, false);
    }

    // B27
    #[test]
    fn bodies_are_read_while_the_other_branches_run() {
        let (hands, mut service) = hands(JsonMerge::array(), &[false, false, false]);
        let mut call = task::spawn(service.call(get("/")));
        assert_pending!(call.poll());
        let (slow, body) = Feed::new();
        hands[0].finish(Response::new(body));
        assert_pending!(call.poll());
        assert!(slow.polls() > 0);
        // The others go on although the first body stalls, heads and bodies.
        hands[1].wake();
        assert_pending!(call.poll());
        assert_eq!(hands[1].polls(), 2);
        let (quick, body) = Feed::new();
        hands[2].finish(Response::new(body));
        assert_pending!(call.poll());
        quick.data("3");
        quick.end();
        assert_pending!(call.poll());
        assert!(quick.is_dropped() || quick.polls() > 1);
        hands[1].finish(document("2"));
        assert_pending!(call.poll());
        for digit in ["1", "0"] {
            slow.data(digit);
            assert_pending!(call.poll());
        }
        slow.end();
        let response = assert_ready!(call.poll()).expect("infallible");
        let answer = tokio_test::block_on(Answer::read(response));
        answer.assert_document("[10,2,3]", true);
    }

    #[test]
    fn dropping_the_call_drops_branches_and_bodies() {
        let (hands, mut service) = hands(JsonMerge::object(), &[false, false]);
        let mut call = task::spawn(service.call(get("/")));
        assert_pending!(call.poll());
        let (feed, body) = Feed::new();
        hands[0].finish(Response::new(body));
        assert_pending!(call.poll());
        drop(call);
        assert!(feed.is_dropped());
        assert_eq!(drops(&hands), [1, 1]);
    }
}

mod winners {
    use super::*;

    type Replies = Hand<Response<FedBody>>;
    type Answering = Response<ResponseBody<ResponseBody<ResponseBody<FedBody>>>>;

    fn hands<M>(merge: M, number: usize) -> (Vec<Replies>, Stack<M, Replies>) {
        let hands = Hand::several(number);
        let branch =
            |(index, hand): (usize, &Replies)| Branch::new(format!("b{index}"), hand.clone());
        let service = merged(merge, hands.iter().enumerate().map(branch));
        (hands, service)
    }

    /// An answer that says who gave it, its body whole, and the other end of the body.
    fn by(index: usize, status: u16) -> (Response<FedBody>, Feed) {
        let (feed, body) = Feed::new();
        feed.data(format!("body {index}"));
        feed.end();
        let mut response = Response::new(body);
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        response
            .headers_mut()
            .insert("x-by", HeaderValue::from(index));
        (response, feed)
    }

    fn finish(hands: &[Replies], index: usize, status: u16) -> Feed {
        let (response, feed) = by(index, status);
        hands[index].finish(response);
        feed
    }

    #[track_caller]
    fn assert_by(response: Answering, index: usize, status: u16) {
        let answer = tokio_test::block_on(Answer::read(response));
        assert_eq!(answer.status, status);
        assert_eq!(answer.field("x-by"), Some(&*index.to_string()));
        assert_eq!(answer.body, format!("body {index}"));
        assert!(answer.complete());
    }

    fn drops(hands: &[Replies]) -> Vec<usize> {
        hands.iter().map(Hand::drops).collect()
    }

    const MODES: [fn() -> FirstSuccess; 2] =
        [FirstSuccess::new, || FirstSuccess::new().collected(1024)];

    #[test]
    fn the_first_success_is_the_answer_and_the_others_are_gone_before_it() {
        for mode in MODES {
            for status in [200, 201, 202, 204, 206, 299] {
                let (hands, mut service) = hands(mode(), 3);
                let mut call = task::spawn(service.call(get("/")));
                assert_pending!(call.poll());
                // A failure is passed over.
                let failed = finish(&hands, 0, 503);
                assert_pending!(call.poll());
                assert!(failed.is_dropped());
                finish(&hands, 2, status);
                let response = assert_ready!(call.poll()).expect("infallible");
                assert_eq!(drops(&hands), [1, 1, 1]);
                assert_by(response, 2, status);
            }
        }
    }

    // B20
    #[test]
    fn a_head_over_its_bound_is_no_answer() {
        type Merged = BoxCloneSyncService<Request<Empty<Bytes>>, Answering, Infallible>;
        type Make = fn(usize) -> (Vec<Replies>, Merged);
        let merges: [Make; 3] = [
            |number| {
                let (hands, service) = hands(FirstSuccess::new(), number);
                (hands, BoxCloneSyncService::new(service))
            },
            |number| {
                let (hands, service) = hands(FirstSuccess::new().collected(1024), number);
                (hands, BoxCloneSyncService::new(service))
            },
            |number| {
                let (hands, service) = hands(Quorum::of(1), number);
                (hands, BoxCloneSyncService::new(service))
            },
        ];
        let many = |headers: &mut HeaderMap, fields: usize| {
            for field in 0..fields {
                let name = HeaderName::try_from(format!("x-{field}")).unwrap();
                headers.insert(name, HeaderValue::from_static("1"));
            }
        };
        let long = |headers: &mut HeaderMap, bytes: usize| {
            let value = HeaderValue::try_from("v".repeat(bytes)).unwrap();
            headers.insert("x-long", value);
        };
        for hands_of in merges {
            for (fields, bytes, passes) in [
                (127, 0, true),
                (128, 0, false),
                (0, (64 << 10) - 20, true),
                (0, 64 << 10, false),
            ] {
                let (hands, mut service) = hands_of(2);
                let mut call = task::spawn(service.call(get("/")));
                assert_pending!(call.poll());
                let (mut response, feed) = by(0, 200);
                many(response.headers_mut(), fields);
                if bytes > 0 {
                    long(response.headers_mut(), bytes);
                }
                hands[0].finish(response);
                if passes {
                    assert_by(assert_ready!(call.poll()).expect("infallible"), 0, 200);
                    continue;
                }
                assert_pending!(call.poll());
                assert!(feed.is_dropped());
                finish(&hands, 1, 200);
                assert_by(assert_ready!(call.poll()).expect("infallible"), 1, 200);
            }
        }
    }

    // B20
    #[tokio::test]
    async fn a_flood_of_challenges_is_not_handed_on() {
        for (lines, kept) in [(3, 3), (200, 0)] {
            let mut reply = Reply::status(401);
            for line in 0..lines {
                reply = reply.header("www-authenticate", &format!("Basic realm=\"{line}\""));
            }
            let answer = answer(JsonMerge::group(), [required("a", reply)]).await;
            let challenges = answer.headers.get_all("www-authenticate").iter().count();
            assert_eq!(challenges, kept);
            assert_eq!(answer.status, if kept > 0 { 401 } else { 502 });
        }
    }

    #[test]
    fn of_successes_in_one_poll_the_first_declared_wins() {
        for mode in MODES {
            for order in [[2, 1, 0], [0, 1, 2], [1, 2, 0]] {
                let (hands, mut service) = hands(mode(), 3);
                let mut call = task::spawn(service.call(get("/")));
                assert_pending!(call.poll());
                let feeds = order.map(|index| finish(&hands, index, 200));
                let response = assert_ready!(call.poll()).expect("infallible");
                assert!(feeds[..].iter().filter(|feed| feed.is_dropped()).count() >= 2);
                assert_by(response, 0, 200);
            }
            // Ready at the very first poll.
            let (hands, mut service) = hands(mode(), 3);
            finish(&hands, 2, 200);
            finish(&hands, 1, 200);
            let mut call = task::spawn(service.call(get("/")));
            assert_by(assert_ready!(call.poll()).expect("infallible"), 1, 200);
        }
    }

    #[test]
    fn of_collected_successes_in_one_poll_the_first_declared_wins() {
        // The heads come in any order, the last of them in the poll of the bodies or before.
        for heads in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
            for last_with_its_body in [false, true] {
                let (hands, mut service) = hands(MODES[1](), 3);
                let mut call = task::spawn(service.call(get("/")));
                assert_pending!(call.poll());
                let mut feeds = Vec::new();
                for (place, index) in heads.into_iter().enumerate() {
                    let (feed, body) = Feed::new();
                    let mut response = Response::new(body);
                    response
                        .headers_mut()
                        .insert("x-by", HeaderValue::from(index));
                    hands[index].finish(response);
                    if !(last_with_its_body && place == 2) {
                        assert_pending!(call.poll());
                    }
                    feeds.push((feed, index));
                }
                for (feed, index) in feeds {
                    feed.data(format!("body {index}"));
                    feed.end();
                }
                let response = assert_ready!(call.poll()).expect("infallible");
                assert_by(response, 0, 200);
            }
        }
    }

    #[test]
    fn a_streamed_winner_is_handed_on_frame_by_frame() {
        let (hands, mut service) = hands(FirstSuccess::new(), 2);
        let mut call = task::spawn(service.call(get("/")));
        assert_pending!(call.poll());
        let (feed, body) = Feed::announcing(6);
        hands[1].finish(Response::new(body));
        let response = assert_ready!(call.poll()).expect("infallible");
        // The head alone has decided.
        assert_eq!((feed.polls(), drops(&hands)), (0, vec![1, 1]));
        let mut body = task::spawn(response.into_body());
        let mut poll = || body.enter(|cx, body| body.poll_frame(cx));
        assert!(poll().is_pending());
        feed.data("abc");
        let frame = assert_ready!(poll()).expect("a frame").expect("no error");
        assert_eq!(frame.into_data().expect("data"), "abc");
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        feed.trailers(trailers.clone());
        let frame = assert_ready!(poll()).expect("a frame").expect("no error");
        assert_eq!(frame.into_trailers().expect("trailers"), trailers);
        feed.fail("cut");
        let error = assert_ready!(poll())
            .expect("a frame")
            .expect_err("passed on");
        assert_eq!(error.to_string(), "cut");
        assert_eq!(body.size_hint().exact(), Some(3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_collected_success_is_one_whose_body_has_come_whole() {
        let good = || Reply::status(200).body("good").after(50 * MS);
        for bad in [
            Reply::status(200).frames(["go", "od"]).then_fail(),
            Reply::status(200).body("too long"),
            Reply::status(200).frames(["too", "long"]),
            Reply::status(200).body("good").body_after(200 * MS),
            Reply::status(200).body("go").then_hang(),
        ] {
            let layer = MergeLayer::new(FirstSuccess::new().collected(4)).within(100 * MS);
            let branches = || [optional("bad", bad.clone()), optional("good", good())];
            let start = Instant::now();
            let answer = ask(&stack(&layer, branches()), get("/")).await;
            assert_eq!((answer.status, &*answer.body), (200, "good"));
            assert_eq!(start.elapsed(), 50 * MS);
            // Alone it is no answer at all.
            let answer = ask(&stack(&layer, [optional("bad", bad.clone())]), get("/")).await;
            assert!(matches!(answer.status, 502 | 504), "{answer:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_collected_answer_announces_its_length_once() {
        let reply = Reply::status(200)
            .frames(["ab", "cd"])
            .header("content-length", 4);
        let service = merged(FirstSuccess::new().collected(4), [optional("x", reply)]);
        let response = service.oneshot(get("/")).await.expect("infallible");
        assert_eq!(response.body().size_hint().exact(), Some(4));
        assert!(!response.headers().contains_key("content-length"));
        let answer = Answer::read(response).await;
        assert_eq!(answer.body, "abcd");
    }

    #[tokio::test]
    async fn the_winners_head_is_its_own_without_what_concerns_its_connection() {
        let reply = Reply::status(203)
            .header("etag", "\"1\"")
            .header("set-cookie", "a=b")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .header("keep-alive", "timeout=5")
            .body("b");
        for merge in MODES {
            let answer = ask(&merged(merge(), [optional("x", reply.clone())]), get("/")).await;
            let mut names: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            assert_eq!(names, ["etag", "set-cookie", "watershed-complete"]);
        }
        let answer = ask(&merged(Quorum::of(1), [optional("x", reply)]), get("/")).await;
        assert_eq!((answer.status, answer.headers.len()), (203, 3));
    }

    // L06
    #[tokio::test]
    async fn a_winner_that_is_incomplete_says_so() {
        let reply = Reply::status(200).header("watershed-complete", "false");
        for merge in MODES {
            let answer = ask(&merged(merge(), [optional("x", reply.clone())]), get("/")).await;
            assert!(!answer.complete());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn if_none_succeeds_the_table_holds() {
        let late = || Reply::hang();
        for (replies, status) in [
            ([Reply::status(503), Reply::status(404)], 502),
            ([Reply::fail("refused"), Reply::panic("oops")], 502),
            ([Reply::status(302), late()], 502),
            ([late(), late()], 504),
        ] {
            let branches = || {
                let [x, y] = replies.clone();
                [optional("x", x), optional("y", y)]
            };
            for merge in MODES {
                let layer = MergeLayer::new(merge()).within(10 * MS);
                let answer = ask(&stack(&layer, branches()), get("/")).await;
                let problem = answer.assert_problem(status);
                let names: Vec<_> = listed(&problem).into_iter().map(|(name, _)| name).collect();
                assert_eq!(names, ["x", "y"]);
            }
            let layer = MergeLayer::new(Quorum::majority()).within(10 * MS);
            ask(&stack(&layer, branches()), get("/"))
                .await
                .assert_problem(status);
        }
        // A required one that fails before another succeeds is the answer.
        for merge in MODES {
            let branches = [
                required("x", Reply::status(404)),
                optional("y", Reply::status(200).after(MS)),
            ];
            ask(&merged(merge(), branches), get("/"))
                .await
                .assert_problem(404);
        }
    }

    #[test]
    fn a_loser_that_panics_on_its_way_out_does_not_cost_the_answer() {
        let loser = || {
            service_fn(|_: Request<TeeBody>| async {
                let _bomb = Bomb("on purpose");
                pending::<Result<Response<Full<Bytes>>, BoxError>>().await
            })
        };
        let reply = |status: u16| {
            Reply::status(status)
                .body("{}")
                .header("content-type", "application/json")
        };
        tokio_test::block_on(async {
            let lost = || Branch::http("loser", loser());
            let won = || optional("winner", reply(200));
            for merge in MODES {
                let answer = ask(&merged(merge(), [lost(), won()]), get("/")).await;
                assert_eq!(answer.status, 200);
            }
            let answer = ask(&merged(Quorum::of(1), [lost(), won()]), get("/")).await;
            assert_eq!(answer.status, 200);
            let failed = required("failed", reply(404));
            let answer = ask(&merged(JsonMerge::group(), [lost(), failed]), get("/")).await;
            answer.assert_problem(404);
        });
    }

    #[test]
    fn a_quorum_answers_with_the_first_declared_of_enough_successes() {
        for (order, winner) in [
            ([0, 1], 0),
            ([1, 0], 0),
            ([2, 1], 1),
            ([1, 2], 1),
            ([2, 0], 0),
        ] {
            for at_once in [false, true] {
                let (hands, mut service) = hands(Quorum::of(2), 3);
                let mut call = task::spawn(service.call(get("/")));
                assert_pending!(call.poll());
                let first = finish(&hands, order[0], 200);
                if !at_once {
                    assert_pending!(call.poll());
                }
                let second = finish(&hands, order[1], 201);
                let response = assert_ready!(call.poll()).expect("infallible");
                assert_eq!(drops(&hands), [1, 1, 1]);
                assert_ne!(first.is_dropped(), second.is_dropped());
                let status = if winner == order[0] { 200 } else { 201 };
                assert_by(response, winner, status);
            }
        }
    }

    #[test]
    fn a_quorum_of_many_takes_no_more_than_it_needs() {
        let (hands, mut service) = hands(Quorum::of(2), 4);
        for index in [3, 2, 1] {
            finish(&hands, index, 200);
        }
        let mut call = task::spawn(service.call(get("/")));
        assert_by(assert_ready!(call.poll()).expect("infallible"), 1, 200);
    }

    #[test]
    fn a_quorum_that_cant_be_reached_is_given_up_at_once() {
        for (number, need, failures) in [(3, 2, 2), (3, 3, 1), (5, 3, 3), (1, 1, 1), (4, 2, 3)] {
            let (hands, mut service) = hands(Quorum::of(need), number);
            let mut call = task::spawn(service.call(get("/")));
            for index in 0..failures {
                assert_pending!(call.poll());
                finish(&hands, index, 503);
            }
            let response = assert_ready!(call.poll()).expect("infallible");
            assert_eq!(drops(&hands), vec![1; number]);
            let answer = tokio_test::block_on(Answer::read(response));
            let problem = answer.assert_problem(502);
            assert_eq!(listed(&problem).len(), failures);
        }
    }

    #[test]
    fn a_majority_is_more_than_half_of_the_branches_that_are_asked() {
        for (number, skipped, need) in [
            (1, 0, 1),
            (2, 0, 2),
            (3, 0, 2),
            (4, 0, 3),
            (5, 0, 3),
            (5, 2, 2),
            (5, 4, 1),
            (4, 2, 2),
        ] {
            let hands = Hand::several(number);
            let branches = hands
                .iter()
                .enumerate()
                .map(|(index, hand): (usize, &Replies)| {
                    Branch::new(format!("b{index}"), hand.clone()).when(move |_| index >= skipped)
                });
            let mut service = merged(Quorum::majority(), branches);
            let mut call = task::spawn(service.call(get("/")));
            for index in (number - need..number).rev() {
                assert_pending!(call.poll());
                finish(&hands, index, 200);
            }
            assert_by(
                assert_ready!(call.poll()).expect("infallible"),
                number - need,
                200,
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_quorum_that_is_late_is_504() {
        let layer = MergeLayer::new(Quorum::of(2)).within(10 * MS);
        let start = Instant::now();
        let branches = [
            optional("x", Reply::status(200)),
            optional("y", Reply::hang()),
            optional("z", Reply::hang()),
        ];
        let problem = ask(&stack(&layer, branches), get("/"))
            .await
            .assert_problem(504);
        assert_eq!((listed(&problem).len(), start.elapsed()), (2, 10 * MS));
        let branches = [
            optional("x", Reply::status(500)),
            optional("y", Reply::status(200)),
            optional("z", Reply::hang()),
        ];
        ask(&stack(&layer, branches), get("/"))
            .await
            .assert_problem(502);
    }

    // L33
    #[tokio::test]
    async fn a_quorum_of_more_branches_than_are_asked_is_not_reached() {
        for skipped in [0, 1] {
            let branches = [
                optional("x", Reply::status(200)),
                optional("y", Reply::status(200)).when(move |_| skipped == 0),
            ];
            let answer = ask(&merged(Quorum::of(3), branches), get("/")).await;
            answer.assert_problem(502);
        }
    }

    #[test]
    #[should_panic(expected = "a quorum of zero")]
    fn a_quorum_of_zero_is_refused() {
        let _ = Quorum::of(0);
    }
}

mod parts {
    use super::*;

    /// Lists the parts in one line each.
    async fn list<const N: usize>(branches: [HttpBranch; N], limit: Option<usize>) -> Vec<String> {
        let merge = merge_parts(|cx, parts| async move {
            let line = |part: &watershed::merge::Part| {
                let result = match &part.result {
                    Ok(response) => format!(
                        "{} {}",
                        response.status().as_u16(),
                        String::from_utf8_lossy(response.body())
                    ),
                    Err(BranchError::Service(error)) => format!("error: {error}"),
                    Err(error) => error.to_string(),
                };
                let star = if part.required { "*" } else { "" };
                format!("{}{star}: {result} ({:?})", part.branch, part.elapsed)
            };
            assert_eq!(cx.method(), Method::GET);
            let lines: Vec<_> = parts.iter().map(line).collect();
            Response::new(Full::new(Bytes::from(lines.join("\n"))))
        });
        let merge = match limit {
            Some(limit) => merge.max_bytes(limit),
            None => merge,
        };
        let layer = MergeLayer::new(merge).within(100 * MS);
        let answer = ask(&stack(&layer, branches), get("/")).await;
        answer.body.lines().map(str::to_owned).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn parts_come_in_declared_order_with_their_whole_bodies_and_times() {
        let lines = list(
            [
                required(
                    "slow",
                    Reply::status(201)
                        .frames(["a", "b"])
                        .after(20 * MS)
                        .body_after(5 * MS),
                ),
                optional("failed", Reply::fail("refused").after(7 * MS)),
                optional("quick", Reply::status(404).body("none")),
                optional("skipped", Reply::status(200)).when(|_| false),
                optional("panicked", Reply::panic("oops").after(MS)),
                optional("late", Reply::hang()),
                optional("empty", Reply::status(204)),
            ],
            None,
        )
        .await;
        assert_eq!(
            lines,
            [
                "slow*: 201 ab (25ms)",
                "failed: error: refused (7ms)",
                "quick: 404 none (0ns)",
                "skipped: skipped by its condition (0ns)",
                "panicked: panicked: oops (1ms)",
                "late: not finished at the deadline (100ms)",
                "empty: 204  (0ns)",
            ]
        );
    }

    // B27, B32
    #[tokio::test(start_paused = true)]
    async fn a_part_is_whole_and_within_its_limit_or_an_error() {
        let lines = list(
            [
                optional("exact", Reply::status(200).body("1234")),
                optional("frames", Reply::status(200).frames(["12", "34"])),
                optional("announced", Reply::status(200).body("12345")),
                optional("grown", Reply::status(200).frames(["1234", "5"])),
                optional("cut", Reply::status(200).body("123").then_fail()),
                optional("stalled", Reply::status(200).body("123").then_hang()),
            ],
            Some(4),
        )
        .await;
        assert_eq!(
            lines,
            [
                "exact: 200 1234 (0ns)",
                "frames: 200 1234 (0ns)",
                "announced: error: the body is larger than 4 bytes (0ns)",
                "grown: error: the body is larger than 4 bytes (0ns)",
                "cut: error: the body ended with an error (0ns)",
                "stalled: not finished at the deadline (100ms)",
            ]
        );
    }

    #[tokio::test]
    async fn the_default_limit_is_one_mebibyte() {
        let part = |length: usize| optional("x", Reply::status(200).body(vec![b'x'; length]));
        let lines = list([part(1 << 20)], None).await;
        assert!(lines[0].starts_with("x: 200 xxx"));
        let lines = list([part((1 << 20) + 1)], None).await;
        assert!(lines[0].starts_with("x: error: the body is larger than 1048576 bytes"));
    }

    #[tokio::test]
    async fn the_closures_answer_is_marked_by_its_status_and_its_parts_unless_it_says_itself() {
        let marked = |mark: &'static str| a().header("watershed-complete", mark);
        let good = || [optional("x", a()), optional("y", marked("true"))];
        for (status, says, branches, complete) in [
            (200, None, good(), true),
            (404, None, good(), false),
            (502, None, good(), false),
            (200, Some(Completeness::Incomplete), good(), false),
            (502, Some(Completeness::Complete), good(), true),
            (
                200,
                None,
                [optional("x", a()), optional("y", b()).when(|_| false)],
                true,
            ),
            (
                200,
                None,
                [optional("x", a()), optional("y", Reply::status(404))],
                false,
            ),
            (
                200,
                None,
                [optional("x", a()), optional("y", Reply::fail("refused"))],
                false,
            ),
            (
                200,
                None,
                [optional("x", a()), optional("y", marked("false"))],
                false,
            ),
        ] {
            let merge = merge_parts(move |_, _| async move {
                let mut response = Response::new(Empty::<Bytes>::new());
                *response.status_mut() = StatusCode::from_u16(status).unwrap();
                if let Some(says) = says {
                    says.mark(&mut response);
                }
                response
            });
            let answer = ask(&merged(merge, branches), get("/")).await;
            assert_eq!((answer.status, answer.complete()), (status, complete));
        }
    }

    #[tokio::test]
    async fn a_closure_that_panics_is_the_failure_of_its_call_alone() {
        let merge = merge_parts(|cx, _| async move {
            assert!(cx.method() != Method::DELETE, "s3cret");
            Response::new(Full::new(Bytes::from("body")))
        });
        let service = merged(merge, [optional("x", a())]);
        for _ in 0..2 {
            let request = Request::delete("/").body(Empty::<Bytes>::new()).unwrap();
            let answer = ask(&service, request).await;
            answer.assert_problem(500);
            assert!(!answer.complete() && !answer.body.contains("s3cret"));
            assert_eq!(ask(&service, get("/")).await.body, "body");
        }
    }

    /// A merge of a user's own.
    #[tokio::test]
    async fn a_panic_while_it_prepares_the_request_is_answered() {
        struct Careless;

        impl<G: Send> watershed::merge::Merge<G> for Careless {
            type Body = Full<Bytes>;

            fn prepare(&self, _: &mut Method, _: &mut http::HeaderMap) {
                panic!("s3cret");
            }

            async fn merge(
                &self,
                _: watershed::merge::MergeContext,
                _: G,
            ) -> Response<Full<Bytes>> {
                Response::new(Full::default())
            }
        }

        let answer = ask(&merged(Careless, [optional("x", a())]), get("/")).await;
        answer.assert_problem(500);
        assert!(!answer.complete() && !answer.body.contains("s3cret"));
    }
}

mod passing {
    use super::*;

    type Sent = Request<Full<Bytes>>;

    fn over<S: Clone>(service: S) -> watershed::merge::Passthrough<S> {
        PassthroughLayer::new().layer(service)
    }

    // L50
    #[tokio::test]
    async fn a_response_passes_untouched() {
        for status in [
            200, 201, 204, 206, 301, 302, 304, 400, 401, 404, 418, 429, 500, 503,
        ] {
            let reply = Reply::status(status)
                .header("content-type", "text/html")
                .header("set-cookie", "a=b")
                .header("set-cookie", "c=d")
                .header("server", "x")
                .header("www-authenticate", "Basic")
                .header("connection", "upgrade")
                .header("upgrade", "h2c")
                .body("not here");
            let backend = Scripted::reply(reply);
            let expected = backend.clone().oneshot(get("/")).await.unwrap();
            let passed = over(backend).oneshot(get("/")).await.unwrap();
            assert_eq!(passed.status(), expected.status());
            assert_eq!(passed.headers(), expected.headers());
            assert_eq!(
                passed.into_body().collect().await.unwrap().to_bytes(),
                "not here"
            );
        }
    }

    // L50
    #[tokio::test]
    async fn an_empty_body_passes() {
        let answer = ask(&over(Scripted::reply(Reply::status(404))), get("/")).await;
        assert_eq!((answer.status, &*answer.body), (404, ""));
    }

    // L50
    #[tokio::test]
    async fn a_request_passes_untouched() {
        let backend = Scripted::reply(Reply::status(200));
        let fields = [
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
            ("accept-encoding", "br"),
            ("range", "bytes=0-1"),
            ("if-match", "\"1\""),
            ("if-none-match", "\"1\""),
            ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
            ("if-range", "\"1\""),
            ("expect", "100-continue"),
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("x-own", "1"),
        ];
        for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS] {
            let mut request = post("http://a/b?c=d", "body");
            *request.method_mut() = method.clone();
            for (name, value) in fields {
                request
                    .headers_mut()
                    .append(name, HeaderValue::from_static(value));
            }
            over(backend.clone()).oneshot(request).await.unwrap();
            let seen = backend.calls().pop().expect("a call");
            assert_eq!(
                (seen.method, seen.uri.to_string()),
                (method, "http://a/b?c=d".to_owned())
            );
            assert_eq!(seen.body.expect("a body"), "body");
            assert_eq!(seen.headers.len(), fields.len());
            for (name, value) in fields {
                assert_eq!(seen.headers[name], value);
            }
        }
    }

    // L50
    #[tokio::test]
    async fn extensions_of_request_and_response_pass() {
        let service = service_fn(|request: Request<()>| async move {
            let mut response = Response::new(Empty::<Bytes>::new());
            response
                .extensions_mut()
                .insert(*request.extensions().get::<u8>().expect("kept"));
            Ok::<_, Infallible>(response)
        });
        let mut request = Request::new(());
        request.extensions_mut().insert(7u8);
        let response = over(service).oneshot(request).await.unwrap();
        assert_eq!(response.extensions().get(), Some(&7u8));
    }

    // L50
    #[tokio::test(start_paused = true)]
    async fn a_body_streams_frame_by_frame_with_its_trailers() {
        let hand = Hand::new();
        let (feed, body) = Feed::announcing(6);
        hand.finish(Response::new(body));
        let layer = PassthroughLayer::new().within(10 * MS);
        let response = layer.layer(hand).oneshot(get("/")).await.unwrap();
        let mut body = task::spawn(response.into_body());
        assert_eq!(
            (body.size_hint().exact(), body.is_end_stream()),
            (Some(6), false)
        );
        let poll = |body: &mut task::Spawn<ResponseBody<FedBody>>| {
            body.enter(|cx, body| body.poll_frame(cx))
        };
        assert!(poll(&mut body).is_pending());
        for data in ["abc", "def"] {
            feed.data(data);
            let frame = assert_ready!(poll(&mut body))
                .expect("a frame")
                .expect("no error");
            assert_eq!(frame.into_data().expect("data"), data);
            assert!(poll(&mut body).is_pending());
            // The body is not timed.
            advance(Duration::from_secs(60)).await;
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        feed.trailers(trailers.clone());
        feed.end();
        let frame = assert_ready!(poll(&mut body))
            .expect("a frame")
            .expect("no error");
        assert_eq!(frame.into_trailers().expect("trailers"), trailers);
        assert!(body.is_end_stream());
        assert!(assert_ready!(poll(&mut body)).is_none());
    }

    // L50
    #[tokio::test]
    async fn a_body_that_breaks_breaks_for_the_client_as_well() {
        let backend = Scripted::reply(Reply::status(200).body("abc").then_fail());
        let response = over(backend).oneshot(get("/")).await.unwrap();
        let mut body = response.into_body();
        body.frame().await.expect("data").expect("no error");
        body.frame()
            .await
            .expect("an error")
            .expect_err("never a silent end");
    }

    // L50, B36
    #[tokio::test(start_paused = true)]
    async fn an_error_is_502_a_timeout_504_and_a_fault_its_own() {
        let fails = |error: fn() -> BoxError| {
            service_fn(move |_: Sent| async move { Err::<Response<Empty<Bytes>>, _>(error()) })
        };
        for (service, status) in [
            (fails(|| "refused by 10.0.0.7".into()), 502),
            (
                fails(|| io::Error::other("refused by 10.0.0.7").into()),
                502,
            ),
            (fails(|| TimedOut::new(Phase::Body, MS, MS).into()), 504),
            (
                fails(|| io::Error::from(io::ErrorKind::TimedOut).into()),
                504,
            ),
            (fails(|| tower::timeout::error::Elapsed::new().into()), 504),
            (fails(|| ClientFault::too_large(7).into()), 413),
            (
                fails(|| ClientFault::bad_request("an empty cart").into()),
                400,
            ),
        ] {
            let answer = ask(&over(service), post("/", "")).await;
            answer.assert_problem(status);
            assert!(!answer.body.contains("10.0.0.7"));
        }
        let timed = ServiceBuilder::new()
            .layer(ClientTimeoutLayer::new(10 * MS))
            .service(Scripted::reply(Reply::hang()));
        ask(&over(timed), get("/")).await.assert_problem(504);
        let unready = Scripted::ready_fails("broken");
        ask(&over(unready), get("/")).await.assert_problem(502);
    }

    // L50, L12
    #[tokio::test(start_paused = true)]
    async fn its_deadline_is_exact_and_the_call_is_gone_before_the_answer() {
        for (own, announced, enforced, takes) in [
            (Some(400), None, false, Some(400)),
            (Some(400), Some(100), false, Some(100)),
            (Some(100), Some(400), false, Some(100)),
            (Some(100), Some(400), true, Some(100)),
            (None, Some(100), false, Some(100)),
            // A layer outside answers.
            (Some(400), Some(100), true, None),
            (None, None, false, None),
        ] {
            let layer = match own {
                Some(own) => PassthroughLayer::new().within(MS * own),
                None => PassthroughLayer::new(),
            };
            let mut request = post("/", "");
            if let Some(announced) = announced {
                let deadline = Deadline::after(MS * announced);
                let deadline = if enforced {
                    deadline.enforced()
                } else {
                    deadline
                };
                request.extensions_mut().insert(deadline);
            }
            let hand = Hand::<Response<Empty<Bytes>>>::new();
            let start = Instant::now();
            let call = layer.layer(hand.clone()).oneshot(request);
            match (
                tokio::time::timeout(Duration::from_secs(1), call).await,
                takes,
            ) {
                (Ok(response), Some(takes)) => {
                    assert_eq!((start.elapsed(), hand.drops()), (MS * takes, 1));
                    Answer::read(response.unwrap()).await.assert_problem(504);
                }
                (Err(_), None) => {}
                (other, _) => panic!("{own:?} {announced:?}: {:?}", other.is_ok()),
            }
        }
        // Readiness counts.
        let layer = PassthroughLayer::new().within(10 * MS);
        ask(&layer.layer(Scripted::never_ready()), get("/"))
            .await
            .assert_problem(504);
        // At a tie, finished work wins.
        let tie = Scripted::reply(Reply::status(404).after(10 * MS));
        assert_eq!(ask(&layer.layer(tie), get("/")).await.status, 404);
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_call_drops_the_inner_one() {
        let backend = Scripted::reply(Reply::hang());
        let mut call = task::spawn(over(backend.clone()).oneshot(get("/")));
        assert_pending!(call.poll());
        drop(call);
        assert_eq!(backend.dropped(), 1);
    }
}

mod requests {
    use super::*;

    const PARTIAL: [(&str, &str); 7] = [
        ("expect", "100-continue"),
        ("if-match", "\"1\""),
        ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("if-none-match", "\"1\""),
        ("if-range", "\"1\""),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("range", "bytes=0-1"),
    ];

    fn full_request(method: &Method) -> Request<Full<Bytes>> {
        let mut request = post("/a?b=c", "body");
        *request.method_mut() = method.clone();
        let fields = [
            ("accept-encoding", "gzip, br"),
            ("accept", "application/json"),
            ("x-own", "1"),
            ("authorization", "Bearer x"),
            ("cookie", "a=b"),
        ];
        for (name, value) in PARTIAL.into_iter().chain(fields) {
            request
                .headers_mut()
                .append(name, HeaderValue::from_static(value));
        }
        request
    }

    /// What a branch below `merge` is asked.
    async fn ask_one(merge: impl Merges, method: &Method) -> RecordedCall {
        let backend = Scripted::reply(a());
        let service = merged(merge, [Branch::http("x", backend.clone())]);
        assert_eq!(ask(&service, full_request(method)).await.status, 200);
        backend.calls().pop().expect("a call")
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[tokio::test]
    async fn what_asks_for_a_part_or_for_none_is_taken_from_the_request() {
        for method in [
            Method::GET,
            Method::HEAD,
            Method::POST,
            Method::PUT,
            Method::DELETE,
        ] {
            let is_head = method == Method::HEAD;
            let asked = if is_head { Method::GET } else { method.clone() };
            let mut reading = Vec::new();
            for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
                reading.push(ask_one(merge, &method).await);
            }
            reading.push(
                ask_one(
                    merge_parts(|_, parts| async move {
                        let part = parts.into_iter().next().expect("a part");
                        part.result.expect("an answer").map(Full::new)
                    }),
                    &method,
                )
                .await,
            );
            for seen in reading {
                assert_eq!(seen.method, asked);
                assert_eq!(names(&seen.headers), ["accept", "x-own"]);
                assert_eq!(seen.uri, "/a?b=c");
                assert_eq!(seen.body.expect("a body"), "body");
            }
            // Those that hand an answer on leave method and encoding as they are.
            let handing_on = [
                ask_one(FirstSuccess::new(), &method).await,
                ask_one(FirstSuccess::new().collected(99), &method).await,
                ask_one(Quorum::of(1), &method).await,
            ];
            for seen in handing_on {
                assert_eq!(seen.method, method);
                assert_eq!(names(&seen.headers), ["accept", "accept-encoding", "x-own"]);
            }
        }
    }

    #[tokio::test]
    async fn credentials_go_only_to_the_branches_that_say_so() {
        for method in [Method::GET, Method::HEAD, Method::POST] {
            let (with, without) = (Scripted::reply(a()), Scripted::reply(b()));
            let branches = || {
                [
                    Branch::http("with", with.clone()).credentials(),
                    Branch::http("without", without.clone()),
                    // In any order with the other settings.
                    Branch::http("required", with.clone())
                        .required()
                        .credentials(),
                    Branch::http("when", with.clone())
                        .credentials()
                        .when(|_| true),
                ]
            };
            let request = || {
                let mut request = full_request(&method);
                let headers = request.headers_mut();
                headers.append(COOKIE, HeaderValue::from_static("c=d"));
                headers.append("proxy-authorization", HeaderValue::from_static("Basic x"));
                request
            };
            ask(&merged(JsonMerge::group(), branches()), request()).await;
            ask(&merged(Quorum::of(4), branches()), request()).await;
            assert_eq!((with.started(), without.started()), (6, 2));
            for call in with.calls() {
                assert_eq!(call.headers[AUTHORIZATION], "Bearer x");
                let cookies: Vec<_> = call.headers.get_all(COOKIE).iter().collect();
                assert_eq!(cookies, ["a=b", "c=d"]);
                // That is for us.
                assert!(!call.headers.contains_key("proxy-authorization"));
            }
            for call in without.calls() {
                assert!(!call.headers.contains_key(AUTHORIZATION));
                assert!(!call.headers.contains_key(COOKIE));
            }
        }
    }

    #[tokio::test]
    async fn credentials_are_withheld_from_branches_of_any_make() {
        // Not by `Branch::http`, and not over one client.
        let (with, without) = (Scripted::reply(a()), Scripted::reply(b()));
        let branches = [
            Branch::new(
                "with",
                BoxCloneSyncService::new(CredentialsLayer::new().layer(with.clone())),
            ),
            Branch::new("without", BoxCloneSyncService::new(without.clone())),
        ];
        ask(
            &merged(JsonMerge::group(), branches),
            full_request(&Method::GET),
        )
        .await;
        let client = Scripted::echo();
        let path = |path: &str| RewriteLayer::new(UriTemplate::new(path));
        let trusted = ServiceBuilder::new()
            .layer(CredentialsLayer::new())
            .layer(path("/with"));
        let service = ServiceBuilder::new()
            .layer(CloneRequestLayer::new())
            .layer(MergeLayer::new(JsonMerge::group()))
            .layer(FanOutLayer::new([
                Branch::new("with", Either::Left(trusted.into_inner())),
                Branch::new("without", Either::Right(path("/without"))),
            ]))
            .service(client.clone());
        ask(&service, full_request(&Method::GET)).await;

        let mut calls = [with.calls(), without.calls(), client.calls()].concat();
        calls.sort_by_key(|call| call.headers.contains_key(AUTHORIZATION));
        assert_eq!(calls.len(), 4);
        for (index, call) in calls.iter().enumerate() {
            assert!(call.uri != "/without" || index < 2);
            for name in [AUTHORIZATION, COOKIE] {
                assert_eq!(call.headers.contains_key(name), index >= 2);
            }
        }
    }

    // B24
    #[tokio::test]
    async fn head_is_answered_with_the_head_that_get_has() {
        fn branches(reply: &Reply) -> [HttpBranch; 2] {
            [optional("x", reply.clone()), required("y", b())]
        }
        fn head() -> Request<Empty<Bytes>> {
            Request::head("/").body(Empty::new()).unwrap()
        }
        for reply in [a(), Reply::status(503), Reply::status(204)] {
            for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
                let service = merged(merge, branches(&reply));
                let full = ask(&service, get("/")).await;
                let response = service.oneshot(head()).await.unwrap();
                assert!(response.body().is_end_stream());
                let answer = Answer::read(response).await;
                assert_eq!((answer.status, &*answer.body), (full.status, ""));
                assert_eq!(answer.complete(), full.complete());
                let length = answer.field("content-length").expect("a length");
                assert_eq!(length, full.body.len().to_string());
                assert_eq!(answer.field("content-type"), full.field("content-type"));
            }
        }
        // A problem as well.
        for failing in [Reply::status(404), Reply::fail("refused")] {
            let service = merged(JsonMerge::group(), [required("x", failing)]);
            let full = ask(&service, get("/")).await;
            let answer = ask(&service, head()).await;
            assert_eq!((answer.status, &*answer.body), (full.status, ""));
            let length = answer.field("content-length").expect("a length");
            assert_eq!(length, full.body.len().to_string());
        }
        // What is handed on says its length itself.
        for merge in [FirstSuccess::new(), FirstSuccess::new().collected(9)] {
            let reply = Reply::status(200).header("content-length", 1234);
            let service = merged(merge, [optional("x", reply)]);
            let answer = ask(&service, head()).await;
            assert_eq!(answer.field("content-length"), Some("1234"));
        }
    }

    #[tokio::test]
    async fn the_context_tells_the_clients_method() {
        for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
            let asked = method.clone();
            let merge = merge_parts(move |cx, _| {
                assert_eq!(cx.method(), &asked);
                async { Response::new(Full::new(Bytes::from("body"))) }
            });
            let answer = ask(&merged(merge, [optional("x", a())]), full_request(&method)).await;
            let body = if method == Method::HEAD { "" } else { "body" };
            assert_eq!((answer.status, &*answer.body), (200, body));
        }
    }
}

mod bodies {
    use super::*;

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
            assert!(!self.on_poll, "on purpose");
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
}

mod shaping {
    use super::*;

    /// The answer of one shaped branch, in the object mode.
    async fn shaped(layer: JsonPartLayer, document: &str) -> Answer {
        shaped_in(JsonMerge::object(), layer, document).await
    }

    async fn shaped_in(merge: JsonMerge, layer: JsonPartLayer, document: &str) -> Answer {
        let reply = Reply::json(document.to_owned());
        answer(
            merge,
            [Branch::http("x", layer.layer(Scripted::reply(reply)))],
        )
        .await
    }

    // L52
    #[tokio::test]
    async fn target_takes_what_is_there() {
        let document = r#"{"a":{"b":{"c": {"d" : 1} ,"e":2}},"f":[{"g":3}],"h":4,"i":null}"#;
        for (target, merged, grouped) in [
            (
                "a",
                r#"{"b":{"c": {"d" : 1} ,"e":2}}"#,
                r#"{"b":{"c": {"d" : 1} ,"e":2}}"#,
            ),
            ("a.b.c", r#"{"d" : 1}"#, r#"{"d" : 1}"#),
            // There is nothing of that name.
            ("x", "{}", "{}"),
            ("a.x", "{}", "{}"),
            ("a.b.c.d.e", "{}", "{}"),
            ("f.g", "{}", "{}"),
            ("f.0", "{}", "{}"),
            ("h.x", "{}", "{}"),
            // It is no object: it adds nothing to a union, and stands as it is elsewhere.
            ("h", "{}", "4"),
            ("f", "{}", r#"[{"g":3}]"#),
            ("a.b.e", "{}", "2"),
        ] {
            let layer = || JsonPartLayer::new().target(target);
            shaped(layer(), document)
                .await
                .assert_document(merged, true);
            shaped_in(JsonMerge::group(), layer(), document)
                .await
                .assert_document(&format!(r#"{{"x":{grouped}}}"#), true);
            shaped_in(JsonMerge::array(), layer(), document)
                .await
                .assert_document(&format!("[{grouped}]"), true);
            shaped(layer().group("g"), document)
                .await
                .assert_document(&format!(r#"{{"g":{grouped}}}"#), true);
        }
    }

    // L52
    #[tokio::test]
    async fn deny_leaves_out_siblings_and_what_is_deep() {
        let document = r#"{"a":{"b":1,"c":{"d":2,"e":3}},"f":[{"a":4}],"g":5}"#;
        for (paths, left) in [
            (
                &["g"][..],
                r#"{"a":{"b":1,"c":{"d":2,"e":3}},"f":[{"a":4}]}"#,
            ),
            (&["a", "f"], r#"{"g":5}"#),
            (
                &["a.b", "a.c.e"],
                r#"{"a":{"c":{"d":2}},"f":[{"a":4}],"g":5}"#,
            ),
            (&["a.c"], r#"{"a":{"b":1},"f":[{"a":4}],"g":5}"#),
            (
                &["a.c.d", "a.c.e"],
                r#"{"a":{"b":1,"c":{}},"f":[{"a":4}],"g":5}"#,
            ),
            (&["a", "a.b"], r#"{"f":[{"a":4}],"g":5}"#),
            // What is not there, or leads into an array or a number.
            (&["x", "a.x", "a.b.x", "f.a", "g.a"], document),
            (&[], document),
        ] {
            for layer in [
                JsonPartLayer::new().deny(paths.iter().copied()),
                paths
                    .iter()
                    .fold(JsonPartLayer::new(), |layer, path| layer.deny([*path])),
            ] {
                shaped(layer, document).await.assert_document(left, true);
            }
        }
    }

    // L52
    #[tokio::test]
    async fn allow_keeps_only_what_it_names_with_the_objects_on_the_way() {
        let document = r#"{"a":{"b":1,"c":{"d":2,"e":3}},"f":[{"a":4}],"g":5}"#;
        for (paths, left) in [
            (&["g"][..], r#"{"g":5}"#),
            (&["g", "a"], r#"{"a":{"b":1,"c":{"d":2,"e":3}},"g":5}"#),
            (&["a.c.d"], r#"{"a":{"c":{"d":2}}}"#),
            (&["a.b", "a.c.e", "g"], r#"{"a":{"b":1,"c":{"e":3}},"g":5}"#),
            (&["a", "a.b"], r#"{"a":{"b":1,"c":{"d":2,"e":3}}}"#),
            (&["a.x"], r#"{"a":{}}"#),
            (&["f.a", "g.x", "x"], "{}"),
            (&["f"], r#"{"f":[{"a":4}]}"#),
            (&[], "{}"),
        ] {
            let layer = JsonPartLayer::new().allow(paths.iter().copied());
            shaped(layer, document).await.assert_document(left, true);
        }
    }

    // L52
    #[tokio::test]
    async fn rename_is_for_the_top_level_only() {
        let document = r#"{"a":{"a":1,"b":2},"b":3}"#;
        let layer = JsonPartLayer::new;
        for (layer, left) in [
            (layer().rename("a", "x"), r#"{"x":{"a":1,"b":2},"b":3}"#),
            (
                layer().rename("a", "b").rename("b", "a"),
                r#"{"b":{"a":1,"b":2},"a":3}"#,
            ),
            (
                layer().rename("a", "x").rename("x", "y"),
                r#"{"x":{"a":1,"b":2},"b":3}"#,
            ),
            (layer().rename("x", "y"), document),
            (layer().rename("a.b", "y"), document),
            (layer().rename("a", "x.y"), r#"{"x.y":{"a":1,"b":2},"b":3}"#),
            (
                layer().rename("b", "é\"\n"),
                r#"{"a":{"a":1,"b":2},"é\"\n":3}"#,
            ),
            // Two of one name: the later one wins, as any duplicate does.
            (layer().rename("a", "b"), r#"{"b":3}"#),
        ] {
            shaped(layer, document).await.assert_document(left, true);
        }
    }

    // L52
    #[tokio::test]
    async fn the_steps_apply_in_their_order_whatever_that_of_the_calls() {
        let document = r#"{"data":{"user":{"id":7,"name":"Ada","age":36,"password":"x","address":{"city":"London","door":1}},"other":1}}"#;
        let one = JsonPartLayer::new()
            .target("data.user")
            .allow(["id", "name", "password", "address"])
            .deny(["password", "address.door"])
            .rename("id", "userId")
            .group("profile");
        let other = JsonPartLayer::new()
            .group("profile")
            .rename("id", "userId")
            .deny(["address.door", "password"])
            .allow(["address", "password", "name", "id"])
            .target("data.user");
        let left = r#"{"profile":{"userId":7,"name":"Ada","address":{"city":"London"}}}"#;
        for layer in [one, other] {
            shaped(layer.clone(), document)
                .await
                .assert_document(left, true);
            shaped_in(JsonMerge::group(), layer.clone(), document)
                .await
                .assert_document(left, true);
            shaped_in(JsonMerge::array(), layer, document)
                .await
                .assert_document(&format!("[{left}]"), true);
        }
        // Deny wins over allow; both know members by the names that they came with.
        let layer = JsonPartLayer::new()
            .allow(["id"])
            .deny(["id"])
            .rename("id", "x");
        shaped(layer, r#"{"id":1,"x":2}"#)
            .await
            .assert_document("{}", true);
    }

    // B34
    #[tokio::test]
    async fn names_are_compared_by_what_they_mean_and_dots_are_no_paths_in_a_document() {
        for (layer, document, left) in [
            (
                JsonPartLayer::new().deny(["a"]),
                r#"{"\u0061":1,"b":2}"#,
                r#"{"b":2}"#,
            ),
            (
                JsonPartLayer::new().allow(["é"]),
                r#"{"\u00e9":1,"b":2}"#,
                r#"{"\u00e9":1}"#,
            ),
            (
                JsonPartLayer::new().rename("a", "c"),
                r#"{"\u0061":1}"#,
                r#"{"c":1}"#,
            ),
            (
                JsonPartLayer::new().target("a"),
                r#"{"\u0061":{"b":1}}"#,
                r#"{"b":1}"#,
            ),
            (
                JsonPartLayer::new().deny(["a.b"]),
                r#"{"a.b":1,"a":{"b":2,"c":3}}"#,
                r#"{"a.b":1,"a":{"c":3}}"#,
            ),
            (
                JsonPartLayer::new().allow(["a.b"]),
                r#"{"a.b":1,"a":{"b":2,"c":3}}"#,
                r#"{"a":{"b":2}}"#,
            ),
            (
                JsonPartLayer::new().target("a.b"),
                r#"{"a.b":{"x":1}}"#,
                "{}",
            ),
            (
                JsonPartLayer::new().deny(["__proto__"]),
                r#"{"__proto__":1,"constructor":2}"#,
                r#"{"constructor":2}"#,
            ),
        ] {
            shaped(layer, document).await.assert_document(left, true);
        }
    }

    // B34
    #[tokio::test]
    async fn the_last_duplicate_is_the_one_that_is_meant() {
        for (layer, document, meant) in [
            (
                JsonPartLayer::new().target("a"),
                r#"{"a":{"x":1},"a":{"y":2}}"#,
                json!({"y": 2}),
            ),
            (
                JsonPartLayer::new().target("a.x"),
                r#"{"a":{"x":{"z":1}},"a":{"y":2}}"#,
                json!({}),
            ),
            (
                JsonPartLayer::new().deny(["a"]),
                r#"{"a":1,"b":2,"\u0061":3}"#,
                json!({"b": 2}),
            ),
            (
                JsonPartLayer::new().deny(["a.b"]),
                r#"{"a":{"b":1},"a":{"b":2,"c":3}}"#,
                json!({"a": {"c": 3}}),
            ),
            (
                JsonPartLayer::new().allow(["a.b"]),
                r#"{"a":1,"a":{"b":2}}"#,
                json!({"a": {"b": 2}}),
            ),
            // The first one is no more part of the document than if it were not there.
            (
                JsonPartLayer::new().allow(["a.b"]),
                r#"{"a":{"b":2},"a":1}"#,
                json!({}),
            ),
            (
                JsonPartLayer::new().allow(["a.b.c"]),
                r#"{"a":{"b":{"c":2},"b":1}}"#,
                json!({"a": {}}),
            ),
            (
                JsonPartLayer::new().rename("a", "c"),
                r#"{"a":1,"b":2,"a":3}"#,
                json!({"b": 2, "c": 3}),
            ),
        ] {
            let answer = shaped(layer, document).await;
            assert_eq!(answer.json(), meant, "{document}");
        }
    }

    #[test]
    fn paths_have_no_empty_names() {
        for path in ["", ".", "a.", ".a", "a..b"] {
            let builders: [fn(&str) -> JsonPartLayer; 3] = [
                |path| JsonPartLayer::new().target(path),
                |path| JsonPartLayer::new().allow([path]),
                |path| JsonPartLayer::new().deny([path]),
            ];
            for build in builders {
                assert!(
                    std::panic::catch_unwind(|| build(path)).is_err(),
                    "{path:?}"
                );
            }
        }
    }

    // L18
    #[tokio::test]
    async fn groups_take_the_place_of_the_names() {
        let grouped = |name: &str, key: &str, reply: Reply| {
            Branch::http(
                name,
                JsonPartLayer::new()
                    .group(key)
                    .layer(Scripted::reply(reply)),
            )
        };
        for merge in [JsonMerge::object(), JsonMerge::group()] {
            let branches = [
                grouped("x", "a", Reply::json("{\"k\":1}")),
                grouped("y", "b", Reply::json("[2]")),
            ];
            answer(merge.clone(), branches)
                .await
                .assert_document(r#"{"a":{"k":1},"b":[2]}"#, true);
            // An empty part is an empty group.
            let branches = [grouped("x", "a\"", Reply::status(204))];
            answer(merge.clone(), branches)
                .await
                .assert_document(r#"{"a\"":null}"#, true);
            // One group for two is a conflict like any other.
            let branches = || {
                [
                    grouped("x", "g", Reply::json(r#"{"k":1,"l":{"m":2}}"#)),
                    grouped("y", "g", Reply::json(r#"{"k":3,"l":{"n":4}}"#)),
                ]
            };
            for (policy, document) in [
                (Conflict::First, r#"{"g":{"k":1,"l":{"m":2}}}"#),
                (Conflict::Last, r#"{"g":{"k":3,"l":{"n":4}}}"#),
                (Conflict::Deep, r#"{"g":{"k":3,"l":{"m":2,"n":4}}}"#),
            ] {
                answer(merge.clone().on_conflict(policy), branches())
                    .await
                    .assert_document(document, true);
            }
            let problem = answer(merge.on_conflict(Conflict::Error), branches())
                .await
                .assert_problem(502);
            assert_eq!(
                (&problem["first"], &problem["second"]),
                (&json!("x"), &json!("y"))
            );
        }
    }

    // B32
    #[tokio::test]
    async fn shaping_does_not_lift_the_budgets() {
        let document = r#"{"keep":1,"drop":[1,2,3,4,5,6,7,8,9]}"#;
        let layer = JsonPartLayer::new().deny(["drop"]);
        for merge in [
            JsonMerge::object().max_nodes(5),
            JsonMerge::object().max_bytes(20),
            JsonMerge::object().max_depth(1),
        ] {
            shaped_in(merge, layer.clone(), document)
                .await
                .assert_problem(502);
        }
        shaped(layer, document)
            .await
            .assert_document(r#"{"keep":1}"#, true);
    }
}

/// The same answers, told by a reference: by a few lines over syntax trees, and by `serde_json`.
mod reference {
    use std::collections::BTreeMap;

    use serde_json::value::RawValue;

    use super::*;

    /// A document, with the text of its scalars and names.
    #[derive(Debug, Clone)]
    enum Doc {
        Scalar(&'static str),
        Array(Vec<Doc>),
        Object(Vec<Member>),
    }

    type Member = (&'static str, Doc);

    const SCALARS: &[&str] = &[
        "null",
        "true",
        "false",
        "0",
        "-0",
        "7",
        "1.50",
        "1E+2",
        "1e-7",
        "-0.0",
        // L53
        "12345678901234567890.10",
        "100000000000000000000000",
        "0.1000",
        "9007199254740993",
        r#""""#,
        r#""a""#,
        r#""\u0061\/""#,
        r#""é""#,
        r#""\ud83d\ude00""#,
        r#""a\"b\\c\n""#,
    ];

    // B34
    const NAMES: &[&str] = &[
        r#""a""#,
        r#""\u0061""#,
        r#""b""#,
        r#""c""#,
        r#""__proto__""#,
        r#""constructor""#,
        r#""a.b""#,
        r#""""#,
        r#""0""#,
        r#""é""#,
        r#""\u00e9""#,
        r#""\u00E9""#,
        r#""e\u0301""#,
        r#""a\"b""#,
        r#""a\u0022b""#,
        r#""\/""#,
        r#""/""#,
        r#"" a""#,
    ];

    /// What a name means.
    fn meaning(name: &str) -> String {
        serde_json::from_str(name).expect("a name")
    }

    fn doc() -> impl Strategy<Value = Doc> {
        let scalar = prop::sample::select(SCALARS).prop_map(Doc::Scalar);
        scalar.prop_recursive(4, 24, 5, |inner| {
            prop_oneof![
                1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Doc::Array),
                3 => prop::collection::vec((prop::sample::select(NAMES), inner), 0..6).prop_map(Doc::Object),
            ]
        })
    }

    fn object() -> impl Strategy<Value = Vec<Member>> {
        prop::collection::vec((prop::sample::select(NAMES), doc()), 0..7)
    }

    impl Doc {
        fn text(&self) -> String {
            let mut out = String::new();
            self.write(&mut out, "");
            out
        }

        /// Its text, with `space` wherever there may be some.
        fn spaced(&self, space: &str) -> String {
            let mut out = space.to_owned();
            self.write(&mut out, space);
            out + space
        }

        fn write(&self, out: &mut String, space: &str) {
            match self {
                Self::Scalar(text) => out.push_str(text),
                Self::Array(items) => {
                    out.push('[');
                    for (index, item) in items.iter().enumerate() {
                        out.push_str(if index > 0 { "," } else { "" });
                        out.push_str(space);
                        item.write(out, space);
                        out.push_str(space);
                    }
                    out.push(']');
                }
                Self::Object(members) => {
                    out.push('{');
                    for (index, (name, value)) in members.iter().enumerate() {
                        out.push_str(if index > 0 { "," } else { "" });
                        for piece in [space, name, space, ":", space] {
                            out.push_str(piece);
                        }
                        value.write(out, space);
                        out.push_str(space);
                    }
                    out.push('}');
                }
            }
        }
    }

    const POLICIES: [Conflict; 4] = [
        Conflict::First,
        Conflict::Last,
        Conflict::Deep,
        Conflict::Error,
    ];

    /// The union of objects in declared order, or the place of the first that clashes with one before it.
    fn union(policy: Conflict, parts: &[Vec<Member>]) -> Result<Vec<Member>, usize> {
        let mut united: Vec<Member> = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            // Within one part the last duplicate is the one that is meant.
            let last = |(index, (name, _)): &(usize, &Member)| {
                let later = part[index + 1..].iter();
                !later
                    .map(|(other, _)| meaning(other))
                    .any(|other| other == meaning(name))
            };
            let meant: Vec<_> = part.iter().enumerate().filter(last).collect();
            for (name, value) in meant.into_iter().map(|(_, member)| member.clone()) {
                let same = |(other, _): &Member| meaning(other) == meaning(name);
                let Some(known) = united.iter().position(same) else {
                    united.push((name, value));
                    continue;
                };
                match policy {
                    Conflict::First => {}
                    Conflict::Error => return Err(place),
                    Conflict::Deep => {
                        let value = match (united.remove(known).1, value) {
                            (Doc::Object(under), Doc::Object(over)) => {
                                let both = union(policy, &[under, over]);
                                Doc::Object(both.expect("deep objects don't clash"))
                            }
                            (_, value) => value,
                        };
                        united.push((name, value));
                    }
                    _ => {
                        united.remove(known);
                        united.push((name, value));
                    }
                }
            }
        }
        Ok(united)
    }

    type RawObject = BTreeMap<String, Box<RawValue>>;

    fn raw_object(text: &str) -> RawObject {
        serde_json::from_str(text).expect("an object")
    }

    /// `serde_json`'s own idea of a deep union.
    fn deep(under: Value, over: Value) -> Value {
        match (under, over) {
            (Value::Object(mut under), Value::Object(over)) => {
                for (name, value) in over {
                    let value = match under.remove(&name) {
                        Some(known) => deep(known, value),
                        None => value,
                    };
                    under.insert(name, value);
                }
                Value::Object(under)
            }
            (_, over) => over,
        }
    }

    fn parse(text: &str) -> Value {
        serde_json::from_str(text).expect("a document")
    }

    /// Branches that answer these texts, cut into frames at `cut`.
    fn backends(texts: &[String], cut: usize) -> Vec<HttpBranch> {
        let backend = |(index, text): (usize, &String)| {
            let name = format!("b{index}");
            let (left, right) = text.as_bytes().split_at(cut.min(text.len()));
            let frames = [Bytes::copy_from_slice(left), Bytes::copy_from_slice(right)];
            optional(&name, Reply::status(200).frames(frames))
        };
        texts.iter().enumerate().map(backend).collect()
    }

    fn merge_of(merge: JsonMerge, texts: &[String], cut: usize) -> Answer {
        let service = merged(merge, backends(texts, cut));
        tokio_test::block_on(ask(&service, get("/")))
    }

    const SPACES: &[&str] = &["", " ", "\n\t", "\r\n  "];

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        // L15, L16, L53, B34
        /// Documents without white space: the answer is known to the byte, the places of its members included.
        #[test]
        fn a_union_is_what_its_reference_is_byte_for_byte(
            parts in prop::collection::vec(object(), 1..5),
            cut in 0..40usize,
        ) {
            let texts: Vec<_> = parts.iter().map(|part| Doc::Object(part.clone()).text()).collect();
            for policy in POLICIES {
                let answer = merge_of(JsonMerge::object().on_conflict(policy), &texts, cut);
                match union(policy, &parts) {
                    Ok(united) => {
                        prop_assert_eq!(answer.status, 200);
                        prop_assert!(answer.complete());
                        prop_assert_eq!(answer.body, Doc::Object(united).text());
                    }
                    Err(second) => {
                        let problem = answer.assert_problem(502);
                        prop_assert_eq!(&problem["second"], &json!(format!("b{second}")));
                        let names = |place: usize| parts[place].iter().map(|(name, _)| meaning(name));
                        let shares = |place: usize| names(place).any(|name| names(second).any(|other| other == name));
                        let named: Vec<_> = (0..second).filter(|place| shares(*place)).map(|place| json!(format!("b{place}"))).collect();
                        prop_assert!(named.contains(&problem["first"]), "{}", problem);
                    }
                }
            }
        }

        // L15, L16, L53, B34
        /// Documents with any white space, beside `serde_json`: the same values, and each that was moved has its own text.
        #[test]
        fn a_union_is_what_serde_json_makes_of_it(
            parts in prop::collection::vec((object(), prop::sample::select(SPACES)), 1..5),
            cut in 0..40usize,
        ) {
            let texts: Vec<_> = parts.iter().map(|(part, space)| Doc::Object(part.clone()).spaced(space)).collect();
            let objects: Vec<_> = texts.iter().map(|text| raw_object(text)).collect();
            let owners = |name: &String| objects.iter().filter(|object| object.contains_key(name)).count();

            for policy in [Conflict::First, Conflict::Last] {
                let answer = merge_of(JsonMerge::object().on_conflict(policy), &texts, cut);
                let mut expected = RawObject::new();
                for object in &objects {
                    for (name, value) in object {
                        if policy == Conflict::Last || !expected.contains_key(name) {
                            expected.insert(name.clone(), value.clone());
                        }
                    }
                }
                let found = raw_object(&answer.body);
                prop_assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
                for (name, value) in &found {
                    prop_assert_eq!(value.get(), expected[name].get());
                }
            }

            let answer = merge_of(JsonMerge::object().on_conflict(Conflict::Deep), &texts, cut);
            let expected = texts.iter().map(|text| parse(text)).reduce(deep).expect("a part");
            prop_assert_eq!(answer.json(), expected);
            for (name, value) in raw_object(&answer.body) {
                if owners(&name) == 1 {
                    let own = objects.iter().find_map(|object| object.get(&name)).expect("its owner");
                    prop_assert_eq!(value.get(), own.get());
                }
            }

            let answer = merge_of(JsonMerge::object().on_conflict(Conflict::Error), &texts, cut);
            let clash = objects.iter().flat_map(BTreeMap::keys).any(|name| owners(name) > 1);
            prop_assert_eq!(answer.status, if clash { 502 } else { 200 });
        }

        // L15
        /// Whoever comes first, with its head or the end of its body: the answer is the same to the byte.
        #[test]
        fn a_conflict_is_decided_by_declared_order_whoever_comes_first(
            parts in prop::collection::vec(object(), 2..5),
            delays in prop::collection::vec((0..5u32, 0..5u32), 5),
            cut in 0..40usize,
        ) {
            let texts: Vec<_> = parts.iter().map(|part| Doc::Object(part.clone()).text()).collect();
            for policy in POLICIES {
                let merge = JsonMerge::object().on_conflict(policy);
                let at_once = merge_of(merge.clone(), &texts, cut);
                let delayed = texts.iter().zip(&delays).enumerate().map(|(index, (text, (head, body)))| {
                    let reply = Reply::json(text.clone()).after(MS * *head).body_after(MS * *body);
                    optional(&format!("b{index}"), reply)
                });
                let service = merged(merge, delayed);
                prop_assert_eq!(on_paused_clock(ask(&service, get("/"))), at_once);
            }
        }

        // L18, L19, L53
        /// Groups and arrays: each document is there as it was sent, without the white space around it.
        #[test]
        fn groups_and_arrays_hold_each_document_as_it_was_sent(
            parts in prop::collection::vec((doc(), prop::sample::select(SPACES)), 1..5),
            cut in 0..40usize,
        ) {
            let texts: Vec<_> = parts.iter().map(|(part, space)| part.spaced(space)).collect();
            let whole: Vec<_> = texts.iter().map(|text| text.trim().to_owned()).collect();
            let answer = merge_of(JsonMerge::array(), &texts, cut);
            prop_assert_eq!(&answer.body, &format!("[{}]", whole.join(",")));
            prop_assert!(answer.complete());
            let named: Vec<_> = whole.iter().enumerate().map(|(index, text)| format!("\"b{index}\":{text}")).collect();
            let answer = merge_of(JsonMerge::group(), &texts, cut);
            prop_assert_eq!(&answer.body, &format!("{{{}}}", named.join(",")));
            prop_assert!(answer.complete());
        }
    }

    // L53
    #[tokio::test]
    async fn numbers_keep_their_text() {
        for number in [
            "12345678901234567890.10",
            "1e400",
            "-1E-400",
            "0.10",
            "1.0",
            "-0",
            "1E5",
            "1e+05",
            "100000000000000000000000000000000000000000",
            "3.141592653589793238462643383279502884197",
        ] {
            let document = || Reply::json(format!("{{\"n\": {number}}}"));
            answer(JsonMerge::array(), [optional("x", document())])
                .await
                .assert_document(&format!("[{{\"n\": {number}}}]"), true);
            let shaped = JsonPartLayer::new()
                .deny(["other"])
                .rename("n", "m")
                .layer(Scripted::reply(document()));
            answer(JsonMerge::object(), [Branch::http("x", shaped)])
                .await
                .assert_document(&format!("{{\"m\":{number}}}"), true);
        }
    }

    // B34
    #[tokio::test]
    async fn a_lone_surrogate_is_a_name_like_any_other() {
        for (x, y, united) in [
            (r#"{"\ud800":1}"#, r#"{"\ud800":2}"#, r#"{"\ud800":2}"#),
            (r#"{"\ud800":1}"#, r#"{"\uD800":2}"#, r#"{"\uD800":2}"#),
            (
                r#"{"\ud800":1}"#,
                r#"{"\ud801":2}"#,
                r#"{"\ud800":1,"\ud801":2}"#,
            ),
            (
                r#"{"\ud800\u0041":1}"#,
                r#"{"\ud800A":2}"#,
                r#"{"\ud800A":2}"#,
            ),
            (
                r#"{"\udc00\ud800":1}"#,
                r#"{"\ud800\udc00":2}"#,
                r#"{"\udc00\ud800":1,"\ud800\udc00":2}"#,
            ),
        ] {
            answer(
                JsonMerge::object(),
                [optional("x", Reply::json(x)), optional("y", Reply::json(y))],
            )
            .await
            .assert_document(united, true);
        }
    }

    // L16, B34
    #[tokio::test]
    async fn the_policies_side_by_side() {
        let x = r#"{"a":{"k":1,"l":[1]},"b":{"m":1},"c":1,"d":{"n":1},"own":0}"#;
        let y = r#"{"a":{"k":2,"o":3},"b":[2],"c":{"p":2},"d":null}"#;
        for (policy, swapped, document) in [
            (
                Conflict::Last,
                false,
                r#"{"own":0,"a":{"k":2,"o":3},"b":[2],"c":{"p":2},"d":null}"#,
            ),
            (Conflict::First, false, x),
            (
                Conflict::Deep,
                false,
                r#"{"own":0,"a":{"l":[1],"k":2,"o":3},"b":[2],"c":{"p":2},"d":null}"#,
            ),
            (Conflict::Last, true, x),
            (
                Conflict::Deep,
                true,
                r#"{"a":{"o":3,"k":1,"l":[1]},"b":{"m":1},"c":1,"d":{"n":1},"own":0}"#,
            ),
        ] {
            let mut texts = [x.to_owned(), y.to_owned()];
            if swapped {
                texts.reverse();
            }
            let service = merged(JsonMerge::object().on_conflict(policy), backends(&texts, 9));
            ask(&service, get("/"))
                .await
                .assert_document(document, true);
        }
    }

    // L16
    #[tokio::test]
    async fn deep_goes_eight_levels() {
        // `{"a":{"a":…{"x":1}}}`, so many objects below the outermost.
        let nested = |levels: usize, inner: &str| {
            let open = r#"{"a":"#.repeat(levels);
            format!("{open}{{{inner}}}{}", "}".repeat(levels))
        };
        for levels in 0..=20 {
            let texts = [nested(levels, r#""x":1"#), nested(levels, r#""y":2"#)];
            let service = merged(
                JsonMerge::object().on_conflict(Conflict::Deep),
                backends(&texts, 9),
            );
            let inner = if levels <= 8 {
                r#""x":1,"y":2"#
            } else {
                r#""y":2"#
            };
            ask(&service, get("/"))
                .await
                .assert_document(&nested(levels, inner), true);
        }
    }

    // B34
    #[tokio::test]
    async fn names_of_branches_are_written_as_they_are() {
        for name in [
            "a\"b",
            "é",
            "\u{1f600}",
            "a\nb",
            "__proto__",
            "a.b",
            " ",
            "\u{0}",
        ] {
            let answer = answer(JsonMerge::group(), [optional(name, Reply::json("7"))]).await;
            assert_eq!(answer.json(), json!({name: 7}));
            let problem = super::answer(JsonMerge::group(), [optional(name, Reply::status(500))])
                .await
                .assert_problem(502);
            assert_eq!(listed(&problem)[0].0, name);
        }
    }

    /// Paths of a part's rules.
    fn paths() -> impl Strategy<Value = Vec<String>> {
        let name = prop::sample::select(&["a", "b", "c", "é", "__proto__", "0"][..]);
        let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("."));
        prop::collection::vec(path, 0..4)
    }

    fn filter(value: Value, paths: &[&str], keep: bool) -> Value {
        let Value::Object(members) = value else {
            return value;
        };
        let members = members.into_iter().filter_map(|(name, value)| {
            // A name with a dot in it is no path.
            if !name.contains('.') && paths.contains(&&*name) {
                return keep.then_some((name, value));
            }
            let below: Vec<&str> = paths
                .iter()
                .filter_map(|path| path.split_once('.'))
                .filter(|(first, _)| *first == name)
                .map(|(_, rest)| rest)
                .collect();
            match (below.is_empty(), value.is_object()) {
                (false, true) => Some((name, filter(value, &below, keep))),
                _ => (!keep).then_some((name, value)),
            }
        });
        Value::Object(members.collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        // L52
        /// A shaped part, beside the same rules over `serde_json`'s values.
        #[test]
        fn shaping_does_what_its_reference_does(
            members in object(),
            space in prop::sample::select(SPACES),
            target in prop::option::of(prop::sample::select(&["a", "b", "a.b", "b.a", "c.a.a"][..])),
            allow in prop::option::of(paths()),
            deny in paths(),
            rename in prop::option::of(Just(())),
        ) {
            let text = Doc::Object(members).spaced(space);
            let mut layer = JsonPartLayer::new();
            let mut expected = parse(&text);
            if let Some(path) = target {
                layer = layer.target(path);
                let found = path.split('.').try_fold(&expected, |value, name| value.as_object()?.get(name));
                expected = found.cloned().unwrap_or(json!({}));
            }
            if let Some(paths) = &allow {
                let paths: Vec<_> = paths.iter().map(String::as_str).collect();
                layer = layer.allow(paths.iter().copied());
                expected = filter(expected, &paths, true);
            }
            let paths: Vec<_> = deny.iter().map(String::as_str).collect();
            layer = layer.deny(paths.iter().copied());
            expected = filter(expected, &paths, false);
            if rename.is_some() {
                // Two change names, and one gets a new one.
                layer = layer.rename("a", "b").rename("b", "a").rename("c", "new");
                if let Value::Object(members) = expected {
                    let renamed = members.into_iter().map(|(name, value)| match &*name {
                        "a" => ("b".to_owned(), value),
                        "b" => ("a".to_owned(), value),
                        "c" => ("new".to_owned(), value),
                        _ => (name, value),
                    });
                    expected = Value::Object(renamed.collect());
                }
            }
            let branches = [Branch::http("x", layer.layer(Scripted::reply(Reply::json(text))))];
            let answer = tokio_test::block_on(ask(&merged(JsonMerge::group(), branches), get("/")));
            prop_assert_eq!(answer.json(), json!({"x": expected}));
        }
    }

    /// How a branch ends, whenever it does.
    #[derive(Debug, Clone, Copy)]
    enum End {
        Document,
        Empty,
        Incomplete,
        Status(u16),
        Error,
        Panic,
        NoJson,
        CutShort,
        Hangs,
        BodyHangs,
        NotReady,
        TimesOut,
        Skipped,
    }

    fn end() -> impl Strategy<Value = End> {
        prop_oneof![
            4 => Just(End::Document),
            1 => Just(End::Empty),
            1 => Just(End::Incomplete),
            2 => prop::sample::select(&[302, 400, 401, 404, 407, 408, 421, 425, 426, 429, 431, 451, 500, 503][..]).prop_map(End::Status),
            1 => prop::sample::select(&[End::Error, End::Panic, End::NoJson, End::CutShort][..]),
            2 => prop::sample::select(&[End::Hangs, End::BodyHangs, End::NotReady, End::TimesOut][..]),
            1 => Just(End::Skipped),
        ]
    }

    impl End {
        fn branch(self, index: usize, required: bool, head: u32, body: u32) -> HttpBranch {
            let document =
                || Reply::json(format!("{{\"k{index}\":{index}}}")).body_after(MS * body);
            let backend = match self {
                Self::NotReady => Scripted::never_ready(),
                Self::Document | Self::Skipped => Scripted::reply(document().after(MS * head)),
                Self::Empty => Scripted::reply(Reply::status(204).after(MS * head)),
                Self::Incomplete => Scripted::reply(
                    document()
                        .header("watershed-complete", "false")
                        .after(MS * head),
                ),
                Self::Status(status) => Scripted::reply(Reply::status(status).after(MS * head)),
                Self::Error => Scripted::reply(Reply::fail("refused").after(MS * head)),
                Self::Panic => Scripted::reply(Reply::panic("oops").after(MS * head)),
                Self::NoJson => Scripted::reply(
                    Reply::json("nonsense")
                        .after(MS * head)
                        .body_after(MS * body),
                ),
                Self::CutShort => Scripted::reply(document().after(MS * head).then_fail()),
                Self::Hangs => Scripted::reply(Reply::hang()),
                Self::BodyHangs => Scripted::reply(document().after(MS * head).then_hang()),
                Self::TimesOut => {
                    let error = TimedOut::new(Phase::Head, MS, MS);
                    Scripted::reply(Reply::error(error).after(MS * head))
                }
            };
            let branch = Branch::http(format!("b{index}"), backend);
            let branch = if required { branch.required() } else { branch };
            branch.when(move |_| !matches!(self, Self::Skipped))
        }

        fn is_present(self) -> bool {
            matches!(self, Self::Document | Self::Empty | Self::Incomplete)
        }

        fn is_late(self) -> bool {
            matches!(
                self,
                Self::Hangs | Self::BodyHangs | Self::NotReady | Self::TimesOut
            )
        }

        /// What is answered if the branch is required and has failed.
        fn status(self) -> u16 {
            match self {
                Self::Status(401 | 407 | 408 | 421 | 425 | 426 | 431) => 502,
                Self::Status(status @ 400..=499) => status,
                end if end.is_late() => 504,
                _ => 502,
            }
        }
    }

    /// The table: the status, and whether the answer is complete.
    fn table(branches: &[(End, bool)]) -> (u16, bool) {
        let failed = |end: &End| !end.is_present() && !matches!(end, End::Skipped);
        let ends = || branches.iter().map(|(end, _)| *end);
        let decides = branches
            .iter()
            .find(|(end, required)| *required && failed(end));
        if let Some((end, _)) = decides {
            return (end.status(), false);
        }
        let all_skipped = ends().all(|end| matches!(end, End::Skipped));
        if ends().any(End::is_present) || all_skipped {
            let whole = |end| matches!(end, End::Document | End::Empty | End::Skipped);
            return (200, ends().all(whole));
        }
        let late = ends().filter(failed).all(End::is_late);
        (if late { 504 } else { 502 }, false)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(600))]

        // L15, L23
        /// Whatever the branches do, and whenever: the answer is the table's, and the same to the byte in any order of
        /// arrival.
        #[test]
        fn the_answer_is_that_of_the_table_and_does_not_depend_on_who_comes_first(
            branches in prop::collection::vec((end(), prop::bool::weighted(0.3)), 1..6),
            delays in prop::collection::vec(prop::collection::vec((0..40u32, 0..40u32), 6), 3),
        ) {
            let (status, complete) = table(&branches);
            let merges = [
                JsonMerge::object().failure_details(),
                JsonMerge::group(),
                JsonMerge::array(),
            ];
            for merge in merges {
                let mut answers = Vec::new();
                for delays in &delays {
                    let declared = branches.iter().zip(delays).enumerate().map(|(index, ((end, required), (head, body)))| {
                        end.branch(index, *required, *head, *body)
                    });
                    let fan_out = FanOut::new(declared).ready_within(100 * MS);
                    let layer = MergeLayer::new(merge.clone()).within(100 * MS);
                    let service = CloneRequestLayer::new().layer(layer.layer(fan_out));
                    answers.push(on_paused_clock(ask(&service, get("/"))));
                }
                prop_assert_eq!((answers[0].status, answers[0].complete()), (status, complete), "{:?}", answers[0]);
                for other in &answers[1..] {
                    prop_assert_eq!(other, &answers[0]);
                }
            }
        }
    }
}
