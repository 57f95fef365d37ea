//! Whole stacks: several blocks together, mounted, and against servers that speak HTTP in memory.

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio_test::{assert_pending, assert_ready, task};
use tower::limit::ConcurrencyLimitLayer;
use tower::util::MapRequestLayer;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use watershed::clone_request::{CloneRequest, CloneRequestLayer, TeeBody};
use watershed::error::BoxError;
use watershed::fanout::{FanOut, FanOutLayer};
use watershed::merge::{
    FirstSuccess, JsonMerge, JsonPartLayer, MergeLayer, PassthroughLayer, Quorum,
};
use watershed::outcome::Branch;
use watershed::rewrite::{PathParams, RewriteLayer, UriTemplate};
use watershed::test_util::{Reply, Scripted};
use watershed::timeout::ClientTimeoutLayer;

use support::{Answer, Feed, Hand, HttpBranch, MS, Stack, ask, get, merged, post, stack};

/// A branch of `client` with a method and a path of its own.
fn routed(name: &str, method: &Method, template: &str, client: &Scripted) -> HttpBranch {
    let method = method.clone();
    let service = ServiceBuilder::new()
        .layer(MapRequestLayer::new(
            move |mut request: Request<TeeBody>| {
                *request.method_mut() = method.clone();
                request
            },
        ))
        .layer(RewriteLayer::new(UriTemplate::new(template)))
        .service(client.clone());
    Branch::http(name, service)
}

fn with_id<B>(mut request: Request<B>, id: &str) -> Request<B> {
    request
        .extensions_mut()
        .insert(PathParams::from_iter([("id", id)]));
    request
}

mod isolation {
    use super::*;

    // L40, L41
    #[tokio::test]
    async fn every_branch_gets_its_own_path_and_the_whole_body() {
        use Method as M;
        for (incoming, methods) in [
            (M::POST, vec![M::POST, M::POST]),
            (M::POST, vec![M::POST, M::PUT, M::GET]),
            (M::POST, vec![M::GET, M::GET]),
            (M::GET, vec![M::GET, M::GET, M::DELETE]),
            (M::PUT, vec![M::PATCH, M::GET, M::POST, M::PUT]),
        ] {
            for length in [0, 1, 10, 100_000] {
                let body = "0123456789".repeat(length / 10 + 1)[..length].to_owned();
                let client = Scripted::echo();
                let branches = methods.iter().enumerate().map(|(index, method)| {
                    routed(
                        &format!("b{index}"),
                        method,
                        &format!("/b{index}/{{id}}"),
                        &client,
                    )
                });
                let service = merged(JsonMerge::group(), branches);
                let mut request = with_id(post("/in", body.clone()), "7");
                *request.method_mut() = incoming.clone();
                let answer = ask(&service, request).await;
                assert_eq!((answer.status, answer.complete()), (200, true));
                for (index, method) in methods.iter().enumerate() {
                    let part = &answer.json()[format!("b{index}")];
                    assert_eq!(part["method"], method.as_str());
                    assert_eq!(part["path"], format!("/b{index}/7"));
                    assert_eq!(part["body"], body);
                }
            }
        }
    }

    // L41
    #[tokio::test]
    async fn a_body_that_comes_in_pieces_is_whole_in_every_branch() {
        let client = Scripted::echo();
        let branches = (0..5).map(|index| routed(&format!("b{index}"), &Method::GET, "/", &client));
        let mut service = merged(JsonMerge::array(), branches);
        let (feed, body) = Feed::new();
        let mut call = task::spawn(service.call(Request::post("/").body(body).unwrap()));
        for piece in ["one,", "two,", "three"] {
            assert_pending!(call.poll());
            feed.data(piece);
            assert!(call.is_woken());
        }
        assert_pending!(call.poll());
        feed.end();
        let answer = Answer::read(assert_ready!(call.poll()).unwrap()).await;
        for part in answer.json().as_array().expect("an array") {
            assert_eq!(part["body"], "one,two,three");
        }
    }

