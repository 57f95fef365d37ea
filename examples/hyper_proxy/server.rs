//! The server: accepts connections until SIGTERM, then lets open requests finish; connects the two ends of a tunnel.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::{Body, Bytes, Incoming};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::{AsyncWriteExt, copy, split};
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tower::{Service, ServiceExt};
use watershed::body::BoxBody;
use watershed::error::BoxError;
use watershed::proxy_headers::Peer;

/// The most bytes of a request's head, and over HTTP/1.1 the most fields. What is longer, hyper answers with 431.
const MAX_HEAD: u32 = 64 * 1024;
const MAX_FIELDS: usize = 128;
/// How long a connection may take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The most connections at once, tunnels among them; more wait to be accepted.
const MAX_CONNECTIONS: u32 = 1024;
/// How long one end of a tunnel may go on after the other has said its last.
const HALF_OPEN: Duration = Duration::from_secs(10);
/// How long open requests, and tunnels, may take to finish after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves HTTP/1.1 and HTTP/2 with `proxy`, and says where on standard output; with `to_try`, what to try on standard error.
pub(crate) async fn serve<S, B>(listen: SocketAddr, to_try: bool, proxy: S) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    let mut http1 = server.http1();
    http1.timer(TokioTimer::new());
    http1.header_read_timeout(HEAD_WITHIN);
    http1.max_buf_size(MAX_HEAD as usize);
    http1.max_headers(MAX_FIELDS);
    let mut http2 = server.http2();
    http2.timer(TokioTimer::new());
    http2.max_header_list_size(MAX_HEAD);
    // A peer that has gone without a word gives its place back.
    http2.keep_alive_interval(HEAD_WITHIN);

    let graceful = GracefulShutdown::new();
    let mut terminated = pin!(terminated()?);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS as usize));
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    if to_try {
        eprintln!("try: curl -i http://{address}/ or curl -N http://{address}/events");
    }
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place.expect("it stays open"))
        };
        let (accepted, place) = tokio::select! {
            accepted = accept => accepted,
            () = &mut terminated => break,
        };
        let Ok((stream, peer)) = accepted else {
            // Out of file descriptors, most likely: some will be free soon.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let _ = stream.set_nodelay(true);
        let (asked, place) = (Arc::new(AtomicBool::new(false)), Arc::new(place));
        let (first, proxy) = (Arc::clone(&asked), proxy.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            first.store(true, Ordering::Relaxed);
            // The layer knows now where the request comes from.
            request.extensions_mut().insert(Peer::new(peer));
            call(proxy.clone(), request, Arc::clone(&place))
        });
        let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            // These limits begin when the server knows the protocol: who says nothing at all would stay.
            let over = timeout(HEAD_WITHIN, &mut connection).await;
            if over.is_err() && asked.load(Ordering::Relaxed) {
                // A client that went away in the middle of something is nothing to report.
                let _ = connection.await;
            }
        });
    }
    drop(listener);
    let ended = async {
        graceful.shutdown().await;
        // A tunnel is no connection of the server's any more, but has its place still.
        let _ = places.acquire_many(MAX_CONNECTIONS).await;
    };
    // What is left by then ends with the process.
    let _ = timeout(DRAIN, ended).await;
    Ok(())
}

/// Resolves at SIGTERM or Ctrl-C.
#[cfg(unix)]
fn terminated() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn terminated() -> io::Result<impl Future<Output = ()>> {
    Ok(async { drop(tokio::signal::ctrl_c().await) })
}

/// Calls the proxy; if both ends agree to change the protocol, what follows is between them.
async fn call<S, B>(
    proxy: S,
    mut request: Request<Incoming>,
    place: Arc<OwnedSemaphorePermit>,
) -> Result<Response<BoxBody>, Infallible>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let client = hyper::upgrade::on(&mut request);
    let Ok(mut response) = proxy.oneshot(request).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let backend = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            // Until its end it is one of the connections that there may be.
            let _place = place;
            let (client, backend) = tokio::try_join!(client, backend)?;
            tunnel(client, backend).await?;
            Ok::<_, BoxError>(())
        });
    }
    Ok(response.map(BoxBody::new))
}

/// Carries bytes both ways. An end that has said its last still hears the other, for a while: it may also be gone.
async fn tunnel(client: Upgraded, backend: Upgraded) -> io::Result<()> {
    let (mut from_client, mut to_client) = split(TokioIo::new(client));
    let (mut from_backend, mut to_backend) = split(TokioIo::new(backend));
    let up = async {
        copy(&mut from_client, &mut to_backend).await?;
        to_backend.shutdown().await
    };
    let down = async {
        copy(&mut from_backend, &mut to_client).await?;
        to_client.shutdown().await
    };
    let (mut up, mut down) = (pin!(up), pin!(down));
    tokio::select! {
        ended = &mut up => {
            ended?;
            timeout(HALF_OPEN, down).await?
        }
        ended = &mut down => {
            ended?;
            timeout(HALF_OPEN, up).await?
        }
    }
}
