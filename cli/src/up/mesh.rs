//! The four processes together: started in order, watched, and ended in order.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::task::TaskTracker;

use super::Interrupts;
use super::data_dir::DataDir;
use super::error::UpError;
use super::keeper::Keeper;
use super::plan::Plan;
use super::ports::Endpoint;
use super::probe::ReadyProbe;
use super::screen::{Screen, reachable};
use super::source::Kind;
use super::state_file::{self, Process, State};
use super::supervisor::{ChildSpec, Ending, Event, supervise};

/// From where readings come to where they end up, so that nothing in flight is lost.
const STOPPING: [&str; 4] = ["collector", "predictor", "gateway", "registry"];
/// A process that is not ready by then is told, and the mesh goes on without waiting for it.
const READY_PATIENCE: Duration = Duration::from_secs(30);
const READY_POLL: Duration = Duration::from_millis(50);
/// So often in a row may a process end before it was ever ready.
const START_ATTEMPTS: u32 = 3;
/// From so many ends in a row on it is called a crash loop.
const CRASH_LOOP: u32 = 3;

/// The processes of a mesh.
#[derive(Debug)]
pub(super) struct Mesh {
    running: BTreeMap<&'static str, Running>,
    tasks: TaskTracker,
    events: mpsc::Receiver<Event>,
    report: mpsc::Sender<Event>,
    keeper: Keeper,
    state: State,
    drain: Duration,
    probe: ReadyProbe,
}

#[derive(Debug)]
struct Running {
    ending: Ending,
    task: JoinHandle<()>,
}

impl Mesh {
    /// Nothing runs yet but the keeper.
    pub(super) fn new(program: &Path, data: &DataDir, kind: Kind, drain: Duration) -> Result<Self, UpError> {
        let keeper = Keeper::start(program, data.path(), data.is_temporary()).map_err(UpError::Keeper)?;
        let (report, events) = mpsc::channel(64);
        let state = State {
            pid: std::process::id(),
            keeper_pid: keeper.pid(),
            source: kind.word().to_owned(),
            clock_origin: jiff::Timestamp::UNIX_EPOCH,
            clock_factor: 1.0,
            data_dir: data.path().to_owned(),
            gateway_url: String::new(),
            processes: BTreeMap::new(),
        };
        let tasks = TaskTracker::new();
        Ok(Self {
            running: BTreeMap::new(),
            tasks,
            events,
            report,
            keeper,
            state,
            drain,
            probe: ReadyProbe::new(),
        })
    }

    /// Starts one process after the other, each when the one before is ready. Ends early when told to stop.
    pub(super) async fn start(
        &mut self,
        plan: &Plan<'_>,
        interrupts: &Interrupts,
        screen: &mut Screen,
    ) -> Result<(), UpError> {
        self.state.clock_origin = plan.origin;
        self.state.clock_factor = plan.pace.factor;
        self.state.gateway_url = format!("http://{}", reachable(&plan.ports.gateway.listen));
        self.state.processes.clear();
        for (spec, (_, endpoint)) in plan.children().into_iter().zip(plan.ports.each()) {
            let process = spec.process;
            self.launch(spec, endpoint);
            self.await_ready(process, endpoint, interrupts, screen).await?;
        }
        Ok(())
    }

    fn launch(&mut self, spec: ChildSpec, endpoint: Endpoint) {
        let process = spec.process;
        let entry = Process {
            pid: None,
            restarts: 0,
            url: format!("http://{}", reachable(&endpoint.listen)),
            admin_url: format!("http://{}", endpoint.admin),
            log: spec.log.clone(),
        };
        self.state.processes.insert(process.to_owned(), entry);
        let ending = Ending::default();
        // The child's own drain and a moment for its exit.
        let grace = self.drain + Duration::from_secs(2);
        let task = self.tasks.spawn(supervise(spec, ending.clone(), grace, self.report.clone()));
        self.running.insert(process, Running { ending, task });
    }

    async fn await_ready(
        &mut self,
        process: &'static str,
        endpoint: Endpoint,
        interrupts: &Interrupts,
        screen: &mut Screen,
    ) -> Result<(), UpError> {
        let started = Instant::now();
        let probe = self.probe.clone();
        let mut poll = tokio::time::interval(READY_POLL);
        loop {
            tokio::select! {
                () = interrupts.stop.cancelled() => return Ok(()),
                Some(event) = self.events.recv() => {
                    if let Some(failure) = fatal(&event) {
                        return Err(failure);
                    }
                    if let Some(text) = self.note(event).await {
                        screen.say(&text);
                    }
                }
                _ = poll.tick() => match probe.ask(endpoint.admin).await {
                    Ok(()) => return Ok(()),
                    Err(waits_for) if started.elapsed() > READY_PATIENCE => {
                        let log = self.state.processes.get(process).map(|entry| entry.log.display().to_string());
                        let log = log.unwrap_or_default();
                        screen.say(&format!("{process} is not ready yet, it waits for: {waits_for}; see {log}"));
                        return Ok(());
                    }
                    Err(_) => {}
                },
            }
        }
    }

    /// What happens next to any of the processes.
    pub(super) async fn next_event(&mut self) -> Option<Event> {
        self.events.recv().await
    }

    /// Takes note of an event; gives what a person should know of it.
    pub(super) async fn note(&mut self, event: Event) -> Option<String> {
        let text = match event {
            Event::Started { process, pid } => {
                self.keeper.watch(pid).await;
                if let Some(entry) = self.state.processes.get_mut(process) {
                    entry.pid = Some(pid);
                }
                None
            }
            Event::Ended { process, how, streak, retry_in, last_words, .. } => {
                if let Some(entry) = self.state.processes.get_mut(process) {
                    entry.pid = None;
                    entry.restarts += 1;
                }
                let wait = retry_in.as_secs_f64();
                let mut text = format!("{process} {how}; starting it again in {wait} s");
                if streak >= CRASH_LOOP {
                    text = format!("{text}; it is in a crash loop, {streak} times in a row");
                }
                for line in last_words.lines() {
                    text = format!("{text}\n  {process}: {line}");
                }
                Some(text)
            }
        };
        if let Err(error) = self.state.write() {
            let told = format!("cannot write up.json in {}: {error}", self.state.data_dir.display());
            return Some(text.map_or_else(|| told.clone(), |text| format!("{text}\n{told}")));
        }
        text
    }

    /// Ends all processes in order, and at once when told a second time.
    pub(super) async fn stop(&mut self, interrupts: &Interrupts) {
        for process in STOPPING {
            let Some(mut running) = self.running.remove(process) else { continue };
            running.ending.stop.cancel();
            loop {
                tokio::select! {
                    _ = &mut running.task => break,
                    () = interrupts.kill.cancelled(), if !running.ending.kill.is_cancelled() => {
                        running.ending.kill.cancel();
                    }
                    // Nobody reads them any more, and a full channel would hold up the end.
                    _ = self.events.recv() => {}
                }
            }
        }
        while self.events.try_recv().is_ok() {}
    }

    /// Clears up: nothing is left but the data.
    pub(super) async fn dismiss(self) {
        state_file::remove(&self.state.data_dir);
        self.keeper.dismiss().await;
    }
}

/// Whether a process that ended at its start will never get further.
fn fatal(event: &Event) -> Option<UpError> {
    let Event::Ended { process, how, code, streak, last_words, .. } = event else { return None };
    let refused = matches!(code, Some(2 | 64));
    (refused || *streak >= START_ATTEMPTS).then(|| UpError::Child {
        process,
        how: how.clone(),
        code: *code,
        last_words: last_words.clone(),
    })
}
