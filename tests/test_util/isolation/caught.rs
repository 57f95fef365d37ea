//! What is a crossing, and what is said of it.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::future::join;
use http::{HeaderValue, Request, Response};
use http_body_util::Empty;
use tokio_test::{assert_pending, task};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};
use watershed::clone_request::TeeBody;
use watershed::error::BoxError;
use watershed::test_util::{
    CrossingKind, Isolation, RecordedCall, Reply, STAMP, Scripted, ScriptedBody,
};

use super::{SharesRequest, audited, crossing, gather, stamped_by};
use crate::common::{get, text};

#[tokio::test]
async fn a_shared_request_is_caught() {
    let backend = Scripted::echo();
    let shared = Arc::default();

    // Without the audit each branch has an answer, and the paths are mixed.
    let unaudited = ["/users", "/orders"].map(|path| {
        let branch = SharesRequest::layer(&shared, path).layer(backend.clone());
        (&path[1..], branch)
    });
    for (_, result) in gather(unaudited).await {
        assert!(text(result.unwrap()).await.contains(r#""path":"/orders""#));
    }

    let isolation = Isolation::new();
    let audited = ["/users", "/orders"].map(|path| {
        let branch = &path[1..];
        let service = ServiceBuilder::new()
            .layer(isolation.stamp(branch))
            .layer(SharesRequest::layer(&shared, path))
            .layer(isolation.check(branch))
            .service(backend.clone());
        (branch, service)
    });
    for (branch, result) in gather(audited).await {
        match &*branch {
            "users" => {
                let crossing = crossing(result);
                assert_eq!(crossing.kind, CrossingKind::OtherBranch);
                assert_eq!(&*crossing.branch, "users");
                assert_eq!(crossing.uri.path(), "/orders");
                assert!(crossing.extension.unwrap().starts_with("orders-"));
                assert!(crossing.caller.unwrap().starts_with("users-"));
            }
            // What it sent is what it wrote: it was the last.
            _ => assert_eq!(result.unwrap().status(), 200),
        }
    }
    assert_eq!((isolation.calls(), isolation.checked()), (2, 2));
    assert_eq!((isolation.crossing_count(), backend.started()), (1, 3));
}

#[tokio::test]
async fn a_request_that_one_branch_has_stamped_already_is_caught_at_the_next() {
    let isolation = Isolation::new();
    let backend = Scripted::echo();
    // `users` keeps what it got, and `orders` starts from that very request instead of the caller's.
    let shared = Arc::default();
    let users = stamped_by(
        &isolation,
        "users",
        SharesRequest::layer(&shared, "/users").layer(backend.clone()),
    );
    users.oneshot(Request::new(TeeBody::empty())).await.unwrap();
    let request = shared.lock().unwrap().take().unwrap();
    let orders = audited(&isolation, "orders", backend.clone());
    let crossing = crossing(orders.oneshot(request).await);
    assert_eq!(crossing.kind, CrossingKind::AlreadyStamped);
    assert_eq!(&*crossing.branch, "orders");
    assert!(crossing.header[0].starts_with("users-"));
    assert_eq!(backend.started(), 1);
    assert_eq!(isolation.in_flight(), 0);
}

#[tokio::test]
async fn a_header_alone_or_an_extension_alone_is_a_stamp_that_came_in() {
    let isolation = Isolation::new();
    let branch = audited(&isolation, "a", Scripted::echo());
    let mut request = get("/");
    request
        .headers_mut()
        .insert(STAMP, HeaderValue::from_static("b-1"));
    let kind = crossing(branch.clone().oneshot(request).await).kind;
    assert_eq!(kind, CrossingKind::AlreadyStamped);

    let nested = stamped_by(
        &isolation,
        "outer",
        service_fn(move |mut request: Request<Empty<Bytes>>| {
            request.headers_mut().remove(STAMP);
            branch.clone().oneshot(request)
        }),
    );
    let crossing = crossing(nested.oneshot(get("/")).await);
    assert_eq!(crossing.kind, CrossingKind::AlreadyStamped);
    assert!(crossing.header.is_empty());
    assert_eq!(crossing.extension, crossing.caller);
}

/// A branch `a` that changes its request in some way before the check.
async fn tampered(
    isolation: &Isolation,
    tamper: impl Fn(&mut Request<Empty<Bytes>>) + Clone,
) -> Result<Response<ScriptedBody>, BoxError> {
    let branch = ServiceBuilder::new()
        .layer(isolation.stamp("a"))
        .map_request(move |mut request| {
            tamper(&mut request);
            request
        })
        .layer(isolation.check("a"))
        .service(Scripted::echo());
    branch.oneshot(get("/")).await
}

#[tokio::test]
async fn a_stamp_that_is_missing_or_not_whole_is_caught() {
    let isolation = Isolation::new();
    let kind = |result| crossing(result).kind;

    let rebuilt = tampered(&isolation, |request| *request = get("/")).await;
    assert_eq!(kind(rebuilt), CrossingKind::Missing);
    let headers_cut = tampered(&isolation, |request| request.headers_mut().clear()).await;
    assert_eq!(kind(headers_cut), CrossingKind::Mismatched);
    let extensions_cut = tampered(&isolation, |request| request.extensions_mut().clear()).await;
    assert_eq!(kind(extensions_cut), CrossingKind::Mismatched);
    let overwritten = tampered(&isolation, |request| {
        let other = HeaderValue::from_static("a-0");
        request.headers_mut().insert(STAMP, other);
    });
    assert_eq!(kind(overwritten.await), CrossingKind::Mismatched);
    let doubled = tampered(&isolation, |request| {
        let same = request.headers()[STAMP].clone();
        request.headers_mut().append(STAMP, same);
    });
    assert_eq!(kind(doubled.await), CrossingKind::Several);
    assert_eq!((isolation.calls(), isolation.checked()), (5, 5));
    assert_eq!((isolation.crossing_count(), isolation.in_flight()), (5, 0));
}

#[tokio::test]
async fn a_stamp_that_another_branch_presents_is_caught() {
    let isolation = Isolation::new();
    let backend = Scripted::echo();
    let wrong = stamped_by(&isolation, "a", isolation.check("b").layer(backend.clone()));
    let crossing = crossing(wrong.oneshot(get("/x")).await);
    assert_eq!(crossing.kind, CrossingKind::OtherBranch);
    assert_eq!(&*crossing.branch, "b");
    assert!(crossing.caller.is_some());
    assert_eq!(crossing.caller, crossing.extension);
    assert_eq!(backend.started(), 0);
}

#[tokio::test]
async fn another_call_of_the_same_branch_is_caught() {
    let isolation = Isolation::new();
    let backend = Scripted::echo();
    let shared = Arc::default();
    let branch = ServiceBuilder::new()
        .layer(isolation.stamp("a"))
        .layer(SharesRequest::layer(&shared, "/x"))
        .layer(isolation.check("a"))
        .service(backend.clone());
    let call = || branch.clone().oneshot(Request::new(TeeBody::empty()));
    let (first, second) = join(call(), call()).await;
    let crossing = crossing(first);
    assert_eq!(crossing.kind, CrossingKind::OtherCall);
    assert_ne!(crossing.extension, crossing.caller);
    second.unwrap();
    assert_eq!(backend.started(), 1);
}

#[tokio::test]
async fn a_stamp_of_a_finished_call_is_caught() {
    let isolation = Isolation::new();
    let backend = Scripted::echo();
    let client = isolation.check("a").layer(backend.clone());
    let (sender, mut late) = tokio::sync::mpsc::unbounded_channel();
    let branch = stamped_by(
        &isolation,
        "a",
        service_fn(move |request: Request<Empty<Bytes>>| {
            sender.send(request.clone()).unwrap();
            std::future::ready(Ok::<_, BoxError>(Response::new(())))
        }),
    );
    branch.oneshot(get("/late")).await.unwrap();
    let request = late.recv().await.unwrap();
    let crossing = crossing(client.oneshot(request).await);
    assert_eq!(crossing.kind, CrossingKind::NotInFlight);
    assert_eq!((crossing.uri.path(), crossing.caller), ("/late", None));
    assert_eq!(backend.started(), 0);
}

#[tokio::test]
async fn a_stamp_of_a_dropped_call_is_caught() {
    let isolation = Isolation::new();
    let client = isolation.check("a").layer(Scripted::echo());
    let kept = Arc::new(Mutex::new(None));
    let keep = kept.clone();
    let branch = stamped_by(
        &isolation,
        "a",
        service_fn(move |request: Request<Empty<Bytes>>| {
            *keep.lock().unwrap() = Some(request);
            std::future::pending::<Result<Response<()>, BoxError>>()
        }),
    );
    let mut future = task::spawn(branch.oneshot(get("/")));
    assert_pending!(future.poll());
    assert_eq!(isolation.in_flight(), 1);
    drop(future);
    assert_eq!(isolation.in_flight(), 0);
    let request = kept.lock().unwrap().take().unwrap();
    let crossing = crossing(client.oneshot(request).await);
    assert_eq!(crossing.kind, CrossingKind::NotInFlight);
}

#[tokio::test]
async fn a_stamp_of_another_audit_is_none_of_ours() {
    let (ours, theirs) = (Isolation::new(), Isolation::new());
    let branch = stamped_by(&theirs, "a", ours.check("a").layer(Scripted::echo()));
    let crossing = crossing(branch.oneshot(get("/")).await);
    assert_eq!(crossing.kind, CrossingKind::NotInFlight);
    theirs.assert_clean();
    assert_eq!(ours.crossing_count(), 1);
}

#[tokio::test]
async fn a_reflected_stamp_is_compared() {
    let isolation = Isolation::new();
    // What a connection that hands out the answer of the request before would do.
    let last = Mutex::new(None);
    let mixed = Scripted::from_fn(move |call: &RecordedCall| {
        let this = call.headers[STAMP].clone();
        let previous = last.lock().unwrap().replace(this.clone());
        Reply::status(200).header(STAMP, previous.unwrap_or(this))
    });
    let branch = audited(&isolation, "a", mixed);
    branch.clone().oneshot(get("/1")).await.unwrap();
    let crossing = crossing(branch.oneshot(get("/2")).await);
    assert_eq!(crossing.kind, CrossingKind::Reflected);
    assert_eq!(crossing.uri.path(), "/2");
    assert_ne!(crossing.header[0], crossing.extension.unwrap());
}

#[tokio::test]
async fn crossings_are_kept_up_to_a_limit_and_listed() {
    let isolation = Isolation::new();
    for _ in 0..300 {
        crossing(tampered(&isolation, |request| *request = get("/lost")).await);
    }
    assert_eq!(isolation.crossing_count(), 300);
    assert_eq!(isolation.crossings().len(), 256);
    let list = std::panic::catch_unwind(|| isolation.assert_clean()).unwrap_err();
    let list = list.downcast_ref::<String>().expect("a list");
    assert!(list.starts_with("300 crossings of branches:\n  GET /lost in branch \"a\": "));
    assert!(list.ends_with("and 44 more"));
}
