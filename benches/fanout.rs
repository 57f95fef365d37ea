//! A fan-out of in-memory branches beside what one would write by hand: the same clones of the same service, gathered with
//! `join_all` and with `FuturesUnordered`.
//!
//! `cargo bench --bench fanout`

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use divan::{AllocProfiler, Bencher};
use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use tower::util::{BoxCloneSyncService, Oneshot};
use tower::{Service, ServiceExt};
use watershed::fanout::FanOut;
use watershed::outcome::Branch;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const BRANCHES: [usize; 3] = [3, 8, 32];

/// A backend that answers after it has been polled `pending` times, waking itself each time.
#[derive(Clone)]
struct Backend {
    pending: u32,
}

impl Service<u64> for Backend {
    type Response = u64;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u64) -> Answer {
        Answer {
            left: self.pending,
            request,
        }
    }
}

struct Answer {
    left: u32,
    request: u64,
}

impl Future for Answer {
    type Output = Result<u64, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if self.left > 0 {
            self.left -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Poll::Ready(Ok(black_box(self.request + 1)))
    }
}

/// Polls to the end on this thread: no runtime between the measured code and the clock.
fn run<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

fn branches(n: usize, pending: u32) -> Vec<Backend> {
    vec![Backend { pending }; n]
}

fn oneshots<S: Service<u64> + Clone>(services: &[S]) -> impl Iterator<Item = Oneshot<S, u64>> {
    services
        .iter()
        .map(|service| service.clone().oneshot(black_box(1)))
}

async fn watershed<S>(mut fan_out: FanOut<S, u64>) -> u64
where
    S: Service<u64, Response = u64, Error: std::fmt::Debug> + Clone,
{
    let mut sum = 0;
    let mut gather = fan_out.call(black_box(1)).await.expect("not overloaded");
    while let Some(outcome) = gather.next().await {
        sum += outcome.result.expect("infallible");
    }
    sum
}

async fn by_join_all<S>(services: &[S]) -> u64
where
    S: Service<u64, Response = u64, Error: std::fmt::Debug> + Clone,
{
    let answers = join_all(oneshots(services)).await;
    answers
        .into_iter()
        .map(|answer| answer.expect("infallible"))
        .sum()
}

async fn by_unordered<S>(services: &[S]) -> u64
where
    S: Service<u64, Response = u64, Error: std::fmt::Debug> + Clone,
{
    let mut sum = 0;
    let mut answers: FuturesUnordered<_> = oneshots(services).collect();
    while let Some(answer) = answers.next().await {
        sum += answer.expect("infallible");
    }
    sum
}

fn fan_out(n: usize, pending: u32) -> FanOut<Backend, u64> {
    let services = branches(n, pending).into_iter().enumerate();
    FanOut::new(services.map(|(index, service)| Branch::new(index.to_string(), service)))
}

/// Every branch answers at its first poll.
mod ready {
    use super::*;

    #[divan::bench(args = BRANCHES)]
    fn a_watershed(bencher: Bencher<'_, '_>, n: usize) {
        let fan_out = fan_out(n, 0);
        bencher.bench_local(|| run(watershed(fan_out.clone())));
    }

    #[divan::bench(args = BRANCHES)]
    fn b_join_all(bencher: Bencher<'_, '_>, n: usize) {
        let services = branches(n, 0);
        bencher.bench_local(|| run(by_join_all(&services)));
    }

    #[divan::bench(args = BRANCHES)]
    fn c_futures_unordered(bencher: Bencher<'_, '_>, n: usize) {
        let services = branches(n, 0);
        bencher.bench_local(|| run(by_unordered(&services)));
    }
}

/// Every branch is pending twice, as one that waits for a connection and for an answer.
mod pending_twice {
    use super::*;

    #[divan::bench(args = BRANCHES)]
    fn a_watershed(bencher: Bencher<'_, '_>, n: usize) {
        let fan_out = fan_out(n, 2);
        bencher.bench_local(|| run(watershed(fan_out.clone())));
    }

    #[divan::bench(args = BRANCHES)]
    fn b_join_all(bencher: Bencher<'_, '_>, n: usize) {
        let services = branches(n, 2);
        bencher.bench_local(|| run(by_join_all(&services)));
    }

    #[divan::bench(args = BRANCHES)]
    fn c_futures_unordered(bencher: Bencher<'_, '_>, n: usize) {
        let services = branches(n, 2);
        bencher.bench_local(|| run(by_unordered(&services)));
    }
}

/// Every branch is erased, as branches with different stacks have to be. The box of the service and that of its future are
/// on both sides.
mod erased_pending_twice {
    use super::*;

    type Erased = BoxCloneSyncService<u64, u64, Infallible>;

    fn erased(n: usize) -> Vec<Erased> {
        branches(n, 2)
            .into_iter()
            .map(BoxCloneSyncService::new)
            .collect()
    }

    #[divan::bench(args = BRANCHES)]
    fn a_watershed(bencher: Bencher<'_, '_>, n: usize) {
        let services = erased(n).into_iter().enumerate();
        let fan_out =
            FanOut::new(services.map(|(index, service)| Branch::new(index.to_string(), service)));
        bencher.bench_local(|| run(watershed(fan_out.clone())));
    }

    #[divan::bench(args = BRANCHES)]
    fn b_join_all(bencher: Bencher<'_, '_>, n: usize) {
        let services = erased(n);
        bencher.bench_local(|| run(by_join_all(&services)));
    }

    #[divan::bench(args = BRANCHES)]
    fn c_futures_unordered(bencher: Bencher<'_, '_>, n: usize) {
        let services = erased(n);
        bencher.bench_local(|| run(by_unordered(&services)));
    }
}

/// One branch of many is woken: what the idle ones cost.
mod one_of_many_wakes {
    use super::*;

    const WAKES: u32 = 100;

    /// Pending for ever, without a wake-up.
    fn idle() -> impl Future<Output = Result<u64, Infallible>> {
        poll_fn(|_| Poll::Pending)
    }

    fn active() -> Answer {
        Answer {
            left: WAKES,
            request: 1,
        }
    }

    type Boxed = Pin<Box<dyn Future<Output = Result<u64, Infallible>> + Send>>;

    fn service(index: usize) -> BoxCloneSyncService<u64, u64, Infallible> {
        BoxCloneSyncService::new(tower::service_fn(move |_| -> Boxed {
            match index {
                0 => Box::pin(active()),
                _ => Box::pin(idle()),
            }
        }))
    }

    #[divan::bench(args = BRANCHES)]
    fn a_watershed(bencher: Bencher<'_, '_>, n: usize) {
        let branches = (0..n).map(|index| Branch::new(index.to_string(), service(index)));
        let fan_out = FanOut::new(branches);
        bencher.bench_local(|| {
            let mut fan_out = fan_out.clone();
            run(async {
                let mut gather = fan_out.call(1).await.expect("not overloaded");
                gather.next().await.map(|outcome| outcome.result)
            })
        });
    }

    #[divan::bench(args = BRANCHES)]
    fn c_futures_unordered(bencher: Bencher<'_, '_>, n: usize) {
        let services: Vec<_> = (0..n).map(service).collect();
        bencher.bench_local(|| {
            run(async {
                let mut answers: FuturesUnordered<_> = oneshots(&services).collect();
                answers.next().await
            })
        });
    }
}
