//! What the client does with a large upload that a server has answered and does not read: hyper has filled the socket by
//! then, and asks the body for nothing.
//!
//! Nothing here sleeps: a test waits for what it expects, under a deadline.
#![cfg(feature = "client")]

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tower::ServiceExt;
use watershed::client::{Client, ClientBody, ClientError};
use watershed::error::BoxError;

/// As documented.
const LINGER: Duration = Duration::from_secs(5);

const MOMENT: Duration = Duration::from_millis(1);

/// More than all the buffers on the way hold, the kernel's included.
const MOST: u64 = 64 << 20;

/// As long as it may take to hold somebody up for good.
const STUCK: Duration = Duration::from_millis(300);

/// What a test waits for comes, or the test has failed.
async fn within<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(Duration::from_secs(20), future)
        .await
        .expect("it did not come in time")
}

/// Turns the clock while the test runs on real time, as it has to with sockets.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

/// A body that has always more to send, up to `MOST`.
struct Upload {
    piece: Bytes,
    left: u64,
    asked: watch::Sender<u64>,
}

/// Sees how far an upload is, and that it is dropped.
struct Observer(watch::Receiver<u64>);

impl Upload {
    fn of(length: u64, piece: usize) -> (Self, Observer) {
        let (asked, asks) = watch::channel(0);
        let upload = Self {
            piece: Bytes::from(vec![b'x'; piece]),
            left: length,
            asked,
        };
        (upload, Observer(asks))
    }

    fn large() -> (Self, Observer) {
        Self::of(MOST, 1 << 16)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let length = self.left.min(self.piece.len() as u64);
        if length == 0 {
            return Poll::Ready(None);
        }
        self.left -= length;
        self.asked.send_modify(|asked| *asked += length);
        let piece = self.piece.slice(..length as usize);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

impl Observer {
    /// Waits until nothing more is asked for, and makes sure that it is not over.
    async fn stuck(&mut self) {
        while let Ok(changed) = tokio::time::timeout(STUCK, self.0.changed()).await {
            changed.expect("an upload that is not dropped");
        }
        assert!(*self.0.borrow() > 0);
    }

    async fn dropped(&mut self) {
        within(async { while self.0.changed().await.is_ok() {} }).await;
    }
}

fn post<B>(uri: &str, body: B) -> Request<B> {
    Request::post(uri).body(body).unwrap()
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

async fn head(io: &mut (impl AsyncRead + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(within(io.read_u8()).await.expect("a request"));
    }
    String::from_utf8(head).unwrap()
}

async fn send(io: &mut (impl AsyncWrite + Unpin), bytes: &str) {
    within(io.write_all(bytes.as_bytes())).await.unwrap();
    within(io.flush()).await.unwrap();
}

/// Reads what the client had sent, to the end of the connection, and counts it.
async fn ended(mut io: impl AsyncRead + Unpin) -> u64 {
    let (mut came, mut rest) = (0, vec![0; 1 << 16]);
    // A reset is as good as an end.
    while let Ok(length @ 1..) = within(io.read(&mut rest)).await {
        came += length as u64;
    }
    came
}

async fn read(response: Response<ClientBody>) -> Bytes {
    within(response.into_body().collect())
        .await
        .unwrap()
        .to_bytes()
}

const ANSWERS: [&str; 3] = [
    "HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno",
    "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n",
];

/// What becomes of a response.
#[derive(Debug, Clone, Copy)]
enum Then {
    Read,
    ReadAndKept,
    Dropped,
}

const THEN: [Then; 3] = [Then::Read, Then::ReadAndKept, Then::Dropped];

impl Then {
    async fn with(self, response: Response<ClientBody>) -> Option<ClientBody> {
        let mut body = response.into_body();
        if matches!(self, Then::Dropped) {
            return None;
        }
        while let Some(frame) = within(body.frame()).await {
            frame.unwrap();
        }
        matches!(self, Then::ReadAndKept).then_some(body)
    }
}

trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A server that says what it is told to, and reads no more than that.
struct Server {
    listener: TcpListener,
    #[cfg(feature = "tls")]
    tls: Option<tls::Tls>,
}

impl Server {
    async fn plain() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// One of each kind.
    async fn all() -> Vec<Self> {
        let plain = Self::plain().await;
        #[cfg(feature = "tls")]
        let over_tls = Self {
            tls: Some(tls::Tls::new()),
            ..Self::plain().await
        };
        vec![
            plain,
            #[cfg(feature = "tls")]
            over_tls,
        ]
    }

    fn uri(&self) -> String {
        let port = self.listener.local_addr().unwrap().port();
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return format!("https://localhost:{port}/");
        }
        format!("http://127.0.0.1:{port}/")
    }

    fn client<B>(&self) -> Client<B>
    where
        B: Body + Send + Unpin + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Client::builder().add_root_pem(tls.pem.as_bytes()).build();
        }
        Client::new()
    }

