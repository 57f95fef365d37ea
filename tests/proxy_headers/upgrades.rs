//! `Upgrade` and 101 (RFC 9110 §7.8).

use super::*;

const WEBSOCKET: &[(&str, &str)] = &[("connection", "Upgrade"), ("upgrade", "websocket")];

/// What a request asks to change to, once it is passed on.
fn asked(layer: &ProxyHeadersLayer, line_of: &str, fields: &[(&str, &str)]) -> Option<String> {
    let mut all = vec![("host", "h")];
    all.extend(fields);
    let head = passed(layer, request(line_of, &all));
    let upgrade = line(&head.headers, "upgrade").map(str::to_owned);
    // The one doesn't go without the other.
    let connection = upgrade.as_ref().map(|_| "upgrade");
    assert_eq!(line(&head.headers, "connection"), connection);
    assert!(!head.headers.contains_key("http2-settings"));
    upgrade
}

// B10
#[test]
fn only_an_upgrade_that_may_be_is_asked_for() {
    let websocket = layer().allow_upgrade("WebSocket");
    let both = websocket.clone().allow_upgrade("irc");
    for (upgrade, expected, with_both) in [
        (&["websocket"][..], Some("websocket"), Some("websocket")),
        (&["WEBSOCKET"], Some("WEBSOCKET"), Some("WEBSOCKET")),
        (
            &["websocket/13"],
            Some("websocket/13"),
            Some("websocket/13"),
        ),
        (&["h2c"], None, None),
        (&["h2c, websocket"], Some("websocket"), Some("websocket")),
        (&["h2c", "websocket"], Some("websocket"), Some("websocket")),
        (
            &["irc/6.9, websocket"],
            Some("websocket"),
            Some("irc/6.9, websocket"),
        ),
        (
            &["websocket", "irc"],
            Some("websocket"),
            Some("websocket, irc"),
        ),
        (&["websockets"], None, None),
        (&["web/socket"], None, None),
        (&["/websocket"], None, None),
        (&["websocket "], Some("websocket"), Some("websocket")),
        (&["websocket;q=1"], None, None),
        (&["\"websocket\""], None, None),
        // What is no version of one.
        (&["websocket/a b"], None, None),
        (&["websocket/"], None, None),
        (&["websocket/\u{e9}"], None, None),
        (&["websocket/1/2"], None, None),
        (&["", ",", ","], None, None),
        (&[], None, None),
    ] {
        let mut fields = vec![
            ("connection", "keep-alive, Upgrade, HTTP2-Settings"),
            ("http2-settings", "AA"),
        ];
        fields.extend(upgrade.iter().map(|line| ("upgrade", *line)));
        let asked = |layer: &ProxyHeadersLayer| asked(layer, "GET / HTTP/1.1", &fields);
        assert_eq!(asked(&layer()), None, "{upgrade:?}");
        assert_eq!(asked(&websocket).as_deref(), expected, "{upgrade:?}");
        assert_eq!(asked(&both).as_deref(), with_both, "{upgrade:?}");
    }
}

#[test]
fn an_upgrade_is_one_of_http_1_1_and_named_by_connection() {
    let layer = layer().allow_upgrade("websocket");
    assert_eq!(
        asked(&layer, "GET / HTTP/1.1", WEBSOCKET).as_deref(),
        Some("websocket")
    );
    for version in ["HTTP/1.0", "HTTP/2", "HTTP/3"] {
        assert_eq!(asked(&layer, &format!("GET / {version}"), WEBSOCKET), None);
    }
    for connection in [&[][..], &["keep-alive"], &["upgrades"], &["\"upgrade\""]] {
        let mut fields = vec![("upgrade", "websocket")];
        fields.extend(connection.iter().map(|line| ("connection", *line)));
        assert_eq!(
            asked(&layer, "GET / HTTP/1.1", &fields),
            None,
            "{connection:?}"
        );
    }
    // What else the line names goes.
    let fields = [
        ("connection", "x-a, upgrade"),
        ("upgrade", "websocket"),
        ("x-a", "1"),
    ];
    let mut asks = get(&fields);
    asks.headers_mut()
        .insert("sec-websocket-key", HeaderValue::from_static("x"));
    let head = passed(&layer, asks);
    assert!(!head.headers.contains_key("x-a"));
    assert!(head.headers.contains_key("sec-websocket-key"));
}

fn switching(upgrade: &[&str]) -> Response<Full<Bytes>> {
    let mut response = response(
        101,
        &[("connection", "upgrade, x-a"), ("x-a", "1"), ("x-b", "2")],
    );
    for protocol in upgrade {
        let protocol = HeaderValue::from_bytes(protocol.as_bytes()).expect("a value");
        response.headers_mut().append("upgrade", protocol);
    }
    response
}

#[test]
fn a_change_that_was_asked_for_passes() {
    let layer = layer().allow_upgrade("websocket").allow_upgrade("irc");
    for (asked, chosen) in [
        ("websocket", "websocket"),
        ("websocket", "WebSocket"),
        ("WEBSOCKET", "websocket"),
        ("websocket, irc/6.9", "irc/6.9"),
        ("h2c, irc", "irc"),
    ] {
        let request = get(&[("connection", "upgrade"), ("upgrade", asked)]);
        let answer = answer(&layer, request, switching(&[chosen]));
        assert_eq!(answer.status, 101);
        let upgrade = format!("upgrade: {chosen}");
        assert_eq!(
            lines(&answer.headers),
            ["connection: upgrade", &*upgrade, "x-b: 2"]
        );
    }
}

