//! The server: accepts connections until SIGTERM, then lets open requests finish.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use watershed::body::BoxBody;

/// The most bytes of a request's head that are answered; a few times as many are read.
pub(crate) const MAX_HEAD: usize = 16 * 1024;
/// How long open requests may take to finish after SIGTERM.
const DRAIN: Duration = Duration::from_secs(5);

/// Serves HTTP/1.1 and HTTP/2 with `handle`, and says where on standard output; with `try_path`, what to try on standard error.
pub(crate) async fn serve<H, F>(
    listen: SocketAddr,
    try_path: Option<&str>,
    handle: H,
) -> std::io::Result<()>
where
    H: Fn(Request<Incoming>) -> F + Clone + Send + 'static,
    F: Future<Output = Result<Response<BoxBody>, Infallible>> + Send + 'static,
{
    let mut server = auto::Builder::new(TokioExecutor::new());
    let mut http1 = server.http1();
    http1
        .timer(TokioTimer::new())
        .max_buf_size(4 * MAX_HEAD)
        .header_read_timeout(Duration::from_secs(10));
    let mut http2 = server.http2();
    http2
        .timer(TokioTimer::new())
        .max_header_list_size(4 * MAX_HEAD as u32);

    let graceful = GracefulShutdown::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(listen).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    if let Some(path) = try_path {
        eprintln!("try: curl -i http://{address}{path}");
    }
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => {
                    // Out of file descriptors, most likely: some will be free soon.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        let _ = stream.set_nodelay(true);
        let connection = server.serve_connection(TokioIo::new(stream), service_fn(handle.clone()));
        tokio::spawn(graceful.watch(connection.into_owned()));
    }
    drop(listener);
    let _ = tokio::time::timeout(DRAIN, graceful.shutdown()).await;
    Ok(())
}
