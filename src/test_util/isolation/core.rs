//! What the layers of one audit share: which calls are in flight, and what was seen.

use std::cell::Cell;
use std::collections::HashMap;
use std::sync::Arc;

use super::crossing::{Crossed, Crossing};
use super::stamp::Stamp;
use crate::sync::{Mutex, MutexGuard, lock};

/// The most crossings that are kept in full.
const KEPT_CROSSINGS: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Ledger {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    pub(super) in_flight: HashMap<u64, Open>,
    pub(super) calls: u64,
    pub(super) checked: u64,
    pub(super) crossings: Vec<Crossing>,
    pub(super) crossed: u64,
}

/// A stamped call that has not ended.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) stamp: Stamp,
    /// The requests that present its stamp right now.
    pub(super) presented: usize,
}

impl Book {
    /// The stamp of the call that runs on this thread, if it is one of this audit's.
    pub(super) fn caller(&self) -> Option<Stamp> {
        let open = self.in_flight.get(&CALLER.get()?)?;
        Some(open.stamp.clone())
    }
}

impl Ledger {
    pub(super) fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    pub(super) fn open(self: &Arc<Self>, stamp: &Stamp) -> OpenCall {
        let open = Open {
            stamp: stamp.clone(),
            presented: 0,
        };
        self.book().in_flight.insert(stamp.serial, open);
        OpenCall {
            ledger: Arc::clone(self),
            serial: stamp.serial,
        }
    }

    pub(super) fn crossed(&self, crossing: Crossing) -> Crossed {
        let mut book = self.book();
        book.crossed += 1;
        if book.crossings.len() < KEPT_CROSSINGS {
            book.crossings.push(crossing.clone());
        }
        Crossed { crossing }
    }
}

/// A call's entry among those in flight. Dropping it removes the entry.
#[derive(Debug)]
pub(super) struct OpenCall {
    pub(super) ledger: Arc<Ledger>,
    serial: u64,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.ledger.book().in_flight.remove(&self.serial);
    }
}

/// While it lives, a request with this stamp is on its way.
#[derive(Debug)]
pub(super) struct Presented {
    pub(super) ledger: Arc<Ledger>,
    pub(super) serial: u64,
}

impl Drop for Presented {
    fn drop(&mut self) {
        if let Some(open) = self.ledger.book().in_flight.get_mut(&self.serial) {
            open.presented -= 1;
        }
    }
}

thread_local! {
    /// The call whose future is being polled on this thread.
    pub(super) static CALLER: Cell<Option<u64>> = const { Cell::new(None) };
}

/// While it lives, what runs on this thread runs for one call.
pub(super) struct Within {
    before: Option<u64>,
}

impl Within {
    pub(super) fn call(serial: u64) -> Self {
        Self {
            before: CALLER.replace(Some(serial)),
        }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        CALLER.set(self.before);
    }
}
