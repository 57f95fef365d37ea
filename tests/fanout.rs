//! What the fan-out and its gather promise: who is polled and when, in which order outcomes come, what is dropped, and
//! that one branch's trouble stays its own.

mod support;

use std::cell::Cell;
use std::collections::{BTreeSet, VecDeque};
use std::future::{Future, pending};
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::join_all;
use futures_util::stream::FusedStream;
use futures_util::{Stream, StreamExt};
use proptest::prelude::*;
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::limit::ConcurrencyLimitLayer;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceExt, service_fn};
use watershed::deadline::Deadline;
use watershed::error::BoxError;
use watershed::fanout::{BranchFuture, FanOut, FanOutError, FanOutLayer};
use watershed::outcome::{Branch, BranchError, Gather, Outcome};

use support::{Bomb, Hand, MS};

/// A fan-out with one branch per hand.
fn fan_out<T>(hands: &[Hand<T>]) -> FanOut<Hand<T>, ()> {
    let branch = |(index, hand): (usize, &Hand<T>)| Branch::new(format!("b{index}"), hand.clone());
    FanOut::new(hands.iter().enumerate().map(branch))
}

fn try_gather<S, Req>(
    fan_out: &FanOut<S, Req>,
    request: Req,
) -> Result<Gather<BranchFuture<S, Req>>, FanOutError>
where
    S: Service<Req> + Clone,
    Req: Clone + 'static,
{
    fan_out.clone().call(request).into_inner()
}

fn gather<S, Req>(fan_out: &FanOut<S, Req>, request: Req) -> Gather<BranchFuture<S, Req>>
where
    S: Service<Req> + Clone,
    Req: Clone + 'static,
{
    try_gather(fan_out, request).expect("a place in flight")
}

fn polls<T>(hands: &[Hand<T>]) -> Vec<usize> {
    hands.iter().map(Hand::polls).collect()
}

type Slow = Pin<Box<dyn Future<Output = Result<u32, BoxError>> + Send>>;

/// A service that answers `n` after `n` milliseconds.
fn sleeper(n: u32) -> impl Service<(), Response = u32, Error = BoxError, Future = Slow> + Clone {
    service_fn(move |()| -> Slow {
        Box::pin(async move {
            sleep(MS * n).await;
            Ok(n)
        })
    })
}

const SIZES: [usize; 8] = [1, 2, 3, 8, 9, 32, 63, 64];

mod polling {
    use super::*;

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
}

mod order {
    use super::*;

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
}

mod isolation {
    use super::*;

    // L43
    #[tokio::test(start_paused = true)]
    async fn what_a_branch_does_to_its_request_is_seen_by_no_other() {
        let branch = |index: usize| {
            let service = service_fn(move |mut request: Vec<String>| async move {
                // All of them change theirs, before and after the others have.
                request.push(format!("early {index}"));
                sleep(MS * 5).await;
                request.retain(|text| text != "shared");
                sleep(MS * 5).await;
                Ok::<_, BoxError>(request)
            });
            Branch::new(format!("b{index}"), service)
        };
        let fan_out = FanOut::new((0..3).map(branch));
        let request = vec!["shared".to_owned(), "kept".to_owned()];
        let outcomes: Vec<_> = gather(&fan_out, request).collect().await;
        for (index, outcome) in outcomes.into_iter().enumerate() {
            let seen = outcome.result.expect("no failure");
            assert_eq!(seen, ["kept".to_owned(), format!("early {index}")]);
        }
    }

    /// Counts its clones.
    #[derive(Debug, Default)]
    struct Counted(Arc<AtomicUsize>);

    impl Clone for Counted {
        fn clone(&self) -> Self {
            self.0.fetch_add(1, Ordering::Relaxed);
            Self(Arc::clone(&self.0))
        }
    }

    #[tokio::test]
    async fn a_request_is_cloned_once_per_branch_that_wants_it() {
        let service = service_fn(|_: Counted| async { Ok::<_, BoxError>(()) });
        let fan_out = FanOut::new([
            Branch::new("a", service),
            Branch::new("b", service).when(|_| false),
            Branch::new("c", service),
        ]);
        let request = Counted::default();
        let clones = Arc::clone(&request.0);
        assert_eq!(gather(&fan_out, request).count().await, 3);
        assert_eq!(clones.load(Ordering::Relaxed), 2);
    }
}

