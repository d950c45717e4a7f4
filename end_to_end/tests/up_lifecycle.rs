//! What is left of a mesh when `memharvest up` ends: nothing that runs, and everything that was recorded.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use http::{Method, StatusCode};
use jiff::Timestamp;
use memharvest_end_to_end::apart::Apart;
use memharvest_end_to_end::ledger::{Ledger, WINDOW_S};
use memharvest_end_to_end::mesh::{Mesh, PROCESSES};
use memharvest_end_to_end::wait::wait_for;
use rustix::process::Signal;
use serde_json::Value;

const SOON: Duration = Duration::from_mins(1);

/// Processes, other than zombies, whose command line names the data directory: all that belong to a mesh.
fn processes_of(mesh: &Mesh) -> Vec<String> {
    let folder = mesh.data_dir().display().to_string();
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    let lines = lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " "));
    lines.filter(|line| line.contains("memharvest") && line.contains(&folder)).collect()
}

fn pid_of_each(mesh: &Mesh) -> Vec<PathBuf> {
    let pids = PROCESSES.map(|process| mesh.pid(process).unwrap().as_raw_pid());
    pids.map(|pid| PathBuf::from(format!("/proc/{pid}"))).to_vec()
}

async fn set_a_boundary_that_breaks(mesh: &Mesh) {
    let body = r#"{"upper_usage_bytes": 1048576, "author": "test", "reason": "always broken"}"#;
    let set = mesh.send(Method::PUT, "/boundaries/fleet", &[], body).await.unwrap();
    assert_eq!(set.status, StatusCode::CREATED, "{}", set.text);
}

/// Waits for a violation, and hands out all that the registry holds.
async fn recorded_violation(mesh: &Mesh) -> Ledger {
    wait_for(SOON, "a violation", async || {
        let ledger = Ledger::read(&mesh.url("registry")?).await?;
        ensure!(!ledger.violations.is_empty(), "none yet");
        Ok(ledger)
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_9_of_up_a_new_one_on_the_same_data_goes_on_with_the_old_records() {
    let mut mesh = Mesh::up(&["--libvirt-uri=test:///default", "--interval=1s"]).await.unwrap();
    set_a_boundary_that_breaks(&mesh).await;
    let before = recorded_violation(&mesh).await;
    let processes = pid_of_each(&mesh);
    assert!(processes_of(&mesh).len() >= 4, "{:?}", processes_of(&mesh));

    mesh.signal("up", Signal::KILL).unwrap();
    mesh.wait_until_ended(SOON).await.unwrap();
    wait_for(SOON, "every process to end", async || {
        let left = processes_of(&mesh);
        ensure!(left.is_empty() && !processes.iter().any(|process| process.exists()), "{left:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert!(!mesh.data_dir().join("up.json").exists(), "the state file is gone with them");

    mesh.up_again().await.unwrap();
    let vm = wait_for(SOON, "the machine", async || mesh.vm("test").await).await.unwrap();
    let (vm, boundary) = (vm["vm"].as_str().unwrap(), mesh.get("/boundaries/fleet").await.unwrap());
    assert_eq!((&boundary["version"], &boundary["upper_usage_bytes"]), (&1.into(), &1_048_576.into()));
    // Left alone by `up`, the predictor saved what it knew: the episode goes on as the same one.
    let after = wait_for(SOON, "the open violation", async || {
        let ledger = Ledger::read(&mesh.url("registry")?).await?;
        ensure!(ledger.open().count() > 0, "nothing is open");
        Ok(ledger)
    })
    .await
    .unwrap();
    after.keeps(&before).unwrap();
    for id in before.violations.keys() {
        assert_eq!(mesh.get(&format!("/violations/{id}")).await.unwrap()["state"], "open");
    }
    // Left alone by `up`, the processes brought their last readings home.
    let history = mesh.get(&format!("/vms/{vm}/history")).await.unwrap();
    let readings: u64 =
        history["points"].as_array().unwrap().iter().map(|point| point["readings"].as_u64().unwrap()).sum();
    assert!(readings > 0, "{history}");
}

/// Begin of the window of a time, in Unix seconds.
fn window_of(at: Timestamp) -> i64 {
    at.as_second() / WINDOW_S * WINDOW_S
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_drains_and_the_windows_that_were_being_filled_are_stored() {
    // A reading in a tenth of a second, a window in three seconds.
    let mut mesh = Mesh::up(&["--simulate=1x3", "--speed=100", "--interval=10s"]).await.unwrap();
    let last: Value = wait_for(SOON, "a reading in the midst of a window", async || {
        let vms = mesh.get("/vms").await?["vms"].clone();
        let read_at: Timestamp = vms[0]["read_at"].as_str().context("read_at")?.parse()?;
        let into = read_at.as_second() - window_of(read_at);
        ensure!((60..200).contains(&into), "{into} s into its window");
        let stored = Ledger::read(&mesh.url("registry")?).await?.recorded_until();
        ensure!(stored == Some(window_of(read_at) - WINDOW_S), "stored until {stored:?}");
        Ok(vms)
    })
    .await
    .unwrap();
    mesh.signal("up", Signal::INT).unwrap();
    assert_eq!(mesh.wait_until_ended(SOON).await.unwrap(), Some(0), "{}", mesh.said());
    assert!(processes_of(&mesh).is_empty(), "{:?}", processes_of(&mesh));
    assert!(mesh.said().trim_end().ends_with("stopped"), "{}", mesh.said());

    let mut apart = Apart::new(1.0).unwrap();
    std::fs::copy(mesh.data_dir().join("registry.db"), apart.data_dir().join("registry.db")).unwrap();
    apart.start("registry", &[]).await.unwrap();
    let ledger = Ledger::read(&apart.url("registry")).await.unwrap();
    let machines = last.as_array().unwrap();
    assert_eq!(machines.len(), 3);
    for vm in machines {
        let start = window_of(vm["read_at"].as_str().unwrap().parse().unwrap());
        let window = ledger.windows[vm["vm"].as_str().unwrap()].get(&start);
        let window = window.unwrap_or_else(|| panic!("{start} of {vm} is lost:\n{}", mesh.log("predictor")));
        assert!(window.readings >= 4, "{window:?}");
        assert!(window.rss_max_bytes >= vm["rss_bytes"].as_u64(), "{window:?} misses {vm}");
    }
}
