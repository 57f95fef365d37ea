//! What a hook is told of branches that fail, and their caller is not.

use std::error::Error;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use tower::{Layer, Service};
use watershed::clone_request::TeeBody;
use watershed::deadline::TimedOut;
use watershed::error::{BoxError, ClientFault, cause_ref};
use watershed::merge::{
    FirstSuccess, JsonMerge, Merge, MergeContext, MergeLayer, PassthroughLayer, Quorum,
    UnusableResponse, merge_parts,
};
use watershed::outcome::{Branch, BranchError, BranchId};
use watershed::rewrite::{RewriteError, RewriteLayer, UriTemplate};
use watershed::test_util::{Reply, Scripted};

use crate::common::{Gathered, Merges, a, b, late, optional, required};
use crate::support::{Answer, HttpBranch, MS, ask, get, stack};

/// What a hook was told, one line each.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, branch: &str, error: &BranchError<BoxError>) {
        let first: &(dyn Error + 'static) = error;
        let chain = std::iter::successors(Some(first), |error| (*error).source());
        let mut texts: Vec<_> = chain.map(ToString::to_string).collect();
        texts.dedup();
        let line = format!("{branch}: {}", texts.join(": "));
        self.0.lock().expect("not poisoned").push(line);
    }

    fn hook(&self) -> impl Fn(&BranchId, &BranchError<BoxError>) + Send + Sync + use<> {
        let log = self.clone();
        move |branch, error| log.add(branch.name(), error)
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("not poisoned"))
    }
}

/// The answer of a merge, and what its hook was told by then.
async fn told<M: Merges>(
    merge: M,
    branches: impl IntoIterator<Item = HttpBranch>,
) -> (Answer, Vec<String>) {
    let log = Log::default();
    let layer = MergeLayer::new(merge)
        .within(50 * MS)
        .on_failure(log.hook());
    let answer = ask(&stack(&layer, branches), get("/")).await;
    (answer, log.take())
}

