//! Uploads that a backend has answered and does not read.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::backend::{Backend, json};
use crate::caller::request;
use crate::process::Run;
use crate::wire::ask::Ask;
use crate::wire::http2::RST_STREAM;
use crate::{NOISE, within};

/// As documented.
const LINGER: Duration = Duration::from_secs(5);

/// More than all the buffers on the way hold, the kernel's included.
const MOST: usize = 64 << 20;

/// As long as it may take to hold somebody up for good.
const STUCK: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, PartialOrd)]
enum Told {
    Wait,
    Answer,
    Read,
}

/// Neither the caller nor the backend's connection is held up for longer than the answer to the upload lets it linger.
#[tokio::test]
async fn an_upload_that_nobody_reads_is_given_up() {
    let (tells, told) = watch::channel(Told::Wait);
    let backend = Backend::new(move |mut peer| {
        let mut told = told.clone();
        async move {
            if peer.head().await.is_none() {
                return;
            }
            for step in [Told::Answer, Told::Read] {
                let _ = told.wait_for(|told| *told >= step).await;
                if step == Told::Answer {
                    peer.send(json("{}")).await;
                }
            }
            peer.closed().await;
        }
    });
    let proxy = Run::to(&backend).start().await;
    let body = vec![b'x'; MOST];

    let mut caller = proxy.connect().await;
    let length = format!("Content-Length: {MOST}");
    caller.send(request("POST", "/", &[&length], "")).await;
    for piece in body.chunks(1 << 16) {
        let sending = caller.wire.send(piece);
        if tokio::time::timeout(STUCK, sending).await.is_err() {
            break;
        }
    }
    let mut http2 = proxy.http2().await;
    http2
        .headers(1, &Ask::new("POST", "/").http2(), false)
        .await;
    let mut sent = 0;
    let sending = http2.send_body(1, &body, &mut sent);
    assert!(tokio::time::timeout(2 * STUCK, sending).await.is_err());

    tells.send_replace(Told::Answer);
    let answered = Instant::now();
    assert_eq!(caller.answer().await.text(), "{}");
    assert_eq!(http2.heard(1).await.answer().text(), "{}");
    caller.closed().await;
    let reset = within(http2.next()).await.expect("a frame");
    assert_eq!((reset.kind, reset.stream), (RST_STREAM, 1), "{reset:?}");
    let elapsed = answered.elapsed();
    assert!(elapsed < LINGER + NOISE, "{elapsed:?}");
    // Only the stream is over.
    Ask::new("OPTIONS", "*")
        .send_over_http2(&mut http2, 3)
        .await;
    assert_eq!(http2.heard(3).await.answer().status, 204);

    tells.send_replace(Told::Read);
    backend.until(|record| record.closed == 2).await;
}

/// Over HTTP/2 who breaks an upload off can't be told so, and nobody else notices.
#[tokio::test]
async fn an_upload_that_is_reset_costs_its_own_stream_only() {
    let backend = Backend::json("{}");
    let mut proxy = Run::to(&backend).start().await;
    let mut http2 = proxy.http2().await;
    http2
        .headers(1, &Ask::new("POST", "/").http2(), false)
        .await;
    http2.data(1, b"half", false).await;
    backend.until(|record| record.requests.len() == 1).await;
    let cancel = 8_u32.to_be_bytes();
    http2.frame(RST_STREAM, 0, 1, &cancel).await;
    backend.until(|record| record.closed == 1).await;
    assert!(!backend.request().body.whole);
    Ask::get("/").send_over_http2(&mut http2, 3).await;
    assert_eq!(http2.heard(3).await.answer().text(), "{}");
    drop(http2);
    proxy.terminate();
    assert_eq!(proxy.exited().await.code(), Some(0));
    // No backend has failed.
    for line in proxy.stderr().lines() {
        let whose = "the request body could not be read";
        assert!(line.ends_with(whose), "{line}");
    }
}
