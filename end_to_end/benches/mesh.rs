//! What the mesh costs: measured on the real programs, written to `docs/benchmarks/mesh.md`.
//!
//! `cargo bench -p memharvest-end_to_end --bench mesh` measures everything and writes the page; with `-- collector` or
//! `-- fleet` it measures that part alone and only prints it.

mod collector_cost;
mod fleet_cost;
mod report;
mod spread;
mod usage;

use std::time::Duration;

use anyhow::Context;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks/mesh.md");

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == part);
    let busy = usage::machine_busy(Duration::from_secs(10)).await?;
    let mut parts = Vec::new();
    if wanted("collector") {
        parts.push(collector_cost::run().await?);
    }
    if wanted("fleet") {
        parts.push(fleet_cost::run().await?);
    }
    let page = report::page(busy, &parts);
    if chosen.is_empty() {
        std::fs::write(PAGE, &page).with_context(|| format!("cannot write {PAGE}"))?;
    }
    #[expect(clippy::print_stdout, reason = "what was asked for")]
    {
        println!("{page}");
    }
    Ok(())
}

/// Tells on standard error what goes on: a whole run takes a quarter of an hour.
#[expect(clippy::print_stderr, reason = "progress for whoever waits")]
pub(crate) fn say(text: &str) {
    eprintln!("bench: {text}");
}
