//! The audit: a stamp on every branch call, checked where the request goes out.

use std::cell::Cell;
use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::header::{HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use crate::error::BoxError;
use crate::sync::{AtomicU64, Mutex, MutexGuard, Ordering, lock};

/// `watershed-stamp`: the header field of a [`Stamp`].
pub const STAMP: HeaderName = HeaderName::from_static("watershed-stamp");

/// The most crossings that are kept in full.
const KEPT_CROSSINGS: usize = 256;

/// An audit of isolation: does every branch call send its own request, and nothing of another's?
///
/// See the [module docs](super) for an example. A clone is a handle to the same audit.
///
/// Each branch gets two layers. [`stamp`](Self::stamp), the outermost, gives each call a [`Stamp`] that no other call has,
/// as a header field and as an extension. [`check`](Self::check), the innermost, next to the client, demands that the
/// request carries exactly one stamp: the same in the header as in the extension, of this branch, of a call that is in
/// flight now, and presented by that call itself. Everything else is a [`Crossing`]: it is recorded, and the request is
/// not sent but fails with [`Crossed`]. A request that carries a stamp before the stamp layer gives it one is a crossing
/// as well: it is shared with another branch. If a response has the field [`STAMP`], because the backend reflects it, then
/// it must be the call's own, which takes the connections below into the audit.
///
/// Whether a request is presented *by its own call* is known as long as it is sent from within the future of the branch.
/// Behind a buffer or a spawned task it is not; there, a stamp that is presented twice at once counts as crossed.
///
/// # What is legal
///
/// * A retry, which presents its call's stamp again, and a hedge, which does so at once.
/// * A call that never comes to the check: a cache or a limit has answered it.
///
/// # Where to put it
///
/// * Outside the stamp: whatever answers one call with the request of another, such as a single flight.
/// * Inside, for work that outlives its branch, such as a mirror: a stamp and a check of its own.
/// * A [`HeadPolicy`](crate::clone_request::HeadPolicy) between the two must keep both: `.extension::<Stamp>()`, and
///   [`STAMP`] in a list of allowed fields.
/// * An audited proxy behind an audited proxy: let the check of the outer one [strip](CheckLayer::strip) its stamps.
///
/// # Bounds
///
/// Calls are forgotten as they finish. The first 256 crossings are kept, all further ones counted.
#[derive(Debug, Clone, Default)]
pub struct Isolation {
    ledger: Arc<Ledger>,
}

#[derive(Debug, Default)]
struct Ledger {
    book: Mutex<Book>,
}

#[derive(Debug, Default)]
struct Book {
    in_flight: HashMap<u64, Open>,
    calls: u64,
    checked: u64,
    crossings: Vec<Crossing>,
    crossed: u64,
}

/// A stamped call that has not ended.
#[derive(Debug)]
struct Open {
    stamp: Stamp,
    /// The requests that present its stamp right now.
    presented: usize,
}

impl Isolation {
    /// An audit that has seen nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The outermost layer of the branch `branch`.
    #[must_use]
    pub fn stamp(&self, branch: impl Into<Arc<str>>) -> StampLayer {
        StampLayer {
            ledger: Arc::clone(&self.ledger),
            branch: branch.into(),
        }
    }

    /// The innermost layer of the branch `branch`.
    #[must_use]
    pub fn check(&self, branch: impl Into<Arc<str>>) -> CheckLayer {
        CheckLayer {
            ledger: Arc::clone(&self.ledger),
            branch: branch.into(),
            stamps: Stamps::Kept,
        }
    }

    /// The branch calls that came to a stamp layer.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.ledger.book().calls
    }

    /// The requests that came to a check layer.
    #[must_use]
    pub fn checked(&self) -> u64 {
        self.ledger.book().checked
    }

    /// The stamped calls that are neither finished nor dropped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.ledger.book().in_flight.len()
    }

    /// The first 256 crossings, in the order in which they were seen.
    #[must_use]
    pub fn crossings(&self) -> Vec<Crossing> {
        self.ledger.book().crossings.clone()
    }

    /// The number of all crossings.
    #[must_use]
    pub fn crossing_count(&self) -> u64 {
        self.ledger.book().crossed
    }

    /// Asserts that there was no crossing. Assert [`checked`](Self::checked) as well: where nothing was seen, nothing was
    /// crossed.
    ///
    /// # Panics
    ///
    /// If there was one, with a list of them.
    #[track_caller]
    pub fn assert_clean(&self) {
        use std::fmt::Write;

        let (crossings, total) = {
            let book = self.ledger.book();
            (book.crossings.clone(), book.crossed)
        };
        if total == 0 {
            return;
        }
        let mut list = String::new();
        for crossing in &crossings {
            let _ = write!(list, "\n  {crossing}");
        }
        let unlisted = total - crossings.len() as u64;
        if unlisted > 0 {
            let _ = write!(list, "\n  and {unlisted} more");
        }
        panic!("{total} crossings of branches:{list}");
    }
}

