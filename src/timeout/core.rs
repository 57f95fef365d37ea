//! One call's header fields, and how the call ended: one locked transition.
//!
//! This is what the tasks of a call share. It has no runtime in it, and `tests/model.rs` checks it under every interleaving
//! that the model checker can find.

use std::fmt;
use std::task::{Context, Poll};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::error::discard;
use crate::sync::{Mutex, lock};
use crate::waiters::Waiters;

/// How a call ended, for those who write its header fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Sealed {
    /// The inner service has answered in time: what was staged is on the response that the timeout layer returned.
    Committed,
    /// The inner service has failed: its error was passed on, and there is no response.
    Failed,
    /// The time ran out: only what was pinned is on the timeout answer.
    Deadline,
    /// The caller has dropped the call; or a detached one was aborted by its background, and its caller is answered 503:
    /// only what was pinned is on that, and this value is in its extensions.
    Cancelled,
    /// The inner service has panicked.
    Panicked,
}

impl fmt::Display for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Committed => "the response has been committed",
            Self::Failed => "the call has failed",
            Self::Deadline => "the time for the call ran out",
            Self::Cancelled => "the call was cancelled",
            Self::Panicked => "the call panicked",
        })
    }
}

/// Why a header field was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The call has ended; the value says how.
    #[error("{0}")]
    Sealed(Sealed),
    /// The field concerns one connection (RFC 9110 §7.6.1) or the framing of the message, which is the server's to say.
    #[error("a field of the connection or of the framing can't be set")]
    Forbidden,
    /// There would be more than [64 fields or 16 KiB](super::ResponseHeaders#bounds).
    #[error("too many header fields are staged")]
    Full,
}

/// A write that was accepted, or is about to be.
#[derive(Debug)]
pub(crate) struct Write {
    pub(crate) name: HeaderName,
    pub(crate) change: Change,
}

#[derive(Debug)]
pub(crate) enum Change {
    /// Instead of all values of that name.
    Insert(HeaderValue),
    /// Besides them.
    Append(HeaderValue),
    Remove,
}

impl Write {
    fn size(&self) -> usize {
        let value = match &self.change {
            Change::Insert(value) | Change::Append(value) => value.len(),
            Change::Remove => 0,
        };
        self.name.as_str().len() + value
    }

    /// Whether what came before under this name has no effect any more.
    fn replaces(&self, earlier: &Self) -> bool {
        !matches!(self.change, Change::Append(_)) && earlier.name == self.name
    }
}

/// Writes in the order in which they were accepted, without those that a later one has undone: so a field that is written
/// over and over takes the room of one.
type Writes = Vec<Write>;

/// Puts accepted writes on a response.
pub(crate) fn apply(writes: Writes, headers: &mut HeaderMap) {
    for Write { name, change } in writes {
        // `http` has a limit of 32 768 fields, which only the inner service's own can have reached.
        match change {
            Change::Insert(value) => drop(headers.try_insert(name, value)),
            Change::Append(value) => drop(headers.try_append(name, value)),
            Change::Remove => drop(headers.remove(name)),
        }
    }
}

/// Drops writes that are on no answer. A value that panics as it goes must not take one along.
#[cold]
pub(crate) fn discard_each(writes: Writes) {
    writes.into_iter().for_each(discard);
}

#[derive(Debug)]
pub(crate) struct Core {
    state: Mutex<State>,
}

#[derive(Debug)]
enum State {
    Open(Open),
    Sealed(Sealed),
}

#[derive(Debug, Default)]
struct Open {
    staged: Writes,
    /// What is on an answer of the layer's own, too.
    pinned: Writes,
    waiters: Waiters,
}

