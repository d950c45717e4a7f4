//! Why a mesh did not start.

use std::net::SocketAddr;
use std::path::PathBuf;

use memharvest_trace::TraceFileError;

use super::binaries::MissingBinaries;
use super::data_dir::DataDirError;
use super::ports::PortError;

/// Why a mesh did not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpError {
    /// Others could reach the gateway, and nobody said that this is wanted.
    #[error(
        "--listen {0} can be reached from other machines without TLS and authentication; \
         listen on 127.0.0.1, or pass --insecure if the network protects it"
    )]
    OpenListener(SocketAddr),
    /// This program's own path is not known.
    #[error("cannot tell where this program is installed: {0}")]
    OwnProgram(std::io::Error),
    /// Signals cannot be listened for.
    #[error("cannot listen for signals: {0}")]
    Signals(std::io::Error),
    /// Programs of the mesh are missing.
    #[error(transparent)]
    Binaries(#[from] MissingBinaries),
    /// The hypervisor that was asked for does not answer.
    #[error(
        "cannot use libvirt at {uri}: {cause}; check --libvirt-uri, that libvirtd runs, and that you may use it"
    )]
    Libvirt {
        /// Its URI.
        uri: String,
        /// Why.
        cause: String,
    },
    /// The trace is not one.
    #[error(transparent)]
    Trace(#[from] TraceFileError),
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// Addresses cannot be listened on.
    #[error(transparent)]
    Port(#[from] PortError),
    /// A file cannot be written.
    #[error("cannot write {}: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The process that clears up cannot be started.
    #[error("cannot start the process that clears up: {0}")]
    Keeper(std::io::Error),
    /// A process of the mesh does not start.
    #[error("memharvest-{process} {how} at its start{}", said(process, .last_words))]
    Child {
        /// Which one.
        process: &'static str,
        /// How it ended.
        how: String,
        /// Its exit code.
        code: Option<i32>,
        /// What it said last.
        last_words: String,
    },
}

/// The last line, which on a failure is the reason, behind the program's name.
fn said(process: &str, last_words: &str) -> String {
    let Some(line) = last_words.lines().last() else { return String::new() };
    let line = line.trim();
    let reason = line.strip_prefix(&format!("memharvest-{process}: ")).unwrap_or(line);
    format!(": {reason}")
}

impl UpError {
    /// 64 for settings that are refused, 1 for anything else.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::OpenListener(_)
            | Self::DataDir(DataDirError::OtherClock { .. } | DataDirError::NoHome)
            | Self::Child { code: Some(2 | 64), .. } => 64,
            _ => 1,
        }
    }
}