#[derive(Debug, Clone, thiserror::Error)]
#[error("no connection")]
struct NoConnection(#[source] Refused);

#[derive(Debug, Clone, thiserror::Error)]
#[error("refused by 10.0.0.7")]
struct Refused;

/// Each way to fail, and what a hook is told of it.
fn failures() -> Vec<(Reply, &'static str)> {
    vec![
        (
            Reply::error(NoConnection(Refused)),
            "x: no connection: refused by 10.0.0.7",
        ),
        (
            Reply::error(late()),
            "x: timed out after 1ms of 1ms, waiting for the response head",
        ),
        (Reply::panic("s3cret"), "x: panicked: s3cret"),
        (Reply::hang(), "x: not finished at the deadline"),
        (Reply::status(503).body("stack trace"), "x: status 503"),
        (Reply::status(404), "x: status 404"),
        (Reply::status(301), "x: status 301"),
    ]
}

#[tokio::test(start_paused = true)]
async fn every_branch_that_fails_is_told_of_once() {
    for (reply, line) in failures() {
        let branches = || {
            [
                optional("x", reply.clone()),
                optional("y", a().after(50 * MS)),
            ]
        };
        for (answer, lines) in [
            told(JsonMerge::group(), branches()).await,
            told(FirstSuccess::new(), branches()).await,
            told(FirstSuccess::new().collected(99), branches()).await,
            told(Quorum::of(1), branches()).await,
        ] {
            assert_eq!(answer.status, 200, "{line}");
            assert_eq!(lines, [line]);
            assert!(!answer.body.contains("10.0.0.7") && !answer.body.contains("s3cret"));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_head_that_can_not_be_passed_on_is_a_failure() {
    let large = || a().header("x-long", "x".repeat(1 << 16));
    let branches = || [optional("x", large()), optional("y", a().after(MS))];
    for (answer, lines) in [
        told(FirstSuccess::new(), branches()).await,
        told(FirstSuccess::new().collected(99), branches()).await,
        told(Quorum::of(1), branches()).await,
    ] {
        assert_eq!(answer.status, 200);
        assert_eq!(lines, ["x: its head is over the bound"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_part_that_can_not_be_read_has_failed() {
    for (reply, line) in [
        (Reply::json("{"), "x: it is not JSON"),
        (
            Reply::json("{}").header("content-type", "text/html"),
            "x: its content type is not JSON",
        ),
        (Reply::json("[]"), "x: its document is not an object"),
        (Reply::status(206), "x: status 206"),
        (
            Reply::json(r#"{"a""#).then_fail(),
            "x: the body ended with an error: the body was cut short",
        ),
        (
            Reply::json(r#"{"a""#).then_hang(),
            "x: not finished at the deadline",
        ),
        (
            Reply::json(vec![b' '; 100]),
            "x: the body is larger than 9 bytes",
        ),
    ] {
        let merge = JsonMerge::object().max_bytes(9);
        let (answer, lines) = told(merge, [optional("x", reply), optional("y", b())]).await;
        answer.assert_document(r#"{"b":2}"#, false);
        assert_eq!(lines, [line]);
    }
}

#[tokio::test(start_paused = true)]
async fn what_has_not_failed_is_not_told_of() {
    let (answer, lines) = told(
        JsonMerge::object(),
        [
            optional("a", a()),
            optional("skipped", b()).when(|_| false),
            optional("empty", Reply::status(204)),
        ],
    )
    .await;
    answer.assert_document(r#"{"a":1}"#, true);
    assert_eq!(lines, [""; 0]);
    // Dropped, as the answer is known.
    let (answer, lines) = told(
        JsonMerge::object(),
        [
            required("a", Reply::status(404)),
            optional("b", Reply::hang()),
        ],
    )
    .await;
    answer.assert_problem(404);
    assert_eq!(lines, ["a: status 404"]);
    let (answer, lines) = told(
        FirstSuccess::new(),
        [
            optional("a", a()),
            optional("b", Reply::fail("late").after(MS)),
        ],
    )
    .await;
    assert_eq!((answer.status, lines), (200, vec![]));
}

#[tokio::test]
async fn the_error_can_be_told_apart() {
    type Seen = (String, Option<u16>, bool, bool);
    let seen = Arc::new(Mutex::new(Vec::<Seen>::new()));
    let log = Arc::clone(&seen);
    let layer = MergeLayer::new(JsonMerge::group()).on_failure(move |branch, error| {
        let response = cause_ref::<UnusableResponse>(error);
        let status = response.and_then(UnusableResponse::status);
        let fault = cause_ref::<ClientFault>(error).is_some();
        let timed_out = cause_ref::<TimedOut>(error).is_some();
        let name = branch.name().to_owned();
        log.lock().expect("not poisoned").push((
            name,
            status.map(|status| status.as_u16()),
            fault,
            timed_out,
        ));
    });
    let branches = [
        optional("a", Reply::status(503)),
        optional("b", Reply::json("{")),
        optional("c", Reply::error(ClientFault::bad_request("an empty cart"))),
        optional("d", Reply::error(late())),
    ];
    ask(&stack(&layer, branches), get("/"))
        .await
        .assert_problem(400);
    let expected = [
        ("a", Some(503), false, false),
        ("b", None, false, false),
        ("c", None, true, false),
        ("d", None, false, true),
    ];
    let expected =
        expected.map(|(name, status, fault, late)| (name.to_owned(), status, fault, late));
    assert_eq!(*seen.lock().expect("not poisoned"), expected);
}

#[tokio::test]
async fn a_hook_that_panics_changes_nothing() {
    let layer = MergeLayer::new(JsonMerge::object()).on_failure(|_, _| panic!("s3cret"));
    let branches = [
        optional("a", a()),
        optional("b", Reply::status(500)),
        optional("c", Reply::fail("refused")),
    ];
    ask(&stack(&layer, branches), get("/"))
        .await
        .assert_document(r#"{"a":1}"#, false);
    let layer = PassthroughLayer::new().on_failure(|_| panic!("s3cret"));
    let backend = Scripted::reply(Reply::fail("refused"));
    ask(&layer.layer(backend), get("/"))
        .await
        .assert_problem(502);
}

/// What a response means is up to the closure, and to a merge of a user's own: they can tell the hook.
#[tokio::test]
async fn a_closure_and_a_merge_of_ones_own_say_what_failed() {
    struct Deaf;

    impl Merge<Gathered> for Deaf {
        type Body = Full<Bytes>;

        async fn merge(&self, cx: MergeContext, gather: Gathered) -> Response<Full<Bytes>> {
            for branch in gather.branches() {
                cx.report_failure(branch, &BranchError::Service("not asked".into()));
            }
            Response::default()
        }
    }

    let branches = || {
        [
            optional("a", Reply::fail("refused")),
            optional("b", Reply::status(500)),
        ]
    };
    let silent = merge_parts(|_, _| async { Response::new(Full::<Bytes>::default()) });
    assert_eq!(told(silent, branches()).await.1, ["a: refused"]);
    let strict = merge_parts(|cx: MergeContext, parts| async move {
        for part in &parts {
            if part.result.as_ref().is_ok_and(|part| part.status() == 500) {
                cx.report_failure(&part.branch, &BranchError::Service("it is broken".into()));
            }
        }
        Response::new(Full::<Bytes>::default())
    });
    let lines = told(strict, branches()).await.1;
    assert_eq!(lines, ["a: refused", "b: it is broken"]);
    let lines = told(Deaf, branches()).await.1;
    assert_eq!(lines, ["a: not asked", "b: not asked"]);
    // For tests of a merge there is nobody to tell.
    let nobody = MergeContext::new(http::Method::GET);
    nobody.report_failure(&BranchId::new(0, "a"), &BranchError::DeadlineExceeded);
}

#[tokio::test]
async fn a_request_that_can_not_be_made_is_a_reason_of_its_own() {
    fn to<S, B>(template: &str, service: S) -> HttpBranch
    where
        S: Service<Request<TeeBody>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
    {
        let layer = RewriteLayer::new(UriTemplate::new(template));
        Branch::http("x", layer.layer(service))
    }
    let branches = [
        to("http://10.0.0.7/{id}", Scripted::reply(a())),
        #[cfg(feature = "client")]
        to("/relative", watershed::client::Client::new()),
    ];
    for (index, branch) in branches.into_iter().enumerate() {
        let (answer, lines) = told(
            JsonMerge::group().failure_details(),
            [branch.clone(), optional("y", a())],
        )
        .await;
        assert_eq!(
            answer.body,
            r#"{"y":{"a":1},"error_x":{"reason":"its request could not be made"}}"#
        );
        assert!(lines.len() == 1 && lines[0].starts_with("x: "), "{lines:?}");
        if index == 0 {
            let why = RewriteError::Missing { name: "id".into() }.to_string();
            assert_eq!(lines, [format!("x: {why}")]);
        }
        let (answer, _) = told(JsonMerge::group(), [branch.required()]).await;
        let problem = answer.assert_problem(502);
        assert_eq!(problem["reason"], "its request could not be made");
    }
}

#[tokio::test(start_paused = true)]
async fn a_passthrough_tells_of_every_answer_of_its_own() {
    let log = Log::default();
    let hook = log.clone();
    let layer = PassthroughLayer::new()
        .within(10 * MS)
        .on_failure(move |error| hook.add("x", error));
    for (reply, status, line) in [
        (
            Reply::error(NoConnection(Refused)),
            502,
            "x: no connection: refused by 10.0.0.7",
        ),
        (Reply::panic("s3cret"), 502, "x: panicked: s3cret"),
        (Reply::hang(), 504, "x: not finished at the deadline"),
        (
            Reply::status(200).header("x-long", "x".repeat(1 << 16)),
            502,
            "x: its head is over the bound",
        ),
        (
            Reply::error(ClientFault::bad_request("an empty cart")),
            400,
            "x: an empty cart",
        ),
    ] {
        let answer = ask(&layer.layer(Scripted::reply(reply)), get("/")).await;
        answer.assert_problem(status);
        assert!(!answer.body.contains("10.0.0.7") && !answer.body.contains("s3cret"));
        assert_eq!(log.take(), [line]);
    }
    // What the backend says is its answer.
    for status in [200, 404, 503] {
        let backend = Scripted::reply(Reply::status(status));
        assert_eq!(ask(&layer.layer(backend), get("/")).await.status, status);
    }
    assert_eq!(log.take(), [""; 0]);
}
