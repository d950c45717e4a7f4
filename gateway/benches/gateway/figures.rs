//! The page that is written.

use std::fmt::Write as _;

use jiff::Timestamp;

/// One line of it.
pub(crate) struct Figure {
    pub(crate) what: String,
    pub(crate) found: String,
    pub(crate) target: &'static str,
    pub(crate) met: bool,
}

pub(crate) fn page(figures: &[Figure]) -> String {
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let mut page = format!(
        "# What the gateway serves\n\nWritten by `cargo bench -p memharvest-gateway`, a part of `make bench`. One predictor with 1,000 \
         hosts of 30 machines each, the registry and all clients run in one process, the gateway in another, on the same \
         processors. Each figure of time is the worst that was seen, unless it says otherwise.\n\n\
         {} · memharvest {} · {processors} processors · load average at the end: {}\n\n\
         | what | figure | target |\n| --- | --- | --- |\n",
        Timestamp::now().strftime("%Y-%m-%d"),
        env!("CARGO_PKG_VERSION"),
        load.split(' ').next().unwrap_or("unknown"),
    );
    for Figure { what, found, target, met } in figures {
        // Writing to a string cannot fail.
        let _ =
            writeln!(page, "| {what} | {found} | {target}: {} |", if *met { "met" } else { "**missed**" });
    }
    page
}
