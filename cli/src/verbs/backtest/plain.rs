//! One model on one trace: a row for every signal, horizon and target.

use std::time::Duration;

use memharvest_predictor::backtest::{Case, Figures, Run, Series, Truth, knowing, run as backtest_run};
use memharvest_predictor::model::Terms;
use serde_json::{Value, json};

use super::args::Outputs;
use super::told::{factor, rate, run_json, share, tallies};
use super::{Backtest, BacktestFailure, Progress, Told, forecasts, name};
use crate::format::ABSENT;
use crate::table::Table;

struct Line {
    terms: Terms,
    scored: Option<Figures>,
    first_day: Option<Figures>,
    nanoseconds: Option<f64>,
}

pub(super) fn run(backtest: &Backtest<'_>, outputs: Outputs) -> Result<Told, BacktestFailure> {
    let args = backtest.args;
    let asked: Vec<(&Series, &Truth, Terms)> = each_terms(backtest).collect();
    let makers: Vec<_> = asked.iter().map(|(series, ..)| knowing(args.model, series)).collect();
    let cases: Vec<Case<'_, _>> = asked
        .into_iter()
        .zip(&makers)
        .map(|((series, truth, terms), make)| Case { series, truth, terms, make })
        .collect();
    let readings = cases.iter().map(|case| case.series.rows().len() as u64).sum();
    let progress = Progress::of(readings);
    let runs = backtest_run(
        &backtest.settings(&|readings| progress.add(readings)),
        &cases,
        outputs.forecasts.is_some(),
    );
    progress.clear();

    let lines: Vec<Line> = cases.iter().zip(&runs).map(|(case, run)| line(case, run)).collect();
    let results: Vec<Value> =
        cases.iter().zip(&runs).map(|(case, run)| result(backtest, case, run)).collect();
    let json = json!({
        "source": backtest.source,
        "vms": cases[0].series.vms().len(),
        "readings": cases[0].series.rows().len(),
        "interval_seconds": cases[0].series.interval(),
        "warm_up_seconds": backtest.warm_up,
        "results": results,
    });
    if let Some((path, file)) = outputs.forecasts {
        let series = cases[0].series;
        let published: Vec<_> =
            cases.iter().zip(runs).map(|(case, run)| (case.terms.target, run.published)).collect();
        file.write(|out| forecasts::write(out, series, &published))
            .map_err(|cause| BacktestFailure::write(&path, cause))?;
    }
    let heading = heading(backtest);
    Ok(Told { json, text: Box::new(move |coloured| heading.clone() + &text(&lines, coloured)) })
}

/// Every signal, horizon, fairness and target.
fn each_terms<'a>(backtest: &'a Backtest<'_>) -> impl Iterator<Item = (&'a Series, &'a Truth, Terms)> {
    let (fairness, targets) = (backtest.args.fairness(), backtest.args.targets());
    backtest.each().flat_map(move |(series, truth)| {
        let (signal, horizon) = (series.signal(), truth.horizon());
        let targets = targets.clone();
        fairness.clone().into_iter().flat_map(move |fairness| {
            let terms = targets.iter().map(|target| Terms { signal, horizon, target: *target, fairness });
            terms.map(|terms| (series, truth, terms)).collect::<Vec<_>>()
        })
    })
}

fn line<M>(case: &Case<'_, M>, run: &Run) -> Line {
    let (warm, cold) = tallies(run);
    let figures = |tallies| Figures::of(tallies, case.terms.target, Some(case.series.interval()));
    Line {
        terms: case.terms,
        scored: figures(&warm),
        first_day: figures(&cold),
        nanoseconds: run.nanoseconds_per_reading(),
    }
}

fn result<M>(backtest: &Backtest<'_>, case: &Case<'_, M>, run: &Run) -> Value {
    let mut result = run_json(run, case.series, case.terms.target);
    result["model"] = json!(backtest.args.model.to_string());
    result["signal"] = json!(name(case.terms.signal));
    result["horizon_seconds"] = json!(case.terms.horizon);
    result["target_violation_rate"] = json!(case.terms.target);
    result["fairness"] = json!(case.terms.fairness.name());
    result
}

