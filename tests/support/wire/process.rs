//! An example's process.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backend::Backend;
use super::caller::{Answer, Caller, request};
use super::{NOISE, within};

/// How long an example gives to what is open when it is told to end.
pub(crate) const DRAIN: Duration = Duration::from_secs(5);

/// `target/<profile>/examples/<example>`, as this test is `target/<profile>/deps/<test>-…`.
fn binary(example: &str) -> PathBuf {
    let test = std::env::current_exe().expect("the path of this test");
    let profile = test.parent().and_then(|deps| deps.parent());
    let name = format!("{example}{}", std::env::consts::EXE_SUFFIX);
    let binary = profile
        .expect("a target folder")
        .join("examples")
        .join(name);
    assert!(
        binary.is_file(),
        "there is no {}: run `cargo build --examples` first (`cargo test` does)",
        binary.display()
    );
    binary
}

/// A command line.
pub(crate) struct Run {
    example: &'static str,
    args: Vec<OsString>,
    backends: Vec<Backend>,
    descriptors: Option<usize>,
}

impl Run {
    pub(crate) fn of(example: &'static str) -> Self {
        Self {
            example,
            args: Vec::new(),
            backends: Vec::new(),
            descriptors: None,
        }
    }

    pub(crate) fn flag(self, name: &str, value: &str) -> Self {
        self.arg(format!("--{name}")).arg(value)
    }

    pub(crate) fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// What no answer may name.
    pub(crate) fn behind(mut self, backend: &Backend) -> Self {
        self.backends.push(backend.clone());
        self
    }

    /// Gives it no more than so many open files and connections.
    pub(crate) fn descriptors(mut self, most: usize) -> Self {
        self.descriptors = Some(most);
        self
    }

