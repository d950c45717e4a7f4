//! What the store costs on both databases: rows recorded a second, what readers wait for, what a writer waits for while old history is
//! merged and removed, and how soon a thousand hosts are back.
//!
//! `cargo bench -p memharvest-registry --bench store` writes `docs/benchmarks/registry.md`. With `-- sqlite`, `-- postgresql` or
//! `-- simulate` it measures that part, with a number so many machines instead of 30,000; what comes of such a part is only printed.

#[path = "store/fill.rs"]
mod fill;
#[path = "store/page.rs"]
mod page;
#[path = "../tests/registry/postgres.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod postgres;
#[path = "store/reconnect.rs"]
mod reconnect;
#[path = "../tests/registry/records.rs"]
#[expect(dead_code, clippy::unwrap_used, reason = "shared with the tests")]
mod records;
#[path = "store/simulation.rs"]
mod simulation;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use fill::Fill;
use memharvest_proto::registry::v1::VmRollup;
use memharvest_registry::store::postgres::{Address, PostgresStore};
use memharvest_registry::store::sqlite::SqliteStore;
use memharvest_registry::store::{Range, Store, ViolationFilter};
use page::{Bound, Figures};
use records::{batch_of, registration, violation, vm_window};
use tokio::task::JoinSet;
use uuid::Uuid;

const HOUR: i64 = 3600;
const DAY: i64 = 24 * HOUR;

/// The hour that is recorded first; the history lies before it.
const NOW: i64 = records::T0;

/// Machines, unless a number is given.
const MACHINES: u128 = 30_000;
const MACHINES_A_HOST: u128 = 30;

const BATCH: usize = 2000;
const CALLERS: usize = 4;
const VIOLATIONS: i64 = 30_000;
const AGENTS: u32 = 1000;
const LOOKS: u32 = 300;

/// How long old history is merged and removed.
const UPKEEP: Duration = Duration::from_secs(20);

type Error = Box<dyn std::error::Error + Send + Sync>;

/// The registry's own settings for a server of some size; acknowledged is what has reached the disk.
const SERVER: [&str; 4] = ["fsync=on", "full_page_writes=on", "shared_buffers=1GB", "max_wal_size=8GB"];

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Cargo adds `--bench`.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let machines = chosen.iter().find_map(|chosen| chosen.parse().ok()).unwrap_or(MACHINES);
    let wanted = |part: &str| chosen.iter().all(|chosen| chosen == part || chosen.parse::<u128>().is_ok());
    let mut pages = Vec::new();
    if wanted("sqlite") {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("registry.db");
        let store = SqliteStore::open(&path).await?;
        let mut figures = Figures::of("SQLite");
        let store = Arc::new(store);
        measure(&mut figures, &store, &Fill::sqlite(&path).await?, machines).await?;
        // One registry at a time works on a file.
        store.close().await;
        drop(store);
        figures.add(
            "1,000 hosts back, all served",
            reconnect::measure(&path).await?,
            Bound::AtMost(5.0, "s"),
        );
        pages.push(figures);
    }
    if wanted("postgresql") {
        let server = postgres::Server::start_with(&SERVER).await;
        let url = server.database().await;
        let store = PostgresStore::open(&Address::parse(&url)?).await?;
        let mut figures = Figures::of("PostgreSQL");
        measure(&mut figures, &Arc::new(store), &Fill::postgres(&url).await?, machines).await?;
        let back = reconnect::measure(std::path::Path::new(&url)).await?;
        figures.add("1,000 hosts back, all served", back, Bound::AtMost(5.0, "s"));
        pages.push(figures);
    }
    if wanted("simulate") {
        pages.push(simulation::measure(machines.min(1000)).await?);
    }
    if chosen.is_empty() { page::write(&pages, machines) } else { Ok(()) }
}

