use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::{boundary::Fairness, domain::Signal, labels::Labels};

#[test]
fn the_table_is_in_the_order_of_the_names_and_each_is_there_once() {
    for (place, (text, name, _)) in NAMES.iter().enumerate() {
        assert_eq!(*name as usize, place, "{text}");
    }
    assert_eq!(NAMES.iter().map(|(text, ..)| *text).collect::<BTreeSet<_>>().len(), NAMES.len());
    assert_eq!(Choice::default().to_string(), "cqd");
}

#[test]
fn every_sweep_rises_and_holds_the_published_margin() {
    for choice in Choice::all() {
        let margins: Vec<f64> = choice.sweep().map(|swept| swept.margin).collect();
        assert!(margins.is_sorted_by(|a, b| a < b) && margins.contains(&choice.margin), "{choice}");
        let turned = choice.sweep().len() > 1;
        assert_eq!(turned, choice.margin().is_some(), "{choice}");
        assert!(!(turned && choice.follows_target()), "{choice}");
    }
}

#[test]
fn text_means_one_choice_and_back() {
    for choice in Choice::all().flat_map(Choice::sweep) {
        assert_eq!(choice.to_string().parse(), Ok(choice));
        assert_eq!(serde_json::from_str::<Choice>(&serde_json::to_string(&choice).unwrap()).unwrap(), choice);
        assert_eq!(
            choice.build().version(),
            if choice.name() == "cqd" { "cqd-v1".into() } else { choice.label() }
        );
    }
    let published: Choice = "vpa".parse().unwrap();
    assert_eq!(published.to_string(), "vpa:0.15");
    assert_eq!("n_sigma_2h:3".parse::<Choice>().unwrap().margin(), Some(3.0));
}

#[test]
fn a_wrong_text_says_what_is_right() {
    let error = |text: &str| text.parse::<Choice>().unwrap_err().to_string();
    let unknown = error("lstm:3");
    assert!(unknown.starts_with("there is no model `lstm`; use one of cqd, fixed, last, "), "{unknown}");
    assert!(NAMES.iter().all(|(name, ..)| unknown.contains(name)));
    assert_eq!(error("cqd:1"), "`cqd` takes no margin; leave out what follows the name");
    for text in ["fixed:1.5", "fixed:x", "fixed:", "fixed:NaN", "fixed:-0.1"] {
        let given = text.split_once(':').unwrap().1;
        assert_eq!(
            error(text),
            format!("the margin of `fixed` is a number from 0 to 1, as in `fixed:0.9`; `{given}` is not")
        );
    }
}

#[test]
fn an_anchor_costs_no_room_where_it_is_not_used() {
    assert!(size_of::<AnyModel>() <= size_of::<Cqd>() + 8);
}

#[test]
fn a_model_that_was_stored_goes_on_as_if_it_had_not_been() {
    let terms = Terms { signal: Signal::Rss, horizon: 900.0, target: 0.05, fairness: Fairness::PerVm };
    for choice in Choice::all() {
        let (mut model, mut labels, mut prices) = (choice.build(), Labels::default(), Prices::default());
        for step in 0..700u32 {
            let bytes = u64::from(step * 7919 % 97) << 25;
            let sample = Sample { at: f64::from(step) * 300.0, interval: 300.0, bytes, allocated: 8 << 30 };
            labels.observe(&sample, |label| model.learn(label, &terms, &mut prices));
            model.observe(&sample);
            let forecast = model.forecast(&terms, &prices).unwrap();
            labels.push(&forecast, &sample);
            if step % 100 == 50 {
                let stored = serde_json::to_string(&model).unwrap();
                model = serde_json::from_str(&stored).unwrap();
                assert_eq!(model.forecast(&terms, &prices), Some(forecast), "{choice}");
            }
        }
    }
}

