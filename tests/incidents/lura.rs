//! Lura 2.6.1 (luraproject/lura#719): the backend calls of one request ran in parallel and shared one request object. Each
//! wrote its own path into it and then sent it, so some went to a sibling's path, and about 5 % of the answers were mixed.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderValue, Method, Request};
use http_body::{Body, Frame};
use http_body_util::{BodyStream, StreamBody};
use serde_json::Value;
use tokio::sync::Barrier;
use tokio::task::yield_now;
use tower::util::BoxCloneSyncService;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use watershed::clone_request::{CloneRequestLayer, HeadPolicy, TeeBody};
use watershed::error::BoxError;
use watershed::fanout::FanOut;
use watershed::merge::{JsonMerge, MergeLayer};
use watershed::outcome::Branch;
use watershed::rewrite::{PathParams, RewriteLayer, UriTemplate};
use watershed::test_util::{CrossingKind, Isolation, STAMP, Scripted, Stamp};

use crate::support::{Answer, HttpBranch, get, merged};

const BRANCHES: [&str; 3] = ["users", "orders", "carts"];

/// The defect, on purpose: a layer that writes a branch's head into an object that all branches share, and sends what
/// stands in there. Between the two is what Lura does between them; here it is a barrier, so that the bad moment comes
/// every time. Another one ends all calls together.
#[derive(Clone)]
struct SharedRequest {
    head: Arc<Mutex<Option<Request<()>>>>,
    between: Arc<Barrier>,
}

impl SharedRequest {
    fn new(branches: usize) -> Self {
        Self {
            head: Arc::default(),
            between: Arc::new(Barrier::new(branches)),
        }
    }

    fn branch<S>(
        &self,
        path: &str,
        client: S,
    ) -> BoxCloneSyncService<Request<TeeBody>, S::Response, BoxError>
    where
        S: Service<Request<TeeBody>, Error = BoxError> + Clone + Send + Sync + 'static,
        S::Future: Send,
        S::Response: Send,
    {
        let shared = self.clone();
        let path = path.to_owned();
        BoxCloneSyncService::new(service_fn(move |request: Request<TeeBody>| {
            let (shared, path, client) = (shared.clone(), path.clone(), client.clone());
            async move {
                let (parts, body) = request.into_parts();
                {
                    let mut head = shared.head.lock().expect("not poisoned");
                    // "Generate the path", and set a field or two.
                    let mut own = Request::from_parts(parts, ());
                    *own.uri_mut() = path.parse().expect("a path");
                    *head = Some(own);
                }
                shared.between.wait().await;
                let sent = shared.head.lock().expect("not poisoned").clone();
                let sent = sent.expect("written above").map(|()| body);
                let answer = client.oneshot(sent).await;
                shared.between.wait().await;
                answer
            }
        }))
    }
}

/// What the backends of three branches are asked, if these share one request.
#[tokio::test]
async fn a_shared_request_mixes_paths() {
    let client = Scripted::echo();
    let shared = SharedRequest::new(3);
    let branch = |name: &str| {
        let service = shared.branch(&format!("/{name}/7"), client.clone());
        Branch::http(name, service)
    };
    let service = merged(JsonMerge::group(), BRANCHES.map(branch));
    for round in 1..=10 {
        let answer = crate::support::ask(&service, get("/7")).await;
        // It looks fine: 200, and complete.
        assert_eq!((answer.status, answer.complete()), (200, true));
        let answer = answer.json();
        let paths: Vec<_> = BRANCHES
            .map(|name| answer[name]["path"].as_str().expect("a path").to_owned())
            .into();
        // All three went to one and the same backend, so two of the three parts are another's.
        assert!(paths.iter().all(|path| *path == paths[0]), "{paths:?}");
        let own = BRANCHES
            .iter()
            .zip(&paths)
            .filter(|(name, path)| path.contains(**name));
        assert_eq!(own.count(), 1);
        assert_eq!(client.started(), 3 * round);
    }
}

/// The audit that the load below relies on sees the defect.
#[tokio::test]
async fn the_audit_sees_a_shared_request() {
    let isolation = Isolation::new();
    let client = Scripted::echo();
    let shared = SharedRequest::new(3);
    let branch = |name: &'static str| {
        let checked = isolation.check(name).layer(client.clone());
        let service = shared.branch(&format!("/{name}/7"), checked);
        Branch::http(name, isolation.stamp(name).layer(service))
    };
    let service = merged(JsonMerge::group(), BRANCHES.map(branch));
    let answer = crate::support::ask(&service, get("/7")).await;
    assert!(!answer.complete());
    // The branch whose request it was may send it; the others may not.
    assert_eq!(
        (
            isolation.checked(),
            isolation.crossing_count(),
            client.started()
        ),
        (3, 2, 1)
    );
    for crossing in isolation.crossings() {
        assert_eq!(crossing.kind, CrossingKind::OtherBranch);
        assert!(!crossing.uri.path().contains(&*crossing.branch));
    }
}

/// Yields as often as `value` says, between nought and three times: so that calls interleave, and differently each.
async fn interleave(value: u64) {
    for _ in 0..(value.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62) {
        yield_now().await;
    }
}

