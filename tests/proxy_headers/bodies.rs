//! Bodies pass frame by frame, and their trailers say no more than trailers may (RFC 9110 §6.5.1).

use std::pin::Pin;
use std::task::{Context, Poll};

use http_body::{Body, Frame};
use http_body_util::BodyExt;
use watershed::error::BoxError;

use super::support::{FedBody, Feed};
use super::*;

/// The body that the inner service is given for `body`, and the one that comes back for it, if it answers with it.
async fn there_and_back(
    body: FedBody,
) -> ResponseBody<ProxyHeadersBody<ProxyHeadersBody<FedBody>>> {
    let inner = service_fn(|request: Request<ProxyHeadersBody<FedBody>>| async move {
        Ok::<_, Infallible>(Response::new(request.into_body()))
    });
    let request = get(&[]).map(|_| body);
    let Ok(response) = layer().layer(inner).oneshot(request).await;
    response.into_body()
}

/// As above, but of a request's body alone: what the inner service reads.
async fn there(body: FedBody) -> ProxyHeadersBody<FedBody> {
    let seen = Arc::new(Mutex::new(None));
    let inner = {
        let seen = Arc::clone(&seen);
        service_fn(move |request: Request<ProxyHeadersBody<FedBody>>| {
            *seen.lock().expect("not poisoned") = Some(request.into_body());
            async { Ok::<_, Infallible>(empty()) }
        })
    };
    let Ok(_) = layer().layer(inner).oneshot(get(&[]).map(|_| body)).await;
    let body = seen.lock().expect("not poisoned").take();
    body.expect("called")
}

/// As above, but of a response's body alone.
async fn back(body: FedBody) -> ResponseBody<ProxyHeadersBody<FedBody>> {
    let body = Mutex::new(Some(body));
    let inner = service_fn(|_: Request<ProxyHeadersBody<Full<Bytes>>>| {
        let body = body.lock().expect("not poisoned").take();
        async { Ok::<_, Infallible>(Response::new(body.expect("called once"))) }
    });
    let Ok(response) = layer().layer(inner).oneshot(get(&[])).await;
    response.into_body()
}

async fn trailers<B: Body + Unpin>(mut body: B) -> HeaderMap
where
    B::Error: std::fmt::Debug,
{
    let frame = body.frame().await.expect("a frame").expect("no error");
    frame.into_trailers().map_err(drop).expect("trailers")
}

// B11
#[tokio::test]
async fn trailers_say_no_more_than_they_may_in_both_directions() {
    let kept = [
        "etag",
        "grpc-status",
        "grpc-message",
        "server-timing",
        "x-sum",
        "digest",
    ];
    let dropped = [
        // Framing and the connection's own.
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        // Routing.
        "host",
        "max-forwards",
        "via",
        // Who asks.
        "authorization",
        "cookie",
        "origin",
        "proxy-authenticate",
        "set-cookie",
        "www-authenticate",
        // What changes a request.
        "accept-encoding",
        "expect",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "pragma",
        "range",
        "referer",
        // What controls a response.
        "age",
        "cache-control",
        "date",
        "expires",
        "location",
        "retry-after",
        "vary",
        "warning",
        // What the content is.
        "content-encoding",
        "content-range",
        "content-type",
        // Where it came from.
        "forwarded",
        "x-forwarded-for",
        "x_forwarded_for",
        "x-real-ip",
    ];
    let mut all: Vec<_> = dropped
        .iter()
        .chain(&kept)
        .map(|name| (*name, "1"))
        .collect();
    all.extend([
        ("x-sum", "2"),
        ("set-cookie", "a=b"),
        ("connection", "x-named"),
        ("x-named", "1"),
    ]);
    let (feed, body) = Feed::new();
    feed.trailers(headers(&all));
    let there = trailers(there(body).await).await;
    let (feed, body) = Feed::new();
    feed.trailers(headers(&all));
    let back = trailers(back(body).await).await;
    for left in [there, back] {
        let mut names: Vec<_> = left.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let mut expected = kept;
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(left.get_all("x-sum").iter().collect::<Vec<_>>(), ["1", "2"]);
    }
}

