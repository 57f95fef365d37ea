//! A panic is the failure of its branch, wherever it comes from.

use std::cell::Cell;
use std::future::{Future, pending};
use std::panic::panic_any;
use std::pin::Pin;
use std::task::{Context, Poll};

use futures_util::StreamExt;
use tokio_test::{assert_pending, task};
use tower::util::BoxCloneSyncService;
use tower::{Service, service_fn};
use watershed::deadline::Deadline;
use watershed::error::BoxError;
use watershed::fanout::FanOut;
use watershed::outcome::{Branch, BranchError};

use crate::common::{gather, try_gather};
use crate::support::{Bomb, Hand, MS};

#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    When,
    CloneService,
    CloneRequest,
    Readiness,
    Call,
    Poll,
    LaterPoll,
    Drop,
}

struct Panicky {
    at: Option<Place>,
    message: fn(),
}

impl Panicky {
    fn panic_at(&self, place: Place) {
        if self.at == Some(place) {
            (self.message)();
        }
    }
}

impl Clone for Panicky {
    fn clone(&self) -> Self {
        self.panic_at(Place::CloneService);
        Self { ..*self }
    }
}

thread_local! {
    /// Which clone of a request panics.
    static CLONES: Cell<i32> = const { Cell::new(i32::MIN) };
}

#[derive(Debug)]
struct Req;

impl Clone for Req {
    fn clone(&self) -> Self {
        let clones = CLONES.get();
        CLONES.set(clones.saturating_add(1));
        if clones == 0 {
            panic!("on purpose");
        }
        Self
    }
}

impl Service<Req> for Panicky {
    type Response = u32;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<u32, BoxError>>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.panic_at(Place::Readiness);
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Req) -> Self::Future {
        self.panic_at(Place::Call);
        let (at, message) = (self.at, self.message);
        let bomb = (at == Some(Place::Drop)).then(|| Bomb("on purpose"));
        let mut first = true;
        Box::pin(std::future::poll_fn(move |cx| {
            let _held = &bomb;
            match at {
                Some(Place::Poll) => message(),
                Some(Place::LaterPoll) if !first => message(),
                Some(Place::LaterPoll) => {
                    first = false;
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
                _ => {}
            }
            Poll::Ready(Ok(1))
        }))
    }
}

fn fan_out(at: Place, message: fn()) -> FanOut<Panicky, Req> {
    let sound = || Panicky { at: None, message };
    let panicky = Branch::new(
        "panicky",
        Panicky {
            at: Some(at),
            message,
        },
    );
    let panicky = match at {
        Place::When => panicky.when(move |_| {
            message();
            true
        }),
        _ => panicky,
    };
    FanOut::new([
        Branch::new("before", sound()),
        panicky,
        Branch::new("after", sound()),
    ])
}

const PLACES: [Place; 8] = [
    Place::When,
    Place::CloneService,
    Place::CloneRequest,
    Place::Readiness,
    Place::Call,
    Place::Poll,
    Place::LaterPoll,
    Place::Drop,
];

#[tokio::test]
async fn a_panic_is_the_failure_of_its_branch_wherever_it_comes_from() {
    for at in PLACES {
        let fan_out = fan_out(at, || panic!("on purpose")).max_in_flight(1);
        // Nothing is poisoned: the same service serves again, and again.
        for _ in 0..3 {
            if at == Place::CloneRequest {
                // The second clone of each call.
                CLONES.set(-1);
            }
            let mut outcomes: Vec<_> = gather(&fan_out, Req).collect().await;
            CLONES.set(i32::MIN);
            outcomes.sort_by_key(|outcome| outcome.branch.index());
            assert_eq!(outcomes.len(), 3, "{at:?}");
            for outcome in outcomes {
                match outcome.result {
                    // What has been answered stands, even if its future panics on the way out.
                    Ok(1) if at == Place::Drop => {}
                    Ok(1) => assert_ne!(outcome.branch.name(), "panicky", "{at:?}"),
                    Err(BranchError::Panicked(message)) => {
                        assert_eq!(outcome.branch.name(), "panicky", "{at:?}");
                        assert_eq!(message, "on purpose", "{at:?}");
                        assert_ne!(at, Place::Drop);
                    }
                    other => panic!("{at:?}: {other:?}"),
                }
            }
        }
    }
}

#[tokio::test]
async fn any_payload_becomes_a_message() {
    let messages: [(fn(), &str); 4] = [
        (|| panic!("a literal"), "a literal"),
        (|| panic!("formatted {}", 1 + 1), "formatted 2"),
        (|| panic_any(7), "a panic without a message"),
        // It panics in turn as it goes.
        (|| panic_any(Bomb("it")), "a panic without a message"),
    ];
    for (panic, expected) in messages {
        let outcomes: Vec<_> = gather(&fan_out(Place::Poll, panic), Req).collect().await;
        let outcome = outcomes
            .iter()
            .find(|outcome| outcome.branch.name() == "panicky")
            .expect("it has an outcome");
        assert!(
            matches!(&outcome.result, Err(BranchError::Panicked(message)) if message == expected)
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_panics_while_the_deadline_drops_it_is_late_like_the_others() {
    let service = |panics: bool| {
        service_fn(move |()| async move {
            let _bomb = panics.then(|| Bomb("on purpose"));
            pending::<Result<(), BoxError>>().await
        })
    };
    let fan_out = FanOut::new([
        Branch::new("a", service(true)),
        Branch::new("b", service(false)),
        Branch::new("c", service(true)),
    ]);
    let mut gather = gather(&fan_out, ());
    gather.end_at(Deadline::after(MS));
    let outcomes: Vec<_> = gather
        .map(|outcome| matches!(outcome.result, Err(BranchError::DeadlineExceeded)))
        .collect()
        .await;
    assert_eq!(outcomes, [true; 3]);
}

#[test]
fn branches_that_panic_while_the_gather_is_dropped_take_nobody_with_them() {
    let hand = Hand::<()>::new();
    let bomb = service_fn(|()| async {
        let _bomb = Bomb("on purpose");
        pending::<Result<(), BoxError>>().await
    });
    let service = |index: usize| match index % 3 {
        0 => BoxCloneSyncService::new(bomb),
        _ => BoxCloneSyncService::new(hand.clone()),
    };
    let branch = |index: usize| Branch::new(format!("b{index}"), service(index));
    let fan_out = FanOut::new((0..12).map(branch)).max_in_flight(1);
    let mut gather = task::spawn(gather(&fan_out, ()));
    assert_pending!(gather.poll_next());
    drop(gather);
    assert_eq!(hand.drops(), 8);
    assert!(try_gather(&fan_out, ()).is_ok(), "its place is free");
}