    // L42
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn every_backend_is_asked_once_per_call_for_its_own_path() {
        let clients: Vec<_> = (0..3).map(|_| Scripted::echo()).collect();
        let branches = clients.iter().enumerate().map(|(index, client)| {
            routed(
                &format!("b{index}"),
                &Method::GET,
                &format!("/b{index}/{{id}}"),
                client,
            )
        });
        let service = merged(JsonMerge::group(), branches);
        let callers = (0..8).map(|caller| {
            let service = service.clone();
            tokio::spawn(async move {
                for call in 0..200 {
                    let id = format!("{caller}-{call}");
                    let answer = ask(&service, with_id(get("/"), &id)).await.json();
                    for index in 0..3 {
                        assert_eq!(
                            answer[format!("b{index}")]["path"],
                            format!("/b{index}/{id}")
                        );
                    }
                }
            })
        });
        for caller in join_all(callers).await {
            caller.expect("no path is another's");
        }
        for (index, client) in clients.iter().enumerate() {
            let mut paths: Vec<_> = client
                .calls()
                .iter()
                .map(|call| call.uri.to_string())
                .collect();
            let own = format!("/b{index}/");
            assert!(paths.len() == 1600 && paths.iter().all(|path| path.starts_with(&own)));
            paths.sort_unstable();
            paths.dedup();
            assert_eq!(paths.len(), 1600);
        }
    }

    // L43
    #[tokio::test(start_paused = true)]
    async fn what_a_branch_does_to_its_head_leaks_into_no_sibling() {
        let client = Scripted::echo();
        let edited = |index: usize| {
            let inner = client.clone();
            let service = service_fn(move |mut request: Request<TeeBody>| {
                let inner = inner.clone();
                async move {
                    // All of them at the same time, in several steps.
                    for step in 0..3 {
                        let value = HeaderValue::from(index * 10 + step);
                        request.headers_mut().append("x-own", value.clone());
                        request.headers_mut().insert("x-shared", value);
                        let uri = format!("/b{index}?step={step}&of={index}");
                        *request.uri_mut() = uri.parse().unwrap();
                        tokio::time::sleep(MS).await;
                    }
                    request.headers_mut().remove(format!("x-{index}"));
                    inner.oneshot(request).await
                }
            });
            Branch::http(format!("b{index}"), service)
        };
        let service = merged(JsonMerge::group(), (0..3).map(edited));
        let mut request = get("/?query=1");
        for name in ["x-0", "x-1", "x-2", "x-shared"] {
            request
                .headers_mut()
                .insert(name, HeaderValue::from_static("client"));
        }
        let answer = ask(&service, request).await.json();
        for index in 0..3 {
            let part = &answer[format!("b{index}")];
            assert_eq!(part["path"], format!("/b{index}"));
            assert_eq!(part["query"], format!("step=2&of={index}"));
            let own = |step: usize| (index * 10 + step).to_string();
            let mut expected = json!({
                "x-own": (0..3).map(own).collect::<Vec<_>>().join(", "),
                "x-shared": (index * 10 + 2).to_string(),
            });
            for other in (0..3).filter(|other| *other != index) {
                expected[format!("x-{other}")] = json!("client");
            }
            assert_eq!(part["headers"], expected);
        }
    }

    // L40
    #[tokio::test]
    async fn branches_over_one_client_differ_in_their_layers_only() {
        let client = Scripted::echo();
        let path = |path: &str| RewriteLayer::new(UriTemplate::new(path));
        let service = ServiceBuilder::new()
            .layer(CloneRequestLayer::new())
            .layer(MergeLayer::new(JsonMerge::group()))
            .layer(FanOutLayer::new([
                Branch::new("user", path("http://u.internal/users/{id}")),
                Branch::new("cart", path("http://c.internal/carts/{id}")),
            ]))
            .service(client.clone());
        let answer = ask(&service, with_id(get("/"), "7")).await.json();
        assert_eq!(answer["user"]["path"], "/users/7");
        assert_eq!(answer["cart"]["path"], "/carts/7");
        let hosts: Vec<_> = client
            .calls()
            .iter()
            .map(|call| call.uri.host().map(str::to_owned))
            .collect();
        assert_eq!(
            hosts,
            [Some("u.internal".to_owned()), Some("c.internal".to_owned())]
        );
    }
}

mod nesting {
    use super::*;

