//! What holds whatever the request, the response and the configuration are.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderName, HeaderValue};
use http::uri;
use proptest::prelude::*;
use watershed::proxy_headers::{ForwardedStyle, TrustedHops};

use super::*;

const NAMES: &[&str] = &[
    "connection",
    "connection",
    "connection",
    "keep-alive",
    "proxy-connection",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "content-length",
    "upgrade",
    "http2-settings",
    "host",
    "host",
    "host",
    "max-forwards",
    "forwarded",
    "forwarded",
    "x-forwarded-for",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-port",
    "x_forwarded_for",
    "x-real-ip",
    "via",
    "cookie",
    "x-a",
    "x-b",
    "x-protected",
];

const BITS: &[&[u8]] = &[
    b"a",
    b"h.example",
    b":80",
    b":",
    b"@",
    b",",
    b", ",
    b";",
    b"=",
    b"\"",
    b"\\",
    b" ",
    b"\t",
    b"[",
    b"]",
    b"[::1]",
    b"::1",
    b"1.1.1.1",
    b"10.0.0.1",
    b"::ffff:10.0.0.1",
    b"unknown",
    b"_x",
    b"for=",
    b"host=",
    b"proto=",
    b"https",
    b"for=1.1.1.1",
    b"for=\"[::1]:1\"",
    b"x-a",
    b"x-protected",
    b"host",
    b"close",
    b"upgrade",
    b"websocket",
    b"h2c",
    b"trailers",
    b"0",
    b"7",
    b"7, 7",
    b"+7",
    b"-",
    b"\xff",
    b"\x80",
    b"\xc3\xa9",
    b"*",
    b"x-forwarded-for",
    b"//",
    b"/",
    b"?",
];

fn value() -> impl Strategy<Value = HeaderValue> {
    let bits =
        prop::collection::vec(prop::sample::select(BITS), 0..6).prop_map(|bits| bits.concat());
    let bytes = prop::collection::vec(
        prop_oneof![0x20..0x7f_u8, 0x80..=0xff_u8, Just(b'\t')],
        0..12,
    );
    prop_oneof![4 => bits, 1 => bytes]
        .prop_map(|bytes| HeaderValue::from_bytes(&bytes).expect("a value"))
}

fn name() -> impl Strategy<Value = HeaderName> {
    let any = "[a-z0-9_.!~-]{1,12}";
    let known = prop::sample::select(NAMES).prop_map(HeaderName::from_static);
    prop_oneof![8 => known, 1 => any.prop_map(|name| name.parse().expect("a name"))]
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec((name(), value()), 0..12).prop_map(|fields| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    })
}

fn any_request() -> impl Strategy<Value = Request<Full<Bytes>>> {
    let method =
        prop::sample::select(&["GET", "GET", "POST", "OPTIONS", "TRACE", "CONNECT", "X-A"][..]);
    let target = prop_oneof![
        4 => prop::sample::select(&[
            "/", "/a?b", "//evil/x", "*", "http://a.example/x", "http://a.example", "http://u@a/", "a:80",
            "http://[::1]:80//x", "https://a:+1/", "/%2e%2e/",
        ][..]).prop_map(str::to_owned),
        1 => "(https?://[a-z@:.]{1,6})?[/a-c?*@:]{0,6}",
    ];
    let version = prop::sample::select(
        &[
            Version::HTTP_10,
            Version::HTTP_11,
            Version::HTTP_11,
            Version::HTTP_2,
        ][..],
    );
    let sound = prop::bool::weighted(0.7);
    (method, target, version, fields(), sound).prop_map(
        |(method, target, version, headers, sound)| {
            let mut request = Request::new(Full::default());
            *request.method_mut() = method.parse().expect("a method");
            *request.uri_mut() = target.parse().unwrap_or_default();
            *request.version_mut() = version;
            *request.headers_mut() = headers;
            if sound {
                request
                    .headers_mut()
                    .insert("host", HeaderValue::from_static("h.example"));
            }
            request
        },
    )
}

