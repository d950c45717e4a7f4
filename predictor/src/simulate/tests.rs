use super::*;
use crate::boundary::{Boundary, Source};
use crate::domain::real;

const GIB: u64 = 1 << 30;
const DAY: Seconds = 86_400.0;
const T0: Seconds = 1_795_000_200.0;

/// Two days of windows of five minutes in which a machine of 8 GiB uses 2 GiB, and its forecasts say 3 GiB.
fn steady() -> Vec<Window> {
    (1..=576u32)
        .map(|window| Window {
            end: T0 + f64::from(window) * 300.0,
            length: 300.0,
            quality: Quality::Live,
            allocated: Some(8 * GIB),
            rss: Some(2 * GIB),
            demand: Some(GIB),
            predicted_rss: Some(3 * GIB),
            predicted_demand: Some(3 * GIB / 2),
        })
        .collect()
}

fn machine(windows: Vec<Window>, after: &Boundary) -> Machine {
    Machine {
        vm_id: "vm".to_owned(),
        name: "db".to_owned(),
        host_id: "host".to_owned(),
        windows,
        before: Effective::default(),
        after: Effective::merged([(Source::Fleet, after)]),
    }
}

/// The second day counts; the first warms up.
fn terms() -> Terms {
    Terms {
        from: T0 + DAY,
        to: T0 + 2.0 * DAY,
        cold_start: 7200.0,
        model: Choice::default(),
        unforecast: false,
    }
}

fn of_one(windows: Vec<Window>, after: &Boundary) -> Effect {
    simulate(&[machine(windows, after)], &terms()).0.remove(0)
}

fn mean(effect: &Effect, side: usize) -> f64 {
    effect.harvest[side] / effect.seconds
}

#[test]
fn recorded_forecasts_go_through_the_guard() {
    let capped = Boundary { max_harvest_ratio: Some(0.25), ..Boundary::default() };
    let effect = of_one(steady(), &capped);
    // 8 GiB less 3 GiB and 5 % of them, in whole 64 MiB; the cap is a quarter of 8 GiB.
    let quantum = real(64 << 20);
    assert!((mean(&effect, 0) - (5.0 * real(GIB) - 3.0 * quantum)).abs() < 1.0, "{}", mean(&effect, 0));
    assert!((mean(&effect, 1) - 2.0 * real(GIB)).abs() < 1.0, "{}", mean(&effect, 1));
    assert!((effect.seconds - DAY).abs() < 1e-6 && (effect.judged - DAY).abs() < 1e-6);
    assert_eq!((effect.promises_broken, effect.band_left), ([0, 0], [0, 0]));
    assert!(effect.reclaimable[0] > 0.0 && effect.reclaimable[1] <= effect.reclaimable[0]);
}

#[test]
fn a_peak_breaks_the_promise_of_the_bolder_side_only() {
    let mut windows = steady();
    windows[400].rss = Some(4 * GIB);
    let careful = Boundary { headroom_bytes: Some(2 * GIB), ..Boundary::default() };
    let effect = of_one(windows.clone(), &careful);
    assert_eq!(effect.promises_broken, [1, 0]);
    assert!(mean(&effect, 1) < mean(&effect, 0));
    let band = Boundary { upper_usage_bytes: Some(3 * GIB), ..Boundary::default() };
    assert_eq!(of_one(windows, &band).band_left, [0, 1]);
}

type Spoil = fn(&mut Window);

#[test]
fn what_is_not_known_is_not_harvested() {
    let spoiled: [(&str, Spoil); 5] = [
        ("usage", |window| window.rss = None),
        ("forecast", |window| window.predicted_rss = None),
        ("allocation", |window| window.allocated = None),
        ("no memory", |window| window.allocated = Some(0)),
        ("quality", |window| window.quality = Quality::Unknown),
    ];
    for (what, spoil) in spoiled {
        let mut windows = steady();
        windows.iter_mut().for_each(spoil);
        let effect = of_one(windows, &Boundary::default());
        assert!(effect.harvest.iter().all(|bytes| *bytes <= 0.0), "{what}");
        assert!((effect.seconds - DAY).abs() < 1e-6, "{what}");
    }
}

#[test]
fn another_target_has_forecasts_made_anew_for_both_sides() {
    let bolder = Boundary { target_violation_rate: Some(0.2), ..Boundary::default() };
    let one = machine(steady(), &bolder);
    assert!(one.is_forecast_anew(&terms()));
    let effect = of_one(steady(), &bolder);
    assert!(mean(&effect, 0) > 4.0 * real(GIB), "the model sees that usage stands still");
    assert!(mean(&effect, 1) >= mean(&effect, 0));
    let same = machine(steady(), &Boundary::default());
    assert!(!same.is_forecast_anew(&terms()));
    let of_a_trace = Terms { unforecast: true, ..terms() };
    assert!(same.is_forecast_anew(&of_a_trace));
    let (effects, _) = simulate(&[same], &of_a_trace);
    assert!(
        (effects[0].harvest[0] - effect.harvest[0]).abs() < 1.0,
        "the same forecasts as for the first side above"
    );
}

#[test]
fn machines_that_share_a_price_go_through_time_together() {
    let fleet = Boundary { fairness: Some(Fairness::Fleet), ..Boundary::default() };
    let machines = [machine(steady(), &fleet), machine(steady(), &fleet)];
    let (effects, _) = simulate(&machines, &terms());
    assert_eq!(effects[0], effects[1]);
    assert!(effects.iter().all(|effect| effect.harvest.iter().all(|bytes| *bytes > 0.0)));
}

#[test]
fn hours_are_too_coarse_to_judge_a_promise() {
    let mut hours: Vec<Window> = steady().into_iter().step_by(12).collect();
    for (hour, window) in (1..=48u32).zip(&mut hours) {
        window.end = T0 + f64::from(hour) * 3600.0;
        window.length = 3600.0;
    }
    hours[40].rss = Some(7 * GIB);
    let effect = of_one(hours, &Boundary::default());
    assert_eq!((effect.judged.to_bits(), effect.promises_broken), (0.0_f64.to_bits(), [0, 0]));
    assert!(effect.harvest[0] > 0.0);
}

#[test]
fn the_course_adds_up_to_the_total() {
    let capped = Boundary { max_harvest_ratio: Some(0.25), ..Boundary::default() };
    let (effects, course) = simulate(&[machine(steady(), &capped), machine(steady(), &capped)], &terms());
    let (from, to) = course.observed().unwrap();
    assert!((to - from - DAY).abs() < 1e-6);
    let points: Vec<_> = course.points().collect();
    assert_eq!(points.len(), 96);
    for side in 0..2 {
        let sum: f64 = points.iter().map(|(_, sides)| sides[side] * DAY / 96.0).sum();
        let total: f64 = effects.iter().map(|effect| effect.harvest[side]).sum();
        assert!((sum / total - 1.0).abs() < 1e-9, "{sum} {total}");
    }
}
