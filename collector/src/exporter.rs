//! The series of hosts and machines, written straight from state at every scrape.
//!
//! Figures of a reading that is stale are left out: a number that stands still would look like a quiet machine. What is
//! harvestable is 0 once the forecast it rests on has run out.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use memharvest_proto::predictor::v1::{Host, Vm};
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::page_writer::{MetricType, PageWriter, Value};

use crate::forecasts::{Forecasts, HostForecast, is_valid};
use crate::latest::Latest;
use crate::quality;
use crate::reading::{HostReading, Quality, VmReading, VmState};

/// Writes the series of all hosts of a collector.
#[derive(Debug, Clone)]
pub struct Exporter {
    /// Readings.
    pub latest: Latest,
    /// Forecasts.
    pub forecasts: Forecasts,
    /// The clock of both.
    pub clock: MeshClock,
}

/// A host as a scrape sees it.
struct View {
    reading: Arc<HostReading>,
    forecast: Option<Arc<HostForecast>>,
    now: Timestamp,
    fresh: bool,
    vms: Vec<VmLabels>,
}

/// The labels of a machine's series, made once a scrape.
struct VmLabels(String);

type VmFigure = (&'static str, &'static str, fn(&VmReading) -> Option<u64>);
type HostFigure = (&'static str, &'static str, fn(&View) -> Option<u64>);

const VM_FIGURES: [VmFigure; 7] = [
    ("memharvest_vm_memory_allocated_bytes", "What the guest holds: the balloon's size.", |vm| vm.allocated),
    ("memharvest_vm_memory_maximum_bytes", "What the machine was defined with.", |vm| vm.maximum),
    (
        "memharvest_vm_memory_rss_bytes",
        "Resident set of the machine's process; may exceed the allocation.",
        |vm| vm.rss,
    ),
    ("memharvest_vm_memory_guest_total_bytes", "Memory that the guest's kernel manages.", |vm| {
        vm.guest.total
    }),
    ("memharvest_vm_memory_guest_free_bytes", "Memory of the guest that holds nothing.", |vm| vm.guest.free),
    (
        "memharvest_vm_memory_guest_available_bytes",
        "Memory that new work in the guest could get without swapping.",
        |vm| vm.guest.available,
    ),
    ("memharvest_vm_memory_disk_cache_bytes", "Page cache of the guest.", |vm| vm.guest.disk_cache),
];

const VM_COUNTERS: [VmFigure; 4] = [
    ("memharvest_vm_swap_in_bytes_total", "Swapped in by the guest since its boot.", |vm| vm.guest.swap_in),
    ("memharvest_vm_swap_out_bytes_total", "Swapped out by the guest since its boot.", |vm| {
        vm.guest.swap_out
    }),
    (
        "memharvest_vm_major_faults_total",
        "Page faults of the guest that needed disk, since its boot.",
        |vm| vm.guest.major_faults,
    ),
    (
        "memharvest_vm_minor_faults_total",
        "Page faults of the guest that needed no disk, since its boot.",
        |vm| vm.guest.minor_faults,
    ),
];

const HOST_FIGURES: [HostFigure; 8] = [
    ("memharvest_host_memory_total_bytes", "Physical memory of the host.", |view| view.reading.memory.total),
    ("memharvest_host_memory_available_bytes", "Memory that new work could get without swapping.", |view| {
        view.reading.memory.available
    }),
    ("memharvest_host_memory_committed_bytes", "Sum of what the guests hold.", View::committed),
    ("memharvest_host_memory_swap_used_bytes", "Swap of the host that is in use.", |view| {
        view.reading.memory.swap_used()
    }),
    (
        "memharvest_host_memory_harvestable_bytes",
        "Memory not touched and not expected to be, of all machines.",
        |view| view.promised(|host| host.harvestable_bytes),
    ),
    (
        "memharvest_host_memory_reclaimable_bytes",
        "Memory that balloons could add, of all machines.",
        |view| view.promised(|host| host.reclaimable_bytes),
    ),
    (
        "memharvest_host_memory_pooled_harvestable_bytes",
        "What the forecast of the summed usage yields.",
        |view| view.promised(|host| host.pooled_harvestable_bytes),
    ),
    ("memharvest_host_memory_leased_bytes", "Bytes under lease.", |view| {
        view.forecast.as_ref()?.host.leased_bytes
    }),
];

impl Exporter {
    /// Writes all series. A figure that is not known is left out.
    pub fn write(&self, page: &mut PageWriter) {
        let now = self.clock.now();
        let view = |reading: Arc<HostReading>| View::new(self.forecasts.get(&reading.host.id), reading, now);
        let views: Vec<View> = self.latest.all().into_iter().map(view).collect();
        hosts(&views, page);
        machines(&views, page);
        forecasts(&views, page);
    }
}

impl View {
    fn new(forecast: Option<Arc<HostForecast>>, reading: Arc<HostReading>, now: Timestamp) -> Self {
        let fresh = quality::aged(Quality::Live, reading.read_at, reading.interval, now) == Quality::Live;
        let vms = reading.vms.iter().map(|vm| VmLabels(vm.id.to_string())).collect();
        Self { reading, forecast, now, fresh, vms }
    }

    fn id(&self) -> &str {
        &self.reading.host.id
    }

    fn machines(&self) -> impl Iterator<Item = (&str, &VmReading)> {
        self.vms.iter().map(|labels| labels.0.as_str()).zip(&self.reading.vms)
    }

    fn committed(&self) -> Option<u64> {
        // A sum that leaves out a machine would promise memory that it holds.
        self.reading.vms.iter().map(|vm| vm.allocated).sum()
    }

