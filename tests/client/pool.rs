//! Which connections are kept, and which are used again.

use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt, Full};
use tokio::io::AsyncWriteExt;
use tower::ServiceExt;
use watershed::client::Client;

use crate::common::{Server, call, client, get, read, within};

const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

async fn idle_is_closed(client: Client<Full<Bytes>>) {
    let server = Server::bind().await;
    let (result, peer) = tokio::join!(call(&client, get(&server.uri("/"))), server.answer(EMPTY));
    read(result.unwrap()).await.unwrap();
    peer.closed().await;
    drop(client);
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let client = Client::builder()
        .idle_timeout(Duration::from_millis(10))
        .build();
    idle_is_closed(client).await;
}

#[tokio::test]
async fn no_connection_is_kept_if_none_may_be() {
    idle_is_closed(Client::builder().idle_timeout(Duration::ZERO).build()).await;
    idle_is_closed(Client::builder().max_idle_per_host(0).build()).await;
}

#[tokio::test]
async fn the_last_clone_closes_what_is_idle() {
    let server = Server::bind().await;
    let client = client();
    let clone = client.clone();
    let (result, mut peer) =
        tokio::join!(call(&client, get(&server.uri("/"))), server.answer(EMPTY));
    read(result.unwrap()).await.unwrap();
    drop(client);
    // The clone still has it.
    let (result, _) = tokio::join!(call(&clone, get(&server.uri("/"))), async {
        peer.request().await;
        peer.send(EMPTY).await;
    });
    read(result.unwrap()).await.unwrap();
    drop(clone);
    peer.closed().await;
}