async fn measure(
    figures: &mut Figures,
    store: &Arc<impl Store>,
    fill: &Fill,
    machines: u128,
) -> Result<(), Error> {
    let least = if fill.is_sqlite() { 40_000.0 } else { 30_000.0 };
    // From old to new, as time brings it: so the tables are as dense as they would be.
    let begin = NOW - 31 * DAY;
    let first = record(store, machines, begin).await?;
    figures.add("roll-ups recorded a second, empty", first, Bound::AtLeast(least, ""));
    fill.five_minutes(begin + HOUR, begin + DAY - HOUR).await?;
    let after_a_day = record(store, machines, begin + DAY - HOUR).await?;
    figures.add("the same with a day of history", after_a_day, Bound::AtLeast(least, ""));
    fill.hours(NOW - 30 * DAY, NOW - 7 * DAY).await?;
    fill.five_minutes(NOW - 7 * DAY, NOW).await?;
    fill.settle().await?;
    let after_a_month = record(store, machines, NOW).await?;
    figures.add("the same with 30 days of history", after_a_month, Bound::AtLeast(least, ""));
    figures.add("a day's rate over 30 days' rate", after_a_day / after_a_month, Bound::AtMost(1.3, "×"));

    let rows = fill.count().await?;
    let bytes = page::real(store.stored().await?.bytes) / page::real(rows);
    let most = if fill.is_sqlite() { Bound::AtMost(100.0, "bytes") } else { Bound::None("bytes") };
    figures.add("a roll-up on disk, log and indexes included", bytes, most);
    figures.note(&format!("{rows} roll-ups of {machines} machines"));

    fill_ledgers(store.as_ref(), machines).await?;
    reads(figures, store.as_ref(), machines).await?;
    upkeep(figures, store, machines).await
}

/// Records an hour of all machines' windows; returns rows a second.
async fn record(store: &Arc<impl Store>, machines: u128, from: i64) -> Result<f64, Error> {
    let windows = (from..from + HOUR).step_by(300);
    let mut rows = windows.flat_map(|start| (0..machines).map(move |vm| (vm, start)));
    let begin = Instant::now();
    let mut count = 0;
    let mut callers: JoinSet<Result<(), Error>> = JoinSet::new();
    loop {
        let batch: Vec<VmRollup> = rows.by_ref().take(BATCH).map(|(vm, start)| window(vm, start)).collect();
        if batch.is_empty() {
            break;
        }
        count += batch.len() as u64;
        if callers.len() >= CALLERS {
            callers.join_next().await.transpose()?.transpose()?;
        }
        let store = Arc::clone(store);
        callers.spawn(async move { Ok(store.record_harvest(&batch_of(batch)).await.map(drop)?) });
    }
    while let Some(outcome) = callers.join_next().await {
        outcome??;
    }
    Ok(page::real(count) / begin.elapsed().as_secs_f64())
}

/// A window with all the figures of a live machine.
fn window(vm: u128, start: i64) -> VmRollup {
    let window = vm_window(vm, start);
    VmRollup {
        host_id: format!("host-{}", vm / MACHINES_A_HOST),
        demand_max_bytes: window.rss_max_bytes,
        demand_mean_bytes: window.rss_mean_bytes,
        predicted_demand_bytes: window.predicted_rss_bytes,
        reclaimable_bytes: Some(1 << 30),
        ..window
    }
}

async fn fill_ledgers(store: &impl Store, machines: u128) -> Result<(), Error> {
    let all: Vec<_> = (0..VIOLATIONS)
        .map(|i| violation(&format!("v{i}"), u128::from(i.unsigned_abs()) % machines, NOW - i * 60, 1))
        .collect();
    for violations in all.chunks(1000) {
        store.record_violations("p", violations).await?;
    }
    for i in 0..AGENTS {
        store.register_agent(&registration(&format!("host-{i:04}"), "a"), NOW).await?;
    }
    Ok(())
}

/// The 99th of a hundred calls, and the longest, in milliseconds.
async fn p99(mut call: impl AsyncFnMut(u32) -> Result<(), Error>) -> Result<f64, Error> {
    let mut times = Vec::new();
    for i in 0..LOOKS {
        let begin = Instant::now();
        call(i).await?;
        times.push(begin.elapsed());
    }
    Ok(at_share(times, 99))
}

