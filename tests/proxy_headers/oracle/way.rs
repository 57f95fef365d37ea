//! What is said of the way that a request has come (RFC 7239).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::{HeaderMap, request};
use watershed::proxy_headers::ForwardedStyle;

use super::Setup;
use super::fields::{elements, only};
use super::requests::{is_host, is_port};
use super::upgrades::is_tchar;

/// RFC 7239 §4; the parameters of each element.
#[track_caller]
fn parse_forwarded(text: &str) -> Vec<Vec<(String, String)>> {
    let mut rest = text.chars().peekable();
    let mut elements = vec![Vec::new()];
    let tchar = |c: &char| is_tchar(*c);
    loop {
        let mut name = String::new();
        while let Some(c) = rest.next_if(tchar) {
            name.push(c);
        }
        assert!(!name.is_empty() && rest.next() == Some('='), "{text}");
        let mut value = String::new();
        if rest.next_if_eq(&'"').is_some() {
            loop {
                match rest.next().expect("a quoted string ends") {
                    '"' => break,
                    '\\' => value.push(rest.next().expect("something is escaped")),
                    c => value.push(c),
                }
            }
        } else {
            while let Some(c) = rest.next_if(tchar) {
                value.push(c);
            }
            assert!(!value.is_empty(), "{text}");
        }
        elements.last_mut().expect("one").push((name, value));
        match rest.next() {
            None => return elements,
            Some(';') => {}
            Some(',') => {
                assert_eq!(rest.next(), Some(' '), "{text}");
                elements.push(Vec::new());
            }
            other => panic!("{other:?} in {text}"),
        }
    }
}

/// RFC 7239 §6, or an address as it stands; `None` for one that is hidden.
fn node(text: &str) -> Result<Option<IpAddr>, ()> {
    if let Ok(addr) = text.parse::<IpAddr>() {
        return Ok(Some(addr.to_canonical()));
    }
    let is_hidden = |name: &str| {
        let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        name.len() > 1 && name.starts_with('_') && name.chars().all(good)
    };
    let name = match text.rsplit_once(':') {
        Some((name, port)) if is_port(port) || is_hidden(port) => name,
        _ => text,
    };
    if let Some(addr) = name.strip_prefix('[') {
        let addr = addr.strip_suffix(']').ok_or(())?;
        let addr: Ipv6Addr = addr.parse().map_err(drop)?;
        return Ok(Some(IpAddr::from(addr).to_canonical()));
    }
    match name.parse::<Ipv4Addr>() {
        Ok(addr) => Ok(Some(addr.into())),
        Err(_) if name.eq_ignore_ascii_case("unknown") || is_hidden(name) => Ok(None),
        Err(_) => Err(()),
    }
}

/// RFC 3986 §3.1.
fn is_scheme(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
}

/// The value of the only parameter of this name.
#[track_caller]
fn parameter<'a>(element: &'a [(String, String)], name: &str) -> Option<&'a str> {
    let mut found = element.iter().filter(|(known, _)| known == name);
    let (_, value) = found.next()?;
    assert!(found.next().is_none(), "{name} twice");
    Some(value)
}

/// What is said of the way here: what is believed of it, and the peer; in both styles the same.
#[track_caller]
pub(super) fn assert_claims(setup: &Setup, before: &request::Parts, after: &request::Parts) {
    let headers = &after.headers;
    let way = only(headers, "x-forwarded-for");
    let elements = only(headers, "forwarded").map(parse_forwarded);
    let (x_forwarded, rfc7239) = match setup.style {
        ForwardedStyle::XForwarded => (true, false),
        ForwardedStyle::Rfc7239 => (false, true),
        ForwardedStyle::Both => (true, true),
        _ => (false, false),
    };
    assert_eq!((way.is_some(), elements.is_some()), (x_forwarded, rfc7239));

    let way: Option<Vec<_>> = way.map(|way| {
        let hops = way.split(", ");
        hops.map(|hop| node(hop).expect("a hop")).collect()
    });
    let nodes: Option<Vec<_>> = elements.as_ref().map(|elements| {
        let node = |element: &Vec<_>| node(parameter(element, "for").expect("for whom"));
        elements.iter().map(|one| node(one).expect("one")).collect()
    });
    for hops in [way, nodes].into_iter().flatten() {
        assert_eq!(Ok(hops), believed(setup, &before.headers));
    }

    let host = only(headers, "x-forwarded-host");
    let proto = only(headers, "x-forwarded-proto");
    assert!(host.is_none_or(is_host), "{host:?}");
    assert!(proto.is_none_or(is_scheme), "{proto:?}");
    assert_eq!(proto.is_some(), x_forwarded);
    assert!(host.is_none() || x_forwarded);
    for element in elements.iter().flatten() {
        assert!(parameter(element, "host").is_none_or(is_host));
        assert!(parameter(element, "proto").is_none_or(is_scheme));
        for (name, _) in element {
            assert!(["for", "host", "proto"].contains(&&**name), "{name}");
        }
    }
    if !setup.believes_peer() {
        let (asked, proto_is) = (only(headers, "host"), Some(setup.proto()));
        if x_forwarded {
            assert_eq!((host, proto), (asked, proto_is));
        }
        for own in elements.iter().flatten() {
            assert_eq!(parameter(own, "host"), asked);
            assert_eq!(parameter(own, "proto"), proto_is);
        }
    }
}

