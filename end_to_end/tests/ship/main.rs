//! What ships besides programs, held against the programs: docker-compose.yml, the chart, units and settings of the packages, the docs.

#![expect(clippy::unwrap_used, reason = "a test fails loudly, in its helpers too")]

use std::path::{Path, PathBuf};
use std::process::Command;

use memharvest_end_to_end::mesh::binary;

mod chart;
mod compose;
mod documentation;
mod packages;

/// A file of the repository.
fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}

/// Has a service check these settings, and nothing else of this process's environment.
fn check(service: &str, env: &[(String, String)], args: &[&str]) {
    let mut command = Command::new(binary(&format!("memharvest-{service}")).unwrap());
    command.env_clear().envs(env.iter().cloned()).args(args).arg("--check");
    let output = command.output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{service} refuses {env:?} {args:?}: {told}");
}
