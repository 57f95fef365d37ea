//! HTTPS: rustls on ring, trusting the bundled roots and those that were added.

use std::sync::Arc;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

use super::connector::Transport;
use crate::error::BuildError;

/// What is trusted beyond the bundled roots, or the first mistake in it.
#[derive(Debug, Clone)]
pub(super) struct Roots {
    added: Result<Vec<CertificateDer<'static>>, BuildError>,
}

impl Default for Roots {
    fn default() -> Self {
        Self {
            added: Ok(Vec::new()),
        }
    }
}

impl Roots {
    pub(super) fn add_pem(&mut self, pem: &[u8]) {
        let Ok(added) = &mut self.added else { return };
        let before = added.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            match certificate {
                Ok(certificate) => added.push(certificate),
                Err(error) => {
                    self.added = Err(BuildError::new(format!(
                        "a root certificate is not PEM: {error}"
                    )));
                    return;
                }
            }
        }
        if added.len() == before {
            self.added = Err(BuildError::new("a root PEM holds no certificate"));
        }
    }

    fn into_store(self) -> Result<RootCertStore, BuildError> {
        let mut store = RootCertStore::empty();
        store.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        for certificate in self.added? {
            store.add(certificate).map_err(|error| {
                BuildError::new(format!("a root certificate can't be used: {error}"))
            })?;
        }
        Ok(store)
    }
}

/// TLS over `tcp` for https, plain `tcp` for http.
pub(super) fn over(
    tcp: HttpConnector,
    roots: Roots,
    http2_only: bool,
) -> Result<Transport, BuildError> {
    // The provider is named: the process-wide default belongs to the application, and may be another or none.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| BuildError::new(format!("TLS can't be set up: {error}")))?
        .with_root_certificates(roots.into_store()?)
        .with_no_client_auth();
    let builder = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http();
    Ok(if http2_only {
        builder.enable_http2().wrap_connector(tcp)
    } else {
        builder.enable_all_versions().wrap_connector(tcp)
    })
}
