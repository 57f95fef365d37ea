//! The service, and the layer over one inner service.

use std::any::Any;
use std::fmt;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tower::{Layer, Service};

use super::BranchFuture;
use crate::clone_request::TeeBody;
use crate::error::BuildError;
use crate::outcome::roster::{Member, Roster};
use crate::outcome::wake::MAX_SLOTS;
use crate::outcome::{Branch, BranchError, Gather};

/// Why a call was refused. A merge answers 503 to the first and 502 to the second.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FanOutError {
    /// [`max_in_flight`](FanOut::max_in_flight) calls are being gathered already.
    #[error("{limit} calls are in flight already")]
    Overloaded {
        /// The limit.
        limit: usize,
    },
    /// The request's body is [streamed](TeeBody::stream), and not all of its readers could run at once: those that wait for
    /// their turn would hold the window.
    #[error("a streamed body needs its {branches} branches to run at once, not {width}")]
    TooNarrow {
        /// The [width](FanOut::width).
        width: usize,
        /// The branches.
        branches: usize,
    },
}

/// A service that runs every branch on its own copy of the request; its response is the [`Gather`] of their outcomes.
///
/// See the [module docs](super) for an example. A clone is one `Arc`.
///
/// # Readiness
///
/// It is always ready. The branches' services are templates that are never polled: each call clones them and drives the
/// clone's readiness in the branch's own future, so a saturated backend can't block its siblings or hold capacity idle.
/// What bounds the load instead is [`max_in_flight`](Self::max_in_flight).
///
/// # Errors
///
/// [`FanOutError`] if too many calls are in flight, or a streamed body meets a width below the number of branches. Nothing
/// else: a failed branch is an outcome.
///
/// # Cancellation
///
/// Nothing runs until the gather is polled. Dropping the gather drops all of its branches.
pub struct FanOut<S, Req> {
    inner: Arc<Inner<S, Req>>,
}

struct Inner<S, Req> {
    branches: Arc<[Branch<S, Req>]>,
    roster: Arc<Roster>,
    ready_within: Duration,
    width: usize,
    max_in_flight: usize,
}

impl<S, Req> FanOut<S, Req> {
    /// A fan-out over `branches`, in their declared order.
    ///
    /// # Panics
    ///
    /// Where [`try_new`](Self::try_new) returns an error.
    #[track_caller]
    pub fn new(branches: impl IntoIterator<Item = Branch<S, Req>>) -> Self {
        BuildError::expect(Self::try_new(branches))
    }

    /// A fan-out over `branches`, in their declared order.
    ///
    /// # Errors
    ///
    /// If there is no branch, there are more than 64, a name is empty, or a name is used twice.
    pub fn try_new(branches: impl IntoIterator<Item = Branch<S, Req>>) -> Result<Self, BuildError> {
        let branches: Arc<[Branch<S, Req>]> = branches.into_iter().collect();
        if branches.is_empty() {
            return Err(BuildError::new("a fan-out needs a branch"));
        }
        if branches.len() > MAX_SLOTS {
            return Err(BuildError::new(format!(
                "a fan-out has at most {MAX_SLOTS} branches, not {}",
                branches.len()
            )));
        }
        for (index, branch) in branches.iter().enumerate() {
            if branch.name().is_empty() {
                return Err(BuildError::new("a branch needs a name"));
            }
            if branches[..index]
                .iter()
                .any(|other| other.name() == branch.name())
            {
                return Err(BuildError::new(format!(
                    "two branches are called {:?}",
                    branch.name()
                )));
            }
        }
        let roster = Roster::new(branches.iter().enumerate().map(|(index, branch)| Member {
            id: branch.id(index),
            required: branch.is_required(),
        }));
        Ok(Self {
            inner: Arc::new(Inner {
                branches,
                roster: Arc::new(roster),
                ready_within: Duration::from_secs(5),
                width: MAX_SLOTS,
                max_in_flight: 1024,
            }),
        })
    }

    /// How long a branch's service may take to become ready. Default: 5 s. After it the branch has failed with
    /// [`BranchError::NotReady`]; `Duration::MAX` waits as long as the gather does, and zero not at all: the service is ready
    /// when the branch starts, or the branch has failed.
    #[must_use]
    pub fn ready_within(mut self, limit: Duration) -> Self {
        Arc::make_mut(&mut self.inner).ready_within = limit;
        self
    }

