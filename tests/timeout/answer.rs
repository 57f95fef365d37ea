//! Which answer there is, that there is one, and what is on it.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::util::{BoxCloneSyncService, MapResponseLayer};
use tower::{Layer, Service, ServiceExt, service_fn};
use watershed::body::BoxBody;
use watershed::deadline::{Phase, TimedOut};
use watershed::error::BoxError;
use watershed::timeout::{ResponseHeaders, Sealed, Start, TimeoutLayer};

use crate::support::{Answer, Bomb, Hand, MS, on_paused_clock};
use crate::{Answering, Handler, Whole, mark, request, response, sleeper, text};

fn late() -> TimeoutLayer {
    TimeoutLayer::new(10 * MS)
}

/// The answer of a call that never ends.
async fn timed_out(layer: &TimeoutLayer) -> Answer {
    timed_out_by(layer, Method::GET).await
}

async fn timed_out_by(layer: &TimeoutLayer, method: Method) -> Answer {
    let service = service_fn(|_| pending::<Result<Response<Whole>, BoxError>>());
    let mut request = request();
    *request.method_mut() = method;
    let response = layer.layer(service).oneshot(request).await;
    Answer::read(response.expect("an answer")).await
}

#[tokio::test(start_paused = true)]
async fn a_call_that_takes_too_long_is_answered_at_the_very_instant() {
    for limit in [MS, 10 * MS, Duration::from_secs(3600)] {
        let start = Instant::now();
        let service = TimeoutLayer::new(limit).layer(sleeper(limit + MS));
        let answer = service.oneshot(request()).await.expect("an answer");
        assert_eq!(start.elapsed(), limit);
        assert_eq!(mark(&answer), TimedOut::new(Phase::Head, limit, limit));
        let answer = Answer::read(answer).await;
        let problem = answer.assert_problem(504);
        assert_eq!(problem["detail"], "the time for this request ran out");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_in_time_is_passed_through() {
    let answer = late().layer(sleeper(9 * MS)).oneshot(request()).await;
    let answer = answer.expect("in time");
    assert!(answer.extensions().get::<TimedOut>().is_none());
    assert_eq!(answer.headers()["x-inner"], "in time");
    assert_eq!(text(answer).await, "in time");
}

type Stack = BoxCloneSyncService<Request<()>, Response<BoxBody>, BoxError>;

/// Adds a field to every response that it sees.
fn adds<S, B>(name: &'static str, service: S) -> Stack
where
    S: Service<Request<()>, Response = Response<B>, Error = BoxError>
        + Clone
        + Send
        + Sync
        + 'static,
    S::Future: Send,
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let add = MapResponseLayer::new(move |mut response: Response<B>| {
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static("1"));
        response.map(BoxBody::new)
    });
    BoxCloneSyncService::new(add.layer(service))
}

// T01
#[tokio::test(start_paused = true)]
async fn wherever_the_layer_stands_it_gives_the_same_answer_with_the_fields_of_those_outside() {
    let slow = || {
        BoxCloneSyncService::new(service_fn(|_: Request<()>| async {
            sleep(20 * MS).await;
            Ok::<_, BoxError>(response("late").map(BoxBody::new))
        }))
    };
    let timeout = |service: Stack| adds("x-timeout", late().layer(service));
    let outermost = timeout(adds("x-a", adds("x-b", slow())));
    let middle = adds("x-a", timeout(adds("x-b", slow())));
    let innermost = adds("x-a", adds("x-b", timeout(slow())));
    for (stack, fields) in [
        (outermost, &["x-timeout"][..]),
        (middle, &["x-timeout", "x-a"]),
        (innermost, &["x-timeout", "x-b", "x-a"]),
    ] {
        let start = Instant::now();
        let answer = stack.oneshot(request()).await.expect("an answer");
        assert_eq!(
            (answer.status(), start.elapsed()),
            (StatusCode::GATEWAY_TIMEOUT, 10 * MS)
        );
        let mut names: Vec<_> = answer.headers().keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let mut expected = [fields, &["content-type"]].concat();
        expected.sort_unstable();
        assert_eq!(names, expected);
    }
}

// T02
#[tokio::test(start_paused = true)]
async fn what_a_layer_outside_adds_is_on_the_timeout_answer() {
    let inner = late().layer(sleeper(20 * MS));
    let outer = service_fn(move |request: Request<()>| {
        // Chosen before the call, and set after it.
        let id = HeaderValue::from_static("7");
        let call = inner.clone().oneshot(request);
        async move {
            let mut response = call.await?;
            response.headers_mut().insert("x-request-id", id);
            let status = HeaderValue::from_str(response.status().as_str()).expect("digits");
            response.headers_mut().insert("x-saw", status);
            Ok::<_, BoxError>(response)
        }
    });
    let answer = outer.oneshot(request()).await.expect("an answer");
    assert_eq!(answer.headers()["x-request-id"], "7");
    assert_eq!(answer.headers()["x-saw"], "504");
}

// T03
#[tokio::test(start_paused = true)]
async fn nothing_of_what_the_handler_had_ready_is_on_the_timeout_answer() {
    let service = service_fn(|request: Request<()>| async move {
        let headers: &ResponseHeaders = request.extensions().get().expect("shared");
        headers
            .insert(
                HeaderName::from_static("x-staged"),
                HeaderValue::from_static("1"),
            )
            .expect("open");
        headers
            .append(CONTENT_TYPE, HeaderValue::from_static("text/html"))
            .expect("open");
        let mut ready = response("half of it");
        *ready.status_mut() = StatusCode::CREATED;
        sleep(20 * MS).await;
        Ok::<_, BoxError>(ready)
    });
    let answer = late()
        .share_headers()
        .layer(service)
        .oneshot(request())
        .await;
    let answer = Answer::read(answer.expect("an answer")).await;
    answer.assert_problem(504);
    assert_eq!(answer.headers.len(), 1, "{answer:?}");
}

// T08
#[tokio::test(start_paused = true)]
async fn at_a_tie_finished_work_wins() {
    for run in 0..10_000u32 {
        let limit = MS * (1 + run % 60);
        let answer = TimeoutLayer::new(limit)
            .layer(sleeper(limit))
            .oneshot(request())
            .await;
        assert_eq!(answer.expect("an answer").status(), 200);
    }
}

/// The call has nothing when it is looked at before the deadline, and something when the timer is looked at just after it.
#[tokio::test(start_paused = true)]
async fn what_is_there_at_the_deadline_is_seen_though_it_came_between_two_looks() {
    let looks = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&looks);
    let service = service_fn(move |_| {
        let seen = Arc::clone(&seen);
        std::future::poll_fn(move |cx| {
            // At the second look, the clock is about to reach the deadline while this runs.
            match seen.fetch_add(1, Ordering::Relaxed) {
                0 => Poll::Pending,
                1 => {
                    assert!(task::spawn(advance(10 * MS)).poll().is_pending());
                    let _ = cx;
                    Poll::Pending
                }
                _ => Poll::Ready(Ok::<_, BoxError>(response("in time"))),
            }
        })
    });
    let mut call = task::spawn(late().layer(service).oneshot(request()));
    assert_pending!(call.poll());
    assert_eq!(looks.load(Ordering::Relaxed), 1);
    let answer = assert_ready!(call.poll()).expect("an answer");
    assert_eq!(
        (answer.status(), looks.load(Ordering::Relaxed)),
        (StatusCode::OK, 3)
    );
}

