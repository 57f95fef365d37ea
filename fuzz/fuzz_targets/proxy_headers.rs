//! `ProxyHeadersLayer` under any request, response, trailers and configuration: what it refuses goes no further, and what it
//! passes on or back is fit to be.
//!
//! What is fit is said here again, from the specifications, and not by the code that it is held against.
//!
//! `cargo fuzz run proxy_headers`

#![no_main]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use arbitrary::Arbitrary;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, Version, request};
use http_body::{Body, Frame, SizeHint};
use libfuzzer_sys::fuzz_target;
use tower::{Layer, Service};
use watershed::proxy_headers::{ForwardedStyle, MissingPeer, Peer, ProxyHeadersLayer, TrustedHops};

#[derive(Debug, Arbitrary)]
struct Input {
    setup: Setup,
    method: u8,
    target: Vec<Bit>,
    version: u8,
    /// Whether the `Host` is a good one, so that what comes after it is reached.
    host: bool,
    fields: Vec<(Name, Vec<Bit>)>,
    content: bool,
    trailers: Vec<(Name, Vec<Bit>)>,
    status: u16,
    response: Vec<(Name, Vec<Bit>)>,
    response_trailers: Vec<(Name, Vec<Bit>)>,
}

#[derive(Debug, Arbitrary)]
struct Setup {
    peer: u8,
    tls: bool,
    believes: Believes,
    in_forwarded: bool,
    style: u8,
    connect: bool,
    options: bool,
    trace: bool,
    upgrade: bool,
    via: bool,
    max_fields: Option<u8>,
    max_head: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Arbitrary)]
enum Believes {
    Last(u8),
    /// Those in 10.0.0.0/8.
    Network,
}

#[derive(Debug, Arbitrary)]
enum Name {
    Known(u8),
    Other(Vec<u8>),
}

#[derive(Debug, Arbitrary)]
enum Bit {
    Known(u8),
    Byte(u8),
}

const METHODS: &[&str] = &[
    "GET", "POST", "OPTIONS", "TRACE", "CONNECT", "X-OTHER", "HEAD",
];
const VERSIONS: &[Version] = &[
    Version::HTTP_11,
    Version::HTTP_10,
    Version::HTTP_2,
    Version::HTTP_3,
    Version::HTTP_09,
];
const PEERS: &[&str] = &[
    "192.0.2.7:1",
    "10.0.0.9:1",
    "[::ffff:10.0.0.9]:1",
    "[2001:db8::7]:1",
    "[::1]:1",
];
const STYLES: &[ForwardedStyle] = &[
    ForwardedStyle::XForwarded,
    ForwardedStyle::Rfc7239,
    ForwardedStyle::Both,
    ForwardedStyle::Omit,
];
const NAMES: &[&str] = &[
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "proxy-authenticate",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "http2-settings",
    "host",
    "max-forwards",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x_forwarded_for",
    "x.real.ip",
    "x-real-ip",
    "via",
    "cookie",
    "authorization",
    "set-cookie",
    "cache-control",
    "proxy",
    "x-a",
    "x-b",
    "x-protected",
];
const BITS: &[&[u8]] = &[
    b"a",
    b"h.example",
    b"h.example:80",
    b"[::1]",
    b"::1",
    b"1.1.1.1",
    b"10.0.0.1",
    b"::ffff:10.0.0.1",
    b"unknown",
    b"_x",
    b"for=",
    b"for=1.1.1.1",
    b"for=\"[2001:db8::1]:1\"",
    b";host=",
    b";proto=https",
    b"https",
    b"https://",
    b"http://h.example",
    b", ",
    b";",
    b"\"",
    b"\\",
    b"x-a",
    b"x-b",
    b"x-protected",
    b"x-forwarded-for",
    b"close",
    b"upgrade",
    b"websocket",
    b"h2c",
    b"trailers",
    b"0",
    b"7",
    b"/",
    b"//",
    b"?",
    b"*",
    b"@",
    b":80",
    b"%2e",
    b"4",
    b"+4",
];

