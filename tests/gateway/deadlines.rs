//! `--deadline-field`: how long a caller waits, and what its backends are told.

use std::time::Duration;

use crate::NOISE;
use crate::backend::{Backend, Request};
use crate::caller::request;
use crate::process::{Gateway, Run};

fn run(backend: &Backend, hangs: &Backend) -> Run {
    Run::new()
        .route("/x")
        .branch("a", backend, "/")
        .branch("b", hangs, "/")
        .flag("branch-timeout", "a=5s")
        .flag("timeout", "10s")
}

async fn ask(gateway: &Gateway, fields: &[&str]) -> Duration {
    let start = std::time::Instant::now();
    let answer = gateway.send(request("GET", "/x", fields, "")).await;
    answer.incomplete(r#"{"a":{}}"#);
    start.elapsed()
}

/// What the backend was told is at most so much, and not much less.
#[track_caller]
fn told(request: &Request, most: Duration) {
    let told = request.field("x-wait-ms").expect("how long it has");
    let told = Duration::from_millis(told.parse().expect("milliseconds"));
    assert!(told <= most && told + NOISE > most, "{told:?} of {most:?}");
}

#[tokio::test]
async fn a_caller_is_answered_within_its_time_and_its_backends_know_what_is_left() {
    let (backend, hangs) = (Backend::json("{}"), Backend::hangs());
    let run = run(&backend, &hangs).flag("deadline-field", "X-Wait-Ms");
    let gateway = run.start().await;
    let wait = Duration::from_millis(300);
    let elapsed = ask(&gateway, &["X-Wait-Ms: 300"]).await;
    assert!(elapsed >= wait && elapsed < wait + NOISE, "{elapsed:?}");
    told(&backend.request(), wait);
    told(&hangs.request(), wait);
}

#[tokio::test]
async fn no_caller_makes_it_longer() {
    for said in [&[][..], &["X-Wait-Ms: x"], &["X-Wait-Ms: 3600000"]] {
        let (backend, hangs) = (Backend::json("{}"), Backend::hangs());
        let run = run(&backend, &hangs)
            .flag("deadline-field", "X-Wait-Ms")
            .flag("branch-timeout", "b=200ms");
        ask(&run.start().await, said).await;
        // The earlier of the route's and the branch's own.
        told(&backend.request(), Duration::from_secs(5));
        told(&hangs.request(), Duration::from_millis(200));
    }
}

#[tokio::test]
async fn without_the_flag_it_is_a_field_like_any_other() {
    let (backend, hangs) = (Backend::json("{}"), Backend::hangs());
    let run = run(&backend, &hangs).flag("branch-timeout", "b=200ms");
    ask(&run.start().await, &["X-Wait-Ms: 1"]).await;
    assert_eq!(backend.request().field("x-wait-ms"), Some("1"));
}
