//! The shipped weights: one file a horizon, each saying what it is, read once.
//!
//! A file holds the network of its horizon and, for each fairness and some targets, the price of a miss from which
//! trackers start (natural logarithm, in shares of the allocation).

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::{
    features::{COUNT, NAMES},
    math,
    network::{Layers, Network, QUANTILES, SURVIVAL},
};
use crate::{boundary::Fairness, domain::Seconds, model::Terms};

/// Every file that ships.
const SHIPPED: [&str; 5] = [
    include_str!("../../../weights/5m.json"),
    include_str!("../../../weights/15m.json"),
    include_str!("../../../weights/60m.json"),
    include_str!("../../../weights/360m.json"),
    include_str!("../../../weights/1440m.json"),
];

/// What a file of weights holds. Matrices are lists of rows, a row for each input.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WeightsFile {
    /// The horizon that it was trained for.
    pub horizon_seconds: f64,
    /// From what it was trained, and how.
    pub provenance: String,
    /// The names of its inputs, in order.
    pub features: Vec<String>,
    /// Probability with which each quantile is exceeded, in order.
    pub survival: Vec<f32>,
    /// First layer.
    pub w1: Vec<Vec<f32>>,
    /// Its bias.
    pub b1: Vec<f32>,
    /// Second layer.
    pub w2: Vec<Vec<f32>>,
    /// Its bias.
    pub b2: Vec<f32>,
    /// Last layer.
    pub w3: Vec<Vec<f32>>,
    /// Its bias.
    pub b3: Vec<f32>,
    /// What the inputs add to the first output directly.
    pub skip: Vec<f32>,
    /// Where prices start.
    pub start_prices: StartPrices,
}

/// Logarithms of the price of a miss from which trackers start, one for each target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartPrices {
    /// Targets, falling.
    pub targets: Vec<f64>,
    /// For every VM at its target.
    pub per_vm: Vec<f64>,
    /// For the fleet's mean with a cap for each VM.
    pub capped: Vec<f64>,
    /// For the fleet's mean.
    pub fleet: Vec<f64>,
    /// What is added for every VM at its target while the machine has no past; empty is nothing.
    #[serde(default)]
    pub first_day: Vec<f64>,
}

