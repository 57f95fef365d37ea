//! Under a merge: a compressed part is a part like any other.

use bytes::Bytes;
use http::Response;
use http_body_util::{BodyExt, Full};
use tower::{Layer, ServiceExt};
use watershed::decompression::DecompressionError;
use watershed::error::cause_ref;
use watershed::merge::{FirstSuccess, JsonMerge, merge_parts};
use watershed::outcome::Branch;
use watershed::test_util::{Reply, Scripted};

use crate::coding::{CODINGS, MIB, brotli, brotli_bomb, document, gzip, gzip_bomb};
use crate::common::all;
use crate::support::{HttpBranch, ask, get, merged};

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
