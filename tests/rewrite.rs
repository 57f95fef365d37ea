//! What a template promises: whatever the values are, a request goes where the template says.

mod support;

use std::convert::Infallible;
use std::panic::{AssertUnwindSafe, catch_unwind};

use http::{HeaderMap, Request, StatusCode, Uri};
use proptest::prelude::*;
use tower::{Layer, ServiceExt, service_fn};
use watershed::error::{BoxError, ClientFault, cause_ref};
use watershed::rewrite::{PathParams, RewriteError, RewriteLayer, UriTemplate};

use support::percent_decode;

fn expand(template: &str, value: &str) -> Result<Uri, RewriteError> {
    UriTemplate::new(template).expand(&PathParams::from_iter([("a", value), ("other", "stolen")]))
}

/// The status that a merge would answer with.
fn status(error: &RewriteError) -> Option<StatusCode> {
    cause_ref::<ClientFault>(error).map(ClientFault::status)
}

mod values {
    use super::*;

    // B13, B15
    #[test]
    fn a_value_stays_in_its_segment() {
        for (value, encoded) in [
            ("7", "7"),
            ("a b", "a%20b"),
            ("a+b", "a%2Bb"),
            ("a/b", "a%2Fb"),
            ("//evil.com/x", "%2F%2Fevil.com%2Fx"),
            ("http://evil.com", "http%3A%2F%2Fevil.com"),
            ("user@evil.com", "user%40evil.com"),
            (":80", "%3A80"),
            ("@", "%40"),
            ("?", "%3F"),
            ("?admin=1&b=2", "%3Fadmin%3D1%26b%3D2"),
            ("#", "%23"),
            (";jsessionid=1", "%3Bjsessionid%3D1"),
            // What was encoded twice is decoded once by the router, and is encoded again as it stands.
            ("%2e%2e", "%252e%252e"),
            ("..%2f", "..%252f"),
            ("%252e", "%25252e"),
            ("%00", "%2500"),
            ("%", "%25"),
            // Substituted in one pass.
            ("{other}", "%7Bother%7D"),
            ("{a}", "%7Ba%7D"),
            ("a\\b", "a%5Cb"),
            ("\r\nHost: evil.com", "%0D%0AHost%3A%20evil.com"),
            ("\u{7f}", "%7F"),
            ("é", "%C3%A9"),
            ("日本", "%E6%97%A5%E6%9C%AC"),
            ("\u{1f600}", "%F0%9F%98%80"),
            // Full-width dots and slashes are no dots and slashes.
            ("\u{ff0e}\u{ff0e}\u{ff0f}", "%EF%BC%8E%EF%BC%8E%EF%BC%8F"),
            ("...", "..."),
            (".a", ".a"),
            ("a..b/..c", "a..b%2F..c"),
        ] {
            let uri = expand("http://users.internal:8080/v1/{a}/x?q={a}", value)
                .unwrap_or_else(|error| panic!("{value:?}: {error}"));
            let expected = format!("http://users.internal:8080/v1/{encoded}/x?q={encoded}");
            assert_eq!(uri, *expected, "{value:?}");
            assert_eq!(uri.host(), Some("users.internal"));
            let path = expand("/{a}", value).expect("the same in a path alone");
            assert_eq!(path, *format!("/{encoded}"));
            assert_eq!(path.authority(), None);
        }
    }

    // B13
    #[test]
    fn a_value_that_would_climb_is_refused() {
        for value in [
            "", ".", "..", "../", "../..", "a/..", "a/../b", "./a", "a/.", "/..", "..\\",
            "a\\..\\b", "..\\..", "/../", "a/./b", "//..",
        ] {
            for template in [
                "/{a}",
                "/x/{a}/y",
                "http://h/{a}",
                "/x-{a}",
                "/{a}.json",
                "/{a}?b=c",
            ] {
                let error = expand(template, value).expect_err(value);
                assert_eq!(status(&error), Some(StatusCode::BAD_REQUEST), "{value:?}");
                assert!(matches!(error, RewriteError::Value(_)));
            }
            // In a query there is nothing to climb.
            let uri = expand("/x?a={a}", value).expect("harmless");
            assert_eq!(uri.path(), "/x");
        }
    }

