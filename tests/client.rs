//! What the client promises, against real servers on the loopback interface, most of them hostile.
//!
//! The names in comments are the cases of the project's list of bad input. Nothing here sleeps: a test waits for what it
//! expects, under a deadline.
#![cfg(feature = "client")]

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Method, Request, Response, StatusCode, Version};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use watershed::client::{Client, ClientBody, ClientError};
use watershed::clone_request::TeeBody;
use watershed::error::{BoxError, ClientFault, cause_ref};

/// What a test waits for comes, or the test has failed.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it did not come in time")
}

/// A server that says what it is told to, byte for byte.
struct Server {
    listener: TcpListener,
    address: SocketAddr,
}

impl Server {
    async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn accept(&self) -> Peer {
        let (io, _) = within(self.listener.accept()).await.unwrap();
        Peer { io }
    }

    /// Accepts, takes a request, and answers it with `bytes`.
    async fn answer(&self, bytes: impl AsRef<[u8]>) -> Peer {
        let mut peer = self.accept().await;
        peer.request().await;
        peer.send(bytes).await;
        peer
    }
}

/// The server's end of a connection.
struct Peer {
    io: TcpStream,
}

impl Peer {
    /// The head of the next request.
    async fn request(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = within(self.io.read_u8()).await.expect("a request");
            head.push(byte);
        }
        String::from_utf8(head).unwrap()
    }

    async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.io.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Waits until the client has closed, having sent nothing more.
    async fn closed(mut self) {
        let mut rest = Vec::new();
        // A reset is as good as an end.
        let _ = within(self.io.read_to_end(&mut rest)).await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

fn client() -> Client<Full<Bytes>> {
    Client::new()
}

async fn call<B>(
    client: &Client<B>,
    request: Request<B>,
) -> Result<Response<ClientBody>, ClientError>
where
    B: Body + Send + Unpin + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    within(client.clone().oneshot(request)).await
}

async fn read(response: Response<ClientBody>) -> Result<Bytes, ClientError> {
    Ok(within(response.into_body().collect()).await?.to_bytes())
}

/// The error of a call that is answered with `bytes`, after which the server closes.
async fn error_of(bytes: impl AsRef<[u8]>) -> ClientError {
    let server = Server::bind().await;
    let client = client();
    let (result, _) = tokio::join!(call(&client, get(&server.uri("/"))), async {
        drop(server.answer(bytes).await);
    });
    let error = match result {
        Ok(response) => read(response).await.expect_err("an error"),
        Err(error) => error,
    };
    assert_no_address(&error, &server);
    error
}

fn assert_no_address(error: &ClientError, server: &Server) {
    let text = error.to_string();
    assert!(!text.contains("127.0.0.1"), "{text}");
    assert!(!text.contains(&server.address.port().to_string()), "{text}");
}

/// A well-behaved server of either HTTP version, at the URI that is returned: it answers with the version and the body of
/// each request.
async fn echo_server() -> String {
    let Server { listener, address } = Server::bind().await;
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            tokio::spawn(serve_echo(TokioIo::new(io)));
        }
    });
    format!("http://{address}/")
}

async fn serve_echo<I>(io: I)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(echo);
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(io, service)
        .await;
}

async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, BoxError> {
    let version = request.version();
    let body = request.into_body().collect().await?.to_bytes();
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert("x-version", format!("{version:?}").parse()?);
    Ok(response)
}

mod ordinary {
    use super::*;

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
        let client: Client<Full<Bytes>> =
            Client::builder().http2_only().max_idle_per_host(0).build();
        for _ in 0..2 {
            let response = call(&client, get(&server)).await.unwrap();
            assert_eq!(response.version(), Version::HTTP_2);
            assert_eq!(read(response).await.unwrap(), "");
        }
    }
}

mod connecting {
    use super::*;

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
}

mod pool {
    use super::*;

    const EMPTY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

    async fn idle_is_closed(client: Client<Full<Bytes>>) {
        let server = Server::bind().await;
        let (result, peer) =
            tokio::join!(call(&client, get(&server.uri("/"))), server.answer(EMPTY));
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
}

mod hostile {
    use super::*;

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

    // B20
    #[tokio::test]
    async fn a_head_of_101_fields_is_an_error() {
        let fields = |count: usize| {
            (1..count)
                .map(|field| format!("x-{field}: 1\r\n"))
                .collect::<String>()
        };
        let head = |count| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n",
                fields(count)
            )
        };
        let error = error_of(head(101)).await;
        assert!(error.is_malformed(), "{error:?}");

        let server = Server::bind().await;
        let client = client();
        let (result, _peer) = tokio::join!(
            call(&client, get(&server.uri("/"))),
            server.answer(head(100))
        );
        assert_eq!(result.unwrap().headers().len(), 100);
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
}

mod request_bodies {
    use super::*;

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
            for lengths in [&["10"][..], &["+5"], &["4", "5"], &["x"], &["5", "5"]] {
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
        let (head, body) = sent(Method::GET, &["5"], unknown_length(&["sho", "rt"])).await;
        assert!(field(&head, "transfer-encoding").is_empty());
        assert_eq!(body, "short");
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
}

/// Answers that come before the end of what they answer.
mod early_answers {
    use tokio::sync::mpsc;

    use super::*;

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

