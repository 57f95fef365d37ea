//! Templates for paths and URIs.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use http::uri::{Authority, PathAndQuery, Scheme};

use super::path::{encode, has_dot_segment, is_safe_in_path};
use crate::error::{BuildError, ClientFault};
use crate::params::PathParams;

/// A path, or an absolute `http`/`https` URI, with `{name}` placeholders in its path and query.
///
/// A value can't leave its place. It is percent-encoded down to the unreserved characters (RFC 3986 §2.3), in one pass, so
/// that a value of `{other}` stays just that; and no value may change the path's structure: one that is empty or holds a
/// dot segment is refused (RFC 3986 §3.3). Scheme and authority are part of the template only, and are never parsed again.
///
/// ```
/// use watershed::rewrite::{PathParams, UriTemplate};
///
/// let template = UriTemplate::new("http://127.0.0.1:9002/users/{id}/orders?since={since}");
/// let params = PathParams::from_iter([("id", "a/b"), ("since", "1 & 2")]);
/// let uri = template.expand(&params).unwrap();
/// assert_eq!(uri.path_and_query().unwrap(), "/users/a%2Fb/orders?since=1%20%26%202");
/// assert_eq!(uri.authority().unwrap(), "127.0.0.1:9002");
///
/// let escape = PathParams::from_iter([("id", "../admin"), ("since", "")]);
/// assert!(template.expand(&escape).is_err());
/// ```
#[derive(Clone)]
pub struct UriTemplate {
    target: Option<(Scheme, Authority)>,
    pieces: Box<[Piece]>,
    /// The result, if there is nothing to fill in.
    constant: Option<PathAndQuery>,
}

/// The longest path and query (with what stands before it, a URI has 65 535 bytes).
const MAX_LEN: usize = 65_534;

#[derive(Debug, Clone)]
enum Piece {
    Literal(Box<str>),
    Param { name: Box<str>, position: Position },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    Path,
    Query,
}

/// Why a template could not be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RewriteError {
    /// The request has no such parameter: our mistake, not the client's.
    #[error("the request has no path parameter {name:?}")]
    Missing {
        /// The placeholder's name.
        name: Box<str>,
    },
    /// A value, or the path that is kept, can't be used in its place: the client's fault, which a merge answers with 400.
    #[error("a part of the request's target can't be used in the template")]
    Value(#[source] ClientFault),
}

impl UriTemplate {
    /// Parses `template`.
    ///
    /// # Panics
    ///
    /// Where [`try_new`](Self::try_new) returns an error.
    #[must_use]
    #[track_caller]
    pub fn new(template: &str) -> Self {
        BuildError::expect(Self::try_new(template))
    }

    /// Parses `template`: `/path/{name}?query={name}`, with `http://authority` or `https://authority` before it or not.
    ///
    /// # Errors
    ///
    /// If it is neither a path nor such a URI; if a placeholder stands in scheme or authority, is not closed, or has a name
    /// other than letters, digits, `_` and `-`; if a character has no place in a URI; if it has a fragment, user
    /// information, or a dot segment.
    pub fn try_new(template: &str) -> Result<Self, BuildError> {
        let fail =
            |why: &str| BuildError::new(format!("{template:?} is not a URI template: {why}"));
        if let Some(place) = template.find(|c: char| !c.is_ascii_graphic()) {
            return Err(fail(&format!("byte {place} has to be percent-encoded")));
        }
        let (target, path) = match template.split_once("://") {
            Some((scheme, rest)) if !scheme.contains(['/', '?', '{']) => {
                let scheme = match scheme.to_ascii_lowercase().as_str() {
                    "http" => Scheme::HTTP,
                    "https" => Scheme::HTTPS,
                    _ => return Err(fail("the scheme is neither http nor https")),
                };
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let (authority, path) = rest.split_at(end);
                if authority.contains(['{', '}']) {
                    return Err(fail("a placeholder can't stand in the authority"));
                }
                if authority.contains('@') {
                    return Err(fail("user information has no place in it"));
                }
                let authority: Authority = authority
                    .parse()
                    .ok()
                    .filter(|authority: &Authority| !authority.host().is_empty())
                    .ok_or_else(|| fail("the authority is not host[:port]"))?;
                if authority
                    .as_str()
                    .rsplit_once(':')
                    .is_some_and(|(host, port)| {
                        !port.contains(']') && !host.is_empty() && authority.port_u16().is_none()
                    })
                {
                    return Err(fail("the port is not a number up to 65535"));
                }
                (Some((scheme, authority)), path)
            }
            _ if !template.starts_with('/') => {
                return Err(fail("it starts with neither / nor http:// nor https://"));
            }
            _ if template.starts_with("//") => {
                return Err(fail(
                    "a path that starts with // would read as an authority",
                ));
            }
            _ => (None, template),
        };
        if path.contains('#') {
            return Err(fail("a fragment is not sent"));
        }
        let pieces = parse_pieces(path).map_err(|why| fail(&why))?;
        // What stands between two placeholders is checked with their values.
        let literal: String = path
            .split(['{', '}'])
            .step_by(2)
            .collect::<Vec<_>>()
            .join("x");
        if has_dot_segment(&literal) {
            return Err(fail("it has a dot segment"));
        }
        let mut template = Self {
            target,
            pieces,
            constant: None,
        };
        if template.names().next().is_none() {
            let constant = template
                .path_and_query(&PathParams::default())
                .map_err(|_| fail("the path is not one of a URI"))?;
            template.constant = Some(constant);
        }
        Ok(template)
    }

