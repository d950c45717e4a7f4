//! What the store costs: rows recorded a second, what readers wait for, and what a writer waits for while old history is merged and removed.
//!
//! `cargo bench -p memharvest-registry --bench store` measures both databases, `-- sqlite` or `-- postgresql` one of them. The figures go to
//! standard output; `docs/benchmarks/registry.md` keeps those of a quiet machine.

#[path = "../tests/registry/postgres.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod postgres;
#[path = "../tests/registry/records.rs"]
#[expect(dead_code, reason = "shared with the tests")]
mod records;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use memharvest_proto::registry::v1::{RecordHarvestRequest, VmRollup};
use memharvest_registry::store::postgres::{Address, PostgresStore};
use memharvest_registry::store::sqlite::SqliteStore;
use memharvest_registry::store::{Range, Store, ViolationFilter};
use records::{T0, batch_of, registration, violation, vm_window};
use tokio::task::JoinSet;
use uuid::Uuid;

const DAY: i64 = 86_400;
const WINDOW: i64 = 300;

/// Machines of the fleet whose windows come in, an hour of them.
const MACHINES: u128 = 30_000;

/// Machines with 30 days of history.
const OLD_MACHINES: u128 = 300;

const BATCH: usize = 2000;
const CALLERS: usize = 4;
const VIOLATIONS: i64 = 30_000;
const AGENTS: u32 = 1000;
const LOOKS: usize = 200;

type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    // Cargo adds `--bench`.
    let chosen: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    let wanted = |part: &str| chosen.is_empty() || chosen.iter().any(|chosen| chosen == part);
    if wanted("sqlite") {
        let folder = tempfile::tempdir()?;
        let store = SqliteStore::open(&folder.path().join("registry.db")).await?;
        measure("SQLite", store).await?;
    }
    if wanted("postgresql") {
        let server = postgres::Server::start_with(&[
            "fsync=on",
            "full_page_writes=on",
            "shared_buffers=1GB",
            "max_wal_size=8GB",
        ])
        .await;
        let store = PostgresStore::open(&Address::parse(&server.database().await)?).await?;
        measure("PostgreSQL", store).await?;
    }
    Ok(())
}

#[expect(clippy::print_stdout, reason = "what was asked for")]
fn tell(what: &str, figure: impl std::fmt::Display) {
    println!("{what}: {figure}");
}

async fn measure(name: &str, store: impl Store) -> Result<(), Error> {
    let store = Arc::new(store);
    tell("\ndatabase", name);
    let empty = record(&store, MACHINES, T0, T0 + 3600).await?;
    tell("rows a second into an empty database", format!("{empty:.0}"));

    let before = store.stored().await?.bytes;
    let first_day = record(&store, OLD_MACHINES, T0 + 3600, T0 + DAY).await?;
    record(&store, OLD_MACHINES, T0 + DAY, T0 + 29 * DAY).await?;
    let last_day = record(&store, OLD_MACHINES, T0 + 29 * DAY, T0 + 30 * DAY).await?;
    let rows = i64::try_from(OLD_MACHINES)? * (30 * DAY - 3600) / WINDOW;
    let bytes = store.stored().await?.bytes - before;
    tell(
        "bytes a roll-up on disk, log included",
        format!("{:.0}", f64::from(u32::try_from(bytes / 1000)?) * 1000.0 / f64::from(u32::try_from(rows)?)),
    );
    tell("first day's rate over the last day's", format!("{:.2}", first_day / last_day));

    fill_ledgers(store.as_ref()).await?;
    reads(store.as_ref()).await?;
    upkeep(&store).await
}

/// Records windows of the first `machines` machines from one second to another; returns rows a second.
async fn record(store: &Arc<impl Store>, machines: u128, from: i64, to: i64) -> Result<f64, Error> {
    let windows = (from..to).step_by(usize::try_from(WINDOW)?);
    let mut rows = windows.flat_map(|start| (0..machines).map(move |vm| (vm, start)));
    let begin = Instant::now();
    let mut count = 0_u32;
    let mut callers: JoinSet<Result<(), Error>> = JoinSet::new();
    loop {
        let batch: Vec<VmRollup> = rows.by_ref().take(BATCH).map(|(vm, start)| window(vm, start)).collect();
        if batch.is_empty() {
            break;
        }
        count += u32::try_from(batch.len())?;
        if callers.len() >= CALLERS {
            callers.join_next().await.transpose()?.transpose()?;
        }
        let store = Arc::clone(store);
        callers.spawn(async move { Ok(store.record_harvest(&batch_of(batch)).await.map(drop)?) });
    }
    while let Some(outcome) = callers.join_next().await {
        outcome??;
    }
    Ok(f64::from(count) / begin.elapsed().as_secs_f64())
}

