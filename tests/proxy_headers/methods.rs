//! `CONNECT`, `TRACE`, `OPTIONS *` and `Max-Forwards` (RFC 9110 §7.6.2, §9.3).

use super::*;

const HOST: (&str, &str) = ("host", "h");

// B16
#[test]
fn connect_is_passed_on_only_if_it_may_be() {
    for line_of in [
        "CONNECT a:443 HTTP/1.1",
        "CONNECT a:443 HTTP/2",
        "CONNECT https://a/ws HTTP/2",
    ] {
        assert_refused(&layer(), request(line_of, &[HOST]), 501);
    }
    let layer = layer().forward_connect();
    for (target, host) in [
        ("a:443", "a:443"),
        ("[::1]:443", "[::1]:443"),
        ("https://a/ws", "a"),
    ] {
        for version in ["HTTP/1.1", "HTTP/2"] {
            let line_of = format!("CONNECT {target} {version}");
            let head = passed(&layer, request(&line_of, &[HOST]));
            // Without its authority a CONNECT would say nothing.
            assert_eq!(head.uri.to_string(), target);
            assert_eq!(line(&head.headers, "host"), Some(host));
        }
    }
    // RFC 9110 §9.3.6: there is a port, and it is one; user names have no place in any target.
    for target in [
        "a",
        "a:",
        "a:65536",
        "a:+1",
        "user@a:443",
        "/",
        "*",
        "/a:443",
    ] {
        let line_of = format!("CONNECT {target} HTTP/1.1");
        assert_refused(&layer, request(&line_of, &[HOST]), 400);
    }
}

// B16
#[test]
fn trace_is_passed_on_only_if_it_may_be_and_without_credentials() {
    assert_refused(&layer(), request("TRACE / HTTP/1.1", &[HOST]), 501);
    assert_refused(
        &layer(),
        request("TRACE / HTTP/1.1", &[HOST, ("max-forwards", "0")]),
        501,
    );
    let layer = layer().forward_trace();
    let secrets = [
        HOST,
        ("authorization", "Basic eDp5"),
        ("cookie", "a=b"),
        ("cookie", "c=d"),
        ("proxy-authorization", "Basic eDp5"),
        ("x-kept", "1"),
    ];
    let head = passed(&layer, request("TRACE /a HTTP/1.1", &secrets));
    let lines = lines(&head.headers);
    assert_eq!(lines.len(), 5, "{lines:?}");
    assert!(lines.contains(&"x-kept: 1".into()));
    // RFC 9110 §9.3.8: it has no content.
    let mut with_content = request("TRACE / HTTP/1.1", &[HOST]);
    *with_content.body_mut() = "content".into();
    assert_refused(&layer, with_content, 400);
    assert_refused(&layer, request("TRACE * HTTP/1.1", &[HOST]), 400);
    // The credentials of other requests stay.
    let head = passed(&layer, request("GET /a HTTP/1.1", &secrets));
    assert_eq!(head.headers.get_all("cookie").iter().count(), 2);
    assert!(head.headers.contains_key("authorization"));
}

// B16
#[test]
fn options_about_this_server_is_answered_by_it() {
    let asterisk = || request("OPTIONS * HTTP/1.1", &[HOST]);
    let answer = admit(&layer(), asterisk()).expect_err("answered");
    assert_eq!((answer.status, &*answer.body), (204, ""));
    assert_eq!(answer.headers.len(), 0);
    assert_refused(&layer(), request("OPTIONS * HTTP/1.1", &[]), 400);
    assert_eq!(
        passed(&layer(), request("OPTIONS / HTTP/1.1", &[HOST])).uri,
        "/"
    );

    // RFC 9112 §3.2.4 wants the same of a target without a path, which `http` does not tell from `/`.
    assert_eq!(
        passed(&layer(), request("OPTIONS http://a HTTP/1.1", &[HOST])).uri,
        "/"
    );

    let layer = layer().forward_options_asterisk();
    assert_eq!(passed(&layer, asterisk()).uri, "*");
    assert_refused(&layer, request("GET * HTTP/1.1", &[HOST]), 400);
    // One policy is not another.
    assert_refused(&layer, request("TRACE / HTTP/1.1", &[HOST]), 501);
    assert_refused(&layer, request("CONNECT a:1 HTTP/1.1", &[HOST]), 501);
}

#[test]
fn max_forwards_is_counted_down() {
    let layer = layer().forward_trace().forward_options_asterisk();
    for target in ["/", "*"] {
        for (given, left) in [
            ("1", "0"),
            ("2", "1"),
            ("007", "6"),
            ("10", "9"),
            ("4294967295", "4294967294"),
            // What is larger than can be counted to.
            ("4294967296", "4294967294"),
            ("42949672950", "4294967294"),
            ("99999999999999999999999999999999", "4294967294"),
        ] {
            let fields = [HOST, ("max-forwards", given)];
            let head = passed(
                &layer,
                request(&format!("OPTIONS {target} HTTP/1.1"), &fields),
            );
            assert_eq!(line(&head.headers, "max-forwards"), Some(left), "{given}");
            if target == "/" {
                let head = passed(&layer, request("TRACE / HTTP/1.1", &fields));
                assert_eq!(line(&head.headers, "max-forwards"), Some(left), "{given}");
            }
        }
    }
    // Here it ends.
    for zero in ["0", "00", "0000000000000000000000000000000"] {
        let fields = [HOST, ("max-forwards", zero)];
        let answer = admit(&layer, request("OPTIONS / HTTP/1.1", &fields)).expect_err(zero);
        assert_eq!((answer.status, &*answer.body), (204, ""));
        assert_refused(&layer, request("TRACE / HTTP/1.1", &fields), 501);
    }
}

#[test]
fn max_forwards_that_is_no_number_is_refused() {
    let layer = layer().forward_trace();
    for method in ["OPTIONS", "TRACE"] {
        let line_of = format!("{method} / HTTP/1.1");
        for bad in [
            "", "-1", "+1", "1.0", "1, 1", "1 ", "x", "0x1", "1;q=1", "\u{661}",
        ] {
            assert_refused(
                &layer,
                request(&line_of, &[HOST, ("max-forwards", bad)]),
                400,
            );
        }
        for two in [["1", "1"], ["1", "0"], ["5", "x"]] {
            let [one, two] = two.map(|value| ("max-forwards", value));
            assert_refused(&layer, request(&line_of, &[HOST, one, two]), 400);
        }
    }
}

#[test]
fn max_forwards_of_another_method_is_not_read() {
    for method in ["GET", "POST", "X-OTHER"] {
        for value in ["0", "-1", "x"] {
            let line_of = format!("{method} / HTTP/1.1");
            let head = passed(
                &layer(),
                request(&line_of, &[HOST, ("max-forwards", value)]),
            );
            assert_eq!(line(&head.headers, "max-forwards"), Some(value));
        }
    }
}
