//! The core of a tee: one source, any number of readers, every frame kept.
//!
//! This is what the tasks that read a body share. It has no runtime in it, and `tests/model.rs` checks it under every
//! interleaving that the model checker can find.
//!
//! Whoever needs a frame that is not there yet polls the source, so no task is spawned and no reader depends on another's
//! going on. The source is taken out of the lock while it is polled: foreign code never runs under it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use crate::sync::{Mutex, lock};

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
}

/// The readers that wait, and the failure once there is one. The source holds this as its waker: it must not own the
/// source, or the two would keep each other alive.
#[derive(Debug)]
pub(crate) struct Signal {
    inner: Mutex<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    readers: Vec<(u64, Waker)>,
    /// Counts wake-ups, to see one that came while the source was being polled.
    wakes: u64,
    failure: Option<Failure>,
}

impl Signal {
    /// Wakers are cloned and dropped outside the lock: both run code that is not ours.
    fn register(&self, reader: u64, waker: &Waker) {
        let known = |readers: &[(u64, Waker)]| readers.iter().position(|(id, _)| *id == reader);
        {
            let waiting = lock(&self.inner);
            let registered = known(&waiting.readers).map(|place| &waiting.readers[place].1);
            if registered.is_some_and(|registered| registered.will_wake(waker)) {
                return;
            }
        }
        let waker = waker.clone();
        let mut waiting = lock(&self.inner);
        let replaced = match known(&waiting.readers) {
            Some(place) => Some(std::mem::replace(&mut waiting.readers[place].1, waker)),
            None => {
                waiting.readers.push((reader, waker));
                None
            }
        };
        drop(waiting);
        drop(replaced);
    }

    fn forget(&self, reader: u64) {
        let mut waiting = lock(&self.inner);
        let place = waiting.readers.iter().position(|(id, _)| *id == reader);
        let forgotten = place.map(|place| waiting.readers.swap_remove(place));
        drop(waiting);
        drop(forgotten);
    }

    fn wakes(&self) -> u64 {
        lock(&self.inner).wakes
    }

    fn wake_all(&self) {
        let readers = {
            let mut waiting = lock(&self.inner);
            waiting.wakes += 1;
            std::mem::take(&mut waiting.readers)
        };
        for (_, waker) in readers {
            waker.wake();
        }
    }

    /// Why the source failed, if it has: whoever read it, and whether or not they said so.
    pub(crate) fn failure(&self) -> Option<Failure> {
        lock(&self.inner).failure.clone()
    }
}

impl Wake for Signal {
    fn wake(self: Arc<Self>) {
        self.wake_all();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.wake_all();
    }
}

/// What the readers share.
#[derive(Debug)]
pub(crate) struct Core<B> {
    state: Mutex<State<B>>,
    signal: Arc<Signal>,
    limit: u64,
}

#[derive(Debug)]
struct State<B> {
    source: Source<B>,
    chunks: Vec<Bytes>,
    /// The bytes in `chunks`.
    kept: u64,
    /// What the source expects still to come, as it last said.
    hint: SizeHint,
    next_reader: u64,
}

#[derive(Debug)]
enum Source<B> {
    /// Nobody polls it.
    Idle(B),
    /// A reader has it and polls it.
    Out,
    /// It has ended well.
    Ended { trailers: Option<HeaderMap> },
    /// It has not.
    Failed(Failure),
}

/// A reader's place in the stream.
#[derive(Debug)]
pub(crate) struct Reader<B> {
    core: Arc<Core<B>>,
    id: u64,
    /// The chunk that it reads next.
    next: usize,
    /// The bytes that it has read.
    read: u64,
    /// Whether it has had the trailers, the error or the end.
    finished: bool,
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
    /// The first reader of `source`, of which at most `limit` bytes are kept.
    pub(crate) fn new(source: B, limit: u64) -> Self {
        let core = Core {
            state: Mutex::new(State {
                hint: source.size_hint(),
                source: Source::Idle(source),
                chunks: Vec::new(),
                kept: 0,
                next_reader: 1,
            }),
            signal: Arc::new(Signal {
                inner: Mutex::new(Waiting {
                    readers: Vec::new(),
                    wakes: 0,
                    failure: None,
                }),
            }),
            limit,
        };
        Self {
            core: Arc::new(core),
            id: 0,
            next: 0,
            read: 0,
            finished: false,
        }
    }

    pub(crate) fn signal(&self) -> &Arc<Signal> {
        &self.core.signal
    }

    /// The rest of the body if it is known to be so short that a reader needs nothing shared.
    pub(crate) fn rest(&self) -> Option<Rest> {
        let state = lock(&self.core.state);
        match (
            &state.source,
            &state.chunks[self.next.min(state.chunks.len())..],
        ) {
            (Source::Ended { trailers: None }, []) => Some(Rest::Empty),
            (Source::Ended { trailers: None }, [chunk]) => Some(Rest::One(chunk.clone())),
            _ => None,
        }
    }

