use proptest::prelude::*;

use super::*;
use crate::violation::SERIES;

/// All bounds ever made, looked through anew each time.
fn lowest_by_brute_force(made: &[(Seconds, u64)], at: Seconds, horizon: Seconds) -> Option<u64> {
    made.iter().filter(|(t, _)| *t < at && t + horizon >= at).map(|(_, bytes)| *bytes).min()
}

proptest! {
    #[test]
    fn the_queue_knows_the_lowest_open_bound(
        steps in prop::collection::vec((1u32..200, 0u64..8), 1..300),
        horizon in 1u32..2000,
    ) {
        // No more values than a queue has room for, so that nothing is merged.
        let (mut queue, mut made, mut at) = (OpenBounds::default(), Vec::new(), 1.7e9);
        let horizon = f64::from(horizon);
        for (dt, bytes) in steps {
            at += f64::from(dt);
            queue.expire(at, horizon);
            prop_assert_eq!(queue.lowest(), lowest_by_brute_force(&made, at, horizon));
            queue.push(at, bytes);
            made.push((at, bytes));
        }
    }

}

proptest! {
    // Each case is a brute-force search over hundreds of bounds.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn a_full_queue_stays_small_and_never_misses_an_accusation(
        steps in prop::collection::vec((1u32..3, 0u64..30), 300..600),
    ) {
        let (mut queue, mut made, mut at, mut ramp) = (OpenBounds::default(), Vec::new(), 0.0, 0);
        let horizon = 900.0;
        for (dt, rise) in steps {
            at += f64::from(dt);
            ramp += rise;
            queue.expire(at, horizon);
            let exact = lowest_by_brute_force(&made, at, horizon).unwrap_or(u64::MAX);
            prop_assert!(queue.lowest().unwrap_or(u64::MAX) <= exact);
            queue.push(at, ramp);
            made.push((at, ramp));
            prop_assert!(queue.len() <= LIMIT);
        }
    }

    #[test]
    fn an_episode_spans_from_the_first_excess_to_one_clean_horizon(
        readings in prop::collection::vec((1u32..400, 0u64..20, 0u64..8), 1..200),
    ) {
        let horizon = 900.0;
        let recent = Recent::default();
        let (mut queue, mut judge) = (OpenBounds::default(), Judge::of(Kind::Forecast, Signal::Rss));
        let (mut made, mut at, mut open_since, mut last_beyond) = (Vec::new(), 0.0, None, 0.0);
        for (dt, usage, bound) in readings {
            at += f64::from(dt);
            queue.expire(at, horizon);
            let scene = scene(at, usage, &recent);
            let change = judge.observe(&scene, queue.lowest());
            let beyond = lowest_by_brute_force(&made, at, horizon).is_some_and(|lowest| usage > lowest);
            if beyond {
                last_beyond = at;
            }
            if beyond && open_since.is_none() {
                open_since = Some(at);
                prop_assert!(matches!(change, Some(Change::Opened(_))));
            } else if open_since.is_some() && !beyond && at - last_beyond >= horizon {
                open_since = None;
                prop_assert!(matches!(change, Some(Change::Closed(_))));
            } else {
                prop_assert!(!matches!(change, Some(Change::Opened(_) | Change::Closed(_))));
            }
            prop_assert_eq!(judge.open().map(|episode| episode.opened_at), open_since);
            if let Some(episode) = judge.open() {
                prop_assert!(episode.series.len() <= SERIES);
                prop_assert!(episode.series.is_sorted_by(|a, b| a.at <= b.at));
            }
            queue.push(at, bound);
            made.push((at, bound));
        }
    }
}

fn scene(at: Seconds, actual_bytes: u64, recent: &Recent) -> Scene<'_> {
    Scene {
        at,
        actual_bytes,
        allocated_bytes: 1000,
        horizon: 900.0,
        target: 0.01,
        model_version: "test".into(),
        recent,
    }
}

#[test]
fn an_episode_remembers_its_peak_and_what_came_before() {
    let mut recent = Recent::default();
    for step in 0..10u32 {
        recent.push(f64::from(step), u64::from(step));
    }
    let mut judge = Judge::of(Kind::Promise, Signal::Rss);
    assert!(matches!(judge.observe(&scene(10.0, 200, &recent), Some(100)), Some(Change::Opened(_))));
    assert!(matches!(judge.observe(&scene(11.0, 300, &recent), Some(100)), Some(Change::Updated(_))));
    for step in 12..200u32 {
        assert_eq!(judge.observe(&scene(f64::from(step), 50, &recent), Some(100)), None);
    }
    let Some(Change::Closed(episode)) = judge.observe(&scene(911.0, 50, &recent), None) else {
        panic!("one clean horizon closes it")
    };
    assert_eq!((episode.predicted_bytes, episode.actual_bytes, episode.overshoot_bytes), (100, 300, 200));
    assert!((episode.overshoot_ratio() - 0.2).abs() < 1e-12);
    assert_eq!(episode.closed, Some((911.0, Closing::Clean)));
    assert_eq!(episode.revision, 3);
    assert_eq!(episode.series[0].actual_bytes, 6, "the four readings before");
    assert!(episode.series.iter().any(|point| point.actual_bytes == 300), "thinning keeps the peak");
    assert!(episode.series.len() <= SERIES);
}

#[test]
fn the_lower_edge_is_broken_from_above() {
    let recent = Recent::default();
    let mut judge = Judge::of(Kind::BoundaryLower, Signal::Rss);
    assert_eq!(judge.observe(&scene(0.0, 100, &recent), Some(100)), None);
    let Some(Change::Opened(episode)) = judge.observe(&scene(1.0, 70, &recent), Some(100)) else {
        panic!("usage below the lower edge opens it")
    };
    assert_eq!(episode.overshoot_bytes, 30);
    let Some(Change::Closed(episode)) = judge.close(2.0, Closing::VmGone) else { panic!("it was open") };
    assert_eq!(episode.closed, Some((2.0, Closing::VmGone)));
}
