//! What a merged answer says besides its document: details of failures, caching, timing.

use http::header::HeaderName;
use serde_json::json;
use watershed::merge::{Conflict, JsonMerge};
use watershed::test_util::Reply;

use crate::common::{self, a, answer, b, optional};
use crate::support::MS;

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
            // What is skipped has no say. While something is missing, nobody is told to keep the rest.
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
            // But what is forbidden is.
            let forbidden = cache_control.and_then(|value| {
                let first = value.split(", ").next()?;
                matches!(first, "private" | "no-cache" | "no-store").then_some(first)
            });
            assert_eq!(incomplete.field(CC), forbidden);
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
    let answer = common::answer(JsonMerge::object(), star).await;
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
    let answer = common::answer(JsonMerge::object(), branches()).await;
    assert_eq!(answer.field("server-timing"), None);
}
