//! Work that goes on after its deadline: bounded, and accounted for to the last result.

use std::any::Any;
use std::convert::Infallible;
use std::future::pending;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use http::{HeaderValue, Method, Request, Response, StatusCode};
use tokio::time::{Sleep, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use watershed::background::Background;
use watershed::deadline::{Deadline, Phase};
use watershed::error::BoxError;
use watershed::timeout::{
    DetachedTimeoutLayer, Late, ResponseHeaders, Sealed, Start, TimeoutLayer, WriteError,
};

use crate::support::{Bomb, FedBody, Feed, Hand, MS};
use crate::{Answering, Handler, Whole, mark, request, response, sleeper, text, with_deadline};

/// What was late.
#[derive(Debug)]
enum Told {
    Response(StatusCode),
    Error(String),
    Panicked(Box<dyn Any + Send>),
}

#[derive(Clone)]
struct Hook {
    told: Arc<Mutex<Vec<Told>>>,
    background: Background,
}

impl Hook {
    fn new(limit: usize) -> Self {
        Self {
            told: Arc::default(),
            background: Background::new(limit),
        }
    }

    fn layer(&self, layer: TimeoutLayer) -> DetachedTimeoutLayer<Whole, BoxError> {
        let told = Arc::clone(&self.told);
        layer.detach(
            self.background.clone(),
            move |late: Late<Whole, BoxError>| {
                told.lock().expect("not poisoned").push(match late {
                    Late::Response(response) => Told::Response(response.status()),
                    Late::Error(error) => Told::Error(error.to_string()),
                    Late::Panicked(panic) => Told::Panicked(panic),
                    other => panic!("{other:?}"),
                });
            },
        )
    }

    /// Everything that was told, once all work is done.
    async fn all(&self) -> Vec<Told> {
        let unfinished = self.background.shutdown(Duration::MAX).await;
        assert_eq!((unfinished.aborted, self.background.running()), (0, 0));
        std::mem::take(&mut *self.told.lock().expect("not poisoned"))
    }
}

fn late() -> TimeoutLayer {
    TimeoutLayer::new(10 * MS)
}

// T15
#[tokio::test(start_paused = true)]
async fn late_work_is_finished_and_its_response_goes_to_the_hook() {
    let background = Background::default();
    let done = Arc::new(AtomicUsize::new(0));
    let (feed, body) = Feed::new();
    let body = Arc::new(Mutex::new(Some(body)));
    let effect = Arc::clone(&done);
    let service = service_fn(move |_: Request<()>| {
        let (done, body) = (Arc::clone(&effect), Arc::clone(&body));
        async move {
            sleep(30 * MS).await;
            done.fetch_add(1, Ordering::Relaxed);
            let body = body
                .lock()
                .expect("not poisoned")
                .take()
                .expect("called once");
            let mut response = Response::new(body);
            *response.status_mut() = StatusCode::CREATED;
            Ok::<_, BoxError>(response)
        }
    });
    let told = Arc::new(AtomicUsize::new(0));
    let (tells, fed) = (Arc::clone(&told), feed.clone());
    let layer = late().detach(background.clone(), move |late: Late<FedBody, BoxError>| {
        let Late::Response(response) = late else {
            panic!("{late:?}");
        };
        assert_eq!(response.status(), StatusCode::CREATED);
        // It is a live response: whoever wants to can read it, and it is dropped only then.
        assert!(!fed.is_dropped());
        tells.fetch_add(1, Ordering::Relaxed);
    });
    let answer = layer
        .layer(service)
        .oneshot(request())
        .await
        .expect("an answer");
    assert_eq!(mark(&answer).phase, Phase::Head);
    assert_eq!((background.running(), done.load(Ordering::Relaxed)), (1, 0));
    assert_eq!(background.shutdown(20 * MS).await.aborted, 0);
    assert_eq!(
        (done.load(Ordering::Relaxed), told.load(Ordering::Relaxed)),
        (1, 1)
    );
    assert!(feed.is_dropped());
}

#[tokio::test(start_paused = true)]
async fn work_in_time_is_its_callers_and_nobody_elses() {
    let hook = Hook::new(1);
    let layer = hook.layer(late());
    for delay in [Duration::ZERO, MS, 10 * MS] {
        let answer = layer.layer(sleeper(delay)).oneshot(request()).await;
        assert_eq!(answer.expect("an answer").status(), 200);
    }
    let hand = Hand::<Response<Whole>>::new();
    hand.fail("refused");
    let error = layer
        .layer(hand)
        .oneshot(request())
        .await
        .expect_err("refused");
    assert_eq!(error.to_string(), "refused");
    assert!(hook.all().await.is_empty());
}

// T12
#[tokio::test(start_paused = true)]
async fn a_panic_in_time_goes_on_with_its_payload() {
    let hook = Hook::new(1);
    let headers = Arc::new(Mutex::new(None));
    let handle = Arc::clone(&headers);
    let service = service_fn(move |request: Request<()>| -> Answering {
        *handle.lock().expect("not poisoned") =
            request.extensions().get::<ResponseHeaders>().cloned();
        Box::pin(async {
            sleep(MS).await;
            std::panic::panic_any(7_u32)
        })
    });
    let layer = hook.layer(late().share_headers().on_timeout(|_| unreachable!()));
    let call = tokio::spawn(layer.layer(service).oneshot(request()));
    let panic = call.await.expect_err("it panics").into_panic();
    assert_eq!(panic.downcast_ref(), Some(&7_u32));
    let headers = headers
        .lock()
        .expect("not poisoned")
        .take()
        .expect("called");
    assert_eq!(headers.state(), Some(Sealed::Panicked));
    assert!(hook.all().await.is_empty());
}

// T13
#[tokio::test(start_paused = true)]
async fn a_late_panic_and_a_late_error_go_to_the_hook_once() {
    let hook = Hook::new(2);
    let panics = service_fn(|_| -> Answering {
        Box::pin(async {
            sleep(20 * MS).await;
            std::panic::panic_any(7_u32)
        })
    });
    let fails = service_fn(|_| -> Answering {
        Box::pin(async {
            sleep(30 * MS).await;
            Err("refused".into())
        })
    });
    let layer = hook.layer(late());
    let first = layer
        .layer(panics)
        .oneshot(request())
        .await
        .expect("an answer");
    let second = layer
        .layer(fails)
        .oneshot(request())
        .await
        .expect("an answer");
    assert_eq!(
        (mark(&first).phase, mark(&second).phase),
        (Phase::Head, Phase::Head)
    );
    let told = hook.all().await;
    let [Told::Panicked(panic), Told::Error(error)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!((panic.downcast_ref(), &**error), (Some(&7_u32), "refused"));
}

/// Work that answers, and panics as it is dropped then, has panicked: in time for its caller, and late for the hook.
#[tokio::test(start_paused = true)]
async fn work_that_panics_as_it_goes_is_told_as_a_panic() {
    /// Is ready once, and panics when it goes.
    struct Bursts {
        wait: Pin<Box<Sleep>>,
        _bomb: Bomb,
    }

    impl Future for Bursts {
        type Output = Result<Response<Whole>, BoxError>;

        fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
            self.wait.as_mut().poll(cx).map(|()| Ok(response("done")))
        }
    }

    for (wait, in_time) in [(5 * MS, true), (20 * MS, false)] {
        let hook = Hook::new(1);
        let bursts = move |_: Request<()>| Bursts {
            wait: Box::pin(sleep(wait)),
            _bomb: Bomb("as it goes"),
        };
        let call = hook.layer(late()).layer(service_fn(bursts));
        let answer = tokio::spawn(call.oneshot(request())).await;
        let told = hook.all().await;
        let panic = match (answer, told.into_iter().next()) {
            (Err(panic), None) if in_time => panic.into_panic(),
            (Ok(Ok(answer)), Some(Told::Panicked(panic))) if !in_time => {
                assert_eq!(mark(&answer).phase, Phase::Head);
                panic
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(panic.downcast_ref(), Some(&"as it goes".to_owned()));
    }
}

// T16
#[tokio::test(start_paused = true)]
async fn beyond_the_bound_a_call_is_dropped_at_its_deadline_and_the_count_returns_to_nought() {
    let hook = Hook::new(2);
    let layer = hook.layer(late());
    let hands: Vec<Hand<Response<Whole>>> = Hand::several(3);
    let mut calls: Vec<_> = hands
        .iter()
        .map(|hand| task::spawn(layer.layer(hand.clone()).oneshot(request())))
        .collect();
    for call in &mut calls {
        assert_pending!(call.poll());
    }
    assert_eq!(hook.background.running(), 2);
    for call in calls {
        assert_eq!(call.await.expect("an answer").status(), 504);
    }
    // Two go on; the third, which had no room, is gone with its answer.
    let drops: Vec<_> = hands.iter().map(Hand::drops).collect();
    assert_eq!((drops, hook.background.running()), (vec![0, 0, 1], 2));
    for hand in &hands[..2] {
        hand.finish(response("at last"));
    }
    let told = hook.all().await;
    assert!(
        matches!(told[..], [Told::Response(_), Told::Response(_)]),
        "{told:?}"
    );

    // And nothing is detached by a background that is shut down.
    let hand = Hand::<Response<Whole>>::new();
    let answer = layer
        .layer(hand.clone())
        .oneshot(request())
        .await
        .expect("an answer");
    assert_eq!((answer.status().as_u16(), hand.drops()), (504, 1));
}

/// The permit is taken by the call, not when its time has run out.
#[tokio::test(start_paused = true)]
async fn the_permit_is_taken_with_the_call() {
    let hook = Hook::new(1);
    let mut service = hook.layer(late()).layer(Hand::<Response<Whole>>::new());
    let future = service.call(request());
    assert_eq!(hook.background.running(), 1);
    drop(future);
    assert_eq!(hook.background.running(), 0);
}

// T17
#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_leaves_the_work_to_the_hook() {
    let hook = Hook::new(1);
    let handler = Handler::new();
    let layer = hook.layer(late().share_headers().on_timeout(|_| unreachable!()));
    let mut call = task::spawn(layer.layer(handler.clone()).oneshot(request()));
    assert_pending!(call.poll());
    tokio::task::yield_now().await;
    let headers = handler.headers();
    drop(call);
    assert_eq!(headers.state(), Some(Sealed::Cancelled));
    assert_eq!((handler.hand.drops(), hook.background.running()), (0, 1));
    handler.hand.finish(response("at last"));
    let told = hook.all().await;
    assert!(
        matches!(told[..], [Told::Response(StatusCode::OK)]),
        "{told:?}"
    );
}

/// It counts until then, so that a shutdown waits for the hook.
#[tokio::test(start_paused = true)]
async fn work_that_is_finished_but_never_fetched_goes_to_the_hook() {
    let background = Background::new(1);
    let counted = Arc::new(Mutex::new(Vec::new()));
    let (counts, counter) = (background.clone(), Arc::clone(&counted));
    let layer = late().detach(background.clone(), move |late: Late<Whole, BoxError>| {
        assert!(matches!(late, Late::Response(_)), "{late:?}");
        counter.lock().expect("not poisoned").push(counts.running());
    });
    let hand = Hand::new();
    let mut call = task::spawn(layer.layer(hand.clone()).oneshot(request()));
    assert_pending!(call.poll());
    tokio::task::yield_now().await;
    hand.finish(response("in time"));
    while hand.drops() == 0 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    assert!(call.is_woken());
    let mut shutdown = task::spawn(background.shutdown(Duration::MAX));
    assert_pending!(shutdown.poll());
    drop(call);
    assert_eq!(*counted.lock().expect("not poisoned"), [1]);
    let unfinished = assert_ready!(shutdown.poll());
    assert_eq!((unfinished.aborted, background.running()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn work_counts_until_its_caller_has_what_came_of_it() {
    let hook = Hook::new(1);
    let hand = Hand::new();
    let mut call = task::spawn(hook.layer(late()).layer(hand.clone()).oneshot(request()));
    assert_pending!(call.poll());
    tokio::task::yield_now().await;
    hand.finish(response("in time"));
    // Past its limit a shutdown counts it, and takes nothing from anybody.
    assert_eq!(hook.background.shutdown(MS).await.aborted, 1);
    assert_eq!((hand.drops(), hook.background.running()), (1, 1));
    let answer = assert_ready!(call.poll()).expect("in time");
    assert_eq!(
        (answer.status().as_u16(), hook.background.running()),
        (200, 0)
    );
    assert!(hook.all().await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_hook_that_panics_harms_nobody() {
    let background = Background::new(1);
    let layer = late().detach(background.clone(), |_: Late<Whole, BoxError>| {
        panic!("on purpose")
    });
    for _ in 0..3 {
        let answer = layer.layer(sleeper(20 * MS)).oneshot(request()).await;
        assert_eq!(answer.expect("an answer").status(), 504);
        assert_eq!(background.running(), 1);
        sleep(20 * MS).await;
        assert_eq!(background.running(), 0);
    }
}

/// What waits for room in its queue has not begun: there is nothing to go on with.
#[tokio::test(start_paused = true)]
async fn what_has_not_begun_is_not_detached() {
    let hook = Hook::new(1);
    let hand = Hand::<Response<Whole>>::new();
    let queue = tower::limit::ConcurrencyLimit::new(hand.clone(), 1);
    let mut service = hook.layer(late()).layer(queue.clone());
    let mut holder = queue;
    let holds = ServiceExt::<Request<()>>::ready(&mut holder)
        .await
        .expect("free");
    let answer = service.call(request()).await.expect("an answer");
    assert_eq!(mark(&answer).phase, Phase::Readiness);
    assert_eq!((hand.calls(), hook.background.running()), (0, 0));
    let mut call = task::spawn(service.call(request()));
    assert_pending!(call.poll());
    drop(call);
    let _ = holds;
    sleep(10 * MS).await;
    assert_eq!((hand.calls(), hook.background.running()), (0, 0));

    // And what comes too late is not called.
    let deadline = with_deadline(Deadline::after(Duration::ZERO));
    let answer = hook
        .layer(late())
        .layer(hand.clone())
        .oneshot(deadline)
        .await;
    assert_eq!(mark(&answer.expect("an answer")).phase, Phase::Readiness);
    assert_eq!((hand.calls(), hook.background.running()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn the_handle_is_revoked_though_the_work_goes_on() {
    let hook = Hook::new(1);
    let results = Arc::new(Mutex::new(Vec::new()));
    let written = Arc::clone(&results);
    let service = service_fn(move |request: Request<()>| {
        let written = Arc::clone(&written);
        async move {
            let headers: &ResponseHeaders = request.extensions().get().expect("shared");
            for _ in 0..2 {
                let name = http::HeaderName::from_static("x-a");
                let result = headers.insert(name, HeaderValue::from_static("1"));
                written.lock().expect("not poisoned").push(result);
                sleep(20 * MS).await;
            }
            Ok::<_, BoxError>(response("at last"))
        }
    });
    let layer = hook.layer(late().share_headers());
    let answer = layer
        .layer(service)
        .oneshot(request())
        .await
        .expect("an answer");
    assert!(!answer.headers().contains_key("x-a"));
    hook.all().await;
    let refused = Err(WriteError::Sealed(Sealed::Deadline));
    assert_eq!(*results.lock().expect("not poisoned"), [Ok(()), refused]);
}

// T33
#[tokio::test(start_paused = true)]
async fn what_late_work_does_to_its_request_nobody_outside_sees() {
    let hook = Hook::new(1);
    let inner = hook
        .layer(late())
        .layer(service_fn(|mut request: Request<()>| async move {
            for _ in 0..3 {
                sleep(8 * MS).await;
                request.headers_mut().remove("authorization");
                request
                    .headers_mut()
                    .insert("x-inner", HeaderValue::from_static("1"));
            }
            Ok::<_, BoxError>(response("at last"))
        }));
    // A layer outside that reads the request's fields after the call, as a log does.
    let outer = service_fn(move |request: Request<()>| {
        let (parts, ()) = request.into_parts();
        let log = parts.headers.clone();
        let call = inner.clone().oneshot(Request::from_parts(parts, ()));
        async move {
            let response = call.await?;
            sleep(4 * MS).await;
            Ok::<_, BoxError>((response.status(), log))
        }
    });
    let mut request = request();
    request
        .headers_mut()
        .insert("authorization", HeaderValue::from_static("secret"));
    let (status, log) = outer.oneshot(request).await.expect("an answer");
    assert_eq!((status.as_u16(), log.len()), (504, 1));
    assert_eq!(log["authorization"], "secret");
    hook.all().await;
}

// T35
#[tokio::test(start_paused = true)]
async fn work_in_the_background_is_told_what_was_announced_and_that_nobody_enforces_it() {
    for start in [Start::Ready, Start::Call] {
        for (inherited, told) in [
            (None, None),
            (Some(Deadline::after(5 * MS)), Some(Deadline::after(5 * MS))),
            (
                Some(Deadline::after(50 * MS)),
                Some(Deadline::after(50 * MS)),
            ),
            (
                Some(Deadline::after(5 * MS).enforced()),
                Some(Deadline::after(5 * MS)),
            ),
            (
                Some(Deadline::after(50 * MS).enforced()),
                Some(Deadline::after(50 * MS)),
            ),
        ] {
            let hook = Hook::new(1);
            let handler = Handler::new();
            let layer = hook.layer(late().start(start).share_headers());
            let request = inherited.map_or_else(request, with_deadline);
            let mut call = task::spawn(layer.layer(handler.clone()).oneshot(request));
            assert_pending!(call.poll());
            tokio::task::yield_now().await;
            assert_eq!(handler.extension::<Deadline>(), told);
            // Its handle still says until when the answer takes fields.
            let own = Deadline::after(10 * MS);
            let until = told.map_or(own, |told| told.earlier(own));
            assert_eq!(handler.headers().deadline().instant(), until.instant());
        }
    }
}

// T35
#[tokio::test(start_paused = true)]
async fn a_timeout_inside_detached_work_is_its_own() {
    let hook = Hook::new(1);
    let status = |status| StatusCode::from_u16(status).expect("a status");
    let inner = TimeoutLayer::new(50 * MS).status(status(503));
    let outer = hook.layer(late().status(status(502)));
    // The answers of the two are of different types: made one.
    let inner = inner.layer(sleeper(Duration::from_secs(3600)));
    let inner = inner.map_response(|response: Response<_>| response.map(|_| Whole::default()));
    let answer = outer
        .layer(inner)
        .oneshot(request())
        .await
        .expect("an answer");
    assert_eq!(answer.status(), 502);
    let told = hook.all().await;
    assert!(
        matches!(told[..], [Told::Response(StatusCode::SERVICE_UNAVAILABLE)]),
        "{told:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_caller_whose_work_is_aborted_is_told_at_once() {
    for limit in [10 * MS, Duration::MAX] {
        let hook = Hook::new(1);
        let handler = Handler::new();
        let layer = hook.layer(TimeoutLayer::new(limit).share_headers());
        let call = tokio::spawn(layer.layer(handler.clone()).oneshot(request()));
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        let name = http::HeaderName::from_static;
        let headers = handler.headers();
        let staged = headers.insert(name("x-staged"), HeaderValue::from_static("1"));
        let pinned = headers.pin(name("x-request-id"), HeaderValue::from_static("7"));
        assert_eq!((staged, pinned), (Ok(()), Ok(())));
        assert_eq!(hook.background.shutdown(Duration::ZERO).await.aborted, 1);
        let answer = call.await.expect("no panic").expect("an answer");
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.headers()["x-request-id"], "7");
        assert!(!answer.headers().contains_key("x-staged"));
        // How layers outside tell it from a 503 of the inner service.
        assert_eq!(answer.extensions().get(), Some(&Sealed::Cancelled));
        assert!(
            answer
                .extensions()
                .get::<watershed::deadline::TimedOut>()
                .is_none()
        );
        assert_eq!(handler.headers().state(), Some(Sealed::Cancelled));
        assert_eq!(handler.hand.drops(), 1);
    }
}

/// The answer to HEAD is the head of the one to GET.
#[tokio::test(start_paused = true)]
async fn an_aborted_head_request_gets_no_body() {
    let mut lengths = Vec::new();
    for method in [Method::GET, Method::HEAD] {
        let hook = Hook::new(1);
        let hand = Hand::<Response<Whole>>::new();
        let mut request = request();
        *request.method_mut() = method;
        let call = hook.layer(late()).layer(hand).oneshot(request);
        let call = tokio::spawn(call);
        tokio::task::yield_now().await;
        tokio::task::yield_now().await;
        assert_eq!(hook.background.shutdown(Duration::ZERO).await.aborted, 1);
        let answer = call.await.expect("no panic").expect("an answer");
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        let said = answer.headers().get("content-length").cloned();
        lengths.push((said, text(answer).await.len()));
    }
    let [(None, whole), (Some(said), 0)] = &lengths[..] else {
        panic!("{lengths:?}");
    };
    assert_eq!(*said, HeaderValue::from(*whole));
}

/// Dropping the layers and handles aborts what is nobody's, and not what somebody waits for.
#[tokio::test(start_paused = true)]
async fn a_call_that_somebody_waits_for_outlives_the_handles() {
    let hand = Hand::<Response<Whole>>::new();
    let call = {
        let hook = Hook::new(2);
        let layer = hook.layer(TimeoutLayer::new(10 * MS));
        tokio::spawn(layer.layer(hand.clone()).oneshot(request()))
    };
    sleep(5 * MS).await;
    assert_eq!((hand.calls(), hand.drops()), (1, 0));
    let answer = call.await.expect("no panic").expect("an answer");
    assert_eq!(answer.status(), 504);
    // Now it is nobody's.
    sleep(MS).await;
    assert_eq!(hand.drops(), 1);
}

// T28
#[test]
fn a_handler_that_never_yields_is_answered_for_in_time() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime");
    let background = Background::default();
    for _ in 0..20 {
        let (release, blocked) = mpsc::channel::<()>();
        let blocked = Arc::new(Mutex::new(blocked));
        let finished = Arc::new(AtomicUsize::new(0));
        let ends = Arc::clone(&finished);
        let service = service_fn(move |_: Request<()>| {
            let (blocked, ends) = (Arc::clone(&blocked), Arc::clone(&ends));
            async move {
                // Holds its thread until the test lets it go.
                let _ = blocked.lock().expect("not poisoned").recv();
                ends.fetch_add(1, Ordering::Relaxed);
                Ok::<_, Infallible>(response("at last"))
            }
        });
        let layer = late().detach(background.clone(), |_: Late<Whole, Infallible>| {});
        let service = layer.layer(service);
        let (answers, answer) = mpsc::channel::<Phase>();
        let call = async move {
            // Woken by the timer, on a real clock as by a socket: so that this is the thread which has the timer.
            sleep(MS).await;
            let Ok(answer) = service.oneshot(request()).await;
            answers.send(mark(&answer).phase).expect("received");
        };
        runtime.spawn(call);
        let answer = answer.recv_timeout(Duration::from_secs(20));
        let answer = answer.expect("answered while the handler blocks");
        assert_eq!((answer, finished.load(Ordering::Relaxed)), (Phase::Head, 0));
        drop(release);
        let unfinished = runtime.block_on(drained(&background));
        assert_eq!((unfinished, finished.load(Ordering::Relaxed)), (0, 1));
    }
}

async fn drained(background: &Background) -> usize {
    tokio::time::timeout(Duration::from_secs(20), async {
        while background.running() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("in time");
    background.running()
}

/// Results that come about when the deadline does: each goes to its caller or to the hook, and never to both or to none.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_result_is_told_exactly_once() {
    const CALLS: usize = 4000;
    let counters = || Arc::new((0..CALLS).map(|_| AtomicUsize::new(0)).collect::<Vec<_>>());
    let (begun, told) = (counters(), counters());
    let background = Background::new(CALLS);
    let tells = Arc::clone(&told);
    let layer = TimeoutLayer::new(5 * MS).share_headers().detach(
        background.clone(),
        move |late: Late<Whole, usize>| {
            let call = match late {
                Late::Response(response) => *response.extensions().get().expect("its number"),
                Late::Error(call) => call,
                Late::Panicked(panic) => *panic.downcast().expect("its number"),
                other => panic!("{other:?}"),
            };
            tells[call].fetch_add(1, Ordering::Relaxed);
        },
    );
    let begins = Arc::clone(&begun);
    let service = layer.layer(service_fn(move |request: Request<()>| {
        let call: usize = *request.extensions().get().expect("its number");
        begins[call].fetch_add(1, Ordering::Relaxed);
        async move {
            // Around the deadline, on a real clock: a little before it, and a little after.
            sleep(4 * MS + Duration::from_micros(call as u64 % 20 * 100)).await;
            match call % 3 {
                0 => Err(call),
                // A panic, without the noise.
                1 => std::panic::resume_unwind(Box::new(call)),
                _ => {
                    let mut response = response("done");
                    response.extensions_mut().insert(call);
                    Ok(response)
                }
            }
        }
    }));
    let calls: Vec<_> = (0..CALLS)
        .map(|call| {
            let mut request = request();
            request.extensions_mut().insert(call);
            tokio::spawn(service.clone().oneshot(request))
        })
        .collect();
    let mut in_time = 0;
    for (call, task) in calls.into_iter().enumerate() {
        let own = match task.await {
            Ok(Ok(answer)) => answer.status() == StatusCode::OK,
            Ok(Err(of)) => of == call,
            Err(panic) => panic.into_panic().downcast_ref() == Some(&call),
        };
        in_time += usize::from(own);
        told[call].fetch_add(usize::from(own), Ordering::Relaxed);
    }
    drained(&background).await;
    // On a busy machine some have no time left when they could begin: nothing comes of those.
    for (call, (begun, told)) in begun.iter().zip(&*told).enumerate() {
        let (begun, told) = (begun.load(Ordering::Relaxed), told.load(Ordering::Relaxed));
        assert_eq!(told, begun, "call {call}");
    }
    println!("{in_time} of {CALLS} were in time");
}

/// On one thread, too, as long as the work yields.
#[tokio::test(start_paused = true)]
async fn a_call_that_never_ends_is_answered_for() {
    let hook = Hook::new(1);
    let service = service_fn(|_| pending::<Result<Response<Whole>, BoxError>>());
    let answer = hook.layer(late()).layer(service).oneshot(request()).await;
    assert_eq!(answer.expect("an answer").status(), 504);
    assert_eq!(hook.background.shutdown(MS).await.aborted, 1);
}
