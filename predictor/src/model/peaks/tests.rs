use super::*;
use crate::{boundary::Fairness, coverage::Judged, labels::Labels};

const GIB: f64 = 1024.0 * 1024.0 * 1024.0;
const ALLOCATED: u64 = 16 << 30;

/// A small seeded generator: the tests need the same noise on every machine.
struct Noise(u64);

impl Noise {
    /// Uniform over 0..1.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        real(self.0 >> 11) / real(1 << 53)
    }

    /// Nearly normal, with deviation 1.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.uniform()).sum::<f64>() - 6.0
    }
}

/// Feeds a series and returns what was judged after `warm_up` seconds, and the mean forecast as a share of the allocation.
fn run(series: impl Iterator<Item = f64>, interval: Seconds, target: f64, warm_up: Seconds) -> (Judged, f64) {
    let terms =
        Terms { signal: crate::domain::Signal::Demand, horizon: 900.0, target, fairness: Fairness::PerVm };
    let (mut model, mut labels, mut judged) = (Peaks::default(), Labels::default(), Judged::default());
    let (mut at, mut sum, mut count) = (0.0, 0.0, 0.0);
    for level in series {
        at += interval;
        let sample =
            Sample { at, interval, bytes: whole(level.clamp(0.0, 16.0 * GIB)), allocated: ALLOCATED };
        labels.observe(&sample, |label| {
            model.learn(label, &terms, &mut Prices::default());
            if label.made_at > warm_up {
                judged.add(label);
            }
        });
        model.observe(&sample);
        let forecast = model.forecast(&terms, &Prices::default()).unwrap();
        assert!(forecast.predicted_bytes >= sample.bytes && forecast.predicted_bytes <= ALLOCATED);
        labels.push(&forecast, &sample);
        sum += real(forecast.predicted_bytes) / real(ALLOCATED);
        count += 1.0;
    }
    (judged, sum / count)
}

/// Demand that wanders about 4 GiB, with a burst of up to 4 GiB now and then.
fn wandering(seed: u64, interval: Seconds, days: f64) -> impl Iterator<Item = f64> {
    let mut noise = Noise(seed);
    let (mut level, mut at) = (0.0, 0.0);
    let memory = (-interval / 3600.0).exp();
    let shock = (1.0 - memory * memory).sqrt();
    std::iter::from_fn(move || {
        at += interval;
        level = memory * level + shock * noise.normal();
        let burst = if noise.uniform() < interval / 10_000.0 { 4.0 * noise.uniform() } else { 0.0 };
        (at < days * DAY).then_some((4.0 + 0.5 * level + burst) * GIB)
    })
}

/// A resident set that climbs in stairs of up to 1 GiB about ten times a day and starts anew when it is full.
fn stairs(seed: u64, interval: Seconds, days: f64) -> impl Iterator<Item = f64> {
    let mut noise = Noise(seed);
    let (mut level, mut at) = (1.0, 0.0);
    std::iter::from_fn(move || {
        at += interval;
        if noise.uniform() < interval / 8640.0 {
            level += noise.uniform();
        }
        if level > 15.0 {
            level = 1.0;
        }
        (at < days * DAY).then_some(level * GIB)
    })
}

/// Within a quarter of the target: what a tracker of this step length can promise on a month of data.
#[test]
fn the_tracker_hits_the_target_on_noisy_demand() {
    for (target, seed) in [(0.05, 1), (0.02, 2), (0.01, 3), (0.01, 4)] {
        let (judged, mean) = run(wandering(seed, 300.0, 60.0), 300.0, target, 7.0 * DAY);
        let rate = judged.violation_rate().unwrap();
        assert!((rate / target - 1.0).abs() < 0.25, "asked for {target}, got {rate}");
        assert!(mean < 0.6, "it hit the target by predicting {mean} of the allocation");
    }
}

#[test]
fn the_tracker_hits_the_target_on_stairs() {
    for (target, seed) in [(0.05, 5), (0.01, 6)] {
        let (judged, mean) = run(stairs(seed, 300.0, 120.0), 300.0, target, 7.0 * DAY);
        let rate = judged.violation_rate().unwrap();
        assert!((rate / target - 1.0).abs() < 0.25, "asked for {target}, got {rate}");
        assert!(mean < 0.75, "it hit the target by predicting {mean} of the allocation");
    }
}

/// The same code at 5 s: labels come thirty a horizon instead of three, and weigh as much less.
#[test]
fn the_tracker_hits_the_target_when_sampled_fast() {
    let (judged, _) = run(wandering(7, 15.0, 40.0), 15.0, 0.02, 7.0 * DAY);
    let rate = judged.violation_rate().unwrap();
    assert!((rate / 0.02 - 1.0).abs() < 0.25, "asked for 0.02, got {rate}");
}

#[test]
fn a_flat_series_is_predicted_flat() {
    let (judged, mean) = run(std::iter::repeat_n(12.0 * GIB, 20_000), 300.0, 0.01, 7.0 * DAY);
    assert_eq!(judged.held, judged.forecasts);
    assert!(mean < 0.76, "{mean}");
}

#[test]
fn the_future_changes_nothing_in_the_past() {
    let forecasts = |count: usize, spoil: f64| {
        let terms = Terms {
            signal: crate::domain::Signal::Demand,
            horizon: 900.0,
            target: 0.01,
            fairness: Fairness::PerVm,
        };
        let (mut model, mut labels) = (Peaks::default(), Labels::default());
        let series = wandering(9, 300.0, 30.0).take(count).chain(std::iter::repeat_n(spoil, 50));
        let mut at = 0.0;
        let all = series.map(|level| {
            at += 300.0;
            let sample = Sample { at, interval: 300.0, bytes: whole(level), allocated: ALLOCATED };
            labels.observe(&sample, |label| model.learn(label, &terms, &mut Prices::default()));
            model.observe(&sample);
            let forecast = model.forecast(&terms, &Prices::default()).unwrap();
            labels.push(&forecast, &sample);
            forecast.predicted_bytes
        });
        all.collect::<Vec<_>>()
    };
    let long = forecasts(4000, 0.0);
    for cut in [1, 7, 100, 3000] {
        assert_eq!(forecasts(cut, 16.0 * GIB)[..cut], long[..cut]);
    }
}

#[test]
fn a_restart_forgets_levels_and_keeps_caution() {
    let mut model = Peaks::default();
    model.observe(&Sample { at: 0.0, interval: 5.0, bytes: 9 << 30, allocated: ALLOCATED });
    model.climbed = 7.5;
    model.reset();
    let terms = Terms {
        signal: crate::domain::Signal::Demand,
        horizon: 900.0,
        target: 0.01,
        fairness: Fairness::PerVm,
    };
    assert_eq!(model.forecast(&terms, &Prices::default()), None);
    model.observe(&Sample { at: 5.0, interval: 5.0, bytes: 1 << 30, allocated: ALLOCATED });
    assert!(model.forecast(&terms, &Prices::default()).unwrap().predicted_bytes < 2 << 30);
    assert!(model.climbed > 7.0);
}
