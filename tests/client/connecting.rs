//! Connections that do not come about.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Version};
use http_body_util::Full;
use tower::ServiceExt;
use watershed::client::Client;
use watershed::error::cause_ref;

use crate::common::{Server, call, client, echo_server, get, read, within};

#[tokio::test]
async fn a_refused_connection_is_a_connect_error() {
    let server = Server::bind().await;
    let uri = server.uri("/secret-path");
    let address = server.address;
    drop(server.listener);
    let error = call(&client(), get(&uri)).await.unwrap_err();
    assert!(error.is_connect() && error.is_unsent());
    assert!(!error.is_timeout() && !error.is_closed());
    let text = error.to_string();
    assert!(!text.contains("secret") && !text.contains(&address.to_string()));
    let cause = cause_ref::<std::io::Error>(&error).expect("the cause is kept");
    assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn a_name_without_an_address_is_a_connect_error() {
    let error = call(&client(), get("http://nothing.invalid/"))
        .await
        .unwrap_err();
    assert!(error.is_connect() && error.is_unsent());
}

// B16
#[tokio::test]
async fn what_can_not_be_sent_is_refused_before_anything_is() {
    for request in [
        get("/path"),
        get("*"),
        get("ftp://127.0.0.1/"),
        get("http://user@127.0.0.1/"),
        Request::builder()
            .method(Method::CONNECT)
            .uri("127.0.0.1:80")
            .body(Full::default())
            .unwrap(),
    ] {
        let error = call(&client(), request).await.unwrap_err();
        assert!(error.is_invalid_request() && error.is_unsent(), "{error}");
        assert!(!error.is_connect() && !error.to_string().contains("127.0.0.1"));
    }
}

#[cfg(not(feature = "tls"))]
#[tokio::test]
async fn https_without_the_feature_says_so() {
    let error = call(&client(), get("https://127.0.0.1/"))
        .await
        .unwrap_err();
    assert!(error.is_invalid_request());
    assert!(error.to_string().contains("`tls`"), "{error}");
}

#[test]
fn a_connect_timeout_of_zero_is_not_built() {
    let result = Client::builder()
        .connect_timeout(Duration::ZERO)
        .try_build::<Full<Bytes>>();
    assert!(result.is_err());
}

// T11
#[tokio::test]
async fn the_longest_durations_are_for_ever() {
    let server = echo_server().await;
    let client: Client<Full<Bytes>> = Client::builder()
        .connect_timeout(Duration::MAX)
        .idle_timeout(Duration::MAX)
        .build();
    for _ in 0..2 {
        let response = call(&client, get(&server)).await.unwrap();
        read(response).await.unwrap();
    }
}

/// With hyper's own switch for HTTP/2 the second call fails, because it waits for the connection of the first.
#[tokio::test]
async fn a_call_that_is_dropped_while_it_connects_fails_no_other() {
    let server = echo_server().await;
    let client: Client<Full<Bytes>> = Client::builder().http2_only().build();
    let mut first = tokio_test::task::spawn(client.clone().oneshot(get(&server)));
    let mut second = tokio_test::task::spawn(client.clone().oneshot(get(&server)));
    assert!(first.poll().is_pending());
    assert!(second.poll().is_pending());
    drop(first);
    let response = within(second).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_2);
}
