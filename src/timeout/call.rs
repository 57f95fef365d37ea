//! One call of a clone of the inner service, held to a clock: what both flavours and a detached call have in common.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use tower::Service;

use super::clock::Clock;
use crate::deadline::{InlineTimer, Phase, TimedOut, Turns};

/// How the call is made, once the service is ready for it.
pub(super) trait Launch<S: Service<Req>, Req> {
    type Output;
    type Work: Future<Output = Result<Self::Output, S::Error>>;

    /// Whether the work runs in a task of its own, and so not while it is polled.
    const ELSEWHERE: bool = false;

    /// `clock` may begin anew here. What is left in `start` is dropped.
    fn launch(&mut self, start: &mut ToCall<S, Req>, clock: &mut Clock) -> Self::Work;
}

/// A fresh clone that nobody has polled (DESIGN rule 2), and its request. They are large, and stay where they are until
/// they are called.
pub(super) struct ToCall<S, Req> {
    service: Option<S>,
    request: Option<Req>,
}

impl<S, Req> ToCall<S, Req> {
    pub(super) fn request_mut(&mut self) -> &mut Req {
        self.request.as_mut().expect("until it is called")
    }

    pub(super) fn call(&mut self) -> S::Future
    where
        S: Service<Req>,
    {
        let service = self.service.as_mut().expect("until it is taken");
        service.call(self.request.take().expect("until it is called"))
    }

    /// The two of them, to be called elsewhere.
    pub(super) fn take(&mut self) -> Option<(S, Req)> {
        Some((self.service.take()?, self.request.take()?))
    }
}

pin_project! {
    pub(super) struct Call<S, Req, L, W> {
        #[pin]
        state: State<S, Req, W>,
        launch: L,
        clock: Clock,
        #[pin]
        timer: InlineTimer,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, Req, W> {
        Ready { to_call: ToCall<S, Req> },
        Called { #[pin] work: W },
        Done,
    }
}

impl<S, Req, L> Call<S, Req, L, L::Work>
where
    S: Service<Req>,
    L: Launch<S, Req>,
{
    pub(super) fn new(service: S, request: Req, launch: L, clock: Clock) -> Self {
        Self {
            state: State::Ready {
                to_call: ToCall {
                    service: Some(service),
                    request: Some(request),
                },
            },
            launch,
            clock,
            timer: InlineTimer::new(if L::ELSEWHERE {
                Turns::letting_others_run()
            } else {
                Turns::default()
            }),
        }
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    /// Drops what is left of the call.
    ///
    /// ## (Ready | Called) => Done
    pub(super) fn finish(self: Pin<&mut Self>) {
        self.project().state.set(State::Done);
    }

    /// How a call ends that is late.
    pub(super) fn timed_out(&self) -> TimedOut {
        self.clock.timed_out(match self.state {
            State::Ready { .. } => Phase::Readiness,
            State::Called { .. } | State::Done => Phase::Head,
        })
    }

    /// The call stays as it is when this is ready: [`finish`](Self::finish) it, in time for who must not see it running.
    /// While it is pending, [`poll_deadline`](Self::poll_deadline).
    #[inline]
    pub(super) fn poll(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<L::Output, S::Error>> {
        let mut this = self.project();
        if let StateProj::Ready { to_call } = this.state.as_mut().project() {
            // ## Ready => Called
            //
            // Waiting for readiness is part of the call's time. A call that comes too late is not made.
            let service = to_call.service.as_mut().expect("until it is called");
            ready!(service.poll_ready(cx))?;
            if this.clock.armed().has_passed() {
                return Poll::Pending;
            }
            let work = this.launch.launch(to_call, this.clock);
            this.state.set(State::Called { work });
        }
        match this.state.project() {
            StateProj::Called { work } => work.poll(cx),
            StateProj::Ready { .. } => unreachable!("called above"),
            StateProj::Done => panic!("polled after it had finished"),
        }
    }

    /// Ready once the time has run out. At a tie, finished work wins (DESIGN rule 6): this is looked at only if the call has
    /// nothing; and as the deadline may have come between the two looks, the call is then polled once more before it is
    /// late. So whoever waits for the same instant inside, as a merge does that answers with what it has by then, is always
    /// asked once more.
    #[inline]
    pub(super) fn poll_deadline(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        this.timer.poll(this.clock.armed(), cx)
    }
}
