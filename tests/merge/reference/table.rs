//! The table of answers, whatever the branches do and whenever.

use proptest::prelude::*;
use tower::Layer;
use watershed::clone_request::CloneRequestLayer;
use watershed::deadline::{Phase, TimedOut};
use watershed::fanout::FanOut;
use watershed::merge::{JsonMerge, MergeLayer};
use watershed::outcome::Branch;
use watershed::test_util::{Reply, Scripted};

use crate::support::{HttpBranch, MS, ask, get, on_paused_clock};

/// How a branch ends, whenever it does.
#[derive(Debug, Clone, Copy)]
enum End {
    Document,
    Empty,
    Incomplete,
    Status(u16),
    Error,
    Panic,
    NoJson,
    CutShort,
    Hangs,
    BodyHangs,
    NotReady,
    TimesOut,
    Skipped,
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        4 => Just(End::Document),
        1 => Just(End::Empty),
        1 => Just(End::Incomplete),
        2 => prop::sample::select(&[302, 400, 401, 404, 407, 408, 421, 425, 426, 429, 431, 451, 500, 503][..]).prop_map(End::Status),
        1 => prop::sample::select(&[End::Error, End::Panic, End::NoJson, End::CutShort][..]),
        2 => prop::sample::select(&[End::Hangs, End::BodyHangs, End::NotReady, End::TimesOut][..]),
        1 => Just(End::Skipped),
    ]
}

impl End {
    fn branch(self, index: usize, required: bool, head: u32, body: u32) -> HttpBranch {
        let document = || Reply::json(format!("{{\"k{index}\":{index}}}")).body_after(MS * body);
        let backend = match self {
            Self::NotReady => Scripted::never_ready(),
            Self::Document | Self::Skipped => Scripted::reply(document().after(MS * head)),
            Self::Empty => Scripted::reply(Reply::status(204).after(MS * head)),
            Self::Incomplete => Scripted::reply(
                document()
                    .header("watershed-complete", "false")
                    .after(MS * head),
            ),
            Self::Status(status) => Scripted::reply(Reply::status(status).after(MS * head)),
            Self::Error => Scripted::reply(Reply::fail("refused").after(MS * head)),
            Self::Panic => Scripted::reply(Reply::panic("oops").after(MS * head)),
            Self::NoJson => Scripted::reply(
                Reply::json("nonsense")
                    .after(MS * head)
                    .body_after(MS * body),
            ),
            Self::CutShort => Scripted::reply(document().after(MS * head).then_fail()),
            Self::Hangs => Scripted::reply(Reply::hang()),
            Self::BodyHangs => Scripted::reply(document().after(MS * head).then_hang()),
            Self::TimesOut => {
                let error = TimedOut::new(Phase::Head, MS, MS);
                Scripted::reply(Reply::error(error).after(MS * head))
            }
        };
        let branch = Branch::http(format!("b{index}"), backend);
        let branch = if required { branch.required() } else { branch };
        branch.when(move |_| !matches!(self, Self::Skipped))
    }

    fn is_present(self) -> bool {
        matches!(self, Self::Document | Self::Empty | Self::Incomplete)
    }

    fn is_late(self) -> bool {
        matches!(
            self,
            Self::Hangs | Self::BodyHangs | Self::NotReady | Self::TimesOut
        )
    }

    /// What is answered if the branch is required and has failed.
    fn status(self) -> u16 {
        match self {
            Self::Status(401 | 407 | 408 | 421 | 425 | 426 | 431) => 502,
            Self::Status(status @ 400..=499) => status,
            end if end.is_late() => 504,
            _ => 502,
        }
    }
}

/// The table: the status, and whether the answer is complete.
fn table(branches: &[(End, bool)]) -> (u16, bool) {
    let failed = |end: &End| !end.is_present() && !matches!(end, End::Skipped);
    let ends = || branches.iter().map(|(end, _)| *end);
    let decides = branches
        .iter()
        .find(|(end, required)| *required && failed(end));
    if let Some((end, _)) = decides {
        return (end.status(), false);
    }
    let all_skipped = ends().all(|end| matches!(end, End::Skipped));
    if ends().any(End::is_present) || all_skipped {
        let whole = |end| matches!(end, End::Document | End::Empty | End::Skipped);
        return (200, ends().all(whole));
    }
    let late = ends().filter(failed).all(End::is_late);
    (if late { 504 } else { 502 }, false)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    // L15, L23
    /// Whatever the branches do, and whenever: the answer is the table's, and the same to the byte in any order of
    /// arrival.
    #[test]
    fn the_answer_is_that_of_the_table_and_does_not_depend_on_who_comes_first(
        branches in prop::collection::vec((end(), prop::bool::weighted(0.3)), 1..6),
        delays in prop::collection::vec(prop::collection::vec((0..40u32, 0..40u32), 6), 3),
    ) {
        let (status, complete) = table(&branches);
        let merges = [
            JsonMerge::object().failure_details(),
            JsonMerge::group(),
            JsonMerge::array(),
        ];
        for merge in merges {
            let mut answers = Vec::new();
            for delays in &delays {
                let declared = branches.iter().zip(delays).enumerate().map(|(index, ((end, required), (head, body)))| {
                    end.branch(index, *required, *head, *body)
                });
                let fan_out = FanOut::new(declared).ready_within(100 * MS);
                let layer = MergeLayer::new(merge.clone()).within(100 * MS);
                let service = CloneRequestLayer::new().layer(layer.layer(fan_out));
                answers.push(on_paused_clock(ask(&service, get("/"))));
            }
            prop_assert_eq!((answers[0].status, answers[0].complete()), (status, complete), "{:?}", answers[0]);
            for other in &answers[1..] {
                prop_assert_eq!(other, &answers[0]);
            }
        }
    }
}