#[derive(Debug, Clone)]
struct Setup {
    layer: ProxyHeadersLayer,
    peer: Peer,
    style: ForwardedStyle,
    believes: bool,
    via: bool,
}

fn setup() -> impl Strategy<Value = Setup> {
    let peer = prop::sample::select(
        &[
            "192.0.2.7:1",
            "10.0.0.9:1",
            "[::ffff:10.0.0.9]:1",
            "[2001:db8::7]:1",
        ][..],
    );
    let trusted = prop_oneof![
        Just((TrustedHops::none(), false)),
        (0..4_usize).prop_map(|count| (TrustedHops::last(count), count > 0)),
        Just((TrustedHops::networks(["10.0.0.0/8"]), true)),
    ];
    let style = prop::sample::select(
        &[
            ForwardedStyle::XForwarded,
            ForwardedStyle::Rfc7239,
            ForwardedStyle::Both,
            ForwardedStyle::Omit,
        ][..],
    );
    (peer, trusted, style, any::<[bool; 7]>()).prop_map(
        |(peer, (trusted, believes), style, flags)| {
            let [in_forwarded, tls, connect, options, trace, upgrade, via] = flags;
            let trusted = if in_forwarded {
                trusted.in_forwarded()
            } else {
                trusted
            };
            let mut layer = layer()
                .trusted_hops(trusted.writing([HOST]))
                .forwarded(style)
                .protect([PROTECTED]);
            if connect {
                layer = layer.forward_connect();
            }
            if options {
                layer = layer.forward_options_asterisk();
            }
            if trace {
                layer = layer.forward_trace();
            }
            if upgrade {
                layer = layer.allow_upgrade("websocket");
            }
            if via {
                layer = layer.via("front");
            }
            let mut peer = super::peer(peer);
            if tls {
                peer = peer.over_tls();
            }
            Setup {
                layer,
                peer,
                style,
                believes,
                via,
            }
        },
    )
}

const PROTECTED: HeaderName = HeaderName::from_static("x-protected");

/// The names in all `Connection` lines, in lower case.
fn named(headers: &HeaderMap) -> Vec<Vec<u8>> {
    let lines = headers.get_all("connection").iter();
    let names = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    names
        .map(|name| name.trim_ascii().to_ascii_lowercase())
        .collect()
}

/// No field of the connection is left but those of an upgrade that may be; and nothing that was named.
fn assert_end_to_end(after: &HeaderMap, before: &HeaderMap, te: bool) {
    const GONE: &[&str] = &[
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "transfer-encoding",
        "http2-settings",
    ];
    for name in GONE {
        assert!(!after.contains_key(*name), "{name}");
    }
    match (line(after, "connection"), line(after, "upgrade")) {
        (None, None) => {}
        (Some("upgrade"), Some(protocols)) => {
            for protocol in protocols.split(", ") {
                let name = protocol.split('/').next().expect("one");
                assert!(name.eq_ignore_ascii_case("websocket"), "{protocols}");
            }
        }
        other => panic!("{other:?}"),
    }
    let left = line(after, "te");
    assert!(
        left.is_none() || (te && left == Some("trailers")),
        "{left:?}"
    );
    let named = named(before);
    for name in ["x-a", "x-b"] {
        if named.iter().any(|named| *named == name.as_bytes()) {
            assert!(!after.contains_key(name), "{name}");
        } else {
            assert!(
                after.get_all(name).iter().eq(before.get_all(name)),
                "{name}"
            );
        }
    }
    assert!(
        after
            .get_all(PROTECTED)
            .iter()
            .eq(before.get_all(PROTECTED))
    );
}

/// The length that all elements of all lines say, if they say one (RFC 9110 §8.6). Beside a coding they say none.
fn said_length(headers: &HeaderMap) -> Result<Option<u64>, ()> {
    if headers.contains_key("transfer-encoding") {
        return Ok(None);
    }
    let lines = headers.get_all("content-length").iter();
    let elements = lines.flat_map(|line| line.as_bytes().split(|&byte| byte == b','));
    let mut said: Vec<u64> = Vec::new();
    for element in elements {
        let element = std::str::from_utf8(element.trim_ascii()).map_err(drop)?;
        if element.is_empty() || element.contains(|c: char| !c.is_ascii_digit()) {
            return Err(());
        }
        said.push(element.parse().map_err(drop)?);
    }
    said.dedup();
    match said[..] {
        [] => Ok(None),
        [length] => Ok(Some(length)),
        _ => Err(()),
    }
}

