//! The answers that the layer makes: when the time has run out, and when the work was given up.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRAILER};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};

use super::core::{Sealed, Write, apply};
use crate::deadline::TimedOut;
use crate::error::{Problem, contain};
use crate::fields::{is_of_the_connection, strip_hop_by_hop};

type RespondWith = dyn Fn(&TimedOut) -> Response<Bytes> + Send + Sync;

#[derive(Clone)]
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    body: Option<Bytes>,
    respond_with: Option<Arc<RespondWith>>,
    /// What the first three come to, made once.
    template: Template,
}

#[derive(Debug, Clone)]
struct Template {
    headers: HeaderMap,
    body: Bytes,
}

/// What of the request decides how its answer is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Head,
    Connect,
    Else,
}

impl Asked {
    pub(super) fn by(method: &Method) -> Self {
        match *method {
            Method::HEAD => Self::Head,
            Method::CONNECT => Self::Connect,
            _ => Self::Else,
        }
    }

    /// Whether a response with this status hands the connection over to something that is not HTTP.
    #[inline]
    pub(super) fn upgrades(self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || (self == Self::Connect && status.is_success())
    }
}

impl Answer {
    pub(super) fn new() -> Self {
        let status = StatusCode::GATEWAY_TIMEOUT;
        Self {
            status,
            headers: HeaderMap::new(),
            body: None,
            respond_with: None,
            template: Template::of_problem(status),
        }
    }

    #[track_caller]
    pub(super) fn status(&mut self, status: StatusCode) {
        assert!(
            !status.is_informational(),
            "{status} is not the status of an answer"
        );
        self.status = status;
        self.make_template();
    }

    #[track_caller]
    pub(super) fn header(&mut self, name: HeaderName, value: HeaderValue) {
        assert!(
            !is_of_the_connection(&name),
            "`{name}` is for the server to set"
        );
        self.headers.append(name, value);
        self.make_template();
    }

    pub(super) fn body(&mut self, body: Bytes) {
        self.body = Some(body);
        self.make_template();
    }

    pub(super) fn respond_with(&mut self, respond: Arc<RespondWith>) {
        self.respond_with = Some(respond);
    }

    fn make_template(&mut self) {
        let mut template = match &self.body {
            Some(body) => Template {
                headers: HeaderMap::new(),
                body: body.clone(),
            },
            None if is_empty(self.status) => Template {
                headers: HeaderMap::new(),
                body: Bytes::new(),
            },
            None => Template::of_problem(self.status),
        };
        for name in self.headers.keys() {
            template.headers.remove(name);
        }
        for (name, value) in &self.headers {
            template.headers.append(name, value.clone());
        }
        self.template = template;
    }

    /// The answer, marked as ours by an extension. `pinned` goes over what is configured.
    pub(super) fn make(
        &self,
        timed_out: &TimedOut,
        pinned: Vec<Write>,
        asked: Asked,
    ) -> Response<Bytes> {
        let mut response = self.computed(timed_out).unwrap_or_else(|| {
            let mut response = Response::new(self.template.body.clone());
            *response.status_mut() = self.status;
            *response.headers_mut() = self.template.headers.clone();
            response
        });
        complete(&mut response, pinned, asked);
        response.extensions_mut().insert(*timed_out);
        response
    }

    /// What the user's function makes of it, without what only a server may say. A function that panics, or that makes
    /// something which is not an answer, must not leave the caller without one.
    fn computed(&self, timed_out: &TimedOut) -> Option<Response<Bytes>> {
        let respond = self.respond_with.as_deref()?;
        let mut response = contain(|| respond(timed_out))?;
        if response.status().is_informational() {
            return None;
        }
        let headers = response.headers_mut();
        strip_hop_by_hop(headers, &[]);
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRAILER);
        Some(response)
    }
}

/// The answer if the work was aborted while somebody still waited for it, at shutdown: marked as ours by an extension.
pub(super) fn given_up(pinned: Vec<Write>, asked: Asked) -> Response<Bytes> {
    let problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE).detail("the work was given up");
    let mut response = problem.into_response();
    complete(&mut response, pinned, asked);
    response.extensions_mut().insert(Sealed::Cancelled);
    response
}

/// Puts the pinned fields on an answer, and frames it as the request has it.
fn complete(response: &mut Response<Bytes>, pinned: Vec<Write>, asked: Asked) {
    apply(pinned, response.headers_mut());
    if asked.upgrades(response.status()) {
        // There is nobody to hand the connection to.
        *response.status_mut() = StatusCode::GATEWAY_TIMEOUT;
    }
    if is_empty(response.status()) {
        *response.body_mut() = Bytes::new();
    } else if asked == Asked::Head {
        // The head that GET would have, its length included (RFC 9110 §9.3.2).
        let body = std::mem::take(response.body_mut());
        response
            .headers_mut()
            .insert(CONTENT_LENGTH, body.len().into());
    }
}

impl Template {
    fn of_problem(status: StatusCode) -> Self {
        let problem = Problem::new(status).detail("the time for this request ran out");
        let (head, body) = problem.into_response().into_parts();
        Self {
            headers: head.headers,
            body,
        }
    }
}

/// The statuses of an answer that has no content (RFC 9110 §15.3.5, §15.3.6, §15.4.5).
fn is_empty(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED
    )
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("status", &self.status)
            .field("headers", &self.headers)
            .field("body", &self.body)
            .field("respond_with", &self.respond_with.is_some())
            .finish_non_exhaustive()
    }
}
