//! The scanner itself.

use std::borrow::Cow;
use std::ops::Range;

/// What a document may cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Values, containers included; names of members are not counted.
    pub(crate) nodes: usize,
    /// Containers around a value.
    pub(crate) depth: usize,
}

/// The deepest nesting that the scanner's stack of bits can hold.
pub(crate) const MAX_DEPTH: usize = 1024;

/// Why a text is not a document within its limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ScanError {
    #[error("it is not JSON")]
    Syntax,
    #[error("it has more than {limit} values")]
    TooManyNodes { limit: usize },
    #[error("it is nested deeper than {limit}")]
    TooDeep { limit: usize },
    #[error("it is 4 GiB or longer")]
    TooLong,
}

/// Where a value stands, without the white space around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value {
    start: u32,
    end: u32,
}

impl Value {
    pub(crate) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(crate) fn is_object(self, text: &[u8]) -> bool {
        text[self.start as usize] == b'{'
    }

    pub(crate) fn is_null(self, text: &[u8]) -> bool {
        text[self.start as usize] == b'n'
    }
}

/// A member of an object: its name, with the quotes, and its value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Member {
    name_start: u32,
    name_end: u32,
    pub(crate) value: Value,
}

impl Member {
    /// The name as it is written, quotes included.
    pub(crate) fn name(self) -> Range<usize> {
        self.name_start as usize..self.name_end as usize
    }

    /// The whole member, from the opening quote of its name to the end of its value.
    pub(crate) fn range(self) -> Range<usize> {
        self.name_start as usize..self.value.end as usize
    }

    /// What the name means: two names are the same if these bytes are.
    pub(crate) fn identity(self, text: &[u8]) -> Cow<'_, [u8]> {
        unescape(&text[self.name_start as usize + 1..self.name_end as usize - 1])
    }
}

/// Checks that `text` is one document within `limits` and returns where its value stands. If that is an object and
/// `members` is given, its members are appended in their order.
///
/// Places are kept in 32 bits, so a text of 4 GiB is refused.
pub(crate) fn scan(
    text: &[u8],
    limits: Limits,
    members: Option<&mut Vec<Member>>,
) -> Result<Value, ScanError> {
    if u32::try_from(text.len()).is_err() {
        return Err(ScanError::TooLong);
    }
    if std::str::from_utf8(text).is_err() {
        return Err(ScanError::Syntax);
    }
    let value = match members {
        Some(members) => value(text, 0, limits, &mut |member| members.push(member))?,
        None => value(text, 0, limits, &mut |_| {})?,
    };
    if white_space(text, value.end as usize) == text.len() {
        Ok(value)
    } else {
        Err(ScanError::Syntax)
    }
}

/// The members of an object that a scan has found in `text`.
pub(crate) fn members(text: &[u8], object: Value) -> Vec<Member> {
    let mut members = Vec::new();
    let limits = Limits {
        nodes: usize::MAX,
        depth: MAX_DEPTH,
    };
    let scanned = value(text, object.start as usize, limits, &mut |member| {
        members.push(member);
    });
    debug_assert_eq!(scanned, Ok(object), "it was scanned before");
    members
}

/// The value of the member called `name`; the last one, if there are several.
pub(crate) fn find(text: &[u8], object: Value, name: &str) -> Option<Value> {
    let members = members(text, object).into_iter();
    members
        .rev()
        .find(|member| *member.identity(text) == *name.as_bytes())
        .map(|member| member.value)
}

/// What the inside of a string that was scanned before means. A lone surrogate, which has no UTF-8, becomes the three
/// bytes that it would have (WTF-8), so that every string has exactly one meaning.
pub(crate) fn unescape(raw: &[u8]) -> Cow<'_, [u8]> {
    if !raw.contains(&b'\\') {
        return Cow::Borrowed(raw);
    }
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'\\' {
            out.push(*byte);
            continue;
        }
        let [escape, after @ ..] = rest else { break };
        rest = after;
        match escape {
            b'b' => out.push(8),
            b'f' => out.push(12),
            b'n' => out.push(b'\n'),
            b'r' => out.push(b'\r'),
            b't' => out.push(b'\t'),
            b'u' => {
                let mut code = hex4(rest);
                rest = &rest[4.min(rest.len())..];
                if let (0xd800..0xdc00, [b'\\', b'u', low @ ..]) = (code, rest) {
                    let low_code = hex4(low);
                    if (0xdc00..0xe000).contains(&low_code) {
                        code = 0x10000 + ((code - 0xd800) << 10) + (low_code - 0xdc00);
                        rest = &low[4..];
                    }
                }
                match char::from_u32(code) {
                    Some(char) => {
                        out.extend_from_slice(char.encode_utf8(&mut [0; 4]).as_bytes());
                    }
                    None => out.extend_from_slice(&[
                        0xe0 | (code >> 12) as u8,
                        0x80 | (code >> 6 & 0x3f) as u8,
                        0x80 | (code & 0x3f) as u8,
                    ]),
                }
            }
            other => out.push(*other),
        }
    }
    Cow::Owned(out)
}