#[tokio::test]
async fn every_frame_passes_when_it_comes() {
    let (feed, body) = Feed::announcing(6);
    let mut body = tokio_test::task::spawn(there_and_back(body).await);
    let mut next = || {
        body.enter(|cx, mut body| {
            Pin::new(&mut *body)
                .poll_frame(cx)
                .map_ok(|frame| frame.into_data().ok())
        })
    };
    assert!(next().is_pending());
    for chunk in ["one", "two"] {
        feed.data(chunk);
        let frame = next();
        assert!(
            matches!(&frame, Poll::Ready(Some(Ok(Some(data)))) if data == chunk),
            "{frame:?}"
        );
        assert!(next().is_pending());
    }
    feed.trailers(headers(&[("x-sum", "1")]));
    assert!(matches!(next(), Poll::Ready(Some(Ok(None)))));
    feed.end();
    assert!(matches!(next(), Poll::Ready(None)));
}

#[tokio::test]
async fn what_wakes_the_body_wakes_its_reader() {
    let (feed, body) = Feed::new();
    let mut body = there_and_back(body).await;
    let mut frame = tokio_test::task::spawn(body.frame());
    assert!(frame.poll().is_pending());
    assert!(!frame.is_woken());
    feed.data("x");
    assert!(frame.is_woken());
    assert!(frame.poll().is_ready());
}

// DESIGN rule 8
#[tokio::test]
async fn the_length_and_the_end_are_those_of_the_inner_body() {
    let mut cx = Context::from_waker(std::task::Waker::noop());
    for length in [None, Some(0), Some(3)] {
        let (feed, body) = Feed::announcing(length);
        let mut body = there_and_back(body).await;
        assert_eq!(body.size_hint().exact(), length);
        assert!(!body.is_end_stream());
        if length == Some(3) {
            feed.data("xyz");
            assert!(Pin::new(&mut body).poll_frame(&mut cx).is_ready());
            assert_eq!(body.size_hint().exact(), Some(0));
        }
        feed.end();
        assert!(body.is_end_stream());
    }
}

#[tokio::test]
async fn an_error_passes_as_it_is() {
    #[derive(Debug, PartialEq, thiserror::Error)]
    #[error("broken")]
    struct Broken(u32);
    let (feed, body) = Feed::new();
    feed.data("x");
    feed.fail(Broken(7));
    let mut body = there_and_back(body).await;
    assert!(body.frame().await.expect("a frame").is_ok());
    let error: BoxError = body.frame().await.expect("a frame").expect_err("broken");
    assert!(
        watershed::error::cause_ref::<Broken>(error.as_ref()).is_some(),
        "{error:?}"
    );
}

#[tokio::test]
async fn dropping_the_response_drops_the_bodies() {
    let (feed, body) = Feed::new();
    let body = there_and_back(body).await;
    assert!(!feed.is_dropped());
    drop(body);
    assert!(feed.is_dropped());
}

// B11
#[tokio::test]
async fn trailers_are_never_merged_into_the_head() {
    let (feed, body) = Feed::new();
    feed.trailers(headers(&[("x-sum", "1"), ("authorization", "Bearer x")]));
    feed.end();
    let inner = service_fn(|request: Request<ProxyHeadersBody<FedBody>>| async move {
        let (head, body) = request.into_parts();
        let read = body.collect().await.expect("a whole body");
        assert_eq!(lines(read.trailers().expect("trailers")), ["x-sum: 1"]);
        assert!(!head.headers.contains_key("x-sum"));
        assert!(!head.headers.contains_key("authorization"));
        Ok::<_, Infallible>(empty())
    });
    let request = get(&[("te", "trailers"), ("trailer", "x-sum")]).map(|_| body);
    let Ok(response) = layer().layer(inner).oneshot(request).await;
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn an_empty_frame_of_data_is_no_end() {
    let (feed, body) = Feed::new();
    let mut body = there_and_back(body).await;
    feed.data("");
    let frame: Frame<Bytes> = body.frame().await.expect("a frame").expect("no error");
    assert_eq!(frame.into_data().expect("data"), "");
}

#[tokio::test]
async fn the_inner_body_is_there_with_all_its_trailers() {
    let (feed, body) = Feed::announcing(3);
    let body = there(body).await;
    assert_eq!(body.get_ref().size_hint().exact(), Some(3));
    let mut given = HeaderMap::new();
    given.insert("host", HeaderValue::from_static("a"));
    feed.trailers(given.clone());
    assert_eq!(trailers(body.into_inner()).await, given);
}
