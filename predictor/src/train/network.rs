//! The quantile network while it is trained: forward, loss and gradient over blocks of rows, in plain loops that the
//! compiler vectorises because a block is the innermost dimension.
//!
//! Two hidden layers with rectifiers; the first output is the lowest quantile (plus a direct linear path from the inputs),
//! each further one adds a softplus increment, so the quantiles cannot cross.

use super::chance::Chance;

/// Rows that go through the network side by side.
pub const LANES: usize = 32;

/// One value of each row of a block.
pub type Lanes = [f32; LANES];

/// Half the width over which the corner of the pinball loss is rounded, in log units: 2 % of a level.
const ROUNDING: f32 = 0.02;

/// How many inputs, hidden units and quantile levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Features of a row.
    pub inputs: usize,
    /// Units of the first hidden layer.
    pub first: usize,
    /// Units of the second hidden layer.
    pub second: usize,
    /// Quantile levels.
    pub levels: usize,
}

/// Where each part lies in the flat vector of parameters. Matrices are row-major, a row for each of their inputs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Parts<T> {
    pub(super) w1: T,
    pub(super) b1: T,
    pub(super) w2: T,
    pub(super) b2: T,
    pub(super) w3: T,
    pub(super) b3: T,
    pub(super) skip: T,
}

impl Shape {
    fn sizes(self) -> Parts<usize> {
        Parts {
            w1: self.inputs * self.first,
            b1: self.first,
            w2: self.first * self.second,
            b2: self.second,
            w3: self.second * self.levels,
            b3: self.levels,
            skip: self.inputs,
        }
    }

    /// How many parameters a network of this shape has.
    #[must_use]
    pub fn parameters(self) -> usize {
        let Parts { w1, b1, w2, b2, w3, b3, skip } = self.sizes();
        w1 + b1 + w2 + b2 + w3 + b3 + skip
    }

    /// Whether each parameter is a weight, which decays, or a bias, which does not.
    #[must_use]
    pub fn decays(self) -> Vec<bool> {
        let Parts { w1, b1, w2, b2, w3, b3, skip } = self.sizes();
        [(w1, true), (b1, false), (w2, true), (b2, false), (w3, true), (b3, false), (skip, true)]
            .into_iter()
            .flat_map(|(size, decays)| std::iter::repeat_n(decays, size))
            .collect()
    }

    pub(super) fn parts(self, flat: &[f32]) -> Parts<&[f32]> {
        let sizes = self.sizes();
        let (w1, rest) = flat.split_at(sizes.w1);
        let (b1, rest) = rest.split_at(sizes.b1);
        let (w2, rest) = rest.split_at(sizes.w2);
        let (b2, rest) = rest.split_at(sizes.b2);
        let (w3, rest) = rest.split_at(sizes.w3);
        let (b3, skip) = rest.split_at(sizes.b3);
        Parts { w1, b1, w2, b2, w3, b3, skip }
    }

    fn parts_mut(self, flat: &mut [f32]) -> Parts<&mut [f32]> {
        let sizes = self.sizes();
        let (w1, rest) = flat.split_at_mut(sizes.w1);
        let (b1, rest) = rest.split_at_mut(sizes.b1);
        let (w2, rest) = rest.split_at_mut(sizes.w2);
        let (b2, rest) = rest.split_at_mut(sizes.b2);
        let (w3, rest) = rest.split_at_mut(sizes.w3);
        let (b3, skip) = rest.split_at_mut(sizes.b3);
        Parts { w1, b1, w2, b2, w3, b3, skip }
    }

    /// First parameters: normal weights scaled by the width of their input, quantiles that start close together.
    #[must_use]
    pub fn initial(self, chance: &mut Chance) -> Vec<f32> {
        let mut flat = vec![0.0; self.parameters()];
        let parts = self.parts_mut(&mut flat);
        for (weights, gain, fan_in) in
            [(parts.w1, 1.0, self.inputs), (parts.w2, 1.4, self.first), (parts.w3, 0.3, self.second)]
        {
            #[expect(clippy::cast_precision_loss, reason = "widths are small")]
            let scale = gain / (fan_in as f32).sqrt();
            weights.fill_with(|| scale * chance.normal());
        }
        parts.b3.fill(-1.5);
        parts.b3[0] = -1.0;
        flat
    }
}

/// What the loss weighs: the share of labels that may lie above each level, and each level's weight.
#[derive(Clone, Debug)]
pub struct Levels {
    /// P(label ≤ quantile) at each level.
    pub below: Vec<f32>,
    /// Weight of each level's loss, mean 1.
    pub weight: Vec<f32>,
}

impl Levels {
    /// Levels at which a share `survival` of labels lies above. Rare levels weigh more, by the root of their rarity.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a handful of levels")]
    pub fn at(survival: &[f32]) -> Self {
        let raw: Vec<f32> = survival.iter().map(|share| share.powf(-0.5)).collect();
        let mean = raw.iter().sum::<f32>() / raw.len() as f32;
        Self {
            below: survival.iter().map(|share| 1.0 - share).collect(),
            weight: raw.iter().map(|weight| weight / mean).collect(),
        }
    }
}