// T09
#[tokio::test(start_paused = true)]
async fn the_hook_fires_for_every_timeout_answer_and_for_nothing_else() {
    let told = Arc::new(Mutex::new(Vec::new()));
    let tells = Arc::clone(&told);
    let layer = late().on_timeout(move |timed_out| {
        tells.lock().expect("not poisoned").push(*timed_out);
    });
    let mut late_answers = Vec::new();
    for delay in 0..40 {
        let delay = MS * (delay % 20);
        let answer = layer
            .layer(sleeper(delay))
            .oneshot(request())
            .await
            .expect("an answer");
        assert_eq!(
            answer.status() == StatusCode::GATEWAY_TIMEOUT,
            delay > 10 * MS
        );
        late_answers.extend(answer.extensions().get::<TimedOut>().copied());
    }
    // Failed, panicked and cancelled calls are no timeouts.
    let hand = Hand::<Response<Whole>>::new();
    hand.fail("refused");
    layer
        .layer(hand.clone())
        .oneshot(request())
        .await
        .expect_err("refused");
    let mut cancelled = task::spawn(layer.layer(hand).oneshot(request()));
    assert_pending!(cancelled.poll());
    drop(cancelled);
    let panics = service_fn(|_| -> Answering { Box::pin(async { panic!("on purpose") }) });
    let panicked = tokio::spawn(layer.layer(panics).oneshot(request())).await;
    assert!(panicked.expect_err("it panics").is_panic());

    assert_eq!(late_answers.len(), 18);
    assert_eq!(*told.lock().expect("not poisoned"), late_answers);
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_loses_no_answer_and_poisons_nothing() {
    let layer = late()
        .status(StatusCode::SERVICE_UNAVAILABLE)
        .respond_with(|_| panic!("on purpose"))
        .on_timeout(|_| panic!("on purpose"));
    for _ in 0..3 {
        timed_out(&layer).await.assert_problem(503);
    }
}

// T10
#[test]
fn zero_is_refused() {
    let error = TimeoutLayer::try_new(Duration::ZERO).expect_err("refused");
    let panic = std::panic::catch_unwind(|| TimeoutLayer::new(Duration::ZERO));
    let panic = panic.expect_err("refused");
    assert_eq!(panic.downcast_ref(), Some(&error.to_string()));
    assert!(TimeoutLayer::try_new(Duration::from_nanos(1)).is_ok());
    let error = late().try_idle(Duration::ZERO).expect_err("refused");
    let panic = std::panic::catch_unwind(|| late().idle(Duration::ZERO));
    let panic = panic.expect_err("refused");
    assert_eq!(panic.downcast_ref(), Some(&error.to_string()));
    assert!(late().try_idle(Duration::from_nanos(1)).is_ok());
}

// T11
#[test]
fn the_longest_durations_arm_no_timer() {
    // There is no runtime here that a timer could be armed in.
    for limit in [Duration::MAX, Duration::from_secs(u64::MAX)] {
        for start in [Start::Ready, Start::Call] {
            let hand = Hand::new();
            let layer = TimeoutLayer::new(limit)
                .start(start)
                .idle(limit)
                .share_headers();
            let mut call = task::spawn(layer.layer(hand.clone()).oneshot(request()));
            assert_pending!(call.poll());
            hand.finish(response("in time"));
            assert_eq!(assert_ready!(call.poll()).expect("an answer").status(), 200);
        }
    }
}

#[test]
fn a_call_that_is_ready_at_once_arms_no_timer() {
    let hand = Hand::new();
    hand.finish(response("at once"));
    let mut call = task::spawn(late().layer(hand).oneshot(request()));
    assert_eq!(assert_ready!(call.poll()).expect("an answer").status(), 200);
}

// T12
#[tokio::test(start_paused = true)]
async fn a_panic_goes_on_with_its_payload() {
    let sealed = Arc::new(Mutex::new(None));
    let handle = Arc::clone(&sealed);
    let service = service_fn(move |request: Request<()>| -> Answering {
        *handle.lock().expect("not poisoned") =
            request.extensions().get::<ResponseHeaders>().cloned();
        Box::pin(async {
            sleep(MS).await;
            std::panic::panic_any(7_u32)
        })
    });
    let call = tokio::spawn(late().share_headers().layer(service).oneshot(request()));
    let panic = call.await.expect_err("it panics").into_panic();
    assert_eq!(panic.downcast_ref(), Some(&7_u32));
    let headers = sealed
        .lock()
        .expect("not poisoned")
        .clone()
        .expect("shared");
    assert_eq!(headers.state(), Some(Sealed::Panicked));
}

#[tokio::test(start_paused = true)]
async fn late_work_that_panics_as_it_goes_takes_no_answer_along() {
    let service = service_fn(|_| async {
        let _bomb = Bomb("as it goes");
        pending::<Result<Response<Whole>, BoxError>>().await
    });
    let answer = late().layer(service).oneshot(request()).await;
    assert_eq!(answer.expect("an answer").status(), 504);
}

// T17
#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_takes_the_call_along_and_that_is_no_timeout() {
    let handler = Handler::new();
    let mut call = task::spawn(
        late()
            .share_headers()
            .layer(handler.clone())
            .oneshot(request()),
    );
    assert_pending!(call.poll());
    let headers = handler.headers();
    assert_eq!(headers.state(), None);
    drop(call);
    assert_eq!((handler.hand.calls(), handler.hand.drops()), (1, 1));
    assert_eq!(headers.state(), Some(Sealed::Cancelled));
}