    /// The names of the placeholders, in order; a name that is used twice comes twice.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Param { name, .. } => Some(&**name),
            Piece::Literal(_) => None,
        })
    }

    /// The scheme of an absolute template.
    #[must_use]
    pub fn scheme(&self) -> Option<&Scheme> {
        self.target.as_ref().map(|(scheme, _)| scheme)
    }

    /// The authority of an absolute template.
    #[must_use]
    pub fn authority(&self) -> Option<&Authority> {
        self.target.as_ref().map(|(_, authority)| authority)
    }

    /// Fills in `params`.
    ///
    /// # Errors
    ///
    /// [`RewriteError::Missing`] if a placeholder has no value, [`RewriteError::Value`] if a value in the path is empty or
    /// holds a dot segment or a NUL, or if the whole is too long for a URI (65 534 bytes). A value is one segment, whatever it
    /// holds: its slashes are encoded.
    pub fn expand(&self, params: &PathParams) -> Result<Uri, RewriteError> {
        Ok(self.at(self.own_path_and_query(params)?))
    }

    /// Fills in `params`, and appends the path and the query of `request`, as they are.
    pub(super) fn expand_before(
        &self,
        params: &PathParams,
        request: &Uri,
    ) -> Result<Uri, RewriteError> {
        let refused = |why| RewriteError::Value(ClientFault::bad_request(why));
        // Of a target without a path, `/` is the path (RFC 3986 §6.2.3); `http` says so, and then writes nothing.
        let rooted;
        let kept = match request.path_and_query() {
            Some(rest) if rest.as_str() == "/" || rest.as_str().starts_with('?') => {
                rooted = checked(rest.to_string())?;
                Some(&rooted)
            }
            kept => kept,
        };
        let rest = kept.map_or("", PathAndQuery::as_str);
        if !rest.starts_with('/') {
            return Err(refused("the request's target is not a path"));
        }
        if has_dot_segment(rest) {
            return Err(refused("the request's path holds a dot segment"));
        }
        // What some servers read as `/`, and what others read as the end.
        let path = rest.split('?').next().unwrap_or_default();
        if path.contains('\\') || path.contains("%00") {
            return Err(refused("the request's path holds a backslash or a NUL"));
        }
        let own = self.own_path_and_query(params)?;
        let base = own.path().trim_end_matches('/');
        if base.is_empty() {
            return Ok(self.at(kept.cloned().unwrap_or(own)));
        }
        Ok(self.at(checked([base, rest].concat())?))
    }

    /// Whether it has a query.
    pub(super) fn has_query(&self) -> bool {
        self.pieces.iter().any(|piece| match piece {
            Piece::Literal(text) => text.contains('?'),
            Piece::Param { position, .. } => *position == Position::Query,
        })
    }

    fn own_path_and_query(&self, params: &PathParams) -> Result<PathAndQuery, RewriteError> {
        match &self.constant {
            Some(constant) => Ok(constant.clone()),
            None => self.path_and_query(params),
        }
    }

    pub(super) fn at(&self, path_and_query: PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.path_and_query = Some(path_and_query);
        if let Some((scheme, authority)) = &self.target {
            parts.scheme = Some(scheme.clone());
            parts.authority = Some(authority.clone());
        }
        Uri::from_parts(parts).expect("a scheme comes with an authority and a path")
    }

    fn path_and_query(&self, params: &PathParams) -> Result<PathAndQuery, RewriteError> {
        let mut out = String::with_capacity(128);
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => out.push_str(text),
                Piece::Param { name, position } => {
                    let Some(value) = params.get(name) else {
                        return Err(RewriteError::Missing { name: name.clone() });
                    };
                    if *position == Position::Path && !is_safe_in_path(value) {
                        return Err(bad_value(name));
                    }
                    // Some servers would read the path no further.
                    if *position == Position::Path && value.contains('\0') {
                        let why = format!("the path parameter {name:?} holds a NUL");
                        return Err(RewriteError::Value(ClientFault::bad_request(why)));
                    }
                    // Encoded it is no shorter: before the memory is spent, for each placeholder again.
                    if value.len() > MAX_LEN.saturating_sub(out.len()) {
                        return Err(too_long());
                    }
                    encode(&mut out, value);
                }
            }
        }
        // A value can be harmless alone and complete a dot segment with its neighbours: `{a}{b}`, `.{a}`, `{a}..{b}`.
        if has_dot_segment(&out) {
            let name = self.names().next().unwrap_or_default();
            return Err(bad_value(name));
        }
        checked(out)
    }
}

