//! HTTP/2 streams that the server resets, with and without their end.

use std::convert::Infallible;
use std::future::{pending, poll_fn};

use bytes::Bytes;
use futures_util::stream;
use h2::server::{self, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Collected, StreamBody};
use tokio::net::TcpStream;
use watershed::client::{Client, ClientError};

use crate::common::{Server, call, within};

type Upload = UnsyncBoxBody<Bytes, Infallible>;
type Connection = server::Connection<TcpStream, Bytes>;

/// A call to a server that answers as `answer` does and then resets the stream, and another one on the same connection,
/// whose answer comes after that: so all that was said of the first one is there before its body is read.
async fn answered(
    announced: Option<&'static str>,
    answer: impl FnOnce(&mut SendStream<Bytes>),
    reason: Reason,
) -> Result<Collected<Bytes>, ClientError> {
    let server = Server::bind().await;
    let uri = server.uri("/");
    let serving = async {
        let peer = server.accept().await;
        let mut connection: Connection = server::handshake(peer.io).await.unwrap();
        let (_upload, mut respond) = next(&mut connection).await;
        let mut head = Response::new(());
        if let Some(length) = announced {
            let length = HeaderValue::from_static(length);
            head.headers_mut().insert("content-length", length);
        }
        let mut stream = respond.send_response(head, false).unwrap();
        answer(&mut stream);
        // It comes when the client has got the first head: what is left to send would be dropped by a reset.
        let (_upload, mut respond) = next(&mut connection).await;
        stream.send_reset(reason);
        respond.send_response(Response::new(()), true).unwrap();
        poll_fn(|cx| connection.poll_closed(cx)).await.unwrap();
        pending().await
    };
    let calling = async {
        let client: Client<Upload> = Client::builder().http2_only().build();
        // A stream whose request had ended would be closed by its answer, and could not be reset any more.
        let request = || {
            let unended = StreamBody::new(stream::pending()).boxed_unsync();
            Request::post(&uri).body(unended).unwrap()
        };
        let first = call(&client, request()).await.unwrap();
        call(&client, request()).await.unwrap();
        within(first.into_body().collect()).await
    };
    tokio::select! {
        result = calling => result,
        () = serving => unreachable!("it never ends"),
    }
}

async fn next(connection: &mut Connection) -> (Request<RecvStream>, SendResponse<Bytes>) {
    within(connection.accept()).await.unwrap().unwrap()
}

fn trailers() -> HeaderMap {
    let name = HeaderName::from_static("x-sum");
    HeaderMap::from_iter([(name, HeaderValue::from_static("1"))])
}

// B27
#[tokio::test]
async fn a_stream_that_is_reset_before_its_end_is_no_whole_body() {
    for announced in [None, Some("6")] {
        for reason in [Reason::NO_ERROR, Reason::CANCEL, Reason::INTERNAL_ERROR] {
            for data in ["", "123"] {
                let send = |stream: &mut SendStream<Bytes>| {
                    stream.send_data(data.into(), false).unwrap();
                };
                let error = answered(announced, send, reason).await.unwrap_err();
                assert!(error.is_response_body(), "{reason} {error}");
            }
        }
    }
}

/// As servers do that want nothing more of the request (RFC 9113 §8.1).
#[tokio::test]
async fn a_stream_that_is_reset_behind_its_end_is_whole() {
    for announced in [None, Some("3")] {
        let send = |stream: &mut SendStream<Bytes>| {
            stream.send_data("123".into(), true).unwrap();
        };
        let whole = answered(announced, send, Reason::NO_ERROR).await.unwrap();
        assert_eq!(whole.to_bytes(), "123");
        let send = |stream: &mut SendStream<Bytes>| {
            stream.send_data("123".into(), false).unwrap();
            stream.send_trailers(trailers()).unwrap();
        };
        let whole = answered(announced, send, Reason::NO_ERROR).await.unwrap();
        assert_eq!(whole.trailers(), Some(&trailers()));
        assert_eq!(whole.to_bytes(), "123");
    }
}
