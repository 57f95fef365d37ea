//! The stream of outcomes, and the scheduler of the branches behind it.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use futures_core::stream::FusedStream;
use tokio::time::Instant;

use super::roster::{Member, Place};
use super::slab::{Slot, SlotProj, Slots};
use super::{BranchError, BranchId, Outcome};
use crate::deadline::{Deadline, Timer};
use crate::error::{contain, panic_message};

/// A [`Stream`] of one [`Outcome`] per branch, in completion order. Outcomes of one sweep come in declared order.
///
/// # The trap
///
/// The branches run while this stream is polled, and only then. A consumer that takes an outcome and then awaits that
/// branch's *body* before it polls again stalls the siblings: they neither start nor go on, and their time runs. Read
/// bodies while you poll the stream, as every merge in [`merge`](crate::merge) does, or hand the body on and be done.
///
/// # Cancellation
///
/// Dropping it drops every branch that still runs. A branch's future is dropped as soon as it has finished, before its
/// outcome is handed out.
///
/// # Panics in a branch
///
/// are that branch's outcome, [`BranchError::Panicked`]; the others go on.
///
/// # Deadline
///
/// [`end_at`](Self::end_at) bounds the whole: at that instant every unfinished branch is dropped and yields
/// [`BranchError::DeadlineExceeded`]. A branch that completes at that very instant counts as completed.
pub struct Gather<F: Future> {
    // Declared first, dropped first: the branches let go of their wakers before the set is given back.
    slots: Slots<F>,
    place: Place,
    /// Not started yet.
    queued: u64,
    /// Started and not finished.
    running: u64,
    /// Finished and not yielded.
    done: u64,
    /// How many may run at once.
    width: usize,
    timer: Timer,
}

impl<F, T, E> Gather<F>
where
    F: Future<Output = Result<T, BranchError<E>>>,
{
    /// Nothing is polled here: a branch starts when the stream is polled first. `make` is asked for each branch in turn; if
    /// it panics, it is that branch that failed.
    pub(crate) fn new(
        place: Place,
        width: usize,
        mut make: impl FnMut(usize) -> Result<F, BranchError<E>>,
    ) -> Self {
        let len = place.roster().len();
        let mut gather = Self {
            slots: Slots::new(len),
            place,
            queued: 0,
            running: 0,
            done: 0,
            width,
            timer: Timer::new(Deadline::NEVER),
        };
        let mut index = 0;
        while index < len {
            // One guard for all that goes well.
            let made = catch_unwind(AssertUnwindSafe(|| {
                while index < len {
                    gather.declare(index, make(index));
                    index += 1;
                }
            }));
            if let Err(payload) = made {
                let message = panic_message(payload);
                gather.declare(index, Err(BranchError::Panicked(message)));
                index += 1;
            }
        }
        gather
    }

    fn declare(&mut self, index: usize, branch: Result<F, BranchError<E>>) {
        let bit = 1 << index;
        let mut slot = self.slots.get(index);
        match branch {
            Ok(future) => {
                self.queued |= bit;
                slot.set(Slot::Running {
                    future,
                    since: None,
                });
            }
            Err(error) => {
                self.done |= bit;
                slot.set(Slot::Done {
                    output: Some(Err(error)),
                    elapsed: Duration::ZERO,
                });
            }
        }
    }

    /// Ends the gather at `deadline`, or at the one set before if that is earlier.
    ///
    /// If it has passed before the stream is first polled, no branch is started.
    pub fn end_at(&mut self, deadline: Deadline) {
        self.timer = Timer::new(self.timer.deadline().earlier(deadline));
    }

    /// The branches of this call, in declared order, whatever has become of them.
    pub fn branches(&self) -> impl Iterator<Item = &BranchId> {
        self.members().iter().map(|member| &member.id)
    }

    pub(crate) fn members(&self) -> &[Member] {
        self.place.roster().members()
    }

    /// The outcomes that are still to come.
    #[must_use]
    pub fn remaining(&self) -> usize {
        (self.queued | self.running | self.done).count_ones() as usize
    }

    /// Starts what may start and polls what has been woken, each once. All of it is in one sweep, so a branch that is
    /// ready at once does not keep the next from starting.
    fn sweep(&mut self) {
        let mut woken = self.place.wakers().take_woken() & self.running;
        // One reading of the clock serves the sweep.
        let mut now = None;
        loop {
            while self.queued != 0 && (self.running.count_ones() as usize) < self.width {
                let now = *now.get_or_insert_with(Instant::now);
                if self.timer.deadline().has_passed_at(now) {
                    break;
                }
                let index = self.queued.trailing_zeros() as usize;
                let bit = 1 << index;
                self.queued &= !bit;
                self.running |= bit;
                woken |= bit;
                if let SlotProj::Running { since, .. } = self.slots.get(index).project() {
                    *since = Some(now);
                }
            }
            if woken == 0 {
                return;
            }
            while woken != 0 {
                // One guard for all that goes well. A bit is cleared when its branch has been polled, so that a panic is
                // laid at the right door.
                let polled = catch_unwind(AssertUnwindSafe(|| {
                    while woken != 0 {
                        self.poll_slot(woken.trailing_zeros() as usize, &mut now);
                        woken &= woken - 1;
                    }
                }));
                if let Err(payload) = polled {
                    let index = woken.trailing_zeros() as usize;
                    woken &= woken - 1;
                    self.blame(index, payload, &mut now);
                }
            }
        }
    }

    fn poll_slot(&mut self, index: usize, now: &mut Option<Instant>) {
        let mut slot = self.slots.get(index);
        let SlotProj::Running { future, since } = slot.as_mut().project() else {
            unreachable!("only running branches are polled");
        };
        let cx = &mut Context::from_waker(self.place.wakers().waker(index));
        if let Poll::Ready(output) = future.poll(cx) {
            let elapsed = elapsed(*since, now);
            self.finish(index, output, elapsed);
        }
    }

    /// The branch has panicked: while it was polled, or, once it had finished, on its way out. Then its output stands.
    fn blame(&mut self, index: usize, payload: Box<dyn Any + Send>, now: &mut Option<Instant>) {
        let message = panic_message(payload);
        if let SlotProj::Running { since, .. } = self.slots.get(index).project() {
            let elapsed = elapsed(*since, now);
            self.finish_quietly(index, Err(BranchError::Panicked(message)), elapsed);
        }
    }

    /// Drops the branch's future and keeps its output, which stands even if the future panics on its way out: an
    /// assignment completes while it unwinds.
    fn finish(&mut self, index: usize, output: F::Output, elapsed: Duration) {
        let bit = 1 << index;
        self.queued &= !bit;
        self.running &= !bit;
        self.done |= bit;
        self.slots.get(index).set(Slot::Done {
            output: Some(output),
            elapsed,
        });
    }

    /// The same where no guard stands around it.
    fn finish_quietly(&mut self, index: usize, output: F::Output, elapsed: Duration) {
        contain(|| self.finish(index, output, elapsed));
    }

    fn expire(&mut self) {
        let mut now = None;
        let mut unfinished = self.queued | self.running;
        while unfinished != 0 {
            let index = unfinished.trailing_zeros() as usize;
            unfinished &= unfinished - 1;
            let since = match self.slots.get(index).project() {
                SlotProj::Running { since, .. } => *since,
                _ => None,
            };
            let elapsed = elapsed(since, &mut now);
            self.finish_quietly(index, Err(BranchError::DeadlineExceeded), elapsed);
        }
    }

    fn take_done(&mut self) -> Option<Outcome<T, E>> {
        if self.done == 0 {
            return None;
        }
        let index = self.done.trailing_zeros() as usize;
        self.done &= self.done - 1;
        let mut slot = self.slots.get(index);
        let SlotProj::Done { output, elapsed } = slot.as_mut().project() else {
            unreachable!("marked as done");
        };
        let (result, elapsed) = (output.take().expect("taken once"), *elapsed);
        slot.set(Slot::Empty);
        let member = &self.place.roster().members()[index];
        Some(Outcome {
            branch: member.id.clone(),
            required: member.required,
            elapsed,
            result,
        })
    }
}

