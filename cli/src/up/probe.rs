//! Questions that `up` asks: is a process ready, do virtual machines run here.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use http::Uri;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;
use tokio::process::Command;

const PATIENCE: Duration = Duration::from_secs(2);
const LIBVIRT_PATIENCE: Duration = Duration::from_secs(10);
const LARGEST_ANSWER_BYTES: usize = 64 * 1024;

/// Asks processes whether they are ready.
#[derive(Debug, Clone)]
pub(crate) struct ReadyProbe(Client<HttpConnector, Empty<Bytes>>);

#[derive(Deserialize)]
struct NotReady {
    waiting_for: Vec<String>,
}

impl ReadyProbe {
    /// A probe.
    pub(crate) fn new() -> Self {
        Self(Client::builder(TokioExecutor::new()).build_http())
    }

    /// Asks `/readyz` of an admin address.
    ///
    /// # Errors
    /// What the process still waits for, or that it does not answer.
    pub(crate) async fn ask(&self, admin: SocketAddr) -> Result<(), String> {
        let silent = || "an answer of its admin server".to_owned();
        let uri: Uri = format!("http://{admin}/readyz").parse().map_err(|_| silent())?;
        let exchange = async {
            let answer = self.0.get(uri).await.ok()?;
            let ready = answer.status().is_success();
            let body =
                Limited::new(answer.into_body(), LARGEST_ANSWER_BYTES).collect().await.ok()?.to_bytes();
            Some((ready, body))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(Some((true, _))) => Ok(()),
            Ok(Some((false, body))) => Err(serde_json::from_slice::<NotReady>(&body)
                .map_or_else(|_| "a good answer of /readyz".to_owned(), |said| said.waiting_for.join(", "))),
            Ok(None) | Err(_) => Err(silent()),
        }
    }
}

/// Counts the machines that run on a hypervisor. Asks the collector, the only program that speaks with libvirt.
///
/// # Errors
/// Why that cannot be said, in one line.
pub(crate) async fn running_machines(collector: &Path, uri: &str) -> Result<u64, String> {
    let mut command = Command::new(collector);
    command.arg("--probe-libvirt").arg(uri).arg("--log-filter=off").stdin(Stdio::null()).kill_on_drop(true);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MEMHARVEST_") {
            command.env_remove(name);
        }
    }
    let answer = tokio::time::timeout(LIBVIRT_PATIENCE, command.output()).await;
    let output = answer.map_err(|_| "it does not answer".to_owned())?.map_err(|error| error.to_string())?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last_words = stderr.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    if !output.status.success() {
        return Err(last_words.trim_start_matches("memharvest-collector: ").to_owned());
    }
    String::from_utf8_lossy(&output.stdout).trim().parse().map_err(|_| last_words.to_owned())
}
