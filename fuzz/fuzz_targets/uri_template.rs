//! A template under random texts and values: what is expanded has the template's structure and the values given, whatever
//! they hold; what can't be is refused, for the reason that a few lines of their own find.
//!
//! `cargo fuzz run uri_template -- -dict=dictionaries/uri_template`

#![no_main]

use std::fmt::Write;

use arbitrary::Arbitrary;
use http::Uri;
use libfuzzer_sys::fuzz_target;
use watershed::rewrite::{PathParams, RewriteError, UriTemplate};

#[derive(Debug, Arbitrary)]
struct Input {
    template: Template,
    /// The parameters, by the names below; two of one name are a router's mistake.
    params: Vec<(u8, Value)>,
}

#[derive(Debug, Arbitrary)]
enum Template {
    Raw(String),
    Built(u8, Vec<Token>),
}

#[derive(Debug, Arbitrary)]
enum Token {
    Slash,
    Question,
    Param(u8),
    Dot,
    Plain(u8),
    Escape(u8),
    Raw(char),
}

#[derive(Debug, Arbitrary)]
enum Value {
    Text(String),
    /// As a piece of a raw path.
    Encoded(String),
    Hostile(u8),
    /// Some of one character; rarely, very many.
    Repeated(u8, u8),
}

const NAMES: [&str; 4] = ["a", "b", "id", "order-id_2"];

const TARGETS: [&str; 8] = [
    "",
    "http://h",
    "http://users.internal:8080",
    "https://127.0.0.1",
    "HTTP://[::1]:80",
    "http://h@evil",
    "//",
    "ftp://h",
];

const HOSTILE: [&str; 16] = [
    "",
    ".",
    "..",
    "../admin",
    "..\\admin",
    "a/../b",
    "%2e%2e",
    "%252e",
    "%2f..%2f",
    "//evil.com/",
    "a?b#c",
    "{a}",
    "\r\nx: y",
    "\u{0}",
    "@evil.com",
    "...",
];

fn pick<T: Copy>(from: &[T], at: u8) -> T {
    from[usize::from(at) % from.len()]
}

impl Template {
    fn text(&self) -> String {
        let (target, tokens) = match self {
            Self::Raw(text) => return text.clone(),
            Self::Built(target, tokens) => (pick(&TARGETS, *target), tokens),
        };
        let mut text = target.to_owned();
        for token in tokens.iter().take(40) {
            match token {
                Token::Slash => text.push('/'),
                Token::Question => text.push('?'),
                Token::Dot => text.push('.'),
                Token::Param(name) => text.push_str(&format!("{{{}}}", pick(&NAMES, *name))),
                Token::Plain(at) => text.push(char::from(pick(b"abz09-_~!$&'()*+,;=:@", *at))),
                Token::Escape(at) => {
                    let byte = pick(b"./\\%?{\0a\xff", *at);
                    let escape = match at & 0x80 {
                        0 => format!("%{byte:02x}"),
                        _ => format!("%{byte:02X}"),
                    };
                    text.push_str(&escape);
                }
                Token::Raw(char) => text.push(*char),
            }
        }
        text
    }
}

/// One piece of a template's path and query.
#[derive(Debug, PartialEq)]
enum Piece<'a> {
    Literal(&'a str),
    Param(&'a str),
}

/// A template, read by its grammar.
struct Read<'a> {
    /// Scheme and authority.
    target: Option<(String, &'a str)>,
    path: Vec<Piece<'a>>,
    query: Option<Vec<Piece<'a>>>,
}

/// `None` if it is not one.
fn read(text: &str) -> Option<Read<'_>> {
    let (target, rest) = if text.starts_with('/') {
        (None, text)
    } else {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = scheme.to_ascii_lowercase();
        if scheme != "http" && scheme != "https" {
            return None;
        }
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        (Some((scheme, &rest[..end])), &rest[end..])
    };
    if target.is_none() && text.starts_with("//") {
        return None;
    }
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let path = pieces(if path.is_empty() { "/" } else { path })?;
    let query = match query {
        Some(query) => Some(pieces(query)?),
        None => None,
    };
    let dots = path.iter().map(|piece| match piece {
        Piece::Literal(text) => text,
        Piece::Param(_) => "x",
    });
    if has_dots(&dots.collect::<String>()) {
        return None;
    }
    Some(Read {
        target,
        path,
        query,
    })
}

