//! What a fan-out allocates. A binary of its own: the counter sees every thread.

use std::alloc::System;
use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::Service;
use watershed::fanout::FanOut;
use watershed::outcome::Branch;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Answers at once: what is counted is the fan-out's own.
#[derive(Clone)]
struct Echo;

impl Service<u32> for Echo {
    type Response = u32;
    type Error = Infallible;
    type Future = Ready<Result<u32, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        ready(Ok(request))
    }
}

fn run<F: Future>(future: F) -> F::Output {
    let mut cx = Context::from_waker(Waker::noop());
    let mut future = pin!(future);
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

fn gather_all(fan_out: &mut FanOut<Echo, u32>) -> u32 {
    run(async {
        let mut gather = fan_out.call(1).await.expect("not overloaded");
        let mut sum = 0;
        while let Some(outcome) = next(&mut gather).await {
            sum += outcome;
        }
        sum
    })
}

fn next<S>(gather: &mut S) -> impl Future<Output = Option<u32>>
where
    S: futures_util::Stream<Item = watershed::outcome::Outcome<u32, Infallible>> + Unpin,
{
    poll_fn(|cx| {
        Pin::new(&mut *gather)
            .poll_next(cx)
            .map(|outcome| outcome.map(|outcome| outcome.result.expect("infallible")))
    })
}

#[test]
fn a_steady_stream_of_calls_allocates_one_slab_for_every_eight_branches() {
    for (branches, slabs) in [(1, 1), (3, 1), (8, 1), (9, 2), (32, 4), (64, 8)] {
        let names = (0..branches).map(|index| Branch::new(index.to_string(), Echo));
        let mut fan_out = FanOut::new(names);
        // The first call makes the set of wakers that the later ones use again.
        assert_eq!(gather_all(&mut fan_out), branches);

        let region = Region::new(ALLOCATOR);
        for _ in 0..10 {
            assert_eq!(gather_all(&mut fan_out), branches);
        }
        let change = region.change();
        // Beyond one slab, a vector holds the others.
        let vector = usize::from(slabs > 1);
        assert_eq!(
            change.allocations,
            10 * (slabs + vector),
            "{branches} branches"
        );
        assert_eq!(change.allocations, change.deallocations);
    }
}
