//! What an authority has certified for longer than a pod's life: `ledger.json` in its folder. What stands there can be renewed and
//! revoked; what has expired is left out.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use memharvest_services::tls::identity::{Identity, Lifetime};
use serde::{Deserialize, Serialize};
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use super::{CertsError, files};

/// A certificate that was given out. Times are seconds since 1970.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Entry {
    /// In hexadecimal digits.
    serial: String,
    identity: String,
    expires: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) revoked_at: Option<u64>,
}

impl Entry {
    /// The serial number's bytes.
    pub(super) fn serial(&self) -> Vec<u8> {
        let digits: Vec<u32> = self.serial.chars().filter_map(|digit| digit.to_digit(16)).collect();
        digits.chunks_exact(2).filter_map(|pair| u8::try_from(pair[0] * 16 + pair[1]).ok()).collect()
    }
}

/// The opened ledger. Nobody else opens it meanwhile.
#[derive(Debug)]
pub(super) struct Ledger {
    file: PathBuf,
    entries: Vec<Entry>,
    _lock: File,
}

impl Ledger {
    /// Opens the ledger of an authority's folder.
    pub(super) fn open(folder: &Path, now: SystemTime) -> Result<Self, CertsError> {
        let lock_file = folder.join("ledger.lock");
        let io = |source| CertsError::Io { path: lock_file.clone(), source };
        let lock = File::options().write(true).create(true).truncate(false).open(&lock_file).map_err(io)?;
        lock.lock().map_err(io)?;
        let file = folder.join("ledger.json");
        let entries = if file.exists() {
            let unfit =
                |error: serde_json::Error| CertsError::Unfit { path: file.clone(), what: error.to_string() };
            serde_json::from_str::<Vec<Entry>>(&files::read(&file)?).map_err(unfit)?
        } else {
            Vec::new()
        };
        let now = i64::try_from(super::ticket::seconds(now)).unwrap_or(i64::MAX);
        let entries = entries.into_iter().filter(|entry| entry.expires >= now).collect();
        Ok(Self { file, entries, _lock: lock })
    }

    /// Enters a certificate (PEM) that is given out.
    pub(super) fn enter(&mut self, certificate: &str) -> Result<(), CertsError> {
        let read = || {
            let der = CertificateDer::from_pem_slice(certificate.as_bytes()).ok()?;
            let (serial, identity) = (serial_of(&der)?, Identity::of(&der).ok()?);
            let expires = Lifetime::of(&der)?.expires;
            Some(Entry { serial, identity: identity.to_string(), expires, revoked_at: None })
        };
        let unfit =
            || CertsError::Unfit { path: self.file.clone(), what: "the certificate says of nobody".into() };
        self.entries.push(read().ok_or_else(unfit)?);
        self.save()
    }

    /// Revokes every certificate of an identity, and tells how many there were.
    pub(super) fn revoke(&mut self, identity: &Identity, now: SystemTime) -> Result<usize, CertsError> {
        let identity = identity.to_string();
        let mut count = 0;
        for entry in self.entries.iter_mut().filter(|entry| entry.identity == identity) {
            if entry.revoked_at.is_none() {
                entry.revoked_at = Some(super::ticket::seconds(now));
                count += 1;
            }
        }
        self.save().map(|()| count)
    }

    /// What was revoked and would still hold.
    pub(super) fn revoked(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|entry| entry.revoked_at.is_some())
    }

    /// Whether a certificate may be renewed.
    pub(super) fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), String> {
        let serial = serial_of(certificate).ok_or("the certificate cannot be read")?;
        match self.entries.iter().find(|entry| entry.serial == serial) {
            Some(Entry { revoked_at: None, .. }) => Ok(()),
            Some(_) => Err("the certificate was revoked; join with another ticket".into()),
            None => Err(
                "the certificate is not in the ledger: pods show their token again, hosts join with a ticket"
                    .into(),
            ),
        }
    }

    fn save(&self) -> Result<(), CertsError> {
        files::write(&self.file, &super::ticket::json(&self.entries)?, files::SECRET)
    }
}

fn serial_of(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let bytes = parsed.raw_serial();
    Some(bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memharvest_services::tls::identity::Role;

    use super::*;
    use crate::certs::authority::{Authority, Wanted};

    #[test]
    fn what_was_revoked_stays_so_until_it_expires_and_what_comes_after_holds() {
        let folder = tempfile::tempdir().unwrap();
        let (now, hour) = (SystemTime::now(), Duration::from_hours(1));
        Authority::create(folder.path(), "test", now, 3 * hour).unwrap();
        let authority = Authority::load(folder.path()).unwrap();
        let identity = |name| Identity::new(Role::Collector, name).unwrap();
        let give = |name, valid| {
            let wanted = Wanted { identity: identity(name), names: Vec::new(), valid };
            let pem = authority.certify(&wanted, &rcgen::KeyPair::generate().unwrap(), now).unwrap();
            authority.ledger(now).unwrap().enter(&pem).unwrap();
            CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
        };
        let (stolen, renewed, other) = (give("h1", hour), give("h1", 2 * hour), give("h2", hour));
        let mut ledger = authority.ledger(now).unwrap();
        assert_eq!(ledger.revoke(&identity("h1"), now).unwrap(), 2);
        assert_eq!(ledger.revoke(&identity("h1"), now).unwrap(), 0);
        authority.publish(&ledger, now).unwrap();
        drop(ledger);
        let after = give("h1", hour);

        let ledger = authority.ledger(now).unwrap();
        for revoked in [&stolen, &renewed] {
            assert!(ledger.check(revoked).unwrap_err().contains("was revoked"));
        }
        for held in [&other, &after] {
            ledger.check(held).unwrap();
        }
        assert_eq!(authority.believed().unwrap().matches("BEGIN CERTIFICATE").count(), 1);
        drop(ledger);
        let later = authority.ledger(now + hour + Duration::from_mins(1)).unwrap();
        assert_eq!(later.revoked().count(), 1, "one has expired");
        authority.publish(&later, now).unwrap();
        assert_eq!(
            authority.believed().unwrap().matches("BEGIN X509 CRL").count(),
            1,
            "the list takes the old one's place"
        );
        assert!(later.check(&stolen).unwrap_err().contains("not in the ledger"));
    }
}
