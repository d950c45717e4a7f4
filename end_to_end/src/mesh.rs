//! The mesh as a user starts it: `memharvest up` with the real binaries, on ports of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use http::Method;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::wait::wait_for;
use crate::web::{self, Answer};

/// The four processes, in the order in which a reading passes them.
pub const PROCESSES: [&str; 4] = ["collector", "predictor", "registry", "gateway"];

/// How long the mesh may take to be ready; debug builds on a busy machine are slow.
const READY: Duration = Duration::from_mins(1);

/// A program of the workspace, such as `memharvest-collector`.
///
/// # Errors
/// When it was not built.
pub fn binary(name: &str) -> anyhow::Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().and_then(Path::parent).context("a test lies in target/<profile>/deps")?;
    let path = folder.join(name);
    ensure!(path.exists(), "{} is missing: run `cargo build --workspace`", path.display());
    Ok(path)
}

/// A running mesh. It ends with all its processes when it is dropped.
pub struct Mesh {
    up: Child,
    folder: TempDir,
    args: Vec<String>,
}

impl Mesh {
    /// Starts `memharvest up --ephemeral-ports` with these arguments and waits until every process is ready.
    ///
    /// # Errors
    /// When it does not start; what it said is part of the message.
    pub async fn up(args: &[&str]) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let mesh = Self { up: Self::spawn(folder.path(), &args)?, folder, args };
        mesh.wait_until_ready().await?;
        Ok(mesh)
    }

    /// Starts `memharvest up` again on the same data, after it ended or was killed.
    ///
    /// # Errors
    /// As [`Self::up`].
    pub async fn up_again(&mut self) -> anyhow::Result<()> {
        self.up.wait()?;
        self.up = Self::spawn(self.folder.path(), &self.args)?;
        self.wait_until_ready().await
    }

    fn spawn(folder: &Path, args: &[String]) -> anyhow::Result<Child> {
        let said = std::fs::File::create(folder.join("said"))?;
        Command::new(binary("memharvest")?)
            .args(["up", "--ephemeral-ports", "--data-dir"])
            .arg(folder.join("data"))
            .args(args)
            .stdin(Stdio::null())
            .stdout(said.try_clone()?)
            .stderr(said)
            .spawn()
            .context("cannot start memharvest")
    }

    async fn wait_until_ready(&self) -> anyhow::Result<()> {
        wait_for(READY, "every process of the mesh to be ready", || async {
            for process in PROCESSES {
                web::get(&format!("{}/readyz", self.admin_url(process)?)).await?;
            }
            Ok(())
        })
        .await
        .with_context(|| format!("memharvest said:\n{}", self.said()))
    }

    /// What `memharvest up` has printed so far.
    #[must_use]
    pub fn said(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("said")).unwrap_or_default()
    }

    /// The folder of its data.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// What one of the processes has logged so far.
    #[must_use]
    pub fn log(&self, process: &str) -> String {
        std::fs::read_to_string(self.data_dir().join("logs").join(format!("{process}.log")))
            .unwrap_or_default()
    }

    /// `up.json`: what runs where.
    ///
    /// # Errors
    /// When it is not there yet.
    pub fn state(&self) -> anyhow::Result<Value> {
        let text = std::fs::read_to_string(self.data_dir().join("up.json")).context("no up.json yet")?;
        let state: Value = serde_json::from_str(&text)?;
        // One that was killed here leaves its file behind for a moment.
        ensure!(state["pid"] == self.up.id(), "up.json is not that of this mesh");
        Ok(state)
    }

    fn of_process(&self, process: &str, field: &str) -> anyhow::Result<Value> {
        let value = self.state()?["processes"][process][field].clone();
        ensure!(!value.is_null(), "up.json does not say the {field} of the {process}");
        Ok(value)
    }

    /// Where a process serves gRPC; the gateway everything.
    ///
    /// # Errors
    /// When it has not started yet.
    pub fn url(&self, process: &str) -> anyhow::Result<String> {
        Ok(self.of_process(process, "url")?.as_str().unwrap_or_default().to_owned())
    }

    /// Host and port of [`Self::url`].
    ///
    /// # Errors
    /// When it has not started yet.
    pub fn address(&self, process: &str) -> anyhow::Result<String> {
        Ok(self.url(process)?.trim_start_matches("http://").to_owned())
    }

    /// Where a process has its probes and metrics.
    ///
    /// # Errors
    /// When it has not started yet.
    pub fn admin_url(&self, process: &str) -> anyhow::Result<String> {
        Ok(self.of_process(process, "admin_url")?.as_str().unwrap_or_default().to_owned())
    }

    /// The process id of a process, or of `up`.
    ///
    /// # Errors
    /// When it is not running just now.
    pub fn pid(&self, process: &str) -> anyhow::Result<Pid> {
        let pid = match process {
            "up" => Some(i64::from(self.up.id())),
            process => self.of_process(process, "pid")?.as_i64(),
        };
        pid.and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)).context("no such process id")
    }

    /// Sends a signal to a process, or to `up`.
    ///
    /// # Errors
    /// When it is not running just now.
    pub fn signal(&self, process: &str, signal: Signal) -> anyhow::Result<()> {
        Ok(kill_process(self.pid(process)?, signal)?)
    }

    /// `GET` of a path of the REST interface, such as `/fleet`, that must be there.
    ///
    /// # Errors
    /// When nobody answers, with anything but 200, or with anything but JSON.
    pub async fn get(&self, path: &str) -> anyhow::Result<Value> {
        web::get(&format!("{}/api/v1{path}", self.url("gateway")?)).await?.json()
    }

    /// Any request to a path of the REST interface; a body is sent as JSON.
    ///
    /// # Errors
    /// When nobody answers.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> anyhow::Result<Answer> {
        let mut all = headers.to_vec();
        if !body.is_empty() {
            all.push(("content-type", "application/json"));
        }
        web::send(method, &format!("{}/api/v1{path}", self.url("gateway")?), &all, body).await
    }

    /// A machine by its name.
    ///
    /// # Errors
    /// When the fleet does not show it.
    pub async fn vm(&self, name: &str) -> anyhow::Result<Value> {
        let vms = self.get("/vms?page_size=1000").await?;
        let found = vms["vms"].as_array().into_iter().flatten().find(|vm| vm["name"] == name);
        found.cloned().with_context(|| format!("no machine {name} in {vms}"))
    }

    /// Waits until `up` has ended, and hands out its exit code.
    ///
    /// # Errors
    /// When it does not end within `deadline`.
    pub async fn wait_until_ended(&mut self, deadline: Duration) -> anyhow::Result<Option<i32>> {
        let up = std::cell::RefCell::new(&mut self.up);
        wait_for(deadline, "memharvest up to end", || async {
            Ok(up.borrow_mut().try_wait()?.context("it still runs")?.code())
        })
        .await
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        // Whatever happened, nothing may stay behind; the mesh itself sees to its children.
        let _ = self.up.kill();
        let _ = self.up.wait();
    }
}