/// Room for one block's activations and their gradients.
#[derive(Clone, Debug)]
pub struct Block {
    shape: Shape,
    /// The rows, feature by feature; for the caller to fill.
    pub inputs: Vec<Lanes>,
    /// What each row should have answered; for the caller to fill.
    pub label: Lanes,
    /// How much each row counts; 0 for lanes that hold no row. For the caller to fill.
    pub weight: Lanes,
    hidden1: Vec<Lanes>,
    hidden2: Vec<Lanes>,
    raw: Vec<Lanes>,
    /// The quantiles of each row, level by level, after [`Block::forward`].
    pub quantiles: Vec<Lanes>,
    d_raw: Vec<Lanes>,
    d_hidden2: Vec<Lanes>,
    d_hidden1: Vec<Lanes>,
}

impl Block {
    /// Room for networks of this shape.
    #[must_use]
    pub fn new(shape: Shape) -> Self {
        let lanes = |count| vec![[0.0; LANES]; count];
        Self {
            shape,
            inputs: lanes(shape.inputs),
            label: [0.0; LANES],
            weight: [0.0; LANES],
            hidden1: lanes(shape.first),
            hidden2: lanes(shape.second),
            raw: lanes(shape.levels),
            quantiles: lanes(shape.levels),
            d_raw: lanes(shape.levels),
            d_hidden2: lanes(shape.second),
            d_hidden1: lanes(shape.first),
        }
    }

    /// Works out the quantiles of the block's rows.
    pub fn forward(&mut self, flat: &[f32]) {
        let parts = self.shape.parts(flat);
        layer(parts.w1, parts.b1, &self.inputs, &mut self.hidden1);
        rectify(&mut self.hidden1);
        layer(parts.w2, parts.b2, &self.hidden1, &mut self.hidden2);
        rectify(&mut self.hidden2);
        layer(parts.w3, parts.b3, &self.hidden2, &mut self.raw);
        let mut sum = self.raw[0];
        for (input, weight) in self.inputs.iter().zip(parts.skip) {
            add_scaled(&mut sum, *weight, input);
        }
        self.quantiles[0] = sum;
        for (raw, quantile) in self.raw.iter().zip(&mut self.quantiles).skip(1) {
            for (sum, raw) in sum.iter_mut().zip(raw) {
                *sum += softplus(*raw);
            }
            *quantile = sum;
        }
    }

    /// The weighted loss of the block's rows, after [`Block::forward`].
    #[must_use]
    pub fn loss(&self, levels: &Levels) -> f64 {
        let mut loss = 0.0;
        for ((quantile, below), weight) in self.quantiles.iter().zip(&levels.below).zip(&levels.weight) {
            for ((quantile, label), row) in quantile.iter().zip(&self.label).zip(&self.weight) {
                loss += f64::from(pinball(quantile - label, *below)) * f64::from(weight * row);
            }
        }
        loss
    }

    /// Adds the gradient of the loss to `gradient`, after [`Block::forward`].
    pub fn backward(&mut self, flat: &[f32], levels: &Levels, gradient: &mut [f32]) {
        let parts = self.shape.parts(flat);
        // A level moves every level above it: sums from the top.
        let mut from_top = [0.0; LANES];
        for level in (0..self.shape.levels).rev() {
            let (below, weight) = (levels.below[level], levels.weight[level]);
            for (lane, sum) in from_top.iter_mut().enumerate() {
                let over = self.quantiles[level][lane] - self.label[lane];
                *sum += (slope(over) - below) * weight * self.weight[lane];
            }
            self.d_raw[level] = from_top;
            if level > 0 {
                for (d, raw) in self.d_raw[level].iter_mut().zip(&self.raw[level]) {
                    *d *= sigmoid(*raw);
                }
            }
        }
        backward_through(parts.w3, &self.d_raw, &self.hidden2, &mut self.d_hidden2);
        backward_through(parts.w2, &self.d_hidden2, &self.hidden1, &mut self.d_hidden1);

        let sums = self.shape.parts_mut(gradient);
        weight_gradient(&self.inputs, &self.d_hidden1, sums.w1, sums.b1);
        weight_gradient(&self.hidden1, &self.d_hidden2, sums.w2, sums.b2);
        weight_gradient(&self.hidden2, &self.d_raw, sums.w3, sums.b3);
        for (sum, input) in sums.skip.iter_mut().zip(&self.inputs) {
            *sum += dot(input, &from_top);
        }
    }
}

fn layer(weights: &[f32], biases: &[f32], inputs: &[Lanes], outputs: &mut [Lanes]) {
    for (unit, (output, bias)) in outputs.iter_mut().zip(biases).enumerate() {
        let mut sum = [*bias; LANES];
        for (input, row) in inputs.iter().zip(weights.chunks_exact(biases.len())) {
            add_scaled(&mut sum, row[unit], input);
        }
        *output = sum;
    }
}

