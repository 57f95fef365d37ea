//! A request of ten fields and its response through the layer, beside what one would write by hand.
//!
//! `cargo bench --bench proxy_headers`

use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::hint::black_box;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use divan::{AllocProfiler, Bencher};
use http::header::{CONNECTION, HOST, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, Request, Response};
use http_body_util::Empty;
use tower::{Layer, Service, service_fn};
use watershed::proxy_headers::{ForwardedStyle, Peer, ProxyHeadersLayer, TrustedHops};

#[global_allocator]
static ALLOC: AllocProfiler = AllocProfiler::system();

fn main() {
    divan::main();
}

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const PROXY_AUTHORIZATION: HeaderName = HeaderName::from_static("proxy-authorization");
const PROXY_AUTHENTICATE: HeaderName = HeaderName::from_static("proxy-authenticate");
const X_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const X_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

type Body = Empty<Bytes>;

/// What a browser sends through a load balancer.
fn request() -> Request<Body> {
    let request = Request::get("/orders/7?page=2")
        .header("host", "shop.example")
        .header("connection", "keep-alive")
        .header("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:128.0)")
        .header("accept", "application/json")
        .header("accept-language", "de,en-US;q=0.7,en;q=0.3")
        .header("accept-encoding", "gzip, deflate, br")
        .header("cookie", "session=0123456789abcdef")
        .header("referer", "https://shop.example/")
        .header("x-forwarded-for", "203.0.113.9")
        .header("x-forwarded-proto", "https");
    let mut request = request.body(Body::new()).expect("a request");
    let peer = SocketAddr::from(([10, 0, 0, 2], 49152));
    request.extensions_mut().insert(Peer::new(peer));
    request
}

fn response() -> Response<Body> {
    let response = Response::builder()
        .header("content-type", "application/json")
        .header("cache-control", "no-store")
        .header("etag", "\"7\"")
        .header("connection", "keep-alive");
    response.body(Body::new()).expect("a response")
}

fn strip(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        .collect();
    for name in nominated {
        headers.remove(name);
    }
    for name in [
        CONNECTION,
        KEEP_ALIVE,
        PROXY_CONNECTION,
        PROXY_AUTHORIZATION,
        PROXY_AUTHENTICATE,
        TE,
        TRANSFER_ENCODING,
        UPGRADE,
    ] {
        headers.remove(name);
    }
}

/// No check of Host, method or upgrade; the peer is added to whatever is there.
fn by_hand(request: &mut Request<Body>) {
    strip(request.headers_mut());
    let peer = request.extensions().get::<Peer>().expect("a peer").addr();
    let host = request.headers().get(HOST).cloned();
    let headers = request.headers_mut();
    let before = headers.get(X_FOR).and_then(|value| value.to_str().ok());
    let value = match before {
        Some(before) => format!("{before}, {}", peer.ip()),
        None => peer.ip().to_string(),
    };
    headers.insert(X_FOR, HeaderValue::try_from(value).expect("an address"));
    if let Some(host) = host {
        headers.insert(X_HOST, host);
    }
    headers
        .entry(X_PROTO)
        .or_insert(HeaderValue::from_static("http"));
}

#[expect(clippy::needless_pass_by_value, reason = "a service takes its request")]
fn answer<B>(request: Request<B>) -> Ready<Result<Response<Body>, Infallible>> {
    black_box(request.headers());
    ready(Ok(response()))
}

fn run<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => unreachable!("the service is ready"),
    }
}

fn through(bencher: Bencher<'_, '_>, layer: &ProxyHeadersLayer) {
    let mut service = layer.layer(service_fn(answer));
    bencher
        .with_inputs(request)
        .bench_local_values(|request| run(service.call(request)));
}

/// The service alone.
#[divan::bench]
fn nothing(bencher: Bencher<'_, '_>) {
    bencher
        .with_inputs(request)
        .bench_local_values(|request| run(answer(request)));
}

#[divan::bench(name = "by hand")]
fn hand(bencher: Bencher<'_, '_>) {
    bencher
        .with_inputs(request)
        .bench_local_values(|mut request| {
            by_hand(&mut request);
            let mut response = run(answer(request));
            if let Ok(response) = &mut response {
                strip(response.headers_mut());
            }
            response
        });
}

#[divan::bench(name = "the layer, believing nobody")]
fn believing_nobody(bencher: Bencher<'_, '_>) {
    through(bencher, &ProxyHeadersLayer::new());
}

#[divan::bench(name = "the layer, believing the load balancer")]
fn believing_one(bencher: Bencher<'_, '_>) {
    let trusted = TrustedHops::last(1);
    through(bencher, &ProxyHeadersLayer::new().trusted_hops(trusted));
}

#[divan::bench(name = "the layer, in both styles")]
fn in_both_styles(bencher: Bencher<'_, '_>) {
    let layer = ProxyHeadersLayer::new().trusted_hops(TrustedHops::last(1));
    through(bencher, &layer.forwarded(ForwardedStyle::Both));
}
