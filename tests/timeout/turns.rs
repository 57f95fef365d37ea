//! Tokio lets a task make so much progress in one turn; then all that it asks is pending until the next. Who decides at a
//! deadline must not take that for "not finished".

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Mutex;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::task::consume_budget;
use tokio::time::{Instant, sleep, sleep_until};
use tower::util::MapFutureLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use watershed::clone_request::{CloneRequestLayer, TeeBody};
use watershed::deadline::{Deadline, Phase, TimedOut};
use watershed::error::{BoxError, cause_ref};
use watershed::fanout::FanOut;
use watershed::merge::{JsonMerge, MergeLayer, merge_parts};
use watershed::outcome::{Branch, BranchError};
use watershed::timeout::{ClientTimeoutLayer, Scope, TimeoutLayer};

use crate::support::{HttpBranch, MS, get};
use crate::{Whole, request, response};

/// What a task may do in one turn.
const TURN: usize = 128;

/// Finished at 10 ms, but for so many steps that are ready at once.
async fn work(steps: usize) {
    sleep(10 * MS).await;
    for _ in 0..steps {
        consume_budget().await;
    }
}

fn worker(
    steps: usize,
) -> impl Service<Request<()>, Response = Response<Whole>, Error = BoxError, Future: Send> + Clone {
    service_fn(move |_| async move {
        work(steps).await;
        Ok(response("in time"))
    })
}

/// `future` in a task that uses up what it may do before it comes to it, for so many turns from 10 ms on.
async fn in_a_busy_task<F: Future>(future: F, mut turns: usize) -> F::Output {
    let mut future = pin!(future);
    let from = Instant::now() + 10 * MS;
    poll_fn(|cx| {
        if turns > 0 && Instant::now() >= from {
            turns -= 1;
            spend(cx);
        }
        future.as_mut().poll(cx)
    })
    .await
}

