//! What a streamed upload keeps in memory. A binary of its own: it reads the size of the process.

#![cfg(target_os = "linux")]

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use watershed::clone_request::TeeBody;

const MIB: u64 = 1 << 20;
const FRAME: u64 = 64 * 1024;

/// Memory made on the spot: each frame is an allocation of its own.
struct Upload {
    left: u64,
}

impl Body for Upload {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        let len = self.left.min(FRAME);
        self.left -= len;
        let fill = (self.left / FRAME) as u8;
        Poll::Ready(Some(Ok(Frame::data(vec![fill; len as usize].into()))))
    }
}

/// The most memory that the process has had resident so far, in bytes.
fn peak_resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM:"))
        .expect("a line");
    let kib = line.split_whitespace().nth(1).expect("a number");
    kib.parse::<u64>().expect("a number") * 1024
}

/// Reads all of it, and gives way after every `pace`th frame.
async fn read(mut body: TeeBody, pace: u64) -> u64 {
    let (mut read, mut frames) = (0, 0);
    while let Some(frame) = body.frame().await {
        let data = frame.expect("nobody lags").into_data().expect("data");
        read += data.len() as u64;
        frames += 1;
        if frames % pace == 0 {
            tokio::task::yield_now().await;
        }
    }
    read
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gibibyte_passes_three_readers_in_a_window() {
    let window = MIB;
    let total = 1024 * MIB;
    let first = TeeBody::stream(Upload { left: total }, window, Duration::from_secs(60));
    let readers = [first.clone(), first.clone(), first];
    let before = peak_resident();
    let tasks = readers.into_iter().zip([1, 3, 16]);
    let tasks: Vec<_> = tasks
        .map(|(body, pace)| tokio::spawn(read(body, pace)))
        .collect();
    for task in tasks {
        assert_eq!(task.await.expect("no panic"), total);
    }
    let growth = peak_resident() - before;
    assert!(growth <= window + 8 * MIB, "it grew by {growth} bytes");
}