/// What is passed on says its length once, as it was said.
fn assert_length(after: &HeaderMap, before: &HeaderMap) {
    let said = said_length(before).expect("one, or none");
    let left = line(after, "content-length");
    assert_eq!(left.map(|left| left.parse().expect("a number")), said);
    assert!(left.is_none_or(|left| left.bytes().all(|byte| byte.is_ascii_digit())));
}

/// RFC 7239 §4, by hand: the parameters of each element, or a panic.
fn parse_forwarded(text: &str) -> Vec<Vec<(String, String)>> {
    fn token(rest: &mut &str) -> String {
        let end =
            rest.find(|c: char| !(c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)));
        let (token, left) = rest.split_at(end.unwrap_or(rest.len()));
        assert!(!token.is_empty(), "a token is missing before {rest:?}");
        *rest = left;
        token.to_owned()
    }
    fn eat(rest: &mut &str, what: &str) -> bool {
        match rest.strip_prefix(what) {
            Some(left) => {
                *rest = left;
                true
            }
            None => false,
        }
    }
    let mut rest = text;
    let mut elements = vec![Vec::new()];
    loop {
        let name = token(&mut rest);
        assert!(eat(&mut rest, "="), "{rest:?} of {text:?}");
        let value = if eat(&mut rest, "\"") {
            let mut value = String::new();
            loop {
                let c = rest.chars().next().expect("a quoted string ends");
                rest = &rest[c.len_utf8()..];
                match c {
                    '"' => break value,
                    '\\' => {
                        let c = rest.chars().next().expect("something is escaped");
                        rest = &rest[c.len_utf8()..];
                        value.push(c);
                    }
                    c => value.push(c),
                }
            }
        } else {
            token(&mut rest)
        };
        elements.last_mut().expect("one").push((name, value));
        if rest.is_empty() {
            return elements;
        }
        if eat(&mut rest, ", ") {
            elements.push(Vec::new());
        } else {
            assert!(eat(&mut rest, ";"), "{rest:?} of {text:?}");
        }
    }
}

/// RFC 7239 §6, of what is written here: no ports.
fn node(text: &str) -> Option<IpAddr> {
    if let Some(inner) = text.strip_prefix('[') {
        let addr = inner.strip_suffix(']').expect("a bracket is closed");
        return Some(IpAddr::V6(addr.parse().expect("an address")));
    }
    match text.parse::<std::net::Ipv4Addr>() {
        Ok(addr) => Some(addr.into()),
        Err(_) => {
            assert!(
                text.eq_ignore_ascii_case("unknown") || text.starts_with('_'),
                "{text}"
            );
            None
        }
    }
}

