//! Work in a task of its own, and who gets what comes of it: its caller, or the hook.

use std::any::Any;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::Response;
use pin_project_lite::pin_project;
use tokio::sync::oneshot;

use crate::background::Permit;
use crate::error::contain;

/// How work ended that nobody waited for any more.
///
/// It does not say for which request. To tell, let a layer inside put the route or an id into the response's extensions, or
/// into the error.
#[derive(Debug)]
#[non_exhaustive]
pub enum Late<B, E> {
    /// It has a response, whose body is dropped with this value.
    Response(Response<B>),
    /// It has failed.
    Error(E),
    /// It has panicked, with this payload.
    Panicked(Box<dyn Any + Send>),
}

pub(super) type OnLate<B, E> = dyn Fn(Late<B, E>) + Send + Sync;

type Finished<B, E> = std::thread::Result<Result<Response<B>, E>>;

/// The permit goes with what came of the work: it counts until somebody has that.
type Counted<B, E> = (Finished<B, E>, Permit);

/// Runs `work`, an async block, to its end. Its panic is a value; so is one of what it holds, as all of that is dropped
/// before it is ready.
async fn caught<W: Future>(work: W) -> std::thread::Result<W::Output> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        let poll = AssertUnwindSafe(|| work.as_mut().poll(cx));
        match catch_unwind(poll) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

fn hand_over<B, E>(on_late: &OnLate<B, E>, (finished, permit): Counted<B, E>) {
    let late = match finished {
        Ok(Ok(response)) => Late::Response(response),
        Ok(Err(error)) => Late::Error(error),
        Err(panic) => Late::Panicked(panic),
    };
    contain(|| on_late(late));
    drop(permit);
}

pin_project! {
    /// The inner call, where it runs.
    #[project = WorkProj]
    pub(super) enum Work<F, B, E> {
        Attached { #[pin] future: F },
        Task { task: Task<B, E> },
    }
}

/// The caller's end of a task.
pub(super) struct Task<B, E> {
    receiver: oneshot::Receiver<Counted<B, E>>,
    is_new: bool,
    on_late: Arc<OnLate<B, E>>,
}

impl<F, B, E> Future for Work<F, B, E>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = Result<Option<Response<B>>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.project() {
            WorkProj::Attached { future } => future.poll(cx).map_ok(Some),
            WorkProj::Task { task } => task.poll(cx),
        }
    }
}

impl<B, E> Task<B, E>
where
    B: Send + 'static,
    E: Send + 'static,
{
    pub(super) fn start(
        permit: Permit,
        work: impl Future<Output = Result<Response<B>, E>> + Send + 'static,
        on_late: &Arc<OnLate<B, E>>,
    ) -> Self {
        let (sender, receiver) = oneshot::channel();
        let hook = Arc::clone(on_late);
        permit.spawn_with(|permit| async move {
            let finished = caught(work).await;
            if let Err(late) = sender.send((finished, permit)) {
                hand_over(&*hook, late);
            }
        });
        Self {
            receiver,
            is_new: true,
            on_late: Arc::clone(on_late),
        }
    }
}

impl<B, E> Task<B, E> {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Response<B>>, E>> {
        match Pin::new(&mut self.receiver).poll(cx) {
            Poll::Ready(Ok((finished, permit))) => {
                drop(permit);
                match finished {
                    Ok(result) => Poll::Ready(result.map(Some)),
                    // It was in time, so it is the caller's.
                    Err(panic) => resume_unwind(panic),
                }
            }
            Poll::Ready(Err(_)) => Poll::Ready(Ok(None)),
            Poll::Pending => {
                if std::mem::take(&mut self.is_new) {
                    // The new task waits for this thread, and may never give it back; the timer needs one, too. To be woken
                    // here is to be put into the queue that other threads take from, so that one of them is up for it.
                    cx.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}

impl<B, E> Drop for Task<B, E> {
    /// Nobody waits any more. What was sent by now and not received is late as well.
    fn drop(&mut self) {
        // Or what is sent between the two would be dropped with the receiver, and nobody told. No test gets in there: the
        // channel is Tokio's, which the model checker does not compile, and none of a user's code runs between them.
        self.receiver.close();
        if let Ok(finished) = self.receiver.try_recv() {
            hand_over(&*self.on_late, finished);
        }
    }
}
