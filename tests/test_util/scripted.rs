//! A backend that keeps to its script, and remembers what became of every call.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, Request, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::time::{Instant, timeout};
use tokio_test::{assert_pending, assert_ready_ok, task};
use tower::{Service, ServiceExt};
use watershed::clone_request::TeeBody;
use watershed::deadline::{Phase, TimedOut};
use watershed::error::{ClientFault, cause_ref};
use watershed::fanout::FanOut;
use watershed::outcome::{Branch, BranchError};
use watershed::test_util::{RecordedCall, Reply, Scripted, ScriptedError};

use crate::common::{MS, call, get, text};

#[tokio::test]
async fn replies_are_given_in_order_and_the_last_one_again() {
    let backend = Scripted::new([
        Reply::status(503)
            .header("retry-after", 7)
            .header("x", "1")
            .header("x", "2"),
        Reply::json(r#"{"a":1}"#),
    ]);
    let first = call(&backend).await.unwrap();
    assert_eq!(first.status(), 503);
    assert_eq!(first.headers()["retry-after"], "7");
    assert_eq!(first.headers().get_all("x").iter().count(), 2);
    assert_eq!(text(first).await, "");
    for _ in 0..2 {
        let next = call(&backend).await.unwrap();
        assert_eq!(next.status(), 200);
        assert_eq!(next.headers()["content-type"], "application/json");
        assert_eq!(text(next).await, r#"{"a":1}"#);
    }
    assert_eq!((backend.started(), backend.finished()), (3, 3));
}

#[test]
#[should_panic(expected = "a script needs a reply")]
fn an_empty_script_is_refused() {
    let _ = Scripted::new([]);
}

#[tokio::test(start_paused = true)]
async fn head_and_body_come_at_their_instants() {
    let backend = Scripted::reply(
        Reply::status(200)
            .after(10 * MS)
            .frames(["a", "b"])
            .body_after(20 * MS),
    );
    let start = Instant::now();
    let response = call(&backend).await.unwrap();
    assert_eq!(start.elapsed(), 10 * MS);
    // The body's time runs from the head, not from the first read.
    tokio::time::advance(15 * MS).await;
    let mut body = response.into_body();
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "a");
    assert_eq!(start.elapsed(), 30 * MS);
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "b");
    assert!(body.frame().await.is_none());
    assert_eq!(start.elapsed(), 30 * MS);
}

#[tokio::test(start_paused = true)]
async fn an_empty_body_may_take_its_time_as_well() {
    let backend = Scripted::reply(Reply::status(204).body_after(20 * MS));
    let start = Instant::now();
    let mut body = call(&backend).await.unwrap().into_body();
    assert!(!body.is_end_stream());
    assert!(body.frame().await.is_none());
    assert_eq!(start.elapsed(), 20 * MS);

    let backend = Scripted::reply(Reply::json("1").body_after(20 * MS));
    let mut body = call(&backend).await.unwrap().into_body();
    body.frame().await.unwrap().unwrap();
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn a_whole_body_announces_its_length_and_its_end() {
    let backend = Scripted::reply(Reply::status(200).body("abc"));
    let mut body = call(&backend).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(3));
    assert!(!body.is_end_stream());
    body.frame().await.unwrap().unwrap();
    assert!(body.is_end_stream());
    drop(body);
    assert_eq!(
        (backend.bodies_finished(), backend.bodies_dropped()),
        (1, 0)
    );
}

#[tokio::test]
async fn frames_are_given_as_they_are_and_announce_nothing() {
    let backend = Scripted::reply(Reply::status(200).frames(["a", "", "b"]));
    let mut body = call(&backend).await.unwrap().into_body();
    for expected in ["a", "", "b"] {
        assert_eq!(body.size_hint().exact(), None);
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), expected);
    }
    assert!(!body.is_end_stream());
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
    assert_eq!(backend.bodies_finished(), 1);
    drop(body);
    assert_eq!(
        (backend.bodies_finished(), backend.bodies_dropped()),
        (1, 0)
    );
}

