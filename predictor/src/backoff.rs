//! Broken trust: a VM whose forecasts fail far more often than was asked for, or whose promises break badly twice in
//! a day, is not harvested for a while. Misses that the target allows have no consequence.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::{
    domain::{Seconds, real},
    model::Terms,
};

/// The longest time that a VM is left alone.
pub const LONGEST: Seconds = 6.0 * 3600.0;

const DAY: Seconds = 86_400.0;

/// What broke the trust.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Cause {
    /// A miss while the rolling 24-hour violation rate is above twice the target.
    ViolationRate,
    /// Promises broken by more than their headroom again within 24 hours.
    BrokenPromise,
}

/// Bad breaks that are remembered.
const REMEMBERED: usize = 64;

/// The state for one signal of one VM. A first cause costs one horizon without harvest. One that comes before as much
/// time again has passed shows that it goes on, and costs twice as long as the last, up to [`LONGEST`]; a later one costs as
/// long as the last. A day without a cause halves what the next one costs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Backoff {
    until: Seconds,
    cause: Option<Cause>,
    cost: Seconds,
    quiet_since: Seconds,
    bad_breaks: VecDeque<Seconds>,
}

impl Backoff {
    /// A cause at `at`. While a backoff runs it only puts off the forgetting.
    pub fn trigger(&mut self, at: Seconds, cause: Cause, horizon: Seconds) {
        self.forget(at, horizon);
        self.quiet_since = at;
        if at < self.until {
            return;
        }
        let goes_on = at - self.until <= self.cost;
        let cost = if goes_on { 2.0 * self.cost } else { self.cost };
        self.cost = cost.max(horizon).min(LONGEST);
        self.until = at + self.cost;
        self.cause = Some(cause);
    }

    /// A promise was broken by more than its headroom. The second within 24 hours is a cause, unless the target itself
    /// allows for more: only what is beyond twice the misses that the target allows in a day breaks trust (at 1 % and
    /// 15 minutes that is the second, at 5 % the tenth).
    pub fn promise_broken_badly(&mut self, at: Seconds, terms: &Terms) {
        while self.bad_breaks.front().is_some_and(|before| at - before > DAY) {
            self.bad_breaks.pop_front();
        }
        if self.bad_breaks.len() == REMEMBERED {
            self.bad_breaks.pop_front();
        }
        self.bad_breaks.push_back(at);
        let broken = real(self.bad_breaks.len() as u64);
        let allowed = 2.0 * terms.target * DAY / terms.horizon;
        if broken > allowed.clamp(1.0, real(REMEMBERED as u64 - 1)) {
            self.trigger(at, Cause::BrokenPromise, terms.horizon);
        }
    }

    /// The cause and the end of the backoff that runs at `at`.
    #[must_use]
    pub fn running(&self, at: Seconds) -> Option<(Cause, Seconds)> {
        self.cause.filter(|_| at < self.until).map(|cause| (cause, self.until))
    }

    /// Halves the cost for every clean day.
    fn forget(&mut self, at: Seconds, horizon: Seconds) {
        while self.cost > 0.0 && at - self.quiet_since >= DAY {
            self.quiet_since += DAY;
            self.cost /= 2.0;
            if self.cost < horizon {
                self.cost = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HORIZON: Seconds = 900.0;

    fn ends(backoff: &Backoff, at: Seconds) -> Option<Seconds> {
        backoff.running(at).map(|(_, until)| until - at)
    }

    #[test]
    fn it_doubles_while_it_goes_on_to_six_hours() {
        let (mut backoff, mut at, mut spans) = (Backoff::default(), 0.0, Vec::new());
        for _ in 0..7 {
            backoff.trigger(at, Cause::ViolationRate, HORIZON);
            backoff.trigger(at + 1.0, Cause::ViolationRate, HORIZON);
            let span = ends(&backoff, at).unwrap();
            spans.push(span);
            at += span;
            assert_eq!(backoff.running(at), None);
        }
        assert_eq!(spans, [900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0, 21_600.0]);
    }

    #[test]
    fn clean_days_halve_it() {
        let mut backoff = Backoff::default();
        for at in [0.0, 900.0, 2700.0] {
            backoff.trigger(at, Cause::ViolationRate, HORIZON);
        }
        assert_eq!(ends(&backoff, 2700.0), Some(3600.0));
        let later = 2700.0 + 2.0 * DAY;
        backoff.trigger(later, Cause::ViolationRate, HORIZON);
        assert_eq!(ends(&backoff, later), Some(900.0));
        let much_later = later + 9.0 * DAY;
        backoff.trigger(much_later, Cause::ViolationRate, HORIZON);
        assert_eq!(ends(&backoff, much_later), Some(900.0));
    }

    #[test]
    fn a_cause_on_the_same_day_that_is_no_sequel_costs_as_long_as_the_last() {
        let mut backoff = Backoff::default();
        for at in [0.0, 900.0] {
            backoff.trigger(at, Cause::ViolationRate, HORIZON);
        }
        let later = 900.0 + 1800.0 + 1800.0 + 1.0;
        backoff.trigger(later, Cause::ViolationRate, HORIZON);
        assert_eq!(ends(&backoff, later), Some(1800.0));
    }

    #[test]
    fn one_bad_break_is_forgiven_and_a_second_in_a_day_is_not() {
        let terms = |target| Terms {
            signal: crate::domain::Signal::Rss,
            horizon: HORIZON,
            target,
            fairness: crate::boundary::Fairness::PerVm,
        };
        let mut backoff = Backoff::default();
        backoff.promise_broken_badly(0.0, &terms(0.01));
        backoff.promise_broken_badly(1.5 * DAY, &terms(0.01));
        assert_eq!(backoff.running(1.5 * DAY), None);
        let mut lenient = backoff.clone();
        lenient.promise_broken_badly(2.0 * DAY, &terms(0.05));
        assert_eq!(lenient.running(2.0 * DAY), None, "a target of 5 % allows for it");
        backoff.promise_broken_badly(2.0 * DAY, &terms(0.01));
        assert_eq!(backoff.running(2.0 * DAY), Some((Cause::BrokenPromise, 2.0 * DAY + HORIZON)));
    }
}
