//! The fields of one connection (RFC 9110 §7.6.1), in both directions.

use http::header::{HOST, HeaderName, HeaderValue, VIA};

use super::*;

// B09, B10
const OF_THE_CONNECTION: &[(&str, &str)] = &[
    ("connection", "close"),
    ("keep-alive", "timeout=5"),
    ("proxy-connection", "keep-alive"),
    ("proxy-authorization", "Basic eDp5"),
    ("proxy-authenticate", "Basic"),
    ("proxy-authentication-info", "x"),
    ("te", "gzip"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "h2c"),
    ("http2-settings", "AAMAAABkAAQAAP__"),
    // CVE-2016-5385: to a CGI script it is `HTTP_PROXY`.
    ("proxy", "http://evil.example"),
];

#[test]
fn the_fields_of_the_connection_go_no_further() {
    for &field in OF_THE_CONNECTION {
        let head = passed(&layer(), get(&[field, ("x-kept", "1")]));
        assert!(!head.headers.contains_key(field.0), "{field:?}");
        assert_eq!(head.headers["x-kept"], "1");

        // Nor back.
        let answer = answer(&layer(), get(&[]), response(200, &[field, ("x-kept", "1")]));
        assert_eq!(lines(&answer.headers), ["x-kept: 1"], "{field:?}");
    }
    // Every line of each; but a body can't be chunked twice.
    let mut twice: Vec<_> = [OF_THE_CONNECTION, OF_THE_CONNECTION].concat();
    twice.retain(|(name, _)| *name != "transfer-encoding");
    let head = passed(&layer(), get(&twice));
    assert_eq!(
        lines(&head.headers),
        [
            "host: h",
            "x-forwarded-for: 192.0.2.7",
            "x-forwarded-host: h",
            "x-forwarded-proto: http"
        ]
    );
    assert_eq!(
        answer(&layer(), get(&[]), response(200, &twice))
            .headers
            .len(),
        0
    );
}

#[test]
fn whatever_a_connection_line_names_goes_no_further() {
    let fields = [
        ("x-one", "1"),
        ("x-two", "2"),
        ("x-two", "two"),
        ("x-three", "3"),
        ("x_four", "4"),
        ("x-kept", "5"),
    ];
    for (connection, left) in [
        (&["x-one"][..], &["x-three", "x-two", "x_four"][..]),
        (&["X-One, x-TWO"], &["x-three", "x_four"]),
        (&["x-one", "x-two"], &["x-three", "x_four"]),
        (&["close", "", "x-one,,x-two, ,", "x-three"], &["x_four"]),
        (&["  x-one\t,\tx-two"], &["x-three", "x_four"]),
        (&["x_four"], &["x-one", "x-three", "x-two"]),
        // What is no name of a field names none, and doesn't keep the others from being named.
        (
            &["x one, x:two, \"x-three\", (x_four), =, x-two"],
            &["x-one", "x-three", "x_four"],
        ),
        (
            &["x-kep", "x-keptt", "*", "x-*"],
            &["x-one", "x-three", "x-two", "x_four"],
        ),
        (
            &["keep-alive, upgrade, te"],
            &["x-one", "x-three", "x-two", "x_four"],
        ),
    ] {
        let mut all: Vec<_> = connection
            .iter()
            .map(|line| ("connection", *line))
            .collect();
        all.extend(fields);
        let own = [
            "host",
            "x-forwarded-for",
            "x-forwarded-host",
            "x-forwarded-proto",
            "x-kept",
        ];

        let head = passed(&layer(), get(&all));
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.retain(|name| !own.contains(name));
        names.sort_unstable();
        assert_eq!(names, left, "{connection:?}");
        assert_eq!(head.headers["x-kept"], "5");

        let answer = answer(&layer(), get(&[]), response(200, &all));
        let mut names: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
        names.retain(|name| !own.contains(name));
        names.sort_unstable();
        assert_eq!(names, left, "{connection:?}");
        assert_eq!(answer.headers["x-kept"], "5");
    }
}

