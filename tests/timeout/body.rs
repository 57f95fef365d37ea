//! Bodies: which of them a time limit ends, and how.

use std::future::{Future, pending, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, StreamBody};
use tokio::sync::oneshot;
use tokio::time::{Instant, advance, sleep};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, ServiceExt, service_fn};
use watershed::body::ResponseBody;
use watershed::deadline::{Deadline, Phase, TimedOut};
use watershed::error::{BoxError, cause_ref};
use watershed::timeout::{Scope, TimeoutBody, TimeoutLayer};

use crate::support::{Bomb, FedBody, Feed, MS};
use crate::{ended, request, with_deadline};

type Limited = ResponseBody<TimeoutBody<FedBody>>;

/// What a call comes to whose body is fed by hand, and whose head took so long.
async fn respond(
    layer: &TimeoutLayer,
    request: Request<()>,
    head: Duration,
    status: StatusCode,
) -> (Feed, Response<Limited>) {
    let (feed, body) = Feed::announcing(3);
    let body = Arc::new(Mutex::new(Some(body)));
    let service = service_fn(move |_| {
        let body = body.lock().expect("not poisoned").take();
        async move {
            sleep(head).await;
            let mut response = Response::new(body.expect("called once"));
            *response.status_mut() = status;
            response
                .headers_mut()
                .insert("x-inner", HeaderValue::from_static("1"));
            Ok::<_, BoxError>(response)
        }
    });
    let response = layer
        .layer(service)
        .oneshot(request)
        .await
        .expect("in time");
    (feed, response)
}

async fn body(layer: TimeoutLayer) -> (Feed, task::Spawn<Limited>) {
    let (feed, response) = respond(&layer, request(), 4 * MS, StatusCode::OK).await;
    (feed, task::spawn(response.into_body()))
}

fn poll(body: &mut task::Spawn<Limited>) -> Poll<Option<Result<Bytes, BoxError>>> {
    body.enter(|cx, body| {
        body.poll_frame(cx)
            .map(|frame| frame.map(|frame| frame.map(|frame| frame.into_data().expect("data"))))
    })
}

#[track_caller]
fn ended_by(frame: Poll<Option<Result<Bytes, BoxError>>>) -> TimedOut {
    let error = assert_ready!(frame)
        .expect("not a silent end")
        .expect_err("late");
    *cause_ref(error.as_ref()).expect("a timeout")
}

fn whole(limit: Duration) -> TimeoutLayer {
    TimeoutLayer::new(limit).scope(Scope::HeadAndBody)
}

// T21
#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_past_the_deadline_ends_with_an_error_and_the_head_stands() {
    let start = Instant::now();
    let (feed, response) = respond(&whole(10 * MS), request(), 4 * MS, StatusCode::CREATED).await;
    assert_eq!(
        (response.status(), start.elapsed()),
        (StatusCode::CREATED, 4 * MS)
    );
    assert_eq!(response.headers()["x-inner"], "1");
    assert!(response.extensions().get::<TimedOut>().is_none());
    let mut body = task::spawn(response.into_body());
    feed.data("a");
    assert_eq!(assert_ready!(poll(&mut body)).unwrap().unwrap(), "a");
    assert_pending!(poll(&mut body));
    advance(5 * MS).await;
    assert!(!body.is_woken());
    advance(MS).await;
    assert!(body.is_woken());
    // One deadline for head and body, from the call.
    assert_eq!(
        ended_by(poll(&mut body)),
        TimedOut::new(Phase::Body, 10 * MS, 10 * MS)
    );
    // It is over, whatever comes.
    feed.data("b");
    assert!(body.is_end_stream());
    assert!(assert_ready!(poll(&mut body)).is_none());
}

