//! A panic comes with a payload, which may panic in turn as it goes.

use std::future::pending;
use std::panic::panic_any;
use std::time::Duration;

use http::{Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use tokio::time::sleep;
use tower::{Layer, ServiceExt, service_fn};
use watershed::background::Background;
use watershed::deadline::TimedOut;
use watershed::error::{BoxError, cause_ref};
use watershed::timeout::{ClientTimeoutLayer, Late, Scope, TimeoutLayer};

use crate::support::{Answer, Bomb, MS};
use crate::{Whole, request, sleeper};

/// Panics with one that panics as it goes.
fn explode() -> ! {
    panic_any(Bomb("the payload"))
}

/// Panics so when it is dropped.
struct Charge;

impl Drop for Charge {
    fn drop(&mut self) {
        explode();
    }
}

fn late() -> TimeoutLayer {
    TimeoutLayer::new(10 * MS)
}

#[tokio::test(start_paused = true)]
async fn a_payload_takes_no_answer_along() {
    let charged = service_fn(|_| async {
        let _charge = Charge;
        pending::<Result<Response<Whole>, BoxError>>().await
    });
    let layer = late()
        .status(StatusCode::SERVICE_UNAVAILABLE)
        .respond_with(|_| explode())
        .on_timeout(|_| explode());
    for _ in 0..3 {
        let answer = layer.layer(charged).oneshot(request()).await;
        let answer = Answer::read(answer.expect("an answer")).await;
        answer.assert_problem(503);

        let error = ClientTimeoutLayer::new(10 * MS).layer(charged);
        let error = error.oneshot(request()).await.expect_err("late");
        assert!(cause_ref::<TimedOut>(error.as_ref()).is_some());
    }
}

#[tokio::test(start_paused = true)]
async fn nor_the_end_of_a_body() {
    let service = service_fn(|_| async {
        let charge = Charge;
        let frame = async move {
            let _charge = charge;
            pending::<Result<Frame<_>, BoxError>>().await
        };
        let stalls = StreamBody::new(Box::pin(futures_util::stream::once(frame)));
        Ok::<_, BoxError>(Response::new(stalls))
    });
    let layer = late().scope(Scope::HeadAndBody);
    let answer = layer.layer(service).oneshot(request()).await;
    let error = answer.expect("in time").into_body().collect().await;
    let error = error.expect_err("late");
    assert!(cause_ref::<TimedOut>(error.as_ref()).is_some());
}

#[tokio::test(start_paused = true)]
async fn nor_a_task_in_the_background() {
    let background = Background::new(1);
    let detach = |layer: TimeoutLayer| {
        layer.detach(background.clone(), |_: Late<Whole, BoxError>| explode())
    };
    for _ in 0..3 {
        let answer = detach(late()).layer(sleeper(20 * MS)).oneshot(request());
        assert_eq!(answer.await.expect("an answer").status(), 504);
        assert_eq!(background.running(), 1);
        sleep(20 * MS).await;
        assert_eq!(background.running(), 0);

        // Here it is the hook's to drop, and goes as that ends.
        let ends = service_fn(|_| async {
            sleep(20 * MS).await;
            explode();
            #[expect(unreachable_code, reason = "says what it would answer")]
            Ok::<Response<Whole>, BoxError>(Response::default())
        });
        let hook = |late: Late<Whole, BoxError>| drop(late);
        let answer = late().detach(background.clone(), hook).layer(ends);
        let answer = answer.oneshot(request()).await;
        assert_eq!(answer.expect("an answer").status(), 504);
        sleep(20 * MS).await;
        assert_eq!(background.running(), 0);
    }
    assert_eq!(background.shutdown(Duration::ZERO).await.aborted, 0);
}
