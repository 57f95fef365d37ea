//! A branch's service becomes ready in its own time and at its own cost.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, Service};
use watershed::deadline::Deadline;
use watershed::error::BoxError;
use watershed::fanout::FanOut;
use watershed::outcome::{Branch, BranchError};

use crate::common::{gather, sleeper};
use crate::support::{Hand, MS};

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

#[tokio::test(start_paused = true)]
async fn with_no_time_at_all_a_service_is_ready_or_has_failed() {
    let services = [Late::by(Duration::ZERO), Late::by(MS)];
    let branches = services
        .into_iter()
        .enumerate()
        .map(|(index, service)| Branch::new(index.to_string(), service));
    let fan_out = FanOut::new(branches).ready_within(Duration::ZERO);
    let start = Instant::now();
    let results: Vec<_> = gather(&fan_out, ())
        .map(|outcome| outcome.result.map_err(|error| error.to_string()))
        .collect()
        .await;
    assert_eq!(results[1], Err("not ready within 0ns".to_owned()));
    assert!(results[0].is_ok());
    assert_eq!(start.elapsed(), Duration::ZERO);
}
