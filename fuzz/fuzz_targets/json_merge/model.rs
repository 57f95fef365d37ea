//! What the answer should be, told by `serde_json` and by plain recursion over the values.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::input::{Input, Limits, Mode, Part, Policy, Shape};

pub(crate) enum Answer {
    Merged {
        document: String,
        /// Whether nothing is missing.
        whole: bool,
        /// Whether the text is known to the byte.
        exact: bool,
    },
    /// Two parts gave one key: their places.
    Clash {
        first: usize,
        second: usize,
    },
    Nobody,
}

pub(crate) fn answer(input: &Input) -> Answer {
    let limits = input.limits();
    let mut whole = true;
    let mut present = Vec::new();
    for (index, part) in input.parts().iter().enumerate() {
        match read(part, input.mode, &limits) {
            Some(read) => {
                whole &= read.whole;
                present.push((index, part.shape().and_then(Shape::group), read.value));
            }
            None => whole = false,
        }
    }
    if present.is_empty() {
        return Answer::Nobody;
    }
    let null = || Tree::Plain("null".to_owned());
    if input.mode == Mode::Array {
        let items = present.into_iter().map(|(_, group, value)| {
            let text = value.unwrap_or_else(null).text();
            match group {
                Some(key) => format!("{{{}:{text}}}", quoted(key)),
                None => text,
            }
        });
        return Answer::Merged {
            document: format!("[{}]", items.collect::<Vec<_>>().join(",")),
            whole,
            exact: exact(input),
        };
    }
    // A list of members for each part, under its place among those that are present.
    let mut lists = Vec::new();
    for (index, group, value) in present {
        let list = match (input.mode, group, value) {
            (_, Some(key), value) => vec![(Name::given(key), value.unwrap_or_else(null))],
            (Mode::Group, None, value) => {
                vec![(
                    Name::given(&format!("b{index}")),
                    value.unwrap_or_else(null),
                )]
            }
            (_, None, Some(value)) => value.members(),
            (_, None, None) => Vec::new(),
        };
        lists.push((index, list));
    }
    let clash = clash(&lists).filter(|_| input.policy == Policy::Error);
    if let Some((first, second)) = clash {
        return Answer::Clash { first, second };
    }
    let lists = lists.into_iter().map(|(_, list)| list).collect();
    let united = union(input.policy, lists, 8);
    Answer::Merged {
        document: Tree::Object(united).text(),
        whole,
        exact: input.mode == Mode::Group && input.policy != Policy::Deep && exact(input),
    }
}

/// Whether no part is taken apart.
fn exact(input: &Input) -> bool {
    input.parts().iter().all(|part| {
        part.shape().is_none_or(|shape| {
            shape.allow().is_none() && shape.deny().is_empty() && shape.rename().is_empty()
        })
    })
}

fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string")
}

/// What a part contributes.
struct Read {
    /// `None` is nothing.
    value: Option<Tree>,
    whole: bool,
}

/// `None` if the branch has failed.
fn read(part: &Part, mode: Mode, limits: &Limits) -> Option<Read> {
    let Some(document) = part.document() else {
        return Some(Read {
            value: None,
            whole: true,
        });
    };
    let raw: &RawValue = serde_json::from_slice(&document).ok()?;
    if document.len() > limits.bytes || depth(raw.get()) > limits.depth {
        return None;
    }
    let nodes = Tree::read(raw.get()).nodes();
    if nodes > limits.nodes {
        return None;
    }
    let mut value = Tree::Plain(raw.get().to_owned());
    if let Some(shape) = part.shape() {
        value = shaped(value, shape);
        // The object that stands for a target that is not there counts as the part's own.
        if depth(&value.text()) > limits.depth {
            return None;
        }
    }
    let shape = part.shape();
    let in_union = mode == Mode::Object && shape.is_none_or(|shape| shape.group().is_none());
    if !in_union {
        return Some(Read {
            value: Some(value),
            whole: true,
        });
    }
    let text = value.text();
    if text == "null" {
        return Some(Read {
            value: None,
            whole: false,
        });
    }
    if text.starts_with('{') {
        return Some(Read {
            value: Some(value),
            whole: true,
        });
    }
    // A target that leads to something else adds nothing.
    shape?.target()?;
    Some(Read {
        value: None,
        whole: true,
    })
}

