//! Model checks of what tasks share (DESIGN rule 11): the same files, compiled with loom's mutexes and atomics, under every
//! interleaving within a bound on preemptions.

#![allow(
    dead_code,
    missing_docs,
    missing_debug_implementations,
    unreachable_pub
)]

/// Stands in for `crate::sync`.
mod sync {
    pub(crate) use loom::sync::atomic::{AtomicU64, Ordering};
    pub(crate) use loom::sync::{Mutex, MutexGuard};

    pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
        mutex
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

#[path = "../src/error.rs"]
mod error;

#[path = "../src/outcome/wake.rs"]
mod wake;

#[path = "../src/clone_request/core/mod.rs"]
mod tee;

#[path = "../src/waiters.rs"]
mod waiters;

#[path = "../src/timeout/core.rs"]
mod timeout_core;

#[path = "../src/background/core.rs"]
mod background_core;

#[path = "../src/client/exchange.rs"]
mod exchange;

use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use loom::sync::atomic::{AtomicUsize, Ordering};

fn check(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

/// A task that counts its wake-ups and can be waited for.
struct Task {
    wakes: AtomicUsize,
    notify: loom::sync::Notify,
}

impl Task {
    fn new() -> (Arc<Self>, Waker) {
        let task = Arc::new(Self {
            wakes: AtomicUsize::new(0),
            notify: loom::sync::Notify::new(),
        });
        let waker = Waker::from(Arc::clone(&task));
        (task, waker)
    }

    /// Blocks until it is woken, or for no reason: a lost wake-up is a deadlock, which the model checker reports.
    fn park(&self) {
        self.notify.wait();
    }
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        self.wakes.fetch_add(1, Ordering::SeqCst);
        self.notify.notify();
    }
}

mod gather {
    use super::*;
    use crate::wake::{WakePool, WakeSet};

