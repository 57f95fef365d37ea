//! Every reader reads the whole, at its own pace.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, StreamBody};
use tokio_test::assert_pending;
use watershed::clone_request::TeeBody;

use crate::common::{Got, fault, readers};
use crate::support::{Bomb, Feed};

// L39, L40
#[test]
fn readers_read_the_same_at_their_own_speed() {
    let (feed, body) = Feed::new();
    let [mut quick, mut slow, mut idle] = readers(TeeBody::new(body, 100));
    for text in ["one", "two", "three"] {
        assert_pending!(quick.poll());
        feed.data(text);
        assert!(quick.is_woken());
        quick.assert_data(text);
    }
    slow.assert_data("one");
    feed.end();
    quick.assert_end();
    slow.assert_data("two");
    slow.assert_data("three");
    slow.assert_end();
    for text in ["one", "two", "three"] {
        idle.assert_data(text);
    }
    idle.assert_end();
}

#[test]
fn nothing_is_read_before_a_reader_asks() {
    let (feed, body) = Feed::new();
    feed.data("one");
    let [mut one, _two] = readers(TeeBody::new(body, 100));
    assert_eq!(feed.polls(), 0);
    one.assert_data("one");
    assert_eq!(feed.polls(), 1);
}

#[test]
fn a_clone_starts_where_its_parent_stands() {
    let (feed, body) = Feed::new();
    let [mut first] = readers(TeeBody::new(body, 100));
    let whole = first.clone();
    feed.data("one");
    feed.data("two");
    first.assert_data("one");
    let after_one = first.clone();
    first.assert_data("two");
    let after_two = first.clone();
    feed.data("three");
    feed.end();
    let after_two_again = first.clone();
    first.assert_data("three");
    let after_three = first.clone();
    first.assert_end();
    for (mut reader, left) in [
        (whole, &["one", "two", "three"][..]),
        (after_one, &["two", "three"]),
        (after_two, &["three"]),
        (after_two_again, &["three"]),
        (after_three, &[]),
        (first.clone(), &[]),
    ] {
        for text in left {
            reader.assert_data(text);
        }
        reader.assert_end();
    }
}

#[test]
fn a_clone_of_a_reader_that_is_gone_still_reads() {
    let (feed, body) = Feed::new();
    let [mut parent] = readers(TeeBody::new(body, 100));
    feed.data("one");
    parent.assert_data("one");
    let mut clone = parent.clone();
    drop(parent);
    feed.data("two");
    feed.end();
    clone.assert_data("two");
    clone.assert_end();
}

#[test]
fn trailers_reach_every_reader() {
    for data in [&["one", "two"][..], &[]] {
        let (feed, body) = Feed::new();
        let [mut one, mut two] = readers(TeeBody::new(body, 100));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("7"));
        trailers.append("x-sum", HeaderValue::from_static("8"));
        for text in data {
            feed.data(*text);
        }
        feed.trailers(trailers.clone());
        feed.end();
        for text in data {
            one.assert_data(text);
        }
        let late = one.clone();
        let trailers = Poll::Ready(Got::Trailers(trailers));
        assert_eq!(one.poll(), trailers);
        one.assert_end();
        let later = two.clone();
        for text in data {
            two.assert_data(text);
        }
        assert_eq!(two.poll(), trailers);
        two.assert_end();
        let mut late = late;
        assert_eq!(late.poll(), trailers);
        late.assert_end();
        let mut later = later;
        for text in data {
            later.assert_data(text);
        }
        assert_eq!(later.poll(), trailers);
    }
}

#[test]
fn empty_frames_are_not_handed_on() {
    let (feed, body) = Feed::new();
    let [mut one, mut two] = readers(TeeBody::new(body, 100));
    for text in ["", "one", "", ""] {
        feed.data(text);
    }
    feed.end();
    for reader in [&mut one, &mut two] {
        reader.assert_data("one");
        reader.assert_end();
    }
}

// L39
#[test]
fn a_failure_reaches_every_reader() {
    let (feed, body) = Feed::new();
    let [mut ahead, mut behind, mut waiting] = readers(TeeBody::new(body, 100));
    feed.data("one");
    ahead.assert_data("one");
    waiting.assert_data("one");
    assert_pending!(ahead.poll());
    assert_pending!(waiting.poll());
    feed.fail(io::Error::other("reset by 10.0.0.7"));
    assert!(ahead.is_woken() && waiting.is_woken());
    let mut unborn = behind.clone();
    for reader in [&mut ahead, &mut behind, &mut waiting, &mut unborn] {
        assert_eq!(
            reader.poll(),
            Poll::Ready(Got::Error(http::StatusCode::BAD_REQUEST))
        );
        reader.assert_end();
    }
    assert!(feed.is_dropped());
}

#[tokio::test]
async fn the_error_tells_its_cause_and_whose_fault_it_is() {
    let (feed, body) = Feed::new();
    feed.fail(io::Error::new(io::ErrorKind::BrokenPipe, "cut"));
    let body = TeeBody::new(body, 100);
    for body in [body.clone(), body] {
        let error = body.collect().await.expect_err("it fails");
        let cause = error.cause().expect("a cause");
        let cause = cause.downcast_ref::<io::Error>().expect("as it was");
        assert_eq!(cause.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(error.to_string(), "the request body could not be read: cut");
        assert_eq!(fault(&error).status(), 400);
    }
}

#[test]
fn a_source_that_panics_fails_its_readers() {
    struct Panics;

    impl Body for Panics {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            // With what panics in turn as it goes.
            std::panic::panic_any(Bomb("on purpose"));
        }
    }

    let [mut one, mut two] = readers(TeeBody::new(Panics, 100));
    for reader in [&mut one, &mut two] {
        assert!(matches!(reader.poll(), Poll::Ready(Got::Error(_))));
        reader.assert_end();
    }
}

#[test]
fn the_source_goes_when_it_has_ended_or_with_its_last_reader() {
    let (feed, body) = Feed::new();
    let [mut one, two] = readers(TeeBody::new(body, 100));
    feed.data("one");
    one.assert_data("one");
    drop(two);
    assert!(!feed.is_dropped());
    drop(one);
    assert!(feed.is_dropped());

    let (feed, body) = Feed::new();
    let [mut one, _two] = readers(TeeBody::new(body, 100));
    feed.end();
    one.assert_end();
    assert!(feed.is_dropped());
}

// L41
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn readers_on_several_threads_each_read_the_whole() {
    for round in 0..50 {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
        let source = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
        let body = TeeBody::new(StreamBody::new(source), 1 << 20);
        let tasks: Vec<_> = (0..8)
            .map(|reader| {
                let body = body.clone();
                tokio::spawn(async move {
                    if reader == 7 {
                        return None;
                    }
                    Some(body.collect().await.expect("no error").to_bytes())
                })
            })
            .collect();
        drop(body);
        let mut expected = Vec::new();
        for frame in 0..100 {
            let text = format!("{round}.{frame};");
            expected.extend_from_slice(text.as_bytes());
            let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(text)));
            sender.send(frame).await.expect("somebody reads");
        }
        drop(sender);
        for task in tasks {
            if let Some(read) = task.await.expect("no panic") {
                assert_eq!(read, expected);
            }
        }
    }
}