    fn spawn(&self) -> Process {
        let mut command = match self.descriptors {
            None => Command::new(binary(self.example)),
            Some(most) => {
                let mut shell = Command::new("sh");
                let script = format!("ulimit -n {most} && exec \"$0\" \"$@\"");
                shell.arg("-c").arg(script).arg(binary(self.example));
                shell
            }
        };
        let mut child = command
            .args(&self.args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("it runs");
        Process {
            stdout: Output::of(child.stdout.take().expect("a pipe")),
            stderr: Output::of(child.stderr.take().expect("a pipe")),
            child,
        }
    }

    /// Runs it to its end.
    pub(crate) async fn exits(self) -> Exit {
        let mut process = self.spawn();
        let status = loop {
            let Some(line) = within(process.stdout.lines.recv()).await else {
                break process.exited().await;
            };
            assert!(!line.starts_with("listening"), "{:?}: {line}", self.args);
        };
        Exit {
            code: status.code(),
            stdout: process.stdout.all().to_owned(),
            stderr: process.stderr.all().to_owned(),
        }
    }

    /// Runs it on a port of its own, until it listens.
    pub(crate) async fn start(self) -> Server {
        let listen = self.args.iter().any(|arg| arg == "--listen");
        let run = match listen {
            true => self,
            false => self.flag("listen", "127.0.0.1:0"),
        };
        let mut process = run.spawn();
        let Some(line) = within(process.stdout.lines.recv()).await else {
            panic!("it does not listen: {}", process.stderr.all());
        };
        let address = line
            .strip_prefix("listening on http://")
            .and_then(|address| address.parse().ok())
            .unwrap_or_else(|| panic!("{line}"));
        Server {
            process,
            line,
            address,
            backends: run.backends.into(),
        }
    }
}

/// How a process has ended, and what it said.
#[derive(Debug)]
pub(crate) struct Exit {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

struct Process {
    child: Child,
    stdout: Output,
    stderr: Output,
}

impl Process {
    async fn exited(&mut self) -> ExitStatus {
        let mut looks = tokio::time::interval(Duration::from_millis(2));
        within(async {
            loop {
                looks.tick().await;
                if let Some(status) = self.child.try_wait().expect("a child") {
                    return status;
                }
            }
        })
        .await
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// One of the process' outputs.
struct Output {
    lines: mpsc::UnboundedReceiver<String>,
    reader: Option<JoinHandle<String>>,
    all: String,
}

impl Output {
    fn of(pipe: impl Read + Send + 'static) -> Self {
        let (sender, lines) = mpsc::unbounded_channel();
        let reader = std::thread::spawn(move || {
            let mut pipe = BufReader::new(pipe);
            let mut all = Vec::new();
            loop {
                let start = all.len();
                let read = pipe.read_until(b'\n', &mut all).unwrap_or(0);
                if read == 0 {
                    return String::from_utf8_lossy(&all).into_owned();
                }
                let line = String::from_utf8_lossy(&all[start..]);
                let _ = sender.send(line.trim_end_matches('\n').to_owned());
            }
        });
        Self {
            lines,
            reader: Some(reader),
            all: String::new(),
        }
    }

    /// All that was ever written, once the process has ended.
    fn all(&mut self) -> &str {
        if let Some(reader) = self.reader.take() {
            self.all = reader.join().expect("no panic");
        }
        &self.all
    }
}

/// An example that listens.
pub(crate) struct Server {
    process: Process,
    line: String,
    pub(crate) address: SocketAddr,
    backends: Arc<[Backend]>,
}

impl Server {
    pub(crate) fn backends(&self) -> Arc<[Backend]> {
        Arc::clone(&self.backends)
    }

    pub(crate) async fn connect(&self) -> Caller {
        Caller::new(self.address, self.backends()).await
    }

    pub(crate) async fn get(&self, target: &str) -> Answer {
        self.connect().await.get(target).await
    }

    /// Sends `bytes` on a connection of their own.
    pub(crate) async fn send(&self, bytes: impl AsRef<[u8]>) -> Answer {
        let mut caller = self.connect().await;
        caller.send(bytes).await;
        caller.answer().await
    }

    pub(crate) async fn post(&self, target: &str, body: &str) -> Answer {
        self.send(request("POST", target, &[], body)).await
    }

    /// The answer, and how long it took.
    pub(crate) async fn timed(&self, target: &str) -> (Answer, Duration) {
        let mut caller = self.connect().await;
        let start = Instant::now();
        let answer = caller.get(target).await;
        (answer, start.elapsed())
    }

    /// The next line on standard error.
    pub(crate) async fn stderr_line(&mut self) -> String {
        within(self.process.stderr.lines.recv())
            .await
            .expect("a line")
    }

    pub(crate) fn terminate(&self) {
        // The child has not been waited for, so the id is still its own.
        let kill = Command::new("sh")
            .arg("-c")
            .arg(format!("kill -TERM {}", self.process.child.id()))
            .status();
        assert!(kill.expect("a shell").success());
    }

    pub(crate) async fn exited(&mut self) -> ExitStatus {
        self.process.exited().await
    }

    /// Waits until it accepts no connection any more.
    pub(crate) async fn refuses_connections(&self) {
        within(async {
            while TcpStream::connect(self.address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }

    /// It exits with success, so long after `since`.
    pub(crate) async fn exits_after(&mut self, time: Duration, since: Instant) {
        assert_eq!(self.exited().await.code(), Some(0));
        let elapsed = since.elapsed();
        assert!(elapsed + Duration::from_millis(500) >= time, "{elapsed:?}");
        assert!(elapsed < time + NOISE, "{elapsed:?}");
    }

    /// All that it has said on standard error, once it has exited.
    pub(crate) fn stderr(&mut self) -> &str {
        self.process.stderr.all()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let _ = self.process.child.kill();
        let _ = self.process.child.wait();
        assert_eq!(self.process.stdout.all(), format!("{}\n", self.line));
        let stderr = self.process.stderr.all();
        assert!(!stderr.contains("panicked"), "{stderr}");
    }
}
