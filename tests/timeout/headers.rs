//! The handle to a call's header fields: what is accepted is on the response, and what is not says why.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, SET_COOKIE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::Empty;
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use watershed::clone_request::{CloneRequestLayer, HeadPolicy, TeeBody};
use watershed::deadline::Deadline;
use watershed::error::BoxError;
use watershed::timeout::{
    ResponseHeaders, Sealed, SealedFuture, Timeout, TimeoutLayer, WriteError,
};

use crate::support::MS;
use crate::{Handler, Whole, request, response, unless_it_hangs, with_deadline};

const A: HeaderName = HeaderName::from_static("x-a");
const B: HeaderName = HeaderName::from_static("x-b");

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).expect("visible")
}

fn shared(handler: &Handler) -> Timeout<Handler> {
    TimeoutLayer::new(10 * MS)
        .share_headers()
        .layer(handler.clone())
}

type Pending<S> = task::Spawn<tower::util::Oneshot<S, Request<()>>>;

/// A call that has begun.
fn begin(handler: &Handler) -> (Pending<Timeout<Handler>>, ResponseHeaders) {
    let mut call = task::spawn(shared(handler).oneshot(request()));
    assert_pending!(call.poll());
    (call, handler.headers())
}

/// Ends a call in one of the ways in which calls end. What is returned is its answer, if there is one.
async fn end(
    handler: &Handler,
    mut call: Pending<Timeout<Handler>>,
    how: Sealed,
) -> Option<http::HeaderMap> {
    match how {
        Sealed::Committed => handler.hand.finish(response("in time")),
        Sealed::Failed => handler.hand.fail("refused"),
        Sealed::Deadline => advance(10 * MS).await,
        Sealed::Cancelled => {
            drop(call);
            return None;
        }
        other => panic!("{other:?}"),
    }
    let answer = assert_ready!(call.poll()).ok()?;
    Some(answer.headers().clone())
}

const ENDS: [Sealed; 4] = [
    Sealed::Committed,
    Sealed::Failed,
    Sealed::Deadline,
    Sealed::Cancelled,
];

// T04
#[tokio::test(start_paused = true)]
async fn staged_fields_are_on_the_winning_response_once_and_in_order() {
    let handler = Handler::new();
    let (mut call, headers) = begin(&handler);
    headers.insert(A, value("1")).expect("open");
    headers.append(A, value("2")).expect("open");
    headers.append(SET_COOKIE, value("one")).expect("open");
    headers.append(SET_COOKIE, value("two")).expect("open");
    // Later writes of a name stand over earlier ones, and over those of the service's own response.
    headers.insert(B, value("old")).expect("open");
    headers.remove(B).expect("open");
    headers.append(B, value("new")).expect("open");
    headers
        .append(CONTENT_TYPE, value("dropped"))
        .expect("open");
    headers
        .insert(CONTENT_TYPE, value("text/plain"))
        .expect("open");
    headers
        .remove(HeaderName::from_static("x-gone"))
        .expect("open");

    let mut own = response("in time");
    for (name, text) in [
        ("set-cookie", "zero"),
        ("content-type", "text/html"),
        ("content-type", "text/css"),
        ("x-gone", "1"),
        ("x-gone", "2"),
        ("x-b", "own"),
    ] {
        own.headers_mut().append(name, value(text));
    }
    handler.hand.finish(own);
    let answer = assert_ready!(call.poll()).expect("in time");
    for (name, values) in [
        ("x-a", &["1", "2"][..]),
        ("x-b", &["new"]),
        ("set-cookie", &["zero", "one", "two"]),
        ("content-type", &["text/plain"]),
        ("x-inner", &["in time"]),
        ("x-gone", &[]),
    ] {
        let all: Vec<_> = answer.headers().get_all(name).iter().collect();
        assert_eq!(all, values, "{name}");
    }
}

