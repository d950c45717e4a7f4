//! Domains of libvirt's test driver: many, without a daemon, with figures that never move.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::Context;
use uuid::Uuid;

/// Writes a file for `test:///FILE` with `domains` running domains, `test-0` onwards, of 2 GiB each with a balloon at
/// 1 GiB, and hands out its path. Their UUIDs are the same on every call.
///
/// # Errors
/// When `folder` cannot be written to.
pub fn test_driver_xml(folder: &Path, domains: u32) -> anyhow::Result<PathBuf> {
    let mut xml = String::from("<node>\n");
    for number in 0..domains {
        let uuid = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("test-{number}").as_bytes());
        writeln!(
            xml,
            "<domain type='test'><name>test-{number}</name><uuid>{uuid}</uuid><memory unit='MiB'>2048</memory>\
             <currentMemory unit='MiB'>1024</currentMemory><vcpu>1</vcpu><os><type>hvm</type></os><devices><memballoon model='virtio'/></devices></domain>"
        )?;
    }
    xml.push_str("</node>\n");
    let path = folder.join(format!("{domains}-domains.xml"));
    std::fs::write(&path, xml).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}
