//! How many branches of a call run at once.

use futures_util::StreamExt;
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready, task};
use watershed::fanout::FanOut;
use watershed::outcome::Branch;

use crate::common::{fan_out, gather, sleeper};
use crate::support::{Hand, MS};

#[test]
fn no_more_run_at_once_and_the_next_start_in_declared_order() {
    for width in [1, 2, 3, 8, 64] {
        let hands = Hand::several(9);
        let mut gather = task::spawn(gather(&fan_out(&hands).width(width), ()));
        for finished in 0..9 {
            assert_pending!(gather.poll_next());
            let started = (finished + width).min(9);
            let calls: Vec<_> = hands.iter().map(Hand::calls).collect();
            let expected: Vec<_> = (0..9).map(|index| usize::from(index < started)).collect();
            assert_eq!(calls, expected);
            hands[finished].finish(());
            let outcome = assert_ready!(gather.poll_next()).expect("an outcome");
            assert_eq!(outcome.branch.index(), finished);
        }
        assert!(assert_ready!(gather.poll_next()).is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_width_of_one_is_one_after_the_other() {
    let fan_out = FanOut::new([3, 1, 2].map(|n| Branch::new(format!("{n}"), sleeper(n)))).width(1);
    let start = Instant::now();
    let outcomes: Vec<_> = gather(&fan_out, ())
        .map(|outcome| {
            (
                outcome.result.expect("no failure"),
                outcome.elapsed,
                start.elapsed(),
            )
        })
        .collect()
        .await;
    // The time of a branch is its own, not that of those before it.
    assert_eq!(
        outcomes,
        [(3, 3 * MS, 3 * MS), (1, MS, 4 * MS), (2, 2 * MS, 6 * MS)]
    );
}

#[test]
fn branches_that_are_ready_at_once_make_room_in_the_same_poll() {
    let hands = Hand::several(64);
    for hand in &hands {
        hand.finish(());
    }
    let mut gather = task::spawn(gather(&fan_out(&hands).width(1), ()));
    for index in 0..64 {
        let outcome = assert_ready!(gather.poll_next()).expect("an outcome");
        assert_eq!(outcome.branch.index(), index);
    }
}

#[test]
#[should_panic(expected = "a width of zero would run no branch")]
fn zero_is_refused() {
    let _ = fan_out(&Hand::<()>::several(1)).width(0);
}
