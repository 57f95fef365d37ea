//! The core of a tee: one source, any number of readers, and the frames between them.
//!
//! This is what the tasks that read a body share. It has no runtime in it, and `tests/model.rs` checks it under every
//! interleaving that the model checker can find.
//!
//! Whoever needs a frame that is not there yet polls the source, so no task is spawned and no reader depends on another's
//! going on. The source is taken out of the lock while it is polled: foreign code never runs under it.
//!
//! With a window, frames that every reader has read are let go, and the source is polled only while less than the window
//! is kept. A reader that needs more then waits for the slowest; how long, its caller decides, who has a clock: it calls
//! [`Reader::evict`], and whoever has held the window since that reader began to wait is out.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::error::{contain, discard};
use crate::sync::{Mutex, lock};

mod signal;
mod state;

pub(crate) use signal::Signal;
use state::{Chunk, Place, Source, State};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Why the source gave no more.
#[derive(Debug, Clone)]
pub(crate) enum Failure {
    /// It holds more than `limit` bytes.
    TooLarge { limit: u64 },
    /// It ended with an error.
    Source(Arc<BoxError>),
    /// It panicked.
    Panicked,
    /// The source is well, but this reader held the window for too long.
    Lagged,
}

/// How much is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Everything, up to so many bytes.
    All { limit: u64 },
    /// What the slowest reader has not read, of which there is no more when it reaches so many bytes.
    Window { bytes: u64 },
}

/// What the readers share.
#[derive(Debug)]
pub(crate) struct Core<B> {
    state: Mutex<State<B>>,
    signal: Arc<Signal>,
    keep: Keep,
    /// Set once, if the source has ended with one chunk at the most: then readers need nothing else.
    short: OnceLock<Option<Bytes>>,
}

/// That a reader waits for the window: how often that had moved by then, and how many reads there had been.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocked {
    pub(crate) moves: u64,
    pub(crate) reads: u64,
}

/// A reader.
#[derive(Debug)]
pub(crate) struct Reader<B> {
    core: Arc<Core<B>>,
    id: u64,
    /// The bytes that it has read.
    read: u64,
    /// Whether it has had the trailers, the error or the end.
    finished: bool,
    /// Whether that was an error. A clone has it still before it.
    failed: bool,
    /// Set when it was last pending because the window is full.
    blocked: Option<Blocked>,
}

/// What is left for a reader of a body that has ended and has no trailers.
#[derive(Debug)]
pub(crate) enum Rest {
    Empty,
    One(Bytes),
}

