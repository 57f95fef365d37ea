//! What goes over the wire: a real server, its connection in memory, its clock turned.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, Empty, Full, StreamBody};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::time::{Instant, sleep};
use tower::{Layer, Service, ServiceExt, service_fn};
use watershed::body::BoxBody;
use watershed::error::BoxError;
use watershed::timeout::{ResponseHeaders, Scope, Timeout, TimeoutLayer};

use crate::Whole;
use crate::support::MS;

/// The client's end of a connection to a server of HTTP/1.1.
fn serve<S, B>(service: S) -> DuplexStream
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Into<BoxError>,
    B: Body<Data = Bytes, Error = BoxError> + Send + 'static,
{
    let (client, server) = duplex(64 * 1024);
    let connection = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(service))
        .with_upgrades();
    tokio::spawn(connection);
    client
}

async fn send(connection: &mut DuplexStream, text: &str) {
    connection
        .write_all(text.as_bytes())
        .await
        .expect("writable");
}

/// One response without its body.
async fn head(connection: &mut DuplexStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(connection.read_u8().await.expect("a whole head"));
    }
    String::from_utf8(head).expect("ASCII")
}

async fn rest(mut connection: DuplexStream) -> String {
    let mut rest = Vec::new();
    connection.read_to_end(&mut rest).await.expect("readable");
    String::from_utf8(rest).expect("UTF-8")
}

/// The value of a field in a head.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(of, _)| *of == name).map(|(_, value)| value)
}

const GET: &str = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";

fn late() -> TimeoutLayer {
    TimeoutLayer::new(10 * MS)
}

/// One frame, and then nothing.
fn stalls() -> Response<BoxBody> {
    use futures_util::StreamExt;
    let frames = futures_util::stream::iter([Ok(Frame::data(Bytes::from("first")))]);
    let frames = frames.chain(futures_util::stream::pending::<Result<_, BoxError>>());
    Response::new(BoxBody::new(StreamBody::new(frames)))
}

// T21
#[tokio::test(start_paused = true)]
async fn over_http_1_a_body_that_stalls_is_cut_short_and_the_client_can_tell() {
    let service = || {
        let stalls = service_fn(|_: Request<Incoming>| async { Ok::<_, BoxError>(stalls()) });
        late().scope(Scope::HeadAndBody).layer(stalls)
    };
    let start = Instant::now();
    let mut connection = serve(service());
    send(&mut connection, GET).await;
    let head = head(&mut connection).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
    // One chunk, no last one, no second head; and the connection is closed.
    assert_eq!(rest(connection).await, "5\r\nfirst\r\n");
    assert_eq!(start.elapsed(), 10 * MS);

    let connection = TokioIo::new(serve(service()));
    let (mut client, connection) = hyper::client::conn::http1::handshake(connection)
        .await
        .expect("h1");
    tokio::spawn(connection);
    let request = Request::new(Empty::<Bytes>::new());
    let mut response = client.send_request(request).await.expect("a head in time");
    assert_eq!(response.status(), 200);
    let first = response.frame().await.expect("a frame").expect("in time");
    assert_eq!(first.into_data().expect("data"), "first");
    let error = response
        .frame()
        .await
        .expect("no silent end")
        .expect_err("cut short");
    assert!(
        error.is_incomplete_message()
            || error.is_body_write_aborted()
            || error.is_closed()
            || format!("{error:?}").contains("UnexpectedEof"),
        "{error:?}"
    );
}

// T21
#[tokio::test(start_paused = true)]
async fn over_http_2_a_body_that_stalls_is_a_reset_stream_and_the_connection_goes_on() {
    let stalls = service_fn(|_: Request<Incoming>| async { Ok::<_, BoxError>(stalls()) });
    let service = late().scope(Scope::HeadAndBody).layer(stalls);
    let (client, server) = duplex(64 * 1024);
    let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(server), TowerToHyperService::new(service));
    tokio::spawn(server);
    let client = TokioIo::new(client);
    let executor = TokioExecutor::new();
    let (mut client, connection) = hyper::client::conn::http2::handshake(executor, client)
        .await
        .expect("h2");
    tokio::spawn(connection);
    for _ in 0..2 {
        let start = Instant::now();
        let request = Request::get("http://a/")
            .body(Empty::<Bytes>::new())
            .expect("a request");
        let mut response = client.send_request(request).await.expect("a head in time");
        assert_eq!(response.status(), 200);
        let first = response.frame().await.expect("a frame").expect("in time");
        assert_eq!(first.into_data().expect("data"), "first");
        let error = response
            .frame()
            .await
            .expect("no silent end")
            .expect_err("reset");
        assert!(format!("{error:?}").contains("Reset("), "{error:?}");
        assert_eq!(start.elapsed(), 10 * MS);
    }
}

