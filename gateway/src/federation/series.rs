//! The series of hosts and machines as collectors export them, written from the live state: same names, same labels.
//!
//! As there, figures of a host that is stale are left out, and what is harvestable is 0.

use memharvest_proto::collector::v1::{GuestMemory, HostMemory};
use memharvest_proto::predictor::v1::{Host, HostState, Vm};
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::page_writer::MetricType;

use super::selected::Selected;
use crate::live::HostView;
use crate::rest::words::{Quality, Signal, VmState};
use crate::wire::time;

/// The times of samples: those of a replay lie where the wall clock was when they were taken.
pub(super) struct Times {
    clock: MeshClock,
    now_ms: i64,
}

impl Times {
    pub(super) fn new(clock: MeshClock) -> Self {
        Self { clock, now_ms: clock.wall_of(clock.now()).as_millisecond() }
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.now_ms
    }

    fn read_ms(&self, host: &Host) -> i64 {
        time(host.read_at.as_ref())
            .map_or(self.now_ms, |at| self.clock.wall_of(at).as_millisecond().min(self.now_ms))
    }
}

/// A metric with the series that a host has of it.
pub(super) struct Family {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: MetricType,
    what: What,
}

enum What {
    /// A figure of a host, left out while it is stale.
    OfHost(fn(&Host) -> Option<u64>),
    /// What a host yields.
    Promised(fn(&Host) -> Option<u64>),
    HostVms,
    Pressure,
    ReadAt,
    HostInfo,
    /// A figure of a machine, left out while its host is stale.
    OfVm(fn(&Vm) -> Option<u64>),
    /// What a machine yields.
    PromisedOfVm(fn(&Vm) -> Option<u64>),
    PredictedPeak,
    StatsAge,
    VmQuality,
    VmInfo,
}

const fn gauge(name: &'static str, help: &'static str, what: What) -> Family {
    Family { name, help, kind: MetricType::Gauge, what }
}

const fn counter(name: &'static str, help: &'static str, what: What) -> Family {
    Family { name, help, kind: MetricType::Counter, what }
}

fn memory(host: &Host) -> Option<&HostMemory> {
    host.memory.as_ref()
}

fn guest(vm: &Vm) -> Option<&GuestMemory> {
    vm.guest.as_ref()
}

/// Every metric of hosts and machines that the live state can tell.
pub(super) const FAMILIES: &[Family] = &[
    gauge(
        "memharvest_host_memory_total_bytes",
        "Physical memory of the host.",
        What::OfHost(|host| host.total_bytes),
    ),
    gauge(
        "memharvest_host_memory_available_bytes",
        "Memory that new work could get without swapping.",
        What::OfHost(|host| host.available_bytes),
    ),
    gauge(
        "memharvest_host_memory_committed_bytes",
        "Sum of what the guests hold.",
        What::OfHost(|host| host.allocated_bytes),
    ),
    gauge(
        "memharvest_host_memory_swap_used_bytes",
        "Swap of the host that is in use.",
        What::OfHost(|host| memory(host)?.swap_total_bytes?.checked_sub(memory(host)?.swap_free_bytes?)),
    ),
    gauge(
        "memharvest_host_memory_harvestable_bytes",
        "Memory not touched and not expected to be, of all machines.",
        What::Promised(|host| host.harvestable_bytes),
    ),
    gauge(
        "memharvest_host_memory_reclaimable_bytes",
        "Memory that balloons could add, of all machines.",
        What::Promised(|host| host.reclaimable_bytes),
    ),
    gauge(
        "memharvest_host_memory_pooled_harvestable_bytes",
        "What the forecast of the summed usage yields.",
        What::Promised(|host| host.pooled_harvestable_bytes),
    ),
    gauge(
        "memharvest_host_memory_leased_bytes",
        "Bytes under lease.",
        What::OfHost(|host| host.leased_bytes),
    ),
    gauge("memharvest_host_vms", "Machines of the host, by what they are doing.", What::HostVms),
    counter(
        "memharvest_host_memory_pressure_seconds_total",
        "Time in which some or all tasks of the host waited for memory.",
        What::Pressure,
    ),
    gauge(
        "memharvest_host_read_timestamp_seconds",
        "When the host was last sampled, in mesh time.",
        What::ReadAt,
    ),
    gauge("memharvest_host_info", "Name of the host; always 1.", What::HostInfo),
    gauge(
        "memharvest_vm_memory_allocated_bytes",
        "What the guest holds: the balloon's size.",
        What::OfVm(|vm| vm.allocated_bytes),
    ),
    gauge(
        "memharvest_vm_memory_maximum_bytes",
        "What the machine was defined with.",
        What::OfVm(|vm| vm.maximum_bytes),
    ),
    gauge(
        "memharvest_vm_memory_rss_bytes",
        "Resident set of the machine's process; may exceed the allocation.",
        What::OfVm(|vm| vm.rss_bytes),
    ),
    gauge(
        "memharvest_vm_memory_guest_total_bytes",
        "Memory that the guest's kernel manages.",
        What::OfVm(|vm| guest(vm)?.total_bytes),
    ),
    gauge(
        "memharvest_vm_memory_guest_free_bytes",
        "Memory of the guest that holds nothing.",
        What::OfVm(|vm| guest(vm)?.free_bytes),
    ),
    gauge(
        "memharvest_vm_memory_guest_available_bytes",
        "Memory that new work in the guest could get without swapping.",
        What::OfVm(|vm| guest(vm)?.available_bytes),
    ),
    gauge(
        "memharvest_vm_memory_disk_cache_bytes",
        "Page cache of the guest.",
        What::OfVm(|vm| guest(vm)?.disk_cache_bytes),
    ),
    counter(
        "memharvest_vm_swap_in_bytes_total",
        "Swapped in by the guest since its boot.",
        What::OfVm(|vm| guest(vm)?.swap_in_bytes),
    ),
    counter(
        "memharvest_vm_swap_out_bytes_total",
        "Swapped out by the guest since its boot.",
        What::OfVm(|vm| guest(vm)?.swap_out_bytes),
    ),
    counter(
        "memharvest_vm_major_faults_total",
        "Page faults of the guest that needed disk, since its boot.",
        What::OfVm(|vm| guest(vm)?.major_faults),
    ),
    counter(
        "memharvest_vm_minor_faults_total",
        "Page faults of the guest that needed no disk, since its boot.",
        What::OfVm(|vm| guest(vm)?.minor_faults),
    ),
    gauge(
        "memharvest_vm_stats_age_seconds",
        "Age of the guest's own figures; left out where the guest never reported.",
        What::StatsAge,
    ),
    gauge(
        "memharvest_vm_quality",
        "1 for the class of trust that the machine's figures are in; the other classes are left out.",
        What::VmQuality,
    ),
    gauge("memharvest_vm_info", "Name and state of the machine; always 1.", What::VmInfo),
    gauge(
        "memharvest_vm_predicted_peak_bytes",
        "Upper bound that is expected for the signal's peak over the horizon, before any guard.",
        What::PredictedPeak,
    ),
    gauge(
        "memharvest_vm_harvestable_bytes",
        "Memory not touched and not expected to be, after every guard; 0 once its forecast has run out.",
        What::PromisedOfVm(|vm| vm.harvestable_bytes),
    ),
    gauge(
        "memharvest_vm_reclaimable_bytes",
        "Memory that a balloon could add, after every guard; 0 once its forecast has run out.",
        What::PromisedOfVm(|vm| vm.reclaimable_bytes),
    ),
];

