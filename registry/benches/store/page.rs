//! The figures, as they are told and as they are written down.

use std::fmt::Write as _;
use std::path::Path;

use crate::Error;

/// What a figure should be, and its unit.
#[derive(Clone, Copy)]
pub(crate) enum Bound {
    AtLeast(f64, &'static str),
    AtMost(f64, &'static str),
    None(&'static str),
}

/// The figures of one database.
pub(crate) struct Figures {
    name: &'static str,
    rows: Vec<(&'static str, f64, Bound)>,
    note: String,
}

/// A count as a number.
#[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
pub(crate) fn real(count: u64) -> f64 {
    count as f64
}

fn shown(figure: f64, unit: &str) -> String {
    let digits = if figure >= 100.0 { 0 } else { 2 };
    format!("{figure:.digits$} {unit}").trim_end().to_owned()
}

impl Figures {
    pub(crate) fn of(name: &'static str) -> Self {
        Self { name, rows: Vec::new(), note: String::new() }
    }

    #[expect(clippy::print_stdout, reason = "what was asked for")]
    pub(crate) fn add(&mut self, what: &'static str, figure: f64, bound: Bound) {
        println!("{}: {what}: {} ({})", self.name, shown(figure, unit(bound)), told(bound, figure));
        self.rows.push((what, figure, bound));
    }

    pub(crate) fn note(&mut self, note: &str) {
        note.clone_into(&mut self.note);
    }
}

fn unit(bound: Bound) -> &'static str {
    match bound {
        Bound::AtLeast(_, unit) | Bound::AtMost(_, unit) | Bound::None(unit) => unit,
    }
}

fn told(bound: Bound, figure: f64) -> String {
    let verdict = |met: bool| if met { "met" } else { "not met" };
    match bound {
        Bound::AtLeast(least, unit) => {
            format!("at least {}: {}", shown(least, unit), verdict(figure >= least))
        }
        Bound::AtMost(most, unit) => format!("at most {}: {}", shown(most, unit), verdict(figure <= most)),
        Bound::None(_) => "no bound".to_owned(),
    }
}

/// Writes `docs/benchmarks/registry.md`.
pub(crate) fn write(pages: &[Figures], machines: u128) -> Result<(), Error> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/benchmarks/registry.md");
    let mut page = format!(
        "# The registry\n\nWritten by `cargo bench -p memharvest-registry`; [how it is measured](README.md). {machines} machines; {}, {}.\n",
        machine(),
        jiff::Timestamp::now().strftime("%F")
    );
    for figures in pages {
        write!(
            page,
            "\n## {}\n\n{}.\n\n| | measured | bound |\n| --- | --- | --- |\n",
            figures.name, figures.note
        )?;
        for (what, figure, bound) in &figures.rows {
            writeln!(page, "| {what} | {} | {} |", shown(*figure, unit(*bound)), told(*bound, *figure))?;
        }
    }
    Ok(std::fs::write(path, page)?)
}

/// The machine that it was measured on.
fn machine() -> String {
    let about = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = about.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("unknown processor", |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
    format!("{cores} processors ({model})")
}
