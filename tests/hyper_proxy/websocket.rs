//! A WebSocket passes: a client and a server that know nothing of what is between them.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use http::HeaderValue;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{WebSocketStream, accept_hdr_async, client_async};

use crate::process::{Proxy, Run};
use crate::within;

/// How a server's connection has ended: with what the client has said last.
type Ended = Option<Result<Message, Error>>;

/// A server that sends back what it gets, on one connection, until it is told that this was the last.
struct Echo {
    address: SocketAddr,
    ended: JoinHandle<Ended>,
}

impl Echo {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let ended = tokio::spawn(async move {
            let (stream, _) = listener.accept().await.unwrap();
            let mut socket = accept_hdr_async(stream, agree).await.unwrap();
            let mut last = None;
            // Reading on also answers a close, and a ping.
            while let Some(message) = socket.next().await {
                match message {
                    Ok(message @ (Message::Text(_) | Message::Binary(_))) => {
                        if socket.send(message).await.is_err() {
                            break;
                        }
                    }
                    Ok(Message::Ping(_) | Message::Pong(_)) => {}
                    other => last = Some(other),
                }
            }
            last
        });
        Self { address, ended }
    }

    async fn proxy(&self) -> Proxy {
        let backend = format!("http://{}/v1", self.address);
        Run::new().flag("backend", &backend).start().await
    }

    async fn ended(self) -> Ended {
        within(self.ended).await.unwrap()
    }
}

/// What arrives is a WebSocket's request, and its fields are the client's.
#[expect(clippy::result_large_err, reason = "the trait's own type")]
fn agree(request: &Request, mut response: Response) -> Result<Response, ErrorResponse> {
    assert_eq!(request.uri().path(), "/v1/socket");
    assert_eq!(request.uri().query(), Some("room=7"));
    assert_eq!(request.headers()["upgrade"], "websocket");
    assert_eq!(request.headers()["connection"], "upgrade");
    assert_eq!(request.headers()["cookie"], "session=1");
    assert_eq!(request.headers()["x-forwarded-for"], "127.0.0.1");
    assert_eq!(request.headers()["sec-websocket-protocol"], "chat");
    let fields = response.headers_mut();
    fields.insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
    fields.append("set-cookie", HeaderValue::from_static("a=1"));
    fields.append("set-cookie", HeaderValue::from_static("b=2"));
    Ok(response)
}

async fn connect(proxy: &Proxy) -> WebSocketStream<TcpStream> {
    let stream = within(TcpStream::connect(proxy.address)).await.unwrap();
    let url = format!("ws://{}/socket?room=7", proxy.address);
    let mut request = url.into_client_request().unwrap();
    let fields = request.headers_mut();
    fields.insert("cookie", HeaderValue::from_static("session=1"));
    fields.insert("sec-websocket-protocol", HeaderValue::from_static("chat"));
    // The client checks `Sec-WebSocket-Accept` and the protocol.
    let (socket, response) = within(client_async(request, stream)).await.unwrap();
    assert_eq!(response.status(), 101);
    let cookies: Vec<_> = response.headers().get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a=1", "b=2"]);
    socket
}

async fn says(socket: &mut WebSocketStream<TcpStream>) -> Message {
    within(socket.next()).await.expect("a message").unwrap()
}

#[tokio::test]
async fn messages_pass_both_ways() {
    let echo = Echo::start().await;
    let proxy = echo.proxy().await;
    let mut socket = connect(&proxy).await;
    for message in [
        Message::text("hello"),
        Message::text(""),
        Message::text("\u{e9}\u{1f30a}"),
        Message::binary((0..=255).collect::<Vec<u8>>()),
        Message::binary(vec![]),
        Message::binary(vec![7; 1 << 20]),
        Message::text("x".repeat(8 << 20)),
    ] {
        // Both at once: what is longer than any buffer is read while it is sent.
        let (mut sink, mut source) = socket.split();
        let (sent, echoed) = within(futures_util::future::join(
            sink.send(message.clone()),
            source.next(),
        ))
        .await;
        sent.unwrap();
        assert!(echoed.unwrap().unwrap() == message);
        socket = sink.reunite(source).unwrap();
    }
    // The server answers a ping by itself.
    socket
        .send(Message::Ping("are you there".into()))
        .await
        .unwrap();
    assert_eq!(
        says(&mut socket).await,
        Message::Pong("are you there".into())
    );

    let close = CloseFrame {
        code: CloseCode::Normal,
        reason: "enough".into(),
    };
    socket.close(Some(close.clone())).await.unwrap();
    assert_eq!(says(&mut socket).await, Message::Close(Some(close.clone())));
    assert!(within(socket.next()).await.is_none());
    let ended = echo.ended().await;
    assert_eq!(ended.unwrap().unwrap(), Message::Close(Some(close)));
}

/// Who goes away without a word is gone for the other end, too.
#[tokio::test]
async fn a_client_that_breaks_off_is_gone() {
    let echo = Echo::start().await;
    let proxy = echo.proxy().await;
    let mut socket = connect(&proxy).await;
    socket.send(Message::text("hello")).await.unwrap();
    assert_eq!(says(&mut socket).await, Message::text("hello"));
    drop(socket);
    let ended = echo.ended().await;
    assert!(matches!(ended, None | Some(Err(_))), "{ended:?}");
}

#[tokio::test]
async fn a_server_that_breaks_off_is_gone() {
    let echo = Echo::start().await;
    let proxy = echo.proxy().await;
    let mut socket = connect(&proxy).await;
    echo.ended.abort();
    let heard = within(socket.next()).await;
    assert!(matches!(heard, None | Some(Err(_))), "{heard:?}");
}

/// A socket holds up nobody: not other callers, and not for as long as a head may take.
#[tokio::test]
async fn sockets_are_open_side_by_side() {
    let echoes = [Echo::start().await, Echo::start().await];
    let mut open = Vec::new();
    for echo in &echoes {
        let backend = format!("http://{}/v1", echo.address);
        let proxy = Run::new()
            .flag("backend", &backend)
            .flag("timeout-ms", "1000")
            .start()
            .await;
        let socket = connect(&proxy).await;
        open.push((proxy, socket));
    }
    // For longer than that.
    let mut paces = tokio::time::interval(std::time::Duration::from_millis(150));
    for round in 0..10 {
        paces.tick().await;
        for (place, (_, socket)) in open.iter_mut().enumerate() {
            let text = format!("{place} in {round}");
            socket.send(Message::text(&text)).await.unwrap();
            assert_eq!(says(socket).await, Message::text(&text));
        }
    }
}
