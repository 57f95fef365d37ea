//! The first success, and a quorum: who wins, and what becomes of the losers.

use std::convert::Infallible;
use std::future::pending;

use bytes::Bytes;
use http::header::HeaderName;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{Empty, Full};
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready, task};
use tower::util::BoxCloneSyncService;
use tower::{Service, ServiceExt, service_fn};
use watershed::body::ResponseBody;
use watershed::clone_request::TeeBody;
use watershed::error::BoxError;
use watershed::merge::{FirstSuccess, JsonMerge, MergeLayer, Quorum};
use watershed::outcome::Branch;
use watershed::test_util::Reply;

use crate::common::{answer, listed, optional, required};
use crate::support::{Answer, Bomb, FedBody, Feed, Hand, MS, Stack, ask, get, merged, stack};

type Replies = Hand<Response<FedBody>>;
type Answering = Response<ResponseBody<ResponseBody<ResponseBody<FedBody>>>>;

fn hands<M>(merge: M, number: usize) -> (Vec<Replies>, Stack<M, Replies>) {
    let hands = Hand::several(number);
    let branch = |(index, hand): (usize, &Replies)| Branch::new(format!("b{index}"), hand.clone());
    let service = merged(merge, hands.iter().enumerate().map(branch));
    (hands, service)
}

/// An answer that says who gave it, its body whole, and the other end of the body.
fn by(index: usize, status: u16) -> (Response<FedBody>, Feed) {
    let (feed, body) = Feed::new();
    feed.data(format!("body {index}"));
    feed.end();
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap();
    response
        .headers_mut()
        .insert("x-by", HeaderValue::from(index));
    (response, feed)
}

fn finish(hands: &[Replies], index: usize, status: u16) -> Feed {
    let (response, feed) = by(index, status);
    hands[index].finish(response);
    feed
}

#[track_caller]
fn assert_by(response: Answering, index: usize, status: u16) {
    let answer = tokio_test::block_on(Answer::read(response));
    assert_eq!(answer.status, status);
    assert_eq!(answer.field("x-by"), Some(&*index.to_string()));
    assert_eq!(answer.body, format!("body {index}"));
    assert!(answer.complete());
}

fn drops(hands: &[Replies]) -> Vec<usize> {
    hands.iter().map(Hand::drops).collect()
}

const MODES: [fn() -> FirstSuccess; 2] =
    [FirstSuccess::new, || FirstSuccess::new().collected(1024)];

#[test]
fn the_first_success_is_the_answer_and_the_others_are_gone_before_it() {
    for mode in MODES {
        for status in [200, 201, 202, 204, 206, 299] {
            let (hands, mut service) = hands(mode(), 3);
            let mut call = task::spawn(service.call(get("/")));
            assert_pending!(call.poll());
            // A failure is passed over.
            let failed = finish(&hands, 0, 503);
            assert_pending!(call.poll());
            assert!(failed.is_dropped());
            finish(&hands, 2, status);
            let response = assert_ready!(call.poll()).expect("infallible");
            assert_eq!(drops(&hands), [1, 1, 1]);
            assert_by(response, 2, status);
        }
    }
}

type Merged = BoxCloneSyncService<Request<Empty<Bytes>>, Answering, Infallible>;
type Make = fn(usize) -> (Vec<Replies>, Merged);

/// The merges that pass the head of a branch on.
fn merges() -> [Make; 3] {
    [
        |number| {
            let (hands, service) = hands(FirstSuccess::new(), number);
            (hands, BoxCloneSyncService::new(service))
        },
        |number| {
            let (hands, service) = hands(FirstSuccess::new().collected(1024), number);
            (hands, BoxCloneSyncService::new(service))
        },
        |number| {
            let (hands, service) = hands(Quorum::of(1), number);
            (hands, BoxCloneSyncService::new(service))
        },
    ]
}

