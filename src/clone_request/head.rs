//! Which parts of a request's head its clones carry.

use std::fmt;
use std::sync::Arc;

use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName};
use http::{Extensions, HeaderMap};

use crate::deadline::Deadline;
use crate::fields::{HeldTrailers, strip_hop_by_hop, strip_trailers};
use crate::params::{PathParams, Peer};

/// Which header fields and extensions of a request are cloned.
///
/// By default all end-to-end fields, and of the extensions only this crate's own plain values ([`Deadline`],
/// [`PathParams`], [`Peer`]). Everything else in the extensions is dropped, because a shared `Arc` in there is how one branch would
/// reach into another.
///
/// Never cloned, whatever the policy: the fields that concern one connection (RFC 9110 §7.6.1), and `Content-Length`,
/// which is said by the body. The trailers of the body are held to the same rules, and lose what no trailer may say
/// (§6.5.1): credentials, framing, routing, conditions.
///
/// ```
/// use http::header::{ACCEPT, AUTHORIZATION};
/// use watershed::clone_request::HeadPolicy;
///
/// #[derive(Clone)]
/// struct TenantId(u32);
///
/// // Only these two fields (and the content's own), and one more extension.
/// let policy = HeadPolicy::allow([ACCEPT, AUTHORIZATION]).extension::<TenantId>();
/// # let _ = policy;
/// ```
#[derive(Clone)]
pub struct HeadPolicy {
    fields: Fields,
    protected: Arc<[HeaderName]>,
    extensions: Arc<[MoveExtension]>,
}

#[derive(Debug, Clone)]
enum Fields {
    EndToEnd,
    Allowed(Arc<[HeaderName]>),
}

/// What says how to read the body.
const CONTENT: [HeaderName; 2] = [CONTENT_TYPE, CONTENT_ENCODING];

/// Moves one type from the request's extensions to those of its clones.
type MoveExtension = fn(&mut Extensions, &mut Extensions);

fn move_extension<T: Clone + Send + Sync + 'static>(from: &mut Extensions, to: &mut Extensions) {
    if let Some(value) = from.remove::<T>() {
        to.insert(value);
    }
}

impl HeadPolicy {
    /// All end-to-end fields: the default.
    #[must_use]
    pub fn end_to_end() -> Self {
        Self {
            fields: Fields::EndToEnd,
            protected: Arc::new([]),
            extensions: Arc::new([
                move_extension::<Deadline>,
                move_extension::<PathParams>,
                move_extension::<Peer>,
            ]),
        }
    }

    /// Only these fields, and `Content-Type` and `Content-Encoding`, without which the body would lose its meaning.
    pub fn allow(names: impl IntoIterator<Item = HeaderName>) -> Self {
        Self {
            fields: Fields::Allowed(names.into_iter().chain(CONTENT).collect()),
            ..Self::end_to_end()
        }
    }

    /// The caller can't have these fields removed by naming them in a `Connection` line (RFC 9110 §7.6.1): for what a layer
    /// outside has set, such as who the caller is. Behind a [`ProxyHeadersLayer`](crate::proxy_headers::ProxyHeadersLayer)
    /// that stands outside of that layer, no such line is left.
    #[must_use]
    pub fn protect(mut self, names: impl IntoIterator<Item = HeaderName>) -> Self {
        let known = self.protected.iter().cloned();
        self.protected = known.chain(names).collect();
        self
    }

    /// Keeps the extension `T` as well. Every branch gets its own clone; what that clone shares with the others is up to
    /// `T`.
    #[must_use]
    pub fn extension<T: Clone + Send + Sync + 'static>(mut self) -> Self {
        let kept = self.extensions.iter().copied();
        self.extensions = kept.chain([move_extension::<T> as MoveExtension]).collect();
        self
    }

    /// Holds the trailers of the request's body to the policy.
    pub(super) fn hold<B>(&self, body: B) -> HeldTrailers<B, impl FnMut(&mut HeaderMap) + use<B>> {
        let policy = self.clone();
        HeldTrailers::new(body, move |trailers: &mut HeaderMap| {
            policy.apply_to_trailers(trailers);
        })
    }

    fn apply_to_trailers(&self, trailers: &mut HeaderMap) {
        strip_trailers(trailers);
        if let Fields::Allowed(names) = &self.fields {
            let left: Vec<HeaderName> = trailers.keys().cloned().collect();
            for name in left.iter().filter(|name| !names.contains(name)) {
                trailers.remove(name);
            }
        }
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap, extensions: &mut Extensions) {
        strip_hop_by_hop(headers, &self.protected);
        headers.remove(CONTENT_LENGTH);
        if let Fields::Allowed(names) = &self.fields {
            let mut allowed = HeaderMap::new();
            for name in names.iter() {
                // Removed, so that a name that is listed twice is not kept twice.
                if let http::header::Entry::Occupied(field) = headers.entry(name) {
                    let (name, values) = field.remove_entry_mult();
                    for value in values {
                        allowed.append(name.clone(), value);
                    }
                }
            }
            *headers = allowed;
        }
        if !extensions.is_empty() {
            let mut kept = Extensions::new();
            for keep in self.extensions.iter() {
                keep(extensions, &mut kept);
            }
            *extensions = kept;
        }
    }
}

impl Default for HeadPolicy {
    fn default() -> Self {
        Self::end_to_end()
    }
}

impl fmt::Debug for HeadPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeadPolicy")
            .field("fields", &self.fields)
            .field("protected", &self.protected)
            .field("extensions", &self.extensions.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::{ACCEPT, HeaderValue};

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|&(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        headers.keys().map(HeaderName::as_str).collect()
    }

    #[test]
    fn end_to_end_fields_are_kept_and_framing_is_not() {
        let mut map = headers(&[
            ("x-end", "1"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "3"),
            ("transfer-encoding", "chunked"),
        ]);
        HeadPolicy::default().apply(&mut map, &mut Extensions::new());
        assert_eq!(names(&map), ["x-end"]);
    }

    #[test]
    fn an_allow_list_keeps_every_line_of_its_fields_and_the_content_type() {
        let mut map = headers(&[
            ("accept", "a"),
            ("x-other", "1"),
            ("content-type", "text/plain"),
        ]);
        map.append(ACCEPT, HeaderValue::from_static("b"));
        HeadPolicy::allow([ACCEPT, ACCEPT]).apply(&mut map, &mut Extensions::new());
        assert_eq!(names(&map), ["accept", "content-type"]);
        assert_eq!(map.get_all(ACCEPT).iter().collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn only_plain_values_and_named_extensions_are_kept() {
        #[derive(Debug, Clone, PartialEq)]
        struct Tenant(u32);
        #[derive(Clone)]
        struct Shared(#[allow(dead_code)] Arc<std::sync::Mutex<u32>>);

        let mut extensions = Extensions::new();
        extensions.insert(Deadline::NEVER);
        extensions.insert(Tenant(7));
        extensions.insert(Shared(Arc::default()));
        let policy = HeadPolicy::default().extension::<Tenant>();
        policy.apply(&mut HeaderMap::new(), &mut extensions);
        assert_eq!(extensions.get(), Some(&Tenant(7)));
        assert_eq!(extensions.get(), Some(&Deadline::NEVER));
        assert!(extensions.get::<Shared>().is_none());
    }
}
