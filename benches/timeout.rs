//! A timeout beside Tower's and tower-http's: around a service that answers at once, after one wait, or never. And beside
//! Tower's with the line by which one tells the service its deadline by hand, as ours does.
//!
//! `cargo bench --bench timeout`. The machine's noise is as large as the differences, so docs/performance.md counts
//! instructions:
//!
//! ```sh
//! cargo bench --bench timeout --no-run
//! valgrind --tool=callgrind --toggle-collect='timeout::measured::*' target/release/deps/timeout-… \
//!     --bench --sample-count 1 --sample-size 1000 ready_at_once::a_watershed
//! ```

use std::convert::Infallible;
use std::future::Future;
use std::hint::black_box;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use divan::Bencher;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::Full;
use tokio::runtime::Runtime;
use tower::util::MapRequest;
use tower::{Layer, Service};
use watershed::deadline::Deadline;
use watershed::timeout::{ResponseHeaders, TimeoutLayer};

fn main() {
    divan::main();
}

const LIMIT: Duration = Duration::from_secs(30);

/// Answers after it has been polled so often, waking itself each time; or never.
#[derive(Clone)]
struct Handler {
    pending: u32,
}

const NEVER: u32 = u32::MAX;

impl Service<Request<()>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Answer {
        if let Some(headers) = request.extensions().get::<ResponseHeaders>() {
            let name = HeaderName::from_static("x-cache");
            headers
                .insert(name, HeaderValue::from_static("miss"))
                .expect("open");
        }
        Answer { left: self.pending }
    }
}

struct Answer {
    left: u32,
}

impl Future for Answer {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match self.left {
            0 => Poll::Ready(Ok(Response::new(Full::default()))),
            NEVER => Poll::Pending,
            _ => {
                self.left -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }
}

/// A request with an extension, as those of a server have.
fn request() -> Request<()> {
    let mut request = Request::new(());
    request.extensions_mut().insert(7_u32);
    request
}

/// What is timed. By name, for a tool that counts instructions.
mod measured {
    use super::*;

    /// Polls to the end on this thread: no scheduler between the measured code and the clock.
    #[inline(never)]
    pub(super) fn call<S: Service<Request<()>>>(
        service: &mut S,
        request: Request<()>,
    ) -> Result<S::Response, S::Error> {
        let mut cx = Context::from_waker(Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        let mut future = pin!(service.call(black_box(request)));
        loop {
            if let Poll::Ready(output) = future.as_mut().poll(&mut cx) {
                return output;
            }
        }
    }

    /// Sleeps until the deadline on a clock that jumps there.
    #[inline(never)]
    pub(super) fn wait<S: Service<Request<()>>>(
        runtime: &Runtime,
        service: &mut S,
        request: Request<()>,
    ) -> Result<S::Response, S::Error> {
        runtime.block_on(async { service.call(black_box(request)).await })
    }
}

fn runtime(paused: bool) -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(paused)
        .build()
        .expect("a runtime")
}

fn watershed() -> TimeoutLayer {
    TimeoutLayer::new(LIMIT)
}

fn tower_http() -> tower_http::timeout::TimeoutLayer {
    tower_http::timeout::TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, LIMIT)
}

fn tower() -> tower::timeout::TimeoutLayer {
    tower::timeout::TimeoutLayer::new(LIMIT)
}

/// Puts the deadline into the request, and Tower's around that.
#[derive(Clone, Copy)]
struct ByHand;

impl<S> Layer<S> for ByHand {
    type Service = tower::timeout::Timeout<MapRequest<S, fn(Request<()>) -> Request<()>>>;

    fn layer(&self, inner: S) -> Self::Service {
        tower().layer(MapRequest::new(inner, announce))
    }
}

fn announce(mut request: Request<()>) -> Request<()> {
    let deadline = Deadline::after(LIMIT).enforced();
    request.extensions_mut().insert(deadline);
    request
}

fn answers<L>(bencher: Bencher<'_, '_>, layer: &L, pending: u32)
where
    L: Layer<Handler>,
    L::Service: Service<Request<()>>,
    <L::Service as Service<Request<()>>>::Error: std::fmt::Debug,
{
    let runtime = runtime(false);
    let _entered = runtime.enter();
    let mut service = layer.layer(Handler { pending });
    bencher
        .with_inputs(request)
        .bench_local_values(|request| measured::call(&mut service, request).expect("in time"));
}

fn times_out<L>(bencher: Bencher<'_, '_>, layer: &L)
where
    L: Layer<Handler>,
    L::Service: Service<Request<()>>,
{
    let runtime = runtime(true);
    let mut service = layer.layer(Handler { pending: NEVER });
    bencher
        .with_inputs(request)
        .bench_local_values(|request| measured::wait(&runtime, &mut service, request).ok());
}

#[divan::bench_group(sample_size = 100)]
mod ready_at_once {
    use super::*;

    #[divan::bench]
    fn a_watershed(bencher: Bencher<'_, '_>) {
        answers(bencher, &watershed(), 0);
    }

    #[divan::bench]
    fn b_watershed_shared(bencher: Bencher<'_, '_>) {
        answers(bencher, &watershed().share_headers(), 0);
    }

    #[divan::bench]
    fn c_tower(bencher: Bencher<'_, '_>) {
        answers(bencher, &tower(), 0);
    }

    #[divan::bench]
    fn d_tower_by_hand(bencher: Bencher<'_, '_>) {
        answers(bencher, &ByHand, 0);
    }

    #[divan::bench]
    fn e_tower_http(bencher: Bencher<'_, '_>) {
        answers(bencher, &tower_http(), 0);
    }
}

#[divan::bench_group(sample_size = 100)]
mod pending_once {
    use super::*;

    #[divan::bench]
    fn a_watershed(bencher: Bencher<'_, '_>) {
        answers(bencher, &watershed(), 1);
    }

    #[divan::bench]
    fn b_watershed_shared(bencher: Bencher<'_, '_>) {
        answers(bencher, &watershed().share_headers(), 1);
    }

    #[divan::bench]
    fn c_tower(bencher: Bencher<'_, '_>) {
        answers(bencher, &tower(), 1);
    }

    #[divan::bench]
    fn d_tower_by_hand(bencher: Bencher<'_, '_>) {
        answers(bencher, &ByHand, 1);
    }

    #[divan::bench]
    fn e_tower_http(bencher: Bencher<'_, '_>) {
        answers(bencher, &tower_http(), 1);
    }
}

#[divan::bench_group(sample_size = 100)]
mod timed_out {
    use super::*;

    #[divan::bench]
    fn a_watershed(bencher: Bencher<'_, '_>) {
        times_out(bencher, &watershed());
    }

    #[divan::bench]
    fn b_watershed_shared(bencher: Bencher<'_, '_>) {
        times_out(bencher, &watershed().share_headers());
    }

    #[divan::bench]
    fn c_tower(bencher: Bencher<'_, '_>) {
        times_out(bencher, &tower());
    }

    #[divan::bench]
    fn d_tower_by_hand(bencher: Bencher<'_, '_>) {
        times_out(bencher, &ByHand);
    }

    #[divan::bench]
    fn e_tower_http(bencher: Bencher<'_, '_>) {
        times_out(bencher, &tower_http());
    }
}
