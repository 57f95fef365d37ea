//! What is dropped, and when.

use futures_util::StreamExt;
use tokio_test::{assert_pending, assert_ready, task};
use watershed::deadline::Deadline;
use watershed::outcome::BranchError;

use crate::common::{SIZES, fan_out, gather};
use crate::support::{Hand, MS};

#[test]
fn dropping_the_gather_drops_every_branch_that_runs() {
    for size in SIZES {
        let hands = Hand::<()>::several(size);
        let mut gather = task::spawn(gather(&fan_out(&hands), ()));
        assert_pending!(gather.poll_next());
        drop(gather);
        assert!(
            hands
                .iter()
                .all(|hand| (hand.polls(), hand.drops()) == (1, 1))
        );
    }
}

#[test]
fn what_was_never_started_is_never_called() {
    let hands = Hand::<()>::several(3);
    let mut narrow = task::spawn(gather(&fan_out(&hands).width(1), ()));
    assert_pending!(narrow.poll_next());
    drop(narrow);
    drop(gather(&fan_out(&hands), ()));
    assert_eq!(hands.iter().map(Hand::calls).collect::<Vec<_>>(), [1, 0, 0]);
}

#[test]
fn a_finished_branch_is_dropped_before_its_outcome_is_handed_out() {
    for size in SIZES {
        let hands = Hand::several(size);
        let mut gather = task::spawn(gather(&fan_out(&hands), ()));
        assert_pending!(gather.poll_next());
        for hand in &hands {
            hand.finish(());
        }
        for hand in &hands {
            assert!(assert_ready!(gather.poll_next()).is_some());
            assert_eq!(hand.drops(), 1);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_branch_is_dropped_before_its_outcome_is_handed_out() {
    let hands = Hand::<()>::several(9);
    let mut gather = gather(&fan_out(&hands).width(4), ());
    gather.end_at(Deadline::after(MS));
    for (index, hand) in hands.iter().enumerate() {
        let outcome = gather.next().await.expect("an outcome");
        assert!(matches!(outcome.result, Err(BranchError::DeadlineExceeded)));
        assert_eq!(outcome.branch.index(), index);
        let started = usize::from(index < 4);
        assert_eq!((hand.calls(), hand.drops()), (started, started));
    }
}
