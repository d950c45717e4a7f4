//! The programs that tests run, unpacked by `setup/install test` into `.tools/`.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::ensure;

/// Where the programs are unpacked: a root directory of their own.
///
/// # Errors
/// When `setup/install test` has not run.
pub fn host_root() -> anyhow::Result<PathBuf> {
    find("host")
}

/// The file `name` of a test guest: `vmlinuz` or `initramfs.gz`.
///
/// # Errors
/// When `setup/install test` has not run.
pub fn guest_file(name: &str) -> anyhow::Result<PathBuf> {
    find("guest").map(|folder| folder.join(name))
}

/// The program `name` (`prometheus`, `promtool`, `virsh`, …), ready to be given arguments and spawned.
///
/// # Errors
/// When `setup/install test` has not run.
pub fn program(name: &str) -> anyhow::Result<Command> {
    let root = host_root()?;
    let mut command = Command::new(find(&format!("host/usr/bin/{name}"))?);
    command.env("LD_LIBRARY_PATH", library_path(&root));
    Ok(command)
}

/// The program `name` (`grpcurl`, `buf`) of the Python environment.
///
/// # Errors
/// When `setup/install test` has not run.
pub fn python_program(name: &str) -> anyhow::Result<Command> {
    find(&format!("python/bin/{name}")).map(Command::new)
}

/// Where the unpacked programs find libvirt's client library: theirs, not the machine's.
#[must_use]
pub fn library_path(root: &Path) -> PathBuf {
    root.join("usr/lib/x86_64-linux-gnu")
}

fn find(relative: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(".tools").join(relative);
    ensure!(path.exists(), "{} is missing: run `setup/install test`", path.display());
    Ok(path)
}
