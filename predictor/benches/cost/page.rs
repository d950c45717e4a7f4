//! The figures, told as they come and written down at the end.

use std::fmt::Write as _;

/// What a figure should be.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtMost(f64),
    AtLeast(f64),
    None,
}

/// The page that is written.
pub(crate) struct Page(String);

impl Page {
    pub(crate) fn new(busy: f64, machine: &str) -> Self {
        Self(format!(
            "# What a predictor costs\n\nWritten by `make bench`; [how it is measured](README.md). Measured on {machine}; \
             {busy:.1} processors were busy before it began.\n"
        ))
    }

    pub(crate) fn section(&mut self, title: &str) {
        let _ = write!(self.0, "\n## {title}\n\n| what | figure | target |\n| --- | ---: | --- |\n");
    }

    #[expect(clippy::print_stdout, reason = "what was asked for")]
    pub(crate) fn figure(&mut self, what: &str, figure: f64, unit: &str, bound: Bound) {
        let shown = |value: f64| {
            let digits = if value >= 100.0 || value.fract() == 0.0 { 0 } else { 2 };
            format!("{value:.digits$} {unit}").trim_end().to_owned()
        };
        let verdict = |met: bool| if met { "met" } else { "**missed**" };
        let told = match bound {
            Bound::AtMost(most) => format!("at most {}: {}", shown(most), verdict(figure <= most)),
            Bound::AtLeast(least) => format!("at least {}: {}", shown(least), verdict(figure >= least)),
            Bound::None => String::new(),
        };
        let row = format!("| {what} | {} | {told} |", shown(figure));
        println!("{row}");
        let _ = writeln!(self.0, "{row}");
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}