/// How many containers lie in one another. The text is a document.
fn depth(text: &str) -> usize {
    let (mut deepest, mut now, mut quoted, mut escaped) = (0_usize, 0, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => {
                now += 1;
                deepest = deepest.max(now);
            }
            b'}' | b']' if !quoted => now -= 1,
            _ => {}
        }
    }
    deepest
}

/// The text without the white space between its tokens.
pub(crate) fn compact(text: &str) -> String {
    let (mut quoted, mut escaped) = (false, false);
    let kept = text.chars().filter(|char| {
        match char {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => quoted = !quoted,
            _ => {}
        }
        quoted || !matches!(char, ' ' | '\t' | '\r' | '\n')
    });
    kept.collect()
}

/// A name, as it is written, and what it means: lone surrogates have no UTF-8, so it is bytes.
#[derive(Debug, Clone)]
struct Name {
    text: String,
    meaning: Vec<u8>,
}

impl Name {
    fn given(name: &str) -> Self {
        Self {
            text: quoted(name),
            meaning: name.as_bytes().to_vec(),
        }
    }

    fn read(text: &str) -> Self {
        struct Bytes;

        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }
        }

        let mut deserializer = serde_json::Deserializer::from_str(text);
        Self {
            text: text.to_owned(),
            meaning: deserializer.deserialize_bytes(Bytes).expect("a name"),
        }
    }
}

type Members = Vec<(Name, Tree)>;

/// A value: as its text, as far as it is only moved.
#[derive(Debug, Clone)]
enum Tree {
    Plain(String),
    Array(Vec<Tree>),
    Object(Members),
}

impl Tree {
    /// The value with its children, as their text.
    fn open(text: &str) -> Self {
        match text.as_bytes()[0] {
            b'[' => {
                let items: Vec<&RawValue> = serde_json::from_str(text).expect("an array");
                let items = items.into_iter().map(|item| item.get().to_owned());
                Self::Array(items.map(Self::Plain).collect())
            }
            b'{' => {
                let Pairs(pairs) = serde_json::from_str(text).expect("an object");
                let pairs = pairs.into_iter();
                Self::Object(
                    pairs
                        .map(|(name, value)| {
                            (Name::read(name.get()), Self::Plain(value.get().to_owned()))
                        })
                        .collect(),
                )
            }
            _ => Self::Plain(text.to_owned()),
        }
    }

    /// The value with all that is in it. It is not deep: that was checked.
    fn read(text: &str) -> Self {
        let all = |tree: Self| match tree {
            Self::Plain(text) => Self::read(&text),
            open => open,
        };
        match Self::open(text) {
            Self::Array(items) => Self::Array(items.into_iter().map(all).collect()),
            Self::Object(members) => {
                let members = members.into_iter();
                Self::Object(members.map(|(name, value)| (name, all(value))).collect())
            }
            plain => plain,
        }
    }

    fn nodes(&self) -> usize {
        match self {
            Self::Plain(_) => 1,
            Self::Array(items) => 1 + items.iter().map(Self::nodes).sum::<usize>(),
            Self::Object(members) => {
                1 + members
                    .iter()
                    .map(|(_, value)| value.nodes())
                    .sum::<usize>()
            }
        }
    }

    fn is_object(&self) -> bool {
        match self {
            Self::Plain(text) => text.starts_with('{'),
            Self::Object(_) => true,
            Self::Array(_) => false,
        }
    }

    /// Of an object.
    fn members(self) -> Members {
        let open = match self {
            Self::Plain(text) => Self::open(&text),
            open => open,
        };
        match open {
            Self::Object(members) => members,
            other => panic!("{other:?} has no members"),
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Plain(text) => text.clone(),
            Self::Array(items) => {
                let items: Vec<_> = items.iter().map(Self::text).collect();
                format!("[{}]", items.join(","))
            }
            Self::Object(members) => {
                let members: Vec<_> = members
                    .iter()
                    .map(|(name, value)| format!("{}:{}", name.text, value.text()))
                    .collect();
                format!("{{{}}}", members.join(","))
            }
        }
    }
}

/// An object's names and values, duplicates and all.
struct Pairs<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'a> Deserialize<'a> for Pairs<'a> {
    fn deserialize<D: Deserializer<'a>>(deserializer: D) -> Result<Self, D::Error> {
        struct All;

        impl<'a> Visitor<'a> for All {
            type Value = Pairs<'a>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Pairs<'a>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Pairs(pairs))
            }
        }

        deserializer.deserialize_map(All)
    }
}

