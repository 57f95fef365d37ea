//! A request that was not its branch call's own.

use std::fmt;
use std::sync::Arc;

use http::header::HeaderValue;
use http::{Method, Request, Uri};

use super::stamp::{Stamp, text};

/// A request that was not its branch call's own.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Crossing {
    /// What was wrong with it.
    pub kind: CrossingKind,
    /// The branch that it was seen in, as its layer was told.
    pub branch: Arc<str>,
    /// The request's method.
    pub method: Method,
    /// The request's target, where the crossing was seen.
    pub uri: Uri,
    /// The stamps in the header: of the request, or of the response for [`CrossingKind::Reflected`].
    pub header: Vec<String>,
    /// The stamp in the extension.
    pub extension: Option<String>,
    /// The stamp of the call that presented the request, as far as it is known.
    pub caller: Option<String>,
}

/// What is wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CrossingKind {
    /// It carried a stamp before it was given one: it is shared with another branch call, or the layers are nested.
    AlreadyStamped,
    /// It carries no stamp: it is not made from the branch's request, or its head was cut.
    Missing,
    /// It carries several header fields: two requests were written into one.
    Several,
    /// Its header and its extension are not of one call, or one of the two is missing.
    Mismatched,
    /// Its stamp is another branch's.
    OtherBranch,
    /// Its stamp is of another call of the same branch.
    OtherCall,
    /// Its stamp is presented by another request at the same time, and by whom is not known.
    Twice,
    /// The call that it was stamped for has ended, or was never this audit's.
    NotInFlight,
    /// The backend reflected another call's stamp.
    Reflected,
}

impl fmt::Display for Crossing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            branch,
            method,
            uri,
            header,
            ..
        } = self;
        let what = match self.kind {
            CrossingKind::AlreadyStamped => "it was stamped before",
            CrossingKind::Missing => "it carries no stamp",
            CrossingKind::Several => "it carries several stamps",
            CrossingKind::Mismatched => "its header and its extension disagree",
            CrossingKind::OtherBranch => "its stamp is another branch's",
            CrossingKind::OtherCall => "its stamp is another call's",
            CrossingKind::Twice => "its stamp is presented twice at once",
            CrossingKind::NotInFlight => "the call of its stamp is not in flight",
            CrossingKind::Reflected => "the response reflects another stamp",
        };
        write!(f, "{method} {uri} in branch {branch:?}: {what} (header ")?;
        match &**header {
            [] => f.write_str("none")?,
            stamps => f.write_str(&stamps.join(", "))?,
        }
        let extension = self.extension.as_deref().unwrap_or("none");
        let caller = self.caller.as_deref().unwrap_or("unknown");
        write!(f, "; extension {extension}; caller {caller})")
    }
}

/// The error of a request that has crossed branches. It names the request's target: it is for tests, not for clients.
#[derive(Debug, Clone, thiserror::Error)]
#[error("isolation is broken: {crossing}")]
#[non_exhaustive]
pub struct Crossed {
    /// What was seen.
    pub crossing: Crossing,
}

/// What is left of a crossing's details when the request itself has gone.
#[derive(Debug, Clone)]
pub(super) struct Target {
    branch: Arc<str>,
    method: Method,
    uri: Uri,
}

impl Target {
    pub(super) fn of<B>(branch: &Arc<str>, request: &Request<B>) -> Self {
        Self {
            branch: Arc::clone(branch),
            method: request.method().clone(),
            uri: request.uri().clone(),
        }
    }

    pub(super) fn crossing<'a>(
        self,
        kind: CrossingKind,
        header: impl IntoIterator<Item = &'a HeaderValue>,
        extension: Option<&Stamp>,
        caller: Option<&Stamp>,
    ) -> Crossing {
        Crossing {
            kind,
            branch: self.branch,
            method: self.method,
            uri: self.uri,
            header: header.into_iter().map(text).collect(),
            extension: extension.map(Stamp::to_string),
            caller: caller.map(Stamp::to_string),
        }
    }
}