fn assert_claims(setup: &Setup, before: &request::Parts, after: &request::Parts) {
    let peer = setup.peer.addr().ip().to_canonical();
    let headers = &after.headers;
    let x_forwarded = [ForwardedStyle::XForwarded, ForwardedStyle::Both].contains(&setup.style);
    let forwarded = [ForwardedStyle::Rfc7239, ForwardedStyle::Both].contains(&setup.style);

    let way = line(headers, "x-forwarded-for");
    assert_eq!(way.is_some(), x_forwarded);
    let way: Option<Vec<&str>> = way.map(|way| way.split(", ").collect());
    if let Some(way) = &way {
        assert_eq!(way.last().expect("one").parse(), Ok(peer));
        assert!(setup.believes || way.len() == 1, "{way:?}");
        for hop in way {
            assert!(
                hop.parse::<IpAddr>().is_ok() || *hop == "unknown" || hop.starts_with('_'),
                "{hop}"
            );
        }
        let proto = line(headers, "x-forwarded-proto").expect("with the way");
        assert!(
            proto
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte)),
            "{proto}"
        );
    } else {
        assert!(
            !headers.contains_key("x-forwarded-host") && !headers.contains_key("x-forwarded-proto")
        );
    }
    let elements = line(headers, "forwarded").map(parse_forwarded);
    assert_eq!(elements.is_some(), forwarded);
    if let Some(elements) = &elements {
        let parameter = |element: &[(String, String)], name: &str| {
            let mut found = element.iter().filter(|(known, _)| known == name);
            let (first, second) = (found.next(), found.next());
            assert!(second.is_none(), "{name} twice");
            first.map(|(_, value)| value.clone())
        };
        let nodes: Vec<Option<IpAddr>> = elements
            .iter()
            .map(|element| node(&parameter(element, "for").expect("for whom")))
            .collect();
        assert_eq!(nodes.last(), Some(&Some(peer)));
        let own = elements.last().expect("one");
        if !setup.believes {
            let host = line(headers, "host").map(str::to_owned);
            assert_eq!(parameter(own, "host"), host);
            let proto = if setup.peer.is_tls() { "https" } else { "http" };
            assert_eq!(parameter(own, "proto").as_deref(), Some(proto));
        }
        if let Some(way) = &way {
            let said: Vec<Option<IpAddr>> = way.iter().map(|hop| hop.parse().ok()).collect();
            assert_eq!(said, nodes, "both say the same");
        }
    }
    assert!(!headers.contains_key("x-real-ip") && !headers.contains_key("x_forwarded_for"));
    if !setup.believes {
        assert!(!headers.contains_key("x-forwarded-port"));
    }
    let vias = before.headers.get_all("via").iter().count();
    if !named(&before.headers).iter().any(|name| name == b"via") {
        assert_eq!(
            headers.get_all("via").iter().count(),
            vias + usize::from(setup.via)
        );
    }
}

