//! Shaped parts beside the same rules over values.

use proptest::prelude::*;
use serde_json::{Value, json};
use tower::Layer;
use watershed::merge::{JsonMerge, JsonPartLayer};
use watershed::outcome::Branch;
use watershed::test_util::{Reply, Scripted};

use super::{Doc, SPACES, object, parse};
use crate::support::{ask, get, merged};

/// Paths of a part's rules.
fn paths() -> impl Strategy<Value = Vec<String>> {
    let name = prop::sample::select(&["a", "b", "c", "é", "__proto__", "0"][..]);
    let path = prop::collection::vec(name, 1..4).prop_map(|names| names.join("."));
    prop::collection::vec(path, 0..4)
}

fn filter(value: Value, paths: &[&str], keep: bool) -> Value {
    let Value::Object(members) = value else {
        return value;
    };
    let members = members.into_iter().filter_map(|(name, value)| {
        // A name with a dot in it is no path.
        if !name.contains('.') && paths.contains(&&*name) {
            return keep.then_some((name, value));
        }
        let below: Vec<&str> = paths
            .iter()
            .filter_map(|path| path.split_once('.'))
            .filter(|(first, _)| *first == name)
            .map(|(_, rest)| rest)
            .collect();
        match (below.is_empty(), value.is_object()) {
            (false, true) => Some((name, filter(value, &below, keep))),
            _ => (!keep).then_some((name, value)),
        }
    });
    Value::Object(members.collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // L52
    /// A shaped part, beside the same rules over `serde_json`'s values.
    #[test]
    fn shaping_does_what_its_reference_does(
        members in object(),
        space in prop::sample::select(SPACES),
        target in prop::option::of(prop::sample::select(&["a", "b", "a.b", "b.a", "c.a.a"][..])),
        allow in prop::option::of(paths()),
        deny in paths(),
        rename in prop::option::of(Just(())),
    ) {
        let text = Doc::Object(members).spaced(space);
        let mut layer = JsonPartLayer::new();
        let mut expected = parse(&text);
        if let Some(path) = target {
            layer = layer.target(path);
            let found = path.split('.').try_fold(&expected, |value, name| value.as_object()?.get(name));
            expected = found.cloned().unwrap_or(json!({}));
        }
        if let Some(paths) = &allow {
            let paths: Vec<_> = paths.iter().map(String::as_str).collect();
            layer = layer.allow(paths.iter().copied());
            expected = filter(expected, &paths, true);
        }
        let paths: Vec<_> = deny.iter().map(String::as_str).collect();
        layer = layer.deny(paths.iter().copied());
        expected = filter(expected, &paths, false);
        if rename.is_some() {
            // Two change names, and one gets a new one.
            layer = layer.rename("a", "b").rename("b", "a").rename("c", "new");
            if let Value::Object(members) = expected {
                let renamed = members.into_iter().map(|(name, value)| match &*name {
                    "a" => ("b".to_owned(), value),
                    "b" => ("a".to_owned(), value),
                    "c" => ("new".to_owned(), value),
                    _ => (name, value),
                });
                expected = Value::Object(renamed.collect());
            }
        }
        let branches = [Branch::http("x", layer.layer(Scripted::reply(Reply::json(text))))];
        let answer = tokio_test::block_on(ask(&merged(JsonMerge::group(), branches), get("/")));
        prop_assert_eq!(answer.json(), json!({"x": expected}));
    }
}
