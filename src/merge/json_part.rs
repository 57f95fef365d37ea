//! What a branch contributes to a JSON merge, as a layer on that branch.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::Response;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::splice::Source;
use crate::error::{BuildError, write_json_str};
use crate::json::{Member, Value, find, members};

/// Shapes what one branch contributes to a [`JsonMerge`](super::JsonMerge): a layer on that branch's service.
///
/// The steps apply in this order, whatever the order of the calls:
///
/// 1. [`target`](Self::target): only this value of the document.
/// 2. [`allow`](Self::allow): of its members, only these.
/// 3. [`deny`](Self::deny): and not those.
/// 4. [`rename`](Self::rename): under other names.
/// 5. [`group`](Self::group): and the whole under one key.
///
/// Paths are names joined by dots; they lead through objects, never into arrays. A name that holds a dot itself can't be
/// named: it is one name in the document, and a path never mistakes it for two.
///
/// A branch has one such layer; of two, the outer one's rules hold alone.
///
/// ```
/// use tower::{ServiceBuilder, service_fn};
/// use watershed::merge::JsonPartLayer;
///
/// # use bytes::Bytes;
/// # use http::{Request, Response};
/// # use http_body_util::Full;
/// // Of `{"data": {"user": {"id": 7, "name": "Ada", "password": "…"}}}` it leaves `{"profile": {"userId": 7, "name": "Ada"}}`.
/// let service = ServiceBuilder::new()
///     .layer(
///         JsonPartLayer::new()
///             .target("data.user")
///             .deny(["password"])
///             .rename("id", "userId")
///             .group("profile"),
///     )
///     .service(service_fn(|_: Request<Bytes>| async {
///         Ok::<_, std::convert::Infallible>(Response::new(Full::<Bytes>::default()))
///     }));
/// # let _ = service;
/// ```
#[derive(Debug, Clone, Default)]
pub struct JsonPartLayer {
    rules: Arc<Rules>,
}

/// The rules, as an extension of the branch's response.
#[derive(Debug, Clone, Default)]
pub(super) struct Rules {
    target: Vec<Box<str>>,
    allow: Option<Paths>,
    deny: Paths,
    rename: HashMap<Box<str>, Box<str>>,
    pub(super) group: Option<Box<str>>,
}

/// Paths as a tree.
#[derive(Debug, Clone, Default)]
struct Paths {
    /// Whether a path ends here: the whole value is meant.
    whole: bool,
    below: HashMap<Box<str>, Paths>,
}

impl Paths {
    fn add(&mut self, path: &[Box<str>]) {
        match path {
            [] => self.whole = true,
            [name, rest @ ..] => self.below.entry(name.clone()).or_default().add(rest),
        }
    }

    fn get(&self, name: &[u8]) -> Option<&Self> {
        self.below.get(std::str::from_utf8(name).ok()?)
    }
}

impl JsonPartLayer {
    /// The document as it is.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Only the value at `path`. If there is none, the part is an empty object; and so it is in the object mode, ungrouped, if
    /// the value is not an object. Neither makes the answer incomplete.
    ///
    /// # Panics
    ///
    /// If a name in `path` is empty.
    #[must_use]
    #[track_caller]
    pub fn target(mut self, path: &str) -> Self {
        self.rules_mut().target = BuildError::expect(parse_path(path));
        self
    }

    /// Only the members at `paths`, with the objects on the way. On the way an array or a plain value has no such member
    /// and is left out.
    ///
    /// # Panics
    ///
    /// If a name in a path is empty.
    #[must_use]
    #[track_caller]
    pub fn allow<'a>(mut self, paths: impl IntoIterator<Item = &'a str>) -> Self {
        let allow = self.rules_mut().allow.get_or_insert_default();
        for path in paths {
            allow.add(&BuildError::expect(parse_path(path)));
        }
        self
    }

    /// Not the members at `paths`. Arrays on the way are left as they are.
    ///
    /// # Panics
    ///
    /// If a name in a path is empty.
    #[must_use]
    #[track_caller]
    pub fn deny<'a>(mut self, paths: impl IntoIterator<Item = &'a str>) -> Self {
        for path in paths {
            self.rules_mut()
                .deny
                .add(&BuildError::expect(parse_path(path)));
        }
        self
    }

    /// Gives the top-level member `from` the name `to`. Names are looked up as they came, so two members can swap theirs.
    #[must_use]
    pub fn rename(mut self, from: &str, to: &str) -> Self {
        self.rules_mut().rename.insert(from.into(), to.into());
        self
    }

    /// Puts the part under `key`. In the group mode `key` takes the place of the branch's name.
    #[must_use]
    pub fn group(mut self, key: &str) -> Self {
        self.rules_mut().group = Some(key.into());
        self
    }

    fn rules_mut(&mut self) -> &mut Rules {
        Arc::make_mut(&mut self.rules)
    }
}

fn parse_path(path: &str) -> Result<Vec<Box<str>>, BuildError> {
    if path.split('.').any(str::is_empty) {
        return Err(BuildError::new(format!(
            "{path:?} is not a path of names joined by dots"
        )));
    }
    Ok(path.split('.').map(Into::into).collect())
}

