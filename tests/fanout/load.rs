//! How many calls are in flight at once.

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

use tokio_test::task;
use tower::{Layer, Service};
use watershed::fanout::{FanOutError, FanOutLayer};
use watershed::outcome::Branch;

use crate::common::{fan_out, gather, try_gather};
use crate::support::Hand;

#[test]
fn a_call_beyond_the_limit_is_refused_and_not_queued() {
    for limit in [1, 2, 7] {
        let hands = Hand::<()>::several(2);
        let fan_out = fan_out(&hands).max_in_flight(limit);
        let mut held: Vec<_> = (0..limit).map(|_| gather(&fan_out, ())).collect();
        for _ in 0..3 {
            let refused = try_gather(&fan_out.clone(), ()).expect_err("it is full");
            assert_eq!(refused, FanOutError::Overloaded { limit });
        }
        held.pop();
        held.push(try_gather(&fan_out, ()).expect("one has gone"));
        try_gather(&fan_out, ()).expect_err("it is full again");
    }
}

#[test]
fn a_call_counts_until_its_gather_is_dropped_whenever_that_is() {
    let hands = Hand::several(3);
    let fan_out = fan_out(&hands).max_in_flight(1);
    let is_full = || try_gather(&fan_out, ()).is_err();
    for polls in 0..=5 {
        let mut gather = task::spawn(gather(&fan_out, ()));
        for poll in 0..polls {
            if let Some(hand) = hands.get(poll) {
                hand.finish(());
            }
            let _ = gather.poll_next();
            assert!(is_full());
        }
        assert!(is_full());
        drop(gather);
        assert!(!is_full());
    }
    // The response future holds the gather before anybody has polled it.
    let future = fan_out.clone().call(());
    assert!(is_full());
    drop(future);
    assert!(!is_full());
    // A panic that unwinds through the gather's owner drops it as well.
    let unwound = catch_unwind(AssertUnwindSafe(|| {
        let _gather = gather(&fan_out, ());
        panic_any(());
    }));
    assert!(unwound.is_err() && !is_full());
}

#[test]
fn the_default_is_1024_calls() {
    let fan_out = fan_out(&Hand::<()>::several(1));
    let held: Vec<_> = (0..1024).map(|_| gather(&fan_out, ())).collect();
    assert_eq!(
        try_gather(&fan_out, ()).expect_err("full"),
        FanOutError::Overloaded { limit: 1024 }
    );
    drop(held);
    gather(&fan_out, ());
}

#[test]
fn a_layer_limits_each_of_its_services() {
    let layer =
        FanOutLayer::new([Branch::new("a", tower::layer::util::Identity::new())]).max_in_flight(1);
    let hand = Hand::<()>::new();
    let (one, two) = (layer.layer(hand.clone()), layer.layer(hand));
    let _held = (gather(&one, ()), gather(&two, ()));
    assert!(try_gather(&one, ()).is_err() && try_gather(&two, ()).is_err());
}

#[test]
#[should_panic(expected = "a limit of zero would refuse every call")]
fn zero_is_refused() {
    let _ = fan_out(&Hand::<()>::several(1)).max_in_flight(0);
}
