//! The histogram of Kubernetes' recommender: buckets that grow by a twentieth, weights that halve with time.

use serde::{Deserialize, Serialize};

/// Upper edge of the first bucket, bytes.
const FIRST: f64 = 1e7;
/// How much wider each bucket is than the one before.
const RATIO: f64 = 1.05;
/// Where the last bucket begins at the latest, bytes. The recommender's is 1 TB; machines can be larger than pods.
const LARGEST: f64 = 1e14;
/// Weights are scaled back before they have doubled this often.
const MOST_DOUBLINGS: f64 = 100.0;

/// A histogram of bytes whose weights halve every `half_life` units of time; which unit is the caller's to say.
///
/// Source: Kubernetes vertical pod autoscaler, `decaying_histogram.go` and `histogram_options.go`; buckets the first of
/// 10 MB, the n-th beginning at 10 MB · (1.05ⁿ − 1) / 0.05.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Histogram {
    half_life: f64,
    /// A value of this time weighs 1.
    reference: i64,
    weights: Vec<f64>,
    total: f64,
}

impl Histogram {
    pub(super) fn with_half_life(half_life: f64) -> Self {
        Self { half_life, reference: 0, weights: vec![0.0; bucket_of(LARGEST) + 1], total: 0.0 }
    }

    pub(super) fn add(&mut self, time: i64, bytes: f64) {
        if self.doublings(time) > MOST_DOUBLINGS {
            let scale = (-self.doublings(time)).exp2();
            self.weights.iter_mut().for_each(|weight| *weight *= scale);
            self.reference = time;
        }
        let (bucket, weight) = (self.bucket(bytes), self.doublings(time).exp2());
        self.weights[bucket] += weight;
        self.total = self.weights.iter().sum();
    }

    /// Upper edge of the bucket at which `share` of all weight is reached, with a value of the running time as part
    /// of it, so it is never empty.
    pub(super) fn percentile_with(&self, share: f64, time: i64, bytes: f64) -> f64 {
        let (own, weight) = (self.bucket(bytes), self.doublings(time).min(1000.0).exp2());
        let wanted = share * (self.total + weight);
        let mut reached = 0.0;
        for (bucket, weighs) in self.weights.iter().enumerate() {
            reached += weighs;
            if bucket == own {
                reached += weight;
            }
            if reached >= wanted {
                return begin_of(bucket + 1);
            }
        }
        // Rounding alone can get here: the last bucket that weighs anything is meant.
        let last = self.weights.iter().rposition(|weight| *weight > 0.0).unwrap_or(own).max(own);
        begin_of(last + 1)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::with_half_life(self.half_life);
    }

    #[expect(clippy::cast_precision_loss, reason = "far below 2^53 steps")]
    fn doublings(&self, time: i64) -> f64 {
        time.saturating_sub(self.reference) as f64 / self.half_life
    }

    fn bucket(&self, bytes: f64) -> usize {
        bucket_of(bytes).min(self.weights.len() - 1)
    }
}

/// The bucket of a value.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "never negative, and the cast saturates"
)]
fn bucket_of(bytes: f64) -> usize {
    (bytes / FIRST).mul_add(RATIO - 1.0, 1.0).ln().div_euclid(RATIO.ln()).max(0.0) as usize
}

/// Lower edge of a bucket.
#[expect(clippy::cast_precision_loss, reason = "there are 176 buckets")]
fn begin_of(bucket: usize) -> f64 {
    FIRST * (RATIO.powf(bucket as f64) - 1.0) / (RATIO - 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_those_of_the_recommender() {
        assert_eq!((bucket_of(0.0), bucket_of(9.9e6), bucket_of(1.01e7), bucket_of(2.06e7)), (0, 0, 1, 2));
        assert!((begin_of(2) - 2.05e7).abs() < 1.0);
        for bytes in [1e8, 3e9, 7e11, LARGEST] {
            assert!(begin_of(bucket_of(bytes)) <= bytes && begin_of(bucket_of(bytes) + 1) > bytes, "{bytes}");
        }
    }

    #[test]
    fn weights_halve_and_survive_a_century_of_steps() {
        let mut histogram = Histogram::with_half_life(288.0);
        histogram.add(0, 4e9);
        // One half-life later two new values outweigh the old one: 0.5 against 2.
        histogram.add(288, 1e9);
        let low = histogram.percentile_with(0.8, 288, 1e9);
        assert!((1e9..1.06e9).contains(&low), "{low}");
        let high = histogram.percentile_with(0.81, 288, 1e9);
        assert!((4e9..4.21e9).contains(&high), "{high}");
        histogram.add(100 * 365 * 288, 2e9);
        let now = histogram.percentile_with(0.999, 100 * 365 * 288, 2e9);
        assert!((2e9..2.11e9).contains(&now), "{now}");
        assert!(histogram.total.is_finite() && histogram.total > 0.99);
    }

    #[test]
    fn the_running_value_alone_is_enough() {
        let histogram = Histogram::with_half_life(288.0);
        let high = histogram.percentile_with(0.9, 1 << 40, 3e9);
        assert!((3e9..3.16e9).contains(&high), "{high}");
        let huge = histogram.percentile_with(0.9, 0, 9e15);
        assert!(huge >= LARGEST && huge.is_finite(), "what is too large goes to the last bucket");
    }
}
