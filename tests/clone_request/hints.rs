//! What a reader knows of what is left.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Empty, Full};
use tokio_test::assert_ready;
use watershed::body::BoxBody;
use watershed::clone_request::TeeBody;

use crate::common::{Got, Reader, readers};
use crate::support::Feed;

#[track_caller]
fn assert_left(body: &TeeBody, exact: impl Into<Option<u64>>, ended: bool) {
    let exact = exact.into();
    assert_eq!(body.size_hint().exact(), exact);
    assert_eq!(body.is_end_stream(), ended);
}

fn poll(reader: &mut Reader) {
    let _ = reader.poll();
}

#[test]
fn an_announced_length_counts_down_for_each_reader() {
    let (feed, body) = Feed::announcing(6);
    let [mut one, mut two] = readers(TeeBody::new(body, 100));
    assert_left(&one.task, 6, false);
    feed.data("ab");
    assert_left(&one.task, 6, false);
    poll(&mut one);
    assert_left(&one.task, 4, false);
    assert_left(&two.task, 6, false);
    poll(&mut one);
    assert_left(&one.task, 4, false);
    feed.data("cdef");
    feed.end();
    poll(&mut one);
    // The source says that this was its last frame, so the readers do.
    assert_left(&one.task, 0, true);
    assert_left(&two.task, 6, false);
    poll(&mut two);
    assert_left(&two.task, 4, false);
    assert_left(&two.task.clone(), 4, false);
    poll(&mut two);
    assert_left(&two.task, 0, true);
    for mut reader in [one, two] {
        reader.assert_end();
        assert_left(&reader.task, 0, true);
    }
}

#[test]
fn an_unknown_length_is_known_once_the_source_has_ended() {
    let (feed, body) = Feed::new();
    let [mut one, mut two] = readers(TeeBody::new(body, 100));
    let lower = |reader: &Reader| reader.task.size_hint().lower();
    feed.data("ab");
    assert_left(&one.task, None, false);
    poll(&mut one);
    assert_left(&one.task, None, false);
    assert_eq!((lower(&one), lower(&two)), (0, 2));
    feed.data("cd");
    poll(&mut one);
    assert_eq!((lower(&one), lower(&two)), (0, 4));
    assert_left(&one.task, None, false);
    feed.end();
    poll(&mut one);
    assert_left(&one.task, 0, true);
    assert_left(&two.task, 4, false);
    poll(&mut two);
    assert_left(&two.task, 2, false);
    poll(&mut two);
    assert_left(&two.task, 0, true);
}

#[test]
fn trailers_are_to_come_until_they_have_come() {
    let (feed, body) = Feed::new();
    let [mut one, mut two] = readers(TeeBody::new(body, 100));
    feed.data("ab");
    feed.trailers(HeaderMap::new());
    feed.end();
    poll(&mut one);
    poll(&mut two);
    assert!(!one.task.is_end_stream());
    poll(&mut one);
    assert_left(&one.task, 0, true);
    // No bytes are left. But a client that was told so would send a length instead of chunks, and lose the trailers.
    assert!(!two.task.is_end_stream());
    assert_eq!(two.task.size_hint().exact(), None);
    poll(&mut two);
    assert_left(&two.task, 0, true);
}

#[test]
fn a_failure_ends_the_body() {
    let (feed, body) = Feed::announcing(9);
    let [mut one, mut two] = readers(TeeBody::new(body, 100));
    feed.data("ab");
    feed.fail("cut");
    poll(&mut one);
    poll(&mut one);
    assert_left(&one.task, 0, true);
    assert!(!two.task.is_end_stream());
    poll(&mut two);
    assert_left(&two.task, 0, true);
}

#[test]
fn upper_and_lower_bounds_are_those_of_the_source() {
    struct Vague;

    impl Body for Vague {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"ab")))))
        }

        fn size_hint(&self) -> SizeHint {
            let mut hint = SizeHint::new();
            hint.set_lower(3);
            hint.set_upper(10);
            hint
        }
    }

    let [mut one, two] = readers(TeeBody::new(Vague, 100));
    let bounds = |reader: &Reader| {
        let hint = reader.task.size_hint();
        (hint.lower(), hint.upper())
    };
    assert_eq!(bounds(&one), (3, Some(10)));
    poll(&mut one);
    assert_eq!(bounds(&one), (3, Some(10)));
    assert_eq!(bounds(&two), (5, Some(12)));
}

#[test]
fn a_body_without_bytes_is_at_its_end_and_never_polled() {
    for body in [
        TeeBody::empty(),
        TeeBody::new(Empty::new(), 0),
        TeeBody::new(BoxBody::new(Full::new(Bytes::new())), 9),
        TeeBody::from(Bytes::new()),
    ] {
        assert_left(&body, 0, true);
        assert_left(&body.clone(), 0, true);
        Reader::new(body).assert_end();
    }
}

#[test]
fn bytes_that_are_here_are_one_frame_for_every_reader() {
    let bytes = Bytes::from("once");
    let body = TeeBody::from(bytes.clone());
    let mut parent = Reader::new(body.clone());
    parent.assert_data("once");
    assert_left(&parent.task, 0, true);
    parent.clone().assert_end();
    for body in [body.clone(), body] {
        assert_left(&body, 4, false);
        let mut reader = Reader::new(body);
        let Got::Data(data) = assert_ready!(reader.poll()) else {
            panic!("no data");
        };
        assert_eq!(data.as_ptr(), bytes.as_ptr(), "nothing is copied");
        reader.assert_end();
    }
}
