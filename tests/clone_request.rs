//! What a cloneable request promises: heads that share nothing, and a body that every reader reads whole, at its own pace.

mod support;

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use proptest::prelude::*;
use tokio_test::{assert_pending, assert_ready, task};
use tower::{Layer, ServiceExt, service_fn};
use watershed::body::BoxBody;
use watershed::clone_request::{CloneRequestLayer, HeadPolicy, TeeBody, TeeError};
use watershed::deadline::Deadline;
use watershed::error::{BoxError, ClientFault, cause_ref};
use watershed::proxy_headers::Peer;
use watershed::rewrite::PathParams;

use support::{Answer, Feed, Hand};

/// A reader that the test polls.
struct Reader {
    task: task::Spawn<TeeBody>,
}

#[derive(Debug, Clone, PartialEq)]
enum Got {
    Data(Bytes),
    Trailers(HeaderMap),
    Error(http::StatusCode),
    End,
}

impl Reader {
    fn new(body: TeeBody) -> Self {
        Self {
            task: task::spawn(body),
        }
    }

    fn poll(&mut self) -> Poll<Got> {
        self.task.enter(|cx, body| {
            body.poll_frame(cx).map(|frame| match frame {
                None => Got::End,
                Some(Err(error)) => Got::Error(fault(&error).status()),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Got::Data(data),
                    Err(frame) => Got::Trailers(frame.into_trailers().expect("trailers")),
                },
            })
        })
    }

    #[track_caller]
    fn assert_data(&mut self, expected: &str) {
        let data = Got::Data(Bytes::copy_from_slice(expected.as_bytes()));
        assert_eq!(self.poll(), Poll::Ready(data));
    }

    #[track_caller]
    fn assert_end(&mut self) {
        for _ in 0..2 {
            assert_eq!(self.poll(), Poll::Ready(Got::End));
        }
    }

    fn is_woken(&self) -> bool {
        self.task.is_woken()
    }
}

impl Clone for Reader {
    fn clone(&self) -> Self {
        Self::new((*self.task).clone())
    }
}

fn fault(error: &TeeError) -> ClientFault {
    cause_ref::<ClientFault>(error)
        .expect("the client's fault")
        .clone()
}

fn readers<const N: usize>(body: impl Into<TeeBody>) -> [Reader; N] {
    let body = body.into();
    std::array::from_fn(|_| Reader::new(body.clone()))
}

fn frames<const N: usize>(
    frames: [&'static str; N],
) -> impl Body<Data = Bytes, Error = Infallible> + Send + 'static {
    let frames = frames.map(|frame| Ok(Frame::data(Bytes::from_static(frame.as_bytes()))));
    StreamBody::new(futures_util::stream::iter(frames))
}

mod head {
    use super::*;