    async fn accept(&self) -> Box<dyn Io> {
        let (io, _) = within(self.listener.accept()).await.unwrap();
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            return Box::new(within(tls.acceptor.accept(io)).await.unwrap());
        }
        Box::new(io)
    }

    /// Accepts, reads a head, and answers it.
    async fn answer(&self, answer: &str) -> Box<dyn Io> {
        let mut peer = self.accept().await;
        head(&mut peer).await;
        send(&mut peer, answer).await;
        peer
    }
}

#[cfg(feature = "tls")]
mod tls {
    use std::sync::Arc;

    use tokio_rustls::TlsAcceptor;
    use tokio_rustls::rustls::{ServerConfig, crypto::ring};

    pub(super) struct Tls {
        pub(super) acceptor: TlsAcceptor,
        pub(super) pem: String,
    }

    impl Tls {
        /// With a certificate of its own for `localhost`, and HTTP/1.1.
        pub(super) fn new() -> Self {
            let rcgen::CertifiedKey { cert, key_pair } =
                rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
            let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_no_client_auth()
                .with_single_cert(
                    vec![cert.der().clone()],
                    key_pair.serialize_der().try_into().unwrap(),
                )
                .unwrap();
            Self {
                acceptor: TlsAcceptor::from(Arc::new(config)),
                pem: cert.pem(),
            }
        }
    }
}

#[tokio::test]
async fn an_upload_that_is_not_read_is_given_up() {
    for answer in ANSWERS {
        for then in THEN {
            for server in Server::all().await {
                let (upload, mut observer) = Upload::large();
                let client = server.client();
                let (response, peer) = tokio::join!(
                    call(&client, post(&server.uri(), upload)),
                    server.answer(answer)
                );
                let response = response.unwrap();
                observer.stuck().await;
                let _kept = then.with(response).await;
                pass(LINGER + MOMENT).await;
                observer.dropped().await;
                ended(peer).await;
            }
        }
    }
}

/// Nor is the socket held if there is nothing left to ask the body for.
#[tokio::test]
async fn an_upload_in_one_piece_that_is_not_read_is_given_up() {
    for server in Server::all().await {
        let (upload, mut observer) = Upload::of(MOST, MOST as usize);
        let client = server.client();
        let (response, peer) = tokio::join!(
            call(&client, post(&server.uri(), upload)),
            server.answer(ANSWERS[0])
        );
        assert_eq!(read(response.unwrap()).await, "no");
        observer.dropped().await;
        pass(LINGER + MOMENT).await;
        let came = ended(peer).await;
        assert!(came < MOST, "{came}");
    }
}

/// hyper sends what it has taken before it closes, and there is no room for that.
#[tokio::test]
async fn an_upload_that_is_cancelled_is_given_up() {
    for server in Server::all().await {
        let (upload, mut observer) = Upload::large();
        let client = server.client();
        let uri = server.uri();
        let mut calling = Box::pin(client.clone().oneshot(post(&uri, upload)));
        let mut peer = tokio::select! {
            _ = &mut calling => panic!("nobody has answered"),
            peer = server.accept() => peer,
        };
        tokio::select! {
            _ = &mut calling => panic!("nobody has answered"),
            _ = head(&mut peer) => {}
        }
        observer.stuck().await;
        drop(calling);
        pass(LINGER + MOMENT).await;
        observer.dropped().await;
        ended(peer).await;
    }
}

