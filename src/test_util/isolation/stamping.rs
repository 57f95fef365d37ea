//! The outermost layer of a branch.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::core::{Ledger, OpenCall, Within};
use super::crossing::{Crossed, CrossingKind, Target};
use super::stamp::{STAMP, Stamp};
use crate::error::BoxError;

/// Stamps every request: see [`Isolation::stamp`](super::Isolation::stamp).
#[derive(Debug, Clone)]
pub struct StampLayer {
    pub(super) ledger: Arc<Ledger>,
    pub(super) branch: Arc<str>,
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