    // B13
    #[test]
    fn values_that_climb_together_are_refused() {
        let template = |text| UriTemplate::new(text);
        for (text, values) in [
            ("/.{a}", ["..", "x"]),
            ("/.{a}", [".", "x"]),
            ("/{a}.", [".", "x"]),
            ("/%2e{a}", [".", "x"]),
            ("/{a}%2E/x", [".", "x"]),
            ("/{a}{b}", [".", "."]),
            ("/x/{b}{a}/y", [".", "."]),
            // To a server that decodes first, an encoded slash ends a segment.
            ("/{a}..{b}", ["x/", "/y"]),
            ("/{a}.{b}", ["x\\", "\\y"]),
            ("/x%2F.{a}", [".", "y"]),
        ] {
            let params = PathParams::from_iter([("a", values[0]), ("b", values[1])]);
            let error = template(text).expand(&params).expect_err(text);
            assert_eq!(status(&error), Some(StatusCode::BAD_REQUEST), "{text}");
        }
        let params = PathParams::from_iter([("a", "x"), ("b", "y")]);
        assert_eq!(template("/.{a}{b}").expand(&params).unwrap(), "/.xy");
    }

    #[test]
    fn a_value_that_is_missing_is_our_mistake_and_never_empty() {
        for text in ["/{b}", "/x?y={b}", "/{a}/{b}"] {
            let error = expand(text, "1").expect_err(text);
            assert_eq!(error, RewriteError::Missing { name: "b".into() });
            assert_eq!(status(&error), None);
        }
    }

    #[test]
    fn a_uri_that_gets_too_long_is_the_clients_fault() {
        // `http` allows 65 534 bytes of path and query.
        for (length, fits) in [(65_533, true), (65_534, false), (1 << 20, false)] {
            match expand("/{a}", &"x".repeat(length)) {
                Ok(uri) => assert!(fits && uri.path().len() == length + 1),
                Err(error) => {
                    assert!(!fits);
                    assert_eq!(status(&error), Some(StatusCode::URI_TOO_LONG));
                }
            }
        }
        // Each of these bytes becomes three.
        assert!(expand("/{a}", &"/".repeat(21_845)).is_err());
        assert!(expand("/{a}", &"/".repeat(21_844)).is_ok());
    }

    #[test]
    fn an_error_repeats_nothing_of_the_value_or_the_target() {
        for value in ["../secret", "/secret/..", ""] {
            let error = expand("http://users.internal/{a}", value).expect_err(value);
            let fault = cause_ref::<ClientFault>(&error).expect("the client's fault");
            for text in [error.to_string(), fault.to_string()] {
                assert!(
                    !text.contains("secret") && !text.contains("internal"),
                    "{text}"
                );
            }
        }
    }
}

mod templates {
    use super::*;

    #[test]
    fn what_could_be_escaped_from_is_refused_when_it_is_built() {
        for text in [
            "",
            " ",
            "users",
            "{a}",
            "?a=b",
            "*",
            // B15
            "//evil.com/x",
            "//{a}",
            "ftp://h/",
            "file:///etc/passwd",
            "://h/",
            "http:",
            "http:/h",
            "http://",
            "http:///x",
            "http://?x",
            "http://:80/",
            "http://{a}/",
            "http://h{a}/",
            "http://h:{a}/",
            "http://{a}",
            "{a}://h/",
            "http://user@h/",
            "http://user:password@h/",
            "http://h@evil.com/",
            "http://h:port/",
            "http://h:/",
            "http://h:65536/",
            "http://h:-1/",
            "http://[::1/",
            "http://a b/",
            "/a#f",
            "http://h#f",
            "/a?b#{a}",
            "/{",
            "/{a",
            "/a}",
            "/{a}}",
            "/{}",
            "/{a b}",
            "/{a.b}",
            "/{a/b}",
            "/{{a}}",
            "/{*rest}",
            "/{é}",
            "/a b",
            "/a\tb",
            "/a\0",
            "/é",
            "/%",
            "/%2",
            "/%zz",
            "/{a}%2",
            "/a\\b",
            "/<",
            "/>",
            "/\"",
            "/^",
            "/`",
            "/|",
            "/[",
            "/]",
            // B13
            "/.",
            "/..",
            "/./a",
            "/a/../b",
            "/a/..",
            "/a/..?b",
            "http://h/..",
            "/%2e%2e/a",
            "/.%2E",
            "/a/%2e/{a}",
            "/a%2f..",
            "/..%5C{a}",
            "/{a}%2F..%2Fb",
        ] {
            let error = UriTemplate::try_new(text).expect_err(text);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
            assert!(text.parse::<UriTemplate>().is_err());
        }
    }

