//! Parts in another shape: target, allow, deny, rename, group.

use serde_json::json;
use tower::Layer;
use watershed::merge::{Conflict, JsonMerge, JsonPartLayer};
use watershed::outcome::Branch;
use watershed::test_util::{Reply, Scripted};

use crate::common::answer;
use crate::support::Answer;

/// The answer of one shaped branch, in the object mode.
async fn shaped(layer: JsonPartLayer, document: &str) -> Answer {
    shaped_in(JsonMerge::object(), layer, document).await
}

async fn shaped_in(merge: JsonMerge, layer: JsonPartLayer, document: &str) -> Answer {
    let reply = Reply::json(document.to_owned());
    answer(
        merge,
        [Branch::http("x", layer.layer(Scripted::reply(reply)))],
    )
    .await
}

// L52
#[tokio::test]
async fn target_takes_what_is_there() {
    let document = r#"{"a":{"b":{"c": {"d" : 1} ,"e":2}},"f":[{"g":3}],"h":4,"i":null}"#;
    for (target, merged, grouped) in [
        (
            "a",
            r#"{"b":{"c": {"d" : 1} ,"e":2}}"#,
            r#"{"b":{"c": {"d" : 1} ,"e":2}}"#,
        ),
        ("a.b.c", r#"{"d" : 1}"#, r#"{"d" : 1}"#),
        // There is nothing of that name.
        ("x", "{}", "{}"),
        ("a.x", "{}", "{}"),
        ("a.b.c.d.e", "{}", "{}"),
        ("f.g", "{}", "{}"),
        ("f.0", "{}", "{}"),
        ("h.x", "{}", "{}"),
        // It is no object: it adds nothing to a union, and stands as it is elsewhere.
        ("h", "{}", "4"),
        ("f", "{}", r#"[{"g":3}]"#),
        ("a.b.e", "{}", "2"),
    ] {
        let layer = || JsonPartLayer::new().target(target);
        shaped(layer(), document)
            .await
            .assert_document(merged, true);
        shaped_in(JsonMerge::group(), layer(), document)
            .await
            .assert_document(&format!(r#"{{"x":{grouped}}}"#), true);
        shaped_in(JsonMerge::array(), layer(), document)
            .await
            .assert_document(&format!("[{grouped}]"), true);
        shaped(layer().group("g"), document)
            .await
            .assert_document(&format!(r#"{{"g":{grouped}}}"#), true);
    }
}

// L52
#[tokio::test]
async fn deny_leaves_out_siblings_and_what_is_deep() {
    let document = r#"{"a":{"b":1,"c":{"d":2,"e":3}},"f":[{"a":4}],"g":5}"#;
    for (paths, left) in [
        (
            &["g"][..],
            r#"{"a":{"b":1,"c":{"d":2,"e":3}},"f":[{"a":4}]}"#,
        ),
        (&["a", "f"], r#"{"g":5}"#),
        (
            &["a.b", "a.c.e"],
            r#"{"a":{"c":{"d":2}},"f":[{"a":4}],"g":5}"#,
        ),
        (&["a.c"], r#"{"a":{"b":1},"f":[{"a":4}],"g":5}"#),
        (
            &["a.c.d", "a.c.e"],
            r#"{"a":{"b":1,"c":{}},"f":[{"a":4}],"g":5}"#,
        ),
        (&["a", "a.b"], r#"{"f":[{"a":4}],"g":5}"#),
        // What is not there, or leads into an array or a number.
        (&["x", "a.x", "a.b.x", "f.a", "g.a"], document),
        (&[], document),
    ] {
        for layer in [
            JsonPartLayer::new().deny(paths.iter().copied()),
            paths
                .iter()
                .fold(JsonPartLayer::new(), |layer, path| layer.deny([*path])),
        ] {
            shaped(layer, document).await.assert_document(left, true);
        }
    }
}

// L52
#[tokio::test]
async fn allow_keeps_only_what_it_names_with_the_objects_on_the_way() {
    let document = r#"{"a":{"b":1,"c":{"d":2,"e":3}},"f":[{"a":4}],"g":5}"#;
    for (paths, left) in [
        (&["g"][..], r#"{"g":5}"#),
        (&["g", "a"], r#"{"a":{"b":1,"c":{"d":2,"e":3}},"g":5}"#),
        (&["a.c.d"], r#"{"a":{"c":{"d":2}}}"#),
        (&["a.b", "a.c.e", "g"], r#"{"a":{"b":1,"c":{"e":3}},"g":5}"#),
        (&["a", "a.b"], r#"{"a":{"b":1,"c":{"d":2,"e":3}}}"#),
        (&["a.x"], r#"{"a":{}}"#),
        (&["f.a", "g.x", "x"], "{}"),
        (&["f"], r#"{"f":[{"a":4}]}"#),
        (&[], "{}"),
    ] {
        let layer = JsonPartLayer::new().allow(paths.iter().copied());
        shaped(layer, document).await.assert_document(left, true);
    }
}

// L52
#[tokio::test]
async fn rename_is_for_the_top_level_only() {
    let document = r#"{"a":{"a":1,"b":2},"b":3}"#;
    let layer = JsonPartLayer::new;
    for (layer, left) in [
        (layer().rename("a", "x"), r#"{"x":{"a":1,"b":2},"b":3}"#),
        (
            layer().rename("a", "b").rename("b", "a"),
            r#"{"b":{"a":1,"b":2},"a":3}"#,
        ),
        (
            layer().rename("a", "x").rename("x", "y"),
            r#"{"x":{"a":1,"b":2},"b":3}"#,
        ),
        (layer().rename("x", "y"), document),
        (layer().rename("a.b", "y"), document),
        (layer().rename("a", "x.y"), r#"{"x.y":{"a":1,"b":2},"b":3}"#),
        (
            layer().rename("b", "é\"\n"),
            r#"{"a":{"a":1,"b":2},"é\"\n":3}"#,
        ),
        // Two of one name: the later one wins, as any duplicate does.
        (layer().rename("a", "b"), r#"{"b":3}"#),
    ] {
        shaped(layer, document).await.assert_document(left, true);
    }
}

// L52
#[tokio::test]
async fn the_steps_apply_in_their_order_whatever_that_of_the_calls() {
    let document = r#"{"data":{"user":{"id":7,"name":"Ada","age":36,"password":"x","address":{"city":"London","door":1}},"other":1}}"#;
    let one = JsonPartLayer::new()
        .target("data.user")
        .allow(["id", "name", "password", "address"])
        .deny(["password", "address.door"])
        .rename("id", "userId")
        .group("profile");
    let other = JsonPartLayer::new()
        .group("profile")
        .rename("id", "userId")
        .deny(["address.door", "password"])
        .allow(["address", "password", "name", "id"])
        .target("data.user");
    let left = r#"{"profile":{"userId":7,"name":"Ada","address":{"city":"London"}}}"#;
    for layer in [one, other] {
        shaped(layer.clone(), document)
            .await
            .assert_document(left, true);
        shaped_in(JsonMerge::group(), layer.clone(), document)
            .await
            .assert_document(left, true);
        shaped_in(JsonMerge::array(), layer, document)
            .await
            .assert_document(&format!("[{left}]"), true);
    }
    // Deny wins over allow; both know members by the names that they came with.
    let layer = JsonPartLayer::new()
        .allow(["id"])
        .deny(["id"])
        .rename("id", "x");
    shaped(layer, r#"{"id":1,"x":2}"#)
        .await
        .assert_document("{}", true);
}

// B34
#[tokio::test]
async fn names_are_compared_by_what_they_mean_and_dots_are_no_paths_in_a_document() {
    for (layer, document, left) in [
        (
            JsonPartLayer::new().deny(["a"]),
            r#"{"\u0061":1,"b":2}"#,
            r#"{"b":2}"#,
        ),
        (
            JsonPartLayer::new().allow(["é"]),
            r#"{"\u00e9":1,"b":2}"#,
            r#"{"\u00e9":1}"#,
        ),
        (
            JsonPartLayer::new().rename("a", "c"),
            r#"{"\u0061":1}"#,
            r#"{"c":1}"#,
        ),
        (
            JsonPartLayer::new().target("a"),
            r#"{"\u0061":{"b":1}}"#,
            r#"{"b":1}"#,
        ),
        (
            JsonPartLayer::new().deny(["a.b"]),
            r#"{"a.b":1,"a":{"b":2,"c":3}}"#,
            r#"{"a.b":1,"a":{"c":3}}"#,
        ),
        (
            JsonPartLayer::new().allow(["a.b"]),
            r#"{"a.b":1,"a":{"b":2,"c":3}}"#,
            r#"{"a":{"b":2}}"#,
        ),
        (
            JsonPartLayer::new().target("a.b"),
            r#"{"a.b":{"x":1}}"#,
            "{}",
        ),
        (
            JsonPartLayer::new().deny(["__proto__"]),
            r#"{"__proto__":1,"constructor":2}"#,
            r#"{"constructor":2}"#,
        ),
    ] {
        shaped(layer, document).await.assert_document(left, true);
    }
}

// B34
#[tokio::test]
async fn the_last_duplicate_is_the_one_that_is_meant() {
    for (layer, document, meant) in [
        (
            JsonPartLayer::new().target("a"),
            r#"{"a":{"x":1},"a":{"y":2}}"#,
            json!({"y": 2}),
        ),
        (
            JsonPartLayer::new().target("a.x"),
            r#"{"a":{"x":{"z":1}},"a":{"y":2}}"#,
            json!({}),
        ),
        (
            JsonPartLayer::new().deny(["a"]),
            r#"{"a":1,"b":2,"\u0061":3}"#,
            json!({"b": 2}),
        ),
        (
            JsonPartLayer::new().deny(["a.b"]),
            r#"{"a":{"b":1},"a":{"b":2,"c":3}}"#,
            json!({"a": {"c": 3}}),
        ),
        (
            JsonPartLayer::new().allow(["a.b"]),
            r#"{"a":1,"a":{"b":2}}"#,
            json!({"a": {"b": 2}}),
        ),
        // The first one is no more part of the document than if it were not there.
        (
            JsonPartLayer::new().allow(["a.b"]),
            r#"{"a":{"b":2},"a":1}"#,
            json!({}),
        ),
        (
            JsonPartLayer::new().allow(["a.b.c"]),
            r#"{"a":{"b":{"c":2},"b":1}}"#,
            json!({"a": {}}),
        ),
        (
            JsonPartLayer::new().rename("a", "c"),
            r#"{"a":1,"b":2,"a":3}"#,
            json!({"b": 2, "c": 3}),
        ),
    ] {
        let answer = shaped(layer, document).await;
        assert_eq!(answer.json(), meant, "{document}");
    }
}

#[test]
fn paths_have_no_empty_names() {
    for path in ["", ".", "a.", ".a", "a..b"] {
        let builders: [fn(&str) -> JsonPartLayer; 3] = [
            |path| JsonPartLayer::new().target(path),
            |path| JsonPartLayer::new().allow([path]),
            |path| JsonPartLayer::new().deny([path]),
        ];
        for build in builders {
            assert!(
                std::panic::catch_unwind(|| build(path)).is_err(),
                "{path:?}"
            );
        }
    }
}

// L18
#[tokio::test]
async fn groups_take_the_place_of_the_names() {
    let grouped = |name: &str, key: &str, reply: Reply| {
        Branch::http(
            name,
            JsonPartLayer::new()
                .group(key)
                .layer(Scripted::reply(reply)),
        )
    };
    for merge in [JsonMerge::object(), JsonMerge::group()] {
        let branches = [
            grouped("x", "a", Reply::json("{\"k\":1}")),
            grouped("y", "b", Reply::json("[2]")),
        ];
        answer(merge.clone(), branches)
            .await
            .assert_document(r#"{"a":{"k":1},"b":[2]}"#, true);
        // An empty part is an empty group.
        let branches = [grouped("x", "a\"", Reply::status(204))];
        answer(merge.clone(), branches)
            .await
            .assert_document(r#"{"a\"":null}"#, true);
        // One group for two is a conflict like any other.
        let branches = || {
            [
                grouped("x", "g", Reply::json(r#"{"k":1,"l":{"m":2}}"#)),
                grouped("y", "g", Reply::json(r#"{"k":3,"l":{"n":4}}"#)),
            ]
        };
        for (policy, document) in [
            (Conflict::First, r#"{"g":{"k":1,"l":{"m":2}}}"#),
            (Conflict::Last, r#"{"g":{"k":3,"l":{"n":4}}}"#),
            (Conflict::Deep, r#"{"g":{"k":3,"l":{"m":2,"n":4}}}"#),
        ] {
            answer(merge.clone().on_conflict(policy), branches())
                .await
                .assert_document(document, true);
        }
        let problem = answer(merge.on_conflict(Conflict::Error), branches())
            .await
            .assert_problem(502);
        assert_eq!(
            (&problem["first"], &problem["second"]),
            (&json!("x"), &json!("y"))
        );
    }
}

// B32
#[tokio::test]
async fn shaping_does_not_lift_the_budgets() {
    let document = r#"{"keep":1,"drop":[1,2,3,4,5,6,7,8,9]}"#;
    let layer = JsonPartLayer::new().deny(["drop"]);
    for merge in [
        JsonMerge::object().max_nodes(5),
        JsonMerge::object().max_bytes(20),
        JsonMerge::object().max_depth(1),
    ] {
        shaped_in(merge, layer.clone(), document)
            .await
            .assert_problem(502);
    }
    shaped(layer, document)
        .await
        .assert_document(r#"{"keep":1}"#, true);
}
