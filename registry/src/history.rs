//! Merges windows of history to longer ones. Pure.

use memharvest_proto::registry::v1::{HostRollup, VmRollup};

fn start_s(start: Option<&prost_types::Timestamp>) -> i64 {
    start.map_or(0, |start| start.seconds)
}

fn window_s(window: Option<&prost_types::Duration>) -> i64 {
    window.map_or(0, |window| window.seconds)
}

/// The mean of two means, each weighted by its readings; one that is not known weighs nothing.
fn merge_means(
    left: Option<u64>,
    left_readings: u32,
    right: Option<u64>,
    right_readings: u32,
) -> Option<u64> {
    let (Some(a), Some(b)) = (left, right) else { return left.or(right) };
    let (a, b, n, m) =
        (u128::from(a), u128::from(b), u128::from(left_readings.max(1)), u128::from(right_readings.max(1)));
    u64::try_from((a * n + b * m) / (n + m)).ok()
}

/// The least of two figures of which either may not be known.
fn least(left: Option<u64>, right: Option<u64>) -> Option<u64> {
    match (left, right) {
        (Some(a), Some(b)) => Some(a.min(b)),
        _ => left.or(right),
    }
}

/// The worse of two qualities; one that is not said does not count.
fn worse(left: i32, right: i32) -> i32 {
    match (left, right) {
        (0, quality) | (quality, 0) => quality,
        _ => left.min(right),
    }
}

/// A window of history that can take in the next one of its subject.
trait Window: Sized {
    fn start_s(&self) -> i64;
    fn window_s(&self) -> i64;
    fn set_window(&mut self, start_s: i64, window_s: i64);
    /// What is known of both windows; `later` begins after this one.
    fn take_in(&mut self, later: Self);
}

impl Window for VmRollup {
    fn start_s(&self) -> i64 {
        start_s(self.window_start.as_ref())
    }

    fn window_s(&self) -> i64 {
        window_s(self.window.as_ref())
    }

    fn set_window(&mut self, start_s: i64, window_s: i64) {
        self.window_start = Some(prost_types::Timestamp { seconds: start_s, nanos: 0 });
        self.window = Some(prost_types::Duration { seconds: window_s, nanos: 0 });
    }

    fn take_in(&mut self, later: Self) {
        *self = Self {
            readings: self.readings.saturating_add(later.readings),
            quality: worse(self.quality, later.quality),
            rss_max_bytes: self.rss_max_bytes.max(later.rss_max_bytes),
            rss_mean_bytes: merge_means(
                self.rss_mean_bytes,
                self.readings,
                later.rss_mean_bytes,
                later.readings,
            ),
            demand_max_bytes: self.demand_max_bytes.max(later.demand_max_bytes),
            demand_mean_bytes: merge_means(
                self.demand_mean_bytes,
                self.readings,
                later.demand_mean_bytes,
                later.readings,
            ),
            predicted_rss_bytes: self.predicted_rss_bytes.max(later.predicted_rss_bytes),
            predicted_demand_bytes: self.predicted_demand_bytes.max(later.predicted_demand_bytes),
            window_start: self.window_start,
            window: self.window,
            // Name, host, allocation and harvest are those at the end of the window.
            ..later
        };
    }
}

impl Window for HostRollup {
    fn start_s(&self) -> i64 {
        start_s(self.window_start.as_ref())
    }

    fn window_s(&self) -> i64 {
        window_s(self.window.as_ref())
    }

    fn set_window(&mut self, start_s: i64, window_s: i64) {
        self.window_start = Some(prost_types::Timestamp { seconds: start_s, nanos: 0 });
        self.window = Some(prost_types::Duration { seconds: window_s, nanos: 0 });
    }

    fn take_in(&mut self, later: Self) {
        *self = Self {
            readings: self.readings.saturating_add(later.readings),
            available_min_bytes: least(self.available_min_bytes, later.available_min_bytes),
            rss_max_bytes: self.rss_max_bytes.max(later.rss_max_bytes),
            window_start: self.window_start,
            window: self.window,
            // Name, machines, allocation and harvest are those at the end of the window.
            ..later
        };
    }
}

fn merge<W: Window>(windows: Vec<W>, step_s: i64) -> Vec<W> {
    let mut merged: Vec<W> = Vec::new();
    for mut window in windows {
        if window.window_s() >= step_s {
            merged.push(window);
            continue;
        }
        let start = window.start_s().div_euclid(step_s) * step_s;
        let open = merged.last_mut().filter(|last| last.start_s() == start && last.window_s() == step_s);
        if let Some(open) = open {
            open.take_in(window);
        } else {
            window.set_window(start, step_s);
            merged.push(window);
        }
    }
    merged
}

/// Merges a machine's windows, oldest first, to `step_s` seconds each, on multiples of it. Longer windows stay as they are.
#[must_use]
pub fn merge_vm(windows: Vec<VmRollup>, step_s: i64) -> Vec<VmRollup> {
    merge(windows, step_s)
}

/// Merges a host's windows likewise.
#[must_use]
pub fn merge_host(windows: Vec<HostRollup>, step_s: i64) -> Vec<HostRollup> {
    merge(windows, step_s)
}

/// The length of the windows that old ones are merged to, in seconds.
pub const HOUR_S: i64 = 3600;

