//! The client's fault, seen anywhere: 413, 414 or 400, whatever the branches answered.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, Service, service_fn};
use watershed::clone_request::{CloneRequestLayer, TeeBody};
use watershed::error::ClientFault;
use watershed::fanout::FanOut;
use watershed::merge::{FirstSuccess, JsonMerge, MergeLayer, Quorum, merge_parts};
use watershed::outcome::Branch;
use watershed::rewrite::{PathParams, RewriteLayer, UriTemplate};
use watershed::test_util::{Reply, Scripted};

use crate::common::{a, answer, b, optional, required};
use crate::support::{Answer, FedBody, Feed, Hand, HttpBranch, Stack, ask, get, merged};

/// A stack whose requests may have three bytes.
fn limited<M>(merge: M, branches: impl IntoIterator<Item = HttpBranch>) -> Stack<M>
where
    M: Send + Sync,
{
    let inner = MergeLayer::new(merge).layer(FanOut::new(branches));
    CloneRequestLayer::new().limit(3).layer(inner)
}

/// Answers 200 whatever becomes of the request's body.
fn swallowing(name: &str) -> HttpBranch {
    Branch::http(
        name,
        service_fn(|request: Request<TeeBody>| async {
            let _ = request.into_body().collect().await;
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("{}"))))
        }),
    )
}