#[tokio::test]
async fn a_call_that_is_dropped_closes_its_connection() {
    let server = Server::bind().await;
    let client = client();
    let mut call = tokio_test::task::spawn(client.clone().oneshot(get(&server.uri("/"))));
    assert!(call.poll().is_pending());
    let mut peer = server.accept().await;
    tokio::select! {
        _ = peer.request() => {}
        _ = &mut call => unreachable!("nothing was answered"),
    }
    drop(call);
    peer.closed().await;
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_replaced() {
    let server = Server::bind().await;
    let uri = server.uri("/");
    tokio::spawn(async move {
        loop {
            drop(server.answer(EMPTY).await);
        }
    });
    let client = client();
    for _ in 0..3 {
        // It may be sent just as the server closes; that is over when the client has seen it.
        let response = within(async {
            loop {
                match call(&client, get(&uri)).await {
                    Ok(response) => break response,
                    Err(error) => assert!(error.is_closed(), "{error:?}"),
                }
            }
        })
        .await;
        read(response).await.unwrap();
    }
}

// B37
#[tokio::test]
async fn a_half_read_connection_is_not_used_again() {
    let server = Server::bind().await;
    let client = client();
    let (result, mut peer) = tokio::join!(
        call(&client, get(&server.uri("/one"))),
        server.answer("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"),
    );
    let mut body = result.unwrap().into_body();
    let frame = within(body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "half");
    drop(body);

    // The rest of the first answer holds what would be the answer to the second.
    let smuggled = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npwned!";
    let (result, mut other) = tokio::join!(call(&client, get(&server.uri("/two"))), async {
        // The client may be gone by now.
        let _ = peer.io.write_all(smuggled.as_bytes()).await;
        let mut other = server.accept().await;
        assert!(other.request().await.starts_with("GET /two "));
        other
            .send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmine")
            .await;
        other
    });
    assert_eq!(read(result.unwrap()).await.unwrap(), "mine");
    peer.closed().await;

    // And the new one is as good as any.
    let (result, _) = tokio::join!(call(&client, get(&server.uri("/three"))), async {
        assert!(other.request().await.starts_with("GET /three "));
        other.send(EMPTY).await;
    });
    read(result.unwrap()).await.unwrap();
}

// B37
#[tokio::test]
async fn what_is_left_of_an_unread_body_is_no_answer() {
    let server = Server::bind().await;
    let client = client();
    // The body is all there, so the connection may be drained and kept, or closed.
    let (result, mut peer) = tokio::join!(
        call(&client, get(&server.uri("/one"))),
        server.answer("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nfirst"),
    );
    drop(result.unwrap());
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecond";
    let (result, _kept) = tokio::join!(call(&client, get(&server.uri("/two"))), async {
        let mut byte = [0];
        if let Ok(1) = within(peer.io.peek(&mut byte)).await {
            peer.request().await;
            peer.send(second).await;
            peer
        } else {
            server.answer(second).await
        }
    });
    assert_eq!(read(result.unwrap()).await.unwrap(), "second");
}

const SPLIT: &str = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none\
                     HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npwned!";

// B28
#[tokio::test]
async fn bytes_after_the_body_answer_nobody() {
    let server = Server::bind().await;
    let client = client();
    for path in ["/one", "/two", "/three"] {
        let (result, peer) = tokio::join!(call(&client, get(&server.uri(path))), async {
            let mut peer = server.accept().await;
            let head = peer.request().await;
            assert!(head.starts_with(&format!("GET {path} ")), "{head}");
            peer.send(SPLIT).await;
            peer
        });
        assert_eq!(read(result.unwrap()).await.unwrap(), "one");
        peer.closed().await;
    }
}

// B28
#[tokio::test]
async fn bytes_that_come_later_answer_nobody() {
    let server = Server::bind().await;
    let client = client();
    let (result, mut peer) = tokio::join!(
        call(&client, get(&server.uri("/one"))),
        server.answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"),
    );
    assert_eq!(read(result.unwrap()).await.unwrap(), "one");
    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npwned!")
        .await;
    peer.closed().await;
    let (result, _peer) = tokio::join!(
        call(&client, get(&server.uri("/two"))),
        server.answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\ntwo"),
    );
    assert_eq!(read(result.unwrap()).await.unwrap(), "two");
}

#[tokio::test]
async fn a_request_that_was_sent_is_not_sent_again() {
    let server = Server::bind().await;
    let client = client();
    // On a fresh connection, and on one that was used before.
    for kept in [false, true] {
        let mut peer = None;
        if kept {
            let (result, first) =
                tokio::join!(call(&client, get(&server.uri("/"))), server.answer(EMPTY));
            read(result.unwrap()).await.unwrap();
            peer = Some(first);
        }
        let (result, _) = tokio::join!(call(&client, get(&server.uri("/once"))), async {
            let mut peer = match peer {
                Some(peer) => peer,
                None => server.accept().await,
            };
            assert!(peer.request().await.starts_with("GET /once "));
        });
        let error = result.unwrap_err();
        assert!(error.is_closed() && !error.is_unsent(), "{error:?}");
        // Whatever is accepted next is not that request.
        let (result, _peer) = tokio::join!(call(&client, get(&server.uri("/next"))), async {
            let mut peer = server.accept().await;
            let head = peer.request().await;
            assert!(head.starts_with("GET /next "), "{head}");
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
                .await;
            peer
        });
        read(result.unwrap()).await.unwrap();
    }
}

/// The server closes at the very moment at which the next request is sent. Each call ends well or as closed, and no
/// request arrives twice.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_race_with_the_server_s_close_repeats_nothing() {
    let server = Server::bind().await;
    let uri = server.uri("/");
    let (seen, mut requests) = tokio::sync::mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        loop {
            let mut peer = server.accept().await;
            let seen = seen.clone();
            tokio::spawn(async move {
                let _ = seen.send(peer.request().await);
                peer.send(EMPTY).await;
            });
        }
    });
    let client = client();
    let mut answered = 0;
    for id in 0..500 {
        let request = Request::post(format!("{uri}{id}"))
            .body(Full::default())
            .unwrap();
        match call(&client, request).await {
            Ok(response) => {
                answered += 1;
                read(response).await.unwrap();
            }
            Err(error) => assert!(error.is_closed() || error.is_unsent(), "{error:?}"),
        }
    }
    serving.abort();
    drop(client);
    let mut lines = std::collections::HashSet::new();
    while let Some(head) = within(requests.recv()).await {
        let line = head.lines().next().unwrap().to_owned();
        assert!(lines.insert(line), "{head}");
    }
    assert!(lines.len() >= answered);
}
