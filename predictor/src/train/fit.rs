//! Fits a quantile network to rows.

use super::adam::Adam;
use super::chance::Chance;
use super::network::{Block, LANES, Levels, Shape};

/// What a network learns from: one row a moment of one machine.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Scaled features, row after row.
    pub features: Vec<f32>,
    /// The logarithm of the peak over the horizon, relative to the row's base level.
    pub labels: Vec<f32>,
    /// How much each row counts, about 1 on average.
    pub weights: Vec<f32>,
}

impl Rows {
    /// How many rows there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.labels.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.labels.is_empty()
    }

    /// Adds the rows of another set behind these.
    pub fn append(&mut self, mut other: Self) {
        self.features.append(&mut other.features);
        self.labels.append(&mut other.labels);
        self.weights.append(&mut other.weights);
    }

    /// Puts rows, drawn with replacement or not, into a block; lanes without a row weigh nothing.
    fn fill(&self, block: &mut Block, drawn: impl Iterator<Item = usize>, scale: f32) {
        block.weight = [0.0; LANES];
        let width = block.inputs.len();
        for (lane, row) in drawn.enumerate() {
            let features = &self.features[row * width..(row + 1) * width];
            for (input, feature) in block.inputs.iter_mut().zip(features) {
                input[lane] = *feature;
            }
            block.label[lane] = self.labels[row];
            block.weight[lane] = self.weights[row] * scale;
        }
    }
}

/// How a network is fitted.
#[derive(Clone, Debug, PartialEq)]
pub struct Recipe {
    /// Size of the network.
    pub shape: Shape,
    /// The share of peaks above each of its quantiles, falling.
    pub survival: Vec<f32>,
    /// How many steps of gradient descent.
    pub steps: usize,
    /// Rows of a step; rounded up to whole blocks.
    pub batch: usize,
    /// Largest rate of descent.
    pub rate: f32,
    /// Steps until the rate is at its largest; afterwards it falls along a cosine.
    pub warm_up: usize,
    /// Decay of weights a step, times the rate.
    pub decay: f32,
    /// Share of a step in the running mean of the weights, which is the result.
    pub averaging: f32,
    /// Where chance starts.
    pub seed: u64,
}

/// A fitted network.
#[derive(Clone, Debug, PartialEq)]
pub struct Fitted {
    /// Its size.
    pub shape: Shape,
    /// Its parameters: w1, b1, w2, b2, w3, b3, skip, matrices row-major with a row for each of their inputs.
    pub weights: Vec<f32>,
}

/// Fits a network; `progress` is told each step's number and mean loss.
///
/// Without rows the network stays as it started.
pub fn fit(rows: &Rows, recipe: &Recipe, mut progress: impl FnMut(usize, f64)) -> Fitted {
    let mut chance = Chance::new(recipe.seed);
    let levels = Levels::at(&recipe.survival);
    let start = recipe.shape.initial(&mut chance);
    let mut adam = Adam::new(start, &recipe.shape.decays(), recipe.decay, recipe.averaging);
    let mut block = Block::new(recipe.shape);
    let mut gradient = vec![0.0; adam.weights.len()];
    let blocks = if rows.is_empty() { 0 } else { recipe.batch.div_ceil(LANES) };
    #[expect(clippy::cast_precision_loss, reason = "a batch is small")]
    let scale = 1.0 / (blocks * LANES).max(1) as f32;
    for step in 0..recipe.steps {
        gradient.fill(0.0);
        let mut loss = 0.0;
        for _ in 0..blocks {
            let drawn = (0..LANES).map(|_| chance.below(rows.len()));
            rows.fill(&mut block, drawn, scale);
            block.forward(&adam.weights);
            loss += block.loss(&levels);
            block.backward(&adam.weights, &levels, &mut gradient);
        }
        adam.step(&gradient, recipe.rate_at(step));
        progress(step, loss);
    }
    Fitted { shape: recipe.shape, weights: adam.averaged }
}

