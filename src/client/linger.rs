//! How long a request's body may go on when the response is over, whatever holds it up.
//!
//! While there is no room for more of a body, hyper does not ask it for more, and the body can't end what it is part of. So
//! the task that sends it is ended from outside: over HTTP/1.1 that is the one of the connection, over HTTP/2 one of the
//! stream.

use std::cell::Cell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::rt;
use hyper_util::rt::TokioExecutor;
use tokio::time::Instant;

use super::exchange::Exchange;
use crate::deadline::{Deadline, Timer};

/// How long the body of a request may go on when the response is over, from its end and all in all.
///
/// A caller that has its answer may be about to end what it sends: then the connection is used again. If it is still in the
/// middle of it and nobody listened any more, its connection would be reset, and the answer be lost with it. But one that
/// has stopped may never go on, and it holds two connections.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// That time.
#[derive(Default)]
pub(super) struct Linger(Option<Timer>);

impl Linger {
    pub(super) fn has_passed(&mut self, over: Instant) -> bool {
        self.since(over).deadline().has_passed()
    }

    pub(super) fn poll(&mut self, over: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.since(over).poll(cx)
    }

    fn since(&mut self, over: Instant) -> &mut Timer {
        self.0
            .get_or_insert_with(|| Timer::new(Deadline::after_at(LINGER, over)))
    }
}

type Upload = Arc<Exchange<Instant>>;

tokio::task_local! {
    /// While a task of hyper's is polled: the upload that it has begun to send.
    static BEGUN: Cell<Option<Upload>>;
}

/// The task that polls this body is the one that sends it.
pub(super) fn begin(upload: &Upload) {
    let _ = BEGUN.try_with(|begun| begun.set(Some(Arc::clone(upload))));
}

/// Runs code of somebody else's in a task of hyper's: what that spawns has nothing to do with what the task has begun.
pub(super) fn apart<T>(run: impl FnOnce() -> T) -> T {
    let begun = BEGUN.try_with(Cell::take).ok().flatten();
    let value = run();
    if begun.is_some() {
        let _ = BEGUN.try_with(|cell| cell.set(begun));
    }
    value
}

type Spawned = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What hyper spawns its tasks with.
#[derive(Debug, Clone)]
pub(super) struct Executor;

impl rt::Executor<Spawned> for Executor {
    fn execute(&self, spawned: Spawned) {
        // Over HTTP/2 the task of the connection begins with every body, and spawns at least one other for the same call: the
        // one that sends the rest, or the one that waits for the response. That one may be ended.
        let upload = BEGUN.try_with(Cell::take).ok().flatten();
        TokioExecutor::new().execute(Task {
            spawned,
            upload,
            linger: Linger::default(),
        });
    }
}

/// A task of hyper's.
struct Task {
    spawned: Spawned,
    /// What it has begun to send last. Over HTTP/1.1 that has been sent before the next one begins.
    upload: Option<Upload>,
    linger: Linger,
}

impl Future for Task {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let (polled, begun) = BEGUN.sync_scope(Cell::new(None), || {
            let polled = this.spawned.as_mut().poll(cx);
            (polled, BEGUN.with(Cell::take))
        });
        if begun.is_some() {
            this.send(begun);
        }
        match polled {
            Poll::Pending => this.poll_late(cx),
            Poll::Ready(()) => Poll::Ready(()),
        }
    }
}

impl Task {
    fn send(&mut self, upload: Option<Upload>) {
        self.upload = upload;
        self.linger = Linger::default();
    }

