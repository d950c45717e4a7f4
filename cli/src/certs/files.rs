//! Files of certificates and keys: keys are for their owner alone, and nothing is ever half written.

use std::fs::{DirBuilder, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use memharvest_services::tls::identity::Lifetime;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

use super::CertsError;

/// The mode of a file with a key.
pub(super) const SECRET: u32 = 0o600;
/// The mode of a file that everybody may read.
pub(super) const PUBLIC: u32 = 0o644;

fn io(path: &Path) -> impl FnOnce(std::io::Error) -> CertsError + use<> {
    let path = path.to_owned();
    |source| CertsError::Io { path, source }
}

/// Makes a folder, for its owner alone, where it is not there.
pub(super) fn make_folder(folder: &Path) -> Result<(), CertsError> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io(folder))
}

pub(super) fn read(file: &Path) -> Result<String, CertsError> {
    std::fs::read_to_string(file).map_err(io(file))
}

/// Writes a file beside the old one, and puts it in its place.
pub(super) fn write(file: &Path, text: &str, mode: u32) -> Result<(), CertsError> {
    let fresh = file.with_extension("new");
    let written = || {
        // One that was left behind may have another mode.
        match std::fs::remove_file(&fresh) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut open = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()?;
        std::fs::rename(&fresh, file)
    };
    written().map_err(io(file))
}

/// Beside a member's files: where it gets fresh ones.
pub(super) const URL: &str = "ca.url";

/// Writes what a member needs, as its settings name it, and where it is renewed, if that is known.
pub(super) fn write_member(
    folder: &Path,
    authorities: &str,
    certificate: &str,
    key: &str,
    url: Option<&str>,
) -> Result<(), CertsError> {
    make_folder(folder)?;
    if let Some(url) = url {
        write(&folder.join(URL), &format!("{url}\n"), PUBLIC)?;
    }
    write(&folder.join("ca.crt"), authorities, PUBLIC)?;
    write(&folder.join("tls.key"), key, SECRET)?;
    write(&folder.join("tls.crt"), certificate, PUBLIC)
}

/// Until when the first certificate of a PEM text holds.
pub(super) fn expiry(pem: &str) -> String {
    let lifetime = CertificateDer::from_pem_slice(pem.as_bytes()).ok().and_then(|der| Lifetime::of(&der));
    let at = lifetime.and_then(|lifetime| jiff::Timestamp::from_second(lifetime.expires).ok());
    at.map_or_else(|| "an unknown time".to_owned(), |at| at.to_string())
}
