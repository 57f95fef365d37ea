//! Callers that have their answer, and have not ended what they send.

use tokio::sync::watch;
use tokio::time::Instant;

use super::{Ask, Protocol};
use crate::backend::{Backend, answer, json};
use crate::caller::request;
use crate::wire::http2::RST_STREAM;
use crate::within;

/// Answers as soon as it has seen a head, and reads on.
fn answers_early() -> Backend {
    Backend::new(|mut peer| async move {
        peer.head().await;
        peer.send(json("{}")).await;
        peer.closed().await;
    })
}

/// Whoever stops in the middle of an upload does not keep two connections for ever.
async fn an_upload_that_stalls_is_given_up(protocol: Protocol) {
    let backend = answers_early();
    let server = crate::front(&backend, 0).await;
    let start = Instant::now();
    match protocol {
        Protocol::Http1 => {
            let mut caller = server.connect().await;
            let head = request("POST", "/x/7", &["Content-Length: 100000"], "");
            caller.send([&head[..], b"ab"].concat()).await;
            assert_eq!(caller.answer().await.text(), "{}");
            backend.until(|record| record.closed == 1).await;
            caller.closed().await;
        }
        Protocol::Http2 => {
            let mut http2 = server.http2().await;
            let ask = Ask::new("POST", "/x/7").field("content-length", "100000");
            http2.headers(1, &ask.http2(), false).await;
            http2.data(1, b"ab", false).await;
            assert_eq!(http2.heard(1).await.answer().text(), "{}");
            backend.until(|record| record.closed == 1).await;
            let frame = http2.next().await.expect("the connection is kept");
            assert_eq!((frame.kind, frame.stream), (RST_STREAM, 1), "{frame:?}");
        }
    }
    // The client's documented time.
    let elapsed = start.elapsed();
    assert!(elapsed >= std::time::Duration::from_secs(5), "{elapsed:?}");
}

// B37
#[tokio::test]
async fn an_http1_upload_that_stalls_behind_its_answer_is_given_up() {
    an_upload_that_stalls_is_given_up(Protocol::Http1).await;
}

// B37
#[tokio::test]
async fn an_http2_upload_that_stalls_behind_its_answer_is_given_up() {
    an_upload_that_stalls_is_given_up(Protocol::Http2).await;
}

/// An upload that goes on behind its answer arrives, and both connections serve on.
async fn an_upload_that_ends_is_whole(protocol: Protocol) {
    let (again, mut used_again) = watch::channel(false);
    let backend = Backend::new(move |mut peer| {
        let again = again.clone();
        async move {
            if peer.connection > 0 {
                // The first one was not free again by then.
                if peer.request().await.is_some() {
                    peer.send(answer("200 OK", &["Connection: close"], "{}"))
                        .await;
                    peer.finish().await;
                }
                return;
            }
            peer.head().await;
            peer.send(json("{}")).await;
            let body = within(peer.wire.exactly(4)).await;
            assert_eq!(body.as_deref(), Some(&b"abcd"[..]));
            while peer.request().await.is_some() {
                again.send_replace(true);
                peer.send(json("{}")).await;
            }
        }
    });
    let server = crate::front(&backend, 0).await;
    match protocol {
        Protocol::Http1 => {
            let mut caller = server.connect().await;
            let head = request("POST", "/x/7", &["Content-Length: 4"], "");
            caller.send([&head[..], b"ab"].concat()).await;
            assert_eq!(caller.answer().await.text(), "{}");
            caller.send("cd").await;
            while !*used_again.borrow_and_update() {
                assert_eq!(caller.get("/x/7").await.text(), "{}");
            }
        }
        Protocol::Http2 => {
            let mut http2 = server.http2().await;
            let ask = Ask::new("POST", "/x/7").field("content-length", "4");
            http2.headers(1, &ask.http2(), false).await;
            http2.data(1, b"ab", false).await;
            assert_eq!(http2.heard(1).await.answer().text(), "{}");
            http2.data(1, b"cd", true).await;
            let mut stream = 1;
            while !*used_again.borrow_and_update() {
                stream += 2;
                Ask::get("/x/7").send_over_http2(&mut http2, stream).await;
                assert_eq!(http2.heard(stream).await.answer().text(), "{}");
            }
        }
    }
}

#[tokio::test]
async fn an_http1_upload_that_ends_behind_its_answer_is_whole() {
    an_upload_that_ends_is_whole(Protocol::Http1).await;
}

#[tokio::test]
async fn an_http2_upload_that_ends_behind_its_answer_is_whole() {
    an_upload_that_ends_is_whole(Protocol::Http2).await;
}