/// The order of the end: late work is gone before its caller has an answer.
#[tokio::test(start_paused = true)]
async fn the_call_is_gone_before_its_answer_is_returned() {
    // Not by `oneshot`, which drops the future as soon as that has an answer.
    let hand = Hand::new();
    let hooked = hand.clone();
    let layer = late().on_timeout(move |_| assert_eq!(hooked.drops(), 1));
    let mut call = task::spawn(layer.layer(hand.clone()).call(request()));
    assert_pending!(call.poll());
    advance(10 * MS).await;
    assert!(call.is_woken());
    assert_eq!(assert_ready!(call.poll()).expect("an answer").status(), 504);
    assert_eq!(hand.drops(), 1);

    let mut call = task::spawn(layer.layer(hand.clone()).call(request()));
    hand.finish(response("in time"));
    assert_ready!(call.poll()).expect("in time");
    assert_eq!(hand.drops(), 2);
}

/// Ready after so long, and answers after as long again; or fails to get ready.
#[derive(Debug)]
struct Queue {
    wait: Duration,
    fails: bool,
    timer: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
    calls: Arc<AtomicUsize>,
}

impl Queue {
    fn of(wait: Duration) -> Self {
        Self {
            wait,
            fails: false,
            timer: None,
            calls: Arc::default(),
        }
    }
}

