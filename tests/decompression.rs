//! Compressed answers: what is decoded, what is left alone, and what a broken or hostile one comes to.
#![cfg(feature = "decompression")]

#[path = "support/coding.rs"]
mod coding;
mod support;

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, ServiceExt, service_fn};
use watershed::decompression::{Coding, DecompressionBody, DecompressionError, DecompressionLayer};
use watershed::error::{BoxError, cause_ref};
use watershed::merge::{FirstSuccess, JsonMerge, merge_parts};
use watershed::outcome::Branch;
use watershed::test_util::{Reply, Scripted};

use coding::{
    CODINGS, Encode, MIB, brotli, brotli_bomb, document, flushed_brotli, flushed_gzip,
    flushed_zlib, gzip, gzip_bomb, raw_deflate, zlib,
};
use support::{FedBody, Feed, HttpBranch, ask, get, merged, on_paused_clock};

/// What the layer makes of `response`.
async fn through<B>(
    layer: DecompressionLayer,
    method: Method,
    response: Response<B>,
) -> Response<DecompressionBody<B>>
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let mut response = Some(response);
    let service = layer.layer(service_fn(move |_: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(response.take().expect("one call")))
    }));
    let request = Request::builder().method(method).body(());
    let Ok(response) = service.oneshot(request.expect("a request")).await;
    response
}

fn encoded<B>(coding: &str, body: B) -> Response<B> {
    let response = Response::builder().header("content-encoding", coding);
    response.body(body).expect("a response")
}

fn frames(parts: Vec<Bytes>) -> impl Body<Data = Bytes, Error = Infallible> + Unpin {
    let frames = parts.into_iter().map(|part| Ok(Frame::data(part)));
    StreamBody::new(futures_util::stream::iter(frames))
}

/// Every coding, brotli among them.
fn all() -> DecompressionLayer {
    DecompressionLayer::new().with(Coding::Brotli)
}

/// Reads `parts`, one frame each, as a body in `coding`.
async fn read_frames(
    layer: DecompressionLayer,
    coding: &str,
    parts: Vec<Bytes>,
) -> Result<Bytes, DecompressionError> {
    let response = through(layer, Method::GET, encoded(coding, frames(parts))).await;
    let mut body = response.into_body();
    let mut read = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame {
            Ok(frame) => {
                let data = frame.into_data().expect("data");
                assert!(!data.is_empty() && data.len() <= 4096, "{}", data.len());
                read.extend_from_slice(&data);
            }
            Err(error) => {
                assert!(body.is_end_stream());
                assert_eq!(body.size_hint().exact(), Some(0));
                assert!(body.frame().await.is_none());
                return Err(*error.downcast().expect("an error of decoding"));
            }
        }
    }
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
    Ok(read.into())
}

async fn read(coding: &str, compressed: &[u8]) -> Result<Bytes, DecompressionError> {
    let whole = vec![Bytes::copy_from_slice(compressed)];
    read_frames(all(), coding, whole).await
}

/// A body that makes its frames on the spot and counts them.
struct Endless {
    frame: Bytes,
    given: Arc<AtomicUsize>,
}

impl Endless {
    fn new(frame: impl Into<Bytes>) -> (Self, Arc<AtomicUsize>) {
        let given = Arc::new(AtomicUsize::new(0));
        let body = Self {
            frame: frame.into(),
            given: Arc::clone(&given),
        };
        (body, given)
    }
}

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.given.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.frame.clone()))))
    }
}

mod head {
    use super::*;

    // B30
    #[tokio::test]
    async fn the_branch_is_asked_for_what_can_be_decoded() {
        for (accept, range, layer, asked) in [
            (&[][..], None, all(), "gzip, br"),
            (&[], None, DecompressionLayer::new(), "gzip"),
            (&["zstd", "gzip;q=0"], None, all(), "gzip, br"),
            (&["br"], Some("bytes=0-9"), all(), "identity"),
            (&["br"], None, all().without(Coding::Brotli), "gzip"),
        ] {
            let service = Scripted::reply(Reply::status(200));
            let mut request = Request::get("/");
            for line in accept {
                request = request.header("accept-encoding", *line);
            }
            if let Some(range) = range {
                request = request.header("range", range);
            }
            let request = request.body(Empty::<Bytes>::new()).expect("a request");
            let answer = layer.layer(service.clone()).oneshot(request).await;
            assert!(answer.is_ok());
            let calls = service.calls();
            let lines: Vec<_> = calls[0].headers.get_all("accept-encoding").iter().collect();
            assert_eq!(lines, [asked]);
        }
    }

