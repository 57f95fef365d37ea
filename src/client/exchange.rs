//! What the two bodies of an exchange know of each other.
//!
//! hyper polls them in different tasks. This has no runtime in it, and `tests/model.rs` checks it under every interleaving
//! that the model checker can find.

use std::error::Error;
use std::task::Waker;

use crate::sync::{Mutex, lock};

/// Shared by the body of a request and whoever waits for the response. `At` is a point in time.
pub(crate) struct Exchange<At> {
    state: Mutex<State<At>>,
}

struct State<At> {
    /// What the request's body failed with.
    error: Option<Box<dyn Error + Send + Sync>>,
    /// Since when nothing more of the response comes, or is wanted.
    over: Option<At>,
    /// The task that sends the request's body.
    sender: Option<Waker>,
    /// How many hold something that is still to be sent: the request's body itself, and each of its pieces.
    unsent: usize,
}

impl<At: Copy> Exchange<At> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                error: None,
                over: None,
                sender: None,
                unsent: 1,
            }),
        }
    }

    /// The request's body has failed.
    pub(crate) fn fail(&self, error: Box<dyn Error + Send + Sync>) {
        let replaced = lock(&self.state).error.replace(error);
        drop(replaced);
    }

    /// What the request's body has failed with.
    pub(crate) fn take_error(&self) -> Option<Box<dyn Error + Send + Sync>> {
        lock(&self.state).error.take()
    }

    /// The response is over, from the first time on that this is said.
    pub(crate) fn finish(&self, at: At) {
        let sender = {
            let mut state = lock(&self.state);
            state.over.get_or_insert(at);
            state.sender.take()
        };
        if let Some(sender) = sender {
            sender.wake();
        }
    }

    /// Since when the response is over, if it is.
    pub(crate) fn over(&self) -> Option<At> {
        lock(&self.state).over
    }

    /// The same; if it is not, the task of `waker` is woken when it is.
    pub(crate) fn over_or_wake(&self, waker: &Waker) -> Option<At> {
        {
            let state = lock(&self.state);
            let known = state.sender.as_ref();
            if state.over.is_some() || known.is_some_and(|known| known.will_wake(waker)) {
                return state.over;
            }
        }
        // A waker's clone and drop are code of somebody else's, which the lock must not be held for.
        let mut waker = Some(waker.clone());
        let over = {
            let mut state = lock(&self.state);
            if state.over.is_none() && state.unsent > 0 {
                std::mem::swap(&mut state.sender, &mut waker);
            }
            state.over
        };
        drop(waker);
        over
    }

    /// One more holds something that is still to be sent. Whoever says so holds something as well.
    pub(crate) fn hold(&self) {
        lock(&self.state).unsent += 1;
    }

    /// One of them has nothing left to send. After the last one, nobody is to be woken.
    pub(crate) fn sent(&self) {
        let sender = {
            let mut state = lock(&self.state);
            state.unsent -= 1;
            match state.unsent {
                0 => state.sender.take(),
                _ => None,
            }
        };
        drop(sender);
    }

    /// Whether nothing is left to send.
    pub(crate) fn is_sent(&self) -> bool {
        lock(&self.state).unsent == 0
    }
}