fn pick<T: ?Sized>(from: &[&'static T], at: u8) -> &'static T {
    from[usize::from(at) % from.len()]
}

fn bytes(bits: &[Bit]) -> Vec<u8> {
    let bit = |bit: &Bit| match bit {
        Bit::Known(at) => pick(BITS, *at).to_vec(),
        Bit::Byte(byte) => vec![*byte],
    };
    bits.iter().flat_map(bit).collect()
}

fn headers(fields: &[(Name, Vec<Bit>)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        let name = match name {
            Name::Known(at) => Ok(HeaderName::from_static(pick(NAMES, *at))),
            Name::Other(name) => HeaderName::from_bytes(name),
        };
        // What no parser of HTTP lets through is nothing that we see.
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(bytes(value).trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

/// Some data, and trailers.
struct TwoFrames {
    data: bool,
    trailers: Option<HeaderMap>,
}

impl Body for TwoFrames {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if std::mem::take(&mut self.data) {
            return Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(CONTENT)))));
        }
        Poll::Ready(
            self.trailers
                .take()
                .map(|trailers| Ok(Frame::trailers(trailers))),
        )
    }

    fn is_end_stream(&self) -> bool {
        !self.data && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(if self.data { CONTENT.len() as u64 } else { 0 })
    }
}

const CONTENT: &[u8] = b"data";

/// Reads a body to its end; its trailers.
fn read<B: Body<Data = Bytes>>(body: B) -> Option<HeaderMap> {
    let mut body = pin!(body);
    let mut trailers = None;
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        let ended = body.is_end_stream();
        match body.as_mut().poll_frame(&mut cx) {
            Poll::Pending => panic!("pending, though nothing is to be waited for"),
            Poll::Ready(None) => return trailers,
            Poll::Ready(Some(frame)) => {
                assert!(!ended, "a frame behind the announced end");
                let Ok(frame) = frame else { panic!("an error") };
                if let Ok(fields) = frame.into_trailers() {
                    assert!(trailers.replace(fields).is_none());
                }
            }
        }
    }
}

/// Answers with what is there, and keeps what it was asked.
struct Inner {
    seen: Rc<RefCell<Option<(request::Parts, Option<HeaderMap>)>>>,
    response: Option<Response<TwoFrames>>,
}

impl<B: Body<Data = Bytes>> Service<Request<B>> for Inner {
    type Response = Response<TwoFrames>;
    type Error = Infallible;
    type Future = Ready<Result<Response<TwoFrames>, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (head, body) = request.into_parts();
        *self.seen.borrow_mut() = Some((head, read(body)));
        ready(Ok(self.response.take().expect("called once")))
    }
}

// The oracle.

/// The elements of a list, in lower case.
fn elements(headers: &HeaderMap, name: &str) -> Vec<String> {
    let lines = headers.get_all(name).iter();
    let split = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    split
        .map(|element| String::from_utf8_lossy(element.trim_ascii()).to_lowercase())
        .filter(|element| !element.is_empty())
        .collect()
}

fn only<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next()?;
    assert!(lines.next().is_none(), "{name} has several lines");
    Some(line.to_str().expect("ASCII"))
}

/// What `Content-Length` says (RFC 9110 §8.6): one number, however often. Beside a transfer coding it says nothing.
fn said_length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    let mut said = Vec::new();
    for line in headers.get_all("content-length") {
        for number in line.to_str().map_err(drop)?.split(',') {
            let number = number.trim_matches([' ', '\t']);
            let is_one = !number.is_empty() && number.chars().all(|c| c.is_ascii_digit());
            said.push(number.parse::<u64>().ok().filter(|_| is_one).ok_or(())?);
        }
    }
    let first = said.first().copied();
    match said.iter().all(|length| Some(*length) == first) {
        true => Ok(first),
        false => Err(()),
    }
}

fn length_to_pass(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    match headers.contains_key("transfer-encoding") {
        true => Ok(None),
        false => said_length(headers),
    }
}

/// The length in the one field that says one.
fn length(headers: &HeaderMap) -> Option<u64> {
    only(headers, "content-length").map(|length| {
        assert!(length.chars().all(|c| c.is_ascii_digit()), "{length}");
        length.parse().expect("a length")
    })
}

