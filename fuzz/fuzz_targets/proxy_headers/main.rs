//! `ProxyHeadersLayer` under any request, response, trailers and configuration: what it refuses goes no further, and what it
//! passes on or back is fit to be.
//!
//! What is fit is said by the oracle that the properties in the library's tests use as well.
//!
//! `cargo fuzz run proxy_headers`

#![no_main]

mod input;
#[path = "../../../tests/proxy_headers/oracle/mod.rs"]
mod oracle;
mod service;

use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::{Request, Response, request, response};
use http_body::Body;
use libfuzzer_sys::fuzz_target;
use tower::{Layer, Service};
use watershed::proxy_headers::{ForwardedStyle, MissingPeer};

use input::Input;
use oracle::{assert_passed_back, assert_passed_on, assert_refused, assert_trailers};
use service::{Inner, Seen, read};

fuzz_target!(|input: Input| {
    let setup = input.setup();
    let (request, response) = (input.request(), input.response());
    let has_content = !request.body().is_end_stream();
    let (sent, sent_trailers) = (request_head(&request), request.body().trailers().cloned());
    let (given, given_trailers) = (
        response_head(&response),
        response.body().trailers().cloned(),
    );

    let seen = Seen::default();
    let inner = Inner {
        seen: Rc::clone(&seen),
        response: Some(response),
    };
    let mut service = setup.layer().layer(inner);
    let call = pin!(service.call(request));
    let Poll::Ready(Ok(response)) = call.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("the answer is there");
    };
    let (answered, body) = response.into_parts();
    let trailers = read(body);

    let is_lost = !input.has_peer() && setup.style != ForwardedStyle::Omit;
    let says_so = answered.extensions.get::<MissingPeer>().is_some();
    assert_eq!(says_so, is_lost);
    let Some((seen, seen_trailers)) = seen.take() else {
        assert_eq!(answered.status == 500, is_lost);
        if !is_lost {
            assert_refused(&sent, &answered);
        }
        assert!(trailers.is_none());
        return;
    };
    assert!(!is_lost);
    assert_passed_on(&setup, &sent, has_content, &seen);
    assert_trailers(sent_trailers.as_ref(), seen_trailers.as_ref());
    if assert_passed_back(&setup, &sent, has_content, &given, &answered) {
        assert_trailers(given_trailers.as_ref(), trailers.as_ref());
    } else {
        assert!(trailers.is_none());
    }
});

/// A copy of the head, without its extensions.
fn request_head<B>(request: &Request<B>) -> request::Parts {
    let mut head = Request::new(()).into_parts().0;
    head.method = request.method().clone();
    head.uri = request.uri().clone();
    head.version = request.version();
    head.headers = request.headers().clone();
    head
}

fn response_head<B>(response: &Response<B>) -> response::Parts {
    let mut head = Response::new(()).into_parts().0;
    head.status = response.status();
    head.headers = response.headers().clone();
    head
}
