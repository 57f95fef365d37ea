//! The answer table: what became of each branch, and what the client is told.

use std::borrow::Cow;
use std::error::Error;

use http::header::{ALLOW, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, Response, StatusCode, response};
use tower::timeout::error::Elapsed;

use super::{MergeContext, UnusableResponse};
use crate::body::{CollectError, Completeness};
use crate::deadline::TimedOut;
#[cfg(feature = "decompression")]
use crate::decompression::DecompressionError;
use crate::error::{BoxError, ClientFault, Problem, cause_ref, discard, write_json_str};
use crate::fields::{MAX_FIELDS, MAX_HEAD, is_oversized, said_length};
use crate::outcome::{BranchError, BranchId, Gather};
use crate::rewrite::RewriteError;

/// Whether a response can be answered with: it is a success, its head is within the bounds of one that is passed on, and says
/// no length that is none.
pub(super) fn can_answer(status: StatusCode, headers: &HeaderMap) -> bool {
    status.is_success()
        && !is_oversized(headers, MAX_FIELDS, MAX_HEAD)
        && said_length(headers).is_ok()
}

/// What became of each branch, in declared order.
#[derive(Debug)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    fault: Option<ClientFault>,
    cx: MergeContext,
}

#[derive(Debug)]
struct Entry {
    branch: BranchId,
    required: bool,
    state: State,
}

#[derive(Debug)]
enum State {
    Pending,
    Skipped,
    Present(Completeness),
    Failed(Failure),
}

/// Why a branch is missing from the answer.
#[derive(Debug)]
pub(super) struct Failure {
    kind: Kind,
    /// Safe for the client: it says nothing that the upstream said.
    pub(super) reason: Cow<'static, str>,
}

#[derive(Debug)]
enum Kind {
    /// It answered, and not with a success.
    Status {
        status: StatusCode,
        /// The fields without which the client would be told only half of it.
        fields: Vec<(HeaderName, HeaderValue)>,
    },
    /// It ran out of time.
    Late,
    Other,
}

impl Failure {
    pub(super) fn new(reason: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind: Kind::Other,
            reason: reason.into(),
        }
    }

    fn late(reason: &'static str) -> Self {
        Self {
            kind: Kind::Late,
            reason: reason.into(),
        }
    }

    /// An answer that is no success, or none that can be answered with.
    pub(super) fn status(head: &response::Parts) -> Self {
        let oversized = is_oversized(&head.headers, MAX_FIELDS, MAX_HEAD);
        if oversized && head.status.is_success() {
            return Self::new(OVERSIZED);
        }
        if head.status.is_success() && said_length(&head.headers).is_err() {
            return Self::new("its Content-Length is not one");
        }
        let told = match head.status {
            _ if oversized => None,
            // One that doesn't say how to do better is of no use (RFC 9110 §15.5.2).
            StatusCode::UNAUTHORIZED => Some(WWW_AUTHENTICATE),
            StatusCode::METHOD_NOT_ALLOWED => Some(ALLOW),
            _ => None,
        };
        let told = told.into_iter().chain((!oversized).then_some(RETRY_AFTER));
        let fields = told.flat_map(|name| {
            let lines = head.headers.get_all(&name).iter().cloned();
            let checked = name == RETRY_AFTER;
            let lines = lines.filter(move |line| !checked || is_retry_after(line));
            lines
                .map(move |line| (name.clone(), line))
                .collect::<Vec<_>>()
        });
        Self {
            kind: Kind::Status {
                status: head.status,
                fields: fields.collect(),
            },
            reason: format!("status {}", head.status.as_u16()).into(),
        }
    }

    /// Its status, if it answered with one.
    pub(super) fn as_status(&self) -> Option<StatusCode> {
        match self.kind {
            Kind::Status { status, .. } => Some(status),
            _ => None,
        }
    }

    fn of_error(error: &BranchError<BoxError>) -> Self {
        match error {
            BranchError::Skipped => Self::new("skipped"),
            BranchError::NotReady { .. } => Self::late("not ready in time"),
            BranchError::DeadlineExceeded => Self::late("deadline exceeded"),
            BranchError::Panicked(_) => Self::new("panicked"),
            BranchError::Service(error) => {
                let error = error.as_ref();
                if is_timeout(error) {
                    return Self::late("timed out");
                }
                if is_unmade(error) {
                    return Self::new("its request could not be made");
                }
                match cause_ref::<CollectError>(error) {
                    Some(CollectError::TooLarge { .. }) => Self::new("larger than its budget"),
                    Some(CollectError::Body(error)) => Self::new(why_broken(error.as_ref())),
                    None => Self::new("failed"),
                }
            }
        }
    }

    fn is_late(&self) -> bool {
        matches!(self.kind, Kind::Late)
    }

    /// The answer if the branch was required.
    fn to_problem(&self, branch: &BranchId) -> Problem {
        let problem = |status| {
            Problem::new(status)
                .detail("a required branch failed")
                .member("branch", branch.name())
                .member("reason", &self.reason)
        };
        match &self.kind {
            Kind::Late => problem(StatusCode::GATEWAY_TIMEOUT),
            Kind::Other => problem(StatusCode::BAD_GATEWAY),
            Kind::Status { status, fields } => {
                let challenged = || fields.iter().any(|(name, _)| *name == WWW_AUTHENTICATE);
                let status = match status.as_u16() {
                    // These concern the hop between us and the branch, not the client's request.
                    407 | 408 | 421 | 425 | 426 | 431 => StatusCode::BAD_GATEWAY,
                    401 if !challenged() => StatusCode::BAD_GATEWAY,
                    400..=499 => *status,
                    _ => StatusCode::BAD_GATEWAY,
                };
                let fields = fields.iter().filter(|_| status.is_client_error());
                fields.fold(problem(status), |problem, (name, value)| {
                    problem.header(name.clone(), value.clone())
                })
            }
        }
    }
}