    pub(crate) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        if self.finished {
            return Poll::Ready(None);
        }
        loop {
            let (mut source, wakes) = {
                let mut state = lock(&self.core.state);
                if let Some(chunk) = state.chunks.get(self.next) {
                    self.next += 1;
                    self.read += chunk.len() as u64;
                    return Poll::Ready(Some(Ok(Frame::data(chunk.clone()))));
                }
                // ## Idle => Out
                //
                // This reader drives the source. It registers first, so that a wake-up from within the poll finds it.
                match std::mem::replace(&mut state.source, Source::Out) {
                    Source::Idle(source) => {
                        self.core.signal.register(self.id, cx.waker());
                        (source, self.core.signal.wakes())
                    }
                    Source::Out => {
                        self.core.signal.register(self.id, cx.waker());
                        return Poll::Pending;
                    }
                    Source::Ended { trailers } => {
                        self.finished = true;
                        let frame = trailers
                            .clone()
                            .map(|trailers| Ok(Frame::trailers(trailers)));
                        state.source = Source::Ended { trailers };
                        return Poll::Ready(frame);
                    }
                    Source::Failed(failure) => {
                        self.finished = true;
                        state.source = Source::Failed(failure.clone());
                        return Poll::Ready(Some(Err(failure)));
                    }
                }
            };
            let waker = Waker::from(Arc::clone(&self.core.signal));
            let polled = catch_unwind(AssertUnwindSafe(|| {
                let frame = Pin::new(&mut source).poll_frame(&mut Context::from_waker(&waker));
                let (hint, ended) = (source.size_hint(), source.is_end_stream());
                Polled { frame, hint, ended }
            }));
            if self.put_back(source, polled, wakes) == Progress::None {
                return Poll::Pending;
            }
        }
    }

    /// ## Out => (Idle | Ended | Failed)
    ///
    /// The source goes back, or is dropped if it has nothing more to give, and whoever waits is told of what came. A
    /// wake-up that came during the poll may have missed a reader that registered after it, and the reader that it did
    /// find may never poll again: so it is passed on to all.
    fn put_back(
        &self,
        source: B,
        polled: std::thread::Result<Polled<B::Error>>,
        wakes: u64,
    ) -> Progress {
        let core = &*self.core;
        let mut source = Some(source);
        let mut dropped = Vec::new();
        let mut progress = Progress::Some;
        {
            let mut state = lock(&core.state);
            let failure = match polled {
                Ok(polled) => {
                    state.hint = polled.hint;
                    match polled.frame {
                        Poll::Pending => {
                            progress = Progress::None;
                            None
                        }
                        Poll::Ready(Some(Ok(frame))) => {
                            state.keep(frame, polled.ended, core.limit).err()
                        }
                        Poll::Ready(None) => {
                            state.source = Source::Ended { trailers: None };
                            None
                        }
                        Poll::Ready(Some(Err(error))) => {
                            Some(Failure::Source(Arc::new(error.into())))
                        }
                    }
                }
                Err(_) => Some(Failure::Panicked),
            };
            if let Some(failure) = failure {
                lock(&core.signal.inner).failure = Some(failure.clone());
                // Nobody gets any further: what was kept is of no use.
                dropped = std::mem::take(&mut state.chunks);
                state.source = Source::Failed(failure);
            }
            if let Source::Out = state.source {
                state.source = Source::Idle(source.take().expect("put back once"));
            }
        }
        drop((source, dropped));
        if progress == Progress::Some || core.signal.wakes() != wakes {
            core.signal.wake_all();
        }
        progress
    }

    pub(crate) fn is_end_stream(&self) -> bool {
        if self.finished {
            return true;
        }
        let state = lock(&self.core.state);
        self.next >= state.chunks.len() && matches!(state.source, Source::Ended { trailers: None })
    }

    pub(crate) fn size_hint(&self) -> SizeHint {
        let state = lock(&self.core.state);
        let kept = state.kept.saturating_sub(self.read);
        match state.source {
            _ if self.finished => SizeHint::with_exact(0),
            Source::Ended { .. } => SizeHint::with_exact(kept),
            Source::Failed(_) => SizeHint::default(),
            Source::Idle(_) | Source::Out => {
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

impl<B> State<B> {
    /// Keeps a frame of the source; after its last one, the source has ended and need not be asked.
    fn keep(&mut self, frame: Frame<Bytes>, last: bool, limit: u64) -> Result<(), Failure> {
        match frame.into_data() {
            Ok(chunk) if chunk.len() as u64 > limit - self.kept => {
                return Err(Failure::TooLarge { limit });
            }
            Ok(chunk) => {
                if !chunk.is_empty() {
                    self.kept += chunk.len() as u64;
                    self.chunks.push(chunk);
                }
                if last {
                    self.source = Source::Ended { trailers: None };
                }
            }
            // Trailers are the last frame; what else a frame may be, no reader could ask for.
            Err(frame) => {
                self.source = Source::Ended {
                    trailers: frame.into_trailers().ok(),
                };
            }
        }
        Ok(())
    }
}

/// What the source said when it was polled.
struct Polled<E> {
    frame: Poll<Option<Result<Frame<Bytes>, E>>>,
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
    /// A reader that starts where this one stands.
    fn clone(&self) -> Self {
        let id = {
            let mut state = lock(&self.core.state);
            state.next_reader += 1;
            state.next_reader
        };
        Self {
            core: Arc::clone(&self.core),
            id,
            next: self.next,
            read: self.read,
            finished: self.finished,
        }
    }
}

impl<B> Drop for Reader<B> {
    /// Nobody has to be told: a wake-up of the source reaches every reader that waits.
    fn drop(&mut self) {
        self.core.signal.forget(self.id);
    }
}