    // B30
    #[tokio::test]
    async fn brotli_keeps_its_label_unless_it_may_be_decoded() {
        let compressed = brotli(b"{}");
        for (layer, label) in [(DecompressionLayer::new(), Some("br")), (all(), None)] {
            let response = encoded("br", Full::new(Bytes::from(compressed.clone())));
            let response = through(layer, Method::GET, response).await;
            let said = response.headers().get("content-encoding").cloned();
            assert_eq!(
                said.as_ref().map(|said| said.as_bytes()),
                label.map(str::as_bytes)
            );
            let body = response
                .into_body()
                .collect()
                .await
                .expect("whole")
                .to_bytes();
            assert_eq!(body == "{}", label.is_none());
        }
    }

    // B30
    #[tokio::test]
    async fn what_described_the_compressed_bytes_goes_and_the_rest_stays() {
        let compressed = gzip(b"{}");
        let mut response = encoded("GZip", Full::new(Bytes::from(compressed.clone())));
        let gone = [
            "accept-ranges",
            "content-md5",
            "digest",
            "content-digest",
            "repr-digest",
        ];
        for name in gone {
            response
                .headers_mut()
                .insert(name, "x".parse().expect("a value"));
        }
        for (name, value) in [
            ("content-length", compressed.len().to_string().as_str()),
            ("content-type", "application/json; charset=utf-8"),
            ("etag", "\"a\""),
            ("vary", "accept-encoding"),
            ("x-other", "1"),
        ] {
            response.headers_mut().insert(
                http::HeaderName::from_bytes(name.as_bytes()).expect("a name"),
                value.parse().expect("a value"),
            );
        }
        *response.status_mut() = StatusCode::NOT_FOUND;
        response.extensions_mut().insert(7_u8);
        let response = through(all(), Method::GET, response).await;
        assert_eq!(response.status(), 404);
        assert_eq!(response.extensions().get(), Some(&7_u8));
        let mut left: Vec<_> = response.headers().iter().collect();
        left.sort_by_key(|(name, _)| name.as_str());
        let left: Vec<_> = left
            .into_iter()
            .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")))
            .collect();
        assert_eq!(
            left,
            [
                ("content-type", "application/json; charset=utf-8"),
                ("etag", "W/\"a\""),
                ("vary", "accept-encoding"),
                ("x-other", "1"),
            ]
        );
        assert_eq!(
            response
                .into_body()
                .collect()
                .await
                .expect("whole")
                .to_bytes(),
            "{}"
        );
    }

    // B24, B30
    #[tokio::test]
    async fn what_is_not_decoded_passes_as_it_came() {
        let compressed = Bytes::from(gzip(b"{}"));
        for (status, lines) in [
            (200, &[][..]),
            (200, &["identity"]),
            (200, &["zstd"]),
            (200, &["gzip, br"]),
            (200, &["gzip", "gzip"]),
            (200, &["aes128gcm"]),
            (204, &["gzip"]),
            (206, &["gzip"]),
            (226, &["gzip"]),
        ] {
            let mut response = Response::builder().status(status).header("etag", "\"a\"");
            for line in lines {
                response = response.header("content-encoding", *line);
            }
            let length = compressed.len();
            let response = response.header("content-length", length);
            let response = response
                .body(Full::new(compressed.clone()))
                .expect("a response");
            let before = response.headers().clone();
            // Its bound is for what it decodes.
            let layer = all().max_bytes(1);
            let response = through(layer, Method::GET, response).await;
            assert_eq!(*response.headers(), before, "{status} {lines:?}");
            assert_eq!(response.size_hint().exact(), Some(length as u64));
            let body = response
                .into_body()
                .collect()
                .await
                .expect("whole")
                .to_bytes();
            assert_eq!(body, compressed, "{status} {lines:?}");
        }
    }