/// Feeds readings to the model as a VM's track does; what is forecast at each.
fn run(choice: Choice, readings: &[(f64, u64, u64)], target: f64) -> Vec<Forecast> {
    let terms = Terms { signal: Signal::Rss, horizon: 900.0, target, fairness: Fairness::PerVm };
    let (mut model, mut labels, mut prices) = (choice.build(), Labels::default(), Prices::default());
    let mut at = 0.0;
    let all = readings.iter().map(|(passed, bytes, allocated)| {
        at += passed;
        let sample = Sample { at, interval: 300.0, bytes: *bytes, allocated: *allocated };
        labels.observe(&sample, |label| model.learn(label, &terms, &mut prices));
        model.observe(&sample);
        let forecast = model.forecast(&terms, &prices).unwrap();
        labels.push(&forecast, &sample);
        forecast
    });
    all.collect()
}

fn any_choice() -> impl Strategy<Value = Choice> {
    let all: Vec<Choice> = Choice::all().flat_map(Choice::sweep).collect();
    prop::sample::select(all)
}

fn readings() -> impl Strategy<Value = Vec<(f64, u64, u64)>> {
    let passed = prop_oneof![8 => Just(300.0), 3 => 1.0..60.0, 1 => 600.0..1e6, 1 => Just(1e12)];
    let allocated = prop_oneof![9 => Just(8 << 30), 1 => 1u64..u64::MAX];
    let reading = (passed, allocated, 0.0..=1.0f64).prop_map(|(passed, allocated, share)| {
        (passed, crate::domain::whole(share * crate::domain::real(allocated)).min(allocated), allocated)
    });
    prop::collection::vec(reading, 1..400)
}

proptest! {
    #[test]
    fn forecasts_stay_within_the_allocation_and_rest_on_the_past_alone(
        choice in any_choice(),
        readings in readings(),
        cut in 0.0..1.0f64,
        target in 0.001..0.5f64,
    ) {
        let all = run(choice, &readings, target);
        let mut at = 0.0;
        for (forecast, (passed, _, allocated)) in all.iter().zip(&readings) {
            at += passed;
            prop_assert!(forecast.predicted_bytes <= *allocated);
            prop_assert!((forecast.made_at - at).abs() < 1e-9 && (forecast.horizon - 900.0).abs() < 1e-9);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a place in the list")]
        let cut = (cut * readings.len() as f64) as usize;
        let mut other = readings[..cut].to_vec();
        other.extend([(300.0, 0, 1), (1.0, 7, 9 << 30)]);
        prop_assert_eq!(&run(choice, &other, target)[..cut], &all[..cut]);
    }

    #[test]
    fn garbage_is_survived(
        choice in any_choice(),
        samples in prop::collection::vec((any::<f64>(), any::<f64>(), any::<u64>(), any::<u64>()), 1..60),
        labels in prop::collection::vec((any::<f64>(), any::<u64>(), any::<u64>(), any::<u64>(), 0.0..=1.0f64), 0..60),
    ) {
        let terms = Terms { signal: Signal::Rss, horizon: 900.0, target: 0.01, fairness: Fairness::Capped };
        let (mut model, mut prices) = (choice.build(), Prices::default());
        // What was learnt so far is not the point: a model with a label at every odd place.
        for (place, (at, interval, bytes, allocated)) in samples.iter().enumerate() {
            let (bytes, allocated) = (*bytes, (*allocated).max(1));
            if choice.name() != "cqd" {
                model.observe(&Sample { at: *at, interval: *interval, bytes, allocated });
                let forecast = model.forecast(&terms, &prices).unwrap();
                prop_assert!(forecast.predicted_bytes <= allocated);
            }
            if let Some((made_at, level_bytes, predicted_bytes, peak_bytes, weight)) = labels.get(place).copied() {
                model.learn(&Label { made_at, level_bytes, predicted_bytes, peak_bytes, weight }, &terms, &mut prices);
            }
        }
        model.reset();
        prop_assert!(model.forecast(&terms, &prices).is_none());
    }
}