// Found by a property: the empty elements of the list, and the line that holds nothing else, went back as they were.
#[test]
fn a_101_names_the_protocol_and_nothing_else() {
    let layer = layer().allow_upgrade("websocket");
    for lines_of in [
        &["websocket"][..],
        &["websocket, "],
        &[",, websocket ,"],
        &["", "websocket"],
        &[",", "websocket"],
    ] {
        let fields: Vec<_> = lines_of.iter().map(|line| ("upgrade", *line)).collect();
        let answer = answer(&layer, get(WEBSOCKET), response(101, &fields));
        assert_eq!(answer.status, 101, "{lines_of:?}");
        assert_eq!(answer.field("upgrade"), Some("websocket"), "{lines_of:?}");
    }
}

// CVE-2026-2833: after a 101 that was not asked for, the client's next request goes to the backend as it is.
#[test]
fn a_change_that_was_not_asked_for_is_refused() {
    let websocket = layer().allow_upgrade("websocket").allow_upgrade("irc");
    let h2c = &[("connection", "upgrade"), ("upgrade", "h2c")][..];
    let unnamed = &[("upgrade", "websocket")][..];
    for (layer, line_of, asked, chosen) in [
        (&layer(), "GET / HTTP/1.1", WEBSOCKET, &["websocket"][..]),
        (&websocket, "GET / HTTP/1.1", &[], &["websocket"]),
        (&websocket, "GET / HTTP/1.1", h2c, &["h2c"]),
        (&websocket, "GET / HTTP/1.1", h2c, &["websocket"]),
        (&websocket, "GET / HTTP/1.1", unnamed, &["websocket"]),
        (&websocket, "GET / HTTP/1.1", WEBSOCKET, &["irc"]),
        (&websocket, "GET / HTTP/1.1", WEBSOCKET, &["h2c"]),
        (&websocket, "GET / HTTP/1.1", WEBSOCKET, &["websocket, h2c"]),
        (
            &websocket,
            "GET / HTTP/1.1",
            WEBSOCKET,
            &["websocket", "h2c"],
        ),
        (
            &websocket,
            "GET / HTTP/1.1",
            WEBSOCKET,
            &["websocket, websocket"],
        ),
        (&websocket, "GET / HTTP/1.1", WEBSOCKET, &["websocket/13"]),
        (&websocket, "GET / HTTP/1.1", WEBSOCKET, &[""]),
        (&websocket, "GET / HTTP/1.1", WEBSOCKET, &[]),
        (&websocket, "GET / HTTP/1.0", WEBSOCKET, &["websocket"]),
        (&websocket, "GET / HTTP/2", WEBSOCKET, &["websocket"]),
    ] {
        let mut fields = vec![("host", "h")];
        fields.extend(asked);
        let answer = answer(layer, request(line_of, &fields), switching(chosen));
        answer.assert_problem(502);
        assert_eq!(answer.headers.len(), 1, "{answer:?}");
    }
}

#[test]
fn an_interim_response_is_no_final_one() {
    let layer = layer().allow_upgrade("websocket");
    for status in [100, 102, 103, 104, 199] {
        answer(&layer, get(&[]), response(status, &[("link", "</a>")])).assert_problem(502);
        answer(&layer, get(WEBSOCKET), response(status, WEBSOCKET)).assert_problem(502);
    }
}

#[test]
fn a_change_that_the_backend_did_not_make_leaves_nothing_behind() {
    let layer = layer().allow_upgrade("websocket");
    for status in [200, 400, 500] {
        let answer = answer(&layer, get(WEBSOCKET), response(status, WEBSOCKET));
        assert_eq!(answer.status, status);
        assert_eq!(answer.headers.len(), 0);
    }
}

// RFC 9110 §15.5.22
#[test]
fn a_426_says_to_what_it_may_be() {
    let layer = layer().allow_upgrade("websocket");
    for (required, said) in [
        (&["websocket"][..], Some("websocket")),
        (&["h2c, websocket"], Some("websocket")),
        (&["h2c"], None),
        (&[], None),
    ] {
        let fields: Vec<_> = required.iter().map(|line| ("upgrade", *line)).collect();
        let answer = answer(&layer, get(&[]), response(426, &fields));
        assert_eq!(answer.status, 426);
        assert_eq!(answer.field("upgrade"), said);
        assert_eq!(answer.field("connection"), said.map(|_| "upgrade"));
    }
    let fields = [("upgrade", "websocket")];
    // Where there is no such thing (RFC 9113 §8.2.2).
    for version in ["HTTP/1.0", "HTTP/2", "HTTP/3"] {
        let request = request(&format!("GET / {version}"), &[("host", "h")]);
        assert_eq!(
            answer(&layer, request, response(426, &fields))
                .headers
                .len(),
            0
        );
    }
    assert_eq!(
        answer(&super::layer(), get(&[]), response(426, &fields))
            .headers
            .len(),
        0
    );
}

#[test]
fn what_is_no_name_of_a_protocol_is_a_mistake() {
    for name in ["", "a b", "websocket/13", "a,b", "é", "\"a\""] {
        let built = std::panic::catch_unwind(|| layer().allow_upgrade(name));
        assert!(built.is_err(), "{name:?}");
    }
}
