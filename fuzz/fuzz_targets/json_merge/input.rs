//! What is merged, and how.

use arbitrary::{Arbitrary, Result, Unstructured};

#[derive(Debug, Arbitrary)]
pub(crate) struct Input {
    pub(crate) mode: Mode,
    pub(crate) policy: Policy,
    bytes: Option<u16>,
    nodes: Option<u8>,
    depth: Option<u8>,
    parts: Vec<Part>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub(crate) enum Mode {
    Group,
    Object,
    Array,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Arbitrary)]
pub(crate) enum Policy {
    First,
    Last,
    Deep,
    Error,
}

pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) nodes: usize,
    pub(crate) depth: usize,
}

impl Input {
    pub(crate) fn parts(&self) -> &[Part] {
        &self.parts[..self.parts.len().min(6)]
    }

    pub(crate) fn limits(&self) -> Limits {
        Limits {
            bytes: self.bytes.map_or(1 << 20, usize::from),
            nodes: self.nodes.map_or(100_000, usize::from),
            depth: self.depth.map_or(128, usize::from),
        }
    }
}

#[derive(Debug, Arbitrary)]
pub(crate) struct Part {
    content: Content,
    shape: Option<Shape>,
    cut: u8,
    announces: bool,
}

#[derive(Debug, Arbitrary)]
enum Content {
    Document(Space, Node),
    /// So many objects around one: two parts meet deep down.
    Deep(u8, Node),
    /// One byte of a document is another, gone, or there twice.
    Broken(Node, u8, Edit),
    Bytes(Vec<u8>),
    Nothing,
}

#[derive(Debug, Arbitrary)]
enum Edit {
    Change(u8),
    Drop,
    Double,
}

impl Part {
    /// `None` is an empty part.
    pub(crate) fn document(&self) -> Option<Vec<u8>> {
        match &self.content {
            Content::Document(space, node) => {
                let mut text = space.text().to_owned();
                node.write(&mut text, space.text());
                text.push_str(space.text());
                Some(text.into_bytes())
            }
            Content::Deep(levels, node) => {
                let levels = usize::from(*levels % 12);
                let mut text = "{\"a\":".repeat(levels);
                node.write(&mut text, "");
                text.push_str(&"}".repeat(levels));
                Some(text.into_bytes())
            }
            Content::Broken(node, at, edit) => {
                let mut text = String::new();
                node.write(&mut text, "");
                let mut bytes = text.into_bytes();
                let at = usize::from(*at) % bytes.len();
                match edit {
                    Edit::Change(byte) => bytes[at] = *byte,
                    Edit::Drop => drop(bytes.remove(at)),
                    Edit::Double => bytes.insert(at, bytes[at]),
                }
                Some(bytes)
            }
            Content::Bytes(bytes) => Some(bytes.clone()),
            Content::Nothing => None,
        }
    }

    pub(crate) fn shape(&self) -> Option<&Shape> {
        self.shape.as_ref()
    }

    pub(crate) fn cut(&self) -> usize {
        self.cut.into()
    }

    pub(crate) fn announces(&self) -> bool {
        self.announces
    }
}

#[derive(Debug, Clone, Copy, Arbitrary)]
enum Space {
    None,
    One,
    Lines,
}

impl Space {
    fn text(self) -> &'static str {
        match self {
            Self::None => "",
            Self::One => " ",
            Self::Lines => "\r\n\t",
        }
    }
}