fn is_hop_by_hop(name: &str) -> bool {
    [
        "connection",
        "http2-settings",
        "keep-alive",
        "proxy",
        "proxy-authenticate",
        "proxy-authentication-info",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "transfer-encoding",
        "upgrade",
    ]
    .contains(&name)
}

fn is_for_all(name: &str) -> bool {
    [
        "authorization",
        "cache-control",
        "cookie",
        "max-forwards",
        "via",
        "content-encoding",
        "content-length",
        "content-range",
        "content-type",
        "date",
        "expires",
        "host",
        "set-cookie",
        "vary",
        "x-protected",
    ]
    .contains(&name)
}

/// As a CGI script would see the name.
fn cgi(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(plain).collect()
}

fn is_claim(name: &str) -> bool {
    let name = cgi(name);
    name == "forwarded"
        || name.starts_with("x_forwarded_")
        || name.starts_with("x_original_")
        || [
            "x_forwarded",
            "forwarded_for",
            "x_real_ip",
            "client_ip",
            "x_client_ip",
            "x_host",
        ]
        .contains(&&*name)
}

/// Of what is not the connection's own and not a claim, nothing is changed and nothing is lost but what was named.
fn assert_end_to_end(before: &HeaderMap, after: &HeaderMap, written: &[&str]) {
    let named = elements(before, "connection");
    for name in before.keys().chain(after.keys()) {
        let text = name.as_str();
        if written.contains(&text) || is_claim(text) {
            continue;
        }
        let gone =
            is_hop_by_hop(text) || (named.iter().any(|named| named == text) && !is_for_all(text));
        if gone {
            assert!(!after.contains_key(name), "{text} is of the connection");
        } else if !after.get_all(name).iter().eq(before.get_all(name)) {
            // Names that are claims to some servers, of which this list is not the longest.
            let known = text.contains("ip") || text.contains("addr") || text.contains("scheme");
            let known =
                known || text.contains("https") || text.contains("url") || text.contains("envoy");
            assert!(known && !after.contains_key(name), "{text} was changed");
        }
    }
}

fn assert_trailers(before: Option<&HeaderMap>, after: Option<&HeaderMap>) {
    let (Some(before), Some(after)) = (before, after) else {
        assert_eq!(before.is_some(), after.is_some());
        return;
    };
    let named = elements(before, "connection");
    for name in after.keys() {
        let text = name.as_str();
        assert!(!is_hop_by_hop(text) && !is_claim(text), "{text}");
        for forbidden in [
            "authorization",
            "cache-control",
            "content-length",
            "cookie",
            "host",
            "max-forwards",
            "set-cookie",
            "trailer",
            "via",
        ] {
            assert_ne!(text, forbidden);
        }
        assert!(
            !named.iter().any(|named| named == text) || is_for_all(text),
            "{text}"
        );
        assert!(after.get_all(name).iter().eq(before.get_all(name)));
    }
    for name in ["x-a", "x-b"] {
        let stays = before.contains_key(name) && !named.iter().any(|named| named == name);
        assert_eq!(after.contains_key(name), stays, "{name}");
    }
}

/// `host[:port]` (RFC 3986 §3.2).
fn is_host(text: &str) -> bool {
    let (sound, rest) = match text.strip_prefix('[') {
        Some(rest) => {
            let Some((addr, rest)) = rest.split_once(']') else {
                return false;
            };
            (addr.parse::<std::net::Ipv6Addr>().is_ok(), rest)
        }
        None => {
            let (host, _) = text.split_once(':').unwrap_or((text, ""));
            let good = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'*+=".contains(c);
            (
                !host.is_empty() && host.chars().all(good),
                &text[host.len()..],
            )
        }
    };
    let port = rest.strip_prefix(':').unwrap_or(rest);
    let has_colon = port.len() < rest.len();
    let number = port.chars().all(|c| c.is_ascii_digit())
        && port.trim_start_matches('0').len() <= 5
        && port.parse::<u64>().unwrap_or(0) <= 65_535;
    sound && (rest.is_empty() || has_colon) && number
}

