//! The bodies: the one of a response, and what a request's own leaves behind when it fails.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::ClientError;
use super::exchange::Exchange;
use crate::deadline::{Deadline, Timer};
use crate::error::{BoxError, panic_message};

/// How long the body of a request may go on when the response is over, from its end and all in all.
///
/// A caller that has its answer may be about to end what it sends: then the connection is used again. If it is still in the
/// middle of it and nobody listened any more, its connection would be reset, and the answer be lost with it. But one that
/// has stopped may never go on, and it holds two connections.
const LINGER: Duration = Duration::from_secs(5);

/// The body of a response.
///
/// Frames, trailers, `size_hint` and `is_end_stream` are as they come in.
///
/// # Errors
///
/// A [`ClientError`] for which [`is_response_body`](ClientError::is_response_body) holds if the body is shorter than the
/// server had announced, is misframed, or its stream was reset. A body that ended without an error is whole.
///
/// # Cancellation
///
/// Dropping it before its end gives up the HTTP/1.1 connection, or the HTTP/2 stream. Once it is over or dropped, what is left
/// of the request's body may still be sent for five seconds: see [`Client`](super::Client#cancellation).
pub struct ClientBody {
    incoming: Incoming,
    answer: Option<Answer>,
}

impl ClientBody {
    pub(super) fn new(incoming: Incoming, answer: Option<Answer>) -> Self {
        let body = Self { incoming, answer };
        body.notice_its_end();
        body
    }

    fn notice_its_end(&self) {
        match &self.answer {
            Some(answer) if self.incoming.is_end_stream() => answer.finish(),
            _ => {}
        }
    }
}

impl Body for ClientBody {
    type Data = Bytes;
    type Error = ClientError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ClientError>>> {
        let this = &mut *self;
        let frame = match ready!(Pin::new(&mut this.incoming).poll_frame(cx)) {
            Some(Ok(frame)) => {
                this.notice_its_end();
                Some(Ok(frame))
            }
            end => {
                let answer = this.answer.take();
                end.map(|end| end.map_err(|error| ClientError::from_body(error, answer.as_ref())))
            }
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl fmt::Debug for ClientBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let left = self.size_hint();
        f.debug_struct("ClientBody").field("left", &left).finish()
    }
}

/// The end of an exchange that waits for the response. When it is dropped, the response is over.
pub(super) struct Answer(Arc<Exchange<Instant>>);

impl Answer {
    /// The error that the request's body ended with.
    ///
    /// Over HTTP/1.1 hyper hands that error on. Over HTTP/2 the body is sent by a task of its own: the error is logged, and
    /// the call fails with a reset of the stream, as if the server had been at fault.
    pub(super) fn take_error(&self) -> Option<BoxError> {
        self.0.take_error()
    }

    fn finish(&self) {
        self.0.finish(Instant::now());
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.finish();
    }
}

/// The end of an exchange that sends the request's body.
struct Sender {
    exchange: Arc<Exchange<Instant>>,
    /// Since the response is over.
    linger: Option<Timer>,
}

impl Sender {
    /// Whether the body has had its time, if another piece of it has come.
    fn is_late(&mut self) -> bool {
        let over = self.exchange.over();
        over.is_some_and(|over| self.lingers_from(over).deadline().has_passed())
    }

    /// Ready when the body has had its time, if it waits.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.exchange.over_or_wake(cx.waker()) {
            Some(over) => self.lingers_from(over).poll(cx),
            None => Poll::Pending,
        }
    }

    fn lingers_from(&mut self, over: Instant) -> &mut Timer {
        self.linger
            .get_or_insert_with(|| Timer::new(Deadline::after_at(LINGER, over)))
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.exchange.sent();
    }
}

/// What hyper is told in place of the error itself.
#[derive(Debug, thiserror::Error)]
#[error("the request body failed")]
struct BodyFailed;

/// A body is not of the length that the request announces.
#[derive(Debug, thiserror::Error)]
#[error("the request body is not of its announced length")]
struct WrongLength;

/// The response has been over for so long that the rest of the request is given up.
#[derive(Debug, thiserror::Error)]
#[error("the request body went on for more than {LINGER:?} after the end of the response")]
struct Unwanted;

/// The body of a request, as hyper sends it.
pub(super) struct RequestBody<B> {
    body: B,
    sender: Option<Sender>,
    /// What is still to come of the announced length. hyper would cut a longer body off, as if it were whole, and after a
    /// shorter one wait for an answer that the server will not give.
    left: Option<u64>,
}