impl Family {
    /// Writes the series of one host. Figures lie at the time of the reading, what holds by the passing of time now.
    pub(super) fn write(&self, out: &mut Selected<'_>, view: &HostView, times: &Times) {
        let host = &view.host;
        let id = host.host_id.as_str();
        let fresh = host.state == i32::from(HostState::Live);
        let of_reading = !matches!(
            self.what,
            What::Promised(_) | What::PromisedOfVm(_) | What::VmQuality | What::VmInfo | What::HostInfo
        );
        let stands_still = matches!(self.what, What::Pressure | What::ReadAt);
        if of_reading && !fresh && !stands_still {
            return;
        }
        out.at(if of_reading && fresh { times.read_ms(host) } else { times.now_ms });
        match self.what {
            What::OfHost(figure) | What::Promised(figure) => {
                if let Some(bytes) = figure(host) {
                    out.sample(&[("host", id)], bytes);
                }
            }
            What::HostVms => {
                for state in STATES {
                    let count = view.vms.iter().filter(|vm| state_of(vm) == state).count();
                    out.sample(&[("host", id), ("state", state)], count);
                }
            }
            What::Pressure => {
                let Some(memory) = memory(host) else { return };
                for (kind, seconds) in
                    [("some", memory.pressure_some_seconds), ("full", memory.pressure_full_seconds)]
                {
                    if let Some(seconds) = seconds {
                        out.sample(&[("host", id), ("kind", kind)], seconds);
                    }
                }
            }
            What::ReadAt => {
                if let Some(at) = time(host.read_at.as_ref()) {
                    out.sample(&[("host", id)], at.as_duration().as_secs_f64());
                }
            }
            What::HostInfo => out.sample(&[("host", id), ("name", &host.name)], true),
            _ => view.vms.iter().for_each(|vm| self.write_vm(out, id, vm)),
        }
    }

    fn write_vm(&self, out: &mut Selected<'_>, host: &str, vm: &Vm) {
        let (host, id) = (("host", host), ("vm", vm.vm_id.as_str()));
        match self.what {
            What::OfVm(figure) | What::PromisedOfVm(figure) => {
                if let Some(value) = figure(vm) {
                    out.sample(&[host, id], value);
                }
            }
            What::PredictedPeak => {
                let signals =
                    [(Signal::Rss, vm.predicted_rss_bytes), (Signal::Demand, vm.predicted_demand_bytes)];
                for (signal, predicted) in signals {
                    if let Some(bytes) = predicted {
                        out.sample(&[host, id, ("signal", signal.as_str())], bytes);
                    }
                }
            }
            What::StatsAge => {
                if let Some(seconds) = vm.stats_age_seconds {
                    out.sample(&[host, id], seconds);
                }
            }
            What::VmQuality => {
                let class = Quality::of(vm.quality).unwrap_or(Quality::Unknown);
                out.sample(&[host, id, ("class", class.as_str())], true);
            }
            What::VmInfo => {
                out.sample(&[host, id, ("name", &vm.name), ("state", state_of(vm))], true);
            }
            _ => {}
        }
    }
}

/// Every word that a machine's state can have.
const STATES: [&str; 7] = ["unknown", "running", "paused", "shutdown", "crashed", "suspended", "migrating"];

fn state_of(vm: &Vm) -> &'static str {
    VmState::of(vm.state).map_or("unknown", VmState::as_str)
}