/// RFC 7239 §4; the parameters of each element.
fn parse_forwarded(text: &str) -> Vec<Vec<(String, String)>> {
    let mut rest = text.chars().peekable();
    let mut elements = vec![Vec::new()];
    let tchar = |c: &char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(*c);
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

/// An address, in any of the ways to write one; `None` for one that is hidden.
fn node(text: &str) -> Result<Option<IpAddr>, ()> {
    let plain = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let addr = plain
        .and_then(|text| text.parse::<std::net::Ipv6Addr>().ok().map(IpAddr::from))
        .or_else(|| text.parse::<IpAddr>().ok())
        .or_else(|| text.parse::<SocketAddr>().ok().map(|addr| addr.ip()));
    match addr {
        Some(addr) => Ok(Some(addr.to_canonical())),
        None if text.eq_ignore_ascii_case("unknown") => Ok(None),
        None if text.starts_with('_') && text.len() > 1 => Ok(None),
        None => Err(()),
    }
}

fn is_ours(addr: Option<IpAddr>) -> bool {
    matches!(addr, Some(IpAddr::V4(addr)) if addr.octets()[0] == 10)
}

fn assert_claims(setup: &Setup, peer: IpAddr, before: &request::Parts, after: &request::Parts) {
    let style = STYLES[usize::from(setup.style) % STYLES.len()];
    let headers = &after.headers;
    let believes = match setup.believes {
        Believes::Last(count) => count > 0,
        Believes::Network => is_ours(Some(peer)),
    };
    let way = only(headers, "x-forwarded-for");
    let elements = only(headers, "forwarded");
    let is = |styles: [ForwardedStyle; 2]| styles.contains(&style);
    assert_eq!(
        way.is_some(),
        is([ForwardedStyle::XForwarded, ForwardedStyle::Both])
    );
    assert_eq!(
        elements.is_some(),
        is([ForwardedStyle::Rfc7239, ForwardedStyle::Both])
    );

    let way = way.map(|way| -> Vec<Option<IpAddr>> {
        let hops = way.split(", ");
        hops.map(|hop| node(hop).expect("a hop")).collect()
    });
    let forwarded = elements
        .map(parse_forwarded)
        .map(|elements| -> Vec<Option<IpAddr>> {
            let hops = elements.iter().map(|element| {
                for name in ["for", "host", "proto"] {
                    let said = element.iter().filter(|(known, _)| known == name).count();
                    assert!(said <= 1, "{name} twice");
                }
                for (name, value) in element {
                    match &**name {
                        "for" => {}
                        "host" => assert!(is_host(value), "{value}"),
                        "proto" => assert!(value.starts_with(|c: char| c.is_ascii_alphabetic())),
                        other => panic!("{other}"),
                    }
                }
                let (_, value) = element
                    .iter()
                    .find(|(name, _)| name == "for")
                    .expect("for whom");
                node(value).expect("a node")
            });
            hops.collect()
        });
    for hops in [&way, &forwarded].into_iter().flatten() {
        assert_eq!(hops.last(), Some(&Some(peer)), "the last is the peer");
        match setup.believes {
            Believes::Last(count) => assert!(hops.len() <= usize::from(count).min(64) + 1),
            Believes::Network => {
                assert!(hops.len() <= 65);
                assert!(hops[1..].iter().all(|hop| is_ours(*hop)), "{hops:?}");
            }
        }
        if !setup.in_forwarded {
            // What is believed is what stands on the right.
            let mut claimed: Vec<Vec<u8>> = Vec::new();
            for line in before.headers.get_all("x-forwarded-for") {
                let split = line.as_bytes().split(|&byte| byte == b',');
                claimed.extend(split.map(|hop| hop.trim_ascii().to_vec()));
            }
            claimed.retain(|hop| !hop.is_empty());
            for (hop, claimed) in hops.iter().rev().skip(1).zip(claimed.iter().rev()) {
                let claimed = std::str::from_utf8(claimed).expect("it is believed");
                assert_eq!(node(claimed), Ok(*hop));
            }
            assert!(hops.len() <= claimed.len() + 1);
        }
    }
    if let (Some(way), Some(forwarded)) = (&way, &forwarded) {
        assert_eq!(way, forwarded, "both say the same");
    }
    for (name, is_sound) in [
        ("x-forwarded-host", is_host as fn(&str) -> bool),
        ("x-forwarded-proto", |text| {
            text.starts_with(|c: char| c.is_ascii_alphabetic())
        }),
    ] {
        let said = only(headers, name);
        assert!(said.is_none_or(is_sound), "{said:?}");
        assert!(said.is_none() || way.is_some());
        if let (Some(said), false) = (said, believes) {
            let own = match name {
                "x-forwarded-host" => only(headers, "host"),
                _ if setup.tls => Some("https"),
                _ => Some("http"),
            };
            assert_eq!(Some(said), own);
        }
    }
    for name in headers.keys().map(HeaderName::as_str) {
        let ours = [
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "forwarded",
        ];
        if is_claim(name) && !ours.contains(&name) {
            assert!(believes && style != ForwardedStyle::Omit, "{name}");
            assert_eq!(cgi(name), name.replace('-', "_"), "{name}");
            assert!(WRITTEN.contains(&name), "{name}");
        }
    }
}

fn assert_passed_on(setup: &Setup, peer: IpAddr, before: &request::Parts, after: &request::Parts) {
    assert_eq!(Ok(length(&after.headers)), length_to_pass(&before.headers));
    let mut written = vec![
        "content-length",
        "host",
        "te",
        "connection",
        "upgrade",
        "via",
        "cookie",
        "max-forwards",
    ];
    if after.method == "TRACE" {
        written.push("authorization");
        assert!(
            !after.headers.contains_key("authorization") && !after.headers.contains_key("cookie")
        );
    }
    assert_end_to_end(&before.headers, &after.headers, &written);
    assert_claims(setup, peer, before, after);
    assert_eq!(
        (&after.method, after.version),
        (&before.method, before.version)
    );

    // The connection's own.
    let te = only(&after.headers, "te");
    assert!(
        te.is_none()
            || (te == Some("trailers")
                && elements(&before.headers, "te").contains(&"trailers".into()))
    );
    match (
        only(&after.headers, "connection"),
        only(&after.headers, "upgrade"),
    ) {
        (None, None) => {}
        (Some("upgrade"), Some(protocols)) => {
            assert!(setup.upgrade && after.version == Version::HTTP_11);
            assert!(elements(&before.headers, "connection").contains(&"upgrade".into()));
            for protocol in protocols.to_lowercase().split(", ") {
                let version = protocol.strip_prefix("websocket").expect("what may be");
                assert!(version.is_empty() || version.starts_with('/'), "{protocol}");
                assert!(elements(&before.headers, "upgrade").contains(&protocol.into()));
            }
        }
        other => panic!("{other:?}"),
    }
    if after.version >= Version::HTTP_2 {
        assert!(after.headers.get_all("cookie").iter().count() <= 1);
    }

    // Host and target.
    let host = only(&after.headers, "host");
    assert!(host.is_some() || after.version <= Version::HTTP_10);
    assert!(host.is_none_or(is_host), "{host:?}");
    if let Some(authority) = before.uri.authority() {
        assert_eq!(host, Some(authority.as_str()));
    } else {
        assert!(after.headers.get("host") == before.headers.get("host"));
    }
    if after.method == "CONNECT" {
        assert!(setup.connect);
        assert_eq!(after.uri, before.uri);
        assert!(after.uri.authority().is_some());
    } else {
        assert_eq!((after.uri.scheme(), after.uri.authority()), (None, None));
        assert_eq!(after.uri.path(), before.uri.path());
        assert_eq!(after.uri.query(), before.uri.query());
        let text = after.uri.to_string();
        assert_eq!(after.uri.path_and_query().expect("a path").as_str(), text);
        let asterisk = text == "*" && after.method == "OPTIONS" && setup.options;
        assert!(text.starts_with('/') || asterisk, "{text}");
    }

    // Max-Forwards.
    if ["OPTIONS", "TRACE"].contains(&after.method.as_str()) {
        assert!(after.method != "TRACE" || setup.trace);
        if let Some(left) = only(&after.headers, "max-forwards") {
            let given = only(&before.headers, "max-forwards").expect("given");
            let number = |text: &str| text.parse::<u128>().unwrap_or(u128::MAX);
            assert_eq!(number(left) + 1, number(given).min(u32::MAX.into()));
        }
    }
}

/// Whether a request is so plain that there is no reason to refuse it.
fn is_plain(head: &request::Parts) -> bool {
    let host = only_plain(&head.headers, "host");
    host.is_some_and(is_host)
        && ["GET", "POST", "X-OTHER"].contains(&head.method.as_str())
        && head.uri.authority().is_none()
        && head.uri.path().starts_with('/')
        && !is_coded(&head.headers)
        && length_to_pass(&head.headers).is_ok()
        && !has_quote(&head.headers)
}

/// Whether there is a quote in what proxies have said: one that is not closed is a reason.
fn has_quote(headers: &HeaderMap) -> bool {
    let lines = headers.get_all("forwarded");
    lines.iter().any(|line| line.as_bytes().contains(&b'"'))
}

/// Whether a body may be coded in another way than `chunked`, once.
fn is_coded(headers: &HeaderMap) -> bool {
    headers.contains_key("transfer-encoding")
        && elements(headers, "transfer-encoding") != ["chunked"]
}

fn only_plain<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let mut lines = headers.get_all(name).iter();
    let line = lines.next().filter(|_| lines.next().is_none())?;
    line.to_str().ok()
}