impl Clone for Queue {
    fn clone(&self) -> Self {
        Self {
            timer: None,
            calls: Arc::clone(&self.calls),
            ..*self
        }
    }
}

impl Service<Request<()>> for Queue {
    type Response = Response<Whole>;
    type Error = BoxError;
    type Future = Answering;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let wait = self.wait;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(wait)));
        timer.as_mut().poll(cx).map(|()| match self.fails {
            true => Err("broken".into()),
            false => Ok(()),
        })
    }

    fn call(&mut self, _: Request<()>) -> Answering {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let wait = self.wait;
        Box::pin(async move {
            sleep(wait).await;
            Ok(response("in time"))
        })
    }
}

// T20
#[tokio::test(start_paused = true)]
async fn whether_a_queue_counts_is_for_the_user_to_say() {
    let start = Instant::now();
    let queue = Queue::of(Duration::from_secs(2));
    let limit = TimeoutLayer::new(Duration::from_millis(1500));
    let answer = limit
        .layer(queue.clone())
        .oneshot(request())
        .await
        .expect("an answer");
    assert_eq!(
        (
            mark(&answer).phase,
            start.elapsed(),
            queue.calls.load(Ordering::Relaxed)
        ),
        (Phase::Readiness, Duration::from_millis(1500), 0)
    );

    // The limit begins with the call, after two seconds.
    let start = Instant::now();
    let limit = limit.start(Start::Call);
    let answer = limit
        .layer(queue.clone())
        .oneshot(request())
        .await
        .expect("an answer");
    let late = Duration::from_millis(1500);
    assert_eq!(mark(&answer), TimedOut::new(Phase::Head, late, late));
    assert_eq!(start.elapsed(), Duration::from_millis(3500));
    let patient = TimeoutLayer::new(Duration::from_millis(2500)).start(Start::Call);
    let answer = patient
        .layer(queue)
        .oneshot(request())
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 200);
}

// T20
#[tokio::test(start_paused = true)]
async fn a_readiness_error_is_never_a_timeout() {
    for wait in [MS, 10 * MS] {
        let broken = Queue {
            fails: true,
            ..Queue::of(wait)
        };
        let error = late()
            .layer(broken)
            .oneshot(request())
            .await
            .expect_err("broken");
        assert_eq!(error.to_string(), "broken");
    }
}

