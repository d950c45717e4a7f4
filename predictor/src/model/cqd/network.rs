//! The quantile network: two small layers, and quantiles that cannot cross because each adds a positive step
//! (softplus) to the one before (Cannon 2018, "Non-crossing nonlinear regression quantiles by monotone composite
//! quantile regression neural network").

use super::{features::COUNT, math};

/// Quantiles that a network gives.
pub const QUANTILES: usize = 9;

/// Probability with which each quantile is exceeded.
pub const SURVIVAL: [f32; QUANTILES] = [0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001];

const FIRST: usize = 24;
const SECOND: usize = 16;

/// Outputs of the first layer, the skip's beside them, and room to the next whole vector.
const FIRST_WIDE: usize = 28;
/// Quantiles and room to the next whole vector.
const WIDE: usize = 12;

/// The weights of one horizon.
#[derive(Clone, Debug, PartialEq)]
pub struct Network {
    first: [[f32; FIRST_WIDE]; COUNT],
    first_bias: [f32; FIRST_WIDE],
    second: [[f32; SECOND]; FIRST],
    second_bias: [f32; SECOND],
    third: [[f32; WIDE]; SECOND],
    third_bias: [f32; WIDE],
}

/// Weights as they are trained: a row for each input.
pub(super) struct Layers {
    pub(super) first: [[f32; FIRST]; COUNT],
    pub(super) first_bias: [f32; FIRST],
    pub(super) second: [[f32; SECOND]; FIRST],
    pub(super) second_bias: [f32; SECOND],
    pub(super) third: [[f32; QUANTILES]; SECOND],
    pub(super) third_bias: [f32; QUANTILES],
    pub(super) skip: [f32; COUNT],
}

impl Network {
    /// Lays trained weights out so that whole vectors of them are read.
    pub(super) fn of(layers: &Layers) -> Self {
        let mut first = layers.first.map(|row| widened(&row));
        for (row, skip) in first.iter_mut().zip(layers.skip) {
            row[FIRST] = skip;
        }
        Self {
            first,
            first_bias: widened(&layers.first_bias),
            second: layers.second,
            second_bias: layers.second_bias,
            third: layers.third.map(|row| widened(&row)),
            third_bias: widened(&layers.third_bias),
        }
    }

    /// Logarithms of the quantiles of the coming peak, relative to the largest level of a day.
    #[must_use]
    pub fn quantiles(&self, design: &[f32; COUNT]) -> [f32; QUANTILES] {
        let first = layer(&self.first, &self.first_bias, design);
        let skipped = first[FIRST];
        let second = layer(&self.second, &self.second_bias, &first.map(|value| value.max(0.0)));
        let out = layer(&self.third, &self.third_bias, &second.map(|value| value.max(0.0)));
        let mut steps = out.map(math::softplus);
        steps[0] = out[0] + skipped;
        let mut quantiles = [steps[0]; QUANTILES];
        for at in 1..QUANTILES {
            quantiles[at] = quantiles[at - 1] + steps[at];
        }
        quantiles
    }
}

/// What a layer gives; inputs beyond its rows do not count.
fn layer<const IN: usize, const ROWS: usize, const OUT: usize>(
    weights: &[[f32; OUT]; ROWS],
    bias: &[f32; OUT],
    input: &[f32; IN],
) -> [f32; OUT] {
    let mut out = *bias;
    for (row, value) in weights.iter().zip(input) {
        for (sum, weight) in out.iter_mut().zip(row) {
            *sum += weight * value;
        }
    }
    out
}

fn widened<const N: usize, const M: usize>(row: &[f32; N]) -> [f32; M] {
    let mut wide = [0.0; M];
    wide[..N].copy_from_slice(row);
    wide
}
