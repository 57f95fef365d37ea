//! What `test_util` promises: a backend that keeps to its script, and an audit that misses no crossing and invents none.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{join, join_all};
use futures_util::{FutureExt, StreamExt};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::time::{Instant, timeout};
use tokio_test::{assert_pending, assert_ready_err, assert_ready_ok, task};
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use watershed::body::BoxBody;
use watershed::clone_request::{CloneRequestLayer, HeadPolicy, TeeBody};
use watershed::deadline::{Phase, TimedOut};
use watershed::error::{BoxError, ClientFault, cause_ref};
use watershed::fanout::FanOut;
use watershed::outcome::{Branch, BranchError};
use watershed::rewrite::{PathParams, RewriteLayer, UriTemplate};
use watershed::test_util::{
    Crossed, Crossing, CrossingKind, Isolation, RecordedCall, Reply, STAMP, Scripted, ScriptedBody,
    ScriptedError, Stamp,
};

const MS: Duration = Duration::from_millis(1);

fn get(path: &str) -> Request<Empty<Bytes>> {
    Request::get(path).body(Empty::new()).expect("a request")
}

async fn text<B>(response: Response<B>) -> String
where
    B: Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let body = response.into_body().collect().await.map_err(Into::into);
    String::from_utf8(body.expect("a whole body").to_bytes().to_vec()).expect("UTF-8")
}

async fn call(backend: &Scripted) -> Result<Response<ScriptedBody>, BoxError> {
    backend.clone().oneshot(get("/")).await
}

mod scripted {
    use super::*;

