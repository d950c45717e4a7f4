//! The recipe in small, on the bundled extract: reproducible, learning, and calibrated on machines that it never saw.

use std::path::Path;

use memharvest_predictor::domain::Signal;
use memharvest_predictor::model::cqd::weights::{Nets, WeightsFile};
use memharvest_predictor::train::{self, Recipe, Series, Split, replay};
use memharvest_trace::Trace;

const HORIZON: f64 = 900.0;

fn demand(split: Split) -> Vec<Series> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../trace/data/demo.csv.gz");
    let trace = Trace::load(&path).expect("the bundled extract");
    let kept = |series: &Series| series.signal == Signal::Demand && split.holds(&series.name);
    Series::of(&trace).into_iter().filter(kept).collect()
}

fn trained(series: &[Series], steps: usize) -> (WeightsFile, Vec<f64>) {
    let recipe = Recipe { steps, batch: 128, rate: 1e-2, warm_up: 10, averaging: 0.03, ..Recipe::default() };
    let mut losses = Vec::new();
    let file = train::train(series, HORIZON, &recipe, "a test", |_, loss| losses.push(loss))
        .expect("usable weights");
    (file, losses)
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let series = &demand(Split::First)[..2];
    let text = |steps| serde_json::to_string(&trained(series, steps).0).unwrap();
    assert_eq!(text(3), text(3));
    assert_ne!(text(3), text(4));
}

#[test]
fn it_learns_and_what_it_learnt_holds_for_other_machines() {
    let (file, losses) = trained(&demand(Split::First), 150);
    let mean = |losses: &[f64]| losses.iter().sum::<f64>() / f64::from(u32::try_from(losses.len()).unwrap());
    assert!(mean(&losses[130..]) < 0.8 * mean(&losses[..20]), "{losses:?}");
    assert!(file.start_prices.per_vm.is_sorted(), "{:?}", file.start_prices);

    let nets = Nets::of(std::slice::from_ref(&file)).unwrap();
    let (mut moments, mut above) = (0.0, [0.0; 9]);
    for series in demand(Split::Second) {
        replay::replay(&series, HORIZON, |moment| {
            moments += 1.0;
            for (count, z) in above.iter_mut().zip(nets.quantiles(&moment.design, HORIZON)) {
                *count += if moment.peak > (z + moment.base).exp() { 1.0 } else { 0.0 };
            }
        });
    }
    assert!(moments > 5000.0, "{moments} moments");
    for (level, bounds) in [(0, 0.3..0.7), (2, 0.04..0.2), (4, 0.005..0.06)] {
        let share = above[level] / moments;
        assert!(bounds.contains(&share), "{share} of peaks are above quantile {level}");
    }
}
