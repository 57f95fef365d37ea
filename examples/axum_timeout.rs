//! A timeout for an axum app: an answer of its own, and a handle to the response's header fields for tasks of a handler.
//!
//! `cargo run --example axum_timeout`, then the lines that it prints. Another address can be given as an argument.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use axum::extract::{Extension, Request};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::{self, Next};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{BoxError, Router};
use clap::Parser;
use tokio::net::TcpListener;
use tokio::time::sleep;
use tower::ServiceBuilder;
use watershed::background::Background;
use watershed::deadline::{DeadlineLayer, TimedOut};
use watershed::timeout::{Late, ResponseHeaders, TimeoutLayer};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CACHE: HeaderName = HeaderName::from_static("x-cache");
const WAIT: HeaderName = HeaderName::from_static("x-wait-ms");

/// An axum app whose routes answer in time.
#[derive(Parser)]
#[command(name = "axum_timeout", version)]
struct Args {
    /// Where to listen; port 0 takes a free one
    #[arg(value_name = "ADDR", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
}

#[tokio::main]
async fn main() -> ExitCode {
    let Args { listen } = Args::parse();
    if let Err(error) = run(listen).await {
        eprintln!("axum_timeout: {error}");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

async fn run(listen: SocketAddr) -> Result<(), BoxError> {
    let terminated = terminated()?;
    let background = Background::new(64);

    let timeout = TimeoutLayer::new(Duration::from_secs(1))
        .header(
            HeaderName::from_static("retry-after"),
            HeaderValue::from_static("1"),
        )
        .on_timeout(|timed_out: &TimedOut| eprintln!("{timed_out}"))
        .share_headers();
    // An order that was begun is written, whether or not somebody waits.
    let order = timeout
        .clone()
        .detach(background.clone(), |late| match late {
            Late::Response(response) => eprintln!("late: {}", response.status()),
            other => eprintln!("late: {other:?}"),
        });

    let app = Router::new()
        .route("/quick", get(quick))
        .route("/slow", get(slow))
        .route_layer(timeout)
        .merge(
            Router::new()
                .route("/order", post(write_order))
                .route_layer(order),
        )
        .layer(
            ServiceBuilder::new()
                // A caller may say how long it waits, but no longer than this.
                .layer(DeadlineLayer::millis(WAIT).max(Duration::from_secs(5)))
                .layer(middleware::from_fn(say_served_by)),
        );

    let listener = TcpListener::bind(listen).await;
    let listener = listener.map_err(|error| format!("{listen}: {error}"))?;
    let address = listener.local_addr()?;
    println!("listening on http://{address}");
    println!("  curl -i http://{address}/quick");
    println!("  curl -i http://{address}/slow");
    println!("  curl -i -H 'x-wait-ms: 200' http://{address}/slow");
    println!("  curl -i -X POST http://{address}/order");
    axum::serve(listener, app)
        .with_graceful_shutdown(terminated)
        .await?;
    // What was detached gets its time as well.
    let unfinished = background.shutdown(Duration::from_secs(10)).await;
    println!("aborted {}", unfinished.aborted);
    Ok(())
}

/// A task of its own finds out something that belongs on the response.
async fn quick(Extension(headers): Extension<ResponseHeaders>) -> &'static str {
    let lookup = tokio::spawn(async move {
        sleep(Duration::from_millis(20)).await;
        headers.insert(CACHE, HeaderValue::from_static("hit"))
    });
    // Accepted: so it is on the response, or there is none by this layer.
    let accepted = lookup.await.is_ok_and(|written| written.is_ok());
    if accepted { "found\n" } else { "not found\n" }
}

/// Too slow. Its task goes on trying, and is told that it is too late.
async fn slow(Extension(headers): Extension<ResponseHeaders>) -> &'static str {
    // On either answer: of this request, whatever becomes of it.
    let _ = headers.pin(REQUEST_ID, HeaderValue::from_static("7"));
    // On this handler's own response only.
    let _ = headers.insert(CACHE, HeaderValue::from_static("miss"));
    tokio::spawn(async move {
        let sealed = headers.sealed().await;
        let refused = headers.insert(CACHE, HeaderValue::from_static("late"));
        eprintln!("sealed as {sealed:?}, and then {refused:?}");
    });
    sleep(Duration::from_secs(60)).await;
    "nobody waits for this\n"
}

/// Takes longer than its caller has, and is finished nevertheless.
async fn write_order() -> &'static str {
    sleep(Duration::from_millis(1500)).await;
    "written\n"
}

/// A layer outside of the timeout: what it adds is on every answer.
async fn say_served_by(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let name = HeaderName::from_static("x-served-by");
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static("axum_timeout"));
    response
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
