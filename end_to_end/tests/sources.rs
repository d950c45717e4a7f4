//! Every source other than real guests, from its first reading to REST: libvirt's test driver with one machine and with a
//! thousand, a trace of one's own, and the bundled one.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::metrics_page::metric;
use memharvest_end_to_end::real_host::test_driver_xml;
use memharvest_end_to_end::wait::wait_for;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

/// The guests of the test driver spoke last in 1989: what they said then says nothing of now.
const SINCE_1989: f64 = 35.0 * 365.0 * 86_400.0;

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap_or_else(|| panic!("no time: {value}")).parse().unwrap()
}

/// All machines, page by page.
async fn machines(mesh: &Mesh, page_size: u32) -> anyhow::Result<Vec<Value>> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = mesh.get(&format!("/vms?page_size={page_size}&page_token={token}")).await?;
        all.extend(page["vms"].as_array().context("vms")?.iter().cloned());
        page["next_page_token"].as_str().context("next_page_token")?.clone_into(&mut token);
        if token.is_empty() {
            return Ok(all);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_default_machine_of_the_test_driver_is_forecast_by_its_resident_set_alone() {
    let mesh =
        Mesh::up(&["--libvirt-uri=test:///default", "--interval=500ms", "--cold-start=2s"]).await.unwrap();
    let vm = wait_for(SOON, "a warm machine", async || {
        let vm = mesh.vm("test").await?;
        ensure!(vm["warm_at"].is_null(), "{vm}");
        Ok(vm)
    })
    .await
    .unwrap();
    assert_eq!(vm["vm"], "6695eb01-f6a4-8304-79aa-97f2502e193f");
    assert_eq!(
        (&vm["allocated_bytes"], &vm["maximum_bytes"], &vm["rss_bytes"]),
        (&json!(2 * GIB), &json!(8 * GIB), &json!(GIB))
    );
    assert_eq!((&vm["quality"], &vm["state"]), (&json!("no_period"), &json!("running")));
    assert!(vm["stats_age_seconds"].as_f64() > Some(SINCE_1989), "{vm}");
    assert_eq!(vm["reclaimable_bytes"], 0, "{vm}");
    let predicted = vm["predicted_rss_bytes"].as_u64().unwrap();
    assert!((GIB..2 * GIB).contains(&predicted), "{vm}");
    // What is left is raised slowly.
    let why = mesh.get("/vms/6695eb01-f6a4-8304-79aa-97f2502e193f/explain").await.unwrap();
    let waiting = why["terms"].as_array().unwrap().iter().find(|term| term["name"] == "slow_raise").unwrap();
    assert!(waiting["bytes"].as_u64() > Some(0), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_machines_are_read_well_within_each_interval() {
    let folder = tempfile::tempdir().unwrap();
    let file = test_driver_xml(folder.path(), 1000).unwrap();
    // Every other guest is asked for statistics every ten seconds, and has given none since 1989.
    let xml = std::fs::read_to_string(&file).unwrap();
    let lines = xml.lines().enumerate().map(|(number, line)| match number % 2 {
        0 => line.replace("<memballoon model='virtio'/>", ASKED),
        _ => line.to_owned(),
    });
    std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).unwrap();
    let uri = format!("--libvirt-uri=test://{}", file.display());
    let mesh = Mesh::up(&[&uri, "--interval=5s"]).await.unwrap();

    let vms = wait_for(SOON, "a thousand machines with their definitions", async || {
        let vms = machines(&mesh, 400).await?;
        ensure!(vms.len() == 1000, "{} machines", vms.len());
        let asked = vms.iter().filter(|vm| vm["quality"] == "live").count();
        ensure!(asked == 500, "{asked} are known to be asked");
        Ok(vms)
    })
    .await
    .unwrap();
    let ids: BTreeSet<&str> = vms.iter().map(|vm| vm["vm"].as_str().unwrap()).collect();
    let names: BTreeSet<&str> = vms.iter().map(|vm| vm["name"].as_str().unwrap()).collect();
    assert_eq!((ids.len(), names.len()), (1000, 1000), "each machine is listed once");
    for vm in &vms {
        assert_eq!((&vm["allocated_bytes"], &vm["maximum_bytes"]), (&json!(GIB), &json!(2 * GIB)), "{vm}");
        assert!(["live", "no_period"].contains(&vm["quality"].as_str().unwrap()), "{vm}");
        assert_eq!((&vm["reclaimable_bytes"], &vm["harvestable_bytes"]), (&json!(0), &json!(0)), "{vm}");
        assert!(vm["stats_age_seconds"].as_f64() > Some(SINCE_1989), "{vm}");
        assert!(time(&vm["warm_at"]) > time(&vm["read_at"]), "a cold machine says when it is warm: {vm}");
    }
    let collector = mesh.admin_url("collector").unwrap();
    let figure = async |name: &str| metric(&collector, &format!("memharvest_collector_{name}")).await;
    wait_for(SOON, "three samples", async || {
        let samples = figure("samples_total{outcome=\"read\"}").await?;
        ensure!(samples >= 3.0, "{samples} samples");
        Ok(())
    })
    .await
    .unwrap();
    let samples = figure("sample_duration_seconds_count").await.unwrap();
    let quick = figure("sample_duration_seconds_bucket{le=\"2.5\"}").await.unwrap();
    // The first one also opens the connection and reads a thousand definitions.
    assert!(samples - quick < 1.5, "{} of {samples} samples took half of the interval", samples - quick);
    for never in ["ticks_skipped_total", "hung_calls"] {
        assert!(figure(never).await.unwrap() < 0.5, "{never}");
    }
}

/// What libvirt's XML of a guest says whose statistics are asked for every ten seconds.
const ASKED: &str = "<memballoon model='virtio'><stats period='10'/></memballoon>";

/// Twelve hours of three machines, one row a minute: (allocated, used, rss) by machine and minute.
const MINUTES: u64 = 12 * 60;
const MINUTE: Duration = Duration::from_mins(1);
const COLD_START: Duration = Duration::from_mins(30);
const JUMP: u64 = 2 * 60;
type Row = (u64, u64, Option<u64>);

fn row(name: &str, minute: u64) -> Row {
    let wave = minute % 17 * MIB;
    match name {
        "steady" => (4 * GIB, GIB + wave, Some(GIB + 512 * MIB + wave)),
        // Two hours in it needs at a stroke what nothing let expect.
        "jumpy" => {
            let level = if minute < JUMP { GIB / 2 } else { 3 * GIB };
            (4 * GIB, level + wave, Some(level + wave + minute))
        }
        _ => (2 * GIB, GIB + wave, None),
    }
}

const NAMES: [&str; 3] = ["steady", "jumpy", "silent"];

fn trace() -> String {
    let mut csv = String::from("vm_id,t_seconds,allocated_bytes,used_bytes,rss_bytes\n");
    for (minute, name) in (0..MINUTES).flat_map(|minute| NAMES.map(|name| (minute, name))) {
        let (allocated, used, rss) = row(name, minute);
        let rss = rss.map(|rss| rss.to_string()).unwrap_or_default();
        writeln!(csv, "{name},{},{allocated},{used},{rss}", minute * 60).unwrap();
    }
    csv
}

/// A machine shows the row of the minute that it was read in.
fn agrees(vm: &Value, origin: Timestamp) {
    let position = time(&vm["read_at"]).duration_since(origin).as_secs();
    let (allocated, used, rss) = row(vm["name"].as_str().unwrap(), u64::try_from(position).unwrap() / 60);
    assert_eq!(
        (&vm["allocated_bytes"], &vm["demand_bytes"], &vm["rss_bytes"]),
        (&json!(allocated), &json!(used), &json!(rss)),
        "{position} s into the trace: {vm}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_of_ones_own_is_shown_row_by_row_and_forecast_harvested_and_judged() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("own.csv");
    std::fs::write(&file, trace()).unwrap();
    let file = format!("--trace={}", file.display());
    // A minute of the trace is a fifth of a second.
    let mesh = Mesh::up(&[&file, "--speed=300", "--interval=1m", "--cold-start=30m"]).await.unwrap();
    let origin = time(&mesh.state().unwrap()["clock_origin"]);
    let warm_at = RefCell::new(BTreeMap::new());

    // Cold machines say when they will be warm, and keep to it.
    wait_for(SOON, "all to be warm and harvested", async || {
        let vms = machines(&mesh, 100).await?;
        ensure!(vms.len() == NAMES.len(), "{} machines", vms.len());
        let mut harvested = 0;
        for vm in &vms {
            agrees(vm, origin);
            let name = vm["name"].as_str().context("name")?.to_owned();
            if name == "silent" {
                // Nobody knows what it has touched, nor when somebody will.
                assert_eq!((&vm["harvestable_bytes"], &vm["warm_at"]), (&json!(0), &json!(null)), "{vm}");
                continue;
            }
            if vm["warm_at"].is_string() {
                assert_eq!((&vm["harvestable_bytes"], &vm["reclaimable_bytes"]), (&json!(0), &json!(0)));
                assert!(time(&vm["warm_at"]) >= time(&vm["read_at"]), "{vm}");
                let told = time(&vm["warm_at"]);
                assert!(told <= time(&vm["read_at"]) + COLD_START + MINUTE, "{vm}");
                let first = *warm_at.borrow_mut().entry(name).or_insert(told);
                assert!(
                    (told - MINUTE * 2..=told + MINUTE * 2).contains(&first),
                    "first {first}, then {told}"
                );
            } else {
                let told = warm_at.borrow().get(&name).copied();
                let told = told.with_context(|| format!("{name} was never cold"))?;
                assert!(time(&vm["read_at"]) + MINUTE * 2 >= told, "{name} said {told}: {vm}");
            }
            harvested += usize::from(vm["harvestable_bytes"].as_u64() > Some(0));
        }
        ensure!(harvested == 2, "{harvested} machines are harvested");
        Ok(())
    })
    .await
    .unwrap();
    let jumped = wait_for(SOON, "the jump to break a forecast", async || {
        for vm in machines(&mesh, 100).await? {
            agrees(&vm, origin);
        }
        let found = mesh.get("/violations?kind=forecast").await?;
        let found = found["violations"].as_array().context("violations")?.clone();
        found.into_iter().find(|v| v["vm_name"] == "jumpy" && v["signal"] == "rss").context("none")
    })
    .await
    .unwrap();
    let minute = u64::try_from(time(&jumped["opened_at"]).duration_since(origin).as_secs()).unwrap() / 60;
    assert!((JUMP..JUMP + 3).contains(&minute), "seen at the first reading after it: {jumped}");
    assert!(jumped["predicted_bytes"].as_u64() < Some(2 * GIB), "{jumped}");
    assert!(jumped["actual_bytes"].as_u64() >= row("jumpy", JUMP).2, "{jumped}");
    let steady = mesh.vm("steady").await.unwrap();
    assert_eq!(steady["violations_open"], 0, "{steady}");
    let predicted = steady["predicted_rss_bytes"].as_u64().unwrap();
    assert!((GIB + 528 * MIB..2 * GIB).contains(&predicted), "its peak is known by now: {steady}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bundled_trace_shows_forecasts_harvest_and_violations_within_a_minute() {
    // A speed and no source: the bundled trace, also on a machine that has guests of its own.
    let mesh = Mesh::up(&["--speed=300"]).await.unwrap();
    let show = async || {
        let fleet = mesh.get("/fleet").await?;
        let forecast = fleet["predicted_rss_bytes"].as_u64().context("no forecast")?;
        let harvest = fleet["harvestable_bytes"].as_u64().context("no harvest")?;
        let violations = mesh.get("/violations").await?["violations"].as_array().context("violations")?.len();
        ensure!(harvest > 0 && violations > 0, "{violations} violations, {fleet}");
        Ok((forecast, harvest))
    };
    let (forecast, harvest) = wait_for(SOON, "a harvest and a violation", show).await.unwrap();
    let fleet = mesh.get("/fleet").await.unwrap();
    assert_eq!((&fleet["vms"], &fleet["hosts"]), (&json!(24), &json!(3)));
    wait_for(SOON, "forecast and harvest to move", async || {
        let (now, harvest_now) = show().await?;
        ensure!(now != forecast && harvest_now != harvest, "{now} {harvest_now}");
        Ok(())
    })
    .await
    .unwrap();
}
