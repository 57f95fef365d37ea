//! Fan-outs over hands and sleepers.

use std::future::Future;
use std::pin::Pin;

use tokio::time::sleep;
use tower::{Service, service_fn};
use watershed::error::BoxError;
use watershed::fanout::{BranchFuture, FanOut, FanOutError};
use watershed::outcome::{Branch, Gather};

use crate::support::{Hand, MS};

/// A fan-out with one branch per hand.
pub(crate) fn fan_out<T>(hands: &[Hand<T>]) -> FanOut<Hand<T>, ()> {
    let branch = |(index, hand): (usize, &Hand<T>)| Branch::new(format!("b{index}"), hand.clone());
    FanOut::new(hands.iter().enumerate().map(branch))
}

pub(crate) fn try_gather<S, Req>(
    fan_out: &FanOut<S, Req>,
    request: Req,
) -> Result<Gather<BranchFuture<S, Req>>, FanOutError>
where
    S: Service<Req> + Clone,
    Req: Clone + 'static,
{
    fan_out.clone().call(request).into_inner()
}

pub(crate) fn gather<S, Req>(fan_out: &FanOut<S, Req>, request: Req) -> Gather<BranchFuture<S, Req>>
where
    S: Service<Req> + Clone,
    Req: Clone + 'static,
{
    try_gather(fan_out, request).expect("a place in flight")
}

pub(crate) fn polls<T>(hands: &[Hand<T>]) -> Vec<usize> {
    hands.iter().map(Hand::polls).collect()
}

pub(crate) type Slow = Pin<Box<dyn Future<Output = Result<u32, BoxError>> + Send>>;

/// A service that answers `n` after `n` milliseconds.
pub(crate) fn sleeper(
    n: u32,
) -> impl Service<(), Response = u32, Error = BoxError, Future = Slow> + Clone {
    service_fn(move |()| -> Slow {
        Box::pin(async move {
            sleep(MS * n).await;
            Ok(n)
        })
    })
}

pub(crate) const SIZES: [usize; 8] = [1, 2, 3, 8, 9, 32, 63, 64];
