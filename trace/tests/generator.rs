//! Invented guests: deterministic, plausible, and every kind does what it is there for.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::collections::HashMap;
use std::time::Duration;

use memharvest_trace::{GuestSample, HostSample, Profile, Simulation};
use proptest::prelude::*;

const MIB: u64 = 1 << 20;

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A guest of this profile, every `step` seconds for `length`.
fn course(seed: u64, profile: Profile, step: u64, length: Duration) -> Vec<GuestSample> {
    let simulation = Simulation::new(seed, 1, 10);
    let prefix = format!("{}-{seed}-", profile.name());
    (0..length.as_secs() / step)
        .map(|tick| {
            let mut hosts = simulation.at(secs(tick * step));
            let guests = hosts.remove(0).guests;
            guests.into_iter().find(|guest| guest.name.starts_with(&prefix)).unwrap()
        })
        .collect()
}

fn demand(guest: &GuestSample) -> Option<u64> {
    guest.guest?.demand_bytes()
}

fn falls(course: &[GuestSample]) -> usize {
    course.windows(2).filter(|pair| pair[1].rss_bytes < pair[0].rss_bytes).count()
}

fn check_bounds(hosts: &[HostSample], at: Duration) {
    for host in hosts {
        assert!(host.available_bytes > 0 && host.available_bytes < host.total_bytes, "{}", host.id);
        for guest in &host.guests {
            let rss = guest.rss_bytes.unwrap();
            assert!(guest.allocated_bytes > 0 && guest.allocated_bytes <= guest.maximum_bytes, "{guest:?}");
            assert!(rss <= guest.allocated_bytes + 200 * MIB, "{guest:?}");
            let Some(stats) = guest.guest else { continue };
            let (free, cache) = (stats.free_bytes.unwrap(), stats.disk_cache_bytes.unwrap());
            let available = stats.available_bytes.unwrap();
            assert!(stats.last_update <= at && guest.has_balloon && guest.stats_period_seconds.is_some());
            assert!(stats.total_bytes <= guest.maximum_bytes && available <= stats.total_bytes, "{guest:?}");
            assert!(free + cache <= available + 4096, "{guest:?}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_way_through_time_shows_the_same(seed: u64, mut times in proptest::collection::vec(0_u64..30 * 86_400, 1..8)) {
        let one = Simulation::new(seed, 2, 12);
        let first: Vec<_> = times.iter().map(|t| one.at(secs(*t))).collect();
        let other = Simulation::new(seed, 2, 12);
        let mut shown: HashMap<u64, Vec<HostSample>> = HashMap::new();
        times.reverse();
        for t in &times {
            shown.insert(*t, other.at(secs(*t)));
        }
        times.reverse();
        for (t, hosts) in times.iter().zip(first) {
            prop_assert_eq!(&shown[t], &hosts);
            check_bounds(&hosts, secs(*t));
        }
    }

    #[test]
    fn rss_falls_only_for_a_reason(seed: u64) {
        for profile in [Profile::Steady, Profile::Staircase, Profile::Leak, Profile::CronBurst, Profile::NoBalloon] {
            let course = course(seed, profile, 300, Duration::from_hours(48));
            // Free page reporting is the other reason; only guests of a settled need have it, and then RSS follows demand.
            if profile != Profile::Steady {
                prop_assert_eq!(falls(&course), 0, "{:?}", profile);
            }
            for guest in &course {
                if let Some(demand) = demand(guest) {
                    prop_assert!(guest.rss_bytes.unwrap() + MIB >= demand, "{:?}", guest);
                }
            }
        }
    }
}

#[test]
fn seeds_differ_and_ten_guests_show_every_profile() {
    let guests = |seed| Simulation::new(seed, 1, 10).at(secs(0)).remove(0).guests;
    let (one, other) = (guests(1), guests(2));
    assert!(one.iter().zip(&other).all(|(a, b)| a.vm != b.vm && a.rss_bytes != b.rss_bytes));
    let kinds: std::collections::HashSet<_> =
        one.iter().map(|guest| guest.name.split_once("-1-").unwrap().0.to_owned()).collect();
    assert_eq!(kinds.len(), 10, "{kinds:?}");
    assert_eq!(Simulation::new(1, 0, 10).at(secs(0)).len(), 0);
}

#[test]
fn a_reboot_counts_and_empties_the_guest() {
    let course = course(3, Profile::Reboot, 10, Duration::from_hours(72));
    let reboot =
        course.windows(2).find(|pair| pair[1].boots > pair[0].boots).expect("a reboot within three days");
    assert_eq!(reboot[1].boots, reboot[0].boots + 1);
    assert!(reboot[1].uptime < secs(10) && reboot[1].rss_bytes < reboot[0].rss_bytes);
    assert_eq!(reboot[1].guest, None, "no driver answers before the guest has booted");
    for pair in course.windows(2).filter(|pair| pair[1].boots == pair[0].boots) {
        assert!(pair[1].rss_bytes >= pair[0].rss_bytes);
    }
}

#[test]
fn a_balloon_moves_between_two_sizes_and_takes_rss_along() {
    let course = course(4, Profile::BalloonMove, 60, Duration::from_hours(48));
    let mut sizes: Vec<u64> = course.iter().map(|guest| guest.allocated_bytes).collect();
    sizes.sort_unstable();
    sizes.dedup();
    assert_eq!(sizes.len(), 2);
    for pair in course.windows(2).filter(|pair| pair[1].allocated_bytes >= pair[0].allocated_bytes) {
        assert!(pair[1].rss_bytes >= pair[0].rss_bytes);
    }
    assert!(course.windows(2).any(|pair| pair[1].allocated_bytes > pair[0].allocated_bytes));
}

#[test]
fn statistics_freeze_and_thaw() {
    let course = course(5, Profile::StaleStatistics, 30, Duration::from_hours(8));
    let mut longest = 0;
    let mut still = 0;
    let mut frozen_spells = 0;
    for pair in course.windows(2) {
        let (before, after) = (pair[0].guest.unwrap(), pair[1].guest.unwrap());
        if after.last_update == before.last_update {
            assert_eq!(after, before, "an unchanged last update is no new sample");
            still += 1;
            frozen_spells += u32::from(still == 5);
            longest = longest.max(still);
        } else {
            still = 0;
        }
    }
    assert!(longest >= 55 && frozen_spells >= 2, "{longest} {frozen_spells}");
}

#[test]
fn without_a_balloon_or_a_period_the_guest_is_silent() {
    for guest in course(6, Profile::NoBalloon, 600, Duration::from_hours(4)) {
        assert!(!guest.has_balloon && guest.stats_period_seconds.is_none() && guest.guest.is_none());
    }
    for guest in course(6, Profile::NoPeriod, 600, Duration::from_hours(4)) {
        assert!(guest.has_balloon && guest.stats_period_seconds.is_none() && guest.guest.is_none());
    }
}

#[test]
fn needs_move_as_the_profile_says() {
    let spread = |profile| {
        let needs: Vec<u64> =
            course(8, profile, 60, Duration::from_hours(72)).iter().filter_map(demand).collect();
        let (low, high) = (needs.iter().min().unwrap(), needs.iter().max().unwrap());
        (high - low) * 100 / high
    };
    assert!(spread(Profile::Steady) < 20, "{}", spread(Profile::Steady));
    for profile in [Profile::Diurnal, Profile::Leak, Profile::CronBurst] {
        assert!(spread(profile) > 30, "{profile:?} {}", spread(profile));
    }
    let stairs = course(8, Profile::Staircase, 60, Duration::from_hours(72));
    assert!(demand(stairs.last().unwrap()) > demand(&stairs[0]));
}

#[test]
fn a_simulated_guest_survives_the_way_through_a_file() {
    let guest = course(9, Profile::Steady, 60, secs(60)).remove(0);
    let row = guest.to_trace_row(secs(60));
    let mut csv = memharvest_trace::TraceWriter::new(Vec::new()).unwrap();
    csv.write(&row).unwrap();
    let text = csv.finish().unwrap();
    let back = memharvest_trace::TraceFile::from_reader("t.csv", std::io::Cursor::new(text)).unwrap().next();
    assert_eq!(back.unwrap().unwrap(), row);
}
