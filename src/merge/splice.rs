//! The writer: joins spans of several documents into one body.

use std::ops::Range;

use bytes::{Bytes, BytesMut};

use crate::body::Chunks;

/// A text that spans are taken from.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) bytes: Bytes,
    /// Whether its bytes have been copied once already, while they were collected or filtered.
    pub(crate) copied: bool,
}

/// A body under construction. A short span is copied; a long one becomes a frame of its own, which costs the same whatever
/// its length. Of a source that has been copied once, only the shortest are copied again: there a frame costs more.
#[derive(Debug)]
pub(crate) struct Splice {
    chunks: Chunks,
    tail: BytesMut,
}

impl Splice {
    const FRAME: usize = 8 * 1024;
    const FRAME_OF_COPIED: usize = 256;

    /// `capacity` is what will be copied, at a guess.
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            chunks: Chunks::new(),
            tail: BytesMut::with_capacity(capacity),
        }
    }

    pub(crate) fn text(&mut self, text: &[u8]) {
        self.tail.extend_from_slice(text);
    }

    pub(crate) fn span(&mut self, source: &Source, range: Range<usize>) {
        let frame = if source.copied {
            Self::FRAME_OF_COPIED
        } else {
            Self::FRAME
        };
        if range.len() < frame {
            self.text(&source.bytes[range]);
        } else {
            self.chunks.push(self.tail.split().freeze());
            self.chunks.push(source.bytes.slice(range));
        }
    }

    pub(crate) fn finish(mut self) -> Chunks {
        self.chunks.push(self.tail.freeze());
        self.chunks
    }

    /// What a span of `source` of this length adds to what is copied.
    pub(crate) fn copies(source: &Source, len: usize) -> usize {
        if source.copied {
            len.min(Self::FRAME_OF_COPIED)
        } else if len < Self::FRAME {
            len
        } else {
            0
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_spans_are_not_copied() {
        let long = Source {
            bytes: Bytes::from(vec![b'x'; Splice::FRAME + 2]),
            copied: false,
        };
        let mut splice = Splice::new(0);
        splice.text(b"[");
        splice.span(&long, 1..Splice::FRAME + 1);
        splice.text(b"]");
        let mut chunks = splice.finish();
        assert_eq!(chunks.len(), Splice::FRAME as u64 + 2);
        let frames: Vec<Bytes> = tokio_test::block_on(async {
            let mut frames = Vec::new();
            while let Some(frame) = http_body_util::BodyExt::frame(&mut chunks).await {
                frames.push(frame.expect("no error").into_data().expect("data"));
            }
            frames
        });
        assert_eq!(frames.len(), 3);
        assert_eq!(frames[1].as_ptr(), long.bytes[1..].as_ptr());
    }

    #[test]
    fn short_spans_become_one_frame() {
        let source = Source {
            bytes: Bytes::from_static(b"12"),
            copied: false,
        };
        let mut splice = Splice::new(8);
        for text in [&b"["[..], b"3,"] {
            splice.text(text);
        }
        splice.span(&source, 0..2);
        splice.text(b"]");
        assert_eq!(splice.finish().len(), 6);
    }
}
