//! What a predictor costs: `cargo bench -p memharvest-predictor --bench cost` measures and writes
//! `docs/benchmarks/predictor.md`; with `-- one_signal`, `-- core` or `-- grpc` it measures that part alone and only prints it.

mod core;
mod grpc;
mod hosts;
#[path = "../forecast/machine.rs"]
mod machine;
mod one_signal;
mod page;
mod spent;

use std::time::SystemTime;

use anyhow::Context;
use page::Page;
use spent::Counting;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/benchmarks/predictor.md");

#[global_allocator]
static COUNTING: Counting = Counting;

fn main() -> anyhow::Result<()> {
    // Cargo adds `--bench`.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == part);
    let mut page = Page::new(machine::busy()?, &machine::told());
    if wanted("one_signal") {
        one_signal::tell(&mut page);
    }
    if wanted("grpc") {
        tokio::runtime::Runtime::new()?.block_on(grpc::tell(&mut page))?;
    }
    if wanted("core") {
        core::tell(&mut page);
    }
    if chosen.is_empty() {
        std::fs::write(PAGE, page.text()).with_context(|| format!("cannot write {PAGE}"))?;
    }
    Ok(())
}

/// Seconds since the epoch.
fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}
