//! Stopping: one request, heard by every task; a drain waits for the tasks until a deadline.

use std::collections::BTreeMap;
use std::io::Read;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// The request to stop, and the tasks that a drain waits for. Clones share the same state.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    tracker: TaskTracker,
    tasks: Arc<Tasks>,
}

#[derive(Debug, Default)]
struct Tasks {
    next: AtomicU64,
    running: Mutex<BTreeMap<u64, String>>,
    panicked: Mutex<Option<String>>,
}

/// The deadline passed while tasks were still running.
#[derive(Debug, thiserror::Error)]
#[error("still running {}s after the request to stop: {}", deadline.as_secs_f64(), tasks.join(", "))]
pub struct DrainError {
    /// How long the drain waited.
    pub deadline: Duration,
    /// Names of the tasks.
    pub tasks: Vec<String>,
}

/// A part of the process panicked, so the whole was asked to stop.
#[derive(Debug, thiserror::Error)]
#[error("task {0} panicked; the log line before tells where")]
pub struct PanickedTask(pub String);

impl Stop {
    /// A stop that only [`Stop::request`] asks for.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A stop that SIGTERM and SIGINT ask for as well. A second signal ends the process at once.
    ///
    /// # Errors
    /// The signal handlers cannot be installed.
    pub fn on_signals() -> std::io::Result<Self> {
        let stop = Self::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let requested = stop.clone();
        #[expect(
            clippy::disallowed_methods,
            reason = "lives as long as the process; a drain must not wait for it"
        )]
        tokio::spawn(async move {
            loop {
                let name = tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                };
                if requested.is_requested() {
                    tracing::warn!(signal = name, "second request to stop, ending without a drain");
                    std::process::exit(1);
                }
                tracing::info!(signal = name, "stopping");
                requested.request();
            }
        });
        Ok(stop)
    }

    /// Asks to stop when stdin reaches its end. A parent that holds the other end of the pipe takes this process
    /// with it, even if it is killed.
    ///
    /// # Errors
    /// The watching thread cannot be started.
    pub fn when_stdin_ends(&self) -> std::io::Result<()> {
        let stop = self.clone();
        // A thread of its own: tokio would wait for the blocking read when its runtime ends.
        std::thread::Builder::new().name("supervisor".into()).spawn(move || {
            let mut ignored = [0; 256];
            let mut stdin = std::io::stdin().lock();
            while matches!(stdin.read(&mut ignored), Ok(1..)) {}
            tracing::info!("the supervising process is gone, stopping");
            stop.request();
        })?;
        Ok(())
    }

    /// Asks every task to stop.
    pub fn request(&self) {
        self.token.cancel();
    }

    /// Whether somebody has asked.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Waits until somebody asks.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// The token itself, for code that takes one.
    #[must_use]
    pub fn token(&self) -> &CancellationToken {
        &self.token
    }

    /// Runs `work` until it ends by itself or is asked to: it must listen to [`Stop::requested`]. A panic asks the
    /// whole process to stop, rather than leave it half alive.
    pub fn spawn(&self, name: &str, work: impl Future<Output = ()> + Send + 'static) {
        let (stop, name) = (self.clone(), name.to_owned());
        let id = self.tasks.next.fetch_add(1, Ordering::Relaxed);
        lock(&self.tasks.running).insert(id, name.clone());
        self.tracker.spawn(async move {
            if AssertUnwindSafe(work).catch_unwind().await.is_err() {
                tracing::error!(task = name, "task {name} panicked, stopping the process");
                lock(&stop.tasks.panicked).get_or_insert(name);
                stop.request();
            }
            lock(&stop.tasks.running).remove(&id);
        });
    }

    /// Asks to stop and waits for the tasks.
    ///
    /// # Errors
    /// Names the tasks that are still running at the deadline. They are left to the end of the runtime.
    pub async fn drain(&self, deadline: Duration) -> Result<(), DrainError> {
        self.request();
        self.tracker.close();
        if tokio::time::timeout(deadline, self.tracker.wait()).await.is_ok() {
            return Ok(());
        }
        Err(DrainError { deadline, tasks: lock(&self.tasks.running).values().cloned().collect() })
    }

    /// The first task that panicked, if one did.
    ///
    /// # Errors
    /// That task's name.
    pub fn check_panics(&self) -> Result<(), PanickedTask> {
        lock(&self.tasks.panicked).clone().map_or(Ok(()), |name| Err(PanickedTask(name)))
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn drain_waits_for_tasks_and_names_those_that_do_not_end() {
        let stop = Stop::new();
        let heard = stop.clone();
        stop.spawn("polite", async move { heard.requested().await });
        stop.spawn("deaf", std::future::pending());
        let error = stop.drain(Duration::from_millis(50)).await.unwrap_err();
        assert_eq!(error.to_string(), "still running 0.05s after the request to stop: deaf");
    }

    #[tokio::test]
    async fn a_panic_stops_everything() {
        let stop = Stop::new();
        stop.spawn("clumsy", async { panic!("dropped it") });
        stop.requested().await;
        stop.drain(Duration::from_secs(5)).await.unwrap();
        assert_eq!(stop.check_panics().unwrap_err().0, "clumsy");
    }
}