/// A branch with a value of its own, for each call, in the path, in a field, in the query and in the body.
fn branch(name: &'static str, isolation: &Isolation, client: &Scripted) -> HttpBranch {
    let template = format!("http://{name}.internal/{name}/{{call}}?call={{call}}&branch={name}");
    // What the layers of a branch do to their request: all of them at the same time.
    let own = tower::util::MapRequestLayer::new(move |request: Request<TeeBody>| {
        let (mut parts, body) = request.into_parts();
        let call = parts
            .extensions
            .get::<PathParams>()
            .expect("kept")
            .get("call")
            .expect("set")
            .to_owned();
        let value = format!("{name}-{call}");
        parts
            .headers
            .insert("x-value", HeaderValue::try_from(value).expect("visible"));
        parts.headers.remove("x-shared");
        parts.method = if name == "users" {
            Method::PUT
        } else {
            parts.method
        };
        let suffix = Frame::data(Bytes::from_static(name.as_bytes()));
        let suffix = futures_util::stream::iter([Ok(suffix)]);
        Request::from_parts(parts, StreamBody::new(BodyStream::new(body).chain(suffix)))
    });
    let slow = move |wait: u64| {
        tower::layer::layer_fn(move |inner: watershed::test_util::Check<Scripted>| {
            service_fn(move |request: Request<_>| {
                let inner = inner.clone();
                async move {
                    interleave(wait ^ seed(request.uri())).await;
                    let response = inner.oneshot(request).await;
                    interleave(wait.rotate_left(17)).await;
                    response
                }
            })
        })
    };
    let service = ServiceBuilder::new()
        .layer(isolation.stamp(name))
        .layer(own)
        .layer(RewriteLayer::new(UriTemplate::new(&template)))
        .layer(slow(name.len() as u64))
        .layer(isolation.check(name))
        .service(client.clone());
    Branch::http(name, service)
}

fn seed(uri: &http::Uri) -> u64 {
    uri.query()
        .unwrap_or_default()
        .bytes()
        .fold(7, |seed, byte| seed.wrapping_mul(31) ^ u64::from(byte))
}

/// A request whose body comes in three pieces, some of them late.
fn request(call: u64) -> Request<impl Body<Data = Bytes, Error = Infallible> + Send + 'static> {
    let pieces = [
        format!("call {call}"),
        ",".to_owned(),
        format!("again {call};"),
    ];
    let frames = futures_util::stream::iter(pieces).then(move |piece| async move {
        interleave(call ^ piece.len() as u64).await;
        Ok(Frame::data(Bytes::from(piece)))
    });
    let mut request = Request::post(format!("/dash/{call}"))
        .header("x-call", call)
        .header("x-shared", call)
        .body(StreamBody::new(frames))
        .expect("a request");
    let params = PathParams::from_iter([("call", call.to_string())]);
    request.extensions_mut().insert(params);
    request
}

#[track_caller]
fn assert_own(answer: &Value, name: &str, call: u64) {
    let part = &answer[name];
    assert_eq!(part["path"], format!("/{name}/{call}"));
    assert_eq!(part["query"], format!("call={call}&branch={name}"));
    assert_eq!(part["body"], format!("call {call},again {call};{name}"));
    assert_eq!(part["method"], if name == "users" { "PUT" } else { "POST" });
    let fields = part["headers"].as_object().expect("fields");
    assert_eq!(fields["x-value"], format!("{name}-{call}"));
    assert_eq!(fields["x-call"], call.to_string());
    let stamp = fields[STAMP.as_str()].as_str().expect("a stamp");
    assert!(stamp.starts_with(&format!("{name}-")));
    assert_eq!(fields.len(), 3, "{fields:?}");
}

/// The calls that are made, and how many of them at once.
const CALLS: u64 = 100_000;
const AT_ONCE: u64 = 250;

// L42, L43, L40
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn under_load_no_call_and_no_branch_crosses_another() {
    let isolation = Isolation::new();
    let clients = BRANCHES.map(|_| Scripted::echo().keep_calls(0));
    let branches: Vec<_> = BRANCHES
        .iter()
        .zip(&clients)
        .map(|(name, client)| branch(name, &isolation, client))
        .collect();
    let service = ServiceBuilder::new()
        .layer(CloneRequestLayer::new().head(HeadPolicy::end_to_end().extension::<Stamp>()))
        .layer(MergeLayer::new(JsonMerge::group()))
        .service(FanOut::new(branches));

    let start = Instant::now();
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|task| {
            let service = service.clone();
            tokio::spawn(async move {
                for call in (task..CALLS).step_by(AT_ONCE as usize) {
                    let response = service
                        .clone()
                        .oneshot(request(call))
                        .await
                        .expect("infallible");
                    let answer = Answer::read(response).await;
                    assert_eq!(
                        (answer.status, answer.complete()),
                        (200, true),
                        "{answer:?}"
                    );
                    let answer = answer.json();
                    for name in BRANCHES {
                        assert_own(&answer, name, call);
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("no call crossed");
    }

    isolation.assert_clean();
    // And there was something to see: every branch of every call, many of them at the same time.
    let total = CALLS * BRANCHES.len() as u64;
    assert_eq!(
        (
            isolation.calls(),
            isolation.checked(),
            isolation.in_flight()
        ),
        (total, total, 0)
    );
    for client in &clients {
        assert_eq!(
            (client.started() as u64, client.finished() as u64),
            (CALLS, CALLS)
        );
        assert!(client.peak_in_flight() > 8, "{}", client.peak_in_flight());
    }
    println!("{CALLS} calls in {:?}", start.elapsed());
}