    /// What the service behind the layer is called with.
    async fn behind<B>(layer: CloneRequestLayer, request: Request<B>) -> Request<TeeBody>
    where
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let service = layer.layer(service_fn(move |request: Request<TeeBody>| {
            sender.send(request).expect("somebody waits");
            async { Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new())) }
        }));
        service.oneshot(request).await.expect("no error");
        receiver.try_recv().expect("the service was called")
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[derive(Debug, Clone, PartialEq)]
    struct Tenant(u32);

    // L39, L43
    #[tokio::test]
    async fn a_clone_and_its_origin_share_nothing() {
        let mut request = Request::post("http://one.internal/a?b=1")
            .header("x-a", "1")
            .header("x-a", "2")
            .header("x-b", "3")
            .body(Full::new(Bytes::from("body")))
            .unwrap();
        request.extensions_mut().insert(Tenant(1));
        let layer = CloneRequestLayer::new().head(HeadPolicy::default().extension::<Tenant>());
        let origin = behind(layer, request).await;

        let change = |request: &mut Request<TeeBody>| {
            *request.method_mut() = Method::PUT;
            *request.uri_mut() = "http://other.internal/x?y".parse().unwrap();
            *request.version_mut() = Version::HTTP_2;
            request.headers_mut().remove("x-a");
            request
                .headers_mut()
                .append("x-b", HeaderValue::from_static("4"));
            request
                .headers_mut()
                .insert("x-c", HeaderValue::from_static("5"));
            request.extensions_mut().get_mut::<Tenant>().unwrap().0 = 2;
            request.extensions_mut().insert(7u8);
        };
        let assert_unchanged = |request: &Request<TeeBody>| {
            assert_eq!(request.method(), Method::POST);
            assert_eq!(request.uri(), "http://one.internal/a?b=1");
            assert_eq!(request.version(), Version::HTTP_11);
            assert_eq!(names(request.headers()), ["x-a", "x-b"]);
            let lines: Vec<_> = request.headers().get_all("x-a").iter().collect();
            assert_eq!(lines, ["1", "2"]);
            assert_eq!(request.headers().get_all("x-b").iter().count(), 1);
            assert_eq!(request.extensions().get(), Some(&Tenant(1)));
            assert_eq!(request.extensions().get::<u8>(), None);
        };

        // Whichever of them is changed.
        let mut clone = origin.clone();
        let sibling = origin.clone();
        change(&mut clone);
        assert_unchanged(&origin);
        assert_unchanged(&sibling);
        let mut origin = origin;
        change(&mut origin);
        assert_unchanged(&sibling);
        for request in [origin, clone, sibling] {
            let body = request.into_body().collect().await.expect("no error");
            assert_eq!(body.to_bytes(), "body");
        }
    }

    // B09
    #[tokio::test]
    async fn fields_of_the_connection_and_the_length_are_not_cloned() {
        let request = Request::post("/")
            .header("connection", "close, X-One")
            .header("connection", "x-two")
            .header("x-one", "1")
            .header("x-two", "2")
            .header("keep-alive", "timeout=5")
            .header("proxy-connection", "close")
            .header("proxy-authorization", "Basic eDp5")
            .header("te", "trailers")
            .header("transfer-encoding", "chunked")
            .header("upgrade", "h2c")
            .header("content-length", "4")
            .header("content-type", "text/plain")
            .header("x-end", "1")
            .body(Full::new(Bytes::from("body")))
            .unwrap();
        let seen = behind(CloneRequestLayer::new(), request).await;
        assert_eq!(names(seen.headers()), ["content-type", "x-end"]);
        // The length is the body's to say.
        assert_eq!(seen.body().size_hint().exact(), Some(4));
    }

    // B07
    #[tokio::test]
    async fn the_caller_can_not_have_a_protected_field_removed() {
        let user = HeaderName::from_static("x-auth-user");
        let request = Request::get("/")
            .header("connection", "X-Auth-User, x-hop, host, content-type")
            .header("x-auth-user", "7")
            .header("x-hop", "1")
            .header("host", "a.test")
            .header("content-type", "text/plain")
            .body(Empty::new())
            .unwrap();
        let policy = HeadPolicy::end_to_end().protect([user]);
        let seen = behind(CloneRequestLayer::new().head(policy), request).await;
        assert_eq!(
            names(seen.headers()),
            ["content-type", "host", "x-auth-user"]
        );
    }

    #[tokio::test]
    async fn an_allow_list_keeps_its_fields_and_the_content_type() {
        let request = || {
            Request::post("/")
                .header(ACCEPT, "a")
                .header(ACCEPT, "b")
                .header(AUTHORIZATION, "secret")
                .header(CONTENT_TYPE, "text/plain")
                .header(CONTENT_LENGTH, "0")
                .header("connection", "x-hop")
                .header("x-hop", "1")
                .body(Empty::new())
                .unwrap()
        };
        let x_hop = HeaderName::from_static("x-hop");
        for (allowed, kept) in [
            (vec![], &["content-type"][..]),
            (vec![ACCEPT], &["accept", "content-type"]),
            (
                vec![ACCEPT, ACCEPT, CONTENT_TYPE],
                &["accept", "content-type"],
            ),
            // What concerns the connection is never kept, listed or not.
            (
                vec![AUTHORIZATION, CONTENT_LENGTH, x_hop],
                &["authorization", "content-type"],
            ),
        ] {
            let layer = CloneRequestLayer::new().head(HeadPolicy::allow(allowed));
            let seen = behind(layer, request()).await;
            assert_eq!(names(seen.headers()), kept);
            if kept.contains(&"accept") {
                let lines: Vec<_> = seen.headers().get_all(ACCEPT).iter().collect();
                assert_eq!(lines, ["a", "b"]);
            }
        }
    }

    // B11
    #[tokio::test]
    async fn trailers_are_held_to_the_policy_as_well() {
        let x_sum = HeaderName::from_static("x-sum");
        for (policy, kept) in [
            (HeadPolicy::end_to_end(), &["x-other", "x-sum"][..]),
            (HeadPolicy::allow([x_sum, AUTHORIZATION]), &["x-sum"]),
            (HeadPolicy::allow([]), &[]),
        ] {
            let (feed, body) = Feed::new();
            let trailers = [
                "x-sum",
                "x-other",
                "authorization",
                "cookie",
                "content-length",
                "content-type",
                "transfer-encoding",
                "connection",
                "host",
                "te",
                "trailer",
                "if-match",
                "x-forwarded-for",
            ];
            let value = || HeaderValue::from_static("1");
            let trailers = trailers.map(|name| (HeaderName::from_static(name), value()));
            feed.data("body");
            feed.trailers(HeaderMap::from_iter(trailers));
            feed.end();
            let request = Request::post("/").body(body).unwrap();
            let seen = behind(CloneRequestLayer::new().head(policy), request).await;
            for body in [seen.body().clone(), seen.into_body()] {
                let read = body.collect().await.expect("no error");
                let trailers = read.trailers().cloned().unwrap_or_default();
                assert_eq!(names(&trailers), kept);
                assert_eq!(read.to_bytes(), "body");
            }
        }
    }

    #[tokio::test]
    async fn of_the_extensions_only_plain_values_and_named_ones_are_kept() {
        let request = || {
            let mut request = Request::get("/").body(Empty::new()).unwrap();
            let extensions = request.extensions_mut();
            extensions.insert(Deadline::NEVER);
            extensions.insert(PathParams::from_iter([("id", "7")]));
            extensions.insert(Peer::new(([127, 0, 0, 1], 80).into()));
            extensions.insert(Tenant(1));
            extensions.insert(Arc::new(std::sync::Mutex::new(0)));
            request
        };
        for (layer, tenant) in [
            (CloneRequestLayer::new(), None),
            (
                CloneRequestLayer::new().head(HeadPolicy::end_to_end().extension::<Tenant>()),
                Some(&Tenant(1)),
            ),
            (
                CloneRequestLayer::new().head(HeadPolicy::allow([]).extension::<Tenant>()),
                Some(&Tenant(1)),
            ),
        ] {
            let seen = behind(layer, request()).await;
            let extensions = seen.extensions();
            assert_eq!(extensions.get(), Some(&Deadline::NEVER));
            let params = extensions.get::<PathParams>().expect("kept");
            assert_eq!(params.get("id"), Some("7"));
            assert!(extensions.get::<Peer>().is_some());
            assert_eq!(extensions.get(), tenant);
            assert!(extensions.get::<Arc<std::sync::Mutex<i32>>>().is_none());
        }
    }
}

