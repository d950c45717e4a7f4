//! Readings folded into windows of five minutes: what the registry keeps.

use memharvest_proto::collector::v1::Quality;
use memharvest_proto::predictor::v1::{Host, Vm};
use memharvest_proto::registry::v1::{HostRollup, VmRollup};

use crate::{convert, domain::Seconds};

/// Length of a window.
pub const WINDOW: Seconds = 300.0;

/// Begin of the window that a time falls into.
#[must_use]
pub fn window_start(at: Seconds) -> Seconds {
    (at / WINDOW).floor() * WINDOW
}

#[derive(Clone, Copy, Debug, Default)]
struct MaxMean {
    max: Option<u64>,
    sum: u128,
    count: u128,
}

impl MaxMean {
    fn add(&mut self, value: Option<u64>) {
        let Some(value) = value else { return };
        self.max = self.max.max(Some(value));
        self.sum += u128::from(value);
        self.count += 1;
    }

    fn mean(&self) -> Option<u64> {
        self.sum.checked_div(self.count).and_then(|mean| u64::try_from(mean).ok())
    }
}

/// The window of one machine that is being filled.
#[derive(Clone, Debug, Default)]
pub struct VmWindow {
    start: Seconds,
    readings: u32,
    worst: Option<Quality>,
    rss: MaxMean,
    demand: MaxMean,
    predicted_rss: Option<u64>,
    predicted_demand: Option<u64>,
}

impl VmWindow {
    /// Adds a machine as of a reading at `at`. Answers the window before, where this reading begins another;
    /// `before` is the machine as it was then.
    pub fn add(&mut self, at: Seconds, vm: &Vm, before: Option<&Vm>) -> Option<VmRollup> {
        let start = window_start(at);
        let finished = if start > self.start { before.and_then(|before| self.finish(before)) } else { None };
        if start > self.start {
            *self = Self { start, ..Self::default() };
        }
        self.readings += 1;
        self.worst = Some(self.worst.map_or(vm.quality(), |worst| worst.min(vm.quality())));
        self.rss.add(vm.rss_bytes);
        self.demand.add(vm.demand_bytes);
        self.predicted_rss = self.predicted_rss.max(vm.predicted_rss_bytes);
        self.predicted_demand = self.predicted_demand.max(vm.predicted_demand_bytes);
        finished
    }

    /// The window so far, with the machine's last figures; `None` where nothing was read in it.
    #[must_use]
    pub fn finish(&self, last: &Vm) -> Option<VmRollup> {
        let quality = self.worst?;
        Some(VmRollup {
            vm_id: last.vm_id.clone(),
            vm_name: last.name.clone(),
            host_id: last.host_id.clone(),
            window_start: Some(convert::timestamp(self.start)),
            window: Some(convert::duration(WINDOW)),
            readings: self.readings,
            quality: quality.into(),
            allocated_bytes: last.allocated_bytes,
            maximum_bytes: last.maximum_bytes,
            rss_max_bytes: self.rss.max,
            rss_mean_bytes: self.rss.mean(),
            demand_max_bytes: self.demand.max,
            demand_mean_bytes: self.demand.mean(),
            predicted_rss_bytes: self.predicted_rss,
            predicted_demand_bytes: self.predicted_demand,
            harvestable_bytes: last.harvestable_bytes,
            reclaimable_bytes: last.reclaimable_bytes,
        })
    }
}

/// The window of one host that is being filled.
#[derive(Clone, Debug, Default)]
pub struct HostWindow {
    start: Seconds,
    readings: u32,
    available_min: Option<u64>,
    rss_max: Option<u64>,
}

impl HostWindow {
    /// Adds a host as of a reading at `at`; see [`VmWindow::add`].
    pub fn add(&mut self, at: Seconds, host: &Host, before: Option<&Host>) -> Option<HostRollup> {
        let start = window_start(at);
        let finished = if start > self.start { before.and_then(|before| self.finish(before)) } else { None };
        if start > self.start {
            *self = Self { start, ..Self::default() };
        }
        self.readings += 1;
        self.available_min = match (self.available_min, host.available_bytes) {
            (Some(low), Some(now)) => Some(low.min(now)),
            (low, now) => low.or(now),
        };
        self.rss_max = self.rss_max.max(host.rss_bytes);
        finished
    }

    /// The window so far, with the host's last figures; `None` where nothing was read in it.
    #[must_use]
    pub fn finish(&self, last: &Host) -> Option<HostRollup> {
        (self.readings > 0).then(|| HostRollup {
            host_id: last.host_id.clone(),
            host_name: last.name.clone(),
            window_start: Some(convert::timestamp(self.start)),
            window: Some(convert::duration(WINDOW)),
            readings: self.readings,
            vms_running: last.vms_running,
            total_bytes: last.total_bytes,
            available_min_bytes: self.available_min,
            allocated_bytes: last.allocated_bytes,
            rss_max_bytes: self.rss_max,
            harvestable_bytes: last.harvestable_bytes,
            pooled_harvestable_bytes: last.pooled_harvestable_bytes,
            reclaimable_bytes: last.reclaimable_bytes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(rss: Option<u64>, quality: Quality) -> Vm {
        Vm { rss_bytes: rss, quality: quality.into(), ..Vm::default() }
    }

    #[test]
    fn a_window_keeps_peak_mean_and_worst_and_ends_with_the_next() {
        let mut window = VmWindow::default();
        let first = vm(Some(10), Quality::Live);
        let second = vm(Some(30), Quality::Stale);
        let third = vm(None, Quality::Live);
        assert_eq!(window.add(600.0, &first, None), None);
        assert_eq!(window.add(700.0, &second, Some(&first)), None);
        let ended = window.add(900.0, &third, Some(&second)).unwrap();
        assert_eq!(ended.readings, 2);
        assert_eq!((ended.rss_max_bytes, ended.rss_mean_bytes), (Some(30), Some(20)));
        assert_eq!(ended.quality(), Quality::Stale);
        assert_eq!(ended.window_start.unwrap().seconds, 600);
        let open = window.finish(&third).unwrap();
        assert_eq!((open.readings, open.rss_max_bytes), (1, None), "absent stays absent");
        assert_eq!(VmWindow::default().finish(&third), None);
    }

    #[test]
    fn a_host_keeps_its_lowest_available_memory() {
        let mut window = HostWindow::default();
        let host = |available| Host { available_bytes: available, rss_bytes: Some(5), ..Host::default() };
        window.add(0.0, &host(Some(9)), None);
        window.add(10.0, &host(None), None);
        window.add(20.0, &host(Some(4)), None);
        let ended = window.add(300.0, &host(Some(50)), Some(&host(Some(4)))).unwrap();
        assert_eq!((ended.available_min_bytes, ended.rss_max_bytes, ended.readings), (Some(4), Some(5), 3));
    }
}
