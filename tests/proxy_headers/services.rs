//! The service itself: readiness, cancellation, errors, and where the peer comes from.

use std::net::SocketAddr;
use std::task::Poll;

use gate::Gate;
use tower::Service;
use watershed::error::BoxError;
use watershed::proxy_headers::{ForwardedStyle, MissingPeer, ProxyHeaders};

use super::support::Hand;
use super::*;

/// A service that is ready when the test says so.
mod gate {
    use std::task::{Context, Poll};

    use super::*;

    pub(super) struct Gate {
        pub(super) ready: Poll<Result<(), BoxError>>,
    }

    impl<B> Service<Request<B>> for Gate {
        type Response = Response<Empty<Bytes>>;
        type Error = BoxError;
        type Future = std::future::Ready<Result<Response<Empty<Bytes>>, BoxError>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            std::mem::replace(&mut self.ready, Poll::Ready(Ok(())))
        }

        fn call(&mut self, _: Request<B>) -> Self::Future {
            std::future::ready(Ok(empty()))
        }
    }
}

fn poll_ready<S: Service<Request<Full<Bytes>>>>(service: &mut S) -> Poll<Result<(), S::Error>> {
    tokio_test::task::spawn(()).enter(|cx, _| service.poll_ready(cx))
}

#[test]
fn it_is_ready_when_the_inner_service_is() {
    let mut service = layer().layer(Gate {
        ready: Poll::Pending,
    });
    assert!(poll_ready(&mut service).is_pending());
    assert!(poll_ready(&mut service).is_ready());
    service.get_mut().ready = Poll::Ready(Err("closed".into()));
    assert!(
        matches!(poll_ready(&mut service), Poll::Ready(Err(error)) if error.to_string() == "closed")
    );
    assert!(service.get_ref().ready.is_ready());
    assert!(service.into_inner().ready.is_ready());
}

// DESIGN rule 3
#[test]
fn dropping_the_future_drops_the_inner_call() {
    let hand = Hand::<Response<Empty<Bytes>>>::new();
    let mut service = layer().layer(hand.clone());
    let mut call = tokio_test::task::spawn(service.call(get(&[])));
    assert_eq!(hand.calls(), 1, "called before the first poll");
    assert!(call.poll().is_pending());
    assert_eq!(hand.drops(), 0);
    drop(call);
    assert_eq!(hand.drops(), 1);
}

#[test]
fn the_call_ends_when_the_inner_one_does_and_with_its_error() {
    let hand = Hand::<Response<Empty<Bytes>>>::new();
    let mut service = layer().layer(hand.clone());
    let mut call = tokio_test::task::spawn(service.call(get(&[])));
    assert!(call.poll().is_pending());
    assert!(!call.is_woken());
    hand.finish(empty());
    assert!(call.is_woken());
    assert!(matches!(call.poll(), Poll::Ready(Ok(response)) if response.status() == 200));

    let mut call = tokio_test::task::spawn(service.call(get(&[])));
    hand.fail("broken");
    assert!(matches!(call.poll(), Poll::Ready(Err(error)) if error.to_string() == "broken"));
}

#[test]
fn a_refused_request_never_reaches_the_inner_service() {
    let hand = Hand::<Response<Empty<Bytes>>>::new();
    let mut service = layer().layer(hand.clone());
    let refused = request("GET / HTTP/1.1", &[]);
    let mut call = tokio_test::task::spawn(service.call(refused));
    assert!(matches!(call.poll(), Poll::Ready(Ok(response)) if response.status() == 400));
    assert_eq!(hand.calls(), 0);
}

fn without_peer() -> Request<Full<Bytes>> {
    let mut request = get(&[("x-forwarded-for", "127.0.0.1"), ("x-real-ip", "127.0.0.1")]);
    request.extensions_mut().clear();
    request
}

#[test]
fn without_a_peer_nothing_is_passed_on() {
    let none = ProxyHeadersLayer::default().peer_from(|_| None);
    for layer in [
        layer(),
        layer().forwarded(ForwardedStyle::Rfc7239),
        layer().forwarded(ForwardedStyle::Both),
        none.clone(),
    ] {
        let (seen, response) =
            tokio_test::block_on(exchange(&layer, without_peer(), Response::default()));
        assert!(seen.is_none());
        let missing = response.extensions().get::<MissingPeer>().expect("marked");
        assert!(missing.to_string().contains("Peer"));
        tokio_test::block_on(Answer::read(response)).assert_problem(500);
    }
    // The function's word goes, also against what is there.
    assert_refused(&none, get(&[]), 500);
    // Who says nothing of the peer needs none; claims go all the same.
    let layer = layer().forwarded(ForwardedStyle::Omit);
    let head = passed(&layer, without_peer());
    assert_eq!(lines(&head.headers), ["host: h"]);
}

#[test]
fn the_peer_is_taken_from_where_the_server_has_left_it() {
    #[derive(Clone)]
    struct ConnectInfo<T>(T);
    let addr: SocketAddr = "[2001:db8::1]:1".parse().expect("an address");
    let layer = layer().peer_from(|extensions| {
        let ConnectInfo(addr) = extensions.get::<ConnectInfo<SocketAddr>>()?;
        Some(Peer::new(*addr).over_tls())
    });
    for with_another in [false, true] {
        let mut request = without_peer();
        request.extensions_mut().insert(ConnectInfo(addr));
        if with_another {
            request.extensions_mut().insert(peer(PEER));
        }
        let head = passed(&layer, request);
        assert_eq!(line(&head.headers, "x-forwarded-for"), Some("2001:db8::1"));
        assert_eq!(line(&head.headers, "x-forwarded-proto"), Some("https"));
        // The services inside see it as any other.
        assert_eq!(head.extensions.get(), Some(&Peer::new(addr).over_tls()));
    }
    assert_refused(&layer, without_peer(), 500);
}

#[test]
fn a_clone_does_what_the_original_does() {
    fn assert_shared<T: Clone + Send + Sync + 'static>(_: &T) {}
    let layer = layer().via("front");
    assert_shared(&layer);
    let service: ProxyHeaders<_> = layer.layer(Hand::<Response<Empty<Bytes>>>::new());
    assert_shared(&service);
    let mut clone = service.clone();
    let mut call =
        tokio_test::task::spawn(clone.call(request("TRACE / HTTP/1.1", &[("host", "h")])));
    assert!(matches!(call.poll(), Poll::Ready(Ok(response)) if response.status() == 501));
    assert!(format!("{layer:?}").contains("ProxyHeadersLayer"));
}

/// A head that not one more name fits into.
fn full() -> HeaderMap {
    let mut headers = headers(&[("host", "h")]);
    for nth in 0.. {
        let name = HeaderName::from_bytes(format!("x-{nth}").as_bytes()).expect("a name");
        let one = HeaderValue::from_static("1");
        if headers.try_append(name, one).is_err() {
            break;
        }
    }
    headers
}

// DESIGN rule 4: the map of a head panics when more is put into it than it can hold.
#[test]
fn a_head_that_is_full_is_refused() {
    let layer = layer()
        .via("front")
        .max_response_fields(usize::MAX)
        .max_response_head_bytes(usize::MAX);
    let mut request = get(&[]);
    *request.headers_mut() = full();
    assert_refused(&layer, request, 431);

    let mut given = response(200, &[]);
    *given.headers_mut() = full();
    answer(&layer, get(&[]), given).assert_problem(502);
}
