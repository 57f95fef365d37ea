//! One service, passed through untouched.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::task::consume_budget;
use tokio::time::{Instant, advance};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use watershed::body::ResponseBody;
use watershed::deadline::{Deadline, Phase, TimedOut};
use watershed::error::{BoxError, ClientFault, cause_ref};
use watershed::merge::{PassthroughBody, PassthroughLayer};
use watershed::test_util::{Reply, Scripted};
use watershed::timeout::ClientTimeoutLayer;

use crate::common::{Panics, Place};
use crate::support::{Answer, FedBody, Feed, Hand, MS, ask, get, post};

type Sent = Request<PassthroughBody<Full<Bytes>>>;

fn over<S: Clone>(service: S) -> watershed::merge::Passthrough<S> {
    PassthroughLayer::new().layer(service)
}

// L50
#[tokio::test]
async fn a_response_passes_untouched() {
    for status in [
        200, 201, 204, 206, 301, 302, 304, 400, 401, 404, 418, 429, 500, 503,
    ] {
        let reply = Reply::status(status)
            .header("content-type", "text/html")
            .header("set-cookie", "a=b")
            .header("set-cookie", "c=d")
            .header("server", "x")
            .header("www-authenticate", "Basic")
            .header("connection", "upgrade")
            .header("upgrade", "h2c")
            .body("not here");
        let backend = Scripted::reply(reply);
        let expected = backend.clone().oneshot(get("/")).await.unwrap();
        let passed = over(backend).oneshot(get("/")).await.unwrap();
        assert_eq!(passed.status(), expected.status());
        assert_eq!(passed.headers(), expected.headers());
        assert_eq!(
            passed.into_body().collect().await.unwrap().to_bytes(),
            "not here"
        );
    }
}

// L50
#[tokio::test]
async fn an_empty_body_passes() {
    let answer = ask(&over(Scripted::reply(Reply::status(404))), get("/")).await;
    assert_eq!((answer.status, &*answer.body), (404, ""));
}

// L50
#[tokio::test]
async fn a_request_passes_untouched() {
    let backend = Scripted::reply(Reply::status(200));
    let fields = [
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("accept-encoding", "br"),
        ("range", "bytes=0-1"),
        ("if-match", "\"1\""),
        ("if-none-match", "\"1\""),
        ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
        ("if-range", "\"1\""),
        ("expect", "100-continue"),
        ("connection", "upgrade"),
        ("upgrade", "websocket"),
        ("x-own", "1"),
    ];
    for method in [Method::GET, Method::HEAD, Method::POST, Method::OPTIONS] {
        let mut request = post("http://a/b?c=d", "body");
        *request.method_mut() = method.clone();
        for (name, value) in fields {
            request
                .headers_mut()
                .append(name, HeaderValue::from_static(value));
        }
        over(backend.clone()).oneshot(request).await.unwrap();
        let seen = backend.calls().pop().expect("a call");
        assert_eq!(
            (seen.method, seen.uri.to_string()),
            (method, "http://a/b?c=d".to_owned())
        );
        assert_eq!(seen.body.expect("a body"), "body");
        assert_eq!(seen.headers.len(), fields.len());
        for (name, value) in fields {
            assert_eq!(seen.headers[name], value);
        }
    }
}

// L50
#[tokio::test]
async fn extensions_of_request_and_response_pass() {
    let service = service_fn(|request: Request<PassthroughBody<()>>| async move {
        let mut response = Response::new(Empty::<Bytes>::new());
        response
            .extensions_mut()
            .insert(*request.extensions().get::<u8>().expect("kept"));
        Ok::<_, Infallible>(response)
    });
    let mut request = Request::new(());
    request.extensions_mut().insert(7u8);
    let response = over(service).oneshot(request).await.unwrap();
    assert_eq!(response.extensions().get(), Some(&7u8));
}

