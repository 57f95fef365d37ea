//! Which fields and extensions a clone has.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use tower::{Layer, ServiceExt, service_fn};
use watershed::clone_request::{CloneRequestLayer, HeadPolicy, TeeBody};
use watershed::deadline::Deadline;
use watershed::error::BoxError;
use watershed::proxy_headers::Peer;
use watershed::rewrite::PathParams;

use crate::support::Feed;

/// What the service behind the layer is called with.
async fn behind<B>(layer: CloneRequestLayer, request: Request<B>) -> Request<TeeBody>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
    let service = layer.layer(service_fn(move |request: Request<TeeBody>| {
        sender.send(request).expect("somebody waits");
        async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
    }));
    service.oneshot(request).await.expect("no error");
    receiver.try_recv().expect("the service was called")
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[derive(Debug, Clone, PartialEq)]
struct Tenant(u32);

// L39, L43
#[tokio::test]
async fn a_clone_and_its_origin_share_nothing() {
    let mut request = Request::post("http://one.internal/a?b=1")
        .header("x-a", "1")
        .header("x-a", "2")
        .header("x-b", "3")
        .body(Full::new(Bytes::from("body")))
        .unwrap();
    request.extensions_mut().insert(Tenant(1));
    let layer = CloneRequestLayer::new().head(HeadPolicy::default().extension::<Tenant>());
    let origin = behind(layer, request).await;

    let change = |request: &mut Request<TeeBody>| {
        *request.method_mut() = Method::PUT;
        *request.uri_mut() = "http://other.internal/x?y".parse().unwrap();
        *request.version_mut() = Version::HTTP_2;
        request.headers_mut().remove("x-a");
        request
            .headers_mut()
            .append("x-b", HeaderValue::from_static("4"));
        request
            .headers_mut()
            .insert("x-c", HeaderValue::from_static("5"));
        request.extensions_mut().get_mut::<Tenant>().unwrap().0 = 2;
        request.extensions_mut().insert(7u8);
    };
    let assert_unchanged = |request: &Request<TeeBody>| {
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "http://one.internal/a?b=1");
        assert_eq!(request.version(), Version::HTTP_11);
        assert_eq!(names(request.headers()), ["x-a", "x-b"]);
        let lines: Vec<_> = request.headers().get_all("x-a").iter().collect();
        assert_eq!(lines, ["1", "2"]);
        assert_eq!(request.headers().get_all("x-b").iter().count(), 1);
        assert_eq!(request.extensions().get(), Some(&Tenant(1)));
        assert_eq!(request.extensions().get::<u8>(), None);
    };

    // Whichever of them is changed.
    let mut clone = origin.clone();
    let sibling = origin.clone();
    change(&mut clone);
    assert_unchanged(&origin);
    assert_unchanged(&sibling);
    let mut origin = origin;
    change(&mut origin);
    assert_unchanged(&sibling);
    for request in [origin, clone, sibling] {
        let body = request.into_body().collect().await.expect("no error");
        assert_eq!(body.to_bytes(), "body");
    }
}

// B09
#[tokio::test]
async fn fields_of_the_connection_and_the_length_are_not_cloned() {
    let request = Request::post("/")
        .header("connection", "close, X-One")
        .header("connection", "x-two")
        .header("x-one", "1")
        .header("x-two", "2")
        .header("keep-alive", "timeout=5")
        .header("proxy-connection", "close")
        .header("proxy-authorization", "Basic eDp5")
        .header("te", "trailers")
        .header("transfer-encoding", "chunked")
        .header("upgrade", "h2c")
        .header("content-length", "4")
        .header("content-type", "text/plain")
        .header("x-end", "1")
        .body(Full::new(Bytes::from("body")))
        .unwrap();
    let seen = behind(CloneRequestLayer::new(), request).await;
    assert_eq!(names(seen.headers()), ["content-type", "x-end"]);
    // The length is the body's to say.
    assert_eq!(seen.body().size_hint().exact(), Some(4));
}

// B07
#[tokio::test]
async fn the_caller_can_not_have_a_protected_field_removed() {
    let user = HeaderName::from_static("x-auth-user");
    let request = Request::get("/")
        .header("connection", "X-Auth-User, x-hop, host, content-type")
        .header("x-auth-user", "7")
        .header("x-hop", "1")
        .header("host", "a.test")
        .header("content-type", "text/plain")
        .body(Empty::new())
        .unwrap();
    let policy = HeadPolicy::end_to_end().protect([user]);
    let seen = behind(CloneRequestLayer::new().head(policy), request).await;
    assert_eq!(
        names(seen.headers()),
        ["content-type", "host", "x-auth-user"]
    );
}

