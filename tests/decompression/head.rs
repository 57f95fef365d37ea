//! What the heads of request and response say of the coding.

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, ServiceExt};
use watershed::decompression::{Coding, DecompressionLayer};
use watershed::test_util::{Reply, Scripted};

use crate::coding::{brotli, gzip};
use crate::common::{all, encoded, through};

// B30
#[tokio::test]
async fn the_branch_is_asked_for_what_can_be_decoded() {
    for (accept, range, layer, asked) in [
        (&[][..], None, all(), "gzip, br"),
        (&[], None, DecompressionLayer::new(), "gzip"),
        (&["zstd", "gzip;q=0"], None, all(), "gzip, br"),
        (&["br"], Some("bytes=0-9"), all(), "identity"),
        (&["br"], None, all().without(Coding::Brotli), "gzip"),
    ] {
        let service = Scripted::reply(Reply::status(200));
        let mut request = Request::get("/");
        for line in accept {
            request = request.header("accept-encoding", *line);
        }
        if let Some(range) = range {
            request = request.header("range", range);
        }
        let request = request.body(Empty::<Bytes>::new()).expect("a request");
        let answer = layer.layer(service.clone()).oneshot(request).await;
        assert!(answer.is_ok());
        let calls = service.calls();
        let lines: Vec<_> = calls[0].headers.get_all("accept-encoding").iter().collect();
        assert_eq!(lines, [asked]);
    }
}

// B30
#[tokio::test]
async fn brotli_keeps_its_label_unless_it_may_be_decoded() {
    let compressed = brotli(b"{}");
    for (layer, label) in [(DecompressionLayer::new(), Some("br")), (all(), None)] {
        let response = encoded("br", Full::new(Bytes::from(compressed.clone())));
        let response = through(layer, Method::GET, response).await;
        let said = response.headers().get("content-encoding").cloned();
        assert_eq!(
            said.as_ref().map(|said| said.as_bytes()),
            label.map(str::as_bytes)
        );
        let body = response
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes();
        assert_eq!(body == "{}", label.is_none());
    }
}

// B30
#[tokio::test]
async fn what_described_the_compressed_bytes_goes_and_the_rest_stays() {
    let compressed = gzip(b"{}");
    let mut response = encoded("GZip", Full::new(Bytes::from(compressed.clone())));
    let gone = [
        "accept-ranges",
        "content-md5",
        "digest",
        "content-digest",
        "repr-digest",
    ];
    for name in gone {
        response
            .headers_mut()
            .insert(name, "x".parse().expect("a value"));
    }
    for (name, value) in [
        ("content-length", compressed.len().to_string().as_str()),
        ("content-type", "application/json; charset=utf-8"),
        ("etag", "\"a\""),
        ("vary", "accept-encoding"),
        ("x-other", "1"),
    ] {
        response.headers_mut().insert(
            http::HeaderName::from_bytes(name.as_bytes()).expect("a name"),
            value.parse().expect("a value"),
        );
    }
    *response.status_mut() = StatusCode::NOT_FOUND;
    response.extensions_mut().insert(7_u8);
    let response = through(all(), Method::GET, response).await;
    assert_eq!(response.status(), 404);
    assert_eq!(response.extensions().get(), Some(&7_u8));
    let mut left: Vec<_> = response.headers().iter().collect();
    left.sort_by_key(|(name, _)| name.as_str());
    let left: Vec<_> = left
        .into_iter()
        .map(|(name, value)| (name.as_str(), value.to_str().expect("ASCII")))
        .collect();
    assert_eq!(
        left,
        [
            ("content-type", "application/json; charset=utf-8"),
            ("etag", "W/\"a\""),
            ("vary", "accept-encoding"),
            ("x-other", "1"),
        ]
    );
    assert_eq!(
        response
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes(),
        "{}"
    );
}

// B24, B30
#[tokio::test]
async fn what_is_not_decoded_passes_as_it_came() {
    let compressed = Bytes::from(gzip(b"{}"));
    for (status, lines) in [
        (200, &[][..]),
        (200, &["identity"]),
        (200, &["zstd"]),
        (200, &["gzip, br"]),
        (200, &["gzip", "gzip"]),
        (200, &["aes128gcm"]),
        (204, &["gzip"]),
        (206, &["gzip"]),
        (226, &["gzip"]),
    ] {
        let mut response = Response::builder().status(status).header("etag", "\"a\"");
        for line in lines {
            response = response.header("content-encoding", *line);
        }
        let length = compressed.len();
        let response = response.header("content-length", length);
        let response = response
            .body(Full::new(compressed.clone()))
            .expect("a response");
        let before = response.headers().clone();
        // Its bound is for what it decodes.
        let layer = all().max_bytes(1);
        let response = through(layer, Method::GET, response).await;
        assert_eq!(*response.headers(), before, "{status} {lines:?}");
        assert_eq!(response.size_hint().exact(), Some(length as u64));
        let body = response
            .into_body()
            .collect()
            .await
            .expect("whole")
            .to_bytes();
        assert_eq!(body, compressed, "{status} {lines:?}");
    }
}

// B24
#[tokio::test]
async fn the_answer_to_head_has_the_head_of_the_answer_to_get() {
    let head = |status: u16, body: &'static str| {
        let response = Response::builder().status(status);
        response
            .header("content-encoding", "gzip")
            .header("content-length", "20")
            .header("etag", "\"a\"")
            .body(Full::<Bytes>::from(body))
            .expect("a response")
    };
    for (method, status) in [(Method::HEAD, 200), (Method::HEAD, 404), (Method::GET, 304)] {
        let response = through(all(), method.clone(), head(status, "")).await;
        assert_eq!(response.headers().len(), 1);
        assert_eq!(response.headers()["etag"], "W/\"a\"");
        assert!(response.body().is_end_stream());
        assert_eq!(response.size_hint().exact(), Some(0));
        assert!(response.into_body().frame().await.is_none());
        // Nothing is to be decoded, whatever there is.
        let response = through(all(), method, head(status, "x")).await;
        assert_eq!(response.size_hint().exact(), Some(1));
        let body = response.into_body().collect().await.expect("whole");
        assert_eq!(body.to_bytes(), "x");
    }
}
