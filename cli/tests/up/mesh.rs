//! A mesh that a test started, and ends with it.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

pub(crate) use rustix::process::Signal;

/// The program under test.
pub(crate) const MEMHARVEST: &str = env!("CARGO_BIN_EXE_memharvest");
const PATIENCE: Duration = Duration::from_secs(90);

/// A mesh and where its data are.
pub(crate) struct Mesh {
    child: Child,
    data: PathBuf,
    /// Removed with it.
    folder: Option<TempDir>,
}

impl Mesh {
    /// Starts one with a data directory of its own and waits until all of it is ready.
    pub(crate) async fn start(flags: &[&str]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut mesh = Self::start_with_data(flags, &folder.path().join("data")).await;
        mesh.folder = Some(folder);
        mesh
    }

    /// Starts one on a data directory.
    pub(crate) async fn start_with_data(flags: &[&str], data: &Path) -> Self {
        let child = command(Path::new(MEMHARVEST))
            .args(["up", "--ephemeral-ports", "--data-dir"])
            .arg(data)
            .args(flags)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let data = data.to_owned();
        Self { child, data, folder: None }.ready().await
    }

    /// Starts one that makes a data directory itself, below `temporary`.
    pub(crate) async fn start_in_temporary(flags: &[&str], temporary: &Path) -> Self {
        let child = command(Path::new(MEMHARVEST))
            .args(["up", "--ephemeral-ports"])
            .args(flags)
            .env("TMPDIR", temporary)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let mut data = None;
        eventually("a data directory", async || {
            data = std::fs::read_dir(temporary).unwrap().next().map(|entry| entry.unwrap().path());
            data.is_some()
        })
        .await;
        Self { child, data: data.unwrap(), folder: None }.ready().await
    }

    async fn ready(mut self) -> Self {
        let started = Instant::now();
        while !self.is_ready().await {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("`memharvest up` ended with {status}: {}", self.logs());
            }
            assert!(started.elapsed() < PATIENCE, "the mesh is not ready: {}", self.logs());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        self
    }

    async fn is_ready(&self) -> bool {
        let Ok(text) = std::fs::read_to_string(self.data.join("up.json")) else { return false };
        let state: Value = serde_json::from_str(&text).unwrap();
        // The state file of one that was killed here before names another.
        if state["pid"].as_u64() != Some(self.id().into()) {
            return false;
        }
        let processes = state["processes"].as_object().unwrap();
        for process in processes.values() {
            if !is_ready(process["admin_url"].as_str().unwrap()).await {
                return false;
            }
        }
        processes.len() == 4
    }

    /// Process id of `memharvest up`.
    pub(crate) fn id(&self) -> u32 {
        self.child.id().unwrap()
    }

    /// Its data directory.
    pub(crate) fn data(&self) -> &str {
        self.data.to_str().unwrap()
    }

    /// What `up.json` says.
    pub(crate) fn state(&self) -> Value {
        serde_json::from_str(&std::fs::read_to_string(self.data.join("up.json")).unwrap()).unwrap()
    }

    /// Every process that belongs to it.
    pub(crate) fn pids(&self) -> Vec<i64> {
        let state = self.state();
        let children = state["processes"].as_object().unwrap().values();
        let mut pids: Vec<i64> = children.filter_map(|process| process["pid"].as_i64()).collect();
        pids.extend([state["pid"].as_i64().unwrap(), state["keeper_pid"].as_i64().unwrap()]);
        pids
    }

    /// Sends a signal to `memharvest up` alone.
    pub(crate) fn signal(&self, signal: Signal) {
        self::signal(self.id().into(), signal);
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> ExitStatus {
        tokio::time::timeout(PATIENCE, self.child.wait()).await.expect("it ends").unwrap()
    }

    /// Runs a verb against it: exit code, standard output, standard error.
    pub(crate) async fn verb(&self, args: &[&str]) -> (i32, String, String) {
        let url = self.state()["gateway_url"].as_str().unwrap().to_owned();
        run(&[args, &["--url", &url]].concat()).await
    }

    /// What a verb says that succeeds.
    pub(crate) async fn text(&self, args: &[&str]) -> String {
        let (code, out, said) = self.verb(args).await;
        assert_eq!(code, 0, "{args:?}: {said}{}", self.logs());
        out
    }

    /// The JSON of a verb that succeeds.
    pub(crate) async fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[args, &["--json"]].concat()).await).unwrap()
    }

    fn logs(&self) -> String {
        let folder = std::fs::read_dir(self.data.join("logs")).into_iter().flatten().flatten();
        let texts = folder.map(|entry| {
            let text = std::fs::read_to_string(entry.path()).unwrap_or_default();
            format!("\n--- {}\n{text}", entry.path().display())
        });
        texts.collect::<Vec<_>>().concat()
    }
}

/// Runs the program: exit code, standard output, standard error.
pub(crate) async fn run(args: &[&str]) -> (i32, String, String) {
    let output = command(Path::new(MEMHARVEST)).args(args).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(PATIENCE, output).await.expect("it ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// A program without the settings of whoever runs the tests.
pub(crate) fn command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.env_remove("MEMHARVEST_URL").env_remove("MEMHARVEST_TOKEN");
    command
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !holds().await {
        assert!(started.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Whether a process is ready.
pub(crate) async fn is_ready(admin_url: &str) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(admin_url.trim_start_matches("http://")).await?;
        stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        io::Result::Ok(answer.starts_with("HTTP/1.1 200"))
    };
    tokio::time::timeout(Duration::from_secs(5), ask).await.is_ok_and(|answer| answer.unwrap_or(false))
}

/// Whether a process is no more; one that nobody has waited for yet is no more either.
pub(crate) fn is_gone(pid: i64) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = status.rsplit_once(") ").map_or("Z", |(_, rest)| rest);
    state.starts_with('Z')
}

/// Sends a signal to a process.
pub(crate) fn signal(pid: i64, signal: Signal) {
    kill_process(Pid::from_raw(pid.try_into().unwrap()).unwrap(), signal).unwrap();
}