impl Book {
    /// The stamp of the call that runs on this thread, if it is one of this audit's.
    fn caller(&self) -> Option<Stamp> {
        let open = self.in_flight.get(&CALLER.get()?)?;
        Some(open.stamp.clone())
    }
}

impl Ledger {
    fn book(&self) -> MutexGuard<'_, Book> {
        lock(&self.book)
    }

    fn open(self: &Arc<Self>, stamp: &Stamp) -> OpenCall {
        let open = Open {
            stamp: stamp.clone(),
            presented: 0,
        };
        self.book().in_flight.insert(stamp.serial, open);
        OpenCall {
            ledger: Arc::clone(self),
            serial: stamp.serial,
        }
    }

    fn crossed(&self, crossing: Crossing) -> Crossed {
        let mut book = self.book();
        book.crossed += 1;
        if book.crossings.len() < KEPT_CROSSINGS {
            book.crossings.push(crossing.clone());
        }
        Crossed { crossing }
    }
}

/// What a branch call is known by, as an extension of its request. The header field [`STAMP`] says the same.
#[derive(Debug, Clone)]
pub struct Stamp {
    branch: Arc<str>,
    serial: u64,
    value: HeaderValue,
}

impl Stamp {
    fn new(branch: &Arc<str>) -> Self {
        // Unique over all audits of the process: one audit never takes another's stamp for its own.
        static SERIAL: AtomicU64 = AtomicU64::new(1);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let fit = |char: char| if char.is_ascii_graphic() { char } else { '_' };
        let name: String = branch.chars().map(fit).collect();
        let value = format!("{name}-{serial}");
        Self {
            branch: Arc::clone(branch),
            serial,
            value: HeaderValue::try_from(value).expect("visible ASCII"),
        }
    }

    /// The branch that the call belongs to.
    #[must_use]
    pub fn branch(&self) -> &str {
        &self.branch
    }

    /// The value of the header field.
    #[must_use]
    pub fn value(&self) -> &HeaderValue {
        &self.value
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&text(&self.value))
    }
}

fn text(value: &HeaderValue) -> String {
    String::from_utf8_lossy(value.as_bytes()).into_owned()
}

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
struct Target {
    branch: Arc<str>,
    method: Method,
    uri: Uri,
}

impl Target {
    fn of<B>(branch: &Arc<str>, request: &Request<B>) -> Self {
        Self {
            branch: Arc::clone(branch),
            method: request.method().clone(),
            uri: request.uri().clone(),
        }
    }

    fn crossing<'a>(
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

thread_local! {
    /// The call whose future is being polled on this thread.
    static CALLER: Cell<Option<u64>> = const { Cell::new(None) };
}

/// While it lives, what runs on this thread runs for one call.
struct Within {
    before: Option<u64>,
}

impl Within {
    fn call(serial: u64) -> Self {
        Self {
            before: CALLER.replace(Some(serial)),
        }
    }
}

impl Drop for Within {
    fn drop(&mut self) {
        CALLER.set(self.before);
    }
}

/// Stamps every request: see [`Isolation::stamp`].
#[derive(Debug, Clone)]
pub struct StampLayer {
    ledger: Arc<Ledger>,
    branch: Arc<str>,
}

impl<S> Layer<S> for StampLayer {
    type Service = Stamped<S>;