mod width {
    use super::*;

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
        let fan_out =
            FanOut::new([3, 1, 2].map(|n| Branch::new(format!("{n}"), sleeper(n)))).width(1);
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
}

mod load {
    use super::*;

    #[test]
    fn a_call_beyond_the_limit_is_refused_and_not_queued() {
        for limit in [1, 2, 7] {
            let hands = Hand::<()>::several(2);
            let fan_out = fan_out(&hands).max_in_flight(limit);
            let mut held: Vec<_> = (0..limit).map(|_| gather(&fan_out, ())).collect();
            for _ in 0..3 {
                let refused = try_gather(&fan_out.clone(), ()).expect_err("it is full");
                assert_eq!(refused, FanOutError::Overloaded { limit });
            }
            held.pop();
            held.push(try_gather(&fan_out, ()).expect("one has gone"));
            try_gather(&fan_out, ()).expect_err("it is full again");
        }
    }

    #[test]
    fn a_call_counts_until_its_gather_is_dropped_whenever_that_is() {
        let hands = Hand::several(3);
        let fan_out = fan_out(&hands).max_in_flight(1);
        let is_full = || try_gather(&fan_out, ()).is_err();
        for polls in 0..=5 {
            let mut gather = task::spawn(gather(&fan_out, ()));
            for poll in 0..polls {
                if let Some(hand) = hands.get(poll) {
                    hand.finish(());
                }
                let _ = gather.poll_next();
                assert!(is_full());
            }
            assert!(is_full());
            drop(gather);
            assert!(!is_full());
        }
        // The response future holds the gather before anybody has polled it.
        let future = fan_out.clone().call(());
        assert!(is_full());
        drop(future);
        assert!(!is_full());
        // A panic that unwinds through the gather's owner drops it as well.
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            let _gather = gather(&fan_out, ());
            panic_any(());
        }));
        assert!(unwound.is_err() && !is_full());
    }

    #[test]
    fn the_default_is_1024_calls() {
        let fan_out = fan_out(&Hand::<()>::several(1));
        let held: Vec<_> = (0..1024).map(|_| gather(&fan_out, ())).collect();
        assert_eq!(
            try_gather(&fan_out, ()).expect_err("full"),
            FanOutError::Overloaded { limit: 1024 }
        );
        drop(held);
        gather(&fan_out, ());
    }

    #[test]
    fn a_layer_limits_each_of_its_services() {
        let layer = FanOutLayer::new([Branch::new("a", tower::layer::util::Identity::new())])
            .max_in_flight(1);
        let hand = Hand::<()>::new();
        let (one, two) = (layer.layer(hand.clone()), layer.layer(hand));
        let _held = (gather(&one, ()), gather(&two, ()));
        assert!(try_gather(&one, ()).is_err() && try_gather(&two, ()).is_err());
    }

    #[test]
    #[should_panic(expected = "a limit of zero would refuse every call")]
    fn zero_is_refused() {
        let _ = fan_out(&Hand::<()>::several(1)).max_in_flight(0);
    }
}

mod readiness {
    use super::*;

    /// Ready some time after it was first asked; a clone starts anew. It notes when the original is polled, and panics if
    /// it is called before it was ready.
    struct Late {
        delay: Duration,
        timer: Option<Pin<Box<tokio::time::Sleep>>>,
        ready: bool,
        original: bool,
        original_polled: Arc<AtomicUsize>,
    }

    impl Late {
        fn by(delay: Duration) -> Self {
            Self {
                delay,
                timer: None,
                ready: false,
                original: true,
                original_polled: Arc::default(),
            }
        }
    }

    impl Clone for Late {
        fn clone(&self) -> Self {
            Self {
                original: false,
                original_polled: Arc::clone(&self.original_polled),
                ..Self::by(self.delay)
            }
        }
    }

