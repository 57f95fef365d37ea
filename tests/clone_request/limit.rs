//! How much of a body is kept.

use std::convert::Infallible;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, ServiceExt, service_fn};
use watershed::clone_request::{CloneRequestLayer, TeeBody, TeeError};
use watershed::error::ClientFault;

use crate::common::{Got, fault, frames, readers};
use crate::support::{Answer, Feed, Hand, MS};

async fn collect(body: TeeBody) -> Result<Bytes, TeeError> {
    body.collect()
        .await
        .map(http_body_util::Collected::to_bytes)
}

#[tokio::test]
async fn it_is_exact_whatever_the_frames() {
    for limit in [0u64, 1, 5, 6, 7, 100] {
        let fits = limit >= 6;
        let bodies = [
            TeeBody::new(Full::new(Bytes::from("abcdef")), limit),
            TeeBody::new(frames(["abcdef"]), limit),
            TeeBody::new(frames(["a", "b", "", "cde", "f"]), limit),
            TeeBody::new(frames(["abcde", "", "f"]), limit),
        ];
        for body in bodies {
            let late = body.clone();
            for body in [body.clone(), body, late] {
                match collect(body).await {
                    Ok(bytes) => assert!(fits && bytes == "abcdef"),
                    Err(error) => {
                        assert!(!fits, "{limit}");
                        assert_eq!(fault(&error), ClientFault::too_large(limit));
                        assert_eq!(fault(&error).status(), 413);
                        assert!(error.cause().is_none());
                    }
                }
            }
        }
    }
}

#[test]
fn a_frame_over_the_limit_is_an_error_and_never_a_part_of_it() {
    let (feed, body) = Feed::new();
    let [mut one, mut two] = readers(TeeBody::new(body, 3));
    feed.data("ab");
    one.assert_data("ab");
    feed.data("cd");
    let too_large = Poll::Ready(Got::Error(http::StatusCode::PAYLOAD_TOO_LARGE));
    assert_eq!(one.poll(), too_large);
    one.assert_end();
    // Nothing more is read, and what was kept is given up.
    assert!(feed.is_dropped());
    assert_eq!(two.poll(), too_large);
    two.assert_end();
    // To a clone it must not look as if the body had ended well.
    let mut late = two.clone();
    assert_eq!(late.poll(), too_large);
    late.assert_end();
}

// CVE-2024-43783
#[tokio::test]
async fn what_announces_too_much_is_answered_unread() {
    for (length, limit) in [(7, 6), (1, 0), (1 << 40, 1 << 20), (u64::MAX, 6)] {
        let (feed, body) = Feed::announcing(length);
        let inner = Hand::<Response<Empty<Bytes>>>::new();
        let service = CloneRequestLayer::new().limit(limit).layer(inner.clone());
        let request = Request::post("/").body(body).unwrap();
        let answer = Answer::read(service.oneshot(request).await.unwrap()).await;
        let problem = answer.assert_problem(413);
        let detail = format!("the request body is larger than {limit} bytes");
        assert_eq!(problem["detail"], detail);
        assert_eq!((inner.calls(), feed.polls()), (0, 0));
        assert!(feed.is_dropped());
    }
}

#[tokio::test]
async fn what_announces_just_enough_is_passed_on() {
    let service = service_fn(|request: Request<TeeBody>| async {
        let body = request.into_body().collect().await.expect("no error");
        Ok::<_, Infallible>(Response::new(Full::new(body.to_bytes())))
    });
    for (length, limit) in [(0, 0), (6, 6), (1 << 20, 1 << 20)] {
        let service = CloneRequestLayer::new().limit(limit).layer(service);
        let body = Full::new(Bytes::from(vec![b'x'; length]));
        let request = Request::post("/").body(body).unwrap();
        let answer = Answer::read(service.oneshot(request).await.unwrap()).await;
        assert_eq!((answer.status, answer.body.len()), (200, length));
    }
}

#[tokio::test]
async fn the_default_is_one_mebibyte() {
    let inner = Hand::new();
    let service = CloneRequestLayer::new().layer(inner.clone());
    for (length, calls) in [((1 << 20) + 1, 0), (1 << 20, 1)] {
        inner.finish(Response::new(Empty::<Bytes>::new()));
        let (_feed, body) = Feed::announcing(length);
        let request = Request::post("/").body(body).unwrap();
        service.clone().oneshot(request).await.unwrap();
        assert_eq!(inner.calls(), calls);
    }
}

#[test]
fn a_window_of_zero_is_refused() {
    let layer = CloneRequestLayer::new;
    let error = layer().try_stream(0, MS).expect_err("refused");
    assert_eq!(error.to_string(), "a window of zero would keep no frame");
    assert!(std::panic::catch_unwind(|| layer().stream(0, MS)).is_err());
    assert!(layer().try_stream(1, MS).is_ok());
}
