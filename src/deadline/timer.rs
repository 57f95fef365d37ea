//! Timers that are armed when they are first polled, and decide by the clock and not by their own wake-up (DESIGN rule 6).

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep};

use super::Deadline;

/// A timer that can be moved, and is small until it is armed.
#[derive(Debug)]
pub(crate) struct Timer {
    deadline: Deadline,
    /// Boxed: most calls never arm it.
    sleep: Option<Pin<Box<Sleep>>>,
}

impl Timer {
    pub(crate) fn new(deadline: Deadline) -> Self {
        Self {
            deadline,
            sleep: None,
        }
    }

    pub(crate) fn deadline(&self) -> Deadline {
        self.deadline
    }

    /// Ready once the deadline has passed. Poll what it guards first: at a tie, finished work wins.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.deadline.at else {
            return Poll::Pending;
        };
        if Instant::now() >= at {
            return Poll::Ready(());
        }
        self.sleep
            .get_or_insert_with(|| Box::pin(tokio::time::sleep_until(at)))
            .as_mut()
            .poll(cx)
    }
}

pin_project! {
    /// A timer without an allocation: for a future that is pinned anyway and armed on most calls. Who has it keeps its
    /// deadline.
    #[derive(Debug)]
    pub(crate) struct InlineTimer {
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl InlineTimer {
    pub(crate) fn new() -> Self {
        Self { sleep: None }
    }

    /// As [`Timer::poll`]. The deadline may be another one each time.
    pub(crate) fn poll(self: Pin<&mut Self>, deadline: Deadline, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = deadline.at else {
            return Poll::Pending;
        };
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
