//! The bound that costs least: not "the quantile of the target", but where the memory that a higher bound reserves and
//! the misses that it saves, at their price, balance.

use super::{
    math,
    network::{QUANTILES, SURVIVAL},
};

/// A level that may be published, and how likely it is to be exceeded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pick {
    /// A share of the allocation, at most 1.
    pub level: f32,
    /// Probability of a peak above it.
    pub survival: f32,
}

/// Quantiles and room to the next whole vector.
const WIDE: usize = 12;

/// Natural logarithms of [`SURVIVAL`].
const LN_SURVIVAL: [f32; QUANTILES] = [
    -std::f32::consts::LN_2,
    -1.609_438,
    -std::f32::consts::LN_10,
    -2.995_732_3,
    -3.912_023,
    -4.605_170_2,
    -5.298_317_4,
    -6.214_608,
    -6.907_755_4,
];

/// The probabilities between which each piece of the curve runs, and the logarithms of the upper ones.
const CEILINGS: [f32; WIDE] = widened(&SURVIVAL);
const LN_CEILINGS: [f32; WIDE] = widened(&LN_SURVIVAL);
const FLOORS: [f32; WIDE] = {
    // Past the last quantile the tail goes on as between the last three, down to this probability.
    let mut floors = [1e-6; WIDE];
    let mut at = 0;
    while at < LAST {
        floors[at] = SURVIVAL[at + 1];
        at += 1;
    }
    floors
};

/// One over the logarithm that each piece spans; for the tail, that of the two pieces before it.
const PER_LN: [f32; QUANTILES] = {
    let mut per = [0.0; QUANTILES];
    let mut at = 0;
    while at < LAST {
        per[at] = 1.0 / (LN_SURVIVAL[at] - LN_SURVIVAL[at + 1]);
        at += 1;
    }
    per[LAST] = 1.0 / (LN_SURVIVAL[LAST - 2] - LN_SURVIVAL[LAST]);
    per
};

/// The whole allocation is never exceeded.
const FULL: Pick = Pick { level: 1.0, survival: 0.0 };

/// Least slope of a quantile over the logarithm of its probability.
const LEAST_SLOPE: f32 = 1e-9;

const LAST: usize = QUANTILES - 1;

impl Pick {
    /// Minimises `level + price · survival` over the curve through the quantiles (shares of the allocation, rising),
    /// on which the logarithm of the probability falls linearly between two quantiles.
    #[must_use]
    pub fn cheapest(quantiles: &[f32; QUANTILES], price: f32) -> Self {
        let mut slopes = [LEAST_SLOPE; WIDE];
        for at in 0..LAST {
            slopes[at] = ((quantiles[at + 1] - quantiles[at]) * PER_LN[at]).max(LEAST_SLOPE);
        }
        slopes[LAST] = ((quantiles[LAST] - quantiles[LAST - 2]) * PER_LN[LAST]).max(LEAST_SLOPE);
        let per_price = 1.0 / price;
        let survivals: [f32; WIDE] =
            std::array::from_fn(|at| (slopes[at] * per_price).max(FLOORS[at]).min(CEILINGS[at]));
        let above: [f32; WIDE] =
            std::array::from_fn(|at| slopes[at] * (LN_CEILINGS[at] - math::ln(survivals[at])));
        let (mut best, mut least) = (FULL, f32::INFINITY);
        for ((quantile, above), survival) in quantiles.iter().zip(above).zip(survivals) {
            let level = quantile + above;
            let pick = if level < 1.0 { Self { level, survival } } else { FULL };
            let cost = pick.cost(price);
            if cost < least {
                (best, least) = (pick, cost);
            }
        }
        best
    }

    /// What it costs, in shares of the allocation.
    #[must_use]
    pub fn cost(&self, price: f32) -> f32 {
        self.level + price * self.survival
    }
}

/// Values with copies of the last one in the room beside them.
const fn widened(values: &[f32; QUANTILES]) -> [f32; WIDE] {
    let mut wide = [values[LAST]; WIDE];
    let mut at = 0;
    while at < QUANTILES {
        wide[at] = values[at];
        at += 1;
    }
    wide
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The probability that a curve gives a level.
    fn survival(quantiles: &[f32; QUANTILES], level: f32) -> f32 {
        let at = quantiles.partition_point(|known| *known <= level).clamp(1, LAST);
        let (from, to) = (quantiles[at - 1], quantiles[at]);
        let part = ((level - from) / (to - from)).clamp(0.0, 1.0);
        (LN_SURVIVAL[at - 1] + part * (LN_SURVIVAL[at] - LN_SURVIVAL[at - 1])).exp()
    }

    proptest! {
        #[test]
        fn no_level_on_the_curve_costs_less(
            start in 0.01f32..0.3, steps in prop::collection::vec(0.001f32..0.1, LAST), ln_price in -5.0f32..8.0,
        ) {
            let mut quantiles = [start; QUANTILES];
            for at in 1..QUANTILES {
                quantiles[at] = quantiles[at - 1] + steps[at - 1];
            }
            let price = ln_price.exp();
            let best = Pick::cheapest(&quantiles, price);
            prop_assert!(best.level <= 1.0 && best.survival <= 0.5);
            for step in 0..200u8 {
                let level = start + (quantiles[LAST].min(1.0) - start) * f32::from(step) / 199.0;
                let other = Pick { level, survival: survival(&quantiles, level) };
                prop_assert!(best.cost(price) <= other.cost(price) * 1.0001);
            }
        }
    }

    #[test]
    fn a_higher_price_of_misses_buys_a_higher_bound() {
        let quantiles = [0.1, 0.12, 0.15, 0.2, 0.26, 0.31, 0.4, 0.5, 0.6];
        let levels =
            [0.01f32, 0.5, 2.0, 10.0, 100.0, 1e6].map(|price| Pick::cheapest(&quantiles, price).level);
        assert!(levels.is_sorted() && levels[0] < 0.11 && levels[5] > 0.9, "{levels:?}");
    }
}
