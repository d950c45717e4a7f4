//! `up.json`: what runs where, for scripts and tests. It is there as long as the mesh is.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

const NAME: &str = "up.json";

/// A mesh that runs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// Process id of `memharvest up`.
    pub(crate) pid: u32,
    /// Process id of the one that clears up after it.
    pub(crate) keeper_pid: Option<u32>,
    /// What it is fed with: live, replay or simulation.
    pub(crate) source: String,
    /// When mesh time and wall time agree.
    pub(crate) clock_origin: Timestamp,
    /// Mesh seconds in a wall second.
    pub(crate) clock_factor: f64,
    /// The data directory.
    pub(crate) data_dir: PathBuf,
    /// Where people and scripts go.
    pub(crate) gateway_url: String,
    /// The processes by name.
    pub(crate) processes: BTreeMap<String, Process>,
}

/// One of the four processes.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its process id; absent: it is not running just now.
    pub(crate) pid: Option<u32>,
    /// How often it was started again.
    pub(crate) restarts: u32,
    /// Where it serves gRPC; the gateway everything.
    pub(crate) url: String,
    /// Where its probes and metrics are.
    pub(crate) admin_url: String,
    /// Where it logs.
    pub(crate) log: PathBuf,
}

impl State {
    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// When the folder cannot be written.
    pub(crate) fn write(&self) -> std::io::Result<()> {
        let path = self.data_dir.join(NAME);
        let draft = path.with_extension("json.new");
        let mut json = serde_json::to_string_pretty(self)?;
        json.push('\n');
        std::fs::write(&draft, json)?;
        std::fs::rename(draft, path)
    }
}

/// Removes the file; that it is gone already is fine.
pub(crate) fn remove(data_dir: &Path) {
    let _ = std::fs::remove_file(data_dir.join(NAME));
}

/// Waits while the processes of a mesh that was killed here are still ending, so that their ports are free again.
pub(crate) async fn wait_for_predecessor(data_dir: &Path) {
    const PATIENCE: Duration = Duration::from_secs(20);
    let path = data_dir.join(NAME);
    let started = Instant::now();
    while started.elapsed() < PATIENCE {
        let Ok(text) = std::fs::read_to_string(&path) else { return };
        let keeper = serde_json::from_str::<State>(&text).ok().and_then(|state| state.keeper_pid);
        if !keeper.is_some_and(is_keeper) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    remove(data_dir);
}

fn is_keeper(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).any(|part| part == super::keeper::VERB.as_bytes())
}
