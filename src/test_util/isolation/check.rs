//! The innermost layer of a branch, next to its client.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Request;
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::core::{Book, CALLER, Ledger, Presented};
use super::crossing::{Crossed, CrossingKind, Target};
use super::stamp::{STAMP, Stamp};
use crate::error::BoxError;

/// Whether a checked request goes out with its stamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stamps {
    Kept,
    Stripped,
}

/// Checks every request's stamp: see [`Isolation::check`](super::Isolation::check).
#[derive(Debug, Clone)]
pub struct CheckLayer {
    pub(super) ledger: Arc<Ledger>,
    pub(super) branch: Arc<str>,
    pub(super) stamps: Stamps,
}

impl CheckLayer {
    /// Removes the stamp from the request once it has been checked. By default it is sent, so that what an echo received
    /// can be compared.
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
