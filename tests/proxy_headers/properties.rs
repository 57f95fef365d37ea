//! What holds whatever the request, the response and the configuration are.

use std::future::ready;
use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, response};
use http_body::{Body, Frame};
use http_body_util::StreamBody;
use proptest::prelude::*;
use watershed::proxy_headers::{ForwardedStyle, TrustedHops};

use super::oracle::{self, Believes, Setup, Whole};
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
    "close",
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
    "x-client-cert",
    "x_client_cert",
    "x-real-ip",
    "true-client-ip",
    "x-original-uri",
    "x.rewrite.url",
    "x_scheme",
    "via",
    "cookie",
    "cookie",
    "cookie",
    "authorization",
    "vary",
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

/// Those of `Forwarded`, and what is none or ends a line of them.
const ELEMENTS: &[&str] = &[
    "for=10.0.0.1",
    "For=\"10.0.0.2:80\";proto=https",
    "for=\"[::ffff:10.0.0.3]:_x\"; host=\"a.example\"",
    "for=10.0.0.4:80;by=_b;x=\"a, for=10.0.0.5\"",
    "for=\"\\10.0.0.6\";;x=\"\\\"\"",
    "for=unknown",
    "for=_hidden",
    "for=1.1.1.1;for=10.0.0.7",
    "for=10.0.0.8;x",
    "for =10.0.0.8",
    "for=10.0.0.8;x=\\a",
    "x=\\\";for=10.0.0.8",
    "for=\"10.0\"\".0.9\"",
    "x y=z;for=10.0.0.9",
    "proto=https",
    ";",
    "",
    "for=\"10.0.0.8",
    "x=\"\\\";for=10.0.0.8",
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

fn way() -> impl Strategy<Value = HeaderValue> {
    let elements = prop::collection::vec(prop::sample::select(ELEMENTS), 1..4);
    elements.prop_map(|elements| elements.join(", ").parse().expect("a value"))
}

/// Any field; or one that has to do with another, which chance alone would rarely bring about.
fn field() -> impl Strategy<Value = (HeaderName, HeaderValue)> {
    let named = prop::collection::vec(prop::sample::select(NAMES), 1..4).prop_map(|names| {
        let names = names.join(", ");
        (header::CONNECTION, names.parse().expect("a value"))
    });
    let upgrade = prop::sample::select(
        &[
            ("connection", "Upgrade"),
            ("upgrade", "websocket"),
            ("upgrade", "h2c, WebSocket/13"),
        ][..],
    );
    let upgrade = upgrade.prop_map(|(name, value)| {
        let value = HeaderValue::from_static(value);
        (HeaderName::from_static(name), value)
    });
    let way = way().prop_map(|way| (header::FORWARDED, way));
    let length = prop::sample::select(&["7", "7", "7", "07", "7, 7", "70"][..])
        .prop_map(|length| (header::CONTENT_LENGTH, HeaderValue::from_static(length)));
    prop_oneof![16 => (name(), value()), 2 => named, 2 => upgrade, 2 => way, 1 => length]
}

fn fields() -> impl Strategy<Value = HeaderMap> {
    prop::collection::vec(field(), 0..12).prop_map(|fields| {
        let mut headers = HeaderMap::new();
        for (name, value) in fields {
            headers.append(name, value);
        }
        headers
    })
}

fn content() -> impl Strategy<Value = Full<Bytes>> {
    prop_oneof![2 => Just(""), 1 => Just("content")].prop_map(Full::from)
}

fn any_request() -> impl Strategy<Value = Request<Full<Bytes>>> {
    let method = prop::sample::select(
        &[
            "GET", "GET", "HEAD", "POST", "OPTIONS", "TRACE", "CONNECT", "X-A",
        ][..],
    );
    let target = prop_oneof![
        4 => prop::sample::select(&[
            "/", "/a?b", "//evil/x", "*", "http://a.example/x", "http://a.example", "http://u@a/", "a:80",
            "http://[::1]:80//x", "https://a:+1/", "/%2e%2e/", "HTTPS://a/", "ftp://a/x", "a://b:80",
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
    (method, target, version, fields(), sound, content()).prop_map(
        |(method, target, version, headers, sound, content)| {
            let mut request = Request::new(content);
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

fn setup() -> impl Strategy<Value = Setup> {
    let peer = prop::sample::select(
        &[
            "192.0.2.7:1",
            "10.0.0.9:1",
            "[::ffff:10.0.0.9]:1",
            "[2001:db8::7]:1",
        ][..],
    );
    let believes = prop_oneof![
        Just(Believes::Last(0)),
        (0..4_usize).prop_map(Believes::Last),
        Just(Believes::Network),
    ];
    let style = prop::sample::select(
        &[
            ForwardedStyle::XForwarded,
            ForwardedStyle::Rfc7239,
            ForwardedStyle::Both,
            ForwardedStyle::Omit,
        ][..],
    );
    (peer, believes, style, any::<[bool; 7]>()).prop_map(|(peer, believes, style, flags)| {
        let [in_forwarded, tls, connect, options, trace, upgrade, via] = flags;
        Setup {
            peer: peer.parse().expect("an address"),
            says_peer: true,
            tls,
            believes,
            in_forwarded,
            style,
            connect,
            options,
            trace,
            upgrade,
            via,
            max_head: None,
        }
    })
}

/// What the inner service was given, if it was, and the answer.
fn sent<Q, P>(
    setup: &Setup,
    request: Request<Q>,
    response: Response<P>,
) -> (Option<Whole<request::Parts>>, Whole<response::Parts>)
where
    Q: Body<Data = Bytes>,
    P: Body<Data = Bytes>,
{
    let (mut seen, mut response) = (None, Some(response));
    let inner = service_fn(|request: Request<ProxyHeadersBody<Q>>| {
        seen = Some(Whole::request(request));
        ready(Ok::<_, Infallible>(response.take().expect("called once")))
    });
    let Ok(response) = tokio_test::block_on(setup.layer().layer(inner).oneshot(request));
    (seen, Whole::response(response))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever comes in: it is refused, or what goes on is fit to be passed on.
    #[test]
    fn whatever_is_passed_on_is_fit_to_be(
        setup in setup(),
        says_peer in prop::bool::weighted(0.9),
        mut request in any_request(),
    ) {
        let setup = Setup { says_peer, ..setup };
        setup.introduce(&mut request);
        let before = Whole::request(request.clone());
        let (seen, answered) = sent(&setup, request, response(200, &[]));
        match seen {
            Some(after) => {
                oracle::assert_passed_on(&setup, &before, &after);
                prop_assert_eq!(answered.head.status, 200);
            }
            None => oracle::assert_refused(&setup, &before, &answered),
        }
    }

    /// A second proxy of the same kind changes nothing but that it adds its own peer.
    #[test]
    fn what_is_fit_to_be_passed_on_stays_so(setup in setup(), mut request in any_request()) {
        if ["TRACE", "OPTIONS"].contains(&request.method().as_str()) {
            *request.method_mut() = Method::GET;
        }
        setup.introduce(&mut request);
        let Ok(mut once) = admit(&setup.layer(), request) else { return Ok(()) };
        let first = once.headers.clone();
        once.extensions.insert(peer("10.0.0.1:1"));
        let trusted = match setup.style {
            ForwardedStyle::Rfc7239 => TrustedHops::last(64).in_forwarded(),
            _ => TrustedHops::last(64).writing([HOST]),
        };
        let layer = setup.layer().trusted_hops(trusted);
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
        head in any::<bool>(),
        status in prop_oneof![
            Just(101_u16), Just(200), Just(204), Just(205), Just(304), Just(426), 100..=599_u16
        ],
        fields in fields(),
        content in content(),
    ) {
        let mut request = get(if asks { &[("connection", "upgrade"), ("upgrade", "websocket")] } else { &[] });
        setup.introduce(&mut request);
        if head {
            *request.method_mut() = Method::HEAD;
        }
        let asked = Whole::request(request.clone());
        let mut response = response(status, &[]).map(|_| content);
        *response.headers_mut() = fields;
        let given = Whole::response(response.clone());
        let (seen, answered) = sent(&setup, request, response);
        prop_assert!(seen.is_some(), "it was not passed on");
        oracle::assert_passed_back(&setup, &asked, &given, &answered);
    }

    /// Bytes of any kind in the trailers.
    #[test]
    fn whatever_trailers_there_are_they_say_no_more_than_they_may(
        setup in setup(),
        asked in fields(),
        given in fields(),
    ) {
        let body = |trailers: &HeaderMap| {
            let frame = Frame::trailers(trailers.clone());
            StreamBody::new(futures_util::stream::iter([Ok::<_, Infallible>(frame)]))
        };
        let request = || {
            let mut request = get(&[]).map(|_| body(&asked));
            setup.introduce(&mut request);
            request
        };
        let response = || Response::new(body(&given));
        let (seen, answered) = sent(&setup, request(), response());
        let asked = Whole::request(request());
        oracle::assert_passed_on(&setup, &asked, &seen.expect("it is passed on"));
        oracle::assert_passed_back(&setup, &asked, &Whole::response(response()), &answered);
    }

    /// Whatever is claimed of the way here: it is believed as far as it may be and can be read, or refused.
    #[test]
    fn a_way_is_believed_as_far_as_it_may_be(
        setup in setup(),
        in_forwarded in prop::bool::weighted(0.9),
        ways in prop::collection::vec(prop_oneof![4 => way(), 1 => value()], 1..3),
    ) {
        let setup = Setup { in_forwarded, ..setup };
        let name = if in_forwarded { "forwarded" } else { "x-forwarded-for" };
        let request = || {
            let mut request = get(&[]);
            for way in &ways {
                request.headers_mut().append(name, way.clone());
            }
            setup.introduce(&mut request);
            request
        };
        let (seen, answered) = sent(&setup, request(), response(200, &[]));
        let before = Whole::request(request());
        match seen {
            Some(after) => oracle::assert_passed_on(&setup, &before, &after),
            None => oracle::assert_refused(&setup, &before, &answered),
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