/// A window with all the figures of a live machine.
fn window(vm: u128, start: i64) -> VmRollup {
    let window = vm_window(vm, start);
    VmRollup {
        host_id: format!("host-{}", vm / 30),
        demand_max_bytes: window.rss_max_bytes,
        demand_mean_bytes: window.rss_mean_bytes,
        predicted_demand_bytes: window.predicted_rss_bytes,
        reclaimable_bytes: Some(1 << 30),
        ..window
    }
}

async fn fill_ledgers(store: &impl Store) -> Result<(), Error> {
    let all: Vec<_> = (0..VIOLATIONS)
        .map(|i| violation(&format!("v{i}"), u128::from(i.unsigned_abs()) % MACHINES, T0 + i * 60, 1))
        .collect();
    for violations in all.chunks(1000) {
        store.record_violations("p", violations).await?;
    }
    for i in 0..AGENTS {
        store.register_agent(&registration(&format!("host-{i:04}"), "a"), T0).await?;
    }
    Ok(())
}

/// The time that almost all calls stay below: the 99th of a hundred.
async fn p99(mut call: impl AsyncFnMut(usize) -> Result<(), Error>) -> Result<String, Error> {
    let mut times = Vec::with_capacity(LOOKS);
    for i in 0..LOOKS {
        let begin = Instant::now();
        call(i).await?;
        times.push(begin.elapsed());
    }
    Ok(spread(times))
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let ms = |at: usize| times[at.min(times.len() - 1)].as_secs_f64() * 1000.0;
    format!(
        "median {:.1} ms, p99 {:.1} ms, longest {:.1} ms of {}",
        ms(times.len() / 2),
        ms(times.len() * 99 / 100),
        ms(times.len() - 1),
        times.len()
    )
}

async fn reads(store: &impl Store) -> Result<(), Error> {
    let range = Range { from_s: T0, to_s: T0 + 30 * DAY, limit: 150_000 };
    let history = p99(async |i| {
        let found = store.vm_history(Uuid::from_u128(i as u128 % OLD_MACHINES), range).await?;
        assert!(found.len() as i64 >= 23 * 24, "{}", found.len());
        Ok(())
    });
    tell("one machine's 30 days as recorded", history.await?);
    let violations = p99(async |i| {
        let older_than = Some(((T0 + i as i64 * 100) * 1_000_000_000, String::new()));
        store.violations(&ViolationFilter { older_than, ..ViolationFilter::default() }, 101).await?;
        Ok(())
    });
    tell("a page of violations", violations.await?);
    let agents = p99(async |i| Ok(store.agents(&format!("host-{:04}", i * 4), &[], 101).await.map(drop)?));
    tell("a page of agents", agents.await?);
    Ok(())
}

/// What a writer waits for while old history is merged and removed.
async fn upkeep(store: &Arc<impl Store>) -> Result<(), Error> {
    tell("a writer's small batch, alone", spread(writer(store, async || Ok(())).await?.0));
    let mut merged = 0;
    let (times, took) = writer(store, async || {
        loop {
            match store.fold_history(T0 + 23 * DAY).await? {
                0 => return Ok(()),
                rows => merged += rows,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await?;
    tell("the same while history is merged to hours", spread(times));
    tell("merged", format!("{merged} rows in {:.0} s", took.as_secs_f64()));
    let mut removed = 0;
    let (times, took) = writer(store, async || {
        loop {
            match store.prune_history(T0 + 28 * DAY).await? {
                0 => return Ok(()),
                rows => removed += rows,
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await?;
    tell("the same while history is removed", spread(times));
    tell("removed", format!("{removed} rows in {:.0} s", took.as_secs_f64()));
    reads(store.as_ref()).await
}

/// Records small batches one after the other while `work` runs, at least a second; returns how long each took, and how long the work.
async fn writer(
    store: &Arc<impl Store>,
    work: impl AsyncFnOnce() -> Result<(), Error>,
) -> Result<(Vec<Duration>, Duration), Error> {
    let done = Arc::new(AtomicBool::new(false));
    let mut writer: JoinSet<Result<Vec<Duration>, Error>> = JoinSet::new();
    let (writing, ended) = (Arc::clone(store), Arc::clone(&done));
    writer.spawn(async move {
        let mut times = Vec::new();
        let begin = Instant::now();
        let mut start = T0 + 40 * DAY;
        while !ended.load(Ordering::Relaxed) || begin.elapsed() < Duration::from_secs(1) {
            let batch: RecordHarvestRequest = batch_of((0..30).map(|vm| window(vm, start)).collect());
            start += WINDOW;
            let sent = Instant::now();
            writing.record_harvest(&batch).await?;
            times.push(sent.elapsed());
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(times)
    });
    let begin = Instant::now();
    work().await?;
    let took = begin.elapsed();
    done.store(true, Ordering::Relaxed);
    let times = writer.join_next().await.ok_or("the writer is gone")???;
    Ok((times, took))
}