#[tokio::test]
async fn an_allow_list_keeps_its_fields_and_the_content_type() {
    let request = || {
        Request::post("/")
            .header(ACCEPT, "a")
            .header(ACCEPT, "b")
            .header(AUTHORIZATION, "secret")
            .header(CONTENT_TYPE, "text/plain")
            .header(CONTENT_LENGTH, "0")
            .header("connection", "x-hop")
            .header("x-hop", "1")
            .body(Empty::new())
            .unwrap()
    };
    let x_hop = HeaderName::from_static("x-hop");
    for (allowed, kept) in [
        (vec![], &["content-type"][..]),
        (vec![ACCEPT], &["accept", "content-type"]),
        (
            vec![ACCEPT, ACCEPT, CONTENT_TYPE],
            &["accept", "content-type"],
        ),
        // What concerns the connection is never kept, listed or not.
        (
            vec![AUTHORIZATION, CONTENT_LENGTH, x_hop],
            &["authorization", "content-type"],
        ),
    ] {
        let layer = CloneRequestLayer::new().head(HeadPolicy::allow(allowed));
        let seen = behind(layer, request()).await;
        assert_eq!(names(seen.headers()), kept);
        if kept.contains(&"accept") {
            let lines: Vec<_> = seen.headers().get_all(ACCEPT).iter().collect();
            assert_eq!(lines, ["a", "b"]);
        }
    }
}

// B11
#[tokio::test]
async fn trailers_are_held_to_the_policy_as_well() {
    let x_sum = HeaderName::from_static("x-sum");
    for (policy, kept) in [
        (HeadPolicy::end_to_end(), &["x-other", "x-sum"][..]),
        (HeadPolicy::allow([x_sum, AUTHORIZATION]), &["x-sum"]),
        (HeadPolicy::allow([]), &[]),
    ] {
        let (feed, body) = Feed::new();
        let trailers = [
            "x-sum",
            "x-other",
            "authorization",
            "cookie",
            "content-length",
            "content-type",
            "transfer-encoding",
            "connection",
            "host",
            "te",
            "trailer",
            "if-match",
            "x-forwarded-for",
        ];
        let value = || HeaderValue::from_static("1");
        let trailers = trailers.map(|name| (HeaderName::from_static(name), value()));
        feed.data("body");
        feed.trailers(HeaderMap::from_iter(trailers));
        feed.end();
        let request = Request::post("/").body(body).unwrap();
        let seen = behind(CloneRequestLayer::new().head(policy), request).await;
        for body in [seen.body().clone(), seen.into_body()] {
            let read = body.collect().await.expect("no error");
            let trailers = read.trailers().cloned().unwrap_or_default();
            assert_eq!(names(&trailers), kept);
            assert_eq!(read.to_bytes(), "body");
        }
    }
}

#[tokio::test]
async fn of_the_extensions_only_plain_values_and_named_ones_are_kept() {
    let request = || {
        let mut request = Request::get("/").body(Empty::new()).unwrap();
        let extensions = request.extensions_mut();
        extensions.insert(Deadline::NEVER);
        extensions.insert(PathParams::from_iter([("id", "7")]));
        extensions.insert(Peer::new(([127, 0, 0, 1], 80).into()));
        extensions.insert(Tenant(1));
        extensions.insert(Arc::new(std::sync::Mutex::new(0)));
        request
    };
    for (layer, tenant) in [
        (CloneRequestLayer::new(), None),
        (
            CloneRequestLayer::new().head(HeadPolicy::end_to_end().extension::<Tenant>()),
            Some(&Tenant(1)),
        ),
        (
            CloneRequestLayer::new().head(HeadPolicy::allow([]).extension::<Tenant>()),
            Some(&Tenant(1)),
        ),
    ] {
        let seen = behind(layer, request()).await;
        let extensions = seen.extensions();
        assert_eq!(extensions.get(), Some(&Deadline::NEVER));
        let params = extensions.get::<PathParams>().expect("kept");
        assert_eq!(params.get("id"), Some("7"));
        assert!(extensions.get::<Peer>().is_some());
        assert_eq!(extensions.get(), tenant);
        assert!(extensions.get::<Arc<std::sync::Mutex<i32>>>().is_none());
    }
}