/// What trusted proxies write besides the two fields that all of them do.
const WRITTEN: [&str; 2] = ["x-forwarded-host", "x-forwarded-port"];

fn layer(setup: &Setup) -> ProxyHeadersLayer {
    let trusted = match setup.believes {
        Believes::Last(count) => TrustedHops::last(count.into()),
        Believes::Network => TrustedHops::networks(["10.0.0.0/8"]),
    };
    let trusted = match setup.in_forwarded {
        true => trusted.in_forwarded(),
        false => trusted,
    };
    let mut layer = ProxyHeadersLayer::new()
        .trusted_hops(trusted.writing(WRITTEN.map(HeaderName::from_static)))
        .forwarded(STYLES[usize::from(setup.style) % STYLES.len()])
        .protect([HeaderName::from_static("x-protected")]);
    if setup.connect {
        layer = layer.forward_connect();
    }
    if setup.options {
        layer = layer.forward_options_asterisk();
    }
    if setup.trace {
        layer = layer.forward_trace();
    }
    if setup.upgrade {
        layer = layer.allow_upgrade("WebSocket");
    }
    if setup.via {
        layer = layer.via("front");
    }
    if let (Some(fields), Some(bytes)) = (setup.max_fields, setup.max_head) {
        layer = layer.max_response_head(fields.into(), bytes.into());
    }
    layer
}

