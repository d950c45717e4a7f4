use crate::{
    boundary::Fairness,
    domain::{Seconds, Signal},
    labels::{Label, Labels},
    model::{
        Model, Prices, Sample, Terms,
        anchors::oracle::Oracle,
        choice::{AnyModel, Choice},
    },
};

const ALLOCATED: u64 = 1000;
const GB: u64 = 1_000_000_000;

fn terms(target: f64) -> Terms {
    Terms { signal: Signal::Demand, horizon: 900.0, target, fairness: Fairness::PerVm }
}

fn model(text: &str) -> AnyModel {
    text.parse::<Choice>().unwrap().build()
}

fn after(model: &mut AnyModel, at: Seconds, bytes: u64, allocated: u64) -> u64 {
    model.observe(&Sample { at, interval: 300.0, bytes, allocated });
    model.forecast(&terms(0.01), &Prices::default()).unwrap().predicted_bytes
}

/// One value a step, from step 0 on; what is forecast at each.
fn forecasts(text: &str, usage: impl IntoIterator<Item = u64>) -> Vec<u64> {
    let mut model = model(text);
    (0u32..)
        .zip(usage)
        .map(|(step, bytes)| after(&mut model, f64::from(step) * 300.0, bytes, ALLOCATED))
        .collect()
}

#[test]
fn a_fixed_ratio_is_blind() {
    assert_eq!(forecasts("fixed", [10, 990]), [900, 900]);
    assert_eq!(forecasts("fixed:0.25", [10, 990]), [250, 250]);
}

#[test]
fn the_last_value_gets_a_buffer() {
    assert_eq!(forecasts("last", [500, 100, 900]), [600, 120, 1000]);
    assert_eq!(forecasts("last:0", [500, 100]), [500, 100]);
}

#[test]
fn mom_leaves_a_share_of_the_allocation_free() {
    assert_eq!(forecasts("mom", [500, 100, 900]), [700, 300, 1000]);
}

#[test]
fn esx_takes_the_largest_of_three_averages() {
    // The fast average is 100, then 200, then 100; the slow one 100, 116⅔, 106⅞…
    assert_eq!(forecasts("esx", [100, 300, 0, 0]), [100, 200, 200, 107]);
    let mut model = model("esx");
    after(&mut model, 0.0, 400, ALLOCATED);
    // Two steps on, a quarter of the old value is left in the fast average.
    assert_eq!(after(&mut model, 600.0, 800, ALLOCATED), 700);
}

#[test]
fn n_sigma_adds_deviations_to_the_mean_of_its_window() {
    let usage = (0..24).map(|step| if step % 2 == 0 { 100 } else { 300 }).chain([100; 24]);
    let out = forecasts("n_sigma_2h", usage.clone());
    assert!(out[..23].iter().all(|bytes| *bytes == ALLOCATED), "cold for two hours");
    // 200 + 5 · √(24 · 100² / 23)
    assert_eq!(out[23], 711);
    assert_eq!(out[47], 100, "the window has passed");
    // 200 + 1.5 · 102.15
    assert_eq!(forecasts("n_sigma_2h:1.5", usage.clone())[23], 354);
    // 48 values of mean 150: 36 at −50, 12 at +150.
    assert_eq!(forecasts("n_sigma_10h:1", usage.clone())[47], 238);
    assert_eq!(forecasts("n_sigma_24h:1", usage)[47], 238);
}

#[test]
fn percentiles_are_those_of_ten_hours() {
    assert_eq!(forecasts("rc_p95", 1..=120)[119], 114);
    assert_eq!(forecasts("rc_p99", 1..=120)[119], 119);
    assert_eq!(forecasts("rc_p99:0.5", 1..=120)[119], 179);
    assert_eq!(forecasts("rc_p95", 1..=240)[239], 234, "the first ten hours no longer count");
    assert_eq!(forecasts("rc_p95", 1..=23)[22], ALLOCATED, "cold for two hours");
}

#[test]
fn google_s_maximum_is_the_larger_of_two() {
    let ramp = forecasts("google_max:1", 1..=120)[119];
    assert_eq!(ramp, 119, "the percentile: one deviation on the mean is 96");
    // The mean of 1..=120 is 60.5, its sample deviation 34.785.
    assert_eq!(forecasts("google_max:3", 1..=120)[119], 165);
}