    fn promised(&self, figure: impl Fn(&Host) -> Option<u64>) -> Option<u64> {
        let host = &self.forecast.as_ref()?.host;
        figure(host).map(|bytes| if is_valid(host.valid_until.as_ref(), self.now) { bytes } else { 0 })
    }

    fn vm_forecast(&self, vm: &VmReading) -> Option<&Vm> {
        self.forecast.as_ref()?.vm(&vm.id)
    }
}

fn hosts(views: &[View], page: &mut PageWriter) {
    for (name, help, figure) in HOST_FIGURES {
        page.header(name, help, MetricType::Gauge);
        for view in views.iter().filter(|view| view.fresh) {
            if let Some(bytes) = figure(view) {
                page.sample(&[("host", view.id())], bytes);
            }
        }
    }
    page.header("memharvest_host_vms", "Machines of the host, by what they are doing.", MetricType::Gauge);
    for view in views.iter().filter(|view| view.fresh) {
        for state in VmState::ALL {
            let count = view.reading.vms.iter().filter(|vm| vm.state == state).count();
            page.sample(&[("host", view.id()), ("state", state.word())], count);
        }
    }
    page.header(
        "memharvest_host_memory_pressure_seconds_total",
        "Time in which some or all tasks of the host waited for memory.",
        MetricType::Counter,
    );
    for view in views {
        if let Some(pressure) = view.reading.memory.pressure {
            page.sample(&[("host", view.id()), ("kind", "some")], pressure.some.total_seconds);
            page.sample(&[("host", view.id()), ("kind", "full")], pressure.full.total_seconds);
        }
    }
    page.header(
        "memharvest_host_read_timestamp_seconds",
        "When the host was last sampled, in mesh time: the collector samples on its own timer.",
        MetricType::Gauge,
    );
    for view in views {
        page.sample(&[("host", view.id())], seconds_of(view.reading.read_at));
    }
    page.header("memharvest_host_info", "Name of the host; always 1.", MetricType::Gauge);
    for view in views {
        page.sample(&[("host", view.id()), ("name", &view.reading.host.name)], true);
    }
}

fn machines(views: &[View], page: &mut PageWriter) {
    let mut write = |figures: &[VmFigure], kind| {
        for (name, help, figure) in figures {
            page.header(name, help, kind);
            for view in views.iter().filter(|view| view.fresh) {
                for (id, vm) in view.machines() {
                    if let Some(value) = figure(vm) {
                        page.sample(&[("host", view.id()), ("vm", id)], value);
                    }
                }
            }
        }
    };
    write(&VM_FIGURES, MetricType::Gauge);
    write(&VM_COUNTERS, MetricType::Counter);
    page.header(
        "memharvest_vm_stats_age_seconds",
        "Age of the guest's own figures now; left out where the guest never reported.",
        MetricType::Gauge,
    );
    each(views, page, |view, vm| vm.stats_age(view.now).map(|age| Value::Float(age.as_secs_f64())));
    page.header(
        "memharvest_vm_quality",
        "1 for the class of trust that the machine's figures are in; the other classes are left out.",
        MetricType::Gauge,
    );
    for view in views {
        for (id, vm) in view.machines() {
            let class = quality::aged(vm.quality, view.reading.read_at, view.reading.interval, view.now);
            page.sample(&[("host", view.id()), ("vm", id), ("class", class.word())], true);
        }
    }
    page.header("memharvest_vm_info", "Name and state of the machine; always 1.", MetricType::Gauge);
    for view in views {
        for (id, vm) in view.machines() {
            let labels = [("host", view.id()), ("vm", id), ("name", &vm.name), ("state", vm.state.word())];
            page.sample(&labels, true);
        }
    }
}

fn forecasts(views: &[View], page: &mut PageWriter) {
    page.header(
        "memharvest_vm_predicted_peak_bytes",
        "Upper bound that is expected for the signal's peak over the horizon, before any guard.",
        MetricType::Gauge,
    );
    for view in views {
        for (id, vm) in view.machines() {
            let Some(forecast) = view.vm_forecast(vm) else { continue };
            if !is_valid(forecast.valid_until.as_ref(), view.now) {
                continue;
            }
            let signals =
                [("rss", forecast.predicted_rss_bytes), ("demand", forecast.predicted_demand_bytes)];
            for (signal, predicted) in signals {
                if let Some(bytes) = predicted {
                    page.sample(&[("host", view.id()), ("vm", id), ("signal", signal)], bytes);
                }
            }
        }
    }
    let promised = |figure: fn(&Vm) -> Option<u64>| {
        move |view: &View, vm: &VmReading| {
            let forecast = view.vm_forecast(vm)?;
            let valid = is_valid(forecast.valid_until.as_ref(), view.now);
            figure(forecast).map(|bytes| Value::Whole(if valid { bytes } else { 0 }))
        }
    };
    page.header(
        "memharvest_vm_harvestable_bytes",
        "Memory not touched and not expected to be, after every guard; 0 once its forecast has run out.",
        MetricType::Gauge,
    );
    each(views, page, promised(|vm| vm.harvestable_bytes));
    page.header(
        "memharvest_vm_reclaimable_bytes",
        "Memory that a balloon could add, after every guard; 0 once its forecast has run out.",
        MetricType::Gauge,
    );
    each(views, page, promised(|vm| vm.reclaimable_bytes));
}

/// Writes one sample a machine, where there is a value.
fn each(views: &[View], page: &mut PageWriter, value: impl Fn(&View, &VmReading) -> Option<Value>) {
    for view in views {
        for (id, vm) in view.machines() {
            if let Some(value) = value(view, vm) {
                page.sample(&[("host", view.id()), ("vm", id)], value);
            }
        }
    }
}

fn seconds_of(time: Timestamp) -> f64 {
    Duration::try_from(time.duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default().as_secs_f64()
}
