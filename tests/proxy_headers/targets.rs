//! Host, authority and target (RFC 9112 §3.2, RFC 9113 §8.3.1).

use http::header::HOST;

use super::*;

/// What is neither a host nor one with a port.
const MALFORMED: &[&str] = &[
    "",
    " ",
    ":",
    ":80",
    "a b",
    "a,b",
    "a, b",
    "a;b",
    "a/b",
    "a?b",
    "a#b",
    "a\\b",
    "a\"b",
    "<a>",
    "http://a",
    "//a",
    // A user name: what `a@b` means depends on who reads it.
    "user@a",
    "user:password@a",
    "a@a",
    "@a",
    "a@",
    "a:80@b:80",
    // Ports.
    "a:b",
    "a:-1",
    "a:+80",
    "a:80:80",
    "a:65536",
    "a:99999999999999999999",
    "a:8 0",
    "a:0x50",
    "a:80,b",
    "a:80;b",
    // Addresses.
    "::1",
    "[::1",
    "::1]",
    "[::1]]",
    "[[::1]]",
    "[]",
    "[]:80",
    "[::1]a",
    "[::1]80",
    "[::1]:b",
    "[a]",
    "[127.0.0.1]",
    "[::g]",
    "a[::1]",
    "a[b]",
    "[::1][::1]",
    "[fe80::1%25eth0]",
    "caf\u{e9}",
    "(a)",
    "a%2eb",
    "%",
];

const SOUND: &[&str] = &[
    "h",
    "a.example",
    "A.Example",
    "a.example.",
    "xn--caf-dma.example",
    "a_b",
    "a.example:80",
    "a.example:65535",
    "a.example:0",
    // RFC 3986 §3.2.3: it may be empty.
    "a.example:",
    "127.0.0.1",
    "127.0.0.1:8080",
    "[::1]",
    "[::1]:8080",
    "[2001:db8::192.0.2.1]:443",
];

#[test]
fn a_sound_host_passes_as_it_is() {
    for host in SOUND {
        for version in ["HTTP/1.0", "HTTP/1.1", "HTTP/2"] {
            let line_of = format!("GET /a?b=c {version}");
            let head = passed(&layer(), request(&line_of, &[("host", host)]));
            assert_eq!(line(&head.headers, "host"), Some(*host), "{version}");
            assert_eq!(line(&head.headers, "x-forwarded-host"), Some(*host));
            assert_eq!(head.uri, "/a?b=c");
        }
    }
}

// B05
#[test]
fn a_malformed_host_is_refused() {
    for host in MALFORMED {
        for line_of in [
            "GET / HTTP/1.0",
            "GET / HTTP/1.1",
            "GET / HTTP/2",
            "GET http://a/ HTTP/1.1",
        ] {
            let bad = || request(line_of, &[("host", host)]);
            assert_refused(&layer(), bad(), 400);
        }
    }
    let mut bad = get(&[]);
    let host = HeaderValue::from_bytes(b"a\xff").expect("a value");
    bad.headers_mut().insert(HOST, host);
    assert_refused(&layer(), bad, 400);
}

// B05
#[test]
fn more_than_one_host_is_refused_and_so_is_none() {
    for version in ["HTTP/1.0", "HTTP/1.1", "HTTP/2", "HTTP/3"] {
        for target in ["/", "http://a/"] {
            for two in [["a", "b"], ["a", "a"], ["a", ""], ["", "a"]] {
                let hosts = two.map(|host| ("host", host));
                let line_of = format!("GET {target} {version}");
                assert_refused(&layer(), request(&line_of, &hosts), 400);
            }
        }
    }
    for (line_of, host) in [
        ("GET / HTTP/1.0", Some(None)),
        ("GET http://a/ HTTP/1.0", Some(Some("a"))),
        ("GET / HTTP/1.1", None),
        // Required even where the target says it (RFC 9112 §3.2).
        ("GET http://a/ HTTP/1.1", None),
        ("GET / HTTP/2", None),
        ("GET http://a/ HTTP/2", Some(Some("a"))),
        ("GET / HTTP/3", None),
        ("GET http://a/ HTTP/3", Some(Some("a"))),
    ] {
        match host {
            None => assert_refused(&layer(), request(line_of, &[]), 400),
            Some(host) => {
                let head = passed(&layer(), request(line_of, &[]));
                assert_eq!(line(&head.headers, "host"), host, "{line_of}");
                assert_eq!(line(&head.headers, "x-forwarded-host"), host, "{line_of}");
            }
        }
    }
}