#[test]
fn a_peak_counts_for_its_window_and_no_longer() {
    for (text, steps) in
        [("max_15min:0", 3), ("max_1h:0", 12), ("max_6h:0", 72), ("max_24h:0", 288), ("max_7d:0", 2016)]
    {
        let out = forecasts(text, [800].into_iter().chain(std::iter::repeat_n(100, 2100)));
        let held = out.iter().take_while(|bytes| **bytes == 800).count();
        assert_eq!((held, out[steps]), (steps, 100), "{text}");
    }
    assert_eq!(forecasts("max_1h", [200, 400, 100]), [230, 460, 460]);
}

#[test]
fn vpa_covers_nine_tenths_of_the_decayed_daily_peaks() {
    let mut vpa = model("vpa:0");
    let mut day = |day: u32, peak: u64| {
        let noon = f64::from(day) * 86_400.0 + 43_200.0;
        after(&mut vpa, noon, peak, 64 * GB);
        after(&mut vpa, noon + 3600.0, GB / 2, 64 * GB)
    };
    let near = |bytes: u64, peak: u64| bytes >= peak && bytes < peak + peak / 19;
    assert!(near(day(0, 8 * GB), 8 * GB));
    assert!(near(day(1, 2 * GB), 8 * GB));
    // Weights 1, 2 and 4: the two low days are six sevenths, less than nine tenths.
    assert!(near(day(2, 2 * GB), 8 * GB));
    // Weights 1, 2, 4 and 8: fourteen fifteenths.
    assert!(near(day(3, 2 * GB), 2 * GB));
    let published = after(&mut model("vpa"), 0.0, 2 * GB, 64 * GB);
    assert!(near(published, 2 * GB * 115 / 100));
}

#[test]
fn koordinator_asks_for_all_on_the_first_day_and_then_covers_98_percent() {
    let usage = (0u32..600).map(|step| if step % 100 == 99 { 8 * GB } else { 2 * GB });
    let mut model = model("koordinator");
    let out: Vec<u64> = (0u32..)
        .zip(usage)
        .map(|(step, bytes)| after(&mut model, f64::from(step) * 300.0, bytes, 64 * GB))
        .collect();
    assert!(out[..287].iter().all(|bytes| *bytes == 64 * GB));
    let low = out[380];
    assert!((22 * GB / 10..24 * GB / 10).contains(&low), "one in a hundred is not covered: {low}");
}

#[test]
fn autopilot_holds_its_largest_recommendation_for_an_hour() {
    let out = forecasts("autopilot_max:0", [800].into_iter().chain(std::iter::repeat_n(100, 2100)));
    assert_eq!(out.iter().take_while(|bytes| **bytes == 800).count(), 2016 + 11);
    assert_eq!(out[2100], 100);
    let mut model = model("autopilot_p98");
    assert!((22 * GB / 10..24 * GB / 10).contains(&after(&mut model, 0.0, 2 * GB, 64 * GB)));
    let mut rare = |step: u32, bytes: u64| after(&mut model, f64::from(step) * 300.0, bytes, 64 * GB);
    (1..200).for_each(|step| assert!(rare(step, 2 * GB) < 3 * GB));
    assert!(rare(200, 8 * GB) < 3 * GB, "one in two hundred is not covered");
}

fn label(made_at: Seconds, level_bytes: u64, peak_bytes: u64, predicted_bytes: u64) -> Label {
    Label { made_at, level_bytes, predicted_bytes, peak_bytes, weight: 1.0 / 3.0 }
}

#[test]
fn aci_adapts_the_level_of_its_quantile() {
    let terms = terms(0.5);
    let mut aci = model("aci");
    assert_eq!(after(&mut aci, 0.0, 500, ALLOCATED), ALLOCATED, "nothing was judged yet");
    let mut prices = Prices::default();
    for step in 0..10u32 {
        aci.learn(&label(f64::from(step) * 300.0, 500, 500 + u64::from(step), 1000), &terms, &mut prices);
    }
    // Nine scores are in, 0 to 8; the level has risen to 0.5 + 10 · 0.005 · 0.5 = 0.525: the fifth of ten.
    assert_eq!(after(&mut aci, 3300.0, 500, ALLOCATED), 504);
    for step in 10..60u32 {
        aci.learn(&label(f64::from(step) * 300.0, 500, 520, 510), &terms, &mut prices);
    }
    // Missed fifty times: 0.525 − 50 · 0.0025 = 0.4, and most scores are 20 now.
    assert_eq!(after(&mut aci, 18_300.0, 500, ALLOCATED), 520);
}

