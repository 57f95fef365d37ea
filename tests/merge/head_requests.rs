//! HEAD, and an answer that is ours: it has no content, not over HTTP/2 either, where a server sends what it is given.

use std::convert::Infallible;

use bytes::Bytes;
use http::header::DATE;
use http::{HeaderMap, Method, Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::duplex;
use tower::{Layer, Service, ServiceExt};
use watershed::clone_request::CloneRequestLayer;
use watershed::error::{BoxError, ClientFault};
use watershed::fanout::FanOut;
use watershed::merge::{JsonMerge, Merge, MergeContext, MergeLayer, PassthroughLayer, merge_parts};
use watershed::test_util::{Reply, Scripted};

use crate::common::optional;
use crate::support::{Answer, MS, merged};

/// Asks over HTTP/2, whose client takes content in answer to HEAD for an error of the protocol.
async fn over_http2<S, B>(service: S, method: &Method) -> Answer
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let is_head = method == Method::HEAD;
    // A server that has not read all of a request may end its stream before the client has seen the content.
    let service = service.map_response(move |response: Response<B>| {
        assert!(!is_head || response.body().is_end_stream());
        response
    });
    let (client, server) = duplex(1 << 16);
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(service));
    tokio::spawn(server);
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client))
            .await
            .expect("a connection");
    tokio::spawn(connection);
    let request = Request::builder().method(method).uri("http://a/");
    let request = request.body(Full::new(Bytes::from("body"))).unwrap();
    let response = sender.send_request(request).await.expect("a response");
    let mut answer = Answer::read(response).await;
    answer.headers.remove(DATE);
    answer
}

/// The head that GET has, its length included (RFC 9110 §9.3.2), and no more.
async fn assert_answered<S, B>(status: u16, service: S)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let get = over_http2(service.clone(), &Method::GET).await;
    get.assert_problem(status);
    assert_eq!(
        get.field("content-length"),
        Some(&*get.body.len().to_string())
    );
    let head = over_http2(service, &Method::HEAD).await;
    assert_eq!((head.status, &*head.body), (status, ""));
    assert_eq!(head.headers, get.headers);
}

#[tokio::test(start_paused = true)]
async fn what_a_passthrough_answers_itself() {
    let layer = PassthroughLayer::new().within(10 * MS);
    for (reply, status) in [
        (Reply::fail("refused"), 502),
        (Reply::hang(), 504),
        (Reply::error(ClientFault::bad_request("no")), 400),
    ] {
        assert_answered(status, layer.layer(Scripted::reply(reply))).await;
    }
}

#[tokio::test]
async fn a_body_that_announces_too_much() {
    let service =
        MergeLayer::new(JsonMerge::group()).layer(FanOut::new([optional("a", Reply::status(200))]));
    assert_answered(413, CloneRequestLayer::new().limit(3).layer(service)).await;
}

#[tokio::test]
async fn a_merge_that_fails_and_one_that_panics() {
    struct Careless;

    impl<G: Send> Merge<G> for Careless {
        type Body = Full<Bytes>;

        fn prepare(&self, _: &mut Method, _: &mut HeaderMap) {
            panic!("oops");
        }

        async fn merge(&self, _: MergeContext, _: G) -> Response<Full<Bytes>> {
            Response::default()
        }
    }

    let branches = || [optional("a", Reply::status(500))];
    assert_answered(502, merged(JsonMerge::group(), branches())).await;
    assert_answered(500, merged(Careless, branches())).await;
    let panics = merge_parts(|cx: MergeContext, _| async move {
        assert!(cx.deadline().instant().is_some(), "oops");
        Response::new(Full::<Bytes>::default())
    });
    assert_answered(500, merged(panics, branches())).await;
}
