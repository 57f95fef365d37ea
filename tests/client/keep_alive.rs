//! HTTP/2 servers that have vanished.

use std::time::Duration;

use bytes::Bytes;
use h2::server;
use http::{Response, Version};
use http_body_util::Full;
use watershed::client::{Client, ClientBuilder};

use crate::common::{Peer, Server, call, echo_server, get, pass, read, within};

const INTERVAL: Duration = Duration::from_secs(3);
/// As documented.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection whose server goes on only as long as it is polled.
async fn connection(peer: Peer) -> server::Connection<tokio::net::TcpStream, Bytes> {
    server::handshake(peer.io).await.unwrap()
}

/// Lets both ends do what they can.
async fn turns() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_server_that_has_vanished_fails_its_calls_and_is_not_asked_again() {
    let client: Client<Full<Bytes>> = Client::builder()
        .http2_only()
        .http2_keep_alive_interval(INTERVAL)
        .build();
    let server = Server::bind().await;
    let uri = server.uri("/");

    let waits = tokio::spawn({
        let (client, request) = (client.clone(), get(&uri));
        async move { call(&client, request).await }
    });
    let mut vanishes = connection(server.accept().await).await;
    let _unanswered = within(vanishes.accept()).await.unwrap().unwrap();
    // In steps: the interval begins anew with what comes from the server until it vanishes.
    let step = Duration::from_secs(1);
    for _ in 0..(INTERVAL + TIMEOUT + step).as_secs() {
        turns().await;
        pass(step).await;
    }
    within(waits).await.unwrap().unwrap_err();

    let (answer, ()) = tokio::join!(call(&client, get(&uri)), async {
        let mut stays = connection(server.accept().await).await;
        let (_, mut respond) = within(stays.accept()).await.unwrap().unwrap();
        respond.send_response(Response::new(()), true).unwrap();
        tokio::spawn(async move { while stays.accept().await.is_some() {} });
    });
    assert_eq!(read(answer.unwrap()).await.unwrap(), "");
}

#[tokio::test]
async fn a_server_that_is_there_may_take_its_time() {
    let client: Client<Full<Bytes>> = Client::builder()
        .http2_only()
        .http2_keep_alive_interval(INTERVAL)
        .build();
    let server = Server::bind().await;
    let uri = server.uri("/");
    let (answer, ()) = tokio::join!(call(&client, get(&uri)), async {
        let mut stays = connection(server.accept().await).await;
        let (_, mut respond) = within(stays.accept()).await.unwrap().unwrap();
        let answers = tokio::spawn(async move { while stays.accept().await.is_some() {} });
        for _ in 0..18 {
            // It is asked, and says so.
            turns().await;
            pass(Duration::from_secs(1)).await;
        }
        respond.send_response(Response::new(()), true).unwrap();
        drop(answers);
    });
    assert_eq!(read(answer.unwrap()).await.unwrap(), "");
}

#[test]
fn an_interval_of_zero_is_not_built() {
    let client = ClientBuilder::new().http2_keep_alive_interval(Duration::ZERO);
    let error = client.try_build::<Full<Bytes>>().unwrap_err();
    assert!(error.to_string().contains("zero"), "{error}");
}

/// It is not added to the clock's now.
#[tokio::test]
async fn an_interval_of_for_ever_is_never() {
    let client: Client<Full<Bytes>> = Client::builder()
        .http2_only()
        .http2_keep_alive_interval(Duration::MAX)
        .build();
    let answer = call(&client, get(&echo_server().await)).await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_2);
    read(answer).await.unwrap();
}