fn hex4(digits: &[u8]) -> u32 {
    digits.iter().take(4).fold(0, |code, &digit| {
        code << 4 | char::from(digit).to_digit(16).unwrap_or(0)
    })
}

/// The containers around the scanner's place, innermost last: a bit each, set for an object.
struct Stack {
    bits: [u64; MAX_DEPTH / 64],
    depth: usize,
    limit: usize,
}

impl Stack {
    fn push(&mut self, object: bool) -> Result<(), ScanError> {
        if self.depth >= self.limit {
            return Err(ScanError::TooDeep { limit: self.limit });
        }
        let (word, bit) = (self.depth / 64, self.depth % 64);
        self.bits[word] = self.bits[word] & !(1 << bit) | u64::from(object) << bit;
        self.depth += 1;
        Ok(())
    }

    /// Whether the innermost container is an object.
    fn is_object(&self) -> bool {
        let top = self.depth - 1;
        self.bits[top / 64] >> (top % 64) & 1 == 1
    }
}

/// Scans the value that begins at `at`, white space before it allowed; `found` is told of the members of the outermost object.
///
/// One loop without recursion. The place is a local, handed from one piece to the next, so that it stays in a register.
fn value(
    text: &[u8],
    at: usize,
    limits: Limits,
    found: &mut impl FnMut(Member),
) -> Result<Value, ScanError> {
    let mut stack = Stack {
        bits: [0; MAX_DEPTH / 64],
        depth: 0,
        limit: limits.depth.min(MAX_DEPTH),
    };
    let mut nodes = limits.nodes;
    let mut at = white_space(text, at);
    let start = at;
    // Of the member of the outermost object whose value is being scanned.
    let (mut name, mut value_start) = (0..0, start);
    loop {
        // A value begins here.
        if nodes == 0 {
            return Err(ScanError::TooManyNodes {
                limit: limits.nodes,
            });
        }
        nodes -= 1;
        let end = match text.get(at) {
            Some(b'"') => string(text, at),
            Some(b'{') => {
                stack.push(true)?;
                at = white_space(text, at + 1);
                if text.get(at) != Some(&b'}') {
                    let (this, next) = member_name(text, at).ok_or(ScanError::Syntax)?;
                    if stack.depth == 1 {
                        (name, value_start) = (this, next);
                    }
                    at = next;
                    continue;
                }
                stack.depth -= 1;
                Some(at + 1)
            }
            Some(b'[') => {
                stack.push(false)?;
                at = white_space(text, at + 1);
                if text.get(at) != Some(&b']') {
                    continue;
                }
                stack.depth -= 1;
                Some(at + 1)
            }
            Some(b'-' | b'0'..=b'9') => number(text, at),
            Some(b't') => literal(text, at, b"true"),
            Some(b'f') => literal(text, at, b"false"),
            Some(b'n') => literal(text, at, b"null"),
            _ => None,
        };
        at = end.ok_or(ScanError::Syntax)?;
        // A value has ended here; what follows belongs to the containers around it.
        loop {
            if stack.depth == 0 {
                return Ok(Value {
                    start: start as u32,
                    end: at as u32,
                });
            }
            let in_object = stack.is_object();
            if stack.depth == 1 && in_object {
                found(Member {
                    name_start: name.start as u32,
                    name_end: name.end as u32,
                    value: Value {
                        start: value_start as u32,
                        end: at as u32,
                    },
                });
            }
            at = white_space(text, at);
            match text.get(at) {
                Some(b',') => {
                    at = white_space(text, at + 1);
                    if in_object {
                        let (this, next) = member_name(text, at).ok_or(ScanError::Syntax)?;
                        if stack.depth == 1 {
                            (name, value_start) = (this, next);
                        }
                        at = next;
                    }
                    break;
                }
                Some(b'}') if in_object => {}
                Some(b']') if !in_object => {}
                _ => return Err(ScanError::Syntax),
            }
            at += 1;
            stack.depth -= 1;
        }
    }
}

