//! The example `axum_timeout`, run as a user runs it.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// `target/<profile>/examples/axum_timeout`, as this test is `target/<profile>/deps/axum_timeout-…`.
fn binary() -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test
        .parent()
        .and_then(|deps| deps.parent())
        .expect("a target folder");
    let binary = profile.join("examples/axum_timeout");
    assert!(
        binary.is_file(),
        "there is no {}: run `cargo build --example axum_timeout` first (`cargo test` does)",
        binary.display()
    );
    binary
}

async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future)
        .await
        .expect("in time")
}

type Output = Lines<BufReader<ChildStdout>>;

/// Starts it on a port of its own; returns it with its address and what it prints.
async fn start() -> (Child, String, Output) {
    let mut child = Command::new(binary())
        .arg("127.0.0.1:0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
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
    (child, address.to_owned(), lines)
}

/// The answer to a request, as text.
async fn ask(address: &str, request: &str) -> String {
    let mut stream = within(TcpStream::connect(address))
        .await
        .expect("it listens");
    let request = format!("{request}host: a\r\nconnection: close\r\n\r\n");
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

/// The value of a field in an answer.
fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = answer.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(of, _)| *of == name).map(|(_, value)| value)
}

#[tokio::test]
async fn a_field_of_another_task_is_on_the_response_and_a_slow_route_is_answered_for() {
    let (_child, address, _output) = start().await;
    let quick = ask(&address, "GET /quick HTTP/1.1\r\n").await;
    assert!(quick.starts_with("HTTP/1.1 200 OK\r\n"), "{quick}");
    assert!(quick.ends_with("\r\n\r\nfound\n"), "{quick}");
    assert_eq!(field(&quick, "x-cache"), Some("hit"));
    assert_eq!(field(&quick, "x-served-by"), Some("axum_timeout"));

    for wait in ["", "x-wait-ms: 50\r\n", "x-wait-ms: nonsense\r\n"] {
        let slow = ask(&address, &format!("GET /slow HTTP/1.1\r\n{wait}")).await;
        assert!(
            slow.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"),
            "{slow}"
        );
        assert_eq!(
            field(&slow, "content-type"),
            Some("application/problem+json")
        );
        assert_eq!(field(&slow, "retry-after"), Some("1"));
        // What the handler pinned, and what a layer outside adds; and nothing else of the handler's.
        assert_eq!(field(&slow, "x-request-id"), Some("7"));
        assert_eq!(field(&slow, "x-served-by"), Some("axum_timeout"));
        assert_eq!(field(&slow, "x-cache"), None);
    }
}

#[tokio::test]
async fn an_order_that_was_begun_is_finished_before_it_stops() {
    let (mut child, address, mut lines) = start().await;
    let order = ask(&address, "POST /order HTTP/1.1\r\ncontent-length: 0\r\n").await;
    assert!(
        order.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"),
        "{order}"
    );
    let pid = child.id().expect("running").to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(killed.expect("kill runs").success());
    let mut told = Vec::new();
    while let Some(line) = within(lines.next_line()).await.expect("readable") {
        told.push(line);
    }
    assert_eq!(told.last().map(String::as_str), Some("aborted 0"));
    let mut late = String::new();
    let mut log = child.stderr.take().expect("a pipe");
    within(log.read_to_string(&mut late))
        .await
        .expect("readable");
    assert!(late.lines().any(|line| line == "late: 200 OK"), "{late}");
    let status = within(child.wait()).await.expect("it ends");
    assert!(status.success(), "{status}");
}
