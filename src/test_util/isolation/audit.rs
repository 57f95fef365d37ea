//! The handle to an audit, which makes its layers and tells what they saw.

use std::sync::Arc;

use super::check::{CheckLayer, Stamps};
use super::core::Ledger;
use super::crossing::Crossing;
use super::stamping::StampLayer;

/// An audit of isolation: does every branch call send its own request, and nothing of another's?
///
/// See the [module docs](crate::test_util) for an example. A clone is a handle to the same audit.
///
/// Each branch gets two layers. [`stamp`](Self::stamp), the outermost, gives each call a [`Stamp`] that no other call has,
/// as a header field and as an extension. [`check`](Self::check), the innermost, next to the client, demands that the
/// request carries exactly one stamp: the same in the header as in the extension, of this branch, of a call that is in
/// flight now, and presented by that call itself. Everything else is a [`Crossing`]: it is recorded, and the request is
/// not sent but fails with [`Crossed`]. A request that carries a stamp before the stamp layer gives it one is a crossing
/// as well: it is shared with another branch. If a response has the field [`STAMP`], because the backend reflects it, then
/// it must be the call's own, which takes the connections below into the audit.
///
/// Whether a request is presented *by its own call* is known as long as it is sent from within the future of the branch.
/// Behind a buffer or a spawned task it is not; there, a stamp that is presented twice at once counts as crossed.
///
/// # What is legal
///
/// * A retry, which presents its call's stamp again, and a hedge, which does so at once.
/// * A call that never comes to the check: a cache or a limit has answered it.
///
/// # Where to put it
///
/// * Outside the stamp: whatever answers one call with the request of another, such as a single flight.
/// * Inside, for work that outlives its branch, such as a mirror: a stamp and a check of its own.
/// * A [`HeadPolicy`](crate::clone_request::HeadPolicy) between the two must keep both: `.extension::<Stamp>()`, and
///   [`STAMP`] in a list of allowed fields.
/// * An audited proxy behind an audited proxy: let the check of the outer one [strip](CheckLayer::strip) its stamps.
///
/// # Bounds
///
/// Calls are forgotten as they finish. The first 256 crossings are kept, all further ones counted.
///
/// [`Crossed`]: super::Crossed
/// [`STAMP`]: super::STAMP
/// [`Stamp`]: super::Stamp
#[derive(Debug, Clone, Default)]
pub struct Isolation {
    ledger: Arc<Ledger>,
}

impl Isolation {
    /// An audit that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The outermost layer of the branch `branch`.
    #[must_use]
    pub fn stamp(&self, branch: impl Into<Arc<str>>) -> StampLayer {
        StampLayer {
            ledger: Arc::clone(&self.ledger),
            branch: branch.into(),
        }
    }

    /// The innermost layer of the branch `branch`.
    #[must_use]
    pub fn check(&self, branch: impl Into<Arc<str>>) -> CheckLayer {
        CheckLayer {
            ledger: Arc::clone(&self.ledger),
            branch: branch.into(),
            stamps: Stamps::Kept,
        }
    }

    /// The branch calls that came to a stamp layer.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.ledger.book().calls
    }

    /// The requests that came to a check layer.
    #[must_use]
    pub fn checked(&self) -> u64 {
        self.ledger.book().checked
    }

    /// The stamped calls that are neither finished nor dropped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ledger.book().in_flight.len()
    }

    /// The first 256 crossings, in the order in which they were seen.
    #[must_use]
    pub fn crossings(&self) -> Vec<Crossing> {
        self.ledger.book().crossings.clone()
    }

    /// The number of all crossings.
    #[must_use]
    pub fn crossing_count(&self) -> u64 {
        self.ledger.book().crossed
    }

    /// Asserts that there was no crossing. Assert [`checked`](Self::checked) as well: where nothing was seen, nothing was
    /// crossed.
    ///
    /// # Panics
    ///
    /// If there was one, with a list of them.
    #[track_caller]
    pub fn assert_clean(&self) {
        use std::fmt::Write;

        let (crossings, total) = {
            let book = self.ledger.book();
            (book.crossings.clone(), book.crossed)
        };
        if total == 0 {
            return;
        }
        let mut list = String::new();
        for crossing in &crossings {
            let _ = write!(list, "\n  {crossing}");
        }
        let unlisted = total - crossings.len() as u64;
        if unlisted > 0 {
            let _ = write!(list, "\n  and {unlisted} more");
        }
        panic!("{total} crossings of branches:{list}");
    }
}