impl<B> Reader<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    const FRAMES_A_POLL: usize = 64;

    /// The first reader of `source`.
    pub(crate) fn new(source: B, keep: Keep) -> Self {
        let core = Core {
            state: Mutex::new(State {
                hint: source.size_hint(),
                source: Source::Idle(source),
                chunks: VecDeque::new(),
                kept: 0,
                pulled: 0,
                places: match keep {
                    Keep::All { .. } => Vec::new(),
                    Keep::Window { .. } => vec![Place {
                        reader: 0,
                        read: 0,
                        last: 0,
                    }],
                },
                moves: 0,
                reads: 0,
                next_reader: 0,
            }),
            signal: Arc::new(Signal::new()),
            keep,
            short: OnceLock::new(),
        };
        Self {
            core: Arc::new(core),
            id: 0,
            read: 0,
            finished: false,
            failed: false,
            blocked: None,
        }
    }

    pub(crate) fn signal(&self) -> &Arc<Signal> {
        &self.core.signal
    }

    pub(crate) fn keep(&self) -> Keep {
        self.core.keep
    }

    /// The rest of the body if that is known to be so short that a reader needs nothing shared. Takes no lock.
    pub(crate) fn rest(&self) -> Option<Rest> {
        let short = self.core.short.get()?;
        let read = usize::try_from(self.read).unwrap_or(usize::MAX);
        Some(match short {
            Some(chunk) if read < chunk.len() && !self.finished => Rest::One(chunk.slice(read..)),
            _ => Rest::Empty,
        })
    }

    pub(crate) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Polled<Failure> {
        self.blocked = None;
        if self.finished {
            return Poll::Ready(None);
        }
        if let Some(kept) = self.take_kept() {
            return Poll::Ready(Some(kept));
        }
        // A source that always has a frame, be it an empty one, must not keep the thread.
        for _ in 0..Self::FRAMES_A_POLL {
            // Before anything is looked at again, so that no wake-up falls in between; and outside the lock.
            self.core.signal.register(self.id, cx.waker());
            let wakes = self.core.signal.wakes();
            let mut source = match self.take_source() {
                Ok(source) => source,
                Err(instead) => return instead,
            };
            let waker = Waker::from(Arc::clone(&self.core.signal));
            let polled = contain(|| {
                let frame = Pin::new(&mut source).poll_frame(&mut Context::from_waker(&waker));
                let (hint, ended) = (source.size_hint(), source.is_end_stream());
                Answer { frame, hint, ended }
            });
            if self.put_back(source, polled, wakes) == Progress::None {
                return Poll::Pending;
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// ## Idle => Out
    ///
    /// The source, for this reader to drive; or what there is instead. Under one lock, or a last frame that came in between
    /// would be passed over.
    fn take_source(&mut self) -> Result<B, Polled<Failure>> {
        let core = Arc::clone(&self.core);
        let mut state = lock(&core.state);
        if let Some(kept) = self.read_kept(&mut state) {
            drop(state);
            return Err(Poll::Ready(Some(self.hand_out(kept))));
        }
        let full = match self.core.keep {
            Keep::All { .. } => false,
            // With nothing more to come but the end or trailers, there is nothing to hold back.
            Keep::Window { bytes } => state.kept >= bytes && state.hint.upper() != Some(0),
        };
        match std::mem::replace(&mut state.source, Source::Out) {
            Source::Idle(source) if full => {
                state.source = Source::Idle(source);
                self.blocked = Some(Blocked {
                    moves: state.moves,
                    reads: state.reads,
                });
                Err(Poll::Pending)
            }
            Source::Idle(source) => Ok(source),
            Source::Out => Err(Poll::Pending),
            Source::Ended { trailers } => {
                self.finished = true;
                let frame = trailers
                    .clone()
                    .map(|trailers| Ok(Frame::trailers(trailers)));
                state.source = Source::Ended { trailers };
                Err(Poll::Ready(frame))
            }
            Source::Failed(failure) => {
                (self.finished, self.failed) = (true, true);
                state.source = Source::Failed(failure.clone());
                Err(Poll::Ready(Some(Err(failure))))
            }
        }
    }

    /// The next frame, if it is kept.
    fn take_kept(&mut self) -> Option<Result<Frame<Bytes>, Failure>> {
        let core = Arc::clone(&self.core);
        let kept = self.read_kept(&mut lock(&core.state))?;
        Some(self.hand_out(kept))
    }

    /// Whoever waits for the window is told if reading the chunk has moved that.
    fn hand_out(&self, kept: Result<Kept, Failure>) -> Result<Frame<Bytes>, Failure> {
        let Kept { chunk, released } = kept?;
        if released.is_some() {
            self.core.signal.wake_readers(Some(self.id));
            discard(released);
        }
        Ok(Frame::data(chunk))
    }

    /// The next chunk, if it is kept, and what was let go of by reading it; or that this reader is out.
    fn read_kept(&mut self, state: &mut State<B>) -> Option<Result<Kept, Failure>> {
        let windowed = matches!(self.core.keep, Keep::Window { .. });
        if windowed && !state.places.iter().any(|place| place.reader == self.id) {
            (self.finished, self.failed) = (true, true);
            return Some(Err(Failure::Lagged));
        }
        let place = state
            .chunks
            .partition_point(|chunk| chunk.end() <= self.read);
        let chunk = state.chunks.get(place)?;
        let chunk = chunk.bytes.slice((self.read - chunk.start) as usize..);
        self.read += chunk.len() as u64;
        let released = if windowed {
            state.stand(self.id, self.read)
        } else {
            None
        };
        Some(Ok(Kept { chunk, released }))
    }

    /// Whether it was last pending because the window is full.
    pub(crate) fn blocked(&self) -> Option<Blocked> {
        self.blocked
    }

    /// This reader has waited long enough, since `blocked`. If the window has not moved since then, whoever is behind and
    /// has not read since then is out, however many they are: their next read is [`Failure::Lagged`], and their share is
    /// let go.
    pub(crate) fn evict(&mut self, blocked: Blocked) {
        let released = {
            let mut state = lock(&self.core.state);
            if state.moves != blocked.moves {
                return;
            }
            let head = state.pulled;
            state
                .places
                .retain(|place| place.read >= head || place.last > blocked.reads);
            state.release()
        };
        self.core.signal.wake_readers(Some(self.id));
        discard(released);
    }

    /// ## Out => (Idle | Ended | Failed)
    ///
    /// The source goes back, or is dropped if it has nothing more to give, and whoever waits is told of what came. A
    /// wake-up that came during the poll may have missed a reader that registered after it, and the reader that it did
    /// find may never poll again: so it is passed on to all.
    fn put_back(&self, source: B, polled: Option<Answer<B::Error>>, wakes: u64) -> Progress {
        let core = &*self.core;
        let polled = polled.map(|answer| Answer {
            frame: answer
                .frame
                .map_err(|error| Failure::Source(Arc::new(error.into()))),
            hint: answer.hint,
            ended: answer.ended,
        });
        let mut source = Some(source);
        let mut dropped = VecDeque::new();
        let mut unwanted = Vec::new();
        let mut progress = Progress::Some;
        {
            let mut state = lock(&core.state);
            let failure = match polled {
                Some(polled) => {
                    state.hint = polled.hint;
                    match polled.frame {
                        Poll::Pending => {
                            progress = Progress::None;
                            None
                        }
                        Poll::Ready(Some(Ok(frame))) => {
                            state.keep(frame, polled.ended, core, &mut unwanted).err()
                        }
                        Poll::Ready(None) => {
                            state.end(core);
                            None
                        }
                        Poll::Ready(Some(Err(failure))) => Some(failure),
                    }
                }
                None => Some(Failure::Panicked),
            };
            if let Some(failure) = failure {
                core.signal.fail(failure.clone());
                // Nobody gets any further: what was kept is of no use.
                dropped = std::mem::take(&mut state.chunks);
                state.kept = 0;
                state.source = Source::Failed(failure);
            }
            if let Source::Out = state.source {
                state.source = Source::Idle(source.take().expect("put back once"));
            }
        }
        if progress == Progress::Some || core.signal.wakes() != wakes {
            core.signal.wake_readers(Some(self.id));
        }
        // Last, and guarded: what is dropped is not ours, and the others have been told by now.
        discard((source, dropped, unwanted));
        progress
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        if self.finished {
            return true;
        }
        let state = lock(&self.core.state);
        self.read >= state.pulled && matches!(state.source, Source::Ended { trailers: None })
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let state = lock(&self.core.state);
        let kept = state.pulled.saturating_sub(self.read);
        match state.source {
            _ if self.finished => SizeHint::with_exact(0),
            Source::Ended { trailers: None } => SizeHint::with_exact(kept),
            Source::Failed(_) => SizeHint::default(),
            // With trailers to come, an exact length that the source did not announce would have a client frame the body by
            // it, and lose them.
            Source::Idle(_) | Source::Out | Source::Ended { .. } => {
                let mut hint = SizeHint::new();
                hint.set_lower(kept.saturating_add(state.hint.lower()));
                if let Some(upper) = state.hint.upper() {
                    hint.set_upper(kept.saturating_add(upper));
                }
                hint
            }
        }
    }
}

/// A chunk for a reader, and what nobody needs any more now that this reader has it.
struct Kept {
    chunk: Bytes,
    released: Option<VecDeque<Chunk>>,
}

type Polled<E> = Poll<Option<Result<Frame<Bytes>, E>>>;

/// What the source said when it was polled.
struct Answer<E> {
    frame: Polled<E>,
    hint: SizeHint,
    /// Whether that was its last frame.
    ended: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Progress {
    /// The source has nothing for now and will wake the readers.
    None,
    /// There is something new for every reader.
    Some,
}

impl<B> Clone for Reader<B> {
    /// A reader that starts where this one stands; and is out, if this one is.
    fn clone(&self) -> Self {
        let id = {
            let mut state = lock(&self.core.state);
            state.next_reader += 1;
            let id = state.next_reader;
            if state.places.iter().any(|place| place.reader == self.id) {
                let state = &mut *state;
                state.places.push(Place {
                    reader: id,
                    read: self.read,
                    last: state.reads,
                });
            }
            id
        };
        Self {
            core: Arc::clone(&self.core),
            id,
            read: self.read,
            // Not the end of a reader that failed: a clone of it would look as if the body had ended well.
            finished: self.finished && !self.failed,
            failed: false,
            blocked: None,
        }
    }
}

impl<B> Drop for Reader<B> {
    /// Its share of the window is let go. Otherwise nobody has to be told: a wake-up of the source reaches every reader
    /// that waits.
    fn drop(&mut self) {
        self.core.signal.forget(self.id);
        if let Keep::Window { .. } = self.core.keep {
            let released = {
                let mut state = lock(&self.core.state);
                state.places.retain(|place| place.reader != self.id);
                state.release()
            };
            if released.is_some() {
                self.core.signal.wake_readers(None);
                discard(released);
            }
        }
    }
}
