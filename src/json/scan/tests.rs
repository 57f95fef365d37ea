use super::*;
use proptest::prelude::*;
use serde_json::value::RawValue;

const LIMITS: Limits = Limits {
    nodes: 100_000,
    depth: 128,
};

fn check(text: &str) -> Result<&str, ScanError> {
    scan(text.as_bytes(), LIMITS, None).map(|value| &text[value.range()])
}

#[test]
fn documents_are_accepted_and_trimmed() {
    for text in [
        "null",
        "true",
        "false",
        "0",
        "-0",
        "12.50",
        "1e9",
        "-1.0E-9",
        r#""""#,
        r#""a""#,
        "[]",
        "{}",
        "[1, [2, {}], 3]",
        r#"{"a": {"b": [1, 2]}, "c": "d\"\u00e9\ud800"}"#,
    ] {
        assert_eq!(check(&format!(" \t\r\n{text}\n ")), Ok(text));
    }
}

#[test]
fn what_is_not_json_is_refused() {
    for text in [
        "",
        " ",
        "nul",
        "nullx",
        "tru",
        "01",
        "-",
        "1.",
        ".5",
        "1e",
        "1e+",
        "+1",
        "0x1",
        "NaN",
        "Infinity",
        "'a'",
        "\"",
        "\"\\\"",
        "\"\\x\"",
        "\"\\u12g4\"",
        "\"\\u12\"",
        "\"\n\"",
        "[",
        "]",
        "[1",
        "[1,",
        "[1,]",
        "[,1]",
        "[1 2]",
        "{",
        "}",
        "{]",
        "[}",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{,}",
        "{a:1}",
        "{\"a\":1 \"b\":2}",
        "{\"a\" 1}",
        "{\"a\":1}x",
        "{}{}",
        "1 1",
        "\u{feff}{}",
        "// c\n1",
        "{\"a\":1}\u{0}",
        "<html></html>",
    ] {
        assert_eq!(check(text), Err(ScanError::Syntax), "{text:?}");
    }
    assert_eq!(scan(b"\"\xff\"", LIMITS, None), Err(ScanError::Syntax));
}

