//! `--forecasts`: what was published at every reading, for other people's scorers.

use std::io::{self, Write};

use memharvest_predictor::backtest::{Published, Series};

/// Writes one row a reading and target, in the order of time, machines and targets. `published` has, for each target, what
/// was published at each row of the series.
pub(super) fn write(
    out: &mut dyn Write,
    series: &Series,
    published: &[(f64, Vec<Published>)],
) -> io::Result<()> {
    writeln!(out, "vm_id,t_seconds,target_violation_rate,allocated_bytes,predicted_bytes,harvestable_bytes")?;
    let names: Vec<String> = series.vms().iter().map(|vm| quoted(&vm.name)).collect();
    let machines = series.machines();
    for row in series.in_time() {
        let (name, reading) = (&names[machines[row] as usize], &series.rows()[row]);
        for (target, published) in published {
            let Published { predicted, harvestable } = published[row];
            writeln!(out, "{name},{},{target},{},{predicted},{harvestable}", reading.at, reading.allocated)?;
        }
    }
    Ok(())
}

/// By RFC 4180.
fn quoted(cell: &str) -> String {
    if cell.contains([',', '"', '\n', '\r']) {
        format!("\"{}\"", cell.replace('"', "\"\""))
    } else {
        cell.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use memharvest_predictor::backtest::Row;
    use memharvest_predictor::domain::Signal;

    use super::*;

    #[test]
    fn rows_are_by_time_then_machine_then_target() {
        let rows =
            |first: f64| [0.0, 300.0].map(|at| Row { at: first + at, allocated: 100, usage: 1 }).to_vec();
        let machines = vec![("a,b".into(), rows(0.0)), ("c".into(), rows(0.5))];
        let series = Series::new(Signal::Demand, 300.0, machines).unwrap();
        let published = |predicted| vec![Published { predicted, harvestable: 64 }; 4];
        let mut out = Vec::new();
        write(&mut out, &series, &[(0.05, published(7)), (0.01, published(9))]).unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<&str> = text.lines().skip(1).take(4).collect();
        assert_eq!(
            lines,
            [
                "\"a,b\",0,0.05,100,7,64",
                "\"a,b\",0,0.01,100,9,64",
                "c,0.5,0.05,100,7,64",
                "c,0.5,0.01,100,9,64"
            ]
        );
        assert_eq!(text.lines().count(), 9);
    }
}
