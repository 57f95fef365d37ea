//! Where a message ends is said once, and in one way (RFC 9110 §8.6).

use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;

use super::support::{FedBody, Feed};
use super::*;

/// Of these, the first is what the others may be put down as.
const EQUAL: [&[&str]; 7] = [
    &["7"],
    &["7", "7"],
    &["7, 7"],
    &["7,7"],
    &["7 , 7"],
    &["7", "7, 7"],
    &[" 7"],
];

const BAD: [&[&str]; 16] = [
    &["7", "8"],
    &["7, 8"],
    &["7,8"],
    &["7,"],
    &[", 7"],
    &["7,,7"],
    &[""],
    &["", "7"],
    &["abc"],
    &["+7"],
    &["-7"],
    &["0x7"],
    &["7.0"],
    &["7 7"],
    &["\u{667}"],
    &["18446744073709551616"],
];

fn lengths<'a>(lines: &[&'a str]) -> Vec<(&'static str, &'a str)> {
    lines.iter().map(|line| ("content-length", *line)).collect()
}

fn content(status: u16, lines: &[&str]) -> Response<Full<Bytes>> {
    response(status, &lengths(lines)).map(|_| "content".into())
}

fn head() -> Request<Full<Bytes>> {
    request("HEAD / HTTP/1.1", &[("host", "h")])
}

// B26
#[test]
fn a_response_says_one_length_or_is_none() {
    for lines in EQUAL {
        let answer = answer(&layer(), get(&[]), content(200, lines));
        assert_eq!((answer.status, &*answer.body), (200, "content"));
        assert_eq!(line(&answer.headers, "content-length"), Some("7"));
    }
    for lines in BAD {
        let answer = answer(&layer(), get(&[]), content(200, lines));
        answer.assert_problem(502);
    }
}

/// hyper's server closes the connection of a caller whose answer has two, without a word.
#[test]
fn so_does_one_that_has_no_content() {
    for lines in EQUAL {
        for (request, status) in [(head(), 200), (head(), 304), (get(&[]), 304)] {
            let answer = answer(&layer(), request, response(status, &lengths(lines)));
            assert_eq!(answer.status, status);
            assert_eq!(line(&answer.headers, "content-length"), Some("7"));
        }
    }
    for lines in BAD {
        for (request, status) in [(head(), 200), (head(), 304), (get(&[]), 304)] {
            let is_head = request.method() == "HEAD";
            let answer = answer(&layer(), request, response(status, &lengths(lines)));
            assert_eq!(answer.status, 502, "{lines:?}");
            assert_eq!(answer.body.is_empty(), is_head);
        }
    }
}

#[test]
fn what_is_chunked_says_none() {
    for lines in EQUAL.iter().chain(&BAD) {
        let mut given = content(200, lines);
        given
            .headers_mut()
            .insert("transfer-encoding", HeaderValue::from_static("chunked"));
        let answer = answer(&layer(), get(&[]), given);
        assert_eq!((answer.status, &*answer.body), (200, "content"));
        assert_eq!(line(&answer.headers, "content-length"), None);
    }
}

#[test]
fn a_length_that_is_not_the_content_s_is_none() {
    for length in ["0", "6", "8", "18446744073709551615"] {
        answer(&layer(), get(&[]), content(200, &[length])).assert_problem(502);
        // Nor of what is left out.
        let answered = answer(&layer(), head(), content(200, &[length]));
        assert_eq!(answered.status, 502);
        // A body that is over before it begins knows it as well.
        let empty = response(200, &[("content-length", length)]);
        let answer = answer(&layer(), get(&[]), empty);
        assert_eq!(answer.status, if length == "0" { 200 } else { 502 });
    }
}

/// Nor is one that the content can't come to be; one that knows nothing of itself is believed.
#[tokio::test]
async fn a_length_is_within_what_the_content_says_of_itself() {
    struct Hinted(SizeHint);
    impl Body for Hinted {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            self: std::pin::Pin<&mut Self>,
            _: &mut std::task::Context<'_>,
        ) -> std::task::Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            std::task::Poll::Ready(None)
        }
        fn size_hint(&self) -> SizeHint {
            self.0
        }
    }
    for (lower, upper, status) in [
        (0, None, 200),
        (7, None, 200),
        (8, None, 502),
        (0, Some(7), 200),
        (0, Some(6), 502),
        (7, Some(7), 200),
    ] {
        let mut hint = SizeHint::new();
        hint.set_lower(lower);
        if let Some(upper) = upper {
            hint.set_upper(upper);
        }
        let inner = service_fn(|_: Request<ProxyHeadersBody<Full<Bytes>>>| async {
            let mut response = Response::new(Hinted(hint));
            *response.headers_mut() = headers(&[("content-length", "7")]);
            Ok::<_, Infallible>(response)
        });
        let Ok(response) = layer().layer(inner).oneshot(get(&[])).await;
        assert_eq!(response.status(), status, "{lower} to {upper:?}");
    }
}

