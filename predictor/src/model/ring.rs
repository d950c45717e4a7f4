//! The largest value of a sliding time window, in a fixed number of buckets.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

use crate::domain::Seconds;

/// Maxima of non-negative values over the last `N` buckets of a given length, the current one included: the window is
/// between `N − 1` and `N` lengths long.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MaxRing<const N: usize> {
    length: Seconds,
    #[serde(serialize_with = "write", deserialize_with = "read")]
    buckets: [f32; N],
    current: i64,
    largest: f32,
}

impl<const N: usize> MaxRing<N> {
    /// An empty ring whose window is `window` long.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "N is small")]
    pub fn over(window: Seconds) -> Self {
        Self { length: window / N as f64, buckets: [0.0; N], current: i64::MIN, largest: 0.0 }
    }

    /// Moves to the bucket of `at`, dropping what has left the window.
    pub fn advance(&mut self, at: Seconds) {
        #[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
        let bucket = (at / self.length).floor() as i64;
        if bucket <= self.current {
            return;
        }
        let entered = bucket.saturating_sub(self.current);
        if entered >= Self::count() {
            self.buckets = [0.0; N];
        } else {
            for step in 1..=entered {
                self.buckets[Self::index(self.current + step)] = 0.0;
            }
        }
        self.current = bucket;
        self.largest = self.buckets.iter().copied().fold(0.0, f32::max);
    }

    /// Adds a value to the current bucket.
    pub fn push(&mut self, value: f64) {
        let value = round_up(value);
        let bucket = &mut self.buckets[Self::index(self.current)];
        *bucket = bucket.max(value);
        self.largest = self.largest.max(value);
    }

    /// The largest value in the window, 0 where there is none.
    #[must_use]
    pub fn max(&self) -> f64 {
        f64::from(self.largest)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.buckets = [0.0; N];
        self.largest = 0.0;
    }

    #[expect(clippy::cast_possible_wrap, reason = "N is small")]
    const fn count() -> i64 {
        N as i64
    }

    #[expect(clippy::cast_possible_truncation, reason = "the remainder is in 0..N")]
    const fn index(bucket: i64) -> usize {
        bucket.rem_euclid(Self::count()) as usize
    }
}

/// To single precision without ever becoming smaller; NaN becomes 0.
#[expect(clippy::cast_possible_truncation, reason = "rounded up right after")]
pub(crate) fn round_up(value: f64) -> f32 {
    let single = value as f32;
    if f64::from(single) < value { single.next_up() } else { single.max(0.0) }
}

fn write<S: Serializer, const N: usize>(buckets: &[f32; N], serializer: S) -> Result<S::Ok, S::Error> {
    buckets.as_slice().serialize(serializer)
}

fn read<'de, D: Deserializer<'de>, const N: usize>(deserializer: D) -> Result<[f32; N], D::Error> {
    let buckets = Vec::<f32>::deserialize(deserializer)?;
    buckets
        .try_into()
        .map_err(|buckets: Vec<f32>| D::Error::invalid_length(buckets.len(), &"one value a bucket"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn it_is_the_maximum_of_the_buckets_in_the_window(steps in prop::collection::vec((0.0..40.0f64, 0u32..1000), 1..200)) {
            let mut ring = MaxRing::<4>::over(40.0);
            let (mut at, mut seen) = (0.0, Vec::new());
            for (dt, value) in steps {
                at += dt;
                ring.advance(at);
                ring.push(f64::from(value));
                seen.push((at, f64::from(value)));
                let first = (at / 10.0).floor() - 3.0;
                let expected = seen.iter().filter(|(t, _)| (t / 10.0).floor() >= first).map(|(_, v)| *v).fold(0.0, f64::max);
                prop_assert!((ring.max() - expected).abs() < 1e-9);
            }
        }
    }

    #[test]
    fn rounding_never_loses_a_byte() {
        for bytes in [1u64 << 40, (1 << 40) + 1, 123_456_789_123] {
            let exact = crate::domain::real(bytes);
            assert!(f64::from(round_up(exact)) >= exact);
        }
        assert!(round_up(f64::NAN) <= 0.0);
    }
}
