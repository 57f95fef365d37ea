//! The example `axum_bff`, run as a user runs it.

#[path = "support/axum_example.rs"]
mod example;

use tokio::net::TcpStream;

use example::{ask, check_manners, start, terminate, within};

async fn get(address: &str, path: &str) -> String {
    ask(address, &format!("GET {path} HTTP/1.1\r\n")).await
}

#[tokio::test]
async fn the_dashboard_stands_beside_ordinary_routes() {
    let (_child, address, _output) = start("axum_bff").await;
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
    // Not for the backends: they would be asked to delete something.
    let delete = ask(&address, "DELETE /dashboard/7 HTTP/1.1\r\n").await;
    assert!(
        delete.starts_with("HTTP/1.1 405 Method Not Allowed\r\n"),
        "{delete}"
    );
    let unknown = get(&address, "/nowhere").await;
    assert!(
        unknown.starts_with("HTTP/1.1 404 Not Found\r\n"),
        "{unknown}"
    );
}

#[tokio::test]
async fn it_stops_when_it_is_told_to() {
    let (mut child, address, _output) = start("axum_bff").await;
    terminate(&child).await;
    let status = within(child.wait()).await.expect("it ends");
    assert!(status.success(), "{status}");
    assert!(TcpStream::connect(address).await.is_err());
}

#[tokio::test]
async fn it_says_what_is_wrong_with_its_argument() {
    check_manners("axum_bff").await;
}
