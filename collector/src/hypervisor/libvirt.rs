//! Readings from libvirt, read-only.
//!
//! A tick is one bulk call for all domains. The call may hang for as long as one QEMU does not answer its monitor,
//! so it runs on a worker thread with a deadline. A worker that overruns is left behind to finish whenever it can (it is
//! taken up again when it did), and a fresh one asks again: the hung call holds the stuck domain's job, so libvirt passes that domain over (`NOWAIT`)
//! and answers for all others at once. The number of workers left behind is bounded, below the number of requests
//! that a libvirtd serves at a time by default.
//!
//! A domain's XML is read when its process is new, and again from time to time: libvirt tells nobody when a
//! statistics period is set on a running guest.

mod bulk_stats;
mod domain_xml;
mod link;
mod qemu_process;
mod record;
mod track;
mod worker;

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use uuid::Uuid;

use self::link::{Link, LinkError};
use self::qemu_process::QemuProcesses;
use self::record::DomainRecord;
use self::track::Track;
use self::worker::{NoAnswer, Worker};
use super::{Hypervisor, SampleError, Tick};
use crate::host_memory::HostMemoryReader;
use crate::quality;
use crate::reading::{Host, HostMemory, HostReading, Monitor, VmReading};

/// Workers that may hang at a time. A default libvirtd runs 20 requests at once for all of its clients.
const MAX_HUNG: usize = 16;

/// Least and largest share of a tick's budget that one call may take before a fresh connection tries. In between it is
/// four times what calls took lately: several machines that get stuck at once are then found within one tick.
const PATIENCE: (f64, f64) = (0.1, 0.3);

/// The same share before any call came through: it opens the connection, and nobody knows yet what a call takes.
const FIRST_PATIENCE: f64 = 0.6;

/// Share of a tick's budget that all attempts together may take.
const ATTEMPTS: f64 = 0.95;

/// Definitions read in one call, so that a deadline can end between two calls.
const DEFINITIONS_A_CALL: usize = 50;

/// Readings of the host that a libvirt URI names.
#[derive(Debug)]
pub struct LibvirtHypervisor {
    uri: String,
    host: Host,
    boot: String,
    memory: Option<HostMemoryReader>,
    processes: Option<QemuProcesses>,
    worker: Option<Worker>,
    hung: Vec<Worker>,
    /// What a call takes when nothing hangs: the slowest of late.
    usual: Option<Duration>,
    tracks: HashMap<Uuid, Track>,
}

impl LibvirtHypervisor {
    /// A source for `uri` that reports as `host`, with the figures of the host from the tree at `proc`. Connects on
    /// the first sample.
    #[must_use]
    pub fn new(uri: &str, host: Host, proc: &Path) -> Self {
        // Without this libvirt prints every error by itself.
        virt::error::clear_error_callback();
        let local = is_local(uri);
        Self {
            uri: uri.to_owned(),
            host,
            boot: std::fs::read_to_string(proc.join("sys/kernel/random/boot_id")).unwrap_or_default(),
            memory: local.then(|| HostMemoryReader::new(proc)),
            processes: (local && uri.starts_with("qemu")).then(|| QemuProcesses::new(proc)),
            worker: None,
            hung: Vec::new(),
            usual: None,
            tracks: HashMap::new(),
        }
    }

    /// All active domains.
    fn domains(&mut self, budget: Duration) -> Result<Vec<DomainRecord>, SampleError> {
        let until = Instant::now() + budget.mul_f64(ATTEMPTS);
        let (least, most) = (budget.mul_f64(PATIENCE.0), budget.mul_f64(PATIENCE.1));
        let first = budget.mul_f64(FIRST_PATIENCE);
        let usual = self.usual.map_or(first, |usual| (usual * 4).clamp(least, most));
        loop {
            let worker = self.take_worker()?;
            let asked = Instant::now();
            let patience = usual.min(until.saturating_duration_since(asked));
            match worker.call(patience, Link::domains) {
                Ok(answer) => {
                    self.worker = Some(worker);
                    let took = asked.elapsed();
                    self.usual = Some(self.usual.map_or(took, |usual| took.max(usual.mul_f64(0.9))));
                    return Ok(answer?);
                }
                Err(NoAnswer::Died) => {
                    return Err(SampleError::Unreachable("the call to libvirt crashed".into()));
                }
                Err(NoAnswer::Overrun) => self.hung.push(worker),
            }
            if until.saturating_duration_since(Instant::now()) < least {
                return Err(SampleError::Overrun { hung: self.hung_calls() });
            }
        }
    }

    fn take_worker(&mut self) -> Result<Worker, SampleError> {
        let hung = self.hung_calls();
        if let Some(worker) = self.worker.take() {
            return Ok(worker);
        }
        if hung >= MAX_HUNG {
            return Err(SampleError::Overrun { hung });
        }
        Worker::start(self.uri.clone()).map_err(|error| SampleError::Unreachable(error.to_string()))
    }