    // B24
    #[tokio::test]
    async fn the_answer_to_head_has_the_head_of_the_answer_to_get() {
        let head = |status: u16, body: &'static str| {
            let response = Response::builder().status(status);
            response
                .header("content-encoding", "gzip")
                .header("content-length", "20")
                .header("etag", "\"a\"")
                .body(Full::<Bytes>::from(body))
                .expect("a response")
        };
        for (method, status) in [(Method::HEAD, 200), (Method::HEAD, 404), (Method::GET, 304)] {
            let response = through(all(), method.clone(), head(status, "")).await;
            assert_eq!(response.headers().len(), 1);
            assert_eq!(response.headers()["etag"], "W/\"a\"");
            assert!(response.body().is_end_stream());
            assert_eq!(response.size_hint().exact(), Some(0));
            assert!(response.into_body().frame().await.is_none());
            // Nothing is to be decoded, whatever there is.
            let response = through(all(), method, head(status, "x")).await;
            assert_eq!(response.size_hint().exact(), Some(1));
            let body = response.into_body().collect().await.expect("whole");
            assert_eq!(body.to_bytes(), "x");
        }
    }
}

mod content {
    use super::*;

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
}

mod broken {
    use super::*;

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
}

mod bounds {
    use super::*;

    // B30
    #[tokio::test]
    async fn the_bound_is_exact() {
        let content = document(10_000);
        let exact = content.len() as u64;
        for (name, encode) in CODINGS {
            let whole = || vec![Bytes::from(encode(&content))];
            let layer = all().max_bytes(exact);
            assert_eq!(
                read_frames(layer, name, whole()).await.expect("within"),
                content
            );
            let layer = all().max_bytes(exact - 1);
            match read_frames(layer, name, whole()).await {
                Err(DecompressionError::TooLarge { limit }) => assert_eq!(limit, exact - 1),
                other => panic!("{name}: {other:?}"),
            }
        }
    }

    // B30
    #[tokio::test]
    async fn a_bomb_is_stopped_at_the_bound_and_read_no_further() {
        for (name, bomb) in [("gzip", gzip_bomb(64)), ("br", brotli_bomb(64))] {
            let bomb = Bytes::from(bomb);
            let (feed, body) = Feed::new();
            let parts = bomb.len().div_ceil(64);
            for at in 0..parts {
                feed.data(bomb.slice(at * 64..bomb.len().min(at * 64 + 64)));
            }
            let layer = all().max_bytes(100_000);
            let response = through(layer, Method::GET, encoded(name, body)).await;
            let mut body = response.into_body();
            let mut given = 0;
            let error = loop {
                match body.frame().await.expect("no end") {
                    Ok(frame) => given += frame.into_data().expect("data").len(),
                    Err(error) => break error,
                }
            };
            let found = cause_ref(error.as_ref());
            assert!(matches!(
                found,
                Some(DecompressionError::TooLarge { limit: 100_000 })
            ));
            assert!(
                given <= 100_000 && given > 100_000 - 4096,
                "{name}: {given}"
            );
            let needed = 2 + parts.div_ceil(64 * 10);
            assert!(
                feed.polls() <= needed,
                "{name}: {} of {parts} frames",
                feed.polls()
            );
        }
    }

