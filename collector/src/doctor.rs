//! What keeps machines from being measured well, each with its cure.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use memharvest_proto::collector::v1::Finding;
use memharvest_services::proto_time::to_proto;
use uuid::Uuid;

use crate::hypervisor::SampleError;
use crate::reading::{Host, HostReading};

mod causes;

use causes::Cause;

/// What is wrong, and since when. Clones share the same state.
#[derive(Debug, Clone)]
pub struct Doctor {
    records: Arc<Mutex<BTreeMap<String, Record>>>,
    /// The host that a failing source speaks for.
    host: Host,
}

/// What is known of one host.
#[derive(Debug, Default)]
struct Record {
    unreachable: Option<Finding>,
    found: BTreeMap<(Option<Uuid>, &'static str), Finding>,
}

impl Doctor {
    /// A doctor for the host that this process stands on.
    #[must_use]
    pub fn new(host: Host) -> Self {
        Self { records: Arc::default(), host }
    }

    /// The host that this process stands on; without a name where readings speak of invented hosts.
    #[must_use]
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Takes in a reading: what it shows replaces what the last one showed.
    pub fn examine(&self, reading: &HostReading) {
        let mut records = self.lock();
        let record = records.entry(reading.host.id.clone()).or_default();
        let mut before = std::mem::take(&mut record.found);
        let mut note = |vm: Option<(Uuid, &str)>, cause: Cause| {
            let key = (vm.map(|(id, _)| id), cause.code);
            let since = before.remove(&key).and_then(|finding| finding.since);
            record
                .found
                .insert(key, finding(&reading.host, vm, cause, since.unwrap_or(to_proto(reading.read_at))));
        };
        for cause in causes::of_host(reading) {
            note(None, cause);
        }
        for vm in &reading.vms {
            for cause in causes::of_machine(vm, reading) {
                note(Some((vm.id, &vm.name)), cause);
            }
        }
    }

    /// Takes in how a sample ended.
    pub fn unreachable(&self, error: Option<&SampleError>, now: Timestamp) {
        // A trace that has ended is not ill.
        let error = error.filter(|error| !matches!(error, SampleError::Ended));
        let mut records = self.lock();
        match (error, records.get_mut(&self.host.id)) {
            (None, None) => {}
            (None, Some(record)) => record.unreachable = None,
            (Some(error), _) => {
                let record = records.entry(self.host.id.clone()).or_default();
                let since =
                    record.unreachable.take().and_then(|finding| finding.since).unwrap_or(to_proto(now));
                record.unreachable = Some(finding(&self.host, None, causes::of_failure(error), since));
            }
        }
    }