// T05, T06, T17, T27
#[tokio::test(start_paused = true)]
async fn a_write_after_the_end_is_told_how_it_ended() {
    for how in ENDS {
        let handler = Handler::new();
        let (call, headers) = begin(&handler);
        let writer = headers.clone();
        let late = tokio::spawn(async move {
            let sealed = writer.sealed().await;
            (
                sealed,
                writer.insert(A, value("late")),
                writer.pin(A, value("late")),
            )
        });
        headers.insert(B, value("staged")).expect("open");
        let answer = end(&handler, call, how).await;
        let refused = Err(WriteError::Sealed(how));
        assert_eq!(late.await.expect("no panic"), (how, refused, refused));
        for refuses in [headers.append(A, value("1")), headers.remove(B)] {
            assert_eq!(refuses, refused);
        }
        assert_eq!((headers.state(), headers.sealed().await), (Some(how), how));
        // Refused is not lost: nothing of it is anywhere.
        let staged = answer.as_ref().and_then(|fields| fields.get("x-b"));
        assert_eq!(staged.is_some(), how == Sealed::Committed);
        assert!(answer.is_none_or(|fields| !fields.contains_key("x-a")));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_pinned_is_on_either_answer() {
    for how in ENDS {
        let handler = Handler::new();
        let (call, headers) = begin(&handler);
        headers.pin(A, value("old")).expect("open");
        headers.pin(A, value("pinned")).expect("open");
        headers.append(A, value("more")).expect("open");
        headers.pin(B, value("withdrawn")).expect("open");
        headers.remove(B).expect("open");
        headers
            .pin(CONTENT_TYPE, value("text/plain"))
            .expect("open");
        let Some(fields) = end(&handler, call, how).await else {
            continue;
        };
        let all: Vec<_> = fields.get_all(A).iter().collect();
        match how {
            Sealed::Committed => assert_eq!(all, ["pinned", "more"]),
            _ => assert_eq!(all, ["pinned"]),
        }
        assert!(!fields.contains_key(B));
        assert_eq!(fields["content-type"], "text/plain");
    }
}

// T19
#[tokio::test(start_paused = true)]
async fn below_two_layers_the_handle_is_the_innermost_one() {
    for (inner, outer) in [(20, 10), (10, 20)] {
        let handler = Handler::new();
        let nested = TimeoutLayer::new(MS * outer).share_headers().layer(
            TimeoutLayer::new(MS * inner)
                .share_headers()
                .layer(handler.clone()),
        );
        let mut call = task::spawn(nested.oneshot(request()));
        assert_pending!(call.poll());
        let headers = handler.headers();
        headers.insert(A, value("staged")).expect("open");
        headers.pin(B, value("pinned")).expect("open");
        advance(10 * MS).await;
        let answer = assert_ready!(call.poll()).expect("an answer");
        assert!(!answer.headers().contains_key(A));
        // The inner answer carries the inner pin; of the outer one it is no business.
        let inner_answers = inner < outer;
        assert_eq!(answer.headers().contains_key(B), inner_answers);
        let sealed = if inner_answers {
            Sealed::Deadline
        } else {
            Sealed::Cancelled
        };
        assert_eq!(headers.state(), Some(sealed));
    }

    // In time, what the inner layer returns is what the outer one passes on.
    let handler = Handler::new();
    let mut call = task::spawn(shared(&handler).oneshot(request()));
    assert_pending!(call.poll());
    handler.headers().insert(A, value("staged")).expect("open");
    handler.hand.finish(response("in time"));
    let answer = assert_ready!(call.poll()).expect("in time");
    assert_eq!(answer.headers()[A], "staged");
}

#[tokio::test(start_paused = true)]
async fn fields_of_the_connection_and_of_the_framing_are_refused() {
    let handler = Handler::new();
    let (mut call, headers) = begin(&handler);
    for name in [
        "connection",
        "content-length",
        "keep-alive",
        "proxy-authenticate",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ] {
        let name = HeaderName::from_static(name);
        for refuses in [
            headers.insert(name.clone(), value("1")),
            headers.append(name.clone(), value("1")),
            headers.pin(name.clone(), value("1")),
            headers.remove(name),
        ] {
            assert_eq!(refuses, Err(WriteError::Forbidden));
        }
    }
    handler.hand.finish(response("in time"));
    let answer = assert_ready!(call.poll()).expect("in time");
    assert_eq!(answer.headers()["content-length"], "7");
    assert_eq!(answer.headers().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn no_more_is_staged_than_64_fields_or_16_kib() {
    let name = |index: usize| HeaderName::try_from(format!("x-{index}")).expect("a name");
    let handler = Handler::new();
    let (mut call, headers) = begin(&handler);
    for index in 0..64 {
        headers
            .insert(name(index), value("1"))
            .expect("there is room");
    }
    for refuses in [
        headers.insert(name(64), value("1")),
        headers.append(name(0), value("2")),
        headers.remove(name(64)),
        headers.pin(name(0), value("2")),
    ] {
        assert_eq!(refuses, Err(WriteError::Full));
    }
    // What takes the place of something needs no more room.
    for round in 0..1000 {
        headers
            .insert(name(63), HeaderValue::from(round))
            .expect("there is room");
    }
    headers.remove(name(0)).expect("there is room");
    handler.hand.finish(response("in time"));
    let answer = assert_ready!(call.poll()).expect("in time");
    assert_eq!(answer.headers().len(), 63 + 2);
    assert_eq!(answer.headers()["x-63"], "999");

    let (_call, headers) = begin(&handler);
    let half = value(&"x".repeat(8 * 1024 - A.as_str().len()));
    headers.insert(A, half.clone()).expect("there is room");
    headers.insert(B, half.clone()).expect("there is room");
    let shortest = HeaderName::from_static("a");
    assert_eq!(headers.insert(shortest, value("")), Err(WriteError::Full));
    headers.remove(A).expect("there is room");
    // A pin is on both answers, and counts twice.
    assert_eq!(headers.pin(B, half), Err(WriteError::Full));
    headers.pin(B, value("1")).expect("there is room");
}

#[tokio::test(start_paused = true)]
async fn any_number_of_tasks_may_wait_and_none_has_to() {
    let handler = Handler::new();
    let (call, headers) = begin(&handler);
    let mut waiting: Vec<_> = (0..100).map(|_| task::spawn(headers.sealed())).collect();
    for waiter in &mut waiting {
        assert_pending!(waiter.poll());
    }
    // Some give up, some have moved to another task.
    let left = waiting.split_off(50);
    drop(left);
    let moved = waiting.pop().expect("some").into_inner();
    let mut moved = task::spawn(moved);
    assert_pending!(moved.poll());
    waiting.push(moved);
    end(&handler, call, Sealed::Deadline).await;
    for waiter in &mut waiting {
        assert!(waiter.is_woken());
        assert_eq!(assert_ready!(waiter.poll()), Sealed::Deadline);
    }
}

/// A waker that counts how many of its kind are left, and that uses the handle as it is woken and as it goes.
struct Looks {
    headers: ResponseHeaders,
    left: Arc<AtomicUsize>,
}

impl Looks {
    fn waker(headers: &ResponseHeaders, left: &Arc<AtomicUsize>) -> Waker {
        left.fetch_add(1, Ordering::Relaxed);
        let (headers, left) = (headers.clone(), Arc::clone(left));
        Waker::from(Arc::new(Self { headers, left }))
    }
}

impl Wake for Looks {
    fn wake(self: Arc<Self>) {
        assert!(self.headers.state().is_some());
    }
}

impl Drop for Looks {
    fn drop(&mut self) {
        let _ = self.headers.state();
        self.left.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A waker of a user's may run any code: under a lock, that would be a deadlock.
#[test]
fn a_waker_can_use_the_handle() {
    unless_it_hangs(|| async {
        for how in ENDS {
            let left = Arc::new(AtomicUsize::new(0));
            let count = || left.load(Ordering::Relaxed);
            let handler = Handler::new();
            let (call, headers) = begin(&handler);
            let poll = |sealed: &mut SealedFuture| {
                let waker = Looks::waker(&headers, &left);
                Pin::new(sealed).poll(&mut Context::from_waker(&waker))
            };
            let (mut stays, mut goes) = (headers.sealed(), headers.sealed());
            for _ in 0..3 {
                assert_pending!(poll(&mut stays));
                assert_pending!(poll(&mut goes));
                // Another one takes its place.
                assert_eq!(count(), 2);
            }
            drop(goes);
            assert_eq!(count(), 1);
            end(&handler, call, how).await;
            assert_eq!(count(), 0);
            assert_eq!(assert_ready!(poll(&mut stays)), how);
            assert_eq!(count(), 0);
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_waker_that_panics_keeps_nobody_else_waiting() {
    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("as it is woken");
        }
    }

    for how in ENDS {
        let handler = Handler::new();
        let (call, headers) = begin(&handler);
        let mut panics = headers.sealed();
        let mut waiting: Vec<_> = (0..3).map(|_| task::spawn(headers.sealed())).collect();
        assert_pending!(waiting[0].poll());
        let waker = Waker::from(Arc::new(Panics));
        assert_pending!(Pin::new(&mut panics).poll(&mut Context::from_waker(&waker)));
        assert_pending!(waiting[1].poll());
        assert_pending!(waiting[2].poll());
        let answer = end(&handler, call, how).await;
        let answers = matches!(how, Sealed::Committed | Sealed::Deadline);
        assert_eq!(answer.is_some(), answers);
        for waiter in &mut waiting {
            assert!(waiter.is_woken());
            assert_eq!(assert_ready!(waiter.poll()), how);
        }
    }
}

#[test]
fn waits_that_are_dropped_leave_nothing_behind() {
    unless_it_hangs(|| async {
        let left = Arc::new(AtomicUsize::new(0));
        let handler = Handler::new();
        let (_call, headers) = begin(&handler);
        for round in 0..2 {
            let waiting: Vec<_> = (0..1000)
                .map(|_| {
                    let waker = Looks::waker(&headers, &left);
                    let mut sealed = headers.sealed();
                    assert_pending!(Pin::new(&mut sealed).poll(&mut Context::from_waker(&waker)));
                    sealed
                })
                .collect();
            assert_eq!(left.load(Ordering::Relaxed), 1000, "round {round}");
            drop(waiting);
            assert_eq!(left.load(Ordering::Relaxed), 0, "round {round}");
        }
    });
}

/// The bytes of a value that counts how many of its kind are left.
struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn value(left: &Arc<AtomicUsize>, panics: bool) -> HeaderValue {
        left.fetch_add(1, Ordering::Relaxed);
        let counted = Self(Arc::clone(left));
        let bytes: Bytes = match panics {
            true => Bytes::from_owner(Panics(counted)),
            false => Bytes::from_owner(counted),
        };
        HeaderValue::from_maybe_shared(bytes).expect("visible")
    }
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        b"counted"
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Panics when it goes.
struct Panics(Counted);

impl AsRef<[u8]> for Panics {
    fn as_ref(&self) -> &[u8] {
        self.0.as_ref()
    }
}

impl Drop for Panics {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            panic!("as it goes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_handle_that_outlives_its_call_holds_nothing_of_it() {
    for how in ENDS {
        let left = Arc::new(AtomicUsize::new(0));
        let handler = Handler::new();
        let (call, headers) = begin(&handler);
        headers
            .insert(A, Counted::value(&left, false))
            .expect("open");
        headers.pin(B, Counted::value(&left, false)).expect("open");
        drop(end(&handler, call, how).await);
        assert_eq!(
            (left.load(Ordering::Relaxed), headers.state()),
            (0, Some(how))
        );
        let late = headers.insert(A, Counted::value(&left, false));
        assert_eq!(late, Err(WriteError::Sealed(how)));
        assert_eq!(left.load(Ordering::Relaxed), 0);
    }
}

/// Values whose owners run code as they go: under a lock, that would be a deadlock or a poisoned call.
#[test]
fn code_that_runs_as_a_value_goes_can_use_the_handle() {
    struct Uses(ResponseHeaders);

    impl AsRef<[u8]> for Uses {
        fn as_ref(&self) -> &[u8] {
            b"uses"
        }
    }

    impl Drop for Uses {
        fn drop(&mut self) {
            let _ = self.0.append(B, value("from drop"));
            let _ = self.0.state();
        }
    }

    unless_it_hangs(|| async {
        for how in ENDS {
            let handler = Handler::new();
            let (call, headers) = begin(&handler);
            let uses = || {
                let bytes = Bytes::from_owner(Uses(headers.clone()));
                HeaderValue::from_maybe_shared(bytes).expect("visible")
            };
            headers.insert(A, uses()).expect("open");
            headers.insert(A, uses()).expect("open");
            headers.remove(A).expect("open");
            headers.insert(A, uses()).expect("open");
            headers.pin(A, uses()).expect("open");
            let answer = end(&handler, call, how).await;
            assert_eq!(
                answer.is_some(),
                matches!(how, Sealed::Committed | Sealed::Deadline)
            );
            // Three were replaced while the call was open, and said so.
            if how == Sealed::Committed {
                let said = answer.expect("an answer").get_all(B).iter().count();
                assert_eq!(said, 3);
            }
            let _ = headers.insert(A, uses());
        }
    });
}

#[tokio::test(start_paused = true)]
async fn a_value_that_panics_as_it_goes_takes_nobody_along() {
    for (how, pins) in [
        (Sealed::Deadline, false),
        (Sealed::Failed, true),
        (Sealed::Cancelled, false),
        (Sealed::Cancelled, true),
    ] {
        let left = Arc::new(AtomicUsize::new(0));
        let handler = Handler::new();
        let (call, headers) = begin(&handler);
        let panics = Counted::value(&left, true);
        match pins {
            true => headers.pin(A, panics).expect("open"),
            false => headers.insert(A, panics).expect("open"),
        }
        headers
            .insert(B, Counted::value(&left, false))
            .expect("open");
        let answer = end(&handler, call, how).await;
        assert_eq!(answer.is_some(), how == Sealed::Deadline);
        assert_eq!(left.load(Ordering::Relaxed), 0, "{how:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_handler_writes_as_it_goes_counts_if_it_has_finished() {
    /// Answers after so long, and writes a field when it is dropped.
    struct AsItGoes {
        headers: ResponseHeaders,
        wait: std::pin::Pin<Box<tokio::time::Sleep>>,
    }

    impl Future for AsItGoes {
        type Output = Result<Response<Whole>, BoxError>;

        fn poll(
            mut self: std::pin::Pin<&mut Self>,
            cx: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Self::Output> {
            self.wait
                .as_mut()
                .poll(cx)
                .map(|()| Ok(response("in time")))
        }
    }

    impl Drop for AsItGoes {
        fn drop(&mut self) {
            let _ = self.headers.insert(A, value("from drop"));
        }
    }

    let service = service_fn(|request: Request<()>| AsItGoes {
        headers: request.extensions().get().cloned().expect("shared"),
        wait: Box::pin(sleep(5 * MS)),
    });
    for limit in [4, 5, 6] {
        let layer = TimeoutLayer::new(MS * limit).share_headers();
        let answer = layer
            .layer(service)
            .call(request())
            .await
            .expect("an answer");
        let in_time = answer.status() == StatusCode::OK;
        assert_eq!(
            (in_time, answer.headers().contains_key(A)),
            (limit > 4, limit > 4)
        );
    }
}

/// The seal comes first: what is dropped because nobody waits for it any more has no say in the answer.
#[tokio::test(start_paused = true)]
async fn what_the_handler_writes_as_it_goes_is_refused_if_it_has_not_finished() {
    type Written = Arc<Mutex<Option<Result<(), WriteError>>>>;

    struct AsItGoes(ResponseHeaders, Written);

    impl Drop for AsItGoes {
        fn drop(&mut self) {
            let pinned = self.0.pin(A, value("from drop"));
            *self.1.lock().expect("not poisoned") = Some(pinned);
        }
    }

    for how in [Sealed::Deadline, Sealed::Cancelled] {
        let written = Written::default();
        let writes = Arc::clone(&written);
        let service = service_fn(move |request: Request<()>| {
            let headers: ResponseHeaders = request.extensions().get().cloned().expect("shared");
            let as_it_goes = AsItGoes(headers, Arc::clone(&writes));
            async move {
                let _as_it_goes = as_it_goes;
                std::future::pending::<Result<Response<Whole>, BoxError>>().await
            }
        });
        let layer = TimeoutLayer::new(10 * MS).share_headers();
        let mut call = task::spawn(layer.layer(service).oneshot(request()));
        assert_pending!(call.poll());
        match how {
            Sealed::Deadline => {
                let answer = call.await.expect("an answer");
                assert_eq!(answer.status(), StatusCode::GATEWAY_TIMEOUT);
                assert!(!answer.headers().contains_key(A));
            }
            _ => drop(call),
        }
        let written = written.lock().expect("not poisoned").take();
        assert_eq!(written, Some(Err(WriteError::Sealed(how))));
    }
}

#[tokio::test(start_paused = true)]
async fn the_handle_knows_until_when_there_is_time() {
    let own = Deadline::after(10 * MS);
    for (inherited, expected) in [
        (None, own),
        (Some(Deadline::after(4 * MS)), Deadline::after(4 * MS)),
        (Some(Deadline::after(40 * MS)), own),
        // A layer outside sees to it.
        (
            Some(Deadline::after(4 * MS).enforced()),
            Deadline::after(4 * MS),
        ),
    ] {
        let handler = Handler::new();
        let request = inherited.map_or_else(request, with_deadline);
        let mut call = task::spawn(shared(&handler).oneshot(request));
        assert_pending!(call.poll());
        let headers = handler.headers();
        assert_eq!(headers.deadline().instant(), expected.instant());
        assert_eq!(headers.remaining(), expected.remaining());
    }
    let handler = Handler::new();
    let unlimited = TimeoutLayer::new(std::time::Duration::MAX).share_headers();
    let mut call = task::spawn(unlimited.layer(handler.clone()).oneshot(request()));
    assert_pending!(call.poll());
    assert_eq!(handler.headers().deadline(), Deadline::NEVER);
}

#[tokio::test(start_paused = true)]
async fn nobody_gets_a_handle_who_did_not_ask_for_it() {
    let handler = Handler::new();
    let layer = TimeoutLayer::new(10 * MS);
    let mut call = task::spawn(layer.layer(handler.clone()).oneshot(request()));
    assert_pending!(call.poll());
    assert!(handler.extension::<ResponseHeaders>().is_none());
}

/// The branches of a fan-out have no business with the answer's fields, unless they are let.
#[tokio::test]
async fn a_cloned_request_loses_the_handle_unless_its_policy_keeps_it() {
    let kept = HeadPolicy::default().extension::<ResponseHeaders>();
    for (policy, keeps) in [(HeadPolicy::default(), false), (kept, true)] {
        let service = ServiceBuilder::new()
            .layer(TimeoutLayer::new(10 * MS).share_headers())
            .layer(CloneRequestLayer::new().head(policy))
            .service(service_fn(|request: Request<TeeBody>| async move {
                if let Some(headers) = request.extensions().get::<ResponseHeaders>() {
                    headers.insert(A, value("1")).expect("open");
                }
                Ok::<_, BoxError>(Response::new(Whole::default()))
            }));
        let request = Request::new(Empty::<Bytes>::new());
        let answer = service.oneshot(request).await.expect("an answer");
        assert_eq!(answer.headers().contains_key(A), keeps);
    }
}

// T05
#[tokio::test(start_paused = true)]
async fn a_task_that_outlives_the_handler_writes_until_the_deadline_and_not_after() {
    let start = Instant::now();
    let (sender, mut results) = tokio::sync::mpsc::unbounded_channel();
    let service = service_fn(move |request: Request<()>| {
        let headers: ResponseHeaders = request.extensions().get().cloned().expect("shared");
        let sender = sender.clone();
        tokio::spawn(async move {
            for round in 0..20_u32 {
                let written = headers.insert(A, HeaderValue::from(round));
                sender.send((round, written)).expect("received");
                sleep(MS).await;
            }
        });
        std::future::pending::<Result<Response<Whole>, BoxError>>()
    });
    let layer = TimeoutLayer::new(Duration::from_micros(10_500)).share_headers();
    let answer = layer
        .layer(service)
        .oneshot(request())
        .await
        .expect("an answer");
    assert!(!answer.headers().contains_key(A));
    assert_eq!(start.elapsed().as_millis(), 11);
    while let Some((round, written)) = results.recv().await {
        match round {
            0..=10 => assert_eq!(written, Ok(())),
            11 => {}
            _ => assert_eq!(written, Err(WriteError::Sealed(Sealed::Deadline))),
        }
        if round == 19 {
            break;
        }
    }
}

#[test]
fn handles_and_waits_can_go_to_any_thread() {
    fn any_thread<T: Send + Sync + 'static>() {}
    any_thread::<ResponseHeaders>();
    any_thread::<watershed::timeout::SealedFuture>();
    let _ = |mut service: Timeout<Handler>| Service::<Request<()>>::call(&mut service, request());
}