fn pieces(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('{') {
            let (name, after) = after.split_once('}')?;
            let named = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
            if name.is_empty() || !name.chars().all(named) {
                return None;
            }
            pieces.push(Piece::Param(name));
            rest = after;
        } else {
            let end = rest.find('{').unwrap_or(rest.len());
            let (literal, after) = rest.split_at(end);
            // RFC 3986 §3.3 and §3.4: pchar, slash and question mark.
            let allowed = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/?%".contains(c);
            if !literal.chars().all(allowed) {
                return None;
            }
            decode(literal)?;
            pieces.push(Piece::Literal(literal));
            rest = after;
        }
    }
    Some(pieces)
}

/// Percent-decodes once.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut pieces = text.split('%');
    let mut decoded = pieces.next()?.as_bytes().to_vec();
    for piece in pieces {
        let hex = piece.get(..2)?;
        if !hex.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        decoded.push(u8::from_str_radix(hex, 16).ok()?);
        decoded.extend_from_slice(&piece.as_bytes()[2..]);
    }
    Some(decoded)
}

/// Whether a server that decodes a path, takes a backslash for a slash, and the parameters off a segment, would find a dot
/// segment.
fn has_dots(path: &str) -> bool {
    let decoded = decode(path).expect("checked before");
    let mut segments = decoded.split(|byte| matches!(byte, b'/' | b'\\'));
    segments.any(|segment| {
        let name = segment.split(|byte| *byte == b';').next();
        matches!(name, Some(b"." | b".."))
    })
}

#[derive(Debug, PartialEq)]
enum Outcome {
    Missing(String),
    BadValue,
    TooLong,
    Expanded { path: String, query: Option<String> },
}

/// The longest path and query.
const MAX_LEN: usize = 65_534;

/// What the template comes to, with every value encoded for its place.
fn model(read: &Read<'_>, params: &PathParams) -> Outcome {
    let mut path = String::new();
    let mut query = read.query.as_ref().map(|_| String::new());
    for piece in &read.path {
        match piece {
            Piece::Literal(text) => path.push_str(text),
            Piece::Param(name) => {
                let Some(value) = params.get(name) else {
                    return Outcome::Missing((*name).to_owned());
                };
                let climbs = value
                    .split(['/', '\\'])
                    .any(|part| matches!(part, "." | ".."));
                if value.is_empty() || climbs || value.contains('\0') {
                    return Outcome::BadValue;
                }
                if path.len() + value.len() > MAX_LEN {
                    return Outcome::TooLong;
                }
                encode(&mut path, value);
            }
        }
    }
    for piece in read.query.iter().flatten() {
        let query = query.as_mut().expect("as there are pieces");
        match piece {
            Piece::Literal(text) => query.push_str(text),
            Piece::Param(name) => {
                let Some(value) = params.get(name) else {
                    return Outcome::Missing((*name).to_owned());
                };
                if path.len() + 1 + query.len() + value.len() > MAX_LEN {
                    return Outcome::TooLong;
                }
                encode(query, value);
            }
        }
    }
    if has_dots(&path) {
        return Outcome::BadValue;
    }
    if path.len() + query.as_ref().map_or(0, |query| query.len() + 1) > MAX_LEN {
        return Outcome::TooLong;
    }
    Outcome::Expanded { path, query }
}

/// RFC 3986 §2.1 and §2.3.
fn encode(out: &mut String, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => write!(out, "%{byte:02X}").expect("it is a string"),
        }
    }
}