    /// Turns the clock while the test runs on real time, as it has to with sockets.
    async fn pass(time: Duration) {
        tokio::time::pause();
        tokio::time::advance(time).await;
        tokio::time::resume();
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
}

#[cfg(feature = "tls")]
mod tls {
    use std::sync::Arc;

    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::{self, ServerConfig};

    use super::*;

    struct TlsServer {
        pem: String,
        port: u16,
    }

    impl TlsServer {
        /// An echo server with a certificate of its own for `localhost`, that offers `protocols` by ALPN.
        async fn start(protocols: &[&str]) -> Self {
            let rcgen::CertifiedKey { cert, key_pair } =
                rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let mut config = ServerConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![cert.der().clone()],
                    key_pair.serialize_der().try_into().unwrap(),
                )
                .unwrap();
            config.alpn_protocols = protocols
                .iter()
                .map(|name| name.as_bytes().into())
                .collect();
            let acceptor = TlsAcceptor::from(Arc::new(config));
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let port = listener.local_addr().unwrap().port();
            tokio::spawn(async move {
                while let Ok((io, _)) = listener.accept().await {
                    let acceptor = acceptor.clone();
                    tokio::spawn(async move {
                        if let Ok(io) = acceptor.accept(io).await {
                            serve_echo(TokioIo::new(io)).await;
                        }
                    });
                }
            });
            Self {
                pem: cert.pem(),
                port,
            }
        }

        fn uri(&self) -> String {
            format!("https://localhost:{}/secret-path", self.port)
        }

        fn client(&self) -> Client<Full<Bytes>> {
            Client::builder().add_root_pem(self.pem.as_bytes()).build()
        }
    }

    #[tokio::test]
    async fn the_server_chooses_the_version() {
        for (protocols, version) in [
            (&["h2", "http/1.1"][..], Version::HTTP_2),
            (&["http/1.1"], Version::HTTP_11),
            (&[], Version::HTTP_11),
        ] {
            let server = TlsServer::start(protocols).await;
            let client = server.client();
            for came_by in [Version::HTTP_10, Version::HTTP_2] {
                let request = Request::post(server.uri())
                    .version(came_by)
                    .body(Full::from("hello"))
                    .unwrap();
                let response = call(&client, request).await.unwrap();
                assert_eq!(response.version(), version);
                assert_eq!(read(response).await.unwrap(), "hello");
            }
        }
    }

    #[tokio::test]
    async fn only_http2_is_offered_if_only_it_is_wanted() {
        let server = TlsServer::start(&["http/1.1"]).await;
        let client = Client::builder()
            .add_root_pem(server.pem.as_bytes())
            .http2_only()
            .build();
        let error = call(&client, get(&server.uri())).await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
    }

    #[tokio::test]
    async fn the_same_client_speaks_plain_http() {
        let server = TlsServer::start(&[]).await;
        let plain = echo_server().await;
        let client = server.client();
        let response = call(&client, get(&plain)).await.unwrap();
        assert_eq!(response.version(), Version::HTTP_11);
    }

    #[tokio::test]
    async fn a_certificate_that_is_not_trusted_is_a_connect_error() {
        let server = TlsServer::start(&[]).await;
        let other = TlsServer::start(&[]).await;
        for client in [client(), other.client()] {
            let error = call(&client, get(&server.uri())).await.unwrap_err();
            assert!(error.is_connect() && !error.is_timeout(), "{error:?}");
            let text = error.to_string();
            assert!(!text.contains("secret") && !text.contains("localhost"));
        }
        // The name has to be the one in the certificate.
        let uri = format!("https://127.0.0.1:{}/", server.port);
        let error = call(&server.client(), get(&uri)).await.unwrap_err();
        assert!(error.is_connect(), "{error:?}");
    }

    #[tokio::test]
    async fn a_server_without_tls_is_a_connect_error() {
        let server = echo_server().await;
        let uri = server.replace("http:", "https:");
        let error = call(&client(), get(&uri)).await.unwrap_err();
        assert!(error.is_connect() & !error.is_timeout(), "{error:?}");
    }

    /// The handshake counts: a server that accepts and then says nothing is not waited for.
    #[tokio::test]
    async fn a_handshake_that_does_not_end_is_a_timeout() {
        let server = Server::bind().await;
        let client: Client<Full<Bytes>> = Client::builder()
            .connect_timeout(Duration::from_millis(50))
            .build();
        let uri = server.uri("/").replace("http:", "https:");
        let (result, _peer) = tokio::join!(call(&client, get(&uri)), server.accept());
        let error = result.unwrap_err();
        assert!(error.is_timeout() && error.is_connect() && error.is_unsent());
        assert_no_address(&error, &server);
    }

    #[test]
    fn a_root_that_is_none_is_not_built() {
        let bad = [
            "",
            "no certificate",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ];
        for pem in bad {
            let result = Client::builder()
                .add_root_pem(pem.as_bytes())
                .try_build::<Full<Bytes>>();
            assert!(result.is_err(), "{pem:?}");
        }
    }

    #[test]
    fn several_roots_fit_into_one_file() {
        let pem: String = ["a.example", "b.example"]
            .map(|name| {
                let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
                made.cert.pem()
            })
            .concat();
        let result = Client::builder()
            .add_root_pem(pem.as_bytes())
            .try_build::<Full<Bytes>>();
        assert!(result.is_ok());
    }
}
