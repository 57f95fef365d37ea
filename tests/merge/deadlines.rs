//! A merge ends at its deadline, to the instant, and a late branch costs its own part only.

use std::convert::Infallible;
use std::future::poll_fn;
use std::panic::catch_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use serde_json::json;
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use watershed::clone_request::{CloneRequestLayer, TeeBody};
use watershed::deadline::Deadline;
use watershed::fanout::FanOut;
use watershed::merge::{JsonMerge, MergeLayer, PassthroughLayer};
use watershed::outcome::Branch;
use watershed::test_util::{Reply, Scripted};

use crate::common::{a, b, listed, optional, required};
use crate::support::{Answer, HttpBranch, MS, ask, get, stack};

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
    assert_eq!(backend.started(), 0);
}

#[test]
fn a_limit_of_zero_is_refused() {
    let why = "a limit of zero would answer every call";
    let merge = MergeLayer::new(JsonMerge::object());
    let error = merge.clone().try_within(Duration::ZERO);
    assert_eq!(error.expect_err("refused").to_string(), why);
    let passthrough = PassthroughLayer::new();
    let error = passthrough.clone().try_within(Duration::ZERO);
    assert_eq!(error.expect_err("refused").to_string(), why);
    assert!(catch_unwind(|| within(Duration::ZERO)).is_err());
    assert!(catch_unwind(|| PassthroughLayer::new().within(Duration::ZERO)).is_err());
    for limit in [Duration::from_nanos(1), Duration::MAX] {
        assert!(merge.clone().try_within(limit).is_ok());
        assert!(passthrough.clone().try_within(limit).is_ok());
    }
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

/// A layer between the merge and the fan-out may take its time, too: at a tie, it was in time.
#[tokio::test(start_paused = true)]
async fn a_gather_that_is_there_at_the_deadline_is_merged() {
    let looks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&looks);
    let fan_out = FanOut::new([optional("a", a())]);
    let slow = service_fn(move |request: Request<TeeBody>| {
        let (seen, mut fan_out) = (Arc::clone(&seen), fan_out.clone());
        async move {
            poll_fn(|_| {
                let look = seen.fetch_add(1, Ordering::Relaxed);
                if look == 1 {
                    // The clock reaches the deadline while this runs.
                    assert_pending!(task::spawn(advance(E)).poll());
                }
                match look {
                    0 | 1 => Poll::Pending,
                    _ => Poll::Ready(()),
                }
            })
            .await;
            fan_out.call(request).await
        }
    });
    let service = CloneRequestLayer::new().layer(within(E).layer(slow));
    let mut call = task::spawn(service.oneshot(get("/")));
    assert_pending!(call.poll());
    let answer = assert_ready!(call.poll()).expect("infallible");
    let problem = Answer::read(answer).await.assert_problem(504);
    // Its branch was not called any more.
    assert_eq!(listed(&problem), [("a", "deadline exceeded")]);
    assert_eq!(looks.load(Ordering::Relaxed), 3);
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
