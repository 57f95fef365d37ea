//! What a small body may grow to, and how much is done in one poll.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Method;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tokio_test::task;
use watershed::decompression::DecompressionError;
use watershed::error::cause_ref;

use crate::coding::{CODINGS, MIB, brotli_bomb, document, gzip_bomb};
use crate::common::{Endless, all, encoded, frames, read_frames, through};
use crate::support::Feed;

// B30
#[tokio::test]
async fn the_bound_is_exact() {
    let content = document(10_000);
    let exact = content.len() as u64;
    for (name, encode) in CODINGS {
        let whole = || vec![Bytes::from(encode(&content))];
        let layer = all().max_bytes(exact);
        assert_eq!(
            read_frames(layer, name, whole()).await.expect("within"),
            content
        );
        let layer = all().max_bytes(exact - 1);
        match read_frames(layer, name, whole()).await {
            Err(DecompressionError::TooLarge { limit }) => assert_eq!(limit, exact - 1),
            other => panic!("{name}: {other:?}"),
        }
    }
}

// B30
#[tokio::test]
async fn a_bomb_is_stopped_at_the_bound_and_read_no_further() {
    for (name, bomb) in [("gzip", gzip_bomb(64)), ("br", brotli_bomb(64))] {
        let bomb = Bytes::from(bomb);
        let (feed, body) = Feed::new();
        let parts = bomb.len().div_ceil(64);
        for at in 0..parts {
            feed.data(bomb.slice(at * 64..bomb.len().min(at * 64 + 64)));
        }
        let layer = all().max_bytes(100_000);
        let response = through(layer, Method::GET, encoded(name, body)).await;
        let mut body = response.into_body();
        let mut given = 0;
        let error = loop {
            match body.frame().await.expect("no end") {
                Ok(frame) => given += frame.into_data().expect("data").len(),
                Err(error) => break error,
            }
        };
        let found = cause_ref(error.as_ref());
        assert!(matches!(
            found,
            Some(DecompressionError::TooLarge { limit: 100_000 })
        ));
        assert!(
            given <= 100_000 && given > 100_000 - 4096,
            "{name}: {given}"
        );
        let needed = 2 + parts.div_ceil(64 * 10);
        assert!(
            feed.polls() <= needed,
            "{name}: {} of {parts} frames",
            feed.polls()
        );
    }
}

/// What may go on without end and without a byte of content: how it begins, and what follows again and again.
fn nothing_without_end() -> [(&'static str, Vec<u8>, Vec<u8>); 6] {
    let gzip_start = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
    let gzip_name = b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03".to_vec();
    let stored_blocks = b"\x00\x00\x00\xff\xff".repeat(4096);
    let metadata = [&b"\xd6\x3f"[..], &[b'x'; 256]].concat();
    [
        ("gzip", gzip_start, stored_blocks.clone()),
        ("gzip", gzip_name, vec![b'x'; 20_000]),
        ("deflate", b"\x78\x9c".to_vec(), stored_blocks),
        // Metadata blocks without a byte, and with 256 of them (RFC 7932 §9.2).
        ("br", b"\x0c".to_vec(), b"\x06".repeat(20_000)),
        ("br", b"\x0c".to_vec(), metadata.repeat(64)),
        ("gzip", vec![], vec![]),
    ]
}

// B30: what is compressed to nothing still takes work. It is done in turns, and has an end.
#[tokio::test]
async fn a_poll_does_bounded_work_and_nothing_goes_on_for_ever() {
    for (name, start, again) in nothing_without_end() {
        let only_frames = again.is_empty();
        let (endless, given) = Endless::new(again);
        let body = Chained {
            first: Some(frames(vec![start.into()])),
            second: endless,
        };
        let layer = all().max_bytes(MIB as u64);
        let response = through(layer, Method::GET, encoded(name, body)).await;
        let mut body = task::spawn(response.into_body());
        let mut turns = 0;
        let end = loop {
            turns += 1;
            assert!(turns < 10_000, "{name}: it has no end");
            let before = given.load(Ordering::Relaxed);
            let polled = body.enter(|cx, body| body.poll_frame(cx));
            assert!(given.load(Ordering::Relaxed) - before <= 16, "{name}");
            match polled {
                // Whoever else waits comes first.
                Poll::Pending => assert!(body.is_woken()),
                Poll::Ready(end) => break end,
            }
            // Frames without a byte are the transport's: nothing is decoded, and a timeout ends it.
            if only_frames && turns == 1000 {
                return;
            }
        };
        assert!(turns > 4, "{name}: {turns}");
        let error = end.expect("no end").expect_err("too large");
        let found = cause_ref(error.as_ref());
        assert!(
            matches!(found, Some(DecompressionError::TooLarge { .. })),
            "{name}: {error}"
        );
    }
    unreachable!("the last one has no end");
}

/// One body behind another.
struct Chained<A, B> {
    first: Option<A>,
    second: B,
}

impl<A, B> Body for Chained<A, B>
where
    A: Body<Data = Bytes, Error = Infallible> + Unpin,
    B: Body<Data = Bytes, Error = Infallible> + Unpin,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(first) = &mut self.first {
            match Pin::new(first).poll_frame(cx) {
                Poll::Ready(None) => self.first = None,
                polled => return polled,
            }
        }
        Pin::new(&mut self.second).poll_frame(cx)
    }
}
