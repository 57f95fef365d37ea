//! Deadlines that are announced and enforced by others (DESIGN rule 6).

use std::time::Duration;

use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, task};
use tower::{Layer, Service, ServiceExt};
use watershed::deadline::{Deadline, Phase, TimedOut};
use watershed::timeout::{Start, TimeoutLayer};

use crate::support::MS;
use crate::{Handler, mark, request, response, sleeper, with_deadline};

// T34
#[tokio::test(start_paused = true)]
async fn the_earlier_of_its_own_and_the_announced_one_is_enforced() {
    for (own, announced) in [(2000, 100), (100, 2000), (100, 100)] {
        for start in [Start::Ready, Start::Call] {
            let handler = Handler::new();
            let earlier = MS * own.min(announced);
            let begun = Instant::now();
            let expected = Deadline::after(earlier).enforced();
            let layer = TimeoutLayer::new(MS * own).start(start);
            let call = layer.layer(handler.clone());
            let answer = call
                .oneshot(with_deadline(Deadline::after(MS * announced)))
                .await;
            let timed_out = mark(&answer.expect("an answer"));
            assert_eq!(timed_out, TimedOut::new(Phase::Head, earlier, earlier));
            assert_eq!(begun.elapsed(), earlier);
            // The service inside is told when, and that somebody sees to it.
            assert_eq!(handler.extension(), Some(expected));
        }
    }
}

// T35
#[tokio::test(start_paused = true)]
async fn what_is_enforced_outside_is_left_to_it() {
    for (own, enforced) in [(50, 10), (50, 50)] {
        let outer = Deadline::after(MS * enforced).enforced();
        let handler = Handler::new();
        let layer = TimeoutLayer::new(MS * own);
        let mut call = task::spawn(layer.layer(handler.clone()).oneshot(with_deadline(outer)));
        assert_pending!(call.poll());
        assert_eq!(handler.extension(), Some(outer));
        advance(200 * MS).await;
        assert!(!call.is_woken());
        assert_pending!(call.poll());
        handler.hand.finish(response("at last"));
        assert_eq!(call.await.expect("an answer").status(), 200);
    }
}

// T35
#[tokio::test(start_paused = true)]
async fn of_two_that_are_nested_the_earlier_answers_and_nobody_else() {
    for (outer, inner, answers) in [(10, 50, 502), (50, 10, 503), (10, 10, 502)] {
        let status = |status| http::StatusCode::from_u16(status).expect("a status");
        let layers = [
            TimeoutLayer::new(MS * outer).status(status(502)),
            TimeoutLayer::new(MS * inner).status(status(503)),
        ];
        let start = Instant::now();
        let nested = layers[0].layer(layers[1].layer(sleeper(Duration::from_secs(3600))));
        let answer = nested.oneshot(request()).await.expect("an answer");
        assert_eq!(
            (answer.status().as_u16(), start.elapsed()),
            (answers, 10 * MS)
        );
    }
}

// T10
#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_never_reaches_the_service() {
    for ago in [Duration::ZERO, MS, Duration::from_secs(3600)] {
        for start in [Start::Ready, Start::Call] {
            let handler = Handler::new();
            handler.hand.finish(response("too late"));
            let deadline = Deadline::after(Duration::ZERO);
            advance(ago).await;
            let begun = Instant::now();
            let layer = TimeoutLayer::new(10 * MS).start(start);
            let call = layer.layer(handler.clone());
            let answer = call
                .oneshot(with_deadline(deadline))
                .await
                .expect("an answer");
            assert_eq!(mark(&answer).phase, Phase::Readiness);
            assert_eq!((handler.hand.calls(), begun.elapsed()), (0, Duration::ZERO));
        }
    }
}

// T10
#[tokio::test(start_paused = true)]
async fn a_call_whose_time_ends_before_it_is_polled_is_not_made() {
    let handler = Handler::new();
    let future = TimeoutLayer::new(10 * MS)
        .layer(handler.clone())
        .call(request());
    advance(10 * MS).await;
    let answer = future.await.expect("an answer");
    assert_eq!(
        (mark(&answer).phase, handler.hand.calls()),
        (Phase::Readiness, 0)
    );
}

// T11
#[tokio::test(start_paused = true)]
async fn the_longest_limit_still_keeps_what_is_announced() {
    let start = Instant::now();
    let service = TimeoutLayer::new(Duration::MAX).layer(Handler::new());
    let answer = service
        .oneshot(with_deadline(Deadline::after(10 * MS)))
        .await;
    let timed_out = mark(&answer.expect("an answer"));
    assert_eq!((timed_out.limit, start.elapsed()), (10 * MS, 10 * MS));
}
