//! What a whole mesh costs on one machine with ten thousand simulated machines.

use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use memharvest_end_to_end::mesh::{Mesh, PROCESSES};
use memharvest_end_to_end::metrics_page::metric;
use memharvest_end_to_end::wait::wait_for;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::collector_cost::mebibytes;
use crate::report::{Row, table};
use crate::spread::Spread;
use crate::{say, usage};

const HOSTS: u32 = 100;
const VMS_A_HOST: u32 = 100;
const INTERVAL: Duration = Duration::from_secs(5);
const ROUNDS: usize = 3;
const WINDOW: Duration = Duration::from_mins(1);
/// After the first harvest: by then every machine is warm and the first roll-ups are stored.
const WARM_UP: Duration = Duration::from_mins(1);
/// How often the ages of all hosts' readings are looked at, and how long.
const AGES: (Duration, usize) = (Duration::from_millis(250), 40);

/// What was found at the gateway.
struct Shown {
    vms: usize,
    fresh: usize,
    ages: Vec<f64>,
}

/// Measures, and hands out its part of the report.
///
/// # Errors
/// When the mesh does not come up, or loses a reading.
pub(crate) async fn run() -> anyhow::Result<String> {
    let (shape, interval) = (format!("{HOSTS}x{VMS_A_HOST}"), format!("{}s", INTERVAL.as_secs()));
    say(&format!("starting a mesh with {shape} simulated machines"));
    let mut mesh = Mesh::up(&["--simulate", &shape, "--interval", &interval, "--speed", "1"]).await?;
    let expected = HOSTS * VMS_A_HOST;
    wait_for(Duration::from_mins(5), "every machine and something to harvest", async || {
        let fleet = mesh.get("/fleet").await?;
        let harvestable = fleet["harvestable_bytes"].as_u64().unwrap_or_default();
        ensure!(fleet["vms"] == expected && harvestable > 0, "{fleet}");
        Ok(())
    })
    .await?;
    tokio::time::sleep(WARM_UP).await;

    let pids = PROCESSES.iter().map(|process| mesh.pid(process)).collect::<anyhow::Result<Vec<Pid>>>()?;
    let mut rounds = Vec::new();
    for round in 1..=ROUNDS {
        let spent = usage::spent_within(WINDOW, &pids).await?;
        let shares: Vec<f64> =
            spent.iter().map(|spent| spent.as_secs_f64() / WINDOW.as_secs_f64() * 100.0).collect();
        let told: Vec<_> =
            PROCESSES.iter().zip(&shares).map(|(process, share)| format!("{process} {share:.1} %")).collect();
        say(&format!("round {round}: {}", told.join(", ")));
        rounds.push(shares);
    }
    let memory: Vec<f64> =
        pids.iter().map(|&pid| usage::memory(pid, "VmRSS").map(mebibytes)).collect::<anyhow::Result<_>>()?;
    let lost = lost_readings(&mesh).await?;
    let shown = shown(&mesh).await?;
    mesh.signal("up", Signal::TERM)?;
    mesh.wait_until_ended(Duration::from_secs(30)).await?;
    Ok(report(&rounds, &memory, lost, &shown))
}

/// Readings that did not reach a predictor that took them in, and records that did not reach its outbox.
async fn lost_readings(mesh: &Mesh) -> anyhow::Result<f64> {
    let (collector, predictor) = (mesh.admin_url("collector")?, mesh.admin_url("predictor")?);
    let mut lost = 0.0;
    for (url, series) in [
        (&collector, "memharvest_queue_dropped_total{queue=\"outbox\"}"),
        (&collector, "memharvest_collector_ticks_skipped_total"),
        (&collector, "memharvest_collector_samples_total{outcome=\"failed\"}"),
        (&collector, "memharvest_collector_readings_refused_total"),
        (&predictor, "memharvest_queue_dropped_total{queue=\"records\"}"),
    ] {
        lost += metric(url, series).await?;
    }
    Ok(lost)
}

async fn shown(mesh: &Mesh) -> anyhow::Result<Shown> {
    let (mut vms, mut fresh, mut token) = (0, 0, String::new());
    loop {
        let page = mesh.get(&format!("/vms?page_size=1000&page_token={token}")).await?;
        let listed = page["vms"].as_array().context("no list of machines")?;
        let limit = INTERVAL.as_secs_f64() * 3.0;
        vms += listed.len();
        for vm in listed {
            fresh += usize::from(vm["state"] == "running" && age(vm)? <= limit);
        }
        page["next_page_token"].as_str().unwrap_or_default().clone_into(&mut token);
        if token.is_empty() {
            break;
        }
    }
    let mut ages = Vec::new();
    for _ in 0..AGES.1 {
        let page = mesh.get("/hosts?page_size=1000").await?;
        for host in page["hosts"].as_array().context("no list of hosts")? {
            ages.push(age(host)?);
        }
        tokio::time::sleep(AGES.0).await;
    }
    Ok(Shown { vms, fresh, ages })
}

/// Seconds since what is shown was read.
fn age(shown: &Value) -> anyhow::Result<f64> {
    let read_at: Timestamp =
        shown["read_at"].as_str().with_context(|| format!("no read_at in {shown}"))?.parse()?;
    Ok(Timestamp::now().duration_since(read_at).as_secs_f64())
}

fn report(rounds: &[Vec<f64>], memory: &[f64], lost: f64, shown: &Shown) -> String {
    let expected = (HOSTS * VMS_A_HOST) as usize;
    let total = Spread::new(rounds.iter().map(|shares| shares.iter().sum()), 1, " %");
    let ages = Spread::new(shown.ages.iter().copied(), 1, " s");
    let stale_after = INTERVAL.as_secs_f64() * 3.0;
    let mut rows = Vec::new();
    for (place, process) in PROCESSES.iter().enumerate() {
        let share = Spread::new(rounds.iter().map(|shares| shares[place]), 1, " %");
        rows.push(Row::plain(&format!("{process}, of one core"), share.to_string()));
    }
    rows.push(Row::aimed("all four, of one core", total.to_string(), "below 100 %", total.median() < 100.0));
    for (process, memory) in PROCESSES.iter().zip(memory) {
        rows.push(Row::plain(&format!("{process}, resident memory"), format!("{memory:.0} MiB")));
    }
    rows.push(Row::aimed("readings lost anywhere", format!("{lost:.0}"), "0", lost == 0.0));
    rows.push(Row::aimed(
        "machines shown fresh at the gateway",
        format!("{} of {}", shown.fresh, shown.vms),
        &format!("all {expected}"),
        shown.vms == expected && shown.fresh == expected,
    ));
    rows.push(Row::aimed(
        "age of a host's reading at the gateway",
        ages.to_string(),
        &format!("below {stale_after} s"),
        ages.greatest() < stale_after,
    ));
    let mut text = format!("## A mesh with {expected} simulated machines\n\n");
    let _ = writeln!(
        text,
        "`memharvest up --simulate {HOSTS}x{VMS_A_HOST} --interval {}s --speed 1`, all on this machine, with nobody \
         looking while it is measured: {ROUNDS} rounds of {} s, after every machine had become warm.\n",
        INTERVAL.as_secs(),
        WINDOW.as_secs(),
    );
    text + &table(&rows)
}
