//! A body of 1 MiB read by three, beside three clones of its bytes.
//!
//! `cargo bench --bench tee`

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use divan::counter::BytesCount;
use divan::{AllocProfiler, Bencher};
use futures_util::future::join3;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use watershed::clone_request::TeeBody;

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const TOTAL: usize = 1 << 20;
/// Bytes of a frame: a few network packets, a full read, the whole at once.
const FRAMES: [usize; 3] = [16 * 1024, 64 * 1024, TOTAL];

/// Frames that are there already.
struct Source(VecDeque<Bytes>);

impl Source {
    fn new(whole: &Bytes, frame: usize) -> Self {
        let starts = (0..TOTAL).step_by(frame);
        Self(
            starts
                .map(|start| whole.slice(start..start + frame))
                .collect(),
        )
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.pop_front().map(|frame| Ok(Frame::data(frame))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_empty()
    }
}

fn run<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
            return output;
        }
    }
}

async fn read<B: Body<Data = Bytes> + Unpin>(mut body: B) {
    while let Some(Ok(frame)) = body.frame().await {
        let _ = black_box(frame);
    }
}

fn three(bencher: Bencher<'_, '_>, frame: usize, tee: impl Fn(Source) -> TeeBody) {
    let whole = Bytes::from(vec![7; TOTAL]);
    bencher
        .counter(BytesCount::new(3 * TOTAL))
        .with_inputs(|| Source::new(&whole, frame))
        .bench_local_values(|source| {
            let first = tee(source);
            run(join3(read(first.clone()), read(first.clone()), read(first)))
        });
}

#[divan::bench(args = FRAMES)]
fn a_keep_all(bencher: Bencher<'_, '_>, frame: usize) {
    three(bencher, frame, |source| TeeBody::new(source, TOTAL as u64));
}

#[divan::bench(args = FRAMES)]
fn b_window_64_kib(bencher: Bencher<'_, '_>, frame: usize) {
    three(bencher, frame, |source| {
        TeeBody::stream(source, 64 * 1024, Duration::MAX)
    });
}

/// The least that three readers cost if the body has been collected before, for nothing.
#[divan::bench(args = FRAMES)]
fn c_clones_of_the_bytes(bencher: Bencher<'_, '_>, frame: usize) {
    let whole = Bytes::from(vec![7; TOTAL]);
    bencher
        .counter(BytesCount::new(3 * TOTAL))
        .with_inputs(|| Source::new(&whole, frame))
        .bench_local_values(|source| {
            let clones = || Source(source.0.clone());
            run(join3(read(clones()), read(clones()), read(clones())))
        });
}
