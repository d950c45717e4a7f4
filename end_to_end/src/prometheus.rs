//! A real Prometheus, and its checker of metric pages.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde_json::Value;
use tempfile::TempDir;

use crate::wait::{free_port, wait_for};
use crate::{tools, web};

const READY: Duration = Duration::from_secs(30);

/// Text as a part of a URL's query.
#[must_use]
pub fn escaped(text: &str) -> String {
    text.bytes()
        .map(
            |byte| {
                if byte.is_ascii_alphanumeric() {
                    char::from(byte).to_string()
                } else {
                    format!("%{byte:02X}")
                }
            },
        )
        .collect()
}

/// `promtool check metrics` on a page: what it has to say about it, nothing when it is clean.
///
/// # Errors
/// When promtool does not run.
pub fn lint(page: &str) -> anyhow::Result<String> {
    let mut promtool = tools::program("promtool")?;
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = promtool.spawn()?;
    // Taken, so that it is closed behind the page.
    running.stdin.take().context("promtool has no standard input")?.write_all(page.as_bytes())?;
    let output = running.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Ok(if said.is_empty() && !output.status.success() { output.status.to_string() } else { said })
}

/// `promtool` with these arguments in a folder of the repository.
///
/// # Errors
/// When it is not content; its words are the message.
pub fn promtool(folder: &Path, args: &[&str]) -> anyhow::Result<()> {
    let output = tools::program("promtool")?.args(args).current_dir(folder).output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "promtool {args:?}: {}", String::from_utf8_lossy(&said));
    Ok(())
}

/// A Prometheus that scrapes every second, on loopback and with a folder of its own. It ends when it is dropped.
#[derive(Debug)]
pub struct Prometheus {
    running: Child,
    folder: TempDir,
    url: String,
}

impl Prometheus {
    /// Starts it with these `scrape_configs` (YAML) and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start; what it said is part of the message.
    pub async fn start(scrape_configs: &str) -> anyhow::Result<Self> {
        Self::with_rules(scrape_configs, &[], None).await
    }

    /// The same, with rules (each the content of a file) that are evaluated every second, and an Alertmanager at this
    /// `HOST:PORT` that is told of alerts.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn with_rules(
        scrape_configs: &str,
        rules: &[String],
        alertmanager: Option<&str>,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for (number, rules) in rules.iter().enumerate() {
            std::fs::write(folder.path().join(format!("{number}.rules.yml")), rules)?;
        }
        let told = alertmanager.map_or(String::new(), |address| {
            format!("alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{address}']}}]}}]}}\n")
        });
        Self::start_in(folder, &told, scrape_configs).await
    }

    /// Starts it with these samples (in the `openmetrics` format, of whatever age) instead of anything to scrape.
    ///
    /// # Errors
    /// When promtool refuses the samples, or it does not start.
    pub async fn with_samples(open_metrics: &str) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        std::fs::write(folder.path().join("samples"), open_metrics)?;
        let mut promtool = tools::program("promtool")?;
        let blocks = ["tsdb", "create-blocks-from", "openmetrics", "samples", "data"];
        let output = promtool.args(blocks).current_dir(folder.path()).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "promtool takes no samples: {said}");
        Self::start_in(folder, "", "  []\n").await
    }

    async fn start_in(folder: TempDir, told: &str, scrape_configs: &str) -> anyhow::Result<Self> {
        let config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: ['*.rules.yml']\n{told}scrape_configs:\n{scrape_configs}"
        );
        std::fs::write(folder.path().join("prometheus.yml"), config)?;
        let address = format!("127.0.0.1:{}", free_port()?);
        let running = tools::program("prometheus")?
            .arg("--config.file=prometheus.yml")
            .arg("--storage.tsdb.path=data")
            .arg("--storage.tsdb.retention.time=100y")
            .arg(format!("--web.listen-address={address}"))
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("said"))?)
            .spawn()
            .context("prometheus does not start")?;
        let prometheus = Self { running, folder, url: format!("http://{address}") };
        let ready = format!("{}/-/ready", prometheus.url);
        wait_for(READY, "prometheus to be ready", || web::get(&ready))
            .await
            .with_context(|| format!("prometheus said:\n{}", prometheus.said()))?;
        Ok(prometheus)
    }

    /// What it has said so far.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    /// An instant query: the series that it gives.
    ///
    /// # Errors
    /// When the query is refused.
    pub async fn query(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let answer =
            web::get(&format!("{}/api/v1/query?query={}", self.url, escaped(query))).await?.json()?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        answer["data"]["result"]
            .as_array()
            .cloned()
            .with_context(|| format!("{query} gives no series: {answer}"))
    }

    /// Where it answers, such as `http://127.0.0.1:9090`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The targets that it scrapes, dropped ones left out.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn targets(&self) -> anyhow::Result<Vec<Value>> {
        let answer = web::get(&format!("{}/api/v1/targets?state=active", self.url)).await?.json()?;
        answer["data"]["activeTargets"].as_array().cloned().with_context(|| format!("no targets in {answer}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}