    // L06
    #[tokio::test]
    async fn a_merge_of_merges_is_complete_only_if_every_part_is() {
        for (status, complete) in [(200, true), (500, false)] {
            let inner = merged(
                JsonMerge::group(),
                [
                    Branch::http("a", Scripted::reply(Reply::json("1"))),
                    Branch::http("b", Scripted::reply(Reply::status(status).body("2"))),
                ],
            );
            let wired = inner.clone();
            let merges: [HttpBranch; 2] = [
                Branch::http("inner", inner),
                // As it comes over the wire: without the extension.
                Branch::http(
                    "wired",
                    service_fn(move |request: Request<TeeBody>| {
                        let wired = wired.clone();
                        async {
                            let mut response = wired.oneshot(request).await?;
                            response.extensions_mut().clear();
                            Ok::<_, Infallible>(response)
                        }
                    }),
                ),
            ];
            for branch in merges {
                let name = branch.name().to_owned();
                let outer = merged(JsonMerge::group(), [branch]);
                let answer = ask(&outer, get("/")).await;
                let parts = if complete {
                    json!({"a": 1, "b": 2})
                } else {
                    json!({"a": 1})
                };
                assert_eq!(
                    (answer.json(), answer.complete()),
                    (json!({name: parts}), complete)
                );
            }
        }
    }

    #[tokio::test]
    async fn bodies_pass_through_nested_tees() {
        let inner = || {
            merged(
                JsonMerge::group(),
                ["a", "b"].map(|name| Branch::http(name, Scripted::echo())),
            )
        };
        let outer = merged(
            JsonMerge::group(),
            ["x", "y"].map(|name| Branch::http(name, inner())),
        );
        let answer = ask(&outer, post("/", "body")).await.json();
        for (outer, inner) in [("x", "a"), ("x", "b"), ("y", "a"), ("y", "b")] {
            assert_eq!(answer[outer][inner]["body"], "body");
        }
    }