/// Whether it is seconds or a date (RFC 9110 §10.2.3), and not a text of the upstream's.
fn is_retry_after(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    let seconds = !value.is_empty() && value.len() < 12 && value.iter().all(u8::is_ascii_digit);
    let in_a_date = |byte: &u8| byte.is_ascii_alphanumeric() || b" ,:".contains(byte);
    let date = value.len() == 29 && value.ends_with(b" GMT") && value.iter().all(in_a_date);
    seconds || date
}

/// Why a body ended with `error`.
#[cfg(feature = "decompression")]
fn why_broken(error: &(dyn Error + 'static)) -> &'static str {
    match cause_ref(error) {
        Some(DecompressionError::TooLarge { .. }) => "larger than its budget",
        Some(_) => "its body could not be decoded",
        None => CUT_SHORT,
    }
}

#[cfg(not(feature = "decompression"))]
fn why_broken(_: &(dyn Error + 'static)) -> &'static str {
    CUT_SHORT
}

/// Of a response whose head is not passed on.
pub(super) const OVERSIZED: &str = "its head is over the bound";

const CUT_SHORT: &str = "its body was cut short";

/// Whether the cause of an error is that something took too long: one of our timeouts, Tower's, or the client's or the
/// system's when it connects.
pub(super) fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "client")]
    if cause_ref::<crate::client::ClientError>(error).is_some_and(|error| error.is_timeout()) {
        return true;
    }
    let timed_out = |error: &std::io::Error| error.kind() == std::io::ErrorKind::TimedOut;
    cause_ref::<TimedOut>(error).is_some()
        || cause_ref::<Elapsed>(error).is_some()
        || cause_ref::<std::io::Error>(error).is_some_and(timed_out)
}

/// Whether there was no request to send: a template without its parameter, or a URI that the client can't ask.
fn is_unmade(error: &(dyn Error + 'static)) -> bool {
    #[cfg(feature = "client")]
    if cause_ref::<crate::client::ClientError>(error)
        .is_some_and(|error| error.is_invalid_request())
    {
        return true;
    }
    cause_ref::<RewriteError>(error).is_some()
}

impl Ledger {
    pub(super) fn new<F, T, E>(cx: MergeContext, gather: &Gather<F>) -> Self
    where
        F: Future<Output = Result<T, BranchError<E>>>,
    {
        let entries = gather.members().iter().map(|member| Entry {
            branch: member.id.clone(),
            required: member.required,
            state: State::Pending,
        });
        Self {
            entries: entries.collect(),
            fault: None,
            cx,
        }
    }

    pub(super) fn present(&mut self, branch: &BranchId, completeness: Completeness) {
        self.entries[branch.index()].state = State::Present(completeness);
    }

    pub(super) fn failed(&mut self, branch: &BranchId, failure: Failure) {
        self.cx.report_unusable(branch, || {
            UnusableResponse::new(failure.as_status(), failure.reason.clone())
        });
        self.entries[branch.index()].state = State::Failed(failure);
    }

    /// A response that [can't be answered with](can_answer).
    pub(super) fn rejected<B>(&mut self, branch: &BranchId, response: Response<B>) {
        let (head, body) = response.into_parts();
        discard(body);
        self.failed(branch, Failure::status(&head));
    }

    pub(super) fn error(&mut self, branch: &BranchId, error: &BranchError<BoxError>) {
        if let BranchError::Service(error) = error {
            if let Some(fault) = cause_ref::<ClientFault>(error.as_ref()) {
                self.fault.get_or_insert_with(|| fault.clone());
            }
        }
        self.entries[branch.index()].state = if let BranchError::Skipped = error {
            State::Skipped
        } else {
            self.cx.report_failure(branch, error);
            State::Failed(Failure::of_error(error))
        };
    }

    pub(super) fn has_failed(&self, branch: &BranchId) -> bool {
        matches!(self.entries[branch.index()].state, State::Failed(_))
    }

    /// The answer that no outcome still to come can change. A failed required branch is one if no earlier required one is
    /// pending: it would go before.
    pub(super) fn early(&self) -> Option<Problem> {
        if let Some(fault) = self.fault() {
            return Some(fault.to_problem());
        }
        for entry in self.entries.iter().filter(|entry| entry.required) {
            match &entry.state {
                State::Pending => return None,
                State::Failed(failure) => return Some(failure.to_problem(&entry.branch)),
                State::Skipped | State::Present(_) => {}
            }
        }
        None
    }

    /// What the client did wrong, as a branch said or as its body shows.
    pub(super) fn fault(&self) -> Option<ClientFault> {
        self.fault.clone().or_else(|| self.cx.client_fault())
    }

    /// How many branches the request is sent to.
    pub(super) fn asked(&self) -> usize {
        let asked = |entry: &&Entry| !matches!(entry.state, State::Skipped);
        self.entries.iter().filter(asked).count()
    }

    /// How many branches are present or may still be.
    pub(super) fn possible(&self) -> usize {
        let possible = |entry: &&Entry| matches!(entry.state, State::Pending | State::Present(_));
        self.entries.iter().filter(possible).count()
    }

    /// Whether the answer would be complete: every branch is present, itself complete, or was skipped.
    ///
    /// # Errors
    ///
    /// The problem that is the answer instead.
    pub(super) fn settle(&self) -> Result<Completeness, Problem> {
        if let Some(problem) = self.early() {
            return Err(problem);
        }
        let present = |entry: &Entry| matches!(entry.state, State::Present(_));
        let skipped = |entry: &Entry| matches!(entry.state, State::Skipped);
        let whole = |entry: &Entry| {
            matches!(
                entry.state,
                State::Present(Completeness::Complete) | State::Skipped
            )
        };
        if self.entries.iter().any(present) || self.entries.iter().all(skipped) {
            let whole = self.entries.iter().all(whole);
            return Ok(Completeness::complete_if(whole));
        }
        Err(self.none("no branch answered"))
    }

    /// The answer if no branch is of any use: 504 if all were late, else 502.
    pub(super) fn none(&self, detail: &'static str) -> Problem {
        let all_late = self.failures().all(|(_, failure)| failure.is_late());
        let status = if all_late && self.failures().next().is_some() {
            StatusCode::GATEWAY_TIMEOUT
        } else {
            StatusCode::BAD_GATEWAY
        };
        let mut branches = vec![b'['];
        for (branch, failure) in self.failures() {
            if branches.len() > 1 {
                branches.push(b',');
            }
            branches.extend_from_slice(b"{\"branch\":");
            write_json_str(&mut branches, branch.name());
            branches.extend_from_slice(b",\"reason\":");
            write_json_str(&mut branches, &failure.reason);
            branches.push(b'}');
        }
        branches.push(b']');
        Problem::new(status)
            .detail(detail)
            .json_member("branches", &branches)
    }

    /// The branches that failed, in declared order.
    pub(super) fn failures(&self) -> impl Iterator<Item = (&BranchId, &Failure)> {
        self.entries.iter().filter_map(|entry| match &entry.state {
            State::Failed(failure) => Some((&entry.branch, failure)),
            _ => None,
        })
    }
}
