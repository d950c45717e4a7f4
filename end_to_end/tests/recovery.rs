//! Processes die or hang while readings come and records are written all the time. The mesh recovers each time; no
//! acknowledged record is lost, and none is doubled.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::time::Duration;

use anyhow::{Context, ensure};
use http::{Method, StatusCode};
use jiff::Timestamp;
use memharvest_end_to_end::apart::Apart;
use memharvest_end_to_end::ledger::{Ledger, WINDOW_S};
use memharvest_end_to_end::mesh::{Mesh, PROCESSES};
use memharvest_end_to_end::metrics_page::metric;
use memharvest_end_to_end::wait::wait_for;
use memharvest_end_to_end::web;
use memharvest_proto::registry::v1::{Violation, ViolationKind};
use memharvest_services::mesh_clock::MeshClock;
use rustix::process::Signal;
use serde_json::Value;

/// Generous: what is waited for comes within seconds on an idle machine.
const SOON: Duration = Duration::from_mins(1);
/// A reading in a fifth of a second, a window of five readings in a second, a horizon in three.
const PACE: [&str; 3] = ["--speed=300", "--interval=1m", "--cold-start=30m"];
const SPEED: f64 = 300.0;
const READINGS_A_WINDOW: u32 = 5;
const RECORDS_WAITING: &str = "memharvest_queue_depth{queue=\"records\"}";
const RECORDS_DROPPED: &str = "memharvest_queue_dropped_total{queue=\"records\"}";
const READINGS_DROPPED: &str = "memharvest_queue_dropped_total{queue=\"outbox\"}";
const TICKS_SKIPPED: &str = "memharvest_collector_ticks_skipped_total";

fn time(value: &Value) -> anyhow::Result<Timestamp> {
    Ok(value.as_str().with_context(|| format!("no time: {value}"))?.parse()?)
}

/// Where the clients of a mesh look.
struct Places {
    gateway: String,
    registry: String,
    clock: MeshClock,
}

impl Places {
    fn of(mesh: &Mesh) -> anyhow::Result<Self> {
        let state = mesh.state()?;
        let factor = state["clock_factor"].as_f64().context("clock_factor")?;
        let clock = MeshClock::new(time(&state["clock_origin"])?, factor)?;
        Ok(Self { gateway: mesh.url("gateway")?, registry: mesh.url("registry")?, clock })
    }

    /// Waits until REST shows every machine with a reading of after `at`.
    async fn live_after(&self, at: Timestamp) -> anyhow::Result<()> {
        wait_for(SOON, "every machine to be read again", async || {
            let vms = web::get(&format!("{}/api/v1/vms", self.gateway)).await?.json()?;
            let vms = vms["vms"].as_array().context("vms")?;
            ensure!(!vms.is_empty(), "no machines");
            for vm in vms {
                ensure!(time(&vm["read_at"])? > at, "{vm}");
            }
            Ok(())
        })
        .await
    }

    /// Waits until a window of every machine that began after `at` is in the registry.
    async fn recorded_after(&self, at: Timestamp) -> anyhow::Result<Ledger> {
        wait_for(SOON, "new windows of every machine", async || {
            let ledger = Ledger::read(&self.registry).await?;
            let until = ledger.recorded_until().context("nothing is recorded")?;
            ensure!(until > at.as_second(), "recorded until {until} only");
            Ok(ledger)
        })
        .await
    }
}

/// A band that every machine leaves, so that violations are open at any time.
async fn break_a_boundary(mesh: &Mesh) -> Ledger {
    let body = r#"{"upper_usage_bytes": 1048576, "author": "test", "reason": "always broken"}"#;
    let set = mesh.send(Method::PUT, "/boundaries/fleet", &[], body).await.unwrap();
    assert_eq!(set.status, StatusCode::CREATED, "{}", set.text);
    let registry = mesh.url("registry").unwrap();
    wait_for(SOON, "every machine to break its boundary", async || {
        let ledger = Ledger::read(&registry).await?;
        let open = ledger.open().filter(|violation| is_of_boundary(violation)).count();
        ensure!(open >= 10, "{open} are open");
        Ok(ledger)
    })
    .await
    .unwrap()
}

