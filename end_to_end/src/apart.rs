//! The programs of a mesh started one by one, without `memharvest up`: each can be ended and started again at the same
//! addresses, and stay away for as long as a test wants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use memharvest_services::mesh_clock::MeshClock;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::mesh::binary;
use crate::wait::{free_port, wait_for};
use crate::web;

const READY: Duration = Duration::from_mins(1);

/// The programs, and what they have in common. Those that run end when this is dropped or the test's process ends.
pub struct Apart {
    folder: TempDir,
    clock: MeshClock,
    flags: Vec<String>,
    /// Where each process has a folder with its certificate; `None`: they speak plainly.
    certificates: Option<PathBuf>,
    places: BTreeMap<&'static str, Place>,
}

#[derive(Default)]
struct Place {
    port: u16,
    admin_port: u16,
    child: Option<Child>,
}

impl Apart {
    /// Programs on a mesh clock that runs `speed` times as fast as life. None is started yet.
    ///
    /// # Errors
    /// When there is no temporary folder or no free port.
    pub fn new(speed: f64) -> anyhow::Result<Self> {
        let origin = Timestamp::now();
        let flags = vec![format!("--clock-origin={origin}"), format!("--clock-factor={speed}")];
        let mut places = BTreeMap::new();
        for process in crate::mesh::PROCESSES {
            let place = Place { port: free_port()?, admin_port: free_port()?, child: None };
            places.insert(process, place);
        }
        let (folder, clock) = (tempfile::tempdir()?, MeshClock::new(origin, speed)?);
        Ok(Self { folder, clock, flags, certificates: None, places })
    }

    /// From now on processes show each other certificates: each has a folder of its name in this one, with `ca.crt`,
    /// `tls.crt` and `tls.key`.
    pub fn secure(&mut self, certificates: &Path) {
        self.certificates = Some(certificates.to_owned());
    }

    /// The flags with which a process of the mesh shows the certificate in this folder.
    #[must_use]
    pub fn mesh_flags(folder: &Path) -> [String; 3] {
        [("ca", "ca.crt"), ("cert", "tls.crt"), ("key", "tls.key")]
            .map(|(flag, file)| format!("--mesh-{flag}={}", folder.join(file).display()))
    }

    /// The clock that all of them run on.
    #[must_use]
    pub fn clock(&self) -> MeshClock {
        self.clock
    }

    /// Where the registry and the predictor keep what must last.
    #[must_use]
    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// Starts a process with these flags beside those that say where the others are, and waits until it is ready.
    ///
    /// # Errors
    /// When it does not get ready; what it logged is part of the message.
    pub async fn start(&mut self, process: &'static str, flags: &[&str]) -> anyhow::Result<()> {
        let log = self.folder.path().join(format!("{process}.log"));
        let file = std::fs::File::options().create(true).append(true).open(&log)?;
        let (registry, predictor) = (self.url("registry"), self.url("predictor"));
        let folder = self.folder.path().display();
        let others = match process {
            "registry" => vec![format!("--database={folder}/registry.db")],
            "predictor" => vec![format!("--data-dir={folder}"), format!("--registry={registry}")],
            _ => vec![format!("--predictor={predictor}"), format!("--registry={registry}")],
        };
        let shown = self.certificates.as_ref().map(|folder| Self::mesh_flags(&folder.join(process)));
        let place = self.places.get_mut(process).context("no such process")?;
        let child = Command::new(binary(&format!("memharvest-{process}"))?)
            .arg(format!("--listen=127.0.0.1:{}", place.port))
            .arg(format!("--admin-listen=127.0.0.1:{}", place.admin_port))
            // It ends when the pipe to its standard input closes, however this process ends.
            .arg("--supervised")
            .args(&self.flags)
            .args(others)
            .args(shown.iter().flatten())
            .args(flags)
            .stdin(Stdio::piped())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("cannot start the {process}"))?;
        ensure!(place.child.replace(child).is_none(), "the {process} runs already");
        let url = format!("{}/readyz", self.admin_url(process));
        wait_for(READY, &format!("the {process} to be ready"), || web::get(&url))
            .await
            .with_context(|| std::fs::read_to_string(&log).unwrap_or_default())?;
        Ok(())
    }

    /// What a process has logged so far.
    #[must_use]
    pub fn log(&self, process: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(format!("{process}.log"))).unwrap_or_default()
    }

    /// Kills a process with signal 9.
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill(&mut self, process: &str) -> anyhow::Result<()> {
        let place = self.places.get_mut(process).context("no such process")?;
        let mut child = place.child.take().with_context(|| format!("the {process} does not run"))?;
        child.kill()?;
        child.wait()?;
        Ok(())
    }

    /// Sends a signal to a process.
    ///
    /// # Errors
    /// When it does not run.
    pub fn signal(&self, process: &str, signal: Signal) -> anyhow::Result<()> {
        let child = self.places.get(process).and_then(|place| place.child.as_ref());
        let pid = child.and_then(|child| Pid::from_raw(i32::try_from(child.id()).ok()?));
        Ok(kill_process(pid.with_context(|| format!("the {process} does not run"))?, signal)?)
    }

    /// Where a process serves gRPC; the gateway everything.
    ///
    /// # Panics
    /// When there is no process of that name.
    #[must_use]
    pub fn url(&self, process: &str) -> String {
        // The gateway's public port is apart from the mesh.
        let scheme = if self.certificates.is_some() && process != "gateway" { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.places[process].port)
    }

    /// Where a process has its probes and metrics.
    ///
    /// # Panics
    /// When there is no process of that name.
    #[must_use]
    pub fn admin_url(&self, process: &str) -> String {
        format!("http://127.0.0.1:{}", self.places[process].admin_port)
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        for child in self.places.values_mut().filter_map(|place| place.child.as_mut()) {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