/// How long a branch has run; nothing, if it never started. The clock is read once for all that end in one sweep.
fn elapsed(since: Option<Instant>, now: &mut Option<Instant>) -> Duration {
    match since {
        Some(since) => now
            .get_or_insert_with(Instant::now)
            .saturating_duration_since(since),
        None => Duration::ZERO,
    }
}

impl<F, T, E> Stream for Gather<F>
where
    F: Future<Output = Result<T, BranchError<E>>>,
{
    type Item = Outcome<T, E>;

    /// ## Running => (Running | Expired) => Empty
    ///
    /// What has finished goes out first, once all that may run has been started: a branch that was skipped, or an outcome
    /// that is still to be taken, keeps no other waiting. The task is registered *before* the bits are taken, so that a branch
    /// woken in between wakes it again. The deadline is looked at last, and only while something is unfinished: at a tie,
    /// finished work wins. As it may have come after the branches were looked at, those that have been woken since are asked
    /// once more before they are late.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Outcome<T, E>>> {
        let this = &mut *self;
        if this.remaining() == 0 {
            return Poll::Ready(None);
        }
        let startable = this.queued != 0 && (this.running.count_ones() as usize) < this.width;
        let mut must_sweep = this.done == 0 || startable;
        let mut last_look = false;
        while must_sweep {
            this.place.wakers().register(cx.waker());
            this.sweep();
            must_sweep = this.done == 0;
            if must_sweep {
                ready!(this.timer.poll(cx));
                if last_look {
                    this.expire();
                    break;
                }
                last_look = true;
            }
        }
        Poll::Ready(this.take_done())
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.remaining(), Some(self.remaining()))
    }
}

impl<F, T, E> FusedStream for Gather<F>
where
    F: Future<Output = Result<T, BranchError<E>>>,
{
    fn is_terminated(&self) -> bool {
        self.remaining() == 0
    }
}

impl<F: Future> Drop for Gather<F> {
    /// One by one: a branch, or its outcome, that panics on its way out takes neither its siblings nor the caller with it.
    fn drop(&mut self) {
        let mut left = self.queued | self.running | self.done;
        while left != 0 {
            let index = left.trailing_zeros() as usize;
            left &= left - 1;
            let mut slot = self.slots.get(index);
            contain(|| slot.set(Slot::Empty));
        }
    }
}

impl<F: Future> fmt::Debug for Gather<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gather")
            .field("branches", &self.place.roster().members())
            .field("queued", &self.queued.count_ones())
            .field("running", &self.running.count_ones())
            .field("done", &self.done.count_ones())
            .field("deadline", &self.timer.deadline())
            .finish()
    }
}
