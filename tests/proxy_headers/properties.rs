//! What holds whatever the request, the response and the configuration are.

use std::net::{IpAddr, SocketAddr};

use http::header::{self, HeaderName, HeaderValue};
use http::{Method, response};
use proptest::prelude::*;
use watershed::proxy_headers::{ForwardedStyle, TrustedHops};

use super::oracle::{self, Believes, Setup};
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
    prop_oneof![8 => (name(), value()), 1 => named, 1 => upgrade]
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

/// What the inner service was given, if it was, and the head of the answer.
fn sent(
    setup: &Setup,
    request: Request<Full<Bytes>>,
    response: Response<Full<Bytes>>,
) -> (Option<request::Parts>, response::Parts) {
    let layer = setup.layer();
    let (seen, response) = tokio_test::block_on(exchange(&layer, request, response));
    (seen, response.into_parts().0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// Whatever comes in: it is refused, or what goes on is fit to be passed on.
    #[test]
    fn whatever_is_passed_on_is_fit_to_be(setup in setup(), mut request in any_request()) {
        request.extensions_mut().insert(setup.peer());
        let before = request.clone().into_parts().0;
        let (seen, answered) = sent(&setup, request, Response::default());
        match seen {
            Some(after) => {
                oracle::assert_passed_on(&setup, &before, false, &after);
                prop_assert_eq!(answered.status, 200);
            }
            None => oracle::assert_refused(&before, &answered),
        }
    }

    /// A second proxy of the same kind changes nothing but that it adds its own peer.
    #[test]
    fn what_is_fit_to_be_passed_on_stays_so(setup in setup(), mut request in any_request()) {
        if ["TRACE", "OPTIONS"].contains(&request.method().as_str()) {
            *request.method_mut() = Method::GET;
        }
        request.extensions_mut().insert(setup.peer());
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
        status in prop_oneof![Just(101_u16), Just(200), Just(426), 100..=599_u16],
        before in fields(),
    ) {
        let mut request = get(if asks { &[("connection", "upgrade"), ("upgrade", "websocket")] } else { &[] });
        request.extensions_mut().insert(setup.peer());
        let asked = request.clone().into_parts().0;
        let mut response = response(status, &[]);
        *response.headers_mut() = before.clone();
        let given = response.clone().into_parts().0;
        let (seen, answered) = sent(&setup, request, response);
        prop_assert!(seen.is_some(), "it was not passed on");
        oracle::assert_passed_back(&setup, &asked, false, &given, &answered);
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
            read.trailers().cloned()
        });
        oracle::assert_trailers(Some(&before), after.as_ref());
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