/// Why weights cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// No such file at all.
    #[error("the weights cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// For other inputs or outputs than this program's.
    #[error("the weights are for other features or quantiles than this program's; train them anew")]
    Foreign,
    /// A matrix of another size.
    #[error("the weights' {0} has the wrong shape; train them anew")]
    Shape(&'static str),
    /// A number that is none, or a table out of order.
    #[error("the weights' {0} holds a number that cannot be; train them anew")]
    Number(&'static str),
    /// Nothing to forecast with.
    #[error("no weights were given")]
    None,
}

/// Networks for some horizons, shortest first.
#[derive(Clone, Debug)]
pub struct Nets(Vec<Net>);

#[derive(Clone, Debug)]
struct Net {
    horizon: Seconds,
    network: Network,
    ln_targets: Vec<f32>,
    /// By fairness.
    start_prices: [Vec<f64>; 3],
    first_day: Vec<f64>,
}

impl Nets {
    /// The weights that ship with the program.
    ///
    /// # Panics
    /// If what was compiled in is no set of weights; a test sees to it that it is.
    #[must_use]
    #[expect(clippy::expect_used, reason = "compiled in and tested")]
    pub fn shipped() -> &'static Self {
        static NETS: LazyLock<Nets> =
            LazyLock::new(|| Nets::parse(&SHIPPED).expect("the shipped weights are sound"));
        &NETS
    }

    /// Reads the contents of weight files.
    ///
    /// # Errors
    /// Anything that is not a sound set of weights for this program's features.
    pub fn parse(files: &[&str]) -> Result<Self, WeightsError> {
        let files: Result<Vec<WeightsFile>, _> =
            files.iter().map(|file| serde_json::from_str(file)).collect();
        Self::of(&files?)
    }

    /// Takes weights as they were trained.
    ///
    /// # Errors
    /// As [`Nets::parse`].
    pub fn of(files: &[WeightsFile]) -> Result<Self, WeightsError> {
        let mut nets = files.iter().map(Net::of).collect::<Result<Vec<_>, _>>()?;
        nets.sort_by(|a, b| a.horizon.total_cmp(&b.horizon));
        if nets.is_empty() { Err(WeightsError::None) } else { Ok(Self(nets)) }
    }

    /// Logarithms of the quantiles of the peak, relative to the largest level of a day. Between the horizons of two
    /// networks they are interpolated in the logarithm of the horizon; beyond, the nearest network answers.
    #[must_use]
    pub fn quantiles(&self, design: &[f32; COUNT], horizon: Seconds) -> [f32; QUANTILES] {
        let (below, above, part) = self.around(horizon);
        let mut quantiles = below.network.quantiles(design);
        if let Some(above) = above {
            for (low, high) in quantiles.iter_mut().zip(above.network.quantiles(design)) {
                *low += part * (high - *low);
            }
        }
        quantiles
    }

    /// Logarithm of the price of a miss from which a tracker starts, for a machine that is as new as `newness` says:
    /// 1 on its first day, 0 when it has a past; more than 1 adds to the price by as many times more.
    #[must_use]
    pub fn start_price(&self, terms: &Terms, newness: f64) -> f64 {
        let (below, above, part) = self.around(terms.horizon);
        let low = below.start_price(terms, newness);
        above.map_or(low, |above| low + f64::from(part) * (above.start_price(terms, newness) - low))
    }

    /// The networks around a horizon and how far it lies from the first to the second.
    fn around(&self, horizon: Seconds) -> (&Net, Option<&Net>, f32) {
        let above = self.0.partition_point(|net| net.horizon < horizon);
        match (above.checked_sub(1).map(|below| &self.0[below]), self.0.get(above)) {
            (Some(below), Some(above)) if above.horizon > horizon => {
                let part = ln(horizon / below.horizon) / ln(above.horizon / below.horizon);
                (below, Some(above), part)
            }
            (_, Some(only)) => (only, None, 0.0),
            _ => (&self.0[self.0.len() - 1], None, 0.0),
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "seven digits of a logarithm are plenty")]
fn ln(number: f64) -> f32 {
    math::ln(number as f32)
}

impl Net {
    fn of(file: &WeightsFile) -> Result<Self, WeightsError> {
        let foreign = file.features.iter().ne(NAMES.iter()) || file.survival != SURVIVAL;
        if foreign {
            return Err(WeightsError::Foreign);
        }
        if !(file.horizon_seconds.is_finite() && file.horizon_seconds > 0.0) {
            return Err(WeightsError::Number("horizon"));
        }
        let prices = &file.start_prices;
        let ln_targets: Vec<f32> = prices.targets.iter().map(|target| ln(*target)).collect();
        let sound = prices.targets.iter().all(|target| *target > 0.0 && *target < 1.0);
        if ln_targets.is_empty() || !sound || !ln_targets.is_sorted_by(|a, b| a > b) {
            return Err(WeightsError::Number("list of targets"));
        }
        let starts = [&prices.per_vm, &prices.capped, &prices.fleet].map(Clone::clone);
        let mut first_day = prices.first_day.clone();
        if first_day.is_empty() {
            first_day.resize(ln_targets.len(), 0.0);
        }
        if starts.iter().chain([&first_day]).any(|list| list.len() != ln_targets.len()) {
            return Err(WeightsError::Shape("list of start prices"));
        }
        if starts.iter().flatten().chain(&first_day).any(|price| !price.is_finite()) {
            return Err(WeightsError::Number("list of start prices"));
        }
        Ok(Self {
            horizon: file.horizon_seconds,
            network: Network::of(&Layers {
                first: matrix(&file.w1, "first layer")?,
                first_bias: row(&file.b1, "first bias")?,
                second: matrix(&file.w2, "second layer")?,
                second_bias: row(&file.b2, "second bias")?,
                third: matrix(&file.w3, "last layer")?,
                third_bias: row(&file.b3, "last bias")?,
                skip: row(&file.skip, "skip")?,
            }),
            ln_targets,
            start_prices: starts,
            first_day,
        })
    }

    fn start_price(&self, terms: &Terms, newness: f64) -> f64 {
        let price = self.at(terms, &self.start_prices[terms.fairness as usize]);
        let new = newness > 0.0 && terms.fairness == Fairness::PerVm;
        if new { price + newness * self.at(terms, &self.first_day) } else { price }
    }

    /// A list of prices at the target of `terms`.
    fn at(&self, terms: &Terms, prices: &[f64]) -> f64 {
        let ln_target = ln(terms.target);
        let last = prices.len() - 1;
        let after = self.ln_targets.partition_point(|known| *known > ln_target);
        if after == 0 {
            return prices[0];
        }
        if after > last {
            return prices[last];
        }
        let (from, to) = (self.ln_targets[after - 1], self.ln_targets[after]);
        prices[after - 1] + f64::from((ln_target - from) / (to - from)) * (prices[after] - prices[after - 1])
    }
}

fn row<const N: usize>(values: &[f32], name: &'static str) -> Result<[f32; N], WeightsError> {
    let row: [f32; N] = values.try_into().map_err(|_| WeightsError::Shape(name))?;
    if row.iter().all(|value| value.is_finite()) { Ok(row) } else { Err(WeightsError::Number(name)) }
}

fn matrix<const N: usize, const M: usize>(
    values: &[Vec<f32>],
    name: &'static str,
) -> Result<[[f32; M]; N], WeightsError> {
    let rows = values.iter().map(|values| row(values, name)).collect::<Result<Vec<[f32; M]>, _>>()?;
    rows.try_into().map_err(|_| WeightsError::Shape(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Signal;

    fn file() -> WeightsFile {
        serde_json::from_str(SHIPPED[0]).unwrap()
    }

    #[test]
    fn shipped_weights_are_sound() {
        let nets = Nets::shipped();
        assert_eq!(nets.0.len(), SHIPPED.len());
        assert!(nets.0.is_sorted_by(|a, b| a.horizon < b.horizon));
    }

    #[test]
    fn unsound_weights_are_refused_by_name() {
        let refused = |change: fn(&mut WeightsFile)| {
            let mut file = file();
            change(&mut file);
            Nets::of(&[file]).unwrap_err().to_string()
        };
        assert!(refused(|file| file.w2[3][2] = f32::NAN).contains("second layer"));
        assert!(refused(|file| _ = file.w1.pop()).contains("first layer has the wrong shape"));
        assert!(refused(|file| file.features.swap(0, 1)).contains("other features"));
        assert!(refused(|file| file.start_prices.targets.swap(0, 1)).contains("targets"));
        assert!(refused(|file| _ = file.start_prices.fleet.pop()).contains("start prices"));
        assert!(matches!(Nets::parse(&["{}"]), Err(WeightsError::Json(_))));
        assert!(matches!(Nets::of(&[]), Err(WeightsError::None)));
    }

    #[test]
    fn horizons_and_targets_between_are_interpolated_and_beyond_stand_still() {
        let (mut near, mut far) = (file(), file());
        (near.horizon_seconds, far.horizon_seconds) = (100.0, 400.0);
        far.b3[0] += 1.0;
        far.start_prices.per_vm = far.start_prices.per_vm.iter().map(|price| price + 2.0).collect();
        let (targets, prices) = (near.start_prices.targets.clone(), near.start_prices.per_vm.clone());
        let nets = Nets::of(&[far, near]).unwrap();
        let design = [0.1; COUNT];
        let median = |horizon| nets.quantiles(&design, horizon)[0];
        assert!((median(200.0) - median(100.0) - 0.5).abs() < 1e-5);
        assert!((median(400.0) - median(100.0) - 1.0).abs() < 1e-5);
        assert!((median(9000.0) - median(400.0)).abs() < 1e-9 && (median(1.0) - median(100.0)).abs() < 1e-9);

        let price = |horizon, target| {
            let terms = Terms { signal: Signal::Rss, horizon, target, fairness: Fairness::PerVm };
            nets.start_price(&terms, 0.0)
        };
        assert!((price(200.0, targets[1]) - prices[1] - 1.0).abs() < 1e-5);
        let between = (targets[1] * targets[2]).sqrt();
        assert!((price(100.0, between) - f64::midpoint(prices[1], prices[2])).abs() < 1e-5);
        assert!((price(50.0, 0.9) - prices[0]).abs() < 1e-9);
        assert!((price(50.0, 1e-9) - prices[prices.len() - 1]).abs() < 1e-9);
    }
}