    /// What may go on without end and without a byte of content: how it begins, and what follows again and again.
    fn nothing_without_end() -> [(&'static str, Vec<u8>, Vec<u8>); 6] {
        let gzip_start = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03".to_vec();
        let gzip_name = b"\x1f\x8b\x08\x08\x00\x00\x00\x00\x00\x03".to_vec();
        let stored_blocks = b"\x00\x00\x00\xff\xff".repeat(4096);
        let metadata = [&b"\xd6\x3f"[..], &[b'x'; 256]].concat();
        [
            ("gzip", gzip_start, stored_blocks.clone()),
            ("gzip", gzip_name, vec![b'x'; 20_000]),
            ("deflate", b"\x78\x9c".to_vec(), stored_blocks),
            // Metadata blocks without a byte, and with 256 of them (RFC 7932 §9.2).
            ("br", b"\x0c".to_vec(), b"\x06".repeat(20_000)),
            ("br", b"\x0c".to_vec(), metadata.repeat(64)),
            ("gzip", vec![], vec![]),
        ]
    }

    // B30: what is compressed to nothing still takes work. It is done in turns, and has an end.
    #[tokio::test]
    async fn a_poll_does_bounded_work_and_nothing_goes_on_for_ever() {
        for (name, start, again) in nothing_without_end() {
            let only_frames = again.is_empty();
            let (endless, given) = Endless::new(again);
            let body = Chained {
                first: Some(frames(vec![start.into()])),
                second: endless,
            };
            let layer = all().max_bytes(MIB as u64);
            let response = through(layer, Method::GET, encoded(name, body)).await;
            let mut body = task::spawn(response.into_body());
            let mut turns = 0;
            let end = loop {
                turns += 1;
                assert!(turns < 10_000, "{name}: it has no end");
                let before = given.load(Ordering::Relaxed);
                let polled = body.enter(|cx, body| body.poll_frame(cx));
                assert!(given.load(Ordering::Relaxed) - before <= 16, "{name}");
                match polled {
                    // Whoever else waits comes first.
                    Poll::Pending => assert!(body.is_woken()),
                    Poll::Ready(end) => break end,
                }
                // Frames without a byte are the transport's: nothing is decoded, and a timeout ends it.
                if only_frames && turns == 1000 {
                    return;
                }
            };
            assert!(turns > 4, "{name}: {turns}");
            let error = end.expect("no end").expect_err("too large");
            let found = cause_ref(error.as_ref());
            assert!(
                matches!(found, Some(DecompressionError::TooLarge { .. })),
                "{name}: {error}"
            );
        }
        unreachable!("the last one has no end");
    }

    /// One body behind another.
    struct Chained<A, B> {
        first: Option<A>,
        second: B,
    }

    impl<A, B> Body for Chained<A, B>
    where
        A: Body<Data = Bytes, Error = Infallible> + Unpin,
        B: Body<Data = Bytes, Error = Infallible> + Unpin,
    {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            if let Some(first) = &mut self.first {
                match Pin::new(first).poll_frame(cx) {
                    Poll::Ready(None) => self.first = None,
                    polled => return polled,
                }
            }
            Pin::new(&mut self.second).poll_frame(cx)
        }
    }
}

mod streaming {
    use super::*;

