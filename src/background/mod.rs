//! Work that outlives its caller: owned, counted, bounded.
//!
//! A task that nobody owns piles up while its backend hangs, and is cut off at shutdown without a word. What this crate
//! detaches belongs to a [`Background`], a cheap handle that is passed to each block that spawns; nothing is spawned when
//! one is made.
//!
//! ```
//! use std::time::Duration;
//! use watershed::background::Background;
//!
//! # #[tokio::main(flavor = "current_thread", start_paused = true)] async fn main() {
//! let background = Background::new(2);
//! for _ in 0..2 {
//!     background.try_spawn(tokio::time::sleep(Duration::from_secs(1))).unwrap();
//! }
//! background.try_spawn(async {}).unwrap_err();
//! assert_eq!(background.running(), 2);
//!
//! // At the end: nothing new, ten seconds for what runs, and then it is aborted.
//! let unfinished = background.shutdown(Duration::from_secs(10)).await;
//! assert_eq!((unfinished.aborted, background.running()), (0, 0));
//! # }
//! ```

mod core;

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::AbortHandle;

pub use self::core::Refused;
use self::core::Registry;
use crate::error::BuildError;

/// Owns tasks that outlive whoever started them, up to a limit.
///
/// A clone is one `Arc`. When the last one is dropped, running tasks are aborted; a task should therefore not hold one.
///
/// # Panics
///
/// A task that panics has ended; nobody else is harmed.
#[derive(Clone)]
pub struct Background {
    owner: Arc<Owner>,
}

/// What the clones share. The tasks hold the registry only, or they would keep themselves alive.
struct Owner {
    registry: Arc<Registry<AbortHandle>>,
}

impl Background {
    /// Up to `limit` tasks at once.
    ///
    /// # Panics
    ///
    /// If `limit` is zero.
    #[must_use]
    #[track_caller]
    pub fn new(limit: usize) -> Self {
        BuildError::expect(Self::try_new(limit))
    }

    /// Up to `limit` tasks at once.
    ///
    /// # Errors
    ///
    /// If `limit` is zero.
    pub fn try_new(limit: usize) -> Result<Self, BuildError> {
        if limit == 0 {
            return Err(BuildError::new(
                "a background of no tasks would refuse all work",
            ));
        }
        let registry = Arc::new(Registry::new(limit));
        Ok(Self {
            owner: Arc::new(Owner { registry }),
        })
    }

    /// Takes a permit for one task, before there is anything to run.
    ///
    /// # Errors
    ///
    /// If as many are out as may, or it is shutting down. It never waits.
    pub fn try_permit(&self) -> Result<Permit, Refused> {
        let registry = Arc::clone(&self.owner.registry);
        let id = registry.enter()?;
        Ok(Permit { registry, id })
    }

    /// Runs `work` as a task of the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// As [`try_permit`](Self::try_permit); `work` is dropped then.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn try_spawn(
        &self,
        work: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), Refused> {
        self.try_permit().map(|permit| permit.spawn(work))
    }

    /// How many permits are out: tasks that run, or are about to.
    #[must_use]
    pub fn running(&self) -> usize {
        self.owner.registry.running()
    }

    /// How many may be out at once.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.owner.registry.limit()
    }

    /// Takes no more work, waits until what runs has finished, for `limit` at the longest, and aborts the rest.
    ///
    /// An aborted task is dropped where it waits next; one that never waits can't be. With [`Duration::ZERO`] all are
    /// aborted at once; with [`Duration::MAX`] it waits as long as it takes.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime with a timer, if something runs and `limit` is not [`Duration::MAX`].
    ///
    /// # Cancellation
    ///
    /// If the future is dropped, no more work is taken, and nothing is aborted.
    pub async fn shutdown(&self, limit: Duration) -> Unfinished {
        let registry = &self.owner.registry;
        registry.close();
        let mut drained = pin!(
            Drained {
                registry,
                key: None,
            }
            .wait()
        );
        // A timer is made only if there is something to wait for, and not for ever.
        let at_once = poll_fn(|cx| Poll::Ready(drained.as_mut().poll(cx))).await;
        if at_once.is_pending() {
            if limit == Duration::MAX {
                drained.await;
            } else if tokio::time::timeout(limit, drained).await.is_err() {
                // At a tie, finished work wins: a task that was woken at this instant as well has its turn.
                tokio::task::yield_now().await;
            }
        }
        // Nobody can have come since, so there is nothing to abort if all have gone.
        let aborted = match registry.running() {
            0 => 0,
            _ => registry.abort_all(),
        };
        Unfinished { aborted }
    }
}

/// Up to 64 tasks at once.
impl Default for Background {
    fn default() -> Self {
        Self::new(64)
    }
}

impl fmt::Debug for Background {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Background")
            .field("running", &self.running())
            .field("limit", &self.limit())
            .finish()
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.registry.abort_all();
    }
}

impl Registry<AbortHandle> {
    fn abort_all(&self) -> usize {
        let (number, aborts) = self.abort();
        for abort in aborts {
            abort.abort();
        }
        number
    }
}

/// A waiter that leaves no waker behind.
struct Drained<'a> {
    registry: &'a Registry<AbortHandle>,
    key: Option<u64>,
}

impl Drained<'_> {
    async fn wait(mut self) {
        poll_fn(|cx| self.registry.poll_drained(&mut self.key, cx)).await;
    }
}

impl Drop for Drained<'_> {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.registry.forget(key);
        }
    }
}

/// The right to run one task of a [`Background`], which counts from now on. Dropped, it is given back.
#[must_use = "dropped, it is given back"]
pub struct Permit {
    registry: Arc<Registry<AbortHandle>>,
    id: u64,
}

impl Permit {
    /// Runs `work` as a task of the current Tokio runtime. If its background is gone by now, or shut down past its limit,
    /// the task is aborted at once.
    ///
    /// # Panics
    ///
    /// Outside a Tokio runtime.
    pub fn spawn(self, work: impl Future<Output = ()> + Send + 'static) {
        self.spawn_with(|permit| async move {
            // Given back when the task is gone, however it ends.
            let _permit = permit;
            work.await;
        });
    }

    /// As [`spawn`](Self::spawn), and the work owns the permit: it may hand that on, to be counted for longer.
    pub(crate) fn spawn_with<W>(self, work: impl FnOnce(Self) -> W)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        let (registry, id) = (Arc::clone(&self.registry), self.id);
        let task = work(self);
        #[expect(
            clippy::disallowed_methods,
            reason = "the one place where tasks start: bounded and counted (rule 3)"
        )]
        let abort = tokio::spawn(task).abort_handle();
        if let Some(abort) = registry.started(id, abort) {
            abort.abort();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.registry.leave(self.id);
    }
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").finish_non_exhaustive()
    }
}

/// What a [`shutdown`](Background::shutdown) did not wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub struct Unfinished {
    /// How many permits were out still: their tasks were aborted.
    pub aborted: usize,
}