    // L12
    #[tokio::test(start_paused = true)]
    async fn nested_deadlines_answer_once_at_the_earliest() {
        for (outer, inner, takes) in [(100, 50, 50), (50, 100, 50), (50, 50, 50)] {
            let slow = || Branch::http("slow", Scripted::reply(Reply::hang()));
            let quick = || Branch::http("quick", Scripted::reply(Reply::json("1")));
            let within = |limit: u32| MergeLayer::new(JsonMerge::group()).within(MS * limit);
            let nested = stack(&within(inner), [slow(), quick()]);
            let service = stack(&within(outer), [Branch::http("inner", nested), quick()]);
            let start = tokio::time::Instant::now();
            let answer = ask(&service, get("/")).await;
            assert_eq!(
                (answer.status, answer.complete(), start.elapsed()),
                (200, false, MS * takes)
            );
            assert_eq!(answer.json()["quick"], 1);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_blocks_of_a_branch_compose_in_any_order() {
        let template = || RewriteLayer::new(UriTemplate::new("http://h/{id}"));
        let limited = || ConcurrencyLimitLayer::new(1);
        let timeout = || ClientTimeoutLayer::new(50 * MS);
        let shape = || JsonPartLayer::new().allow(["path"]);
        let client = || Scripted::reply(Reply::echo().after(10 * MS));
        let branches = [
            Branch::http(
                "a",
                ServiceBuilder::new()
                    .layer(shape())
                    .layer(template())
                    .layer(timeout())
                    .layer(limited())
                    .service(client()),
            ),
            Branch::http(
                "b",
                ServiceBuilder::new()
                    .layer(limited())
                    .layer(timeout())
                    .layer(template())
                    .layer(shape())
                    .service(client()),
            ),
            Branch::http(
                "c",
                ServiceBuilder::new()
                    .layer(timeout())
                    .layer(shape())
                    .layer(limited())
                    .layer(template())
                    .service(client()),
            ),
        ];
        let service = merged(JsonMerge::group(), branches);
        // The second call waits for the first, in each branch, and has time for it.
        let calls = (0..2).map(|id| ask(&service, with_id(get("/"), ["0", "1"][id])));
        for (id, answer) in join_all(calls).await.into_iter().enumerate() {
            let part = json!({"path": format!("/{id}")});
            assert_eq!(answer.json(), json!({"a": part, "b": part, "c": part}));
        }
    }
}

mod load {
    use super::*;

    type Replies = Hand<Response<Full<Bytes>>>;

    fn limited(hand: &Replies, calls: usize) -> Stack<JsonMerge, Replies> {
        let fan_out = FanOut::new([Branch::new("a", hand.clone())]).max_in_flight(calls);
        CloneRequest::new(MergeLayer::new(JsonMerge::group()).layer(fan_out))
    }

    #[tokio::test]
    async fn a_call_too_many_is_503_and_its_place_is_free_when_another_ends() {
        let hand = Replies::new();
        let service = limited(&hand, 1);
        for _ in 0..3 {
            let mut call = task::spawn(service.clone().call(get("/")));
            assert_pending!(call.poll());
            for _ in 0..2 {
                let answer = ask(&service, get("/")).await;
                answer.assert_problem(503);
                assert!(!answer.complete());
            }
            hand.finish(Response::new(Full::new(Bytes::from("7"))));
            // The answer is here, and its body unread.
            let held = assert_ready!(call.poll()).unwrap();
            let mut next = task::spawn(service.clone().call(get("/")));
            assert_pending!(next.poll());
            // A caller that leaves makes room as well.
            drop(next);
            assert_eq!(Answer::read(held).await.body, r#"{"a":7}"#);
        }
    }

    #[tokio::test]
    async fn a_call_counts_from_its_first_poll() {
        let hand = Replies::new();
        let service = limited(&hand, 1);
        let unpolled = service.clone().call(get("/"));
        let mut call = task::spawn(service.clone().call(get("/")));
        assert_pending!(call.poll());
        let late = Answer::read(unpolled.await.unwrap()).await;
        late.assert_problem(503);
    }

    #[tokio::test]
    async fn a_first_success_that_streams_has_left_its_place() {
        let fan_out = FanOut::new([Branch::http(
            "a",
            Scripted::reply(Reply::status(200).body("x").then_hang()),
        )])
        .max_in_flight(1);
        let service = CloneRequest::new(MergeLayer::new(FirstSuccess::new()).layer(fan_out));
        let first = service.clone().oneshot(get("/")).await.unwrap();
        let second = service.oneshot(get("/")).await.unwrap();
        assert_eq!(
            (first.status(), second.status()),
            (StatusCode::OK, StatusCode::OK)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn callers_that_leave_at_any_time_leave_nothing_behind() {
        let backends: Vec<_> = (0..3u32)
            .map(|index| {
                let reply = Reply::json("[1,2,3]")
                    .after(MS * (3 * index))
                    .body_after(MS * 2);
                Scripted::reply(reply).ready_after(MS * index)
            })
            .collect();
        let branch = |(index, backend): (usize, &Scripted)| {
            let limited = ConcurrencyLimitLayer::new(40).layer(backend.clone());
            Branch::http(format!("b{index}"), limited)
        };
        let fan_out = FanOut::new(backends.iter().enumerate().map(branch)).max_in_flight(30);
        let service = CloneRequest::new(MergeLayer::new(JsonMerge::group()).layer(fan_out));
        let (mut answered, mut left) = (0, 0);
        for round in 0..200u32 {
            let calls = (0..20u32).map(|caller| {
                let patience = MS * ((round * 7 + caller * 13) % 14);
                tokio::time::timeout(patience, ask(&service, post("/", "body")))
            });
            for answer in join_all(calls).await {
                match answer {
                    Ok(answer) => {
                        assert_eq!((answer.status, answer.complete()), (200, true));
                        answered += 1;
                    }
                    Err(_) => left += 1,
                }
            }
        }
        assert!(answered > 500 && left > 500, "{answered} {left}");
        for backend in &backends {
            assert_eq!(backend.in_flight(), 0);
            assert_eq!(backend.started(), backend.finished() + backend.dropped());
        }
        // Every place is free again, of the fan-out and of the branches' own limits.
        let calls = (0..30).map(|_| ask(&service, get("/")));
        for answer in join_all(calls).await {
            assert_eq!((answer.status, answer.complete()), (200, true));
        }
    }

    #[tokio::test]
    async fn dropping_a_call_drops_all_that_it_holds() {
        let backends: Vec<_> = (0..3).map(|_| Scripted::reply(Reply::hang())).collect();
        let branches = backends
            .iter()
            .enumerate()
            .map(|(index, backend)| Branch::http(format!("b{index}"), backend.clone()));
        let mut service = merged(JsonMerge::group(), branches);
        let (feed, body) = Feed::new();
        feed.data("x");
        let mut call = task::spawn(service.call(Request::post("/").body(body).unwrap()));
        assert_pending!(call.poll());
        assert!(!feed.is_dropped());
        drop(call);
        assert!(feed.is_dropped());
        assert!(
            backends
                .iter()
                .all(|backend| (backend.started(), backend.dropped()) == (1, 1))
        );
    }
}

mod mounting {
    use super::*;

    #[tokio::test]
    async fn a_merge_mounts_in_axum_as_it_is() {
        let client = Scripted::echo();
        let dashboard = merged(
            JsonMerge::group(),
            [routed("a", &Method::GET, "/a/{id}", &client)],
        );
        let any = merged(FirstSuccess::new(), [Branch::http("a", client.clone())]);
        let most = merged(Quorum::majority(), [Branch::http("a", client.clone())]);
        let one = PassthroughLayer::new().layer(client.clone());
        // The router's parameters, handed over.
        let params = tower::util::MapRequestLayer::new(|request: Request<axum::body::Body>| {
            with_id(request, "7")
        });
        let router = axum::Router::new()
            .route("/dash", axum::routing::get_service(params.layer(dashboard)))
            .route_service("/any", any)
            .route_service("/most", most)
            .fallback_service(one);
        let request = |method: Method, uri: &str| {
            let body = axum::body::Body::empty();
            Request::builder()
                .method(method)
                .uri(uri)
                .body(body)
                .unwrap()
        };
        for uri in ["/dash", "/any", "/most", "/other"] {
            let response = router
                .clone()
                .oneshot(request(Method::GET, uri))
                .await
                .unwrap();
            assert_eq!(response.status(), 200);
            let answer = Answer::read(response).await.json();
            let path = if uri == "/dash" {
                &answer["a"]["path"]
            } else {
                &answer["path"]
            };
            assert_eq!(path, if uri == "/dash" { "/a/7" } else { uri });
        }
        // L49
        let response = router
            .oneshot(request(Method::POST, "/dash"))
            .await
            .unwrap();
        assert_eq!(response.status(), 405);
    }
}

/// Speaks HTTP/1.1 with `service` over a pipe: says `request`, and returns what it hears until `until` has come.
struct Caller {
    io: DuplexStream,
    heard: Vec<u8>,
}

impl Caller {
    fn of<S, B>(service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + 'static,
        S::Future: Send,
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (io, server) = tokio::io::duplex(1 << 16);
        let service = TowerToHyperService::new(service);
        tokio::spawn(
            hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(server), service),
        );
        Self {
            io,
            heard: Vec::new(),
        }
    }

    async fn say(&mut self, text: &str) {
        self.io
            .write_all(text.as_bytes())
            .await
            .expect("it listens");
    }

    /// Waits for `text`, and returns what was heard so far.
    async fn hear(&mut self, text: &str) -> String {
        loop {
            let heard = String::from_utf8_lossy(&self.heard).into_owned();
            if heard.contains(text) {
                return heard;
            }
            let read = self.io.read_buf(&mut self.heard);
            let read = tokio::time::timeout(Duration::from_secs(60), read).await;
            let read = read.unwrap_or_else(|_| panic!("still waits for {text:?}: {heard}"));
            assert!(
                read.expect("it speaks") > 0,
                "it ended before {text:?}: {heard}"
            );
        }
    }
}

mod expecting {
    use super::*;

    const HEAD: &str =
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 4\r\nexpect: 100-continue\r\n\r\n";

    // B21
    #[tokio::test(start_paused = true)]
    async fn a_client_that_waits_for_100_is_told_to_go_on_when_a_branch_reads() {
        let client = Scripted::echo();
        let branches = ["a", "b"].map(|name| Branch::http(name, client.clone()));
        let mut caller = Caller::of(merged(JsonMerge::group(), branches));
        caller.say(HEAD).await;
        assert_eq!(
            caller.hear("\r\n\r\n").await,
            "HTTP/1.1 100 Continue\r\n\r\n"
        );
        assert!(client.calls().iter().all(|call| call.body.is_none()));
        caller.say("body").await;
        let heard = caller.hear("}}").await;
        assert!(heard.contains("HTTP/1.1 200 OK\r\n"), "{heard}");
        assert_eq!(heard.matches(r#""body":"body""#).count(), 2, "{heard}");
        // We have answered it: the branches must not wait for one of their own.
        assert!(
            client
                .calls()
                .iter()
                .all(|call| !call.headers.contains_key("expect"))
        );
    }

    // B21
    #[tokio::test(start_paused = true)]
    async fn a_body_that_nobody_reads_is_not_asked_for() {
        let client = Scripted::reply(Reply::json("1")).reads_request_body(false);
        let branches = ["a", "b"].map(|name| Branch::http(name, client.clone()));
        let mut caller = Caller::of(merged(JsonMerge::group(), branches));
        caller.say(HEAD).await;
        let heard = caller.hear(r#"{"a":1,"b":1}"#).await;
        assert!(heard.starts_with("HTTP/1.1 200 OK\r\n"), "{heard}");
    }

    // B21
    #[tokio::test(start_paused = true)]
    async fn a_get_with_a_body_stalls_nobody() {
        let reads = Scripted::echo();
        let ignores = Scripted::reply(Reply::json("1")).reads_request_body(false);
        let branches = [
            Branch::http("reads", reads),
            Branch::http("ignores", ignores),
        ];
        let mut caller = Caller::of(merged(JsonMerge::group(), branches));
        caller.say("GET / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n").await;
        let heard = caller.hear(r#""ignores":1}"#).await;
        assert!(
            heard.contains(r#""method":"GET""#) && heard.contains(r#""body":"body""#),
            "{heard}"
        );
    }

    // B21
    #[test]
    fn a_body_is_not_polled_until_somebody_reads_it() {
        let hands = Hand::<Response<Full<Bytes>>>::several(2);
        let reading = Hand::<()>::new();
        let reads = {
            let reading = reading.clone();
            service_fn(move |request: Request<TeeBody>| {
                let reading = reading.clone();
                async move {
                    reading.oneshot(()).await?;
                    let body = request.into_body().collect().await?.to_bytes();
                    Ok::<_, BoxError>(Response::new(Full::new(body)))
                }
            })
        };
        let branches = [
            Branch::http("x", hands[0].clone()),
            Branch::http("reads", reads),
            Branch::http("y", hands[1].clone()),
        ];
        let (feed, body) = Feed::new();
        feed.data("7");
        feed.end();
        let mut service = merged(JsonMerge::array(), branches);
        let mut call = task::spawn(service.call(Request::get("/").body(body).unwrap()));
        assert_pending!(call.poll());
        hands[0].finish(Response::new(Full::new(Bytes::from("0"))));
        assert_pending!(call.poll());
        assert_eq!(feed.polls(), 0);
        reading.finish(());
        assert_pending!(call.poll());
        assert!(feed.polls() > 0);
        hands[1].finish(Response::new(Full::new(Bytes::from("9"))));
        let answer = tokio_test::block_on(Answer::read(assert_ready!(call.poll()).unwrap()));
        answer.assert_document("[0,7,9]", true);
    }

    // B24
    #[tokio::test(start_paused = true)]
    async fn the_answer_to_head_is_framed_as_it_should_be() {
        let branches = [Branch::http(
            "a",
            Scripted::reply(Reply::json(r#"{"k":1}"#)),
        )];
        let mut caller = Caller::of(merged(JsonMerge::group(), branches));
        // Two on one connection: the second would be read as the first one's body.
        caller
            .say("HEAD / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await;
        let heard = caller.hear(r#"{"a":{"k":1}}"#).await;
        assert_eq!(heard.matches("HTTP/1.1 200 OK\r\n").count(), 2, "{heard}");
        assert_eq!(
            heard.matches("content-length: 13\r\n").count(),
            2,
            "{heard}"
        );
        assert_eq!(heard.matches(r#"{"a""#).count(), 1, "{heard}");
    }
}

mod wire {
    use super::*;

    /// A backend behind a pipe that answers these bytes and then closes it, and the number of its calls.
    fn speaking(bytes: &'static [u8]) -> (HttpBranch, Arc<AtomicUsize>) {
        let calls = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&calls);
        let service = service_fn(move |request: Request<TeeBody>| {
            counted.fetch_add(1, Ordering::Relaxed);
            async move {
                let (client, mut server) = tokio::io::duplex(1 << 16);
                tokio::spawn(async move {
                    let mut heard = Vec::new();
                    while !heard.windows(4).any(|window| window == b"\r\n\r\n") {
                        if server.read_buf(&mut heard).await.unwrap_or(0) == 0 {
                            return;
                        }
                    }
                    let _ = server.write_all(bytes).await;
                });
                let io = TokioIo::new(client);
                let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await?;
                tokio::spawn(connection);
                sender.send_request(request).await
            }
        });
        (Branch::http("y", service), calls)
    }

    fn within<M>(merge: M) -> MergeLayer<M> {
        MergeLayer::new(merge).within(Duration::from_secs(60))
    }

    fn good() -> HttpBranch {
        Branch::http("x", Scripted::reply(Reply::json("1")))
    }

    // B22, B24, B28
    #[tokio::test(start_paused = true)]
    async fn what_is_legal_is_read_as_what_it_is() {
        for (bytes, part) in [
            (&b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2"[..], "2"),
            (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n[\r\n1\r\n]\r\n0\r\n\r\n", "[]"),
            (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n2", "2"),
            (b"HTTP/1.0 200 OK\r\n\r\n2", "2"),
            (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2", "2"),
            (b"HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 1\r\n\r\n2", "2"),
            // No body is read where there can be none.
            (b"HTTP/1.1 204 No Content\r\ncontent-length: 9\r\n\r\nnot here!", "null"),
            (b"HTTP/1.1 204 No Content\r\n\r\n", "null"),
            (b"HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\n\r\n", "null"),
            // What comes behind a body is another's answer, and not for us.
            (b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n2HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n3", "2"),
        ] {
            let service = stack(&within(JsonMerge::group()), [good(), speaking(bytes).0]);
            ask(&service, get("/"))
                .await
                .assert_document(&format!(r#"{{"x":1,"y":{part}}}"#), true);
        }
    }

    // L21, B26, B27
    #[tokio::test(start_paused = true)]
    async fn what_is_broken_is_a_failed_branch_and_never_merged() {
        for bytes in [
            // The connection ends before there is an answer, or in the midst of it.
            &b""[..],
            b"HTTP/1.1 2",
            b"HTTP/1.1 200 OK\r\ncontent-le",
            // B27: a body that is cut short, though what has come is a document.
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n2",
            b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{\"a\":1}",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\n2\r\n",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\n2",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n2\r\n0\r\n\r\n",
            // B26
            b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n22",
            b"HTTP/1.1 200 OK\r\ncontent-length: 1, 2\r\n\r\n22",
            b"HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\n2",
            b"HTTP/1.1 200 OK\r\nx-a: 1\r\n  2\r\ncontent-length: 1\r\n\r\n2",
            b"HTTP/1.1 200 OK\r\nx a: 1\r\ncontent-length: 1\r\n\r\n2",
            // It is no HTTP, no JSON, nothing, or no success.
            b"SSH-2.0-OpenSSH_9.6\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1\r\n\r\n",
            b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 1\r\n\r\n2",
        ] {
            let shown = String::from_utf8_lossy(bytes);
            let (branch, calls) = speaking(bytes);
            let service = stack(&within(JsonMerge::group()), [good(), branch.clone()]);
            let answer = ask(&service, get("/")).await;
            assert_eq!(
                (&*answer.body, answer.complete()),
                (r#"{"x":1}"#, false),
                "{shown}"
            );
            let service = stack(
                &within(JsonMerge::group()),
                [good(), branch.clone().required()],
            );
            let problem = ask(&service, get("/")).await.assert_problem(502);
            assert_eq!(problem["branch"], "y", "{shown}");
            // It is asked once each time, and never again behind our back.
            assert_eq!(calls.load(Ordering::Relaxed), 2);
            // Another replica answers instead.
            let collected = within(FirstSuccess::new().collected(99));
            let slow = Branch::http(
                "x",
                Scripted::reply(Reply::json("1").after(Duration::from_secs(1))),
            );
            let answer = ask(&stack(&collected, [branch, slow]), get("/")).await;
            if !bytes.starts_with(b"HTTP/1.1 200 OK\r\ncontent-length: 0")
                && !bytes.ends_with(b"hello")
            {
                assert_eq!((answer.status, &*answer.body), (200, "1"), "{shown}");
            }
        }
    }

    // L21
    #[tokio::test(start_paused = true)]
    async fn a_backend_that_never_answers_is_late() {
        let silent = service_fn(|request: Request<TeeBody>| async move {
            let (client, server) = tokio::io::duplex(1 << 16);
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(client)).await?;
            tokio::spawn(connection);
            let response = sender.send_request(request).await;
            drop(server);
            response
        });
        let service = stack(&within(JsonMerge::group()), [Branch::http("y", silent)]);
        ask(&service, get("/")).await.assert_problem(504);
    }
}