fn checked(path_and_query: String) -> Result<PathAndQuery, RewriteError> {
    // Not every version of `http` checks it, and its offsets have 16 bits.
    if path_and_query.len() > MAX_LEN {
        return Err(too_long());
    }
    PathAndQuery::from_maybe_shared(bytes::Bytes::from(path_and_query)).map_err(|_| too_long())
}

fn too_long() -> RewriteError {
    let status = http::StatusCode::URI_TOO_LONG;
    RewriteError::Value(ClientFault::new(status, "the path is too long"))
}

fn bad_value(name: &str) -> RewriteError {
    RewriteError::Value(ClientFault::bad_request(format!(
        "the path parameter {name:?} is empty or holds a dot segment"
    )))
}

fn parse_pieces(path: &str) -> Result<Box<[Piece]>, String> {
    let mut pieces = Vec::new();
    let mut position = Position::Path;
    let mut literal = String::new();
    if !path.starts_with('/') {
        literal.push('/');
    }
    let mut rest = path;
    while let Some(next) = rest.chars().next() {
        rest = &rest[1..];
        match next {
            '{' => {
                let end = rest.find('}').ok_or("a placeholder is not closed")?;
                let name = &rest[..end];
                let is_name_char = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
                if name.is_empty() || !name.chars().all(is_name_char) {
                    return Err(format!("{{{name}}} is not a placeholder's name"));
                }
                rest = &rest[end + 1..];
                if !literal.is_empty() {
                    pieces.push(Piece::Literal(std::mem::take(&mut literal).into()));
                }
                pieces.push(Piece::Param {
                    name: name.into(),
                    position,
                });
                continue;
            }
            '}' => return Err("a placeholder is closed that was not opened".into()),
            '%' => {
                let hex = rest
                    .get(..2)
                    .is_some_and(|hex| hex.bytes().all(|b| b.is_ascii_hexdigit()));
                if !hex {
                    return Err("a % is not followed by two hexadecimal digits".into());
                }
            }
            '?' if position == Position::Path => position = Position::Query,
            '"' | '<' | '>' | '\\' | '^' | '`' | '|' | '[' | ']' => {
                return Err(format!("{next} has to be percent-encoded"));
            }
            _ => {}
        }
        literal.push(next);
    }
    if !literal.is_empty() {
        pieces.push(Piece::Literal(literal.into()));
    }
    Ok(pieces.into())
}

impl FromStr for UriTemplate {
    type Err = BuildError;

    fn from_str(template: &str) -> Result<Self, BuildError> {
        Self::try_new(template)
    }
}

impl fmt::Display for UriTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some((scheme, authority)) = &self.target {
            write!(f, "{scheme}://{authority}")?;
        }
        for piece in &self.pieces {
            match piece {
                Piece::Literal(text) => f.write_str(text)?,
                Piece::Param { name, .. } => write!(f, "{{{name}}}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for UriTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UriTemplate")
            .field(&self.to_string())
            .finish()
    }
}
