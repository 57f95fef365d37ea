//! How large the head of a response may be.

use bytes::Bytes;
use h2::server;
use http::{HeaderName, HeaderValue, Response};
use http_body_util::Full;
use watershed::client::{Client, ClientBuilder};

use crate::common::{Server, call, get, within};

/// What comes of an HTTP/1.1 head of so many fields.
async fn of_fields(client: ClientBuilder, fields: usize) -> Result<usize, String> {
    let client: Client<Full<Bytes>> = client.build();
    let server = Server::bind().await;
    let more: String = (1..fields)
        .map(|field| format!("x-{field}: 1\r\n"))
        .collect();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{more}\r\n");
    let (result, _peer) = tokio::join!(call(&client, get(&server.uri("/"))), server.answer(head));
    match result {
        Ok(response) => Ok(response.headers().len()),
        Err(error) => {
            assert!(error.is_malformed(), "{error:?}");
            Err(error.to_string())
        }
    }
}

/// What comes of an HTTP/2 head of so many fields, each of so many bytes.
async fn of_bytes(client: ClientBuilder, fields: usize, bytes: usize) -> Option<usize> {
    let client: Client<Full<Bytes>> = client.http2_only().build();
    let server = Server::bind().await;
    let serving = async {
        let peer = server.accept().await;
        let mut connection = server::handshake(peer.io).await.unwrap();
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut head: Response<()> = Response::new(());
            for field in 0..fields {
                let name = HeaderName::try_from(format!("x-{field:05}")).unwrap();
                let value = "v".repeat(bytes - name.as_str().len());
                let value = HeaderValue::try_from(value).unwrap();
                head.headers_mut().append(name, value);
            }
            respond.send_response(head, true).unwrap();
        }
        std::future::pending().await
    };
    let calling = call(&client, get(&server.uri("/")));
    let result = tokio::select! {
        result = calling => result,
        () = within(serving) => unreachable!("it never ends"),
    };
    Some(result.ok()?.headers().len())
}

// B20
#[tokio::test]
async fn over_http1_a_head_has_at_most_100_fields_or_as_many_as_are_allowed() {
    for (client, most) in [
        (ClientBuilder::new(), 100),
        (ClientBuilder::new().max_response_fields(7), 7),
        (ClientBuilder::new().max_response_fields(500), 500),
    ] {
        assert_eq!(of_fields(client.clone(), most).await, Ok(most));
        of_fields(client, most + 1).await.unwrap_err();
    }
}

// B20
#[tokio::test]
async fn over_http2_a_head_has_at_most_64_kib_or_as_many_bytes_as_are_allowed() {
    const KIB: usize = 1024;
    let default = || ClientBuilder::new();
    // The pseudo field `:status` counts as well.
    assert_eq!(of_bytes(default(), 99, 60 * KIB / 99).await, Some(99));
    assert_eq!(of_bytes(default(), 1, 60 * KIB).await, Some(1));
    assert_eq!(of_bytes(default(), 16, 4 * KIB).await, Some(16));
    assert_eq!(of_bytes(default(), 10, 7 * KIB).await, None);
    let client = || default().max_response_head_bytes(256 * 1024);
    assert_eq!(of_bytes(client(), 50, 5 * KIB).await, Some(50));
    assert_eq!(of_bytes(client(), 60, 5 * KIB).await, None);
}

#[test]
fn a_head_of_nothing_is_not_built() {
    for client in [
        ClientBuilder::new().max_response_fields(0),
        ClientBuilder::new().max_response_head_bytes(0),
    ] {
        let error = client.try_build::<Full<Bytes>>().unwrap_err();
        assert!(error.to_string().contains("zero"), "{error}");
    }
}