    /// Two branches are woken by two threads; the gathering task takes each bit once and misses none.
    #[test]
    fn no_wake_up_is_lost() {
        check(|| {
            let set = WakeSet::new(2);
            let (task, waker) = Task::new();
            set.register(&waker);
            let threads: Vec<_> = (0..2)
                .map(|slot| {
                    let branch = set.waker(slot).clone();
                    loom::thread::spawn(move || branch.wake())
                })
                .collect();
            let mut seen = 0;
            while seen != 0b11 {
                set.register(&waker);
                let woken = set.take_woken();
                assert_eq!(seen & woken, 0, "a bit is taken once");
                seen |= woken;
                if woken == 0 {
                    task.park();
                }
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    /// The task moves: the waker that was registered last is the one that is woken.
    #[test]
    fn the_task_may_move_while_it_is_woken() {
        check(|| {
            let set = WakeSet::new(1);
            let (_, old) = Task::new();
            let (task, new) = Task::new();
            set.register(&old);
            let branch = set.waker(0).clone();
            let thread = loom::thread::spawn(move || branch.wake());
            set.register(&new);
            while set.take_woken() == 0 {
                task.park();
            }
            thread.join().unwrap();
        });
    }

    /// A set goes back to its pool while a branch's waker is still out there: the next call never hears of it.
    #[test]
    fn a_wake_up_never_crosses_to_the_next_call() {
        check(|| {
            let pool = Arc::new(WakePool::new(1));
            let first = pool.take();
            let late = first.waker(0).clone();
            let thread = loom::thread::spawn(move || late.wake());
            pool.give_back(first);

            let second = pool.take();
            let (task, waker) = Task::new();
            second.register(&waker);
            thread.join().unwrap();
            assert_eq!(second.take_woken(), 0);
            assert_eq!(task.wakes.load(Ordering::SeqCst), 0);
        });
    }
}

mod body {
    use super::*;
    use crate::tee::{Failure, Keep, Reader};
    use bytes::Bytes;
    use http_body::{Body, Frame, SizeHint};
    use loom::sync::Mutex;
    use std::collections::VecDeque;
    use std::pin::Pin;

    /// A source that another thread feeds.
    #[derive(Clone)]
    struct Source(Arc<Mutex<Feed>>);

    #[derive(Default)]
    struct Feed {
        frames: VecDeque<Result<Frame<Bytes>, std::io::Error>>,
        ended: bool,
        waker: Option<Waker>,
    }

    impl Source {
        fn new() -> Self {
            Self(Arc::new(Mutex::new(Feed::default())))
        }

        fn feed(&self, change: impl FnOnce(&mut Feed)) {
            let waker = {
                let mut feed = self.0.lock().unwrap();
                change(&mut feed);
                feed.waker.take()
            };
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn data(text: &'static str) -> Result<Frame<Bytes>, std::io::Error> {
        Ok(Frame::data(Bytes::from_static(text.as_bytes())))
    }

    impl Body for Source {
        type Data = Bytes;
        type Error = std::io::Error;

        fn poll_frame(
            self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
            let mut feed = self.0.lock().unwrap();
            match feed.frames.pop_front() {
                Some(frame) => Poll::Ready(Some(frame)),
                None if feed.ended => Poll::Ready(None),
                None => {
                    feed.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }

        fn size_hint(&self) -> SizeHint {
            SizeHint::default()
        }
    }

    /// Reads to the end, parking whenever there is nothing.
    fn read(mut reader: Reader<Source>) -> Result<Vec<u8>, Failure> {
        let (task, waker) = Task::new();
        let mut read = Vec::new();
        loop {
            match reader.poll_frame(&mut Context::from_waker(&waker)) {
                Poll::Ready(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        read.extend_from_slice(&data);
                    }
                }
                Poll::Ready(Some(Err(failure))) => return Err(failure),
                Poll::Ready(None) => return Ok(read),
                Poll::Pending => task.park(),
            }
        }
    }

    /// Two readers on two threads, a third feeds: both read all of it.
    #[test]
    fn every_reader_reads_all() {
        check(|| {
            let source = Source::new();
            let one = Reader::new(source.clone(), Keep::All { limit: 8 });
            let other = one.clone();
            let threads = [
                loom::thread::spawn(move || read(one)),
                loom::thread::spawn(move || read(other)),
            ];
            source.feed(|feed| {
                feed.frames.push_back(data("ab"));
                feed.ended = true;
            });
            for thread in threads {
                assert_eq!(thread.join().unwrap().unwrap(), b"ab");
            }
        });
    }

    /// A reader polls once, may be the one that the source would wake, and is dropped or never polled again: the other
    /// goes on.
    #[test]
    fn a_reader_that_leaves_holds_nobody_up() {
        for keep in [false, true] {
            check(move || {
                let source = Source::new();
                let mut leaving = Reader::new(source.clone(), Keep::All { limit: 8 });
                let staying = leaving.clone();
                let reads = loom::thread::spawn(move || read(staying));
                let leaves = loom::thread::spawn(move || {
                    let (_, waker) = Task::new();
                    let _ = leaving.poll_frame(&mut Context::from_waker(&waker));
                    keep.then_some(leaving)
                });
                source.feed(|feed| {
                    feed.frames.push_back(data("ab"));
                    feed.ended = true;
                });
                let kept = leaves.join().unwrap();
                assert_eq!(reads.join().unwrap().unwrap(), b"ab");
                drop(kept);
            });
        }
    }

    /// A clone is made on one thread while another reads.
    #[test]
    fn a_clone_made_meanwhile_reads_the_same() {
        check(|| {
            let source = Source::new();
            let one = Reader::new(source.clone(), Keep::All { limit: 8 });
            let parent = one.clone();
            let reads = loom::thread::spawn(move || read(one));
            let clones = loom::thread::spawn(move || {
                let child = parent.clone();
                drop(parent);
                read(child)
            });
            source.feed(|feed| {
                feed.frames.push_back(data("a"));
                feed.ended = true;
            });
            assert_eq!(reads.join().unwrap().unwrap(), b"a");
            assert_eq!(clones.join().unwrap().unwrap(), b"a");
        });
    }

    /// The source fails, or is too large: every reader is told so, and so is whoever watches.
    #[test]
    fn every_reader_is_told_of_a_failure() {
        for too_large in [false, true] {
            check(move || {
                let source = Source::new();
                let one = Reader::new(source.clone(), Keep::All { limit: 1 });
                let other = one.clone();
                let signal = Arc::clone(one.signal());
                let threads = [
                    loom::thread::spawn(move || read(one)),
                    loom::thread::spawn(move || read(other)),
                ];
                source.feed(|feed| {
                    let broken = std::io::Error::other("broken");
                    feed.frames
                        .push_back(if too_large { data("ab") } else { Err(broken) });
                });
                for thread in threads {
                    let failure = thread.join().unwrap().unwrap_err();
                    assert_eq!(matches!(failure, Failure::TooLarge { limit: 1 }), too_large);
                }
                assert!(signal.failure().is_some());
            });
        }
    }

    const WINDOW: Keep = Keep::Window { bytes: 1 };

    fn feed(source: &Source, texts: [&'static str; 2]) {
        source.feed(|feed| {
            feed.frames.extend(texts.map(data));
            feed.ended = true;
        });
    }

    /// The window holds one frame: each reader waits for the other, and both read all.
    #[test]
    fn readers_take_turns_at_a_window() {
        check(|| {
            let source = Source::new();
            let one = Reader::new(source.clone(), WINDOW);
            let other = one.clone();
            feed(&source, ["a", "b"]);
            let thread = loom::thread::spawn(move || read(one));
            assert_eq!(read(other).unwrap(), b"ab");
            assert_eq!(thread.join().unwrap().unwrap(), b"ab");
        });
    }

    /// A reader goes while another waits for the window that it holds.
    #[test]
    fn a_reader_that_goes_lets_its_share_go() {
        check(|| {
            let source = Source::new();
            let one = Reader::new(source.clone(), WINDOW);
            let mut other = one.clone();
            feed(&source, ["a", "b"]);
            let thread = loom::thread::spawn(move || {
                let (_, waker) = Task::new();
                let _ = other.poll_frame(&mut Context::from_waker(&waker));
                drop(other);
            });
            assert_eq!(read(one).unwrap(), b"ab");
            thread.join().unwrap();
        });
    }

    /// A reader waits for the window and evicts who holds it: that one is told, or was quick enough and reads all; and
    /// nobody hangs.
    #[test]
    fn whoever_holds_the_window_gets_on_or_is_out() {
        check(|| {
            let source = Source::new();
            let mut impatient = Reader::new(source.clone(), WINDOW);
            let slow = impatient.clone();
            feed(&source, ["a", "b"]);
            let thread = loom::thread::spawn(move || read(slow));
            let (task, waker) = Task::new();
            let mut read = Vec::new();
            loop {
                match impatient.poll_frame(&mut Context::from_waker(&waker)) {
                    Poll::Ready(Some(frame)) => {
                        read.extend_from_slice(&frame.unwrap().into_data().unwrap());
                    }
                    Poll::Ready(None) => break,
                    Poll::Pending => match impatient.blocked() {
                        Some(blocked) => impatient.evict(blocked),
                        None => task.park(),
                    },
                }
            }
            assert_eq!(read, b"ab");
            match thread.join().unwrap() {
                Ok(read) => assert_eq!(read, b"ab"),
                Err(failure) => assert!(matches!(failure, Failure::Lagged)),
            }
        });
    }

    /// A clone is made of a reader that may be out by then: it reads what its parent would have, or is out as well.
    #[test]
    fn a_clone_of_a_reader_that_is_evicted_is_out_as_well() {
        check(|| {
            let source = Source::new();
            let mut impatient = Reader::new(source.clone(), WINDOW);
            let parent = impatient.clone();
            feed(&source, ["a", "b"]);
            let thread = loom::thread::spawn(move || {
                let child = parent.clone();
                drop(parent);
                read(child)
            });
            let (task, waker) = Task::new();
            loop {
                match impatient.poll_frame(&mut Context::from_waker(&waker)) {
                    Poll::Ready(Some(frame)) => drop(frame.unwrap()),
                    Poll::Ready(None) => break,
                    Poll::Pending => match impatient.blocked() {
                        Some(blocked) => impatient.evict(blocked),
                        None => task.park(),
                    },
                }
            }
            match thread.join().unwrap() {
                Ok(read) => assert_eq!(read, b"ab"),
                Err(failure) => assert!(matches!(failure, Failure::Lagged)),
            }
        });
    }
}

/// The header fields of one call, and who decides how it ends.
mod sealing {
    use super::*;
    use crate::timeout_core::{Change, Core, Sealed, Write, WriteError, apply};
    use http::{HeaderMap, HeaderName, HeaderValue};

    const STAGED: HeaderName = HeaderName::from_static("x-staged");
    const OTHER: HeaderName = HeaderName::from_static("x-other");
    const PINNED: HeaderName = HeaderName::from_static("x-pinned");

    fn insert(name: HeaderName) -> Write {
        let value = HeaderValue::from_static("1");
        let change = Change::Insert(value);
        Write { name, change }
    }

    fn stage(core: &Core, name: HeaderName) -> Result<(), WriteError> {
        core.write(insert(name), None)
    }

    fn pin(core: &Core) -> Result<(), WriteError> {
        core.write(insert(PINNED), Some(insert(PINNED)))
    }

    fn fields(answer: Vec<Write>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        apply(answer, &mut headers);
        headers
    }

    /// Blocks until the call has ended.
    fn wait(core: &Core) -> Sealed {
        let (task, waker) = Task::new();
        let mut key = None;
        loop {
            match core.poll_sealed(&mut key, &mut Context::from_waker(&waker)) {
                Poll::Ready(sealed) => return sealed,
                Poll::Pending => task.park(),
            }
        }
    }

    const ENDS: [Sealed; 5] = [
        Sealed::Committed,
        Sealed::Failed,
        Sealed::Deadline,
        Sealed::Cancelled,
        Sealed::Panicked,
    ];

    /// What one call promises its writers, whatever they were told and however it ended.
    #[track_caller]
    fn assert_kept(
        how: Sealed,
        headers: &HeaderMap,
        writes: &[(HeaderName, Result<(), WriteError>)],
    ) {
        for (name, written) in writes {
            let is_there = headers.get_all(name).iter().count();
            let expected = match (how, written) {
                (Sealed::Committed, Ok(())) => 1,
                (Sealed::Deadline | Sealed::Cancelled, Ok(())) if *name == PINNED => 1,
                _ => 0,
            };
            assert_eq!(is_there, expected, "{how:?}: {name} was {written:?}");
            if let Err(refused) = written {
                assert_eq!(*refused, WriteError::Sealed(how));
            }
        }
        assert!(headers.len() <= writes.len());
    }

    // T32
    /// Two tasks write while the call ends, in each of the ways in which one can: what was accepted is on the response, or,
    /// pinned, on the answer that the layer makes; and what was refused is on neither.
    #[test]
    fn what_was_accepted_is_on_the_response_and_nothing_else_is() {
        for how in ENDS {
            check(move || {
                let core = Arc::new(Core::new());
                let first = {
                    let core = Arc::clone(&core);
                    loom::thread::spawn(move || {
                        [(STAGED, stage(&core, STAGED)), (PINNED, pin(&core))]
                    })
                };
                let second = {
                    let core = Arc::clone(&core);
                    loom::thread::spawn(move || (OTHER, stage(&core, OTHER)))
                };
                let headers = fields(core.seal(how).expect("nobody else seals"));
                let mut writes: Vec<_> = first.join().unwrap().into();
                writes.push(second.join().unwrap());
                assert_kept(how, &headers, &writes);
                assert_eq!(core.state(), Some(how));
                // Nothing commits after a seal.
                assert_eq!(stage(&core, OTHER), Err(WriteError::Sealed(how)));
                for late in ENDS {
                    assert!(core.seal(late).is_none());
                }
            });
        }
    }

    // T32
    /// The response, the deadline and the caller's going race, and a task writes: one of them decides, and only that one is
    /// given what belongs on the answer.
    #[test]
    fn one_seal_decides_and_whoever_waits_is_told_which() {
        check(|| {
            let core = Arc::new(Core::new());
            let sealers: Vec<_> = [Sealed::Committed, Sealed::Deadline]
                .into_iter()
                .map(|how| {
                    let core = Arc::clone(&core);
                    loom::thread::spawn(move || (how, core.seal(how)))
                })
                .collect();
            let writes = [(STAGED, stage(&core, STAGED)), (PINNED, pin(&core))];
            let cancelled = (Sealed::Cancelled, core.seal(Sealed::Cancelled));
            let mut answers: Vec<_> = sealers.into_iter().map(|one| one.join().unwrap()).collect();
            answers.push(cancelled);
            answers.retain(|(_, answer)| answer.is_some());
            assert_eq!(answers.len(), 1);
            let (how, answer) = answers.pop().unwrap();
            assert_kept(how, &fields(answer.unwrap()), &writes);
            assert_eq!(wait(&core), how);
        });
    }

    /// Two tasks wait while the call ends, and neither sleeps on.
    #[test]
    fn no_wake_up_is_lost() {
        check(|| {
            let core = Arc::new(Core::new());
            let waiters: Vec<_> = (0..2)
                .map(|_| {
                    let core = Arc::clone(&core);
                    loom::thread::spawn(move || wait(&core))
                })
                .collect();
            core.seal(Sealed::Deadline);
            for waiter in waiters {
                assert_eq!(waiter.join().unwrap(), Sealed::Deadline);
            }
        });
    }

    /// One that waits goes while the call ends, and another one moves to a new task: nobody else is harmed.
    #[test]
    fn a_waiter_may_go_or_move() {
        check(|| {
            let core = Arc::new(Core::new());
            let goes = {
                let core = Arc::clone(&core);
                loom::thread::spawn(move || {
                    let (_, waker) = Task::new();
                    let mut key = None;
                    let polled = core.poll_sealed(&mut key, &mut Context::from_waker(&waker));
                    if let Some(key) = key {
                        core.forget(key);
                    }
                    polled
                })
            };
            let (_, old) = Task::new();
            let mut key = None;
            let first = core.poll_sealed(&mut key, &mut Context::from_waker(&old));
            assert!(first.is_pending());
            let seals = {
                let core = Arc::clone(&core);
                loom::thread::spawn(move || core.seal(Sealed::Committed).is_some())
            };
            let (task, new) = Task::new();
            let sealed = loop {
                match core.poll_sealed(&mut key, &mut Context::from_waker(&new)) {
                    Poll::Ready(sealed) => break sealed,
                    Poll::Pending => task.park(),
                }
            };
            assert_eq!(sealed, Sealed::Committed);
            assert!(seals.join().unwrap());
            match goes.join().unwrap() {
                Poll::Ready(sealed) => assert_eq!(sealed, Sealed::Committed),
                Poll::Pending => {}
            }
        });
    }
}

/// Tasks that outlive their callers.
mod background {
    use super::*;
    use crate::background_core::{Refused, Registry};

    /// Blocks until every permit is back.
    fn drained<A>(registry: &Registry<A>) {
        let (task, waker) = Task::new();
        let mut key = None;
        while registry
            .poll_drained(&mut key, &mut Context::from_waker(&waker))
            .is_pending()
        {
            task.park();
        }
    }

    /// A shutdown while two come and go: both are waited for, or refused.
    #[test]
    fn a_shutdown_misses_nobody() {
        check(|| {
            let registry = Arc::new(Registry::<()>::new(2));
            let tasks: Vec<_> = (0..2)
                .map(|_| {
                    let registry = Arc::clone(&registry);
                    loom::thread::spawn(move || {
                        let entered = registry.enter();
                        if let Ok(id) = entered {
                            registry.leave(id);
                        }
                        entered.err()
                    })
                })
                .collect();
            registry.close();
            drained(&registry);
            // Closed and drained, it stays so.
            assert_eq!(registry.running(), 0);
            assert_eq!(registry.enter(), Err(Refused::ShutDown));
            for task in tasks {
                let refused = task.join().unwrap();
                assert!(refused.is_none_or(|refused| refused == Refused::ShutDown));
            }
        });
    }

    /// All are aborted while one starts and another one ends: who runs on is told, once, and who has left is not counted.
    #[test]
    fn an_abort_reaches_whoever_runs() {
        check(|| {
            let registry = Arc::new(Registry::<&'static str>::new(2));
            let starts = registry.enter().unwrap();
            let ends = registry.enter().unwrap();
            assert!(registry.started(ends, "ends").is_none());
            let starting = {
                let registry = Arc::clone(&registry);
                loom::thread::spawn(move || registry.started(starts, "starts"))
            };
            let ending = {
                let registry = Arc::clone(&registry);
                loom::thread::spawn(move || registry.leave(ends))
            };
            let (number, aborts) = registry.abort();
            let told_at_its_start = starting.join().unwrap().is_some();
            ending.join().unwrap();
            let told = aborts.contains(&"starts");
            assert!(told != told_at_its_start, "told once");
            assert_eq!(number, 1 + usize::from(aborts.contains(&"ends")));
            assert_eq!(registry.running(), 1);
        });
    }

    /// Two want the last place: one gets it.
    #[test]
    fn no_more_run_than_may() {
        check(|| {
            let registry = Arc::new(Registry::<()>::new(1));
            let other = Arc::clone(&registry);
            let thread = loom::thread::spawn(move || other.enter().is_ok());
            let entered = registry.enter().is_ok();
            let other = thread.join().unwrap();
            assert!(entered != other);
            assert_eq!(registry.running(), 1);
        });
    }
}

/// The two bodies of a call of the client.
mod exchanges {
    use super::*;
    use crate::exchange::Exchange;

    fn finishes(exchange: &Arc<Exchange<u8>>, at: u8) -> loom::thread::JoinHandle<()> {
        let exchange = Arc::clone(exchange);
        loom::thread::spawn(move || exchange.finish(at))
    }

    /// The response ends, once and for all, while the request's body begins to wait.
    #[test]
    fn no_wake_up_is_lost() {
        check(|| {
            let exchange = Arc::new(Exchange::new());
            let threads = [1, 2].map(|at| finishes(&exchange, at));
            let (task, waker) = Task::new();
            let over = loop {
                match exchange.over_or_wake(&waker) {
                    Some(over) => break over,
                    None => task.park(),
                }
            };
            for thread in threads {
                thread.join().unwrap();
            }
            assert_eq!(exchange.over(), Some(over));
        });
    }

    /// The body has moved to another task.
    #[test]
    fn the_task_that_asked_last_is_woken() {
        check(|| {
            let exchange = Arc::new(Exchange::new());
            let (_, old) = Task::new();
            assert_eq!(exchange.over_or_wake(&old), None);
            let thread = finishes(&exchange, 1);
            let (task, new) = Task::new();
            while exchange.over_or_wake(&new).is_none() {
                task.park();
            }
            thread.join().unwrap();
        });
    }

    /// The body ends and its task does something else: once that is known, nobody is woken for it.
    #[test]
    fn a_body_that_has_ended_is_left_alone() {
        check(|| {
            let exchange = Arc::new(Exchange::new());
            let (task, waker) = Task::new();
            assert_eq!(exchange.over_or_wake(&waker), None);
            let first = finishes(&exchange, 1);
            exchange.sent();
            first.join().unwrap();
            let wakes = task.wakes.load(Ordering::SeqCst);
            exchange.finish(2);
            assert!(wakes <= 1);
            assert_eq!(task.wakes.load(Ordering::SeqCst), wakes);
            // Nothing of the task is kept.
            drop(waker);
            assert_eq!(Arc::strong_count(&task), 1);
        });
    }

    /// The body ends before its last piece is written, on another thread: only after both is nobody woken.
    #[test]
    fn a_body_is_sent_when_all_of_it_is() {
        check(|| {
            let exchange = Arc::new(Exchange::new());
            let (task, waker) = Task::new();
            assert_eq!(exchange.over_or_wake(&waker), None);
            exchange.hold();
            let threads = [(); 2].map(|()| {
                let exchange = Arc::clone(&exchange);
                loom::thread::spawn(move || {
                    assert!(!exchange.is_sent());
                    exchange.sent();
                })
            });
            let finish = finishes(&exchange, 1);
            for thread in threads {
                thread.join().unwrap();
            }
            assert!(exchange.is_sent());
            finish.join().unwrap();
            assert!(task.wakes.load(Ordering::SeqCst) <= 1);
            // Nor is anybody who asks now.
            assert_eq!(exchange.over_or_wake(&waker), Some(1));
            drop(waker);
            assert_eq!(Arc::strong_count(&task), 1);
        });
    }

    /// The last piece is written, and the next body on the connection is another exchange's: nobody is to be woken for this
    /// one.
    #[test]
    fn whoever_asks_too_late_is_not_kept() {
        check(|| {
            let exchange = Arc::new(Exchange::new());
            let (task, waker) = Task::new();
            let thread = {
                let exchange = Arc::clone(&exchange);
                loom::thread::spawn(move || exchange.sent())
            };
            assert_eq!(exchange.over_or_wake(&waker), None);
            thread.join().unwrap();
            exchange.finish(1);
            assert_eq!(task.wakes.load(Ordering::SeqCst), 0);
            drop(waker);
            assert_eq!(Arc::strong_count(&task), 1);
        });
    }

    /// An error of the request's body is found by whoever looks when the response has failed for it.
    #[test]
    fn an_error_is_there_before_the_failure_that_it_causes() {
        check(|| {
            let exchange = Arc::new(Exchange::<u8>::new());
            let failed = Arc::new(AtomicUsize::new(0));
            let thread = {
                let (exchange, failed) = (Arc::clone(&exchange), Arc::clone(&failed));
                loom::thread::spawn(move || {
                    exchange.fail("broken".into());
                    failed.store(1, Ordering::Release);
                })
            };
            if failed.load(Ordering::Acquire) == 1 {
                assert!(exchange.take_error().is_some());
                assert!(exchange.take_error().is_none());
            }
            thread.join().unwrap();
        });
    }
}
