//! Sliding windows of levels on the five-minute grid, two bytes a bucket.
//!
//! A level is kept as the code of its logarithm: 1 is a thousandth of the allocation or less, the largest code all of
//! it, one step between is a relative 1e-4. Codes order as levels do, so the largest code is the code of the largest
//! level; 0 is no level at all.

use std::fmt;

use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error as _, SeqAccess, Visitor},
};

use super::math;

/// The logarithm of the smallest level that is told apart: ln 0.001.
pub const LN_FLOOR: f32 = -6.907_755_4;

/// The smallest level that is told apart.
pub const FLOOR: f32 = 0.001;

const CODE_STEP: f32 = -LN_FLOOR / 65_534.0;

/// Codes between a level and 0.9 of it.
const TENTH: u16 = 1000;

/// The code of a share of the allocation; shares are clipped to 0.001..=1, NaN to 0.001.
#[must_use]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the cast saturates")]
pub fn code(share: f32) -> u16 {
    let above = math::ln(share.max(FLOOR)) - LN_FLOOR;
    ((above / CODE_STEP + 1.5) as u16).max(1)
}

/// The logarithm of the share that a code stands for.
#[must_use]
pub fn ln_of(code: u16) -> f32 {
    LN_FLOOR + (f32::from(code) - 1.0) * CODE_STEP
}

/// Whether a level is at least 0.9 of another.
#[must_use]
pub const fn is_near(level: u16, top: u16) -> bool {
    level.saturating_add(TENTH) >= top
}

/// By how many codes levels move when what they are shares of changes.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
pub fn shift(ratio: f32) -> i32 {
    (math::ln(ratio) / CODE_STEP).round() as i32
}

/// Moves a code, which stays a code.
#[must_use]
#[expect(clippy::cast_sign_loss, reason = "clamped to the codes")]
pub fn shifted(code: u16, by: i32) -> u16 {
    if code == 0 { 0 } else { i32::from(code).saturating_add(by).clamp(1, 65_535) as u16 }
}

/// The largest code of each of the last `N` buckets of `LENGTH` steps, the current bucket included.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window<const N: usize, const LENGTH: i32> {
    codes: [u16; N],
    top: u16,
}

impl<const N: usize, const LENGTH: i32> Default for Window<N, LENGTH> {
    fn default() -> Self {
        Self { codes: [0; N], top: 0 }
    }
}

impl<const N: usize, const LENGTH: i32> Window<N, LENGTH> {
    /// Moves on from one step to a later one; what leaves the window is dropped.
    pub fn advance(&mut self, before: i32, now: i32) {
        let (from, to) = (bucket::<LENGTH>(before), bucket::<LENGTH>(now));
        if to <= from {
            return;
        }
        if to.saturating_sub(from) >= Self::count() {
            self.codes = [0; N];
        } else {
            for entered in from + 1..=to {
                self.codes[Self::index(entered)] = 0;
            }
        }
        self.top = largest(&self.codes);
    }

    /// Adds a level to the bucket of the current step.
    pub fn push(&mut self, step: i32, code: u16) {
        let bucket = &mut self.codes[Self::index(bucket::<LENGTH>(step))];
        *bucket = (*bucket).max(code);
        self.top = self.top.max(code);
    }

    /// The largest code in the window, 0 where there is none.
    #[must_use]
    pub const fn top(&self) -> u16 {
        self.top
    }

    /// The largest code of the buckets from `first` to `last`, both at most `N − 1` before the current one.
    #[must_use]
    pub fn span(&self, first: i32, last: i32) -> u16 {
        let (first_at, last_at) = (Self::index(first), Self::index(last));
        if last.saturating_sub(first) >= Self::count() - 1 {
            self.top
        } else if first_at <= last_at {
            largest(&self.codes[first_at..=last_at])
        } else {
            largest(&self.codes[first_at..]).max(largest(&self.codes[..=last_at]))
        }
    }

