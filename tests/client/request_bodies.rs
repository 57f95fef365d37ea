//! Bodies of requests: whose fault a failure is, and how long they are said to be.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body::{Body, Frame};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use tokio::io::AsyncReadExt;
use watershed::client::Client;
use watershed::clone_request::TeeBody;
use watershed::error::{BoxError, ClientFault, cause_ref};

use crate::common::{Server, call, echo_server, read, within};

type AnyBody = UnsyncBoxBody<Bytes, BoxError>;

/// A body of unknown length: one frame, then `end`.
fn failing(end: impl FnOnce() -> BoxError + Send + 'static) -> AnyBody {
    let frames = stream::unfold(Some(end), |end| async move {
        let end = end?;
        Some((Err(end()), None))
    });
    let first = stream::iter([Ok(Frame::data(Bytes::from_static(b"some bytes")))]);
    StreamBody::new(futures_util::StreamExt::chain(first, frames)).boxed_unsync()
}

async fn versions() -> [(Client<TeeBody>, String); 2] {
    [
        (Client::new(), echo_server().await),
        (Client::builder().http2_only().build(), echo_server().await),
    ]
}

#[tokio::test]
async fn a_fault_of_the_request_is_found_behind_the_error() {
    for (client, server) in versions().await {
        let frames =
            ["four", "more"].map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text))));
        let body = TeeBody::new(StreamBody::new(stream::iter(frames)), 4);
        let request = Request::post(&server).body(body).unwrap();
        let error = call(&client, request).await.unwrap_err();
        assert!(error.is_request_body() && !error.is_unsent(), "{error:?}");
        let fault = cause_ref::<ClientFault>(&error).expect("the fault");
        assert_eq!(fault.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }
}

#[tokio::test]
async fn a_fault_after_the_head_of_the_answer_is_found_as_well() {
    let server = Server::bind().await;
    let client: Client<AnyBody> = Client::new();
    let (fail, failed) = tokio::sync::oneshot::channel::<()>();
    let late = stream::once(async move {
        let _ = failed.await;
        Err::<Frame<Bytes>, BoxError>(ClientFault::bad_request("it broke off").into())
    });
    let body = StreamBody::new(late).boxed_unsync();
    let request = Request::post(server.uri("/")).body(body).unwrap();
    let (result, _peer) = tokio::join!(
        call(&client, request),
        server.answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n"),
    );
    let response = result.unwrap();
    fail.send(()).unwrap();
    let error = read(response).await.unwrap_err();
    assert!(error.is_request_body(), "{error:?}");
    assert!(cause_ref::<ClientFault>(&error).is_some());
}

#[tokio::test]
async fn a_body_that_panics_fails_its_own_call() {
    for builder in [Client::builder(), Client::builder().http2_only()] {
        let server = echo_server().await;
        let client: Client<AnyBody> = builder.build();
        let bad = Request::post(&server)
            .body(failing(|| panic!("a bug in the body")))
            .unwrap();
        let good = Request::post(&server)
            .body(Full::from("good").map_err(Into::into).boxed_unsync())
            .unwrap();
        let (bad, good) = tokio::join!(call(&client, bad), call(&client, good));
        let error = bad.unwrap_err();
        assert!(error.is_request_body(), "{error:?}");
        assert_eq!(read(good.unwrap()).await.unwrap(), "good");
    }
}

fn unknown_length(parts: &'static [&'static str]) -> AnyBody {
    let frames = parts
        .iter()
        .map(|part| Ok(Frame::data(Bytes::from_static(part.as_bytes()))));
    StreamBody::new(stream::iter(frames)).boxed_unsync()
}

/// The head and body, as sent, of a request with `lengths` as its `Content-Length` lines.
async fn sent(method: Method, lengths: &[&str], body: AnyBody) -> (String, String) {
    let server = Server::bind().await;
    let client: Client<AnyBody> = Client::new();
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = server.uri("/").parse().unwrap();
    for length in lengths {
        request
            .headers_mut()
            .append("content-length", length.parse().unwrap());
    }
    let (result, sent) = tokio::join!(call(&client, request), async {
        let mut peer = server.accept().await;
        let head = peer.request().await;
        peer.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            .await;
        let mut body = String::new();
        within(peer.io.read_to_string(&mut body)).await.unwrap();
        (head, body)
    });
    result.unwrap();
    sent
}

fn field<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.lines()
        .filter_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        .collect()
}

