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

use libfuzzer_sys::fuzz_target;
use tower::{Layer, Service};

use input::Input;
use oracle::{Whole, assert_passed_back, assert_passed_on, assert_refused};
use service::{Inner, Seen};

fuzz_target!(|input: Input| {
    let setup = input.setup();
    let (request, response) = (input.request(), input.response());
    let sent = Whole::request(request.clone());
    let given = Whole::response(response.clone());

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
    let answered = Whole::response(response);

    match seen.take() {
        Some(seen) => {
            assert_passed_on(&setup, &sent, &seen);
            assert_passed_back(&setup, &sent, &given, &answered);
        }
        None => assert_refused(&setup, &sent, &answered),
    }
});
