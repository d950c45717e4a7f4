//! The page: tables, and which bounds are met.

use std::fmt::Write;
use std::time::Duration;

use memharvest_predictor::backtest::bootstrap::Interval;

use crate::data::Data;
use crate::{held_back, machine};

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    Within(f64, f64),
}

/// The page as it grows.
pub(crate) struct Report {
    head: String,
    body: String,
    met: usize,
    missed: Vec<String>,
}

impl Report {
    pub(crate) fn new(data: &Data, busy: f64) -> Self {
        let vms = data.used.vms().len();
        let head = format!(
            "Measured on {}; {busy:.1} processors were busy before it began. Recorded usage: {}, of which one half of the machines \
             (by a hash of the name): {vms} machines, {} readings of `used`, scored after {} of each machine. {}",
            machine::told(),
            data.source,
            data.used.rows().len(),
            days(data.warm_up),
            held_back::TOLD,
        );
        Self { head, body: String::new(), met: 0, missed: Vec::new() }
    }

    /// Begins a section.
    pub(crate) fn section(&mut self, title: &str, said: &str) {
        let _ = writeln!(self.body, "\n## {title}");
        if !said.is_empty() {
            self.said(said);
        }
    }

    /// A paragraph.
    pub(crate) fn said(&mut self, text: &str) {
        let _ = writeln!(self.body, "\n{text}");
    }

    /// A table of a heading and rows.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        let line = |cells: &[String]| format!("| {} |", cells.join(" | "));
        let head: Vec<String> = head.iter().map(|cell| (*cell).to_owned()).collect();
        let rule: Vec<String> = head.iter().map(|_| "---".to_owned()).collect();
        let _ = writeln!(self.body, "\n{}\n{}", line(&head), line(&rule));
        for row in rows {
            let _ = writeln!(self.body, "{}", line(row));
        }
    }

    /// Holds a figure against its bound; `show` writes it. A figure that could not be measured has missed its bound.
    pub(crate) fn held(
        &mut self,
        what: &str,
        value: Option<f64>,
        bound: Bound,
        show: impl Fn(f64) -> String,
    ) -> String {
        let met = value.is_some_and(|value| match bound {
            Bound::AtMost(most) => value <= most,
            Bound::AtLeast(least) => value >= least,
            Bound::Within(least, most) => (least..=most).contains(&value),
        });
        let wanted = match bound {
            Bound::AtMost(most) => format!("≤ {}", show(most)),
            Bound::AtLeast(least) => format!("≥ {}", show(least)),
            Bound::Within(least, most) => format!("{} to {}", show(least), show(most)),
        };
        let told = value.map_or("none".to_owned(), &show);
        if met {
            self.met += 1;
            format!("{told}; {wanted}: met")
        } else {
            self.missed.push(format!("{what}: {told}, wanted {wanted}"));
            format!("{told}; {wanted}: **missed**")
        }
    }

    pub(crate) fn page(&self, took: Duration) -> String {
        let mut missed = if self.missed.is_empty() {
            format!("All {} bounds are met.\n", self.met)
        } else {
            format!("{} bounds are met; {} are missed:\n\n", self.met, self.missed.len())
        };
        for what in &self.missed {
            let _ = writeln!(missed, "- {what}");
        }
        format!(
            "# How good the forecasts are\n\n{}\n\nWhat the words mean and how it is measured: [../backtest.md](../backtest.md). \
             Intervals hold 95 % of 1,000 draws of the machines. This page is written by `make bench-forecast`; it took {} s.\n\n{missed}{}",
            self.head,
            took.as_secs(),
            self.body
        )
    }
}

/// A factor.
pub(crate) fn factor(value: f64) -> String {
    format!("{value:.2}")
}

/// A share of something large.
pub(crate) fn percent(value: f64) -> String {
    format!("{:.1} %", value * 100.0)
}

/// A rate of misses.
pub(crate) fn rate(value: f64) -> String {
    format!("{:.3} %", value * 100.0)
}

/// An interval, in brackets behind its figure.
pub(crate) fn within(interval: Option<Interval>, show: impl Fn(f64) -> String) -> String {
    interval.map_or(String::new(), |within| format!(" ({} to {})", show(within.low), show(within.high)))
}

/// A target.
pub(crate) fn target(value: f64) -> String {
    format!("{} %", (value * 1e6).round() / 1e4)
}

/// A span of days, or hours where it is shorter.
pub(crate) fn days(seconds: f64) -> String {
    if seconds >= 86_400.0 {
        format!("{:.1} days", seconds / 86_400.0)
    } else {
        format!("{:.1} hours", seconds / 3600.0)
    }
}
