//! An absolute deadline that travels with a request.
//!
//! A timeout per hop adds up: three layers of two seconds are six. A [`Deadline`] is one instant for all of them, carried
//! in the request's extensions. It is *announced* as long as nobody has armed a timer for it, and *enforced* below the
//! layer that has: so two layers never answer the same deadline.
//!
//! ```
//! use std::time::Duration;
//! use watershed::deadline::Deadline;
//!
//! let mut request = http::Request::new(());
//! request.extensions_mut().insert(Deadline::after(Duration::from_secs(2)));
//!
//! // A layer with a budget of its own takes the earlier of the two, and marks it for the layers inside.
//! let inherited: Deadline = *request.extensions().get().unwrap();
//! let effective = inherited.earlier(Deadline::after(Duration::from_secs(5))).enforced();
//! assert!(effective.remaining() <= Duration::from_secs(2));
//! assert!(effective.is_enforced());
//! ```
//!
//! # Over the wire
//!
//! [`DeadlineLayer`] reads what a caller says, [`EmitDeadlineLayer`] tells a backend what is left of it: as
//! `grpc-timeout`, or in milliseconds in a field of your choice. Neither enforces anything: that is for a
//! [`TimeoutLayer`](crate::timeout::TimeoutLayer) or a merge.

mod announce;
mod emit;
mod form;
mod timer;

use std::fmt;
use std::time::Duration;

use http::Extensions;
use tokio::time::Instant;

pub use announce::{DeadlineLayer, DeadlineService};
pub use emit::{EmitDeadline, EmitDeadlineLayer};
pub(crate) use timer::{InlineTimer, Timer, Turns};

/// The instant by which a request has to be answered, as an extension of the request.
///
/// Time is monotonic; the wall clock has no part in it. `Deadline::after(Duration::MAX)` never comes and arms no timer.
///
/// Two are equal if they are the same instant and agree on whether it is enforced: an announced `d` is not equal to
/// `d.enforced()`. To compare the instants alone, compare [`instant`](Self::instant).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Deadline {
    /// `None` never comes.
    at: Option<Instant>,
    enforced: bool,
}

impl Deadline {
    /// The deadline that never comes.
    pub const NEVER: Self = Self {
        at: None,
        enforced: false,
    };

    /// `duration` from now, announced. A duration that the clock can't represent never comes.
    #[must_use]
    pub fn after(duration: Duration) -> Self {
        Self::after_at(duration, Instant::now())
    }

    /// At `instant`, announced.
    #[must_use]
    pub fn at(instant: std::time::Instant) -> Self {
        Self {
            at: Some(Instant::from_std(instant)),
            enforced: false,
        }
    }

    /// The instant, unless it never comes.
    #[must_use]
    pub fn instant(&self) -> Option<std::time::Instant> {
        self.at.map(Instant::into_std)
    }

