//! The example `axum_bff`, run as a user runs it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::time::timeout;

/// `target/<profile>/examples/axum_bff`, as this test is `target/<profile>/deps/axum_bff-…`.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("a target folder");
    let binary = profile.join("examples/axum_bff");
    assert!(
        binary.is_file(),
        "there is no {}: run `cargo build --example axum_bff` first (`cargo test` does)",
        binary.display()
    );
    binary
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future)
        .await
        .expect("in time")
}

/// Starts it on a port of its own; returns it with its address.
async fn start() -> (Child, String) {
    let mut child = Command::new(binary())
        .arg("127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the example runs");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = within(lines.next_line())
        .await
        .expect("readable")
        .expect("a line");
    let address = line
        .strip_prefix("listening on http://")
        .expect("where it listens");
    (child, address.to_owned())
}

async fn get(address: &str, path: &str) -> String {
    let mut stream = within(TcpStream::connect(address))
        .await
        .expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nhost: bff\r\nconnection: close\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .expect("writable");
    let mut answer = String::new();
    within(stream.read_to_string(&mut answer))
        .await
        .expect("an answer");
    answer
}

#[tokio::test]
async fn the_dashboard_stands_beside_ordinary_routes() {
    let (_child, address) = start().await;
    let health = get(&address, "/health").await;
    assert!(
        health.starts_with("HTTP/1.1 200 OK\r\n") && health.ends_with("ok"),
        "{health}"
    );

    let dashboard = get(&address, "/dashboard/a%20b%2Fc").await;
    assert!(dashboard.starts_with("HTTP/1.1 200 OK\r\n"), "{dashboard}");
    assert!(
        dashboard.contains("\r\nwatershed-complete: true\r\n"),
        "{dashboard}"
    );
    let json = r#"{"user":{"id":"a b/c","name":"Ada"},"orders":[{"total":12.5,"user":"a b/c"}]}"#;
    assert!(dashboard.ends_with(json), "{dashboard}");

    let escape = get(&address, "/dashboard/..%2Fadmin").await;
    assert!(
        escape.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{escape}"
    );
    let unknown = get(&address, "/nowhere").await;
    assert!(
        unknown.starts_with("HTTP/1.1 404 Not Found\r\n"),
        "{unknown}"
    );
}

#[tokio::test]
async fn it_stops_when_it_is_told_to() {
    let (mut child, address) = start().await;
    let pid = child.id().expect("running").to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(killed.expect("kill runs").success());
    let status = within(child.wait()).await.expect("it ends");
    assert!(status.success(), "{status}");
    assert!(TcpStream::connect(address).await.is_err());
}
