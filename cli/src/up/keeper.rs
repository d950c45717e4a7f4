//! A process that outlives `up` by a moment, to clear up after one that was killed.
//!
//! It reads the ids of the children from a pipe whose other end `up` alone holds. When the pipe closes it waits until
//! all of them are gone, kills what does not go, and removes the state file and a temporary data directory. Children
//! are held by pidfd, so that an id that was given to another program is never touched.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::io::AsyncWriteExt;
use tokio::process::{Child, Command};

use super::state_file;

/// How long children may take to end by themselves after their parent has died.
const GRACE: Duration = Duration::from_secs(12);
const AFTER_KILL: Duration = Duration::from_secs(5);

/// Flags of the hidden verb.
#[derive(Debug, clap::Args)]
pub(crate) struct KeeperArgs {
    /// The data directory of the mesh
    #[arg(long)]
    data_dir: PathBuf,
    /// Remove it at the end
    #[arg(long)]
    remove: bool,
}

/// The keeper as `up` holds it.
#[derive(Debug)]
pub(crate) struct Keeper(Child);

impl Keeper {
    /// Starts it from this program's own executable.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(crate) fn start(program: &Path, data_dir: &Path, remove: bool) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.arg(VERB).arg("--data-dir").arg(data_dir);
        if remove {
            command.arg("--remove");
        }
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Ok(Self(command.spawn()?))
    }

    /// Its process id, while it runs.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.0.id()
    }

    /// Gives a child into its care.
    pub(crate) async fn watch(&mut self, pid: u32) {
        if let Some(pipe) = &mut self.0.stdin {
            // A keeper that somebody has killed keeps nothing; the mesh itself is none the worse.
            let _ = pipe.write_all(format!("{pid}\n").as_bytes()).await;
        }
    }

    /// Closes the pipe and waits for its end.
    pub(crate) async fn dismiss(mut self) {
        drop(self.0.stdin.take());
        let _ = tokio::time::timeout(AFTER_KILL, self.0.wait()).await;
    }
}

/// The hidden verb's name.
pub(crate) const VERB: &str = "up-keeper";

/// Waits for the end of `up` and clears up. Blocks: until the pipe closes there is nothing else to do.
///
/// # Errors
/// When standard input cannot be read or the folder cannot be removed.
pub(crate) fn run(args: &KeeperArgs) -> io::Result<()> {
    let mut children = Vec::new();
    for line in io::stdin().lines() {
        let pid = line?.trim().parse().ok().and_then(Pid::from_raw);
        // One that cannot be opened has ended already.
        children.extend(pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok()));
    }
    if !all_gone(&children, GRACE)? {
        for child in &children {
            let _ = pidfd_send_signal(child, Signal::KILL);
        }
        all_gone(&children, AFTER_KILL)?;
    }
    state_file::remove(&args.data_dir);
    if !args.remove {
        return Ok(());
    }
    match std::fs::remove_dir_all(&args.data_dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether all have ended before the time is up. A pidfd becomes readable when its process ends.
fn all_gone(children: &[OwnedFd], patience: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + patience;
    for child in children {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(io::Error::other)?;
        if poll(&mut [PollFd::new(child, PollFlags::IN)], Some(&left))? == 0 {
            return Ok(false);
        }
    }
    Ok(true)
}
