//! Collects the branches' bodies while the other branches still run.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use http::{Response, response};
use http_body::Body;
use tokio::time::Instant;

use crate::body::{Collect, Collected};
use crate::deadline::{Deadline, Timer};
use crate::error::{BoxError, discard, panic_message};
use crate::outcome::{BranchError, BranchId, Gather, Outcome};

/// A branch that has finished, its body included.
#[derive(Debug)]
pub(super) struct Arrival {
    pub(super) branch: BranchId,
    pub(super) required: bool,
    pub(super) elapsed: Duration,
    pub(super) result: Result<Collection, BranchError<BoxError>>,
}

#[derive(Debug)]
pub(super) struct Collection {
    pub(super) head: response::Parts,
    /// `None` if the body was not wanted.
    pub(super) body: Option<Collected>,
}

/// A gather whose outcomes come with their bodies.
pub(super) struct Collector<F: Future, B> {
    gather: Gather<F>,
    reading: Vec<Reading<B>>,
    wanted: fn(&response::Parts) -> bool,
    limit: usize,
    timer: Timer,
}

/// A branch whose head has come and whose body has not ended.
struct Reading<B> {
    branch: BranchId,
    required: bool,
    until_head: Duration,
    /// Set when the body had to be waited for.
    since_head: Option<Instant>,
    head: response::Parts,
    body: Collect<B>,
}

impl<B> Reading<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    /// A panic in a body is the failure of its branch.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<Collected, BranchError<BoxError>>> {
        match catch_unwind(AssertUnwindSafe(|| self.body.poll(cx))) {
            Ok(polled) => polled.map_err(|error| BranchError::Service(error.into())),
            Err(payload) => Poll::Ready(Err(BranchError::Panicked(panic_message(payload)))),
        }
    }

    /// The last look at a body. That it has had its share of this turn must not look as if the rest were not there; but one
    /// that goes on and on is late.
    fn poll_rest(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Collected, BranchError<BoxError>>> {
        for _ in 0..128 {
            let polled = self.poll(cx);
            if polled.is_ready() || !self.body.is_paused() {
                return polled;
            }
        }
        Poll::Pending
    }

    fn finish(self, result: Result<Collected, BranchError<BoxError>>) -> Arrival {
        discard(self.body);
        Arrival {
            branch: self.branch,
            required: self.required,
            // A body that came with its head has taken no time of its own, and no look at the clock.
            elapsed: self.until_head
                + self
                    .since_head
                    .map_or(Duration::ZERO, |since| since.elapsed()),
            result: result.map(|body| Collection {
                head: self.head,
                body: Some(body),
            }),
        }
    }
}

impl<F, B, E> Collector<F, B>
where
    F: Future<Output = Result<Response<B>, BranchError<E>>>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    /// Collects the bodies of which `wanted` says so, each within `limit` bytes, all until `deadline`.
    pub(super) fn new(
        gather: Gather<F>,
        wanted: fn(&response::Parts) -> bool,
        limit: usize,
        deadline: Deadline,
    ) -> Self {
        Self {
            gather,
            reading: Vec::new(),
            wanted,
            limit,
            timer: Timer::new(deadline),
        }
    }

    /// Heads first, so that no branch waits for another's body; then the bodies; and the deadline only when neither has
    /// anything: at a tie, finished work wins.
    fn poll_arrival(&mut self, cx: &mut Context<'_>) -> Poll<Option<Arrival>> {
        while let Poll::Ready(Some(outcome)) = Pin::new(&mut self.gather).poll_next(cx) {
            if let Some(arrival) = self.admit(outcome, cx) {
                return Poll::Ready(Some(arrival));
            }
        }
        for index in 0..self.reading.len() {
            if let Poll::Ready(result) = self.reading[index].poll(cx) {
                let reading = self.reading.swap_remove(index);
                return Poll::Ready(Some(reading.finish(result)));
            }
        }
        if self.reading.is_empty() {
            return match self.gather.remaining() {
                0 => Poll::Ready(None),
                _ => Poll::Pending,
            };
        }
        ready!(self.timer.poll(cx));
        let mut late = self.reading.pop().expect("not empty");
        let result = match late.poll_rest(cx) {
            Poll::Ready(result) => result,
            Poll::Pending if self.timer.poll(cx).is_pending() => {
                self.reading.push(late);
                return Poll::Pending;
            }
            Poll::Pending => Err(BranchError::DeadlineExceeded),
        };
        Poll::Ready(Some(late.finish(result)))
    }

    /// A head has come. Most bodies are here with it, or nearly so: the first poll decides whether it has to be kept.
    fn admit(&mut self, outcome: Outcome<Response<B>, E>, cx: &mut Context<'_>) -> Option<Arrival> {
        let Outcome {
            branch,
            required,
            elapsed,
            result,
        } = outcome;
        let arrival = |result| Arrival {
            branch: branch.clone(),
            required,
            elapsed,
            result,
        };
        let (head, body) = match result {
            Ok(response) => response.into_parts(),
            Err(error) => return Some(arrival(Err(error.map(Into::into)))),
        };
        if !(self.wanted)(&head) {
            discard(body);
            return Some(arrival(Ok(Collection { head, body: None })));
        }
        let mut reading = Reading {
            until_head: elapsed,
            since_head: None,
            body: Collect::new(body, self.limit),
            branch,
            required,
            head,
        };
        match reading.poll(cx) {
            Poll::Ready(result) => Some(reading.finish(result)),
            Poll::Pending => {
                reading.since_head = Some(Instant::now());
                self.reading.push(reading);
                None
            }
        }
    }
}

impl<F, B, E> Stream for Collector<F, B>
where
    F: Future<Output = Result<Response<B>, BranchError<E>>>,
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    E: Into<BoxError>,
{
    type Item = Arrival;

    /// The next branch that has finished; `None` once all have.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Arrival>> {
        self.poll_arrival(cx)
    }
}

impl<F: Future, B> Drop for Collector<F, B> {
    fn drop(&mut self) {
        for reading in self.reading.drain(..) {
            discard(reading);
        }
    }
}

/// Waits for the next items and takes all that there are, in declared order; none, once the stream has ended. What is known
/// at one moment is decided on together, so that it makes no difference which of it was looked at first.
pub(super) async fn next_batch<S>(stream: &mut S, index: fn(&S::Item) -> usize) -> Vec<S::Item>
where
    S: Stream + Unpin,
{
    let mut batch = poll_fn(|cx| {
        let mut batch = Vec::new();
        loop {
            match Pin::new(&mut *stream).poll_next(cx) {
                Poll::Ready(Some(item)) => batch.push(item),
                Poll::Pending if batch.is_empty() => return Poll::Pending,
                Poll::Ready(None) | Poll::Pending => return Poll::Ready(batch),
            }
        }
    })
    .await;
    batch.sort_by_key(index);
    batch
}

/// For [`next_batch`] of a [`Collector`].
pub(super) fn arrival_index(arrival: &Arrival) -> usize {
    arrival.branch.index()
}

/// For [`next_batch`] of a [`Gather`].
pub(super) fn outcome_index<T, E>(outcome: &Outcome<T, E>) -> usize {
    outcome.branch.index()
}
