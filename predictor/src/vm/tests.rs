use proptest::prelude::*;

use super::*;
use crate::{
    boundary::{Boundary, Source},
    guard::{LimitedBy, TermName},
    model::choice::Choice,
    violation::Kind,
};

const GIB: u64 = 1 << 30;
const MIB: u64 = 1 << 20;

type Spoil<'a> = &'a dyn Fn(&mut Reading);

fn reading(at: Seconds, rss: u64) -> Reading {
    Reading {
        at,
        interval: 5.0,
        allocated: Some(8 * GIB),
        rss: Some(rss),
        swap: Some(0),
        demand: Some(rss / 2),
        stats_updated_at: Some(at),
        stats_period: Some(5.0),
        quality: Quality::Live,
        pinned: false,
        generation: Some(1),
        uptime: None,
        guest_counter: None,
    }
}

/// A VM under default boundaries that may be harvested after a minute, fully after twelve.
struct Guest {
    state: VmState,
    effective: Effective,
    host: HostContext,
    at: Seconds,
}

impl Guest {
    fn new() -> Self {
        let cold_start = ColdStart::first_harvest_after(60.0, 5.0);
        let host = HostContext { cold_start, ..HostContext::default() };
        Self { state: VmState::default(), effective: Effective::default(), host, at: 0.0 }
    }

    fn see(&mut self, change: impl FnOnce(&mut Reading)) -> Outcome {
        self.at += 5.0;
        let mut next = reading(self.at, 2 * GIB);
        change(&mut next);
        self.state.observe(&next, &self.effective, &self.host, &mut crate::model::Prices::default()).unwrap()
    }

    fn steady(&mut self, seconds: u32) -> Outcome {
        let mut last = self.see(|_| {});
        for _ in 1..seconds / 5 {
            last = self.see(|_| {});
        }
        last
    }
}

fn warm() -> Guest {
    let mut guest = Guest::new();
    let last = guest.steady(3600);
    assert!(last.harvestable > 5 * GIB, "{}", last.harvestable);
    assert!(last.reclaimable > GIB / 4, "{}", last.reclaimable);
    guest
}

#[test]
fn a_cold_vm_says_when_it_will_be_warm_and_keeps_its_word() {
    let mut guest = Guest::new();
    let first = guest.see(|_| {});
    assert_eq!((first.harvestable, first.warm_at), (0, Some(65.0)));
    assert_eq!(first.rss.waterfall.term(TermName::ColdStart).limited_by, Some(LimitedBy::Cold));
    let mut last = first;
    while guest.at < 60.0 {
        last = guest.see(|_| {});
        assert_eq!(last.harvestable, 0);
    }
    assert_eq!(last.warm_at, Some(65.0));
    let warming = guest.see(|_| {});
    assert_eq!(warming.warm_at, None);
    assert_eq!(warming.rss.waterfall.term(TermName::ColdStart).limited_by, Some(LimitedBy::Warming));
    assert!(guest.steady(1800).harvestable > 0);
}

#[test]
fn it_fails_closed() {
    for quality in Quality::ALL {
        let last = warm().see(|reading| reading.quality = quality);
        assert_eq!(last.harvestable > 0, quality.allows(Signal::Rss), "{}", quality.name());
        assert_eq!(last.reclaimable > 0, quality == Quality::Live, "{}", quality.name());
        if quality != Quality::Live {
            let reason = last.demand.waterfall.term(TermName::Quality).limited_by;
            assert_eq!(reason, Some(LimitedBy::Quality(quality)));
        }
    }
    let pinned = warm().see(|reading| reading.pinned = true);
    assert!(pinned.harvestable > 0 && pinned.reclaimable == 0);
    let mut guest = warm();
    guest.host.swapping = true;
    let unknown = guest.see(|reading| reading.swap = None);
    assert_eq!((unknown.harvestable, unknown.reclaimable), (0, 0));
    assert!(warm().see(|reading| reading.swap = None).harvestable > 0);
    let unread = warm().see(|reading| reading.rss = None);
    assert_eq!((unread.harvestable, unread.reclaimable), (0, 0));
    let no_demand = warm().see(|reading| reading.demand = None);
    assert!(no_demand.harvestable > 0 && no_demand.reclaimable == 0);
}

