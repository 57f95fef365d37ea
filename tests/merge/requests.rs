//! What the branches are asked: without what asks for a part of the answer, and without credentials.

use bytes::Bytes;
use http::header::{AUTHORIZATION, COOKIE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response};
use http_body::Body;
use http_body_util::{Empty, Full};
use tower::util::{BoxCloneSyncService, Either};
use tower::{Layer, ServiceBuilder, ServiceExt};
use watershed::clone_request::CloneRequestLayer;
use watershed::fanout::{CredentialsLayer, FanOutLayer};
use watershed::merge::{FirstSuccess, JsonMerge, MergeLayer, Quorum, merge_parts};
use watershed::outcome::Branch;
use watershed::rewrite::{RewriteLayer, UriTemplate};
use watershed::test_util::{RecordedCall, Reply, Scripted};

use crate::common::{Merges, a, b, optional, required};
use crate::support::{Answer, HttpBranch, ask, get, merged, post};

const PARTIAL: [(&str, &str); 7] = [
    ("expect", "100-continue"),
    ("if-match", "\"1\""),
    ("if-modified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("if-none-match", "\"1\""),
    ("if-range", "\"1\""),
    ("if-unmodified-since", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ("range", "bytes=0-1"),
];

fn full_request(method: &Method) -> Request<Full<Bytes>> {
    let mut request = post("/a?b=c", "body");
    *request.method_mut() = method.clone();
    let fields = [
        ("accept-encoding", "gzip, br"),
        ("accept", "application/json"),
        ("x-own", "1"),
        ("authorization", "Bearer x"),
        ("cookie", "a=b"),
    ];
    for (name, value) in PARTIAL.into_iter().chain(fields) {
        request
            .headers_mut()
            .append(name, HeaderValue::from_static(value));
    }
    request
}

/// What a branch below `merge` is asked.
async fn ask_one(merge: impl Merges, method: &Method) -> RecordedCall {
    let backend = Scripted::reply(a());
    let service = merged(merge, [Branch::http("x", backend.clone())]);
    assert_eq!(ask(&service, full_request(method)).await.status, 200);
    backend.calls().pop().expect("a call")
}

fn names(headers: &HeaderMap) -> Vec<&str> {
    let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn what_asks_for_a_part_or_for_none_is_taken_from_the_request() {
    for method in [
        Method::GET,
        Method::HEAD,
        Method::POST,
        Method::PUT,
        Method::DELETE,
    ] {
        let is_head = method == Method::HEAD;
        let asked = if is_head { Method::GET } else { method.clone() };
        let mut reading = Vec::new();
        for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
            reading.push(ask_one(merge, &method).await);
        }
        reading.push(
            ask_one(
                merge_parts(|_, parts| async move {
                    let part = parts.into_iter().next().expect("a part");
                    part.result.expect("an answer").map(Full::new)
                }),
                &method,
            )
            .await,
        );
        for seen in reading {
            assert_eq!(seen.method, asked);
            assert_eq!(names(&seen.headers), ["accept", "x-own"]);
            assert_eq!(seen.uri, "/a?b=c");
            assert_eq!(seen.body.expect("a body"), "body");
        }
        // Those that hand an answer on leave method and encoding as they are.
        let handing_on = [
            ask_one(FirstSuccess::new(), &method).await,
            ask_one(FirstSuccess::new().collected(99), &method).await,
            ask_one(Quorum::of(1), &method).await,
        ];
        for seen in handing_on {
            assert_eq!(seen.method, method);
            assert_eq!(names(&seen.headers), ["accept", "accept-encoding", "x-own"]);
        }
    }
}

#[tokio::test]
async fn credentials_go_only_to_the_branches_that_say_so() {
    for method in [Method::GET, Method::HEAD, Method::POST] {
        let (with, without) = (Scripted::reply(a()), Scripted::reply(b()));
        let branches = || {
            [
                Branch::http("with", with.clone()).credentials(),
                Branch::http("without", without.clone()),
                // In any order with the other settings.
                Branch::http("required", with.clone())
                    .required()
                    .credentials(),
                Branch::http("when", with.clone())
                    .credentials()
                    .when(|_| true),
            ]
        };
        let request = || {
            let mut request = full_request(&method);
            let headers = request.headers_mut();
            headers.append(COOKIE, HeaderValue::from_static("c=d"));
            headers.append("proxy-authorization", HeaderValue::from_static("Basic x"));
            request
        };
        ask(&merged(JsonMerge::group(), branches()), request()).await;
        ask(&merged(Quorum::of(4), branches()), request()).await;
        assert_eq!((with.started(), without.started()), (6, 2));
        for call in with.calls() {
            assert_eq!(call.headers[AUTHORIZATION], "Bearer x");
            let cookies: Vec<_> = call.headers.get_all(COOKIE).iter().collect();
            assert_eq!(cookies, ["a=b", "c=d"]);
            // That is for us.
            assert!(!call.headers.contains_key("proxy-authorization"));
        }
        for call in without.calls() {
            assert!(!call.headers.contains_key(AUTHORIZATION));
            assert!(!call.headers.contains_key(COOKIE));
        }
    }
}

#[tokio::test]
async fn credentials_are_withheld_from_branches_of_any_make() {
    // Not by `Branch::http`, and not over one client.
    let (with, without) = (Scripted::reply(a()), Scripted::reply(b()));
    let branches = [
        Branch::new(
            "with",
            BoxCloneSyncService::new(CredentialsLayer::new().layer(with.clone())),
        ),
        Branch::new("without", BoxCloneSyncService::new(without.clone())),
    ];
    ask(
        &merged(JsonMerge::group(), branches),
        full_request(&Method::GET),
    )
    .await;
    let client = Scripted::echo();
    let path = |path: &str| RewriteLayer::new(UriTemplate::new(path));
    let trusted = ServiceBuilder::new()
        .layer(CredentialsLayer::new())
        .layer(path("/with"));
    let service = ServiceBuilder::new()
        .layer(CloneRequestLayer::new())
        .layer(MergeLayer::new(JsonMerge::group()))
        .layer(FanOutLayer::new([
            Branch::new("with", Either::Left(trusted.into_inner())),
            Branch::new("without", Either::Right(path("/without"))),
        ]))
        .service(client.clone());
    ask(&service, full_request(&Method::GET)).await;

    let mut calls = [with.calls(), without.calls(), client.calls()].concat();
    calls.sort_by_key(|call| call.headers.contains_key(AUTHORIZATION));
    assert_eq!(calls.len(), 4);
    for (index, call) in calls.iter().enumerate() {
        assert!(call.uri != "/without" || index < 2);
        for name in [AUTHORIZATION, COOKIE] {
            assert_eq!(call.headers.contains_key(name), index >= 2);
        }
    }
}

// B24
#[tokio::test]
async fn head_is_answered_with_the_head_that_get_has() {
    fn branches(reply: &Reply) -> [HttpBranch; 2] {
        [optional("x", reply.clone()), required("y", b())]
    }
    fn head() -> Request<Empty<Bytes>> {
        Request::head("/").body(Empty::new()).unwrap()
    }
    for reply in [a(), Reply::status(503), Reply::status(204)] {
        for merge in [JsonMerge::object(), JsonMerge::group(), JsonMerge::array()] {
            let service = merged(merge, branches(&reply));
            let full = ask(&service, get("/")).await;
            let response = service.oneshot(head()).await.unwrap();
            assert!(response.body().is_end_stream());
            let answer = Answer::read(response).await;
            assert_eq!((answer.status, &*answer.body), (full.status, ""));
            assert_eq!(answer.complete(), full.complete());
            let length = answer.field("content-length").expect("a length");
            assert_eq!(length, full.body.len().to_string());
            assert_eq!(answer.field("content-type"), full.field("content-type"));
        }
    }
    // A problem as well.
    for failing in [Reply::status(404), Reply::fail("refused")] {
        let service = merged(JsonMerge::group(), [required("x", failing)]);
        let full = ask(&service, get("/")).await;
        let answer = ask(&service, head()).await;
        assert_eq!((answer.status, &*answer.body), (full.status, ""));
        let length = answer.field("content-length").expect("a length");
        assert_eq!(length, full.body.len().to_string());
    }
    // What is handed on says its length itself.
    for merge in [FirstSuccess::new(), FirstSuccess::new().collected(9)] {
        let reply = Reply::status(200).header("content-length", 1234);
        let service = merged(merge, [optional("x", reply)]);
        let answer = ask(&service, head()).await;
        assert_eq!(answer.field("content-length"), Some("1234"));
    }
}

#[tokio::test]
async fn the_context_tells_the_clients_method() {
    for method in [Method::GET, Method::HEAD, Method::POST, Method::DELETE] {
        let asked = method.clone();
        let merge = merge_parts(move |cx, _| {
            assert_eq!(cx.method(), &asked);
            async { Response::new(Full::new(Bytes::from("body"))) }
        });
        let answer = ask(&merged(merge, [optional("x", a())]), full_request(&method)).await;
        let body = if method == Method::HEAD { "" } else { "body" };
        assert_eq!((answer.status, &*answer.body), (200, body));
    }
}
