//! One branch of one call: ready, then called, in its own future.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use tower::Service;

use crate::deadline::{Deadline, Timer};
use crate::outcome::BranchError;

pin_project! {
    /// The future of one branch. It is what a [`Gather`](crate::outcome::Gather) of a [`FanOut`](super::FanOut) runs.
    pub struct BranchFuture<S, Req>
    where
        S: Service<Req>,
    {
        #[pin]
        state: State<S, Req, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, F> {
        Ready { service: S, request: Option<Req>, limit: Duration, timer: Option<Timer> },
        Called { #[pin] future: F },
    }
}

impl<S, Req> BranchFuture<S, Req>
where
    S: Service<Req>,
{
    /// `service` is a fresh clone, never polled: its readiness is nobody else's.
    pub(super) fn new(service: S, request: Req, ready_within: Duration) -> Self {
        Self {
            state: State::Ready {
                service,
                request: Some(request),
                limit: ready_within,
                timer: None,
            },
        }
    }
}

impl<S, Req> Future for BranchFuture<S, Req>
where
    S: Service<Req>,
{
    type Output = Result<S::Response, BranchError<S::Error>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                // ## Ready => (Called | NotReady)
                //
                // The service gets as long as `ready_within` to take one more request. Its own timer, because a timeout
                // layer inside it starts counting with the call. It is armed only if the service is not ready at once.
                StateProj::Ready {
                    service,
                    request,
                    limit,
                    timer,
                } => match service.poll_ready(cx) {
                    Poll::Ready(Ok(())) => {
                        let request = request.take().expect("polled after it had finished");
                        State::Called {
                            future: service.call(request),
                        }
                    }
                    Poll::Ready(Err(error)) => {
                        return Poll::Ready(Err(BranchError::Service(error)));
                    }
                    Poll::Pending => {
                        let timer =
                            timer.get_or_insert_with(|| Timer::new(Deadline::after(*limit)));
                        ready!(timer.poll(cx));
                        return Poll::Ready(Err(BranchError::NotReady { within: *limit }));
                    }
                },
                StateProj::Called { future } => {
                    return future.poll(cx).map_err(BranchError::Service);
                }
            };
            // The clone of the service goes here: what it reserved, the call holds.
            state.set(next);
        }
    }
}

impl<S, Req> fmt::Debug for BranchFuture<S, Req>
where
    S: Service<Req>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BranchFuture").finish_non_exhaustive()
    }
}
