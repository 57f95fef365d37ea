//! The merge of JSON documents.

use std::future::Future;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, VARY};
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode};
use http_body::Body;

use super::cache::{CacheControl, Vary};
use super::collect::{Arrival, Collector, arrival_index, next_batch};
use super::document::{Contribution, has_document};
use super::ledger::Ledger;
use super::splice::{Source, Splice};
use super::timing::ServerTiming;
use super::union::{Clash, Union};
use super::{Merge, MergeContext, strip_for_collection};
use crate::body::{Chunks, Completeness};
use crate::error::{BoxError, Problem, write_json_str};
use crate::json::{Limits, scan};
use crate::outcome::{BranchError, BranchId, Gather};

/// Merges the branches' JSON documents without parsing the values that it moves.
///
/// Numbers keep their text, strings their escapes, objects their order and their duplicates: what is inside a moved value
/// is what the branch sent, byte for byte. See the [module docs](super) for an example and for the table of answers.
#[derive(Debug, Clone)]
pub struct JsonMerge {
    mode: Mode,
    conflict: Conflict,
    limit: usize,
    nodes: usize,
    depth: usize,
    server_timing: bool,
    failure_details: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Mode {
    Group,
    Object,
    Array,
}

/// What [`JsonMerge::object`] does when two branches give the same key, or two ask for the same
/// [group](super::JsonPartLayer::group) in any mode that has keys. "First" and "last" are by declared order, never by
/// arrival. Within one document the last duplicate wins, which is no conflict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Conflict {
    /// The value of the first branch that has the key.
    First,
    /// The value of the last branch that has the key: the default.
    #[default]
    Last,
    /// Objects are united, member by member, and those in them, eight levels deep; where one value is not an object, and below
    /// that, the last wins.
    Deep,
    /// No answer: 502, with the names of the two branches.
    Error,
}

impl JsonMerge {
    /// A key per branch: `{"user": …, "orders": …}`. An empty part (204) is `null`.
    #[must_use]
    pub fn group() -> Self {
        Self::with_mode(Mode::Group)
    }

    /// The union of the branches' top-level members. A document that is not an object is that branch's failure, unless it
    /// is [grouped](super::JsonPartLayer::group); `null` adds nothing and makes the answer incomplete. An empty part (204)
    /// adds nothing.
    #[must_use]
    pub fn object() -> Self {
        Self::with_mode(Mode::Object)
    }

    /// An array with one element per branch that is present, in declared order. An empty part (204) is `null`.
    #[must_use]
    pub fn array() -> Self {
        Self::with_mode(Mode::Array)
    }

    fn with_mode(mode: Mode) -> Self {
        Self {
            mode,
            conflict: Conflict::default(),
            limit: 1 << 20,
            nodes: 100_000,
            depth: 128,
            server_timing: false,
            failure_details: false,
        }
    }

    /// What to do when two branches give the same key. Default: [`Conflict::Last`].
    #[must_use]
    pub fn on_conflict(mut self, conflict: Conflict) -> Self {
        self.conflict = conflict;
        self
    }

