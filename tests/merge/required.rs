//! The table of answers, where a branch is required or none is present: whose failure is answered, and how.

use std::future::pending;
use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use tower::{Layer, service_fn};
use watershed::clone_request::TeeBody;
use watershed::error::BoxError;
use watershed::merge::{JsonMerge, MergeLayer};
use watershed::outcome::Branch;
use watershed::test_util::{Reply, Scripted};
use watershed::timeout::ClientTimeoutLayer;

use crate::common::{self, a, answer, late, listed, optional, required};
use crate::support::{HttpBranch, MS, ask, get, stack};

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
            let answer = answer(JsonMerge::object(), [sibling, required("y", reply.clone())]).await;
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
        let answer = common::answer(JsonMerge::group(), [required("x", reply)]).await;
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
        let answer = common::answer(JsonMerge::group(), [required("x", reply)]).await;
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
        service_fn(
            move |_: Request<TeeBody>| async move { Err::<Response<Empty<Bytes>>, _>(error()) },
        )
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
