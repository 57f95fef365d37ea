//! In which order outcomes come, and what they say.

use futures_util::stream::FusedStream;
use futures_util::{Stream, StreamExt};
use tokio_test::{assert_ready, task};
use watershed::fanout::FanOut;
use watershed::outcome::{Branch, BranchError, Gather, Outcome};

use crate::common::{fan_out, gather, sleeper};
use crate::support::{Hand, MS};

// L15
#[tokio::test(start_paused = true)]
async fn outcomes_come_in_completion_order() {
    for delays in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [2, 1, 3]] {
        let branch = |n: u32| Branch::new(format!("{n}"), sleeper(n));
        let outcomes: Vec<_> = gather(&FanOut::new(delays.map(branch)), ())
            .map(|outcome| outcome.result.expect("no failure"))
            .collect()
            .await;
        assert_eq!(outcomes, [1, 2, 3]);
    }
}

#[tokio::test(start_paused = true)]
async fn outcomes_of_one_instant_come_in_declared_order() {
    let fan_out = FanOut::new((0..64).map(|index| Branch::new(format!("{index}"), sleeper(5))));
    let outcomes: Vec<_> = gather(&fan_out, ())
        .map(|outcome| outcome.branch.index())
        .collect()
        .await;
    assert_eq!(outcomes, (0..64).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn an_outcome_says_which_branch_it_was_and_how_long_it_took() {
    let fan_out = FanOut::new([
        Branch::new("slow", sleeper(7)).required(),
        Branch::new("quick", sleeper(2)),
    ]);
    let seen: Vec<_> = gather(&fan_out, ())
        .map(|outcome| {
            let Outcome {
                branch,
                required,
                elapsed,
                ..
            } = outcome;
            (branch.index(), branch.to_string(), required, elapsed)
        })
        .collect()
        .await;
    assert_eq!(
        seen,
        [
            (1, "quick".to_owned(), false, 2 * MS),
            (0, "slow".to_owned(), true, 7 * MS)
        ]
    );
}

#[test]
fn a_gather_tells_its_branches_and_what_is_still_to_come() {
    let hands = Hand::several(3);
    let mut gather = task::spawn(gather(&fan_out(&hands), ()));
    let names = |gather: &Gather<_>| -> Vec<_> {
        gather
            .branches()
            .map(|branch| branch.name().to_owned())
            .collect()
    };
    for left in (1..=3).rev() {
        assert_eq!(gather.remaining(), left);
        assert_eq!(gather.size_hint(), (left, Some(left)));
        assert!(!gather.is_terminated());
        hands[left - 1].finish(());
        assert!(assert_ready!(gather.poll_next()).is_some());
        assert_eq!(names(&gather), ["b0", "b1", "b2"]);
    }
    assert!(gather.is_terminated());
    for _ in 0..3 {
        assert!(assert_ready!(gather.poll_next()).is_none());
    }
}

// L33
#[test]
fn a_condition_that_says_no_is_an_outcome_and_nothing_is_asked() {
    let hands = Hand::several(3);
    let branch = |(index, hand): (usize, &Hand<()>)| {
        let wants = move |request: &usize| request % 2 == index % 2;
        Branch::new(format!("b{index}"), hand.clone()).when(wants)
    };
    let fan_out = FanOut::new(hands.iter().enumerate().map(branch));
    for (request, skipped) in [(0, vec![1]), (1, vec![0, 2])] {
        for hand in &hands {
            hand.finish(());
        }
        let before: Vec<_> = hands.iter().map(Hand::calls).collect();
        let outcomes: Vec<_> =
            tokio_test::block_on(async { gather(&fan_out, request).collect().await });
        assert_eq!(outcomes.len(), 3);
        for outcome in outcomes {
            let index = outcome.branch.index();
            assert_eq!(
                matches!(outcome.result, Err(BranchError::Skipped)),
                skipped.contains(&index)
            );
            let asked = hands[index].calls() - before[index];
            assert_eq!(asked, usize::from(!skipped.contains(&index)));
        }
    }
}
