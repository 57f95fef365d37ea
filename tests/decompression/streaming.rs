//! Frame by frame: what is given when, and how it ends.

use std::task::Poll;

use bytes::Bytes;
use http::{HeaderMap, Method, Response};
use http_body::{Body, Frame};
use http_body_util::Full;
use tokio_test::{assert_pending, assert_ready, task};
use watershed::decompression::DecompressionBody;
use watershed::error::BoxError;

use crate::coding::{CODINGS, document, flushed_brotli, flushed_gzip, flushed_zlib};
use crate::common::{all, encoded, through};
use crate::support::{FedBody, Feed};

fn pieces() -> [(&'static str, Vec<Vec<u8>>); 3] {
    let pieces: [&[u8]; 3] = [b"data: one\n\n", b"data: two\n\n", b"data: three\n\n"];
    [
        ("gzip", flushed_gzip(&pieces)),
        ("deflate", flushed_zlib(&pieces)),
        ("br", flushed_brotli(&pieces, 18)),
    ]
}

async fn fed(name: &str) -> (Feed, task::Spawn<DecompressionBody<FedBody>>) {
    let (feed, body) = Feed::announcing(1_000_000);
    let response = through(all(), Method::GET, encoded(name, body)).await;
    (feed, task::spawn(response.into_body()))
}

fn poll(
    body: &mut task::Spawn<DecompressionBody<FedBody>>,
) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
    body.enter(|cx, body| body.poll_frame(cx))
}

#[tokio::test]
async fn what_was_flushed_is_given_before_more_is_waited_for() {
    for (name, pieces) in pieces() {
        let (feed, mut body) = fed(name).await;
        for (piece, content) in pieces.iter().zip(["one", "two", "three"]) {
            assert_pending!(poll(&mut body));
            feed.data(piece.clone());
            assert!(body.is_woken());
            let frame = assert_ready!(poll(&mut body))
                .expect("a frame")
                .expect("decoded");
            let data = frame.into_data().expect("data");
            assert_eq!(data, format!("data: {content}\n\n"), "{name}");
            // Nothing is said of a length that nobody knows.
            assert_eq!(
                (body.size_hint().lower(), body.size_hint().upper()),
                (0, None)
            );
            assert!(!body.is_end_stream());
        }
        feed.data(pieces[3].clone());
        assert_pending!(poll(&mut body));
        feed.end();
        assert!(body.is_woken());
        assert!(assert_ready!(poll(&mut body)).is_none());
        assert!(body.is_end_stream());
        assert_eq!(body.size_hint().exact(), Some(0));
    }
}

#[tokio::test]
async fn it_ends_when_all_is_decoded_and_not_when_all_is_read() {
    for (name, encode) in CODINGS {
        let (feed, mut body) = fed(name).await;
        feed.data(encode(&document(10_000)));
        feed.end();
        let mut given = 0;
        while given < document(10_000).len() {
            assert!(!body.is_end_stream(), "{name}, at {given}");
            let frame = assert_ready!(poll(&mut body)).expect("a frame");
            given += frame.expect("decoded").into_data().expect("data").len();
        }
        assert!(assert_ready!(poll(&mut body)).is_none());
        assert!(body.is_end_stream());
    }
}

#[tokio::test]
async fn trailers_pass_without_the_digests_of_other_bytes() {
    for (name, pieces) in pieces() {
        let (feed, mut body) = fed(name).await;
        feed.data(pieces.concat());
        feed.data("");
        let mut trailers = HeaderMap::new();
        for field in [
            "grpc-status",
            "content-digest",
            "repr-digest",
            "digest",
            "content-md5",
        ] {
            trailers.insert(field, "0".parse().expect("a value"));
        }
        feed.trailers(trailers);
        let frame = assert_ready!(poll(&mut body))
            .expect("a frame")
            .expect("decoded");
        assert_eq!(frame.into_data().expect("data").len(), 35);
        let frame = assert_ready!(poll(&mut body))
            .expect("a frame")
            .expect("decoded");
        let trailers = frame.into_trailers().expect("trailers");
        assert_eq!(trailers.len(), 1);
        assert_eq!(trailers["grpc-status"], "0");
        assert!(body.is_end_stream());
        assert!(assert_ready!(poll(&mut body)).is_none());
    }
}

#[tokio::test]
async fn an_error_of_the_inner_body_passes_as_it_is() {
    #[derive(Debug, thiserror::Error)]
    #[error("mine")]
    struct Mine;
    for (name, pieces) in pieces() {
        let (feed, mut body) = fed(name).await;
        feed.data(pieces[0].clone());
        feed.fail(Mine);
        assert!(assert_ready!(poll(&mut body)).expect("a frame").is_ok());
        let error = assert_ready!(poll(&mut body))
            .expect("a frame")
            .expect_err("mine");
        assert!(error.is::<Mine>());
        assert!(body.is_end_stream());
        assert!(assert_ready!(poll(&mut body)).is_none());
        assert!(!feed.is_dropped());
        drop(body);
        assert!(feed.is_dropped());
    }
}

#[tokio::test]
async fn a_body_that_is_not_decoded_passes_frame_by_frame() {
    let (feed, body) = Feed::announcing(3);
    let response = through(all(), Method::GET, Response::new(body)).await;
    let mut body = task::spawn(response.into_body());
    assert_eq!(body.size_hint().exact(), Some(3));
    feed.data("abc");
    let frame = assert_ready!(poll(&mut body))
        .expect("a frame")
        .expect("plain");
    assert_eq!(frame.into_data().expect("data"), "abc");
    assert_eq!(body.size_hint().exact(), Some(0));
    feed.fail("reset");
    let error = assert_ready!(poll(&mut body))
        .expect("a frame")
        .expect_err("reset");
    assert_eq!(error.to_string(), "reset");
    feed.end();
    assert!(body.is_end_stream());
}

/// It fits where a multithreaded server wants it.
#[test]
fn a_body_goes_where_its_inner_one_goes() {
    fn sends<T: Send + Unpin>() {}
    sends::<DecompressionBody<Full<Bytes>>>();
}

#[tokio::test]
async fn the_inner_body_can_be_looked_at() {
    for (name, pieces) in pieces() {
        let (feed, mut body) = fed(name).await;
        feed.data(pieces[0].clone());
        let left = 1_000_000 - pieces[0].len() as u64;
        assert_ready!(poll(&mut body))
            .expect("a frame")
            .expect("data");
        let inner = body.enter(|_, body| body.get_ref().size_hint());
        assert_eq!(inner.exact(), Some(left));
    }
}