impl Rules {
    /// Whether the document stays as it is, but for its group.
    pub(super) fn leave_alone(&self) -> bool {
        self.target.is_empty() && !self.rewrite()
    }

    pub(super) fn has_target(&self) -> bool {
        !self.target.is_empty()
    }

    /// Whether members have to be dropped or renamed.
    fn rewrite(&self) -> bool {
        self.allow.is_some() || !self.deny.below.is_empty() || !self.rename.is_empty()
    }

    /// Applies all but the group to the document `value` of `source`. What is left is copied at most once.
    pub(super) fn apply(&self, source: Source, value: Value) -> (Source, Option<Value>) {
        let text = &source.bytes;
        let mut value = value;
        for name in &self.target {
            match value
                .is_object(text)
                .then(|| find(text, value, name))
                .flatten()
            {
                Some(found) => value = found,
                None => {
                    let empty = Bytes::from_static(b"{}");
                    return (
                        Source {
                            bytes: empty,
                            copied: false,
                        },
                        None,
                    );
                }
            }
        }
        if !self.rewrite() || !value.is_object(text) {
            return (source, Some(value));
        }
        let mut out = Vec::with_capacity(value.range().len());
        let mut filter = Filter {
            text,
            out: &mut out,
        };
        filter.object(value, self.allow.as_ref(), Some(&self.deny), &self.rename);
        let source = Source {
            bytes: Bytes::from(out),
            copied: true,
        };
        (source, None)
    }
}

/// Writes an object without the members that the paths leave out. It goes no deeper than they do.
struct Filter<'a> {
    text: &'a [u8],
    out: &'a mut Vec<u8>,
}

impl Filter<'_> {
    fn object(
        &mut self,
        object: Value,
        allow: Option<&Paths>,
        deny: Option<&Paths>,
        rename: &HashMap<Box<str>, Box<str>>,
    ) {
        let text = self.text;
        self.out.push(b'{');
        let opened = self.out.len();
        for (member, name) in last_ones(text, object) {
            let allow = match allow {
                None => None,
                Some(paths) if paths.whole => None,
                Some(paths) => match paths.get(&name) {
                    Some(below) if below.whole => None,
                    // The path leads on, and there is nowhere to go.
                    Some(_) if !member.value.is_object(text) => continue,
                    Some(below) => Some(below),
                    None => continue,
                },
            };
            let deny = deny.and_then(|paths| paths.get(&name));
            if deny.is_some_and(|below| below.whole) {
                continue;
            }
            if self.out.len() > opened {
                self.out.push(b',');
            }
            match std::str::from_utf8(&name)
                .ok()
                .and_then(|name| rename.get(name))
            {
                Some(name) => write_json_str(self.out, name),
                None => self.out.extend_from_slice(&text[member.name()]),
            }
            self.out.push(b':');
            if member.value.is_object(text) && (allow.is_some() || deny.is_some()) {
                self.object(member.value, allow, deny, &HashMap::new());
            } else {
                self.out.extend_from_slice(&text[member.value.range()]);
            }
        }
        self.out.push(b'}');
    }
}

/// The members that count, in order, each with what its name means: of duplicates the last.
fn last_ones(text: &[u8], object: Value) -> Vec<(Member, Cow<'_, [u8]>)> {
    let mut seen = HashSet::new();
    let members = members(text, object).into_iter().rev();
    let named = members.map(|member| (member, member.identity(text)));
    let mut last: Vec<_> = named
        .filter(|(_, name)| seen.insert(name.clone()))
        .collect();
    last.reverse();
    last
}

impl<S> Layer<S> for JsonPartLayer {
    type Service = JsonPart<S>;

    fn layer(&self, inner: S) -> JsonPart<S> {
        JsonPart {
            inner,
            rules: Arc::clone(&self.rules),
        }
    }
}

/// The service of [`JsonPartLayer`]. It marks the responses of the inner one, which is ready when that is and fails as it
/// does; the merge does the work.
#[derive(Debug, Clone)]
pub struct JsonPart<S> {
    inner: S,
    rules: Arc<Rules>,
}

impl<S> JsonPart<S> {
    inner_accessors!();
}

impl<S, Req, B> Service<Req> for JsonPart<S>
where
    S: Service<Req, Response = Response<B>>,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = JsonPartFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Req) -> Self::Future {
        JsonPartFuture {
            inner: self.inner.call(request),
            rules: Some(Arc::clone(&self.rules)),
        }
    }
}

pin_project! {
    /// The future of [`JsonPart`].
    #[derive(Debug)]
    pub struct JsonPartFuture<F> {
        #[pin]
        inner: F,
        rules: Option<Arc<Rules>>,
    }
}

impl<F, B, E> Future for JsonPartFuture<F>
where
    F: Future<Output = Result<Response<B>, E>>,
{
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let this = self.project();
        let mut response = ready!(this.inner.poll(cx))?;
        if let Some(rules) = this.rules.take() {
            response.extensions_mut().insert(rules);
        }
        Poll::Ready(Ok(response))
    }
}
