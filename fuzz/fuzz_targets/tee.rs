//! A tee under random frames, windows and readers: every reader reads a run of the upload, ends with an error that fits, and
//! nobody hangs.
//!
//! `cargo fuzz run tee`

#![no_main]

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use libfuzzer_sys::fuzz_target;
use watershed::clone_request::TeeBody;

#[derive(Debug, Arbitrary)]
struct Input {
    frames: Vec<Event>,
    /// Whether the source says how much is to come, and when it is at its end.
    tells: bool,
    keep: Keep,
    steps: Vec<Step>,
}

/// What the source does when it is polled.
#[derive(Debug, Arbitrary)]
enum Event {
    Data(u8),
    Pending,
    Trailers,
    Error,
}

#[derive(Debug, Arbitrary)]
enum Keep {
    All(u8),
    Window(u8),
}

#[derive(Debug, Arbitrary)]
enum Step {
    Read(u8),
    Clone(u8),
    Drop(u8),
    /// It is kept and never polled again.
    Forget(u8),
    Wait(u8),
}

struct Source {
    events: VecDeque<Event>,
    tells: bool,
    /// How many bytes it has given.
    given: Arc<AtomicU32>,
    over: bool,
}

impl Source {
    /// The byte at a place of the upload.
    fn byte(at: u32) -> u8 {
        (at % 251) as u8
    }

    /// The bytes that come before its end, be it a good or a bad one.
    fn left(&self) -> u64 {
        let data = self.events.iter().map_while(|event| match event {
            Event::Data(len) => Some(u64::from(*len)),
            Event::Pending => Some(0),
            Event::Trailers | Event::Error => None,
        });
        data.sum()
    }
}

impl Body for Source {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, std::io::Error>>> {
        assert!(!self.over, "polled after its end");
        match self.events.pop_front() {
            Some(Event::Data(len)) => {
                let start = self.given.fetch_add(len.into(), Ordering::Relaxed);
                let data: Vec<u8> = (start..start + u32::from(len)).map(Self::byte).collect();
                Poll::Ready(Some(Ok(Frame::data(data.into()))))
            }
            Some(Event::Pending) => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Some(Event::Trailers) => {
                self.over = true;
                Poll::Ready(Some(Ok(Frame::trailers(Default::default()))))
            }
            Some(Event::Error) => {
                self.over = true;
                Poll::Ready(Some(Err(std::io::Error::other("broken"))))
            }
            None => {
                self.over = true;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.over || (self.tells && self.events.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self.tells {
            true => SizeHint::with_exact(self.left()),
            false => SizeHint::default(),
        }
    }
}

/// A reader, the byte that comes next, and whether it has ended.
#[derive(Clone)]
struct Reader {
    body: TeeBody,
    next: u32,
    ended: bool,
    given: Arc<AtomicU32>,
}

impl Reader {
    fn poll(&mut self) -> Poll<()> {
        let hint = self.body.size_hint();
        assert!(hint.upper().is_none_or(|upper| upper >= hint.lower()));
        let was_at_end = self.body.is_end_stream();
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(frame) = Pin::new(&mut self.body).poll_frame(&mut cx) else {
            assert!(!self.ended, "pending after its end");
            return Poll::Pending;
        };
        match frame {
            Some(Ok(frame)) => {
                assert!(!was_at_end, "a frame behind the announced end");
                assert!(!self.ended, "a frame after its end");
                if let Ok(data) = frame.into_data() {
                    for byte in data {
                        assert_eq!(byte, Source::byte(self.next), "a byte of another place");
                        self.next += 1;
                        assert!(
                            self.next <= self.given.load(Ordering::Relaxed),
                            "a byte too many"
                        );
                    }
                }
            }
            Some(Err(_)) => {
                assert!(!self.ended, "an error after its end");
                self.ended = true;
            }
            None => {
                // Whoever has ended well has read all that there was.
                let given = self.given.load(Ordering::Relaxed);
                assert!(self.ended || self.next == given, "a clean end, too early");
                self.ended = true;
            }
        }
        Poll::Ready(())
    }
}

const STALL: Duration = Duration::from_millis(100);

fuzz_target!(|input: Input| {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let given = Arc::new(AtomicU32::new(0));
        let source = Source {
            events: input.frames.into(),
            tells: input.tells,
            given: Arc::clone(&given),
            over: false,
        };
        let body = match input.keep {
            Keep::All(limit) => TeeBody::new(source, limit.into()),
            Keep::Window(window) => TeeBody::stream(source, u64::from(window).max(1), STALL),
        };
        let mut readers = vec![Reader {
            body,
            next: 0,
            ended: false,
            given,
        }];
        let mut forgotten = Vec::new();
        for step in input.steps {
            let pick = |at: u8| usize::from(at) % readers.len().max(1);
            match step {
                Step::Wait(ticks) => {
                    tokio::time::advance(Duration::from_millis(ticks.into())).await;
                }
                _ if readers.is_empty() => {}
                Step::Read(at) => {
                    let at = pick(at);
                    let _ = readers[at].poll();
                }
                Step::Clone(at) if readers.len() < 8 => {
                    let mut clone = readers[pick(at)].clone();
                    // A clone of a reader that failed fails as well.
                    clone.ended = false;
                    readers.push(clone);
                }
                Step::Clone(_) => {}
                Step::Drop(at) => drop(readers.swap_remove(pick(at))),
                Step::Forget(at) => forgotten.push(readers.swap_remove(pick(at))),
            }
        }
        // Whoever is left gets to an end, if each is given its turn and those who hold the window their time.
        let mut turns = 0;
        while readers.iter().any(|reader| !reader.ended) {
            turns += 1;
            assert!(turns < 100_000, "nobody gets on");
            let mut idle = true;
            for reader in readers.iter_mut().filter(|reader| !reader.ended) {
                idle &= reader.poll().is_pending();
            }
            if idle {
                tokio::time::advance(STALL).await;
            }
        }
    });
});
