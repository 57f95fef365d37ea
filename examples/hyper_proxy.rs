//! A reverse proxy in front of one backend, on plain hyper: it streams both ways, and passes a WebSocket through.
//!
//! `cargo run --example hyper_proxy -- --backend http://127.0.0.1:9000/v1`; without a backend it starts one to try. Behind a
//! load balancer, `--trusted-hops 1` believes what that says of the client.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::response::sse::{Event, Sse};
use axum::{Router, routing::get};
use clap::Parser;
use futures_util::{StreamExt, stream};
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tower::{Service, ServiceBuilder, ServiceExt};
use watershed::body::BoxBody;
use watershed::client::Client;
use watershed::error::{BoxError, BuildError};
use watershed::merge::PassthroughLayer;
use watershed::proxy_headers::{Peer, ProxyHeadersLayer, TrustedHops};
use watershed::rewrite::{RewriteLayer, UriTemplate};

/// How long a connection may take to send the head of a request.
const HEAD_WITHIN: Duration = Duration::from_secs(10);
/// The most connections at once, tunnels among them; more wait to be accepted.
const MAX_CONNECTIONS: usize = 1024;

/// A reverse proxy in front of one backend.
#[derive(Parser)]
struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where requests go: their path and query are appended. Without one, a demo backend is started
    #[arg(long, value_name = "URL", value_parser = to)]
    backend: Option<RewriteLayer>,
    /// How many proxies in front of this one are ours
    #[arg(long, default_value_t = 0)]
    trusted_hops: usize,
    /// How long the head of a response may take, in milliseconds
    #[arg(long, default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

#[tokio::main]
async fn main() -> Result<(), BoxError> {
    let args = Args::parse();
    let to_try = args.backend.is_none();
    let backend = match args.backend {
        Some(backend) => backend,
        None => start_backend().await?,
    };
    let proxy = ServiceBuilder::new()
        .layer(
            ProxyHeadersLayer::new()
                .trusted_hops(TrustedHops::last(args.trusted_hops))
                .allow_upgrade("websocket"),
        )
        .layer(PassthroughLayer::new().within(Duration::from_millis(args.timeout_ms)))
        .layer(backend)
        .service(Client::new());

    let listener = TcpListener::bind(args.listen).await?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    if to_try {
        eprintln!("try: curl -i http://{address}/ or curl -N http://{address}/events");
    }
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = Arc::new(Arc::clone(&places).acquire_owned().await?);
        let Ok((stream, peer)) = listener.accept().await else {
            // Out of file descriptors, most likely: some will be free soon.
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let asked = Arc::new(AtomicBool::new(false));
        let (first, proxy) = (Arc::clone(&asked), proxy.clone());
        let service = service_fn(move |mut request: Request<Incoming>| {
            first.store(true, Ordering::Relaxed);
            // The layer knows now where the request comes from.
            request.extensions_mut().insert(Peer::new(peer));
            serve(proxy.clone(), request, Arc::clone(&place))
        });
        tokio::spawn(async move {
            let mut server = auto::Builder::new(TokioExecutor::new());
            let mut http1 = server.http1();
            http1.timer(TokioTimer::new());
            http1.header_read_timeout(HEAD_WITHIN);
            let mut http2 = server.http2();
            http2.timer(TokioTimer::new());
            http2.keep_alive_interval(HEAD_WITHIN);
            let connection = server.serve_connection_with_upgrades(TokioIo::new(stream), service);
            let mut connection = pin!(connection);
            // These limits begin when the server knows the protocol: who says nothing at all would stay.
            let over = tokio::time::timeout(HEAD_WITHIN, &mut connection).await;
            if over.is_err() && asked.load(Ordering::Relaxed) {
                // A client that went away in the middle of something is nothing to report.
                let _ = connection.await;
            }
        });
    }
}

/// Sends a request to the backend at `url`, whatever it is for.
fn to(url: &str) -> Result<RewriteLayer, BuildError> {
    let template = UriTemplate::try_new(url)?;
    if template.authority().is_none() || template.names().next().is_some() {
        return Err(BuildError::new("it has to be http://HOST[:PORT][/PATH]"));
    }
    RewriteLayer::new(template).try_keep_path()
}

/// Calls the proxy; if both ends agree to change the protocol, what follows is between them.
async fn serve<S, B>(
    proxy: S,
    mut request: Request<Incoming>,
    place: Arc<OwnedSemaphorePermit>,
) -> Result<Response<BoxBody>, Infallible>
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible>,
    B: http_body::Body<Data = bytes::Bytes, Error: Into<BoxError>> + Send + 'static,
{
    let client = hyper::upgrade::on(&mut request);
    let Ok(mut response) = proxy.oneshot(request).await;
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        let backend = hyper::upgrade::on(&mut response);
        tokio::spawn(async move {
            let (client, backend) = tokio::try_join!(client, backend)?;
            let (mut client, mut backend) = (TokioIo::new(client), TokioIo::new(backend));
            tokio::io::copy_bidirectional(&mut client, &mut backend).await?;
            // Until here it was one of the connections that there may be.
            drop(place);
            Ok::<_, BoxError>(())
        });
    }
    Ok(response.map(BoxBody::new))
}

/// Something to try: a page, and a stream of events.
async fn start_backend() -> Result<RewriteLayer, BoxError> {
    let events = || async {
        let ticks = stream::iter(0..5).then(|tick: u32| async move {
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok::<_, Infallible>(Event::default().data(tick.to_string()))
        });
        Sse::new(ticks)
    };
    let app = Router::new()
        .route(
            "/",
            get(|headers: http::HeaderMap| async move { format!("{headers:#?}\n") }),
        )
        .route("/events", get(events));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(to(&format!("http://{address}"))?)
}