    /// Findings of a host, or of all hosts where `host_id` is empty, worst first.
    #[must_use]
    pub fn findings(&self, host_id: &str) -> Vec<Finding> {
        let records = self.lock();
        let chosen = records.iter().filter(|(id, _)| host_id.is_empty() || *id == host_id);
        let mut findings: Vec<Finding> = chosen
            .flat_map(|(_, record)| record.unreachable.iter().chain(record.found.values()))
            .cloned()
            .collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        findings
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Record>> {
        self.records.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Longest cause and cure, in bytes: what the registry takes. A libvirt that says more must not cost the host its heartbeat.
const MAX_WORDS: usize = 4096;

fn cut(mut words: String) -> String {
    words.truncate(words.floor_char_boundary(MAX_WORDS));
    words
}

fn finding(host: &Host, vm: Option<(Uuid, &str)>, cause: Cause, since: prost_types::Timestamp) -> Finding {
    Finding {
        host_id: host.id.clone(),
        vm_id: vm.map(|(id, _)| id.to_string()).unwrap_or_default(),
        vm_name: vm.map(|(_, name)| name.to_owned()).unwrap_or_default(),
        code: cause.code.to_owned(),
        severity: cause.severity.into(),
        cause: cut(cause.text),
        cure: cut(cause.cure),
        since: Some(since),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::reading::{Definition, GuestMemory, HostMemory, Monitor, Quality, VmReading, VmState};

    #[test]
    fn endless_words_are_cut_between_two_letters() {
        assert_eq!(cut("as it is".to_owned()), "as it is");
        assert_eq!(cut("ä".repeat(3000)).len(), 4096);
        assert_eq!(cut(format!("a{}", "ä".repeat(3000))).len(), 4095);
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn vm(change: impl FnOnce(&mut VmReading)) -> VmReading {
        let mut vm = VmReading {
            id: Uuid::from_u128(1),
            name: "web".into(),
            state: VmState::Running,
            quality: Quality::Live,
            allocated: Some(1),
            maximum: Some(1),
            rss: Some(1),
            swap: Some(0),
            guest: GuestMemory { last_update: Some(at(0)), ..GuestMemory::default() },
            definition: Some(Definition {
                balloon: true,
                stats_period: Some(Duration::from_secs(10)),
                free_page_reporting: true,
                ..Definition::default()
            }),
            generation: 1,
            monitor: Monitor::Answered,
        };
        change(&mut vm);
        vm
    }

    fn reading(second: i64, vms: Vec<VmReading>) -> HostReading {
        HostReading {
            host: Host { id: "h".into(), name: "h".into(), ..Host::default() },
            read_at: at(second),
            interval: Duration::from_secs(5),
            memory: HostMemory {
                total: Some(10),
                available: Some(5),
                swap_total: Some(0),
                swap_free: Some(0),
                swapped_in: Some(0),
                pressure: None,
            },
            vms,
            traceparent: String::new(),
        }
    }

    fn doctor() -> Doctor {
        Doctor::new(Host { id: "h".into(), ..Host::default() })
    }

    fn codes(vm: VmReading) -> Vec<String> {
        let doctor = doctor();
        doctor.examine(&reading(1, vec![vm]));
        doctor.findings("").into_iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn a_healthy_machine_has_no_finding() {
        assert!(codes(vm(|_| ())).is_empty());
    }

    #[test]
    fn every_cause_is_named() {
        let define = |change: fn(&mut Definition)| codes(vm(|vm| change(vm.definition.as_mut().unwrap())));
        assert_eq!(define(|d| d.stats_period = None), ["no_period"]);
        assert_eq!(define(|d| d.balloon = false), ["no_balloon"]);
        assert_eq!(define(|d| d.hugepages = true), ["hugepages"]);
        assert_eq!(define(|d| d.private_memory = true), ["private_memory"]);
        assert_eq!(define(|d| d.locked = true), ["pinned"]);
        assert_eq!(define(|d| d.free_page_reporting = false), ["no_free_page_reporting"]);
        assert_eq!(codes(vm(|vm| vm.guest.last_update = None)), ["no_driver"]);
        assert_eq!(codes(vm(|vm| vm.guest.last_update = Some(at(-40)))), ["stale_driver"]);
        assert_eq!(codes(vm(|vm| vm.monitor = Monitor::Silent)), ["stuck"]);
        assert_eq!(codes(vm(|vm| vm.definition = None)), ["no_definition"]);
    }

    #[test]
    fn the_cure_of_a_missing_period_is_a_command_that_can_be_pasted() {
        let cure = |name: &str| {
            let doctor = doctor();
            let vm = vm(|vm| {
                vm.name = name.to_owned();
                vm.definition.as_mut().unwrap().stats_period = None;
            });
            doctor.examine(&reading(1, vec![vm]));
            doctor.findings("h").remove(0).cure
        };
        assert_eq!(cure("web"), "virsh dommemstat web --period 10 --live --config");
        assert_eq!(cure("it's"), r"virsh dommemstat 'it'\''s' --period 10 --live --config");
    }

    #[test]
    fn a_finding_remembers_since_when_and_goes_when_it_is_mended() {
        let doctor = doctor();
        let ill = || vec![vm(|vm| vm.definition.as_mut().unwrap().stats_period = None)];
        doctor.examine(&reading(0, ill()));
        doctor.examine(&reading(5, ill()));
        let found = doctor.findings("h");
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].since, Some(to_proto(at(0))));
        assert!(doctor.findings("other").is_empty());
        doctor.examine(&reading(10, vec![vm(|_| ())]));
        assert!(doctor.findings("h").is_empty());
    }

    #[test]
    fn a_source_that_fails_comes_first_and_goes_when_it_answers() {
        let doctor = doctor();
        doctor.examine(&reading(0, vec![vm(|vm| vm.definition.as_mut().unwrap().stats_period = None)]));
        doctor.unreachable(Some(&SampleError::Unreachable("no socket".into())), at(5));
        let codes: Vec<_> = doctor.findings("").into_iter().map(|finding| finding.code).collect();
        assert_eq!(codes, ["libvirt_unreachable", "no_period"]);
        doctor.unreachable(None, at(10));
        assert_eq!(doctor.findings("").len(), 1);
    }
}
