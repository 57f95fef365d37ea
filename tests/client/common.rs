//! Servers, most of which do as they are told, and calls to them.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tower::ServiceExt;
use watershed::client::{Client, ClientBody, ClientError};
use watershed::error::BoxError;

/// What a test waits for comes, or the test has failed.
pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it did not come in time")
}

/// Turns the clock while the test runs on real time, as it has to with sockets.
pub(crate) async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A server that says what it is told to, byte for byte.
pub(crate) struct Server {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) async fn bind() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self { listener, address }
    }

    pub(crate) fn uri(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) async fn accept(&self) -> Peer {
        let (io, _) = within(self.listener.accept()).await.unwrap();
        Peer { io }
    }

    /// Accepts, takes a request, and answers it with `bytes`.
    pub(crate) async fn answer(&self, bytes: impl AsRef<[u8]>) -> Peer {
        let mut peer = self.accept().await;
        peer.request().await;
        peer.send(bytes).await;
        peer
    }
}

/// The server's end of a connection.
pub(crate) struct Peer {
    pub(crate) io: TcpStream,
}

impl Peer {
    /// The head of the next request.
    pub(crate) async fn request(&mut self) -> String {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let byte = within(self.io.read_u8()).await.expect("a request");
            head.push(byte);
        }
        String::from_utf8(head).unwrap()
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.io.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Waits until the client has closed, having sent nothing more.
    pub(crate) async fn closed(mut self) {
        let mut rest = Vec::new();
        // A reset is as good as an end.
        let _ = within(self.io.read_to_end(&mut rest)).await;
        assert_eq!(String::from_utf8_lossy(&rest), "");
    }
}

pub(crate) fn get(uri: &str) -> Request<Full<Bytes>> {
    Request::get(uri).body(Full::default()).unwrap()
}

pub(crate) fn client() -> Client<Full<Bytes>> {
    Client::new()
}

pub(crate) async fn call<B>(
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

pub(crate) async fn read(response: Response<ClientBody>) -> Result<Bytes, ClientError> {
    Ok(within(response.into_body().collect()).await?.to_bytes())
}

/// The error of a call that is answered with `bytes`, after which the server closes.
pub(crate) async fn error_of(bytes: impl AsRef<[u8]>) -> ClientError {
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

pub(crate) fn assert_no_address(error: &ClientError, server: &Server) {
    let text = error.to_string();
    assert!(!text.contains("127.0.0.1"), "{text}");
    assert!(!text.contains(&server.address.port().to_string()), "{text}");
}

/// A well-behaved server of either HTTP version, at the URI that is returned: it answers with the version and the body of
/// each request.
pub(crate) async fn echo_server() -> String {
    let Server { listener, address } = Server::bind().await;
    tokio::spawn(async move {
        while let Ok((io, _)) = listener.accept().await {
            tokio::spawn(serve_echo(TokioIo::new(io)));
        }
    });
    format!("http://{address}/")
}

pub(crate) async fn serve_echo<I>(io: I)
where
    I: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let service = hyper::service::service_fn(echo);
    let _ = auto::Builder::new(TokioExecutor::new())
        .serve_connection(io, service)
        .await;
}

pub(crate) async fn echo(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, BoxError> {
    let version = request.version();
    let body = request.into_body().collect().await?.to_bytes();
    let mut response = Response::new(Full::new(body));
    response
        .headers_mut()
        .insert("x-version", format!("{version:?}").parse()?);
    Ok(response)
}
