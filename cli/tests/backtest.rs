//! `memharvest backtest` as a person runs it, on the trace that the program carries.
#![expect(clippy::unwrap_used, reason = "a test fails where it is surprised")]

#[path = "backtest/scorer.rs"]
mod scorer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use flate2::read::GzDecoder;
use memharvest_trace::{TraceFile, TraceRow, TraceWriter};
use scorer::{Forecast, Scorer};
use serde_json::Value;
use tempfile::TempDir;

const DAY: f64 = 86_400.0;

/// A folder with the demo trace in it, or with what `keep` leaves of it.
struct Folder(TempDir);

impl Folder {
    fn with_trace(name: &str, keep: impl Fn(&TraceRow) -> bool) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let mut writer = TraceWriter::new(fs::File::create(folder.path(name)).unwrap()).unwrap();
        for row in demo().iter().filter(|row| keep(row)) {
            writer.write(row).unwrap();
        }
        writer.finish().unwrap();
        folder
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// Runs the verb here.
    fn run(&self, args: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_memharvest"))
            .arg("backtest")
            .args(args)
            .current_dir(self.0.path())
            .env("NO_COLOR", "1")
            .output()
            .unwrap()
    }

    fn text(&self, args: &[&str]) -> String {
        let Output { status, stdout, stderr } = self.run(args);
        let said = String::from_utf8_lossy(&stderr);
        assert!(status.success(), "{args:?}: {said}");
        assert!(said.is_empty(), "no bar where nobody sees it: {said}");
        String::from_utf8(stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.text(&[args, &["--json"]].concat())).unwrap()
    }

