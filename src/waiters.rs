//! The wakers of whoever waits for one event, for the runtime-free cores.

use std::task::Waker;

use crate::error::contain;

/// Any number of wakers. It lives under its core's lock, where no code of a user may run; and a waker's clone, drop and
/// wake-up are such. So what is displaced here is handed back, to be dropped outside.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: Vec<(u64, Waker)>,
    next: u64,
}

impl Waiters {
    /// Keeps `waker` for the waiter of this key, which gets one the first time. Returns the waker that it had.
    #[must_use = "to be dropped outside the lock"]
    pub(crate) fn register(&mut self, key: &mut Option<u64>, waker: Waker) -> Option<Waker> {
        let known = self.waiting.iter_mut().find(|(of, _)| Some(*of) == *key);
        if let Some((_, registered)) = known {
            return Some(std::mem::replace(registered, waker));
        }
        let key = *key.get_or_insert_with(|| {
            self.next += 1;
            self.next
        });
        self.waiting.push((key, waker));
        None
    }

    /// The waiter goes: its waker is handed back.
    #[must_use = "to be dropped outside the lock"]
    pub(crate) fn forget(&mut self, key: u64) -> Option<Waker> {
        let place = self.waiting.iter().position(|(of, _)| *of == key)?;
        Some(self.waiting.swap_remove(place).1)
    }

    /// All of them, to be [woken](Self::wake) outside the lock.
    #[must_use = "to be woken outside the lock"]
    pub(crate) fn take(&mut self) -> Self {
        let waiting = std::mem::take(&mut self.waiting);
        Self { waiting, next: 0 }
    }

    /// Wakes each. One that panics must not keep the others from being woken.
    pub(crate) fn wake(self) {
        for (_, waker) in self.waiting {
            contain(|| waker.wake());
        }
    }
}