/// Reads all of the request, and says what it was.
fn echo(
    calls: &Arc<AtomicUsize>,
) -> Timeout<
    impl Service<Request<Incoming>, Response = Response<Whole>, Error = BoxError, Future: Send>
    + Clone
    + Send
    + 'static,
> {
    let calls = Arc::clone(calls);
    late().layer(service_fn(move |request: Request<Incoming>| {
        calls.fetch_add(1, Ordering::Relaxed);
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await?.to_bytes();
            let body = String::from_utf8_lossy(&body).into_owned();
            Ok::<_, BoxError>(Response::new(Full::from(format!("{path} {body}"))))
        }
    }))
}

// T24
#[tokio::test(start_paused = true)]
async fn what_is_left_of_an_upload_that_stalled_is_never_taken_for_a_request() {
    let calls = Arc::new(AtomicUsize::new(0));
    let service = echo(&calls);
    let smuggled = "GET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n";
    for expects in [false, true] {
        calls.store(0, Ordering::Relaxed);
        let start = Instant::now();
        let mut connection = serve(service.clone());
        let expect = if expects {
            "expect: 100-continue\r\n"
        } else {
            ""
        };
        let length = 4 + smuggled.len();
        send(
            &mut connection,
            &format!(
                "POST /upload HTTP/1.1\r\nhost: a\r\n{expect}content-length: {length}\r\n\r\n"
            ),
        )
        .await;
        if expects {
            // 1xx is no answer: the head is still to come.
            assert_eq!(head(&mut connection).await, "HTTP/1.1 100 Continue\r\n\r\n");
        }
        send(&mut connection, "half").await;
        let answer = head(&mut connection).await;
        assert!(
            answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"),
            "{answer}"
        );
        assert_eq!(start.elapsed(), 10 * MS);
        let length: usize = field(&answer, "content-length")
            .expect("announced")
            .parse()
            .expect("digits");
        // The rest of the body comes after all. It may be refused, and is no request.
        let _ = connection.write_all(smuggled.as_bytes()).await;
        let _ = connection.write_all(GET.as_bytes()).await;
        let rest = rest(connection).await;
        assert_eq!(
            (rest.len(), calls.load(Ordering::Relaxed)),
            (length, 1),
            "{rest}"
        );

        // The next one, on a connection of its own, is what it is.
        let mut connection = serve(service.clone());
        send(
            &mut connection,
            "POST /next HTTP/1.1\r\nhost: a\r\nconnection: close\r\ncontent-length: 3\r\n\r\nall",
        )
        .await;
        let answer = head(&mut connection).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
        assert_eq!(self::rest(connection).await, "/next all");
    }
}

/// The timeout answer leaves a connection usable whose request was whole.
#[tokio::test(start_paused = true)]
async fn after_a_timeout_answer_the_connection_serves_the_next_request() {
    let service = late().layer(service_fn(|request: Request<Incoming>| async move {
        if request.uri().path() == "/slow" {
            sleep(Duration::from_secs(3600)).await;
        }
        Ok::<_, BoxError>(Response::new(Full::<Bytes>::from("in time")))
    }));
    let mut connection = serve(service);
    send(&mut connection, "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n").await;
    let answer = head(&mut connection).await;
    assert!(
        answer.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"),
        "{answer}"
    );
    let length: usize = field(&answer, "content-length")
        .expect("announced")
        .parse()
        .expect("digits");
    let mut body = vec![0; length];
    connection.read_exact(&mut body).await.expect("all of it");
    assert!(body.starts_with(b"{\"title\""));
    send(
        &mut connection,
        "GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    )
    .await;
    let answer = head(&mut connection).await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert_eq!(rest(connection).await, "in time");
}

// T25
#[tokio::test(start_paused = true)]
async fn no_timer_touches_what_was_upgraded() {
    let service = service_fn(|mut request: Request<Incoming>| async move {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let mut io = TokioIo::new(upgraded.await.expect("upgraded"));
            let mut text = [0; 4];
            while io.read_exact(&mut text).await.is_ok() {
                io.write_all(&text).await.expect("writable");
            }
        });
        let mut response = Response::new(Whole::default());
        if request.method() != http::Method::CONNECT {
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            response
                .headers_mut()
                .insert(CONNECTION, HeaderValue::from_static("upgrade"));
            response
                .headers_mut()
                .insert(UPGRADE, HeaderValue::from_static("echo"));
        }
        Ok::<_, BoxError>(response)
    });
    let layer = late().scope(Scope::HeadAndBody).idle(5 * MS);
    for (request, status) in [
        (
            "GET / HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
            "HTTP/1.1 101",
        ),
        ("CONNECT a:1 HTTP/1.1\r\nhost: a:1\r\n\r\n", "HTTP/1.1 200"),
    ] {
        let mut connection = serve(layer.layer(service));
        send(&mut connection, request).await;
        let answer = head(&mut connection).await;
        assert!(answer.starts_with(status), "{answer}");
        for _ in 0..3 {
            sleep(Duration::from_secs(3600)).await;
            send(&mut connection, "ping").await;
            let mut text = [0; 4];
            connection.read_exact(&mut text).await.expect("still there");
            assert_eq!(&text, b"ping");
        }
    }
}