    fn layer(&self, inner: S) -> Stamped<S> {
        Stamped {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of [`StampLayer`].
///
/// # Readiness
///
/// It is ready when the inner service is.
///
/// # Errors
///
/// [`Crossed`] if the request was stamped before or the response reflects another stamp, and those of the inner service.
///
/// # Cancellation
///
/// Dropping the future drops the inner one, and its call is no longer in flight.
#[derive(Debug, Clone)]
pub struct Stamped<S> {
    inner: S,
    layer: StampLayer,
}

impl<S> Stamped<S> {
    inner_accessors!();
}

impl<S, B, ResBody> Service<Request<B>> for Stamped<S>
where
    S: Service<Request<B>, Response = Response<ResBody>>,
    S::Error: Into<BoxError>,
{
    type Response = Response<ResBody>;
    type Error = BoxError;
    type Future = StampFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let StampLayer { ledger, branch } = &self.layer;
        ledger.book().calls += 1;
        let target = Target::of(branch, &request);
        let known = request.extensions().get::<Stamp>();
        if known.is_some() || request.headers().contains_key(STAMP) {
            let header = request.headers().get_all(STAMP);
            let caller = ledger.book().caller();
            let crossing =
                target.crossing(CrossingKind::AlreadyStamped, header, known, caller.as_ref());
            return StampFuture {
                state: StampState::Crossed {
                    crossed: Some(ledger.crossed(crossing)),
                },
            };
        }
        let stamp = Stamp::new(branch);
        request.headers_mut().insert(STAMP, stamp.value.clone());
        request.extensions_mut().insert(stamp.clone());
        let open = ledger.open(&stamp);
        let _within = Within::call(stamp.serial);
        StampFuture {
            state: StampState::Open {
                future: self.inner.call(request),
                target,
                stamp,
                open,
            },
        }
    }
}

/// A call's entry among those in flight. Dropping it removes the entry.
#[derive(Debug)]
struct OpenCall {
    ledger: Arc<Ledger>,
    serial: u64,
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.ledger.book().in_flight.remove(&self.serial);
    }
}

pin_project! {
    /// The future of [`Stamped`].
    #[derive(Debug)]
    pub struct StampFuture<F> {
        #[pin]
        state: StampState<F>,
    }
}

pin_project! {
    #[project = StampProj]
    #[derive(Debug)]
    enum StampState<F> {
        Crossed { crossed: Option<Crossed> },
        Open { #[pin] future: F, target: Target, stamp: Stamp, open: OpenCall },
        Over,
    }
}

impl<F, ResBody, E> Future for StampFuture<F>
where
    F: Future<Output = Result<Response<ResBody>, E>>,
    E: Into<BoxError>,
{
    type Output = Result<Response<ResBody>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let output = match state.as_mut().project() {
            StampProj::Crossed { crossed } => {
                Err(crossed.take().expect("polled after it had finished").into())
            }
            StampProj::Open {
                future,
                target,
                stamp,
                open,
            } => {
                let output = {
                    let _within = Within::call(stamp.serial);
                    ready!(future.poll(cx)).map_err(Into::into)
                };
                output.and_then(|response| {
                    let mut reflected = response.headers().get_all(STAMP).iter();
                    if reflected.all(|value| *value == stamp.value) {
                        return Ok(response);
                    }
                    let crossing = target.clone().crossing(
                        CrossingKind::Reflected,
                        response.headers().get_all(STAMP),
                        Some(stamp),
                        Some(stamp),
                    );
                    Err(open.ledger.crossed(crossing).into())
                })
            }
            StampProj::Over => panic!("polled after it had finished"),
        };
        state.set(StampState::Over);
        Poll::Ready(output)
    }
}

/// Whether a checked request goes out with its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stamps {
    Kept,
    Stripped,
}

/// Checks every request's stamp: see [`Isolation::check`].
#[derive(Debug, Clone)]
pub struct CheckLayer {
    ledger: Arc<Ledger>,
    branch: Arc<str>,
    stamps: Stamps,
}

impl CheckLayer {
    /// Takes the stamp off the request once it has been checked. By default it goes out with it, so that what an echo
    /// received can be compared.
    #[must_use]
    pub fn strip(mut self) -> Self {
        self.stamps = Stamps::Stripped;
        self
    }

