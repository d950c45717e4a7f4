//! HTTPS as a client: whom to believe, and what to show.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// A client of `http://` and `https://`.
pub(crate) type HttpsClient = Client<HttpsConnector<HttpConnector>, Full<Bytes>>;

/// Certificate and key in PEM, for a server that asks for them.
pub(crate) type Shown<'a> = Option<(&'a str, &'a str)>;

pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The certificates of a PEM text, at least one.
pub(crate) fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    found.ok().filter(|found| !found.is_empty()).ok_or_else(|| "holds no certificate in PEM".to_owned())
}

/// The authorities of a PEM text.
pub(crate) fn authorities(pem: &str) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for authority in certificates(pem)? {
        roots.add(authority).map_err(|error| error.to_string())?;
    }
    Ok(roots)
}

/// A client that believes these authorities alone.
pub(crate) fn client_of(roots: RootCertStore, shown: Shown<'_>) -> Result<HttpsClient, String> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots);
    let config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| "the key is no PEM")?;
            config
                .with_client_auth_cert(certificates(certificate)?, key)
                .map_err(|error| error.to_string())?
        }
    };
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(CONNECT_PATIENCE));
    http.enforce_http(false);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

/// A client that believes the authorities of this file, or without one those of the system.
pub(crate) fn client(with_tls: bool, ca: Option<&Path>) -> Result<HttpsClient, String> {
    let roots = match ca {
        _ if !with_tls => RootCertStore::empty(),
        Some(file) => {
            let told = |error: String| format!("--ca {}: {error}", file.display());
            let pem = std::fs::read_to_string(file).map_err(|error| told(error.to_string()))?;
            authorities(&pem).map_err(told)?
        }
        None => {
            let mut roots = RootCertStore::empty();
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            if roots.is_empty() {
                return Err("this system has no certificate authorities; name a file of them by --ca".into());
            }
            roots
        }
    };
    client_of(roots, None)
}
