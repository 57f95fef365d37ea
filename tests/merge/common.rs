//! Branches with one reply each, and what they are merged to.

use bytes::Bytes;
use http::Request;
use http_body::Body;
use serde_json::Value;
use watershed::clone_request::TeeBody;
use watershed::deadline::{Phase, TimedOut};
use watershed::error::BoxError;
use watershed::fanout::{BranchFuture, HttpService};
use watershed::merge::{JsonMerge, Merge};
use watershed::outcome::{Branch, Gather};
use watershed::test_util::{Reply, Scripted};

use crate::support::{Answer, HttpBranch, MS, ask, get, merged};

pub(crate) fn optional(name: &str, reply: Reply) -> HttpBranch {
    Branch::http(name, Scripted::reply(reply))
}

pub(crate) fn required(name: &str, reply: Reply) -> HttpBranch {
    optional(name, reply).required()
}

/// The answer of a merge over these branches, without a deadline.
pub(crate) async fn answer<const N: usize>(merge: JsonMerge, branches: [HttpBranch; N]) -> Answer {
    ask(&merged(merge, branches), get("/")).await
}

pub(crate) fn a() -> Reply {
    Reply::json(r#"{"a":1}"#)
}

pub(crate) fn b() -> Reply {
    Reply::json(r#"{"b":2}"#)
}

/// A timeout somewhere inside a branch.
pub(crate) fn late() -> TimedOut {
    TimedOut::new(Phase::Head, MS, MS)
}

/// What a merge of HTTP branches is.
pub(crate) trait Merges:
    Merge<Gathered, Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static>
    + Send
    + Sync
    + 'static
{
}

pub(crate) type Gathered = Gather<BranchFuture<HttpService, Request<TeeBody>>>;

impl<M> Merges for M where
    M: Merge<Gathered, Body: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static>
        + Send
        + Sync
        + 'static
{
}

/// The branches that a problem lists, with their reasons.
pub(crate) fn listed(problem: &Value) -> Vec<(&str, &str)> {
    let branches = problem["branches"].as_array().expect("a list");
    branches
        .iter()
        .map(|branch| {
            let text = |name: &str| branch[name].as_str().expect("a text");
            (text("branch"), text("reason"))
        })
        .collect()
}