    /// The request, if it is fit to go out, counts as presented until what this returns is dropped.
    fn inspect<B>(&self, request: &Request<B>) -> Result<Presented, CrossingDetails> {
        let stamp = request.extensions().get::<Stamp>();
        let mut lines = request.headers().get_all(STAMP).iter();
        let first = lines.next();
        let mut book = self.ledger.book();
        book.checked += 1;
        let crossed = |book: &Book, kind| CrossingDetails {
            kind,
            caller: book.caller(),
        };

        let stamp = match (first, stamp) {
            (None, None) => return Err(crossed(&book, CrossingKind::Missing)),
            _ if lines.next().is_some() => return Err(crossed(&book, CrossingKind::Several)),
            (Some(value), Some(stamp)) if *value == stamp.value => stamp,
            _ => return Err(crossed(&book, CrossingKind::Mismatched)),
        };
        let Some(open) = book.in_flight.get_mut(&stamp.serial) else {
            return Err(crossed(&book, CrossingKind::NotInFlight));
        };
        let kind = match CALLER.get() {
            _ if open.stamp.branch != self.branch => Some(CrossingKind::OtherBranch),
            Some(caller) if caller != stamp.serial => Some(CrossingKind::OtherCall),
            None if open.presented > 0 => Some(CrossingKind::Twice),
            _ => None,
        };
        if let Some(kind) = kind {
            return Err(crossed(&book, kind));
        }
        open.presented += 1;
        Ok(Presented {
            ledger: Arc::clone(&self.ledger),
            serial: stamp.serial,
        })
    }
}

struct CrossingDetails {
    kind: CrossingKind,
    caller: Option<Stamp>,
}

impl<S> Layer<S> for CheckLayer {
    type Service = Check<S>;

    fn layer(&self, inner: S) -> Check<S> {
        Check {
            inner,
            layer: self.clone(),
        }
    }
}

/// The service of [`CheckLayer`].
///
/// # Readiness
///
/// It is ready when the inner service is.
///
/// # Errors
///
/// [`Crossed`] if the request is not the call's own: the inner service is not called then. Otherwise those of the inner
/// service.
///
/// # Cancellation
///
/// Dropping the future drops the inner one.
#[derive(Debug, Clone)]
pub struct Check<S> {
    inner: S,
    layer: CheckLayer,
}

impl<S> Check<S> {
    inner_accessors!();
}

impl<S, B> Service<Request<B>> for Check<S>
where
    S: Service<Request<B>>,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = CheckFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let layer = &self.layer;
        let presented = match layer.inspect(&request) {
            Ok(presented) => presented,
            Err(CrossingDetails { kind, caller }) => {
                let crossing = Target::of(&layer.branch, &request).crossing(
                    kind,
                    request.headers().get_all(STAMP),
                    request.extensions().get::<Stamp>(),
                    caller.as_ref(),
                );
                return CheckFuture {
                    state: CheckState::Crossed {
                        crossed: Some(layer.ledger.crossed(crossing)),
                    },
                };
            }
        };
        if layer.stamps == Stamps::Stripped {
            request.headers_mut().remove(STAMP);
            request.extensions_mut().remove::<Stamp>();
        }
        CheckFuture {
            state: CheckState::Presented {
                future: self.inner.call(request),
                presented,
            },
        }
    }
}

/// While it lives, a request with this stamp is on its way.
#[derive(Debug)]
struct Presented {
    ledger: Arc<Ledger>,
    serial: u64,
}

impl Drop for Presented {
    fn drop(&mut self) {
        if let Some(open) = self.ledger.book().in_flight.get_mut(&self.serial) {
            open.presented -= 1;
        }
    }
}

pin_project! {
    /// The future of [`Check`].
    #[derive(Debug)]
    pub struct CheckFuture<F> {
        #[pin]
        state: CheckState<F>,
    }
}

pin_project! {
    #[project = CheckProj]
    #[derive(Debug)]
    enum CheckState<F> {
        Crossed { crossed: Option<Crossed> },
        Presented { #[pin] future: F, presented: Presented },
        Over,
    }
}

impl<F, T, E> Future for CheckFuture<F>
where
    F: Future<Output = Result<T, E>>,
    E: Into<BoxError>,
{
    type Output = Result<T, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        let output = match state.as_mut().project() {
            CheckProj::Crossed { crossed } => {
                Err(crossed.take().expect("polled after it had finished").into())
            }
            CheckProj::Presented { future, .. } => ready!(future.poll(cx)).map_err(Into::into),
            CheckProj::Over => panic!("polled after it had finished"),
        };
        state.set(CheckState::Over);
        Poll::Ready(output)
    }
}
