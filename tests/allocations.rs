//! What a fan-out, a reader of a body, a timeout, and the claims of a stranger allocate. A binary of its own: the counter sees
//! every thread.

use std::alloc::System;
use std::convert::Infallible;
use std::future::{Future, Ready, poll_fn, ready};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::{Layer, Service, ServiceExt, service_fn};
use watershed::clone_request::TeeBody;
use watershed::deadline::Deadline;
use watershed::fanout::FanOut;
use watershed::outcome::Branch;
use watershed::proxy_headers::{Peer, ProxyHeadersLayer, TrustedHops};
use watershed::rewrite::{PathParams, UriTemplate};
use watershed::timeout::{ResponseHeaders, TimeoutLayer};

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

/// The least that `measured` allocates in several goes: the counter sees every thread, and the harness has its own.
fn allocations(measured: impl Fn()) -> usize {
    let goes = (0..9).map(|_| {
        let region = Region::new(ALLOCATOR);
        measured();
        region.change().allocations
    });
    goes.min().expect("some")
}

/// One test, so that no other runs beside it.
#[test]
fn calls_and_readers_allocate_no_more_than_they_must() {
    a_reader_of_a_short_body_allocates_nothing();
    a_steady_stream_of_calls_allocates_one_slab_for_every_eight_branches();
    what_nobody_believes_is_not_read();
    names_that_are_not_there_cost_nothing();
    a_uri_that_gets_too_long_is_not_built();
    a_timeout_allocates_nothing_but_what_an_extension_costs();
    shared_headers_cost_two_allocations_and_the_list_of_what_is_staged();
}

/// An empty body and one of a single frame: a reader more costs nothing, to be made or to read.
fn a_reader_of_a_short_body_allocates_nothing() {
    let by = |text: &'static str, readers: usize| {
        allocations(|| {
            let first = TeeBody::new(Full::new(Bytes::from_static(text.as_bytes())), 1024);
            let clones: [_; 8] =
                std::array::from_fn(|at| (at + 1 < readers).then(|| first.clone()));
            for mut body in clones.into_iter().flatten().chain([first]) {
                run(async {
                    while let Some(frame) = body.frame().await {
                        assert_eq!(frame.expect("whole").into_data().expect("data"), text);
                    }
                });
            }
        })
    };
    assert_eq!(by("", 8), 0);
    assert_eq!(by("one frame", 8), by("one frame", 1));
}

fn a_steady_stream_of_calls_allocates_one_slab_for_every_eight_branches() {
    for (branches, slabs) in [(1, 1), (3, 1), (8, 1), (9, 2), (32, 4), (64, 8)] {
        let names = (0..branches).map(|index| Branch::new(index.to_string(), Echo));
        let fan_out = FanOut::new(names);
        // The first call makes the set of wakers that the later ones use again; beyond one slab, a vector holds the others.
        let vector = usize::from(slabs > 1);
        let by_call = allocations(|| assert_eq!(gather_all(&mut fan_out.clone()), branches));
        assert_eq!(by_call, slabs + vector, "{branches} branches");
    }
}

/// What it costs to pass on a request with this field.
fn by_field(layer: &ProxyHeadersLayer, name: &'static str, value: &str) -> usize {
    let mut request = Request::new(());
    let headers = request.headers_mut();
    headers.insert("host", HeaderValue::from_static("h"));
    headers.insert(name, HeaderValue::from_str(value).expect("a value"));
    let peer = "192.0.2.7:1".parse().expect("an address");
    request.extensions_mut().insert(Peer::new(peer));
    let inner = service_fn(|_| ready(Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))));
    let service = layer.layer(inner);
    allocations(|| {
        let request = request.clone().map(|()| Empty::<Bytes>::new());
        let response = run(service.clone().call(request));
        assert_eq!(response.expect("infallible").status(), 200);
    })
}

/// However much a stranger says of the way here, it costs no more than to drop it.
fn what_nobody_believes_is_not_read() {
    let many = vec!["for=10.0.0.1"; 10_000].join(", ");
    let networks = TrustedHops::networks(["10.0.0.0/8"]);
    for trusted in [TrustedHops::none(), networks] {
        for trusted in [trusted.clone(), trusted.in_forwarded()] {
            let layer = ProxyHeadersLayer::new().trusted_hops(trusted);
            for name in ["x-forwarded-for", "forwarded"] {
                assert_eq!(
                    by_field(&layer, name, &many),
                    by_field(&layer, name, "for=10.0.0.1")
                );
            }
        }
    }
}

/// A `Connection` line may name as many fields as it likes that the request does not have.
fn names_that_are_not_there_cost_nothing() {
    let layer = ProxyHeadersLayer::new();
    let many = vec!["x-not-there"; 10_000].join(",");
    assert_eq!(
        by_field(&layer, "connection", &many),
        by_field(&layer, "connection", "close")
    );
}