/// A value, with the text of its scalars and names.
#[derive(Debug)]
enum Node {
    Scalar(&'static str),
    Number(u64, u8),
    Text(String),
    Array(Vec<Node>),
    Object(Vec<(Name, Node)>),
    /// So many arrays, one in the other.
    Nest(u8),
}

#[derive(Debug, Arbitrary)]
enum Name {
    Known(u8),
    Any(String),
}

const SCALARS: [&str; 16] = [
    "null",
    "true",
    "false",
    "0",
    "-0",
    "-0.0",
    "1E+2",
    "1e-7",
    "1e400",
    "12345678901234567890.10",
    "0.1000",
    r#""""#,
    r#""\u0061\/""#,
    r#""\ud83d\ude00""#,
    r#""\udead""#,
    r#""a\"b\\c\n}]""#,
];

/// Some mean the same.
const NAMES: [&str; 16] = [
    r#""a""#,
    r#""\u0061""#,
    r#""b""#,
    r#""c""#,
    r#""__proto__""#,
    r#""a.b""#,
    r#""""#,
    r#""b0""#,
    r#""b1""#,
    r#""é""#,
    r#""\u00E9""#,
    r#""\/""#,
    r#""/""#,
    r#""\ud800""#,
    r#""\uD800""#,
    r#""a\"b""#,
];

impl<'a> Arbitrary<'a> for Node {
    fn arbitrary(u: &mut Unstructured<'a>) -> Result<Self> {
        Self::within(u, 12)
    }
}

impl Node {
    fn within(u: &mut Unstructured<'_>, levels: u8) -> Result<Self> {
        let containers = if levels > 0 { 8 } else { 3 };
        Ok(match u.int_in_range(0..=containers)? {
            0 => Self::Scalar(u.choose(&SCALARS)?),
            1 => Self::Number(u.arbitrary()?, u.arbitrary()?),
            2 => Self::Text(u.arbitrary()?),
            3 => Self::Nest(u.arbitrary()?),
            4 => {
                let len = u.int_in_range(0..=4)?;
                let items = (0..len).map(|_| Self::within(u, levels - 1));
                Self::Array(items.collect::<Result<_>>()?)
            }
            _ => {
                let len = u.int_in_range(0..=5)?;
                let members = (0..len).map(|_| Ok((u.arbitrary()?, Self::within(u, levels - 1)?)));
                Self::Object(members.collect::<Result<_>>()?)
            }
        })
    }

    fn write(&self, out: &mut String, space: &str) {
        match self {
            Self::Scalar(text) => out.push_str(text),
            Self::Number(digits, places) => {
                let text = digits.to_string();
                let places = usize::from(*places) % 24;
                match text.split_at_checked(text.len().saturating_sub(places)) {
                    Some((whole @ "", rest)) | Some((whole, rest)) if !rest.is_empty() => {
                        out.push_str(if whole.is_empty() { "-0" } else { whole });
                        out.push('.');
                        out.push_str(rest);
                    }
                    _ => out.push_str(&text),
                }
            }
            Self::Text(text) => out.push_str(&quoted(text)),
            Self::Nest(depth) => {
                let depth = usize::from(*depth);
                out.push_str(&"[".repeat(depth + 1));
                out.push_str(&"]".repeat(depth + 1));
            }
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
                    let name = match name {
                        Name::Known(at) => NAMES[usize::from(*at) % NAMES.len()].to_owned(),
                        Name::Any(text) => quoted(text),
                    };
                    for piece in [space, &name, space, ":", space] {
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

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string")
}

/// What a `JsonPartLayer` is told.
#[derive(Debug, Arbitrary)]
pub(crate) struct Shape {
    target: Option<Path>,
    allow: Option<Vec<Path>>,
    deny: Vec<Path>,
    rename: Option<u8>,
    group: Option<u8>,
}

/// Names joined by dots.
#[derive(Debug, Arbitrary)]
struct Path(u8, Option<u8>, Option<u8>);

impl Path {
    fn text(&self) -> String {
        const NAMES: [&str; 6] = ["a", "b", "c", "é", "__proto__", "b0"];
        let names = [Some(self.0), self.1, self.2].into_iter().flatten();
        let names = names.map(|at| NAMES[usize::from(at) % NAMES.len()]);
        names.collect::<Vec<_>>().join(".")
    }
}

impl Shape {
    pub(crate) fn target(&self) -> Option<String> {
        self.target.as_ref().map(Path::text)
    }

    pub(crate) fn allow(&self) -> Option<Vec<String>> {
        let allow = self.allow.as_ref()?;
        Some(allow.iter().map(Path::text).collect())
    }

    pub(crate) fn deny(&self) -> Vec<String> {
        self.deny.iter().map(Path::text).collect()
    }

    /// New names, two that are swapped, and one that is taken.
    pub(crate) fn rename(&self) -> &'static [(&'static str, &'static str)] {
        match self.rename.map(|at| at % 3) {
            None => &[],
            Some(0) => &[("a", "new \"name\"")],
            Some(1) => &[("a", "b"), ("b", "a")],
            Some(_) => &[("a", "c"), ("b", "c")],
        }
    }

    pub(crate) fn group(&self) -> Option<&'static str> {
        let group = self.group?;
        Some(["g", "b0", "b1", "é\"\n"][usize::from(group) % 4])
    }
}