#[tokio::test]
async fn trailers_follow_the_data() {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    let backend = Scripted::reply(Reply::json("1").trailers(trailers.clone()));
    let mut body = call(&backend).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    assert!(!body.is_end_stream());
    let frame = body.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_trailers().unwrap(), trailers);
    assert!(body.frame().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_head_that_never_comes_is_dropped_by_its_caller() {
    let backend = Scripted::reply(Reply::hang());
    assert!(timeout(1000 * MS, call(&backend)).await.is_err());
    assert_eq!((backend.started(), backend.finished()), (1, 0));
    assert_eq!((backend.dropped(), backend.in_flight()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_dropped_by_its_reader() {
    let backend = Scripted::reply(Reply::json("12").then_hang());
    let mut body = call(&backend).await.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), None);
    assert!(body.frame().await.unwrap().unwrap().is_data());
    assert!(timeout(1000 * MS, body.frame()).await.is_err());
    assert!(!body.is_end_stream());
    drop(body);
    assert_eq!(
        (backend.bodies_finished(), backend.bodies_dropped()),
        (0, 1)
    );
    assert_eq!((backend.finished(), backend.dropped()), (1, 0));
}

#[tokio::test]
async fn a_body_that_is_cut_short_ends_with_an_error() {
    let backend = Scripted::reply(Reply::status(200).frames(["1"]).then_fail());
    let mut body = call(&backend).await.unwrap().into_body();
    assert!(body.frame().await.unwrap().unwrap().is_data());
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(cause_ref::<ScriptedError>(error.as_ref()).is_some());
    assert!(body.frame().await.is_none());
    assert_eq!(backend.bodies_finished(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_service_fails_as_the_script_says() {
    let late = TimedOut::new(Phase::Head, MS, MS);
    let backend = Scripted::new([Reply::fail("refused").after(5 * MS), Reply::error(late)]);
    let start = Instant::now();
    let error = call(&backend).await.unwrap_err();
    assert_eq!(start.elapsed(), 5 * MS);
    let error = cause_ref::<ScriptedError>(error.as_ref());
    assert_eq!(error, Some(&ScriptedError::new("refused")));
    let error = call(&backend).await.unwrap_err();
    assert_eq!(cause_ref::<TimedOut>(error.as_ref()), Some(&late));
    assert_eq!((backend.finished(), backend.dropped()), (2, 0));
}

#[tokio::test]
async fn a_panic_is_the_calls_end() {
    let backend = Scripted::reply(Reply::panic("boom"));
    let computed = Scripted::from_fn(|_| panic!("in the script"));
    let fan_out = FanOut::new([
        Branch::http("a", backend.clone()),
        Branch::http("b", computed.clone()),
    ]);
    let gather = fan_out.oneshot(Request::new(TeeBody::empty())).await;
    let outcomes: Vec<_> = gather.unwrap().collect().await;
    for (outcome, expected) in outcomes.iter().zip(["boom", "in the script"]) {
        match &outcome.result {
            Err(BranchError::Panicked(text)) => assert_eq!(text, expected),
            other => panic!("{other:?}"),
        }
    }
    for backend in [backend, computed] {
        assert_eq!((backend.finished(), backend.dropped()), (1, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn a_backend_may_never_be_ready() {
    let backend = Scripted::never_ready();
    assert!(timeout(1000 * MS, call(&backend)).await.is_err());
    assert_eq!(backend.started(), 0);
}

#[tokio::test]
async fn readiness_may_fail() {
    let error = call(&Scripted::ready_fails("no pool")).await.unwrap_err();
    assert_eq!(error.to_string(), "no pool");
    assert!(cause_ref::<ScriptedError>(error.as_ref()).is_some());
}

#[tokio::test(start_paused = true)]
async fn readiness_takes_its_time_for_each_clone_and_each_call() {
    let mut backend = Scripted::reply(Reply::status(200)).ready_after(10 * MS);
    let start = Instant::now();
    ServiceExt::<Request<Empty<Bytes>>>::ready(&mut backend)
        .await
        .unwrap();
    assert_eq!(start.elapsed(), 10 * MS);

    let mut clone = backend.clone();
    let mut ready = task::spawn(ServiceExt::<Request<Empty<Bytes>>>::ready(&mut clone));
    assert_pending!(ready.poll());
    drop(ready);

    for calls in 1..3 {
        let service = ServiceExt::<Request<Empty<Bytes>>>::ready(&mut backend).await;
        service.unwrap().call(get("/")).await.unwrap();
        assert_eq!(start.elapsed(), 10 * MS * calls);
    }
}

#[tokio::test]
#[should_panic(expected = "called without having been ready")]
async fn a_call_of_a_clone_of_what_was_ready_panics() {
    let mut backend = Scripted::reply(Reply::status(200));
    let ready = ServiceExt::<Request<Empty<Bytes>>>::ready(&mut backend).await;
    let mut clone = ready.unwrap().clone();
    drop(clone.call(get("/")));
}

#[tokio::test(start_paused = true)]
async fn everything_that_was_received_is_recorded() {
    let backend = Scripted::reply(Reply::status(204));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    let body = StreamBody::new(futures_util::stream::iter([
        Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"he"))),
        Ok(Frame::data(Bytes::from_static(b"llo"))),
        Ok(Frame::trailers(trailers.clone())),
    ]));
    let request = Request::put("/a?b=c")
        .version(Version::HTTP_2)
        .header("x", "1")
        .body(body)
        .unwrap();
    backend.clone().oneshot(request).await.unwrap();
    tokio::time::advance(30 * MS).await;
    call(&backend).await.unwrap();

    let calls = backend.calls();
    let RecordedCall {
        at,
        method,
        uri,
        version,
        headers,
        body,
        trailers: received,
        ..
    } = &calls[0];
    assert_eq!((method, *version), (&Method::PUT, Version::HTTP_2));
    assert_eq!(uri, "/a?b=c");
    assert_eq!(headers["x"], "1");
    assert_eq!(body.as_deref(), Some(&b"hello"[..]));
    assert_eq!(received.as_ref(), Some(&trailers));
    assert_eq!(calls[1].at - *at, 30 * MS);
    assert_eq!(calls[1].body.as_deref(), Some(&b""[..]));
}

#[tokio::test]
async fn the_record_has_a_limit_and_the_counters_have_none() {
    let backend = Scripted::reply(Reply::status(204)).keep_calls(2);
    for path in ["/0", "/1", "/2"] {
        backend.clone().oneshot(get(path)).await.unwrap();
    }
    let paths: Vec<_> = backend
        .calls()
        .iter()
        .map(|call| call.uri.clone())
        .collect();
    assert_eq!(paths, ["/0", "/1"]);
    assert_eq!((backend.started(), backend.finished()), (3, 3));
}

/// A body that says when it is dropped.
struct Watched(#[allow(dead_code)] Arc<()>);

impl Body for Watched {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        panic!("read");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_body_may_be_left_unread() {
    let backend = Scripted::reply(Reply::status(200).after(MS)).reads_request_body(false);
    let alive = Arc::new(());
    let request = Request::post("/").body(Watched(alive.clone())).unwrap();
    let mut future = task::spawn(backend.clone().oneshot(request));
    assert_pending!(future.poll());
    assert_eq!(Arc::strong_count(&alive), 2);
    tokio::time::advance(MS).await;
    let response = assert_ready_ok!(future.poll());
    assert_eq!(Arc::strong_count(&alive), 1);
    assert_eq!(response.status(), 200);
    assert_eq!(backend.calls()[0].body, None);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_before_the_request_is_read() {
    let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
    let body = StreamBody::new(
        async move {
            receiver.await.unwrap();
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"late")))
        }
        .into_stream()
        .boxed(),
    );
    let backend = Scripted::echo();
    let mut future = task::spawn(
        backend
            .clone()
            .oneshot(Request::post("/").body(body).unwrap()),
    );
    assert_pending!(future.poll());
    assert_eq!((backend.in_flight(), &backend.calls()[0].body), (1, &None));
    sender.send(()).unwrap();
    let response = assert_ready_ok!(future.poll());
    assert!(text(response).await.ends_with(r#""body":"late"}"#));
}

#[tokio::test]
async fn the_error_of_a_request_body_is_the_services() {
    let backend = Scripted::echo();
    let body = TeeBody::new(Full::from("too long"), 3);
    let request = Request::post("/").body(body).unwrap();
    let error = backend.clone().oneshot(request).await.unwrap_err();
    let fault = cause_ref::<ClientFault>(error.as_ref()).expect("the cause");
    assert_eq!(fault.status(), 413);
    assert_eq!((backend.finished(), backend.dropped()), (1, 0));
    assert_eq!(backend.calls()[0].body, None);
}

#[tokio::test]
async fn an_echo_says_what_was_received() {
    let request = Request::post("/a%20b?c=%22d")
        .header("x", "2")
        .header("b", "1")
        .header("y", "3")
        .header("accept", "a")
        .header("accept", "b")
        .body(Full::from("say \"hi\"\n"))
        .unwrap();
    let response = Scripted::echo().oneshot(request).await.unwrap();
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(
        text(response).await,
        r#"{"method":"POST","path":"/a%20b","query":"c=%22d","headers":{"accept":"a, b","b":"1","x":"2","y":"3"},"body":"say \"hi\"\n"}"#,
    );

    let backend = Scripted::echo().reads_request_body(false);
    let echo: serde_json::Value =
        serde_json::from_str(&text(call(&backend).await.unwrap()).await).unwrap();
    assert!(echo["query"].is_null() && echo["body"].is_null());
}

#[tokio::test]
async fn a_reply_may_depend_on_the_call() {
    let backend = Scripted::from_fn(|call| match call.uri.path() {
        "/found" => Reply::json(call.body.clone().expect("read")),
        _ => Reply::status(404),
    });
    let request = Request::post("/found").body(Full::from("[1]")).unwrap();
    let response = backend.clone().oneshot(request).await.unwrap();
    assert_eq!(text(response).await, "[1]");
    assert_eq!(call(&backend).await.unwrap().status(), 404);
}

#[tokio::test]
async fn calls_at_once_are_counted_polled_or_not() {
    let backend = Scripted::reply(Reply::hang());
    let mut clones = [backend.clone(), backend.clone()];
    let mut futures = Vec::new();
    for clone in &mut clones {
        let service = ServiceExt::<Request<Empty<Bytes>>>::ready(clone).await;
        futures.push(service.unwrap().call(get("/")));
    }
    assert_eq!((backend.started(), backend.in_flight()), (2, 2));
    futures.pop();
    assert_eq!((backend.dropped(), backend.in_flight()), (1, 1));
    drop(futures);
    assert_eq!(backend.dropped(), 2);
    assert_eq!(backend.peak_in_flight(), 2);
}

#[test]
fn it_fits_where_a_client_fits() {
    fn shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
    let backend = Scripted::echo();
    shareable(&backend);
    let _ = Branch::http("a", backend);
}