/// Of members of one meaning only the last.
fn last_ones(members: Members) -> Members {
    let places: HashMap<_, _> = members
        .iter()
        .enumerate()
        .map(|(place, (name, _))| (name.meaning.clone(), place))
        .collect();
    let members = members.into_iter().enumerate();
    members
        .filter(|(place, (name, _))| places[&name.meaning] == *place)
        .map(|(_, member)| member)
        .collect()
}

/// The members in declared order; a key has the place of the member that wins it.
fn union(policy: Policy, parts: Vec<Members>, levels: usize) -> Members {
    let mut united: Members = Vec::new();
    for part in parts {
        for (name, value) in last_ones(part) {
            let known = united
                .iter()
                .position(|(other, _)| other.meaning == name.meaning);
            let Some(known) = known else {
                united.push((name, value));
                continue;
            };
            if policy == Policy::First {
                continue;
            }
            let (_, under) = united.remove(known);
            let both = policy == Policy::Deep && levels > 0;
            let value = match both && under.is_object() && value.is_object() {
                true => Tree::Object(union(
                    policy,
                    vec![under.members(), value.members()],
                    levels - 1,
                )),
                false => value,
            };
            united.push((name, value));
        }
    }
    united
}

/// The first member, in order, whose key an earlier part has as well.
fn clash(lists: &[(usize, Members)]) -> Option<(usize, usize)> {
    let mut owners = HashMap::new();
    for (index, members) in lists {
        for (name, _) in members {
            let owner = *owners.entry(&name.meaning).or_insert(*index);
            if owner != *index {
                return Some((owner, *index));
            }
        }
    }
    None
}

/// A part's rules: target, allow, deny, rename. The group is for whoever places it.
fn shaped(value: Tree, shape: &Shape) -> Tree {
    let mut value = value;
    if let Some(path) = shape.target() {
        for name in path.split('.') {
            let found = match value.is_object() {
                true => value
                    .members()
                    .into_iter()
                    .rfind(|(known, _)| known.meaning == name.as_bytes()),
                false => None,
            };
            match found {
                Some((_, found)) => value = found,
                None => return Tree::Plain("{}".to_owned()),
            }
        }
    }
    let (allow, deny) = (shape.allow(), shape.deny());
    if (allow.is_none() && deny.is_empty() && shape.rename().is_empty()) || !value.is_object() {
        return value;
    }
    let allow = allow.map(|paths| split(&paths));
    let members = filter(value.members(), allow.as_deref(), &split(&deny));
    let renamed = members.into_iter().map(|(name, value)| {
        let new = shape
            .rename()
            .iter()
            .find(|(from, _)| from.as_bytes() == name.meaning);
        (new.map_or(name, |(_, to)| Name::given(to)), value)
    });
    Tree::Object(renamed.collect())
}

type Paths = Vec<Vec<Vec<u8>>>;

fn split(paths: &[String]) -> Paths {
    let names = |path: &String| {
        path.split('.')
            .map(|name| name.as_bytes().to_vec())
            .collect()
    };
    paths.iter().map(names).collect()
}

/// The paths that begin with `name`, without it.
fn below(paths: &[Vec<Vec<u8>>], name: &[u8]) -> Paths {
    let starts = paths.iter().filter(|path| path[0] == name);
    starts.map(|path| path[1..].to_vec()).collect()
}

fn filter(members: Members, allow: Option<&[Vec<Vec<u8>>]>, deny: &[Vec<Vec<u8>>]) -> Members {
    let mut kept = Vec::new();
    for (name, value) in last_ones(members) {
        let deny = below(deny, &name.meaning);
        if deny.iter().any(Vec::is_empty) {
            continue;
        }
        let allow = allow.map(|paths| below(paths, &name.meaning));
        let allow = match allow {
            Some(paths) if paths.is_empty() => continue,
            Some(paths) if paths.iter().any(Vec::is_empty) => None,
            Some(_) if !value.is_object() => continue,
            other => other,
        };
        let goes_on = allow.is_some() || !deny.is_empty();
        let value = match goes_on && value.is_object() {
            true => Tree::Object(filter(value.members(), allow.as_deref(), &deny)),
            false => value,
        };
        kept.push((name, value));
    }
    kept
}
