//! Who is polled, and when: a branch that was woken, and no other.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use futures_util::StreamExt;
use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, task};
use tower::service_fn;
use watershed::error::BoxError;
use watershed::fanout::FanOut;
use watershed::outcome::{Branch, BranchError};

use crate::common::{SIZES, fan_out, gather, polls};
use crate::support::Hand;

// L42
#[test]
fn every_branch_starts_at_the_first_poll_and_none_before() {
    for size in SIZES {
        let hands = Hand::<()>::several(size);
        let fan_out = fan_out(&hands);
        let mut gather = task::spawn(gather(&fan_out, ()));
        assert!(hands.iter().all(|hand| hand.calls() == 0));
        assert_pending!(gather.poll_next());
        assert!(hands.iter().all(|hand| hand.calls() == 1));
        assert_eq!(polls(&hands), vec![1; size]);
    }
}

#[test]
fn only_woken_branches_are_polled() {
    for size in SIZES {
        let hands = Hand::<()>::several(size);
        let mut gather = task::spawn(gather(&fan_out(&hands), ()));
        assert_pending!(gather.poll_next());
        let mut expected = vec![1; size];

        // The task is woken for some reason of its own.
        assert_pending!(gather.poll_next());
        assert_eq!(polls(&hands), expected);

        for index in (0..size).rev() {
            hands[index].wake();
            assert!(gather.is_woken());
            assert_pending!(gather.poll_next());
            expected[index] += 1;
            assert_eq!(polls(&hands), expected);
        }

        // Several at once, one of them twice, are one poll each.
        for index in (0..size).step_by(3) {
            let waker = hands[index].waker().expect("it was polled");
            waker.wake_by_ref();
            waker.wake();
            expected[index] += 1;
        }
        assert_pending!(gather.poll_next());
        assert_eq!(polls(&hands), expected);

        for hand in &hands {
            hand.finish(());
        }
        for (index, polls) in expected.iter_mut().enumerate() {
            let outcome = assert_ready!(gather.poll_next()).expect("an outcome");
            assert_eq!(outcome.branch.index(), index);
            *polls += 1;
        }
        assert!(assert_ready!(gather.poll_next()).is_none());
        assert_eq!(polls(&hands), expected);
    }
}

#[test]
fn a_branch_that_is_ready_at_once_does_not_keep_the_next_from_starting() {
    let hands = Hand::several(5);
    for hand in &hands[..3] {
        hand.finish(());
    }
    let mut gather = task::spawn(gather(&fan_out(&hands), ()));
    assert!(assert_ready!(gather.poll_next()).is_some());
    assert_eq!(polls(&hands), [1; 5]);
}

// L33
#[test]
fn a_branch_that_is_skipped_does_not_keep_the_next_from_starting() {
    let hands = Hand::<()>::several(4);
    let branch = |(index, hand): (usize, &Hand<()>)| {
        Branch::new(format!("b{index}"), hand.clone()).when(move |()| index % 2 == 1)
    };
    let fan_out = FanOut::new(hands.iter().enumerate().map(branch));
    let mut gather = task::spawn(gather(&fan_out, ()));
    let outcome = assert_ready!(gather.poll_next()).expect("an outcome");
    assert!(matches!(outcome.result, Err(BranchError::Skipped)));
    assert_eq!(polls(&hands), [0, 1, 0, 1]);
}