    #[test]
    fn what_is_a_uri_is_taken_as_it_is() {
        for (text, expanded) in [
            ("/", "/"),
            ("/a/b", "/a/b"),
            ("/a//b/", "/a//b/"),
            ("/a%20b%2Fc", "/a%20b%2Fc"),
            ("/a?", "/a?"),
            ("/a?b=c&d=?/.././", "/a?b=c&d=?/.././"),
            ("/-._~!$&'()*+,;=:@", "/-._~!$&'()*+,;=:@"),
            ("/...", "/..."),
            ("/a..b", "/a..b"),
            ("http://h", "http://h/"),
            ("http://h/", "http://h/"),
            ("http://h?a=b", "http://h/?a=b"),
            ("http://h:80/a", "http://h:80/a"),
            ("http://127.0.0.1:9002/a", "http://127.0.0.1:9002/a"),
            ("http://[::1]/a", "http://[::1]/a"),
            ("http://[::1]:8080/a", "http://[::1]:8080/a"),
            ("HTTPS://h/a", "https://h/a"),
            ("/a?to=http://h/", "/a?to=http://h/"),
        ] {
            let template = UriTemplate::new(text);
            let uri = template.expand(&PathParams::default()).expect(text);
            assert_eq!(uri.to_string(), expanded);
            assert_eq!(uri.authority(), template.authority());
            assert_eq!(uri.scheme(), template.scheme());
        }
    }

    #[test]
    #[should_panic(expected = "is not a URI template")]
    fn new_panics_where_try_new_fails() {
        let _ = UriTemplate::new("//evil.com");
    }

    #[test]
    fn a_template_shows_itself_and_its_names() {
        for (text, names) in [
            ("/a", &[][..]),
            ("/users/{id}/orders/{order-id}", &["id", "order-id"]),
            ("http://h:1/{a}{b}?x={a}&y={_c}", &["a", "b", "a", "_c"]),
        ] {
            let template: UriTemplate = text.parse().expect(text);
            assert_eq!(template.to_string(), text);
            assert_eq!(template.names().collect::<Vec<_>>(), names);
        }
    }
}

mod params {
    use super::*;

    // B13
    #[test]
    fn a_raw_path_is_decoded_once() {
        for (raw, decoded) in [
            ("a", Some("a")),
            ("a%20b", Some("a b")),
            ("a+b", Some("a+b")),
            ("%2e%2E", Some("..")),
            ("%252e", Some("%2e")),
            ("%2F", Some("/")),
            ("%00", Some("\0")),
            ("%e6%97%a5", Some("日")),
            ("日", Some("日")),
            ("", Some("")),
            ("%", None),
            ("%2", None),
            ("%zz", None),
            ("%+1", None),
            ("%%30", None),
            // Not UTF-8: alone, cut short, overlong.
            ("%ff", None),
            ("%e6%97", None),
            ("%c0%ae", None),
        ] {
            match (PathParams::decode([("a", raw)]), decoded) {
                (Ok(params), Some(decoded)) => assert_eq!(params.get("a"), Some(decoded)),
                (Err(fault), None) => assert_eq!(fault.status(), StatusCode::BAD_REQUEST),
                (other, _) => panic!("{raw:?}: {other:?}"),
            }
        }
    }

    #[test]
    fn the_first_of_a_name_counts() {
        let params = PathParams::from_iter([("a", "1"), ("b", "2"), ("a", "3")]);
        assert_eq!((params.get("a"), params.get("c")), (Some("1"), None));
        assert_eq!(params.iter().count(), 3);
    }
}

mod layer {
    use super::*;

    async fn rewritten(
        layer: RewriteLayer,
        request: Request<()>,
    ) -> Result<(Uri, HeaderMap), BoxError> {
        let service = layer.layer(service_fn(|request: Request<()>| async move {
            Ok::<_, Infallible>((request.uri().clone(), request.headers().clone()))
        }));
        service.oneshot(request).await
    }

    fn request(params: &[(&str, &str)]) -> Request<()> {
        let mut request = Request::get("http://front/dash/7?page=2")
            .header("host", "front")
            .header("x-kept", "1")
            .body(())
            .unwrap();
        let params: PathParams = params.iter().copied().collect();
        request.extensions_mut().insert(params);
        request
    }