    fn forecasts(&self, name: &str) -> Vec<Forecast> {
        let packed = Path::new(name).extension().is_some_and(|extension| extension == "gz");
        let file = fs::File::open(self.path(name)).unwrap();
        let reader: Box<dyn std::io::Read> =
            if packed { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
        csv::Reader::from_reader(reader).deserialize().map(Result::unwrap).collect()
    }
}

fn demo() -> Vec<TraceRow> {
    let file = TraceFile::from_reader("demo", memharvest_trace::demo()).unwrap();
    file.map(Result::unwrap).collect()
}

fn near(a: f64, b: f64) {
    assert!((a - b).abs() <= 1e-9 * a.abs().max(1.0), "{a} is not {b}");
}

#[test]
fn a_row_rests_on_nothing_later_than_itself() {
    let whole = Folder::with_trace("a.csv", |row| row.t_seconds <= 2.5 * DAY);
    let cut = Folder::with_trace("a.csv", |row| row.t_seconds <= 1.5 * DAY);
    for fairness in ["per_vm", "capped"] {
        for folder in [&whole, &cut] {
            let args = ["--trace", "a.csv", "--target-violation-rate", "0.05,0.01", "--fairness", fairness];
            folder.text(&[&args[..], &["--forecasts", "out.csv.gz"]].concat());
        }
        let (of_whole, of_cut) = (whole.forecasts("out.csv.gz"), cut.forecasts("out.csv.gz"));
        let first: Vec<_> = of_whole.into_iter().filter(|row| row.t_seconds <= 1.5 * DAY).collect();
        assert_eq!(first, of_cut, "{fairness}");
        assert_eq!(of_cut.len(), 2 * demo().iter().filter(|row| row.t_seconds <= 1.5 * DAY).count());
    }
}

#[test]
fn the_figures_are_those_that_anyone_works_out_from_the_forecasts() {
    let kept = |row: &TraceRow| row.t_seconds <= 3.0 * DAY;
    let folder = Folder::with_trace("a.csv", kept);
    for (signal, horizon) in [("used", 900.0), ("rss", 3600.0)] {
        let span = format!("{horizon}s");
        let args = ["--trace", "a.csv", "--signal", signal, "--horizon", &span, "--warm-up", "1d"];
        let json = folder
            .json(&[&args[..], &["--target-violation-rate", "0.05,0.01", "--forecasts", "out.csv"]].concat());
        let usage = |row: &TraceRow| if signal == "rss" { row.rss_bytes } else { row.used_bytes };
        let scorer = Scorer::of(demo().iter().filter(|row| kept(row)).filter_map(|row| {
            Some((row.name.to_string(), row.t_seconds, usage(row)?.min(row.allocated_bytes)))
        }));
        let forecasts = folder.forecasts("out.csv");
        let results = json["results"].as_array().unwrap();
        assert_eq!(results.len(), 2);
        for result in results {
            let target = result["target_violation_rate"].as_f64().unwrap();
            let of_target = forecasts.iter().filter(|row| (row.target_violation_rate - target).abs() < 1e-12);
            let worked_out = scorer.score(of_target, horizon, DAY);
            let figures = &result["scored"];
            let told = |path: &str| figures.pointer(path).unwrap().as_f64().unwrap();
            assert!(worked_out.judged > 5_000, "{}", worked_out.judged);
            assert_eq!(figures["judged"], worked_out.judged);
            near(told("/violation_rate/mean"), worked_out.mean);
            near(told("/violation_rate/p95_vm"), worked_out.p95_vm);
            near(told("/violation_rate/worst_vm"), worked_out.worst_vm);
            let severity = figures["severity_of_allocation"].as_f64();
            assert_eq!(severity.is_some(), worked_out.severity.is_some());
            near(severity.unwrap_or(0.0), worked_out.severity.unwrap_or(0.0));
            near(told("/harvested_ratio"), worked_out.harvested);
            near(told("/reserved_to_needed"), worked_out.reserved_to_needed);
            near(told("/guarded/harvested_ratio"), worked_out.guarded);
            assert!(result["nanoseconds_per_reading"].as_f64().unwrap() > 0.0);
        }
    }
}

#[test]
fn the_table_tells_what_the_json_does() {
    let folder = Folder::with_trace("a.csv", |row| row.t_seconds < 3.0 * DAY);
    let args = ["--trace", "a.csv", "--target-violation-rate", "0.05,0.01", "--model", "max_1h:0.3"];
    let (text, json) = (folder.text(&args), folder.json(&args));
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("24 machines") && lines[0].contains("max_1h:0.3"), "{text}");
    let title = lines.iter().position(|line| line.starts_with("SIGNAL")).unwrap();
    for (row, result) in json["results"].as_array().unwrap().iter().enumerate() {
        let line = lines[title + 1 + row];
        let percent = |path: &str, decimals: usize| {
            format!("{:.decimals$} %", result.pointer(path).unwrap().as_f64().unwrap() * 100.0)
        };
        for cell in [
            percent("/target_violation_rate", 0),
            percent("/scored/violation_rate/mean", 3),
            percent("/scored/violation_rate/p95_vm", 3),
            percent("/scored/violation_rate/worst_vm", 3),
            percent("/scored/severity_of_allocation", 1),
            percent("/scored/harvested_ratio", 1),
            percent("/scored/guarded/harvested_ratio", 1),
            percent("/scored/guarded/backoff_share", 1),
            format!("{:.3}", result["scored"]["reserved_to_needed"].as_f64().unwrap()),
        ] {
            assert!(line.contains(&cell), "{cell} is not in {line}");
        }
    }
    let widths: Vec<usize> = lines[title..title + 3].iter().map(|line| line.chars().count()).collect();
    assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "the columns line up: {text}");
    assert!(text.contains("FIRST DAY"), "{text}");
}