mod limit {
    use super::*;

    async fn collect(body: TeeBody) -> Result<Bytes, TeeError> {
        body.collect()
            .await
            .map(http_body_util::Collected::to_bytes)
    }

    #[tokio::test]
    async fn it_is_exact_whatever_the_frames() {
        for limit in [0u64, 1, 5, 6, 7, 100] {
            let fits = limit >= 6;
            let bodies = [
                TeeBody::new(Full::new(Bytes::from("abcdef")), limit),
                TeeBody::new(frames(["abcdef"]), limit),
                TeeBody::new(frames(["a", "b", "", "cde", "f"]), limit),
                TeeBody::new(frames(["abcde", "", "f"]), limit),
            ];
            for body in bodies {
                let late = body.clone();
                for body in [body.clone(), body, late] {
                    match collect(body).await {
                        Ok(bytes) => assert!(fits && bytes == "abcdef"),
                        Err(error) => {
                            assert!(!fits, "{limit}");
                            assert_eq!(fault(&error), ClientFault::too_large(limit));
                            assert_eq!(fault(&error).status(), 413);
                            assert!(error.cause().is_none());
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn a_frame_over_the_limit_is_an_error_and_never_a_part_of_it() {
        let (feed, body) = Feed::new();
        let [mut one, mut two] = readers(TeeBody::new(body, 3));
        feed.data("ab");
        one.assert_data("ab");
        feed.data("cd");
        let too_large = Poll::Ready(Got::Error(http::StatusCode::PAYLOAD_TOO_LARGE));
        assert_eq!(one.poll(), too_large);
        one.assert_end();
        // Nothing more is read, and what was kept is given up.
        assert!(feed.is_dropped());
        assert_eq!(two.poll(), too_large);
        two.assert_end();
        // To a clone it must not look as if the body had ended well.
        let mut late = two.clone();
        assert_eq!(late.poll(), too_large);
        late.assert_end();
    }

    // CVE-2024-43783
    #[tokio::test]
    async fn what_announces_too_much_is_answered_unread() {
        for (length, limit) in [(7, 6), (1, 0), (1 << 40, 1 << 20), (u64::MAX, 6)] {
            let (feed, body) = Feed::announcing(length);
            let inner = Hand::<Response<Empty<Bytes>>>::new();
            let service = CloneRequestLayer::new().limit(limit).layer(inner.clone());
            let request = Request::post("/").body(body).unwrap();
            let answer = Answer::read(service.oneshot(request).await.unwrap()).await;
            let problem = answer.assert_problem(413);
            let detail = format!("the request body is larger than {limit} bytes");
            assert_eq!(problem["detail"], detail);
            assert_eq!((inner.calls(), feed.polls()), (0, 0));
            assert!(feed.is_dropped());
        }
    }

    #[tokio::test]
    async fn what_announces_just_enough_is_passed_on() {
        let service = service_fn(|request: Request<TeeBody>| async {
            let body = request.into_body().collect().await.expect("no error");
            Ok::<_, Infallible>(Response::new(Full::new(body.to_bytes())))
        });
        for (length, limit) in [(0, 0), (6, 6), (1 << 20, 1 << 20)] {
            let service = CloneRequestLayer::new().limit(limit).layer(service);
            let body = Full::new(Bytes::from(vec![b'x'; length]));
            let request = Request::post("/").body(body).unwrap();
            let answer = Answer::read(service.oneshot(request).await.unwrap()).await;
            assert_eq!((answer.status, answer.body.len()), (200, length));
        }
    }

    #[tokio::test]
    async fn the_default_is_one_mebibyte() {
        let inner = Hand::new();
        let service = CloneRequestLayer::new().layer(inner.clone());
        for (length, calls) in [((1 << 20) + 1, 0), (1 << 20, 1)] {
            inner.finish(Response::new(Empty::<Bytes>::new()));
            let (_feed, body) = Feed::announcing(length);
            let request = Request::post("/").body(body).unwrap();
            service.clone().oneshot(request).await.unwrap();
            assert_eq!(inner.calls(), calls);
        }
    }
}

mod reading {
    use super::*;

    // L39, L40
    #[test]
    fn readers_read_the_same_at_their_own_speed() {
        let (feed, body) = Feed::new();
        let [mut quick, mut slow, mut idle] = readers(TeeBody::new(body, 100));
        for text in ["one", "two", "three"] {
            assert_pending!(quick.poll());
            feed.data(text);
            assert!(quick.is_woken());
            quick.assert_data(text);
        }
        slow.assert_data("one");
        feed.end();
        quick.assert_end();
        slow.assert_data("two");
        slow.assert_data("three");
        slow.assert_end();
        for text in ["one", "two", "three"] {
            idle.assert_data(text);
        }
        idle.assert_end();
    }

    #[test]
    fn nothing_is_read_before_a_reader_asks() {
        let (feed, body) = Feed::new();
        feed.data("one");
        let [mut one, _two] = readers(TeeBody::new(body, 100));
        assert_eq!(feed.polls(), 0);
        one.assert_data("one");
        assert_eq!(feed.polls(), 1);
    }

    #[test]
    fn a_clone_starts_where_its_parent_stands() {
        let (feed, body) = Feed::new();
        let [mut first] = readers(TeeBody::new(body, 100));
        let whole = first.clone();
        feed.data("one");
        feed.data("two");
        first.assert_data("one");
        let after_one = first.clone();
        first.assert_data("two");
        let after_two = first.clone();
        feed.data("three");
        feed.end();
        let after_two_again = first.clone();
        first.assert_data("three");
        let after_three = first.clone();
        first.assert_end();
        for (mut reader, left) in [
            (whole, &["one", "two", "three"][..]),
            (after_one, &["two", "three"]),
            (after_two, &["three"]),
            (after_two_again, &["three"]),
            (after_three, &[]),
            (first.clone(), &[]),
        ] {
            for text in left {
                reader.assert_data(text);
            }
            reader.assert_end();
        }
    }

    #[test]
    fn a_clone_of_a_reader_that_is_gone_still_reads() {
        let (feed, body) = Feed::new();
        let [mut parent] = readers(TeeBody::new(body, 100));
        feed.data("one");
        parent.assert_data("one");
        let mut clone = parent.clone();
        drop(parent);
        feed.data("two");
        feed.end();
        clone.assert_data("two");
        clone.assert_end();
    }

    #[test]
    fn trailers_reach_every_reader() {
        for data in [&["one", "two"][..], &[]] {
            let (feed, body) = Feed::new();
            let [mut one, mut two] = readers(TeeBody::new(body, 100));
            let mut trailers = HeaderMap::new();
            trailers.insert("x-sum", HeaderValue::from_static("7"));
            trailers.append("x-sum", HeaderValue::from_static("8"));
            for text in data {
                feed.data(*text);
            }
            feed.trailers(trailers.clone());
            feed.end();
            for text in data {
                one.assert_data(text);
            }
            let late = one.clone();
            let trailers = Poll::Ready(Got::Trailers(trailers));
            assert_eq!(one.poll(), trailers);
            one.assert_end();
            let later = two.clone();
            for text in data {
                two.assert_data(text);
            }
            assert_eq!(two.poll(), trailers);
            two.assert_end();
            let mut late = late;
            assert_eq!(late.poll(), trailers);
            late.assert_end();
            let mut later = later;
            for text in data {
                later.assert_data(text);
            }
            assert_eq!(later.poll(), trailers);
        }
    }

    #[test]
    fn empty_frames_are_not_handed_on() {
        let (feed, body) = Feed::new();
        let [mut one, mut two] = readers(TeeBody::new(body, 100));
        for text in ["", "one", "", ""] {
            feed.data(text);
        }
        feed.end();
        for reader in [&mut one, &mut two] {
            reader.assert_data("one");
            reader.assert_end();
        }
    }

    // L39
    #[test]
    fn a_failure_reaches_every_reader() {
        let (feed, body) = Feed::new();
        let [mut ahead, mut behind, mut waiting] = readers(TeeBody::new(body, 100));
        feed.data("one");
        ahead.assert_data("one");
        waiting.assert_data("one");
        assert_pending!(ahead.poll());
        assert_pending!(waiting.poll());
        feed.fail(io::Error::other("reset by 10.0.0.7"));
        assert!(ahead.is_woken() && waiting.is_woken());
        let mut unborn = behind.clone();
        for reader in [&mut ahead, &mut behind, &mut waiting, &mut unborn] {
            assert_eq!(
                reader.poll(),
                Poll::Ready(Got::Error(http::StatusCode::BAD_REQUEST))
            );
            reader.assert_end();
        }
        assert!(feed.is_dropped());
    }

    #[tokio::test]
    async fn the_error_tells_its_cause_and_whose_fault_it_is() {
        let (feed, body) = Feed::new();
        feed.fail(io::Error::new(io::ErrorKind::BrokenPipe, "cut"));
        let body = TeeBody::new(body, 100);
        for body in [body.clone(), body] {
            let error = body.collect().await.expect_err("it fails");
            let cause = error.cause().expect("a cause");
            let cause = cause.downcast_ref::<io::Error>().expect("as it was");
            assert_eq!(cause.kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(error.to_string(), "the request body could not be read: cut");
            assert_eq!(fault(&error).status(), 400);
        }
    }

    #[test]
    fn a_source_that_panics_fails_its_readers() {
        struct Panics;

        impl Body for Panics {
            type Data = Bytes;
            type Error = Infallible;

            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                panic!("on purpose");
            }
        }

        let [mut one, mut two] = readers(TeeBody::new(Panics, 100));
        for reader in [&mut one, &mut two] {
            assert!(matches!(reader.poll(), Poll::Ready(Got::Error(_))));
            reader.assert_end();
        }
    }

    #[test]
    fn the_source_goes_when_it_has_ended_or_with_its_last_reader() {
        let (feed, body) = Feed::new();
        let [mut one, two] = readers(TeeBody::new(body, 100));
        feed.data("one");
        one.assert_data("one");
        drop(two);
        assert!(!feed.is_dropped());
        drop(one);
        assert!(feed.is_dropped());

        let (feed, body) = Feed::new();
        let [mut one, _two] = readers(TeeBody::new(body, 100));
        feed.end();
        one.assert_end();
        assert!(feed.is_dropped());
    }

    // L41
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn readers_on_several_threads_each_read_the_whole() {
        for round in 0..50 {
            let (sender, mut receiver) = tokio::sync::mpsc::channel(1);
            let source = futures_util::stream::poll_fn(move |cx| receiver.poll_recv(cx));
            let body = TeeBody::new(StreamBody::new(source), 1 << 20);
            let tasks: Vec<_> = (0..8)
                .map(|reader| {
                    let body = body.clone();
                    tokio::spawn(async move {
                        if reader == 7 {
                            return None;
                        }
                        Some(body.collect().await.expect("no error").to_bytes())
                    })
                })
                .collect();
            drop(body);
            let mut expected = Vec::new();
            for frame in 0..100 {
                let text = format!("{round}.{frame};");
                expected.extend_from_slice(text.as_bytes());
                let frame = Ok::<_, Infallible>(Frame::data(Bytes::from(text)));
                sender.send(frame).await.expect("somebody reads");
            }
            drop(sender);
            for task in tasks {
                if let Some(read) = task.await.expect("no panic") {
                    assert_eq!(read, expected);
                }
            }
        }
    }
}

mod waking {
    use super::*;

    #[test]
    fn every_reader_that_waits_is_woken() {
        let (feed, body) = Feed::new();
        let mut readers: [Reader; 5] = readers(TeeBody::new(body, 100));
        for _ in 0..3 {
            for reader in &mut readers {
                assert_pending!(reader.poll());
            }
            feed.wake();
            assert!(readers.iter().all(Reader::is_woken));
        }
        for reader in &mut readers {
            assert_pending!(reader.poll());
        }
        feed.data("one");
        assert!(readers.iter().all(Reader::is_woken));
        for reader in &mut readers {
            reader.assert_data("one");
        }
    }

    #[test]
    fn a_reader_that_goes_or_stops_does_not_stall_another() {
        #[derive(Clone, Copy)]
        enum Then {
            Goes,
            GoesAfterTheWakeUp,
            Stops,
        }

        for then in [Then::Goes, Then::GoesAfterTheWakeUp, Then::Stops] {
            // The one that goes polls before the other, or after it: the source knows the waker of the last.
            for polls_last in [false, true] {
                let (feed, body) = Feed::new();
                let [mut goes, mut stays] = readers(TeeBody::new(body, 100));
                if polls_last {
                    assert_pending!(stays.poll());
                    assert_pending!(goes.poll());
                } else {
                    assert_pending!(goes.poll());
                    assert_pending!(stays.poll());
                }
                let mut goes = Some(goes);
                if let Then::Goes = then {
                    goes = None;
                }
                feed.data("one");
                if let Then::GoesAfterTheWakeUp = then {
                    goes = None;
                }
                assert!(stays.is_woken());
                stays.assert_data("one");
                assert_pending!(stays.poll());
                feed.end();
                assert!(stays.is_woken());
                stays.assert_end();
                drop(goes);
            }
        }
    }

    #[test]
    fn a_reader_is_told_of_what_another_has_read() {
        let (feed, body) = Feed::new();
        let [mut one, mut two] = readers(TeeBody::new(body, 100));
        assert_pending!(one.poll());
        // It comes while nobody looks, and the other finds it first.
        feed.data("one");
        two.assert_data("one");
        assert!(one.is_woken());
        one.assert_data("one");
    }

    #[test]
    fn a_source_that_wakes_while_it_is_polled_is_polled_again() {
        struct Busy(u8);

        impl Body for Busy {
            type Data = Bytes;
            type Error = Infallible;

            fn poll_frame(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                if self.0 == 0 {
                    return Poll::Ready(None);
                }
                self.0 -= 1;
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }

        let [mut one, mut two] = readers(TeeBody::new(Busy(3), 100));
        assert_pending!(two.poll());
        for _ in 0..2 {
            assert_pending!(one.poll());
            assert!(one.is_woken() && two.is_woken());
        }
        one.assert_end();
        assert!(two.is_woken());
        two.assert_end();
    }
}

mod hints {
    use super::*;

    #[track_caller]
    fn assert_left(body: &TeeBody, exact: impl Into<Option<u64>>, ended: bool) {
        let exact = exact.into();
        assert_eq!(body.size_hint().exact(), exact);
        assert_eq!(body.is_end_stream(), ended);
    }

    fn poll(reader: &mut Reader) {
        let _ = reader.poll();
    }

    #[test]
    fn an_announced_length_counts_down_for_each_reader() {
        let (feed, body) = Feed::announcing(6);
        let [mut one, mut two] = readers(TeeBody::new(body, 100));
        assert_left(&one.task, 6, false);
        feed.data("ab");
        assert_left(&one.task, 6, false);
        poll(&mut one);
        assert_left(&one.task, 4, false);
        assert_left(&two.task, 6, false);
        poll(&mut one);
        assert_left(&one.task, 4, false);
        feed.data("cdef");
        feed.end();
        poll(&mut one);
        // The source says that this was its last frame, so the readers do.
        assert_left(&one.task, 0, true);
        assert_left(&two.task, 6, false);
        poll(&mut two);
        assert_left(&two.task, 4, false);
        assert_left(&two.task.clone(), 4, false);
        poll(&mut two);
        assert_left(&two.task, 0, true);
        for mut reader in [one, two] {
            reader.assert_end();
            assert_left(&reader.task, 0, true);
        }
    }

    #[test]
    fn an_unknown_length_is_known_once_the_source_has_ended() {
        let (feed, body) = Feed::new();
        let [mut one, mut two] = readers(TeeBody::new(body, 100));
        let lower = |reader: &Reader| reader.task.size_hint().lower();
        feed.data("ab");
        assert_left(&one.task, None, false);
        poll(&mut one);
        assert_left(&one.task, None, false);
        assert_eq!((lower(&one), lower(&two)), (0, 2));
        feed.data("cd");
        poll(&mut one);
        assert_eq!((lower(&one), lower(&two)), (0, 4));
        assert_left(&one.task, None, false);
        feed.end();
        poll(&mut one);
        assert_left(&one.task, 0, true);
        assert_left(&two.task, 4, false);
        poll(&mut two);
        assert_left(&two.task, 2, false);
        poll(&mut two);
        assert_left(&two.task, 0, true);
    }

    #[test]
    fn trailers_are_to_come_until_they_have_come() {
        let (feed, body) = Feed::new();
        let [mut one, mut two] = readers(TeeBody::new(body, 100));
        feed.data("ab");
        feed.trailers(HeaderMap::new());
        feed.end();
        poll(&mut one);
        poll(&mut two);
        assert!(!one.task.is_end_stream());
        poll(&mut one);
        assert_left(&one.task, 0, true);
        // No bytes are left. But a client that was told so would send a length instead of chunks, and lose the trailers.
        assert!(!two.task.is_end_stream());
        assert_eq!(two.task.size_hint().exact(), None);
        poll(&mut two);
        assert_left(&two.task, 0, true);
    }

    #[test]
    fn a_failure_ends_the_body() {
        let (feed, body) = Feed::announcing(9);
        let [mut one, mut two] = readers(TeeBody::new(body, 100));
        feed.data("ab");
        feed.fail("cut");
        poll(&mut one);
        poll(&mut one);
        assert_left(&one.task, 0, true);
        assert!(!two.task.is_end_stream());
        poll(&mut two);
        assert_left(&two.task, 0, true);
    }

    #[test]
    fn upper_and_lower_bounds_are_those_of_the_source() {
        struct Vague;

        impl Body for Vague {
            type Data = Bytes;
            type Error = Infallible;

            fn poll_frame(
                self: Pin<&mut Self>,
                _: &mut Context<'_>,
            ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
                Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(b"ab")))))
            }

            fn size_hint(&self) -> SizeHint {
                let mut hint = SizeHint::new();
                hint.set_lower(3);
                hint.set_upper(10);
                hint
            }
        }

        let [mut one, two] = readers(TeeBody::new(Vague, 100));
        let bounds = |reader: &Reader| {
            let hint = reader.task.size_hint();
            (hint.lower(), hint.upper())
        };
        assert_eq!(bounds(&one), (3, Some(10)));
        poll(&mut one);
        assert_eq!(bounds(&one), (3, Some(10)));
        assert_eq!(bounds(&two), (5, Some(12)));
    }

    #[test]
    fn a_body_without_bytes_is_at_its_end_and_never_polled() {
        for body in [
            TeeBody::empty(),
            TeeBody::new(Empty::new(), 0),
            TeeBody::new(BoxBody::new(Full::new(Bytes::new())), 9),
            TeeBody::from(Bytes::new()),
        ] {
            assert_left(&body, 0, true);
            assert_left(&body.clone(), 0, true);
            Reader::new(body).assert_end();
        }
    }

    #[test]
    fn bytes_that_are_here_are_one_frame_for_every_reader() {
        let bytes = Bytes::from("once");
        let body = TeeBody::from(bytes.clone());
        let mut parent = Reader::new(body.clone());
        parent.assert_data("once");
        assert_left(&parent.task, 0, true);
        parent.clone().assert_end();
        for body in [body.clone(), body] {
            assert_left(&body, 4, false);
            let mut reader = Reader::new(body);
            let Got::Data(data) = assert_ready!(reader.poll()) else {
                panic!("no data");
            };
            assert_eq!(data.as_ptr(), bytes.as_ptr(), "nothing is copied");
            reader.assert_end();
        }
    }
}

mod properties {
    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        Feed(Vec<u8>),
        Wake,
        Poll(prop::sample::Index),
        Clone(prop::sample::Index),
        Drop(prop::sample::Index),
    }

    #[derive(Debug, Clone, Copy)]
    enum End {
        Clean,
        Trailers,
        Failure,
    }

    fn step() -> impl Strategy<Value = Step> {
        let index = any::<prop::sample::Index>;
        prop_oneof![
            3 => prop::collection::vec(any::<u8>(), 0..9).prop_map(Step::Feed),
            1 => Just(Step::Wake),
            6 => index().prop_map(Step::Poll),
            1 => index().prop_map(Step::Clone),
            1 => index().prop_map(Step::Drop),
        ]
    }

    /// A reader, and what it should have read: the bytes from where it was made.
    struct Checked {
        reader: Reader,
        at: usize,
        waits: bool,
    }

    proptest! {
        /// Readers that are polled, cloned and dropped in any order: each reads exactly what the source gave from where it
        /// was made, is woken for it, and learns of the end.
        #[test]
        fn every_reader_reads_the_whole_in_order(
            steps in prop::collection::vec(step(), 0..120),
            kind in prop_oneof![Just(End::Clean), Just(End::Trailers), Just(End::Failure)],
        ) {
            let (feed, body) = Feed::new();
            let mut readers = vec![Checked { reader: Reader::new(TeeBody::new(body, 1 << 20)), at: 0, waits: false }];
            let mut fed: Vec<u8> = Vec::new();
            for step in steps {
                match step {
                    Step::Feed(data) => {
                        fed.extend_from_slice(&data);
                        feed.data(data);
                        for checked in &readers {
                            prop_assert!(!checked.waits || checked.reader.is_woken());
                        }
                    }
                    Step::Wake => feed.wake(),
                    Step::Poll(index) => {
                        let index = index.index(readers.len());
                        let checked = &mut readers[index];
                        match checked.reader.poll() {
                            Poll::Ready(Got::Data(data)) => {
                                let to = checked.at + data.len();
                                prop_assert_eq!(&*data, &fed[checked.at..to]);
                                checked.at = to;
                                checked.waits = false;
                            }
                            Poll::Pending => {
                                // All that there is has been read, by this reader too.
                                prop_assert_eq!(checked.at, fed.len());
                                checked.waits = true;
                            }
                            other => prop_assert!(false, "{:?}", other),
                        }
                    }
                    Step::Clone(index) if readers.len() < 9 => {
                        let Checked { reader, at, .. } = &readers[index.index(readers.len())];
                        let clone = Checked { reader: reader.clone(), at: *at, waits: false };
                        readers.push(clone);
                    }
                    Step::Drop(index) if readers.len() > 1 => {
                        readers.swap_remove(index.index(readers.len()));
                    }
                    Step::Clone(_) | Step::Drop(_) => {}
                }
            }
            match kind {
                End::Clean => {}
                End::Trailers => feed.trailers(HeaderMap::new()),
                End::Failure => feed.fail("cut"),
            }
            feed.end();
            for checked in &mut readers {
                prop_assert!(!checked.waits || checked.reader.is_woken());
                let end = loop {
                    match checked.reader.poll() {
                        Poll::Ready(Got::Data(data)) => {
                            let to = checked.at + data.len();
                            prop_assert_eq!(&*data, &fed[checked.at..to]);
                            checked.at = to;
                        }
                        Poll::Ready(other) => break other,
                        Poll::Pending => prop_assert!(false, "nothing more is to come"),
                    }
                };
                let expected = match kind {
                    End::Clean => Got::End,
                    End::Trailers => Got::Trailers(HeaderMap::new()),
                    End::Failure => Got::Error(http::StatusCode::BAD_REQUEST),
                };
                prop_assert_eq!(end, expected);
                prop_assert_eq!(checked.reader.poll(), Poll::Ready(Got::End));
                // A failure reaches the slow ones at once.
                if !matches!(kind, End::Failure) {
                    prop_assert_eq!(checked.at, fed.len());
                }
            }
        }
    }
}