/// How a byte of `Forwarded` stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stands {
    Plain,
    Quote,
    Quoted,
}

type Text = [(u8, Stands)];

/// A line without its escapes, if its quoted strings end.
fn read_quotes(line: &[u8]) -> Option<Vec<(u8, Stands)>> {
    let (mut text, mut bytes, mut is_quoted) = (Vec::new(), line.iter(), false);
    while let Some(&byte) = bytes.next() {
        text.push(match byte {
            b'"' => {
                is_quoted = !is_quoted;
                (byte, Stands::Quote)
            }
            b'\\' if is_quoted => (*bytes.next()?, Stands::Quoted),
            _ if is_quoted => (byte, Stands::Quoted),
            _ => (byte, Stands::Plain),
        });
    }
    (!is_quoted).then_some(text)
}

/// What stands between these, without the space around it, if it is something.
fn parts(text: &Text, separator: u8) -> impl DoubleEndedIterator<Item = &Text> {
    let is_space = |at: &(u8, Stands)| [b' ', b'\t'].contains(&at.0) && at.1 == Stands::Plain;
    let parts = text.split(move |at| *at == (separator, Stands::Plain));
    parts.filter_map(move |part| {
        let first = part.iter().position(|at| !is_space(at))?;
        let last = part.iter().rposition(|at| !is_space(at))?;
        Some(&part[first..=last])
    })
}

/// A token, in which these may stand besides.
fn token(text: &Text, besides: &str) -> Result<String, ()> {
    let char = |&(byte, stands): &(u8, Stands)| {
        let c = char::from(byte);
        let is_good = stands == Stands::Plain && (is_tchar(c) || besides.contains(c));
        is_good.then_some(c).ok_or(())
    };
    let token: String = text.iter().map(char).collect::<Result<_, _>>()?;
    (!token.is_empty()).then_some(token).ok_or(())
}

/// A quoted string, or a token; an address may stand there as it is.
fn value(text: &Text) -> Result<String, ()> {
    let [(_, Stands::Quote), quoted @ .., (_, Stands::Quote)] = text else {
        return token(text, ":[]");
    };
    let byte = |&(byte, stands): &(u8, Stands)| (stands == Stands::Quoted).then_some(byte);
    let bytes: Option<Vec<u8>> = quoted.iter().map(byte).collect();
    String::from_utf8(bytes.ok_or(())?).map_err(drop)
}

/// Whom an element of `Forwarded` is for.
fn claimed_node(element: &Text) -> Result<Option<IpAddr>, ()> {
    let mut said: Vec<(String, String)> = Vec::new();
    for pair in parts(element, b';') {
        let equals = pair.iter().position(|at| at.0 == b'=').ok_or(())?;
        let name = token(&pair[..equals], "")?.to_ascii_lowercase();
        let is_known = ["for", "by", "host", "proto"].contains(&&*name);
        if is_known && said.iter().any(|(known, _)| *known == name) {
            return Err(());
        }
        said.push((name, value(&pair[equals + 1..])?));
    }
    let node_of = said.iter().find(|(name, _)| name == "for");
    node(&node_of.ok_or(())?.1)
}

enum Claim {
    /// Malformed ones are errors.
    Hop(Result<Option<IpAddr>, ()>),
    /// A line of which nobody knows where its elements are.
    Illegible,
}

/// What is claimed of the way here, from right to left.
fn claims(setup: &Setup, headers: &HeaderMap) -> Vec<Claim> {
    if !setup.in_forwarded {
        let hop = |hop: &[u8]| std::str::from_utf8(hop).map_err(drop).and_then(node);
        let hops = elements(headers, "x-forwarded-for").into_iter().rev();
        return hops.map(|claimed| Claim::Hop(hop(claimed))).collect();
    }
    let mut claims = Vec::new();
    for line in headers.get_all("forwarded").iter().rev() {
        match read_quotes(line.as_bytes()) {
            Some(line) => claims.extend(parts(&line, b',').rev().map(claimed_node).map(Claim::Hop)),
            None => claims.push(Claim::Illegible),
        }
    }
    claims
}

/// The way here: the peer at its end, and before it what is claimed, from the right, as far as the trust goes. An error if it
/// goes to where nothing can be read.
pub(super) fn believed(setup: &Setup, headers: &HeaderMap) -> Result<Vec<Option<IpAddr>>, ()> {
    let mut hops = vec![Some(setup.addr())];
    for (nth, claim) in claims(setup, headers).into_iter().enumerate() {
        if !setup.believes(hops[nth], nth) {
            break;
        }
        match claim {
            Claim::Hop(Ok(hop)) => hops.push(hop),
            Claim::Hop(Err(())) => break,
            Claim::Illegible => return Err(()),
        }
    }
    hops.reverse();
    Ok(hops)
}
