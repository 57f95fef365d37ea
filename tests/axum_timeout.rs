//! The example `axum_timeout`, run as a user runs it.

#[path = "support/axum_example.rs"]
mod example;

use tokio::io::AsyncReadExt;

use example::{ask, check_manners, start, terminate, within};

/// The value of a field in an answer.
fn field<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = answer.lines().filter_map(|line| line.split_once(": "));
    lines.find(|(of, _)| *of == name).map(|(_, value)| value)
}

#[tokio::test]
async fn a_field_of_another_task_is_on_the_response_and_a_slow_route_is_answered_for() {
    let (_child, address, _output) = start("axum_timeout").await;
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
    let (mut child, address, mut lines) = start("axum_timeout").await;
    let order = ask(&address, "POST /order HTTP/1.1\r\ncontent-length: 0\r\n").await;
    assert!(
        order.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"),
        "{order}"
    );
    terminate(&child).await;
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

#[tokio::test]
async fn it_says_what_is_wrong_with_its_argument() {
    check_manners("axum_timeout").await;
}
