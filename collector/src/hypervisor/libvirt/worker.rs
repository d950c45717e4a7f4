//! A thread that makes blocking calls on its own connection, so that whoever asks can stop waiting.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::link::Link;

type Job = Box<dyn FnOnce(&mut Link) + Send>;

/// Stack of a worker. libvirt's client needs little, and a hung worker keeps its stack.
const STACK_BYTES: usize = 512 * 1024;

/// A thread with a connection. When this is dropped, it finishes the call in hand, closes its connection and ends.
#[derive(Debug)]
pub(super) struct Worker {
    jobs: mpsc::Sender<Job>,
    /// Calls that it was given and has not ended.
    calls: Arc<AtomicUsize>,
    thread: JoinHandle<()>,
}

/// A call that gave no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoAnswer {
    /// It still runs.
    Overrun,
    /// The thread ended, which it only does by panicking inside a call.
    Died,
}

impl Worker {
    /// Starts a thread; its connection is opened by the first call.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(uri: String) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let calls = Arc::new(AtomicUsize::new(0));
        let running = Arc::clone(&calls);
        let thread =
            thread::Builder::new().name("libvirt".into()).stack_size(STACK_BYTES).spawn(move || {
                let mut link = Link::new(uri);
                while let Ok(job) = queue.recv() {
                    job(&mut link);
                    running.fetch_sub(1, Ordering::Release);
                }
            })?;
        Ok(Self { jobs, calls, thread })
    }

    /// Runs `call` on the thread and waits for at most `patience`.
    pub(super) fn call<T: Send + 'static>(
        &self,
        patience: Duration,
        call: impl FnOnce(&mut Link) -> T + Send + 'static,
    ) -> Result<T, NoAnswer> {
        let (answer, answered) = mpsc::sync_channel(1);
        let job: Job = Box::new(move |link| {
            // Nobody listens any more when the call came too late; its answer is then worth nothing.
            let _ = answer.send(call(link));
        });
        self.calls.fetch_add(1, Ordering::Release);
        self.jobs.send(job).map_err(|_| NoAnswer::Died)?;
        answered.recv_timeout(patience).map_err(|error| match error {
            mpsc::RecvTimeoutError::Timeout => NoAnswer::Overrun,
            mpsc::RecvTimeoutError::Disconnected => NoAnswer::Died,
        })
    }

    /// Whether a call still runs on the thread.
    pub(super) fn is_busy(&self) -> bool {
        self.calls.load(Ordering::Acquire) > 0 && !self.has_ended()
    }

    /// Whether the thread is gone.
    pub(super) fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }
}
