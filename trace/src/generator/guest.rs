//! One invented guest: its shape, drawn once from its dice, and its state at any moment.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::dice::Dice;
use super::pattern::{Pattern, Stairs, count};
use super::profile::Profile;
use crate::sample::{GuestSample, GuestStats};
use crate::trace_file::vm_uuid;

const MIB: f64 = 1_048_576.0;
const HOUR: f64 = 3600.0;
/// No driver answers before the guest has booted.
const BOOT_SECONDS: f64 = 20.0;
/// Programs take a minute to start and fill their memory.
const START_SECONDS: f64 = 60.0;
/// The guest's kernel keeps about a fiftieth of its memory to itself.
const MANAGED: f64 = 0.98;
/// A guest that needed more than this would kill programs.
const MOST_NEEDED: f64 = 0.92;

pub(super) struct Guest {
    vm: Uuid,
    name: Arc<str>,
    host: usize,
    dice: Dice,
    maximum: f64,
    /// What the process on the host needs beside the guest's memory, in bytes.
    overhead: f64,
    pattern: Pattern,
    /// How far noise moves the need, as a share of it.
    noise: f64,
    /// Page cache fills the memory up to this share of it in time, as `settles` tells.
    cache: f64,
    settles: Stairs,
    /// Free page reporting: RSS follows the need, and is no high-water mark.
    reports_free_pages: bool,
    /// Its age at the origin, in seconds.
    age: f64,
    restarts_every: Option<f64>,
    balloon: Option<BalloonMoves>,
    statistics: Statistics,
}

/// The balloon is empty for one period, and leaves the guest only `share` of its memory for the next.
struct BalloonMoves {
    period: f64,
    share: f64,
}

#[derive(Clone, Copy)]
enum Statistics {
    NoDevice,
    NoPeriod,
    Live {
        period: u32,
    },
    /// Every `cycle` seconds they stop at `from` for `lasting`.
    Freezing {
        period: u32,
        cycle: f64,
        from: f64,
        lasting: f64,
    },
}

/// Where a guest stands in its life at one moment.
#[derive(Clone, Copy)]
struct Life {
    boots: usize,
    uptime: f64,
}

impl Guest {
    pub(super) fn new(seed: u64, host: usize, nth: usize) -> Self {
        let profile = Profile::of(nth);
        let dice = Dice::new(seed, host, nth);
        let name: Arc<str> = format!("{}-{seed}-{}-{}", profile.name(), host + 1, nth + 1).into();
        let maximum =
            MIB * 1024.0 * dice.pick(1, &[1.0, 1.0, 2.0, 2.0, 2.0, 4.0, 4.0, 4.0, 8.0, 8.0, 16.0, 32.0]);
        let base = dice.between(2, 0.1, 0.3);
        let stairs = |question| Stairs { scale: dice.between(question, 0.25, 1.5) * HOUR, dice };
        let pattern = match profile {
            Profile::Steady | Profile::BalloonMove | Profile::NoPeriod => Pattern::Steady { base },
            Profile::Staircase | Profile::Reboot | Profile::NoBalloon => {
                Pattern::Stairs { base, span: dice.between(3, 0.25, 0.55), stairs: stairs(4) }
            }
            Profile::Diurnal | Profile::StaleStatistics => Pattern::Diurnal {
                base,
                span: dice.between(5, 0.2, 0.5),
                days: std::array::from_fn(|day| {
                    let weekend = if day >= 5 { 0.4 } else { 1.0 };
                    weekend * dice.between(100 + day as u64, 0.75, 1.0)
                }),
                born: dice.between(6, 0.0, 7.0) * 24.0 * HOUR,
            },
            Profile::Leak => Pattern::Leak {
                base,
                span: dice.between(7, 0.3, 0.55),
                period: dice.between(8, 4.0, 48.0) * HOUR,
            },
            Profile::CronBurst => Pattern::Bursts {
                base,
                heights: std::array::from_fn(|burst| dice.between(200 + burst as u64, 0.15, 0.5)),
                period: dice.between(9, 1.0, 6.0) * HOUR,
                width: dice.between(10, 180.0, 900.0),
            },
        };
        let restarts_every = (profile == Profile::Reboot).then(|| dice.between(11, 3.0, 30.0) * HOUR);
        let balloon = (profile == Profile::BalloonMove).then(|| BalloonMoves {
            period: dice.between(12, 2.0, 8.0) * HOUR,
            share: dice.between(13, 0.5, 0.75),
        });
        let period = dice.pick(14, &[5, 5, 10]);
        let statistics = match profile {
            Profile::NoBalloon => Statistics::NoDevice,
            Profile::NoPeriod => Statistics::NoPeriod,
            Profile::StaleStatistics => Statistics::Freezing {
                period,
                cycle: dice.between(15, 3.0, 6.0) * HOUR,
                from: dice.between(16, 120.0, 600.0),
                lasting: dice.between(17, 0.5, 1.5) * HOUR,
            },
            _ => Statistics::Live { period },
        };
        let fills_up = dice.unit(18) < 0.5;
        let settled = matches!(pattern, Pattern::Steady { .. } | Pattern::Diurnal { .. });
        Self {
            vm: vm_uuid(&name),
            name,
            host,
            dice,
            maximum,
            overhead: MIB * dice.between(19, 40.0, 160.0),
            pattern,
            noise: dice.between(20, 0.02, 0.08),
            cache: if fills_up { dice.between(21, 0.85, 1.0) } else { dice.between(21, 0.15, 0.55) },
            settles: stairs(22),
            reports_free_pages: settled && balloon.is_none() && dice.unit(23) < 0.2,
            age: if settled { dice.between(24, 0.0, 20.0 * 24.0) } else { dice.between(24, 0.0, 12.0) }
                * HOUR,
            restarts_every,
            balloon,
            statistics,
        }
    }

