//! Calls as they should be: connections, versions, heads, bodies, upgrades.

use bytes::Bytes;
use http::{Request, StatusCode, Version};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt;
use tower::{ServiceBuilder, ServiceExt};
use watershed::client::Client;
use watershed::merge::PassthroughLayer;
use watershed::proxy_headers::{ForwardedStyle, ProxyHeadersLayer};
use watershed::rewrite::{RewriteLayer, UriTemplate};

use crate::common::{Server, call, client, echo_server, get, read, within};

#[tokio::test]
async fn a_connection_is_kept_and_used_again() {
    let server = Server::bind().await;
    let uri = server.uri("/");
    tokio::spawn(async move {
        loop {
            let mut peer = server.accept().await;
            tokio::spawn(async move {
                for count in 1.. {
                    peer.request().await;
                    peer.send(format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{count}"
                    ))
                    .await;
                }
            });
        }
    });
    let client = client();
    within(async {
        loop {
            let response = call(&client, get(&uri)).await.unwrap();
            if read(response).await.unwrap() == "2" {
                break;
            }
        }
    })
    .await;
}

/// RFC 9110 §9.3.7, through the stack of a reverse proxy: not below the path that others are sent to.
#[tokio::test]
async fn options_about_the_server_is_sent_as_that() {
    for base in ["", "/", "/v1"] {
        let server = Server::bind().await;
        let proxy = ServiceBuilder::new()
            .layer(
                ProxyHeadersLayer::new()
                    .forwarded(ForwardedStyle::Omit)
                    .forward_options_asterisk(),
            )
            .layer(PassthroughLayer::new())
            .layer(RewriteLayer::new(UriTemplate::new(&server.uri(base))).keep_path())
            .service(Client::new());
        let request = Request::options("*")
            .header("host", "caller.test")
            .body(Full::<Bytes>::default())
            .unwrap();
        let served = async {
            let mut peer = server.accept().await;
            let head = peer.request().await;
            peer.send("HTTP/1.1 204 No Content\r\nAllow: GET\r\n\r\n")
                .await;
            (head, peer)
        };
        let (answer, (head, _peer)) = tokio::join!(within(proxy.oneshot(request)), served);
        let Ok(answer) = answer;
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        assert_eq!(answer.headers()["allow"], "GET");
        let expected = format!("OPTIONS * HTTP/1.1\r\nhost: {}\r\n\r\n", server.address);
        assert_eq!(head.to_lowercase(), expected.to_lowercase());
    }
}

#[tokio::test]
async fn it_is_always_ready() {
    let mut client = client();
    let ready = client.ready().await;
    assert!(ready.is_ok());
}

#[tokio::test]
async fn the_version_by_which_a_request_came_does_not_matter() {
    for version in [
        Version::HTTP_09,
        Version::HTTP_10,
        Version::HTTP_2,
        Version::HTTP_3,
    ] {
        let server = Server::bind().await;
        let client = client();
        let mut request = get(&server.uri("/path?query"));
        *request.version_mut() = version;
        let (result, head) = tokio::join!(call(&client, request), async {
            let mut peer = server.accept().await;
            let head = peer.request().await;
            peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
            head
        });
        assert_eq!(result.unwrap().status(), 204);
        assert!(head.starts_with("GET /path?query HTTP/1.1\r\n"), "{head}");
        assert!(head.contains(&format!("host: {}\r\n", server.address)));
    }
}