// T25
#[tokio::test(start_paused = true)]
async fn an_informational_response_commits_nothing() {
    for final_head_after in [5, 20] {
        let (client, mut backend) = duplex(64 * 1024);
        let (client, connection) = hyper::client::conn::http1::handshake(TokioIo::new(client))
            .await
            .expect("h1");
        tokio::spawn(connection);
        tokio::spawn(async move {
            head(&mut backend).await;
            send(
                &mut backend,
                "HTTP/1.1 103 Early Hints\r\nlink: </a.css>\r\n\r\n",
            )
            .await;
            sleep(MS * final_head_after).await;
            send(&mut backend, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            sleep(Duration::from_secs(3600)).await;
        });
        let client = Arc::new(tokio::sync::Mutex::new(client));
        let hints = Arc::new(AtomicUsize::new(0));
        let hinted = Arc::clone(&hints);
        let service = service_fn(move |mut request: Request<Empty<Bytes>>| {
            let headers: ResponseHeaders = request.extensions().get().cloned().expect("shared");
            let hinted = Arc::clone(&hinted);
            hyper::ext::on_informational(&mut request, move |hint| {
                assert_eq!((hint.status().as_u16(), headers.state()), (103, None));
                hinted.fetch_add(1, Ordering::Relaxed);
            });
            let client = Arc::clone(&client);
            async move {
                let mut client = client.lock().await;
                client.send_request(request).await.map_err(BoxError::from)
            }
        });
        let start = Instant::now();
        let layer = late().share_headers();
        let request = Request::get("/")
            .header("host", "a")
            .body(Empty::new())
            .expect("a request");
        let answer = layer
            .layer(service)
            .oneshot(request)
            .await
            .expect("an answer");
        assert_eq!(hints.load(Ordering::Relaxed), 1);
        let expected = if final_head_after < 10 {
            (200, 5 * MS)
        } else {
            (504, 10 * MS)
        };
        assert_eq!((answer.status().as_u16(), start.elapsed()), expected);
    }
}

// T26
#[tokio::test(start_paused = true)]
async fn an_answer_without_a_body_has_none_on_the_wire() {
    let never = service_fn(|_: Request<Incoming>| {
        std::future::pending::<Result<Response<Whole>, BoxError>>()
    });
    for (method, status) in [
        ("HEAD", 504),
        ("GET", 204),
        ("GET", 304),
        ("HEAD", 204),
        ("HEAD", 304),
    ] {
        let status = StatusCode::from_u16(status).expect("a status");
        let mut connection = serve(late().status(status).layer(never));
        // Two on one connection: a wrong length would show in the second.
        for last in ["", "connection: close\r\n"] {
            send(
                &mut connection,
                &format!("{method} / HTTP/1.1\r\nhost: a\r\n{last}\r\n"),
            )
            .await;
            let answer = head(&mut connection).await;
            assert!(
                answer.starts_with(&format!("HTTP/1.1 {}", status.as_u16())),
                "{answer}"
            );
            assert_eq!(field(&answer, "transfer-encoding"), None);
            match status {
                // The length that GET would have.
                StatusCode::GATEWAY_TIMEOUT => {
                    assert_eq!(field(&answer, "content-length"), Some("85"))
                }
                _ => assert_eq!(field(&answer, "content-length"), None),
            }
        }
        assert_eq!(rest(connection).await, "");
    }
}
