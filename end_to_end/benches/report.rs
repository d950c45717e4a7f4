//! The page that is written: what was measured, where and when.

use std::fmt::Write as _;
use std::process::Command;

use jiff::Timestamp;

/// A line of a table.
pub(crate) struct Row {
    what: String,
    figure: String,
    aim: String,
}

impl Row {
    /// A figure without a target.
    pub(crate) fn plain(what: &str, figure: String) -> Self {
        Self { what: what.to_owned(), figure, aim: String::new() }
    }

    /// A figure with a target, and whether it is met.
    pub(crate) fn aimed(what: &str, figure: String, aim: &str, met: bool) -> Self {
        let verdict = if met { "met" } else { "**missed**" };
        Self { what: what.to_owned(), figure, aim: format!("{aim}: {verdict}") }
    }
}

/// A Markdown table.
pub(crate) fn table(rows: &[Row]) -> String {
    let mut text = String::from("| what | figure | target |\n| --- | ---: | --- |\n");
    for Row { what, figure, aim } in rows {
        let _ = writeln!(text, "| {what} | {figure} | {aim} |");
    }
    text
}

/// The whole page; `busy` is the share of the processors, 0 to 1, that others used before it began.
pub(crate) fn page(busy: f64, parts: &[String]) -> String {
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let gibibytes = field(&memory, "MemTotal")
        .and_then(|text| text.strip_suffix(" kB")?.parse::<u64>().ok())
        .map_or_else(String::new, |kib| format!(", {} GiB of memory", (kib + (1 << 19)) >> 20));
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let facts = [
        ("date", Timestamp::now().strftime("%Y-%m-%d").to_string()),
        (
            "memharvest",
            format!("{} ({})", env!("CARGO_PKG_VERSION"), said("git", &["rev-parse", "--short", "HEAD"])),
        ),
        (
            "machine",
            format!("{processors} × {}{gibibytes}", field(&processor, "model name").unwrap_or("unknown")),
        ),
        (
            "system",
            format!(
                "{}, Linux {}",
                field(&release, "PRETTY_NAME").unwrap_or("unknown"),
                said("uname", &["-r"])
            ),
        ),
        ("compiler", said("rustc", &["--version"])),
        ("busy with other work before it began", format!("{:.0} % of all processors", busy * 100.0)),
    ];
    let mut text = String::from(
        "# What the mesh costs\n\nWritten by `make bench`; [how it is measured](README.md). \
         Figures are medians of all rounds, with the least and the greatest.\n\n| | |\n| --- | --- |\n",
    );
    for (what, fact) in facts {
        let _ = writeln!(text, "| {what} | {fact} |");
    }
    for part in parts {
        text.push('\n');
        text += part;
    }
    text
}

/// What follows `name` on its line, without separators and quotes.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(line.trim_matches([' ', '\t', ':', '=', '"']))
}

/// The first line that a program prints.
fn said(program: &str, args: &[&str]) -> String {
    let output = Command::new(program)
        .args(args)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()
        .filter(|output| output.status.success());
    let text = output.and_then(|output| String::from_utf8(output.stdout).ok());
    text.and_then(|text| Some(text.lines().next()?.to_owned())).unwrap_or_else(|| "unknown".to_owned())
}