fn assert_target(before: &request::Parts, after: &request::Parts) {
    let mut hosts = after.headers.get_all("host").iter();
    let host = hosts.next();
    assert!(hosts.next().is_none());
    assert!(host.is_some() || after.version == Version::HTTP_10);
    if let Some(host) = host {
        let host = host.to_str().expect("ASCII");
        let authority: uri::Authority = host.parse().expect("an authority");
        assert!(
            !authority.host().is_empty() && !host.contains('@'),
            "{host}"
        );
        if let Some(target) = before.uri.authority() {
            assert_eq!(host, target.as_str());
        }
    }
    if after.method == "CONNECT" {
        assert_eq!(after.uri, before.uri);
        return;
    }
    assert_eq!((after.uri.scheme(), after.uri.authority()), (None, None));
    assert_eq!(after.uri.path(), before.uri.path());
    assert_eq!(after.uri.query(), before.uri.query());
    let path = after.uri.to_string();
    assert!(
        path.starts_with('/') || (path == "*" && after.method == "OPTIONS"),
        "{path}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever comes in: it is refused, or what goes on is fit to be passed on.
    #[test]
    fn whatever_is_passed_on_is_fit_to_be(setup in setup(), mut request in any_request()) {
        request.extensions_mut().insert(setup.peer);
        let before = request.clone().into_parts().0;
        match admit(&setup.layer, request) {
            Ok(after) => {
                assert_end_to_end(&after.headers, &before.headers, true);
                assert_length(&after.headers, &before.headers);
                assert_target(&before, &after);
                assert_claims(&setup, &before, &after);
            }
            Err(answer) => prop_assert!([204, 400, 501].contains(&answer.status), "{:?}", answer),
        }
    }

    /// A second proxy of the same kind changes nothing but that it adds its own peer.
    #[test]
    fn what_is_fit_to_be_passed_on_stays_so(setup in setup(), mut request in any_request()) {
        prop_assume!(request.method() != "TRACE" && request.method() != "OPTIONS");
        request.extensions_mut().insert(setup.peer);
        let Ok(mut once) = admit(&setup.layer.clone(), request) else { return Ok(()) };
        let first = once.headers.clone();
        once.extensions.insert(peer("10.0.0.1:1"));
        let trusted = match setup.style {
            ForwardedStyle::Rfc7239 => TrustedHops::last(64).in_forwarded(),
            _ => TrustedHops::last(64).writing([HOST]),
        };
        let layer = setup.layer.clone().trusted_hops(trusted);
        let twice = passed(&layer, Request::from_parts(once, Full::default()));
        for name in twice.headers.keys().chain(first.keys()) {
            let (first, twice) = (first.get_all(name), twice.headers.get_all(name));
            match name.as_str() {
                // Made from the other style, it knows host and protocol of the first hop only.
                "forwarded" if setup.style == ForwardedStyle::Both => {}
                "x-forwarded-for" | "forwarded" => {
                    let first = first.iter().next().expect("one").as_bytes();
                    let twice = twice.iter().next().expect("one").as_bytes();
                    let added = twice.strip_prefix(first).expect("what was said stays");
                    prop_assert!(added.starts_with(b", "));
                    prop_assert!(added.windows(8).any(|at| at == b"10.0.0.1"));
                    prop_assert!(!added[2..].contains(&b','));
                }
                "via" => {
                    let added = twice.iter().count() - first.iter().count();
                    prop_assert_eq!(added, usize::from(setup.via));
                }
                // What is not about this way goes with the next proxy's trust in the other style.
                name if name.starts_with("x-forwarded-") && name != "x-forwarded-host" && name != "x-forwarded-proto" => {}
                // A request of HTTP/1.0 without a host has none to tell of.
                _ => prop_assert!(first.iter().eq(twice.iter()), "{}", name),
            }
        }
    }

    /// Whatever comes back: it is refused, or nothing of it is of the connection.
    #[test]
    fn whatever_is_passed_back_is_fit_to_be(
        setup in setup(),
        asks in prop::bool::ANY,
        status in prop_oneof![
            Just(101_u16), Just(200), Just(204), Just(205), Just(304), Just(426), 100..=599_u16
        ],
        before in fields(),
        length in prop_oneof![2 => Just(""), 1 => Just("7"), 1 => Just("7, 7"), 1 => Just("70")],
        head in prop::bool::ANY,
    ) {
        let mut request = get(if asks { &[("connection", "upgrade"), ("upgrade", "websocket")] } else { &[] });
        request.extensions_mut().insert(setup.peer);
        if head {
            *request.method_mut() = "HEAD".parse().expect("a method");
        }
        let mut before = before;
        if !length.is_empty() {
            before.append("content-length", HeaderValue::from_static(length));
        }
        let mut response = response(status, &[]);
        *response.body_mut() = "content".into();
        *response.headers_mut() = before.clone();
        let answer = answer(&setup.layer, request, response);
        let has_content = !head && status > 199 && ![204, 205, 304].contains(&status);
        if answer.status == status && status != 502 {
            assert_end_to_end(&answer.headers, &before, false);
            match status {
                0..200 | 204 | 205 => prop_assert_eq!(answer.field("content-length"), None),
                // Whoever has said none is told how long the content would be.
                _ if head && status != 304 && said_length(&before) == Ok(None) => {
                    prop_assert_eq!(answer.field("content-length"), Some("7"));
                }
                _ => assert_length(&answer.headers, &before),
            }
            if has_content {
                prop_assert!([None, Some("7")].contains(&answer.field("content-length")));
            }
            prop_assert_eq!(answer.body.is_empty(), !has_content && status > 199);
            prop_assert!(status >= 200 || (status == 101 && asks));
            let upgrade = answer.field("upgrade");
            prop_assert!(upgrade.is_none() || status == 101 || status == 426);
            prop_assert!(status != 101 || upgrade.is_some());
        } else {
            prop_assert_eq!(answer.status, 502);
            // How the body is coded is said by a field of the connection.
            let coded = before.contains_key("transfer-encoding");
            let fits = match said_length(&before) {
                Ok(Some(length)) => [204, 205, 304].contains(&status) || length == 7,
                Ok(None) => true,
                Err(()) => [204, 205].contains(&status),
            };
            prop_assert!(status < 200 || status == 502 || coded || !fits);
        }
    }

    /// Bytes of any kind in the trailers.
    #[test]
    fn whatever_trailers_there_are_they_say_no_more_than_they_may(before in fields()) {
        use http_body_util::{BodyExt, StreamBody};
        use http_body::Frame;

        let frame = Frame::trailers(before.clone());
        let body = StreamBody::new(futures_util::stream::iter([Ok::<_, Infallible>(frame)]));
        let body = Mutex::new(Some(body));
        let inner = service_fn(|_: Request<ProxyHeadersBody<Full<Bytes>>>| {
            let body: Option<StreamBody<_>> = body.lock().expect("not poisoned").take();
            async { Ok::<_, Infallible>(Response::<StreamBody<_>>::new(body.expect("called once"))) }
        });
        let after = tokio_test::block_on(async {
            let Ok(response) = layer().layer(inner).oneshot(get(&[])).await;
            let read = response.into_body().collect().await.expect("a whole body");
            read.trailers().cloned().unwrap_or_default()
        });
        for name in [
            header::CONNECTION, header::TE, header::UPGRADE, header::HOST, header::CONTENT_LENGTH,
            header::TRANSFER_ENCODING, header::COOKIE, header::FORWARDED, header::TRAILER, header::VIA,
            header::MAX_FORWARDS,
        ] {
            prop_assert!(!after.contains_key(&name), "{}", name);
        }
        for name in ["x-a", "x-b"] {
            let named = named(&before).iter().any(|named| *named == name.as_bytes());
            prop_assert_eq!(after.get_all(name).iter().count(), match named {
                true => 0,
                false => before.get_all(name).iter().count(),
            });
        }
    }

    /// Whatever a client has claimed: when a proxy of ours has added to it, the first that is told is who that has seen.
    #[test]
    fn who_a_proxy_has_seen_can_not_make_himself_vanish(
        claimed in value(),
        rfc7239 in any::<bool>(),
        quoted in any::<bool>(),
        apart in any::<bool>(),
    ) {
        let (name, trusted) = match rfc7239 {
            true => ("forwarded", TrustedHops::last(1).in_forwarded()),
            false => ("x-forwarded-for", TrustedHops::last(1)),
        };
        let added = match (rfc7239, quoted) {
            (true, true) => &b"for=\"203.0.113.9\";by=\"[::1]\""[..],
            (true, false) => b"for=203.0.113.9;proto=https",
            (false, _) => b"203.0.113.9",
        };
        let lines = match apart {
            true => vec![claimed.as_bytes().to_vec(), added.to_vec()],
            false => vec![[claimed.as_bytes(), b", ", added].concat()],
        };
        let mut request = get(&[]);
        for line in lines {
            let line = HeaderValue::from_bytes(&line).expect("a value");
            request.headers_mut().append(HeaderName::from_static(name), line);
        }
        match admit(&layer().trusted_hops(trusted), request) {
            Ok(head) => prop_assert_eq!(line(&head.headers, "x-forwarded-for"), Some("203.0.113.9, 192.0.2.7")),
            Err(answer) => prop_assert!(answer.status == 400 && rfc7239 && !apart, "{:?}", answer),
        }
    }

    /// An address is read as it was written, in either style.
    #[test]
    fn an_address_is_read_as_it_was_written(addr in any::<IpAddr>(), port in any::<u16>(), rfc7239 in any::<bool>()) {
        let (style, trusted) = match rfc7239 {
            true => (ForwardedStyle::Rfc7239, TrustedHops::last(1).in_forwarded()),
            false => (ForwardedStyle::XForwarded, TrustedHops::last(1)),
        };
        let mut request = get(&[]);
        request.extensions_mut().insert(Peer::new(SocketAddr::new(addr, port)));
        let mut head = passed(&layer().forwarded(style), request);
        head.extensions.insert(peer(PEER));
        let second = layer().trusted_hops(trusted);
        let head = passed(&second, Request::from_parts(head, Full::default()));
        let expected = format!("{}, 192.0.2.7", addr.to_canonical());
        prop_assert_eq!(line(&head.headers, "x-forwarded-for"), Some(&*expected));
    }
}
