use std::task::ready;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::sync::mpsc;
use tokio_test::task::{Spawn, spawn};

use super::*;

const MOMENT: Duration = Duration::from_millis(1);

type Upload = Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>;

struct Rig {
    body: Spawn<RequestBody<Upload>>,
    answer: Option<Answer>,
    pieces: Option<mpsc::UnboundedSender<&'static str>>,
}

impl Rig {
    fn new(announced: Option<u64>) -> Self {
        let (pieces, mut sent) = mpsc::unbounded_channel::<&str>();
        let frames = futures_util::stream::poll_fn(move |cx| {
            let piece = ready!(sent.poll_recv(cx));
            Poll::Ready(piece.map(|piece| Ok(Frame::data(Bytes::from(piece)))))
        });
        let upload: Upload = Box::pin(StreamBody::new(frames));
        let (body, answer) = RequestBody::new(upload, announced);
        Self {
            body: spawn(body),
            answer,
            pieces: Some(pieces),
        }
    }

    fn poll(&mut self) -> Poll<Option<Result<Frame<Piece<Bytes>>, BoxError>>> {
        self.body.enter(|cx, body| body.poll_frame(cx))
    }

    fn send(&self, piece: &'static str) {
        self.pieces
            .as_ref()
            .expect("not ended")
            .send(piece)
            .unwrap();
    }

    #[track_caller]
    fn passes(&mut self, piece: &'static str) {
        self.send(piece);
        let Poll::Ready(Some(Ok(frame))) = self.poll() else {
            panic!("no frame");
        };
        assert_eq!(frame.into_data().ok().expect("data").data, piece);
    }

    #[track_caller]
    fn is_given_up(&mut self) {
        let Poll::Ready(Some(Err(error))) = self.poll() else {
            panic!("no error");
        };
        assert!(error.is::<Unwanted>(), "{error}");
    }
}

async fn pass(time: Duration) {
    tokio::time::advance(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stalls_is_given_up_after_the_response() {
    let mut rig = Rig::new(Some(100_000));
    rig.passes("ab");
    assert!(rig.poll().is_pending());
    // It may wait as long as the response is wanted.
    pass(10 * LINGER).await;
    assert!(!rig.body.is_woken());
    assert!(rig.poll().is_pending());
    drop(rig.answer.take());
    assert!(rig.body.is_woken());
    assert!(rig.poll().is_pending());
    pass(LINGER - MOMENT).await;
    assert!(rig.poll().is_pending());
    pass(2 * MOMENT).await;
    assert!(rig.body.is_woken());
    rig.is_given_up();
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_is_given_up_as_well() {
    let mut rig = Rig::new(None);
    drop(rig.answer.take());
    for _ in 0..5 {
        rig.passes("drip");
        assert!(rig.poll().is_pending());
        pass(LINGER / 5).await;
    }
    rig.send("drip");
    rig.is_given_up();
}

/// Nobody asks it for long: the time is from the end of the response all the same.
#[tokio::test(start_paused = true)]
async fn the_time_counts_from_the_first_end_of_the_response() {
    let mut rig = Rig::new(None);
    rig.answer.as_ref().expect("one").finish();
    pass(LINGER - MOMENT).await;
    drop(rig.answer.take());
    assert!(rig.poll().is_pending());
    pass(2 * MOMENT).await;
    rig.is_given_up();
}

// At a tie, too.
#[tokio::test(start_paused = true)]
async fn a_body_that_ends_is_whole() {
    for time in [Duration::ZERO, LINGER] {
        let mut rig = Rig::new(Some(4));
        drop(rig.answer.take());
        rig.passes("ab");
        pass(time).await;
        // The last of what was announced.
        rig.passes("cd");
        drop(rig.pieces.take());
        assert!(matches!(rig.poll(), Poll::Ready(None)));

        let mut rig = Rig::new(None);
        drop(rig.answer.take());
        assert!(rig.poll().is_pending());
        drop(rig.pieces.take());
        pass(time).await;
        assert!(matches!(rig.poll(), Poll::Ready(None)));
    }
}

/// The task of an HTTP/1.1 connection goes on with other calls.
#[tokio::test(start_paused = true)]
async fn a_body_that_is_gone_wakes_nobody() {
    let mut rig = Rig::new(None);
    assert!(rig.poll().is_pending());
    let empty: Upload = Box::pin(Full::default().map_err(Into::into));
    let none = RequestBody::new(empty, None).0;
    drop(std::mem::replace(&mut *rig.body, none));
    drop(rig.answer.take());
    assert!(!rig.body.is_woken());
}

#[test]
fn a_request_without_a_body_shares_nothing() {
    let (body, answer) = RequestBody::new(Full::<Bytes>::default(), None);
    assert!(body.sender.is_none() && answer.is_none());
}
