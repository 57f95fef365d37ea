//! A reverse proxy in front of one backend, on plain hyper: it streams both ways, and passes a WebSocket through.
//!
//! `cargo run --example hyper_proxy -- --backend http://127.0.0.1:9000/v1`; without a backend it starts one to try. Behind a
//! load balancer, `--trusted-hops 1` believes what that says of the client. Copy this folder to start your own.

mod server;

use std::convert::Infallible;
use std::error::Error;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::response::sse::{Event, Sse};
use axum::{Router, routing::get};
use clap::Parser;
use futures_util::{StreamExt, stream};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use watershed::client::Client;
use watershed::error::{BoxError, BuildError};
use watershed::merge::PassthroughLayer;
use watershed::outcome::BranchError;
use watershed::proxy_headers::{ProxyHeadersLayer, TrustedHops};
use watershed::rewrite::{RewriteLayer, UriTemplate};

/// A reverse proxy in front of one backend.
#[derive(Parser)]
#[command(name = "hyper_proxy", version)]
struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Where requests go: their path and query are appended. Without one, a demo backend is started
    #[arg(long, value_name = "URL", value_parser = to)]
    backend: Option<RewriteLayer>,
    /// How many proxies in front of this one are believed about the client, 64 at the most
    #[arg(long, value_name = "COUNT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(..=64))]
    trusted_hops: u8,
    /// How long the head of a response may take, in milliseconds; the upload of the request is included, so one that takes
    /// longer is answered with 504
    #[arg(long, value_name = "MS", default_value_t = 30_000, value_parser = clap::value_parser!(u64).range(1..))]
    timeout_ms: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let runtime = tokio::runtime::Runtime::new().expect("the system has threads for us");
    let ended = runtime.block_on(run(args));
    // Not even a name that is still being resolved may hold up the end.
    runtime.shutdown_background();
    if let Err(error) = ended {
        eprintln!("hyper_proxy: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn run(args: Args) -> Result<(), BoxError> {
    let to_try = args.backend.is_none();
    let backend = match args.backend {
        Some(backend) => backend,
        None => start_backend().await?,
    };
    let trusted = TrustedHops::last(args.trusted_hops.into());
    let proxy = ServiceBuilder::new()
        .layer(
            ProxyHeadersLayer::new()
                .trusted_hops(trusted)
                .allow_upgrade("websocket"),
        )
        .layer(
            PassthroughLayer::new()
                .within(Duration::from_millis(args.timeout_ms))
                .on_failure(log),
        )
        .layer(backend)
        .service(Client::new());
    let served = server::serve(args.listen, to_try, proxy).await;
    served.map_err(|error| format!("--listen {}: {error}", args.listen).into())
}

/// Says on standard error why there was no response, in one line with all of its causes: a caller is told no more than a
/// status.
fn log(error: &BranchError<BoxError>) {
    let mut line = format!("hyper_proxy: {error}");
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = format!(": {error}");
        if !line.ends_with(&text) {
            line.push_str(&text);
        }
        cause = error.source();
    }
    // A cause may hold anything; it is told in one line nevertheless.
    line = line.replace(char::is_control, " ");
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Sends a request to the backend at `url`, whatever it is for.
fn to(url: &str) -> Result<RewriteLayer, BuildError> {
    let template = UriTemplate::try_new(url)?;
    if template.authority().is_none() || template.names().next().is_some() {
        return Err(BuildError::new("it has to be http://HOST[:PORT][/PATH]"));
    }
    let https = template.scheme().map(|scheme| scheme.as_str()) == Some("https");
    if https && !cfg!(feature = "tls") {
        return Err(BuildError::new("https needs the feature tls"));
    }
    RewriteLayer::new(template).try_keep_path()
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
