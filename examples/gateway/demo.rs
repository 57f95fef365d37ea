//! Backends to try the gateway with: three services on loopback.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

use crate::args::{self, Args, UsageError};

/// Starts the backends and fronts them with one route, which it prints on standard error.
pub(crate) async fn front(mut args: Args) -> Result<Args, UsageError> {
    let start = async {
        Ok::<_, std::io::Error>([
            backend(|id| (format!(r#"{{"id":"{id}","name":"Ada"}}"#), Duration::ZERO)).await?,
            backend(|_| (r#"[{"total":12.50},{"total":3.00}]"#.into(), Duration::ZERO)).await?,
            // Too late for its branch's timeout: the answer goes without it, and says so.
            backend(|_| (r#"["buy"]"#.into(), Duration::from_secs(60))).await?,
        ])
    };
    let [user, orders, ads] = start.await.map_err(UsageError::new)?;
    let flags = [
        "--route '/dash/{id}'".to_owned(),
        format!("--branch 'user=http://{user}/users/{{id}}'"),
        format!("--branch 'orders=http://{orders}/orders?user={{id}}'"),
        format!("--branch 'ads=http://{ads}/ads'"),
        "--branch-timeout ads=250ms".to_owned(),
        "--require user".to_owned(),
    ];
    eprintln!("no --route given, so these are demo backends behind\n  gateway \\");
    eprintln!("    {}", flags.join(" \\\n    "));
    let line = flags
        .iter()
        .flat_map(|flag| flag.split(' '))
        .map(|word| word.replace('\'', ""));
    args.routes = args::parse(std::iter::once("gateway".to_owned()).chain(line))?.routes;
    args.try_path = Some("/dash/7");
    Ok(args)
}

/// A backend that answers with what `answer` makes of the last segment of the path, after as long as it says.
async fn backend(answer: fn(&str) -> (String, Duration)) -> std::io::Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(move |request: Request<Incoming>| async move {
                let path = request.uri().path();
                let (json, delay) = answer(path.rsplit('/').next().unwrap_or_default());
                tokio::time::sleep(delay).await;
                let mut response = Response::new(Full::new(Bytes::from(json)));
                let json = header::HeaderValue::from_static("application/json");
                response.headers_mut().insert(header::CONTENT_TYPE, json);
                *response.status_mut() = StatusCode::OK;
                Ok::<_, Infallible>(response)
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    Ok(address)
}
