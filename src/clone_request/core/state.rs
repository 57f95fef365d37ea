//! What is kept of the stream, and where each reader stands.

use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Frame, SizeHint};

use super::{Core, Failure, Keep};

#[derive(Debug)]
pub(super) struct State<B> {
    pub(super) source: Source<B>,
    /// What is kept of the stream, in order and without a gap.
    pub(super) chunks: VecDeque<Chunk>,
    /// The bytes in `chunks`.
    pub(super) kept: u64,
    /// The bytes that the source has given.
    pub(super) pulled: u64,
    /// What the source expects still to come, as it last said.
    pub(super) hint: SizeHint,
    /// With a window: where each reader stands.
    pub(super) places: Vec<Place>,
    /// Counts how often the window has moved.
    pub(super) moves: u64,
    /// Counts the reads of all readers.
    pub(super) reads: u64,
    pub(super) next_reader: u64,
}

#[derive(Debug)]
pub(super) struct Chunk {
    /// Where it stands in the stream.
    pub(super) start: u64,
    pub(super) bytes: Bytes,
}

impl Chunk {
    pub(super) fn end(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

#[derive(Debug)]
pub(super) struct Place {
    pub(super) reader: u64,
    /// The bytes that it has read.
    pub(super) read: u64,
    /// The number of its last read.
    pub(super) last: u64,
}

#[derive(Debug)]
pub(super) enum Source<B> {
    /// Nobody polls it.
    Idle(B),
    /// A reader has it and polls it.
    Out,
    /// It has ended well.
    Ended { trailers: Option<HeaderMap> },
    /// It has not.
    Failed(Failure),
}

impl<B> State<B> {
    /// Keeps a frame of the source; after its last one, the source has ended and need not be asked.
    /// What is not kept of it goes to `unwanted`, to be dropped outside the lock.
    pub(super) fn keep(
        &mut self,
        frame: Frame<Bytes>,
        last: bool,
        core: &Core<B>,
        unwanted: &mut Vec<Bytes>,
    ) -> Result<(), Failure> {
        match frame.into_data() {
            Ok(chunk) => {
                if let Keep::All { limit } = core.keep {
                    if chunk.len() as u64 > limit - self.kept {
                        unwanted.push(chunk);
                        return Err(Failure::TooLarge { limit });
                    }
                }
                self.push(chunk, unwanted);
                if last {
                    self.end(core);
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

    /// A chunk is kept as it came. But of a source that drips, what is kept would be many times its bytes: beyond so many
    /// chunks, small ones are joined.
    fn push(&mut self, chunk: Bytes, unwanted: &mut Vec<Bytes>) {
        const MANY: usize = 64;
        const SMALL: usize = 512;
        if chunk.is_empty() {
            unwanted.push(chunk);
            return;
        }
        let start = self.pulled;
        self.kept += chunk.len() as u64;
        self.pulled += chunk.len() as u64;
        let many = self.chunks.len() >= MANY;
        match self.chunks.back_mut() {
            Some(last) if many && last.bytes.len() + chunk.len() <= SMALL => {
                let joined = [&last.bytes[..], &chunk[..]].concat().into();
                unwanted.extend([std::mem::replace(&mut last.bytes, joined), chunk]);
            }
            _ => self.chunks.push_back(Chunk {
                start,
                bytes: chunk,
            }),
        }
    }

    pub(super) fn end(&mut self, core: &Core<B>) {
        self.source = Source::Ended { trailers: None };
        if self.kept == self.pulled && self.chunks.len() <= 1 {
            let only = self.chunks.front().map(|chunk| chunk.bytes.clone());
            let _ = core.short.set(only);
        }
    }

    /// A reader has moved on. Returns what nobody needs any more, to be dropped outside the lock.
    pub(super) fn stand(&mut self, reader: u64, read: u64) -> Option<VecDeque<Chunk>> {
        let held = self.chunks.front().map_or(0, Chunk::end);
        let place = self
            .places
            .iter_mut()
            .find(|place| place.reader == reader)?;
        let was = std::mem::replace(&mut place.read, read);
        if was < held { self.release() } else { None }
    }

    /// Moves the window up to the slowest reader.
    pub(super) fn release(&mut self) -> Option<VecDeque<Chunk>> {
        let slowest = self.places.iter().map(|place| place.read).min();
        let slowest = slowest.unwrap_or(self.pulled);
        let gone = self.chunks.partition_point(|chunk| chunk.end() <= slowest);
        if gone == 0 {
            return None;
        }
        let kept = self.chunks.split_off(gone);
        let released = std::mem::replace(&mut self.chunks, kept);
        let bytes = released.iter().map(|chunk| chunk.bytes.len() as u64);
        self.kept -= bytes.sum::<u64>();
        self.moves += 1;
        Some(released)
    }
}