    /// Ready when the upload has had its time. Then the task is dropped, and what it holds with it.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(upload) = &self.upload else {
            return Poll::Pending;
        };
        if upload.is_sent() {
            self.send(None);
            return Poll::Pending;
        }
        match upload.over_or_wake(cx.waker()) {
            Some(over) => self.linger.poll(over, cx),
            None => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};
    use std::sync::Weak;

    use hyper::rt::Executor as _;
    use tokio_test::task::{Spawn, spawn};
    use tokio_test::{assert_pending, assert_ready};

    use super::*;

    const MOMENT: Duration = Duration::from_millis(1);

    async fn pass(time: Duration) {
        tokio::time::advance(time).await;
    }

    fn upload() -> Upload {
        Arc::new(Exchange::new())
    }

    /// A task that does `run` each time that it is polled.
    fn task(mut run: impl FnMut() + Send + 'static) -> Spawn<Task> {
        let spawned = Box::pin(poll_fn(move |_| {
            run();
            Poll::Pending
        }));
        spawn(Task {
            spawned,
            upload: None,
            linger: Linger::default(),
        })
    }

    /// Something to spawn, and whether it is still there.
    fn stuck() -> (Spawned, Weak<()>) {
        let here = Arc::new(());
        let there = Arc::downgrade(&here);
        let spawned = Box::pin(async move {
            pending::<()>().await;
            drop(here);
        });
        (spawned, there)
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_ends_when_its_upload_has_had_its_time() {
        let upload = upload();
        let sends = Arc::clone(&upload);
        let mut task = task(move || begin(&sends));
        assert_pending!(task.poll());
        // It may take as long as the response is wanted.
        pass(10 * LINGER).await;
        assert!(!task.is_woken());
        assert_pending!(task.poll());
        upload.finish(Instant::now());
        assert!(task.is_woken());
        assert_pending!(task.poll());
        pass(LINGER - MOMENT).await;
        assert_pending!(task.poll());
        pass(2 * MOMENT).await;
        assert!(task.is_woken());
        assert_ready!(task.poll());
    }

    /// An HTTP/1.1 connection is used again.
    #[tokio::test(start_paused = true)]
    async fn each_upload_of_a_task_has_its_own_time() {
        let uploads = [upload(), upload()];
        let sends = uploads.clone();
        let mut begins = sends.into_iter();
        let mut task = task(move || {
            if let Some(upload) = begins.next() {
                begin(&upload);
            }
        });
        let [first, second] = uploads;
        assert_pending!(task.poll());
        first.finish(Instant::now());
        assert_pending!(task.poll());
        pass(LINGER - MOMENT).await;
        first.sent();
        assert_pending!(task.poll());
        pass(LINGER).await;
        assert_pending!(task.poll());
        second.finish(Instant::now());
        assert!(task.is_woken());
        assert_pending!(task.poll());
        pass(LINGER - MOMENT).await;
        assert_pending!(task.poll());
        pass(2 * MOMENT).await;
        assert_ready!(task.poll());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_whose_upload_is_sent_goes_on() {
        let upload = upload();
        let mut begun = Some(Arc::clone(&upload));
        let mut task = task(move || {
            if let Some(upload) = begun.take() {
                begin(&upload);
            }
        });
        assert_pending!(task.poll());
        upload.sent();
        assert_pending!(task.poll());
        upload.finish(Instant::now());
        assert!(!task.is_woken());
        pass(2 * LINGER).await;
        assert_pending!(task.poll());
        // Nothing of it is kept.
        assert_eq!(Arc::strong_count(&upload), 1);
    }

    /// An HTTP/2 connection, and the stream that it leaves to a task of its own.
    #[tokio::test(start_paused = true)]
    async fn an_upload_goes_to_the_task_that_is_spawned_for_it() {
        let upload = upload();
        let (spawned, there) = stuck();
        let mut begun = Some((Arc::clone(&upload), spawned));
        let mut task = task(move || {
            if let Some((upload, spawned)) = begun.take() {
                begin(&upload);
                Executor.execute(spawned);
            }
        });
        assert_pending!(task.poll());
        upload.finish(Instant::now());
        tokio::time::sleep(LINGER - MOMENT).await;
        assert_eq!(there.strong_count(), 1);
        tokio::time::sleep(2 * MOMENT).await;
        assert_eq!(there.strong_count(), 0);
        assert!(!task.is_woken());
        assert_pending!(task.poll());
    }

    /// A body that makes calls itself.
    #[tokio::test(start_paused = true)]
    async fn what_a_body_spawns_does_not_take_the_upload() {
        let upload = upload();
        let (spawned, there) = stuck();
        let mut begun = Some((Arc::clone(&upload), spawned));
        let mut task = task(move || {
            if let Some((upload, spawned)) = begun.take() {
                begin(&upload);
                apart(|| Executor.execute(spawned));
            }
        });
        assert_pending!(task.poll());
        upload.finish(Instant::now());
        assert_pending!(task.poll());
        tokio::time::sleep(LINGER + MOMENT).await;
        assert_eq!(there.strong_count(), 1);
        assert_ready!(task.poll());
    }

    /// Elsewhere nobody is to be told.
    #[test]
    fn a_body_may_be_polled_in_any_task() {
        begin(&upload());
        assert_eq!(apart(|| 1), 1);
    }
}
