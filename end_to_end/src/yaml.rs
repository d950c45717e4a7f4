//! YAML as JSON, read by the tools' Python.

use std::io::Write;
use std::process::Stdio;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::tools::python_program;

/// The documents of a YAML text; empty ones are left out.
///
/// # Errors
/// When it is no YAML, or `setup/install test` has not run.
pub fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    const PROGRAM: &str = "import json, sys, yaml\n\
        json.dump([part for part in yaml.safe_load_all(sys.stdin) if part], sys.stdout, default=str)";
    let mut python = python_program("python")?
        .args(["-c", PROGRAM])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    // It reads everything before it writes anything; dropping the pipe ends its input.
    python.stdin.take().context("no pipe")?.write_all(text.as_bytes())?;
    let output = python.wait_with_output()?;
    ensure!(output.status.success(), "no YAML: {}", String::from_utf8_lossy(&output.stderr));
    Ok(serde_json::from_slice(&output.stdout)?)
}