#[test]
fn it_is_always_ready_and_each_call_drives_a_clone_of_its_own() {
    // No runtime: whoever polled the template would arm its timer, and panic.
    let mut service = late().layer(Queue::of(MS));
    let mut cx = Context::from_waker(std::task::Waker::noop());
    assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_ready());
    drop(service.call(request()));
}

// T26
#[tokio::test(start_paused = true)]
async fn an_answer_without_a_body_is_framed_as_one() {
    let get = timed_out(&late()).await;
    let head = timed_out_by(&late(), Method::HEAD).await;
    assert_eq!((head.status, &*head.body), (504, ""));
    // What GET would have had.
    assert_eq!(
        head.field("content-length"),
        Some(&*get.body.len().to_string())
    );
    assert_eq!(head.field("content-type"), get.field("content-type"));

    for status in [
        StatusCode::NO_CONTENT,
        StatusCode::NOT_MODIFIED,
        StatusCode::RESET_CONTENT,
    ] {
        for layer in [
            late().status(status),
            late().status(status).body("a body"),
            late().respond_with(move |_| {
                let mut response = Response::new(Bytes::from_static(b"a body"));
                *response.status_mut() = status;
                response
                    .headers_mut()
                    .insert(CONTENT_LENGTH, HeaderValue::from_static("6"));
                response
            }),
        ] {
            for method in [Method::GET, Method::HEAD] {
                let answer = timed_out_by(&layer, method).await;
                assert_eq!((answer.status, &*answer.body), (status.as_u16(), ""));
                assert!(answer.headers.is_empty(), "{answer:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_answer_is_what_was_configured() {
    let layer = late()
        .status(StatusCode::SERVICE_UNAVAILABLE)
        .header(CONTENT_TYPE, HeaderValue::from_static("text/plain"))
        .header(
            HeaderName::from_static("retry-after"),
            HeaderValue::from_static("1"),
        )
        .header(
            HeaderName::from_static("x-two"),
            HeaderValue::from_static("1"),
        )
        .header(
            HeaderName::from_static("x-two"),
            HeaderValue::from_static("2"),
        );
    let answer = timed_out(&layer).await;
    assert_eq!(
        (answer.status, answer.field("content-type")),
        (503, Some("text/plain"))
    );
    assert_eq!(answer.json()["status"], 503);
    let layer = layer.body("later");
    let answer = timed_out(&layer).await;
    assert_eq!((answer.status, &*answer.body), (503, "later"));
    assert_eq!(answer.field("retry-after"), Some("1"));
    let two: Vec<_> = answer.headers.get_all("x-two").iter().collect();
    assert_eq!(two, ["1", "2"]);
    assert_eq!(answer.headers.len(), 4);
    // A body alone says nothing of its type.
    assert_eq!(
        timed_out(&late().body("later")).await.headers,
        HeaderMap::new()
    );
}

#[tokio::test(start_paused = true)]
async fn the_answer_may_be_made_of_how_the_time_ran_out() {
    let layer = late()
        .status(StatusCode::IM_A_TEAPOT)
        .respond_with(|timed_out| {
            Response::builder()
                .status(503)
                .header("x-phase", timed_out.phase.to_string())
                .header("connection", "x-private, close")
                .header("x-private", "1")
                .header("transfer-encoding", "chunked")
                .header("content-length", "3")
                .header("trailer", "x-sum")
                .body(Bytes::from(format!(
                    "{:?} of {:?}",
                    timed_out.elapsed, timed_out.limit
                )))
                .expect("a response")
        });
    let answer = timed_out(&layer).await;
    assert_eq!((answer.status, &*answer.body), (503, "10ms of 10ms"));
    // What is for the server to say is gone.
    assert_eq!(answer.headers.len(), 1);
    assert_eq!(answer.field("x-phase"), Some("the response head"));
    // What is no answer is not given.
    let informs = late().respond_with(|_| {
        let response = Response::builder().status(StatusCode::SWITCHING_PROTOCOLS);
        response.body(Bytes::new()).expect("a response")
    });
    timed_out(&informs).await.assert_problem(504);
}

#[tokio::test(start_paused = true)]
async fn a_timed_out_connect_is_no_tunnel() {
    let answer = timed_out_by(&late().status(StatusCode::OK), Method::CONNECT).await;
    assert_eq!(answer.status, 504);
    let answer = timed_out_by(&late().status(StatusCode::OK), Method::POST).await;
    assert_eq!(answer.status, 200);
}

#[test]
fn what_can_not_be_an_answer_is_refused() {
    for status in [100, 101, 103, 199] {
        let status = StatusCode::from_u16(status).expect("a status");
        assert!(std::panic::catch_unwind(|| late().status(status)).is_err());
    }
    for name in [
        "content-length",
        "transfer-encoding",
        "trailer",
        "connection",
        "te",
        "upgrade",
    ] {
        let name = HeaderName::from_static(name);
        let value = HeaderValue::from_static("1");
        assert!(std::panic::catch_unwind(|| late().header(name, value)).is_err());
    }
}

// T27
#[tokio::test(start_paused = true)]
async fn an_error_of_the_service_is_passed_on_as_it_is() {
    #[derive(Debug, PartialEq)]
    struct Refused(u32);

    let seen = Arc::new(Mutex::new(None));
    let handle = Arc::clone(&seen);
    let service = service_fn(move |request: Request<()>| {
        let headers: ResponseHeaders = request.extensions().get().cloned().expect("shared");
        let staged = headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        staged.expect("open");
        *handle.lock().expect("not poisoned") = Some(headers);
        async {
            sleep(MS).await;
            Err::<Response<Whole>, _>(Refused(7))
        }
    });
    let error = late()
        .share_headers()
        .layer(service)
        .oneshot(request())
        .await;
    assert_eq!(error.expect_err("refused"), Refused(7));
    let headers = seen.lock().expect("not poisoned").take().expect("called");
    assert_eq!(headers.state(), Some(Sealed::Failed));
}

// T29
#[tokio::test(start_paused = true)]
async fn clones_of_a_layer_and_of_a_service_share_nothing_of_a_call() {
    let handlers = [Handler::new(), Handler::new()];
    let layer = late().share_headers();
    let mut calls: Vec<_> = handlers
        .iter()
        .flat_map(|handler| {
            let service = layer.clone().layer(handler.clone());
            [service.clone(), service]
        })
        .map(|service| task::spawn(service.oneshot(request())))
        .collect();
    for (index, call) in calls.iter_mut().enumerate() {
        assert_pending!(call.poll());
        let headers = handlers[index / 2].headers();
        let own = HeaderValue::from(index);
        headers
            .insert(HeaderName::from_static("x-call"), own.clone())
            .expect("open");
        headers
            .pin(HeaderName::from_static("x-pinned"), own)
            .expect("open");
    }
    // One of each pair is answered in time, the other is late.
    for (index, call) in calls
        .iter_mut()
        .enumerate()
        .filter(|(index, _)| index % 2 == 0)
    {
        handlers[index / 2].hand.finish(response("in time"));
        let answer = assert_ready!(call.poll()).expect("an answer");
        assert_eq!(answer.headers()["x-call"], index.to_string());
        assert_eq!(answer.headers()["x-pinned"], index.to_string());
    }
    advance(10 * MS).await;
    for (index, call) in calls
        .iter_mut()
        .enumerate()
        .filter(|(index, _)| index % 2 == 1)
    {
        let answer = assert_ready!(call.poll()).expect("an answer");
        assert!(!answer.headers().contains_key("x-call"));
        assert_eq!(answer.headers()["x-pinned"], index.to_string());
    }
}

/// A body without a `Default`, and an error that is nobody's but the service's.
#[test]
fn it_asks_nothing_of_the_bodies_and_errors_of_others() {
    struct Opaque(Full<Bytes>);

    impl Body for Opaque {
        type Data = Bytes;
        type Error = std::convert::Infallible;

        fn poll_frame(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
            std::pin::Pin::new(&mut self.0).poll_frame(cx)
        }
    }

    on_paused_clock(async {
        let service = service_fn(|_: Request<()>| async {
            let body = Opaque(Full::from("whole"));
            Ok::<_, std::convert::Infallible>(Response::new(body))
        });
        let Ok(answer) = late().layer(service).oneshot(request()).await;
        assert_eq!(text(answer).await, "whole");
    });
}