fn is_of_boundary(violation: &Violation) -> bool {
    violation.kind() == ViolationKind::Boundary
}

async fn kill(mesh: &Mesh, process: &str) {
    let before = mesh.pid(process).unwrap();
    mesh.signal(process, Signal::KILL).unwrap();
    wait_for(SOON, &format!("another {process}"), async || {
        ensure!(mesh.pid(process)? != before, "not yet");
        web::get(&format!("{}/readyz", mesh.admin_url(process)?)).await
    })
    .await
    .unwrap();
}

async fn nothing_was_dropped(mesh: &Mesh) {
    for (process, series) in [("predictor", RECORDS_DROPPED), ("collector", READINGS_DROPPED)] {
        let dropped = metric(&mesh.admin_url(process).unwrap(), series).await.unwrap();
        assert!(dropped.abs() < 0.5, "the {process} dropped {dropped}");
    }
    let log = mesh.log("predictor");
    assert!(!log.contains("refused a record"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_process_is_killed_in_turn_and_no_record_is_lost_or_doubled() {
    let mesh = Mesh::up(&[&["--simulate=2x5"], &PACE[..]].concat()).await.unwrap();
    let places = Places::of(&mesh).unwrap();
    break_a_boundary(&mesh).await;
    for process in PROCESSES {
        // Something new to lose.
        let before = places.recorded_after(places.clock.now()).await.unwrap();
        nothing_was_dropped(&mesh).await;
        kill(&mesh, process).await;

        let back = places.clock.now();
        places.live_after(back).await.unwrap();
        let after = places.recorded_after(back).await.unwrap();
        after.keeps(&before).with_context(|| format!("the {process} was killed")).unwrap();
        nothing_was_dropped(&mesh).await;

        if process == "predictor" {
            // What it had saved goes on; nobody can judge any more what was open and not saved yet.
            for open in before.open() {
                let now = &after.violations[&open.violation_id];
                assert!(
                    now.closed_at.is_none() || ["voided", "clean"].contains(&&*now.close_reason),
                    "{now:?}"
                );
            }
            assert!(after.open().any(is_of_boundary), "the boundary still holds, and is still broken");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_hangs_for_hours_of_mesh_time_misses_nothing() {
    let mesh =
        Mesh::up(&["--simulate=1x5", "--speed=600", "--interval=1m", "--cold-start=30m"]).await.unwrap();
    let places = Places::of(&mesh).unwrap();
    let first = places.recorded_after(places.clock.now()).await.unwrap();
    let from = first.recorded_until().unwrap();

    let stopped = places.clock.now();
    mesh.signal("registry", Signal::STOP).unwrap();
    // What is live needs no registry.
    places.live_after(stopped + Duration::from_hours(2)).await.unwrap();
    let predictor = mesh.admin_url("predictor").unwrap();
    let waiting = metric(&predictor, RECORDS_WAITING).await.unwrap();
    assert!(waiting >= 20.0, "two hours are 24 windows, but {waiting} requests wait");
    mesh.signal("registry", Signal::CONT).unwrap();

    everything_arrives(&places, &predictor).await;
    let after = places.recorded_after(places.clock.now()).await.unwrap();
    after.keeps(&first).unwrap();
    let skipped = ticks_skipped(&mesh.admin_url("collector").unwrap()).await;
    after.is_complete(from, READINGS_A_WINDOW, skipped, 0).unwrap();
    nothing_was_dropped(&mesh).await;
}

async fn everything_arrives(places: &Places, predictor: &str) {
    places.recorded_after(places.clock.now()).await.unwrap();
    wait_for(SOON, "the queue of records to be empty", async || {
        let waiting = metric(predictor, RECORDS_WAITING).await?;
        ensure!(waiting < 0.5, "{waiting} wait");
        Ok(())
    })
    .await
    .unwrap();
}

async fn ticks_skipped(collector: &str) -> u32 {
    let text = metric(collector, TICKS_SKIPPED).await.unwrap().to_string();
    text.parse().unwrap()
}

/// The four programs without `up`, so that one can stay away.
async fn apart(outbox_limit: &str) -> (Apart, Places) {
    let mut apart = Apart::new(SPEED).unwrap();
    apart.start("registry", &[]).await.unwrap();
    apart.start("predictor", &["--cold-start=30m"]).await.unwrap();
    apart.start("gateway", &[]).await.unwrap();
    apart.start("collector", &["--simulate=1x4", "--interval=1m", outbox_limit]).await.unwrap();
    let (gateway, registry) = (apart.url("gateway"), apart.url("registry"));
    let places = Places { gateway, registry, clock: apart.clock() };
    (apart, places)
}

#[tokio::test(flavor = "multi_thread")]
async fn records_outlive_a_registry_that_is_away_and_a_predictor_that_is_killed_meanwhile() {
    let (mut apart, places) = apart("--outbox-limit=30000").await;
    let first = places.recorded_after(places.clock.now()).await.unwrap();
    let from = first.recorded_until().unwrap();
    let predictor = apart.admin_url("predictor");

    apart.kill("registry").unwrap();
    let away = places.clock.now();
    places.live_after(away + Duration::from_mins(40)).await.unwrap();
    assert!(metric(&predictor, RECORDS_WAITING).await.unwrap() >= 6.0);
    apart.kill("predictor").unwrap();
    apart.start("predictor", &["--cold-start=30m"]).await.unwrap();
    let kept = metric(&predictor, RECORDS_WAITING).await.unwrap();
    assert!(kept >= 6.0, "only {kept} requests outlived the predictor");
    places.live_after(places.clock.now() + Duration::from_mins(10)).await.unwrap();
    apart.start("registry", &[]).await.unwrap();

    everything_arrives(&places, &predictor).await;
    let after = places.recorded_after(places.clock.now()).await.unwrap();
    after.keeps(&first).unwrap();
    let skipped = ticks_skipped(&apart.admin_url("collector")).await;
    // A window that was being filled dies with the predictor.
    after.is_complete(from, READINGS_A_WINDOW, skipped, READINGS_A_WINDOW).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_whose_predictor_is_away_drops_only_the_oldest_readings_and_counts_them() {
    // Twenty readings of a host with four machines: four windows.
    let (mut apart, places) = apart("--outbox-limit=100").await;
    let kept = u32::try_from(3 * WINDOW_S).unwrap();
    let collector = apart.admin_url("collector");
    let dropped = async || metric(&collector, READINGS_DROPPED).await.unwrap();
    let until_dropped = async |count: f64| {
        wait_for(SOON, "the outbox to overflow", async || {
            let dropped = metric(&collector, READINGS_DROPPED).await?;
            ensure!(dropped >= count, "{dropped} were dropped");
            Ok(())
        })
        .await
        .unwrap();
    };
    let first = places.recorded_after(places.clock.now()).await.unwrap();
    let from = first.recorded_until().unwrap();
    assert!(dropped().await < 0.5, "nothing is dropped while the predictor is there");

    // One that hangs: what it had not taken in is dropped, the oldest first.
    apart.signal("predictor", Signal::STOP).unwrap();
    until_dropped(20.0).await;
    apart.signal("predictor", Signal::CONT).unwrap();
    places.live_after(places.clock.now()).await.unwrap();
    let hung = places.recorded_after(places.clock.now()).await.unwrap();
    hung.keeps(&first).unwrap();

    // One that is dead.
    apart.kill("predictor").unwrap();
    until_dropped(dropped().await + 30.0).await;
    apart.start("predictor", &["--cold-start=30m"]).await.unwrap();
    places.live_after(places.clock.now()).await.unwrap();
    let back = places.clock.now();
    let after = places.recorded_after(places.clock.now()).await.unwrap();
    after.keeps(&hung).unwrap();

    let skipped = ticks_skipped(&collector).await;
    let lost: u32 = dropped().await.to_string().parse().unwrap();
    // The windows that were being filled died with the predictor.
    after.is_complete(from, READINGS_A_WINDOW, skipped, lost + READINGS_A_WINDOW).unwrap();
    for vm in after.windows.keys() {
        let holes = after.holes(vm, from);
        assert!(!holes.is_empty(), "30 readings are six windows");
        let newest = holes.iter().max().unwrap() + i64::from(kept);
        assert!(newest <= back.as_second(), "the newest readings were dropped: {holes:?}, back at {back}");
    }
}
