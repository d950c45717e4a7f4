//! How the networks that the program ships are made from recorded usage: rows from replaying series through the live
//! features, a quantile network fitted to them, and the prices of a miss that fit it. Seeded, single-threaded, plain loops: the
//! same series, recipe and machine give the same bytes.

pub mod adam;
pub mod chance;
pub mod fit;
pub mod gather;
pub mod network;
pub mod replay;
pub mod series;
pub mod start_prices;

pub use fit::Recipe;
pub use series::{Series, Split};

use chance::Chance;
use fit::Fitted;
use network::Shape;

use crate::{
    domain::Seconds,
    model::cqd::{
        features::{COUNT, NAMES},
        network::{QUANTILES, SURVIVAL},
        weights::{Nets, StartPrices, WeightsError, WeightsFile},
    },
};

impl Default for Recipe {
    fn default() -> Self {
        Self {
            shape: Shape { inputs: COUNT, first: 24, second: 16, levels: QUANTILES },
            survival: SURVIVAL.to_vec(),
            steps: 5000,
            batch: 2048,
            rate: 4e-3,
            warm_up: 100,
            decay: 1e-2,
            averaging: 5e-3,
            seed: 1,
        }
    }
}

/// Trains the network of a horizon, at most a day, and works out its table of prices. `progress` is told each step's
/// number and mean loss; `source` is what the weights will say of where they come from.
///
/// # Errors
/// When the recipe is for another shape than the program's, or training came to nothing that can be used.
pub fn train(
    series: &[Series],
    horizon: Seconds,
    recipe: &Recipe,
    source: &str,
    progress: impl FnMut(usize, f64),
) -> Result<WeightsFile, WeightsError> {
    let mut chance = Chance::new(recipe.seed);
    let rows = gather::gather(series, horizon, &mut chance);
    let fitted = fit::fit(&rows, recipe, progress);
    let provenance = format!(
        "{source}; {} rows, {} steps of {} rows, seed {}",
        rows.len(),
        recipe.steps,
        recipe.batch,
        recipe.seed
    );
    let mut file = weights_file(&fitted, horizon, provenance);
    let moments = gather::moments(series, horizon, &mut chance);
    let first_days = gather::first_days(series, horizon, &mut chance);
    let nets = Nets::of(std::slice::from_ref(&file))?;
    file.start_prices = start_prices::start_prices(&nets, horizon, &moments, &first_days);
    Ok(file)
}

fn weights_file(fitted: &Fitted, horizon: Seconds, provenance: String) -> WeightsFile {
    let parts = fitted.shape.parts(&fitted.weights);
    let rows = |flat: &[f32], width| flat.chunks_exact(width).map(<[f32]>::to_vec).collect();
    let zeros = vec![0.0; start_prices::TARGETS.len()];
    WeightsFile {
        horizon_seconds: horizon,
        provenance,
        features: NAMES.map(str::to_owned).to_vec(),
        survival: SURVIVAL.to_vec(),
        w1: rows(parts.w1, fitted.shape.first),
        b1: parts.b1.to_vec(),
        w2: rows(parts.w2, fitted.shape.second),
        b2: parts.b2.to_vec(),
        w3: rows(parts.w3, fitted.shape.levels),
        b3: parts.b3.to_vec(),
        skip: parts.skip.to_vec(),
        start_prices: StartPrices {
            targets: start_prices::TARGETS.to_vec(),
            per_vm: zeros.clone(),
            capped: zeros.clone(),
            fleet: zeros,
            first_day: Vec::new(),
        },
    }
}
