//! virsh, bound to one libvirtd.

use std::time::Duration;

use anyhow::{Context, ensure};
use tokio::process::Command;

use crate::tools;

/// A guest that is stopped makes virsh wait for ever.
const DEADLINE: Duration = Duration::from_secs(30);

/// Runs virsh on one connection string.
#[derive(Debug, Clone)]
pub struct Virsh {
    uri: String,
}

impl Virsh {
    /// A virsh that connects to `uri`.
    ///
    /// # Errors
    /// When `setup/install test` has not run.
    pub fn new(uri: String) -> anyhow::Result<Self> {
        tools::program("virsh")?;
        Ok(Self { uri })
    }

    /// The connection string.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Runs virsh and hands out what it printed.
    ///
    /// # Errors
    /// When virsh fails (its words are the message) or does not answer within 30 s.
    pub async fn run(&self, args: &[&str]) -> anyhow::Result<String> {
        let mut command = Command::from(tools::program("virsh")?);
        command.args(["--quiet", "--connect", &self.uri]).args(args).env("LC_ALL", "C").kill_on_drop(true);
        let line = args.join(" ");
        let output = tokio::time::timeout(DEADLINE, command.output())
            .await
            .with_context(|| format!("virsh {line} did not answer within {DEADLINE:?}"))??;
        ensure!(
            output.status.success(),
            "virsh {line} failed: {}",
            String::from_utf8_lossy(&output.stderr).trim_end()
        );
        String::from_utf8(output.stdout).with_context(|| format!("virsh {line} printed something odd"))
    }
}
