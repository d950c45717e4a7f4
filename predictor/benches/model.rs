//! What a reading costs: `cargo bench -p memharvest-predictor --bench model`. Each figure is the time of one reading
//! through judging, learning, observing and forecasting of one signal at one horizon and target; allocations are
//! counted beside it.

use divan::counter::ItemsCount;
use memharvest_predictor::boundary::Fairness;
use memharvest_predictor::domain::Signal;
use memharvest_predictor::labels::Labels;
use memharvest_predictor::model::cqd::Cqd;
use memharvest_predictor::model::{Model, Prices, Sample, Terms};

#[global_allocator]
static ALLOCATIONS: divan::AllocProfiler = divan::AllocProfiler::system();

const ALLOCATED: u64 = 16 << 30;
const READINGS: usize = 4096;

#[expect(clippy::print_stdout, reason = "a benchmark prints")]
fn main() {
    println!("bytes a signal: model {}, labels {}", size_of::<Cqd>(), size_of::<Labels>());
    divan::main();
}

/// Noisy usage, from a small generator so that every run sees the same.
fn usage() -> Vec<u64> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let noise = std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (2 << 30) + (state >> 33)
    });
    noise.take(READINGS).collect()
}

/// A machine that has been read for a week, and what it is read next.
struct Warm {
    model: Cqd,
    labels: Labels,
    prices: Prices,
    terms: Terms,
    interval: f64,
    at: f64,
    usage: Vec<u64>,
}

impl Warm {
    fn of(interval: f64, horizon: f64, fairness: Fairness) -> Self {
        let terms = Terms { signal: Signal::Demand, horizon, target: 0.01, fairness };
        let mut warm = Self {
            model: Cqd::default(),
            labels: Labels::default(),
            prices: Prices::default(),
            terms,
            interval: 300.0,
            at: 0.0,
            usage: usage(),
        };
        warm.read(0..2016);
        warm.interval = interval;
        warm.read(0..READINGS);
        warm
    }

    fn read(&mut self, which: std::ops::Range<usize>) -> u64 {
        let mut sum = 0u64;
        for &bytes in &self.usage[which] {
            self.at += self.interval;
            let sample = Sample { at: self.at, interval: self.interval, bytes, allocated: ALLOCATED };
            self.labels.observe(&sample, |label| self.model.learn(label, &self.terms, &mut self.prices));
            self.model.observe(&sample);
            if let Some(forecast) = self.model.forecast(&self.terms, &self.prices) {
                self.labels.push(&forecast, &sample);
                sum = sum.wrapping_add(forecast.predicted_bytes);
            }
        }
        sum
    }
}

fn bench(bencher: divan::Bencher<'_, '_>, mut warm: Warm) {
    bencher.counter(ItemsCount::new(READINGS)).bench_local(|| warm.read(0..READINGS));
}

/// Every reading closes a step.
#[divan::bench]
fn every_five_minutes(bencher: divan::Bencher<'_, '_>) {
    bench(bencher, Warm::of(300.0, 900.0, Fairness::PerVm));
}

/// Between the horizons of two networks, with a price that machines share.
#[divan::bench]
fn every_five_minutes_between_two_networks(bencher: divan::Bencher<'_, '_>) {
    bench(bencher, Warm::of(300.0, 1800.0, Fairness::Capped));
}

/// As shipped: 60 readings a step.
#[divan::bench]
fn every_five_seconds(bencher: divan::Bencher<'_, '_>) {
    bench(bencher, Warm::of(5.0, 900.0, Fairness::PerVm));
}