    impl Service<()> for Late {
        type Response = u32;
        type Error = BoxError;
        type Future = std::future::Ready<Result<u32, BoxError>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            if self.original {
                self.original_polled.fetch_add(1, Ordering::Relaxed);
            }
            let delay = self.delay;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(delay)));
            timer.as_mut().poll(cx).map(|()| {
                self.ready = true;
                Ok(())
            })
        }

        fn call(&mut self, (): ()) -> Self::Future {
            assert!(
                std::mem::take(&mut self.ready),
                "called before it was ready"
            );
            std::future::ready(Ok(1))
        }
    }

    async fn outcome<S>(fan_out: FanOut<S, ()>) -> (Result<u32, BranchError<BoxError>>, Duration)
    where
        S: Service<(), Response = u32, Error = BoxError> + Clone,
    {
        let start = Instant::now();
        let outcome = gather(&fan_out, ()).next().await.expect("an outcome");
        assert_eq!(outcome.elapsed, start.elapsed());
        (outcome.result, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_has_so_long_to_become_ready() {
        for (delay, limit) in [(5, 6), (6, 6), (7, 6), (1, 100), (100, 1)] {
            let (delay, limit) = (MS * delay, MS * limit);
            let fan_out = FanOut::new([Branch::new("late", Late::by(delay))]).ready_within(limit);
            let (result, elapsed) = outcome(fan_out).await;
            // At a tie it was ready in time.
            if delay <= limit {
                assert_eq!((result.expect("ready in time"), elapsed), (1, delay));
            } else {
                assert!(matches!(result, Err(BranchError::NotReady { within }) if within == limit));
                assert_eq!(elapsed, limit);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_default_is_five_seconds_and_max_is_as_long_as_the_gather() {
        let never = || FanOut::new([Branch::new("never", Late::by(Duration::from_secs(3600)))]);
        let (result, elapsed) = outcome(never()).await;
        let five = Duration::from_secs(5);
        assert!(matches!(result, Err(BranchError::NotReady { within }) if within == five));
        assert_eq!(elapsed, five);

        let mut gather = gather(&never().ready_within(Duration::MAX), ());
        gather.end_at(Deadline::after(Duration::from_secs(60)));
        let outcome = gather.next().await.expect("an outcome");
        assert!(matches!(outcome.result, Err(BranchError::DeadlineExceeded)));
        assert_eq!(outcome.elapsed, Duration::from_secs(60));
    }

    #[tokio::test(start_paused = true)]
    async fn only_readiness_is_limited() {
        let fan_out = FanOut::new([Branch::new("slow", sleeper(10_000))]).ready_within(MS);
        let (result, elapsed) = outcome(fan_out).await;
        assert_eq!((result.expect("no limit"), elapsed), (10_000, 10_000 * MS));
    }

    #[tokio::test(start_paused = true)]
    async fn a_readiness_error_is_the_failure_of_that_branch() {
        #[derive(Clone)]
        struct Broken;

        impl Service<()> for Broken {
            type Response = u32;
            type Error = BoxError;
            type Future = std::future::Ready<Result<u32, BoxError>>;

            fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
                Poll::Ready(Err("broken".into()))
            }

            fn call(&mut self, (): ()) -> Self::Future {
                unreachable!("it is never ready")
            }
        }

        let (result, _) = outcome(FanOut::new([Branch::new("broken", Broken)])).await;
        let Err(BranchError::Service(error)) = result else {
            panic!("{result:?}");
        };
        assert_eq!(error.to_string(), "broken");
    }

    #[tokio::test(start_paused = true)]
    async fn the_template_is_never_polled_and_a_clone_has_its_own_readiness() {
        let late = Late::by(3 * MS);
        let polled = Arc::clone(&late.original_polled);
        let fan_out = FanOut::new([Branch::new("late", late)]);
        // The fan-out itself is ready although its branch is not.
        let mut clone = fan_out.clone();
        assert!(
            clone
                .poll_ready(&mut Context::from_waker(std::task::Waker::noop()))
                .is_ready()
        );
        for _ in 0..3 {
            let (result, elapsed) = outcome(fan_out.clone()).await;
            assert_eq!((result.expect("ready"), elapsed), (1, 3 * MS));
        }
        assert_eq!(polled.load(Ordering::Relaxed), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn calls_that_share_a_limit_take_turns() {
        let template = ConcurrencyLimitLayer::new(1).layer(sleeper(10));
        let fan_out = FanOut::new([Branch::new("limited", template)]);
        let start = Instant::now();
        let calls = (0..20).map(|_| async {
            let (result, _) = outcome(fan_out.clone()).await;
            result.expect("each has its turn");
            start.elapsed()
        });
        let mut ends = join_all(calls).await;
        ends.sort_unstable();
        assert_eq!(
            ends,
            (1..=20).map(|turn| MS * 10 * turn).collect::<Vec<_>>()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_saturated_branch_does_not_block_its_siblings() {
        let limited = |service: Hand<u32>| ConcurrencyLimitLayer::new(1).layer(service);
        let (stuck, quick) = (Hand::new(), Hand::new());
        let fan_out = FanOut::new([
            Branch::new("stuck", limited(stuck.clone())),
            Branch::new("quick", limited(quick.clone())),
        ]);
        let mut first = task::spawn(gather(&fan_out, ()));
        assert_pending!(first.poll_next());
        quick.finish(1);
        assert!(assert_ready!(first.poll_next()).is_some());

        // `stuck` is full now; the second call gets its `quick` at once all the same.
        let mut second = task::spawn(gather(&fan_out, ()));
        quick.finish(2);
        let outcome = assert_ready!(second.poll_next()).expect("an outcome");
        assert_eq!(
            (outcome.branch.name(), outcome.result.ok()),
            ("quick", Some(2))
        );
        assert_eq!(stuck.calls(), 1);

        // A call that goes leaves its place to the one that waits for it.
        drop(first);
        assert!(second.is_woken());
        assert_pending!(second.poll_next());
        assert_eq!(stuck.calls(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_reserved_for_a_branch_that_is_dropped_is_free_again() {
        let template = ConcurrencyLimitLayer::new(1).layer(Hand::<u32>::new());
        let fan_out = FanOut::new([
            Branch::new("a", template.clone()),
            // Both reserve from one limit; the first holds it.
            Branch::new("b", template),
        ]);
        for _ in 0..3 {
            let mut gather = task::spawn(gather(&fan_out, ()));
            assert_pending!(gather.poll_next());
        }
        let mut gather = gather(&fan_out.ready_within(MS), ());
        let outcome = gather.next().await.expect("an outcome");
        assert_eq!(outcome.branch.name(), "b");
        assert!(matches!(outcome.result, Err(BranchError::NotReady { .. })));
    }
}

mod panics {
    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Place {
        When,
        CloneService,
        CloneRequest,
        Readiness,
        Call,
        Poll,
        LaterPoll,
        Drop,
    }

    struct Panicky {
        at: Option<Place>,
        message: fn(),
    }

    impl Panicky {
        fn panic_at(&self, place: Place) {
            if self.at == Some(place) {
                (self.message)();
            }
        }
    }

    impl Clone for Panicky {
        fn clone(&self) -> Self {
            self.panic_at(Place::CloneService);
            Self { ..*self }
        }
    }

    thread_local! {
        /// Which clone of a request panics.
        static CLONES: Cell<i32> = const { Cell::new(i32::MIN) };
    }

    #[derive(Debug)]
    struct Req;

    impl Clone for Req {
        fn clone(&self) -> Self {
            let clones = CLONES.get();
            CLONES.set(clones.saturating_add(1));
            if clones == 0 {
                panic!("on purpose");
            }
            Self
        }
    }

    impl Service<Req> for Panicky {
        type Response = u32;
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<u32, BoxError>>>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            self.panic_at(Place::Readiness);
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, _: Req) -> Self::Future {
            self.panic_at(Place::Call);
            let (at, message) = (self.at, self.message);
            let bomb = (at == Some(Place::Drop)).then(|| Bomb("on purpose"));
            let mut first = true;
            Box::pin(std::future::poll_fn(move |cx| {
                let _held = &bomb;
                match at {
                    Some(Place::Poll) => message(),
                    Some(Place::LaterPoll) if !first => message(),
                    Some(Place::LaterPoll) => {
                        first = false;
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    _ => {}
                }
                Poll::Ready(Ok(1))
            }))
        }
    }

    fn fan_out(at: Place, message: fn()) -> FanOut<Panicky, Req> {
        let sound = || Panicky { at: None, message };
        let panicky = Branch::new(
            "panicky",
            Panicky {
                at: Some(at),
                message,
            },
        );
        let panicky = match at {
            Place::When => panicky.when(move |_| {
                message();
                true
            }),
            _ => panicky,
        };
        FanOut::new([
            Branch::new("before", sound()),
            panicky,
            Branch::new("after", sound()),
        ])
    }

    const PLACES: [Place; 8] = [
        Place::When,
        Place::CloneService,
        Place::CloneRequest,
        Place::Readiness,
        Place::Call,
        Place::Poll,
        Place::LaterPoll,
        Place::Drop,
    ];

    #[tokio::test]
    async fn a_panic_is_the_failure_of_its_branch_wherever_it_comes_from() {
        for at in PLACES {
            let fan_out = fan_out(at, || panic!("on purpose")).max_in_flight(1);
            // Nothing is poisoned: the same service serves again, and again.
            for _ in 0..3 {
                if at == Place::CloneRequest {
                    // The second clone of each call.
                    CLONES.set(-1);
                }
                let mut outcomes: Vec<_> = gather(&fan_out, Req).collect().await;
                CLONES.set(i32::MIN);
                outcomes.sort_by_key(|outcome| outcome.branch.index());
                assert_eq!(outcomes.len(), 3, "{at:?}");
                for outcome in outcomes {
                    match outcome.result {
                        // What has been answered stands, even if its future panics on the way out.
                        Ok(1) if at == Place::Drop => {}
                        Ok(1) => assert_ne!(outcome.branch.name(), "panicky", "{at:?}"),
                        Err(BranchError::Panicked(message)) => {
                            assert_eq!(outcome.branch.name(), "panicky", "{at:?}");
                            assert_eq!(message, "on purpose", "{at:?}");
                            assert_ne!(at, Place::Drop);
                        }
                        other => panic!("{at:?}: {other:?}"),
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn any_payload_becomes_a_message() {
        let messages: [(fn(), &str); 3] = [
            (|| panic!("a literal"), "a literal"),
            (|| panic!("formatted {}", 1 + 1), "formatted 2"),
            (|| panic_any(7), "a panic without a message"),
        ];
        for (panic, expected) in messages {
            let outcomes: Vec<_> = gather(&fan_out(Place::Poll, panic), Req).collect().await;
            let outcome = outcomes
                .iter()
                .find(|outcome| outcome.branch.name() == "panicky")
                .expect("it has an outcome");
            assert!(
                matches!(&outcome.result, Err(BranchError::Panicked(message)) if message == expected)
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_branch_that_panics_while_the_deadline_drops_it_is_late_like_the_others() {
        let service = |panics: bool| {
            service_fn(move |()| async move {
                let _bomb = panics.then(|| Bomb("on purpose"));
                pending::<Result<(), BoxError>>().await
            })
        };
        let fan_out = FanOut::new([
            Branch::new("a", service(true)),
            Branch::new("b", service(false)),
            Branch::new("c", service(true)),
        ]);
        let mut gather = gather(&fan_out, ());
        gather.end_at(Deadline::after(MS));
        let outcomes: Vec<_> = gather
            .map(|outcome| matches!(outcome.result, Err(BranchError::DeadlineExceeded)))
            .collect()
            .await;
        assert_eq!(outcomes, [true; 3]);
    }

    #[test]
    fn branches_that_panic_while_the_gather_is_dropped_take_nobody_with_them() {
        let hand = Hand::<()>::new();
        let bomb = service_fn(|()| async {
            let _bomb = Bomb("on purpose");
            pending::<Result<(), BoxError>>().await
        });
        let service = |index: usize| match index % 3 {
            0 => BoxCloneSyncService::new(bomb),
            _ => BoxCloneSyncService::new(hand.clone()),
        };
        let branch = |index: usize| Branch::new(format!("b{index}"), service(index));
        let fan_out = FanOut::new((0..12).map(branch)).max_in_flight(1);
        let mut gather = task::spawn(gather(&fan_out, ()));
        assert_pending!(gather.poll_next());
        drop(gather);
        assert_eq!(hand.drops(), 8);
        assert!(try_gather(&fan_out, ()).is_ok(), "its place is free");
    }
}

mod dropping {
    use super::*;

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
}

mod deadline {
    use super::*;

    // L09
    #[tokio::test(start_paused = true)]
    async fn the_gather_ends_at_the_very_instant() {
        let fan_out =
            FanOut::new([4, 9, 10, 11, 50].map(|n| Branch::new(format!("{n}"), sleeper(n))));
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
}

mod building {
    use super::*;

    fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Branch<Hand<()>, ()>> {
        let branch = |name: &str| Branch::new(name, Hand::new());
        names.into_iter().map(branch).collect()
    }

    #[test]
    fn names_are_one_to_sixty_four_and_differ() {
        let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
        let many = || many.iter().map(String::as_str);
        for (branches, why) in [
            (named([]), "needs a branch"),
            (named(many()), "at most 64 branches, not 65"),
            (named([""]), "needs a name"),
            (named(["a", ""]), "needs a name"),
            (named(["a", "b", "a"]), r#"two branches are called "a""#),
        ] {
            let error = FanOut::try_new(branches.clone()).expect_err("refused");
            assert!(error.to_string().contains(why), "{error}");
            let panic = catch_unwind(AssertUnwindSafe(|| FanOut::new(branches)));
            let panic = panic.expect_err("refused");
            assert_eq!(panic.downcast_ref(), Some(&error.to_string()));
        }
        assert!(FanOut::try_new(named(many().take(64))).is_ok());
        // Names are told apart as they are written.
        assert!(FanOut::try_new(named(["a", "A", " a", "ä"])).is_ok());
    }

    #[test]
    fn a_layer_refuses_the_same() {
        let identity = tower::layer::util::Identity::new;
        let twice = [
            Branch::<_, ()>::new("a", identity()),
            Branch::new("a", identity()),
        ];
        assert!(FanOutLayer::try_new(twice).is_err());
        assert!(FanOutLayer::<tower::layer::util::Identity, ()>::try_new([]).is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_layer_keeps_names_conditions_and_settings() {
        let layer = FanOutLayer::new([
            Branch::new("a", tower::layer::util::Identity::new()).required(),
            Branch::new("b", tower::layer::util::Identity::new()),
            Branch::new("c", tower::layer::util::Identity::new()).when(|()| false),
        ])
        .width(1)
        .ready_within(2 * MS);
        let seen: Vec<_> = gather(&layer.layer(sleeper(5)), ())
            .map(|outcome| {
                let name = outcome.branch.to_string();
                (name, outcome.required, outcome.result.ok())
            })
            .collect()
            .await;
        assert_eq!(
            seen,
            [
                ("c".to_owned(), false, None),
                ("a".to_owned(), true, Some(5)),
                ("b".to_owned(), false, Some(5))
            ]
        );
        let limited = ConcurrencyLimitLayer::new(1).layer(Hand::<()>::new());
        let mut gather = gather(&layer.layer(limited), ());
        gather.next().await.expect("c is skipped");
        // `a` holds the only place for good, and `b` may run only after it.
        assert!(futures_util::poll!(gather.next()).is_pending());
    }

    #[test]
    fn a_clone_is_the_same_fan_out() {
        let fan_out = FanOut::new(named(["a", "b"])).width(1).max_in_flight(3);
        let clone = fan_out.clone();
        let names = |fan_out: &FanOut<Hand<()>, ()>| -> Vec<_> {
            let branches = fan_out.branches().iter();
            branches.map(|branch| branch.name().to_owned()).collect()
        };
        assert_eq!(names(&clone), names(&fan_out));
        assert_eq!(format!("{clone:?}"), format!("{fan_out:?}"));
    }

    #[tokio::test]
    async fn a_service_that_is_used_by_reference_to_many_threads_can_be_shared() {
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::clone(&log);
        let service = service_fn(move |n: u32| {
            let log = Arc::clone(&writer);
            async move {
                log.lock().expect("not poisoned").push(n);
                Ok::<_, BoxError>(n)
            }
        });
        let fan_out = FanOut::new([Branch::new("a", service.clone()), Branch::new("b", service)]);
        let tasks = (0..50).map(|n| {
            let fan_out = fan_out.clone();
            tokio::spawn(async move { fan_out.oneshot(n).await.expect("a place").count().await })
        });
        for task in join_all(tasks).await {
            assert_eq!(task.expect("no panic"), 2);
        }
        let mut seen = log.lock().expect("not poisoned").clone();
        seen.sort_unstable();
        let twice: Vec<u32> = (0..50).flat_map(|n| [n, n]).collect();
        assert_eq!(seen, twice);
    }
}
