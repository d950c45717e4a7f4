//! How much a VM with little history may be harvested.

use crate::domain::Seconds;

/// How much history a VM needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ColdStart {
    /// Nothing is harvested before this much history.
    pub minimum: Seconds,
    /// Nor before this many readings.
    pub readings: u32,
    /// From this much history on everything may be harvested; in between the share grows with the history.
    pub full: Seconds,
}

impl Default for ColdStart {
    fn default() -> Self {
        Self { minimum: 7200.0, readings: 24, full: 86_400.0 }
    }
}

impl ColdStart {
    /// The default scaled so that the first harvest comes after `first_harvest`: full at twelve times that. The
    /// 24 readings stay, unless so many do not fit into `first_harvest` at this sampling interval; then as many as
    /// do, at least one.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "clamped to 1..=24 before")]
    pub fn first_harvest_after(first_harvest: Seconds, interval: Seconds) -> Self {
        let minimum = if first_harvest.is_finite() { first_harvest.max(0.0) } else { 7200.0 };
        let fitting = if interval > 0.0 { (minimum / interval).floor() } else { 24.0 };
        Self { minimum, readings: fitting.clamp(1.0, 24.0) as u32, full: minimum * 12.0 }
    }

    /// The share of the harvest that a history of this age and length allows, 0..=1.
    #[must_use]
    pub fn allowance(&self, age: Seconds, readings: u32) -> f64 {
        if age < self.minimum || readings < self.readings {
            0.0
        } else if age >= self.full {
            1.0
        } else {
            (age / self.full).clamp(0.0, 1.0)
        }
    }

    /// How long from now until something may be harvested, 0 where it may be already.
    #[must_use]
    pub fn wait(&self, age: Seconds, readings: u32, interval: Seconds) -> Seconds {
        let missing = f64::from(self.readings.saturating_sub(readings));
        (self.minimum - age).max(missing * interval).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_then_a_share_then_everything() {
        let cold = ColdStart::default();
        let allowed = |age, readings| cold.allowance(age, readings);
        assert!(allowed(7199.0, 1000) <= 0.0);
        assert!(allowed(7200.0, 23) <= 0.0);
        assert!((allowed(43_200.0, 24) - 0.5).abs() < 1e-12);
        assert!((allowed(86_400.0, 24) - 1.0).abs() < 1e-12);
        assert!((cold.wait(7000.0, 14, 300.0) - 3000.0).abs() < 1e-9);
        assert!(cold.wait(7200.0, 24, 300.0) <= 0.0);
    }

    #[test]
    fn shortened_it_asks_for_no_more_readings_than_fit() {
        let minute = ColdStart::first_harvest_after(60.0, 5.0);
        assert_eq!(minute, ColdStart { minimum: 60.0, readings: 12, full: 720.0 });
        assert_eq!(ColdStart::first_harvest_after(600.0, 5.0).readings, 24);
        let none = ColdStart::first_harvest_after(0.0, 5.0);
        assert!((none.allowance(0.0, 1) - 1.0).abs() < 1e-12);
    }
}
