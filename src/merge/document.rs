//! Reads a branch's answer into what it contributes to a JSON merge.

use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use http::{HeaderMap, Response, StatusCode, response};

use super::collect::Collection;
use super::json_merge::Mode;
use super::json_part::Rules;
use super::ledger::Failure;
use super::splice::Source;
use crate::body::{Collected, Completeness};
use crate::json::{Limits, Member, Value, members, scan};

/// What a branch's head leads us to expect.
enum Expected {
    Document,
    /// A success without content.
    Nothing,
}

/// Whether the body of an answer with this head is to be read.
pub(super) fn has_document(head: &response::Parts) -> bool {
    matches!(expects(head), Ok(Expected::Document))
}

fn expects(head: &response::Parts) -> Result<Expected, Failure> {
    // A part of a representation, or a delta, was not asked for, and is not the document.
    let partial = matches!(
        head.status,
        StatusCode::PARTIAL_CONTENT | StatusCode::IM_USED
    );
    if !head.status.is_success() || partial {
        return Err(Failure::status(head));
    }
    if matches!(
        head.status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT
    ) {
        return Ok(Expected::Nothing);
    }
    if !is_identity(&head.headers) {
        return Err(Failure::new("its content encoding was not asked for"));
    }
    if !is_json(&head.headers) {
        return Err(Failure::new("its content type is not JSON"));
    }
    Ok(Expected::Document)
}

fn is_identity(headers: &HeaderMap) -> bool {
    let mut codings = headers
        .get_all(CONTENT_ENCODING)
        .iter()
        .flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    codings.all(|coding| {
        let coding = coding.trim_ascii();
        coding.is_empty() || coding.eq_ignore_ascii_case(b"identity")
    })
}

/// `application/json` or any `…+json` (RFC 6839), in UTF-8. A branch that says nothing is taken at its content: if that is
/// a JSON document, it is one.
fn is_json(headers: &HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_TYPE).iter();
    let Some(line) = lines.next() else {
        return true;
    };
    if lines.next().is_some() {
        return false;
    }
    let mut pieces = line.as_bytes().split(|&byte| byte == b';');
    let essence = pieces
        .next()
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    let is_json =
        essence == b"application/json" || essence == b"text/json" || essence.ends_with(b"+json");
    let is_utf8 = pieces.all(|parameter| {
        let parameter = parameter.trim_ascii().to_ascii_lowercase();
        match parameter.strip_prefix(b"charset=") {
            Some(charset) => matches!(charset, b"utf-8" | b"\"utf-8\"" | b"utf8" | b"us-ascii"),
            None => true,
        }
    });
    is_json && is_utf8
}

/// What a branch contributes.
#[derive(Debug)]
pub(super) struct Contribution {
    pub(super) headers: HeaderMap,
    pub(super) completeness: Completeness,
    rules: Option<Arc<Rules>>,
    /// `None` is an empty part.
    pub(super) document: Option<Document>,
}

#[derive(Debug)]
pub(super) struct Document {
    pub(super) source: Source,
    pub(super) value: Value,
    /// In the object mode, if it is not grouped.
    pub(super) members: Vec<Member>,
}

impl Contribution {
    /// Reads a branch's answer. One without a body is one of which none was [wanted](has_document).
    pub(super) fn read(
        Collection { head, body }: Collection,
        mode: Mode,
        limits: Limits,
    ) -> Result<Self, Failure> {
        let Some(Collected { bytes, copied }) = body else {
            return match expects(&head) {
                Ok(Expected::Nothing) => Ok(Self::new(head, None)),
                Ok(Expected::Document) => unreachable!("its body was wanted"),
                Err(failure) => Err(failure),
            };
        };
        let source = Source { bytes, copied };
        let rules = head.extensions.get::<Arc<Rules>>().cloned();
        let in_place = mode == Mode::Object && rules.is_none();
        let mut found = Vec::new();
        let scanned = scan(&source.bytes, limits, in_place.then_some(&mut found));
        let value = scanned.map_err(|error| Failure::new(error.to_string()))?;
        let (source, value) = match &rules {
            Some(rules) if !rules.leave_alone() => {
                let (source, value) = rules.apply(source, value);
                let rescan = |source: &Source| scan(&source.bytes, limits, None);
                match value.map_or_else(|| rescan(&source), Ok) {
                    Ok(value) => (source, value),
                    // Renaming can only make it longer; it is no deeper and has no more values.
                    Err(error) => return Err(Failure::new(error.to_string())),
                }
            }
            _ => (source, value),
        };
        let mut read = Self::new(
            head,
            Some(Document {
                source,
                value,
                members: found,
            }),
        );
        read.rules = rules;
        if mode == Mode::Object && read.group().is_none() {
            read.take_members()?;
        }
        Ok(read)
    }

    fn new(head: response::Parts, document: Option<Document>) -> Self {
        let rules = head.extensions.get::<Arc<Rules>>().cloned();
        let head = Response::from_parts(head, ());
        let completeness = Completeness::of(&head);
        Self {
            headers: head.into_parts().0.headers,
            completeness,
            rules,
            document,
        }
    }

    /// The key that it asks for.
    pub(super) fn group(&self) -> Option<&str> {
        self.rules.as_ref()?.group.as_deref()
    }

    pub(super) fn members(&self) -> &[Member] {
        self.document
            .as_ref()
            .map_or(&[], |document| &document.members)
    }

    /// In the object mode: the members of an object; nothing, if it is `null`, or if a target led to something else.
    fn take_members(&mut self) -> Result<(), Failure> {
        let Some(document) = &mut self.document else {
            return Ok(());
        };
        let text = &document.source.bytes;
        if document.value.is_null(text) {
            self.completeness = Completeness::Incomplete;
            self.document = None;
        } else if !document.value.is_object(text) {
            if self.rules.as_ref().is_none_or(|rules| !rules.has_target()) {
                return Err(Failure::new("its document is not an object"));
            }
            self.document = None;
        } else if document.members.is_empty() {
            document.members = members(text, document.value);
        }
        Ok(())
    }
}
