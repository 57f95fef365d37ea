//! What the calls of one service share: its branches' names, the count of calls in flight, and spare wake sets.

use std::sync::Arc;

use super::BranchId;
use super::wake::{WakePool, WakeSet};
use crate::sync::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) id: BranchId,
    pub(crate) required: bool,
}

#[derive(Debug)]
pub(crate) struct Roster {
    members: Box<[Member]>,
    wakers: WakePool,
    in_flight: AtomicUsize,
}

impl Roster {
    pub(crate) fn new(members: impl IntoIterator<Item = Member>) -> Self {
        let members: Box<[Member]> = members.into_iter().collect();
        Self {
            wakers: WakePool::new(members.len()),
            in_flight: AtomicUsize::new(0),
            members,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.members.len()
    }

    pub(crate) fn members(&self) -> &[Member] {
        &self.members
    }

    /// A place for one more call, unless `max` are in flight.
    pub(crate) fn enter(self: &Arc<Self>, max: usize) -> Option<Place> {
        self.in_flight
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |calls| {
                (calls < max).then_some(calls + 1)
            })
            .ok()?;
        Some(Place {
            wakers: Some(self.wakers.take()),
            roster: Arc::clone(self),
        })
    }
}

/// One call's place in flight, with the wake set that it uses. Dropping it gives both back.
#[derive(Debug)]
pub(crate) struct Place {
    wakers: Option<WakeSet>,
    roster: Arc<Roster>,
}

impl Place {
    pub(crate) fn roster(&self) -> &Roster {
        &self.roster
    }

    pub(crate) fn wakers(&self) -> &WakeSet {
        self.wakers.as_ref().expect("held until it is dropped")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(wakers) = self.wakers.take() {
            self.roster.wakers.give_back(wakers);
        }
        self.roster.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