impl Core {
    /// The most fields that are staged and pinned, removals included.
    pub(crate) const MAX_FIELDS: usize = 64;
    /// The most bytes of their names and values.
    pub(crate) const MAX_BYTES: usize = 16 * 1024;

    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State::Open(Open::default())),
        }
    }

    /// Stages a write. With a `pin`, that is on an answer of the layer's own as well.
    pub(crate) fn write(&self, write: Write, pin: Option<Write>) -> Result<(), WriteError> {
        let mut pin = pin;
        // What is refused or replaced is dropped outside the lock: the bytes of a value may have an owner with a `Drop`.
        let mut displaced = Writes::new();
        let mut state = lock(&self.state);
        let written = match &mut *state {
            State::Open(open) => open.accept(write, &mut pin, &mut displaced),
            State::Sealed(sealed) => {
                displaced.push(write);
                Err(WriteError::Sealed(*sealed))
            }
        };
        drop(state);
        drop((displaced, pin));
        written
    }

    /// ## Open => Sealed
    ///
    /// Who gets here first has decided how the call ends, and is given what belongs on the answer. Everybody after it gets
    /// nothing: nothing commits after a seal.
    pub(crate) fn seal(&self, how: Sealed) -> Option<Writes> {
        let mut state = lock(&self.state);
        if matches!(*state, State::Sealed(_)) {
            return None;
        }
        let open = std::mem::replace(&mut *state, State::Sealed(how));
        drop(state);
        let State::Open(open) = open else {
            unreachable!("seen above");
        };
        open.waiters.wake();
        let (answer, rest) = match how {
            Sealed::Committed => (open.staged, open.pinned),
            Sealed::Deadline | Sealed::Cancelled => (open.pinned, open.staged),
            Sealed::Failed | Sealed::Panicked => (
                Writes::new(),
                [open.staged, open.pinned].into_iter().flatten().collect(),
            ),
        };
        discard_each(rest);
        Some(answer)
    }

    /// How the call ended, if it has.
    pub(crate) fn state(&self) -> Option<Sealed> {
        match &*lock(&self.state) {
            State::Open(_) => None,
            State::Sealed(sealed) => Some(*sealed),
        }
    }

    /// Waits for the seal. `key` is the waiter's, `None` at first.
    pub(crate) fn poll_sealed(&self, key: &mut Option<u64>, cx: &mut Context<'_>) -> Poll<Sealed> {
        // Cloned before the lock and dropped after it.
        let waker = cx.waker().clone();
        let mut state = lock(&self.state);
        let (polled, displaced) = match &mut *state {
            State::Open(open) => (Poll::Pending, open.waiters.register(key, waker)),
            State::Sealed(sealed) => (Poll::Ready(*sealed), Some(waker)),
        };
        drop(state);
        drop(displaced);
        polled
    }

    /// A waiter goes.
    pub(crate) fn forget(&self, key: u64) {
        let mut state = lock(&self.state);
        let forgotten = match &mut *state {
            State::Open(open) => open.waiters.forget(key),
            State::Sealed(_) => None,
        };
        drop(state);
        drop(forgotten);
    }
}

impl Open {
    /// Takes all of it, or nothing. What is left over goes to `displaced`, or stays in `pin`.
    fn accept(
        &mut self,
        write: Write,
        pin: &mut Option<Write>,
        displaced: &mut Writes,
    ) -> Result<(), WriteError> {
        let withdraws = matches!(write.change, Change::Remove);
        let replaces_pin = |earlier: &Write| match &*pin {
            Some(pin) => pin.replaces(earlier),
            // A field that is removed is meant to be on no answer.
            None => withdraws && write.replaces(earlier),
        };
        let kept = self
            .staged
            .iter()
            .filter(|earlier| !write.replaces(earlier));
        let kept = kept.chain(self.pinned.iter().filter(|earlier| !replaces_pin(earlier)));
        let (fields, bytes) = kept
            .chain([&write])
            .chain(pin.as_ref())
            .fold((0, 0), |(fields, bytes), write| {
                (fields + 1, bytes + write.size())
            });
        if fields > Core::MAX_FIELDS || bytes > Core::MAX_BYTES {
            displaced.push(write);
            return Err(WriteError::Full);
        }
        take_out(&mut self.pinned, replaces_pin, displaced);
        take_out(
            &mut self.staged,
            |earlier| write.replaces(earlier),
            displaced,
        );
        self.staged.push(write);
        self.pinned.extend(pin.take());
        Ok(())
    }
}

/// Moves what is not wanted any more to `out`, and keeps the order of the rest.
fn take_out(writes: &mut Writes, unwanted: impl Fn(&Write) -> bool, out: &mut Writes) {
    let mut at = 0;
    while at < writes.len() {
        if unwanted(&writes[at]) {
            out.push(writes.remove(at));
        } else {
            at += 1;
        }
    }
}
