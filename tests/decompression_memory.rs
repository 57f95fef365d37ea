//! What a decompression bomb costs. A binary of its own: the counter sees every thread.
#![cfg(feature = "decompression")]

#[path = "support/coding.rs"]
mod coding;
mod support;

use std::alloc::System;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::{Layer, service_fn};
use watershed::clone_request::TeeBody;
use watershed::decompression::{Coding, DecompressionLayer};
use watershed::merge::JsonMerge;
use watershed::outcome::Branch;

use coding::{brotli, brotli_bomb, gzip, gzip_bomb};
use support::{HttpBranch, ask, get, merged};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const KIB: usize = 1024;
const BUDGET: usize = 64 * KIB;

/// Gives the bytes in frames of a kilobyte and counts what it has given.
struct Frames {
    bytes: Bytes,
    given: Arc<AtomicUsize>,
}

impl Body for Frames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.bytes.is_empty() {
            return Poll::Ready(None);
        }
        let len = self.bytes.len().min(KIB);
        self.given.fetch_add(len, Ordering::Relaxed);
        Poll::Ready(Some(Ok(Frame::data(self.bytes.split_to(len)))))
    }
}

fn branch(
    name: &str,
    coding: &'static str,
    bytes: impl Into<Bytes>,
    given: &Arc<AtomicUsize>,
) -> HttpBranch {
    let (bytes, given) = (bytes.into(), Arc::clone(given));
    let backend = service_fn(move |_: Request<TeeBody>| {
        let response = Response::builder().header("content-encoding", coding);
        let body = Frames {
            bytes: bytes.clone(),
            given: Arc::clone(&given),
        };
        std::future::ready(response.body(body))
    });
    let layer = DecompressionLayer::new().with(Coding::Brotli);
    Branch::http(name, layer.layer(backend))
}

/// One test, so that no other runs beside it.
// B30: CVE-2024-28101.
#[tokio::test]
async fn a_bomb_costs_its_budget_and_one_of_brotli_its_window_as_well() {
    for (coding, bomb, good, decoders) in [
        ("gzip", gzip_bomb(1024), gzip(b"[1]"), 2 * 64 * KIB),
        // It asks for the largest window, 16 MiB, which is doubled until it is that large. The other one needs none.
        ("br", brotli_bomb(1024), brotli(b"[1]"), 2 * 16 * KIB * KIB),
    ] {
        let compressed = bomb.len();
        assert!(
            compressed > 10 * KIB && compressed < 1100 * KIB,
            "{compressed}"
        );
        let (read, other) = Default::default();
        let branches = [
            branch("bomb", coding, bomb, &read),
            branch("good", coding, good, &other),
        ];
        let service = merged(JsonMerge::group().max_bytes(BUDGET), branches);
        let mut costs = Vec::new();
        for _ in 0..5 {
            let region = Region::new(ALLOCATOR);
            let answer = ask(&service, get("/")).await;
            costs.push(region.change().bytes_allocated);
            answer.assert_document(r#"{"good":[1]}"#, false);
        }
        // All that was ever allocated, freed or not: the decoders, the frames, and a buffer that grew to the budget.
        let cost = *costs.iter().min().expect("some");
        assert!(cost < 4 * BUDGET + decoders, "{coding}: {cost} bytes");
        // A thousandth of what it would have decoded is read, if that is a frame.
        let read = read.load(Ordering::Relaxed) / costs.len();
        assert!(read <= 2 * KIB, "{coding}: {read} bytes of {compressed}");
    }
}