// B01, for a server that has not looked at it.
#[test]
fn a_request_says_one_length_or_is_refused() {
    for version in ["HTTP/1.1", "HTTP/2"] {
        let post = |lines: &[&str]| {
            let fields = [&[("host", "h")], &lengths(lines)[..]].concat();
            request(&format!("POST / {version}"), &fields)
        };
        for lines in EQUAL {
            let head = passed(&layer(), post(lines));
            assert_eq!(line(&head.headers, "content-length"), Some("7"));
        }
        for lines in BAD {
            assert_refused(&layer(), post(lines), 400);
        }
        // B03
        for lines in EQUAL.iter().chain(&BAD) {
            let mut post = post(lines);
            post.headers_mut()
                .insert("transfer-encoding", HeaderValue::from_static("chunked"));
            let head = passed(&layer(), post);
            assert_eq!(line(&head.headers, "content-length"), None);
        }
    }
}

/// The body that comes back for `body` under this status.
async fn back(status: u16, body: FedBody) -> Response<ResponseBody<ProxyHeadersBody<FedBody>>> {
    let body = Mutex::new(Some(body));
    let inner = service_fn(|_: Request<ProxyHeadersBody<Full<Bytes>>>| {
        let body = body.lock().expect("not poisoned").take();
        let mut response = Response::new(body.expect("called once"));
        *response.status_mut() = status.try_into().expect("a status");
        async { Ok::<_, Infallible>(response) }
    });
    let Ok(response) = layer().layer(inner).oneshot(get(&[])).await;
    response
}

/// B24: a backend that speaks HTTP/2 can send some, and hyper's server would send it on.
#[tokio::test]
async fn what_has_no_content_by_its_status_has_none() {
    for status in [204, 205, 304] {
        for sends in [
            |feed: &Feed| feed.data("EVIL"),
            |feed: &Feed| feed.trailers(headers(&[("x-sum", "1")])),
            |_: &Feed| {},
        ] {
            let (feed, body) = Feed::new();
            sends(&feed);
            let response = back(status, body).await;
            assert_eq!(response.status(), status);
            assert!(response.body().is_end_stream());
            assert!(response.headers().is_empty(), "{response:?}");
            // It may have no end: its stream is given up, not read.
            assert!(feed.is_dropped());
            let read = response.into_body().collect().await.expect("no error");
            assert!(read.trailers().is_none());
            assert_eq!(read.to_bytes(), "");
        }
    }
    let (feed, body) = Feed::new();
    let response = back(200, body).await;
    assert!(!response.body().is_end_stream() && !feed.is_dropped());
}

#[test]
fn of_these_only_a_304_says_how_long_its_content_would_be() {
    for (status, length) in [(204, None), (205, None), (304, Some("46"))] {
        for lines in [&["46"][..], &["46", "46"], &["46, 46"]] {
            for request in [get(&[]), head()] {
                let answer = answer(&layer(), request, content(status, lines));
                assert_eq!((answer.status, &*answer.body), (status, ""));
                assert_eq!(line(&answer.headers, "content-length"), length);
            }
        }
        if length.is_none() {
            for lines in BAD {
                let answer = answer(&layer(), get(&[]), content(status, lines));
                assert_eq!(answer.status, status, "{lines:?}");
                assert_eq!(line(&answer.headers, "content-length"), None);
            }
        }
        // What a backend sends along is not that content.
        for request in [get(&[]), head()] {
            let answer = answer(&layer(), request, content(status, &[]));
            assert_eq!(line(&answer.headers, "content-length"), None);
        }
    }
}

/// RFC 9110 §9.3.6: what follows is the tunnel.
#[test]
fn what_opens_a_tunnel_says_no_length() {
    let layer = layer().forward_connect();
    let connect = || request("CONNECT h:80 HTTP/1.1", &[("host", "h:80")]);
    let opened = answer(
        &layer,
        connect(),
        response(200, &[("content-length", "46")]),
    );
    assert_eq!(
        (opened.status, line(&opened.headers, "content-length")),
        (200, None)
    );
    let refused = answer(&layer, connect(), content(403, &["7"]));
    assert_eq!(line(&refused.headers, "content-length"), Some("7"));
}
