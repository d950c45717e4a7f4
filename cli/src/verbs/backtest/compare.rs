//! `--compare all`: a model against every other, read at equal rates of misses.

use memharvest_predictor::backtest::Figures;
use memharvest_predictor::backtest::contest::{Contest, RATES};
use memharvest_predictor::backtest::curve::{Axis, Comparison, Sweep};
use serde_json::{Value, json};

use super::args::Outputs;
use super::chart::{Drawn, draw};
use super::plain::{heading, span_text};
use super::told::{SEED, factor, rate, share};
use super::{Backtest, BacktestFailure, Progress, Told, name, page};
use crate::table::Table;

/// A contest on one signal and horizon.
struct Bout {
    title: String,
    signal: &'static str,
    horizon: f64,
    contest: Contest,
    compared: Vec<(String, Vec<Comparison>)>,
}

pub(super) fn run(backtest: &Backtest<'_>, outputs: Outputs) -> Result<Told, BacktestFailure> {
    let (model, fairness, targets) = (backtest.args.model, backtest.args.fairness(), backtest.args.targets());
    if model.needs_future() {
        return Err(BacktestFailure::Usage(format!(
            "{} knows the future, so there is nothing to compare it with; name another --model",
            model.name()
        )));
    }
    let total = backtest.each().map(|over| Contest::readings(over, model, &fairness, &targets)).sum();
    let progress = Progress::of(total);
    let tell = |readings| progress.add(readings);
    let settings = backtest.settings(&tell);
    let bouts: Vec<Bout> = backtest
        .each()
        .map(|(series, truth)| {
            let contest = Contest::run(&settings, (series, truth), model, &fairness, &targets);
            Bout {
                title: format!("{}, {} ahead", name(series.signal()), span_text(truth.horizon())),
                signal: name(series.signal()),
                horizon: truth.horizon(),
                compared: contest.compare(SEED),
                contest,
            }
        })
        .collect();
    progress.clear();

    let heading = heading(backtest);
    let tables: Vec<(String, Table)> = bouts.iter().flat_map(tables).collect();
    let drawn: Vec<Drawn<'_>> =
        bouts.iter().map(|bout| Drawn { title: bout.title.clone(), contest: &bout.contest }).collect();
    if let Some((path, file)) = outputs.svg {
        file.write(|out| out.write_all(draw(&drawn).as_bytes()))
            .map_err(|cause| BacktestFailure::write(&path, cause))?;
    }
    if let Some((path, file)) = outputs.html {
        let page = page::page(&heading, &draw(&drawn), &tables);
        file.write(|out| out.write_all(page.as_bytes()))
            .map_err(|cause| BacktestFailure::write(&path, cause))?;
    }
    let json = json!({
        "source": backtest.source,
        "warm_up_seconds": backtest.warm_up,
        "comparisons": bouts.iter().map(bout_json).collect::<Vec<_>>(),
    });
    let text = move |coloured: bool| {
        let told = tables.iter().map(|(title, table)| format!("\n{title}\n{}", table.render(coloured)));
        heading.clone() + &told.collect::<String>()
    };
    Ok(Told { json, text: Box::new(text) })
}

fn tables(bout: &Bout) -> Vec<(String, Table)> {
    let equal = |axis: Axis| match axis {
        Axis::Mean => {
            format!("{}: bytes reserved for each byte needed, where the mean rate of misses is", bout.title)
        }
        Axis::P95Vm => {
            format!("{}: the same, where the machine at the 95th percentile misses", bout.title)
        }
    };
    let mut tables: Vec<(String, Table)> =
        Axis::ALL.into_iter().map(|axis| (equal(axis), at_equal_rates(bout, axis))).collect();
    tables.push((format!("{}: at the published defaults", bout.title), published(&bout.contest)));
    tables
}

fn at_equal_rates(bout: &Bout, axis: Axis) -> Table {
    let mut table = Table::new(&["MODEL", ">5 %", ">2 %", ">1 %", ">0.5 %", ">0.2 %", ">0.1 %"]);
    for sweep in bout.contest.ours.iter().chain(&bout.contest.others) {
        let mut cells = vec![sweep.name.clone().into()];
        cells.extend(RATES.iter().map(|rate| factor(sweep.at(axis, *rate)).into()));
        table.row(cells);
    }
    for (name, compared) in &bout.compared {
        let of_axis = || compared.iter().filter(|read| read.axis == axis);
        let mut ratios = vec![format!("{name} ÷ best other").into()];
        ratios.extend(of_axis().map(|read| factor(read.ratio).into()));
        table.row(ratios);
        let mut bounds = vec!["  95 % interval".into()];
        bounds.extend(of_axis().map(|read| {
            read.ratio_interval
                .map_or("-".into(), |within| format!("{:.2}-{:.2}", within.low, within.high).into())
        }));
        table.row(bounds);
    }
    if let Some((_, compared)) = bout.compared.first() {
        let mut best = vec!["best other".into()];
        let names = compared.iter().filter(|read| read.axis == axis);
        best.extend(names.map(|read| read.best_name.clone().unwrap_or_else(|| "-".to_owned()).into()));
        table.row(best);
    }
    table
}

fn published(contest: &Contest) -> Table {
    let mut table = Table::new(&[
        "MODEL",
        ">MISSED",
        ">P95 VM",
        ">WORST VM",
        ">SEVERITY",
        ">HARVESTED",
        ">RESERVED/NEEDED",
        ">EFFICIENCY",
    ]);
    for point in contest.others.iter().flat_map(|sweep| &sweep.points).filter(|point| point.is_default) {
        let Some(figures) = Figures::of(point.warm(), 0.01, None) else { continue };
        let rates = &figures.violation_rate;
        let cells = [
            point.setting.clone(),
            rate(rates.mean),
            rate(rates.p95_vm),
            rate(rates.worst_vm),
            share(figures.severity_of_allocation),
            share(Some(figures.harvested_ratio)),
            factor(figures.reserved_to_needed),
            share(figures.efficiency),
        ];
        table.row(cells.into_iter().map(Into::into).collect());
    }
    table
}

fn bout_json(bout: &Bout) -> Value {
    let compared =
        bout.compared.iter().map(|(name, compared)| json!({ "model": name, "at_equal_rates": compared }));
    json!({
        "signal": bout.signal,
        "horizon_seconds": bout.horizon,
        "models": bout.contest.ours.iter().chain(&bout.contest.others).map(sweep_json).collect::<Vec<_>>(),
        "compared": compared.collect::<Vec<_>>(),
    })
}

fn sweep_json(sweep: &Sweep) -> Value {
    let points = sweep.points.iter().map(|point| {
        let figures = Figures::of(point.warm(), 0.01, None);
        json!({
            "setting": point.setting,
            "is_default": point.is_default,
            "violation_rate": figures.map(|figures| figures.violation_rate),
            "severity_of_allocation": figures.and_then(|figures| figures.severity_of_allocation),
            "harvested_ratio": figures.map(|figures| figures.harvested_ratio),
            "reserved_to_needed": figures.and_then(|figures| figures.reserved_to_needed),
            "efficiency": figures.and_then(|figures| figures.efficiency),
        })
    });
    json!({ "name": sweep.name, "points": points.collect::<Vec<_>>() })
}