/// A merge's answer at its deadline is such a body: finished in time, and read just after it.
#[tokio::test(start_paused = true)]
async fn what_is_whole_at_the_deadline_may_be_read_however_late_its_reader_is() {
    let (feed, mut body) = body(whole(10 * MS).idle(5 * MS)).await;
    for data in ["a", "", "b", "c"] {
        feed.data(data);
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    feed.trailers(trailers.clone());
    feed.end();
    for (data, left) in [("a", 2), ("b", 1), ("c", 0)] {
        advance(Duration::from_secs(3600)).await;
        assert_eq!(assert_ready!(poll(&mut body)).unwrap().unwrap(), data);
        // All of it was taken at once.
        assert!(feed.is_dropped());
        assert_eq!(
            (body.size_hint().exact(), body.is_end_stream()),
            (Some(left), false)
        );
    }
    let frame = assert_ready!(body.enter(|cx, body| body.poll_frame(cx)));
    let frame = frame.expect("a frame").expect("in time");
    assert_eq!(frame.into_trailers().expect("trailers"), trailers);
    assert!(body.is_end_stream());
    assert!(assert_ready!(poll(&mut body)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_whole_at_the_deadline_ends_there() {
    let (feed, mut body) = body(whole(10 * MS)).await;
    feed.data("a");
    feed.data("b");
    assert_eq!(assert_ready!(poll(&mut body)).unwrap().unwrap(), "a");
    advance(20 * MS).await;
    // The third byte is not here.
    assert_eq!(
        ended_by(poll(&mut body)),
        TimedOut::new(Phase::Body, 24 * MS, 10 * MS)
    );
    assert!(feed.is_dropped());
    assert!(assert_ready!(poll(&mut body)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_has_failed_by_the_deadline_says_how() {
    let (feed, mut body) = body(whole(10 * MS)).await;
    feed.data("a");
    feed.data("b");
    feed.fail("cut");
    advance(20 * MS).await;
    let error = assert_ready!(poll(&mut body)).expect("an error");
    assert_eq!(error.expect_err("cut").to_string(), "cut");
    assert!(feed.is_dropped());
    assert!(assert_ready!(poll(&mut body)).is_none());
}

/// A body that makes each frame when it is asked for one, as one does whose backend is always ahead of its reader.
struct Made {
    frame: Bytes,
    frames: usize,
    /// What it says that it has, if that is not what it has.
    says: Option<u64>,
    alive: Arc<()>,
}

impl Made {
    const MIB: usize = 1024 * 1024;

    fn of(frames: usize, len: usize) -> Self {
        Self {
            frame: Bytes::from(vec![b'x'; len]),
            frames,
            says: None,
            alive: Arc::default(),
        }
    }

    fn saying(self, says: u64) -> Self {
        Self {
            says: Some(says),
            ..self
        }
    }
}

impl Body for Made {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        // It counts against the turn of its reader's task, as a channel does.
        let (sender, mut receiver) = oneshot::channel();
        sender.send(()).expect("open");
        ready!(Pin::new(&mut receiver).poll(cx)).expect("sent");
        if self.frames == 0 {
            // It has said that it is over. A connection may not know yet that nobody writes any more.
            return Poll::Pending;
        }
        self.frames -= 1;
        Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
    }

    fn is_end_stream(&self) -> bool {
        self.frames == 0
    }

    fn size_hint(&self) -> SizeHint {
        let has = (self.frames * self.frame.len()) as u64;
        SizeHint::with_exact(self.says.unwrap_or(has))
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_of_a_known_length_does_not_outrun_its_deadline() {
    let mib = Made::MIB as u64;
    for (made, is_whole) in [
        (Made::of(1, 1), true),
        (Made::of(8 * 1024, 1), true),
        (Made::of(8 * 1024 + 1, 1), false),
        (Made::of(8 * 1024 + 1, 0), false),
        (Made::of(1, Made::MIB), true),
        (Made::of(64, Made::MIB / 64), true),
        (Made::of(65, Made::MIB / 64), false),
        (Made::of(60, Made::MIB), false),
        // One that is longer than it says.
        (Made::of(65, Made::MIB / 64).saying(1), false),
        // One that says more is not read.
        (Made::of(1, 1).saying(mib + 1), false),
        (Made::of(1, 1).saying(u64::MAX), false),
    ] {
        let alive = Arc::downgrade(&made.alive);
        let mut left = made.frames;
        let made = Mutex::new(Some(made));
        let service = service_fn(|_| {
            let made = made.lock().expect("not poisoned").take();
            async { Ok::<_, BoxError>(Response::new(made.expect("called once"))) }
        });
        let layer = whole(10 * MS).idle(5 * MS);
        let response = layer.layer(service).oneshot(request()).await;
        let mut body = task::spawn(response.expect("in time").into_body());
        let mut poll = || body.enter(|cx, body| body.poll_frame(cx));
        advance(Duration::from_secs(3600)).await;
        let mut frame = assert_ready!(poll());
        assert_eq!(alive.strong_count(), 0);
        if !is_whole {
            let error = frame.expect("not a silent end").expect_err("late");
            let timed_out: &TimedOut = cause_ref(error.as_ref()).expect("a timeout");
            assert_eq!(timed_out.phase, Phase::Body);
            frame = assert_ready!(poll());
            left = 0;
        }
        while let Some(read) = frame {
            read.expect("no error");
            left -= 1;
            frame = assert_ready!(poll());
        }
        assert_eq!(left, 0);
    }
}

/// A body that has nothing when it is looked at before a limit, and a frame when the timer is looked at just after it.
struct Raced {
    looks: usize,
    /// How long the second look takes.
    takes: Duration,
    says: Option<u64>,
    frame: Option<Bytes>,
}

impl Body for Raced {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.looks += 1;
        match self.looks {
            1 => Poll::Pending,
            2 => {
                assert!(task::spawn(advance(self.takes)).poll().is_pending());
                Poll::Pending
            }
            _ => Poll::Ready(self.frame.take().map(|data| Ok(Frame::data(data)))),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.says.map_or_else(SizeHint::new, SizeHint::with_exact)
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_at_a_limit_is_seen_though_it_came_between_two_looks() {
    let idle = TimeoutLayer::new(MS).idle(10 * MS);
    for (layer, takes, says, frame) in [
        (whole(10 * MS), 10, None, Some("a")),
        (whole(10 * MS), 11, Some(0), Some("a")),
        (whole(10 * MS), 11, None, None),
        (idle.clone(), 10, None, Some("a")),
        (idle.clone(), 11, None, Some("a")),
        (idle, 11, None, None),
    ] {
        let raced = Mutex::new(Some(Raced {
            looks: 0,
            takes: MS * takes,
            says,
            frame: frame.map(Bytes::from),
        }));
        let service = service_fn(|_| {
            let raced = raced.lock().expect("not poisoned").take();
            async { Ok::<_, BoxError>(Response::new(raced.expect("called once"))) }
        });
        let response = layer.layer(service).oneshot(request()).await;
        let mut body = task::spawn(response.expect("in time").into_body());
        let mut poll = || body.enter(|cx, body| body.poll_frame(cx));
        assert_pending!(poll());
        if let Some(data) = frame {
            let frame = assert_ready!(poll()).expect("a frame").expect("in time");
            assert_eq!(frame.into_data().expect("data"), data);
        }
        assert!(assert_ready!(poll()).is_none());
    }
}

/// Whoever keeps the body after its error keeps no connection with it.
#[tokio::test(start_paused = true)]
async fn a_body_is_gone_before_anybody_is_told_that_it_is_late() {
    for (layer, phase) in [
        (whole(10 * MS), Phase::Body),
        (TimeoutLayer::new(10 * MS).idle(5 * MS), Phase::Idle),
    ] {
        let (feed, mut body) = body(layer).await;
        assert_pending!(poll(&mut body));
        advance(10 * MS).await;
        assert!(!feed.is_dropped());
        assert_eq!(ended_by(poll(&mut body)).phase, phase);
        assert!(feed.is_dropped());
        assert_eq!(
            (body.size_hint().exact(), body.is_end_stream()),
            (Some(0), true)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_body_that_panics_as_it_goes_takes_no_error_along() {
    let service = service_fn(|_| async {
        let bomb = Bomb("as it goes");
        let frame = async move {
            let _bomb = bomb;
            pending::<Result<Frame<Bytes>, BoxError>>().await
        };
        let stalls = StreamBody::new(Box::pin(futures_util::stream::once(frame)));
        Ok::<_, BoxError>(Response::new(stalls))
    });
    let response = whole(10 * MS).layer(service).oneshot(request()).await;
    let mut body = task::spawn(response.expect("in time").into_body());
    assert_pending!(body.enter(|cx, body| body.poll_frame(cx)));
    advance(10 * MS).await;
    let error = assert_ready!(body.enter(|cx, body| body.poll_frame(cx)))
        .expect("not a silent end")
        .expect_err("late");
    assert!(cause_ref::<TimedOut>(error.as_ref()).is_some());
    assert!(assert_ready!(body.enter(|cx, body| body.poll_frame(cx))).is_none());
}

// T22
#[tokio::test(start_paused = true)]
async fn a_body_that_drips_ends_at_the_deadline_though_it_is_never_idle() {
    let (feed, response) = respond(
        &whole(10 * MS).idle(5 * MS),
        request(),
        Duration::ZERO,
        StatusCode::OK,
    )
    .await;
    let start = Instant::now();
    tokio::spawn(async move {
        for _ in 0..10 {
            sleep(3 * MS).await;
            feed.data("");
        }
        feed.end();
    });
    let mut body = response.into_body();
    let mut read = 0;
    let error = loop {
        match poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            Some(Ok(_)) => read += 1,
            Some(Err(error)) => break error,
            None => panic!("a silent end"),
        }
    };
    let timed_out: &TimedOut = cause_ref(error.as_ref()).expect("a timeout");
    assert_eq!(
        (read, start.elapsed(), timed_out.phase),
        (3, 10 * MS, Phase::Body)
    );
}

// T22
#[tokio::test(start_paused = true)]
async fn a_body_that_is_not_in_the_scope_takes_the_time_it_takes() {
    let (feed, mut body) = body(TimeoutLayer::new(10 * MS).scope(Scope::Head)).await;
    for _ in 0..100 {
        assert_pending!(poll(&mut body));
        advance(Duration::from_secs(3600)).await;
        assert!(!body.is_woken());
        feed.data("");
        assert_eq!(assert_ready!(poll(&mut body)).unwrap().unwrap(), "");
    }
    feed.end();
    assert!(assert_ready!(poll(&mut body)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_keeps_its_reader_waiting_is_ended() {
    let (feed, mut body) = body(TimeoutLayer::new(10 * MS).idle(7 * MS)).await;
    for _ in 0..10 {
        assert_pending!(poll(&mut body));
        advance(6 * MS).await;
        // To be looked at in between changes nothing.
        assert_pending!(poll(&mut body));
        feed.data("");
        assert!(assert_ready!(poll(&mut body)).unwrap().is_ok());
    }
    assert_pending!(poll(&mut body));
    advance(6 * MS).await;
    assert_pending!(poll(&mut body));
    advance(MS).await;
    assert!(body.is_woken());
    assert_eq!(
        ended_by(poll(&mut body)),
        TimedOut::new(Phase::Idle, 7 * MS, 7 * MS)
    );
    assert!(assert_ready!(poll(&mut body)).is_none());
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_its_time_does_not_make_a_body_idle() {
    let (feed, mut body) = body(TimeoutLayer::new(10 * MS).idle(7 * MS)).await;
    // Before the first look, between two, and when there was something all along.
    advance(Duration::from_secs(3600)).await;
    assert_pending!(poll(&mut body));
    advance(5 * MS).await;
    feed.data("");
    advance(Duration::from_secs(3600)).await;
    assert!(assert_ready!(poll(&mut body)).unwrap().is_ok());
    advance(Duration::from_secs(3600)).await;
    assert_pending!(poll(&mut body));
    advance(6 * MS).await;
    assert_pending!(poll(&mut body));
    // At a tie, the frame wins.
    advance(MS).await;
    feed.data("");
    assert!(assert_ready!(poll(&mut body)).unwrap().is_ok());
    feed.end();
    assert!(assert_ready!(poll(&mut body)).is_none());
}

// T25
#[tokio::test(start_paused = true)]
async fn no_timer_touches_a_connection_that_was_handed_over() {
    let layer = whole(10 * MS).idle(5 * MS);
    for (method, status, is_touched) in [
        (Method::GET, StatusCode::SWITCHING_PROTOCOLS, false),
        (Method::CONNECT, StatusCode::OK, false),
        (Method::CONNECT, StatusCode::NO_CONTENT, false),
        (Method::CONNECT, StatusCode::FORBIDDEN, true),
        (Method::GET, StatusCode::OK, true),
    ] {
        let mut request = request();
        *request.method_mut() = method;
        let (feed, response) = respond(&layer, request, MS, status).await;
        assert_eq!(response.status(), status);
        let mut body = task::spawn(response.into_body());
        assert_pending!(poll(&mut body));
        advance(Duration::from_secs(3600)).await;
        assert_eq!(body.is_woken(), is_touched);
        if !is_touched {
            feed.data("abc");
            feed.end();
            assert!(assert_ready!(poll(&mut body)).unwrap().is_ok());
        } else {
            ended_by(poll(&mut body));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_body_is_held_to_its_own_limit_whoever_answers_for_the_head() {
    let enforced = with_deadline(Deadline::after(10 * MS).enforced());
    let start = Instant::now();
    let (_feed, response) = respond(&whole(50 * MS), enforced, MS, StatusCode::OK).await;
    let mut body = response.into_body();
    let error = ended(body.frame()).await.expect("an error");
    let error = error.expect_err("late");
    let timed_out: &TimedOut = cause_ref(error.as_ref()).expect("a timeout");
    assert_eq!((timed_out.phase, start.elapsed()), (Phase::Body, 50 * MS));
}

#[tokio::test(start_paused = true)]
async fn frames_trailers_hints_and_failures_pass_through() {
    for layer in [TimeoutLayer::new(10 * MS), whole(10 * MS).idle(5 * MS)] {
        let (feed, mut body) = body(layer).await;
        assert_eq!(
            (body.size_hint().exact(), body.is_end_stream()),
            (Some(3), false)
        );
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        feed.data("abc");
        feed.trailers(trailers.clone());
        feed.fail("cut");
        feed.end();
        assert_eq!(assert_ready!(poll(&mut body)).unwrap().unwrap(), "abc");
        assert_eq!(
            (body.size_hint().exact(), body.is_end_stream()),
            (Some(0), false)
        );
        let frame = body.enter(|cx, body| body.poll_frame(cx));
        let frame = assert_ready!(frame).expect("a frame").expect("in time");
        assert_eq!(frame.into_trailers().expect("trailers"), trailers);
        let error = assert_ready!(poll(&mut body))
            .expect("an error")
            .expect_err("cut");
        assert_eq!(error.to_string(), "cut");
        assert!(body.is_end_stream());
        drop(body);
        assert!(feed.is_dropped());
    }
}