    #[tokio::test]
    async fn a_request_goes_where_the_template_says_and_nothing_of_its_own_target_is_left() {
        for (text, uri, host) in [
            ("/users/{id}", "/users/7", Some("front")),
            (
                "http://users.internal/users/{id}",
                "http://users.internal/users/7",
                None,
            ),
            ("https://u.internal", "https://u.internal/", None),
        ] {
            let layer = RewriteLayer::new(UriTemplate::new(text));
            let (seen, headers) = rewritten(layer, request(&[("id", "7")])).await.expect(text);
            assert_eq!(seen, uri);
            // An absolute target decides the host.
            assert_eq!(headers.get("host").map(|host| host.to_str().unwrap()), host);
            assert_eq!(headers["x-kept"], "1");
        }
    }

    #[tokio::test]
    async fn a_missing_source_is_a_typed_error_and_nothing_is_sent() {
        let template = || UriTemplate::new("/users/{id}");
        let mut without = request(&[]);
        without.extensions_mut().clear();
        for (layer, request) in [
            (RewriteLayer::new(template()), request(&[])),
            (RewriteLayer::new(template()), without),
            (
                RewriteLayer::new(template()).params_from(|_| None),
                request(&[("id", "7")]),
            ),
        ] {
            let service = layer.layer(service_fn(|_: Request<()>| async {
                panic!("sent");
                #[allow(unreachable_code)]
                Ok::<(), Infallible>(())
            }));
            let error = service.oneshot(request).await.expect_err("missing");
            assert!(matches!(
                cause_ref::<RewriteError>(error.as_ref()),
                Some(RewriteError::Missing { name }) if &**name == "id"
            ));
            assert!(cause_ref::<ClientFault>(error.as_ref()).is_none());
        }
    }

    #[tokio::test]
    async fn a_source_of_its_own_takes_the_place_of_the_extension() {
        let layer = RewriteLayer::new(UriTemplate::new("/t/{id}")).params_from(|parts| {
            let id = parts.headers.get("x-kept")?.to_str().ok()?;
            Some(PathParams::from_iter([("id", id)]))
        });
        let (uri, _) = rewritten(layer, request(&[("id", "7")]))
            .await
            .expect("it is there");
        assert_eq!(uri, "/t/1");
    }

    // B13
    #[tokio::test]
    async fn a_bad_value_never_reaches_the_backend() {
        for value in ["..", "", "a/../b", "..;x", "..\0", "a\0b"] {
            let layer = RewriteLayer::new(UriTemplate::new("http://h/{id}"));
            let error = rewritten(layer, request(&[("id", value)]))
                .await
                .expect_err(value);
            let fault = cause_ref::<ClientFault>(error.as_ref()).expect("the client's fault");
            assert_eq!(fault.status(), StatusCode::BAD_REQUEST);
        }
    }
}

mod kept_paths {
    use super::*;

    /// What `keep_path` makes of `target` under `template`.
    async fn kept(template: &str, target: &str) -> Result<Uri, BoxError> {
        let layer = RewriteLayer::new(UriTemplate::new(template)).keep_path();
        let request = Request::get(target).body(()).expect("a request");
        send(&layer, request).await
    }

    async fn send(layer: &RewriteLayer, request: Request<()>) -> Result<Uri, BoxError> {
        let service = layer.layer(service_fn(|request: Request<()>| async move {
            Ok::<_, Infallible>(request.uri().clone())
        }));
        service.oneshot(request).await
    }

    fn fault(error: &BoxError) -> StatusCode {
        let refused = cause_ref::<RewriteError>(error.as_ref());
        assert!(matches!(refused, Some(RewriteError::Value(_))), "{error:?}");
        cause_ref::<ClientFault>(error.as_ref())
            .expect("the client's fault")
            .status()
    }

