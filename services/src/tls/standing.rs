//! How long a certificate that was shown goes on to open: until it expires or is revoked.

use std::time::SystemTime;

use tokio::sync::watch;
use tokio_rustls::rustls::pki_types::{CertificateDer, UnixTime};
use tokio_rustls::rustls::{CertificateError, Error};

use super::Material;
use super::identity::Lifetime;
use super::reloaded::Made;

/// Follows what a listener believes.
#[derive(Debug)]
pub(crate) struct Standing(pub(super) watch::Receiver<Made>);

impl Standing {
    /// Ends when this chain, which has opened a connection, opens none any more. That its authority has been replaced
    /// since is no reason: connections stay while certificates are renewed.
    pub(crate) async fn until_lost(mut self, shown: Vec<CertificateDer<'static>>) {
        let lifetime = shown.first().and_then(Lifetime::of);
        let expired = async {
            match lifetime {
                Some(lifetime) => tokio::time::sleep(lifetime.left(SystemTime::now())).await,
                None => std::future::pending().await,
            }
        };
        let revoked = async {
            while self.0.changed().await.is_ok() {
                if is_revoked(&self.0.borrow_and_update().1, &shown) {
                    return;
                }
            }
            // The listener is gone, and its connections with it.
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = expired => {}
            () = revoked => {}
        }
    }
}

fn is_revoked(material: &Material, shown: &[CertificateDer<'static>]) -> bool {
    let (Some(verifier), Some((own, others))) = (&material.verifier, shown.split_first()) else {
        return false;
    };
    matches!(
        verifier.verify_client_cert(own, others, UnixTime::now()),
        Err(Error::InvalidCertificate(CertificateError::Revoked))
    )
}