#[test]
fn the_tracker_climbs_on_a_miss_and_comes_down_slowly() {
    let terms = terms(0.1);
    let mut tracker = model("tracker");
    assert_eq!(after(&mut tracker, 0.0, 500, ALLOCATED), 500);
    let mut prices = Prices::default();
    // A rise of 100 was missed: a tenth of it, times 1 − 0.1.
    tracker.learn(&label(0.0, 500, 600, 500), &terms, &mut prices);
    assert_eq!(after(&mut tracker, 300.0, 400, ALLOCATED), 509);
    tracker.learn(&label(300.0, 400, 450, 509), &terms, &mut prices);
    assert_eq!(after(&mut tracker, 600.0, 400, ALLOCATED), 508);
    assert_eq!(after(&mut tracker, 3900.0, 400, ALLOCATED), 408, "the hour has passed");
}

#[test]
fn both_conformal_anchors_keep_the_target_in_the_long_run() {
    for (text, target) in [("aci", 0.05), ("tracker", 0.05), ("tracker", 0.01)] {
        let (terms, mut prices) = (terms(target), Prices::default());
        let (mut model, mut labels) = (model(text), Labels::default());
        let (mut judged, mut missed, mut random) = (0.0, 0.0, 1u64);
        for step in 0..20_000u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let bytes = 300 + (random >> 33) % 200 + if random >> 58 == 0 { 300 } else { 0 };
            let at = f64::from(step) * 300.0;
            let sample = Sample { at, interval: 300.0, bytes, allocated: ALLOCATED };
            labels.observe(&sample, |label| {
                model.learn(label, &terms, &mut prices);
                judged += 1.0;
                missed += if label.missed() { 1.0 } else { 0.0 };
            });
            model.observe(&sample);
            labels.push(&model.forecast(&terms, &prices).unwrap(), &sample);
        }
        let rate: f64 = missed / judged;
        assert!((rate / target - 1.0).abs() < 0.15, "{text} was asked for {target} and got {rate}");
    }
}

#[test]
fn the_oracle_knows_the_peak_within_the_horizon() {
    let usage = [(0.0, 10), (300.0, 40), (900.0, 70), (905.0, 90), (1500.0, 20), (5000.0, 60)];
    let mut oracle = AnyModel::Oracle(Box::new(Oracle::knowing(usage)));
    let out = usage.map(|(at, bytes)| after(&mut oracle, at, bytes, ALLOCATED));
    // After 1500 nothing is known within the horizon, nor at the end.
    assert_eq!(out, [70, 90, 90, 20, ALLOCATED, ALLOCATED]);
    let mut shorter = Oracle::knowing(usage);
    shorter.observe(&Sample { at: 0.0, interval: 300.0, bytes: 10, allocated: 50 });
    let mut within = |horizon| {
        shorter.forecast(&Terms { horizon, ..terms(0.01) }, &Prices::default()).unwrap().predicted_bytes
    };
    assert_eq!((within(900.0), within(300.0), within(5000.0)), (50, 40, 50));
}

/// Within a step the largest value counts, so the same peaks give the same forecasts at any sampling.
#[test]
fn fast_sampling_changes_nothing_but_what_was_seen() {
    let mut random = 7u64;
    let fine: Vec<u64> = (0..20 * 400)
        .map(|_| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            200 + (random >> 33) % 500
        })
        .collect();
    for choice in Choice::all().filter(|choice| choice.name() != "cqd" && !choice.needs_future()) {
        let (mut fast, mut slow) = (choice.build(), choice.build());
        for (step, within) in (0u32..).zip(fine.chunks(20)) {
            let begin = f64::from(step) * 300.0;
            let mut last = 0;
            for (tick, bytes) in (0u32..).zip(within) {
                let forecast = after(&mut fast, begin + f64::from(tick) * 15.0, *bytes, ALLOCATED);
                // A low value deviates too: what comes above it brings the deviation down.
                let by_deviation = choice.name().contains("sigma") || choice.name() == "google_max";
                assert!(forecast >= last || by_deviation, "{choice} falls within a step");
                last = forecast;
            }
            let peak = within.iter().copied().max().unwrap();
            assert_eq!(after(&mut slow, begin, peak, ALLOCATED), last, "{choice}");
        }
    }
}

#[test]
fn a_restart_forgets_usage() {
    for choice in Choice::all().filter(|choice| !choice.needs_future()) {
        let mut model = choice.build();
        (0u32..400).for_each(|step| {
            after(&mut model, f64::from(step) * 300.0, 60 * GB, 64 * GB);
        });
        model.reset();
        assert_eq!(model.forecast(&terms(0.01), &Prices::default()), None, "{choice}");
        let forecast = after(&mut model, 400.0 * 300.0, GB, 64 * GB);
        assert!(forecast < 16 * GB || forecast == after(&mut choice.build(), 0.0, GB, 64 * GB), "{choice}");
    }
}
