//! Error budgets: how many promises may be broken over thirty days, by the scope whose boundary says so.
//!
//! A budget of b violations per 1,000 VM-days allows b × VM-days / 1,000 within the window, as in Beyer et al. 2016,
//! "Site Reliability Engineering", chapter 3: what is not used is there to be used. A window that is not full yet counts
//! as many VM-days as it will have if as many machines go on as before; a budget would else be spent by the first
//! violation of a young fleet.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::domain::{Seconds, real};

const DAY: Seconds = 86_400.0;

/// Days of the window, the current one included.
const DAYS: i64 = 30;

/// How many machines there are is not known better than by an hour of watching.
const LEAST_SPAN: Seconds = 3600.0;

/// What was spent of every budget. A predictor counts the machines that it forecasts.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Budgets {
    scopes: BTreeMap<String, Ledger>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Ledger {
    since: Seconds,
    days: BTreeMap<i64, Day>,
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Day {
    vm_seconds: f64,
    violations: u64,
}

/// Where a budget stands.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Standing {
    /// Promises broken within the window.
    pub violations: u64,
    /// Promises that may be broken within the window.
    pub allowed: f64,
}

impl Standing {
    /// Whether nothing is left. A budget that was not touched is never spent, however small.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.violations > 0 && real(self.violations) >= self.allowed
    }

    /// The share that is left, 0..=1.
    #[must_use]
    pub fn remaining_ratio(&self) -> f64 {
        match self.violations {
            0 => 1.0,
            spent => (1.0 - real(spent) / self.allowed.max(f64::MIN_POSITIVE)).max(0.0),
        }
    }
}

impl Budgets {
    /// Counts machines that were watched and promises that were broken.
    pub fn count(&mut self, scope: &str, at: Seconds, vm_seconds: f64, violations: u64) {
        if !self.scopes.contains_key(scope) {
            self.scopes.insert(scope.to_owned(), Ledger { since: at, days: BTreeMap::new() });
        }
        let Some(ledger) = self.scopes.get_mut(scope) else { return };
        let today = day_of(at);
        ledger.days.retain(|day, _| (today - DAYS + 1..=today + 1).contains(day));
        let day = ledger.days.entry(today).or_default();
        day.vm_seconds += vm_seconds.max(0.0);
        day.violations += violations;
    }

    /// Where a scope's budget of so many violations per 1,000 VM-days stands.
    #[must_use]
    pub fn standing(&self, scope: &str, at: Seconds, per_1000_vm_days: f64) -> Standing {
        let Some(ledger) = self.scopes.get(scope) else { return Standing { violations: 0, allowed: 0.0 } };
        let window = real(DAYS.unsigned_abs()) * DAY;
        let first = day_of(at) - DAYS + 1;
        let (mut vm_seconds, mut violations) = (0.0, 0);
        for day in ledger.days.range(first..).map(|(_, day)| day) {
            vm_seconds += day.vm_seconds;
            violations += day.violations;
        }
        let span = (at - ledger.since).clamp(LEAST_SPAN, window);
        let vm_days = vm_seconds / DAY * window / span;
        Standing { violations, allowed: per_1000_vm_days * vm_days / 1000.0 }
    }

    /// Lets go of scopes that were not counted for a whole window.
    pub fn forget(&mut self, at: Seconds) {
        let first = day_of(at) - DAYS + 1;
        self.scopes.retain(|_, ledger| ledger.days.range(first..).next().is_some());
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn day_of(at: Seconds) -> i64 {
    // Far from the ends, so that a window around it can be counted.
    ((at / DAY).floor() as i64).clamp(-1 << 40, 1 << 40)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A hundred machines, watched in steps of an hour.
    fn watched(days: u32, violations_a_day: u64) -> Budgets {
        let mut budgets = Budgets::default();
        for hour in 0..days * 24 {
            let broken = if hour % 24 == 12 { violations_a_day } else { 0 };
            budgets.count("fleet", f64::from(hour) * 3600.0, 100.0 * 3600.0, broken);
        }
        budgets
    }

    #[test]
    fn a_budget_is_what_the_whole_window_allows_and_old_days_roll_off() {
        let standing = |days, a_day, later: f64| {
            watched(days, a_day).standing("fleet", (f64::from(days) + later) * DAY - 3600.0, 1.0)
        };
        // 3,000 VM-days in thirty days: three violations.
        let young = standing(2, 1, 0.0);
        assert!((young.allowed - 3.0).abs() < 0.1 && young.violations == 2, "{young:?}");
        assert!(!young.is_spent() && (young.remaining_ratio() - 1.0 / 3.0).abs() < 0.03);
        let spent = standing(4, 1, 0.0);
        assert!(spent.is_spent() && spent.remaining_ratio() < 0.05, "{spent:?}");
        let old = standing(60, 1, 0.0);
        assert!((old.allowed - 3.0).abs() < 0.1 && old.violations == 30, "{old:?}");
        assert_eq!(standing(3, 1, 31.0).violations, 0, "a month later it is forgiven");
    }

    #[test]
    fn a_budget_of_nothing_is_spent_by_the_first_violation() {
        let clean = watched(1, 0).standing("fleet", DAY, 0.0);
        assert!(!clean.is_spent() && (clean.remaining_ratio() - 1.0).abs() < 1e-12);
        let broken = watched(1, 1).standing("fleet", DAY, 0.0);
        assert!(broken.is_spent() && broken.remaining_ratio() <= 0.0);
        assert!(!Budgets::default().standing("fleet", DAY, 0.0).is_spent());
        let mut budgets = watched(1, 1);
        budgets.forget(29.0 * DAY);
        assert_eq!(budgets.standing("fleet", DAY, 0.0).violations, 1);
        budgets.forget(40.0 * DAY);
        assert_eq!(budgets.standing("fleet", DAY, 0.0).violations, 0);
    }
}
