//! The same answers, told by a reference: by a few lines over syntax trees, and by `serde_json`.

mod shape;
mod table;
mod union;

use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use watershed::merge::JsonMerge;
use watershed::test_util::Reply;

use crate::common::optional;
use crate::support::{Answer, HttpBranch, ask, get, merged};

/// A document, with the text of its scalars and names.
#[derive(Debug, Clone)]
enum Doc {
    Scalar(&'static str),
    Array(Vec<Doc>),
    Object(Vec<Member>),
}

type Member = (&'static str, Doc);

const SCALARS: &[&str] = &[
    "null",
    "true",
    "false",
    "0",
    "-0",
    "7",
    "1.50",
    "1E+2",
    "1e-7",
    "-0.0",
    // L53
    "12345678901234567890.10",
    "100000000000000000000000",
    "0.1000",
    "9007199254740993",
    r#""""#,
    r#""a""#,
    r#""\u0061\/""#,
    r#""é""#,
    r#""\ud83d\ude00""#,
    r#""a\"b\\c\n""#,
];

// B34
const NAMES: &[&str] = &[
    r#""a""#,
    r#""\u0061""#,
    r#""b""#,
    r#""c""#,
    r#""__proto__""#,
    r#""constructor""#,
    r#""a.b""#,
    r#""""#,
    r#""0""#,
    r#""é""#,
    r#""\u00e9""#,
    r#""\u00E9""#,
    r#""e\u0301""#,
    r#""a\"b""#,
    r#""a\u0022b""#,
    r#""\/""#,
    r#""/""#,
    r#"" a""#,
];

/// What a name means.
fn meaning(name: &str) -> String {
    serde_json::from_str(name).expect("a name")
}

fn doc() -> impl Strategy<Value = Doc> {
    let scalar = prop::sample::select(SCALARS).prop_map(Doc::Scalar);
    scalar.prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Doc::Array),
            3 => prop::collection::vec((prop::sample::select(NAMES), inner), 0..6).prop_map(Doc::Object),
        ]
    })
}

fn object() -> impl Strategy<Value = Vec<Member>> {
    prop::collection::vec((prop::sample::select(NAMES), doc()), 0..7)
}

impl Doc {
    fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out, "");
        out
    }

    /// Its text, with `space` wherever there may be some.
    fn spaced(&self, space: &str) -> String {
        let mut out = space.to_owned();
        self.write(&mut out, space);
        out + space
    }

    fn write(&self, out: &mut String, space: &str) {
        match self {
            Self::Scalar(text) => out.push_str(text),
            Self::Array(items) => {
                out.push('[');
                for (index, item) in items.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    out.push_str(space);
                    item.write(out, space);
                    out.push_str(space);
                }
                out.push(']');
            }
            Self::Object(members) => {
                out.push('{');
                for (index, (name, value)) in members.iter().enumerate() {
                    out.push_str(if index > 0 { "," } else { "" });
                    for piece in [space, name, space, ":", space] {
                        out.push_str(piece);
                    }
                    value.write(out, space);
                    out.push_str(space);
                }
                out.push('}');
            }
        }
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).expect("a document")
}

/// Branches that answer these texts, cut into frames at `cut`.
fn backends(texts: &[String], cut: usize) -> Vec<HttpBranch> {
    let backend = |(index, text): (usize, &String)| {
        let name = format!("b{index}");
        let (left, right) = text.as_bytes().split_at(cut.min(text.len()));
        let frames = [Bytes::copy_from_slice(left), Bytes::copy_from_slice(right)];
        optional(&name, Reply::status(200).frames(frames))
    };
    texts.iter().enumerate().map(backend).collect()
}

fn merge_of(merge: JsonMerge, texts: &[String], cut: usize) -> Answer {
    let service = merged(merge, backends(texts, cut));
    tokio_test::block_on(ask(&service, get("/")))
}

const SPACES: &[&str] = &["", " ", "\n\t", "\r\n  "];
