//! One child process: started, started again when it dies, ended when asked.
//!
//! Each child holds the reading end of a pipe as its standard input, and this process alone the writing end. However
//! this process ends, the pipe closes, and the child (started with `--supervised`) ends by itself.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// What is to run.
#[derive(Debug, Clone)]
pub(crate) struct ChildSpec {
    /// Which process of the mesh it is.
    pub(crate) process: &'static str,
    /// Its program.
    pub(crate) program: PathBuf,
    /// Its flags.
    pub(crate) args: Vec<OsString>,
    /// Where its standard output and error go.
    pub(crate) log: PathBuf,
}

/// What happened to a child.
#[derive(Debug)]
pub(crate) enum Event {
    /// It runs.
    Started {
        /// Which one.
        process: &'static str,
        /// Its process id.
        pid: u32,
    },
    /// It ended, or could not be started, although nobody asked for that.
    Ended {
        /// Which one.
        process: &'static str,
        /// How it ended, in words.
        how: String,
        /// Its exit code; absent: ended by a signal or not started.
        code: Option<i32>,
        /// How often in a row it ended soon after its start.
        streak: u32,
        /// When it is started again.
        retry_in: Duration,
        /// The last lines that it logged.
        last_words: String,
    },
}

/// How a child is asked to end.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ending {
    /// SIGTERM, and SIGKILL when the grace has passed.
    pub(crate) stop: CancellationToken,
    /// SIGKILL at once.
    pub(crate) kill: CancellationToken,
}

/// A child that ran this long is no longer in a crash loop.
const SETTLED: Duration = Duration::from_secs(10);
const FIRST_RETRY: Duration = Duration::from_millis(250);
const LAST_RETRY: Duration = Duration::from_secs(10);
const LAST_WORDS: usize = 3;
/// A log of this size is set aside at the next start.
const LOG_LIMIT_BYTES: u64 = 16 * 1024 * 1024;

/// How long to wait after the `streak`-th end in a row.
fn retry_in(streak: u32) -> Duration {
    FIRST_RETRY.saturating_mul(2_u32.saturating_pow(streak.saturating_sub(1))).min(LAST_RETRY)
}

/// Runs a child until it is asked to end; returns when it is gone.
pub(crate) async fn supervise(spec: ChildSpec, ending: Ending, grace: Duration, events: mpsc::Sender<Event>) {
    let mut streak = 0;
    while !ending.stop.is_cancelled() {
        let started = Instant::now();
        let log_start = log_size(&spec.log);
        let ended = match spawn(&spec) {
            Ok(mut child) => {
                // Waiting for a child would close its standard input, which tells it to end.
                let _lifeline = child.stdin.take();
                if let Some(pid) = child.id() {
                    let _ = events.send(Event::Started { process: spec.process, pid }).await;
                }
                tokio::select! {
                    ended = child.wait() => ended,
                    () = ending.stop.cancelled() => return end(child, &ending, grace).await,
                }
            }
            Err(error) => Err(error),
        };
        streak = if started.elapsed() >= SETTLED { 1 } else { streak + 1 };
        let how = in_words(&ended);
        let code = ended.ok().and_then(|status| status.code());
        // A process that was killed from outside has said nothing about it.
        let lines = if code.is_some() { LAST_WORDS } else { 0 };
        let event = Event::Ended {
            process: spec.process,
            how,
            code,
            streak,
            retry_in: retry_in(streak),
            last_words: last_lines(&spec.log, log_start, lines),
        };
        let _ = events.send(event).await;
        tokio::select! {
            () = tokio::time::sleep(retry_in(streak)) => {}
            () = ending.stop.cancelled() => return,
        }
    }
}

fn spawn(spec: &ChildSpec) -> io::Result<Child> {
    if log_size(&spec.log) > LOG_LIMIT_BYTES {
        std::fs::rename(&spec.log, spec.log.with_extension("log.1"))?;
    }
    let log = OpenOptions::new().create(true).append(true).open(&spec.log)?;
    let mut command = Command::new(&spec.program);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("MEMHARVEST_") {
            command.env_remove(name);
        }
    }
    command
        .args(&spec.args)
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        // A group of its own: Ctrl-C in the terminal reaches this process alone, which then ends all in order.
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