/// A span for people.
pub(super) fn span_text(seconds: f64) -> String {
    humantime::format_duration(Duration::try_from_secs_f64(seconds).unwrap_or_default()).to_string()
}

/// What was replayed, in a sentence.
pub(super) fn heading(backtest: &Backtest<'_>) -> String {
    let series = &backtest.judged[0].series;
    format!(
        "{}: {} machines, {} readings, one in {}; model {}; scored after {}\n",
        backtest.source,
        series.vms().len(),
        series.rows().len(),
        span_text(series.interval()),
        backtest.args.model,
        span_text(backtest.warm_up.round()),
    )
}

fn text(lines: &[Line], coloured: bool) -> String {
    let mut scored = Table::new(&[
        "SIGNAL",
        "HORIZON",
        "FAIRNESS",
        ">TARGET",
        ">MISSED",
        ">P95 VM",
        ">WORST VM",
        ">GAP",
        ">SEVERITY",
        ">HARVESTED",
        ">GUARDED",
        ">RESERVED/NEEDED",
        ">EFFICIENCY",
        ">BACKED OFF",
        ">BROKEN/VM-DAY",
        ">NS/READING",
    ]);
    let mut first = Table::new(&[
        "FIRST DAY",
        "HORIZON",
        "FAIRNESS",
        ">TARGET",
        ">MISSED",
        ">P95 VM",
        ">WORST VM",
        ">SEVERITY",
        ">HARVESTED",
        ">GUARDED",
        ">RESERVED/NEEDED",
    ]);
    for line in lines {
        if let Some(figures) = &line.scored {
            let (rates, guarded) = (&figures.violation_rate, figures.guarded.as_ref());
            let mut cells = terms_cells(&line.terms);
            cells.extend([
                rate(rates.mean),
                rate(rates.p95_vm),
                rate(rates.worst_vm),
                rate(figures.calibration_gap),
            ]);
            cells.extend([share(figures.severity_of_allocation), share(Some(figures.harvested_ratio))]);
            cells.push(share(guarded.map(|guarded| guarded.harvested_ratio)));
            cells.extend([factor(figures.reserved_to_needed), share(figures.efficiency)]);
            cells.push(share(guarded.map(|guarded| guarded.backoff_share)));
            cells.push(factor(guarded.map(|guarded| guarded.promise_violations_per_vm_day)));
            cells.push(line.nanoseconds.map_or(ABSENT.to_owned(), |nanoseconds| format!("{nanoseconds:.0}")));
            scored.row(cells.into_iter().map(Into::into).collect());
        }
        if let Some(figures) = &line.first_day {
            let rates = &figures.violation_rate;
            let mut cells = terms_cells(&line.terms);
            cells.extend([rate(rates.mean), rate(rates.p95_vm), rate(rates.worst_vm)]);
            cells.extend([share(figures.severity_of_allocation), share(Some(figures.harvested_ratio))]);
            cells.push(share(figures.guarded.as_ref().map(|guarded| guarded.harvested_ratio)));
            cells.push(factor(figures.reserved_to_needed));
            first.row(cells.into_iter().map(Into::into).collect());
        }
    }
    let shown = |table: &Table| {
        if table.is_empty() { String::new() } else { format!("\n{}", table.render(coloured)) }
    };
    if scored.is_empty() {
        return "\nno forecast could be judged: the horizon never fits between two gaps of the trace\n"
            .to_owned();
    }
    shown(&scored) + &shown(&first)
}

fn terms_cells(terms: &Terms) -> Vec<String> {
    vec![
        name(terms.signal).to_owned(),
        span_text(terms.horizon),
        terms.fairness.name().to_owned(),
        format!("{} %", (terms.target * 1e8).round() / 1e6),
    ]
}