#[test]
fn a_refusal_is_a_problem_that_repeats_nothing() {
    for fields in [
        &[][..],
        &[("host", "a"), ("host", "secret")],
        &[("host", "se@cret")],
    ] {
        let answer = admit(&layer(), request("GET /secret HTTP/1.1", fields));
        let answer = answer.expect_err("refused");
        let problem = answer.assert_problem(400);
        assert!(problem["detail"].is_string());
        assert!(!answer.body.contains("cret"), "{}", answer.body);
    }
}

// B06
#[test]
fn the_authority_of_the_target_wins_and_goes_no_further() {
    for (target, host, path) in [
        ("http://a/x?y=z", "a", "/x?y=z"),
        ("https://a:8443/", "a:8443", "/"),
        ("http://[::1]:80/x", "[::1]:80", "/x"),
        ("http://a", "a", "/"),
        ("http://a?y=z", "a", "/?y=z"),
        ("http://a#f", "a", "/"),
        ("http://a?#f", "a", "/?"),
        // B15
        ("http://a//evil.example/x", "a", "//evil.example/x"),
        (
            "http://a/http://evil.example/",
            "a",
            "/http://evil.example/",
        ),
        ("http://a/..//./x", "a", "/..//./x"),
        ("http://a/%2e%2e/%2F", "a", "/%2e%2e/%2F"),
        ("HTTPS://a/x", "a", "/x"),
    ] {
        for version in ["HTTP/1.0", "HTTP/1.1", "HTTP/2"] {
            for method in ["GET", "POST", "OPTIONS", "X-OTHER"] {
                let line_of = format!("{method} {target} {version}");
                let head = passed(&layer(), request(&line_of, &[("host", "other:1")]));
                assert_eq!(line(&head.headers, "host"), Some(host), "{line_of}");
                assert_eq!(line(&head.headers, "x-forwarded-host"), Some(host));
                let uri = &head.uri;
                assert_eq!((uri.scheme(), uri.authority()), (None, None), "{line_of}");
                assert_eq!(uri.to_string(), path, "{line_of}");
                let whole = uri.path_and_query().expect("a path").as_str();
                assert_eq!(whole, path, "{line_of}");
            }
        }
    }
    for target in [
        "ftp://a/x",
        "file://a/x",
        "javascript://a/x",
        "httpss://a/x",
        "ws://a/x",
        "http://user@a/",
        "http://user:password@a/",
        "http://a:65536/",
        "http://a:+1/",
    ] {
        let line_of = format!("GET {target} HTTP/1.1");
        assert_refused(&layer(), request(&line_of, &[("host", "a")]), 400);
    }
}

// B15
#[test]
fn a_path_is_passed_on_as_it_is() {
    for path in [
        "/",
        "//evil.example/x",
        "///",
        "/a//b",
        "/a/../b",
        "/%2e%2e/%252e",
        "/a;b=c",
        "/a?b=//c&d=?",
        "/?",
        "/a@b:80",
    ] {
        let head = passed(
            &layer(),
            request(&format!("GET {path} HTTP/1.1"), &[("host", "h")]),
        );
        assert_eq!(head.uri.to_string(), path);
        assert_eq!(head.uri.authority(), None);
    }
}

#[test]
fn a_target_without_a_path_is_refused() {
    for target in ["a.example", "a.example:80", "*", "user@a"] {
        for version in ["HTTP/1.0", "HTTP/1.1", "HTTP/2"] {
            for method in ["GET", "POST", "HEAD", "DELETE", "X-OTHER"] {
                let line_of = format!("{method} {target} {version}");
                assert_refused(&layer(), request(&line_of, &[("host", "h")]), 400);
            }
        }
    }
}

#[test]
fn everything_else_of_a_request_stays() {
    #[derive(Debug, Clone, PartialEq)]
    struct Mark(u32);
    let mut request = request(
        "X-OTHER /a?b HTTP/2",
        &[("host", "h"), ("x-a", "1"), ("x-a", "2")],
    );
    request.extensions_mut().insert(Mark(7));
    let head = passed(&layer(), request);
    assert_eq!(head.method, "X-OTHER");
    assert_eq!(head.version, http::Version::HTTP_2);
    assert_eq!(head.extensions.get(), Some(&Mark(7)));
    assert_eq!(head.extensions.get(), Some(&peer(PEER)));
    assert_eq!(
        head.headers.get_all("x-a").iter().collect::<Vec<_>>(),
        ["1", "2"]
    );
}