// B20
#[test]
fn a_head_over_its_bound_is_no_answer() {
    let many = |headers: &mut HeaderMap, fields: usize| {
        for field in 0..fields {
            let name = HeaderName::try_from(format!("x-{field}")).unwrap();
            headers.insert(name, HeaderValue::from_static("1"));
        }
    };
    let long = |headers: &mut HeaderMap, bytes: usize| {
        let value = HeaderValue::try_from("v".repeat(bytes)).unwrap();
        headers.insert("x-long", value);
    };
    for hands_of in merges() {
        for (fields, bytes, passes) in [
            (127, 0, true),
            (128, 0, false),
            (0, (64 << 10) - 20, true),
            (0, 64 << 10, false),
        ] {
            let (hands, mut service) = hands_of(2);
            let mut call = task::spawn(service.call(get("/")));
            assert_pending!(call.poll());
            let (mut response, feed) = by(0, 200);
            many(response.headers_mut(), fields);
            if bytes > 0 {
                long(response.headers_mut(), bytes);
            }
            hands[0].finish(response);
            if passes {
                assert_by(assert_ready!(call.poll()).expect("infallible"), 0, 200);
                continue;
            }
            assert_pending!(call.poll());
            assert!(feed.is_dropped());
            finish(&hands, 1, 200);
            assert_by(assert_ready!(call.poll()).expect("infallible"), 1, 200);
        }
    }
}

// B26
#[test]
fn a_head_with_a_length_that_is_none_is_no_answer() {
    for hands_of in merges() {
        for (lengths, passes) in [
            (&["6"][..], true),
            (&["6", "6"], true),
            (&["6, 6"], true),
            (&["6", "7"], false),
            (&["6, 7"], false),
            (&["+6"], false),
            (&[""], false),
        ] {
            let (hands, mut service) = hands_of(2);
            let mut call = task::spawn(service.call(get("/")));
            assert_pending!(call.poll());
            let (mut response, feed) = by(0, 200);
            for length in lengths {
                let length = HeaderValue::from_static(length);
                response.headers_mut().append("content-length", length);
            }
            hands[0].finish(response);
            if passes {
                let response = assert_ready!(call.poll()).expect("infallible");
                let lines = response.headers().get_all("content-length");
                assert!(lines.iter().all(|line| line == "6"));
                assert!(lines.iter().count() <= 1);
                assert_by(response, 0, 200);
                continue;
            }
            assert_pending!(call.poll());
            assert!(feed.is_dropped());
            finish(&hands, 1, 200);
            assert_by(assert_ready!(call.poll()).expect("infallible"), 1, 200);
        }
    }
}

// B20
#[tokio::test]
async fn a_flood_of_challenges_is_not_handed_on() {
    for (lines, kept) in [(3, 3), (200, 0)] {
        let mut reply = Reply::status(401);
        for line in 0..lines {
            reply = reply.header("www-authenticate", &format!("Basic realm=\"{line}\""));
        }
        let answer = answer(JsonMerge::group(), [required("a", reply)]).await;
        let challenges = answer.headers.get_all("www-authenticate").iter().count();
        assert_eq!(challenges, kept);
        assert_eq!(answer.status, if kept > 0 { 401 } else { 502 });
    }
}

#[test]
fn of_successes_in_one_poll_the_first_declared_wins() {
    for mode in MODES {
        for order in [[2, 1, 0], [0, 1, 2], [1, 2, 0]] {
            let (hands, mut service) = hands(mode(), 3);
            let mut call = task::spawn(service.call(get("/")));
            assert_pending!(call.poll());
            let feeds = order.map(|index| finish(&hands, index, 200));
            let response = assert_ready!(call.poll()).expect("infallible");
            assert!(feeds[..].iter().filter(|feed| feed.is_dropped()).count() >= 2);
            assert_by(response, 0, 200);
        }
        // Ready at the very first poll.
        let (hands, mut service) = hands(mode(), 3);
        finish(&hands, 2, 200);
        finish(&hands, 1, 200);
        let mut call = task::spawn(service.call(get("/")));
        assert_by(assert_ready!(call.poll()).expect("infallible"), 1, 200);
    }
}

