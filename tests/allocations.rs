//! What a fan-out, and a reader of a body, allocate. A binary of its own: the counter sees every thread.

use std::alloc::System;
use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::Service;
use watershed::clone_request::TeeBody;
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

/// The counter sees every thread: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// An empty body and one of a single frame: a reader more costs nothing.
#[test]
fn a_reader_of_a_short_body_allocates_nothing() {
    let _alone = ALONE.lock();
    let read = |text: &'static str, readers: usize| {
        let first = TeeBody::new(Full::new(Bytes::from_static(text.as_bytes())), 1024);
        let mut bodies = Vec::with_capacity(readers);
        let region = Region::new(ALLOCATOR);
        bodies.extend((1..readers).map(|_| first.clone()));
        assert_eq!(region.change().allocations, 0, "clones of {text:?}");
        bodies.push(first);
        for mut body in bodies {
            run(async {
                while let Some(frame) = body.frame().await {
                    assert_eq!(frame.expect("whole").into_data().expect("data"), text);
                }
            });
        }
        region.change().allocations
    };
    assert_eq!(read("", 8), 0);
    assert_eq!(read("one frame", 8), read("one frame", 1));
}

#[test]
fn a_steady_stream_of_calls_allocates_one_slab_for_every_eight_branches() {
    let _alone = ALONE.lock();
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