fn post_frames<const N: usize>(frames: [&'static str; N]) -> Request<FedBody> {
    let (feed, body) = Feed::new();
    for frame in frames {
        feed.data(frame);
    }
    feed.end();
    Request::post("/").body(body).unwrap()
}

/// All merges that there are, over the same branches.
async fn ask_all(
    branches: fn() -> Vec<HttpBranch>,
    request: fn() -> Request<FedBody>,
) -> Vec<Answer> {
    let parts = merge_parts(|_, _| async { Response::new(Full::new(Bytes::from("asked"))) });
    vec![
        ask(&limited(JsonMerge::object(), branches()), request()).await,
        ask(&limited(JsonMerge::group(), branches()), request()).await,
        ask(&limited(JsonMerge::array(), branches()), request()).await,
        ask(&limited(FirstSuccess::new(), branches()), request()).await,
        ask(
            &limited(FirstSuccess::new().collected(99), branches()),
            request(),
        )
        .await,
        ask(&limited(Quorum::of(1), branches()), request()).await,
        ask(&limited(Quorum::of(2), branches()), request()).await,
        ask(&limited(parts, branches()), request()).await,
    ]
}

// L23
#[tokio::test]
async fn a_body_over_its_limit_is_413_even_if_branches_answered() {
    fn request() -> Request<FedBody> {
        post_frames(["ab", "cd"])
    }
    let shapes: [fn() -> Vec<HttpBranch>; 4] = [
        // One branch says so; the others have answered without reading it.
        || {
            vec![
                Branch::http("x", Scripted::reply(a()).reads_request_body(false)),
                optional("y", b()),
            ]
        },
        || vec![optional("x", a()), required("y", b())],
        // All that read it have kept it to themselves.
        || {
            vec![
                Branch::http("x", Scripted::reply(a()).reads_request_body(false)),
                swallowing("y"),
            ]
        },
        || vec![swallowing("x").required(), swallowing("y")],
    ];
    for branches in shapes {
        for answer in ask_all(branches, request).await {
            let problem = answer.assert_problem(413);
            assert_eq!(problem["detail"], "the request body is larger than 3 bytes");
        }
    }
    // A body within the limit is no fault.
    fn small() -> Request<FedBody> {
        post_frames(["a", "bc"])
    }
    for answer in ask_all(shapes[1], small).await {
        assert_eq!(answer.status, 200);
    }
}

// L39
#[tokio::test]
async fn a_body_that_breaks_is_400_even_if_branches_answered() {
    fn request() -> Request<FedBody> {
        let (feed, body) = Feed::new();
        feed.data("a");
        feed.fail(io::Error::other("reset by 10.0.0.7"));
        Request::post("/").body(body).unwrap()
    }
    let shapes: [fn() -> Vec<HttpBranch>; 2] = [
        || {
            vec![
                Branch::http("x", Scripted::reply(a()).reads_request_body(false)),
                optional("y", b()),
            ]
        },
        || vec![swallowing("x"), swallowing("y")],
    ];
    for branches in shapes {
        for answer in ask_all(branches, request).await {
            let problem = answer.assert_problem(400);
            assert_eq!(problem["detail"], "the request body could not be read");
        }
    }
}

// L23
#[tokio::test]
async fn a_body_that_nobody_read_is_nobodys_fault() {
    let unread = |name: &str| Branch::http(name, Scripted::reply(a()).reads_request_body(false));
    let service = limited(JsonMerge::group(), [unread("x"), unread("y")]);
    let answer = ask(&service, post_frames(["abcd"])).await;
    assert_eq!((answer.status, answer.complete()), (200, true));
}

fn templated(name: &str, template: &str) -> HttpBranch {
    let layer = RewriteLayer::new(UriTemplate::new(template));
    Branch::http(name, layer.layer(Scripted::reply(a())))
}

fn with_id(id: &str) -> Request<FedBody> {
    let mut request = post_frames([]);
    request
        .extensions_mut()
        .insert(PathParams::from_iter([("id", id)]));
    request
}

// B13
#[tokio::test]
async fn a_bad_value_in_the_path_is_400_even_if_branches_answered() {
    fn request() -> Request<FedBody> {
        with_id("../admin")
    }
    let shapes: [fn() -> Vec<HttpBranch>; 3] = [
        || {
            vec![
                optional("x", a()),
                templated("y", "http://users.internal/{id}"),
            ]
        },
        || {
            vec![
                templated("x", "http://users.internal/{id}"),
                optional("y", a()),
            ]
        },
        || vec![templated("x", "/a/{id}").required(), required("y", a())],
    ];
    for branches in shapes {
        for answer in ask_all(branches, request).await {
            let problem = answer.assert_problem(400);
            assert!(!answer.body.contains("internal") && !answer.body.contains("admin"));
            assert!(
                problem["detail"]
                    .as_str()
                    .expect("a detail")
                    .contains("\"id\"")
            );
        }
    }
    // One that is harmless in its place.
    fn fine() -> Request<FedBody> {
        with_id("a/b")
    }
    for answer in ask_all(shapes[0], fine).await {
        assert_eq!(answer.status, 200);
    }
}

#[tokio::test]
async fn a_path_that_gets_too_long_is_414() {
    fn request() -> Request<FedBody> {
        with_id(&"x".repeat(1 << 16))
    }
    let branches = || vec![optional("x", a()), templated("y", "/{id}")];
    for answer in ask_all(branches, request).await {
        answer.assert_problem(414);
    }
}

#[tokio::test]
async fn a_value_that_our_router_did_not_give_is_our_failure() {
    let branches = [optional("x", a()), templated("y", "/{id}")];
    let answer = ask(&limited(JsonMerge::group(), branches), post_frames([])).await;
    answer.assert_document(r#"{"x":{"a":1}}"#, false);
    let branches = [optional("x", a()), templated("y", "/{id}").required()];
    let answer = ask(&limited(JsonMerge::group(), branches), post_frames([])).await;
    answer.assert_problem(502);
}

#[tokio::test]
async fn any_layer_may_say_that_the_client_is_at_fault() {
    let fault = ClientFault::new(StatusCode::UNPROCESSABLE_ENTITY, "the cart is empty");
    for wrapped in [
        Reply::error(fault.clone()),
        Reply::error(Wrapped(fault.clone())),
    ] {
        let branches = [required("x", a()), optional("y", wrapped)];
        let problem = answer(JsonMerge::group(), branches)
            .await
            .assert_problem(422);
        assert_eq!(problem["detail"], "the cart is empty");
    }
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("the branch failed")]
struct Wrapped(#[source] ClientFault);

// L23
#[tokio::test]
async fn a_fault_goes_before_the_failure_of_a_required_branch() {
    let bad_value = || templated("y", "/{id}");
    let reads = || optional("y", b());
    for failed in [
        Reply::status(404),
        Reply::fail("refused"),
        Reply::panic("oops"),
    ] {
        let failed = || {
            Branch::http(
                "x",
                Scripted::reply(failed.clone()).reads_request_body(false),
            )
            .required()
        };
        // Both are known in the same poll.
        for branches in [[failed(), bad_value()], [bad_value(), failed()]] {
            let answer = ask(&limited(JsonMerge::group(), branches), with_id("..")).await;
            answer.assert_problem(400);
        }
        for branches in [[failed(), reads()], [reads(), failed()]] {
            let answer = ask(
                &limited(JsonMerge::group(), branches),
                post_frames(["abcd"]),
            )
            .await;
            answer.assert_problem(413);
        }
    }
}

#[test]
fn a_fault_is_answered_at_once() {
    let hands = Hand::<Response<Full<Bytes>>>::several(3);
    let branch = |(index, hand): (usize, &Hand<_>)| {
        Branch::new(format!("b{index}"), hand.clone()).required()
    };
    let mut service = merged(JsonMerge::group(), hands.iter().enumerate().map(branch));
    let mut call = task::spawn(service.call(get("/")));
    assert_pending!(call.poll());
    hands[2].fail(ClientFault::bad_request("the cart is empty"));
    let response = assert_ready!(call.poll()).expect("infallible");
    assert_eq!(response.status(), 400);
    assert_eq!(hands.iter().map(Hand::drops).collect::<Vec<_>>(), [1, 1, 1]);
}
