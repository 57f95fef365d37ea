//! Branches, their outcomes, and the stream that gathers them.
//!
//! A [`Branch`] is a named service. A call of a [`FanOut`](crate::fanout::FanOut) runs every branch on its own copy of the
//! request and returns a [`Gather`]: a stream of one [`Outcome`] per branch. A failed branch is an outcome like any other,
//! never an error that unwinds its siblings. Waiting for all, taking the first success, or stopping at a deadline are ways
//! of consuming that stream.
//!
//! ```
//! use futures_util::StreamExt;
//! use tower::{ServiceExt, service_fn};
//! use watershed::fanout::FanOut;
//! use watershed::outcome::{Branch, BranchError};
//!
//! # tokio_test::block_on(async {
//! let double = service_fn(|n: u32| async move { n.checked_mul(2).ok_or("too large") });
//! let fan_out = FanOut::new([
//!     Branch::new("double", double),
//!     Branch::new("only-even", double).when(|n: &u32| n % 2 == 0),
//! ]);
//!
//! let mut gather = fan_out.oneshot(21).await.unwrap();
//! while let Some(outcome) = gather.next().await {
//!     match outcome.branch.name() {
//!         "double" => assert_eq!(outcome.result.unwrap(), 42),
//!         _ => assert!(matches!(outcome.result, Err(BranchError::Skipped))),
//!     }
//! }
//! # });
//! ```

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::error::BoxError;

mod gather;
pub(crate) mod roster;
mod slab;
pub(crate) mod wake;

pub use gather::Gather;

/// Which branch: its name, and its place in the declared order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct BranchId {
    index: usize,
    name: Arc<str>,
}

impl BranchId {
    /// For tests of what handles outcomes. A fan-out numbers its branches itself.
    pub fn new(index: usize, name: impl Into<Arc<str>>) -> Self {
        Self {
            index,
            name: name.into(),
        }
    }

    /// The place in the declared order, from zero.
    #[must_use]
    pub fn index(&self) -> usize {
        self.index
    }

    /// The name that the branch was declared with.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl fmt::Display for BranchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Whether a request wants the branch.
type Condition<Req> = Arc<dyn Fn(&Req) -> bool + Send + Sync>;

/// A named service, and what a merge should know of it.
///
/// Everything else about a branch (its path, its timeout, its retries) is an ordinary Tower layer on its service.
pub struct Branch<S, Req> {
    name: Arc<str>,
    service: S,
    required: bool,
    condition: Option<Condition<Req>>,
}

impl<S, Req> Branch<S, Req> {
    /// A branch called `name`. Names are unique within a fan-out; a merge uses them as keys.
    pub fn new(name: impl Into<Arc<str>>, service: S) -> Self {
        Self {
            name: name.into(),
            service,
            required: false,
            condition: None,
        }
    }

    /// Without this branch there is no answer: a merge answers with its failure instead.
    #[must_use]
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// Runs the branch only for the requests that `condition` accepts. For the others its outcome is
    /// [`BranchError::Skipped`], which is not a failure.
    ///
    /// A panic in `condition` is the failure of this branch alone.
    #[must_use]
    pub fn when(mut self, condition: impl Fn(&Req) -> bool + Send + Sync + 'static) -> Self {
        self.condition = Some(Arc::new(condition));
        self
    }

    /// The branch's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether it is [required](Self::required).
    pub fn is_required(&self) -> bool {
        self.required
    }

    /// The branch's service.
    pub fn get_ref(&self) -> &S {
        &self.service
    }

    /// The same branch around another service.
    #[must_use]
    pub fn map_service<T>(self, map: impl FnOnce(S) -> T) -> Branch<T, Req> {
        Branch {
            name: self.name,
            service: map(self.service),
            required: self.required,
            condition: self.condition,
        }
    }

    pub(crate) fn id(&self, index: usize) -> BranchId {
        BranchId::new(index, Arc::clone(&self.name))
    }

    pub(crate) fn wants(&self, request: &Req) -> bool {
        self.condition
            .as_ref()
            .is_none_or(|condition| condition(request))
    }
}

impl<S: Clone, Req> Clone for Branch<S, Req> {
    fn clone(&self) -> Self {
        Self {
            name: Arc::clone(&self.name),
            service: self.service.clone(),
            required: self.required,
            condition: self.condition.clone(),
        }
    }
}

impl<S, Req> fmt::Debug for Branch<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Branch")
            .field("name", &self.name)
            .field("service", &format_args!("{}", std::any::type_name::<S>()))
            .field("required", &self.required)
            .field("conditional", &self.condition.is_some())
            .finish()
    }
}

/// How a branch ended.
#[derive(Debug)]
#[non_exhaustive]
pub struct Outcome<T, E> {
    /// Which branch.
    pub branch: BranchId,
    /// Whether it is [required](Branch::required).
    pub required: bool,
    /// From its first poll until it finished, its readiness included.
    pub elapsed: Duration,
    /// Its response, or why there is none.
    pub result: Result<T, BranchError<E>>,
}

impl<T, E> Outcome<T, E> {
    /// The outcome of a branch that is not required and took no time: for tests of what handles outcomes.
    pub fn new(branch: BranchId, result: Result<T, BranchError<E>>) -> Self {
        Self {
            branch,
            required: false,
            elapsed: Duration::ZERO,
            result,
        }
    }
}

/// Why a branch has no response.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum BranchError<E> {
    /// Its condition said no: nothing was asked of it, and nothing is missing.
    Skipped,
    /// Its service was not ready within this time.
    NotReady {
        /// The limit that it missed.
        within: Duration,
    },
    /// The gather ended before it had finished. It has been dropped.
    DeadlineExceeded,
    /// It panicked, with this message.
    Panicked(Cow<'static, str>),
    /// Its service failed, in `poll_ready` or in the call.
    Service(E),
}

impl<E> BranchError<E> {
    /// The same error around another service error.
    pub fn map<U>(self, map: impl FnOnce(E) -> U) -> BranchError<U> {
        match self {
            Self::Skipped => BranchError::Skipped,
            Self::NotReady { within } => BranchError::NotReady { within },
            Self::DeadlineExceeded => BranchError::DeadlineExceeded,
            Self::Panicked(message) => BranchError::Panicked(message),
            Self::Service(error) => BranchError::Service(map(error)),
        }
    }
}

impl<E: fmt::Display> fmt::Display for BranchError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Skipped => f.write_str("skipped by its condition"),
            Self::NotReady { within } => write!(f, "not ready within {within:?}"),
            Self::DeadlineExceeded => f.write_str("not finished at the deadline"),
            Self::Panicked(message) => write!(f, "panicked: {message}"),
            Self::Service(error) => error.fmt(f),
        }
    }
}

impl Error for BranchError<BoxError> {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        match self {
            // It is transparent in `Display`, so the error itself is the cause, and `cause_ref` finds it.
            Self::Service(error) => Some(error.as_ref()),
            _ => None,
        }
    }
}