// RFC 9110 §7.6.1: a field of the same name goes, whatever else the word means.
#[test]
fn a_field_called_close_goes_with_the_connection_that_closes() {
    let fields = [("connection", "close"), ("close", "1"), ("x-kept", "2")];
    let head = passed(&layer(), get(&fields));
    assert!(!head.headers.contains_key("close"));
    assert_eq!(head.headers["x-kept"], "2");
    let answer = answer(&layer(), get(&[]), response(200, &fields));
    assert_eq!(lines(&answer.headers), ["x-kept: 2"]);

    let head = passed(&layer(), get(&[("close", "1")]));
    assert_eq!(head.headers["close"], "1");
}

// B19
#[test]
fn bytes_that_are_no_text_in_a_connection_line_do_no_harm() {
    for line in [
        &b"\xff, x-one, \x80"[..],
        b"\xc3\x28,x-one",
        b"caf\xe9,x-one,caf\xe9",
        b"x-one,\xf0\x9f\x98\x80",
    ] {
        let mut request = get(&[("x-one", "1"), ("x-two", "2")]);
        let line = HeaderValue::from_bytes(line).expect("a value");
        request.headers_mut().append("connection", line.clone());
        let head = passed(&layer(), request);
        assert!(!head.headers.contains_key("x-one"), "{line:?}");
        assert!(!head.headers.contains_key("connection"), "{line:?}");
        assert_eq!(head.headers["x-two"], "2");
    }
    // Values of other fields pass as they are.
    let mut request = get(&[]);
    let value = HeaderValue::from_bytes(b"\x80\xff caf\xe9").expect("a value");
    request.headers_mut().append("x-name", value.clone());
    assert_eq!(passed(&layer(), request).headers["x-name"], value);
}

#[test]
fn hundreds_of_names_are_honoured() {
    let names: Vec<String> = (0..500).map(|nth| format!("x-{nth}")).collect();
    let mut fields: Vec<(&str, &str)> = names.iter().map(|name| (&**name, "1")).collect();
    let (first, second) = (names[..250].join(","), names[250..499].join(" , "));
    fields.extend([("connection", &*first), ("connection", &*second)]);
    let head = passed(&layer(), get(&fields));
    assert_eq!(
        lines(&head.headers)[..2],
        ["host: h", "x-499: 1"],
        "the one that was not named"
    );
    assert_eq!(head.headers.len(), 5);
}

// B07
#[test]
fn what_every_recipient_needs_can_not_be_named_away() {
    for field in [
        ("host", "h"),
        ("content-type", "text/plain"),
        ("content-encoding", "gzip"),
        ("content-length", "0"),
        ("content-range", "bytes 0-1/2"),
        ("cache-control", "private"),
        ("vary", "cookie"),
        ("set-cookie", "a=b"),
        ("expires", "0"),
        ("authorization", "Bearer t"),
        ("cookie", "a=b"),
        ("via", "1.1 a"),
        ("max-forwards", "7"),
        ("date", "Sat, 21 Nov 2026 14:27:00 GMT"),
    ] {
        let connection = ("connection", &*field.0.to_uppercase());
        let head = passed(&layer(), get(&[field, connection]));
        assert_eq!(line(&head.headers, field.0), Some(field.1));
        let answer = answer(&layer(), get(&[]), response(200, &[field, connection]));
        assert_eq!(
            lines(&answer.headers),
            [format!("{}: {}", field.0, field.1)]
        );
    }
}