    #[tokio::test]
    async fn replies_are_given_in_order_and_the_last_one_again() {
        let backend = Scripted::new([
            Reply::status(503)
                .header("retry-after", 7)
                .header("x", "1")
                .header("x", "2"),
            Reply::json(r#"{"a":1}"#),
        ]);
        let first = call(&backend).await.unwrap();
        assert_eq!(first.status(), 503);
        assert_eq!(first.headers()["retry-after"], "7");
        assert_eq!(first.headers().get_all("x").iter().count(), 2);
        assert_eq!(text(first).await, "");
        for _ in 0..2 {
            let next = call(&backend).await.unwrap();
            assert_eq!(next.status(), 200);
            assert_eq!(next.headers()["content-type"], "application/json");
            assert_eq!(text(next).await, r#"{"a":1}"#);
        }
        assert_eq!((backend.started(), backend.finished()), (3, 3));
    }

    #[test]
    #[should_panic(expected = "a script needs a reply")]
    fn an_empty_script_is_refused() {
        let _ = Scripted::new([]);
    }

    #[tokio::test(start_paused = true)]
    async fn head_and_body_come_at_their_instants() {
        let backend = Scripted::reply(
            Reply::status(200)
                .after(10 * MS)
                .frames(["a", "b"])
                .body_after(20 * MS),
        );
        let start = Instant::now();
        let response = call(&backend).await.unwrap();
        assert_eq!(start.elapsed(), 10 * MS);
        // The body's time runs from the head, not from the first read.
        tokio::time::advance(15 * MS).await;
        let mut body = response.into_body();
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "a");
        assert_eq!(start.elapsed(), 30 * MS);
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), "b");
        assert!(body.frame().await.is_none());
        assert_eq!(start.elapsed(), 30 * MS);
    }

    #[tokio::test(start_paused = true)]
    async fn an_empty_body_may_take_its_time_as_well() {
        let backend = Scripted::reply(Reply::status(204).body_after(20 * MS));
        let start = Instant::now();
        let mut body = call(&backend).await.unwrap().into_body();
        assert!(!body.is_end_stream());
        assert!(body.frame().await.is_none());
        assert_eq!(start.elapsed(), 20 * MS);

        let backend = Scripted::reply(Reply::json("1").body_after(20 * MS));
        let mut body = call(&backend).await.unwrap().into_body();
        body.frame().await.unwrap().unwrap();
        assert!(body.is_end_stream());
    }

    #[tokio::test]
    async fn a_whole_body_announces_its_length_and_its_end() {
        let backend = Scripted::reply(Reply::status(200).body("abc"));
        let mut body = call(&backend).await.unwrap().into_body();
        assert_eq!(body.size_hint().exact(), Some(3));
        assert!(!body.is_end_stream());
        body.frame().await.unwrap().unwrap();
        assert!(body.is_end_stream());
        drop(body);
        assert_eq!(
            (backend.bodies_finished(), backend.bodies_dropped()),
            (1, 0)
        );
    }

    #[tokio::test]
    async fn frames_are_given_as_they_are_and_announce_nothing() {
        let backend = Scripted::reply(Reply::status(200).frames(["a", "", "b"]));
        let mut body = call(&backend).await.unwrap().into_body();
        for expected in ["a", "", "b"] {
            assert_eq!(body.size_hint().exact(), None);
            let frame = body.frame().await.unwrap().unwrap();
            assert_eq!(frame.into_data().unwrap(), expected);
        }
        assert!(!body.is_end_stream());
        assert!(body.frame().await.is_none());
        assert!(body.is_end_stream());
        assert!(body.frame().await.is_none());
        assert_eq!(backend.bodies_finished(), 1);
        drop(body);
        assert_eq!(
            (backend.bodies_finished(), backend.bodies_dropped()),
            (1, 0)
        );
    }

    #[tokio::test]
    async fn trailers_follow_the_data() {
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        let backend = Scripted::reply(Reply::json("1").trailers(trailers.clone()));
        let mut body = call(&backend).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert!(!body.is_end_stream());
        let frame = body.frame().await.unwrap().unwrap();
        assert_eq!(frame.into_trailers().unwrap(), trailers);
        assert!(body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_never_comes_is_dropped_by_its_caller() {
        let backend = Scripted::reply(Reply::hang());
        assert!(timeout(1000 * MS, call(&backend)).await.is_err());
        assert_eq!((backend.started(), backend.finished()), (1, 0));
        assert_eq!((backend.dropped(), backend.in_flight()), (1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stalls_is_dropped_by_its_reader() {
        let backend = Scripted::reply(Reply::json("12").then_hang());
        let mut body = call(&backend).await.unwrap().into_body();
        assert_eq!(body.size_hint().exact(), None);
        assert!(body.frame().await.unwrap().unwrap().is_data());
        assert!(timeout(1000 * MS, body.frame()).await.is_err());
        assert!(!body.is_end_stream());
        drop(body);
        assert_eq!(
            (backend.bodies_finished(), backend.bodies_dropped()),
            (0, 1)
        );
        assert_eq!((backend.finished(), backend.dropped()), (1, 0));
    }

    #[tokio::test]
    async fn a_body_that_is_cut_short_ends_with_an_error() {
        let backend = Scripted::reply(Reply::status(200).frames(["1"]).then_fail());
        let mut body = call(&backend).await.unwrap().into_body();
        assert!(body.frame().await.unwrap().unwrap().is_data());
        let error = body.frame().await.unwrap().unwrap_err();
        assert!(cause_ref::<ScriptedError>(error.as_ref()).is_some());
        assert!(body.frame().await.is_none());
        assert_eq!(backend.bodies_finished(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn the_service_fails_as_the_script_says() {
        let late = TimedOut::new(Phase::Head, MS, MS);
        let backend = Scripted::new([Reply::fail("refused").after(5 * MS), Reply::error(late)]);
        let start = Instant::now();
        let error = call(&backend).await.unwrap_err();
        assert_eq!(start.elapsed(), 5 * MS);
        let error = cause_ref::<ScriptedError>(error.as_ref());
        assert_eq!(error, Some(&ScriptedError::new("refused")));
        let error = call(&backend).await.unwrap_err();
        assert_eq!(cause_ref::<TimedOut>(error.as_ref()), Some(&late));
        assert_eq!((backend.finished(), backend.dropped()), (2, 0));
    }

    #[tokio::test]
    async fn a_panic_is_the_calls_end() {
        let backend = Scripted::reply(Reply::panic("boom"));
        let computed = Scripted::from_fn(|_| panic!("in the script"));
        let fan_out = FanOut::new([
            Branch::http("a", backend.clone()),
            Branch::http("b", computed.clone()),
        ]);
        let gather = fan_out.oneshot(Request::new(TeeBody::empty())).await;
        let outcomes: Vec<_> = gather.unwrap().collect().await;
        for (outcome, expected) in outcomes.iter().zip(["boom", "in the script"]) {
            match &outcome.result {
                Err(BranchError::Panicked(text)) => assert_eq!(text, expected),
                other => panic!("{other:?}"),
            }
        }
        for backend in [backend, computed] {
            assert_eq!((backend.finished(), backend.dropped()), (1, 0));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_backend_may_never_be_ready() {
        let backend = Scripted::never_ready();
        assert!(timeout(1000 * MS, call(&backend)).await.is_err());
        assert_eq!(backend.started(), 0);
    }

    #[tokio::test]
    async fn readiness_may_fail() {
        let error = call(&Scripted::ready_fails("no pool")).await.unwrap_err();
        assert_eq!(error.to_string(), "no pool");
        assert!(cause_ref::<ScriptedError>(error.as_ref()).is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn readiness_takes_its_time_for_each_clone_and_each_call() {
        let mut backend = Scripted::reply(Reply::status(200)).ready_after(10 * MS);
        let start = Instant::now();
        ServiceExt::<Request<Empty<Bytes>>>::ready(&mut backend)
            .await
            .unwrap();
        assert_eq!(start.elapsed(), 10 * MS);

        let mut clone = backend.clone();
        let mut ready = task::spawn(ServiceExt::<Request<Empty<Bytes>>>::ready(&mut clone));
        assert_pending!(ready.poll());
        drop(ready);

        for calls in 1..3 {
            let service = ServiceExt::<Request<Empty<Bytes>>>::ready(&mut backend).await;
            service.unwrap().call(get("/")).await.unwrap();
            assert_eq!(start.elapsed(), 10 * MS * calls);
        }
    }

    #[tokio::test]
    #[should_panic(expected = "called without having been ready")]
    async fn a_call_of_a_clone_of_what_was_ready_panics() {
        let mut backend = Scripted::reply(Reply::status(200));
        let ready = ServiceExt::<Request<Empty<Bytes>>>::ready(&mut backend).await;
        let mut clone = ready.unwrap().clone();
        drop(clone.call(get("/")));
    }

    #[tokio::test(start_paused = true)]
    async fn everything_that_was_received_is_recorded() {
        let backend = Scripted::reply(Reply::status(204));
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        let body = StreamBody::new(futures_util::stream::iter([
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"he"))),
            Ok(Frame::data(Bytes::from_static(b"llo"))),
            Ok(Frame::trailers(trailers.clone())),
        ]));
        let request = Request::put("/a?b=c")
            .version(Version::HTTP_2)
            .header("x", "1")
            .body(body)
            .unwrap();
        backend.clone().oneshot(request).await.unwrap();
        tokio::time::advance(30 * MS).await;
        call(&backend).await.unwrap();

        let calls = backend.calls();
        let RecordedCall {
            at,
            method,
            uri,
            version,
            headers,
            body,
            trailers: received,
            ..
        } = &calls[0];
        assert_eq!((method, *version), (&Method::PUT, Version::HTTP_2));
        assert_eq!(uri, "/a?b=c");
        assert_eq!(headers["x"], "1");
        assert_eq!(body.as_deref(), Some(&b"hello"[..]));
        assert_eq!(received.as_ref(), Some(&trailers));
        assert_eq!(calls[1].at - *at, 30 * MS);
        assert_eq!(calls[1].body.as_deref(), Some(&b""[..]));
    }

    #[tokio::test]
    async fn the_record_has_a_limit_and_the_counters_have_none() {
        let backend = Scripted::reply(Reply::status(204)).keep_calls(2);
        for path in ["/0", "/1", "/2"] {
            backend.clone().oneshot(get(path)).await.unwrap();
        }
        let paths: Vec<_> = backend
            .calls()
            .iter()
            .map(|call| call.uri.clone())
            .collect();
        assert_eq!(paths, ["/0", "/1"]);
        assert_eq!((backend.started(), backend.finished()), (3, 3));
    }

    /// A body that says when it is dropped.
    struct Watched(#[allow(dead_code)] Arc<()>);

    impl Body for Watched {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(
            self: Pin<&mut Self>,
            _: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            panic!("read");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_body_may_be_left_unread() {
        let backend = Scripted::reply(Reply::status(200).after(MS)).reads_request_body(false);
        let alive = Arc::new(());
        let request = Request::post("/").body(Watched(alive.clone())).unwrap();
        let mut future = task::spawn(backend.clone().oneshot(request));
        assert_pending!(future.poll());
        assert_eq!(Arc::strong_count(&alive), 2);
        tokio::time::advance(MS).await;
        let response = assert_ready_ok!(future.poll());
        assert_eq!(Arc::strong_count(&alive), 1);
        assert_eq!(response.status(), 200);
        assert_eq!(backend.calls()[0].body, None);
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_answered_before_the_request_is_read() {
        let (sender, receiver) = tokio::sync::oneshot::channel::<()>();
        let body = StreamBody::new(
            async move {
                receiver.await.unwrap();
                Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"late")))
            }
            .into_stream()
            .boxed(),
        );
        let backend = Scripted::echo();
        let mut future = task::spawn(
            backend
                .clone()
                .oneshot(Request::post("/").body(body).unwrap()),
        );
        assert_pending!(future.poll());
        assert_eq!((backend.in_flight(), &backend.calls()[0].body), (1, &None));
        sender.send(()).unwrap();
        let response = assert_ready_ok!(future.poll());
        assert!(text(response).await.ends_with(r#""body":"late"}"#));
    }

    #[tokio::test]
    async fn the_error_of_a_request_body_is_the_services() {
        let backend = Scripted::echo();
        let body = TeeBody::new(Full::from("too long"), 3);
        let request = Request::post("/").body(body).unwrap();
        let error = backend.clone().oneshot(request).await.unwrap_err();
        let fault = cause_ref::<ClientFault>(error.as_ref()).expect("the cause");
        assert_eq!(fault.status(), 413);
        assert_eq!((backend.finished(), backend.dropped()), (1, 0));
        assert_eq!(backend.calls()[0].body, None);
    }

    #[tokio::test]
    async fn an_echo_says_what_was_received() {
        let request = Request::post("/a%20b?c=%22d")
            .header("x", "2")
            .header("b", "1")
            .header("y", "3")
            .header("accept", "a")
            .header("accept", "b")
            .body(Full::from("say \"hi\"\n"))
            .unwrap();
        let response = Scripted::echo().oneshot(request).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(
            text(response).await,
            r#"{"method":"POST","path":"/a%20b","query":"c=%22d","headers":{"accept":"a, b","b":"1","x":"2","y":"3"},"body":"say \"hi\"\n"}"#,
        );

        let backend = Scripted::echo().reads_request_body(false);
        let echo: serde_json::Value =
            serde_json::from_str(&text(call(&backend).await.unwrap()).await).unwrap();
        assert!(echo["query"].is_null() && echo["body"].is_null());
    }

    #[tokio::test]
    async fn a_reply_may_depend_on_the_call() {
        let backend = Scripted::from_fn(|call| match call.uri.path() {
            "/found" => Reply::json(call.body.clone().expect("read")),
            _ => Reply::status(404),
        });
        let request = Request::post("/found").body(Full::from("[1]")).unwrap();
        let response = backend.clone().oneshot(request).await.unwrap();
        assert_eq!(text(response).await, "[1]");
        assert_eq!(call(&backend).await.unwrap().status(), 404);
    }

    #[tokio::test]
    async fn calls_at_once_are_counted_polled_or_not() {
        let backend = Scripted::reply(Reply::hang());
        let mut clones = [backend.clone(), backend.clone()];
        let mut futures = Vec::new();
        for clone in &mut clones {
            let service = ServiceExt::<Request<Empty<Bytes>>>::ready(clone).await;
            futures.push(service.unwrap().call(get("/")));
        }
        assert_eq!((backend.started(), backend.in_flight()), (2, 2));
        futures.pop();
        assert_eq!((backend.dropped(), backend.in_flight()), (1, 1));
        drop(futures);
        assert_eq!(backend.dropped(), 2);
        assert_eq!(backend.peak_in_flight(), 2);
    }

    #[test]
    fn it_fits_where_a_client_fits() {
        fn shareable<T: Clone + Send + Sync + 'static>(_: &T) {}
        let backend = Scripted::echo();
        shareable(&backend);
        let _ = Branch::http("a", backend);
    }
}

mod isolation {
    use super::*;

    fn stamped_by<S>(isolation: &Isolation, branch: &'static str, inner: S) -> Stamping<S> {
        isolation.stamp(branch).layer(inner)
    }

    type Stamping<S> = watershed::test_util::Stamped<S>;

    /// The stamp and the check of one branch, with nothing in between.
    fn audited<S: Clone>(
        isolation: &Isolation,
        branch: &'static str,
        client: S,
    ) -> Stamping<Checked<S>> {
        stamped_by(isolation, branch, isolation.check(branch).layer(client))
    }

    type Checked<S> = watershed::test_util::Check<S>;

    #[track_caller]
    fn crossing<T: std::fmt::Debug>(result: Result<T, BoxError>) -> Crossing {
        let error = result.expect_err("a crossing");
        let crossed = cause_ref::<Crossed>(error.as_ref()).expect("a crossing");
        crossed.crossing.clone()
    }

    /// What Lura 2.6.1 did, in small: each branch writes its path into the one request that they share, other branches get
    /// their turn, and then it sends what the request says by then.
    #[derive(Clone)]
    struct SharesRequest<S> {
        shared: Arc<Mutex<Option<Request<TeeBody>>>>,
        path: &'static str,
        inner: S,
    }

    impl<S> SharesRequest<S> {
        fn layer(
            shared: &Arc<Mutex<Option<Request<TeeBody>>>>,
            path: &'static str,
        ) -> impl Layer<S, Service = Self> + use<S> {
            let shared = shared.clone();
            tower::layer::layer_fn(move |inner| Self {
                shared: shared.clone(),
                path,
                inner,
            })
        }
    }

    impl<S> Service<Request<TeeBody>> for SharesRequest<S>
    where
        S: Service<Request<TeeBody>> + Clone + Send + 'static,
        S::Future: Send,
    {
        type Response = S::Response;
        type Error = S::Error;
        type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

        fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
            Poll::Ready(Ok(()))
        }

        fn call(&mut self, mut request: Request<TeeBody>) -> Self::Future {
            let Self {
                shared,
                path,
                inner,
            } = self.clone();
            async move {
                *request.uri_mut() = path.parse().expect("a path");
                *shared.lock().unwrap() = Some(request);
                tokio::task::yield_now().await;
                let request = shared.lock().unwrap().clone().expect("set before");
                inner.oneshot(request).await
            }
            .boxed()
        }
    }

    async fn gather(
        branches: impl IntoIterator<Item = (&'static str, impl BranchService)>,
    ) -> Vec<(String, Result<Response<BoxBody>, BoxError>)> {
        let branches = branches.into_iter();
        let fan_out = FanOut::new(branches.map(|(name, service)| Branch::http(name, service)));
        let gather = fan_out
            .oneshot(Request::new(TeeBody::empty()))
            .await
            .unwrap();
        gather
            .map(|outcome| {
                let result = outcome.result.map_err(BoxError::from);
                (outcome.branch.name().to_owned(), result)
            })
            .collect()
            .await
    }

    trait BranchService:
        Service<
            Request<TeeBody>,
            Response = Response<ScriptedBody>,
            Error = BoxError,
            Future: Send + 'static,
        > + Clone
        + Send
        + Sync
        + 'static
    {
    }

    impl<S> BranchService for S where
        S: Service<
                Request<TeeBody>,
                Response = Response<ScriptedBody>,
                Error = BoxError,
                Future: Send + 'static,
            > + Clone
            + Send
            + Sync
            + 'static
    {
    }

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
        type Future =
            Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

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
}