#[test]
fn of_collected_successes_in_one_poll_the_first_declared_wins() {
    // The heads come in any order, the last of them in the poll of the bodies or before.
    for heads in [[0, 1, 2], [2, 1, 0], [1, 2, 0], [2, 0, 1]] {
        for last_with_its_body in [false, true] {
            let (hands, mut service) = hands(MODES[1](), 3);
            let mut call = task::spawn(service.call(get("/")));
            assert_pending!(call.poll());
            let mut feeds = Vec::new();
            for (place, index) in heads.into_iter().enumerate() {
                let (feed, body) = Feed::new();
                let mut response = Response::new(body);
                response
                    .headers_mut()
                    .insert("x-by", HeaderValue::from(index));
                hands[index].finish(response);
                if !(last_with_its_body && place == 2) {
                    assert_pending!(call.poll());
                }
                feeds.push((feed, index));
            }
            for (feed, index) in feeds {
                feed.data(format!("body {index}"));
                feed.end();
            }
            let response = assert_ready!(call.poll()).expect("infallible");
            assert_by(response, 0, 200);
        }
    }
}

#[test]
fn a_streamed_winner_is_handed_on_frame_by_frame() {
    let (hands, mut service) = hands(FirstSuccess::new(), 2);
    let mut call = task::spawn(service.call(get("/")));
    assert_pending!(call.poll());
    let (feed, body) = Feed::announcing(6);
    hands[1].finish(Response::new(body));
    let response = assert_ready!(call.poll()).expect("infallible");
    // The head alone has decided.
    assert_eq!((feed.polls(), drops(&hands)), (0, vec![1, 1]));
    let mut body = task::spawn(response.into_body());
    let mut poll = || body.enter(|cx, body| body.poll_frame(cx));
    assert!(poll().is_pending());
    feed.data("abc");
    let frame = assert_ready!(poll()).expect("a frame").expect("no error");
    assert_eq!(frame.into_data().expect("data"), "abc");
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("1"));
    feed.trailers(trailers.clone());
    let frame = assert_ready!(poll()).expect("a frame").expect("no error");
    assert_eq!(frame.into_trailers().expect("trailers"), trailers);
    feed.fail("cut");
    let error = assert_ready!(poll())
        .expect("a frame")
        .expect_err("passed on");
    assert_eq!(error.to_string(), "cut");
    assert_eq!(body.size_hint().exact(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn a_collected_success_is_one_whose_body_has_come_whole() {
    let good = || Reply::status(200).body("good").after(50 * MS);
    for bad in [
        Reply::status(200).frames(["go", "od"]).then_fail(),
        Reply::status(200).body("too long"),
        Reply::status(200).frames(["too", "long"]),
        Reply::status(200).body("good").body_after(200 * MS),
        Reply::status(200).body("go").then_hang(),
    ] {
        let layer = MergeLayer::new(FirstSuccess::new().collected(4)).within(100 * MS);
        let branches = || [optional("bad", bad.clone()), optional("good", good())];
        let start = Instant::now();
        let answer = ask(&stack(&layer, branches()), get("/")).await;
        assert_eq!((answer.status, &*answer.body), (200, "good"));
        assert_eq!(start.elapsed(), 50 * MS);
        // Alone it is no answer at all.
        let answer = ask(&stack(&layer, [optional("bad", bad.clone())]), get("/")).await;
        assert!(matches!(answer.status, 502 | 504), "{answer:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_collected_answer_announces_its_length_once() {
    let reply = Reply::status(200)
        .frames(["ab", "cd"])
        .header("content-length", 4);
    let service = merged(FirstSuccess::new().collected(4), [optional("x", reply)]);
    let response = service.oneshot(get("/")).await.expect("infallible");
    assert_eq!(response.body().size_hint().exact(), Some(4));
    assert!(!response.headers().contains_key("content-length"));
    let answer = Answer::read(response).await;
    assert_eq!(answer.body, "abcd");
}

#[tokio::test]
async fn the_winners_head_is_its_own_without_what_concerns_its_connection() {
    let reply = Reply::status(203)
        .header("etag", "\"1\"")
        .header("set-cookie", "a=b")
        .header("connection", "x-hop")
        .header("x-hop", "1")
        .header("keep-alive", "timeout=5")
        .body("b");
    for merge in MODES {
        let answer = ask(&merged(merge(), [optional("x", reply.clone())]), get("/")).await;
        let mut names: Vec<_> = answer.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["etag", "set-cookie", "watershed-complete"]);
    }
    let answer = ask(&merged(Quorum::of(1), [optional("x", reply)]), get("/")).await;
    assert_eq!((answer.status, answer.headers.len()), (203, 3));
}

// L06
#[tokio::test]
async fn a_winner_that_is_incomplete_says_so() {
    let reply = Reply::status(200).header("watershed-complete", "false");
    for merge in MODES {
        let answer = ask(&merged(merge(), [optional("x", reply.clone())]), get("/")).await;
        assert!(!answer.complete());
    }
}

#[tokio::test(start_paused = true)]
async fn if_none_succeeds_the_table_holds() {
    let late = || Reply::hang();
    for (replies, status) in [
        ([Reply::status(503), Reply::status(404)], 502),
        ([Reply::fail("refused"), Reply::panic("oops")], 502),
        ([Reply::status(302), late()], 502),
        ([late(), late()], 504),
    ] {
        let branches = || {
            let [x, y] = replies.clone();
            [optional("x", x), optional("y", y)]
        };
        for merge in MODES {
            let layer = MergeLayer::new(merge()).within(10 * MS);
            let answer = ask(&stack(&layer, branches()), get("/")).await;
            let problem = answer.assert_problem(status);
            let names: Vec<_> = listed(&problem).into_iter().map(|(name, _)| name).collect();
            assert_eq!(names, ["x", "y"]);
        }
        let layer = MergeLayer::new(Quorum::majority()).within(10 * MS);
        ask(&stack(&layer, branches()), get("/"))
            .await
            .assert_problem(status);
    }
    // A required one that fails before another succeeds is the answer.
    for merge in MODES {
        let branches = [
            required("x", Reply::status(404)),
            optional("y", Reply::status(200).after(MS)),
        ];
        ask(&merged(merge(), branches), get("/"))
            .await
            .assert_problem(404);
    }
}

#[test]
fn a_loser_that_panics_on_its_way_out_does_not_cost_the_answer() {
    let loser = || {
        service_fn(|_: Request<TeeBody>| async {
            let _bomb = Bomb("on purpose");
            pending::<Result<Response<Full<Bytes>>, BoxError>>().await
        })
    };
    let reply = |status: u16| {
        Reply::status(status)
            .body("{}")
            .header("content-type", "application/json")
    };
    tokio_test::block_on(async {
        let lost = || Branch::http("loser", loser());
        let won = || optional("winner", reply(200));
        for merge in MODES {
            let answer = ask(&merged(merge(), [lost(), won()]), get("/")).await;
            assert_eq!(answer.status, 200);
        }
        let answer = ask(&merged(Quorum::of(1), [lost(), won()]), get("/")).await;
        assert_eq!(answer.status, 200);
        let failed = required("failed", reply(404));
        let answer = ask(&merged(JsonMerge::group(), [lost(), failed]), get("/")).await;
        answer.assert_problem(404);
    });
}

#[test]
fn a_quorum_answers_with_the_first_declared_of_enough_successes() {
    for (order, winner) in [
        ([0, 1], 0),
        ([1, 0], 0),
        ([2, 1], 1),
        ([1, 2], 1),
        ([2, 0], 0),
    ] {
        for at_once in [false, true] {
            let (hands, mut service) = hands(Quorum::of(2), 3);
            let mut call = task::spawn(service.call(get("/")));
            assert_pending!(call.poll());
            let first = finish(&hands, order[0], 200);
            if !at_once {
                assert_pending!(call.poll());
            }
            let second = finish(&hands, order[1], 201);
            let response = assert_ready!(call.poll()).expect("infallible");
            assert_eq!(drops(&hands), [1, 1, 1]);
            assert_ne!(first.is_dropped(), second.is_dropped());
            let status = if winner == order[0] { 200 } else { 201 };
            assert_by(response, winner, status);
        }
    }
}

#[test]
fn a_quorum_of_many_takes_no_more_than_it_needs() {
    let (hands, mut service) = hands(Quorum::of(2), 4);
    for index in [3, 2, 1] {
        finish(&hands, index, 200);
    }
    let mut call = task::spawn(service.call(get("/")));
    assert_by(assert_ready!(call.poll()).expect("infallible"), 1, 200);
}

#[test]
fn a_quorum_that_cant_be_reached_is_given_up_at_once() {
    for (number, need, failures) in [(3, 2, 2), (3, 3, 1), (5, 3, 3), (1, 1, 1), (4, 2, 3)] {
        let (hands, mut service) = hands(Quorum::of(need), number);
        let mut call = task::spawn(service.call(get("/")));
        for index in 0..failures {
            assert_pending!(call.poll());
            finish(&hands, index, 503);
        }
        let response = assert_ready!(call.poll()).expect("infallible");
        assert_eq!(drops(&hands), vec![1; number]);
        let answer = tokio_test::block_on(Answer::read(response));
        let problem = answer.assert_problem(502);
        assert_eq!(listed(&problem).len(), failures);
    }
}

#[test]
fn a_majority_is_more_than_half_of_the_branches_that_are_asked() {
    for (number, skipped, need) in [
        (1, 0, 1),
        (2, 0, 2),
        (3, 0, 2),
        (4, 0, 3),
        (5, 0, 3),
        (5, 2, 2),
        (5, 4, 1),
        (4, 2, 2),
    ] {
        let hands = Hand::several(number);
        let branches = hands
            .iter()
            .enumerate()
            .map(|(index, hand): (usize, &Replies)| {
                Branch::new(format!("b{index}"), hand.clone()).when(move |_| index >= skipped)
            });
        let mut service = merged(Quorum::majority(), branches);
        let mut call = task::spawn(service.call(get("/")));
        for index in (number - need..number).rev() {
            assert_pending!(call.poll());
            finish(&hands, index, 200);
        }
        assert_by(
            assert_ready!(call.poll()).expect("infallible"),
            number - need,
            200,
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_quorum_that_is_late_is_504() {
    let layer = MergeLayer::new(Quorum::of(2)).within(10 * MS);
    let start = Instant::now();
    let branches = [
        optional("x", Reply::status(200)),
        optional("y", Reply::hang()),
        optional("z", Reply::hang()),
    ];
    let problem = ask(&stack(&layer, branches), get("/"))
        .await
        .assert_problem(504);
    assert_eq!((listed(&problem).len(), start.elapsed()), (2, 10 * MS));
    let branches = [
        optional("x", Reply::status(500)),
        optional("y", Reply::status(200)),
        optional("z", Reply::hang()),
    ];
    ask(&stack(&layer, branches), get("/"))
        .await
        .assert_problem(502);
}

// L33
#[tokio::test]
async fn a_quorum_of_more_branches_than_are_asked_is_not_reached() {
    for skipped in [0, 1] {
        let branches = [
            optional("x", Reply::status(200)),
            optional("y", Reply::status(200)).when(move |_| skipped == 0),
        ];
        let answer = ask(&merged(Quorum::of(3), branches), get("/")).await;
        answer.assert_problem(502);
    }
}

#[test]
#[should_panic(expected = "a quorum of zero")]
fn a_quorum_of_zero_is_refused() {
    assert!(Quorum::try_of(0).is_err() && Quorum::try_of(1).is_ok());
    let _ = Quorum::of(0);
}
