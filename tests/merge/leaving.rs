//! When an answer is certain: the others are not waited for, and are dropped.

use http::{Response, StatusCode};
use tokio_test::{assert_pending, assert_ready, task};
use tower::Service;
use watershed::merge::JsonMerge;
use watershed::outcome::Branch;

use crate::support::{Answer, FedBody, Feed, Hand, Stack, get, merged};

type Replies = Hand<Response<FedBody>>;

fn hands<M>(merge: M, required: &[bool]) -> (Vec<Replies>, Stack<M, Replies>) {
    let hands = Hand::several(required.len());
    let branches = hands
        .iter()
        .zip(required)
        .enumerate()
        .map(|(index, (hand, required))| {
            let branch = Branch::new(format!("b{index}"), hand.clone());
            match required {
                true => branch.required(),
                false => branch,
            }
        });
    let service = merged(merge, branches);
    (hands, service)
}

fn drops(hands: &[Replies]) -> Vec<usize> {
    hands.iter().map(Hand::drops).collect()
}

fn status(status: u16) -> Response<FedBody> {
    let (feed, body) = Feed::new();
    feed.end();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
}

fn document(text: &'static str) -> Response<FedBody> {
    let (feed, body) = Feed::new();
    feed.data(text);
    feed.end();
    Response::new(body)
}

// L23
#[test]
fn a_required_failure_is_answered_at_once_if_no_earlier_required_one_is_pending() {
    // Optional ones are not waited for, before or after it.
    let (hands, mut service) = hands(JsonMerge::object(), &[false, true, true, false]);
    let mut call = task::spawn(service.call(get("/")));
    assert_pending!(call.poll());
    hands[1].finish(status(404));
    let response = assert_ready!(call.poll()).expect("infallible");
    assert_eq!(response.status(), 404);
    // All others are gone before the answer is there.
    assert_eq!(drops(&hands), [1, 1, 1, 1]);
}

// L23
#[test]
fn a_required_failure_waits_for_the_earlier_required_ones() {
    // What the earlier one says, and what is answered then.
    for (earlier, answered) in [(403, 403), (500, 502), (200, 404)] {
        let (hands, mut service) = hands(JsonMerge::object(), &[true, false, true, true]);
        let mut call = task::spawn(service.call(get("/")));
        assert_pending!(call.poll());
        hands[3].finish(status(503));
        assert_pending!(call.poll());
        hands[2].finish(status(404));
        assert_pending!(call.poll());
        match earlier {
            200 => hands[0].finish(document("{}")),
            earlier => hands[0].finish(status(earlier)),
        }
        let response = assert_ready!(call.poll()).expect("infallible");
        assert_eq!(response.status(), answered);
        assert_eq!(drops(&hands), [1, 1, 1, 1]);
    }
}

// L23
#[test]
fn an_earlier_required_one_is_pending_until_its_body_has_ended() {
    let (hands, mut service) = hands(JsonMerge::object(), &[true, true]);
    let mut call = task::spawn(service.call(get("/")));
    assert_pending!(call.poll());
    let (feed, body) = Feed::new();
    hands[0].finish(Response::new(body));
    hands[1].finish(status(404));
    assert_pending!(call.poll());
    feed.data("{");
    assert_pending!(call.poll());
    // It fails after all, and goes first.
    feed.end();
    let response = assert_ready!(call.poll()).expect("infallible");
    assert_eq!(response.status(), 502);
    assert!(feed.is_dropped());
}

#[test]
fn a_required_failure_drops_the_bodies_that_are_being_read() {
    let (hands, mut service) = hands(JsonMerge::object(), &[false, true]);
    let mut call = task::spawn(service.call(get("/")));
    assert_pending!(call.poll());
    let (feed, body) = Feed::new();
    feed.data("{");
    hands[0].finish(Response::new(body));
    assert_pending!(call.poll());
    hands[1].finish(status(404));
    let _response = assert_ready!(call.poll()).expect("infallible");
    assert!(feed.is_dropped());
}

#[test]
fn an_optional_failure_waits_for_all() {
    let (hands, mut service) = hands(JsonMerge::object(), &[false, true, false]);
    let mut call = task::spawn(service.call(get("/")));
    assert_pending!(call.poll());
    hands[0].finish(status(500));
    assert_pending!(call.poll());
    hands[1].finish(document(r#"{"a":1}"#));
    assert_pending!(call.poll());
    hands[2].finish(document(r#"{"b":2}"#));
    let response = assert_ready!(call.poll()).expect("infallible");
    let answer = tokio_test::block_on(Answer::read(response));
    answer.assert_document(r#"{"a":1,"b":2}"#, false);
}

// B27
#[test]
fn bodies_are_read_while_the_other_branches_run() {
    let (hands, mut service) = hands(JsonMerge::array(), &[false, false, false]);
    let mut call = task::spawn(service.call(get("/")));
    assert_pending!(call.poll());
    let (slow, body) = Feed::new();
    hands[0].finish(Response::new(body));
    assert_pending!(call.poll());
    assert!(slow.polls() > 0);
    // The others go on although the first body stalls, heads and bodies.
    hands[1].wake();
    assert_pending!(call.poll());
    assert_eq!(hands[1].polls(), 2);
    let (quick, body) = Feed::new();
    hands[2].finish(Response::new(body));
    assert_pending!(call.poll());
    quick.data("3");
    quick.end();
    assert_pending!(call.poll());
    assert!(quick.is_dropped() || quick.polls() > 1);
    hands[1].finish(document("2"));
    assert_pending!(call.poll());
    for digit in ["1", "0"] {
        slow.data(digit);
        assert_pending!(call.poll());
    }
    slow.end();
    let response = assert_ready!(call.poll()).expect("infallible");
    let answer = tokio_test::block_on(Answer::read(response));
    answer.assert_document("[10,2,3]", true);
}

#[test]
fn dropping_the_call_drops_branches_and_bodies() {
    let (hands, mut service) = hands(JsonMerge::object(), &[false, false]);
    let mut call = task::spawn(service.call(get("/")));
    assert_pending!(call.poll());
    let (feed, body) = Feed::new();
    hands[0].finish(Response::new(body));
    assert_pending!(call.poll());
    drop(call);
    assert!(feed.is_dropped());
    assert_eq!(drops(&hands), [1, 1]);
}
