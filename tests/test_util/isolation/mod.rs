//! An audit that misses no crossing and invents none.

mod caught;
mod clean;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use futures_util::{FutureExt, StreamExt};
use http::{Request, Response};
use tower::{Layer, Service, ServiceExt};
use watershed::body::BoxBody;
use watershed::clone_request::TeeBody;
use watershed::error::{BoxError, cause_ref};
use watershed::fanout::FanOut;
use watershed::outcome::Branch;
use watershed::test_util::{Crossed, Crossing, Isolation, ScriptedBody};

fn stamped_by<S>(isolation: &Isolation, branch: &'static str, inner: S) -> Stamping<S> {
    isolation.stamp(branch).layer(inner)
}

type Stamping<S> = watershed::test_util::Stamped<S>;

/// The stamp and the check of one branch, with nothing in between.
fn audited<S: Clone>(
    isolation: &Isolation,
    branch: &'static str,
    client: S,
) -> Stamping<Checked<S>> {
    stamped_by(isolation, branch, isolation.check(branch).layer(client))
}

type Checked<S> = watershed::test_util::Check<S>;

#[track_caller]
fn crossing<T: std::fmt::Debug>(result: Result<T, BoxError>) -> Crossing {
    let error = result.expect_err("a crossing");
    let crossed = cause_ref::<Crossed>(error.as_ref()).expect("a crossing");
    crossed.crossing.clone()
}

/// What Lura 2.6.1 did, in small: each branch writes its path into the one request that they share, other branches get
/// their turn, and then it sends what the request says by then.
#[derive(Clone)]
struct SharesRequest<S> {
    shared: Arc<Mutex<Option<Request<TeeBody>>>>,
    path: &'static str,
    inner: S,
}

impl<S> SharesRequest<S> {
    fn layer(
        shared: &Arc<Mutex<Option<Request<TeeBody>>>>,
        path: &'static str,
    ) -> impl Layer<S, Service = Self> + use<S> {
        let shared = shared.clone();
        tower::layer::layer_fn(move |inner| Self {
            shared: shared.clone(),
            path,
            inner,
        })
    }
}

impl<S> Service<Request<TeeBody>> for SharesRequest<S>
where
    S: Service<Request<TeeBody>> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<TeeBody>) -> Self::Future {
        let Self {
            shared,
            path,
            inner,
        } = self.clone();
        async move {
            *request.uri_mut() = path.parse().expect("a path");
            *shared.lock().unwrap() = Some(request);
            tokio::task::yield_now().await;
            let request = shared.lock().unwrap().clone().expect("set before");
            inner.oneshot(request).await
        }
        .boxed()
    }
}

async fn gather(
    branches: impl IntoIterator<Item = (&'static str, impl BranchService)>,
) -> Vec<(String, Result<Response<BoxBody>, BoxError>)> {
    let branches = branches.into_iter();
    let fan_out = FanOut::new(branches.map(|(name, service)| Branch::http(name, service)));
    let gather = fan_out
        .oneshot(Request::new(TeeBody::empty()))
        .await
        .unwrap();
    gather
        .map(|outcome| {
            let result = outcome.result.map_err(BoxError::from);
            (outcome.branch.name().to_owned(), result)
        })
        .collect()
        .await
}

trait BranchService:
    Service<
        Request<TeeBody>,
        Response = Response<ScriptedBody>,
        Error = BoxError,
        Future: Send + 'static,
    > + Clone
    + Send
    + Sync
    + 'static
{
}

impl<S> BranchService for S where
    S: Service<
            Request<TeeBody>,
            Response = Response<ScriptedBody>,
            Error = BoxError,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
{
}
