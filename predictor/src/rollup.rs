//! Readings folded into windows of five minutes: what the registry keeps.

use memharvest_proto::predictor::v1::{Host, Vm};
use memharvest_proto::registry::v1::{HostRollup, VmRollup};
use serde::{Deserialize, Serialize};

use crate::{convert, domain::Seconds};

/// Length of a window.
pub const WINDOW: Seconds = 300.0;

/// Begin of the window that a time falls into.
#[must_use]
pub fn window_start(at: Seconds) -> Seconds {
    (at / WINDOW).floor() * WINDOW
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct MaxMean {
    max: Option<u64>,
    sum: u64,
    count: u64,
}

impl MaxMean {
    fn add(&mut self, value: Option<u64>) {
        let Some(value) = value else { return };
        self.max = self.max.max(Some(value));
        self.sum = self.sum.saturating_add(value);
        self.count += 1;
    }

    fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.count)
    }
}

/// Whose window it is.
#[derive(Clone, Copy, Debug)]
pub struct Whose<'a> {
    /// The machine.
    pub vm_id: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its host.
    pub host_id: &'a str,
}

/// The window of one machine that is being filled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VmWindow {
    start: Seconds,
    readings: u32,
    /// The worst quality, by its number in the contract: worse ones are smaller.
    quality: Option<i32>,
    rss: MaxMean,
    demand: MaxMean,
    predicted_rss: Option<u64>,
    predicted_demand: Option<u64>,
    allocated: Option<u64>,
    maximum: Option<u64>,
    harvestable: Option<u64>,
    reclaimable: Option<u64>,
}

impl VmWindow {
    /// Adds a machine as of a reading at `at`. Answers the window before, where this reading begins another.
    pub fn add(&mut self, at: Seconds, vm: &Vm) -> Option<VmRollup> {
        let start = window_start(at);
        let mut finished = None;
        if start > self.start {
            finished = self.finish(Whose { vm_id: &vm.vm_id, name: &vm.name, host_id: &vm.host_id });
            *self = Self { start, ..Self::default() };
        }
        self.readings += 1;
        self.quality = Some(self.quality.map_or(vm.quality, |worst| worst.min(vm.quality)));
        self.rss.add(vm.rss_bytes);
        self.demand.add(vm.demand_bytes);
        self.predicted_rss = self.predicted_rss.max(vm.predicted_rss_bytes);
        self.predicted_demand = self.predicted_demand.max(vm.predicted_demand_bytes);
        self.allocated = vm.allocated_bytes;
        self.maximum = vm.maximum_bytes;
        self.harvestable = vm.harvestable_bytes;
        self.reclaimable = vm.reclaimable_bytes;
        finished
    }

    /// The window so far, with the machine's last figures; `None` where nothing was read in it.
    #[must_use]
    pub fn finish(&self, whose: Whose<'_>) -> Option<VmRollup> {
        let quality = self.quality?;
        Some(VmRollup {
            vm_id: whose.vm_id.to_owned(),
            vm_name: whose.name.to_owned(),
            host_id: whose.host_id.to_owned(),
            window_start: Some(convert::timestamp(self.start)),
            window: Some(convert::duration(WINDOW)),
            readings: self.readings,
            quality,
            allocated_bytes: self.allocated,
            maximum_bytes: self.maximum,
            rss_max_bytes: self.rss.max,
            rss_mean_bytes: self.rss.mean(),
            demand_max_bytes: self.demand.max,
            demand_mean_bytes: self.demand.mean(),
            predicted_rss_bytes: self.predicted_rss,
            predicted_demand_bytes: self.predicted_demand,
            harvestable_bytes: self.harvestable,
            reclaimable_bytes: self.reclaimable,
        })
    }
}

/// The window of one host that is being filled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct HostWindow {
    start: Seconds,
    readings: u32,
    available_min: Option<u64>,
    rss_max: Option<u64>,
    name: String,
    vms_running: u32,
    total: Option<u64>,
    allocated: Option<u64>,
    harvestable: Option<u64>,
    pooled: Option<u64>,
    reclaimable: Option<u64>,
}

impl HostWindow {
    /// Adds a host as of a reading at `at`; see [`VmWindow::add`].
    pub fn add(&mut self, at: Seconds, host: &Host) -> Option<HostRollup> {
        let start = window_start(at);
        let mut finished = None;
        if start > self.start {
            finished = self.finish(&host.host_id);
            *self = Self { start, ..Self::default() };
        }
        self.readings += 1;
        self.available_min = match (self.available_min, host.available_bytes) {
            (Some(low), Some(now)) => Some(low.min(now)),
            (low, now) => low.or(now),
        };
        self.rss_max = self.rss_max.max(host.rss_bytes);
        self.name.clone_from(&host.name);
        self.vms_running = host.vms_running;
        self.total = host.total_bytes;
        self.allocated = host.allocated_bytes;
        self.harvestable = host.harvestable_bytes;
        self.pooled = host.pooled_harvestable_bytes;
        self.reclaimable = host.reclaimable_bytes;
        finished
    }

    /// The window so far, with the host's last figures; `None` where nothing was read in it.
    #[must_use]
    pub fn finish(&self, host_id: &str) -> Option<HostRollup> {
        (self.readings > 0).then(|| HostRollup {
            host_id: host_id.to_owned(),
            host_name: self.name.clone(),
            window_start: Some(convert::timestamp(self.start)),
            window: Some(convert::duration(WINDOW)),
            readings: self.readings,
            vms_running: self.vms_running,
            total_bytes: self.total,
            available_min_bytes: self.available_min,
            allocated_bytes: self.allocated,
            rss_max_bytes: self.rss_max,
            harvestable_bytes: self.harvestable,
            pooled_harvestable_bytes: self.pooled,
            reclaimable_bytes: self.reclaimable,
        })
    }
}

#[cfg(test)]
mod tests {
    use memharvest_proto::collector::v1::Quality;

    use super::*;

    fn vm(rss: Option<u64>, quality: Quality) -> Vm {
        Vm { rss_bytes: rss, quality: quality.into(), ..Vm::default() }
    }

    #[test]
    fn a_window_keeps_peak_mean_and_worst_and_ends_with_the_next() {
        let mut window = VmWindow::default();
        assert_eq!(window.add(600.0, &vm(Some(10), Quality::Live)), None);
        assert_eq!(window.add(700.0, &vm(Some(30), Quality::Stale)), None);
        let ended = window.add(900.0, &vm(None, Quality::Live)).unwrap();
        assert_eq!(ended.readings, 2);
        assert_eq!((ended.rss_max_bytes, ended.rss_mean_bytes), (Some(30), Some(20)));
        assert_eq!(ended.quality(), Quality::Stale);
        assert_eq!(ended.window_start.unwrap().seconds, 600);
        let whose = Whose { vm_id: "v", name: "n", host_id: "h" };
        let open = window.finish(whose).unwrap();
        assert_eq!((open.readings, open.rss_max_bytes), (1, None), "absent stays absent");
        assert_eq!(VmWindow::default().finish(whose), None);
    }

    #[test]
    fn a_host_keeps_its_lowest_available_memory() {
        let mut window = HostWindow::default();
        let host = |available| Host { available_bytes: available, rss_bytes: Some(5), ..Host::default() };
        window.add(0.0, &host(Some(9)));
        window.add(10.0, &host(None));
        window.add(20.0, &host(Some(4)));
        let ended = window.add(300.0, &host(Some(50))).unwrap();
        assert_eq!((ended.available_min_bytes, ended.rss_max_bytes, ended.readings), (Some(4), Some(5), 3));
    }
}