fn rectify(units: &mut [Lanes]) {
    for value in units.iter_mut().flatten() {
        *value = value.max(0.0);
    }
}

/// From the gradient of a layer's outputs to that of its inputs, which went through a rectifier.
fn backward_through(weights: &[f32], d_outputs: &[Lanes], inputs: &[Lanes], d_inputs: &mut [Lanes]) {
    let rows = weights.chunks_exact(d_outputs.len());
    for ((row, input), d_input) in rows.zip(inputs).zip(d_inputs) {
        let mut sum = [0.0; LANES];
        for (weight, d_output) in row.iter().zip(d_outputs) {
            add_scaled(&mut sum, *weight, d_output);
        }
        for ((d, sum), value) in d_input.iter_mut().zip(sum).zip(input) {
            *d = if *value > 0.0 { sum } else { 0.0 };
        }
    }
}

fn weight_gradient(inputs: &[Lanes], d_outputs: &[Lanes], weights: &mut [f32], biases: &mut [f32]) {
    for (row, input) in weights.chunks_exact_mut(d_outputs.len()).zip(inputs) {
        for (sum, d_output) in row.iter_mut().zip(d_outputs) {
            *sum += dot(input, d_output);
        }
    }
    for (sum, d_output) in biases.iter_mut().zip(d_outputs) {
        *sum += d_output.iter().sum::<f32>();
    }
}

fn add_scaled(sum: &mut Lanes, scale: f32, values: &Lanes) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += scale * value;
    }
}

/// Eight running sums, so that the order of additions lets the compiler vectorise.
fn dot(a: &Lanes, b: &Lanes) -> f32 {
    let mut sums = [0.0; 8];
    for (a, b) in a.chunks_exact(8).zip(b.chunks_exact(8)) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let (low, high) = sums.split_at(4);
    let pairs = [low[0] + high[0], low[1] + high[1], low[2] + high[2], low[3] + high[3]];
    (pairs[0] + pairs[1]) + (pairs[2] + pairs[3])
}

fn softplus(value: f32) -> f32 {
    value.max(0.0) + (-value.abs()).exp().ln_1p()
}

fn sigmoid(value: f32) -> f32 {
    1.0 / (1.0 + (-value).exp())
}

/// The pinball loss (Koenker and Bassett 1978) of a quantile that lies `over` above the label, its corner rounded
/// so that the gradient does not jump.
fn pinball(over: f32, below: f32) -> f32 {
    let corner = (over + ROUNDING).clamp(0.0, 2.0 * ROUNDING);
    corner * corner / (4.0 * ROUNDING) + (over - ROUNDING).max(0.0) - below * over
}

/// The derivative of [`pinball`], plus `below`.
fn slope(over: f32) -> f32 {
    (over / (2.0 * ROUNDING) + 0.5).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHAPE: Shape = Shape { inputs: 5, first: 6, second: 4, levels: 3 };

    #[test]
    #[expect(clippy::cast_possible_truncation, reason = "a difference quotient")]
    fn the_gradient_is_that_of_the_loss() {
        let mut chance = Chance::new(7);
        let mut flat = SHAPE.initial(&mut chance);
        for weight in &mut flat {
            *weight += 0.2 * chance.normal();
        }
        let levels = Levels::at(&[0.5, 0.1, 0.01]);
        let mut block = Block::new(SHAPE);
        block.inputs.iter_mut().flatten().for_each(|value| *value = chance.normal());
        block.label.fill_with(|| chance.normal());
        block.weight.fill_with(|| 0.5 + chance.normal().abs());

        let mut gradient = vec![0.0; SHAPE.parameters()];
        block.forward(&flat);
        block.backward(&flat, &levels, &mut gradient);
        let mut at = |place: usize, moved: f32| {
            let mut other = flat.clone();
            other[place] += moved;
            block.forward(&other);
            block.loss(&levels)
        };
        for (place, expected) in gradient.iter().enumerate() {
            let slope = ((at(place, 2e-4) - at(place, -2e-4)) / 4e-4) as f32;
            assert!((slope - expected).abs() < 0.05 * (1.0 + expected.abs()), "{place}: {slope} {expected}");
        }
    }

    #[test]
    fn quantiles_never_cross() {
        let mut chance = Chance::new(3);
        let mut block = Block::new(SHAPE);
        let flat: Vec<f32> = (0..SHAPE.parameters()).map(|_| 3.0 * chance.normal()).collect();
        block.inputs.iter_mut().flatten().for_each(|value| *value = 4.0 * chance.normal());
        block.forward(&flat);
        for pair in block.quantiles.windows(2) {
            assert!(pair[0].iter().zip(&pair[1]).all(|(low, high)| low <= high));
        }
    }
}