/// The structure, apart from the model: each segment of the template is one segment of the URI, with the template's text
/// around the values, and each value is given back by decoding once.
fn check_structure(pieces: &[Piece<'_>], params: &PathParams, mut text: &str, separator: char) {
    let count = |text: &str| text.matches(separator).count();
    let literals = pieces.iter().map(|piece| match piece {
        Piece::Literal(text) => count(text),
        Piece::Param(_) => 0,
    });
    assert_eq!(count(text), literals.sum(), "a value changed the structure");
    for piece in pieces {
        match piece {
            Piece::Literal(literal) => {
                text = text.strip_prefix(literal).expect("the template's own text");
            }
            Piece::Param(name) => {
                let value = params.get(name).expect("it was expanded").as_bytes();
                // Bytes that stand for themselves, and escapes: of what it takes to make as many as the value has.
                let mut end = 0;
                for _ in value {
                    end += if text.as_bytes()[end] == b'%' { 3 } else { 1 };
                }
                let (own, rest) = text.split_at(end);
                assert!(!own.contains(['/', '?', '#', '&', '=', '+', '@', ':', '\\']));
                assert_eq!(decode(own).expect("escapes"), value);
                text = rest;
            }
        }
    }
    assert_eq!(text, "");
}

fn check_uri(text: &str, read: &Read<'_>, params: &PathParams, uri: &Uri) {
    assert_eq!(
        uri.scheme_str(),
        read.target.as_ref().map(|(scheme, _)| &**scheme)
    );
    assert_eq!(
        uri.authority().map(|a| a.as_str()),
        read.target.as_ref().map(|(_, a)| *a)
    );
    check_structure(&read.path, params, uri.path(), '/');
    match &read.query {
        Some(query) => {
            let text = uri.query().expect("the template has one");
            check_structure(query, params, text, '&');
        }
        None => assert_eq!(uri.query(), None),
    }
    assert!(!has_dots(uri.path()), "{text:?} gives {uri}");
    // On the wire it is a text again.
    let again: Uri = uri.to_string().parse().expect("a URI");
    assert_eq!(again, *uri);
    assert_eq!(again.authority(), uri.authority());
}

fn params(params: &[(u8, Value)]) -> PathParams {
    let decoded = params.iter().map(|(name, value)| {
        let name = pick(&NAMES, *name);
        let value = match value {
            Value::Text(text) => text.clone(),
            Value::Hostile(at) => pick(&HOSTILE, *at).to_owned(),
            Value::Repeated(at, times) => pick(&["x", ".", "/", "%"], *at).repeat(match times {
                0..250 => usize::from(*times),
                250.. => 1 << (usize::from(*times) - 239),
            }),
            Value::Encoded(raw) => {
                let ours = PathParams::decode([(name, &**raw)]);
                let theirs = decode(raw).and_then(|bytes| String::from_utf8(bytes).ok());
                assert_eq!(
                    ours.ok().as_ref().and_then(|params| params.get(name)),
                    theirs.as_deref(),
                    "{raw:?}"
                );
                theirs.unwrap_or_default()
            }
        };
        (name, value)
    });
    decoded.collect()
}

fuzz_target!(|input: Input| {
    let text = input.template.text();
    let params = params(&input.params);
    let read = read(&text);
    let template = match UriTemplate::try_new(&text) {
        Ok(template) => template,
        Err(error) => {
            assert!(error.to_string().contains("is not a URI template"));
            // Which authorities there are is for `http` to say; of these it is known.
            let known = read.is_some_and(|read| match read.target {
                None => true,
                Some((_, authority)) => {
                    ["h", "users.internal:8080", "127.0.0.1", "[::1]:80"].contains(&authority)
                }
            });
            assert!(!known, "{text:?} is a template, and is refused: {error}");
            return;
        }
    };
    let read = read.unwrap_or_else(|| panic!("{text:?} is no template, and is taken"));
    if let Some((_, authority)) = &read.target {
        assert!(!authority.is_empty() && !authority.contains(['@', '{', '}', '/', '\\']));
    }

    let names = read.path.iter().chain(read.query.iter().flatten());
    let names: Vec<_> = names
        .filter_map(|piece| match piece {
            Piece::Param(name) => Some(*name),
            Piece::Literal(_) => None,
        })
        .collect();
    assert_eq!(template.names().collect::<Vec<_>>(), names);

    // It shows itself as a template that is the same.
    let shown = template.to_string();
    let again = UriTemplate::try_new(&shown).expect("it was one");
    assert_eq!(again.to_string(), shown);

    let expected = model(&read, &params);
    let found = match template.expand(&params) {
        Ok(uri) => {
            check_uri(&text, &read, &params, &uri);
            Outcome::Expanded {
                path: uri.path().to_owned(),
                query: uri.query().map(str::to_owned),
            }
        }
        Err(RewriteError::Missing { name }) => Outcome::Missing(name.into()),
        Err(RewriteError::Value(fault)) if fault.status() == 414 => Outcome::TooLong,
        Err(RewriteError::Value(fault)) => {
            assert_eq!(fault.status(), 400);
            Outcome::BadValue
        }
        Err(other) => panic!("{other}"),
    };
    assert_eq!(found, expected, "{text:?} with {params:?}");
    assert_eq!(template.expand(&params).ok(), again.expand(&params).ok());
});