    // B15
    #[tokio::test]
    async fn the_path_and_the_query_follow_the_template_as_they_are() {
        for (template, target, sent) in [
            ("http://h", "/", "http://h/"),
            ("http://h", "/a", "http://h/a"),
            ("http://h/", "/a", "http://h/a"),
            ("http://h/v1", "/", "http://h/v1/"),
            ("http://h/v1", "/a", "http://h/v1/a"),
            ("http://h/v1/", "/a/", "http://h/v1/a/"),
            ("http://h/v1//", "/a", "http://h/v1/a"),
            (
                "http://h:8080/v1/v2",
                "/a?b=c&d",
                "http://h:8080/v1/v2/a?b=c&d",
            ),
            ("http://h/v1", "/?", "http://h/v1/?"),
            ("http://h/v1", "/a?b=/../..", "http://h/v1/a?b=/../.."),
            ("http://h/v1", "/a?b=//c?d", "http://h/v1/a?b=//c?d"),
            // What looks like an authority stays a path.
            ("http://h", "//evil.example/x", "http://h//evil.example/x"),
            (
                "http://h/v1",
                "//evil.example/x",
                "http://h/v1//evil.example/x",
            ),
            (
                "http://h/v1",
                "/http://evil.example/",
                "http://h/v1/http://evil.example/",
            ),
            ("http://h", "/@evil.example", "http://h/@evil.example"),
            ("http://h", "/:80", "http://h/:80"),
            // As it is: nothing is decoded, nothing is encoded.
            ("http://h/v1", "/a%2Fb%20c%25", "http://h/v1/a%2Fb%20c%25"),
            ("http://h/v1", "/%252e%252e/a", "http://h/v1/%252e%252e/a"),
            ("http://h/v1", "/a;b=c/{d}", "http://h/v1/a;b=c/{d}"),
            ("http://h/v1", "/a//b///", "http://h/v1/a//b///"),
            // Dots that are no segments.
            ("http://h/v1", "/...", "http://h/v1/..."),
            (
                "http://h/v1",
                "/.a/a./..a/a../a..b",
                "http://h/v1/.a/a./..a/a../a..b",
            ),
            (
                "http://h/v1",
                "/%2e%2ea/x%2e%2e",
                "http://h/v1/%2e%2ea/x%2e%2e",
            ),
            (
                "http://h/v1",
                "/.well-known/x;y=../z",
                "http://h/v1/.well-known/x;y=../z",
            ),
            // Without an authority of its own.
            ("/", "/a?b", "/a?b"),
            ("/v1", "/a?b", "/v1/a?b"),
            ("/v1", "//evil.example", "/v1//evil.example"),
            // The target's own authority is not kept.
            ("http://h/v1", "http://evil.example/a", "http://h/v1/a"),
            ("/v1", "http://evil.example/a", "/v1/a"),
            ("http://h/v1", "http://evil.example", "http://h/v1/"),
            ("http://h/v1", "http://evil.example#f", "http://h/v1/"),
            ("http://h", "http://evil.example#f", "http://h/"),
            ("/", "http://evil.example#f", "/"),
            ("http://h/v1", "http://evil.example?a=b", "http://h/v1/?a=b"),
        ] {
            let uri = kept(template, target).await.expect(target);
            assert_eq!(uri.to_string(), sent, "{template} {target}");
            let own = UriTemplate::new(template);
            assert_eq!(
                (uri.scheme(), uri.authority()),
                (own.scheme(), own.authority())
            );
        }
    }

    // B15
    #[tokio::test]
    async fn a_path_of_two_slashes_is_no_authority_under_a_bare_template() {
        let uri = kept("/", "//evil.example/x").await.expect("a path");
        assert_eq!((uri.authority(), uri.path()), (None, "//evil.example/x"));
    }

    // B13
    #[tokio::test]
    async fn a_path_that_would_climb_is_refused() {
        let dots = [".", "..", "%2e", "%2E", ".%2e", "%2e.", "%2E%2e"];
        let ends = [
            "/", "\\", "%2f", "%2F", "%5c", "%5C", ";", ";a=b", "%3b", "%3Bx",
        ];
        for dots in dots {
            for end in ends {
                for path in [
                    format!("/{dots}"),
                    format!("/{dots}?a=b"),
                    format!("/{dots}{end}"),
                    format!("/{dots}{end}/admin"),
                    format!("/a/{dots}{end}"),
                    format!("//{dots}{end}x"),
                    format!("/a%2f{dots}{end}"),
                    format!("/a\\{dots}{end}"),
                    format!("/a%5C{dots}"),
                    format!("/a;b/{dots}{end}"),
                    format!("/a;b%2f{dots}{end}"),
                    format!("/.../{dots}{end}"),
                ] {
                    for template in ["http://h", "http://h/v1", "/v1", "/"] {
                        let error = kept(template, &path).await.expect_err(&path);
                        assert_eq!(fault(&error), StatusCode::BAD_REQUEST, "{path}");
                    }
                }
            }
        }
    }

    #[tokio::test]
    async fn a_target_that_is_no_path_is_refused() {
        for target in ["*", "h:443", "h"] {
            for template in ["http://h", "http://h/v1", "/"] {
                let error = kept(template, target).await.expect_err(target);
                assert_eq!(fault(&error), StatusCode::BAD_REQUEST, "{target}");
            }
        }
    }

