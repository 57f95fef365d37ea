//! Whom to wake, and why the source failed.

use std::sync::Arc;
use std::task::{Wake, Waker};

use super::Failure;
use crate::error::contain;
use crate::sync::{Mutex, lock};

/// The readers that wait, and the failure once there is one. The source holds this as its waker: it must not own the
/// source, or the two would keep each other alive.
#[derive(Debug)]
pub(crate) struct Signal {
    inner: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    readers: Vec<(u64, Waker)>,
    /// Counts wake-ups, to see one that came while the source was being polled.
    wakes: u64,
    failure: Option<Failure>,
}

impl Signal {
    /// Wakers are cloned and dropped outside the lock: both run code that is not ours.
    pub(super) fn register(&self, reader: u64, waker: &Waker) {
        let known = |readers: &[(u64, Waker)]| readers.iter().position(|(id, _)| *id == reader);
        {
            let waiting = lock(&self.inner);
            let registered = known(&waiting.readers).map(|place| &waiting.readers[place].1);
            if registered.is_some_and(|registered| registered.will_wake(waker)) {
                return;
            }
        }
        let waker = waker.clone();
        let mut waiting = lock(&self.inner);
        let replaced = match known(&waiting.readers) {
            Some(place) => Some(std::mem::replace(&mut waiting.readers[place].1, waker)),
            None => {
                waiting.readers.push((reader, waker));
                None
            }
        };
        drop(waiting);
        drop(replaced);
    }

    pub(super) fn forget(&self, reader: u64) {
        let mut waiting = lock(&self.inner);
        let place = waiting.readers.iter().position(|(id, _)| *id == reader);
        let forgotten = place.map(|place| waiting.readers.swap_remove(place));
        drop(waiting);
        drop(forgotten);
    }

    pub(super) fn wakes(&self) -> u64 {
        lock(&self.inner).wakes
    }

    /// Wakes every reader that waits, but for `except`, who knows already.
    pub(super) fn wake_readers(&self, except: Option<u64>) {
        let readers = {
            let mut waiting = lock(&self.inner);
            waiting.wakes += 1;
            std::mem::take(&mut waiting.readers)
        };
        for (reader, waker) in readers {
            if Some(reader) != except {
                // One that panics must not keep the others from being woken.
                contain(|| waker.wake());
            }
        }
    }

    pub(super) fn new() -> Self {
        Self {
            inner: Mutex::new(Waiting {
                readers: Vec::new(),
                wakes: 0,
                failure: None,
            }),
        }
    }

    pub(super) fn fail(&self, failure: Failure) {
        lock(&self.inner).failure = Some(failure);
    }

    /// Why the source failed, if it has: whoever read it, and whether or not they said so.
    pub(crate) fn failure(&self) -> Option<Failure> {
        lock(&self.inner).failure.clone()
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_readers(None);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_readers(None);
    }
}
