//! Who has been woken: one bit per branch, and the task that gathers them.
//!
//! This is what the tasks behind a [`Gather`](super::Gather) share. It has no runtime in it, and `tests/model.rs` checks it
//! under every interleaving that the model checker can find.

use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::sync::{AtomicU64, Mutex, Ordering, lock};

/// The most branches that one set has a bit for.
pub(crate) const MAX_SLOTS: usize = 64;

/// The shared core: which slots have been woken since they were last taken, and whom to tell.
#[derive(Debug)]
struct Core {
    woken: AtomicU64,
    parent: Mutex<Option<Waker>>,
}

impl Core {
    fn wake(&self, bit: u64) {
        // A bit that is set already has somebody on the way to the parent, or the parent on its way here.
        if self.woken.fetch_or(bit, Ordering::AcqRel) & bit != 0 {
            return;
        }
        // Cloned, so that the wake-up runs outside the lock.
        let parent = lock(&self.parent).clone();
        if let Some(parent) = parent {
            parent.wake();
        }
    }
}

#[derive(Debug)]
struct SlotWaker {
    core: Arc<Core>,
    bit: u64,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.core.wake(self.bit);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.core.wake(self.bit);
    }
}

/// One waker per slot, over one core.
#[derive(Debug)]
pub(crate) struct WakeSet {
    core: Arc<Core>,
    /// Each waker beside the `Arc` that it was made of, to see whether somebody else holds a clone.
    slots: Vec<(Arc<SlotWaker>, Waker)>,
}

impl WakeSet {
    pub(crate) fn new(slots: usize) -> Self {
        debug_assert!(slots <= MAX_SLOTS);
        let core = Arc::new(Core {
            woken: AtomicU64::new(0),
            parent: Mutex::new(None),
        });
        let slots = (0..slots)
            .map(|slot| {
                let slot = Arc::new(SlotWaker {
                    core: Arc::clone(&core),
                    bit: 1 << slot,
                });
                let waker = Waker::from(Arc::clone(&slot));
                (slot, waker)
            })
            .collect();
        Self { core, slots }
    }

    /// Sets whom to wake. Call it before [`take_woken`](Self::take_woken), so that no wake-up falls between the two.
    ///
    /// The waker is cloned, and an old one dropped, outside the lock: both run code that is not ours.
    pub(crate) fn register(&self, parent: &Waker) {
        let known = |registered: &Option<Waker>| {
            registered
                .as_ref()
                .is_some_and(|known| known.will_wake(parent))
        };
        if known(&lock(&self.core.parent)) {
            return;
        }
        let parent = Some(parent.clone());
        let replaced = std::mem::replace(&mut *lock(&self.core.parent), parent);
        drop(replaced);
    }

    /// The slots that have been woken since the last call.
    pub(crate) fn take_woken(&self) -> u64 {
        self.core.woken.swap(0, Ordering::AcqRel)
    }

    /// The waker that sets the bit of `slot`.
    pub(crate) fn waker(&self, slot: usize) -> &Waker {
        &self.slots[slot].1
    }

    /// Forgets the task. Returns whether the set is as good as new: whether nobody else holds one of its wakers, so that
    /// nothing of the call that used it can reach the call that will.
    pub(crate) fn reset(&mut self) -> bool {
        let parent = lock(&self.core.parent).take();
        drop(parent);
        // Only a holder can make another: a count of two, ours, can't grow behind our back.
        let unshared = self
            .slots
            .iter()
            .all(|(slot, _)| Arc::strong_count(slot) == 2);
        if unshared {
            self.core.woken.store(0, Ordering::Release);
        }
        unshared
    }
}

/// Wake sets that finished calls have left for later ones, so that a call in a steady stream allocates none.
#[derive(Debug)]
pub(crate) struct WakePool {
    slots: usize,
    free: Mutex<Vec<WakeSet>>,
}

impl WakePool {
    /// The most sets that are kept: calls beyond it make their own.
    const KEPT: usize = 64;

    pub(crate) fn new(slots: usize) -> Self {
        Self {
            slots,
            free: Mutex::new(Vec::new()),
        }
    }

    pub(crate) fn take(&self) -> WakeSet {
        let free = lock(&self.free).pop();
        free.unwrap_or_else(|| WakeSet::new(self.slots))
    }

    pub(crate) fn give_back(&self, mut set: WakeSet) {
        if !set.reset() {
            return;
        }
        let mut free = lock(&self.free);
        if free.len() < Self::KEPT {
            free.push(set);
        }
    }
}
