//! The price of a miss from which trackers start: the one at which bounds picked by the fitted network are exceeded
//! as often as the target allows, over all machines and without any tracker.
//!
//! Where every machine has its own tracker, nothing corrects the first day but what it starts from. What the price of
//! first days is above that of all days is added while a machine has no past.

use super::replay::Moment;
use crate::{
    boundary::Fairness,
    domain::{Seconds, Signal},
    model::{
        Prices, Terms,
        cqd::{
            caution::Caution,
            network::QUANTILES,
            pick::Pick,
            weights::{Nets, StartPrices},
        },
    },
};

/// Targets of the table.
pub const TARGETS: [f64; 7] = [0.10, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

/// Where the logarithm of the price is looked for.
const RANGE: (f64, f64) = (-6.0, 10.0);

/// Halvings of the range: to a thousandth.
const HALVINGS: usize = 14;

/// What a network said of a moment, and what came.
#[derive(Clone, Copy, Debug)]
struct Judged {
    quantiles: [f32; QUANTILES],
    peak: f32,
    allocated: u64,
}

/// The table for a network, from moments of machines and what they hold. Without moments it is all zeros.
#[must_use]
pub fn start_prices(
    nets: &Nets,
    horizon: Seconds,
    moments: &[(Moment, u64)],
    first_days: &[(Moment, u64)],
) -> StartPrices {
    let judged = |moments: &[(Moment, u64)]| -> Vec<Judged> {
        let judge = |(moment, allocated): &(Moment, u64)| Judged {
            quantiles: nets.quantiles(&moment.design, horizon).map(|z| (z + moment.base).exp()),
            peak: moment.peak,
            allocated: *allocated,
        };
        moments.iter().map(judge).collect()
    };
    let (moments, first_days) = (judged(moments), judged(first_days));
    let column = |moments: &[Judged], fairness| {
        let price =
            |target| start_price(moments, &Terms { signal: Signal::Demand, horizon, target, fairness });
        TARGETS.map(|target| thousandths(price(target))).to_vec()
    };
    let per_vm = column(&moments, Fairness::PerVm);
    let first_day = column(&first_days, Fairness::PerVm);
    StartPrices {
        targets: TARGETS.to_vec(),
        first_day: first_day
            .iter()
            .zip(&per_vm)
            .map(|(new, old)| thousandths((new - old).max(0.0)))
            .collect(),
        per_vm,
        capped: column(&moments, Fairness::Capped),
        fleet: column(&moments, Fairness::Fleet),
    }
}

fn thousandths(price: f64) -> f64 {
    (price * 1000.0).round() / 1000.0
}

/// By bisection: the dearer a miss, the rarer.
fn start_price(judged: &[Judged], terms: &Terms) -> f64 {
    if judged.is_empty() {
        return 0.0;
    }
    let (mut low, mut high) = RANGE;
    for _ in 0..HALVINGS {
        let middle = f64::midpoint(low, high);
        if rate(judged, terms, middle) > terms.target {
            low = middle;
        } else {
            high = middle;
        }
    }
    high
}

#[expect(clippy::cast_precision_loss, reason = "counts are small")]
fn rate(judged: &[Judged], terms: &Terms, start: f64) -> f64 {
    let (caution, prices) = (Caution::default(), Prices::default());
    let missed = judged.iter().filter(|moment| {
        let price = caution.price(terms, start, &prices, moment.allocated);
        moment.peak > Pick::cheapest(&moment.quantiles, price).level * (1.0 + 1e-6)
    });
    missed.count() as f64 / judged.len() as f64
}
