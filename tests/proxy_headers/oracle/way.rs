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
    for hops in [&way, &nodes].into_iter().flatten() {
        assert_hops(setup, &before.headers, hops);
    }
    if let (Some(way), Some(nodes)) = (&way, &nodes) {
        assert_eq!(way, nodes, "both say the same");
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

/// The peer at the end of the way, and before it what is claimed, from the right, as far as the trust goes.
#[track_caller]
fn assert_hops(setup: &Setup, claims: &HeaderMap, hops: &[Option<IpAddr>]) {
    let peer = Some(setup.addr());
    if setup.in_forwarded {
        assert_eq!(hops.last(), Some(&peer), "the peer is last");
        for (nth, hop) in hops[1..].iter().rev().enumerate() {
            assert!(setup.believes(*hop, nth), "{hops:?}");
        }
        return;
    }
    let mut expected = vec![peer];
    for claimed in elements(claims, "x-forwarded-for").into_iter().rev() {
        let claimed = std::str::from_utf8(claimed).ok().map(node);
        let nth = expected.len() - 1;
        match claimed {
            Some(Ok(hop)) if setup.believes(expected[nth], nth) => expected.push(hop),
            _ => break,
        }
    }
    expected.reverse();
    assert_eq!(hops, expected);
}