impl<B: Body> RequestBody<B> {
    /// A body of the `announced` length, if one is. One that is over before it begins can't fail and outlasts no response,
    /// so it shares nothing.
    pub(super) fn new(body: B, announced: Option<u64>) -> (Self, Option<Answer>) {
        let exchange = (!body.is_end_stream()).then(|| Arc::new(Exchange::new()));
        let body = Self {
            body,
            sender: exchange.clone().map(|exchange| Sender {
                exchange,
                linger: None,
            }),
            left: announced,
        };
        (body, exchange.map(Answer))
    }

    fn is_short(&self) -> bool {
        self.left.is_some_and(|left| left > 0)
    }

    /// Whether it goes on although it has had its time. At a tie, its end wins.
    fn is_late(&mut self) -> bool {
        let ends = self.body.is_end_stream() || self.left == Some(0);
        !ends && self.sender.as_mut().is_some_and(Sender::is_late)
    }

    /// Counts a frame, or the end.
    fn account(&mut self, frame: Option<&Frame<B::Data>>) -> Result<(), WrongLength> {
        if let Some(data) = frame.and_then(Frame::data_ref) {
            if let Some(left) = &mut self.left {
                *left = left
                    .checked_sub(data.remaining() as u64)
                    .ok_or(WrongLength)?;
            }
        } else if self.is_short() {
            return Err(WrongLength);
        }
        Ok(())
    }
}

impl<B> Body for RequestBody<B>
where
    B: Body + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        let this = &mut *self;
        // This runs in the task of the connection, which over HTTP/2 carries other calls too: a panic ends this one only.
        let polled = catch_unwind(AssertUnwindSafe(|| Pin::new(&mut this.body).poll_frame(cx)));
        let error: BoxError = match polled {
            Ok(Poll::Pending) => {
                return match &mut this.sender {
                    Some(sender) => sender.poll_late(cx).map(|()| Some(Err(Unwanted.into()))),
                    None => Poll::Pending,
                };
            }
            Ok(Poll::Ready(frame)) => match frame.transpose() {
                Ok(frame) => match this.account(frame.as_ref()) {
                    Ok(()) if frame.as_ref().is_some_and(Frame::is_data) && this.is_late() => {
                        return Poll::Ready(Some(Err(Unwanted.into())));
                    }
                    Ok(()) => return Poll::Ready(frame.map(Ok)),
                    Err(error) => error.into(),
                },
                Err(error) => error.into(),
            },
            Err(payload) => panic_message(payload).into(),
        };
        let Some(sender) = &this.sender else {
            return Poll::Ready(Some(Err(error)));
        };
        sender.exchange.fail(error);
        Poll::Ready(Some(Err(BodyFailed.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream() && !self.is_short()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Makes the head say of the body what the body says of itself, and returns the announced length.
///
/// hyper believes the head. A `Content-Length` that was left over from another body would be sent with this one, and the
/// server would read the next request on that connection as the rest of it.
pub(super) fn announce<B: Body>(method: &Method, headers: &mut HeaderMap, body: &B) -> Option<u64> {
    let exact = if body.is_end_stream() {
        Some(0)
    } else {
        body.size_hint().exact()
    };
    if let Some(length) = exact {
        let expects_content = [Method::POST, Method::PUT, Method::PATCH].contains(method);
        if headers.contains_key(CONTENT_LENGTH) {
            if said_length(headers) != exact {
                headers.insert(CONTENT_LENGTH, length.into());
            }
        } else if length == 0 && expects_content {
            // RFC 9110 §8.6; hyper announces every length but this one.
            headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        return exact;
    }
    if !headers.contains_key(TRANSFER_ENCODING) {
        let said = said_length(headers);
        if said.is_some() {
            return said;
        }
        // hyper takes a GET of unknown length for one without a body, unless it is told otherwise.
        if [Method::GET, Method::HEAD].contains(method) {
            headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
    }
    // Overruled by the transfer coding, or not a length.
    headers.remove(CONTENT_LENGTH);
    None
}

/// The one `Content-Length`, if it is one.
fn said_length(headers: &HeaderMap) -> Option<u64> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(line), None) = (lines.next(), lines.next()) else {
        return None;
    };
    let digits = std::str::from_utf8(line.as_bytes()).ok()?;
    // `parse` would take a sign as well.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
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

        fn poll(&mut self) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
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
            assert_eq!(frame.into_data().unwrap(), piece);
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
}