// B32
#[test]
fn the_budgets_are_exact() {
    let limits = Limits { nodes: 4, depth: 2 };
    let scan = |text: &str| scan(text.as_bytes(), limits, None).map(|_| ());
    assert_eq!(scan("[1,2,3]"), Ok(()));
    assert_eq!(scan("[1,2,3,4]"), Err(ScanError::TooManyNodes { limit: 4 }));
    assert_eq!(scan("[[1]]"), Ok(()));
    assert_eq!(scan("[[[]]]"), Err(ScanError::TooDeep { limit: 2 }));
    assert_eq!(
        scan(r#"{"a":{"b":[]}}"#),
        Err(ScanError::TooDeep { limit: 2 })
    );
}

#[test]
fn the_deepest_nesting_takes_no_stack() {
    let limits = Limits {
        nodes: usize::MAX,
        depth: usize::MAX,
    };
    let nest = |depth| ["[".repeat(depth), "]".repeat(depth)].concat();
    assert!(scan(nest(MAX_DEPTH).as_bytes(), limits, None).is_ok());
    let error = scan(nest(200_000).as_bytes(), limits, None);
    assert_eq!(error, Err(ScanError::TooDeep { limit: MAX_DEPTH }));
}

#[test]
fn members_are_those_of_the_outermost_object() {
    let text = br#" {"a" : {"x":1} , "b\n":[{"y":2}],"":3} "#;
    let mut found = Vec::new();
    let object = scan(text, LIMITS, Some(&mut found)).expect("valid");
    assert_eq!(members(text, object), found);
    let shown: Vec<_> = found
        .iter()
        .map(|member| {
            let value = std::str::from_utf8(&text[member.value.range()]).expect("UTF-8");
            (member.identity(text).into_owned(), value)
        })
        .collect();
    assert_eq!(
        shown,
        [
            (b"a".to_vec(), r#"{"x":1}"#),
            (b"b\n".to_vec(), r#"[{"y":2}]"#),
            (b"".to_vec(), "3")
        ]
    );
    assert!(find(text, object, "x").is_none());
    let mut none = Vec::new();
    scan(br#"[{"a":1}]"#, LIMITS, Some(&mut none)).expect("valid");
    assert!(none.is_empty());
}

#[test]
fn names_are_compared_by_what_they_mean() {
    for (raw, meant) in [
        (r"a", "a".as_bytes()),
        (r"\u0061", b"a"),
        (r"\/\b\f\n\r\t\\", b"/\x08\x0c\n\r\t\\"),
        (r"\ud83d\ude00", "\u{1f600}".as_bytes()),
        (r"\ud83dx", b"\xed\xa0\xbdx"),
        (r"\ud83d\ud83d\ude00", b"\xed\xa0\xbd\xf0\x9f\x98\x80"),
    ] {
        assert_eq!(*unescape(raw.as_bytes()), *meant, "{raw}");
    }
}

fn json() -> impl Strategy<Value = serde_json::Value> {
    let leaf = prop_oneof![
        Just(serde_json::Value::Null),
        any::<bool>().prop_map(Into::into),
        any::<f64>().prop_map(Into::into),
        any::<i64>().prop_map(Into::into),
        any::<String>().prop_map(Into::into),
    ];
    leaf.prop_recursive(5, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Into::into),
            prop::collection::hash_map(any::<String>(), inner, 0..8)
                .prop_map(|map| serde_json::Value::Object(map.into_iter().collect())),
        ]
    })
}

proptest! {
    #[test]
    fn what_serde_json_writes_is_accepted(value in json(), pretty in any::<bool>()) {
        let text = if pretty {
            serde_json::to_string_pretty(&value)
        } else {
            serde_json::to_string(&value)
        }.expect("serializable");
        prop_assert_eq!(check(&text), Ok(&*text));
    }

    /// Byte soup that is nearly JSON: the two must agree on each text.
    #[test]
    fn the_scanner_agrees_with_serde_json(text in r#"([\[\]{},:"\\ ntu0-9eE.+a-]|true|false|null|"[a-z]*":|\\u[0-9a-f]{4}){0,24}"#) {
        let theirs = serde_json::from_str::<&RawValue>(&text);
        prop_assert_eq!(check(&text).ok(), theirs.ok().map(|raw| raw.get()));
    }

    /// One byte of a document changed, dropped or doubled.
    #[test]
    fn the_scanner_agrees_with_serde_json_on_broken_documents(
        value in json(), at in any::<prop::sample::Index>(), byte in any::<u8>(), kind in 0..3u8,
    ) {
        let mut text = serde_json::to_vec(&value).expect("serializable");
        let at = at.index(text.len());
        match kind {
            0 => text[at] = byte,
            1 => { text.remove(at); }
            _ => text.insert(at, byte),
        }
        let theirs = serde_json::from_slice::<&RawValue>(&text);
        let ours = scan(&text, LIMITS, None).map(|value| text[value.range()].to_vec());
        prop_assert_eq!(ours.ok(), theirs.ok().map(|raw| raw.get().as_bytes().to_vec()));
    }

    #[test]
    fn a_name_means_what_serde_json_reads(name in any::<String>()) {
        let raw = serde_json::to_string(&name).expect("serializable");
        let inside = &raw.as_bytes()[1..raw.len() - 1];
        prop_assert_eq!(&*unescape(inside), name.as_bytes());
    }

    #[test]
    fn the_plain_prefix_ends_at_the_first_special_byte(text in prop::collection::vec(any::<u8>(), 0..40)) {
        let naive = text.iter().position(|b| matches!(b, b'"' | b'\\' | 0..=0x1f)).unwrap_or(text.len());
        prop_assert_eq!(plain_prefix(&text), naive);
    }
}