    /// Brings the tracks in line with the domains that are there now.
    fn follow(&mut self, records: &[DomainRecord], tick: Tick) {
        let mut before = std::mem::take(&mut self.tracks);
        self.tracks = records
            .iter()
            .map(|record| {
                let track = before.remove(&record.uuid).filter(|track| track.domain_id == record.id);
                let mut track = track.unwrap_or_else(|| Track::new(record.id));
                track.observe(record, tick.at);
                (record.uuid, track)
            })
            .collect();
    }

    /// Reads definitions that are missing or old, until `until`.
    fn read_definitions(&mut self, tick: Tick, until: Instant) {
        let due = track::due_definitions(&self.tracks, tick);
        for uuids in due.chunks(DEFINITIONS_A_CALL) {
            let patience = until.saturating_duration_since(Instant::now());
            let Some(worker) = self.worker.take().filter(|_| !patience.is_zero()) else { return };
            let asked = uuids.to_vec();
            match worker.call(patience, move |link| link.definitions(&asked)) {
                Ok(definitions) => {
                    self.worker = Some(worker);
                    for (uuid, definition) in definitions {
                        if let Some(track) = self.tracks.get_mut(&uuid) {
                            track.define(definition, tick.at);
                        }
                    }
                }
                Err(NoAnswer::Overrun) => self.hung.push(worker),
                Err(NoAnswer::Died) => {}
            }
        }
    }

    fn machines(&mut self, records: Vec<DomainRecord>, memory: &HostMemory, tick: Tick) -> Vec<VmReading> {
        // A host that swaps nothing out has swapped out nothing of any machine.
        let swaps = memory.swap_used() != Some(0);
        let wanted = |track: &Track| swaps || track.monitor == Monitor::Silent;
        if let Some(processes) = &mut self.processes {
            let unknown = self.tracks.iter().any(|(uuid, track)| wanted(track) && !processes.knows(uuid));
            if unknown {
                processes.search(tick.at);
            }
            processes.forget_all_but(|uuid| self.tracks.contains_key(uuid));
        }
        records
            .into_iter()
            .filter_map(|record| {
                let track = self.tracks.get_mut(&record.uuid)?;
                let process = self.processes.as_ref().filter(|_| wanted(track));
                let process = process.and_then(|processes| processes.memory(&record.uuid));
                let rss = record.rss.or(process.and_then(|process| process.rss));
                let swap = if swaps { process.and_then(|process| process.swap) } else { Some(0) };
                if rss.is_some() {
                    track.rss_read_at = Some(tick.at);
                }
                let mut vm = VmReading {
                    id: record.uuid,
                    state: record.vm_state(),
                    quality: crate::reading::Quality::Unknown,
                    allocated: record.allocated,
                    maximum: record.maximum,
                    rss,
                    swap,
                    guest: record.guest,
                    definition: track.definition,
                    generation: track.generation(&self.boot, record.uuid),
                    monitor: track.monitor,
                    name: record.name,
                };
                vm.quality = quality::classify(&vm, track.rss_read_at, tick.interval, tick.at);
                Some(vm)
            })
            .collect()
    }
}

impl Hypervisor for LibvirtHypervisor {
    fn hung_calls(&mut self) -> usize {
        self.hung.retain(|worker| !worker.has_ended());
        if self.worker.is_none() {
            // One that was left behind and came through has its connection open. Where opening takes longer than a
            // call may, nothing would ever be read without it.
            let through = self.hung.iter().position(|worker| !worker.is_busy());
            self.worker = through.map(|at| self.hung.swap_remove(at));
        }
        self.hung.retain(Worker::is_busy);
        self.hung.len()
    }

    fn sample(&mut self, tick: Tick) -> Result<Vec<HostReading>, SampleError> {
        let began = Instant::now();
        let records = self.domains(tick.budget)?;
        self.follow(&records, tick);
        self.read_definitions(tick, began + tick.budget);
        let memory = self.memory.as_mut().map(HostMemoryReader::read).unwrap_or_default();
        let vms = self.machines(records, &memory, tick);
        Ok(vec![HostReading {
            host: self.host.clone(),
            read_at: tick.at,
            interval: tick.interval,
            memory,
            vms,
            traceparent: String::new(),
        }])
    }
}

impl From<LinkError> for SampleError {
    fn from(error: LinkError) -> Self {
        match error {
            LinkError::Unreachable(cause) => Self::Unreachable(cause),
            LinkError::Unusable(cause) => Self::Unusable(cause),
        }
    }
}

/// Whether a URI names the host that this process runs on: only then do its `/proc` figures belong to it.
fn is_local(uri: &str) -> bool {
    let Some((scheme, rest)) = uri.split_once("://") else { return true };
    let transport = scheme.split_once('+').map_or("unix", |(_, transport)| transport);
    transport == "unix" && rest.starts_with('/')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_with_another_host_is_not_local() {
        for uri in ["qemu:///system", "qemu+unix:///system?socket=/run/x", "test:///default"] {
            assert!(is_local(uri), "{uri}");
        }
        for uri in ["qemu+ssh://root@host/system", "qemu://host/system", "qemu+tcp:///system"] {
            assert!(!is_local(uri), "{uri}");
        }
    }
}
