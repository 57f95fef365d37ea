//! An axum example's process, whose one argument is where to listen.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::timeout;

/// `target/<profile>/examples/<example>`, as this test is `target/<profile>/deps/<test>-…`.
fn binary(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(|deps| deps.parent());
    let binary = profile
        .expect("a target folder")
        .join("examples")
        .join(example);
    assert!(
        binary.is_file(),
        "there is no {}: run `cargo build --examples` first (`cargo test` does)",
        binary.display()
    );
    binary
}

pub(crate) async fn within<F: Future>(future: F) -> F::Output {
    timeout(Duration::from_secs(20), future)
        .await
        .expect("in time")
}

/// Runs it to its end: whether it went well, and what it said on standard output and error.
pub(crate) async fn run(example: &str, arg: &str) -> (Option<i32>, String, String) {
    let mut command = Command::new(binary(example));
    let ended = command
        .arg(arg)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = within(ended).await.expect("the example runs");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// `--help` helps; what can't be listened on is named in one line.
pub(crate) async fn check_manners(example: &str) {
    let (code, help, _) = run(example, "--help").await;
    assert_eq!(code, Some(0));
    assert!(help.contains("[default: 127.0.0.1:3000]"), "{help}");
    let (code, version, _) = run(example, "--version").await;
    let said = format!("{example} {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((code, version), (Some(0), said));
    let (code, _, wrong) = run(example, "nonsense").await;
    assert_eq!(code, Some(2));
    assert!(wrong.contains("invalid value 'nonsense'"), "{wrong}");

    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let (code, told, error) = run(example, &address).await;
    assert_eq!((code, &*told), (Some(1), ""), "{error}");
    let said = format!("{example}: {address}: ");
    assert!(error.starts_with(&said), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
}

pub(crate) type Output = Lines<BufReader<ChildStdout>>;

/// Starts it on a port of its own; returns it with its address and what it prints.
pub(crate) async fn start(example: &str) -> (Child, String, Output) {
    let mut child = Command::new(binary(example))
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

/// The answer to a request that is written as far as its first fields, as text.
pub(crate) async fn ask(address: &str, request: &str) -> String {
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

/// Sends SIGTERM.
pub(crate) async fn terminate(child: &Child) {
    let pid = child.id().expect("running").to_string();
    let killed = Command::new("kill").args(["-TERM", &pid]).status().await;
    assert!(killed.expect("kill runs").success());
}
