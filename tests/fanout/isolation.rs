//! What a branch does to its request is seen by no other.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::StreamExt;
use tokio::time::sleep;
use tower::service_fn;
use watershed::error::BoxError;
use watershed::fanout::FanOut;
use watershed::outcome::Branch;

use crate::common::gather;
use crate::support::MS;

// L43
#[tokio::test(start_paused = true)]
async fn what_a_branch_does_to_its_request_is_seen_by_no_other() {
    let branch = |index: usize| {
        let service = service_fn(move |mut request: Vec<String>| async move {
            // All of them change theirs, before and after the others have.
            request.push(format!("early {index}"));
            sleep(MS * 5).await;
            request.retain(|text| text != "shared");
            sleep(MS * 5).await;
            Ok::<_, BoxError>(request)
        });
        Branch::new(format!("b{index}"), service)
    };
    let fan_out = FanOut::new((0..3).map(branch));
    let request = vec!["shared".to_owned(), "kept".to_owned()];
    let outcomes: Vec<_> = gather(&fan_out, request).collect().await;
    for (index, outcome) in outcomes.into_iter().enumerate() {
        let seen = outcome.result.expect("no failure");
        assert_eq!(seen, ["kept".to_owned(), format!("early {index}")]);
    }
}

/// Counts its clones.
#[derive(Debug, Default)]
struct Counted(Arc<AtomicUsize>);

impl Clone for Counted {
    fn clone(&self) -> Self {
        self.0.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

#[tokio::test]
async fn a_request_is_cloned_once_per_branch_that_wants_it() {
    let service = service_fn(|_: Counted| async { Ok::<_, BoxError>(()) });
    let fan_out = FanOut::new([
        Branch::new("a", service),
        Branch::new("b", service).when(|_| false),
        Branch::new("c", service),
    ]);
    let request = Counted::default();
    let clones = Arc::clone(&request.0);
    assert_eq!(gather(&fan_out, request).count().await, 3);
    assert_eq!(clones.load(Ordering::Relaxed), 2);
}