impl Recipe {
    /// Up in a line, down along a cosine to a hundredth.
    #[expect(clippy::cast_precision_loss, reason = "steps are few")]
    fn rate_at(&self, step: usize) -> f32 {
        let warm = ((step + 1) as f32 / self.warm_up.max(1) as f32).min(1.0);
        let fallen = 0.5 * (1.0 + (std::f32::consts::PI * step as f32 / self.steps as f32).cos());
        self.rate * warm * (fallen + 0.01)
    }
}

impl Fitted {
    /// The mean weighted loss over all rows.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "rows are fewer than 2^52")]
    pub fn loss(&self, rows: &Rows, survival: &[f32]) -> f64 {
        let levels = Levels::at(survival);
        let mut sum = 0.0;
        self.each_block(rows, |block, _| sum += block.loss(&levels));
        sum / rows.len().max(1) as f64
    }

    /// The quantiles of every row, in log units relative to its base level, row after row.
    #[must_use]
    pub fn quantiles(&self, rows: &Rows) -> Vec<f32> {
        let mut out = Vec::with_capacity(rows.len() * self.shape.levels);
        self.each_block(rows, |block, filled| {
            for lane in 0..filled {
                out.extend(block.quantiles.iter().map(|level| level[lane]));
            }
        });
        out
    }

    fn each_block(&self, rows: &Rows, mut then: impl FnMut(&Block, usize)) {
        let mut block = Block::new(self.shape);
        for start in (0..rows.len()).step_by(LANES) {
            let end = (start + LANES).min(rows.len());
            rows.fill(&mut block, start..end, 1.0);
            block.forward(&self.weights);
            then(&block, end - start);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Labels that are normal around half the first feature, with a spread that the second one says.
    fn rows(count: usize) -> Rows {
        let (mut chance, mut rows) = (Chance::new(11), Rows::default());
        for _ in 0..count {
            let (mean, wide) = (chance.normal(), chance.unit() > 0.5);
            rows.features.extend([mean, if wide { 1.0 } else { -1.0 }]);
            rows.labels.push(0.5 * mean + if wide { 0.6 } else { 0.2 } * chance.normal());
            rows.weights.push(1.0);
        }
        rows
    }

    fn recipe() -> Recipe {
        Recipe {
            shape: Shape { inputs: 2, first: 8, second: 6, levels: 3 },
            survival: vec![0.5, 0.1, 0.02],
            steps: 1000,
            batch: 128,
            rate: 1e-2,
            warm_up: 20,
            decay: 1e-2,
            averaging: 0.02,
            seed: 1,
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_weights_and_another_does_not() {
        let rows = rows(500);
        let few = Recipe { steps: 5, ..recipe() };
        let first = fit(&rows, &few, |_, _| {});
        assert_eq!(first, fit(&rows, &few, |_, _| {}));
        assert_ne!(first, fit(&rows, &Recipe { seed: 2, ..few }, |_, _| {}));
    }

    #[test]
    #[expect(clippy::cast_precision_loss, reason = "few rows")]
    fn it_finds_the_quantiles_of_what_it_saw() {
        let (rows, recipe) = (rows(4000), recipe());
        let before = fit(&rows, &Recipe { steps: 0, ..recipe.clone() }, |_, _| {});
        let after = fit(&rows, &recipe, |_, _| {});
        let losses = [before, after.clone()].map(|net| net.loss(&rows, &recipe.survival));
        assert!(losses[1] < 0.5 * losses[0], "{losses:?}");
        let quantiles = after.quantiles(&rows);
        for wide in [true, false] {
            for (level, share) in recipe.survival.iter().enumerate() {
                let mine = |row: &usize| (rows.features[row * 2 + 1] > 0.0) == wide;
                let all: Vec<usize> = (0..rows.len()).filter(mine).collect();
                let above =
                    all.iter().filter(|row| rows.labels[**row] > quantiles[**row * 3 + level]).count();
                let rate = above as f32 / all.len() as f32;
                assert!((rate - share).abs() < 0.01 + 0.25 * share, "wide {wide} at {share}: {rate}");
            }
        }
    }
}