// B07
#[test]
fn a_protected_field_stays_whatever_the_client_says() {
    let user = HeaderName::from_static("x-auth-user");
    let tenant = HeaderName::from_static("x-tenant");
    let layer = layer().protect([user]).protect([tenant]);
    let fields = [
        ("connection", "close, x-auth-user"),
        ("connection", "X-Tenant, x-other"),
        ("x-auth-user", "7"),
        ("x-tenant", "acme"),
        ("x-other", "1"),
    ];
    let head = passed(&layer, get(&fields));
    assert_eq!(line(&head.headers, "x-auth-user"), Some("7"));
    assert_eq!(line(&head.headers, "x-tenant"), Some("acme"));
    assert!(!head.headers.contains_key("x-other"));
    // A claim that a layer outside has made is one that is believed.
    let real_ip = HeaderName::from_static("x-real-ip");
    let head = passed(
        &layer.clone().protect([real_ip]),
        get(&[("x-real-ip", "192.0.2.99")]),
    );
    assert_eq!(line(&head.headers, "x-real-ip"), Some("192.0.2.99"));
    // What is of the connection goes all the same.
    let layer = layer.protect([http::header::CONNECTION, http::header::UPGRADE]);
    let head = passed(&layer, get(&[("connection", "close"), ("upgrade", "x")]));
    assert!(!head.headers.contains_key("connection") && !head.headers.contains_key("upgrade"));
}

// CVE-2022-31813, CVE-2024-45410: proxies whose `X-Forwarded-*` a client could name away.
#[test]
fn what_a_trusted_proxy_has_written_can_not_be_named_away() {
    use watershed::proxy_headers::{ForwardedStyle, TrustedHops};

    let named = (
        "connection",
        "x-forwarded-for, x-forwarded-proto, forwarded, x-real-ip",
    );
    let layer = layer().trusted_hops(TrustedHops::last(1));
    let said = [
        ("x-forwarded-for", "203.0.113.9"),
        ("x-forwarded-proto", "https"),
        named,
    ];
    let head = passed(&layer, get(&said));
    assert_eq!(
        line(&head.headers, "x-forwarded-for"),
        Some("203.0.113.9, 192.0.2.7")
    );
    assert_eq!(line(&head.headers, "x-forwarded-proto"), Some("https"));

    let layer = layer
        .trusted_hops(TrustedHops::last(1).in_forwarded())
        .forwarded(ForwardedStyle::Rfc7239);
    let head = passed(&layer, get(&[("forwarded", "for=203.0.113.9"), named]));
    assert_eq!(
        line(&head.headers, "forwarded"),
        Some("for=203.0.113.9, for=192.0.2.7;host=h;proto=http")
    );
}

// B03
#[test]
fn where_both_say_how_long_it_is_the_coding_is_right() {
    let both = [("content-length", "3"), ("transfer-encoding", "chunked")];
    assert!(
        !passed(&layer(), get(&both))
            .headers
            .contains_key("content-length")
    );
    assert_eq!(
        answer(&layer(), get(&[]), response(200, &both))
            .headers
            .len(),
        0
    );
    let length = [("content-length", "3")];
    assert_eq!(
        passed(&layer(), get(&length)).headers["content-length"],
        "3"
    );
}

// RFC 9112 §6.1: with its name gone, nobody could undo it.
#[test]
fn a_body_in_any_coding_but_chunked_goes_no_further() {
    for coding in [
        "",
        ",",
        "gzip",
        "gzip, chunked",
        "chunked, chunked",
        "chunked;x",
    ] {
        let fields = [("transfer-encoding", coding)];
        assert_refused(&layer(), get(&fields), 501);
        let answer = answer(&layer(), get(&[]), response(200, &fields));
        answer.assert_problem(502);
    }
    for coding in ["chunked", "Chunked", ", chunked ,"] {
        let fields = [("transfer-encoding", coding)];
        let head = passed(&layer(), get(&fields));
        assert!(!head.headers.contains_key("transfer-encoding"), "{coding}");
        let answer = answer(&layer(), get(&[]), response(200, &fields));
        assert_eq!((answer.status, answer.headers.len()), (200, 0), "{coding}");
    }
}

#[test]
fn of_te_only_trailers_is_for_more_than_one_hop() {
    for (te, kept) in [
        (&["trailers"][..], true),
        (&["Trailers"], true),
        (&["gzip;q=0.5, trailers"], true),
        (&["gzip", "trailers"], true),
        (&["gzip"], false),
        (&["trailers-not"], false),
        (&[""], false),
        (&[], false),
    ] {
        for line_of in ["GET / HTTP/1.1", "GET / HTTP/2"] {
            let mut fields = vec![("host", "h"), ("connection", "te")];
            fields.extend(te.iter().map(|line| ("te", *line)));
            let head = passed(&layer(), request(line_of, &fields));
            assert_eq!(
                line(&head.headers, "te"),
                kept.then_some("trailers"),
                "{te:?}"
            );
        }
    }
    let mut request = get(&[]);
    let te = HeaderValue::from_bytes(b"\xff, trailers").expect("a value");
    request.headers_mut().insert("te", te);
    assert_eq!(
        line(&passed(&layer(), request).headers, "te"),
        Some("trailers")
    );
}

