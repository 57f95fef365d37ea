//! B13, B15: a target goes to the backend as it is, below the backend's own path, or nowhere.

use crate::backend::Backend;
use crate::caller::request;
use crate::process::Run;
use crate::wire::ask::{Ask, BOTH_PROTOCOLS, Protocol};

#[tokio::test]
async fn a_target_is_kept_as_it_is() {
    for (base, sent) in [
        ("", ""),
        ("/", ""),
        ("/v1", "/v1"),
        ("/v1/", "/v1"),
        ("/a/b", "/a/b"),
    ] {
        let backend = Backend::json("{}");
        let proxy = Run::to_path(&backend, base).start().await;
        for target in [
            "/",
            "/?",
            "/?a=1&b=%2e%2e/&c={id}",
            "/a",
            "/a/",
            "/a//b",
            "/a%2fb%2Fc",
            "/a%252f%252e%252e",
            "/%252e%252e/x",
            "/a%0d%0aX-Injected:%201",
            "/a;v=1,2@x:80",
            "/...",
            "/.a/..b/c..",
            "/%2e%2e%2e",
            "/a?../../x",
            "/{id}/%7Bid%7D",
            "/~a!$&'()*+=:",
            "/%C3%A9/%ff",
            "//evil.test/x",
            "///evil.test",
            "/http://evil.test/",
            "/@evil.test",
            "/%5Cevil.test",
            "/:80",
        ] {
            for protocol in BOTH_PROTOCOLS {
                let answer = proxy.ask(protocol, &Ask::get(target)).await;
                assert_eq!(answer.status, 200, "{target}");
                // The backend asserts that it is asked by its own name.
                let request = backend.requests().pop().expect("a request");
                assert_eq!(request.target, format!("{sent}{target}"));
                assert_eq!(request.field("x-injected"), None);
            }
        }
    }
}

const CLIMBING: [&str; 40] = [
    // Some servers take a backslash for a slash, and some read no further than a NUL.
    "/\\evil.test",
    "/a\\b",
    "/a%00b",
    "/..%00/b",
    "/..",
    "/.",
    "/../",
    "/./",
    "/../etc",
    "/a/..",
    "/a/.",
    "/a/../../etc",
    "/a/./b",
    "/%2e%2e",
    "/%2e%2e/etc",
    "/%2E%2E/etc",
    "/.%2e/etc",
    "/%2e./etc",
    "/%2e/etc",
    "/a/%2E%2e",
    "/..%2fetc",
    "/..%2Fetc",
    "/a%2f..%2f..%2fetc",
    "/a%2f%2e%2e%2fetc",
    "/%2e%2e%2fetc",
    "/..\\etc",
    "/..%5cetc",
    "/..%5Cetc",
    "/a\\..\\etc",
    "/a%5c%2e%2e%5cetc",
    "//..",
    "//../etc",
    "/..;/etc",
    "/..;x=1/etc",
    "/%2e%2e;/etc",
    "/a/..%3b/etc",
    "/a/..%3Bx%2fetc",
    "/.;/etc",
    "/..?x",
    "/%2e%2e?x",
];

#[tokio::test]
async fn a_path_that_would_climb_is_refused() {
    for base in ["", "/v1"] {
        let backend = Backend::json("{}");
        let proxy = Run::to_path(&backend, base).start().await;
        for protocol in BOTH_PROTOCOLS {
            for target in CLIMBING {
                let answer = proxy.ask(protocol, &Ask::get(target)).await;
                assert_eq!(answer.status, 400, "{protocol:?}: {target}");
                answer.problem(400);
            }
        }
        // An absolute one is judged by its path.
        for target in CLIMBING {
            let target = format!("http://caller.test{target}");
            let answer = proxy.ask(Protocol::Http1, &Ask::get(&target)).await;
            assert_eq!(answer.status, 400, "{target}");
        }
        assert_eq!(backend.record().connections, 0);
    }
}

/// hyper drops a fragment, which no client may send, and refuses what it can't parse.
#[tokio::test]
async fn what_is_no_path_is_decided_by_hyper() {
    let backend = Backend::json("{}");
    let proxy = Run::to(&backend).start().await;
    for (target, sent) in [("/a#b", "/a"), ("/a?b#c", "/a?b"), ("/#/../etc", "/")] {
        for protocol in BOTH_PROTOCOLS {
            let answer = proxy.ask(protocol, &Ask::get(target)).await;
            assert_eq!(answer.status, 200, "{target}");
            let request = backend.requests().pop().expect("a request");
            assert_eq!(request.target, sent);
        }
    }
    for target in [
        &b"/a b"[..],
        b"/a\tb",
        b"/\x7f",
        b"/\0",
        b"/\xff",
        b"/\xc3",
        b"http://",
        b"http://a b/",
        b"http://a.test:x/",
        b"\xff",
    ] {
        let bytes = [b"GET ", target, b" HTTP/1.1\r\nHost: g\r\n\r\n"].concat();
        let mut caller = proxy.connect().await;
        caller.send(bytes).await;
        let status = caller.answer_of_the_server().await.status;
        assert_eq!(status, 400, "{}", String::from_utf8_lossy(target));
    }
    assert_eq!(backend.requests().len(), 6);
    // UTF-8 that is not encoded, which is none of what may stand there, is taken and goes on as it is.
    for protocol in BOTH_PROTOCOLS {
        let answer = proxy.ask(protocol, &Ask::get("/\u{e9}")).await;
        assert_eq!(answer.status, 200);
        let request = backend.requests().pop().expect("a request");
        assert_eq!(request.target, "/\u{c3}\u{a9}");
    }
}

/// A target without a path asks for the root (RFC 9112 §3.2.2).
#[tokio::test]
async fn an_absolute_target_may_have_no_path() {
    let backend = Backend::json("{}");
    let proxy = Run::to_path(&backend, "/v1").start().await;
    for (target, sent) in [
        ("http://caller.test", "/v1/"),
        ("http://caller.test/", "/v1/"),
        ("http://caller.test?a=1", "/v1/?a=1"),
        ("HTTP://CALLER.TEST/a", "/v1/a"),
        ("http://caller.test//evil.test/x", "/v1//evil.test/x"),
    ] {
        let answer = proxy.send(request("GET", target, &[], "")).await;
        assert_eq!(answer.status, 200, "{target}");
        let request = backend.requests().pop().expect("a request");
        assert_eq!(request.target, sent);
    }
}