    fn pieces() -> [(&'static str, Vec<Vec<u8>>); 3] {
        let pieces: [&[u8]; 3] = [b"data: one\n\n", b"data: two\n\n", b"data: three\n\n"];
        [
            ("gzip", flushed_gzip(&pieces)),
            ("deflate", flushed_zlib(&pieces)),
            ("br", flushed_brotli(&pieces, 18)),
        ]
    }

    async fn fed(name: &str) -> (Feed, task::Spawn<DecompressionBody<FedBody>>) {
        let (feed, body) = Feed::announcing(1_000_000);
        let response = through(all(), Method::GET, encoded(name, body)).await;
        (feed, task::spawn(response.into_body()))
    }

    fn poll(
        body: &mut task::Spawn<DecompressionBody<FedBody>>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        body.enter(|cx, body| body.poll_frame(cx))
    }

    #[tokio::test]
    async fn what_was_flushed_is_given_before_more_is_waited_for() {
        for (name, pieces) in pieces() {
            let (feed, mut body) = fed(name).await;
            for (piece, content) in pieces.iter().zip(["one", "two", "three"]) {
                assert_pending!(poll(&mut body));
                feed.data(piece.clone());
                assert!(body.is_woken());
                let frame = assert_ready!(poll(&mut body))
                    .expect("a frame")
                    .expect("decoded");
                let data = frame.into_data().expect("data");
                assert_eq!(data, format!("data: {content}\n\n"), "{name}");
                // Nothing is said of a length that nobody knows.
                assert_eq!(
                    (body.size_hint().lower(), body.size_hint().upper()),
                    (0, None)
                );
                assert!(!body.is_end_stream());
            }
            feed.data(pieces[3].clone());
            assert_pending!(poll(&mut body));
            feed.end();
            assert!(body.is_woken());
            assert!(assert_ready!(poll(&mut body)).is_none());
            assert!(body.is_end_stream());
            assert_eq!(body.size_hint().exact(), Some(0));
        }
    }

    #[tokio::test]
    async fn it_ends_when_all_is_decoded_and_not_when_all_is_read() {
        for (name, encode) in CODINGS {
            let (feed, mut body) = fed(name).await;
            feed.data(encode(&document(10_000)));
            feed.end();
            let mut given = 0;
            while given < document(10_000).len() {
                assert!(!body.is_end_stream(), "{name}, at {given}");
                let frame = assert_ready!(poll(&mut body)).expect("a frame");
                given += frame.expect("decoded").into_data().expect("data").len();
            }
            assert!(assert_ready!(poll(&mut body)).is_none());
            assert!(body.is_end_stream());
        }
    }

    #[tokio::test]
    async fn trailers_pass_without_the_digests_of_other_bytes() {
        for (name, pieces) in pieces() {
            let (feed, mut body) = fed(name).await;
            feed.data(pieces.concat());
            feed.data("");
            let mut trailers = HeaderMap::new();
            for field in [
                "grpc-status",
                "content-digest",
                "repr-digest",
                "digest",
                "content-md5",
            ] {
                trailers.insert(field, "0".parse().expect("a value"));
            }
            feed.trailers(trailers);
            let frame = assert_ready!(poll(&mut body))
                .expect("a frame")
                .expect("decoded");
            assert_eq!(frame.into_data().expect("data").len(), 35);
            let frame = assert_ready!(poll(&mut body))
                .expect("a frame")
                .expect("decoded");
            let trailers = frame.into_trailers().expect("trailers");
            assert_eq!(trailers.len(), 1);
            assert_eq!(trailers["grpc-status"], "0");
            assert!(body.is_end_stream());
            assert!(assert_ready!(poll(&mut body)).is_none());
        }
    }

    #[tokio::test]
    async fn an_error_of_the_inner_body_passes_as_it_is() {
        #[derive(Debug, thiserror::Error)]
        #[error("mine")]
        struct Mine;
        for (name, pieces) in pieces() {
            let (feed, mut body) = fed(name).await;
            feed.data(pieces[0].clone());
            feed.fail(Mine);
            assert!(assert_ready!(poll(&mut body)).expect("a frame").is_ok());
            let error = assert_ready!(poll(&mut body))
                .expect("a frame")
                .expect_err("mine");
            assert!(error.is::<Mine>());
            assert!(body.is_end_stream());
            assert!(assert_ready!(poll(&mut body)).is_none());
            assert!(!feed.is_dropped());
            drop(body);
            assert!(feed.is_dropped());
        }
    }

    #[tokio::test]
    async fn a_body_that_is_not_decoded_passes_frame_by_frame() {
        let (feed, body) = Feed::announcing(3);
        let response = through(all(), Method::GET, Response::new(body)).await;
        let mut body = task::spawn(response.into_body());
        assert_eq!(body.size_hint().exact(), Some(3));
        feed.data("abc");
        let frame = assert_ready!(poll(&mut body))
            .expect("a frame")
            .expect("plain");
        assert_eq!(frame.into_data().expect("data"), "abc");
        assert_eq!(body.size_hint().exact(), Some(0));
        feed.fail("reset");
        let error = assert_ready!(poll(&mut body))
            .expect("a frame")
            .expect_err("reset");
        assert_eq!(error.to_string(), "reset");
        feed.end();
        assert!(body.is_end_stream());
    }

    /// It fits where a multithreaded server wants it.
    #[test]
    fn a_body_goes_where_its_inner_one_goes() {
        fn sends<T: Send + Unpin>() {}
        sends::<DecompressionBody<Full<Bytes>>>();
    }
}

mod stacks {
    use super::*;