    pub(super) fn maximum_bytes(&self) -> u64 {
        pages(self.maximum)
    }

    pub(super) fn at(&self, elapsed: Duration) -> GuestSample {
        let now = elapsed.as_secs_f64();
        let life = self.life(now);
        GuestSample {
            vm: self.vm,
            name: Arc::clone(&self.name),
            host: self.host,
            allocated_bytes: pages(self.allocated(life)),
            maximum_bytes: self.maximum_bytes(),
            rss_bytes: Some(pages(self.touched(life) + self.overhead)),
            guest: self.asked_at(now).and_then(|when| self.stats(when, life.boots)),
            has_balloon: !matches!(self.statistics, Statistics::NoDevice),
            stats_period_seconds: match self.statistics {
                Statistics::NoDevice | Statistics::NoPeriod => None,
                Statistics::Live { period } | Statistics::Freezing { period, .. } => Some(period),
            },
            uptime: Duration::from_secs_f64(life.uptime),
            boots: u32::try_from(life.boots).unwrap_or(u32::MAX),
        }
    }

    fn life(&self, now: f64) -> Life {
        let lived = self.age + now;
        match self.restarts_every {
            Some(every) => Life { boots: count(lived / every), uptime: lived.rem_euclid(every) },
            None => Life { boots: 0, uptime: lived },
        }
    }

    /// Bytes that the balloon leaves to the guest.
    fn allocated(&self, life: Life) -> f64 {
        match &self.balloon {
            Some(moves) if moves.inflated(life) => self.maximum * moves.share,
            _ => self.maximum,
        }
    }

    /// Bytes of the guest's memory that the host has to back.
    fn touched(&self, life: Life) -> f64 {
        let Some(moves) = &self.balloon else {
            return self.maximum * self.touched_share(life.uptime);
        };
        // What was touched in a period with an empty balloon is cut by the next one, and grows again after it.
        let inflated = self.maximum * self.touched_share(moves.period).min(moves.share);
        if moves.inflated(life) {
            return inflated;
        }
        let deflated = self.maximum * self.touched_share(life.uptime.rem_euclid(moves.period));
        if life.uptime < moves.period { deflated } else { deflated.max(inflated) }
    }

    fn touched_share(&self, uptime: f64) -> f64 {
        let share = if self.reports_free_pages {
            // What is reported free comes back; a little cache stays.
            self.pattern.level(uptime) * (1.0 + self.noise) + 0.05
        } else {
            (self.pattern.peak(uptime) * (1.0 + self.noise)).max(self.cache * self.settles.height(uptime))
        };
        share.min(1.0) * started(uptime)
    }

    /// Bytes that the guest needs.
    fn demand(&self, now: f64, life: Life) -> f64 {
        let share = self.pattern.level(life.uptime) * (1.0 + self.noise * self.dice.noise(now));
        self.maximum * share.min(MOST_NEEDED) * started(life.uptime)
    }

    /// When the guest was last asked for statistics.
    fn asked_at(&self, now: f64) -> Option<f64> {
        let (period, answers_until) = match self.statistics {
            Statistics::NoDevice | Statistics::NoPeriod => return None,
            Statistics::Live { period } => (period, now),
            Statistics::Freezing { period, cycle, from, lasting } => {
                let into = now.rem_euclid(cycle);
                let frozen = (from..from + lasting).contains(&into);
                (period, if frozen { now - into + from } else { now })
            }
        };
        let period = f64::from(period);
        Some((answers_until / period).floor() * period)
    }

    /// What the guest said at `when`, unless it has restarted since or was not up yet.
    fn stats(&self, when: f64, boots: usize) -> Option<GuestStats> {
        let life = self.life(when);
        if life.boots != boots || life.uptime < BOOT_SECONDS {
            return None;
        }
        let total = self.allocated(life) * MANAGED;
        let demand = self.demand(when, life).min(total * MOST_NEEDED);
        let cache = (self.touched(life).min(total) - demand).max(0.0) * 0.9;
        let (total_bytes, cache) = (pages(total), pages(cache));
        let available = pages(total - demand);
        Some(GuestStats {
            total_bytes,
            free_bytes: Some(available.saturating_sub(cache)),
            available_bytes: Some(available),
            disk_cache_bytes: Some(cache),
            last_update: Duration::from_secs_f64(when),
        })
    }
}

impl BalloonMoves {
    fn inflated(&self, life: Life) -> bool {
        count(life.uptime / self.period) % 2 == 1
    }
}

/// How far a guest that has just booted has come.
fn started(uptime: f64) -> f64 {
    (uptime / START_SECONDS).min(1.0)
}

/// Whole pages of 4 KiB, in bytes.
fn pages(bytes: f64) -> u64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 32 GiB and a little")]
    let pages = (bytes / 4096.0) as u64;
    pages * 4096
}