async fn end(mut child: Child, ending: &Ending, grace: Duration) {
    signal(&child, Signal::TERM);
    tokio::select! {
        _ = child.wait() => return,
        () = tokio::time::sleep(grace) => {}
        () = ending.kill.cancelled() => {}
    }
    signal(&child, Signal::KILL);
    let _ = child.wait().await;
}

fn signal(child: &Child, signal: Signal) {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(pid) = pid {
        // It can have ended by itself in between; that is what is wanted.
        let _ = kill_process(pid, signal);
    }
}

fn in_words(ended: &io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match ended {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => format!("ended with exit code {code}"),
            (None, Some(signal)) => format!("was ended by signal {signal}"),
            (None, None) => "ended".to_owned(),
        },
        Err(error) => format!("could not be started: {error}"),
    }
}

fn log_size(path: &Path) -> u64 {
    std::fs::metadata(path).map_or(0, |found| found.len())
}

/// The last lines of a file from an offset on, joined by newlines; empty when there are none.
fn last_lines(path: &Path, from: u64, count: usize) -> String {
    const TAIL_BYTES: u64 = 8 * 1024;
    let read = || -> io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let start = from.max(file.metadata()?.len().saturating_sub(TAIL_BYTES));
        file.seek(SeekFrom::Start(start))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read().unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_retry_is_quick_and_later_ones_back_off_to_a_limit() {
        assert_eq!(retry_in(1), Duration::from_millis(250));
        assert_eq!(retry_in(3), Duration::from_secs(1));
        assert_eq!(retry_in(40), LAST_RETRY);
    }

    #[test]
    fn last_words_are_those_of_this_start() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("a.log");
        std::fs::write(&log, "old\n").unwrap();
        let from = log_size(&log);
        std::fs::write(&log, "old\none\n\ntwo\nthree\nfour\n").unwrap();
        assert_eq!(last_lines(&log, from, 3), "two\nthree\nfour");
        assert_eq!(last_lines(&folder.path().join("absent"), 0, 3), "");
    }

    fn spec(folder: &Path, script: &str) -> ChildSpec {
        ChildSpec {
            process: "test",
            program: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            log: folder.join("test.log"),
        }
    }

    #[tokio::test]
    async fn a_child_that_dies_is_started_again_and_its_last_words_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut seen) = mpsc::channel(16);
        let ending = Ending::default();
        let spec = spec(folder.path(), "echo cannot open it >&2; exit 7");
        let child = supervise(spec, ending.clone(), Duration::from_secs(5), events);
        let watch = async {
            let mut ends = 0;
            while let Some(event) = seen.recv().await {
                if let Event::Ended { code, streak, last_words, .. } = event {
                    ends += 1;
                    assert_eq!((code, streak, last_words.as_str()), (Some(7), ends, "cannot open it"));
                    if ends == 2 {
                        ending.stop.cancel();
                        break;
                    }
                }
            }
        };
        tokio::join!(child, watch);
    }

    #[tokio::test]
    async fn a_child_that_does_not_heed_the_stop_is_killed_after_its_grace() {
        let folder = tempfile::tempdir().unwrap();
        let (events, mut seen) = mpsc::channel(16);
        let ending = Ending::default();
        let spec = spec(folder.path(), "trap '' TERM; echo ready; while :; do sleep 0.05; done");
        let log = spec.log.clone();
        let child = supervise(spec, ending.clone(), Duration::from_millis(100), events);
        let watch = async {
            assert!(matches!(seen.recv().await, Some(Event::Started { .. })));
            while log_size(&log) == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            ending.stop.cancel();
        };
        tokio::time::timeout(Duration::from_secs(10), async { tokio::join!(child, watch) }).await.unwrap();
    }
}