/// Merges all windows of one subject within one hour to one that says so, whatever their lengths; oldest first.
fn fold<W: Window>(windows: Vec<W>) -> Option<W> {
    let longest = windows.iter().map(Window::window_s).max()?.max(HOUR_S);
    let mut windows = windows.into_iter();
    let mut folded = windows.next()?;
    folded.set_window(folded.start_s().div_euclid(HOUR_S) * HOUR_S, longest);
    for later in windows {
        folded.take_in(later);
    }
    Some(folded)
}

/// Merges a machine's windows of one hour, oldest first, to one.
#[must_use]
pub fn fold_vm(windows: Vec<VmRollup>) -> Option<VmRollup> {
    fold(windows)
}

/// Merges a host's windows likewise.
#[must_use]
pub fn fold_host(windows: Vec<HostRollup>) -> Option<HostRollup> {
    fold(windows)
}

/// Leaves out windows that came after their hour had been merged: they may be in it already. Sorts by time.
fn without_folded<W: Window>(mut windows: Vec<W>) -> Vec<W> {
    // The longer one of two that begin together comes first.
    windows.sort_by_key(|window| (window.start_s(), -window.window_s()));
    let mut covered_until = i64::MIN;
    windows.retain(|window| {
        if window.start_s() < covered_until && window.window_s() < HOUR_S {
            return false;
        }
        if window.window_s() >= HOUR_S {
            covered_until = window.start_s() + HOUR_S;
        }
        true
    });
    windows
}

/// A machine's windows, oldest first, without those that an hourly one stands for.
#[must_use]
pub fn without_folded_vm(windows: Vec<VmRollup>) -> Vec<VmRollup> {
    without_folded(windows)
}

/// A host's windows likewise.
#[must_use]
pub fn without_folded_host(windows: Vec<HostRollup>) -> Vec<HostRollup> {
    without_folded(windows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn window(start: i64, readings: u32, max: Option<u64>, mean: Option<u64>) -> VmRollup {
        let mut window = VmRollup {
            readings,
            rss_max_bytes: max,
            rss_mean_bytes: mean,
            quality: 10,
            ..VmRollup::default()
        };
        window.set_window(start, 300);
        window
    }

    #[test]
    fn peaks_stay_peaks_means_are_weighted_and_the_end_is_the_last() {
        let mut first = window(3600, 60, Some(9), Some(4));
        first.harvestable_bytes = Some(1);
        first.quality = 5;
        let mut second = window(3900, 20, Some(7), Some(8));
        second.harvestable_bytes = None;
        let merged = merge_vm(vec![first, second, window(7200, 60, None, None)], 3600);
        assert_eq!(merged.len(), 2);
        let hour = &merged[0];
        assert_eq!((hour.start_s(), hour.window_s(), hour.readings, hour.quality), (3600, 3600, 80, 5));
        assert_eq!((hour.rss_max_bytes, hour.rss_mean_bytes), (Some(9), Some(5)));
        assert_eq!(hour.harvestable_bytes, None, "not known at its end");
        assert_eq!((merged[1].rss_max_bytes, merged[1].rss_mean_bytes), (None, None), "absent stays absent");
    }

    #[test]
    fn the_least_available_memory_of_a_host_is_kept() {
        let host = |start, available| {
            let mut host = HostRollup { available_min_bytes: available, ..HostRollup::default() };
            host.set_window(start, 300);
            host
        };
        let merged = merge_host(vec![host(0, Some(5)), host(300, None), host(600, Some(3))], 900);
        assert_eq!(merged.len(), 1);
        assert_eq!(merged[0].available_min_bytes, Some(3));
    }

    #[test]
    fn an_hour_is_folded_to_one_window_and_what_comes_late_is_left_out() {
        let hour =
            fold_vm(vec![window(3600, 60, Some(9), Some(4)), window(6900, 60, Some(7), Some(8))]).unwrap();
        assert_eq!((hour.start_s(), hour.window_s(), hour.readings), (3600, 3600, 120));
        assert_eq!((hour.rss_max_bytes, hour.rss_mean_bytes), (Some(9), Some(6)));
        assert_eq!(fold_vm(vec![hour.clone()]), Some(hour.clone()), "once is as good as twice");
        assert_eq!(fold_vm(vec![]), None);
        let next = window(7200, 1, None, None);
        let late =
            vec![next.clone(), window(3600, 60, None, None), window(6900, 60, None, None), hour.clone()];
        assert_eq!(without_folded_vm(late), [hour, next]);
    }

    proptest! {
        #[test]
        fn no_reading_is_lost_and_no_peak(readings in prop::collection::vec((1u32..100, prop::option::of(0u64..1 << 60)), 1..60), step in 1i64..20_000) {
            let windows: Vec<VmRollup> =
                (0i64..).zip(&readings).map(|(i, (n, max))| window(i * 300, *n, *max, *max)).collect();
            let merged = merge_vm(windows, step);
            prop_assert_eq!(merged.iter().map(|w| w.readings).sum::<u32>(), readings.iter().map(|(n, _)| n).sum::<u32>());
            prop_assert_eq!(merged.iter().filter_map(|w| w.rss_max_bytes).max(), readings.iter().filter_map(|(_, max)| *max).max());
            prop_assert!(merged.is_sorted_by_key(Window::start_s));
            prop_assert!(merged.iter().all(|w| w.rss_mean_bytes <= w.rss_max_bytes));
        }
    }
}
