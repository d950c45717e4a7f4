//! A real host for tests: a libvirtd of its own, with software-emulated QEMU guests.
//!
//! It shares nothing with a libvirtd that the machine may run: own configuration, sockets, state and logs in a
//! temporary folder. As root it is a system daemon, as an ordinary user a session daemon. Everything that it started
//! ends, and the folder goes, when the [`RealHost`] is dropped or the test's process ends in whatever way.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

pub use self::guest::{Guest, GuestBuilder};
pub use self::test_driver::test_driver_xml;
pub use self::virsh::Virsh;
use crate::tools;
use crate::wait::wait_for;

mod guest;
mod test_driver;
mod virsh;

/// The script that starts libvirtd and cleans up, a process of its own so that it outlives a test that is killed.
const KEEPER: &str = include_str!("real_host/keeper.sh");

/// How long libvirtd may take to answer after its start.
const DAEMON_DEADLINE: Duration = Duration::from_secs(20);

/// Only what a test asks for: no authentication on sockets in a private folder, and a log to look at. As distributions have it, everybody
/// may open the socket that reads, and none but a few the one that writes.
const LIBVIRTD_CONF: &str = r#"
auth_unix_ro = "none"
auth_unix_rw = "none"
unix_sock_ro_perms = "0777"
unix_sock_rw_perms = "0700"
log_level = 3
"#;

/// Keeps guests off what belongs to the machine: no security labels, device namespaces, control groups, huge pages
/// or log daemon.
const QEMU_CONF: &str = r#"
stdio_handler = "file"
security_driver = "none"
namespaces = []
cgroup_controllers = []
hugetlbfs_mount = []
dynamic_ownership = 0
remember_owner = 0
"#;

/// A private libvirtd and its guests.
#[derive(Debug)]
pub struct RealHost {
    folder: PathBuf,
    virsh: Virsh,
    keeper: Child,
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl RealHost {
    /// Starts libvirtd, without guests, and waits until it answers.
    ///
    /// # Errors
    /// When `setup/install test` has not run, or libvirtd does not start; its log is part of the message.
    pub async fn start() -> anyhow::Result<Self> {
        let tools = tools::host_root()?.canonicalize()?;
        let temporary = TempDir::with_prefix("memharvest-").context("no temporary folder")?;
        let folder = temporary.path().to_owned();
        std::fs::create_dir(folder.join("guests"))?;
        let log = format!("log_outputs = \"3:file:{}\"\n", folder.join("libvirtd.log").display());
        std::fs::write(folder.join("libvirtd.conf"), LIBVIRTD_CONF.to_owned() + &log)?;
        std::fs::write(folder.join("qemu.conf"), QEMU_CONF)?;

        let mut keeper = Command::new("bash")
            .args(["-c", KEEPER])
            .env("DIR", &folder)
            .env("HOST", tools)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Out of reach of what ends the test's whole process group.
            .process_group(0)
            .spawn()
            .context("bash does not start")?;
        // From here on the keeper removes the folder.
        let _ = temporary.keep();
        let commands = keeper.stdin.take();
        let answers = BufReader::new(keeper.stdout.take().context("the keeper has no standard output")?);
        let virsh = Virsh::new(connection_string(&folder, "libvirt-sock"))?;
        let mut host = Self { folder, virsh, keeper, commands, answers };
        host.start_daemon().await?;
        Ok(host)
    }

    /// The connection string for a collector: it reads.
    ///
    /// A session daemon has one socket only; on it a connection is read-only when it was opened so.
    #[must_use]
    pub fn uri(&self) -> String {
        let system = rustix::process::geteuid().is_root();
        connection_string(&self.folder, if system { "libvirt-sock-ro" } else { "libvirt-sock" })
    }

    /// The connection string that may change guests.
    #[must_use]
    pub fn admin_uri(&self) -> String {
        self.virsh.uri().to_owned()
    }

    /// The folder with configuration, sockets, state and logs; it goes when the host is dropped.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Begins the description of a guest; [`GuestBuilder::start`] starts it.
    #[must_use]
    pub fn guest(&self, name: &str) -> GuestBuilder {
        GuestBuilder::new(name, &self.folder, self.virsh.clone())
    }

    /// Runs virsh on this host, with the right to change it, and hands out what it printed.
    ///
    /// # Errors
    /// When virsh fails (its words are the message) or does not answer within 30 s.
    pub async fn virsh(&self, args: &[&str]) -> anyhow::Result<String> {
        self.virsh.run(args).await
    }

    /// Kills libvirtd with signal 9; the guests go on.
    ///
    /// # Errors
    /// When the keeper is gone.
    pub fn kill_daemon(&mut self) -> anyhow::Result<()> {
        let answer = self.command("kill")?;
        ensure!(answer == "killed", "libvirtd was not killed: {answer}");
        Ok(())
    }

    /// Starts libvirtd after [`Self::kill_daemon`] and waits until it answers; it finds its guests again.
    ///
    /// # Errors
    /// When it does not start; its log is part of the message.
    pub async fn start_daemon(&mut self) -> anyhow::Result<()> {
        let answer = self.command("start")?;
        ensure!(answer == "started", "libvirtd does not start:\n{}", self.daemon_log());
        wait_for(DAEMON_DEADLINE, "libvirtd to answer", || self.virsh.run(&["list"]))
            .await
            .with_context(|| self.daemon_log())?;
        Ok(())
    }

    /// Kills libvirtd with signal 9 and starts it anew, while the guests go on.
    ///
    /// # Errors
    /// As [`Self::start_daemon`].
    pub async fn restart_daemon(&mut self) -> anyhow::Result<()> {
        self.kill_daemon()?;
        self.start_daemon().await
    }

    fn command(&mut self, command: &str) -> anyhow::Result<String> {
        let commands = self.commands.as_mut().context("the keeper was sent away")?;
        writeln!(commands, "{command}").context("the keeper is gone")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("the keeper is gone")?;
        Ok(answer.trim_end().to_owned())
    }

    fn daemon_log(&self) -> String {
        ["daemon.out", "libvirtd.log"]
            .map(|file| std::fs::read_to_string(self.folder.join(file)).unwrap_or_default())
            .concat()
    }
}

impl Drop for RealHost {
    fn drop(&mut self) {
        self.commands = None;
        // The keeper ends once all is gone; a failure to wait has no cure here.
        let _ = self.keeper.wait();
    }
}

fn connection_string(folder: &Path, socket: &str) -> String {
    let scope = if rustix::process::geteuid().is_root() { "system" } else { "session" };
    format!("qemu+unix:///{scope}?socket={}", folder.join("run/libvirt").join(socket).display())
}
