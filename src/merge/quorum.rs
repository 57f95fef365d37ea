//! Enough branches that succeed.

use std::future::Future;

use bytes::Bytes;
use http::Response;
use http_body::Body;

use super::collect::{next_batch, outcome_index};
use super::first_success::{answer, nobody, winner};
use super::ledger::{Ledger, can_answer};
use super::{Merge, MergeContext};
use crate::body::{Completeness, ResponseBody};
use crate::error::{BoxError, BuildError, discard};
use crate::outcome::{BranchError, Gather};

/// Answers as soon as enough branches have succeeded (2xx), with the response of the first declared one among them.
///
/// It is for replicas of one thing: a write that has to reach two of three, a read that is believed when most can answer.
/// Whether the responses agree is not looked at. The other responses, and the branches that still run, are dropped before
/// the answer is returned. As soon as the quorum can't be reached any more, the answer is 504 if all that failed were late,
/// else 502; the other rows of the table in the [module docs](super) hold as for every merge.
#[derive(Debug, Clone)]
pub struct Quorum {
    need: Need,
}

#[derive(Debug, Clone, Copy)]
enum Need {
    Branches(usize),
    Majority,
}

impl Quorum {
    /// This many branches have to succeed. If the request is not sent to so many, the quorum is not reached.
    ///
    /// # Panics
    ///
    /// If `branches` is zero.
    #[must_use]
    #[track_caller]
    pub fn of(branches: usize) -> Self {
        BuildError::expect(Self::try_of(branches))
    }

    /// As [`of`](Self::of), for a number that is configured.
    ///
    /// # Errors
    ///
    /// If `branches` is zero.
    pub fn try_of(branches: usize) -> Result<Self, BuildError> {
        if branches == 0 {
            return Err(BuildError::new(
                "a quorum of zero would answer with nothing",
            ));
        }
        Ok(Self {
            need: Need::Branches(branches),
        })
    }

    /// More than half of the branches that the request is sent to have to succeed: those that their condition skips don't
    /// count.
    #[must_use]
    pub fn majority() -> Self {
        Self {
            need: Need::Majority,
        }
    }
}

impl<F, B, E> Merge<Gather<F>> for Quorum
where
    F: Future<Output = Result<Response<B>, BranchError<E>>> + Send,
    B: Body<Data = Bytes> + Send,
    E: Into<BoxError> + Send,
{
    type Body = ResponseBody<B>;

    async fn merge(&self, cx: MergeContext, mut gather: Gather<F>) -> Response<ResponseBody<B>> {
        let mut ledger = Ledger::new(cx, &gather);
        let mut first: Option<(usize, Response<B>)> = None;
        let mut succeeded = 0;
        loop {
            let batch = next_batch(&mut gather, outcome_index).await;
            if batch.is_empty() {
                discard(first);
                return nobody(&ledger);
            }
            for outcome in batch {
                let branch = outcome.branch;
                match outcome.result {
                    Ok(response) if can_answer(response.status(), response.headers()) => {
                        ledger.present(&branch, Completeness::of(&response));
                        succeeded += 1;
                        match &mut first {
                            Some((index, _)) if *index < branch.index() => discard(response),
                            first => discard(first.replace((branch.index(), response))),
                        }
                    }
                    Ok(response) => ledger.rejected(&branch, response),
                    Err(error) => ledger.error(&branch, &error.map(Into::into)),
                }
            }
            if let Some(problem) = ledger.early() {
                drop(gather);
                discard(first);
                return answer(problem);
            }
            // A branch that will turn out to be skipped counts as asked until it does, and as one that may still succeed.
            let asked = ledger.asked();
            let need = match self.need {
                Need::Branches(branches) => branches,
                Need::Majority => asked / 2 + 1,
            };
            if asked > 0 && ledger.possible() < need {
                drop(gather);
                discard(first);
                return answer(ledger.none("too few branches succeeded"));
            }
            if let Some((_, response)) = first.take_if(|_| succeeded >= need) {
                drop(gather);
                return winner(&ledger, response.map(ResponseBody::inner));
            }
        }
    }
}
