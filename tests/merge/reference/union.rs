//! Unions, groups and arrays: whose value stands, where, and with what text.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tower::Layer;
use watershed::merge::{Conflict, JsonMerge, JsonPartLayer};
use watershed::outcome::Branch;
use watershed::test_util::{Reply, Scripted};

use super::{Doc, Member, SPACES, backends, doc, meaning, merge_of, object, parse};
use crate::common::{self, answer, listed, optional};
use crate::support::{MS, ask, get, merged, on_paused_clock};

const POLICIES: [Conflict; 4] = [
    Conflict::First,
    Conflict::Last,
    Conflict::Deep,
    Conflict::Error,
];

/// The union of objects in declared order, or the place of the first that clashes with one before it.
fn union(policy: Conflict, parts: &[Vec<Member>]) -> Result<Vec<Member>, usize> {
    let mut united: Vec<Member> = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        // Within one part the last duplicate is the one that is meant.
        let last = |(index, (name, _)): &(usize, &Member)| {
            let later = part[index + 1..].iter();
            !later
                .map(|(other, _)| meaning(other))
                .any(|other| other == meaning(name))
        };
        let meant: Vec<_> = part.iter().enumerate().filter(last).collect();
        for (name, value) in meant.into_iter().map(|(_, member)| member.clone()) {
            let same = |(other, _): &Member| meaning(other) == meaning(name);
            let Some(known) = united.iter().position(same) else {
                united.push((name, value));
                continue;
            };
            match policy {
                Conflict::First => {}
                Conflict::Error => return Err(place),
                Conflict::Deep => {
                    let value = match (united.remove(known).1, value) {
                        (Doc::Object(under), Doc::Object(over)) => {
                            let both = union(policy, &[under, over]);
                            Doc::Object(both.expect("deep objects don't clash"))
                        }
                        (_, value) => value,
                    };
                    united.push((name, value));
                }
                _ => {
                    united.remove(known);
                    united.push((name, value));
                }
            }
        }
    }
    Ok(united)
}

type RawObject = BTreeMap<String, Box<RawValue>>;

fn raw_object(text: &str) -> RawObject {
    serde_json::from_str(text).expect("an object")
}

