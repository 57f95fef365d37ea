//! Fields of the connection, bytes that are no text, trailers.

use super::{Ask, BOTH_PROTOCOLS, Protocol, Rig};

// B07, B09, B10
#[tokio::test]
async fn fields_of_the_connection_go_no_further() {
    let rig = Rig::new().await;
    for protocol in BOTH_PROTOCOLS {
        let mut ask = Ask::get("/x/7")
            .field("Proxy-Authorization", "Basic cHJveHk=")
            .field("Proxy-Authenticate", "Basic")
            .field("Proxy-Authentication-Info", "x")
            .field("HTTP2-Settings", "AAMAAABkAAQAAP__")
            .field("X-Three", "3");
        if protocol == Protocol::Http1 {
            ask = ask
                .field("Connection", "X-One, close")
                .field(
                    "Connection",
                    "x-two,, keep-alive , x-absent, HTTP2-Settings",
                )
                .field("X-One", "1")
                .field("X-Two", "2")
                .field("X-Two", "2")
                .field("Keep-Alive", "timeout=5")
                .field("Proxy-Connection", "keep-alive")
                .field("Upgrade", "h2c")
                .field("TE", "gzip, deflate;q=0.5");
        }
        let request = rig.passes(protocol, &ask).await;
        for name in [
            "connection",
            "http2-settings",
            "keep-alive",
            "proxy-authenticate",
            "proxy-authentication-info",
            "proxy-authorization",
            "proxy-connection",
            "te",
            "upgrade",
            "x-one",
            "x-two",
        ] {
            assert_eq!(request.head.fields.all(name), [""; 0], "{protocol:?}");
        }
        assert_eq!(request.field("x-three"), Some("3"));
    }
}