    /// The most bytes of one part. Default: 1 MiB. A part that announces more is not read.
    ///
    /// # Panics
    ///
    /// If `bytes` is 4 GiB or more.
    #[must_use]
    #[track_caller]
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        assert!(
            u32::try_from(bytes).is_ok(),
            "a part has to be smaller than 4 GiB"
        );
        self.limit = bytes;
        self
    }

    /// The most values of one part, containers included. Default: 100 000.
    #[must_use]
    pub fn max_nodes(mut self, nodes: usize) -> Self {
        self.nodes = nodes;
        self
    }

    /// The deepest nesting of one part. Default: 128.
    ///
    /// # Panics
    ///
    /// If `depth` is over 1024.
    #[must_use]
    #[track_caller]
    pub fn max_depth(mut self, depth: usize) -> Self {
        assert!(depth <= 1024, "a part can be nested 1024 deep at most");
        self.depth = depth;
        self
    }

    /// Lists every branch, its time and its failure in a `Server-Timing` field. Default: off, as it tells the client how
    /// the answer is made.
    #[must_use]
    pub fn server_timing(mut self) -> Self {
        self.server_timing = true;
        self
    }

    /// For every branch that failed, adds a member `error_NAME` with the reason and, if it answered, its status:
    /// `{"reason":"status 503","status":503}`. Nothing that the upstream said is shown. It is for objects (the group and
    /// object modes), wins over a branch's own member of that name, and is not in an answer without parts, where the
    /// problem lists the same. Default: off.
    #[must_use]
    pub fn failure_details(mut self) -> Self {
        self.failure_details = true;
        self
    }

    fn write(
        &self,
        parts: &[(BranchId, Contribution)],
        details: &[(String, Bytes)],
    ) -> Result<Chunks, Clash> {
        let null = Source {
            bytes: Bytes::from_static(b"null"),
            copied: false,
        };
        let whole_null = scan(&null.bytes, Limits { nodes: 1, depth: 0 }, None).expect("valid");
        let mut sources = Vec::with_capacity(parts.len() + details.len());
        let mut values = Vec::with_capacity(parts.len() + details.len());
        for (_, part) in parts {
            match &part.document {
                Some(document) => {
                    sources.push(document.source.clone());
                    values.push(document.value);
                }
                None => {
                    sources.push(null.clone());
                    values.push(whole_null);
                }
            }
        }
        let copied: usize = sources
            .iter()
            .zip(&values)
            .map(|(source, value)| Splice::copies(source, value.range().len()))
            .sum();
        let mut splice = Splice::new(copied + 32 * parts.len() + 2);
        if self.mode == Mode::Array {
            splice.text(b"[");
            for (index, (source, value)) in sources.iter().zip(&values).enumerate() {
                if index > 0 {
                    splice.text(b",");
                }
                let group = parts[index].1.group();
                if let Some(key) = group {
                    let mut text = vec![b'{'];
                    write_json_str(&mut text, key);
                    text.push(b':');
                    splice.text(&text);
                }
                splice.span(source, value.range());
                if group.is_some() {
                    splice.text(b"}");
                }
            }
            splice.text(b"]");
            return Ok(splice.finish());
        }
        for (_, detail) in details {
            sources.push(Source {
                bytes: detail.clone(),
                copied: false,
            });
        }
        let known: usize = parts.iter().map(|(_, part)| part.members().len()).sum();
        let mut union = Union::new(&sources, self.conflict, known + details.len() + parts.len());
        for (index, (branch, part)) in parts.iter().enumerate() {
            match (self.mode, part.group(), &part.document) {
                (_, Some(key), _) => union.given(index, key, values[index])?,
                (Mode::Group, None, _) => union.given(index, branch.name(), values[index])?,
                (_, None, Some(document)) => union.members(index, &document.members)?,
                (_, None, None) => {}
            }
        }
        for (index, (key, _)) in details.iter().enumerate() {
            let index = parts.len() + index;
            let limits = Limits { nodes: 3, depth: 1 };
            let value = scan(&sources[index].bytes, limits, None).expect("written by us");
            union.ours(index, key, value);
        }
        union.write(&mut splice);
        Ok(splice.finish())
    }

    fn details(&self, ledger: &Ledger) -> Vec<(String, Bytes)> {
        if !self.failure_details {
            return Vec::new();
        }
        let failures = ledger.failures().map(|(branch, failure)| {
            let mut text = b"{\"reason\":".to_vec();
            write_json_str(&mut text, &failure.reason);
            if let Some(status) = failure.as_status() {
                text.extend_from_slice(format!(",\"status\":{}", status.as_u16()).as_bytes());
            }
            text.push(b'}');
            (format!("error_{branch}"), Bytes::from(text))
        });
        failures.collect()
    }

    /// The answer when every branch has finished.
    fn answer(
        &self,
        ledger: &Ledger,
        parts: &[(BranchId, Contribution)],
    ) -> Result<Response<Chunks>, Problem> {
        let completeness = ledger.settle()?;
        let body = self.write(parts, &self.details(ledger)).map_err(|clash| {
            let name = |index: usize| parts[index].0.name();
            Problem::new(StatusCode::BAD_GATEWAY)
                .detail("two branches answered the same key")
                .member("first", name(clash.first))
                .member("second", name(clash.second))
        })?;
        let mut response = Response::new(body);
        completeness.mark(&mut response);
        let mut headers = std::mem::take(response.headers_mut());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        cache_headers(&mut headers, completeness, parts);
        *response.headers_mut() = headers;
        Ok(response)
    }
}

fn cache_headers(
    headers: &mut HeaderMap,
    completeness: Completeness,
    parts: &[(BranchId, Contribution)],
) {
    let mut vary = Vary::default();
    let mut cache_control = CacheControl::new();
    for (_, part) in parts {
        vary.add(&part.headers);
        cache_control.add(&part.headers);
    }
    if let Some(value) = vary.value() {
        headers.insert(VARY, value);
    }
    if let Some(value) = cache_control.value(completeness) {
        headers.insert(CACHE_CONTROL, value);
    }
}

impl<F, B, E> Merge<Gather<F>> for JsonMerge
where
    F: Future<Output = Result<Response<B>, BranchError<E>>> + Send,
    B: Body<Data = Bytes> + Unpin + Send,
    B::Error: Into<BoxError>,
    E: Into<BoxError> + Send,
{
    type Body = Chunks;

    fn prepare(&self, method: &mut Method, headers: &mut HeaderMap) {
        strip_for_collection(method, headers);
    }

    async fn merge(&self, cx: MergeContext, gather: Gather<F>) -> Response<Chunks> {
        let deadline = cx.deadline();
        let mut ledger = Ledger::new(cx, &gather);
        let mut timing = self.server_timing.then(ServerTiming::default);
        let mut parts: Vec<(BranchId, Contribution)> = Vec::with_capacity(gather.members().len());
        let limits = Limits {
            nodes: self.nodes,
            depth: self.depth,
        };
        let mut collector = Collector::new(gather, has_document, self.limit, deadline);
        loop {
            let batch = next_batch(&mut collector, arrival_index).await;
            if batch.is_empty() {
                break;
            }
            for arrival in batch {
                let Arrival {
                    branch,
                    elapsed,
                    result,
                    ..
                } = arrival;
                match result.map(|collection| Contribution::read(collection, self.mode, limits)) {
                    Ok(Ok(part)) => {
                        ledger.present(&branch, part.completeness);
                        parts.push((branch.clone(), part));
                    }
                    Ok(Err(failure)) => ledger.failed(&branch, failure),
                    Err(error) => ledger.error(&branch, &error),
                }
                if let Some(timing) = &mut timing {
                    timing.add(&branch, elapsed, ledger.has_failed(&branch));
                }
            }
            if let Some(problem) = ledger.early() {
                drop(collector);
                return problem.into_response().map(Chunks::from);
            }
        }
        drop(collector);
        parts.sort_unstable_by_key(|(branch, _)| branch.index());
        let mut response = match self.answer(&ledger, &parts) {
            Ok(response) => response,
            Err(problem) => problem.into_response().map(Chunks::from),
        };
        if let Some(value) = timing.and_then(|timing| timing.value()) {
            response
                .headers_mut()
                .insert(HeaderName::from_static("server-timing"), value);
        }
        response
    }
}
