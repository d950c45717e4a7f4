//! TLS between the services: both sides show a certificate of the mesh's authorities.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio_rustls::rustls::client::{Resumption, WebPkiServerVerifier};
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::identity::{Identity, Role};
use super::reloaded::{Files, Reloaded};
use super::{Material, ServerTls, TlsError, certificates, lifetime, provider, revocations};
use crate::metrics::Metrics;
use crate::settings::SettingsError;
use crate::shutdown::Stop;

/// Where `--help` lists them.
const HEADING: &str = "Mesh TLS";

/// The certificate that a process shows in the mesh, and whom it believes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct MeshSettings {
    /// Authorities (certificates in PEM) that make somebody a member of the mesh, and their revocation lists. With them, services speak
    /// TLS with certificates on both sides
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_MESH_CA", value_name = "FILE")]
    pub mesh_ca: Option<PathBuf>,

    /// Chain of certificates in PEM that this process shows in the mesh. All three are read anew when they change
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_MESH_CERT", value_name = "FILE")]
    pub mesh_cert: Option<PathBuf>,

    /// Its private key in PEM
    #[arg(long, help_heading = HEADING, env = "MEMHARVEST_MESH_KEY", value_name = "FILE")]
    pub mesh_key: Option<PathBuf>,
}

impl MeshSettings {
    /// Whether the services speak TLS.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.mesh_ca.is_some()
    }

    /// Reads the files; `None`: the services speak plainly.
    ///
    /// # Errors
    /// A file cannot be read, or they do not fit each other.
    pub fn read(&self) -> Result<Option<MeshTls>, SettingsError> {
        let (ca, chain, key) = match (&self.mesh_ca, &self.mesh_cert, &self.mesh_key) {
            (Some(ca), Some(chain), Some(key)) => (ca, chain, key),
            (None, None, None) => return Ok(None),
            _ => {
                return Err(SettingsError::Refused(
                    "--mesh-ca, --mesh-cert and --mesh-key belong together; give all three or none".into(),
                ));
            }
        };
        let tls = MeshTls::load(ca, chain, key);
        tls.map(Some)
            .map_err(|error| SettingsError::Refused(format!("--mesh-ca, --mesh-cert, --mesh-key: {error}")))
    }

    /// As [`Self::read`], and looks at the files in a task of `stop`.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn start(&self, metrics: &Metrics, stop: &Stop) -> Result<Option<MeshTls>, SettingsError> {
        let tls = self.read()?;
        if let Some(tls) = &tls {
            tls.server().keep_fresh(metrics, stop);
        }
        Ok(tls)
    }

    /// Refuses the URL of a service that would be called without the certificates, or cannot be called with them.
    ///
    /// # Errors
    /// `http://` with the certificates, `https://` without them.
    pub fn check_url(&self, flag: &str, url: &str) -> Result<(), SettingsError> {
        match (self.is_set(), url.starts_with("https://")) {
            (true, false) => Err(SettingsError::Refused(format!(
                "{flag} {url} would be called without the certificates of --mesh-ca; write it with https://"
            ))),
            (false, true) => Err(SettingsError::Refused(format!(
                "{flag} {url} needs --mesh-ca, --mesh-cert and --mesh-key: services show each other certificates"
            ))),
            _ => Ok(()),
        }
    }
}

/// A process's place in the mesh. Clones share the certificate.
#[derive(Clone, Debug)]
pub struct MeshTls(ServerTls);

impl MeshTls {
    /// Reads the authorities, a chain of certificates and its private key, all in PEM.
    ///
    /// # Errors
    /// A file cannot be read, they do not fit each other, or the certificate does not say who it is.
    pub fn load(ca_file: &Path, chain_file: &Path, key_file: &Path) -> Result<Self, TlsError> {
        let (chain, key) = (chain_file.to_owned(), key_file.to_owned());
        let files = Files { chain, key, authorities: Some(ca_file.to_owned()) };
        Reloaded::load(files).map(|loaded| Self(ServerTls(Arc::new(loaded))))
    }

    /// The listener's side of it.
    #[must_use]
    pub fn server(&self) -> ServerTls {
        self.0.clone()
    }

    /// Refuses a certificate that is not this agent's.
    ///
    /// # Errors
    /// It speaks for somebody else.
    pub fn check_agent(&self, role: Role, agent_id: &str) -> Result<(), SettingsError> {
        match &self.0.0.current().identity {
            Some(identity) if identity.role() != role || !identity.is_agent(agent_id) => {
                Err(SettingsError::Refused(format!(
                    "--mesh-cert is the certificate of {identity}, and this is the {role} `{agent_id}`: it would be refused"
                )))
            }
            _ => Ok(()),
        }
    }

    /// For one handshake.
    pub(crate) fn client(&self) -> Option<Arc<ClientConfig>> {
        self.0.0.current().client.clone()
    }
}

/// Whom the mesh believes, and whom no more.
pub(super) struct Believed {
    authorities: Vec<CertificateDer<'static>>,
    revocations: Vec<CertificateRevocationListDer<'static>>,
}

impl Believed {
    /// From the authorities' file.
    pub(super) fn read(file: &Path, pem: &[u8]) -> Result<Self, TlsError> {
        Ok(Self { authorities: certificates(file, pem)?, revocations: revocations(file, pem)? })
    }
}

/// A server that asks for certificates, and a client that shows one. Neither resumes sessions: that would pass over a
/// certificate that has expired since, or authorities that were taken away. An authority without a revocation list has revoked nothing.
pub(super) fn member(
    chain_file: &Path,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    ca_file: &Path,
    believed: Believed,
) -> Result<Material, TlsError> {
    let Believed { authorities, revocations } = believed;
    let no_identity = |source| TlsError::NoIdentity { file: chain_file.to_owned(), source };
    let identity = chain.first().map(Identity::of).transpose().map_err(no_identity)?;
    let lifetimes = [("mesh", lifetime(&chain)), ("mesh_ca", lifetime(&authorities))];

    let unusable = |reason: String| TlsError::Authorities { file: ca_file.to_owned(), reason };
    let mut roots = RootCertStore::empty();
    for authority in authorities {
        roots.add(authority).map_err(|error| unusable(error.to_string()))?;
    }
    let roots = Arc::new(roots);
    let of_clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), provider())
        .with_crls(revocations.clone())
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| unusable(error.to_string()))?;
    let of_servers = WebPkiServerVerifier::builder_with_provider(roots, provider())
        .with_crls(revocations)
        .allow_unknown_revocation_status()
        .build()
        .map_err(|error| unusable(error.to_string()))?;

    let unfit = |source| TlsError::Unfit { file: chain_file.to_owned(), source };
    let mut server = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_client_cert_verifier(Arc::clone(&of_clients))
        .with_single_cert(chain.clone(), key.clone_key())
        .map_err(unfit)?;
    server.alpn_protocols = vec![b"h2".to_vec()];
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;

    let mut client = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(unfit)?
        .with_webpki_verifier(of_servers)
        .with_client_auth_cert(chain, key)
        .map_err(unfit)?;
    client.alpn_protocols = vec![b"h2".to_vec()];
    client.resumption = Resumption::disabled();

    let lifetimes =
        lifetimes.into_iter().filter_map(|(purpose, lifetime)| Some((purpose, lifetime?))).collect();
    let (server, client) = (Arc::new(server), Some(Arc::new(client)));
    Ok(Material { server, client, verifier: Some(of_clients), identity, lifetimes })
}
