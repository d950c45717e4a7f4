//! What is shipped for Prometheus, Alertmanager and Grafana, against the real ones and the real mesh.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::path::{Path, PathBuf};
use std::time::Duration;

mod alerts;
mod dashboards;
mod federation;
mod rules;

const SOON: Duration = Duration::from_mins(1);

/// A file or folder of the repository.
fn shipped(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name(path)
}

/// A shipped file's text.
fn text_of(path: &str) -> String {
    std::fs::read_to_string(shipped(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}