    fn reply(coding: &'static str, body: Vec<u8>) -> Reply {
        Reply::json(body).header("content-encoding", coding)
    }

    fn branch(name: &str, reply: Reply) -> HttpBranch {
        Branch::http(name, all().layer(Scripted::reply(reply)))
    }

    // B30
    #[tokio::test]
    async fn compressed_parts_are_merged_as_plain_ones_are() {
        let merge = JsonMerge::group();
        let parts = [r#"{"id": 7.50}"#, "[1, 2]", "\"x\""];
        let compressed = CODINGS
            .iter()
            .zip(parts)
            .map(|((name, encode), part)| branch(name, reply(name, encode(part.as_bytes()))));
        let plain = branch("plain", Reply::json("{}"));
        let branches: Vec<_> = compressed.chain([plain]).collect();
        ask(&merged(merge, branches), get("/"))
            .await
            .assert_document(
                r#"{"gzip":{"id": 7.50},"deflate":[1, 2],"br":"x","plain":{}}"#,
                true,
            );
    }

    // B30: CVE-2024-28101. Compressed it is within the budget.
    #[tokio::test]
    async fn a_bomb_costs_its_branch_and_no_other() {
        let budget = 64 * 1024;
        for (name, bomb, good) in [
            ("gzip", gzip_bomb(60), gzip(b"1")),
            ("br", brotli_bomb(60), brotli(b"1")),
        ] {
            assert!(bomb.len() < budget, "{}", bomb.len());
            let merge = JsonMerge::group().max_bytes(budget).failure_details();
            let branches = [
                branch("bomb", reply(name, bomb)),
                branch("good", reply(name, good)),
            ];
            ask(&merged(merge, branches), get("/"))
                .await
                .assert_document(
                    r#"{"good":1,"error_bomb":{"reason":"larger than its budget"}}"#,
                    false,
                );
        }
    }

    // B30
    #[tokio::test]
    async fn the_reason_says_what_is_wrong() {
        let gzipped = || gzip(br#"{"a":1}"#);
        let large = document(4 * MIB);
        for (reply, reason) in [
            (
                reply("gzip", b"{}".to_vec()),
                "its body could not be decoded",
            ),
            (
                reply("gzip", gzipped()[..20].to_vec()),
                "its body could not be decoded",
            ),
            (
                reply("gzip", [gzipped(), b"x".to_vec()].concat()),
                "its body could not be decoded",
            ),
            (
                reply("gzip", gzipped()).frames([gzipped()]).then_fail(),
                "its body was cut short",
            ),
            (reply("gzip", gzip(&large)), "larger than its budget"),
            // Only the outer coding is undone.
            (reply("gzip", gzip(&gzipped())), "it is not JSON"),
            (reply("gzip", vec![]), "it is not JSON"),
            (
                reply("gzip, gzip", gzip(&gzipped())),
                "its content encoding was not asked for",
            ),
            (
                reply("zstd", gzipped()),
                "its content encoding was not asked for",
            ),
            (
                reply("gzip", gzipped()).header("content-encoding", "gzip"),
                "its content encoding was not asked for",
            ),
            (
                Reply::status(200)
                    .header("content-type", "application/json; charset=utf-16")
                    .header("content-encoding", "gzip")
                    .body(gzipped()),
                "its content type is not JSON",
            ),
        ] {
            let branches = [branch("x", reply), branch("good", Reply::json("1"))];
            let merge = JsonMerge::group().failure_details();
            let document = format!(r#"{{"good":1,"error_x":{{"reason":"{reason}"}}}}"#);
            ask(&merged(merge, branches), get("/"))
                .await
                .assert_document(&document, false);
        }
        // The layer's own bound, where that is the smaller one.
        let layer = all().max_bytes(6);
        let branches = [Branch::http(
            "x",
            layer.layer(Scripted::reply(reply("gzip", gzipped()))),
        )];
        let answer = ask(&merged(JsonMerge::group(), branches), get("/")).await;
        assert_eq!(
            answer.assert_problem(502)["branches"][0]["reason"],
            "larger than its budget"
        );
    }

    // B30
    #[tokio::test]
    async fn a_charset_and_a_coding_go_together() {
        let reply = Reply::status(200)
            .header("content-type", "application/json; charset=UTF-8")
            .header("content-encoding", "GZIP")
            .body(gzip("{\"a\":\"\u{e9}\"}".as_bytes()));
        ask(&merged(JsonMerge::object(), [branch("x", reply)]), get("/"))
            .await
            .assert_document("{\"a\":\"\u{e9}\"}", true);
    }

    #[tokio::test]
    async fn a_required_branch_keeps_its_status() {
        let reply = Reply::status(404)
            .header("content-encoding", "gzip")
            .body(gzip(b"no such user"));
        let branches = [branch("x", reply).required()];
        let answer = ask(&merged(JsonMerge::object(), branches), get("/")).await;
        assert_eq!(answer.assert_problem(404)["reason"], "status 404");
    }

    // B30
    #[tokio::test]
    async fn the_first_success_is_one_that_can_be_decoded() {
        let good = || {
            reply("br", brotli(b"{\"b\":2}"))
                .header("etag", "\"b\"")
                .header("content-length", "11")
        };
        for broken in [
            reply("gzip", b"{}".to_vec()),
            reply("gzip", gzip(b"{}")[..12].to_vec()),
            reply("gzip", gzip_bomb(2)),
        ] {
            let branches = [branch("broken", broken), branch("good", good())];
            let merge = FirstSuccess::new().collected(1000);
            let answer = ask(&merged(merge, branches), get("/")).await;
            assert_eq!((answer.status, &*answer.body), (200, "{\"b\":2}"));
            assert_eq!(answer.field("content-encoding"), None);
            assert_eq!(answer.field("content-length"), None);
            assert_eq!(answer.field("etag"), Some("W/\"b\""));
        }
        let answer = ask(
            &merged(FirstSuccess::new(), [branch("x", good())]),
            get("/"),
        )
        .await;
        assert_eq!((answer.status, &*answer.body), (200, "{\"b\":2}"));
        assert_eq!(answer.field("content-encoding"), None);
    }

    // B30: streamed, the layer's bound is the only one.
    #[tokio::test]
    async fn a_streamed_bomb_ends_with_an_error() {
        let bomb = Scripted::reply(reply("gzip", gzip_bomb(64)));
        let branches = [Branch::http("bomb", all().layer(bomb))];
        let service = merged(FirstSuccess::new(), branches);
        let response = service.oneshot(get("/")).await.expect("an answer");
        assert_eq!(response.status(), 200);
        let mut body = response.into_body();
        let mut given = 0;
        let error = loop {
            match body.frame().await.expect("no good end") {
                Ok(frame) => given += frame.into_data().expect("data").len(),
                Err(error) => break error,
            }
        };
        let found = cause_ref::<DecompressionError>(error.as_ref());
        assert!(matches!(found, Some(DecompressionError::TooLarge { .. })));
        assert!(given <= 16 * MIB && given > 15 * MIB, "{given}");
    }

    // B30
    #[tokio::test]
    async fn a_closure_is_given_decoded_bytes() {
        let merge = merge_parts(|_, parts| async move {
            let lengths = parts.iter().map(|part| match &part.result {
                Ok(response) => response.body().len().to_string(),
                Err(error) => error.to_string(),
            });
            Response::new(Full::<Bytes>::from(lengths.collect::<Vec<_>>().join(" ")))
        });
        let branches = [
            branch("a", reply("gzip", gzip(&vec![b' '; 10_000]))),
            branch("b", reply("br", brotli(&vec![b' '; 20_000]))),
        ];
        assert_eq!(
            ask(&merged(merge, branches), get("/")).await.body,
            "10000 20000"
        );
    }
}