// B01, B37: what the head says is what follows, or the next request would be read as the rest.
#[tokio::test]
async fn a_length_that_was_left_over_is_put_right() {
    for method in [Method::GET, Method::POST] {
        for lengths in [
            &["10"][..],
            &["+5"],
            &["4", "5"],
            &["x"],
            &["5", "5"],
            &["5, 5"],
        ] {
            for text in ["", "short"] {
                let body = Full::from(text).map_err(Into::into).boxed_unsync();
                let (head, body) = sent(method.clone(), lengths, body).await;
                let length = text.len().to_string();
                assert_eq!(field(&head, "content-length"), [&length], "{lengths:?}");
                assert_eq!(body, text);
            }
        }
    }
}

#[tokio::test]
async fn a_length_of_nothing_is_said_where_content_is_expected() {
    let empty = || Full::default().map_err(Into::into).boxed_unsync();
    let (head, _) = sent(Method::POST, &[], empty()).await;
    assert_eq!(field(&head, "content-length"), ["0"]);
    let (head, _) = sent(Method::GET, &[], empty()).await;
    assert!(field(&head, "content-length").is_empty());
}

// B21
#[tokio::test]
async fn the_body_of_a_get_arrives_whatever_its_length() {
    for lengths in [&[][..], &["x"], &["4", "5"]] {
        let body = unknown_length(&["sho", "rt"]);
        let (head, body) = sent(Method::GET, lengths, body).await;
        assert_eq!(field(&head, "transfer-encoding"), ["chunked"]);
        assert!(field(&head, "content-length").is_empty());
        assert_eq!(body, "3\r\nsho\r\n2\r\nrt\r\n0\r\n\r\n");
    }
    // Said once, or several times the same (RFC 9110 §8.6).
    for lengths in [&["5"][..], &["5", "5"], &["5, 5"]] {
        let (head, body) = sent(Method::GET, lengths, unknown_length(&["sho", "rt"])).await;
        assert!(field(&head, "transfer-encoding").is_empty());
        assert_eq!(field(&head, "content-length"), ["5"], "{lengths:?}");
        assert_eq!(body, "short");
    }
}

#[tokio::test]
async fn a_body_that_breaks_its_word_is_the_request_s_fault() {
    for builder in [Client::builder(), Client::builder().http2_only()] {
        for parts in [&["sho"][..], &["sho", "rter"], &[]] {
            let server = echo_server().await;
            let client: Client<AnyBody> = builder.clone().build();
            let request = Request::post(&server)
                .header("content-length", "5")
                .body(unknown_length(parts))
                .unwrap();
            let error = call(&client, request).await.unwrap_err();
            assert!(error.is_request_body(), "{parts:?}: {error:?}");
        }
    }
}

/// One frame, after which it is over and says so at once, as a body does that is read from a connection.
struct Prompt(Option<Bytes>);

impl Body for Prompt {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|data| Ok(Frame::data(data))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }
}

/// hyper asks such a body no more, and would wait for an answer to what it has not sent.
#[tokio::test]
async fn a_short_body_is_noticed_at_its_last_frame() {
    for builder in [Client::builder(), Client::builder().http2_only()] {
        let server = echo_server().await;
        let request = Request::post(&server)
            .header("content-length", "10")
            .body(Prompt(Some(Bytes::from_static(b"short"))))
            .unwrap();
        let error = call(&builder.build(), request).await.unwrap_err();
        assert!(error.is_request_body(), "{error:?}");
    }
}

#[tokio::test]
async fn trailers_of_a_request_pass() {
    let server = Server::bind().await;
    let client: Client<AnyBody> = Client::new();
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", "6".parse().unwrap());
    let frames = [
        Ok(Frame::data(Bytes::from_static(b"abc"))),
        Ok(Frame::trailers(trailers)),
    ];
    let body = StreamBody::new(stream::iter(frames)).boxed_unsync();
    let request = Request::post(server.uri("/"))
        .header("trailer", "x-sum")
        .body(body)
        .unwrap();
    let (result, body) = tokio::join!(call(&client, request), async {
        let mut peer = server.accept().await;
        peer.request().await;
        let body = peer.request().await;
        peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        body
    });
    result.unwrap();
    assert_eq!(body, "3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n");
}

#[tokio::test]
async fn bodies_of_other_kinds_fit() {
    let server = echo_server().await;
    let client: Client<Empty<std::io::Cursor<Vec<u8>>>> = Client::new();
    let request = Request::get(&server).body(Empty::new()).unwrap();
    let response = call(&client, request).await.unwrap();
    assert_eq!(read(response).await.unwrap(), "");
}