#[test]
fn the_fields_that_tell_of_trailers_and_of_content_pass() {
    let fields = [
        ("trailer", "x-sum"),
        ("expect", "100-continue"),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
        ("sec-websocket-key", "x"),
        ("via", "1.0 fred"),
    ];
    let head = passed(&layer(), get(&fields));
    for (name, value) in fields {
        assert_eq!(line(&head.headers, name), Some(value));
    }
}

// RFC 9113 §8.2.3: HTTP/2 may cut a cookie into fields; one of HTTP/1.1, or a service, would read the first only.
#[test]
fn the_crumbs_of_a_cookie_are_put_together() {
    let crumbs = [("cookie", "a=b"), ("cookie", "c=d"), ("cookie", "e=f")];
    for version in ["HTTP/2", "HTTP/3"] {
        let request = request(&format!("GET http://h/ {version}"), &crumbs);
        let head = passed(&layer(), request);
        assert_eq!(line(&head.headers, "cookie"), Some("a=b; c=d; e=f"));
    }
    let mut request = request("GET http://h/ HTTP/2", &crumbs[..1]);
    assert_eq!(
        line(&passed(&layer(), request.clone()).headers, "cookie"),
        Some("a=b")
    );
    request.headers_mut().append(
        "cookie",
        HeaderValue::from_bytes(b"\xff=\x80").expect("a value"),
    );
    assert_eq!(
        passed(&layer(), request).headers["cookie"].as_bytes(),
        b"a=b; \xff=\x80"
    );
}

#[test]
fn via_is_added_in_both_directions() {
    let layer = layer().via("front");
    for (line_of, via) in [
        ("GET / HTTP/1.0", "via: 1.0 front"),
        ("GET / HTTP/1.1", "via: 1.1 front"),
        ("GET / HTTP/2", "via: 2.0 front"),
        ("GET / HTTP/3", "via: 3.0 front"),
    ] {
        let head = passed(
            &layer,
            request(line_of, &[("host", "h"), ("via", "1.0 fred")]),
        );
        let lines = lines(&head.headers);
        let place = lines
            .iter()
            .position(|line| line == "via: 1.0 fred")
            .expect("kept");
        assert_eq!(lines[place + 1], via, "after what was there");
    }
    let mut old = response(200, &[("via", "1.1 back")]);
    *old.version_mut() = http::Version::HTTP_10;
    let answer = answer(&layer, get(&[]), old);
    assert_eq!(lines(&answer.headers), ["via: 1.1 back", "via: 1.0 front"]);
    // By default there is none.
    assert!(!passed(&super::layer(), get(&[])).headers.contains_key(VIA));
    for name in ["front", "front.example:8080", "[2001:db8::1]", "a_b"] {
        let head = passed(&super::layer().via(name), get(&[]));
        assert_eq!(line(&head.headers, "via"), Some(&*format!("1.1 {name}")));
    }
}

#[test]
fn what_is_no_name_for_a_proxy_is_a_mistake() {
    for name in [
        "",
        "a b",
        "a, 1.1 b",
        "a\r\nx: y",
        "é",
        "user@front",
        "(a)",
        "a/b",
    ] {
        let built = std::panic::catch_unwind(|| layer().via(name));
        assert!(built.is_err(), "{name:?}");
    }
}

#[test]
fn one_host_is_left() {
    let head = passed(&layer(), get(&[("connection", "host"), ("host", "a")]));
    assert_eq!(head.headers.get_all(HOST).iter().collect::<Vec<_>>(), ["a"]);
}
