//! Bodies that are cut short, changed or no compressed data at all.

use bytes::Bytes;
use http::{HeaderMap, Method};
use http_body_util::{BodyExt, Full};
use watershed::decompression::DecompressionError;
use watershed::error::cause_ref;

use crate::coding::{
    CODINGS, Encode, brotli, document, flushed_brotli, flushed_gzip, flushed_zlib, gzip,
    raw_deflate, zlib,
};
use crate::common::{all, encoded, read, read_frames, through};
use crate::support::Feed;

/// Several blocks, with byte boundaries between them, and what they hold.
fn in_blocks() -> [(&'static str, Vec<u8>); 3] {
    let content = document(2000);
    let pieces: Vec<&[u8]> = content.chunks(500).collect();
    [
        ("gzip", flushed_gzip(&pieces).concat()),
        ("deflate", flushed_zlib(&pieces).concat()),
        ("br", flushed_brotli(&pieces, 18).concat()),
    ]
}

// B27, B30: at each byte, so behind each block and before the trailer, too.
#[tokio::test]
async fn a_body_cut_short_anywhere_is_an_error() {
    for (name, compressed) in in_blocks() {
        assert!(read(name, &compressed).await.is_ok());
        for len in 1..compressed.len() {
            let error = read(name, &compressed[..len]).await.expect_err("cut short");
            assert!(
                matches!(error, DecompressionError::Truncated { .. }),
                "{name}, {len} of {} bytes: {error:?}",
                compressed.len()
            );
        }
    }
}

// B27: the same, with the announced end of the last frame, trailers, or an error behind it.
#[tokio::test]
async fn an_end_of_another_kind_is_no_better() {
    for (name, compressed) in in_blocks() {
        let cut = || Full::new(Bytes::copy_from_slice(&compressed[..compressed.len() - 1]));
        let response = encoded(name, cut());
        let response = through(all(), Method::GET, response).await;
        let error = response.into_body().collect().await.expect_err("cut short");
        let found = cause_ref::<DecompressionError>(error.as_ref());
        assert!(matches!(found, Some(DecompressionError::Truncated { .. })));

        let trailers = || std::future::ready(Some(Ok(HeaderMap::new())));
        let response = encoded(name, cut().with_trailers(trailers()));
        let response = through(all(), Method::GET, response).await;
        let error = response.into_body().collect().await.expect_err("cut short");
        let found = cause_ref::<DecompressionError>(error.as_ref());
        assert!(matches!(found, Some(DecompressionError::Truncated { .. })));

        // Even when all is here: the body has not ended well.
        let (feed, body) = Feed::new();
        feed.data(compressed.clone());
        feed.fail("reset");
        let response = through(all(), Method::GET, encoded(name, body));
        let error = response
            .await
            .into_body()
            .collect()
            .await
            .expect_err("reset");
        assert_eq!(error.to_string(), "reset");
    }
}

// B30: gzip and zlib have checksums. A flipped bit may be one that means nothing (the time in a gzip header), but what is
// decoded is either right or an error.
#[tokio::test]
async fn a_flipped_bit_never_gives_other_content() {
    let content = document(60);
    for (name, compressed) in [("gzip", gzip(&content)), ("deflate", zlib(&content))] {
        let mut errors = 0;
        for bit in 0..compressed.len() * 8 {
            let mut flipped = compressed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            match read(name, &flipped).await {
                Ok(decoded) => assert_eq!(decoded, content, "{name}, bit {bit}"),
                Err(_) => errors += 1,
            }
        }
        assert!(errors > compressed.len() * 6, "{name}: {errors}");
    }
    // Brotli has none: it decodes to something, or fails.
    let compressed = brotli(&content);
    for bit in 0..compressed.len() * 8 {
        let mut flipped = compressed.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let layer = all().max_bytes(1 << 16);
        let _ = read_frames(layer, "br", vec![flipped.into()]).await;
    }
}

// B30
#[tokio::test]
async fn a_wrong_checksum_or_length_is_an_error() {
    let content = document(500);
    for (name, encode, trailer) in [("gzip", gzip as Encode, 8), ("deflate", zlib, 4)] {
        let compressed = encode(&content);
        for at in compressed.len() - trailer..compressed.len() {
            let mut wrong = compressed.clone();
            wrong[at] ^= 0x40;
            let error = read(name, &wrong).await.expect_err("a wrong checksum");
            assert!(
                matches!(error, DecompressionError::Corrupt { .. }),
                "{error:?}"
            );
        }
    }
}

// B28, B30
#[tokio::test]
async fn what_follows_the_compressed_data_is_an_error() {
    for (name, encode) in CODINGS {
        let compressed = Bytes::from(encode(b"{}"));
        for garbage in [&b"x"[..], b"\0", b"\0\0\0\0\0\0\0\0\0\0", b"{}"] {
            let garbage = Bytes::from_static(garbage);
            for parts in [
                vec![[&compressed[..], &garbage].concat().into()],
                vec![compressed.clone(), garbage.clone()],
                vec![compressed.clone(), Bytes::new(), garbage.clone()],
            ] {
                let decoded = read_frames(all(), name, parts).await;
                let error = decoded.expect_err("garbage");
                assert!(
                    matches!(error, DecompressionError::Trailing { .. }),
                    "{name}, {garbage:?}: {error:?}"
                );
            }
        }
        // Empty frames are nothing.
        let parts = vec![compressed.clone(), Bytes::new(), Bytes::new()];
        let decoded = read_frames(all(), name, parts).await;
        assert_eq!(decoded.expect("whole"), "{}");
    }
    // What begins like another member has to be one.
    let member = gzip(b"{}");
    let error = read("gzip", &[&member[..], b"\x1f"].concat()).await;
    let error = error.expect_err("cut short");
    assert!(
        matches!(error, DecompressionError::Truncated { .. }),
        "{error:?}"
    );
    let error = read("gzip", &[&member[..], b"\x1fx"].concat()).await;
    let error = error.expect_err("no member");
    assert!(
        matches!(error, DecompressionError::Corrupt { .. }),
        "{error:?}"
    );
    // For the others it is not.
    for (name, encode) in [("deflate", zlib as Encode), ("br", brotli)] {
        let twice = [encode(b"{}"), encode(b"{}")].concat();
        let error = read(name, &twice).await.expect_err("twice");
        assert!(
            matches!(error, DecompressionError::Trailing { .. }),
            "{error:?}"
        );
    }
}

// B30
#[tokio::test]
async fn a_body_that_is_not_what_it_says_is_an_error() {
    let text = br#"{"a":1,"text":"plain, whatever the head says"}"#;
    for (says, body) in [
        ("gzip", text.to_vec()),
        ("deflate", text.to_vec()),
        ("br", text.to_vec()),
        ("gzip", zlib(text)),
        ("gzip", brotli(text)),
        ("deflate", gzip(text)),
        ("deflate", brotli(text)),
        ("br", gzip(text)),
        ("deflate", raw_deflate(text)),
    ] {
        match read(says, &body).await {
            Err(DecompressionError::Corrupt { coding, source }) => {
                assert_eq!(coding.to_string(), says);
                assert!(!source.to_string().is_empty());
            }
            other => panic!("{says}: {other:?}"),
        }
    }
}

// B30: RFC 7932 §9.1 has no such window; decoders that know it would hold up to a gigabyte.
#[tokio::test]
async fn a_window_beyond_the_rfc_is_refused() {
    for first in [0x11_u8, 0x91] {
        for parts in [
            vec![Bytes::copy_from_slice(&[first, 30, 0, 0, 0, 0])],
            vec![
                Bytes::new(),
                Bytes::copy_from_slice(&[first]),
                Bytes::from_static(&[30]),
            ],
        ] {
            let error = read_frames(all(), "br", parts).await;
            match error.expect_err("too large a window") {
                DecompressionError::Corrupt { source, .. } => {
                    assert!(source.to_string().contains("window"), "{source}");
                }
                other => panic!("{other:?}"),
            }
        }
    }
    // The largest that there is.
    let body = flushed_brotli(&[&document(1000)], 24).concat();
    assert_eq!(read("br", &body).await.expect("whole"), document(1000));
}
