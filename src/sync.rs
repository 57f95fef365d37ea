//! The synchronisation types of every runtime-free core, in one place.
//!
//! A core imports them through here so that the model checker can compile the same file with its own types
//! (`tests/model.rs`).

pub(crate) use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::sync::{Mutex, MutexGuard};

/// Locks `mutex`, poisoned or not: no code of a user runs under our locks, so a poisoned one is still consistent.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}
