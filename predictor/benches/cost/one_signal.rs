//! A reading through judging, learning, observing and forecasting of one signal at one horizon and target, once a machine
//! has been read for a week.

use memharvest_predictor::boundary::Fairness;
use memharvest_predictor::domain::Signal;
use memharvest_predictor::labels::Labels;
use memharvest_predictor::model::cqd::Cqd;
use memharvest_predictor::model::{Model, Prices, Sample, Terms};

use crate::page::{Bound, Page};
use crate::spent::{Each, Spent, real};

const ALLOCATED: u64 = 16 << 30;
/// Readings of a turn, and turns.
const READINGS: usize = 100_000;
const TURNS: usize = 9;

/// A machine, and what it is read next.
struct Warm {
    model: Cqd,
    labels: Labels,
    prices: Prices,
    terms: Terms,
    at: f64,
    noise: u64,
}

impl Warm {
    fn of(interval: f64, horizon: f64, fairness: Fairness) -> Self {
        let terms = Terms { signal: Signal::Demand, horizon, target: 0.01, fairness };
        let mut warm = Self {
            model: Cqd::default(),
            labels: Labels::default(),
            prices: Prices::default(),
            terms,
            at: 0.0,
            noise: 0x9e37_79b9_7f4a_7c15,
        };
        warm.read(2016, 300.0);
        warm.read(4096, interval);
        warm
    }

    /// Noisy usage, from a small generator so that every run sees the same.
    fn usage(&mut self) -> u64 {
        self.noise ^= self.noise << 13;
        self.noise ^= self.noise >> 7;
        self.noise ^= self.noise << 17;
        (2 << 30) + (self.noise >> 33)
    }

    fn read(&mut self, readings: usize, interval: f64) {
        for _ in 0..readings {
            self.at += interval;
            let sample = Sample { at: self.at, interval, bytes: self.usage(), allocated: ALLOCATED };
            self.labels.observe(&sample, |label| self.model.learn(label, &self.terms, &mut self.prices));
            self.model.observe(&sample);
            if let Some(forecast) = self.model.forecast(&self.terms, &self.prices) {
                self.labels.push(&forecast, &sample);
            }
        }
    }

    /// The middle one of some turns.
    fn cost(&mut self, interval: f64) -> Each {
        let mut turns: Vec<Each> = (0..TURNS)
            .map(|_| {
                let spent = Spent::now();
                self.read(READINGS, interval);
                spent.on(READINGS as u64)
            })
            .collect();
        turns.sort_by(|a, b| a.nanoseconds.total_cmp(&b.nanoseconds));
        turns[TURNS / 2]
    }
}

pub(crate) fn tell(page: &mut Page) {
    page.section("A reading of one signal, at one horizon and target");
    for (what, interval, horizon, fairness) in [
        ("as shipped: every 5 s, 60 readings a step", 5.0, 900.0, Fairness::PerVm),
        ("every 5 min: each reading closes a step", 300.0, 900.0, Fairness::PerVm),
        ("every 5 min, between two networks, a shared price", 300.0, 1800.0, Fairness::Capped),
    ] {
        let each = Warm::of(interval, horizon, fairness).cost(interval);
        // Between two networks both are asked: what the limit is about is one.
        let bound = if fairness == Fairness::PerVm { Bound::AtMost(1500.0) } else { Bound::None };
        page.figure(what, each.nanoseconds, "ns", bound);
        page.figure(&format!("{what}: allocations"), each.allocations, "", Bound::AtMost(0.0));
    }
    let (model, labels) = (size_of::<Cqd>(), size_of::<Labels>());
    page.figure(
        "state: model and forecasts that wait",
        real((model + labels) as u64),
        "bytes",
        Bound::AtMost(2560.0),
    );
}
