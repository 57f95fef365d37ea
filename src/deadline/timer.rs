//! Timers that are armed when they are first polled, and decide by the clock and not by their own wake-up (DESIGN rule 6).

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::task::consume_budget;
use tokio::time::{Instant, Sleep};

use super::Deadline;

/// A timer that can be moved, and is small until it is armed.
#[derive(Debug)]
pub(crate) struct Timer {
    deadline: Deadline,
    /// Boxed: most calls never arm it.
    sleep: Option<Pin<Box<Sleep>>>,
    turns: Turns,
}

impl Timer {
    pub(crate) fn new(deadline: Deadline) -> Self {
        Self {
            deadline,
            sleep: None,
            turns: Turns::default(),
        }
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Ready once the deadline has passed, and what was just pending [is not finished](Turns). Poll what it guards first: at a
    /// tie, finished work wins.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.deadline.at else {
            return Poll::Pending;
        };
        if Instant::now() < at {
            let sleep = self
                .sleep
                .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)));
            ready!(sleep.as_mut().poll(cx));
        }
        self.turns.poll_over(at, cx)
    }
}

impl Timer {
    /// What `work` comes to, or `None` if it is late. The timer is looked at only if there is nothing; and as the deadline may
    /// have come between the two looks, `work` is then polled once more. So whoever waits for the same instant inside, as a
    /// merge does that answers with what it has by then, is always asked once more.
    pub(crate) fn poll_work<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut work: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<Option<T>> {
        let mut last_look = false;
        loop {
            if let Poll::Ready(output) = work(cx) {
                return Poll::Ready(Some(output));
            }
            ready!(self.poll(cx));
            if last_look {
                return Poll::Ready(None);
            }
            last_look = true;
        }
    }
}

pin_project! {
    /// A timer without an allocation: for a future that is pinned anyway and armed on most calls. Who has it keeps its
    /// deadline.
    #[derive(Debug)]
    pub(crate) struct InlineTimer {
        #[pin]
        sleep: Option<Sleep>,
        turns: Turns,
    }
}

impl InlineTimer {
    pub(crate) fn new(turns: Turns) -> Self {
        Self { sleep: None, turns }
    }

    /// As [`Timer::poll`]. The deadline may be another one each time.
    #[inline]
    pub(crate) fn poll(
        mut self: Pin<&mut Self>,
        deadline: Deadline,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let Some(at) = deadline.at else {
            return Poll::Pending;
        };
        ready!(self.as_mut().poll_instant(at, cx));
        self.project().turns.poll_over(at, cx)
    }

    #[inline(never)]
    fn poll_instant(self: Pin<&mut Self>, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if Instant::now() >= at {
            return Poll::Ready(());
        }
        let mut sleep = self.project().sleep;
        let armed = sleep.as_ref().as_pin_ref().map(|sleep| sleep.deadline());
        if armed != Some(at) {
            sleep.set(Some(tokio::time::sleep_until(at)));
        }
        sleep.as_pin_mut().expect("set above").poll(cx)
    }
}

/// Tells what is not finished from what has had its turn.
///
/// Tokio lets a task make so much progress in one turn; then all that it asks is pending until the next, finished or not. So
/// what is pending at its deadline is late only if the turn has something left. If not, the decision is put off to the
/// next: a fan-out of many branches may need several, until each has been asked. Outside Tokio's budget one look would do;
/// but what always has something more to do would then never give the thread back. As it is, that is late after one more
/// turn if its deadline is clearly over by then, and after 64 in any case.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    lets_others_run: bool,
    put_off: u8,
}

impl Turns {
    /// One for each branch of the widest fan-out.
    const MOST: u8 = 64;

    /// How long a deadline may be over for work to be finished at the same instant.
    const TIE: Duration = Duration::from_millis(10);

    /// For what runs in a task of its own, and not while it is polled: a task that was woken at the deadline as well has its
    /// turn before that decides.
    pub(crate) fn letting_others_run() -> Self {
        Self {
            lets_others_run: true,
            put_off: 0,
        }
    }

    /// Ready if what is pending though its deadline has come is late. Pending, it wakes its task for the next turn.
    #[cold]
    pub(crate) fn poll_over(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if std::mem::take(&mut self.lets_others_run) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let may_wait = match self.put_off {
            0 => true,
            Self::MOST.. => false,
            _ => at.elapsed() < Self::TIE,
        };
        if may_wait && pin!(consume_budget()).poll(cx).is_pending() {
            self.put_off += 1;
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}
