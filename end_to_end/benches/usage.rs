//! What processes cost, as the kernel counts it.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use rustix::process::Pid;
use tokio::time::Instant;

/// How often threads are looked at: what a thread did after the last look before its end is not counted.
const LOOK: Duration = Duration::from_secs(1);

/// Processor time that each of the processes spends within `window`, to the nanosecond.
///
/// # Errors
/// When one of them ends, or the kernel keeps no scheduling statistics.
pub(crate) async fn spent_within(window: Duration, pids: &[Pid]) -> anyhow::Result<Vec<Duration>> {
    let mut meters = pids.iter().map(|&pid| Meter::start(pid)).collect::<anyhow::Result<Vec<_>>>()?;
    let end = Instant::now() + window;
    while Instant::now() < end {
        tokio::time::sleep_until(end.min(Instant::now() + LOOK)).await;
        for meter in &mut meters {
            meter.look()?;
        }
    }
    Ok(meters.iter().map(Meter::spent).collect())
}

/// Adds up the processor time of a process's threads, those that end meanwhile included.
struct Meter {
    pid: Pid,
    before: HashMap<String, u64>,
    now: HashMap<String, u64>,
}

impl Meter {
    fn start(pid: Pid) -> anyhow::Result<Self> {
        let before = threads(pid)?;
        Ok(Self { pid, now: before.clone(), before })
    }

    fn look(&mut self) -> anyhow::Result<()> {
        self.now.extend(threads(self.pid)?);
        Ok(())
    }

    fn spent(&self) -> Duration {
        let before = |thread| self.before.get(thread).copied().unwrap_or_default();
        Duration::from_nanos(self.now.iter().map(|(thread, nanos)| nanos - before(thread)).sum())
    }
}

/// Nanoseconds that each thread has run so far.
fn threads(pid: Pid) -> anyhow::Result<HashMap<String, u64>> {
    let folder = process(pid).join("task");
    let entries =
        std::fs::read_dir(&folder).with_context(|| format!("process {} has ended", pid.as_raw_nonzero()))?;
    let mut threads = HashMap::new();
    for entry in entries {
        let entry = entry?;
        // A thread may end between the two looks.
        let Ok(text) = std::fs::read_to_string(entry.path().join("schedstat")) else { continue };
        let nanos = text.split(' ').next().and_then(|nanos| nanos.parse().ok());
        threads.insert(entry.file_name().to_string_lossy().into_owned(), nanos.context("an odd schedstat")?);
    }
    anyhow::ensure!(!threads.is_empty(), "the kernel keeps no scheduling statistics (CONFIG_SCHED_INFO)");
    Ok(threads)
}

/// Bytes of memory that a process holds (`VmRSS`), or held at its peak (`VmHWM`).
///
/// # Errors
/// When it has ended.
pub(crate) fn memory(pid: Pid, field: &str) -> anyhow::Result<u64> {
    let status = std::fs::read_to_string(process(pid).join("status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kib.with_context(|| format!("no {field} of process {}", pid.as_raw_nonzero()))? * 1024)
}

/// Share of all processors that was busy within `window`, 0 to 1.
///
/// # Errors
/// When the kernel does not say.
pub(crate) async fn machine_busy(window: Duration) -> anyhow::Result<f64> {
    let before = machine_times()?;
    tokio::time::sleep(window).await;
    let after = machine_times()?;
    let spent: Vec<f64> = after.iter().zip(&before).map(|(after, before)| after - before).collect();
    // Idle and waiting for disks; what guests got is part of the user's time and not counted twice.
    let (idle, all) = (spent[3] + spent[4], spent[..8].iter().sum::<f64>());
    Ok((1.0 - idle / all).max(0.0))
}

fn machine_times() -> anyhow::Result<Vec<f64>> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu ")).context("an odd /proc/stat")?;
    let times = line.split_whitespace().map(str::parse).collect::<Result<Vec<_>, _>>()?;
    anyhow::ensure!(times.len() >= 8, "an odd /proc/stat");
    Ok(times)
}

fn process(pid: Pid) -> PathBuf {
    PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()))
}
