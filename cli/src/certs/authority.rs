//! A private authority: one key and one certificate in a folder, and the certificates that it signs.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use memharvest_services::tls::identity::Identity;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, DistinguishedName, DnType,
    ExtendedKeyUsagePurpose, IsCa, Issuer, KeyIdMethod, KeyPair, KeyUsagePurpose, PublicKeyData,
    RevokedCertParams, SanType, SerialNumber,
};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::ledger::{Entry, Ledger};
use super::{CertsError, files, ticket};

/// Clocks may differ by this much.
pub(super) const BACKDATED: Duration = Duration::from_mins(5);

/// A revocation list is believed until a newer one comes; the form asks for an end nevertheless.
const LISTS_HOLD: Duration = Duration::from_hours(10 * 365 * 24);
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----\n";

/// An authority that can sign.
pub(super) struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate to be made.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// Whose it is.
    pub(super) identity: Identity,
    /// DNS names and addresses under which others reach it.
    pub(super) names: Vec<String>,
    /// How long it holds.
    pub(super) valid: Duration,
}

impl Authority {
    /// Makes an authority in a folder, and gives the fingerprint of its certificate.
    pub(super) fn create(
        folder: &Path,
        name: &str,
        now: SystemTime,
        valid: Duration,
    ) -> Result<String, CertsError> {
        files::make_folder(folder)?;
        if ["ca.key", "ca.crt"].iter().any(|file| folder.join(file).exists()) {
            return Err(CertsError::Exists(folder.to_owned()));
        }
        let key = KeyPair::generate()?;
        // A name of its own, so that two authorities of one name are told apart.
        let id = Uuid::new_v4().simple().to_string();
        let mut params = params(&format!("{name} {}", &id[..8]), now, valid);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key)?;
        files::write(&folder.join("ca.key"), &key.serialize_pem(), files::SECRET)?;
        files::write(&folder.join("ca.crt"), &certificate.pem(), files::PUBLIC)?;
        let hash = Sha256::digest(certificate.der());
        Ok(hash.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":"))
    }

    /// Opens the authority of a folder.
    pub(super) fn load(folder: &Path) -> Result<Self, CertsError> {
        let file = folder.join("ca.crt");
        let pem = std::fs::read_to_string(&file).map_err(|_| CertsError::NoAuthority(folder.to_owned()))?;
        let key_file = folder.join("ca.key");
        let unfit = |path: &Path, error: rcgen::Error| CertsError::Unfit {
            path: path.to_owned(),
            what: error.to_string(),
        };
        let key = KeyPair::from_pem(&files::read(&key_file)?).map_err(|error| unfit(&key_file, error))?;
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(|error| unfit(&file, error))?;
        Ok(Self { folder: folder.to_owned(), issuer })
    }

    /// What members believe, in PEM: its certificate, and once something was revoked its revocation list. It changes under way.
    pub(super) fn believed(&self) -> Result<String, CertsError> {
        files::read(&self.folder.join("ca.crt"))
    }

    /// Its ledger, opened.
    pub(super) fn ledger(&self, now: SystemTime) -> Result<Ledger, CertsError> {
        Ledger::open(&self.folder, now)
    }

    /// Writes the revocation list anew, behind the certificates in `ca.crt`: its own, and those of a next authority, if there is one.
    pub(super) fn publish(&self, ledger: &Ledger, now: SystemTime) -> Result<(), CertsError> {
        let at = |seconds: u64| rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(seconds);
        let since_1970 = ticket::seconds(now);
        let revoked = |entry: &Entry| RevokedCertParams {
            serial_number: SerialNumber::from(entry.serial()),
            revocation_time: at(entry.revoked_at.unwrap_or(since_1970)),
            reason_code: None,
            invalidity_date: None,
        };
        let list = CertificateRevocationListParams {
            this_update: at(since_1970),
            next_update: at(since_1970) + LISTS_HOLD,
            crl_number: SerialNumber::from(since_1970),
            issuing_distribution_point: None,
            revoked_certs: ledger.revoked().map(revoked).collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&self.issuer)?.pem()?;
        let before = self.believed()?;
        let certificates = before.split_inclusive(END).filter_map(|part| part.get(part.find(BEGIN)?..));
        let believed = certificates.chain([list.as_str()]).collect::<String>();
        files::write(&self.folder.join("ca.crt"), &believed, files::PUBLIC)
    }

    /// Signs a member's certificate, in PEM.
    pub(super) fn certify(
        &self,
        wanted: &Wanted,
        key: &impl PublicKeyData,
        now: SystemTime,
    ) -> Result<String, CertsError> {
        let uri = wanted.identity.to_string();
        self.sign(&wanted.names, Some(uri), now, wanted.valid, key)
    }

    /// Signs the certificate of a server that is no member of the mesh: the one that gives certificates out.
    pub(super) fn certify_server(
        &self,
        names: &[String],
        key: &impl PublicKeyData,
        now: SystemTime,
        valid: Duration,
    ) -> Result<String, CertsError> {
        self.sign(names, None, now, valid, key)
    }

    fn sign(
        &self,
        names: &[String],
        uri: Option<String>,
        now: SystemTime,
        valid: Duration,
        key: &impl PublicKeyData,
    ) -> Result<String, CertsError> {
        let mut params = params(uri.as_deref().unwrap_or("memharvest certs"), now, valid);
        for name in names {
            let usable = !name.is_empty() && !name.contains([':', '/', ' '])
                || name.parse::<std::net::IpAddr>().is_ok();
            if !usable {
                return Err(CertsError::Usage(format!(
                    "--san {name}: write a DNS name or an address, without scheme and port"
                )));
            }
        }
        params.subject_alt_names = CertificateParams::new(names.to_vec())?.subject_alt_names;
        if let Some(uri) = uri {
            params.subject_alt_names.push(SanType::URI(uri.try_into()?));
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        Ok(params.signed_by(key, &self.issuer)?.pem())
    }
}

fn params(name: &str, now: SystemTime, valid: Duration) -> CertificateParams {
    let since_1970 = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut params = CertificateParams::default();
    params.not_before = rcgen::date_time_ymd(1970, 1, 1) + since_1970.saturating_sub(BACKDATED);
    params.not_after = rcgen::date_time_ymd(1970, 1, 1) + since_1970.saturating_add(valid);
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let mut serial = *Uuid::new_v4().as_bytes();
    // A positive number.
    serial[0] &= 0x7f;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}
