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
mod tests;
