//! B05, B06: one host, which is the authority that the request is for.

use super::{Ask, Protocol, Rig};

#[tokio::test]
async fn a_request_without_one_host_is_refused() {
    let rig = Rig::new().await;
    for fields in [
        "",
        "Host: a.test\r\nHost: b.test\r\n",
        "Host: a.test\r\nHost: a.test\r\n",
        "Host: a.test\r\nX-Between: 1\r\nhost: a.test\r\n",
        "Host:\r\n",
        "Host: \r\n",
        "Host: a b\r\n",
        "Host: a.test, b.test\r\n",
        "Host: a.test/x\r\n",
        "Host: a.test?x\r\n",
        "Host: a.test#x\r\n",
        "Host: a.test\\x\r\n",
        "Host: user@a.test\r\n",
        "Host: user:password@a.test\r\n",
        "Host: @\r\n",
        "Host: :80\r\n",
        "Host: a.test:http\r\n",
        "Host: a.test:99999\r\n",
        "Host: a.test:80:80\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: http://a.test\r\n",
        "Host: a\tb\r\n",
        "Host: a;b\r\n",
        "Host: \"a\"\r\n",
    ] {
        for target in ["/x/7", "http://a.test/x/7"] {
            // An authority in the target makes no second one, and no wrong one, right.
            let bytes = format!("GET {target} HTTP/1.1\r\n{fields}\r\n");
            let answer = rig.server.send(bytes).await;
            assert_eq!(answer.status, 400, "{target}: {fields}");
            answer.problem(400);
        }
    }
    for host in [&b"\xff"[..], b"\xc3\xa9.test", b"a\x80"] {
        let bytes = [b"GET /x/7 HTTP/1.1\r\nHost: ", host, b"\r\n\r\n"].concat();
        rig.server.send(bytes).await.problem(400);
    }
    assert_eq!(rig.backend.record().connections, 0);
}

#[tokio::test]
async fn http_1_0_needs_no_host() {
    let rig = Rig::new().await;
    let bytes = "GET /x/7 HTTP/1.0\r\n\r\n";
    let answer = rig.server.send(bytes).await;
    assert_eq!((answer.status, answer.text()), (200, "{}"));
    let request = rig.backend.request();
    assert_eq!(request.field("x-forwarded-host"), None);
    assert_eq!(request.field("x-forwarded-for"), Some("127.0.0.1"));
    // One is enough, in any version.
    let bytes = "GET /x/7 HTTP/1.0\r\nHost: a.test\r\nHost: b.test\r\n\r\n";
    rig.server.send(bytes).await.problem(400);
}

#[tokio::test]
async fn a_host_may_have_any_form_that_one_has() {
    let rig = Rig::new().await;
    for host in [
        "a.test",
        "A.Test",
        "a.test:8080",
        "a.test:",
        "[::1]",
        "[::1]:80",
        "192.0.2.1",
        "xn--bcher-kva.test",
        "a_b.test",
    ] {
        for protocol in super::BOTH_PROTOCOLS {
            let request = rig.passes(protocol, &Ask::get("/x/7").host(host)).await;
            assert_eq!(request.field("x-forwarded-host"), Some(host));
        }
    }
}

// B06
#[tokio::test]
async fn the_authority_in_the_target_wins() {
    let rig = Rig::new().await;
    for (authority, host) in [
        ("evil.test", "other.test"),
        ("evil.test:1", "evil.test"),
        ("evil.test", "evil.test:1"),
        ("[::1]:80", "other.test"),
    ] {
        let ask = Ask::get(&format!("http://{authority}/x/7")).host(host);
        let request = rig.passes(Protocol::Http1, &ask).await;
        assert_eq!(request.target, "/x/7");
        assert_eq!(request.field("x-forwarded-host"), Some(authority));
    }
    // Over HTTP/2 it is `:authority`, and a client may not send another `Host` (RFC 9113 §8.3.1).
    let ask = Ask::get("/x/7")
        .host("evil.test")
        .field("host", "other.test");
    let request = rig.passes(Protocol::Http2, &ask).await;
    assert_eq!(request.field("x-forwarded-host"), Some("evil.test"));
}

/// A target that names the backend's own address, or ours, is no way to go anywhere else.
#[tokio::test]
async fn no_target_says_where_to_go() {
    let rig = Rig::new().await;
    let other = crate::backend::Backend::json("{}");
    let address = other.address();
    for scheme in ["http", "https"] {
        let ask = Ask::get(&format!("{scheme}://{address}/x/7")).host(&address.to_string());
        let request = rig.passes(Protocol::Http1, &ask).await;
        assert_eq!(request.target, "/x/7");
        // Nor does it say how the client has come.
        assert_eq!(request.field("x-forwarded-proto"), Some("http"));
    }
    // RFC 9110 §7.4
    for scheme in ["ftp", "ws"] {
        let ask = Ask::get(&format!("{scheme}://{address}/x/7")).host(&address.to_string());
        rig.refuses(Protocol::Http1, &ask, 400).await;
    }
    let ask = Ask::get("/x/7").host(&address.to_string());
    rig.passes(Protocol::Http2, &ask).await;
    assert_eq!(other.record().connections, 0);
}
