//! Shapes of a guest's need over its uptime, as a share of its memory: the need now, and the most that it has been.
//!
//! RSS is a high-water mark. To know it without remembering, every shape can tell its own peak so far in closed form.

use std::f64::consts::PI;

use super::dice::Dice;

const DAY: f64 = 86_400.0;
const NOON: f64 = DAY / 2.0;

#[derive(Debug, Clone, Copy)]
pub(super) enum Pattern {
    Steady { base: f64 },
    Stairs { base: f64, span: f64, stairs: Stairs },
    Diurnal { base: f64, span: f64, days: [f64; 7], born: f64 },
    Leak { base: f64, span: f64, period: f64 },
    Bursts { base: f64, heights: [f64; 8], period: f64, width: f64 },
}

impl Pattern {
    /// The need at this uptime (seconds).
    pub(super) fn level(&self, uptime: f64) -> f64 {
        match *self {
            Self::Steady { base } => base,
            Self::Stairs { base, span, stairs } => base + span * stairs.height(uptime),
            Self::Diurnal { base, span, days, born } => {
                let time = born + uptime;
                base + span * days[day(time) % 7] * daylight(time.rem_euclid(DAY))
            }
            Self::Leak { base, span, period } => base + span * uptime.rem_euclid(period) / period,
            Self::Bursts { base, heights, period, width } => {
                base + heights[count(uptime / period) % 8] * burst(uptime.rem_euclid(period) / width)
            }
        }
    }

    /// The most that [`Pattern::level`] has been from the start to this uptime.
    pub(super) fn peak(&self, uptime: f64) -> f64 {
        match *self {
            Self::Steady { .. } | Self::Stairs { .. } => self.level(uptime),
            Self::Diurnal { base, span, days, born } => {
                base + span * diurnal_peak(&days, born, born + uptime)
            }
            Self::Leak { base, span, period } => base + span * (uptime / period).min(1.0),
            Self::Bursts { base, heights, period, width } => {
                let done = count(uptime / period);
                let past = heights[..done.min(8)].iter().copied().fold(0.0, f64::max);
                base + past.max(heights[done % 8] * burst_peak(uptime.rem_euclid(period) / width))
            }
        }
    }
}

/// Steps towards 1 that come ever more rarely, as new records of a random quantity do: the n-th about e^n time scales after
/// the start, each taking a third of what is left.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stairs {
    pub(super) scale: f64,
    pub(super) dice: Dice,
}

impl Stairs {
    const SPREAD: f64 = 1.8;
    const LEFT: f64 = 0.66;

    pub(super) fn height(self, uptime: f64) -> f64 {
        let place = (1.0 + uptime / self.scale).ln() / Self::SPREAD.ln();
        let whole = i32::try_from(count(place)).unwrap_or(i32::MAX - 1);
        let threshold = self.dice.between(1000 + u64::from(whole.unsigned_abs()), 0.2, 0.8);
        let steps = whole + i32::from(place - f64::from(whole) >= threshold);
        1.0 - Self::LEFT.powi(steps)
    }
}

/// 0 at midnight, 1 at noon.
fn daylight(of_day: f64) -> f64 {
    (PI * of_day / DAY).sin().powi(2)
}

fn diurnal_peak(days: &[f64; 7], from: f64, to: f64) -> f64 {
    let (first, last) = (day(from), day(to));
    let (begins, ends) = (from.rem_euclid(DAY), to.rem_euclid(DAY));
    // Between two times of one day: noon if that lies between them, else the one nearer to it.
    let within = |begins: f64, ends: f64| daylight(NOON.clamp(begins, ends));
    if first == last {
        return days[first % 7] * within(begins, ends);
    }
    let between = (first + 1..last).take(7).map(|day| days[day % 7]).fold(0.0, f64::max);
    (days[first % 7] * within(begins, DAY)).max(between).max(days[last % 7] * within(0.0, ends))
}

/// A burst by the share of its width: up for three tenths, flat for five, down for two.
fn burst(share: f64) -> f64 {
    (share / 0.3).min((1.0 - share) / 0.2).clamp(0.0, 1.0)
}

fn burst_peak(share: f64) -> f64 {
    (share / 0.3).clamp(0.0, 1.0)
}

fn day(time: f64) -> usize {
    count(time / DAY)
}

/// How many whole ones.
pub(super) fn count(quotient: f64) -> usize {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 or more; a cast saturates"
    )]
    let whole = quotient as usize;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The closed form against the definition.
    #[test]
    fn the_peak_is_the_most_that_the_level_has_been() {
        let dice = Dice::new(7, 1, 2);
        let patterns = [
            Pattern::Steady { base: 0.4 },
            Pattern::Stairs { base: 0.1, span: 0.6, stairs: Stairs { scale: 1800.0, dice } },
            Pattern::Diurnal {
                base: 0.1,
                span: 0.5,
                days: [1.0, 0.8, 0.9, 0.7, 1.0, 0.3, 0.2],
                born: 3.7 * DAY,
            },
            Pattern::Diurnal {
                base: 0.1,
                span: 0.5,
                days: [0.5, 0.8, 0.9, 0.7, 1.0, 0.3, 0.2],
                born: 5.2 * DAY,
            },
            Pattern::Leak { base: 0.2, span: 0.6, period: 30_000.0 },
            Pattern::Bursts {
                base: 0.2,
                heights: [0.3, 0.2, 0.5, 0.1, 0.4, 0.6, 0.2, 0.3],
                period: 7200.0,
                width: 600.0,
            },
        ];
        for pattern in patterns {
            let mut most = 0.0_f64;
            for uptime in (0..20 * 8640).map(|n| f64::from(n) * 10.0) {
                most = most.max(pattern.level(uptime));
                let told = pattern.peak(uptime);
                assert!(told >= most - 1e-9, "{pattern:?} at {uptime}: told {told}, was {most}");
                assert!(told <= most + 0.01, "{pattern:?} at {uptime}: told {told}, was {most}");
            }
        }
    }
}
