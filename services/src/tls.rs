//! TLS from files: of a port that shows a certificate, and of the mesh, where both sides show one.
//!
//! The files are looked at while the process runs. New ones serve new handshakes; connections that are open stay.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::{self, ClientConfig, ServerConfig};

use crate::metrics::Metrics;
use crate::shutdown::Stop;

mod connector;
pub mod identity;
mod mesh;
mod reloaded;
mod standing;

pub(crate) use connector::MeshConnector;
pub use mesh::{MeshSettings, MeshTls};
pub(crate) use standing::Standing;

use identity::{Identity, Lifetime};
use reloaded::{Contents, Files, Reloaded};

/// Certificates that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file that cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file that holds something else.
    #[error("{} holds no {what} in PEM", file.display())]
    NoPem {
        /// The file.
        file: PathBuf,
        /// What was looked for.
        what: &'static str,
    },
    /// Certificate and key do not fit each other, or cannot be used.
    #[error("the certificate in {} cannot be used with its key: {source}", file.display())]
    Unfit {
        /// The certificate's file.
        file: PathBuf,
        /// Why.
        source: rustls::Error,
    },
    /// Authorities that cannot be used.
    #[error("the authorities in {} cannot be used: {reason}", file.display())]
    Authorities {
        /// Their file.
        file: PathBuf,
        /// Why.
        reason: String,
    },
    /// A certificate that does not say who it is.
    #[error("the certificate in {} is of no use in the mesh: {source}", file.display())]
    NoIdentity {
        /// The certificate's file.
        file: PathBuf,
        /// Why.
        source: identity::NoIdentity,
    },
}

/// What is made of the files.
#[derive(Debug)]
struct Material {
    server: Arc<ServerConfig>,
    /// Only in the mesh, where the same certificate is shown as a client.
    client: Option<Arc<ClientConfig>>,
    /// Whom the server believes in the mesh.
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    /// Who shows it in the mesh.
    identity: Option<Identity>,
    /// Of each certificate, by what it is for.
    lifetimes: Vec<(&'static str, Lifetime)>,
}

/// A listener's TLS. Clones share the certificate.
#[derive(Clone, Debug)]
pub struct ServerTls(Arc<Reloaded>);

impl ServerTls {
    /// Reads a chain of certificates and its private key, both in PEM.
    ///
    /// # Errors
    /// A file cannot be read, or the two do not fit each other.
    pub fn load(chain_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let files = Files { chain: chain_file.to_owned(), key: key_file.to_owned(), authorities: None };
        Reloaded::load(files).map(|loaded| Self(Arc::new(loaded)))
    }

    /// Looks at the files in a task of `stop`, and tells in `metrics` when the certificates expire.
    pub fn keep_fresh(&self, metrics: &Metrics, stop: &Stop) {
        let files = Arc::clone(&self.0);
        let (metrics, stopping) = (metrics.clone(), stop.clone());
        let told = move |material: &Material| {
            for (purpose, lifetime) in &material.lifetimes {
                metrics.certificate(purpose, *lifetime);
            }
        };
        stop.spawn("certificates", async move { files.keep_fresh(told, stopping).await });
    }

    /// For one handshake.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.current().server))
    }

    /// For the connection that comes of a handshake; taken before it, so that no news is missed.
    pub(crate) fn standing(&self) -> Standing {
        Standing(self.0.follow())
    }
}

impl Material {
    fn of(files: &Files<PathBuf>, contents: &Contents) -> Result<Self, TlsError> {
        let chain = certificates(&files.chain, &contents.chain)?;
        let key = private_key(&files.key, &contents.key)?;
        match (&files.authorities, &contents.authorities) {
            (Some(file), Some(pem)) => {
                let believed = mesh::Believed::read(file, pem)?;
                mesh::member(&files.chain, chain, key, file, believed)
            }
            _ => public(&files.chain, chain, key),
        }
    }
}

/// A port that asks nobody for a certificate.
fn public(
    chain_file: &Path,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Material, TlsError> {
    let lifetimes = lifetime(&chain).map(|lifetime| ("public", lifetime)).into_iter().collect();
    let unfit = |source| TlsError::Unfit { file: chain_file.to_owned(), source };
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unfit)?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Material { server: Arc::new(server), client: None, verifier: None, identity: None, lifetimes })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// At least one certificate.
fn certificates(file: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found
        .ok()
        .filter(|found| !found.is_empty())
        .ok_or_else(|| TlsError::NoPem { file: file.to_owned(), what: "certificate" })
}

/// The revocation lists among the certificates of an authorities' file; usually none.
fn revocations(file: &Path, pem: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(pem).collect();
    found.map_err(|_| TlsError::NoPem { file: file.to_owned(), what: "readable revocation list" })
}

fn private_key(file: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| TlsError::NoPem { file: file.to_owned(), what: "private key" })
}

/// When the first of these certificates expires.
fn lifetime(certificates: &[CertificateDer<'_>]) -> Option<Lifetime> {
    certificates.iter().filter_map(|one| Lifetime::of(one)).min_by_key(|lifetime| lifetime.expires)
}
