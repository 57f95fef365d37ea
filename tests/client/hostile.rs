//! Servers that break the rules.

use http::{Method, StatusCode};
use http_body::Body;
use tokio::io::AsyncWriteExt;

use crate::common::{Server, call, client, error_of, get, read, within};

// B27
#[tokio::test]
async fn a_body_shorter_than_announced_is_an_error() {
    let error = error_of("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort").await;
    assert!(error.is_response_body() && !error.is_unsent());
}

// B27
#[tokio::test]
async fn chunks_that_do_not_end_are_an_error() {
    for body in [
        "",
        "5",
        "5\r\nsho",
        "5\r\nshort",
        "5\r\nshort\r\n",
        "5\r\nshort\r\n0",
        "5\r\nshort\r\n0\r\n",
        "5\r\nshort\r\n0\r\nx-sum: 1\r\n",
        // Misframed.
        "5\r\nshorter\r\n0\r\n\r\n",
        "x\r\nshort\r\n0\r\n\r\n",
        "-5\r\nshort\r\n0\r\n\r\n",
        "10000000000000005\r\nshort\r\n0\r\n\r\n",
    ] {
        let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
        let error = error_of(format!("{head}{body}")).await;
        assert!(error.is_response_body(), "{body:?}: {error:?}");
    }
}

// B26
#[tokio::test]
async fn two_lengths_are_an_error() {
    let error =
        error_of("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nab").await;
    assert!(error.is_malformed() && !error.is_unsent(), "{error:?}");
}

// B02, of a response
#[tokio::test]
async fn a_length_that_is_no_number_is_an_error() {
    for length in ["+3", "-3", "3, 4", "0x3", "", "99999999999999999999"] {
        let error = error_of(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\nabc"
        ))
        .await;
        assert!(error.is_malformed(), "{length:?}: {error:?}");
    }
}

// B17, B26
#[tokio::test]
async fn heads_that_are_not_http_are_an_error() {
    for head in [
        "HTTP/1.1 200 OK\r\nx-folded: one\r\n two\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-space : one\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nx-nul: a\0b\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 2 OK\r\nContent-Length: 0\r\n\r\n",
        "HTTP/9.9 200 OK\r\nContent-Length: 0\r\n\r\n",
        "SSH-2.0-OpenSSH_9.9\r\n\r\n",
    ] {
        let error = error_of(head).await;
        assert!(error.is_malformed(), "{head:?}: {error:?}");
    }
}

#[tokio::test]
async fn an_endless_head_is_an_error() {
    let server = Server::bind().await;
    let client = client();
    let (result, _) = tokio::join!(call(&client, get(&server.uri("/"))), async {
        let mut peer = server.answer("HTTP/1.1 200 OK\r\nx-long: ").await;
        let block = [b'x'; 64 * 1024];
        // Until the client has had enough.
        while within(peer.io.write_all(&block)).await.is_ok() {}
    });
    let error = result.unwrap_err();
    assert!(error.is_malformed(), "{error:?}");
}

#[tokio::test]
async fn no_answer_is_an_error() {
    for bytes in ["", "HTTP/1.1 200 OK\r\nContent-Le"] {
        let error = error_of(bytes).await;
        assert!(error.is_closed() && !error.is_unsent(), "{error:?}");
    }
}

// B22
#[tokio::test]
async fn informational_answers_come_before_the_one_that_counts() {
    let server = Server::bind().await;
    let client = client();
    let (result, _peer) = tokio::join!(
        call(&client, get(&server.uri("/"))),
        server.answer(
            "HTTP/1.1 100 Continue\r\n\r\n\
             HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n\
             HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        ),
    );
    let response = result.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key("link"));
    assert_eq!(read(response).await.unwrap(), "ok");
}

// B24
#[tokio::test]
async fn answers_without_a_body_are_not_waited_for() {
    for (method, answer) in [
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
        (
            Method::HEAD,
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        ),
        (
            Method::GET,
            "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
        ),
        (
            Method::GET,
            "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        ),
    ] {
        let server = Server::bind().await;
        let client = client();
        let mut request = get(&server.uri("/"));
        *request.method_mut() = method;
        let (result, _peer) = tokio::join!(call(&client, request), server.answer(answer));
        let response = result.unwrap();
        assert!(response.body().is_end_stream());
        assert_eq!(read(response).await.unwrap(), "");
    }
}

// B19
#[tokio::test]
async fn bytes_beyond_ascii_in_a_field_pass() {
    let server = Server::bind().await;
    let client = client();
    let (result, _peer) = tokio::join!(
        call(&client, get(&server.uri("/"))),
        server.answer(b"HTTP/1.1 200 OK\r\nx-name: \xe9\xff\r\nContent-Length: 0\r\n\r\n"),
    );
    let response = result.unwrap();
    assert_eq!(response.headers()["x-name"].as_bytes(), b"\xe9\xff");
}
