//! Compressed bodies, good ones and hostile ones.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::io::Write;

use brotli::CompressorWriter;
use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};
use flate2::{Compression, Crc};

pub(crate) type Encode = fn(&[u8]) -> Vec<u8>;

/// `Content-Encoding`, and how to get there.
pub(crate) const CODINGS: [(&str, Encode); 3] = [("gzip", gzip), ("deflate", zlib), ("br", brotli)];

pub(crate) fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).expect("in memory");
    encoder.finish().expect("in memory")
}

pub(crate) fn zlib(content: &[u8]) -> Vec<u8> {
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).expect("in memory");
    encoder.finish().expect("in memory")
}

pub(crate) fn brotli(content: &[u8]) -> Vec<u8> {
    flushed_brotli(&[content], 22).concat()
}

/// The compressed pieces: what each flush has written, and the end.
fn flushed<E: Write>(
    mut encoder: E,
    pieces: &[&[u8]],
    written: fn(&mut E) -> &mut Vec<u8>,
    finish: impl FnOnce(E) -> Vec<u8>,
) -> Vec<Vec<u8>> {
    let mut flushed = Vec::new();
    for piece in pieces {
        encoder.write_all(piece).expect("in memory");
        encoder.flush().expect("in memory");
        flushed.push(std::mem::take(written(&mut encoder)));
    }
    flushed.push(finish(encoder));
    flushed
}

pub(crate) fn flushed_gzip(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let encoder = GzEncoder::new(Vec::new(), Compression::best());
    let finish = |encoder: GzEncoder<_>| encoder.finish().expect("in memory");
    flushed(encoder, pieces, GzEncoder::get_mut, finish)
}

pub(crate) fn flushed_zlib(pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    let finish = |encoder: ZlibEncoder<_>| encoder.finish().expect("in memory");
    flushed(encoder, pieces, ZlibEncoder::get_mut, finish)
}

/// With a window of two to the power of `window` bytes.
pub(crate) fn flushed_brotli(pieces: &[&[u8]], window: u32) -> Vec<Vec<u8>> {
    let encoder = CompressorWriter::new(Vec::new(), 4096, 5, window);
    let finish = CompressorWriter::into_inner;
    flushed(encoder, pieces, CompressorWriter::get_mut, finish)
}

/// Deflate without the header that HTTP wants.
pub(crate) fn raw_deflate(content: &[u8]) -> Vec<u8> {
    let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(content).expect("in memory");
    encoder.finish().expect("in memory")
}

/// A JSON document of at least `len` bytes, with repetitions far and near.
pub(crate) fn document(len: usize) -> Vec<u8> {
    let mut text = Vec::from(*b"[");
    let mut number = 7_u32;
    while text.len() < len {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        write!(text, "{{\"id\":{},\"name\":\"Ada\"}},", number >> 12).expect("in memory");
    }
    text.extend_from_slice(b"0]");
    text
}

pub(crate) const MIB: usize = 1 << 20;

/// As many mebibytes of spaces, and `1`: a valid document in a valid gzip member of about a thousandth of its size.
pub(crate) fn gzip_bomb(mebibytes: usize) -> Vec<u8> {
    let spaces = vec![b' '; MIB];
    // Blocks that end at a byte and refer to nothing before them can be repeated.
    let mut raw = flate2::Compress::new(Compression::best(), false);
    let mut block = Vec::with_capacity(MIB);
    raw.compress_vec(&spaces, &mut block, flate2::FlushCompress::Full)
        .expect("in memory");
    let mut bomb = Vec::from(*b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03");
    let mut one = Crc::new();
    one.update(&spaces);
    let mut all = Crc::new();
    for _ in 0..mebibytes {
        bomb.extend_from_slice(&block);
        all.combine(&one);
    }
    all.update(b"1");
    bomb.extend_from_slice(&raw_deflate(b"1"));
    bomb.extend_from_slice(&all.sum().to_le_bytes());
    bomb.extend_from_slice(&all.amount().to_le_bytes());
    bomb
}

/// The same by brotli, with its largest window.
pub(crate) fn brotli_bomb(mebibytes: usize) -> Vec<u8> {
    let spaces = vec![b' '; MIB];
    let pieces = flushed_brotli(&[&spaces, &spaces, &spaces, b"1"], 24);
    let [first, again, twice, last, end] = &pieces[..] else {
        panic!("five pieces");
    };
    // Once the window holds a space and the last distance is one, a mebibyte more is the same bytes again.
    assert_eq!(again, twice, "the pieces can't be repeated");
    let mut bomb = first.clone();
    for _ in 1..mebibytes {
        bomb.extend_from_slice(again);
    }
    bomb.extend_from_slice(last);
    bomb.extend_from_slice(end);
    bomb
}