fn spend(cx: &mut Context<'_>) {
    for _ in 0..TURN {
        let _ = pin!(consume_budget()).poll(cx);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_finished_at_its_deadline_wins_in_a_busy_task() {
    for turns in [0, 1, 2, 64] {
        for steps in [0, 1, 100] {
            let call = TimeoutLayer::new(10 * MS).layer(worker(steps));
            let answer = in_a_busy_task(call.oneshot(request()), turns).await;
            assert_eq!(answer.expect("an answer").status(), 200, "{turns} {steps}");

            let call = ClientTimeoutLayer::new(10 * MS).layer(worker(steps));
            let answer = in_a_busy_task(call.oneshot(request()), turns).await;
            assert!(answer.is_ok(), "{turns} {steps}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn so_it_does_if_it_takes_several_turns_of_its_own() {
    for steps in [TURN - 1, TURN, TURN + 1, 10 * TURN] {
        let call = TimeoutLayer::new(10 * MS).layer(worker(steps));
        let answer = call.oneshot(request()).await.expect("an answer");
        assert_eq!(answer.status(), 200, "{steps}");
    }
}

/// Counts how often it is polled from then on.
async fn polls_from<F: Future>(from: Instant, future: F) -> (F::Output, usize) {
    let mut future = pin!(future);
    let mut polls = 0;
    let output = poll_fn(|cx| {
        polls += usize::from(Instant::now() >= from);
        future.as_mut().poll(cx)
    })
    .await;
    (output, polls)
}

#[tokio::test(start_paused = true)]
async fn work_that_goes_on_and_on_is_late() {
    let layer = TimeoutLayer::new(10 * MS);
    let start = Instant::now();
    let call = layer.layer(worker(usize::MAX)).oneshot(request());
    let (answer, polls) = polls_from(start + 10 * MS, call).await;
    assert_eq!(answer.expect("an answer").status(), 504);
    // One turn for each branch of the widest fan-out.
    assert_eq!((start.elapsed(), polls), (10 * MS, 65));

    let call = layer.layer(worker(100)).oneshot(request());
    let answer = in_a_busy_task(call, 65).await.expect("an answer");
    assert_eq!(answer.status(), 504);
}

/// A caller that is late as well waits for one turn more, and then no longer.
#[tokio::test(start_paused = true)]
async fn once_the_deadline_is_clearly_over_there_is_one_more_turn() {
    for (steps, status, turns) in [(1, 200, 1), (TURN, 200, 2), (usize::MAX, 504, 2)] {
        let start = Instant::now();
        let mut call = pin!(
            TimeoutLayer::new(10 * MS)
                .layer(worker(steps))
                .oneshot(request())
        );
        assert!(futures_util::poll!(call.as_mut()).is_pending());
        sleep(20 * MS).await;
        let (answer, polls) = polls_from(start, call).await;
        assert_eq!(answer.expect("an answer").status(), status);
        assert_eq!((start.elapsed(), polls), (20 * MS, turns));
    }
}

#[tokio::test(start_paused = true)]
async fn work_that_is_not_finished_is_late_in_a_busy_task_as_well() {
    for turns in [0, 1, 64, 200] {
        let start = Instant::now();
        let service = service_fn(|_| async {
            sleep(10 * MS).await;
            // Finished at the same instant, but not as soon as it is asked.
            std::future::pending::<Result<Response<Whole>, BoxError>>().await
        });
        let call = TimeoutLayer::new(10 * MS).layer(service).oneshot(request());
        let answer = in_a_busy_task(call, turns).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), start.elapsed()), (504, 10 * MS));
    }
}

fn document() -> Response<Whole> {
    Response::builder()
        .header("content-type", "application/json")
        .body(Whole::from("1"))
        .expect("a response")
}

/// As many branches as there can be, each limited to so long.
fn branches(limit: Duration, steps: usize) -> Vec<HttpBranch> {
    let branch = |index| {
        let service = service_fn(move |_: Request<TeeBody>| async move {
            work(steps).await;
            Ok::<_, Infallible>(document())
        });
        let service = ClientTimeoutLayer::new(limit).layer(service);
        Branch::http(format!("b{index}"), service)
    };
    (0..64).map(branch).collect()
}

#[tokio::test(start_paused = true)]
async fn of_many_branches_all_that_are_finished_at_the_deadline_are_in_the_answer() {
    const NEVER: Duration = Duration::MAX;
    for steps in [0, 1, 2, 3, 20] {
        for (branch, within, outside) in [
            (10 * MS, NEVER, NEVER),
            (NEVER, 10 * MS, NEVER),
            (10 * MS, 10 * MS, NEVER),
            // What is enforced outside, the merge ends at, too.
            (NEVER, NEVER, 10 * MS),
            (10 * MS, 10 * MS, 10 * MS),
        ] {
            let start = Instant::now();
            let service = ServiceBuilder::new()
                .layer(TimeoutLayer::new(outside))
                .layer(CloneRequestLayer::new())
                .layer(MergeLayer::new(JsonMerge::group()).within(within))
                .service(FanOut::new(branches(branch, steps)));
            let answer = service.oneshot(get("/")).await.expect("an answer");
            let seen = (answer.status().as_u16(), start.elapsed());
            assert_eq!(seen, (200, 10 * MS), "{steps} {branch:?} {within:?}");
            assert_eq!(answer.headers()["watershed-complete"], "true", "{steps}");
        }
    }
}

/// A gather by itself.
#[tokio::test(start_paused = true)]
async fn a_branch_is_late_only_if_it_is_not_finished() {
    for steps in [0, 1, 3, 20] {
        let service = |index: u32| {
            service_fn(move |()| async move {
                match index % 4 {
                    0 => sleep(11 * MS).await,
                    _ => work(steps).await,
                }
                Ok::<_, BoxError>(())
            })
        };
        let branch = |index| Branch::new(format!("b{index}"), service(index));
        let fan_out = FanOut::new((0..64).map(branch));
        let mut gather = fan_out.oneshot(()).await.expect("not full");
        gather.end_at(Deadline::after(10 * MS));
        let outcomes: Vec<_> = gather.collect().await;
        assert_eq!(outcomes.len(), 64);
        for outcome in outcomes {
            match outcome.branch.index() % 4 {
                0 => assert!(matches!(outcome.result, Err(BranchError::DeadlineExceeded))),
                _ => assert!(outcome.result.is_ok(), "{steps}"),
            }
        }
    }
}

/// Ready at 10 ms, but for so many steps.
struct Queue {
    steps: usize,
    turn: Option<Pin<Box<dyn Future<Output = ()> + Send + Sync>>>,
}

impl Clone for Queue {
    fn clone(&self) -> Self {
        Self {
            steps: self.steps,
            turn: None,
        }
    }
}

impl Service<()> for Queue {
    type Response = ();
    type Error = BoxError;
    type Future = std::future::Ready<Result<(), BoxError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        let steps = self.steps;
        let turn = self.turn.get_or_insert_with(|| Box::pin(work(steps)));
        turn.as_mut().poll(cx).map(Ok)
    }

    fn call(&mut self, (): ()) -> Self::Future {
        std::future::ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_ready_at_its_limit_is_ready() {
    for steps in [0, 1, 3, 20] {
        let branch = |index| Branch::new(format!("b{index}"), Queue { steps, turn: None });
        let fan_out = FanOut::new((0..64).map(branch)).ready_within(10 * MS);
        let gather = fan_out.oneshot(()).await.expect("not full");
        let failed = gather.filter(|outcome| std::future::ready(outcome.result.is_err()));
        assert_eq!(failed.count().await, 0, "{steps}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_fan_out_that_is_called_by_the_deadline_is_in_time() {
    for turns in [0, 1, 64] {
        let branch = service_fn(|_: Request<TeeBody>| async { Ok::<_, Infallible>(document()) });
        let service = ServiceBuilder::new()
            .layer(CloneRequestLayer::new())
            .layer(MergeLayer::new(JsonMerge::group()).within(10 * MS))
            .layer(MapFutureLayer::new(|call| async move {
                work(1).await;
                call.await
            }))
            .service(FanOut::new([Branch::http("a", branch)]));
        let answer = in_a_busy_task(service.oneshot(get("/")), turns).await;
        let answer = answer.expect("an answer");
        // There is no time left for the branch.
        let problem = answer.into_body().collect().await.expect("a body");
        let problem = String::from_utf8(problem.to_bytes().to_vec()).expect("UTF-8");
        assert!(problem.contains(r#""branches":[{"#), "{turns}: {problem}");
    }
}

/// A body whose frames come at 10 ms, all of them: one byte each, and so many steps before each.
fn frames(
    frames: usize,
    steps: usize,
) -> impl http_body::Body<Data = Bytes, Error = BoxError> + Send + Unpin {
    let at = Instant::now() + 10 * MS;
    let stream = futures_util::stream::iter(0..frames).then(move |index| async move {
        if index == 0 {
            sleep_until(at).await;
        }
        for _ in 0..steps {
            consume_budget().await;
        }
        Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"1")))
    });
    StreamBody::new(Box::pin(stream))
}

#[tokio::test(start_paused = true)]
async fn bodies_that_are_whole_at_the_deadline_are_in_time() {
    for (width, number, steps, parts) in [
        (64, 1, 3, 64),
        (64, 10, 1, 64),
        (3, 200, 0, 3),
        (3, 8000, 0, 3),
        (1, 1000, 1, 1),
        // What goes on and on is late.
        (3, 1 << 20, 0, 0),
    ] {
        let service = service_fn(move |_: Request<TeeBody>| async move {
            Ok::<_, Infallible>(Response::new(frames(number, steps)))
        });
        let branch = |index| Branch::http(format!("b{index}"), service);
        let merge = merge_parts(|_, parts| async move {
            let lengths = parts.iter().map(|part| match &part.result {
                Ok(response) => response.body().len(),
                Err(_) => 0,
            });
            Response::new(Whole::from(lengths.sum::<usize>().to_string()))
        });
        let service = ServiceBuilder::new()
            .layer(CloneRequestLayer::new())
            .layer(MergeLayer::new(merge).within(10 * MS))
            .service(FanOut::new((0..width).map(branch)));
        let answer = service.oneshot(get("/")).await.expect("an answer");
        let text = answer.into_body().collect().await.expect("a body");
        let expected = (parts * number).to_string();
        assert_eq!(text.to_bytes(), expected, "{width} {number} {steps}");
    }
}

/// A body of a known length, of which each frame is a step.
struct Steps {
    left: u64,
}

impl http_body::Body for Steps {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        ready!(pin!(consume_budget()).poll(cx));
        let Some(left) = self.left.checked_sub(1) else {
            return Poll::Ready(None);
        };
        self.left = left;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"1")))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.left)
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_there_is_read_out_in_a_busy_task() {
    for layer in [
        TimeoutLayer::new(10 * MS).scope(Scope::HeadAndBody),
        TimeoutLayer::new(Duration::MAX).idle(10 * MS),
    ] {
        for wait in [5, 10, 500] {
            let body = Mutex::new(Some(Steps { left: 300 }));
            let service = service_fn(|_: Request<()>| {
                let body = body.lock().expect("not poisoned").take();
                async { Ok::<_, BoxError>(Response::new(body.expect("called once"))) }
            });
            let answer = layer.layer(service).oneshot(request()).await;
            let body = answer.expect("in time").into_body();
            sleep(MS * wait).await;
            poll_fn(|cx| {
                spend(cx);
                Poll::Ready(())
            })
            .await;
            let read = body.collect().await.expect("there in time");
            assert_eq!(read.to_bytes().len(), 300);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_comes_at_the_idle_limit_is_passed_on_in_a_busy_task() {
    for (steps, is_late) in [(1, false), (usize::MAX, true)] {
        for turns in [0, 1, 64] {
            let service = service_fn(move |_: Request<()>| async move {
                Ok::<_, BoxError>(Response::new(frames(1, steps)))
            });
            let layer = TimeoutLayer::new(Duration::MAX).idle(10 * MS);
            let answer = layer.layer(service).oneshot(request()).await;
            let mut body = answer.expect("in time").into_body();
            let frame = in_a_busy_task(body.frame(), turns).await;
            match frame.expect("a frame") {
                Ok(_) => assert!(!is_late, "{turns}"),
                Err(error) => {
                    let timed_out: &TimedOut = cause_ref(error.as_ref()).expect("a timeout");
                    assert!(is_late, "{turns}");
                    assert_eq!(timed_out.phase, Phase::Idle);
                }
            }
        }
    }
}

/// Nor does it use up the turns of a later one.
#[tokio::test(start_paused = true)]
async fn each_wait_for_a_frame_has_its_own_turns() {
    const TURNS: usize = 40;
    let service = service_fn(|_: Request<()>| async {
        let stream = futures_util::stream::iter(0..3).then(|_| async {
            work(1).await;
            Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"1")))
        });
        Ok::<_, BoxError>(Response::new(StreamBody::new(Box::pin(stream))))
    });
    let layer = TimeoutLayer::new(Duration::MAX).idle(10 * MS);
    let answer = layer.layer(service).oneshot(request()).await;
    let mut body = answer.expect("in time").into_body();
    for wait in 0..3 {
        let frame = in_a_busy_task(body.frame(), TURNS).await;
        assert!(frame.expect("a frame").is_ok(), "{wait}");
    }
}
