//! Readings every 5 s, as the program ships: the same machines, with fine structure between their five-minute readings.

use std::sync::Arc;

use memharvest_predictor::backtest::{Case, Row, Series, Tally, Truth, sweep};
use memharvest_predictor::boundary::Fairness;
use memharvest_predictor::model::Terms;

use crate::calibration::{per_vm, row};
use crate::data::Data;
use crate::report::{Report, days};
use crate::{DAY, SEED, held_back, settings};

const STEP: f64 = 5.0;
const COARSE: f64 = 300.0;
const HORIZON: f64 = 900.0;
const ASKED: [f64; 3] = [0.05, 0.02, 0.01];

/// How far a bridge strays half-way between two readings: this share of the step between them, and of the allocation.
const OF_STEP: f64 = 0.25;
const OF_ALLOCATION: f64 = 0.001;

pub(crate) fn tell(report: &mut Report, data: &Data, quick: bool) -> anyhow::Result<()> {
    let (machines, span) = if quick { (4, 10.0 * DAY) } else { (24, 92.0 * DAY) };
    let warm_up = data.warm_up.min(span / 2.0);
    let coarse = thinned(&data.used, machines, span)?;
    let fine = refined(&coarse)?;
    report.section(
        "Readings every 5 s, 15 minutes ahead, `per_vm`",
        &format!(
            "What ships reads every 5 s. The first {} of {} of the machines, with readings every 5 s put between those of every \
             five minutes: a seeded Brownian bridge that strays by a quarter of the step between two readings and a thousandth of the \
             allocation. {} readings against {}; each is judged by its own peaks.",
            days(span),
            coarse.vms().len(),
            fine.rows().len(),
            coarse.rows().len(),
        ),
    );
    let mut rows = Vec::new();
    for (name, series) in [("5 s", &fine), ("5 min", &coarse)] {
        let truth = Truth::of(series, HORIZON)?;
        let cases = ASKED.map(|target| Case {
            series,
            truth: &truth,
            terms: Terms { signal: series.signal(), horizon: HORIZON, target, fairness: Fairness::PerVm },
            make: &held_back::make,
        });
        for (run, asked) in sweep(&settings(warm_up), &cases).iter().zip(ASKED) {
            let tallies: Vec<Tally> = run.scores.iter().map(|score| score.warm).collect();
            let what = format!("readings every {name}");
            let told = row(report, &what, &tallies, asked, per_vm(asked));
            rows.extend(told.map(|cells| [vec![format!("every {name}")], cells].concat()));
        }
    }
    let head = [
        "read",
        "target",
        "mean ÷ target",
        "p95 VM ÷ target",
        "worst VM ÷ target",
        "mean rate",
        "overshoot of a miss",
        "harvested",
        "reserved ÷ needed",
    ];
    report.table(&head, &rows);
    Ok(())
}

/// The first `span` of some machines.
fn thinned(series: &Series, machines: usize, span: f64) -> anyhow::Result<Series> {
    let first = series.vms().iter().take(machines).map(|vm| {
        let rows = &series.rows()[vm.rows.clone()];
        let until = rows[0].at + span;
        (Arc::clone(&vm.name), rows.iter().take_while(|row| row.at < until).copied().collect())
    });
    Ok(Series::new(series.signal(), series.interval(), first.collect())?)
}

/// Every reading of `coarse`, and fine structure between those that follow each other.
fn refined(coarse: &Series) -> anyhow::Result<Series> {
    let mut noise = Noise(SEED);
    let machines = coarse.vms().iter().map(|vm| {
        let rows = &coarse.rows()[vm.rows.clone()];
        let mut fine = Vec::with_capacity(rows.len() * 60);
        for (index, row) in rows.iter().enumerate() {
            fine.push(*row);
            if let Some(next) = rows.get(index + 1).filter(|next| (next.at - row.at - COARSE).abs() < 1.0) {
                bridge(row, next, &mut noise, &mut fine);
            }
        }
        (Arc::clone(&vm.name), fine)
    });
    Ok(Series::new(coarse.signal(), STEP, machines.collect())?)
}

/// A walk that is drawn to `next` as it nears it.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes of a machine"
)]
fn bridge(row: &Row, next: &Row, noise: &mut Noise, fine: &mut Vec<Row>) {
    let (from, to, allocated) = (row.usage as f64, next.usage as f64, row.allocated as f64);
    let spread = OF_STEP * (to - from).abs() + OF_ALLOCATION * allocated;
    let steps = (COARSE / STEP) as u32;
    let mut level = from;
    for step in 1..steps {
        let left = f64::from(steps - step + 1);
        // Half-way a bridge of n steps of size s has strayed by s·√n / 2.
        let size = 2.0 * spread / f64::from(steps).sqrt();
        level += (to - level) / left + size * ((left - 1.0) / left).sqrt() * noise.normal();
        let usage = level.clamp(0.0, allocated) as u64;
        fine.push(Row { at: row.at + f64::from(step) * STEP, allocated: row.allocated, usage });
    }
}

/// Seeded, and the same everywhere.
struct Noise(u64);

impl Noise {
    /// Steele, Lea and Flood 2014, "Fast splittable pseudorandom number generators".
    #[expect(clippy::cast_precision_loss, reason = "53 bits")]
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// The sum of twelve even draws (Irwin and Hall) is near enough.
    fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }
}
