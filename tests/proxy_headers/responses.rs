//! What goes back: everything but the connection's own, within the bound on its head.

use http::StatusCode;
use http_body::Body;

use super::*;

#[test]
fn a_response_passes_as_it_is() {
    for status in [
        200, 201, 206, 301, 400, 401, 404, 413, 500, 502, 503, 599, 999,
    ] {
        let fields = [
            ("cache-control", "private"),
            ("content-type", "text/plain"),
            ("set-cookie", "a=b"),
            ("set-cookie", "c=d"),
            ("trailer", "x-sum"),
            ("www-authenticate", "Basic"),
            ("x-forwarded-for", "its own"),
        ];
        let mut given = response(status, &fields);
        *given.body_mut() = "content".into();
        let answer = answer(&layer(), get(&[]), given);
        assert_eq!(answer.status, status);
        assert_eq!(
            lines(&answer.headers),
            fields.map(|(name, value)| format!("{name}: {value}"))
        );
        assert_eq!(answer.body, "content");
    }
}

// B24: hyper's server sends it over HTTP/2.
#[test]
fn an_answer_to_head_has_no_content() {
    let head = |host: &str| request("HEAD / HTTP/2", &[("host", host)]);
    // Whoever has made it: the service within, or the layer.
    for (host, status) in [("h", 404), ("a b", 400)] {
        let mut given = response(404, &[]);
        *given.body_mut() = "content".into();
        let (seen, response) = tokio_test::block_on(exchange(&layer(), head(host), given));
        assert_eq!(seen.is_some(), status == 404);
        assert_eq!(response.status(), status);
        assert!(response.body().is_end_stream());
        let length = line(response.headers(), "content-length").expect("that of GET");
        assert!(length == "7" || seen.is_none(), "{length}");
    }
    // RFC 9110 §8.6
    let mut given = response(204, &[]);
    *given.body_mut() = "content".into();
    let none = answer(&layer(), head("h"), given);
    assert_eq!(line(&none.headers, "content-length"), None);
    assert_eq!(none.body, "");
    // What says so itself has the last word.
    let given = response(200, &[("content-length", "1000")]);
    let answer = answer(&layer(), head("h"), given);
    assert_eq!(line(&answer.headers, "content-length"), Some("1000"));
}

#[test]
fn the_extensions_of_a_response_stay_and_its_version_is_ours() {
    #[derive(Debug, Clone, PartialEq)]
    struct Mark(u32);
    let mut given = response(200, &[]);
    *given.version_mut() = http::Version::HTTP_2;
    given.extensions_mut().insert(Mark(7));
    let (_, response) = tokio_test::block_on(exchange(&layer(), get(&[]), given));
    assert_eq!(response.version(), http::Version::HTTP_11);
    assert_eq!(response.extensions().get(), Some(&Mark(7)));
}

// B20
#[test]
fn a_response_head_has_a_bound() {
    /// So many fields, of so many bytes each.
    fn of(fields: usize, bytes: usize) -> Response<Full<Bytes>> {
        let mut given = response(200, &[]);
        let headers = given.headers_mut();
        for nth in 0..fields {
            let name = format!("x-{nth:04}");
            let value = "v".repeat(bytes - name.len());
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, value.parse().expect("a value"));
        }
        given
    }
    let tight = layer().max_response_fields(3).max_response_head_bytes(100);
    let none = layer().max_response_fields(0).max_response_head_bytes(0);
    for (layer, fields, bytes, passes) in [
        (&layer(), 128, 10, true),
        (&layer(), 129, 10, false),
        (&layer(), 64, 1024, true),
        (&layer(), 64, 1025, false),
        (&layer(), 1, 64 * 1024, true),
        (&layer(), 1, 64 * 1024 + 1, false),
        (&tight, 3, 33, true),
        (&tight, 4, 25, false),
        (&tight, 3, 34, false),
        (&tight, 1, 100, true),
        (&none, 0, 10, true),
        (&none, 1, 10, false),
    ] {
        let answer = answer(layer, get(&[]), of(fields, bytes));
        match passes {
            true => assert_eq!((answer.status, answer.headers.len()), (200, fields)),
            false => {
                answer.assert_problem(502);
                assert_eq!(answer.headers.len(), 1, "nothing of it is left");
            }
        }
    }
    // Every line counts, not only every name.
    let mut many = response(200, &[]);
    for _ in 0..129 {
        many.headers_mut()
            .append("set-cookie", HeaderValue::from_static("a"));
    }
    answer(&layer(), get(&[]), many).assert_problem(502);
}

// B36
#[test]
fn an_answer_of_the_layer_repeats_nothing_of_the_response() {
    let fields = [("x-secret", "secret"), ("set-cookie", "secret")];
    let mut given = response(101, &fields);
    *given.body_mut() = "secret".into();
    given.extensions_mut().insert("secret");
    let (_, response) = tokio_test::block_on(exchange(&layer(), get(&[]), given));
    assert_eq!(response.status(), StatusCode::BAD_GATEWAY);
    assert!(response.extensions().get::<&str>().is_none());
    let answer = tokio_test::block_on(Answer::read(response));
    assert!(!format!("{answer:?}").contains("secret"), "{answer:?}");
}
