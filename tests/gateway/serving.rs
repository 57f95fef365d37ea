//! The server's side: what is on standard output and error, connections, HTTP versions, unknown paths, the demo.

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::net::TcpStream;
use watershed::error::BoxError;

use crate::backend::{Backend, answer};
use crate::caller::{Answer, request};
use crate::process::{Gateway, Run};
use crate::within;

/// An HTTP/2 connection to the gateway, by prior knowledge.
#[derive(Clone)]
pub(crate) struct Http2 {
    sender: http2::SendRequest<UnsyncBoxBody<Bytes, BoxError>>,
    origin: String,
}

impl Http2 {
    pub(crate) async fn connect(gateway: &Gateway) -> Self {
        let io = within(TcpStream::connect(gateway.address)).await.unwrap();
        let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(io));
        let (sender, connection) = within(handshake).await.unwrap();
        tokio::spawn(connection);
        Self {
            sender,
            origin: format!("http://{}", gateway.address),
        }
    }

    /// The status, `watershed-complete` and content type; and the body.
    pub(crate) async fn send(
        &self,
        method: &str,
        target: &str,
        fields: &[(&str, String)],
        body: String,
    ) -> (Http2Head, Bytes) {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("{}{target}", self.origin));
        for (name, value) in fields {
            request = request.header(*name, value);
        }
        let body = Full::from(body).map_err(Into::into).boxed_unsync();
        let request = request.body(body).unwrap();
        let mut sender = self.sender.clone();
        within(async {
            sender.ready().await.unwrap();
            let response = sender.send_request(request).await.unwrap();
            let field = |name: &str| {
                let value = response.headers().get(name)?;
                Some(value.to_str().unwrap().to_owned())
            };
            let head = Http2Head {
                status: response.status(),
                complete: field("watershed-complete"),
                kind: field("content-type"),
            };
            let body = response.into_body().collect().await.unwrap();
            (head, body.to_bytes())
        })
        .await
    }
}

#[derive(Debug)]
pub(crate) struct Http2Head {
    pub(crate) status: StatusCode,
    pub(crate) complete: Option<String>,
    pub(crate) kind: Option<String>,
}

#[tokio::test]
async fn an_http_2_caller_gets_the_same_answers() {
    let a = Backend::json(r#"{"a":1}"#);
    let gateway = Run::new()
        .route("/x/{id}")
        .branch("a", &a, "/a/{id}")
        .branch("b", &Backend::refuses(), "/")
        .flag("max-request-body", "4")
        .start()
        .await;
    let caller = Http2::connect(&gateway).await;
    for _ in 0..2 {
        let (head, body) = caller
            .send("POST", "/x/a%2fb", &[("x-id", "7".into())], "body".into())
            .await;
        assert_eq!(
            (head.status, &body[..]),
            (StatusCode::OK, &br#"{"a":{"a":1}}"#[..])
        );
        assert_eq!(head.complete.as_deref(), Some("false"));
        assert_eq!(head.kind.as_deref(), Some("application/json"));
    }
    for request in a.requests() {
        assert_eq!(request.target, "/a/a%2Fb");
        assert_eq!(request.text(), "body");
        assert_eq!(request.field("x-id"), Some("7"));
    }
    for (method, target, body, status) in [
        ("GET", "/unknown", "", 404),
        ("GET", "/x/%2e%2e", "", 400),
        ("POST", "/x/7", "12345", 413),
    ] {
        let (head, body) = caller.send(method, target, &[], body.into()).await;
        assert_eq!(head.status, status);
        assert_eq!(head.kind.as_deref(), Some("application/problem+json"));
        let problem: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(problem["status"], status);
    }
    let (head, body) = caller.send("HEAD", "/x/7", &[], String::new()).await;
    assert_eq!((head.status, body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn an_unknown_path_is_a_problem() {
    let a = Backend::json("{}");
    let gateway = Run::new()
        .route("/dash/{id}")
        .branch("a", &a, "/")
        .start()
        .await;
    for target in [
        "/",
        "/unknown",
        "/dash",
        "/dash/7/8",
        "/dash/7/",
        "//",
        "/?dash/7",
    ] {
        for method in ["GET", "POST", "DELETE"] {
            let answer = gateway.send(request(method, target, &[], "")).await;
            let problem = answer.problem(404);
            assert_eq!(problem["title"], "Not Found");
        }
    }
    assert_eq!(a.record().connections, 0);
}

#[tokio::test]
async fn routes_are_served_side_by_side() {
    let (a, b) = (Backend::json(r#"{"a":1}"#), Backend::json(r#"{"b":2}"#));
    let gateway = Run::new()
        .route("/dash/{id}")
        .branch("a", &a, "/dash/{id}")
        .route("/dash/special")
        .branch("b", &b, "/special")
        .route("/{tenant}/orders/{order}")
        .branch("b", &b, "/{order}/{tenant}/{order}?t={tenant}")
        .flag("merge", "object")
        .start()
        .await;
    gateway.get("/dash/7").await.complete(r#"{"a":{"a":1}}"#);
    gateway
        .get("/dash/special")
        .await
        .complete(r#"{"b":{"b":2}}"#);
    gateway.get("/t/orders/o").await.complete(r#"{"b":2}"#);
    assert_eq!(a.request().target, "/dash/7");
    let targets: Vec<String> = b.requests().into_iter().map(|seen| seen.target).collect();
    assert_eq!(targets, ["/special", "/o/t/o?t=t"]);
}

/// Callers may take all the connections that there are; when they leave, others are served.
#[tokio::test]
async fn a_gateway_out_of_connections_recovers() {
    let fields = ["Content-Type: application/json", "Connection: close"];
    let a = Backend::closes_after(answer("200 OK", &fields, "{}"));
    let gateway = Run::new()
        .route("/x")
        .branch("a", &a, "/")
        .descriptors(40)
        .start()
        .await;
    let mut first = gateway.connect().await;
    first.get("/unknown").await.problem(404);
    let mut others = Vec::new();
    for _ in 0..80 {
        others.push(gateway.connect().await);
    }
    // It has none left for a backend, which needs a new one each time.
    within(async {
        while first.get("/x").await.status == 200 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    drop(others);
    gateway.get("/x").await.complete(r#"{"a":{}}"#);
    first.get("/x").await.complete(r#"{"a":{}}"#);
}

/// The first line tells where; the demo's backends are there, and the line to try works.
#[tokio::test]
async fn without_a_route_there_is_a_demo_to_try() {
    for run in [Run::new(), Run::new().flag("max-request-body", "1KiB")] {
        let mut gateway = run.start().await;
        let url = loop {
            let line = gateway.stderr_line().await;
            if line.contains("curl ") {
                let url = line.split(' ').find(|word| word.starts_with("http://"));
                break url.expect("a URL").to_owned();
            }
        };
        let path = url
            .strip_prefix(&format!("http://{}", gateway.address))
            .expect("the gateway's own address");
        let answer: Answer = gateway.get(path).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let merged: Value = serde_json::from_slice(&answer.body).unwrap();
        assert!(
            merged.as_object().is_some_and(|parts| parts.len() > 1),
            "{merged}"
        );
        assert!(answer.field("watershed-complete").is_some());
        // When it is dropped, it is held to one line on standard output.
        gateway.terminate();
        assert_eq!(gateway.exited().await.code(), Some(0));
    }
}
