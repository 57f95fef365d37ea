//! Who runs, how many may, and whether anybody may still come.
//!
//! This is what the tasks of a [`Background`](super::Background) share. It has no runtime in it: `A` is what aborts a task.
//! `tests/model.rs` checks it under every interleaving that the model checker can find.

use std::collections::HashMap;
use std::task::{Context, Poll};

use crate::sync::{Mutex, lock};
use crate::waiters::Waiters;

/// Why work was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// As many tasks run as may.
    #[error("the background is full: it runs at most {limit} at once")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// It is shutting down.
    #[error("the background is shutting down")]
    ShutDown,
}

#[derive(Debug)]
pub(crate) struct Registry<A> {
    state: Mutex<State<A>>,
    limit: usize,
}

#[derive(Debug)]
struct State<A> {
    phase: Phase,
    /// Every permit that is out, and once its task has started, what aborts that.
    out: HashMap<u64, Option<A>>,
    next: u64,
    /// Who waits for the last permit to come back.
    waiters: Waiters,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Open,
    /// Nobody comes any more; who is here may finish.
    Closed,
    /// Nobody may go on, either.
    Aborted,
}

impl<A> Registry<A> {
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            state: Mutex::new(State {
                phase: Phase::Open,
                out: HashMap::new(),
                next: 0,
                waiters: Waiters::default(),
            }),
            limit,
        }
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }

    pub(crate) fn running(&self) -> usize {
        lock(&self.state).out.len()
    }

    /// A permit, to be given back with [`leave`](Self::leave).
    pub(crate) fn enter(&self) -> Result<u64, Refused> {
        let mut state = lock(&self.state);
        if state.phase != Phase::Open {
            return Err(Refused::ShutDown);
        }
        if state.out.len() >= self.limit {
            return Err(Refused::Full { limit: self.limit });
        }
        state.next += 1;
        let id = state.next;
        state.out.insert(id, None);
        Ok(id)
    }

    /// The task of this permit has started: `abort` is kept for as long as it runs. It is handed back if all was aborted
    /// meanwhile, to be used at once.
    pub(crate) fn started(&self, id: u64, abort: A) -> Option<A> {
        let mut state = lock(&self.state);
        if state.phase == Phase::Aborted {
            return Some(abort);
        }
        // A task may be through before it is known here.
        if let Some(place) = state.out.get_mut(&id) {
            *place = Some(abort);
        }
        None
    }

    /// The permit comes back.
    ///
    /// ## Closed => drained
    pub(crate) fn leave(&self, id: u64) {
        let mut state = lock(&self.state);
        let left = state.out.remove(&id);
        let waiters = if state.out.is_empty() {
            state.waiters.take()
        } else {
            Waiters::default()
        };
        drop(state);
        drop(left);
        waiters.wake();
    }

    /// ## Open => Closed
    pub(crate) fn close(&self) {
        let mut state = lock(&self.state);
        if state.phase == Phase::Open {
            state.phase = Phase::Closed;
        }
    }

    /// ## (Open | Closed) => Aborted
    ///
    /// What aborts those who run, and how many they are: one that is about to start is counted, too, and
    /// [told](Self::started) when it does.
    pub(crate) fn abort(&self) -> (usize, Vec<A>) {
        let mut state = lock(&self.state);
        state.phase = Phase::Aborted;
        let aborts = state.out.values_mut().filter_map(Option::take).collect();
        (state.out.len(), aborts)
    }

    /// Waits until every permit is back. `key` is the waiter's, `None` at first.
    pub(crate) fn poll_drained(&self, key: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<()> {
        // Cloned before the lock and dropped after it.
        let waker = cx.waker().clone();
        let mut state = lock(&self.state);
        let (polled, displaced) = if state.out.is_empty() {
            (Poll::Ready(()), Some(waker))
        } else {
            (Poll::Pending, state.waiters.register(key, waker))
        };
        drop(state);
        drop(displaced);
        polled
    }

    /// A waiter goes.
    pub(crate) fn forget(&self, key: u64) {
        let forgotten = lock(&self.state).waiters.forget(key);
        drop(forgotten);
    }
}