    /// RFC 9110 §9.3.7: it is about no path, so none is before it.
    #[tokio::test]
    async fn options_about_the_server_stays_so() {
        for (template, authority) in [
            ("http://h", Some("h")),
            ("http://h:8080/v1", Some("h:8080")),
            ("http://h/{tenant}", Some("h")),
            ("/", None),
        ] {
            let layer = RewriteLayer::new(UriTemplate::new(template)).keep_path();
            let request = Request::options("*").body(()).expect("a request");
            let sent = send(&layer, request).await.expect("it passes");
            assert_eq!(sent.path(), "*");
            assert_eq!(sent.authority().map(|found| found.as_str()), authority);
        }
    }

    // B15
    #[tokio::test]
    async fn what_not_every_server_reads_as_what_it_is_is_refused() {
        for target in [
            "/a\\b",
            "/\\evil",
            "/\\",
            "/a%00",
            "/%00/b",
            "/..%00/b",
            "/..%00/../b?c",
        ] {
            for template in ["http://h", "http://h/v1"] {
                let error = kept(template, target).await.expect_err(target);
                assert_eq!(fault(&error), StatusCode::BAD_REQUEST, "{target}");
            }
        }
        // Encoded, or in a query, nobody takes them for more than they are.
        for target in ["/a%5Cb", "/a%2500", "/a?b=\\&c=%00"] {
            let sent = kept("http://h", target).await.expect(target);
            assert_eq!(sent, *format!("http://h{target}"));
        }
    }

    #[tokio::test]
    async fn a_path_that_gets_too_long_is_the_clients_fault() {
        // `http` allows 65 534 bytes of path and query.
        for (template, length, fits) in [
            ("http://h", 65_000, true),
            ("/1234", 65_529, true),
            ("/1234", 65_530, false),
            ("/{a}", 65_000, false),
        ] {
            let target = format!("/{}", "x".repeat(length - 1));
            let mut request = Request::get(target).body(()).expect("a request");
            let params = PathParams::from_iter([("a", "y".repeat(600))]);
            request.extensions_mut().insert(params);
            let layer = RewriteLayer::new(UriTemplate::new(template)).keep_path();
            match send(&layer, request).await {
                Ok(uri) => assert!(fits && uri.path().len() >= length),
                Err(error) => {
                    assert!(!fits, "{template} {length}");
                    assert_eq!(fault(&error), StatusCode::URI_TOO_LONG);
                }
            }
        }
    }

    #[test]
    fn a_template_with_a_query_is_refused_when_it_is_built() {
        for template in [
            "/a?",
            "/a?b=c",
            "http://h?a",
            "http://h/?",
            "/{a}?b={c}",
            "/?{a}",
        ] {
            let template = UriTemplate::new(template);
            let said = format!("\"{template}\" has a query: no path can follow");
            let layer = RewriteLayer::new(template);
            let error = layer.clone().try_keep_path().expect_err(&said);
            assert_eq!(error.to_string(), said);
            assert!(catch_unwind(AssertUnwindSafe(|| layer.keep_path())).is_err());
        }
        for template in ["/", "/a%3Fb", "http://h", "/{a}"] {
            assert!(
                RewriteLayer::new(UriTemplate::new(template))
                    .try_keep_path()
                    .is_ok()
            );
        }
    }

    #[tokio::test]
    async fn parameters_are_filled_in_before_the_path() {
        let layer = RewriteLayer::new(UriTemplate::new("http://h/tenants/{tenant}/")).keep_path();
        let request = |tenant: &str| {
            let mut request = Request::get("/a?b").body(()).expect("a request");
            let params = PathParams::from_iter([("tenant", tenant)]);
            request.extensions_mut().insert(params);
            request
        };
        let uri = send(&layer, request("a/b")).await.expect("a path");
        assert_eq!(uri, "http://h/tenants/a%2Fb/a?b");
        for climbs in ["", ".", "..", "a/.."] {
            let error = send(&layer, request(climbs)).await.expect_err(climbs);
            assert_eq!(fault(&error), StatusCode::BAD_REQUEST);
        }
        let missing = Request::get("/a").body(()).expect("a request");
        let error = send(&layer, missing).await.expect_err("missing");
        assert!(matches!(
            cause_ref::<RewriteError>(error.as_ref()),
            Some(RewriteError::Missing { name }) if &**name == "tenant"
        ));
        let layer = layer.params_from(|_| Some(PathParams::from_iter([("tenant", "7")])));
        let uri = send(&layer, request("8")).await.expect("a path");
        assert_eq!(uri, "http://h/tenants/7/a?b");
    }

