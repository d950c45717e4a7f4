//! Adam with decoupled weight decay (Kingma and Ba 2015, "Adam"; Loshchilov and Hutter 2019, "Decoupled weight decay
//! regularization"), and the running mean of the weights, which is what ships (Polyak and Juditsky 1992 for the idea).

const FIRST: f32 = 0.9;
const SECOND: f32 = 0.999;
const TINY: f32 = 1e-7;

/// The weights while they are trained.
#[derive(Clone, Debug)]
pub struct Adam {
    /// The weights of this step.
    pub weights: Vec<f32>,
    /// Their running mean.
    pub averaged: Vec<f32>,
    mean: Vec<f32>,
    square: Vec<f32>,
    decay: Vec<f32>,
    averaging: f32,
    steps: i32,
}

impl Adam {
    /// Starts from these weights; `decays` says which of them shrink by `decay` × rate a step, and `averaging` is the
    /// share of a step in the running mean.
    #[must_use]
    pub fn new(weights: Vec<f32>, decays: &[bool], decay: f32, averaging: f32) -> Self {
        let zeros = vec![0.0; weights.len()];
        Self {
            averaged: weights.clone(),
            weights,
            mean: zeros.clone(),
            square: zeros,
            decay: decays.iter().map(|decays| if *decays { decay } else { 0.0 }).collect(),
            averaging,
            steps: 0,
        }
    }

    /// Goes one step down the gradient.
    pub fn step(&mut self, gradient: &[f32], rate: f32) {
        self.steps = self.steps.saturating_add(1);
        let mean_share = 1.0 - FIRST.powi(self.steps);
        let square_share = 1.0 - SECOND.powi(self.steps);
        let moments = self.mean.iter_mut().zip(&mut self.square);
        let weights = self.weights.iter_mut().zip(&mut self.averaged).zip(&self.decay);
        for (((weight, averaged), decay), ((mean, square), slope)) in weights.zip(moments.zip(gradient)) {
            *mean = FIRST * *mean + (1.0 - FIRST) * slope;
            *square = SECOND * *square + (1.0 - SECOND) * slope * slope;
            let descent = *mean / mean_share / ((*square / square_share).sqrt() + TINY);
            *weight -= rate * (descent + decay * *weight);
            *averaged += self.averaging * (*weight - *averaged);
        }
    }
}
