//! One line of the report: a host, or the fleet. Pure.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::api::{Coverage, Fleet, Host, Violation};

/// What a host or the fleet holds, uses and yields, and what was promised and held.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Line {
    /// The host; absent: the fleet.
    pub(super) host: Option<String>,
    pub(super) vms: Option<u64>,
    pub(super) allocated_bytes: Option<u64>,
    pub(super) used_bytes: Option<u64>,
    pub(super) predicted_bytes: Option<u64>,
    pub(super) harvestable_bytes: Option<u64>,
    pub(super) reclaimable_bytes: Option<u64>,
    /// Share of the judged forecasts that may be expected to hold by their targets.
    pub(super) promised_coverage: Option<f64>,
    /// Share of them that held.
    pub(super) held_coverage: Option<f64>,
    pub(super) forecasts_judged: u64,
    pub(super) violations: Counts,
}

/// Violations by kind, as far as they opened within the window; all that are open.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub(super) struct Counts {
    pub(super) open: u64,
    pub(super) forecast: u64,
    pub(super) promise: u64,
    pub(super) boundary: u64,
}

/// Violations of every host and of all.
#[derive(Debug, Default)]
pub(super) struct Tally {
    all: Counts,
    hosts: BTreeMap<String, Counts>,
}

impl Tally {
    /// Counts one that opened within the window.
    pub(super) fn opened(&mut self, violation: &Violation) {
        self.each(violation, |counts| match violation.kind.as_str() {
            "forecast" => counts.forecast += 1,
            "promise" => counts.promise += 1,
            "boundary" => counts.boundary += 1,
            _ => {}
        });
    }

    /// Counts one that is open.
    pub(super) fn still_open(&mut self, violation: &Violation) {
        self.each(violation, |counts| counts.open += 1);
    }

    fn each(&mut self, violation: &Violation, count: impl Fn(&mut Counts)) {
        count(&mut self.all);
        count(self.hosts.entry(violation.host.clone()).or_default());
    }
}

impl Line {
    pub(super) fn of_host(host: &Host, tally: &Tally) -> Self {
        let (promised_coverage, held_coverage, forecasts_judged) = shares(&host.coverage);
        Self {
            host: Some(host.host.clone()),
            vms: host.vms_running,
            allocated_bytes: host.allocated_bytes,
            used_bytes: host.rss_bytes,
            predicted_bytes: host.predicted_rss_bytes,
            harvestable_bytes: host.harvestable_bytes,
            reclaimable_bytes: host.reclaimable_bytes,
            promised_coverage,
            held_coverage,
            forecasts_judged,
            violations: tally.hosts.get(&host.host).copied().unwrap_or_default(),
        }
    }

    pub(super) fn of_fleet(fleet: &Fleet, tally: &Tally) -> Self {
        let (promised_coverage, held_coverage, forecasts_judged) = shares(&fleet.coverage_by_forecast);
        Self {
            host: None,
            vms: fleet.vms,
            allocated_bytes: fleet.allocated_bytes,
            used_bytes: fleet.rss_bytes,
            predicted_bytes: fleet.predicted_rss_bytes,
            harvestable_bytes: fleet.harvestable_bytes,
            reclaimable_bytes: fleet.reclaimable_bytes,
            promised_coverage,
            held_coverage,
            forecasts_judged,
            violations: tally.all,
        }
    }
}

/// The share that the targets promise, the share that held, and how many were judged.
fn shares(coverage: &[Coverage]) -> (Option<f64>, Option<f64>, u64) {
    let judged: u64 = coverage.iter().map(|part| part.judged).sum();
    if judged == 0 {
        return (None, None, 0);
    }
    let held: u64 = coverage.iter().map(|part| part.held).sum();
    let target = |part: &Coverage| Some((1.0 - part.target_violation_rate?) * number(part.judged));
    let promised: Option<f64> = coverage.iter().filter(|part| part.judged > 0).map(target).sum();
    (promised.map(|sum| sum / number(judged)), Some(number(held) / number(judged)), judged)
}

#[expect(clippy::cast_precision_loss, reason = "counts of forecasts, told with four digits")]
fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(target: f64, judged: u64, held: u64) -> Coverage {
        Coverage { target_violation_rate: Some(target), judged, held }
    }

    #[test]
    fn shares_are_weighted_by_what_was_judged() {
        let (promised, held, judged) = shares(&[part(0.01, 300, 297), part(0.05, 100, 90)]);
        assert!((promised.unwrap() - 0.98).abs() < 1e-12);
        assert!((held.unwrap() - 0.9675).abs() < 1e-12);
        assert_eq!(judged, 400);
    }

    #[test]
    fn nothing_judged_is_not_known() {
        assert_eq!(shares(&[part(0.01, 0, 0)]), (None, None, 0));
    }
}