    proptest! {
        /// Whatever the path: it is refused, or a server that decodes and resolves it stays under the template's.
        #[test]
        fn no_path_climbs_out_of_the_template(
            bits in prop::collection::vec(prop::sample::select(&[
                "/", "/", ".", ".", "..", "%2e", "%2E", "%2f", "%2F", "%5c", "\\", ";", "%3b", "a", "?", "%25", "@", ":",
                "%00",
            ][..]), 0..10),
        ) {
            let target = format!("/{}", bits.concat());
            let uri = match tokio_test::block_on(kept("http://h/v1", &target)) {
                Ok(uri) => uri,
                Err(error) => {
                    prop_assert_eq!(fault(&error), StatusCode::BAD_REQUEST);
                    // Nothing is refused for nothing.
                    let path = target.split('?').next().expect("one").to_lowercase();
                    let reasons = [".", "%2e", "\\", "%00"];
                    prop_assert!(reasons.iter().any(|reason| path.contains(reason)), "{}", target);
                    return Ok(());
                }
            };
            prop_assert_eq!(uri.to_string(), format!("http://h/v1{target}"));
            for decodes in [false, true] {
                let path = match decodes {
                    true => String::from_utf8(percent_decode(uri.path())).expect("ASCII"),
                    // RFC 3986 §6.2.2.2: an encoded dot is a dot in any case.
                    false => uri.path().to_lowercase().replace("%2e", "."),
                };
                // With or without the parameters of a segment.
                let segments = path.split(['/', '\\']).skip(1);
                for segment in segments {
                    let name = segment.split(';').next().expect("one");
                    prop_assert!(name != "." && name != "..", "{path}");
                }
            }
        }
    }
}

mod properties {
    use super::*;

    #[derive(Debug, Clone)]
    enum Piece {
        Text(String),
        Param(usize),
    }

    fn piece() -> impl Strategy<Value = Piece> {
        prop_oneof![
            "([a-zA-Z0-9._~!$&'()*+,;=:@-]|%2[0-9a-fA-F]|%7[bB]){1,6}".prop_map(Piece::Text),
            (0..3usize).prop_map(Piece::Param),
        ]
    }

    fn value() -> impl Strategy<Value = String> {
        const HOSTILE: &[&str] = &[
            "",
            ".",
            "..",
            "/",
            "\\",
            "%",
            "%2e",
            "%2F",
            "{p0}",
            "{p1}",
            "@",
            ":",
            "#",
            "?",
            "&",
            "=",
            ";",
            "//evil.com",
            "\0",
            "\u{85}",
            "é",
            "a",
            "-",
        ];
        prop_oneof![
            any::<String>(),
            // Hostile bits, put together.
            prop::collection::vec(prop::sample::select(HOSTILE), 1..5)
                .prop_map(|bits| bits.concat()),
        ]
    }

