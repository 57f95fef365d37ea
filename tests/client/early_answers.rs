//! Answers that come before the end of what they answer.

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::AsyncReadExt;
use tokio::sync::mpsc;
use watershed::client::{Client, ClientBody};

use crate::common::{Peer, Server, call, pass, read, within};

type Upload = UnsyncBoxBody<Bytes, Infallible>;

/// As documented.
const LINGER: Duration = Duration::from_secs(5);

/// A request whose body is what is sent into the channel, 2 of 4 bytes by now.
fn half(uri: &str) -> (mpsc::Sender<&'static str>, Request<Upload>) {
    let (sender, mut pieces) = mpsc::channel::<&str>(1);
    sender.try_send("ab").unwrap();
    let frames = stream::poll_fn(move |cx| {
        pieces
            .poll_recv(cx)
            .map(|piece| piece.map(|piece| Ok(Frame::data(Bytes::from(piece)))))
    });
    let request = Request::post(uri)
        .header("content-length", "4")
        .body(StreamBody::new(frames).boxed_unsync())
        .unwrap();
    (sender, request)
}

async fn bytes(peer: &mut Peer, expected: &str) {
    let mut bytes = vec![0; expected.len()];
    within(peer.io.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(bytes, expected.as_bytes());
}

/// Sends half an upload, which is answered with `answer`.
async fn answered(
    server: &Server,
    client: &Client<Upload>,
    answer: &str,
) -> (mpsc::Sender<&'static str>, Response<ClientBody>, Peer) {
    let (sender, request) = half(&server.uri("/"));
    let (result, peer) = tokio::join!(call(client, request), async {
        let mut peer = server.accept().await;
        peer.request().await;
        bytes(&mut peer, "ab").await;
        peer.send(answer).await;
        peer
    });
    (sender, result.unwrap(), peer)
}

const ANSWERS: [(&str, &str); 4] = [
    ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", ""),
    ("HTTP/1.1 204 No Content\r\n\r\n", ""),
    (
        "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno",
        "no",
    ),
    (
        "HTTP/1.1 404 Not Found\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
        "no",
    ),
];

#[tokio::test]
async fn an_upload_that_stalls_is_given_up() {
    for (answer, text) in ANSWERS {
        // Whether the body is kept by then does not matter.
        for keep in [false, true] {
            let (server, client) = (Server::bind().await, Client::new());
            let (sender, response, peer) = answered(&server, &client, answer).await;
            let mut body = response.into_body();
            let mut read = Vec::new();
            while let Some(frame) = within(body.frame()).await {
                read.extend(frame.unwrap().into_data().unwrap());
            }
            assert_eq!(read, text.as_bytes());
            let kept = keep.then_some(body);
            pass(LINGER).await;
            peer.closed().await;
            within(sender.closed()).await;
            drop(kept);
        }
    }
}

#[tokio::test]
async fn an_upload_behind_an_answer_that_nobody_reads_is_given_up() {
    for (answer, _) in ANSWERS {
        let (server, client) = (Server::bind().await, Client::new());
        let (sender, response, peer) = answered(&server, &client, answer).await;
        drop(response);
        pass(LINGER).await;
        peer.closed().await;
        within(sender.closed()).await;
    }
}

#[tokio::test]
async fn an_upload_that_ends_in_time_leaves_a_connection_to_use_again() {
    for (answer, _) in ANSWERS {
        let (server, client) = (Server::bind().await, Client::new());
        let (sender, response, mut peer) = answered(&server, &client, answer).await;
        read(response).await.unwrap();
        pass(LINGER - Duration::from_secs(1)).await;
        sender.send("cd").await.unwrap();
        bytes(&mut peer, "cd").await;
        within(sender.closed()).await;
        // Its time is over, and the connection is not.
        pass(LINGER).await;
        let (_other, request) = half(&server.uri("/next"));
        let (result, _) = tokio::join!(call(&client, request), async {
            assert!(peer.request().await.starts_with("POST /next "));
            peer.send("HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
                .await;
        });
        assert_eq!(result.unwrap().status(), 204);
    }
}

/// An HTTP/2 server that answers at once, at the URI that is returned, and hands the bodies of the requests out.
async fn http2_server(text: &'static str) -> (String, mpsc::UnboundedReceiver<Incoming>) {
    let Server { listener, address } = Server::bind().await;
    let (sender, bodies) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (io, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let _ = sender.send(request.into_body());
            std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(
                text,
            ))))
        });
        let _ = auto::Builder::new(TokioExecutor::new())
            .serve_connection(TokioIo::new(io), service)
            .await;
    });
    (format!("http://{address}/"), bodies)
}

#[tokio::test]
async fn over_http2_the_stream_is_reset_and_no_other() {
    for text in ["", "no"] {
        for read_it in [false, true] {
            let (uri, mut bodies) = http2_server(text).await;
            let client: Client<Upload> = Client::builder().http2_only().build();
            let (stalls, request) = half(&uri);
            let response = call(&client, request).await.unwrap();
            let mut stalled = within(bodies.recv()).await.unwrap();
            let (ends, request) = half(&uri);
            let other = call(&client, request).await.unwrap();
            let mut whole = within(bodies.recv()).await.unwrap();
            for body in [&mut stalled, &mut whole] {
                let frame = within(body.frame()).await.unwrap().unwrap();
                assert_eq!(frame.into_data().unwrap(), "ab");
            }
            for response in [response, other] {
                if read_it {
                    assert_eq!(read(response).await.unwrap(), text);
                }
            }
            pass(LINGER - Duration::from_secs(1)).await;
            ends.send("cd").await.unwrap();
            drop(ends);
            let rest = within(whole.collect()).await.unwrap().to_bytes();
            assert_eq!(rest, "cd");
            pass(Duration::from_secs(1)).await;
            within(stalled.frame()).await.unwrap().unwrap_err();
            within(stalls.closed()).await;
            // The connection is as good as before: the server takes one.
            let (_more, request) = half(&uri);
            assert_eq!(call(&client, request).await.unwrap().status(), 200);
        }
    }
}
