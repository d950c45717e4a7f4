//! Chance that can be asked again: the same question to the same dice has the same answer, whatever was asked before.

/// Mixes 64 bits: the finaliser of `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
pub(crate) fn mix(bits: u64) -> u64 {
    let mut z = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// One guest's dice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64, host: usize, guest: usize) -> Self {
        Self(mix(mix(mix(seed) ^ host as u64) ^ guest as u64))
    }

    /// The answer to one question, in [0, 1).
    pub(super) fn unit(self, question: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "53 bits fit")]
        let unit = (mix(self.0 ^ mix(question)) >> 11) as f64 / (1_u64 << 53) as f64;
        unit
    }

    /// In [low, high).
    pub(super) fn between(self, question: u64, low: f64, high: f64) -> f64 {
        low + self.unit(question) * (high - low)
    }

    pub(super) fn pick<T: Copy>(self, question: u64, from: &[T]) -> T {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "below the length of a short list"
        )]
        let index = (self.unit(question) * from.len() as f64) as usize;
        from[index]
    }

    /// Smooth noise in [−1, 1]: one random value a minute, joined without corners.
    pub(super) fn noise(self, seconds: f64) -> f64 {
        const LATTICE_SECONDS: f64 = 60.0;
        const QUESTIONS: u64 = 1 << 32; // apart from the questions that shape the guest
        let place = seconds / LATTICE_SECONDS;
        let part = place.fract();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "seconds are 0 or more")]
        let node = QUESTIONS + place as u64;
        let (from, to) = (self.unit(node), self.unit(node + 1));
        let eased = part * part * (3.0 - 2.0 * part);
        (from + (to - from) * eased) * 2.0 - 1.0
    }
}
