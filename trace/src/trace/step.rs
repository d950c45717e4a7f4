//! The sampling interval of a trace.

use std::time::Duration;

/// What a trace without a single interval is taken to be sampled at: memharvest's own default.
const FALLBACK: Duration = Duration::from_secs(5);
/// A finer step would only make more ticks than any replay can show.
const FINEST: Duration = Duration::from_millis(1);

/// The median, over the VMs, of each VM's median interval. `readings` are (VM index, seconds) in the order of time.
pub(super) fn estimate(vms: usize, readings: impl Iterator<Item = (usize, f64)>) -> Duration {
    let mut last = vec![None; vms];
    let mut intervals = vec![Vec::new(); vms];
    for (vm, t) in readings {
        if let Some(before) = last[vm].replace(t) {
            intervals[vm].push(t - before);
        }
    }
    let mut medians: Vec<f64> = intervals.into_iter().filter_map(|mut of_vm| median(&mut of_vm)).collect();
    median(&mut medians).map_or(FALLBACK, |seconds| Duration::from_secs_f64(seconds).max(FINEST))
}

/// The lower median: always one of the values.
fn median(values: &mut [f64]) -> Option<f64> {
    if values.is_empty() {
        return None;
    }
    let middle = (values.len() - 1) / 2;
    Some(*values.select_nth_unstable_by(middle, f64::total_cmp).1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_a_slow_vm_do_not_move_the_step() {
        let steady = |vm: usize, every: u32, skip: u32| {
            (0..20).filter(move |n| *n != skip).map(move |n| (vm, f64::from(n * every)))
        };
        let mut readings: Vec<_> =
            steady(0, 300, 3).chain(steady(1, 300, 7)).chain(steady(2, 3600, 99)).collect();
        readings.sort_by(|a, b| a.1.total_cmp(&b.1));
        assert_eq!(estimate(3, readings.into_iter()), Duration::from_mins(5));
    }

    #[test]
    fn one_reading_a_vm_has_no_interval() {
        assert_eq!(estimate(2, [(0, 0.0), (1, 7.0)].into_iter()), FALLBACK);
    }
}
