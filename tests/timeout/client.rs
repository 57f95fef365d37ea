//! The error flavour: one absolute deadline over readiness, head and body, and a typed error at it.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, ServiceExt, service_fn};
use watershed::body::BoxBody;
use watershed::deadline::{Deadline, Phase, TimedOut};
use watershed::error::{BoxError, cause_ref};
use watershed::timeout::{ClientTimeout, ClientTimeoutLayer, TimeoutBody};

use crate::support::{Bomb, FedBody, Feed, Hand, MS};
use crate::{ended, request, with_deadline};

fn limited<S>(limit: Duration, service: S) -> ClientTimeout<S> {
    ClientTimeoutLayer::new(limit).layer(service)
}

fn empty() -> Response<Empty<Bytes>> {
    Response::new(Empty::new())
}

#[track_caller]
fn timed_out(error: &BoxError) -> TimedOut {
    *cause_ref::<TimedOut>(error.as_ref()).expect("a timeout")
}

type Answering = Pin<Box<dyn Future<Output = Result<Response<Empty<Bytes>>, BoxError>> + Send>>;

/// Answers after so long.
fn sleeper(
    delay: Duration,
) -> impl Service<Request<()>, Response = Response<Empty<Bytes>>, Error = BoxError, Future = Answering>
+ Clone {
    service_fn(move |_| -> Answering {
        Box::pin(async move {
            sleep(delay).await;
            Ok(empty())
        })
    })
}

mod head {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_call_that_takes_too_long_ends_at_the_very_instant() {
        for limit in [MS, 10 * MS, Duration::from_secs(3600)] {
            let start = Instant::now();
            let service = service_fn(|_| pending::<Result<Response<Empty<Bytes>>, BoxError>>());
            let error = ended(limited(limit, service).oneshot(request()))
                .await
                .expect_err("late");
            assert_eq!(timed_out(&error), TimedOut::new(Phase::Head, limit, limit));
            assert_eq!(start.elapsed(), limit);
        }
    }

