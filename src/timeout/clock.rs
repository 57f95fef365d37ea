//! One call's time.

use std::time::Duration;

use tokio::time::Instant;

use crate::deadline::{Deadline, Phase, TimedOut};

/// When a call began, and until when it may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    started: Instant,
    /// What this layer has armed: [`Deadline::NEVER`] if a layer outside sees to it.
    armed: Deadline,
    /// The layer's own deadline, whoever enforces another.
    own: Deadline,
}

impl Clock {
    #[inline]
    pub(super) fn start(limit: Duration, inherited: Option<Deadline>) -> Self {
        let started = Instant::now();
        let own = Deadline::after_at(limit, started);
        Self {
            started,
            armed: Deadline::to_arm(own, inherited).unwrap_or(Deadline::NEVER),
            own,
        }
    }

    pub(super) fn armed(&self) -> Deadline {
        self.armed
    }

    /// The deadline that this layer has armed, unless it never comes.
    pub(super) fn enforces(&self) -> Option<Deadline> {
        self.armed.instant().map(|_| self.armed)
    }

    /// The clock of the body, once the head is here. Whoever enforces the deadline outside may have been waiting for just
    /// that: if this layer has left it to them so far, its own limit holds for the body.
    #[inline]
    pub(super) fn for_body(self) -> Self {
        match self.enforces() {
            Some(_) => self,
            None => Self {
                armed: self.own,
                ..self
            },
        }
    }

    /// The clock of a body that is held to no deadline.
    #[inline]
    pub(super) fn stopped(self) -> Self {
        Self {
            armed: Deadline::NEVER,
            own: Deadline::NEVER,
            ..self
        }
    }

    pub(super) fn timed_out(&self, phase: Phase) -> TimedOut {
        let elapsed = self.started.elapsed();
        let limit = self.armed.instant().map_or(elapsed, |at| {
            at.saturating_duration_since(self.started.into_std())
        });
        TimedOut::new(phase, elapsed, limit)
    }
}