    /// How many branches of one call may run at once. Default: 64, which is all of them. The others start in declared
    /// order as these finish.
    ///
    /// # Panics
    ///
    /// If `width` is zero.
    #[must_use]
    #[track_caller]
    pub fn width(self, width: usize) -> Self {
        BuildError::expect(self.try_width(width))
    }

    /// As [`width`](Self::width), for one that is configured.
    ///
    /// # Errors
    ///
    /// If `width` is zero.
    pub fn try_width(mut self, width: usize) -> Result<Self, BuildError> {
        if width == 0 {
            return Err(BuildError::new("a width of zero would run no branch"));
        }
        Arc::make_mut(&mut self.inner).width = width;
        Ok(self)
    }

    /// How many calls may be gathered at once, over all clones of this service. Default: 1024. A call beyond it is
    /// refused with [`FanOutError::Overloaded`], not queued. A call counts until its gather is dropped.
    ///
    /// # Panics
    ///
    /// If `calls` is zero.
    #[must_use]
    #[track_caller]
    pub fn max_in_flight(self, calls: usize) -> Self {
        BuildError::expect(self.try_max_in_flight(calls))
    }

    /// As [`max_in_flight`](Self::max_in_flight), for a limit that is configured.
    ///
    /// # Errors
    ///
    /// If `calls` is zero.
    pub fn try_max_in_flight(mut self, calls: usize) -> Result<Self, BuildError> {
        if calls == 0 {
            return Err(BuildError::new("a limit of zero would refuse every call"));
        }
        Arc::make_mut(&mut self.inner).max_in_flight = calls;
        Ok(self)
    }

    /// The branches, in declared order.
    #[must_use]
    pub fn branches(&self) -> &[Branch<S, Req>] {
        &self.inner.branches
    }
}

impl<S, Req> Clone for FanOut<S, Req> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<S, Req> Clone for Inner<S, Req> {
    fn clone(&self) -> Self {
        Self {
            branches: Arc::clone(&self.branches),
            roster: Arc::clone(&self.roster),
            ready_within: self.ready_within,
            width: self.width,
            max_in_flight: self.max_in_flight,
        }
    }
}

impl<S, Req> fmt::Debug for FanOut<S, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOut")
            .field("branches", &self.inner.branches)
            .field("ready_within", &self.inner.ready_within)
            .field("width", &self.inner.width)
            .field("max_in_flight", &self.inner.max_in_flight)
            .finish()
    }
}

impl<S, Req> Service<Req> for FanOut<S, Req>
where
    S: Service<Req> + Clone,
    Req: Clone + 'static,
{
    type Response = Gather<BranchFuture<S, Req>>;
    type Error = FanOutError;
    type Future = Ready<Result<Self::Response, FanOutError>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), FanOutError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Req) -> Self::Future {
        let inner = &*self.inner;
        let (width, branches) = (inner.width, inner.branches.len());
        if width < branches && is_streamed(&request) {
            return ready(Err(FanOutError::TooNarrow { width, branches }));
        }
        let Some(place) = inner.roster.enter(inner.max_in_flight) else {
            let limit = inner.max_in_flight;
            return ready(Err(FanOutError::Overloaded { limit }));
        };
        // A condition and two `clone`s of the user's run here.
        ready(Ok(Gather::new(place, width, |index| {
            let branch = &inner.branches[index];
            if !branch.wants(&request) {
                return Err(BranchError::Skipped);
            }
            let (service, request) = (branch.get_ref().clone(), request.clone());
            Ok(BranchFuture::new(service, request, inner.ready_within))
        })))
    }
}

/// The one thing of HTTP that matters here: whether the copies of this request depend on each other's going on.
fn is_streamed(request: &dyn Any) -> bool {
    let request = request.downcast_ref::<http::Request<TeeBody>>();
    request.is_some_and(|request| request.body().is_streamed())
}

