//! The table of answers, for branches of which none is required: what is there is merged, what is not is said.

use http::Request;
use tower::{Layer, Service};
use watershed::clone_request::{CloneRequestLayer, TeeBody};
use watershed::fanout::FanOut;
use watershed::merge::{FirstSuccess, JsonMerge, MergeLayer, Quorum};
use watershed::test_util::{Reply, ScriptedError};

use crate::common::{self, Panics, Place, a, answer, b, late, listed, optional, required};
use crate::support::{Answer, HttpBranch, MS, ask, get, merged};

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
        let problem = common::answer(merge, [failed]).await.assert_problem(502);
        assert_eq!(listed(&problem), [("x", "status 404")]);
    }
}

// L03
#[tokio::test]
async fn a_failed_branch_costs_its_own_part_only() {
    for status in [
        206, 226, 300, 301, 302, 304, 307, 400, 401, 403, 404, 408, 418, 429, 500, 502, 503, 504,
        599,
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
    let wants =
        |path: &'static str| move |request: &Request<TeeBody>| request.uri().path().contains(path);
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

/// Layers may stand between the merge and the fan-out: theirs is no panic of the merge's.
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_inner_service_is_an_answer_as_well() {
    for (place, status) in [
        (Place::Clone, 502),
        (Place::Ready, 502),
        (Place::Call, 502),
        (Place::Poll, 502),
        // It is late, whatever it does then.
        (Place::Late, 504),
    ] {
        let inner = Panics::at(place, FanOut::new([optional("a", a())]));
        let merge = MergeLayer::new(JsonMerge::object()).within(10 * MS);
        let mut service = CloneRequestLayer::new().layer(merge.layer(inner));
        let answer = service.call(get("/")).await.expect("infallible");
        let answer = Answer::read(answer).await;
        assert!(!answer.complete(), "{place:?}");
        let problem = answer.assert_problem(status);
        let detail = problem["detail"].as_str().expect("a text");
        let why = "the branches could not be called";
        assert!(detail.starts_with(why), "{place:?}: {detail}");
    }
}
