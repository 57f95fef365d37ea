//! Names, layers, clones: how a fan-out is put together.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};

use futures_util::StreamExt;
use futures_util::future::join_all;
use tower::limit::ConcurrencyLimitLayer;
use tower::{Layer, ServiceExt, service_fn};
use watershed::error::BoxError;
use watershed::fanout::{FanOut, FanOutLayer};
use watershed::outcome::Branch;

use crate::common::{gather, sleeper};
use crate::support::{Hand, MS};

fn named<'a>(names: impl IntoIterator<Item = &'a str>) -> Vec<Branch<Hand<()>, ()>> {
    let branch = |name: &str| Branch::new(name, Hand::new());
    names.into_iter().map(branch).collect()
}

#[test]
fn names_are_one_to_sixty_four_and_differ() {
    let many: Vec<String> = (0..65).map(|n| n.to_string()).collect();
    let many = || many.iter().map(String::as_str);
    for (branches, why) in [
        (named([]), "needs a branch"),
        (named(many()), "at most 64 branches, not 65"),
        (named([""]), "needs a name"),
        (named(["a", ""]), "needs a name"),
        (named(["a", "b", "a"]), r#"two branches are called "a""#),
    ] {
        let error = FanOut::try_new(branches.clone()).expect_err("refused");
        assert!(error.to_string().contains(why), "{error}");
        let panic = catch_unwind(AssertUnwindSafe(|| FanOut::new(branches)));
        let panic = panic.expect_err("refused");
        assert_eq!(panic.downcast_ref(), Some(&error.to_string()));
    }
    assert!(FanOut::try_new(named(many().take(64))).is_ok());
    // Names are told apart as they are written.
    assert!(FanOut::try_new(named(["a", "A", " a", "ä"])).is_ok());
}

#[test]
fn a_layer_refuses_the_same() {
    let identity = tower::layer::util::Identity::new;
    let twice = [
        Branch::<_, ()>::new("a", identity()),
        Branch::new("a", identity()),
    ];
    assert!(FanOutLayer::try_new(twice).is_err());
    assert!(FanOutLayer::<tower::layer::util::Identity, ()>::try_new([]).is_err());
}

#[test]
fn limits_of_zero_are_refused() {
    let fan_out = || FanOut::new(named(["a"]));
    let identity = tower::layer::util::Identity::new;
    let layer = || FanOutLayer::new([Branch::<_, ()>::new("a", identity())]);
    let width = "a width of zero would run no branch";
    let in_flight = "a limit of zero would refuse every call";
    let error = fan_out().try_width(0).expect_err("refused");
    assert_eq!(error.to_string(), width);
    let error = layer().try_width(0).expect_err("refused");
    assert_eq!(error.to_string(), width);
    let error = fan_out().try_max_in_flight(0).expect_err("refused");
    assert_eq!(error.to_string(), in_flight);
    let error = layer().try_max_in_flight(0).expect_err("refused");
    assert_eq!(error.to_string(), in_flight);
    assert!(fan_out().try_width(1).is_ok() && layer().try_width(1).is_ok());
    assert!(fan_out().try_max_in_flight(1).is_ok() && layer().try_max_in_flight(1).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_layer_keeps_names_conditions_and_settings() {
    let layer = FanOutLayer::new([
        Branch::new("a", tower::layer::util::Identity::new()).required(),
        Branch::new("b", tower::layer::util::Identity::new()),
        Branch::new("c", tower::layer::util::Identity::new()).when(|()| false),
    ])
    .width(1)
    .ready_within(2 * MS);
    let seen: Vec<_> = gather(&layer.layer(sleeper(5)), ())
        .map(|outcome| {
            let name = outcome.branch.to_string();
            (name, outcome.required, outcome.result.ok())
        })
        .collect()
        .await;
    assert_eq!(
        seen,
        [
            ("c".to_owned(), false, None),
            ("a".to_owned(), true, Some(5)),
            ("b".to_owned(), false, Some(5))
        ]
    );
    let limited = ConcurrencyLimitLayer::new(1).layer(Hand::<()>::new());
    let mut gather = gather(&layer.layer(limited), ());
    gather.next().await.expect("c is skipped");
    // `a` holds the only place for good, and `b` may run only after it.
    assert!(futures_util::poll!(gather.next()).is_pending());
}

#[test]
fn a_clone_is_the_same_fan_out() {
    let fan_out = FanOut::new(named(["a", "b"])).width(1).max_in_flight(3);
    let clone = fan_out.clone();
    let names = |fan_out: &FanOut<Hand<()>, ()>| -> Vec<_> {
        let branches = fan_out.branches().iter();
        branches.map(|branch| branch.name().to_owned()).collect()
    };
    assert_eq!(names(&clone), names(&fan_out));
    assert_eq!(format!("{clone:?}"), format!("{fan_out:?}"));
}

#[tokio::test]
async fn a_service_that_is_used_by_reference_to_many_threads_can_be_shared() {
    let log = Arc::new(Mutex::new(Vec::new()));
    let writer = Arc::clone(&log);
    let service = service_fn(move |n: u32| {
        let log = Arc::clone(&writer);
        async move {
            log.lock().expect("not poisoned").push(n);
            Ok::<_, BoxError>(n)
        }
    });
    let fan_out = FanOut::new([Branch::new("a", service.clone()), Branch::new("b", service)]);
    let tasks = (0..50).map(|n| {
        let fan_out = fan_out.clone();
        tokio::spawn(async move { fan_out.oneshot(n).await.expect("a place").count().await })
    });
    for task in join_all(tasks).await {
        assert_eq!(task.expect("no panic"), 2);
    }
    let mut seen = log.lock().expect("not poisoned").clone();
    seen.sort_unstable();
    let twice: Vec<u32> = (0..50).flat_map(|n| [n, n]).collect();
    assert_eq!(seen, twice);
}
