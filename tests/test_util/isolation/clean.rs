//! What is no crossing: retries, spawned tasks, a real fan-out under load.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::future::{join, join_all};
use futures_util::{FutureExt, StreamExt};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{Empty, Full, StreamBody};
use tokio::time::timeout;
use tokio_test::{assert_ready_err, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use watershed::body::BoxBody;
use watershed::clone_request::{CloneRequestLayer, HeadPolicy, TeeBody};
use watershed::error::BoxError;
use watershed::fanout::FanOut;
use watershed::outcome::Branch;
use watershed::rewrite::{PathParams, RewriteLayer, UriTemplate};
use watershed::test_util::{CrossingKind, Isolation, RecordedCall, Reply, STAMP, Scripted, Stamp};

use super::{audited, crossing, stamped_by};
use crate::common::{MS, get, text};

#[tokio::test]
async fn retries_and_hedges_of_one_call_are_legal() {
    let isolation = Isolation::new();
    let backend = Scripted::new([Reply::status(503), Reply::status(200)]);
    let client = isolation.check("a").layer(backend.clone());
    let tries = stamped_by(
        &isolation,
        "a",
        service_fn(move |request: Request<Empty<Bytes>>| {
            let client = client.clone();
            async move {
                // One after the other, and then two at once.
                client.clone().oneshot(request.clone()).await?;
                client.clone().oneshot(request.clone()).await?;
                let (hedge, other) = join(
                    client.clone().oneshot(request.clone()),
                    client.clone().oneshot(request),
                )
                .await;
                hedge.and(other)
            }
        }),
    );
    tries.oneshot(get("/")).await.unwrap();
    isolation.assert_clean();
    assert_eq!((isolation.calls(), isolation.checked()), (1, 4));
}

/// Lets other tasks run until `condition` holds; gives up rather than hang.
async fn until(condition: impl Fn() -> bool) {
    for _ in 0..1000 {
        if condition() {
            return;
        }
        tokio::task::yield_now().await;
    }
    panic!("it never came to that");
}

#[tokio::test(start_paused = true)]
async fn behind_a_spawned_task_a_stamp_may_come_again_but_not_twice_at_once() {
    let isolation = Isolation::new();
    let backend = Scripted::reply(Reply::hang());
    let client = isolation.check("a").layer(backend.clone());
    let detached = stamped_by(
        &isolation,
        "a",
        service_fn(move |request: Request<Empty<Bytes>>| {
            let (client, backend) = (client.clone(), backend.clone());
            async move {
                let send = || tokio::spawn(client.clone().oneshot(request.clone()));
                let first = send();
                until(|| backend.started() == 1).await;
                let twice = timeout(1000 * MS, send()).await.expect("no hanging");
                let twice = crossing(twice.unwrap());
                assert_eq!(twice.kind, CrossingKind::Twice);
                assert_eq!(twice.caller, None);
                first.abort();
                assert!(first.await.unwrap_err().is_cancelled());
                // The first is over: now it is a retry.
                let retry = send();
                until(|| backend.started() == 2).await;
                retry.abort();
                Ok::<_, BoxError>(Response::new(()))
            }
        }),
    );
    detached.oneshot(get("/")).await.unwrap();
    assert_eq!(isolation.crossing_count(), 1);
}

#[tokio::test]
async fn the_stamp_goes_out_unless_it_is_stripped() {
    let isolation = Isolation::new();
    let backend = Scripted::echo();
    audited(&isolation, "caf\u{e9} a", backend.clone())
        .oneshot(get("/"))
        .await
        .unwrap();
    let stripped = isolation.check("a").strip().layer(backend.clone());
    let branch = stamped_by(&isolation, "a", stripped);
    branch.oneshot(get("/")).await.unwrap();
    let calls = backend.calls();
    let sent = calls[0].headers[STAMP].to_str().unwrap();
    assert!(sent.starts_with("caf__a-"), "{sent}");
    assert!(!calls[1].headers.contains_key(STAMP));
    isolation.assert_clean();
}

#[tokio::test]
async fn a_head_policy_may_keep_the_stamp() {
    let isolation = Isolation::new();
    let policy = HeadPolicy::allow([STAMP]).extension::<Stamp>();
    let branch = ServiceBuilder::new()
        .layer(isolation.stamp("a"))
        .layer(CloneRequestLayer::new().head(policy))
        .layer(isolation.check("a"))
        .service(Scripted::echo());
    branch.oneshot(get("/")).await.unwrap();
    isolation.assert_clean();
}

#[tokio::test]
async fn errors_of_the_branch_pass_through() {
    let isolation = Isolation::new();
    let error = audited(&isolation, "a", Scripted::reply(Reply::fail("refused")))
        .oneshot(get("/"))
        .await
        .unwrap_err();
    assert_eq!(error.to_string(), "refused");
    let mut unready = audited(&isolation, "a", Scripted::ready_fails("no pool"));
    let mut ready = task::spawn(ServiceExt::<Request<Empty<Bytes>>>::ready(&mut unready));
    let error = assert_ready_err!(ready.poll());
    assert_eq!(error.to_string(), "no pool");
    isolation.assert_clean();
    assert_eq!(isolation.in_flight(), 0);
}

/// The real thing, on several threads: a fan-out of four branches over one client, each with a path and a body to mix
/// up, under many calls at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_real_fan_out_is_clean_under_load() {
    const BRANCHES: [&str; 4] = ["users", "orders", "carts", "prices"];
    const TASKS: usize = 64;
    const CALLS: usize = 25;

    let isolation = Isolation::new();
    // It reflects the stamp, so that the way back is audited too.
    let backend = Scripted::from_fn(|call: &RecordedCall| {
        Reply::echo().header(STAMP, call.headers[STAMP].clone())
    });
    let branches = BRANCHES.map(|name| {
        let service = ServiceBuilder::new()
            .layer(isolation.stamp(name))
            .layer(RewriteLayer::new(UriTemplate::new(&format!(
                "http://{name}.internal/{name}/{{id}}"
            ))))
            .map_future(|future| async {
                tokio::task::yield_now().await;
                future.await
            })
            .layer(isolation.check(name))
            .service(backend.clone());
        Branch::http(name, service)
    });
    let fan_out = ServiceBuilder::new()
        .layer(CloneRequestLayer::new())
        .service(Collected(FanOut::new(branches)));

    let tasks = (0..TASKS).map(|task| {
        let fan_out = fan_out.clone();
        tokio::spawn(async move {
            for call in 0..CALLS {
                let id = format!("{task}-{call}");
                let chunks = [&*id, "!"].map(|part| {
                    Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(part.as_bytes())))
                });
                let body = StreamBody::new(futures_util::stream::iter(chunks));
                let mut request = Request::post("/").body(body).unwrap();
                let params = PathParams::from_iter([("id", &*id)]);
                request.extensions_mut().insert(params);
                let answers = fan_out.clone().oneshot(request).await.unwrap();
                for (branch, answer) in BRANCHES.iter().zip(text(answers).await.lines()) {
                    let echo: serde_json::Value = serde_json::from_str(answer).unwrap();
                    assert_eq!(echo["path"], format!("/{branch}/{id}"));
                    assert_eq!(echo["body"], format!("{id}!"));
                }
            }
        })
    });
    for task in join_all(tasks).await {
        task.unwrap();
    }
    isolation.assert_clean();
    let calls = (BRANCHES.len() * TASKS * CALLS) as u64;
    assert_eq!((isolation.calls(), isolation.checked()), (calls, calls));
    assert_eq!(isolation.in_flight(), 0);
    assert_eq!(backend.finished() as u64, calls);
}

/// Every branch's answer on a line of its own, in declared order.
#[derive(Clone)]
struct Collected<S>(S);

impl<S, T> Service<Request<TeeBody>> for Collected<S>
where
    S: Service<Request<TeeBody>, Response = T, Error: std::fmt::Debug, Future: Send + 'static>,
    T: futures_util::Stream<Item = watershed::outcome::Outcome<Response<BoxBody>, BoxError>>
        + Send
        + 'static,
{
    type Response = Response<Full<Bytes>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<TeeBody>) -> Self::Future {
        let gather = self.0.call(request);
        async move {
            let mut outcomes: Vec<_> = gather.await.unwrap().collect().await;
            outcomes.sort_by_key(|outcome| outcome.branch.index());
            let mut lines = String::new();
            for outcome in outcomes {
                lines.push_str(&text(outcome.result.unwrap()).await);
                lines.push('\n');
            }
            Ok(Response::new(Full::from(lines)))
        }
        .boxed()
    }
}