#[test]
fn a_comparison_is_a_table_a_page_and_a_drawing() {
    let few =
        |row: &TraceRow| row.t_seconds < 0.75 * DAY && ["vm-001", "vm-002", "vm-005"].contains(&&*row.name);
    let folder = Folder::with_trace("a.csv", few);
    let args = ["--trace", "a.csv", "--compare", "all", "--target-violation-rate", "0.1,0.05,0.02,0.01"];
    let json = folder.json(&[&args[..], &["--svg", "a.svg", "--html", "a.html"]].concat());
    let bout = &json["comparisons"][0];
    let models = bout["models"].as_array().unwrap();
    let names: Vec<&str> = models.iter().map(|model| model["name"].as_str().unwrap()).collect();
    assert_eq!(names[..3], ["cqd per_vm", "cqd capped", "cqd fleet"]);
    assert!(
        names.contains(&"vpa") && names.contains(&"n_sigma_2h") && !names.contains(&"oracle"),
        "{names:?}"
    );
    for model in &models[3..] {
        let name = model["name"].as_str().unwrap();
        let points = model["points"].as_array().unwrap();
        let defaults = points.iter().filter(|point| point["is_default"] == true).count();
        assert_eq!(defaults, usize::from(!["aci", "tracker"].contains(&name)), "{model}");
    }
    assert_eq!(bout["compared"].as_array().unwrap().len(), 3);
    let (svg, html) = (
        fs::read_to_string(folder.path("a.svg")).unwrap(),
        fs::read_to_string(folder.path("a.html")).unwrap(),
    );
    assert!(svg.starts_with("<svg") && svg.contains(">vpa</text>") && html.contains(&svg), "{svg}");
    assert!(html.contains("cqd capped ÷ best other"));
    for outside in ["http://", "https://", "<script"] {
        let inside = svg.replace("http://www.w3.org/2000/svg", "");
        assert!(!inside.contains(outside), "a drawing that needs nothing besides itself");
    }
}

#[test]
fn an_oracle_misses_nothing_and_harvests_all() {
    let folder = Folder::with_trace("a.csv", |row| row.t_seconds < 2.0 * DAY);
    let json = folder.json(&["--trace", "a.csv", "--model", "oracle"]);
    let scored = &json["results"][0]["scored"];
    assert_eq!(scored["violation_rate"]["worst_vm"], 0.0);
    near(scored["efficiency"].as_f64().unwrap(), 1.0);
    near(scored["reserved_to_needed"].as_f64().unwrap(), 1.0);
}

#[test]
fn what_cannot_be_done_is_said_in_one_line() {
    let folder = Folder::with_trace("a.csv", |row| row.t_seconds < DAY);
    fs::write(folder.path("wrong.csv"), "vm,t_seconds,allocated_bytes,used_bytes\na,0,1,1\n").unwrap();
    fs::write(folder.path("used.csv"), "vm_id,t_seconds,allocated_bytes,used_bytes\na,0,1,1\na,300,1,1\n")
        .unwrap();
    for (args, named) in [
        ("--trace nowhere.csv", "nowhere.csv"),
        ("--trace wrong.csv", "vm_id"),
        ("--trace used.csv --signal rss", "rss_bytes"),
        ("--trace a.csv --horizon 1m", "sampling interval of 300 s"),
        ("--trace a.csv --warm-up 7d", "--warm-up"),
        ("--trace a.csv --horizon 15m,1h --forecasts out.csv", "--forecasts"),
        ("--trace a.csv --compare all --model oracle", "oracle"),
        ("--trace a.csv --target-violation-rate 1.5", "1.5"),
        ("--trace a.csv --model tea-leaves", "tea-leaves"),
        ("--trace a.csv --model max_1h:much", "max_1h"),
    ] {
        let Output { status, stdout, stderr } = folder.run(&args.split(' ').collect::<Vec<_>>());
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(2), "{args}: {said}");
        assert!(said.contains(named) && stdout.is_empty(), "{args}: {said}");
        if said.starts_with("memharvest:") {
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
    let unwritable = folder.run(&["--trace", "a.csv", "--forecasts", "no/such/folder.csv"]);
    assert_eq!(unwritable.status.code(), Some(1));
    assert!(String::from_utf8(unwritable.stderr).unwrap().contains("no/such/folder.csv"));
}

/// When the flags change on purpose: `memharvest backtest --help > cli/tests/backtest/help.txt`.
#[test]
fn the_help_is_as_it_was() {
    let folder = Folder(tempfile::tempdir().unwrap());
    let help = folder.text(&["--help"]);
    assert_eq!(help, include_str!("backtest/help.txt"), "{help}");
}