// L50
#[tokio::test(start_paused = true)]
async fn a_body_streams_frame_by_frame_with_its_trailers() {
    let hand = Hand::new();
    let (feed, body) = Feed::announcing(6);
    hand.finish(Response::new(body));
    let layer = PassthroughLayer::new().within(10 * MS);
    let response = layer.layer(hand).oneshot(get("/")).await.unwrap();
    let mut body = task::spawn(response.into_body());
    assert_eq!(
        (body.size_hint().exact(), body.is_end_stream()),
        (Some(6), false)
    );
    let poll =
        |body: &mut task::Spawn<ResponseBody<FedBody>>| body.enter(|cx, body| body.poll_frame(cx));
    assert!(poll(&mut body).is_pending());
    for data in ["abc", "def"] {
        feed.data(data);
        let frame = assert_ready!(poll(&mut body))
            .expect("a frame")
            .expect("no error");
        assert_eq!(frame.into_data().expect("data"), data);
        assert!(poll(&mut body).is_pending());
        // The body is not timed.
        advance(Duration::from_secs(60)).await;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    feed.trailers(trailers.clone());
    feed.end();
    let frame = assert_ready!(poll(&mut body))
        .expect("a frame")
        .expect("no error");
    assert_eq!(frame.into_trailers().expect("trailers"), trailers);
    assert!(body.is_end_stream());
    assert!(assert_ready!(poll(&mut body)).is_none());
}

// L50
#[tokio::test]
async fn a_body_that_breaks_breaks_for_the_client_as_well() {
    let backend = Scripted::reply(Reply::status(200).body("abc").then_fail());
    let response = over(backend).oneshot(get("/")).await.unwrap();
    let mut body = response.into_body();
    body.frame().await.expect("data").expect("no error");
    body.frame()
        .await
        .expect("an error")
        .expect_err("never a silent end");
}

// L50, B36
#[tokio::test(start_paused = true)]
async fn an_error_is_502_a_timeout_504_and_a_fault_its_own() {
    let fails = |error: fn() -> BoxError| {
        service_fn(move |_: Sent| async move { Err::<Response<Empty<Bytes>>, _>(error()) })
    };
    for (service, status) in [
        (fails(|| "refused by 10.0.0.7".into()), 502),
        (
            fails(|| io::Error::other("refused by 10.0.0.7").into()),
            502,
        ),
        (fails(|| TimedOut::new(Phase::Body, MS, MS).into()), 504),
        (
            fails(|| io::Error::from(io::ErrorKind::TimedOut).into()),
            504,
        ),
        (fails(|| tower::timeout::error::Elapsed::new().into()), 504),
        (fails(|| ClientFault::too_large(7).into()), 413),
        (
            fails(|| ClientFault::bad_request("an empty cart").into()),
            400,
        ),
    ] {
        let answer = ask(&over(service), post("/", "")).await;
        answer.assert_problem(status);
        assert!(!answer.body.contains("10.0.0.7"));
    }
    let timed = ServiceBuilder::new()
        .layer(ClientTimeoutLayer::new(10 * MS))
        .service(Scripted::reply(Reply::hang()));
    ask(&over(timed), get("/")).await.assert_problem(504);
    let unready = Scripted::ready_fails("broken");
    ask(&over(unready), get("/")).await.assert_problem(502);
}

/// Reads the request, and fails with what that fails with, as a client does.
async fn reads(
    request: Request<PassthroughBody<FedBody>>,
) -> Result<Response<Full<Bytes>>, BoxError> {
    let body = request.into_body().collect().await?;
    Ok(Response::new(Full::new(body.to_bytes())))
}

// B36
#[tokio::test]
async fn a_body_of_a_request_that_fails_is_the_clients_fault() {
    let length = || http_body_util::Limited::new(Full::<Bytes>::from("long"), 1);
    let too_long = length().collect().await.expect_err("too long");
    let unreadable = "the request body could not be read";
    let errors: [(BoxError, u16, &str); 6] = [
        ("reset by 10.0.0.7".into(), 400, unreadable),
        (io::Error::other("10.0.0.7").into(), 400, unreadable),
        (too_long, 413, "the request body is too large"),
        // What says so itself is believed.
        (ClientFault::bad_request("no cart").into(), 400, "no cart"),
        (
            ClientFault::too_large(7).into(),
            413,
            "the request body is larger than 7 bytes",
        ),
        (
            TimedOut::new(Phase::Idle, MS, MS).into(),
            504,
            "there was no response in time",
        ),
    ];
    for (error, status, detail) in errors {
        let (feed, body) = Feed::new();
        feed.data("half");
        feed.fail(error);
        let request = Request::post("/").body(body).expect("a request");
        let problem = ask(&over(service_fn(reads)), request).await;
        let problem = problem.assert_problem(status);
        assert_eq!(problem["detail"], detail);
    }
}

/// For a log it is not only whose fault it was.
#[tokio::test]
async fn why_a_body_of_a_request_failed_is_told_to_the_hook() {
    #[derive(Debug, thiserror::Error)]
    #[error("no chunk")]
    struct NoChunk(#[source] io::Error);

    let (told, tells) = std::sync::mpsc::channel();
    let layer = PassthroughLayer::new().on_failure(move |error| {
        let fault = cause_ref::<ClientFault>(error).cloned();
        told.send((error.to_string(), fault)).expect("listened to");
    });
    let (feed, body) = Feed::new();
    feed.fail(NoChunk(io::Error::other("its size is g")));
    let request = Request::post("/").body(body).expect("a request");
    ask(&layer.layer(service_fn(reads)), request)
        .await
        .assert_problem(400);
    let fault = ClientFault::bad_request("the request body could not be read");
    let expected = ("no chunk: its size is g".to_owned(), Some(fault));
    assert_eq!(tells.try_iter().collect::<Vec<_>>(), [expected]);
}

// DESIGN rule 8
#[tokio::test]
async fn a_body_of_a_request_passes_frame_by_frame() {
    let (feed, body) = Feed::announcing(4);
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    let expected = trailers.clone();
    let service = service_fn(move |request: Request<PassthroughBody<FedBody>>| {
        let (feed, trailers) = (feed.clone(), trailers.clone());
        async move {
            let mut body = request.into_body();
            assert_eq!(body.size_hint().exact(), Some(4));
            feed.data("data");
            feed.trailers(trailers.clone());
            feed.end();
            let data = body.frame().await.expect("data").expect("no error");
            assert_eq!(data.into_data().expect("data"), "data");
            assert_eq!(
                (body.size_hint().exact(), body.is_end_stream()),
                (Some(0), false)
            );
            let last = body.frame().await.expect("trailers").expect("no error");
            assert!(body.is_end_stream());
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.headers_mut() = last.into_trailers().expect("trailers");
            Ok::<_, Infallible>(response)
        }
    });
    let request = Request::post("/").body(body).expect("a request");
    let answer = ask(&over(service), request).await;
    assert_eq!((answer.status, answer.headers), (200, expected));
}

// L50, L12
#[tokio::test(start_paused = true)]
async fn its_deadline_is_exact_and_the_call_is_gone_before_the_answer() {
    for (own, announced, enforced, takes) in [
        (Some(400), None, false, Some(400)),
        (Some(400), Some(100), false, Some(100)),
        (Some(100), Some(400), false, Some(100)),
        (Some(100), Some(400), true, Some(100)),
        (None, Some(100), false, Some(100)),
        // A layer outside answers.
        (Some(400), Some(100), true, None),
        (None, None, false, None),
    ] {
        let layer = match own {
            Some(own) => PassthroughLayer::new().within(MS * own),
            None => PassthroughLayer::new(),
        };
        let mut request = post("/", "");
        if let Some(announced) = announced {
            let deadline = Deadline::after(MS * announced);
            let deadline = if enforced {
                deadline.enforced()
            } else {
                deadline
            };
            request.extensions_mut().insert(deadline);
        }
        let hand = Hand::<Response<Empty<Bytes>>>::new();
        let start = Instant::now();
        let call = layer.layer(hand.clone()).oneshot(request);
        match (
            tokio::time::timeout(Duration::from_secs(1), call).await,
            takes,
        ) {
            (Ok(response), Some(takes)) => {
                assert_eq!((start.elapsed(), hand.drops()), (MS * takes, 1));
                Answer::read(response.unwrap()).await.assert_problem(504);
            }
            (Err(_), None) => {}
            (other, _) => panic!("{own:?} {announced:?}: {:?}", other.is_ok()),
        }
    }
    // Readiness counts.
    let layer = PassthroughLayer::new().within(10 * MS);
    ask(&layer.layer(Scripted::never_ready()), get("/"))
        .await
        .assert_problem(504);
    // At a tie, finished work wins.
    let tie = Scripted::reply(Reply::status(404).after(10 * MS));
    assert_eq!(ask(&layer.layer(tie), get("/")).await.status, 404);
}

// L12
#[tokio::test(start_paused = true)]
async fn the_service_is_told_the_deadline_and_that_it_is_enforced() {
    for (own, announced, told) in [
        (Some(400), None, Some(400)),
        (Some(400), Some(100), Some(100)),
        (Some(100), Some(400), Some(100)),
        (None, Some(100), Some(100)),
        (None, None, None),
    ] {
        let layer = match own {
            Some(own) => PassthroughLayer::new().within(MS * own),
            None => PassthroughLayer::new(),
        };
        let mut request = post("/", "");
        if let Some(announced) = announced {
            let deadline = Deadline::after(MS * announced);
            request.extensions_mut().insert(deadline);
        }
        let expected = told.map(|told| Deadline::after(MS * told).enforced());
        let service = service_fn(move |request: Sent| async move {
            let told = request.extensions().get::<Deadline>().copied();
            assert_eq!(told, expected, "{own:?} {announced:?}");
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        });
        assert_eq!(ask(&layer.layer(service), request).await.status, 200);
    }
}

/// The call has nothing when it is looked at before the deadline, and something when the timer is looked at just after it.
#[tokio::test(start_paused = true)]
async fn what_is_there_at_the_deadline_is_seen_though_it_came_between_two_looks() {
    let looks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&looks);
    let backend = service_fn(move |_: Request<_>| {
        let seen = Arc::clone(&seen);
        std::future::poll_fn(move |_| {
            let look = seen.fetch_add(1, Ordering::Relaxed);
            if look == 1 {
                // The clock reaches the deadline while this runs.
                assert_pending!(task::spawn(advance(10 * MS)).poll());
            }
            match look {
                0 | 1 => Poll::Pending,
                _ => Poll::Ready(Ok::<_, BoxError>(Response::new(Empty::<Bytes>::new()))),
            }
        })
    });
    let layer = PassthroughLayer::new().within(10 * MS);
    let mut call = task::spawn(layer.layer(backend).oneshot(get("/")));
    assert_pending!(call.poll());
    assert_eq!(looks.load(Ordering::Relaxed), 1);
    let response = assert_ready!(call.poll()).expect("infallible");
    assert_eq!(response.status(), 200);
    assert_eq!(looks.load(Ordering::Relaxed), 3);
}

/// Tokio lets a task make so much progress in one turn; then all that it asks is pending until the next. That is not late.
#[tokio::test(start_paused = true)]
async fn a_call_that_is_finished_at_its_deadline_wins_in_a_busy_task() {
    let backend = service_fn(|_: Request<_>| async {
        tokio::time::sleep(10 * MS).await;
        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
    });
    for turns in [0, 1, 2, 64] {
        let layer = PassthroughLayer::new().within(10 * MS);
        let mut call = std::pin::pin!(layer.layer(backend).oneshot(get("/")));
        let (at, mut busy) = (Instant::now() + 10 * MS, turns);
        let response = std::future::poll_fn(|cx| {
            if busy > 0 && Instant::now() >= at {
                busy -= 1;
                for _ in 0..128 {
                    let _ = std::pin::pin!(consume_budget()).poll(cx);
                }
            }
            call.as_mut().poll(cx)
        });
        let response = response.await.expect("infallible");
        assert_eq!(response.status(), 200, "{turns}");
    }
}

#[tokio::test(start_paused = true)]
async fn dropping_the_call_drops_the_inner_one() {
    let backend = Scripted::reply(Reply::hang());
    let mut call = task::spawn(over(backend.clone()).oneshot(get("/")));
    assert_pending!(call.poll());
    drop(call);
    assert_eq!(backend.dropped(), 1);
}

// T10
#[tokio::test(start_paused = true)]
async fn a_call_that_comes_too_late_is_not_made() {
    for ago in [Duration::ZERO, MS] {
        let backend = Scripted::reply(Reply::status(200));
        let mut request = post("/", "");
        request
            .extensions_mut()
            .insert(Deadline::after(Duration::ZERO));
        advance(ago).await;
        ask(&over(backend.clone()), request)
            .await
            .assert_problem(504);
        assert_eq!(backend.started(), 0);
    }
    // Nor is one that has waited too long for its service.
    let backend = Scripted::reply(Reply::status(200)).ready_after(10 * MS);
    let layer = PassthroughLayer::new().within(10 * MS);
    ask(&layer.layer(backend.clone()), get("/"))
        .await
        .assert_problem(504);
    assert_eq!(backend.started(), 0);
    // Who enforces it outside answers.
    let backend = Scripted::reply(Reply::status(200));
    let mut request = post("/", "");
    let deadline = Deadline::after(Duration::ZERO).enforced();
    request.extensions_mut().insert(deadline);
    assert_eq!(ask(&over(backend), request).await.status, 200);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_backend_is_an_answer_as_well() {
    let layer = PassthroughLayer::new().within(10 * MS);
    for (place, status) in [
        (Place::Clone, 502),
        (Place::Ready, 502),
        (Place::Call, 502),
        (Place::Poll, 502),
        // It is late, or has answered, whatever it does then.
        (Place::Late, 504),
        (Place::Finished, 200),
    ] {
        let backend = Panics::at(place, Scripted::reply(Reply::status(200)));
        let call = layer.layer(backend).call(post("/", ""));
        let answer = Answer::read(call.await.expect("infallible")).await;
        assert_eq!(answer.status, status, "{place:?}");
        assert!(!answer.body.contains("s3cret"));
        if status != 200 {
            answer.assert_problem(status);
        }
    }
}

/// Its head is out: whoever reads the body has to know that there is no more of it.
#[tokio::test]
async fn a_panic_of_a_body_goes_on_to_its_reader() {
    let body = StreamBody::new(futures_util::stream::poll_fn(
        |_| -> Poll<Option<Result<Frame<Bytes>, BoxError>>> { panic!("s3cret") },
    ));
    let backend = Hand::new();
    backend.finish(Response::new(body));
    let response = over(backend).oneshot(get("/")).await.unwrap();
    let mut body = response.into_body();
    let read = tokio::spawn(async move { body.frame().await.is_some() });
    assert!(read.await.expect_err("a panic").is_panic());
}

/// Of just so many fields, and of so many bytes of them.
fn head_of(fields: usize, bytes: usize) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for index in 0..fields {
        let name: HeaderName = format!("x-{index:0>6}").parse().expect("a name");
        let rest = if index == 0 { bytes - 8 * fields } else { 0 };
        let value = "v".repeat(rest).try_into().expect("a value");
        headers.append(name, value);
    }
    headers
}

// B20
#[tokio::test]
async fn the_head_of_an_answer_is_bounded() {
    for (fields, bytes, fits) in [
        (128, 64 * 1024, true),
        (129, 2_000, false),
        (1, 64 * 1024 + 1, false),
    ] {
        for status in [200, 404] {
            let backend = Hand::new();
            let mut response = Response::new(Empty::<Bytes>::new());
            *response.status_mut() = status.try_into().expect("a status");
            *response.headers_mut() = head_of(fields, bytes);
            backend.finish(response);
            let answer = ask(&over(backend), get("/")).await;
            if fits {
                assert_eq!((answer.status, answer.headers.len()), (status, fields));
            } else {
                answer.assert_problem(502);
            }
        }
    }
    let backend = Hand::new();
    let mut response = Response::new(Empty::<Bytes>::new());
    *response.headers_mut() = head_of(300, 100_000);
    backend.finish(response);
    let layer = PassthroughLayer::new()
        .max_response_fields(300)
        .max_response_head_bytes(100_000);
    let answer = ask(&layer.layer(backend), get("/")).await;
    assert_eq!((answer.status, answer.headers.len()), (200, 300));
}