    // T08
    #[tokio::test(start_paused = true)]
    async fn at_a_tie_finished_work_wins() {
        for run in 0..10_000u32 {
            let limit = MS * (1 + run % 60);
            let response = limited(limit, sleeper(limit)).oneshot(request()).await;
            response.expect("in time");
        }
        let error = limited(10 * MS, sleeper(11 * MS))
            .oneshot(request())
            .await
            .expect_err("late");
        assert_eq!(timed_out(&error).elapsed, 10 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_in_time_is_passed_through() {
        let service = service_fn(|_| async {
            sleep(5 * MS).await;
            let mut response = Response::new(Full::new(Bytes::from("body")));
            *response.status_mut() = http::StatusCode::NOT_FOUND;
            response
                .headers_mut()
                .insert("x-a", HeaderValue::from_static("1"));
            Ok::<_, BoxError>(response)
        });
        let response = limited(10 * MS, service)
            .oneshot(request())
            .await
            .expect("in time");
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()["x-a"], "1");
        assert_eq!(
            response
                .into_body()
                .collect()
                .await
                .expect("in time")
                .to_bytes(),
            "body"
        );
    }

    // T27
    #[tokio::test(start_paused = true)]
    async fn an_error_of_the_service_is_passed_through() {
        let hand = Hand::<Response<Empty<Bytes>>>::new();
        let mut call = task::spawn(limited(MS, hand.clone()).oneshot(request()));
        assert_pending!(call.poll());
        hand.fail("refused");
        let error = assert_ready!(call.poll()).expect_err("it failed");
        assert_eq!(error.to_string(), "refused");
        assert!(cause_ref::<TimedOut>(error.as_ref()).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn the_call_is_gone_before_anybody_is_told_how_it_ended() {
        let hand = Hand::new();
        let mut call = task::spawn(limited(5 * MS, hand.clone()).oneshot(request()));
        assert_pending!(call.poll());
        advance(5 * MS).await;
        assert!(call.is_woken());
        let error = assert_ready!(call.poll()).expect_err("late");
        assert_eq!(timed_out(&error).phase, Phase::Head);
        assert_eq!(hand.drops(), 1);

        let mut call = task::spawn(limited(5 * MS, hand.clone()).oneshot(request()));
        hand.finish(empty());
        assert_ready!(call.poll()).expect("in time");
        assert_eq!(hand.drops(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn late_work_that_panics_as_it_goes_takes_no_error_along() {
        let service = service_fn(|_| async {
            let _bomb = Bomb("as it goes");
            pending::<Result<Response<Empty<Bytes>>, BoxError>>().await
        });
        // Not by `oneshot`, which drops the future as soon as that has an answer.
        let mut call = task::spawn(limited(5 * MS, service).call(request()));
        assert_pending!(call.poll());
        advance(5 * MS).await;
        let error = assert_ready!(call.poll()).expect_err("late");
        assert_eq!(timed_out(&error).phase, Phase::Head);
    }

    // T17
    #[tokio::test(start_paused = true)]
    async fn dropping_the_future_drops_the_call() {
        let hand = Hand::<Response<Empty<Bytes>>>::new();
        let mut call = task::spawn(limited(MS, hand.clone()).oneshot(request()));
        assert_pending!(call.poll());
        drop(call);
        assert_eq!((hand.calls(), hand.drops()), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_future_that_is_polled_late_still_hands_out_what_was_finished() {
        let hand = Hand::new();
        let mut call = task::spawn(limited(5 * MS, hand.clone()).oneshot(request()));
        assert_pending!(call.poll());
        hand.finish(empty());
        advance(50 * MS).await;
        assert_ready!(call.poll()).expect("it was finished");
    }

    // T12
    #[tokio::test]
    async fn a_panic_is_not_a_timeout() {
        let service = service_fn(|_| async {
            panic!("on purpose");
            #[allow(unreachable_code)]
            Ok::<_, BoxError>(empty())
        });
        let call = tokio::spawn(limited(MS, service).oneshot(request()));
        let panic = call.await.expect_err("it panics").into_panic();
        assert_eq!(panic.downcast_ref(), Some(&"on purpose"));
    }

    // T29
    #[tokio::test(start_paused = true)]
    async fn calls_have_their_own_time() {
        let service = limited(10 * MS, sleeper(9 * MS));
        let first = tokio::spawn(service.clone().oneshot(request()));
        sleep(8 * MS).await;
        let start = Instant::now();
        service
            .oneshot(request())
            .await
            .expect("its time has just begun");
        assert_eq!(start.elapsed(), 9 * MS);
        first.await.expect("no panic").expect("in time");
    }
}

mod readiness {
    use super::*;

    /// Ready after so long, and answers at once; or fails.
    struct Late {
        delay: Duration,
        timer: Option<Pin<Box<tokio::time::Sleep>>>,
        fails: bool,
        calls: Arc<AtomicUsize>,
    }

    impl Late {
        fn by(delay: Duration) -> Self {
            Self {
                delay,
                timer: None,
                fails: false,
                calls: Arc::default(),
            }
        }
    }

    impl Clone for Late {
        fn clone(&self) -> Self {
            Self {
                timer: None,
                calls: Arc::clone(&self.calls),
                ..*self
            }
        }
    }

    impl Service<Request<()>> for Late {
        type Response = Response<Empty<Bytes>>;
        type Error = BoxError;
        type Future = std::future::Ready<Result<Self::Response, BoxError>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            let delay = self.delay;
            let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(delay)));
            timer.as_mut().poll(cx).map(|()| match self.fails {
                true => Err("broken".into()),
                false => Ok(()),
            })
        }

        fn call(&mut self, _: Request<()>) -> Self::Future {
            assert!(self.timer.take().is_some_and(|timer| timer.is_elapsed()));
            self.calls.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Ok(empty()))
        }
    }

    // T20
    #[tokio::test(start_paused = true)]
    async fn the_time_until_the_service_is_ready_counts() {
        let late = Late::by(20 * MS);
        let service = limited(10 * MS, late.clone());
        let start = Instant::now();
        let error = ended(service.clone().oneshot(request()))
            .await
            .expect_err("late");
        assert_eq!(
            timed_out(&error),
            TimedOut::new(Phase::Readiness, 10 * MS, 10 * MS)
        );
        assert_eq!(
            (start.elapsed(), late.calls.load(Ordering::Relaxed)),
            (10 * MS, 0)
        );
        limited(21 * MS, late)
            .oneshot(request())
            .await
            .expect("in time");
    }

    // T20
    #[tokio::test(start_paused = true)]
    async fn a_readiness_error_is_never_a_timeout() {
        for (delay, limit) in [(1, 10), (10, 10)] {
            let late = Late {
                fails: true,
                ..Late::by(MS * delay)
            };
            let error = limited(MS * limit, late)
                .oneshot(request())
                .await
                .expect_err("broken");
            assert_eq!(error.to_string(), "broken");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_deadline_spans_readiness_and_head() {
        #[derive(Clone)]
        struct Both(Late);

        impl Service<Request<()>> for Both {
            type Response = Response<Empty<Bytes>>;
            type Error = BoxError;
            type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>>>>;

            fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
                self.0.poll_ready(cx)
            }

            fn call(&mut self, request: Request<()>) -> Self::Future {
                let answer = self.0.call(request);
                Box::pin(async {
                    sleep(6 * MS).await;
                    answer.await
                })
            }
        }

        let start = Instant::now();
        let both = Both(Late::by(6 * MS));
        let error = limited(10 * MS, both.clone())
            .oneshot(request())
            .await
            .expect_err("late");
        assert_eq!(
            (timed_out(&error).phase, start.elapsed()),
            (Phase::Head, 10 * MS)
        );
        limited(12 * MS, both)
            .oneshot(request())
            .await
            .expect("in time");
    }

    #[test]
    fn it_is_always_ready_and_each_call_drives_a_clone_of_its_own() {
        // No runtime: whoever polled the template would arm its timer, and panic.
        let mut service = limited(MS, Late::by(MS));
        let mut cx = Context::from_waker(std::task::Waker::noop());
        assert!(service.poll_ready(&mut cx).is_ready());
        drop(service.call(request()));
    }
}

mod body {
    use super::*;

    /// The body of a call that began just now, after a head that took `head`.
    async fn body(limit: Duration, head: Duration) -> (Feed, task::Spawn<TimeoutBody<FedBody>>) {
        let (feed, body) = Feed::new();
        let body = Arc::new(Mutex::new(Some(body)));
        let service = service_fn(move |_| {
            let body = body.lock().expect("not poisoned").take();
            async move {
                if !head.is_zero() {
                    sleep(head).await;
                }
                Ok::<_, BoxError>(Response::new(body.expect("called once")))
            }
        });
        let response = limited(limit, service)
            .oneshot(request())
            .await
            .expect("in time");
        (feed, task::spawn(response.into_body()))
    }

    fn poll(body: &mut task::Spawn<TimeoutBody<FedBody>>) -> Poll<Option<Result<Bytes, BoxError>>> {
        body.enter(|cx, body| {
            body.poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map(|frame| frame.into_data().expect("data"))))
        })
    }

    // T21
    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_ends_with_an_error_and_never_silently() {
        let start = Instant::now();
        let (feed, mut body) = body(10 * MS, 4 * MS).await;
        feed.data("one");
        assert_eq!(assert_ready!(poll(&mut body)).unwrap().unwrap(), "one");
        assert_pending!(poll(&mut body));
        advance(5 * MS).await;
        assert!(!body.is_woken());
        advance(MS).await;
        assert!(body.is_woken());
        let error = assert_ready!(poll(&mut body))
            .expect("an error")
            .expect_err("late");
        assert_eq!(
            timed_out(&error),
            TimedOut::new(Phase::Body, 10 * MS, 10 * MS)
        );
        assert_eq!(start.elapsed(), 10 * MS);
        // It is over, whatever comes.
        feed.data("two");
        assert!(body.is_end_stream());
        for _ in 0..2 {
            assert!(assert_ready!(poll(&mut body)).is_none());
        }
    }

    // T25
    #[tokio::test(start_paused = true)]
    async fn no_timer_touches_a_connection_that_was_handed_over() {
        for (method, status, is_touched) in [
            (Method::GET, StatusCode::SWITCHING_PROTOCOLS, false),
            (Method::CONNECT, StatusCode::OK, false),
            (Method::CONNECT, StatusCode::NO_CONTENT, false),
            (Method::CONNECT, StatusCode::FORBIDDEN, true),
            (Method::GET, StatusCode::OK, true),
        ] {
            let (feed, body) = Feed::announcing(3);
            let body = Mutex::new(Some(body));
            let service = service_fn(|_| {
                let body = body.lock().expect("not poisoned").take();
                let mut response = Response::new(body.expect("called once"));
                *response.status_mut() = status;
                async { Ok::<_, BoxError>(response) }
            });
            let mut request = request();
            *request.method_mut() = method;
            let response = limited(10 * MS, service).oneshot(request).await;
            let mut body = task::spawn(response.expect("in time").into_body());
            assert_pending!(poll(&mut body));
            advance(Duration::from_secs(3600)).await;
            assert_eq!(body.is_woken(), is_touched);
            feed.data("ab");
            let read = assert_ready!(poll(&mut body)).expect("a frame");
            assert_eq!(read.is_err(), is_touched);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_inner_body_can_be_looked_at_until_it_is_gone() {
        for is_whole in [false, true] {
            let inner = Full::new(Bytes::from("whole")).map_err(BoxError::from);
            let inner = match is_whole {
                true => BoxBody::new(inner),
                false => BoxBody::new(Feed::new().1),
            };
            let hand = Hand::new();
            hand.finish(Response::new(inner));
            let response = limited(10 * MS, hand).oneshot(request()).await;
            let mut body = task::spawn(response.expect("in time").into_body());
            let length = |inner: &BoxBody| inner.size_hint().exact();
            assert_eq!(body.get_ref().map(length), Some(is_whole.then_some(5)));
            advance(11 * MS).await;
            let frame = assert_ready!(body.enter(|cx, body| body.poll_frame(cx)));
            assert_eq!(frame.expect("a frame").is_ok(), is_whole);
            assert!(body.get_ref().is_none());
        }
    }

    // T22
    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_ends_as_well() {
        for (every, frames) in [(3, 3), (4, 2), (9, 1), (11, 0)] {
            let (feed, mut body) = body(10 * MS, Duration::ZERO).await;
            let start = Instant::now();
            tokio::spawn(async move {
                for _ in 0..10 {
                    sleep(MS * every).await;
                    feed.data("drop");
                }
                feed.end();
            });
            let mut read = 0;
            let error = loop {
                match std::future::poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await {
                    Some(Ok(_)) => read += 1,
                    Some(Err(error)) => break error,
                    None => panic!("a silent end"),
                }
            };
            assert_eq!((read, start.elapsed()), (frames, 10 * MS));
            assert_eq!(timed_out(&error).phase, Phase::Body);
        }
    }

    // T22
    #[tokio::test(start_paused = true)]
    async fn a_body_that_always_has_a_frame_does_not_outrun_its_deadline() {
        let (feed, mut body) = body(10 * MS, Duration::ZERO).await;
        for _ in 0..9 {
            feed.data("more");
        }
        advance(10 * MS).await;
        // At the instant itself it is in time; later it is not, ready or not.
        assert!(matches!(assert_ready!(poll(&mut body)), Some(Ok(_))));
        advance(MS).await;
        let error = assert_ready!(poll(&mut body))
            .expect("an error")
            .expect_err("late");
        assert_eq!(timed_out(&error).elapsed, 11 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_body_is_never_late() {
        let (feed, mut body) = body(10 * MS, Duration::ZERO).await;
        feed.end();
        advance(20 * MS).await;
        assert!(assert_ready!(poll(&mut body)).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_of_the_body_is_passed_through() {
        let (feed, mut body) = body(10 * MS, Duration::ZERO).await;
        feed.fail("cut");
        let error = assert_ready!(poll(&mut body))
            .expect("an error")
            .expect_err("it failed");
        assert_eq!(error.to_string(), "cut");
    }

    #[tokio::test(start_paused = true)]
    async fn frames_trailers_and_hints_pass_through() {
        let (feed, inner) = Feed::announcing(3);
        let inner = Arc::new(Mutex::new(Some(inner)));
        let service = service_fn(move |_| {
            let body = inner
                .lock()
                .expect("not poisoned")
                .take()
                .expect("called once");
            async { Ok::<_, BoxError>(Response::new(body)) }
        });
        let response = limited(10 * MS, service)
            .oneshot(request())
            .await
            .expect("in time");
        let mut body = response.into_body();
        assert_eq!(
            (body.size_hint().exact(), body.is_end_stream()),
            (Some(3), false)
        );
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        feed.data("abc");
        feed.trailers(trailers.clone());
        feed.end();
        let frame = body.frame().await.expect("a frame").expect("in time");
        assert_eq!(frame.into_data().expect("data"), "abc");
        assert_eq!(
            (body.size_hint().exact(), body.is_end_stream()),
            (Some(0), false)
        );
        let frame = body.frame().await.expect("a frame").expect("in time");
        assert_eq!(frame.into_trailers().expect("trailers"), trailers);
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn dropping_the_body_drops_the_inner_one() {
        let (feed, mut body) = body(10 * MS, Duration::ZERO).await;
        assert_pending!(poll(&mut body));
        drop(body);
        assert!(feed.is_dropped());
    }
}

mod inherited {
    use super::*;

    /// Tells what it was announced.
    #[derive(Clone, Default)]
    struct Told {
        deadlines: Arc<Mutex<Vec<Option<Deadline>>>>,
        delay: Duration,
    }

    impl Told {
        fn last(&self) -> Option<Deadline> {
            let deadlines = self.deadlines.lock().expect("not poisoned");
            *deadlines.last().expect("it was called")
        }
    }

    impl Service<Request<()>> for Told {
        type Response = Response<Empty<Bytes>>;
        type Error = BoxError;
        type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, request: Request<()>) -> Self::Future {
            let told = request.extensions().get().copied();
            self.deadlines.lock().expect("not poisoned").push(told);
            let delay = self.delay;
            Box::pin(async move {
                sleep(delay).await;
                Ok(empty())
            })
        }
    }

    fn slow() -> Told {
        Told {
            delay: Duration::from_secs(3600),
            ..Told::default()
        }
    }

    // T34
    #[tokio::test(start_paused = true)]
    async fn the_earlier_of_its_own_and_the_announced_one_is_enforced() {
        for (own, announced) in [(2000, 100), (100, 2000), (100, 100), (100, 0)] {
            let told = slow();
            let earlier = MS * own.min(if announced == 0 { u32::MAX } else { announced });
            let start = Instant::now();
            let request = match announced {
                0 => request(),
                announced => with_deadline(Deadline::after(MS * announced)),
            };
            let expected = Deadline::after(earlier);
            let error = limited(MS * own, told.clone())
                .oneshot(request)
                .await
                .expect_err("late");
            assert_eq!(
                timed_out(&error),
                TimedOut::new(Phase::Head, earlier, earlier)
            );
            assert_eq!(start.elapsed(), earlier);
            // The service inside is told when, and that somebody sees to it.
            assert_eq!(told.last(), Some(expected.enforced()));
        }
    }

    // T35
    #[tokio::test(start_paused = true)]
    async fn what_is_enforced_outside_is_left_to_it() {
        for (own, enforced) in [(50, 10), (50, 50)] {
            let outer = Deadline::after(MS * enforced).enforced();
            let told = Told {
                delay: MS * 80,
                ..Told::default()
            };
            let start = Instant::now();
            limited(MS * own, told.clone())
                .oneshot(with_deadline(outer))
                .await
                .expect("the layer outside answers, not this one");
            assert_eq!(start.elapsed(), MS * 80);
            assert_eq!(told.last(), Some(outer));
        }
    }

    // T21
    #[tokio::test(start_paused = true)]
    async fn the_body_is_held_to_its_own_limit_whoever_answers_for_the_head() {
        let (feed, body) = Feed::new();
        let hand = Hand::new();
        hand.finish(Response::new(body));
        let start = Instant::now();
        let request = with_deadline(Deadline::after(10 * MS).enforced());
        let response = limited(50 * MS, hand)
            .oneshot(request)
            .await
            .expect("in time");
        feed.data("one");
        let mut body = response.into_body();
        body.frame().await.expect("a frame").expect("in time");
        let error = ended(body.frame()).await.expect("an error");
        let error = error.expect_err("late");
        assert_eq!(
            (timed_out(&error).phase, start.elapsed()),
            (Phase::Body, 50 * MS)
        );
    }

    // T35
    #[tokio::test(start_paused = true)]
    async fn its_own_limit_holds_below_a_later_one_that_is_enforced() {
        let told = slow();
        let start = Instant::now();
        let expected = Deadline::after(10 * MS).enforced();
        let request = with_deadline(Deadline::after(50 * MS).enforced());
        let error = limited(10 * MS, told.clone())
            .oneshot(request)
            .await
            .expect_err("late");
        assert_eq!(
            (timed_out(&error).limit, start.elapsed()),
            (10 * MS, 10 * MS)
        );
        assert_eq!(told.last(), Some(expected));
    }

    // T35
    #[tokio::test(start_paused = true)]
    async fn of_two_that_are_nested_the_earlier_answers() {
        for (outer, inner) in [(10, 50), (50, 10), (10, 10)] {
            let start = Instant::now();
            let nested = limited(MS * outer, limited(MS * inner, slow()));
            let error = nested.oneshot(request()).await.expect_err("late");
            assert_eq!(
                (timed_out(&error).limit, start.elapsed()),
                (10 * MS, 10 * MS)
            );
        }
    }

    // T10
    #[tokio::test(start_paused = true)]
    async fn a_deadline_that_has_passed_never_reaches_the_service() {
        for ago in [Duration::ZERO, MS, Duration::from_secs(3600)] {
            let hand = Hand::<Response<Empty<Bytes>>>::new();
            hand.finish(empty());
            let deadline = Deadline::after(Duration::ZERO);
            advance(ago).await;
            let start = Instant::now();
            let call = limited(10 * MS, hand.clone()).oneshot(with_deadline(deadline));
            let error = ended(call).await.expect_err("late");
            assert_eq!(timed_out(&error).phase, Phase::Readiness);
            assert_eq!((hand.calls(), start.elapsed()), (0, Duration::ZERO));
        }
    }

    // T10
    #[tokio::test(start_paused = true)]
    async fn a_call_whose_time_ends_before_it_is_polled_is_not_made() {
        let hand = Hand::<Response<Empty<Bytes>>>::new();
        hand.finish(empty());
        let future = limited(10 * MS, hand.clone()).call(request());
        advance(10 * MS).await;
        let error = ended(future).await.expect_err("late");
        assert_eq!(
            (timed_out(&error).phase, hand.calls()),
            (Phase::Readiness, 0)
        );
    }
}

mod limits {
    use super::*;

    // T10
    #[test]
    fn zero_is_refused() {
        let error = ClientTimeoutLayer::try_new(Duration::ZERO).expect_err("refused");
        let panic = std::panic::catch_unwind(|| ClientTimeoutLayer::new(Duration::ZERO));
        let panic = panic.expect_err("refused");
        assert_eq!(panic.downcast_ref(), Some(&error.to_string()));
        assert!(ClientTimeoutLayer::try_new(Duration::from_nanos(1)).is_ok());
    }

    // T11
    #[test]
    fn the_longest_durations_arm_no_timer() {
        // There is no runtime here that a timer could be armed in.
        for limit in [Duration::MAX, Duration::from_secs(u64::MAX)] {
            for deadline in [None, Some(Deadline::NEVER), Some(Deadline::after(limit))] {
                let hand = Hand::new();
                let (feed, body) = Feed::new();
                let request = deadline.map_or_else(request, with_deadline);
                let mut call = task::spawn(limited(limit, hand.clone()).oneshot(request));
                assert_pending!(call.poll());
                hand.finish(Response::new(body));
                let response = assert_ready!(call.poll()).expect("in time");
                let mut body = task::spawn(response.into_body());
                let mut poll = || body.enter(|cx, body| body.poll_frame(cx).is_ready());
                assert!(!poll());
                feed.data("one");
                assert!(poll());
            }
        }
    }

    #[test]
    fn a_call_that_is_ready_at_once_arms_no_timer() {
        let hand = Hand::new();
        hand.finish(Response::new(Full::new(Bytes::from("body"))));
        let mut call = task::spawn(limited(MS, hand).oneshot(request()));
        let response = assert_ready!(call.poll()).expect("in time");
        let mut body = task::spawn(response.into_body());
        assert!(body.enter(|cx, body| body.poll_frame(cx)).is_ready());
    }

    // T11
    #[tokio::test(start_paused = true)]
    async fn the_longest_limit_still_keeps_what_is_announced() {
        let hand = Hand::<Response<Empty<Bytes>>>::new();
        let start = Instant::now();
        let request = with_deadline(Deadline::after(10 * MS));
        let error = ended(limited(Duration::MAX, hand).oneshot(request))
            .await
            .expect_err("late");
        assert_eq!(
            (timed_out(&error).limit, start.elapsed()),
            (10 * MS, 10 * MS)
        );
    }

    #[test]
    fn the_error_says_what_it_waited_for() {
        for (phase, text) in [
            (Phase::Readiness, "readiness"),
            (Phase::Head, "the response head"),
            (Phase::Body, "the response body"),
            (Phase::Idle, "the next frame of the response body"),
        ] {
            let error = TimedOut::new(phase, 7 * MS, 5 * MS);
            let expected = format!("timed out after 7ms of 5ms, waiting for {text}");
            assert_eq!(error.to_string(), expected);
        }
    }
}
