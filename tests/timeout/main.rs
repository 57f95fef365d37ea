//! What the timeouts promise: whoever is late, there is one answer or one error, at the deadline and not after it, with the
//! header fields that belong to it and no others.

mod answer;
mod body;
mod client;
mod detach;
mod edge;
mod headers;
mod inherited;
mod panics;
mod turns;
mod wire;

#[path = "../support/mod.rs"]
mod support;

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use tokio::time::sleep;
use tower::{Service, service_fn};
use watershed::deadline::{Deadline, TimedOut};
use watershed::error::BoxError;
use watershed::timeout::ResponseHeaders;

use support::Hand;

type Whole = Full<Bytes>;
type Answering = Pin<Box<dyn Future<Output = Result<Response<Whole>, BoxError>> + Send>>;

fn request() -> Request<()> {
    Request::new(())
}

fn with_deadline(deadline: Deadline) -> Request<()> {
    let mut request = request();
    request.extensions_mut().insert(deadline);
    request
}

/// A response that says so, and says it in a field as well.
fn response(text: &'static str) -> Response<Whole> {
    let response = Response::builder()
        .header("x-inner", text)
        .header("content-length", text.len());
    response.body(Full::from(text)).expect("a response")
}

/// Answers `in time` after so long.
fn sleeper(
    delay: Duration,
) -> impl Service<Request<()>, Response = Response<Whole>, Error = BoxError, Future = Answering>
+ Clone
+ Send
+ 'static {
    service_fn(move |_| -> Answering {
        Box::pin(async move {
            sleep(delay).await;
            Ok(response("in time"))
        })
    })
}

/// What `future` comes to. On a paused clock, one that waits for what never comes fails its test, and does not hang it.
async fn ended<F: Future>(future: F) -> F::Output {
    let a_day = Duration::from_secs(24 * 3600);
    let ended = tokio::time::timeout(a_day, future).await;
    ended.expect("it waits for ever")
}

/// What a response that timed out says of it.
#[track_caller]
fn mark<B>(response: &Response<B>) -> TimedOut {
    *response.extensions().get().expect("a timeout's answer")
}

async fn text<B>(response: Response<B>) -> String
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BoxError>,
{
    let body = response.into_body().collect().await.map_err(Into::into);
    let bytes = body.expect("a whole body").to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

/// Runs `test` on a paused clock in a thread of its own: a deadlock in it is a failure, and holds nobody up.
#[track_caller]
fn unless_it_hangs<F: Future<Output = ()>>(test: impl FnOnce() -> F + Send + 'static) {
    let (done, ends) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        support::on_paused_clock(test());
        let _ = done.send(());
    });
    if ends.recv_timeout(Duration::from_secs(20)) == Err(mpsc::RecvTimeoutError::Timeout) {
        panic!("it hangs");
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

/// A service whose call ends when the test says so, and that shows what its request brought.
#[derive(Clone)]
struct Handler {
    hand: Hand<Response<Whole>>,
    requests: Arc<Mutex<Vec<Request<()>>>>,
}

impl Handler {
    fn new() -> Self {
        Self {
            hand: Hand::new(),
            requests: Arc::default(),
        }
    }

    /// The handle that the last call got.
    #[track_caller]
    fn headers(&self) -> ResponseHeaders {
        self.extension().expect("they are shared")
    }

    #[track_caller]
    fn extension<T: Clone + Send + Sync + 'static>(&self) -> Option<T> {
        let requests = self.requests.lock().expect("not poisoned");
        let last = requests.last().expect("it was called");
        last.extensions().get().cloned()
    }
}

impl Service<Request<()>> for Handler {
    type Response = Response<Whole>;
    type Error = BoxError;
    type Future = support::HandFuture<Response<Whole>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        self.requests.lock().expect("not poisoned").push(request);
        self.hand.call(())
    }
}