/// A layer that fans out over clones of one inner service: what it holds as a branch's "service" is that branch's layer.
///
/// For backends that are one service, such as a pooled client, and differ only in the path.
///
/// ```
/// use tower::ServiceBuilder;
/// use tower::layer::layer_fn;
/// use watershed::fanout::FanOutLayer;
/// use watershed::outcome::Branch;
/// # use tower::{ServiceExt, service_fn, util::MapRequest};
/// # use futures_util::StreamExt;
///
/// # tokio_test::block_on(async {
/// fn path(prefix: &'static str) -> impl Fn(String) -> String + Clone {
///     move |id| format!("{prefix}/{id}")
/// }
/// let service = ServiceBuilder::new()
///     .layer(FanOutLayer::new([
///         Branch::new("user", tower::util::MapRequestLayer::new(path("/users"))),
///         Branch::new("cart", tower::util::MapRequestLayer::new(path("/carts"))),
///     ]))
///     .service(service_fn(|path: String| async move { Ok::<_, ()>(path) }));
///
/// let outcomes: Vec<_> = service.oneshot("7".to_owned()).await.unwrap().collect().await;
/// assert_eq!(outcomes[0].result, Ok("/users/7".to_owned()));
/// assert_eq!(outcomes[1].result, Ok("/carts/7".to_owned()));
/// # });
/// ```
pub struct FanOutLayer<L, Req> {
    template: FanOut<L, Req>,
}

impl<L, Req> FanOutLayer<L, Req> {
    /// A layer with these branches, each around its own layer.
    ///
    /// # Panics
    ///
    /// Where [`try_new`](Self::try_new) returns an error.
    #[track_caller]
    pub fn new(branches: impl IntoIterator<Item = Branch<L, Req>>) -> Self {
        BuildError::expect(Self::try_new(branches))
    }

    /// A layer with these branches, each around its own layer.
    ///
    /// # Errors
    ///
    /// As [`FanOut::try_new`].
    pub fn try_new(branches: impl IntoIterator<Item = Branch<L, Req>>) -> Result<Self, BuildError> {
        Ok(Self {
            template: FanOut::try_new(branches)?,
        })
    }

    /// As [`FanOut::ready_within`].
    #[must_use]
    pub fn ready_within(self, limit: Duration) -> Self {
        Self {
            template: self.template.ready_within(limit),
        }
    }

    /// As [`FanOut::width`].
    ///
    /// # Panics
    ///
    /// If `width` is zero.
    #[must_use]
    #[track_caller]
    pub fn width(self, width: usize) -> Self {
        BuildError::expect(self.try_width(width))
    }

    /// As [`FanOut::try_width`].
    ///
    /// # Errors
    ///
    /// If `width` is zero.
    pub fn try_width(self, width: usize) -> Result<Self, BuildError> {
        Ok(Self {
            template: self.template.try_width(width)?,
        })
    }

    /// As [`FanOut::max_in_flight`], for each service that the layer makes.
    ///
    /// # Panics
    ///
    /// If `calls` is zero.
    #[must_use]
    #[track_caller]
    pub fn max_in_flight(self, calls: usize) -> Self {
        BuildError::expect(self.try_max_in_flight(calls))
    }

    /// As [`FanOut::try_max_in_flight`].
    ///
    /// # Errors
    ///
    /// If `calls` is zero.
    pub fn try_max_in_flight(self, calls: usize) -> Result<Self, BuildError> {
        Ok(Self {
            template: self.template.try_max_in_flight(calls)?,
        })
    }
}

impl<L, Req> Clone for FanOutLayer<L, Req> {
    fn clone(&self) -> Self {
        Self {
            template: self.template.clone(),
        }
    }
}

impl<L, Req> fmt::Debug for FanOutLayer<L, Req> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FanOutLayer")
            .field("template", &self.template)
            .finish()
    }
}

impl<S, L, Req> Layer<S> for FanOutLayer<L, Req>
where
    S: Clone,
    L: Layer<S> + Clone,
{
    type Service = FanOut<L::Service, Req>;

    fn layer(&self, inner: S) -> Self::Service {
        let template = &self.template.inner;
        let branches = template.branches.iter().map(|branch| {
            branch
                .clone()
                .map_service(|layer| layer.layer(inner.clone()))
        });
        FanOut::new(branches)
            .ready_within(template.ready_within)
            .width(template.width)
            .max_in_flight(template.max_in_flight)
    }
}
