//! What is decoded, and to what.

use bytes::Bytes;
use http::Method;
use http_body::Body;
use http_body_util::Empty;
use proptest::prelude::*;
use watershed::decompression::DecompressionError;

use crate::coding::{CODINGS, document, gzip};
use crate::common::{all, encoded, read, read_frames, through};
use crate::support::on_paused_clock;

// B30
#[tokio::test]
async fn every_coding_is_decoded() {
    for len in [0, 1, 100, 4096, 300_000] {
        let content = document(len);
        for (name, encode) in CODINGS {
            let decoded = read(name, &encode(&content)).await.expect("whole");
            assert_eq!(decoded, content, "{name}");
        }
        assert_eq!(
            read("x-gzip", &gzip(&content)).await.expect("whole"),
            content
        );
    }
}

// B30: no document either way, and nothing that was cut off: a body that is cut short is an error by itself.
#[tokio::test]
async fn without_a_byte_there_is_nothing_to_decode() {
    for (name, _) in CODINGS {
        for parts in [vec![], vec![Bytes::new()], vec![Bytes::new(); 100]] {
            let decoded = read_frames(all(), name, parts).await;
            assert_eq!(decoded.expect("empty"), "", "{name}");
        }
        let response = encoded(name, Empty::<Bytes>::new());
        let response = through(all(), Method::GET, response).await;
        assert!(response.body().is_end_stream());
        assert_eq!(response.size_hint().exact(), Some(0));
    }
}

// B30: RFC 1952 §2.2.
#[tokio::test]
async fn all_members_of_a_gzip_body_are_read() {
    let members = [gzip(b"[1,"), gzip(b""), gzip(b"2"), gzip(b"]")];
    let joined = members.concat();
    assert_eq!(read("gzip", &joined).await.expect("whole"), "[1,2]");
    for at in 1..joined.len() {
        let (first, second) = joined.split_at(at);
        let parts = vec![
            Bytes::copy_from_slice(first),
            Bytes::copy_from_slice(second),
        ];
        let decoded = read_frames(all(), "gzip", parts).await;
        assert_eq!(decoded.expect("whole"), "[1,2]", "split at {at}");
    }
    let bytes = joined.iter().map(|byte| Bytes::copy_from_slice(&[*byte]));
    let decoded = read_frames(all(), "gzip", bytes.collect()).await;
    assert_eq!(decoded.expect("whole"), "[1,2]");
    // The last one cut short, wherever that is.
    let whole = joined.len() - members[3].len();
    for len in whole + 1..joined.len() {
        let error = read("gzip", &joined[..len]).await.expect_err("cut short");
        assert!(
            matches!(error, DecompressionError::Truncated { .. }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn members_are_bounded() {
    let member = gzip(b"1");
    let decoded = read("gzip", &member.repeat(1024)).await;
    assert_eq!(decoded.expect("whole"), "1".repeat(1024));
    let error = read("gzip", &member.repeat(1025))
        .await
        .expect_err("too many");
    assert!(
        matches!(error, DecompressionError::Corrupt { .. }),
        "{error}"
    );
}

/// A gzip header with all that it may have.
#[tokio::test]
async fn a_gzip_header_may_have_its_optional_fields() {
    let plain = gzip(b"{}");
    let mut full = Vec::from(*b"\x1f\x8b\x08\x1e\x00\x00\x00\x00\x00\x03");
    full.extend_from_slice(b"\x05\x00extra");
    full.extend_from_slice(b"a name\0a comment\0");
    let mut crc = flate2::Crc::new();
    crc.update(&full);
    full.extend_from_slice(&crc.sum().to_le_bytes()[..2]);
    let header = full.len();
    full.extend_from_slice(&plain[10..]);
    assert_eq!(read("gzip", &full).await.expect("whole"), "{}");
    full[header - 1] ^= 1;
    let error = read("gzip", &full).await.expect_err("a wrong checksum");
    assert!(
        matches!(error, DecompressionError::Corrupt { .. }),
        "{error}"
    );
}

/// Bytes out of so many, one as likely as the other.
fn noise(seed: u32, letters: u32, len: usize) -> Vec<u8> {
    let next = |number: &u32| Some(number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223));
    let numbers = std::iter::successors(Some(seed), next);
    let letter = |number| (number >> 16) % letters;
    numbers
        .take(len)
        .map(|number| letter(number) as u8)
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    // B30
    #[test]
    fn it_makes_no_difference_how_a_body_is_framed(
        (seed, letters, len) in (any::<u32>(), 1..=256_u32, 0..60_000_usize),
        coding in 0..3_usize,
        members in 1..5_usize,
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..20),
    ) {
        let (name, encode) = CODINGS[coding];
        let content = noise(seed, letters, len);
        let compressed = match name {
            "gzip" => {
                let members = content.chunks(content.len() / members + 1);
                let compressed: Vec<u8> = members.flat_map(encode).collect();
                if content.is_empty() { gzip(b"") } else { compressed }
            }
            _ => encode(&content),
        };
        let compressed = Bytes::from(compressed);
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(compressed.len() + 1)).collect();
        cuts.extend([0, compressed.len()]);
        cuts.sort_unstable();
        let parts = cuts.windows(2).map(|cut| compressed.slice(cut[0]..cut[1])).collect();
        let decoded = on_paused_clock(read_frames(all(), name, parts));
        prop_assert_eq!(decoded.expect("whole"), content);
    }
}
