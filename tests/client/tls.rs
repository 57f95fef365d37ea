//! HTTPS: which version is spoken, and whom the client trusts.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Version};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::{self, ServerConfig};
use watershed::client::Client;

use crate::common::{Server, assert_no_address, call, client, echo_server, get, read, serve_echo};

struct TlsServer {
    pem: String,
    port: u16,
}

impl TlsServer {
    /// An echo server with a certificate of its own for `localhost`, that offers `protocols` by ALPN.
    async fn start(protocols: &[&str]) -> Self {
        let rcgen::CertifiedKey { cert, key_pair } =
            rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![cert.der().clone()],
                key_pair.serialize_der().try_into().unwrap(),
            )
            .unwrap();
        config.alpn_protocols = protocols
            .iter()
            .map(|name| name.as_bytes().into())
            .collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((io, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    if let Ok(io) = acceptor.accept(io).await {
                        serve_echo(TokioIo::new(io)).await;
                    }
                });
            }
        });
        Self {
            pem: cert.pem(),
            port,
        }
    }

    fn uri(&self) -> String {
        format!("https://localhost:{}/secret-path", self.port)
    }

    fn client(&self) -> Client<Full<Bytes>> {
        Client::builder().add_root_pem(self.pem.as_bytes()).build()
    }
}

#[tokio::test]
async fn the_server_chooses_the_version() {
    for (protocols, version) in [
        (&["h2", "http/1.1"][..], Version::HTTP_2),
        (&["http/1.1"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ] {
        let server = TlsServer::start(protocols).await;
        let client = server.client();
        for came_by in [Version::HTTP_10, Version::HTTP_2] {
            let request = Request::post(server.uri())
                .version(came_by)
                .body(Full::from("hello"))
                .unwrap();
            let response = call(&client, request).await.unwrap();
            assert_eq!(response.version(), version);
            assert_eq!(read(response).await.unwrap(), "hello");
        }
    }
}

#[tokio::test]
async fn only_http2_is_offered_if_only_it_is_wanted() {
    let server = TlsServer::start(&["http/1.1"]).await;
    let client = Client::builder()
        .add_root_pem(server.pem.as_bytes())
        .http2_only()
        .build();
    let error = call(&client, get(&server.uri())).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
}

#[tokio::test]
async fn the_same_client_speaks_plain_http() {
    let server = TlsServer::start(&[]).await;
    let plain = echo_server().await;
    let client = server.client();
    let response = call(&client, get(&plain)).await.unwrap();
    assert_eq!(response.version(), Version::HTTP_11);
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_is_a_connect_error() {
    let server = TlsServer::start(&[]).await;
    let other = TlsServer::start(&[]).await;
    for client in [client(), other.client()] {
        let error = call(&client, get(&server.uri())).await.unwrap_err();
        assert!(error.is_connect() && !error.is_timeout(), "{error:?}");
        let text = error.to_string();
        assert!(!text.contains("secret") && !text.contains("localhost"));
    }
    // The name has to be the one in the certificate.
    let uri = format!("https://127.0.0.1:{}/", server.port);
    let error = call(&server.client(), get(&uri)).await.unwrap_err();
    assert!(error.is_connect(), "{error:?}");
}

#[tokio::test]
async fn a_server_without_tls_is_a_connect_error() {
    let server = echo_server().await;
    let uri = server.replace("http:", "https:");
    let error = call(&client(), get(&uri)).await.unwrap_err();
    assert!(error.is_connect() & !error.is_timeout(), "{error:?}");
}

/// The handshake counts: a server that accepts and then says nothing is not waited for.
#[tokio::test]
async fn a_handshake_that_does_not_end_is_a_timeout() {
    let server = Server::bind().await;
    let client: Client<Full<Bytes>> = Client::builder()
        .connect_timeout(Duration::from_millis(50))
        .build();
    let uri = server.uri("/").replace("http:", "https:");
    let (result, _peer) = tokio::join!(call(&client, get(&uri)), server.accept());
    let error = result.unwrap_err();
    assert!(error.is_timeout() && error.is_connect() && error.is_unsent());
    assert_no_address(&error, &server);
}

#[test]
fn a_root_that_is_none_is_not_built() {
    let bad = [
        "",
        "no certificate",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
        "-----BEGIN CERTIFICATE-----\nAAAA\n",
        "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
    ];
    for pem in bad {
        let result = Client::builder()
            .add_root_pem(pem.as_bytes())
            .try_build::<Full<Bytes>>();
        assert!(result.is_err(), "{pem:?}");
    }
}

#[test]
fn several_roots_fit_into_one_file() {
    let pem: String = ["a.example", "b.example"]
        .map(|name| {
            let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
            made.cert.pem()
        })
        .concat();
    let result = Client::builder()
        .add_root_pem(pem.as_bytes())
        .try_build::<Full<Bytes>>();
    assert!(result.is_ok());
}