#[test]
fn bad_readings_are_refused_and_change_nothing() {
    let mut guest = warm();
    let at = guest.at;
    let before = format!("{:?}", guest.state);
    let cases: [(Refused, Spoil<'_>); 7] = [
        (Refused::Duplicate, &|reading| reading.at = at),
        (Refused::OutOfOrder, &|reading| reading.at = at - 1.0),
        (Refused::NotATime, &|reading| reading.at = f64::NAN),
        (Refused::NotATime, &|reading| reading.at = f64::INFINITY),
        (Refused::NotATime, &|reading| reading.interval = 0.0),
        (Refused::AbsentAllocation, &|reading| reading.allocated = None),
        (Refused::ZeroAllocation, &|reading| reading.allocated = Some(0)),
    ];
    for (refused, spoil) in cases {
        let mut bad = reading(at + 5.0, 2 * GIB);
        spoil(&mut bad);
        assert_eq!(
            guest.state.observe(&bad, &guest.effective, &guest.host, &mut crate::model::Prices::default()),
            Err(refused)
        );
    }
    assert_eq!(format!("{:?}", guest.state), before);
}

#[test]
fn a_break_opens_two_violations_and_one_clean_horizon_closes_them() {
    let mut guest = warm();
    let broken = guest.see(|reading| reading.rss = Some(6 * GIB));
    let opened: Vec<_> = broken.violations.iter().map(Change::episode).collect();
    let of = |kind| opened.iter().find(|episode| episode.signal == Signal::Rss && episode.kind == kind);
    let (Some(forecast), Some(promise)) = (of(Kind::Forecast), of(Kind::Promise)) else {
        panic!("both are broken: {opened:?}")
    };
    assert!(forecast.predicted_bytes < promise.predicted_bytes);
    assert_eq!(promise.actual_bytes, 6 * GIB);
    assert_eq!(promise.overshoot_bytes, 6 * GIB - promise.predicted_bytes);
    assert!(promise.series.len() > 3);
    assert!(broken.harvestable < 2 * GIB, "it is cut at once");
    let since = guest.at;
    let mut closed = Vec::new();
    while guest.at < since + 2000.0 {
        let calm = guest.see(|_| {});
        closed.extend(calm.violations.iter().map(Change::episode).filter_map(|episode| episode.closed));
    }
    assert!(closed.len() >= 2 && closed.iter().all(|closed| *closed == (since + 900.0, Closing::Clean)));
    assert_eq!(guest.state.open_violations(), 0);
}

#[test]
fn a_raise_is_slow() {
    let mut guest = warm();
    guest.see(|reading| reading.quality = Quality::Paused);
    let start = guest.at;
    let mut last = 0;
    while last < 5 * GIB {
        let now = guest.see(|_| {}).harvestable;
        assert!(now <= last + (8 * GIB) / 20 / 12 + 64 * MIB);
        last = now;
    }
    assert!(guest.at - start > 11.0 * 60.0, "5 GiB of 8 at 5 % a minute take over 12 minutes");
}

#[test]
fn a_resize_voids_what_is_open_and_keeps_history() {
    let mut guest = warm();
    guest.see(|reading| reading.rss = Some(6 * GIB));
    let resized = guest.see(|reading| reading.allocated = Some(7 * GIB));
    assert_eq!(resized.change_point, Some(ChangePoint::Resized { from: 8 * GIB, to: 7 * GIB }));
    assert!(resized.violations.iter().all(|change| {
        matches!(change, Change::Closed(episode) if episode.closed == Some((guest.at, Closing::Voided)))
    }));
    assert_eq!((resized.warm_at, guest.state.open_violations()), (None, 0));
}

#[test]
fn a_vm_that_touched_its_ceiling_begins_anew_under_a_higher_one() {
    let mut guest = warm();
    guest.see(|reading| reading.rss = Some(8 * GIB));
    let grown = guest.see(|reading| reading.allocated = Some(16 * GIB));
    assert!(grown.harvestable == 0 && grown.warm_at.is_some());
}

#[test]
fn a_restart_begins_anew() {
    let changes: [&dyn Fn(&mut Reading); 3] =
        [&|reading| reading.generation = Some(2), &|reading| reading.uptime = Some(1.0), &|reading| {
            reading.guest_counter = Some(1);
        }];
    for change in changes {
        let mut guest = warm();
        guest.see(|reading| {
            reading.uptime = Some(3600.0);
            reading.guest_counter = Some(70);
        });
        let restarted = guest.see(change);
        assert_eq!(restarted.change_point, Some(ChangePoint::Restarted));
        assert!(restarted.harvestable == 0 && restarted.warm_at.is_some());
    }
}

#[test]
fn unchanged_statistics_are_no_new_sample_and_three_periods_of_them_are_stale() {
    let mut guest = warm();
    let stopped = guest.at;
    let judged = guest.state.track(Signal::Demand).coverage().total().forecasts;
    let mut last = guest.see(|reading| reading.stats_updated_at = Some(stopped));
    assert!(last.reclaimable > 0);
    for _ in 0..3 {
        last = guest.see(|reading| {
            reading.stats_updated_at = Some(stopped);
            reading.demand = Some(GIB);
        });
    }
    assert_eq!(last.reclaimable, 0);
    assert_eq!(last.demand.waterfall.inputs.closed, Some(Closed::StaleStatistics));
    assert!(last.harvestable > 0, "the resident set is still fresh");
    assert_eq!(guest.state.track(Signal::Demand).coverage().total().forecasts, judged);
    assert_eq!(last.demand.forecast.unwrap().made_at.to_bits(), stopped.to_bits());
}

#[test]
fn a_vm_that_is_not_read_turns_stale_and_a_vanished_one_closes_its_violations() {
    let mut guest = warm();
    guest.see(|reading| reading.rss = Some(6 * GIB));
    assert_eq!(guest.state.absent(guest.at + 15.0, &guest.effective, &guest.host), None);
    let stale = guest.state.absent(guest.at + 15.1, &guest.effective, &guest.host).unwrap();
    assert_eq!((stale.quality, stale.harvestable, stale.reclaimable), (Quality::Stale, 0, 0));
    let closed = guest.state.vanish(guest.at + 20.0);
    assert!(closed.len() >= 2);
    assert!(closed.iter().all(|change| change.episode().closed == Some((guest.at + 20.0, Closing::VmGone))));
    assert_eq!(guest.state.open_violations(), 0);
}

#[test]
fn the_operators_band_is_watched_for_the_chosen_signal() {
    let mut guest = warm();
    let band =
        Boundary { upper_usage_bytes: Some(3 * GIB), lower_usage_bytes: Some(GIB), ..Boundary::default() };
    guest.effective = Effective::merged([(Source::Host, &band)]);
    assert_eq!(guest.see(|_| {}).violations, []);
    let below = guest.see(|reading| reading.rss = Some(GIB - 1));
    assert!(below.violations.iter().any(|change| change.episode().kind == Kind::BoundaryLower));
    let demand = Boundary { signal: Some(Signal::Demand), ..band };
    guest.effective = Effective::merged([(Source::Host, &demand)]);
    let moved = guest.see(|reading| reading.demand = Some(4 * GIB));
    let band_changes: Vec<_> = moved.violations.iter().map(Change::episode).collect();
    assert!(
        band_changes
            .iter()
            .any(|episode| episode.kind == Kind::BoundaryUpper && episode.signal == Signal::Demand)
    );
    assert!(band_changes.iter().any(|episode| episode.closed.is_some() && episode.signal == Signal::Rss));
    assert_eq!(moved.harvestable, 0, "only demand is harvested now");
}

#[test]
fn repeated_bad_breaks_back_off() {
    // A model that learns nothing from them.
    let last = || "last".parse::<Choice>().unwrap().build();
    let mut guest = Guest { state: VmState::of(last(), last()), ..Guest::new() };
    guest.steady(3600);
    for rss in [5, 7] {
        guest.see(|reading| reading.rss = Some(rss * GIB));
        guest.steady(4000);
    }
    guest.see(|reading| reading.rss = Some(8 * GIB));
    let after = guest.steady(60);
    assert_eq!(after.harvestable, 0);
    assert!(after.rss.waterfall.inputs.backoff.is_some());
}

#[test]
fn a_signal_of_a_machine_takes_little_memory() {
    // Nothing of it lies elsewhere, but for a violation that is open, an operator's band and a backoff.
    let track = size_of::<Track<crate::model::Current>>();
    assert!(track <= 2560, "{track} bytes");
}

prop_compose! {
    fn any_reading()(
        dt in prop_oneof![8 => Just(5.0), 1 => 0.001..100.0f64, 1 => 100.0..200_000.0f64],
        allocated in prop_oneof![20 => Just(8 * GIB), 1 => 1..=u64::MAX],
        rss in prop::option::weighted(0.95, prop_oneof![0..10 * GIB, any::<u64>()]),
        swap in prop::option::of(0..GIB),
        demand in prop::option::weighted(0.8, prop_oneof![0..8 * GIB, any::<u64>()]),
        updated in prop::option::of(prop_oneof![Just(1.0), prop::num::f64::ANY]),
        quality in prop_oneof![9 => Just(Quality::Live), 1 => prop::sample::select(Quality::ALL.to_vec())],
        generation in prop_oneof![30 => Just(1u64), 1 => 0..3u64],
        flags in prop::array::uniform3(prop::bool::weighted(0.1)),
    ) -> (f64, Reading, [bool; 3]) {
        let reading = Reading {
            allocated: Some(allocated),
            rss,
            swap,
            demand,
            stats_updated_at: updated,
            quality,
            generation: Some(generation),
            pinned: flags[0],
            ..reading(0.0, 0)
        };
        (dt, reading, flags)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whatever_is_read_the_waterfalls_add_up_and_the_past_stands(
        steps in prop::collection::vec(any_reading(), 1..400),
        cut in 0usize..400,
    ) {
        let replay = |steps: &[(f64, Reading, [bool; 3])]| {
            let mut guest = Guest::new();
            let all = steps.iter().map(|(dt, reading, flags)| {
                guest.at += dt;
                guest.host.swapping = flags[1];
                guest.host.budget_spent = flags[2];
                let reading = Reading { at: guest.at, ..reading.clone() };
                guest.state.observe(&reading, &guest.effective, &guest.host, &mut crate::model::Prices::default()).unwrap()
            });
            all.collect::<Vec<_>>()
        };
        let outcomes = replay(&steps);
        for (outcome, (_, reading, _)) in outcomes.iter().zip(&steps) {
            for signal in Signal::ALL {
                let waterfall = &outcome.signal(signal).waterfall;
                let taken: u128 = waterfall.terms.iter().map(|term| u128::from(term.bytes)).sum();
                prop_assert_eq!(u128::from(waterfall.start), taken + u128::from(waterfall.result));
                prop_assert!(waterfall.result == 0 || reading.quality.allows(signal));
                let usage = outcome.signal(signal).usage;
                if let (Some(forecast), Some(usage)) = (outcome.signal(signal).forecast, usage)
                    && forecast.made_at.to_bits() == waterfall.inputs.at.to_bits()
                {
                    // The forecast may lie below usage, which says nothing about the time to come; the harvest may not.
                    prop_assert!(forecast.predicted_bytes <= waterfall.inputs.allocated);
                    prop_assert!(waterfall.result <= waterfall.start.saturating_sub(usage));
                }
            }
            prop_assert!(outcome.violations.iter().all(|change| change.episode().overshoot_ratio().is_finite()));
        }
        let cut = cut.min(steps.len());
        // Debug text, because a NaN that was read is not equal to itself.
        prop_assert_eq!(format!("{:?}", replay(&steps[..cut])), format!("{:?}", &outcomes[..cut]));
    }
}