    /// The smallest code that is there, 65535 where there is none.
    #[must_use]
    pub fn least(&self) -> u16 {
        // No level wraps to the largest code, so it never is the smallest one.
        self.codes.iter().fold(u16::MAX, |least, code| least.min(code.wrapping_sub(1))).saturating_add(1)
    }

    /// Moves every level.
    pub fn shift(&mut self, by: i32) {
        for code in &mut self.codes {
            *code = shifted(*code, by);
        }
        self.top = largest(&self.codes);
    }

    #[expect(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "N is small")]
    const fn count() -> i32 {
        N as i32
    }

    const fn index(bucket: i32) -> usize {
        bucket.rem_euclid(Self::count()) as usize
    }
}

/// The bucket of a step.
#[must_use]
pub const fn bucket<const LENGTH: i32>(step: i32) -> i32 {
    step.div_euclid(LENGTH)
}

fn largest(codes: &[u16]) -> u16 {
    codes.iter().fold(0, |top, code| top.max(*code))
}

impl<const N: usize, const LENGTH: i32> Serialize for Window<N, LENGTH> {
    /// Two bytes a bucket, the lower one first.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = self.codes.iter().flat_map(|code| code.to_le_bytes()).collect();
        serializer.serialize_bytes(&bytes)
    }
}

impl<'de, const N: usize, const LENGTH: i32> Deserialize<'de> for Window<N, LENGTH> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = deserializer.deserialize_bytes(Bytes)?;
        if bytes.len() != 2 * N {
            return Err(D::Error::custom(format!("a window of {} bytes, not {}", bytes.len(), 2 * N)));
        }
        let mut codes = [0; N];
        for (code, pair) in codes.iter_mut().zip(bytes.chunks_exact(2)) {
            *code = u16::from_le_bytes([pair[0], pair[1]]);
        }
        Ok(Self { codes, top: largest(&codes) })
    }
}

/// Reads bytes from formats that have them and from those that write them as a list of numbers.
struct Bytes;

impl<'de> Visitor<'de> for Bytes {
    type Value = Vec<u8>;

    fn expecting(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str("the bytes of a window")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
        Ok(bytes.to_vec())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<u8>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = list.next_element()? {
            bytes.push(byte);
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn codes_tell_levels_apart_by_a_ten_thousandth() {
        for share in [0.001f32, 0.0017, 0.02, 0.3, 0.999, 1.0] {
            assert!((ln_of(code(share)) - share.ln()).abs() < 6e-5, "{share}");
        }
        assert_eq!((code(0.0), code(f32::NAN), code(7.0)), (1, 1, u16::MAX));
        assert!(is_near(code(0.46), code(0.5)) && !is_near(code(0.44), code(0.5)));
        assert_eq!(shifted(code(0.4), shift(0.5)).abs_diff(code(0.2)), 0);
        assert_eq!((shifted(0, 500), shifted(9, -500), shifted(65_000, 900)), (0, 1, 65_535));
    }

    proptest! {
        #[test]
        fn a_window_is_the_maximum_of_its_buckets(steps in prop::collection::vec((1i32..9, 1u16..1000), 1..300)) {
            let mut window = Window::<8, 3>::default();
            let (mut now, mut seen) = (i32::MIN, Vec::new());
            for (passed, code) in steps {
                let next = if now == i32::MIN { passed } else { now + passed };
                window.advance(now, next);
                now = next;
                window.push(now, code);
                seen.push((now, code));
                let top = |first: i32, last: i32| {
                    seen.iter().filter(|(at, _)| (first..=last).contains(&(at / 3))).map(|(_, code)| *code).max()
                };
                prop_assert_eq!(Some(window.top()), top(now / 3 - 7, now / 3));
                prop_assert_eq!(window.span(now / 3 - 5, now / 3 - 2), top(now / 3 - 5, now / 3 - 2).unwrap_or(0));
                prop_assert!(window.least() >= 1 && window.least() <= window.top());
            }
        }
    }
}
