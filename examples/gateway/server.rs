//! The server: accepts connections until SIGTERM, then lets open requests finish.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::{Request, Response};
use hyper::body::{Body, Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::{Service, ServiceExt};
use watershed::error::BoxError;
use watershed::proxy_headers::Peer;

/// The most bytes of a request's head that are accepted.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
/// The most bytes, and fields, of a head that are read to say so. What is longer still, the server refuses without a word.
const MAX_READ: usize = 64 * 1024;
const MAX_FIELDS: usize = 4096;
/// How long a connection may take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The most connections at once; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;
/// How long open requests may take to finish after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves HTTP/1.1 and HTTP/2 with `service`, and says where on standard output; with `try_path`, what to try on standard
/// error.
pub(crate) async fn serve<S, B>(
    listen: SocketAddr,
    try_path: Option<&str>,
    service: S,
) -> io::Result<()>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Body<Data = Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    let mut http1 = server.http1();
    http1.timer(TokioTimer::new()).max_buf_size(MAX_READ);
    http1.max_headers(MAX_FIELDS);
    http1.header_read_timeout(HEAD_WITHIN);
    let mut http2 = server.http2();
    http2.timer(TokioTimer::new());
    http2.max_header_list_size(MAX_READ as u32);
    // A peer that has gone without a word gives its place back.
    http2.keep_alive_interval(HEAD_WITHIN);

    let graceful = GracefulShutdown::new();
    let mut terminated = pin!(terminated()?);
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    if let Some(path) = try_path {
        eprintln!("try: curl -i http://{address}{path}");
    }
    loop {
        let accept = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
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
        let asked = Arc::new(AtomicBool::new(false));
        let (first, service) = (Arc::clone(&asked), service.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            first.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(Peer::new(peer));
            service.clone().oneshot(request)
        });
        let connection = server.serve_connection(TokioIo::new(stream), service);
        let connection = graceful.watch(connection.into_owned());
        tokio::spawn(async move {
            let _place = place;
            let mut connection = pin!(connection);
            tokio::select! {
                _ = &mut connection => return,
                () = tokio::time::sleep(HEAD_WITHIN) => {}
            }
            // The server's own timeout begins once it knows the protocol; who says nothing would stay for ever.
            if asked.load(Ordering::Relaxed) {
                let _ = connection.await;
            }
        });
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
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
