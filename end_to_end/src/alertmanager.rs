//! A real Alertmanager, and a webhook that it tells.

use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::wait::{free_port, wait_for};
use crate::{tools, web};

const READY: Duration = Duration::from_secs(30);

/// Somebody who is told of alerts over HTTP, and keeps what he is told.
#[derive(Debug)]
pub struct Webhook {
    url: String,
    told: Arc<Mutex<Vec<Value>>>,
    _serving: JoinSet<()>,
}

impl Webhook {
    /// Listens on loopback.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn listen() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/", listener.local_addr()?);
        let told = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&told);
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let kept = Arc::clone(&kept);
                let keep = service_fn(move |request: hyper::Request<Incoming>| {
                    let kept = Arc::clone(&kept);
                    async move {
                        let body = request.into_body().collect().await?.to_bytes();
                        let message: Value = serde_json::from_slice(&body).unwrap_or_default();
                        kept.lock().unwrap_or_else(PoisonError::into_inner).push(message);
                        Ok::<_, hyper::Error>(hyper::Response::new(Full::<Bytes>::default()))
                    }
                });
                connections.spawn(http1::Builder::new().serve_connection(TokioIo::new(socket), keep));
            }
        });
        Ok(Self { url, told, _serving: serving })
    }

    /// Every alert that it was told of so far, in order.
    #[must_use]
    pub fn alerts(&self) -> Vec<Value> {
        let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.iter().filter_map(|message| message["alerts"].as_array()).flatten().cloned().collect()
    }
}

/// An Alertmanager on loopback that tells a webhook everything at once. It ends when it is dropped.
#[derive(Debug)]
pub struct Alertmanager {
    running: Child,
    folder: TempDir,
    /// Its `HOST:PORT`.
    pub address: String,
}

impl Alertmanager {
    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start; what it said is part of the message.
    pub async fn start(webhook: &Webhook) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let config = format!(
            "route: {{receiver: webhook, group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
             receivers: [{{name: webhook, webhook_configs: [{{url: '{}', send_resolved: true}}]}}]\n",
            webhook.url
        );
        std::fs::write(folder.path().join("alertmanager.yml"), config)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let running = tools::program("prometheus-alertmanager")?
            .arg(format!("--config.file={}", folder.path().join("alertmanager.yml").display()))
            .arg(format!("--storage.path={}", folder.path().join("data").display()))
            .arg("--cluster.listen-address=")
            .arg(format!("--web.listen-address={address}"))
            // Where it finds its templates: see setup/guest_tools.
            .current_dir(tools::host_root()?.join("alertmanager"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("said"))?)
            .spawn()
            .context("prometheus-alertmanager does not start")?;
        let manager = Self { running, folder, address };
        let ready = format!("http://{}/-/ready", manager.address);
        wait_for(READY, "the alertmanager to be ready", || web::get(&ready)).await.with_context(|| {
            let said = std::fs::read_to_string(manager.folder.path().join("said")).unwrap_or_default();
            format!("it said:\n{said}")
        })?;
        Ok(manager)
    }
}

impl Drop for Alertmanager {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}
