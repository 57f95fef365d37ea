//! `--decompress`: branches whose answers are compressed, and what it costs if they lie.

use crate::NOISE;
use crate::backend::{Backend, answer};
use crate::coding::{brotli, gzip, gzip_bomb, zlib};
use crate::process::{Gateway, Run};

const A: &str = r#"{"a":1}"#;

fn coded(coding: &str, body: Vec<u8>) -> Backend {
    let coding = format!("Content-Encoding: {coding}");
    let fields = ["Content-Type: application/json", &*coding];
    Backend::answers(answer("200 OK", &fields, body))
}

/// Behind `/part` the compressed one beside a plain one, behind `/all` alone, behind `/first` alone and as it is.
async fn gateway(compressed: &Backend, plain: &Backend) -> Gateway {
    Run::new()
        .route("/part")
        .branch("plain", plain, "/")
        .branch("z", compressed, "/")
        .flag("decompress", "z")
        .flag("timeout", "15s")
        .route("/all")
        .branch("z", compressed, "/")
        .flag("decompress", "z")
        .route("/first")
        .branch("z", compressed, "/")
        .flag("decompress", "z")
        .flag("merge", "first")
        .start()
        .await
}

#[tokio::test]
async fn a_compressed_answer_is_merged() {
    let plain = Backend::json("{}");
    for (coding, body) in [
        ("gzip", gzip(A.as_bytes())),
        ("x-gzip", gzip(A.as_bytes())),
        ("deflate", zlib(A.as_bytes())),
    ] {
        let compressed = coded(coding, body);
        let gateway = gateway(&compressed, &plain).await;
        let merged = r#"{"plain":{},"z":{"a":1}}"#;
        gateway.get("/part").await.complete(merged);
        gateway.get("/all").await.complete(r#"{"z":{"a":1}}"#);
        let first = gateway.get("/first").await;
        first.complete(A);
        assert_eq!(first.field("content-encoding"), None, "{first:?}");
        for request in compressed.requests() {
            assert_eq!(request.field("accept-encoding"), Some("gzip"));
        }
    }
    // Only the branch that is named is asked for it.
    for request in plain.requests() {
        assert_eq!(request.field("accept-encoding"), None);
    }
}

// B30: what a gibibyte decodes to is not waited for, nor made.
#[tokio::test]
async fn a_bomb_costs_its_part_and_no_more() {
    let bomb = coded("gzip", gzip_bomb(1024));
    let gateway = gateway(&bomb, &Backend::json(A)).await;
    let (answer, elapsed) = gateway.timed("/part").await;
    answer.incomplete(r#"{"plain":{"a":1}}"#);
    // Its timeout is far away; decoding it all takes longer, too.
    assert!(elapsed < NOISE, "{elapsed:?}");
    gateway.get("/all").await.merge_problem(502);
    gateway.get("/first").await.merge_problem(502);
    // Given up, not read to its end and used again.
    bomb.until(|record| record.connections == 3).await;
    gateway
        .get("/part")
        .await
        .incomplete(r#"{"plain":{"a":1}}"#);
}

// B30: the budget is of decoded bytes, to the byte.
#[tokio::test]
async fn the_budget_is_that_of_a_plain_answer() {
    let size = 20 * 1024;
    let text = |size: usize| format!("\"{}\"", "x".repeat(size - 2));
    for (size, fits) in [(size, true), (size + 1, false)] {
        let compressed = coded("gzip", gzip(text(size).as_bytes()));
        let mut run = Run::new();
        for merge in ["group", "first"] {
            run = run
                .route(&format!("/{merge}"))
                .branch("z", &compressed, "/")
                .flag("decompress", "z")
                .flag("merge", merge)
                .flag("max-response-body", "20KiB");
        }
        let gateway = run.start().await;
        for merge in ["group", "first"] {
            let answer = gateway.get(&format!("/{merge}")).await;
            match fits {
                true => assert_eq!(answer.status, 200, "{merge}"),
                false => drop(answer.merge_problem(502)),
            }
        }
    }
}

// B27, B30
#[tokio::test]
async fn an_answer_that_can_not_be_decoded_is_a_failure() {
    let whole = gzip(br#"{"k":"UPSTREAM"}"#);
    let behind = [&*whole, b"UPSTREAM"].concat();
    let mut flipped = whole.clone();
    let checksum = flipped.len() - 8;
    flipped[checksum] ^= 1;
    for (name, hostile) in [
        ("cut short", coded("gzip", whole[..whole.len() - 1].into())),
        ("its head only", coded("gzip", whole[..10].into())),
        ("a wrong checksum", coded("gzip", flipped)),
        ("text behind it", coded("gzip", behind)),
        ("another coding", coded("deflate", whole.clone())),
        ("no coding", coded("gzip", br#"{"k":"UPSTREAM"}"#.into())),
    ] {
        let gateway = gateway(&hostile, &Backend::json(A)).await;
        let part = gateway.get("/part").await;
        assert_eq!(part.text(), r#"{"plain":{"a":1}}"#, "{name}");
        part.incomplete(r#"{"plain":{"a":1}}"#);
        for target in ["/all", "/first"] {
            let answer = gateway.get(target).await;
            assert_eq!(answer.status, 502, "{name}: {answer:?}");
            answer.merge_problem(502);
        }
    }
    // One that nobody asked for, or twice: no plain document for a merge.
    for (coding, body) in [
        ("br", brotli(A.as_bytes())),
        ("gzip, gzip", gzip(&gzip(A.as_bytes()))),
    ] {
        let gateway = gateway(&coded(coding, body), &Backend::json(A)).await;
        let part = gateway.get("/part").await;
        assert_eq!(part.text(), r#"{"plain":{"a":1}}"#, "{coding}");
        part.incomplete(r#"{"plain":{"a":1}}"#);
        gateway.get("/all").await.merge_problem(502);
    }
}