/// B07: nor does a client take off what we have put on, or what says how the body ends.
#[tokio::test]
async fn what_is_for_the_backend_can_not_be_nominated_away() {
    let rig = Rig::new().await;
    let nominated = "host, content-length, content-type, transfer-encoding, x-forwarded-for, \
                     x-forwarded-host, X-Forwarded-Proto, cache-control";
    let ask = Ask::new("POST", "/x/7")
        .field("Connection", nominated)
        .field("Content-Type", "text/x")
        .field("Cache-Control", "no-cache")
        .body("body");
    let request = rig.passes(Protocol::Http1, &ask).await;
    assert_eq!(request.text(), "body");
    for (name, value) in [
        ("content-type", "text/x"),
        ("cache-control", "no-cache"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-forwarded-host", "caller.test"),
        ("x-forwarded-proto", "http"),
    ] {
        assert_eq!(request.field(name), Some(value));
    }
}

// B11
#[tokio::test]
async fn trailers_say_no_more_than_trailers_may() {
    const FORBIDDEN: [&str; 16] = [
        "Authorization",
        "Cache-Control",
        "Content-Length",
        "Content-Type",
        "Cookie",
        "Expect",
        "Forwarded",
        "Host",
        "If-Match",
        "Max-Forwards",
        "Proxy-Authorization",
        "Range",
        "Trailer",
        "X-Forwarded-For",
        "X-Real-IP",
        "X_Forwarded_For",
    ];
    let rig = Rig::new().await;
    for protocol in BOTH_PROTOCOLS {
        let mut ask = Ask::new("POST", "/x/7").body("body");
        for name in FORBIDDEN {
            ask = ask.trailer(name, "trailed");
        }
        if protocol == Protocol::Http1 {
            for name in [
                "Connection",
                "Keep-Alive",
                "TE",
                "Transfer-Encoding",
                "Upgrade",
            ] {
                ask = ask.trailer(name, "trailed");
            }
        }
        let ask = ask.trailer("X-Sum", "trailed");
        let request = rig.passes(protocol, &ask).await;
        assert_eq!(request.text(), "body");
        let trailers = request.body.trailers.names();
        assert!([&[][..], &["x-sum"]].contains(&&*trailers), "{trailers:?}");
        let mut head = request.head.fields.iter();
        assert!(head.all(|(_, value)| value != "trailed"), "{request:?}");
    }
}

/// RFC 9113 §8.2.3: in HTTP/2 a cookie may come in crumbs, and elsewhere it may not.
#[tokio::test]
async fn the_crumbs_of_a_cookie_are_one_field() {
    let rig = Rig::new().await;
    for protocol in BOTH_PROTOCOLS {
        let ask = Ask::get("/x/7")
            .field("Cookie", "a=1")
            .field("Cookie", b"b=\xff")
            .field("Cookie", "c=3; d=4");
        let request = rig.passes(protocol, &ask).await;
        let cookies = request.head.fields.all("cookie");
        match protocol {
            Protocol::Http1 => assert_eq!(cookies, ["a=1", "b=\u{ff}", "c=3; d=4"]),
            Protocol::Http2 => assert_eq!(cookies, ["a=1; b=\u{ff}; c=3; d=4"]),
        }
    }
}

// B19
#[tokio::test]
async fn any_byte_in_any_field_does_no_harm() {
    // A tab in their middle, as at the ends blanks are none of the value.
    let bytes: Vec<u8> = (0x80..=0xbf).chain([b'\t']).chain(0xc0..=0xff).collect();
    let sent: String = bytes.iter().copied().map(char::from).collect();
    for hops in [0, 2] {
        let rig = Rig::trusting(hops).await;
        for protocol in BOTH_PROTOCOLS {
            let passes = [
                "Accept",
                "Authorization",
                "Cache-Control",
                "Content-Type",
                "Cookie",
                "Max-Forwards",
                "Trailer",
                "Via",
                "X-Bytes",
            ];
            let stays = [
                "Forwarded",
                "Proxy-Authorization",
                "X-Forwarded-For",
                "X-Forwarded-Host",
                "X-Forwarded-Proto",
                "X-Real-IP",
                "X_Forwarded_For",
            ];
            let of_the_connection = match protocol {
                Protocol::Http1 => &["Connection", "Keep-Alive", "TE", "Upgrade"][..],
                Protocol::Http2 => &[],
            };
            let names = passes.iter().chain(&stays).chain(of_the_connection);
            let ask = names.fold(Ask::get("/x/7"), |ask, name| ask.field(name, &bytes));
            let request = rig.passes(protocol, &ask).await;
            for name in passes {
                let name = name.to_ascii_lowercase();
                if name != "trailer" {
                    assert_eq!(request.field(&name), Some(&*sent), "{name}");
                }
            }
            let fields: Vec<&str> = request.head.fields.names();
            for name in stays.iter().chain(of_the_connection) {
                let name = name.to_ascii_lowercase();
                let ours = ["x-forwarded-for", "x-forwarded-host", "x-forwarded-proto"];
                assert!(
                    ours.contains(&&*name) || !fields.contains(&&*name),
                    "{name}"
                );
            }
            assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
            assert_eq!(request.field("x-forwarded-host"), Some("caller.test"));
            assert_eq!(request.field("x-forwarded-proto"), Some("http"));
        }
    }
}

/// B19: each of them alone, and beside what would be right.
#[tokio::test]
async fn a_right_value_beside_a_wrong_one_is_still_right() {
    let rig = Rig::new().await;
    let ask = Ask::get("/x/7")
        .field("Connection", b"\xff, x-one")
        .field("Connection", b"x-\xe9, , x-two")
        .field("X-One", "1")
        .field("X-Two", "2")
        .field("Upgrade", b"\xff, websocket")
        .field("TE", b"\xff, trailers");
    let request = rig.passes(Protocol::Http1, &ask).await;
    assert_eq!(request.field("x-one"), None);
    assert_eq!(request.field("x-two"), None);
    assert_eq!(request.field("upgrade"), None);
}

// B21
#[tokio::test]
async fn a_get_may_have_a_body() {
    let rig = Rig::new().await;
    for protocol in BOTH_PROTOCOLS {
        for method in ["GET", "DELETE", "OPTIONS"] {
            let ask = Ask::new(method, "/x/7").body("body");
            let request = rig.passes(protocol, &ask).await;
            assert_eq!((&*request.method, request.text()), (method, "body"));
        }
    }
}
