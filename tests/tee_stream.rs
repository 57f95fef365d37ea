//! A request body streamed through a window: who may hold it, for how long, and what becomes of the others.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Empty, Full};
use proptest::prelude::*;
use tokio::time::Instant;
use tokio_test::{assert_pending, assert_ready, task};
use tower::limit::ConcurrencyLimit;
use tower::{ServiceBuilder, ServiceExt, service_fn};
use watershed::clone_request::{CloneRequestLayer, NotReplayable, TeeBody, TeeError};
use watershed::error::{BoxError, ClientFault, cause_ref};
use watershed::fanout::{FanOut, FanOutError};
use watershed::merge::{JsonMerge, MergeLayer};
use watershed::outcome::{Branch, BranchError};

const STALL: Duration = Duration::from_secs(5);

/// An upload whose frames are there; it counts how many have been taken, and knows when it is dropped.
struct Upload {
    frames: VecDeque<Frame<Bytes>>,
    taken: Arc<AtomicUsize>,
    _alive: Arc<()>,
}

#[derive(Clone, Default)]
struct Watch {
    taken: Arc<AtomicUsize>,
    alive: Arc<()>,
}

impl Watch {
    fn taken(&self) -> usize {
        self.taken.load(Ordering::SeqCst)
    }

    fn upload(&self, frames: impl IntoIterator<Item = Bytes>) -> Upload {
        Upload {
            frames: frames.into_iter().map(Frame::data).collect(),
            taken: Arc::clone(&self.taken),
            _alive: Arc::clone(&self.alive),
        }
    }

    fn is_dropped(&self) -> bool {
        Arc::strong_count(&self.alive) == 1
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let frame = self.frames.pop_front();
        if frame.is_some() {
            self.taken.fetch_add(1, Ordering::SeqCst);
        }
        Poll::Ready(frame.map(Ok))
    }

    fn size_hint(&self) -> SizeHint {
        let data = self.frames.iter().filter_map(Frame::data_ref);
        SizeHint::with_exact(data.map(|data| data.len() as u64).sum())
    }
}

/// Frames of four bytes, each with its number.
fn numbered(frames: u32) -> impl Iterator<Item = Bytes> {
    (0..frames).map(|number| Bytes::copy_from_slice(&number.to_be_bytes()))
}

fn whole(frames: u32) -> Vec<u8> {
    numbered(frames).flatten().collect()
}

async fn read(body: TeeBody) -> Result<Vec<u8>, TeeError> {
    Ok(body.collect().await?.to_bytes().to_vec())
}

#[tokio::test(start_paused = true)]
async fn no_more_than_the_window_and_a_frame_is_taken_ahead_of_the_slowest() {
    let watch = Watch::default();
    let mut fast = TeeBody::stream(watch.upload(numbered(100)), 16, STALL);
    let mut slow = fast.clone();
    let mut ahead = task::spawn(poll_fn(|cx| {
        let mut read = 0;
        while let Poll::Ready(Some(Ok(_))) = Pin::new(&mut fast).poll_frame(cx) {
            read += 1;
        }
        if read == 0 {
            Poll::Pending
        } else {
            Poll::Ready(read)
        }
    }));
    assert_eq!(assert_ready!(ahead.poll()), 4);
    assert_eq!(watch.taken(), 4);
    assert_pending!(ahead.poll());

    // The slow one reads a frame: that much goes on, and the fast one is woken for it.
    slow.frame().await.expect("a frame").expect("not lagged");
    assert!(ahead.is_woken());
    assert_eq!(assert_ready!(ahead.poll()), 1);
    assert_eq!(watch.taken(), 5);
}

