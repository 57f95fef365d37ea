//! The gather ends at its deadline, to the instant.

use std::future::{pending, poll_fn};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt;
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};
use tower::service_fn;
use watershed::deadline::Deadline;
use watershed::error::BoxError;
use watershed::fanout::FanOut;
use watershed::outcome::{Branch, BranchError};

use crate::common::{fan_out, gather, sleeper};
use crate::support::{Hand, MS};

// L09
#[tokio::test(start_paused = true)]
async fn the_gather_ends_at_the_very_instant() {
    let fan_out = FanOut::new([4, 9, 10, 11, 50].map(|n| Branch::new(format!("{n}"), sleeper(n))));
    let start = Instant::now();
    let mut gather = gather(&fan_out, ());
    gather.end_at(Deadline::after(10 * MS));
    let mut seen = Vec::new();
    while let Some(outcome) = gather.next().await {
        assert_eq!(outcome.elapsed, start.elapsed());
        seen.push((outcome.result.ok(), start.elapsed()));
    }
    // What comes at the instant itself has come in time.
    assert_eq!(
        seen,
        [
            (Some(4), 4 * MS),
            (Some(9), 9 * MS),
            (Some(10), 10 * MS),
            (None, 10 * MS),
            (None, 10 * MS)
        ]
    );
}

// L13
#[tokio::test(start_paused = true)]
async fn a_branch_that_would_never_end_is_not_waited_for() {
    let deaf = service_fn(|()| pending::<Result<(), BoxError>>());
    let start = Instant::now();
    let mut gather = gather(&FanOut::new([Branch::new("deaf", deaf)]), ());
    gather.end_at(Deadline::after(400 * MS));
    let outcome = gather.next().await.expect("an outcome");
    assert!(matches!(outcome.result, Err(BranchError::DeadlineExceeded)));
    assert_eq!(start.elapsed(), 400 * MS);
}

// T08
#[tokio::test(start_paused = true)]
async fn at_a_tie_finished_work_wins() {
    for run in 0..10_000u32 {
        let delay = 1 + run % 60;
        let deadline = Deadline::after(MS * delay);
        let fan_out = FanOut::new([
            Branch::new("a", sleeper(delay)),
            Branch::new("b", sleeper(delay)),
        ]);
        let mut gather = gather(&fan_out, ());
        // The gather's timer is armed before the branches' or after, in one poll or another.
        if run % 2 == 0 {
            gather.end_at(deadline);
        } else {
            assert!(futures_util::poll!(gather.next()).is_pending());
            gather.end_at(deadline);
        }
        let mut outcomes = 0;
        while let Some(outcome) = gather.next().await {
            assert_eq!(outcome.result.expect("in time"), delay);
            outcomes += 1;
        }
        assert_eq!(outcomes, 2);
    }
}

/// The branch has nothing when it is looked at before the deadline, and is woken before the timer is looked at just after it.
#[tokio::test(start_paused = true)]
async fn what_is_there_at_the_deadline_is_seen_though_it_came_between_two_looks() {
    let service = service_fn(|()| {
        let mut looks = 0;
        poll_fn(move |cx| {
            looks += 1;
            if looks == 2 {
                assert!(task::spawn(advance(10 * MS)).poll().is_pending());
            }
            cx.waker().wake_by_ref();
            match looks {
                3 => Poll::Ready(Ok::<_, BoxError>(())),
                _ => Poll::Pending,
            }
        })
    });
    let mut gather = gather(&FanOut::new([Branch::new("a", service)]), ());
    gather.end_at(Deadline::after(10 * MS));
    let mut gather = task::spawn(gather);
    assert_pending!(gather.poll_next());
    let outcome = assert_ready!(gather.poll_next()).expect("an outcome");
    assert!(outcome.result.is_ok());
}

// T10
#[tokio::test(start_paused = true)]
async fn a_deadline_that_has_passed_starts_nothing() {
    for ago in [Duration::ZERO, MS, Duration::from_secs(9)] {
        let hands = Hand::<()>::several(9);
        let deadline = Deadline::after(Duration::ZERO);
        tokio::time::advance(ago).await;
        let mut gather = gather(&fan_out(&hands), ());
        gather.end_at(deadline);
        for _ in 0..9 {
            let outcome = gather.next().await.expect("an outcome");
            assert!(matches!(outcome.result, Err(BranchError::DeadlineExceeded)));
            assert_eq!(outcome.elapsed, Duration::ZERO);
        }
        assert!(gather.next().await.is_none());
        assert!(hands.iter().all(|hand| hand.calls() == 0));
    }
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_two_deadlines_counts() {
    for delays in [[5, 9], [9, 5]] {
        let start = Instant::now();
        let mut gather = gather(&fan_out(&Hand::<()>::several(1)), ());
        for delay in delays {
            gather.end_at(Deadline::after(MS * delay));
        }
        gather.end_at(Deadline::NEVER);
        gather.next().await.expect("an outcome");
        assert_eq!(start.elapsed(), 5 * MS);
    }
}

#[tokio::test(start_paused = true)]
async fn branches_that_wait_for_room_are_late_as_well() {
    let fan_out = FanOut::new(
        [6, 6, 6]
            .map(sleeper)
            .into_iter()
            .enumerate()
            .map(|(index, service)| Branch::new(format!("{index}"), service)),
    )
    .width(1);
    let mut gather = gather(&fan_out, ());
    gather.end_at(Deadline::after(10 * MS));
    let seen: Vec<_> = gather
        .map(|outcome| (outcome.result.is_ok(), outcome.elapsed))
        .collect()
        .await;
    assert_eq!(
        seen,
        [(true, 6 * MS), (false, 4 * MS), (false, Duration::ZERO)]
    );
}

// T11
#[test]
fn no_deadline_arms_no_timer() {
    // There is no runtime here that a timer could be armed in.
    let hands = Hand::several(1);
    let mut gather = gather(&fan_out(&hands), ());
    gather.end_at(Deadline::NEVER);
    let mut gather = task::spawn(gather);
    assert_pending!(gather.poll_next());
    hands[0].finish(());
    assert!(assert_ready!(gather.poll_next()).is_some());
}