/// A response that has failed is over, whoever still holds it.
#[tokio::test]
async fn an_upload_behind_a_response_that_has_failed_is_given_up() {
    for server in Server::all().await {
        let (upload, mut observer) = Upload::large();
        let client = server.client();
        let (response, mut peer) = tokio::join!(
            call(&client, post(&server.uri(), upload)),
            server.answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        );
        let mut body = response.unwrap().into_body();
        observer.stuck().await;
        send(&mut peer, "no\r\n").await;
        let frame = within(body.frame()).await.expect("no end");
        assert!(frame.unwrap_err().is_response_body());
        pass(LINGER + MOMENT).await;
        observer.dropped().await;
        ended(peer).await;
        drop(body);
    }
}

/// Its time begins with the end of the response: until then a server may take as long as it likes.
#[tokio::test]
async fn an_upload_is_not_given_up_before() {
    for server in Server::all().await {
        let (upload, mut observer) = Upload::large();
        let client = server.client();
        let (response, mut peer) = tokio::join!(
            call(&client, post(&server.uri(), upload)),
            server.answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
        );
        observer.stuck().await;
        pass(10 * LINGER).await;
        observer.stuck().await;
        send(&mut peer, "no").await;
        assert_eq!(read(response.unwrap()).await, "no");
        pass(LINGER - 10 * STUCK).await;
        observer.stuck().await;
        pass(10 * STUCK).await;
        observer.dropped().await;
        ended(peer).await;
    }
}

/// One that the server goes on to read in time is whole, and its connection as good as any: what comes next on it has its own
/// time.
#[tokio::test]
async fn the_next_upload_on_a_connection_has_its_own_time() {
    for server in Server::all().await {
        let client = server.client();
        let (upload, mut observer) = Upload::large();
        let (response, mut peer) = tokio::join!(
            call(&client, post(&server.uri(), upload)),
            server.answer(ANSWERS[0])
        );
        assert_eq!(read(response.unwrap()).await, "no");
        observer.stuck().await;
        pass(LINGER / 2).await;
        let (mut left, mut piece) = (MOST as usize, vec![0; 1 << 16]);
        while left > 0 {
            let length = left.min(piece.len());
            left -= within(peer.read(&mut piece[..length])).await.unwrap();
        }
        observer.dropped().await;

        // Nobody takes another connection, and the client may have to find out that this one is free.
        let uri = server.uri();
        drop(server);
        let observer = RefCell::new(None);
        let next = async {
            loop {
                let (upload, observes) = Upload::large();
                observer.replace(Some(observes));
                match call(&client, post(&uri, upload)).await {
                    Err(error) if error.is_connect() => tokio::task::yield_now().await,
                    result => return result.unwrap(),
                }
            }
        };
        let (response, mut observer) = tokio::join!(next, async {
            assert!(head(&mut peer).await.starts_with("POST / "));
            let mut observer = observer.take().expect("one that is sent");
            observer.stuck().await;
            pass(2 * LINGER).await;
            observer.stuck().await;
            send(&mut peer, ANSWERS[0]).await;
            observer
        });
        assert_eq!(read(response).await, "no");
        pass(LINGER + MOMENT).await;
        observer.dropped().await;
        ended(peer).await;
    }
}

/// A tunnel is no upload.
#[tokio::test]
async fn a_tunnel_has_no_such_time() {
    for server in Server::all().await {
        let client = server.client();
        let request = Request::post(server.uri())
            .header("connection", "upgrade")
            .header("upgrade", "echo")
            .body(Full::<Bytes>::from("body"))
            .unwrap();
        let (response, peer) = tokio::join!(call(&client, request), async {
            let mut peer = server.accept().await;
            head(&mut peer).await;
            within(peer.read_exact(&mut [0; 4])).await.unwrap();
            let answer =
                "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
            send(&mut peer, answer).await;
            peer
        });
        let mut response = response.unwrap();
        let mut tunnel = TokioIo::new(within(hyper::upgrade::on(&mut response)).await.unwrap());
        drop(response);
        let sending = tokio::spawn(async move {
            tunnel.write_all(&vec![b'x'; MOST as usize]).await.unwrap();
            tunnel.shutdown().await.unwrap();
        });
        tokio::task::yield_now().await;
        pass(10 * LINGER).await;
        assert_eq!(ended(peer).await, MOST);
        within(sending).await.unwrap();
    }
}

