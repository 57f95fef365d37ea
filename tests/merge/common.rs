//! Branches with one reply each, and what they are merged to.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Request;
use http_body::Body;
use serde_json::Value;
use tower::Service;
use watershed::clone_request::TeeBody;
use watershed::deadline::{Phase, TimedOut};
use watershed::error::BoxError;
use watershed::fanout::{BranchFuture, HttpService};
use watershed::merge::{JsonMerge, Merge};
use watershed::outcome::{Branch, Gather};
use watershed::test_util::{Reply, Scripted};

use crate::support::{Answer, Bomb, HttpBranch, MS, ask, get, merged};

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

/// A service that panics at one place; else it is the inner one.
pub(crate) struct Panics<S> {
    place: Place,
    inner: S,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Clone,
    Ready,
    Call,
    Poll,
    /// As its future is dropped, finished or not.
    Finished,
    Late,
}

impl<S> Panics<S> {
    pub(crate) fn at(place: Place, inner: S) -> Self {
        Self { place, inner }
    }
}

impl Place {
    fn is(self, place: Self) {
        assert!(self != place, "s3cret");
    }
}

impl<S: Clone> Clone for Panics<S> {
    fn clone(&self) -> Self {
        self.place.is(Place::Clone);
        Self::at(self.place, self.inner.clone())
    }
}

impl<S: Service<Req>, Req> Service<Req> for Panics<S> {
    type Response = S::Response;
    type Error = S::Error;
    type Future = PanicsFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.place.is(Place::Ready);
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        self.place.is(Place::Call);
        let on_its_way_out = matches!(self.place, Place::Finished | Place::Late);
        PanicsFuture {
            place: self.place,
            inner: Box::pin(self.inner.call(request)),
            _bomb: on_its_way_out.then(|| Bomb("s3cret")),
        }
    }
}

pub(crate) struct PanicsFuture<F> {
    place: Place,
    inner: Pin<Box<F>>,
    _bomb: Option<Bomb>,
}

impl<F: Future> Future for PanicsFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.place.is(Place::Poll);
        match self.place {
            Place::Late => Poll::Pending,
            _ => self.inner.as_mut().poll(cx),
        }
    }
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
