//! TLS of a listener. Its certificate is read anew when its files change, without a restart and without losing a
//! connection.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::{CryptoProvider, ring};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, ServerConfig};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::shutdown::Stop;

/// How often the files are looked at.
const LOOKED_AT_EVERY: Duration = Duration::from_secs(2);

/// A certificate that cannot be used.
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
        source: tokio_rustls::rustls::Error,
    },
}

/// A listener's TLS. Clones share the certificate.
#[derive(Clone, Debug)]
pub struct ServerTls {
    certificate: Arc<Certificate>,
    config: Arc<ServerConfig>,
}

#[derive(Debug)]
struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<(Files, Arc<CertifiedKey>)>,
}

/// What the two files held.
type Files = (Vec<u8>, Vec<u8>);

impl ServerTls {
    /// Reads a chain of certificates and its private key, both in PEM.
    ///
    /// # Errors
    /// A file cannot be read, or the two do not fit each other.
    pub fn load(chain_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let files = (read(chain_file)?, read(key_file)?);
        let key = certified(chain_file, key_file, &files)?;
        let certificate = Arc::new(Certificate {
            chain_file: chain_file.to_owned(),
            key_file: key_file.to_owned(),
            current: RwLock::new((files, Arc::new(key))),
        });
        let unfit = |source| TlsError::Unfit { file: chain_file.to_owned(), source };
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions();
        let mut config = config
            .map_err(unfit)?
            .with_no_client_auth()
            .with_cert_resolver(Arc::clone(&certificate) as Arc<dyn ResolvesServerCert>);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self { certificate, config: Arc::new(config) })
    }

    /// Looks at the files until the process stops. New ones that cannot be used are told of once, and the last good
    /// ones stay.
    pub async fn keep_fresh(self, stop: Stop) {
        let mut passed_over: Option<Files> = None;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOKED_AT_EVERY) => {}
                () = stop.requested() => return,
            }
            match self.certificate.renew(passed_over.as_ref()) {
                Ok(true) => {
                    let file = self.certificate.chain_file.display();
                    tracing::info!("the certificate of {file} was renewed");
                }
                Ok(false) => {}
                Err(refused) => {
                    let (files, error) = *refused;
                    tracing::warn!(%error, "the new certificate is passed over: {error}");
                    passed_over = Some(files);
                }
            }
        }
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.config))
    }
}

impl Certificate {
    /// Takes over what the files hold now, if it is new and was not passed over already.
    fn renew(&self, passed_over: Option<&Files>) -> Result<bool, Box<(Files, TlsError)>> {
        // While one of the two is being replaced, it may be missing for a moment.
        let (Ok(chain), Ok(key)) = (std::fs::read(&self.chain_file), std::fs::read(&self.key_file)) else {
            return Ok(false);
        };
        let files = (chain, key);
        if passed_over == Some(&files)
            || self.current.read().unwrap_or_else(PoisonError::into_inner).0 == files
        {
            return Ok(false);
        }
        match certified(&self.chain_file, &self.key_file, &files) {
            Ok(key) => {
                *self.current.write().unwrap_or_else(PoisonError::into_inner) = (files, Arc::new(key));
                Ok(true)
            }
            Err(error) => Err(Box::new((files, error))),
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).1))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(file).map_err(|source| TlsError::Unreadable { file: file.to_owned(), source })
}

fn certified(chain_file: &Path, key_file: &Path, (chain, key): &Files) -> Result<CertifiedKey, TlsError> {
    let no_pem = |file: &Path, what| TlsError::NoPem { file: file.to_owned(), what };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(chain)
        .collect::<Result<_, _>>()
        .map_err(|_| no_pem(chain_file, "certificate"))?;
    if chain.is_empty() {
        return Err(no_pem(chain_file, "certificate"));
    }
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| no_pem(key_file, "private key"))?;
    CertifiedKey::from_der(chain, key, &provider())
        .map_err(|source| TlsError::Unfit { file: chain_file.to_owned(), source })
}
