//! A closure over collected parts.

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{Empty, Full};
use watershed::body::Completeness;
use watershed::merge::{MergeLayer, merge_parts};
use watershed::outcome::BranchError;
use watershed::test_util::Reply;

use crate::common::{a, b, optional, required};
use crate::support::{HttpBranch, MS, ask, get, merged, stack};

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

// B20
#[tokio::test]
async fn the_head_of_the_closures_answer_is_bounded() {
    for (fields, length, fits) in [(128, 1, true), (129, 1, false), (1, 64 * 1024, false)] {
        let merge = merge_parts(move |_, _| async move {
            let mut response = Response::new(Full::new(Bytes::from("body")));
            for _ in 0..fields {
                let value = HeaderValue::try_from("v".repeat(length)).unwrap();
                response.headers_mut().append("x-field", value);
            }
            response
        });
        let answer = ask(&merged(merge, [optional("x", a())]), get("/")).await;
        if fits {
            assert_eq!((answer.status, &*answer.body), (200, "body"));
        } else {
            answer.assert_problem(500);
            assert!(!answer.complete());
        }
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

        async fn merge(&self, _: watershed::merge::MergeContext, _: G) -> Response<Full<Bytes>> {
            Response::new(Full::default())
        }
    }

    let answer = ask(&merged(Careless, [optional("x", a())]), get("/")).await;
    answer.assert_problem(500);
    assert!(!answer.complete() && !answer.body.contains("s3cret"));
}
