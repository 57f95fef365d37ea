//! What a background promises: bounded, counted, drained, and never outliving its owners.

mod support;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::{Bomb, MS};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use watershed::background::{Background, Refused};

/// Counts the tasks that have been dropped, finished or not.
struct Gone(Arc<AtomicUsize>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn count(of: &Arc<AtomicUsize>) -> usize {
    of.load(Ordering::Relaxed)
}

#[test]
fn nothing_runs_or_is_needed_to_make_one() {
    let error = Background::try_new(0).expect_err("refused");
    let panic = std::panic::catch_unwind(|| Background::new(0)).expect_err("refused");
    assert_eq!(panic.downcast_ref(), Some(&error.to_string()));
    let background = Background::default();
    assert_eq!((background.limit(), background.running()), (64, 0));
    drop(background.try_permit().expect("free"));
    assert_eq!(background.running(), 0);
}

/// No runtime is here: what has nothing to wait for needs none, and what has no limit no timer.
#[test]
fn a_shutdown_needs_a_timer_only_to_wait_for_so_long() {
    for limit in [Duration::ZERO, MS, Duration::MAX] {
        let background = Background::new(1);
        let mut shutdown = task::spawn(background.shutdown(limit));
        assert_eq!(assert_ready!(shutdown.poll()).aborted, 0, "{limit:?}");
        assert_eq!(
            background.try_permit().expect_err("shut"),
            Refused::ShutDown
        );
    }
    let background = Background::new(1);
    let permit = background.try_permit().expect("free");
    let mut shutdown = task::spawn(background.shutdown(Duration::MAX));
    assert_pending!(shutdown.poll());
    drop(permit);
    assert!(shutdown.is_woken());
    assert_eq!(assert_ready!(shutdown.poll()).aborted, 0);
}

#[tokio::test(start_paused = true)]
async fn it_runs_as_many_as_it_may_and_refuses_the_rest_at_once() {
    let background = Background::new(2);
    let permit = background.try_permit().expect("free");
    background.try_spawn(sleep(10 * MS)).expect("free");
    assert_eq!(background.running(), 2);
    assert_eq!(
        background.try_permit().expect_err("full"),
        Refused::Full { limit: 2 }
    );
    assert_eq!(
        background.clone().try_spawn(async {}),
        Err(Refused::Full { limit: 2 })
    );
    permit.spawn(sleep(5 * MS));
    sleep(6 * MS).await;
    assert_eq!(background.running(), 1);
    background.try_spawn(async {}).expect("free");
    sleep(6 * MS).await;
    assert_eq!(background.running(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_is_counted_out_and_harms_nobody() {
    let background = Background::new(1);
    for _ in 0..3 {
        background
            .try_spawn(async { panic!("on purpose") })
            .expect("free");
        tokio::task::yield_now().await;
        assert_eq!(background.running(), 0);
        let bomb = Bomb("as it goes");
        background
            .try_spawn(async move { drop(bomb) })
            .expect("free");
        tokio::task::yield_now().await;
        assert_eq!(background.running(), 0);
    }
    assert_eq!(background.shutdown(Duration::ZERO).await.aborted, 0);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_what_runs_and_takes_nothing_new() {
    let background = Background::new(8);
    for delay in 1..=5 {
        background.try_spawn(sleep(MS * delay)).expect("free");
    }
    let start = Instant::now();
    let mut shutdown = task::spawn(background.shutdown(10 * MS));
    assert_pending!(shutdown.poll());
    assert_eq!(background.try_spawn(async {}), Err(Refused::ShutDown));
    assert_eq!(shutdown.await.aborted, 0);
    assert_eq!((start.elapsed(), background.running()), (5 * MS, 0));
    // Again, it has nothing to do.
    assert_eq!(background.shutdown(Duration::MAX).await.aborted, 0);
    assert_eq!(start.elapsed(), 5 * MS);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_aborts_what_does_not_end_and_says_how_many() {
    let background = Background::new(8);
    let gone = Arc::new(AtomicUsize::new(0));
    for delay in [5, 10, 11, 20] {
        let gone = Gone(Arc::clone(&gone));
        let work = async move {
            let _gone = gone;
            sleep(MS * delay).await;
        };
        background.try_spawn(work).expect("free");
    }
    let start = Instant::now();
    let permit = background.try_permit().expect("free");
    // What is done at the very instant is done.
    assert_eq!(background.shutdown(10 * MS).await.aborted, 3);
    assert_eq!(start.elapsed(), 10 * MS);
    tokio::task::yield_now().await;
    assert_eq!((count(&gone), background.running()), (4, 1));
    // One that was about to start is told when it does.
    let late = Gone(Arc::clone(&gone));
    permit.spawn(async move {
        let _late = late;
        pending::<()>().await;
    });
    tokio::task::yield_now().await;
    tokio::task::yield_now().await;
    assert_eq!((count(&gone), background.running()), (5, 0));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_dropped_aborts_nothing() {
    let background = Background::new(1);
    let done = Arc::new(Notify::new());
    let notify = Arc::clone(&done);
    background
        .try_spawn(async move {
            sleep(20 * MS).await;
            notify.notify_one();
        })
        .expect("free");
    let mut shutdown = task::spawn(background.shutdown(10 * MS));
    assert_pending!(shutdown.poll());
    drop(shutdown);
    done.notified().await;
    assert_eq!(background.try_spawn(async {}), Err(Refused::ShutDown));
}

#[tokio::test(start_paused = true)]
async fn several_may_wait_for_one_shutdown() {
    let background = Background::new(1);
    background.try_spawn(sleep(5 * MS)).expect("free");
    let (one, other) = tokio::join!(
        background.shutdown(10 * MS),
        background.shutdown(Duration::MAX)
    );
    assert_eq!((one.aborted, other.aborted), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_last_clone_aborts_what_runs() {
    let gone = Arc::new(AtomicUsize::new(0));
    let background = Background::new(2);
    let other = background.clone();
    let permit = background.try_permit().expect("free");
    let late = Gone(Arc::clone(&gone));
    let runs = Gone(Arc::clone(&gone));
    let work = async move {
        let _runs = runs;
        pending::<()>().await;
    };
    background.try_spawn(work).expect("free");
    drop(background);
    sleep(MS).await;
    assert_eq!(count(&gone), 0);
    drop(other);
    sleep(MS).await;
    assert_eq!(count(&gone), 1);
    permit.spawn(async move {
        let _late = late;
        pending::<()>().await;
    });
    sleep(MS).await;
    assert_eq!(count(&gone), 2);
}

/// Tasks come and go on several threads while it is shut down: each is drained, aborted or refused, and none is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nothing_is_left_after_a_shutdown_under_load() {
    for round in 0..200_u64 {
        let background = Background::new(16);
        let (begun, gone) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let spawners: Vec<_> = (0..4)
            .map(|_| {
                let background = background.clone();
                let (begun, gone) = (Arc::clone(&begun), Arc::clone(&gone));
                tokio::spawn(async move {
                    loop {
                        let work = {
                            let gone = Gone(Arc::clone(&gone));
                            async move {
                                let _gone = gone;
                                tokio::task::yield_now().await;
                            }
                        };
                        begun.fetch_add(1, Ordering::Relaxed);
                        match background.try_spawn(work) {
                            Err(Refused::ShutDown) => break,
                            _ => tokio::task::yield_now().await,
                        }
                    }
                })
            })
            .collect();
        for _ in 0..round % 20 {
            tokio::task::yield_now().await;
        }
        let unfinished = background.shutdown(Duration::from_secs(20)).await;
        assert_eq!((unfinished.aborted, background.running()), (0, 0));
        for spawner in spawners {
            spawner.await.expect("no panic");
        }
        assert_eq!(count(&begun), count(&gone));
    }
}
