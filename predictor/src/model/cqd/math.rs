//! Logarithm and exponential in single precision without a branch or a call, so that loops over them become vector
//! code. Coefficients: S. Moshier, Cephes Mathematical Library (`logf`, `expf`), 1992; good to about 2e-7.

/// Where mantissas are split: √½, so that the polynomial works around 1.
const HALF_ROOT: u32 = 0x3f35_04f3;

/// ln 2 in two parts, the first exact in few bits.
const LN_2: (f32, f32) = (0.693_359_4, -2.121_944_4e-4);

/// Adding it to a small number leaves the nearest whole number in the lowest bits.
const ROUNDER: f32 = 12_582_912.0;

const LN: [f32; 9] = [
    7.037_683_6e-2,
    -1.151_461e-1,
    1.167_699_87e-1,
    -1.242_014_1e-1,
    1.424_932_3e-1,
    -1.666_805_8e-1,
    2.000_071_5e-1,
    -2.499_999_4e-1,
    3.333_333e-1,
];

const EXP: [f32; 6] = [1.987_569_1e-4, 1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5];

/// Natural logarithm of a normal positive number; some finite number for anything else.
#[must_use]
#[expect(clippy::cast_possible_wrap, clippy::cast_precision_loss, reason = "exponents are small")]
pub(super) fn ln(x: f32) -> f32 {
    let offset = x.to_bits().wrapping_sub(HALF_ROOT);
    let exponent = ((offset as i32) >> 23) as f32;
    let f = f32::from_bits((offset & 0x007f_ffff) + HALF_ROOT) - 1.0;
    let square = f * f;
    let tail = LN.iter().fold(0.0, |sum, c| sum * f + c);
    let low = f * square * tail + exponent * LN_2.1 - 0.5 * square;
    f + low + exponent * LN_2.0
}

/// e to the power of `x`, which is taken as at least −87 and at most 88; 0 for NaN.
#[must_use]
#[expect(clippy::manual_clamp, reason = "NaN has to become the lower bound")]
pub(super) fn exp(x: f32) -> f32 {
    let x = x.max(-87.0).min(88.0);
    let rounded = x * std::f32::consts::LOG2_E + ROUNDER;
    let power = rounded - ROUNDER;
    let f = x - power * LN_2.0 - power * LN_2.1;
    let value = EXP.iter().fold(0.0, |sum, c| sum * f + c) * f * f + f + 1.0;
    let exponent = rounded.to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(127);
    value * f32::from_bits(exponent << 23)
}

/// ln(1 + eˣ), the smooth form of max(x, 0).
#[must_use]
pub(super) fn softplus(x: f32) -> f32 {
    x.max(0.0) + ln(1.0 + exp(-x.abs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_as_good_as_single_precision_allows() {
        for step in 0..400_000u32 {
            let x = 1e-12 * 1.000_15f64.powi(step.cast_signed());
            #[expect(clippy::cast_possible_truncation, reason = "the argument as it is given")]
            let single = x.min(1e12) as f32;
            let exact = f64::from(single).ln();
            let error = (f64::from(ln(single)) - exact).abs();
            assert!(error <= 3e-7 * exact.abs().max(1.0), "ln {single}: off by {error}");
        }
        assert!(ln(1.0).abs() < 1e-9);
    }

    #[test]
    fn exponentials_are_as_good_as_single_precision_allows() {
        for step in -8600i16..=8600 {
            let x = f32::from(step) / 100.0;
            let exact = f64::from(x).exp();
            let error = (f64::from(exp(x)) / exact - 1.0).abs();
            assert!(error <= 1e-6, "exp {x}: off by {error}");
        }
        assert!((f64::from(softplus(-12.0)) - (-12f64).exp().ln_1p()).abs() < 1e-7);
        assert!((softplus(30.0) - 30.0).abs() < 1e-5);
    }

    #[test]
    fn nothing_becomes_infinite() {
        for x in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -1.0, f32::MAX, f32::MIN_POSITIVE] {
            assert!(ln(x).is_finite() && exp(x).is_finite(), "{x}");
        }
    }
}