fuzz_target!(|input: Input| {
    let setup = &input.setup;
    let peer: SocketAddr = pick(PEERS, setup.peer).parse().expect("an address");

    let mut request = Request::new(TwoFrames {
        data: input.content,
        trailers: (!input.trailers.is_empty()).then(|| headers(&input.trailers)),
    });
    *request.method_mut() = pick(METHODS, input.method).parse().expect("a method");
    *request.version_mut() = VERSIONS[usize::from(input.version) % VERSIONS.len()];
    let target = bytes(&input.target);
    *request.uri_mut() = http::Uri::try_from(&target[..]).unwrap_or_default();
    *request.headers_mut() = headers(&input.fields);
    if input.host {
        request
            .headers_mut()
            .insert("host", HeaderValue::from_static("h.example"));
    }
    let with_peer = setup.peer != u8::MAX;
    if with_peer {
        let peer = Peer::new(peer);
        request
            .extensions_mut()
            .insert(if setup.tls { peer.over_tls() } else { peer });
    }
    let sent_trailers = request.body().trailers.clone();
    let before = {
        let mut head = Request::new(()).into_parts().0;
        head.method = request.method().clone();
        head.uri = request.uri().clone();
        head.version = request.version();
        head.headers = request.headers().clone();
        head
    };

    let mut response = Response::new(TwoFrames {
        data: true,
        trailers: (!input.response_trailers.is_empty()).then(|| headers(&input.response_trailers)),
    });
    let status = 100 + input.status % 500;
    *response.status_mut() = status.try_into().expect("a status");
    *response.headers_mut() = headers(&input.response);
    let (given, given_trailers) = (response.headers().clone(), response.body().trailers.clone());

    let seen = Rc::new(RefCell::new(None));
    let inner = Inner {
        seen: Rc::clone(&seen),
        response: Some(response),
    };
    let mut service = layer(setup).layer(inner);
    let call = pin!(service.call(request));
    let Poll::Ready(Ok(response)) = call.poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("the answer is there");
    };
    let (head, body) = response.into_parts();
    let is_head = before.method == "HEAD";
    assert!(!is_head || body.is_end_stream());
    let is_empty = body.is_end_stream();
    let trailers = read(body);
    let status_is = head.status.as_u16();

    let Some((after, seen_trailers)) = seen.take() else {
        assert!([204, 400, 500, 501].contains(&status_is), "{status_is}");
        assert_eq!(
            status_is == 500,
            head.extensions.get::<MissingPeer>().is_some()
        );
        let omits = STYLES[usize::from(setup.style) % STYLES.len()] == ForwardedStyle::Omit;
        assert_eq!(status_is == 500, !with_peer && !omits);
        assert!(
            status_is == 500 || !is_plain(&before),
            "refused for nothing: {before:?}"
        );
        assert!(trailers.is_none());
        let most = 1 + usize::from(is_head);
        assert!(head.headers.len() <= most, "an answer of its own: {head:?}");
        return;
    };
    if with_peer {
        assert_passed_on(setup, peer.ip().to_canonical(), &before, &after);
    }
    assert_trailers(sent_trailers.as_ref(), seen_trailers.as_ref());

    let len = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len();
    let (fields, bytes) = match (setup.max_fields, setup.max_head) {
        (Some(fields), Some(bytes)) => (fields.into(), bytes.into()),
        _ => (128, 64 * 1024),
    };
    let over = given.len() > fields || given.iter().map(len).sum::<usize>() > bytes;
    let asked = elements(&after.headers, "upgrade");
    let chosen = elements(&given, "upgrade");
    let switches = status == 101 && chosen.len() == 1 && asked.contains(&chosen[0]);
    // RFC 9110 §8.6, §9.3.6, §15.3.6.
    let opens_tunnel = before.method == "CONNECT" && (200..300).contains(&status);
    let says_none = status < 200 || [204, 205].contains(&status) || opens_tunnel;
    let said = length_to_pass(&given);
    let fits = |said: u64| status == 304 || said == CONTENT.len() as u64;
    let is_long = says_none || said.is_ok_and(|said| said.is_none_or(fits));
    if over || (status < 200 && !switches) || is_coded(&given) || !is_long {
        assert_eq!(status_is, 502);
        assert!(trailers.is_none());
        let left = 1 + usize::from(is_head);
        assert_eq!(head.headers.len(), left, "nothing of it is left");
        return;
    }
    assert_eq!(status_is, status);
    assert_eq!(is_empty, is_head || [204, 205, 304].contains(&status));
    assert_eq!(
        length(&head.headers),
        match said {
            _ if says_none => None,
            // That of the content that is left out.
            Ok(None) if is_head && status != 304 => Some(CONTENT.len() as u64),
            said => said.expect("checked"),
        }
    );
    match is_empty {
        true => assert!(trailers.is_none()),
        false => assert_trailers(given_trailers.as_ref(), trailers.as_ref()),
    }
    let upgrade = only(&head.headers, "upgrade");
    assert_eq!(
        only(&head.headers, "connection"),
        upgrade.map(|_| "upgrade")
    );
    assert_eq!(status == 101, upgrade.is_some() && status != 426);
    // Claims are of requests; in a response they are fields as any other.
    let mut left = head.headers;
    for name in ["connection", "content-length", "upgrade", "via"] {
        left.remove(name);
    }
    let named = elements(&given, "connection");
    for name in given.keys().chain(left.keys()) {
        let text = name.as_str();
        let gone = is_hop_by_hop(text) || ["content-length", "via"].contains(&text);
        let may_go =
            named.iter().any(|named| named == text) && !is_for_all(text) && !is_claim(text);
        if gone || may_go {
            assert!(
                !left.contains_key(name) || (may_go && text.contains("ip")),
                "{text}"
            );
        } else {
            assert!(left.get_all(name).iter().eq(given.get_all(name)), "{text}");
        }
    }
});