#[test]
fn a_branch_that_wakes_itself_while_it_is_polled_is_polled_again() {
    let polls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&polls);
    let busy = service_fn(move |()| {
        let polls = Arc::clone(&counted);
        std::future::poll_fn(move |cx| {
            if polls.fetch_add(1, Ordering::Relaxed) == 3 {
                return Poll::Ready(Ok::<_, BoxError>(()));
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    });
    let mut gather = task::spawn(gather(&FanOut::new([Branch::new("busy", busy)]), ()));
    for seen in 1..=3 {
        assert_pending!(gather.poll_next());
        assert_eq!(polls.load(Ordering::Relaxed), seen);
        assert!(gather.is_woken());
    }
    assert!(assert_ready!(gather.poll_next()).is_some());
}

#[test]
fn a_wake_up_reaches_the_task_that_polled_last() {
    let hands = Hand::<()>::several(2);
    let mut first = task::spawn(gather(&fan_out(&hands), ()));
    assert_pending!(first.poll_next());
    let mut second = task::spawn(first.into_inner());
    assert_pending!(second.poll_next());
    hands[1].finish(());
    assert!(second.is_woken());
    let outcome = assert_ready!(second.poll_next()).expect("an outcome");
    assert_eq!(outcome.branch.index(), 1);
}

#[test]
fn a_wake_up_that_comes_too_late_reaches_no_later_call() {
    let hands = Hand::<()>::several(3);
    let fan_out = fan_out(&hands);
    let mut stale = Vec::new();
    for _ in 0..20 {
        let mut gather = task::spawn(gather(&fan_out, ()));
        assert_pending!(gather.poll_next());
        stale.extend(hands[1].waker());
        let before = polls(&hands);
        for waker in &stale[..stale.len() - 1] {
            waker.wake_by_ref();
        }
        assert!(!gather.is_woken());
        assert_pending!(gather.poll_next());
        assert_eq!(polls(&hands), before);
    }
}

#[test]
fn wake_ups_from_other_threads_are_not_lost() {
    let hands = Hand::several(64);
    let outcomes = tokio_test::block_on(async {
        let gather = gather(&fan_out(&hands), ());
        let threads: Vec<_> = hands
            .chunks(16)
            .map(|hands| {
                let hands = hands.to_vec();
                std::thread::spawn(move || hands.iter().for_each(|hand| hand.finish(())))
            })
            .collect();
        let outcomes: Vec<_> = gather.collect().await;
        for thread in threads {
            thread.join().expect("it does not panic");
        }
        outcomes
    });
    assert_eq!(outcomes.len(), 64);
}

/// What a gather does, told by simple lists.
struct Model {
    width: usize,
    queued: VecDeque<usize>,
    running: BTreeSet<usize>,
    woken: BTreeSet<usize>,
    finished: BTreeSet<usize>,
    done: BTreeSet<usize>,
    polls: Vec<usize>,
}

impl Model {
    fn poll_next(&mut self) -> Poll<Option<usize>> {
        if self.done.is_empty() {
            if self.queued.is_empty() && self.running.is_empty() {
                return Poll::Ready(None);
            }
            loop {
                while self.running.len() < self.width {
                    let Some(next) = self.queued.pop_front() else {
                        break;
                    };
                    self.running.insert(next);
                    self.woken.insert(next);
                }
                if self.woken.is_empty() {
                    break;
                }
                for branch in std::mem::take(&mut self.woken) {
                    self.polls[branch] += 1;
                    if self.finished.contains(&branch) {
                        self.running.remove(&branch);
                        self.done.insert(branch);
                    }
                }
            }
        }
        match self.done.pop_first() {
            Some(branch) => Poll::Ready(Some(branch)),
            None => Poll::Pending,
        }
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Poll,
    Wake(prop::sample::Index),
    Finish(prop::sample::Index),
}

fn step() -> impl Strategy<Value = Step> {
    let index = any::<prop::sample::Index>;
    prop_oneof![
        Just(Step::Poll),
        index().prop_map(Step::Wake),
        index().prop_map(Step::Finish),
    ]
}

proptest! {
    /// Whatever the order of wake-ups and results: the same branches are polled, and the same outcomes come, in the
    /// same order.
    #[test]
    fn a_gather_does_what_its_model_does(
        size in prop::sample::select(&SIZES[..]),
        width in 1..70usize,
        steps in prop::collection::vec(step(), 0..200),
    ) {
        let hands = Hand::several(size);
        let fan_out = fan_out(&hands).width(width);
        let mut gather = task::spawn(gather(&fan_out, ()));
        let mut model = Model {
            width,
            queued: (0..size).collect(),
            running: BTreeSet::new(),
            woken: BTreeSet::new(),
            finished: BTreeSet::new(),
            done: BTreeSet::new(),
            polls: vec![0; size],
        };
        let mut yielded = 0;
        let to_the_end = std::iter::once(Step::Poll).cycle();
        for step in steps.into_iter().map(Some).chain([None]).chain(to_the_end.map(Some)) {
            match step {
                Some(Step::Poll) => {
                    let polled = gather.poll_next().map(|outcome| outcome.map(|outcome| outcome.branch.index()));
                    prop_assert_eq!(polled, model.poll_next());
                    prop_assert_eq!(&polls(&hands), &model.polls);
                    yielded += usize::from(matches!(polled, Poll::Ready(Some(_))));
                    prop_assert_eq!(gather.remaining(), size - yielded);
                    if polled == Poll::Ready(None) {
                        break;
                    }
                }
                Some(Step::Wake(index)) => {
                    let index = index.index(size);
                    if model.running.contains(&index) {
                        model.woken.insert(index);
                    }
                    hands[index].wake();
                }
                Some(Step::Finish(index)) => {
                    let index = index.index(size);
                    if model.running.contains(&index) {
                        model.woken.insert(index);
                    }
                    // What has been taken already can't finish again.
                    if model.queued.contains(&index) || model.running.contains(&index) {
                        model.finished.insert(index);
                        hands[index].finish(());
                    }
                }
                None => for (index, hand) in hands.iter().enumerate() {
                    if model.queued.contains(&index) || model.running.contains(&index) {
                        model.finished.insert(index);
                        if model.running.contains(&index) {
                            model.woken.insert(index);
                        }
                        hand.finish(());
                    }
                },
            }
        }
        prop_assert_eq!(yielded, size);
    }
}