/// `serde_json`'s own idea of a deep union.
fn deep(under: Value, over: Value) -> Value {
    match (under, over) {
        (Value::Object(mut under), Value::Object(over)) => {
            for (name, value) in over {
                let value = match under.remove(&name) {
                    Some(known) => deep(known, value),
                    None => value,
                };
                under.insert(name, value);
            }
            Value::Object(under)
        }
        (_, over) => over,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    // L15, L16, L53, B34
    /// Documents without white space: the answer is known to the byte, the places of its members included.
    #[test]
    fn a_union_is_what_its_reference_is_byte_for_byte(
        parts in prop::collection::vec(object(), 1..5),
        cut in 0..40usize,
    ) {
        let texts: Vec<_> = parts.iter().map(|part| Doc::Object(part.clone()).text()).collect();
        for policy in POLICIES {
            let answer = merge_of(JsonMerge::object().on_conflict(policy), &texts, cut);
            match union(policy, &parts) {
                Ok(united) => {
                    prop_assert_eq!(answer.status, 200);
                    prop_assert!(answer.complete());
                    prop_assert_eq!(answer.body, Doc::Object(united).text());
                }
                Err(second) => {
                    let problem = answer.assert_problem(502);
                    prop_assert_eq!(&problem["second"], &json!(format!("b{second}")));
                    let names = |place: usize| parts[place].iter().map(|(name, _)| meaning(name));
                    let shares = |place: usize| names(place).any(|name| names(second).any(|other| other == name));
                    let named: Vec<_> = (0..second).filter(|place| shares(*place)).map(|place| json!(format!("b{place}"))).collect();
                    prop_assert!(named.contains(&problem["first"]), "{}", problem);
                }
            }
        }
    }

    // L15, L16, L53, B34
    /// Documents with any white space, beside `serde_json`: the same values, and each that was moved has its own text.
    #[test]
    fn a_union_is_what_serde_json_makes_of_it(
        parts in prop::collection::vec((object(), prop::sample::select(SPACES)), 1..5),
        cut in 0..40usize,
    ) {
        let texts: Vec<_> = parts.iter().map(|(part, space)| Doc::Object(part.clone()).spaced(space)).collect();
        let objects: Vec<_> = texts.iter().map(|text| raw_object(text)).collect();
        let owners = |name: &String| objects.iter().filter(|object| object.contains_key(name)).count();

        for policy in [Conflict::First, Conflict::Last] {
            let answer = merge_of(JsonMerge::object().on_conflict(policy), &texts, cut);
            let mut expected = RawObject::new();
            for object in &objects {
                for (name, value) in object {
                    if policy == Conflict::Last || !expected.contains_key(name) {
                        expected.insert(name.clone(), value.clone());
                    }
                }
            }
            let found = raw_object(&answer.body);
            prop_assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            for (name, value) in &found {
                prop_assert_eq!(value.get(), expected[name].get());
            }
        }

        let answer = merge_of(JsonMerge::object().on_conflict(Conflict::Deep), &texts, cut);
        let expected = texts.iter().map(|text| parse(text)).reduce(deep).expect("a part");
        prop_assert_eq!(answer.json(), expected);
        for (name, value) in raw_object(&answer.body) {
            if owners(&name) == 1 {
                let own = objects.iter().find_map(|object| object.get(&name)).expect("its owner");
                prop_assert_eq!(value.get(), own.get());
            }
        }

        let answer = merge_of(JsonMerge::object().on_conflict(Conflict::Error), &texts, cut);
        let clash = objects.iter().flat_map(BTreeMap::keys).any(|name| owners(name) > 1);
        prop_assert_eq!(answer.status, if clash { 502 } else { 200 });
    }

    // L15
    /// Whoever comes first, with its head or the end of its body: the answer is the same to the byte.
    #[test]
    fn a_conflict_is_decided_by_declared_order_whoever_comes_first(
        parts in prop::collection::vec(object(), 2..5),
        delays in prop::collection::vec((0..5u32, 0..5u32), 5),
        cut in 0..40usize,
    ) {
        let texts: Vec<_> = parts.iter().map(|part| Doc::Object(part.clone()).text()).collect();
        for policy in POLICIES {
            let merge = JsonMerge::object().on_conflict(policy);
            let at_once = merge_of(merge.clone(), &texts, cut);
            let delayed = texts.iter().zip(&delays).enumerate().map(|(index, (text, (head, body)))| {
                let reply = Reply::json(text.clone()).after(MS * *head).body_after(MS * *body);
                optional(&format!("b{index}"), reply)
            });
            let service = merged(merge, delayed);
            prop_assert_eq!(on_paused_clock(ask(&service, get("/"))), at_once);
        }
    }

    // L18, L19, L53
    /// Groups and arrays: each document is there as it was sent, without the white space around it.
    #[test]
    fn groups_and_arrays_hold_each_document_as_it_was_sent(
        parts in prop::collection::vec((doc(), prop::sample::select(SPACES)), 1..5),
        cut in 0..40usize,
    ) {
        let texts: Vec<_> = parts.iter().map(|(part, space)| part.spaced(space)).collect();
        let whole: Vec<_> = texts.iter().map(|text| text.trim().to_owned()).collect();
        let answer = merge_of(JsonMerge::array(), &texts, cut);
        prop_assert_eq!(&answer.body, &format!("[{}]", whole.join(",")));
        prop_assert!(answer.complete());
        let named: Vec<_> = whole.iter().enumerate().map(|(index, text)| format!("\"b{index}\":{text}")).collect();
        let answer = merge_of(JsonMerge::group(), &texts, cut);
        prop_assert_eq!(&answer.body, &format!("{{{}}}", named.join(",")));
        prop_assert!(answer.complete());
    }
}

// L53
#[tokio::test]
async fn numbers_keep_their_text() {
    for number in [
        "12345678901234567890.10",
        "1e400",
        "-1E-400",
        "0.10",
        "1.0",
        "-0",
        "1E5",
        "1e+05",
        "100000000000000000000000000000000000000000",
        "3.141592653589793238462643383279502884197",
    ] {
        let document = || Reply::json(format!("{{\"n\": {number}}}"));
        answer(JsonMerge::array(), [optional("x", document())])
            .await
            .assert_document(&format!("[{{\"n\": {number}}}]"), true);
        let shaped = JsonPartLayer::new()
            .deny(["other"])
            .rename("n", "m")
            .layer(Scripted::reply(document()));
        answer(JsonMerge::object(), [Branch::http("x", shaped)])
            .await
            .assert_document(&format!("{{\"m\":{number}}}"), true);
    }
}

// B34
#[tokio::test]
async fn a_lone_surrogate_is_a_name_like_any_other() {
    for (x, y, united) in [
        (r#"{"\ud800":1}"#, r#"{"\ud800":2}"#, r#"{"\ud800":2}"#),
        (r#"{"\ud800":1}"#, r#"{"\uD800":2}"#, r#"{"\uD800":2}"#),
        (
            r#"{"\ud800":1}"#,
            r#"{"\ud801":2}"#,
            r#"{"\ud800":1,"\ud801":2}"#,
        ),
        (
            r#"{"\ud800\u0041":1}"#,
            r#"{"\ud800A":2}"#,
            r#"{"\ud800A":2}"#,
        ),
        (
            r#"{"\udc00\ud800":1}"#,
            r#"{"\ud800\udc00":2}"#,
            r#"{"\udc00\ud800":1,"\ud800\udc00":2}"#,
        ),
    ] {
        answer(
            JsonMerge::object(),
            [optional("x", Reply::json(x)), optional("y", Reply::json(y))],
        )
        .await
        .assert_document(united, true);
    }
}

// L16, B34
#[tokio::test]
async fn the_policies_side_by_side() {
    let x = r#"{"a":{"k":1,"l":[1]},"b":{"m":1},"c":1,"d":{"n":1},"own":0}"#;
    let y = r#"{"a":{"k":2,"o":3},"b":[2],"c":{"p":2},"d":null}"#;
    for (policy, swapped, document) in [
        (
            Conflict::Last,
            false,
            r#"{"own":0,"a":{"k":2,"o":3},"b":[2],"c":{"p":2},"d":null}"#,
        ),
        (Conflict::First, false, x),
        (
            Conflict::Deep,
            false,
            r#"{"own":0,"a":{"l":[1],"k":2,"o":3},"b":[2],"c":{"p":2},"d":null}"#,
        ),
        (Conflict::Last, true, x),
        (
            Conflict::Deep,
            true,
            r#"{"a":{"o":3,"k":1,"l":[1]},"b":{"m":1},"c":1,"d":{"n":1},"own":0}"#,
        ),
    ] {
        let mut texts = [x.to_owned(), y.to_owned()];
        if swapped {
            texts.reverse();
        }
        let service = merged(JsonMerge::object().on_conflict(policy), backends(&texts, 9));
        ask(&service, get("/"))
            .await
            .assert_document(document, true);
    }
}

// L16
#[tokio::test]
async fn deep_goes_eight_levels() {
    // `{"a":{"a":…{"x":1}}}`, so many objects below the outermost.
    let nested = |levels: usize, inner: &str| {
        let open = r#"{"a":"#.repeat(levels);
        format!("{open}{{{inner}}}{}", "}".repeat(levels))
    };
    for levels in 0..=20 {
        let texts = [nested(levels, r#""x":1"#), nested(levels, r#""y":2"#)];
        let service = merged(
            JsonMerge::object().on_conflict(Conflict::Deep),
            backends(&texts, 9),
        );
        let inner = if levels <= 8 {
            r#""x":1,"y":2"#
        } else {
            r#""y":2"#
        };
        ask(&service, get("/"))
            .await
            .assert_document(&nested(levels, inner), true);
    }
}

// B34
#[tokio::test]
async fn names_of_branches_are_written_as_they_are() {
    for name in [
        "a\"b",
        "é",
        "\u{1f600}",
        "a\nb",
        "__proto__",
        "a.b",
        " ",
        "\u{0}",
    ] {
        let answer = answer(JsonMerge::group(), [optional(name, Reply::json("7"))]).await;
        assert_eq!(answer.json(), json!({name: 7}));
        let problem = common::answer(JsonMerge::group(), [optional(name, Reply::status(500))])
            .await
            .assert_problem(502);
        assert_eq!(listed(&problem)[0].0, name);
    }
}
