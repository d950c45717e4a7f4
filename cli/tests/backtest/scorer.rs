//! Somebody else's scorer: works out from the trace and a file of forecasts what the program tells, in the plainest way.

use std::collections::BTreeMap;

use serde::Deserialize;

/// A row of `--forecasts`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub(crate) struct Forecast {
    pub(crate) vm_id: String,
    pub(crate) t_seconds: f64,
    pub(crate) target_violation_rate: f64,
    allocated_bytes: u64,
    predicted_bytes: u64,
    harvestable_bytes: u64,
}

/// What was used: by machine, when and how much.
pub(crate) struct Scorer(BTreeMap<String, Vec<(f64, u64)>>);

/// What it came to.
pub(crate) struct Scored {
    pub(crate) judged: u64,
    pub(crate) mean: f64,
    pub(crate) p95_vm: f64,
    pub(crate) worst_vm: f64,
    /// None where nothing was missed.
    pub(crate) severity: Option<f64>,
    pub(crate) harvested: f64,
    pub(crate) guarded: f64,
    pub(crate) reserved_to_needed: f64,
}

/// A hundredth of five minutes: a reading that is late by that still belongs to the window.
const LATE: f64 = 3.0;

/// Two missing samples in five minutes' sampling.
const GAP: f64 = 750.0;

impl Scorer {
    pub(crate) fn of(rows: impl Iterator<Item = (String, f64, u64)>) -> Self {
        let mut of_vm: BTreeMap<String, Vec<(f64, u64)>> = BTreeMap::new();
        for (vm, at, bytes) in rows {
            of_vm.entry(vm).or_default().push((at, bytes));
        }
        for rows in of_vm.values_mut() {
            rows.sort_by(|a, b| a.0.total_cmp(&b.0));
        }
        Self(of_vm)
    }

    /// The peak over (at, at + horizon], none where a gap or the end of the readings touches it.
    fn peak(&self, vm: &str, at: f64, horizon: f64) -> Option<u64> {
        let rows = &self.0[vm];
        let now = rows.partition_point(|row| row.0 < at);
        assert!((rows[now].0 - at).abs() < 1e-6, "a forecast of {vm} without a reading");
        let (mut peak, mut last) = (0, at);
        for (when, bytes) in &rows[now + 1..] {
            if last >= at + horizon {
                break;
            }
            if when - last > GAP {
                return None;
            }
            if *when <= at + horizon + LATE {
                peak = peak.max(*bytes);
            }
            last = *when;
        }
        (last >= at + horizon).then_some(peak)
    }

    #[expect(clippy::cast_precision_loss, reason = "sums that are compared to nine digits")]
    pub(crate) fn score<'a>(
        &self,
        forecasts: impl Iterator<Item = &'a Forecast>,
        horizon: f64,
        warm_up: f64,
    ) -> Scored {
        let mut counts: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
        let (mut allocated, mut predicted, mut needed, mut harvestable, mut over) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for row in forecasts {
            let first = self.0[&row.vm_id][0].0;
            let Some(peak) = self.peak(&row.vm_id, row.t_seconds, horizon) else { continue };
            if row.t_seconds - first < warm_up {
                continue;
            }
            let count = counts.entry(&row.vm_id).or_default();
            count.0 += 1;
            allocated += row.allocated_bytes as f64;
            predicted += row.predicted_bytes as f64;
            needed += peak as f64;
            harvestable += row.harvestable_bytes as f64;
            if peak > row.predicted_bytes {
                count.1 += 1;
                over += (peak - row.predicted_bytes) as f64 / row.allocated_bytes as f64;
            }
        }
        let mut rates: Vec<f64> =
            counts.values().map(|(judged, missed)| *missed as f64 / *judged as f64).collect();
        rates.sort_by(f64::total_cmp);
        let place = 0.95 * (rates.len() - 1) as f64;
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
        let below = place as usize;
        let above = (below + 1).min(rates.len() - 1);
        let missed: u64 = counts.values().map(|(_, missed)| missed).sum();
        Scored {
            judged: counts.values().map(|(judged, _)| judged).sum(),
            mean: rates.iter().sum::<f64>() / rates.len() as f64,
            p95_vm: rates[below] + (place - below as f64) * (rates[above] - rates[below]),
            worst_vm: *rates.last().unwrap(),
            severity: (missed > 0).then(|| over / missed as f64),
            harvested: (allocated - predicted) / allocated,
            guarded: harvestable / allocated,
            reserved_to_needed: predicted / needed,
        }
    }
}