/// What an HTTP/2 server takes of one body that nobody reads.
const STREAM_WINDOW: u32 = 1 << 16;

/// And of all that nobody reads.
const WINDOW: u32 = 1 << 20;

/// An HTTP/2 server that answers at once, at the URI that is returned, and hands the bodies of the requests out. It takes
/// so much of those that nobody reads.
async fn http2_server(window: u32) -> (String, mpsc::UnboundedReceiver<Incoming>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let uri = format!("http://{}/", listener.local_addr().unwrap());
    let (sender, bodies) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        // There is one connection.
        let (io, _) = listener.accept().await.unwrap();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| {
            let _ = sender.send(request.into_body());
            std::future::ready(Ok::<_, Infallible>(Response::new(Full::<Bytes>::from(
                "no",
            ))))
        });
        let _ = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(window)
            .serve_connection(TokioIo::new(io), service)
            .await;
    });
    (uri, bodies)
}

#[tokio::test]
async fn over_http2_the_stream_is_reset_and_no_other() {
    for then in THEN {
        let (uri, mut bodies) = http2_server(WINDOW).await;
        let client = Client::builder().http2_only().build();
        let (upload, mut observer) = Upload::large();
        let response = call(&client, post(&uri, upload)).await.unwrap();
        let mut unread = within(bodies.recv()).await.unwrap();
        let (upload, mut other) = Upload::of(1 << 20, 1 << 12);
        let unanswered = call(&client, post(&uri, upload)).await.unwrap();
        let whole = within(bodies.recv()).await.unwrap();
        observer.stuck().await;
        other.stuck().await;
        let _kept = then.with(response).await;
        pass(LINGER + MOMENT).await;
        observer.dropped().await;
        within(async { while unread.frame().await.expect("no end").is_ok() {} }).await;
        // The response to this one is not over.
        let whole = within(whole.collect()).await.unwrap().to_bytes();
        assert_eq!(whole.len(), 1 << 20);
        other.dropped().await;
        assert_eq!(read(unanswered).await, "no");
        // The server takes one connection only.
        let (upload, _) = Upload::of(10, 10);
        let response = call(&client, post(&uri, upload)).await.unwrap();
        assert_eq!(read(response).await, "no");
    }
}

/// hyper asks such an upload for nothing more, and leaves it to no task of its own. The one of the connection goes on.
#[tokio::test]
async fn over_http2_an_upload_in_one_piece_does_not_end_its_connection() {
    for then in THEN {
        let (uri, mut bodies) = http2_server(WINDOW).await;
        let client = Client::builder().http2_only().build();
        let (upload, _) = Upload::of(1 << 20, 1 << 20);
        let response = call(&client, post(&uri, upload)).await.unwrap();
        let _unread = within(bodies.recv()).await.unwrap();
        let _kept = then.with(response).await;
        pass(LINGER + MOMENT).await;
        // The server takes one connection only.
        for _ in 0..3 {
            let (upload, _) = Upload::of(10, 10);
            let response = call(&client, post(&uri, upload)).await.unwrap();
            assert_eq!(read(response).await, "no");
            pass(LINGER + MOMENT).await;
        }
    }
}

#[tokio::test]
async fn over_http2_an_upload_that_another_leaves_no_room_for_is_given_up() {
    let (uri, mut bodies) = http2_server(STREAM_WINDOW).await;
    let client = Client::builder().http2_only().build();
    let (upload, mut fills) = Upload::large();
    let _unanswered = call(&client, post(&uri, upload)).await.unwrap();
    let _unread = within(bodies.recv()).await.unwrap();
    fills.stuck().await;

    let (upload, mut observer) = Upload::of(1 << 20, 1 << 12);
    let response = call(&client, post(&uri, upload)).await.unwrap();
    let mut starved = within(bodies.recv()).await.unwrap();
    assert_eq!(read(response).await, "no");
    pass(LINGER + MOMENT).await;
    observer.dropped().await;
    assert!(*observer.0.borrow() <= 1 << 12);
    within(starved.frame()).await.expect("no end").unwrap_err();
    // The response to this one is not over.
    fills.stuck().await;
}