/// The limit is looked at before its worth of memory is spent many times over.
fn a_uri_that_gets_too_long_is_not_built() {
    let template = UriTemplate::new(&"/{value}".repeat(64));
    let params = PathParams::from_iter([("value", "%".repeat(60_000))]);
    let region = Region::new(ALLOCATOR);
    assert!(template.expand(&params).is_err());
    let spent = region.change().bytes_allocated;
    assert!(spent < 16 * 65_536, "{spent} bytes");
}

/// Answers at once, or when it has been polled twice; and stages so many fields, if it can.
#[derive(Clone)]
struct Handler {
    pending: bool,
    fields: usize,
}

const NAMES: [HeaderName; 16] = {
    use http::header::*;
    [
        ACCEPT,
        AGE,
        ALLOW,
        AUTHORIZATION,
        COOKIE,
        DATE,
        DNT,
        ETAG,
        EXPECT,
        FROM,
        HOST,
        IF_MATCH,
        LINK,
        ORIGIN,
        PRAGMA,
        VARY,
    ]
};

/// Puts the fields on the response itself, or stages them.
struct Handling {
    pending: bool,
    headers: HeaderMap,
}

impl Service<Request<()>> for Handler {
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Handling;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Handling {
        let shared: Option<&ResponseHeaders> = request.extensions().get();
        let mut headers = HeaderMap::new();
        for name in &NAMES[..self.fields] {
            let value = HeaderValue::from_static("1");
            match shared {
                Some(shared) => shared.insert(name.clone(), value).expect("open"),
                None => drop(headers.insert(name, value)),
            }
        }
        Handling {
            pending: self.pending,
            headers,
        }
    }
}

impl Future for Handling {
    type Output = Result<Response<Full<Bytes>>, Infallible>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if std::mem::take(&mut self.pending) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let mut response = Response::new(Full::default());
        *response.headers_mut() = std::mem::take(&mut self.headers);
        Poll::Ready(Ok(response))
    }
}

/// What a call allocates whose request has so many extensions already, as those of a server have.
fn by_call<S>(service: &S, fields: usize) -> usize
where
    S: Service<Request<()>, Error = Infallible> + Clone,
    S::Response: AsHeaders,
{
    allocations(|| {
        let mut request = Request::new(());
        request.extensions_mut().insert(7_u32);
        let response = run(service.clone().oneshot(request));
        let Ok(response) = response;
        assert_eq!(response.headers().len(), fields);
    })
}

trait AsHeaders {
    fn headers(&self) -> &HeaderMap;
}

impl<B> AsHeaders for Response<B> {
    fn headers(&self) -> &HeaderMap {
        self.headers()
    }
}

/// Whether it is ready at once or has to arm its timer: there is the one extension that tells the inner service of the
/// deadline.
fn a_timeout_allocates_nothing_but_what_an_extension_costs() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter();
    for pending in [false, true] {
        let bare = Handler { pending, fields: 0 };
        let announces = tower::util::MapRequestLayer::new(|mut request: Request<()>| {
            request.extensions_mut().insert(Deadline::NEVER);
            request
        });
        let limited = TimeoutLayer::new(Duration::from_secs(60)).layer(bare.clone());
        assert_eq!(
            by_call(&limited, 0),
            by_call(&announces.layer(bare.clone()), 0)
        );
        // A limit that never comes is not announced.
        let unlimited = TimeoutLayer::new(Duration::MAX).layer(bare.clone());
        assert_eq!(by_call(&unlimited, 0), by_call(&bare, 0));
    }
}

/// The core and the extension; and the list of what is staged, which takes less than a map of http's own would, behind a
/// lock and in an extension, too.
fn shared_headers_cost_two_allocations_and_the_list_of_what_is_staged() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build();
    let runtime = runtime.expect("a runtime");
    let _entered = runtime.enter();
    for fields in [0, 1, 4, 8, 16] {
        let layer = TimeoutLayer::new(Duration::from_secs(60));
        let handler = Handler {
            pending: true,
            fields,
        };
        let owned = by_call(&layer.layer(handler.clone()), fields);
        let shared = by_call(&layer.share_headers().layer(handler), fields);
        let list = usize::from(fields > 0);
        assert_eq!(shared - owned, 2 + list, "{fields} fields");
        let map = allocations(|| {
            let mut map = HeaderMap::new();
            for name in &NAMES[..fields] {
                map.insert(name, HeaderValue::from_static("1"));
            }
        });
        assert!(list <= map, "{fields} fields: {list}, {map}");
    }
}
