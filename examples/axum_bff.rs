//! A backend for a frontend: an axum app in which one route is a watershed stack, beside ordinary routes.
//!
//! `cargo run --example axum_bff`, then `curl -i http://127.0.0.1:3000/dashboard/7`. Another address can be given as an
//! argument. The backends run in the same process, on a port of their own.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::extract::{ConnectInfo, Path, Query, RawPathParams, Request};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, get_service};
use axum::{BoxError, Json, Router};
use clap::Parser;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tower::ServiceBuilder;
use watershed::client::Client;
use watershed::clone_request::{CloneRequestLayer, TeeBody};
use watershed::fanout::FanOut;
use watershed::merge::{JsonMerge, MergeLayer};
use watershed::outcome::Branch;
use watershed::proxy_headers::{Peer, ProxyHeadersLayer};
use watershed::rewrite::{PathParams, RewriteLayer, UriTemplate};
use watershed::timeout::ClientTimeoutLayer;

/// A backend for a frontend: an axum app with a watershed stack as one of its routes.
#[derive(Parser)]
#[command(name = "axum_bff", version)]
struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { listen } = Args::parse();
    if let Err(error) = run(listen).await {
        eprintln!("axum_bff: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn run(listen: SocketAddr) -> Result<(), BoxError> {
    let terminated = terminated()?;
    let backends = start_backends().await?;

    let client = Client::<TeeBody>::new();
    let user = ServiceBuilder::new()
        .layer(RewriteLayer::new(UriTemplate::try_new(&format!(
            "http://{backends}/users/{{id}}"
        ))?))
        .service(client.clone());
    let orders = ServiceBuilder::new()
        .layer(ClientTimeoutLayer::new(Duration::from_millis(500)))
        .layer(RewriteLayer::new(UriTemplate::try_new(&format!(
            "http://{backends}/orders?user={{id}}"
        ))?))
        .service(client);
    let dashboard = ServiceBuilder::new()
        .layer(middleware::from_fn(hand_over))
        .layer(CloneRequestLayer::new())
        .layer(MergeLayer::new(JsonMerge::group()).within(Duration::from_secs(2)))
        .service(FanOut::new([
            Branch::http("user", user).required().credentials(),
            Branch::http("orders", orders),
        ]));

    let app = Router::new()
        .route("/health", get(|| async { "ok" }))
        // Not `route_service`: that lets every method through to the backends.
        .route("/dashboard/{id}", get_service(dashboard))
        // The backends learn for whom we ask, and from nobody else.
        .layer(ProxyHeadersLayer::new().peer_from(|extensions| {
            let ConnectInfo(peer) = extensions.get::<ConnectInfo<SocketAddr>>()?;
            Some(Peer::new(*peer))
        }));
    let listener = TcpListener::bind(listen).await;
    let listener = listener.map_err(|error| format!("{listen}: {error}"))?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(
        listener,
        app.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .with_graceful_shutdown(terminated)
    .await?;
    Ok(())
}

/// Hands what axum knows to the stack: the route's parameters, decoded.
async fn hand_over(params: RawPathParams, mut request: Request, next: Next) -> Response {
    request
        .extensions_mut()
        .insert(PathParams::from_iter(&params));
    next.run(request).await
}

/// Resolves at SIGTERM or Ctrl-C; open requests then finish.
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

/// The services behind it, which would be somebody else's.
async fn start_backends() -> io::Result<SocketAddr> {
    #[derive(serde::Deserialize)]
    struct Of {
        user: String,
    }

    async fn user(Path(id): Path<String>) -> Json<Value> {
        Json(json!({ "id": id, "name": "Ada" }))
    }

    async fn orders(Query(of): Query<Of>) -> Json<Value> {
        Json(json!([{ "total": 12.5, "user": of.user }]))
    }

    let app = Router::new()
        .route("/users/{id}", get(user))
        .route("/orders", get(orders));
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(address)
}
