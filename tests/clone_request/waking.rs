//! Who is woken, and when.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use tokio_test::assert_pending;
use watershed::clone_request::TeeBody;

use crate::common::{Reader, readers};
use crate::support::Feed;

#[test]
fn every_reader_that_waits_is_woken() {
    let (feed, body) = Feed::new();
    let mut readers: [Reader; 5] = readers(TeeBody::new(body, 100));
    for _ in 0..3 {
        for reader in &mut readers {
            assert_pending!(reader.poll());
        }
        feed.wake();
        assert!(readers.iter().all(Reader::is_woken));
    }
    for reader in &mut readers {
        assert_pending!(reader.poll());
    }
    feed.data("one");
    assert!(readers.iter().all(Reader::is_woken));
    for reader in &mut readers {
        reader.assert_data("one");
    }
}

#[test]
fn a_reader_that_goes_or_stops_does_not_stall_another() {
    #[derive(Clone, Copy)]
    enum Then {
        Goes,
        GoesAfterTheWakeUp,
        Stops,
    }

    for then in [Then::Goes, Then::GoesAfterTheWakeUp, Then::Stops] {
        // The one that goes polls before the other, or after it: the source knows the waker of the last.
        for polls_last in [false, true] {
            let (feed, body) = Feed::new();
            let [mut goes, mut stays] = readers(TeeBody::new(body, 100));
            if polls_last {
                assert_pending!(stays.poll());
                assert_pending!(goes.poll());
            } else {
                assert_pending!(goes.poll());
                assert_pending!(stays.poll());
            }
            let mut goes = Some(goes);
            if let Then::Goes = then {
                goes = None;
            }
            feed.data("one");
            if let Then::GoesAfterTheWakeUp = then {
                goes = None;
            }
            assert!(stays.is_woken());
            stays.assert_data("one");
            assert_pending!(stays.poll());
            feed.end();
            assert!(stays.is_woken());
            stays.assert_end();
            drop(goes);
        }
    }
}

#[test]
fn a_reader_is_told_of_what_another_has_read() {
    let (feed, body) = Feed::new();
    let [mut one, mut two] = readers(TeeBody::new(body, 100));
    assert_pending!(one.poll());
    // It comes while nobody looks, and the other finds it first.
    feed.data("one");
    two.assert_data("one");
    assert!(one.is_woken());
    one.assert_data("one");
}

#[test]
fn a_source_that_wakes_while_it_is_polled_is_polled_again() {
    struct Busy(u8);

    impl Body for Busy {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if self.0 == 0 {
                return Poll::Ready(None);
            }
            self.0 -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    }

    let [mut one, mut two] = readers(TeeBody::new(Busy(3), 100));
    assert_pending!(two.poll());
    for _ in 0..2 {
        assert_pending!(one.poll());
        assert!(one.is_woken() && two.is_woken());
    }
    one.assert_end();
    assert!(two.is_woken());
    two.assert_end();
}