/// The time that so many of a hundred stay below, in milliseconds.
fn at_share(mut times: Vec<Duration>, percent: usize) -> f64 {
    times.sort_unstable();
    let place = (times.len() * percent / 100).min(times.len().saturating_sub(1));
    times.get(place).map_or(0.0, |time| time.as_secs_f64() * 1000.0)
}

async fn reads(figures: &mut Figures, store: &impl Store, machines: u128) -> Result<(), Error> {
    let range = Range { from_s: NOW - 30 * DAY, to_s: NOW + DAY, limit: 150_000 };
    let history = p99(async |i| {
        let vm = (u128::from(i) * 7919) % machines;
        let found = store.vm_history(Uuid::from_u128(vm), range).await?;
        if found.len() < 7 * 288 + 23 * 24 {
            return Err(format!("{} windows of machine {vm}", found.len()).into());
        }
        Ok(())
    });
    figures.add("one machine's 30 days, p99", history.await?, Bound::AtMost(50.0, "ms"));
    let violations = p99(async |i| {
        let older_than = Some(((NOW - i64::from(i) * HOUR) * 1_000_000_000, String::new()));
        store.violations(&ViolationFilter { older_than, ..ViolationFilter::default() }, 101).await?;
        Ok(())
    });
    figures.add("a page of violations, p99", violations.await?, Bound::AtMost(20.0, "ms"));
    let agents = p99(async |i| Ok(store.agents(&format!("host-{:04}", i * 3), &[], 101).await.map(drop)?));
    figures.add("a page of agents, p99", agents.await?, Bound::AtMost(20.0, "ms"));
    Ok(())
}

/// What a writer waits for while old history is merged and removed.
async fn upkeep(figures: &mut Figures, store: &Arc<impl Store>, machines: u128) -> Result<(), Error> {
    let at_most = Bound::AtMost(50.0, "ms");
    let alone = writer(store, machines, async || Ok(())).await?;
    figures.add("a batch of 30 machines alone, longest", at_share(alone, 100), Bound::None("ms"));
    let begin = Instant::now();
    let merging = writer(store, machines, async || {
        while begin.elapsed() < UPKEEP && store.fold_history(NOW - 6 * DAY).await? > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    });
    figures.add("the same while history is merged to hours, longest", at_share(merging.await?, 100), at_most);
    let begin = Instant::now();
    let removing = writer(store, machines, async || {
        while begin.elapsed() < UPKEEP && store.prune_history(NOW - 10 * DAY).await? > 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    });
    figures.add("the same while history is removed, longest", at_share(removing.await?, 100), at_most);
    Ok(())
}

/// Records small batches one after the other while `work` runs, at least a second; how long each took.
async fn writer(
    store: &Arc<impl Store>,
    machines: u128,
    work: impl AsyncFnOnce() -> Result<(), Error>,
) -> Result<Vec<Duration>, Error> {
    let done = Arc::new(AtomicBool::new(false));
    let mut writer: JoinSet<Result<Vec<Duration>, Error>> = JoinSet::new();
    let (writing, ended) = (Arc::clone(store), Arc::clone(&done));
    writer.spawn(async move {
        let mut times = Vec::new();
        let begin = Instant::now();
        let mut start = NOW + DAY;
        writing.prepare_history(start).await?;
        while !ended.load(Ordering::Relaxed) || begin.elapsed() < Duration::from_secs(1) {
            let some = machines.min(MACHINES_A_HOST);
            let batch = batch_of((0..some).map(|vm| window(vm, start)).collect());
            // Within a day, whose partition is there; a window that is recorded again is written again.
            start = NOW + DAY + (start + 300 - NOW) % DAY;
            let sent = Instant::now();
            writing.record_harvest(&batch).await?;
            times.push(sent.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(times)
    });
    work().await?;
    done.store(true, Ordering::Relaxed);
    writer.join_next().await.ok_or("the writer is gone")??
}