    fn text(pieces: &[Piece]) -> String {
        let text = |piece: &Piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Param(index) => format!("{{p{index}}}"),
        };
        pieces.iter().map(text).collect()
    }

    /// What the pieces mean, once everything is decoded.
    fn meaning(pieces: &[Piece], values: &[String]) -> Vec<u8> {
        let meaning = |piece: &Piece| match piece {
            Piece::Text(text) => percent_decode(text),
            Piece::Param(index) => values[*index].clone().into_bytes(),
        };
        pieces.iter().flat_map(meaning).collect()
    }

    fn is_dots(part: &str) -> bool {
        part == "." || part == ".."
    }

    /// Whether a server that decodes before it resolves dot segments would climb; it may take off their parameters first.
    fn climbs(segment: &str) -> bool {
        let mut parts = segment.split(['/', '\\']);
        parts.any(|part| is_dots(part.split(';').next().unwrap_or_default()))
    }

    fn is_refused(pieces: &[Piece], values: &[String]) -> bool {
        let empty =
            |piece: &Piece| matches!(piece, Piece::Param(index) if values[*index].is_empty());
        // Whatever stands around it.
        let climbs_alone = |value: &str| value.split(['/', '\\']).any(is_dots);
        let unfit = |value: &str| climbs_alone(value) || value.contains('\0');
        let alone = |piece: &Piece| matches!(piece, Piece::Param(index) if unfit(&values[*index]));
        let together = String::from_utf8(meaning(pieces, values)).expect("UTF-8");
        pieces.iter().any(empty) || pieces.iter().any(alone) || climbs(&together)
    }

    proptest! {
        /// Whatever the values: the URI is the template's, with each value in its own place; or the value is refused.
        #[test]
        fn no_value_leaves_its_place(
            target in prop::option::of(prop::sample::select(&["http://h", "https://users.internal:8443", "http://[::1]:1"][..])),
            segments in prop::collection::vec(prop::collection::vec(piece(), 1..4), 1..5),
            query in prop::option::of(prop::collection::vec(piece(), 0..5)),
            values in prop::collection::vec(value(), 3),
        ) {
            let path: String = segments.iter().map(|segment| format!("/{}", text(segment))).collect();
            let tail = query.as_ref().map_or_else(String::new, |query| format!("?{}", text(query)));
            let template = format!("{}{path}{tail}", target.unwrap_or_default());
            // A dot segment of the template's own.
            let Ok(template) = UriTemplate::try_new(&template) else {
                let harmless = ["x", "x", "x"].map(str::to_owned);
                let own = |segment: &Vec<Piece>| is_refused(segment, &harmless);
                prop_assert!(segments.iter().any(own), "{}", template);
                return Ok(());
            };
            let names = ["p0", "p1", "p2"];
            let params: PathParams = names.into_iter().zip(values.iter().map(String::as_str)).collect();
            let refused = segments.iter().any(|segment| is_refused(segment, &values));
            let uri = match template.expand(&params) {
                Ok(uri) => uri,
                Err(error) => {
                    prop_assert!(refused, "{:?}", error);
                    prop_assert_eq!(status(&error), Some(StatusCode::BAD_REQUEST));
                    return Ok(());
                }
            };
            prop_assert!(!refused, "{}", uri);
            prop_assert_eq!(uri.scheme(), template.scheme());
            prop_assert_eq!(uri.authority(), template.authority());
            prop_assert_eq!(uri.authority().is_some(), target.is_some());

            let found: Vec<&str> = uri.path().split('/').skip(1).collect();
            prop_assert_eq!(found.len(), segments.len(), "{}", uri);
            for (found, segment) in found.into_iter().zip(&segments) {
                let decoded = percent_decode(found);
                let text = String::from_utf8(decoded.clone()).expect("UTF-8");
                prop_assert!(!climbs(&text));
                prop_assert_eq!(decoded, meaning(segment, &values));
            }
            prop_assert_eq!(uri.query().is_some(), query.is_some());
            if let (Some(found), Some(query)) = (uri.query(), &query) {
                prop_assert_eq!(percent_decode(found), meaning(query, &values));
                // A value brings no separators of its own.
                for separator in ['&', '=', ';', '+', '#'] {
                    let own = text(query).matches(separator).count();
                    prop_assert_eq!(found.matches(separator).count(), own);
                }
            }
            // Written and parsed again, as the next hop does, it is the same.
            prop_assert_eq!(uri.to_string().parse::<Uri>().expect("a URI"), uri);
        }

        /// Nothing that may be called a template makes the parser or the expansion panic.
        #[test]
        fn any_text_is_a_template_or_an_error(template in any::<String>(), value in value()) {
            if let Ok(template) = UriTemplate::try_new(&template) {
                let params: PathParams = template.names().map(|name| (name, &*value)).collect();
                let _ = template.expand(&params);
            }
        }

        #[test]
        fn any_text_near_a_template_is_one_or_an_error(
            template in r"(https?://[a-z@:\[\]{}.]{0,6})?[/a-c{}?#%.&=]{0,12}",
            value in value(),
        ) {
            if let Ok(parsed) = UriTemplate::try_new(&template) {
                let params: PathParams = parsed.names().map(|name| (name, &*value)).collect();
                if let Ok(uri) = parsed.expand(&params) {
                    prop_assert_eq!(uri.authority(), parsed.authority());
                    let slashes = parsed.to_string().split('?').next().unwrap_or_default().matches('/').count();
                    let target = if parsed.authority().is_some() { 2 } else { 0 };
                    prop_assert_eq!(uri.path().matches('/').count(), slashes - target);
                }
            }
        }

        #[test]
        fn decoding_reads_what_encoding_wrote(value in value()) {
            prop_assume!(!is_refused(&[Piece::Param(0)], std::slice::from_ref(&value)));
            let uri = expand("/{a}", &value).expect("it is not refused");
            let params = PathParams::decode([("a", &uri.path()[1..])]).expect("encoded");
            prop_assert_eq!(params.get("a"), Some(&*value));
        }
    }
}
