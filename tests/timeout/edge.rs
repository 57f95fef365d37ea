//! A deadline at the edge and a merge inside of it.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, Request};
use http_body_util::Empty;
use tokio::time::Instant;
use tower::util::BoxCloneSyncService;
use tower::{Layer, ServiceBuilder, ServiceExt};
use watershed::body::BoxBody;
use watershed::clone_request::CloneRequestLayer;
use watershed::deadline::DeadlineLayer;
use watershed::fanout::FanOut;
use watershed::merge::{JsonMerge, MergeLayer};
use watershed::outcome::Branch;
use watershed::test_util::{Reply, Scripted};
use watershed::timeout::{Scope, TimeoutLayer};

use crate::support::{Answer, on_paused_clock};

type Edge =
    BoxCloneSyncService<Request<Empty<Bytes>>, http::Response<BoxBody>, std::convert::Infallible>;

const WAIT: HeaderName = HeaderName::from_static("x-wait-ms");
/// Long enough for a machine that stalls: a call begins well within it.
const WAIT_MS: u64 = 750;

/// One branch answers at once and one never. Until when there is time is announced by the caller, or enforced by a layer
/// with that limit, or with a later one, or with that one and inside of a later one.
fn edges() -> [Edge; 4] {
    let merge = || {
        let prompt = Scripted::reply(Reply::json("7")).keep_calls(0);
        let never = Scripted::reply(Reply::hang()).keep_calls(0);
        ServiceBuilder::new()
            .map_response(|response: http::Response<_>| response.map(BoxBody::new))
            .layer(CloneRequestLayer::new())
            .layer(MergeLayer::new(JsonMerge::group()))
            .service(FanOut::new([
                Branch::http("prompt", prompt),
                Branch::http("never", never),
            ]))
    };
    let announced = DeadlineLayer::millis(WAIT);
    let exact = TimeoutLayer::new(Duration::from_millis(WAIT_MS)).scope(Scope::HeadAndBody);
    let later = TimeoutLayer::new(Duration::from_secs(60));
    let boxed = tower::util::MapResponseLayer::new(|response: http::Response<_>| {
        response.map(BoxBody::new)
    });
    [
        BoxCloneSyncService::new(announced.layer(merge())),
        BoxCloneSyncService::new(boxed.layer(exact.layer(merge()))),
        BoxCloneSyncService::new(boxed.layer(announced.layer(later.layer(merge())))),
        BoxCloneSyncService::new(boxed.layer(later.layer(boxed.layer(exact.layer(merge()))))),
    ]
}

fn request() -> Request<Empty<Bytes>> {
    let request = Request::get("/").header(WAIT, WAIT_MS);
    request.body(Empty::new()).expect("a request")
}

// T36
#[test]
fn a_late_sibling_costs_its_part_and_not_the_answer() {
    on_paused_clock(async {
        for edge in edges() {
            let start = Instant::now();
            let Ok(response) = edge.oneshot(request()).await;
            Answer::read(response)
                .await
                .assert_document(r#"{"prompt":7}"#, false);
            assert_eq!(start.elapsed(), Duration::from_millis(WAIT_MS));
        }
    });
}

/// On a real clock, which goes on between any two looks at it.
// T36
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn nor_does_it_in_any_of_ten_thousand_runs() {
    const RUNS: usize = 10_000;
    /// Less than a fan-out may have in flight, for each of the four.
    const AT_ONCE: usize = 2500;
    let edges = edges();
    for _ in 0..RUNS / AT_ONCE {
        let calls: Vec<_> = (0..AT_ONCE)
            .map(|run| {
                let edge = edges[run % edges.len()].clone();
                tokio::spawn(async move {
                    let Ok(response) = edge.oneshot(request()).await;
                    Answer::read(response).await
                })
            })
            .collect();
        for call in calls {
            call.await
                .expect("no panic")
                .assert_document(r#"{"prompt":7}"#, false);
        }
    }
}
