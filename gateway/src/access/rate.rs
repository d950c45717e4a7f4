//! How often one caller may ask: a bucket of tokens each, refilled at a steady rate. Pure: the time is passed in.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

/// Callers that are remembered at most; a stranger beyond that is let pass for the moment.
const CALLERS: usize = 50_000;

/// How often those who have been quiet are looked for at most: looking at all of them for every stranger would make the strangers dear.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

/// The buckets of all callers.
#[derive(Debug)]
pub(super) struct Buckets<Caller> {
    per_second: f64,
    burst: f64,
    levels: HashMap<Caller, (f64, Instant)>,
    swept_at: Option<Instant>,
}

impl<Caller: Eq + Hash> Buckets<Caller> {
    /// Buckets that hold `burst` requests and are refilled with `per_second`.
    pub(super) fn new(per_second: f64, burst: f64) -> Self {
        Self { per_second, burst, levels: HashMap::new(), swept_at: None }
    }

    /// Takes one request out of a caller's bucket; where it is empty, how long until there is one again.
    pub(super) fn take(&mut self, caller: Caller, now: Instant) -> Result<(), Duration> {
        if self.levels.len() >= CALLERS {
            if self.swept_at.is_none_or(|at| now.saturating_duration_since(at) >= SWEEP_EVERY) {
                let (per_second, burst) = (self.per_second, self.burst);
                self.levels.retain(|_, (level, at)| filled(*level, *at, now, per_second, burst) < burst);
                self.swept_at = Some(now);
            }
            if self.levels.len() >= CALLERS && !self.levels.contains_key(&caller) {
                return Ok(());
            }
        }
        let (level, at) = self.levels.entry(caller).or_insert((self.burst, now));
        let full = filled(*level, *at, now, self.per_second, self.burst);
        *at = now;
        if full < 1.0 {
            *level = full;
            return Err(Duration::from_secs_f64((1.0 - full) / self.per_second));
        }
        *level = full - 1.0;
        Ok(())
    }
}

fn filled(level: f64, at: Instant, now: Instant, per_second: f64, burst: f64) -> f64 {
    (level + now.saturating_duration_since(at).as_secs_f64() * per_second).min(burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_has_a_burst_and_then_a_rate_of_his_own() {
        let mut buckets = Buckets::new(2.0, 3.0);
        let start = Instant::now();
        let passed = |buckets: &mut Buckets<&str>, caller, after: f64| {
            let now = start + Duration::from_secs_f64(after);
            (0..10).take_while(|_| buckets.take(caller, now).is_ok()).count()
        };
        assert_eq!(passed(&mut buckets, "ann", 0.0), 3);
        assert_eq!(passed(&mut buckets, "bob", 0.0), 3, "another's requests do not count");
        assert_eq!(passed(&mut buckets, "ann", 1.0), 2);
        assert_eq!(passed(&mut buckets, "ann", 100.0), 3);
        assert_eq!(buckets.take("ann", start + Duration::from_secs(100)), Err(Duration::from_millis(500)));
    }

    #[test]
    fn many_strangers_fill_no_memory() {
        let mut buckets = Buckets::new(1.0, 1.0);
        let start = Instant::now();
        for caller in 0..2 * CALLERS {
            assert!(buckets.take(caller, start).is_ok());
        }
        assert!(buckets.levels.len() <= CALLERS);
        // Whoever has been quiet is forgotten.
        assert!(buckets.take(usize::MAX, start + Duration::from_mins(1)).is_ok());
        assert_eq!(buckets.levels.len(), 1);
    }
}
