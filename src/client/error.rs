//! What can go wrong before and during a response.

use std::io;
use std::time::Duration;

use hyper_util::client::legacy;

use super::body::Answer;
use super::connector::ConnectTimedOut;
use crate::error::{BoxError, cause_ref};

/// A call that got no response, or a response whose body did not come to its end.
///
/// Its text names what happened and no address. What is known beyond that is in the chain of its
/// [sources](std::error::Error::source), for a log; [`cause_ref`] finds a [`ClientFault`](crate::error::ClientFault) there if
/// the body of the *request* was at fault.
#[derive(Debug, thiserror::Error)]
#[error("{kind}")]
#[non_exhaustive]
pub struct ClientError {
    kind: Kind,
    source: Option<BoxError>,
}

#[derive(Debug, thiserror::Error)]
enum Kind {
    #[error("the request can't be sent: {0}")]
    Invalid(&'static str),
    #[error("no connection could be made")]
    Connect,
    #[error("no connection was made within {0:?}")]
    ConnectTimeout(Duration),
    #[error("the connection was closed before the request was sent")]
    Unsent,
    #[error("the body of the request failed")]
    RequestBody,
    #[error("the connection was closed before the response came")]
    Closed,
    #[error("the response is not valid HTTP")]
    Malformed,
    #[error("the exchange failed before the response came")]
    Exchange,
    #[error("the body of the response ended early or is misframed")]
    ResponseBody,
}

impl ClientError {
    pub(super) fn invalid(reason: &'static str) -> Self {
        Self {
            kind: Kind::Invalid(reason),
            source: None,
        }
    }

    pub(super) fn from_exchange(error: legacy::Error, answer: Option<&Answer>) -> Self {
        if let Some(own) = Self::from_request(answer) {
            return own;
        }
        let kind = if error.is_connect() {
            match cause_ref::<ConnectTimedOut>(&error) {
                Some(ConnectTimedOut { limit }) => Kind::ConnectTimeout(*limit),
                None => Kind::Connect,
            }
        } else {
            match cause_ref::<hyper::Error>(&error) {
                Some(cause) if cause.is_canceled() => Kind::Unsent,
                Some(cause) if cause.is_user() => Kind::RequestBody,
                Some(cause) if cause.is_parse() => Kind::Malformed,
                Some(cause) if cause.is_incomplete_message() || cause.is_closed() => Kind::Closed,
                _ if cause_ref::<io::Error>(&error).is_some() => Kind::Closed,
                _ => Kind::Exchange,
            }
        };
        Self {
            kind,
            source: Some(error.into()),
        }
    }

    pub(super) fn from_body(error: hyper::Error, answer: Option<&Answer>) -> Self {
        Self::from_request(answer).unwrap_or_else(|| Self {
            kind: Kind::ResponseBody,
            source: Some(error.into()),
        })
    }

    /// The stream of the response was reset, without an error, before its end.
    pub(super) fn from_reset(answer: Option<&Answer>) -> Self {
        Self::from_request(answer).unwrap_or(Self {
            kind: Kind::ResponseBody,
            source: None,
        })
    }

    /// A request body that failed is the cause, whatever the failure looks like on the connection.
    fn from_request(answer: Option<&Answer>) -> Option<Self> {
        Some(Self {
            kind: Kind::RequestBody,
            source: Some(answer?.take_error()?),
        })
    }

    /// Whether the request can't be sent as it is: its URI is not an absolute http or https one, it is https and the feature
    /// `tls` is off, or it is a `CONNECT`.
    #[must_use]
    pub fn is_invalid_request(&self) -> bool {
        matches!(self.kind, Kind::Invalid(_))
    }

    /// Whether no connection could be made: the name has no address, the server refused or did not answer, or its
    /// certificate is not trusted.
    #[must_use]
    pub fn is_connect(&self) -> bool {
        matches!(self.kind, Kind::Connect | Kind::ConnectTimeout(_))
    }

    /// Whether the [connect timeout](super::ClientBuilder::connect_timeout) passed, which is the only one that a client has.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self.kind, Kind::ConnectTimeout(_))
    }

    /// Whether it is certain that nothing of the request was sent, so that sending it again repeats nothing, whatever its
    /// method.
    #[must_use]
    pub fn is_unsent(&self) -> bool {
        self.is_invalid_request() || self.is_connect() || matches!(self.kind, Kind::Unsent)
    }

    /// Whether the body of the request failed, or was not of the length that the request announces. The server is not at
    /// fault.
    #[must_use]
    pub fn is_request_body(&self) -> bool {
        matches!(self.kind, Kind::RequestBody)
    }

    /// Whether the connection was closed or reset after the request was sent and before the response came. The server may
    /// have acted on the request.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        matches!(self.kind, Kind::Closed)
    }

    /// Whether the head of the response is not valid HTTP/1.1, or is too large.
    #[must_use]
    pub fn is_malformed(&self) -> bool {
        matches!(self.kind, Kind::Malformed)
    }

    /// Whether the head of the response came, and its body ended early, is misframed, or was reset.
    #[must_use]
    pub fn is_response_body(&self) -> bool {
        matches!(self.kind, Kind::ResponseBody)
    }
}