#[inline(always)]
fn white_space(text: &[u8], mut at: usize) -> usize {
    // In compact documents the first byte is above a space, and that is all.
    while let Some(&byte) = text.get(at) {
        if byte > b' ' || !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
            break;
        }
        at += 1;
    }
    at
}

/// The name of a member, and where its value begins: behind the colon, and the white space around that. As those below,
/// none if it is not JSON: that is returned in registers, which a `ScanError` is not.
#[inline(always)]
fn member_name(text: &[u8], at: usize) -> Option<(Range<usize>, usize)> {
    let end = string(text, at)?;
    let colon = white_space(text, end);
    match text.get(colon) {
        Some(b':') => Some((at..end, white_space(text, colon + 1))),
        _ => None,
    }
}

/// A string, from its opening quote to behind its closing one.
#[inline]
fn string(text: &[u8], mut at: usize) -> Option<usize> {
    if text.get(at) != Some(&b'"') {
        return None;
    }
    at += 1;
    loop {
        at += plain_prefix(&text[at..]);
        match text.get(at) {
            Some(b'"') => return Some(at + 1),
            Some(b'\\') => {
                at += match &text[at + 1..] {
                    [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
                    [b'u', a, b, c, d, ..]
                        if [a, b, c, d].into_iter().all(u8::is_ascii_hexdigit) =>
                    {
                        6
                    }
                    _ => return None,
                };
            }
            // A control character, or the end of the text.
            _ => return None,
        }
    }
}

#[inline]
fn number(text: &[u8], mut at: usize) -> Option<usize> {
    if text.get(at) == Some(&b'-') {
        at += 1;
    }
    at = match text.get(at) {
        Some(b'0') => at + 1,
        _ => digits(text, at)?,
    };
    if text.get(at) == Some(&b'.') {
        at = digits(text, at + 1)?;
    }
    if let Some(b'e' | b'E') = text.get(at) {
        at += 1;
        if let Some(b'+' | b'-') = text.get(at) {
            at += 1;
        }
        at = digits(text, at)?;
    }
    Some(at)
}

/// One digit or more.
#[inline]
fn digits(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at;
    while let Some(b'0'..=b'9') = text.get(end) {
        end += 1;
    }
    (end > at).then_some(end)
}

fn literal(text: &[u8], at: usize, literal: &[u8]) -> Option<usize> {
    text[at..]
        .starts_with(literal)
        .then_some(at + literal.len())
}

/// How many bytes at the start of `text` stand for themselves in a string: up to a quote, a backslash or a control
/// character. Eight at a time, by the usual tricks with the high bit of each byte.
#[inline(always)]
fn plain_prefix(text: &[u8]) -> usize {
    const ONES: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHS: u64 = ONES << 7;
    let each = |byte: u8| ONES * u64::from(byte);

    let mut rest = text;
    while let Some((chunk, after)) = rest.split_first_chunk() {
        let word = u64::from_le_bytes(*chunk);
        // In ASCII, whose high bit is clear, a byte gets it by going below zero. The lowest byte that is marked is exact;
        // those above it may be marked by a borrow.
        let quote = (word ^ each(b'"')).wrapping_sub(ONES);
        let backslash = (word ^ each(b'\\')).wrapping_sub(ONES);
        let control = word.wrapping_sub(each(0x20));
        let special = (quote | backslash | control) & !word & HIGHS;
        if special != 0 {
            return text.len() - rest.len() + special.trailing_zeros() as usize / 8;
        }
        rest = after;
    }
    let special = |byte: &u8| matches!(byte, b'"' | b'\\' | 0..=0x1f);
    let plain = rest.iter().position(special).unwrap_or(rest.len());
    text.len() - rest.len() + plain
}

#[cfg(test)]
mod tests {
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
}