#[tokio::test(start_paused = true)]
async fn readers_of_any_speed_read_all() {
    let watch = Watch::default();
    let first = TeeBody::stream(watch.upload(numbered(200)), 16, STALL);
    let readers = [1u64, 20, 300].map(|pause| {
        let mut body = first.clone();
        tokio::spawn(async move {
            let mut read = Vec::new();
            while let Some(frame) = body.frame().await {
                read.extend_from_slice(frame.unwrap().data_ref().unwrap());
                tokio::time::sleep(Duration::from_millis(pause)).await;
            }
            read
        })
    });
    drop(first);
    for reader in readers {
        assert_eq!(reader.await.unwrap(), whole(200));
    }
    assert!(watch.is_dropped());
}

/// Every way to hold the window: what is left of it fails after `stall`, and the other reader reads all.
#[tokio::test(start_paused = true)]
async fn whoever_holds_the_window_is_out_after_the_stall() {
    for polls in [0, 1, 3] {
        let watch = Watch::default();
        let first = TeeBody::stream(watch.upload(numbered(100)), 16, STALL);
        let mut holder = first.clone();
        for _ in 0..polls {
            holder.frame().await.expect("a frame").expect("in time");
        }
        let started = Instant::now();
        assert_eq!(read(first).await.unwrap(), whole(100));
        assert_eq!(started.elapsed(), STALL, "{polls} polls");

        let error = holder.frame().await.expect("an end").expect_err("out");
        assert!(error.is_lagged() && !error.is_too_large());
        // It is this reader's failure, not the client's.
        assert!(cause_ref::<ClientFault>(&error).is_none());
        assert!(holder.frame().await.is_none());
        assert!(holder.is_end_stream());
        // A clone of it is out as well: it must not look as if the body had ended well.
        assert!(
            holder
                .clone()
                .frame()
                .await
                .unwrap()
                .unwrap_err()
                .is_lagged()
        );
    }
}

/// However many they are, and wherever each of them stopped.
#[tokio::test(start_paused = true)]
async fn all_who_hold_the_window_are_out_after_one_stall() {
    let watch = Watch::default();
    let first = TeeBody::stream(watch.upload(numbered(100)), 16, STALL);
    let mut stopped: Vec<_> = (0..4).map(|_| first.clone()).collect();
    for (frames, reader) in stopped.iter_mut().enumerate() {
        for _ in 0..frames {
            reader.frame().await.expect("a frame").expect("in time");
        }
    }
    let started = Instant::now();
    assert_eq!(read(first).await.unwrap(), whole(100));
    assert_eq!(started.elapsed(), STALL);
    for mut reader in stopped {
        assert!(reader.frame().await.unwrap().unwrap_err().is_lagged());
    }
}

/// All of it fits, and the source has said that no more will come.
#[tokio::test(start_paused = true)]
async fn nobody_is_out_for_a_body_that_has_been_read() {
    let watch = Watch::default();
    let fast = TeeBody::stream(watch.upload(numbered(4)), 16, STALL);
    let late = fast.clone();
    let started = Instant::now();
    assert_eq!(read(fast).await.unwrap(), whole(4));
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!(read(late).await.unwrap(), whole(4));
}

/// A branch with a layer of its own that tees: whose fault it is does not change on the way.
#[tokio::test(start_paused = true)]
async fn a_tee_of_a_tee_tells_what_happened_to_the_outer_one() {
    let outer = TeeBody::stream(Watch::default().upload(numbered(100)), 16, STALL);
    let mut lagging = TeeBody::new(outer.clone(), 1 << 20);
    assert_eq!(read(outer).await.unwrap(), whole(100));
    let error = lagging.frame().await.unwrap().unwrap_err();
    assert!(error.is_lagged());
    assert!(cause_ref::<ClientFault>(&error).is_none());

    let over = TeeBody::new(TeeBody::new(Full::from("text"), 3), 1 << 20);
    let error = read(over).await.unwrap_err();
    assert!(error.is_too_large());
    let fault = cause_ref::<ClientFault>(&error).unwrap();
    assert_eq!(fault.status(), StatusCode::PAYLOAD_TOO_LARGE);

    // The server's own limit, outside.
    let limited = http_body_util::Limited::new(Full::new(Bytes::from_static(b"text")), 3);
    let error = read(TeeBody::stream(limited, 16, STALL)).await.unwrap_err();
    let fault = cause_ref::<ClientFault>(&error).unwrap();
    assert_eq!(fault.status(), StatusCode::PAYLOAD_TOO_LARGE);
}