    /// What is left until then: zero once it has passed, [`Duration::MAX`] if it never comes.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        match self.at {
            Some(at) => at.saturating_duration_since(Instant::now()),
            None => Duration::MAX,
        }
    }

    /// Whether it has come: `now >= deadline`.
    #[must_use]
    #[inline]
    pub fn has_passed(&self) -> bool {
        self.has_passed_at(Instant::now())
    }

    /// `duration` from `now`, announced.
    #[inline]
    pub(crate) fn after_at(duration: Duration, now: Instant) -> Self {
        Self {
            at: now.checked_add(duration),
            enforced: false,
        }
    }

    pub(crate) fn has_passed_at(&self, now: Instant) -> bool {
        self.at.is_some_and(|at| now >= at)
    }

    /// Whether it has come and gone: `now > deadline`. At the very instant, finished work still counts.
    pub(crate) fn is_overdue(&self) -> bool {
        self.at.is_some_and(|at| Instant::now() > at)
    }

    /// The earlier of the two; `self` when they are equal.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        if self.comes_no_later_than(other) {
            self
        } else {
            other
        }
    }

    fn comes_no_later_than(self, other: Self) -> bool {
        match (self.at, other.at) {
            (Some(at), Some(other)) => at <= other,
            (None, Some(_)) => false,
            (_, None) => true,
        }
    }

    /// The same instant, with a timer armed for it by the layer that says so.
    #[must_use]
    pub fn enforced(self) -> Self {
        Self {
            enforced: true,
            ..self
        }
    }

    /// The same instant, without the mark: for work that is handed to somebody whom the timer outside does not reach, such
    /// as a task of a [`Background`](crate::background::Background).
    #[must_use]
    pub fn announced(self) -> Self {
        Self {
            enforced: false,
            ..self
        }
    }

    /// Whether a layer outside has armed a timer for this instant.
    #[must_use]
    pub fn is_enforced(&self) -> bool {
        self.enforced
    }

    /// Leaves it in a request, in the place of one that is there.
    #[inline]
    pub(crate) fn put_in(self, extensions: &mut Extensions) {
        *extensions.get_or_insert(self) = self;
    }

    /// What a layer with a limit of its own arms, given what it inherited: the earlier of the two, or nothing if a layer
    /// outside already enforces that instant or an earlier one (DESIGN rule 6).
    #[inline]
    pub(crate) fn to_arm(own: Self, inherited: Option<Self>) -> Option<Self> {
        match inherited {
            Some(inherited) if inherited.comes_no_later_than(own) => {
                (!inherited.enforced).then_some(inherited)
            }
            _ => Some(own),
        }
    }
}

/// Where a call was when its time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// The service was not ready yet.
    Readiness,
    /// The head of the response had not come.
    Head,
    /// The body had not ended.
    Body,
    /// The next frame of the body had not come: an idle limit.
    Idle,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Readiness => "readiness",
            Self::Head => "the response head",
            Self::Body => "the response body",
            Self::Idle => "the next frame of the response body",
        })
    }
}

/// The error of a call whose time ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timed out after {elapsed:?} of {limit:?}, waiting for {phase}")]
#[non_exhaustive]
pub struct TimedOut {
    /// What the call was waiting for.
    pub phase: Phase,
    /// The time since the call began; in [`Phase::Idle`], since the wait for the frame began.
    pub elapsed: Duration,
    /// The time that the call had; in [`Phase::Idle`], the frame.
    pub limit: Duration,
}

impl TimedOut {
    /// For tests of what handles such an error, and for timeouts of your own.
    #[must_use]
    pub fn new(phase: Phase, elapsed: Duration, limit: Duration) -> Self {
        Self {
            phase,
            elapsed,
            limit,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_deadline_counts_down_and_passes_at_its_instant() {
        let deadline = Deadline::after(Duration::from_millis(10));
        tokio::time::advance(Duration::from_millis(9)).await;
        assert!(!deadline.has_passed());
        assert_eq!(deadline.remaining(), Duration::from_millis(1));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(deadline.has_passed());
        assert_eq!(deadline.remaining(), Duration::ZERO);
    }

    // T11
    #[tokio::test]
    async fn the_longest_duration_never_comes() {
        let deadline = Deadline::after(Duration::MAX);
        assert_eq!(deadline, Deadline::NEVER);
        assert!(!deadline.has_passed());
        assert_eq!(deadline.remaining(), Duration::MAX);
        let soon = Deadline::after(Duration::from_secs(1));
        assert_eq!(deadline.earlier(soon), soon);
        assert_eq!(soon.earlier(deadline), soon);
    }

    #[tokio::test(start_paused = true)]
    async fn a_layer_arms_nothing_that_is_enforced_outside() {
        let soon = Deadline::after(Duration::from_secs(1));
        let late = Deadline::after(Duration::from_secs(2));
        assert_eq!(Deadline::to_arm(late, None), Some(late));
        assert_eq!(Deadline::to_arm(late, Some(soon)), Some(soon));
        assert_eq!(Deadline::to_arm(late, Some(soon.enforced())), None);
        assert_eq!(Deadline::to_arm(soon, Some(soon.enforced())), None);
        assert_eq!(Deadline::to_arm(soon, Some(late.enforced())), Some(soon));
    }
}
