//! What `proxy_headers` promises: whatever comes in, what goes on is fit to be passed on.
//!
//! The names in comments are the cases of the project's list of bad input.

mod bodies;
mod forwarded;
mod hops;
mod lengths;
mod methods;
mod oracle;
mod properties;
mod responses;
mod services;
mod targets;
mod upgrades;

#[path = "../support/mod.rs"]
mod support;

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version, request};
use http_body_util::{Empty, Full};
use tower::{Layer, ServiceExt, service_fn};
use watershed::body::ResponseBody;
use watershed::proxy_headers::{Peer, ProxyHeadersBody, ProxyHeadersLayer};

use support::Answer;

const HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Where requests come from, if a test does not say otherwise.
const PEER: &str = "192.0.2.7:49152";

fn peer(addr: &str) -> Peer {
    Peer::new(addr.parse().expect("an address"))
}

fn layer() -> ProxyHeadersLayer {
    ProxyHeadersLayer::new()
}

/// `GET /path HTTP/1.1` from [`PEER`], with these fields.
fn request(line: &str, fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut words = line.split(' ');
    let mut word = || words.next().expect("METHOD TARGET VERSION");
    let (method, target, version) = (word(), word(), word());
    let version = match version {
        "HTTP/1.0" => Version::HTTP_10,
        "HTTP/1.1" => Version::HTTP_11,
        "HTTP/2" => Version::HTTP_2,
        "HTTP/3" => Version::HTTP_3,
        other => panic!("{other}"),
    };
    let mut request = Request::new(Full::default());
    *request.method_mut() = method.parse().expect("a method");
    *request.uri_mut() = target.parse().expect("a target");
    *request.version_mut() = version;
    *request.headers_mut() = headers(fields);
    request.extensions_mut().insert(peer(PEER));
    request
}

/// A `GET` of HTTP/1.1 for the host `h`, with these fields.
fn get(fields: &[(&str, &str)]) -> Request<Full<Bytes>> {
    let mut request = request("GET / HTTP/1.1", fields);
    let headers = request.headers_mut();
    headers
        .entry("host")
        .or_insert(HeaderValue::from_static("h"));
    request
}

fn headers(fields: &[(&str, &str)]) -> HeaderMap {
    let field = |&(name, value): &(&str, &str)| {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        (
            name,
            HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
        )
    };
    let mut headers = HeaderMap::new();
    for (name, value) in fields.iter().map(field) {
        headers.append(name, value);
    }
    headers
}

/// The fields as `name: value`, in order of their names.
fn lines(headers: &HeaderMap) -> Vec<String> {
    let line = |(name, value): (&HeaderName, &HeaderValue)| {
        format!("{name}: {}", String::from_utf8_lossy(value.as_bytes()))
    };
    let mut lines: Vec<String> = headers.iter().map(line).collect();
    // Stable: the lines of one field keep their order.
    lines.sort_by(|a, b| a.split(':').next().cmp(&b.split(':').next()));
    lines
}

fn line<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    assert!(lines.next().is_none(), "{name} has several lines");
    Some(line.to_str().expect("ASCII"))
}

/// Sends a request through `layer`; the head that the inner service was given, if it was, and the response.
async fn exchange(
    layer: &ProxyHeadersLayer,
    request: Request<Full<Bytes>>,
    response: Response<Full<Bytes>>,
) -> (
    Option<request::Parts>,
    Response<ResponseBody<ProxyHeadersBody<Full<Bytes>>>>,
) {
    let seen = Arc::new(Mutex::new(None));
    let inner = {
        let seen = Arc::clone(&seen);
        let response = Mutex::new(Some(response));
        service_fn(move |request: Request<ProxyHeadersBody<Full<Bytes>>>| {
            *seen.lock().expect("not poisoned") = Some(request.into_parts().0);
            let response = response.lock().expect("not poisoned").take();
            let response = response.expect("called once");
            async move { Ok::<_, Infallible>(response) }
        })
    };
    let Ok(response) = layer.layer(inner).oneshot(request).await;
    let seen = seen.lock().expect("not poisoned").take();
    (seen, response)
}

/// What becomes of a request: the head that is passed on, or the layer's own answer.
fn admit(
    layer: &ProxyHeadersLayer,
    request: Request<Full<Bytes>>,
) -> Result<request::Parts, Box<Answer>> {
    tokio_test::block_on(async {
        let (seen, response) = exchange(layer, request, Response::default()).await;
        match seen {
            Some(head) => {
                assert_eq!(response.status(), 200);
                Ok(head)
            }
            None => Err(Box::new(Answer::read(response).await)),
        }
    })
}

#[track_caller]
fn passed(layer: &ProxyHeadersLayer, request: Request<Full<Bytes>>) -> request::Parts {
    match admit(layer, request) {
        Ok(head) => head,
        Err(answer) => panic!("it was answered: {answer:?}"),
    }
}

/// The request is answered with a problem of this status, and the inner service sees nothing of it.
#[track_caller]
fn assert_refused(layer: &ProxyHeadersLayer, request: Request<Full<Bytes>>, status: u16) {
    let what = format!("{request:?}");
    match admit(layer, request) {
        Ok(head) => panic!("it was passed on: {head:?}\nfrom {what}"),
        Err(answer) => assert_eq!(answer.status, status, "{what}: {answer:?}"),
    }
}

/// What becomes of the response to `request`.
fn answer(
    layer: &ProxyHeadersLayer,
    request: Request<Full<Bytes>>,
    response: Response<Full<Bytes>>,
) -> Answer {
    tokio_test::block_on(async {
        let (seen, response) = exchange(layer, request, response).await;
        assert!(seen.is_some(), "it was not passed on");
        Answer::read(response).await
    })
}

fn response(status: u16, fields: &[(&str, &str)]) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status.try_into().expect("a status");
    *response.headers_mut() = headers(fields);
    response
}

/// An inner response without content, for services that are written by hand.
fn empty() -> Response<Empty<Bytes>> {
    Response::new(Empty::new())
}