#[tokio::test]
async fn a_host_that_is_set_is_kept() {
    let server = Server::bind().await;
    let client = client();
    let mut request = get(&server.uri("/"));
    request
        .headers_mut()
        .insert("host", "shop.example".parse().unwrap());
    let (result, head) = tokio::join!(call(&client, request), async {
        let mut peer = server.accept().await;
        let head = peer.request().await;
        peer.send("HTTP/1.1 204 No Content\r\n\r\n").await;
        head
    });
    result.unwrap();
    assert_eq!(head.matches("host:").count(), 1, "{head}");
    assert!(head.contains("host: shop.example\r\n"), "{head}");
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let server = Server::bind().await;
    let client = client();
    let (result, _peer) = tokio::join!(
        call(&client, get(&server.uri("/"))),
        server.answer(
            "HTTP/1.1 302 Found\r\nLocation: http://192.0.2.1/\r\nContent-Length: 0\r\n\r\n"
        ),
    );
    let response = result.unwrap();
    assert_eq!(response.status(), StatusCode::FOUND);
    assert_eq!(response.headers()["location"], "http://192.0.2.1/");
}

#[tokio::test]
async fn the_body_passes_on_what_it_knows() {
    let server = Server::bind().await;
    let client = client();
    let (result, mut peer) = tokio::join!(
        call(&client, get(&server.uri("/"))),
        server.answer("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabc"),
    );
    let mut body = result.unwrap().into_body();
    assert_eq!(body.size_hint().exact(), Some(6));
    assert!(!body.is_end_stream());
    let frame = within(body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "abc");
    assert_eq!(body.size_hint().exact(), Some(3));
    peer.send("def").await;
    let frame = within(body.frame()).await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "def");
    assert!(body.is_end_stream());
    assert!(within(body.frame()).await.is_none());
}

#[tokio::test]
async fn trailers_pass() {
    let server = Server::bind().await;
    let client = client();
    let (result, _peer) = tokio::join!(
        call(&client, get(&server.uri("/"))),
        server.answer(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n\
             3\r\nabc\r\n0\r\nx-sum: 6\r\n\r\n"
        ),
    );
    let collected = within(result.unwrap().into_body().collect()).await.unwrap();
    assert_eq!(collected.trailers().unwrap()["x-sum"], "6");
    assert_eq!(collected.to_bytes(), "abc");
}

#[tokio::test]
async fn nothing_of_the_transport_is_in_the_extensions_of_a_response() {
    let server = Server::bind().await;
    let client = client();
    let (result, _peer) = tokio::join!(
        call(&client, get(&server.uri("/"))),
        server.answer("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    );
    assert!(result.unwrap().extensions().is_empty());
}

#[tokio::test]
async fn an_upgrade_passes() {
    let server = Server::bind().await;
    let client = client();
    let mut request = get(&server.uri("/"));
    let headers = request.headers_mut();
    headers.insert("connection", "upgrade".parse().unwrap());
    headers.insert("upgrade", "echo".parse().unwrap());
    let (result, mut peer) = tokio::join!(
        call(&client, request),
        server.answer(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n"
        ),
    );
    let mut response = result.unwrap();
    assert_eq!(response.status(), StatusCode::SWITCHING_PROTOCOLS);
    let upgraded = within(hyper::upgrade::on(&mut response)).await.unwrap();
    peer.send("hello").await;
    let mut bytes = [0; 5];
    within(TokioIo::new(upgraded).read_exact(&mut bytes))
        .await
        .unwrap();
    assert_eq!(&bytes, b"hello");
}

#[tokio::test]
async fn http2_is_spoken_by_prior_knowledge() {
    let server = echo_server().await;
    let client: Client<Full<Bytes>> = Client::builder().http2_only().build();
    let request = Request::post(&server)
        .version(Version::HTTP_10)
        .body(Full::from("hello"))
        .unwrap();
    let response = call(&client, request).await.unwrap();
    assert_eq!(response.headers()["x-version"], "HTTP/2.0");
    assert_eq!(response.version(), Version::HTTP_2);
    assert_eq!(read(response).await.unwrap(), "hello");
}

#[tokio::test]
async fn http2_works_without_a_pool() {
    let server = echo_server().await;
    let client: Client<Full<Bytes>> = Client::builder().http2_only().max_idle_per_host(0).build();
    for _ in 0..2 {
        let response = call(&client, get(&server)).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_2);
        assert_eq!(read(response).await.unwrap(), "");
    }
}