/// A source that panics on its way out has ended well, and nobody is left waiting.
#[tokio::test(start_paused = true)]
async fn a_source_that_panics_when_it_is_dropped_ends_as_it_ended() {
    struct Panicky(Upload);
    impl Drop for Panicky {
        fn drop(&mut self) {
            if !std::thread::panicking() {
                panic!("on its way out");
            }
        }
    }
    impl Body for Panicky {
        type Data = Bytes;
        type Error = Infallible;
        fn poll_frame(
            mut self: Pin<&mut Self>,
            cx: &mut Context<'_>,
        ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Pin::new(&mut self.0).poll_frame(cx)
        }
    }
    for window in [None, Some(64)] {
        let source = Panicky(Watch::default().upload(numbered(3)));
        let one = match window {
            None => TeeBody::new(source, 1 << 20),
            Some(window) => TeeBody::stream(source, window, STALL),
        };
        let other = one.clone();
        let (one, other) = tokio::join!(read(one), read(other));
        assert_eq!((one.unwrap(), other.unwrap()), (whole(3), whole(3)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_goes_on_just_in_time_stays() {
    let watch = Watch::default();
    let fast = TeeBody::stream(watch.upload(numbered(12)), 16, STALL);
    let mut slow = fast.clone();
    let fast = tokio::spawn(read(fast));
    let mut seen = Vec::new();
    while let Some(frame) = slow.frame().await {
        seen.extend_from_slice(frame.unwrap().data_ref().unwrap());
        tokio::time::sleep(STALL - Duration::from_millis(10)).await;
    }
    assert_eq!(seen, whole(12));
    assert_eq!(fast.await.unwrap().unwrap(), whole(12));
}

/// Nobody waits for the window, so nobody is out, however long it stands still.
#[tokio::test(start_paused = true)]
async fn without_a_waiting_reader_there_is_no_hurry() {
    let watch = Watch::default();
    let mut one = TeeBody::stream(watch.upload(numbered(3)), 16, STALL);
    let mut other = one.clone();
    one.frame().await.unwrap().unwrap();
    tokio::time::advance(100 * STALL).await;
    assert_eq!(read(other.clone()).await.unwrap(), whole(3));
    other.frame().await.unwrap().expect("not lagged");
    one.frame().await.unwrap().expect("not lagged");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_reader_blocks_nobody_at_any_byte() {
    for frames_read in 0..6 {
        let watch = Watch::default();
        let first = TeeBody::stream(watch.upload(numbered(6)), 8, STALL);
        let mut leaving = first.clone();
        let stays = tokio::spawn(read(first));
        for _ in 0..frames_read {
            leaving.frame().await.unwrap().unwrap();
        }
        let left = Instant::now();
        drop(leaving);
        assert_eq!(stays.await.unwrap().unwrap(), whole(6));
        assert_eq!(left.elapsed(), Duration::ZERO);
        assert!(watch.is_dropped());
    }
}

#[tokio::test(start_paused = true)]
async fn trailers_and_the_length_reach_every_reader() {
    let watch = Watch::default();
    let mut upload = watch.upload(numbered(4));
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("6"));
    upload.frames.push_back(Frame::trailers(trailers.clone()));
    let first = TeeBody::stream(upload, 4, STALL);
    let readers = [first.clone(), first].map(|mut body| {
        tokio::spawn(async move {
            let mut left = 16;
            loop {
                assert_eq!(body.size_hint().exact(), Some(left));
                assert!(!body.is_end_stream());
                match body.frame().await.unwrap().unwrap().into_data() {
                    Ok(data) => left -= data.len() as u64,
                    Err(frame) => break frame.into_trailers().unwrap(),
                }
            }
        })
    });
    for reader in readers {
        assert_eq!(reader.await.unwrap(), trailers);
    }
}

#[tokio::test]
async fn no_byte_is_copied() {
    let chunk = Bytes::from(vec![7; 64 * 1024]);
    for window in [None, Some(1)] {
        let body = Full::new(chunk.clone());
        let first = match window {
            None => TeeBody::new(body, 1 << 20),
            Some(window) => TeeBody::stream(body, window, STALL),
        };
        for mut reader in [first.clone(), first.clone(), first] {
            let data = reader.frame().await.unwrap().unwrap().into_data().unwrap();
            assert_eq!(data.as_ptr(), chunk.as_ptr());
        }
    }
}

#[tokio::test]
async fn an_empty_body_needs_no_window() {
    let body = TeeBody::stream(Empty::<Bytes>::new(), 1, STALL);
    assert!(body.is_end_stream());
    assert_eq!(body.replayable(), Ok(()));
    assert!(body.clone().frame().await.is_none());
}

#[tokio::test]
async fn what_can_be_sent_again_says_so() {
    let text = || Full::new(Bytes::from_static(b"text"));
    assert_eq!(TeeBody::new(text(), 4).replayable(), Ok(()));
    assert_eq!(
        TeeBody::from(Bytes::from_static(b"text")).replayable(),
        Ok(())
    );
    assert_eq!(
        TeeBody::stream(text(), 4, STALL).replayable(),
        Err(NotReplayable::Streamed)
    );
    let over = TeeBody::new(text(), 3);
    let error = over.clone().frame().await.unwrap().unwrap_err();
    assert!(error.is_too_large());
    assert_eq!(over.replayable(), Err(NotReplayable::TooLarge { limit: 3 }));
}

/// A backend that reads the whole of its request and answers with its length.
async fn count(request: Request<TeeBody>) -> Result<Response<Full<Bytes>>, TeeError> {
    let len = request.into_body().collect().await?.to_bytes().len();
    Ok(Response::new(Full::from(len.to_string())))
}

/// What three branches, the last of them `third`, make of an upload that is larger than the window.
async fn upload_to<S>(third: S) -> (Response<Bytes>, Duration)
where
    S: tower::Service<Request<TeeBody>, Response = Response<Full<Bytes>>> + Clone + Send + Sync,
    S: 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
{
    let service = ServiceBuilder::new()
        .layer(CloneRequestLayer::new().stream(16, STALL))
        .layer(MergeLayer::new(JsonMerge::group()))
        .service(FanOut::new([
            Branch::http("one", service_fn(count)),
            Branch::http("two", service_fn(count)),
            Branch::http("three", third),
        ]));
    let upload = Watch::default().upload(numbered(100));
    let started = Instant::now();
    let answer = service.oneshot(Request::new(upload)).await.unwrap();
    let elapsed = started.elapsed();
    let (head, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (Response::from_parts(head, body), elapsed)
}

#[tokio::test(start_paused = true)]
async fn an_upload_larger_than_the_window_reaches_every_branch() {
    let (answer, elapsed) = upload_to(service_fn(count)).await;
    assert_eq!(answer.body(), r#"{"one":400,"two":400,"three":400}"#);
    assert_eq!(elapsed, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_answers_early_lets_its_share_go() {
    let early = service_fn(|_| async { Ok::<_, Infallible>(Response::new(Full::from("0"))) });
    let (answer, elapsed) = upload_to(early).await;
    assert_eq!(answer.body(), r#"{"one":400,"two":400,"three":0}"#);
    assert_eq!(elapsed, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn a_branch_that_never_reads_costs_its_own_part() {
    let stuck = service_fn(|mut request: Request<TeeBody>| async move {
        // It holds the request for longer than it may, and looks at it then.
        tokio::time::sleep(4 * STALL).await;
        match request.body_mut().frame().await {
            Some(Err(error)) => Err(error),
            _ => Ok(Response::new(Full::from("1"))),
        }
    });
    let (answer, elapsed) = upload_to(stuck).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["watershed-complete"], "false");
    assert_eq!(answer.body(), r#"{"one":400,"two":400}"#);
    assert_eq!(elapsed, 4 * STALL);
}

/// The second call waits for the first, which waits for the second to read: the window breaks the circle.
#[tokio::test(start_paused = true)]
async fn two_branches_over_one_slot_do_not_hang() {
    let one_slot = ConcurrencyLimit::new(service_fn(count), 1);
    let fan_out = FanOut::new([
        Branch::new("one", one_slot.clone()),
        Branch::new("two", one_slot),
    ])
    .ready_within(Duration::from_secs(60));
    let upload = Watch::default().upload(numbered(100));
    let request = Request::new(TeeBody::stream(upload, 16, STALL));
    let started = Instant::now();
    let outcomes: Vec<_> = fan_out.oneshot(request).await.unwrap().collect().await;
    assert_eq!(started.elapsed(), STALL);
    let done = outcomes
        .iter()
        .filter(|outcome| outcome.result.is_ok())
        .count();
    let lagged = outcomes.iter().filter(
        |outcome| matches!(&outcome.result, Err(BranchError::Service(error)) if error.is_lagged()),
    );
    assert_eq!((done, lagged.count()), (1, 1));
}

#[tokio::test]
async fn a_width_below_the_branches_is_refused() {
    let branches = || ["one", "two"].map(|name| Branch::new(name, service_fn(count)));
    let streamed = || {
        let upload = Watch::default().upload(numbered(1));
        Request::new(TeeBody::stream(upload, 16, STALL))
    };
    let narrow = FanOut::new(branches()).width(1);
    let refused = narrow.clone().oneshot(streamed()).await.unwrap_err();
    assert_eq!(
        refused,
        FanOutError::TooNarrow {
            width: 1,
            branches: 2
        }
    );
    // Wide enough, or with a body that is kept, it is not.
    assert!(
        FanOut::new(branches())
            .width(2)
            .oneshot(streamed())
            .await
            .is_ok()
    );
    let kept = Request::new(TeeBody::new(Full::from("text"), 4));
    assert_eq!(narrow.oneshot(kept).await.unwrap().count().await, 2);
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_somebody_holds_ends_after_the_stall() {
    let upload = Watch::default().upload(numbered(100));
    let request = Request::new(TeeBody::stream(upload, 16, STALL));
    let held = request.clone();
    let started = Instant::now();
    let fan_out = FanOut::new(["one", "two"].map(|name| Branch::new(name, service_fn(count))));
    let outcomes: Vec<_> = fan_out.oneshot(request).await.unwrap().collect().await;
    assert!(outcomes.iter().all(|outcome| outcome.result.is_ok()));
    assert_eq!(started.elapsed(), STALL);
    assert!(read(held.into_body()).await.unwrap_err().is_lagged());
}

/// B21: the client waits for `100 Continue`, which a server sends when the body is polled.
#[tokio::test(start_paused = true)]
async fn the_body_is_not_asked_for_before_a_branch_reads_it() {
    for layer in [
        CloneRequestLayer::new(),
        CloneRequestLayer::new().stream(16, STALL),
    ] {
        let watch = Watch::default();
        let service = ServiceBuilder::new()
            .layer(layer)
            .service_fn(|request| async {
                drop::<Request<TeeBody>>(request);
                Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
            });
        let upload = watch.upload(numbered(3));
        service.oneshot(Request::new(upload)).await.unwrap();
        assert_eq!(watch.taken(), 0);
        assert!(watch.is_dropped());
    }
}

/// What a random reader does next.
#[derive(Debug, Clone)]
enum Step {
    Read(usize),
    Clone(usize),
    Drop(usize),
    Forget(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => (0..8usize).prop_map(Step::Read),
        2 => (0..8usize).prop_map(Step::Clone),
        1 => (0..8usize).prop_map(Step::Drop),
        1 => (0..8usize).prop_map(Step::Forget),
    ];
    proptest::collection::vec(step, 0..120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Frames, window and what the readers do are random. Whatever a reader has read is the start of its share of the
    /// upload; in the end every reader that is left reads all, or has lagged; and whoever has stopped, however many they are, costs two stalls at the most.
    #[test]
    fn whatever_readers_do_the_rest_read_on(
        sizes in proptest::collection::vec(1..9usize, 0..24),
        window in 1..20u64,
        keep_all in any::<bool>(),
        steps in steps(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time().start_paused(true).build().unwrap();
        let upload: Vec<u8> = (0..sizes.iter().sum::<usize>()).map(|byte| byte as u8).collect();
        let mut at = 0;
        let frames: Vec<Bytes> = sizes.iter().map(|size| {
            at += size;
            Bytes::copy_from_slice(&upload[at - size..at])
        }).collect();
        runtime.block_on(async {
            let source = Watch::default().upload(frames);
            let first = match keep_all {
                true => TeeBody::new(source, upload.len() as u64),
                false => TeeBody::stream(source, window, STALL),
            };
            // A reader, and how far it has read.
            let mut readers = vec![(first, 0usize)];
            let mut forgotten = Vec::new();
            for step in steps {
                let count = readers.len().max(1);
                match step {
                    Step::Read(index) => {
                        let Some((body, read)) = readers.get_mut(index % count) else { continue };
                        let mut frame = task::spawn(body.frame());
                        if let Poll::Ready(Some(frame)) = frame.poll() {
                            match frame {
                                Ok(frame) => {
                                    let data = frame.into_data().unwrap();
                                    assert_eq!(&data[..], &upload[*read..*read + data.len()]);
                                    *read += data.len();
                                }
                                Err(error) => panic!("{error}"),
                            }
                        }
                    }
                    Step::Clone(index) => {
                        let Some(reader) = readers.get(index % count) else { continue };
                        if readers.len() < 8 {
                            readers.push((reader.0.clone(), reader.1));
                        }
                    }
                    Step::Drop(index) if !readers.is_empty() => drop(readers.swap_remove(index % count)),
                    Step::Forget(index) if !readers.is_empty() => forgotten.push(readers.swap_remove(index % count)),
                    _ => {}
                }
            }
            let started = Instant::now();
            let rest = readers.len();
            let ends = readers.into_iter().map(|(body, from)| {
                tokio::spawn(async move { (read(body).await, from) })
            });
            for end in ends.collect::<Vec<_>>() {
                let (result, from) = end.await.unwrap();
                assert_eq!(result.unwrap(), &upload[from..]);
            }
            // Who was level with the fastest at the first stall holds nothing yet; at the second, it does.
            let patience = if forgotten.is_empty() { Duration::ZERO } else { 2 * STALL };
            assert!(started.elapsed() <= patience, "{rest} readers took {:?}", started.elapsed());
        });
    }
}

/// Twelve readers on four threads, and a source that is fed and wakes from a fifth task.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_readers_on_many_threads_read_the_same() {
    for window in [1, 64, 4096] {
        let (feed, fed) = tokio::sync::mpsc::channel::<Bytes>(4);
        let frames = futures_util::stream::unfold(fed, |mut fed| async {
            let data = fed.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(data)), fed))
        });
        let first = TeeBody::stream(http_body_util::StreamBody::new(frames), window, STALL);
        let readers: Vec<_> = (0..12).map(|_| tokio::spawn(read(first.clone()))).collect();
        drop(first);
        for frame in numbered(2_000) {
            feed.send(frame).await.expect("somebody reads");
        }
        drop(feed);
        for reader in readers {
            assert_eq!(reader.await.unwrap().expect("nobody lags"), whole(2_000));
        }
    }
}
