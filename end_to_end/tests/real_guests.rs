//! Real guests from libvirt to REST: measured, forecast, harvested, held to account.

#![expect(clippy::unwrap_used, reason = "a test fails loudly")]

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use http::{Method, StatusCode};
use memharvest_end_to_end::mesh::{Mesh, binary};
use memharvest_end_to_end::real_host::{Guest, GuestBuilder, RealHost};
use memharvest_end_to_end::wait::wait_for;
use rustix::process::Signal;
use serde_json::{Value, json};

const BOOT: Duration = Duration::from_mins(4);
const SOON: Duration = Duration::from_mins(1);
const MIB: u64 = 1 << 20;

/// What a horizon of the tests is: a violation closes after a clean one.
const HORIZON: Duration = Duration::from_secs(20);

/// Large enough that a harvest, which rises by 5 % of the allocation a minute, soon passes its quantum of 64 MiB.
fn large(host: &RealHost, name: &str) -> GuestBuilder {
    host.guest(name).memory_mib(4096)
}

async fn watch(host: &RealHost) -> Mesh {
    let uri = host.uri();
    let args = ["--libvirt-uri", &uri, "--interval", "1s", "--cold-start", "10s"];
    let mesh = Mesh::up(&args).await.unwrap();
    let boundary = json!({"horizon": "20s", "author": "test", "reason": "violations close soon"});
    let set = mesh.send(Method::PUT, "/boundaries/fleet", &[], &boundary.to_string()).await.unwrap();
    assert_eq!(set.status, StatusCode::CREATED, "{}", set.text);
    mesh
}

fn bytes(vm: &Value, field: &str) -> anyhow::Result<u64> {
    vm[field].as_u64().with_context(|| format!("no {field} in {vm}"))
}

async fn until(mesh: &Mesh, name: &str, what: &str, holds: impl Fn(&Value) -> anyhow::Result<bool>) -> Value {
    wait_for(SOON, what, async || {
        let vm = mesh.vm(name).await?;
        ensure!(holds(&vm)?, "{vm}");
        Ok(vm)
    })
    .await
    .unwrap()
}

/// REST shows what virsh shows, give or take what changes while both are asked.
async fn agrees_with_virsh(mesh: &Mesh, guest: &Guest) -> anyhow::Result<()> {
    let before = guest.memory_stats().await?;
    let asked = jiff::Timestamp::now();
    let vm = wait_for(SOON, "a newer reading", async || {
        let vm = mesh.vm(guest.name()).await?;
        let read_at: jiff::Timestamp = vm["read_at"].as_str().unwrap_or_default().parse()?;
        ensure!(read_at > asked, "{vm}");
        Ok(vm)
    })
    .await?;
    let after = guest.memory_stats().await?;
    let demand = |stats: &std::collections::BTreeMap<String, u64>| stats["available"] - stats["usable"];
    let pairs = [
        ("allocated_bytes", before["actual"], after["actual"]),
        ("rss_bytes", before["rss"], after["rss"]),
        ("demand_bytes", demand(&before), demand(&after)),
    ];
    for (field, one, other) in pairs {
        let (low, high) = (one.min(other) * 1024, one.max(other) * 1024);
        let shown = bytes(&vm, field)?;
        ensure!(
            (low.saturating_sub(MIB)..=high + MIB).contains(&shown),
            "{field}: {shown} is not within {low} and {high}"
        );
    }
    Ok(())
}

async fn adds_up(mesh: &Mesh, guest: &Guest, signal: &str) {
    let path = format!("/vms/{}/explain?signal={signal}", guest.uuid());
    let explained = mesh.get(&path).await.unwrap();
    let terms = explained["terms"].as_array().unwrap();
    let taken: u64 = terms.iter().map(|term| term["bytes"].as_u64().unwrap()).sum();
    assert_eq!(
        explained["start_bytes"].as_u64().unwrap() - taken,
        explained["result_bytes"].as_u64().unwrap(),
        "{explained}"
    );
    for term in terms {
        assert_eq!(
            term["bytes"] != 0,
            term["limited_by"].is_string(),
            "every non-zero term has its reason: {term}"
        );
    }
}

async fn violations(mesh: &Mesh, guest: &Guest, state: &str) -> anyhow::Result<Vec<Value>> {
    let found = mesh.get(&format!("/violations?vm={}&state={state}", guest.uuid())).await?;
    Ok(found["violations"].as_array().context("violations")?.clone())
}

#[tokio::test(flavor = "multi_thread")]
async fn guests_are_measured_forecast_harvested_and_held_to_account() {
    let host = RealHost::start().await.unwrap();
    let steady = large(&host, "steady").free_page_reporting(false).start().await.unwrap();
    let moving = large(&host, "moving").start().await.unwrap();
    let silent = large(&host, "silent").stats_period(None).start().await.unwrap();
    tokio::try_join!(
        steady.wait_until_balloon_alive(BOOT),
        moving.wait_until_balloon_alive(BOOT),
        silent.wait_until_booted(BOOT)
    )
    .unwrap();
    // Memory that was touched and is free again: only a balloon could take it.
    steady.hold(1000).await.unwrap();
    steady.release().await.unwrap();
    let mesh = watch(&host).await;

    // Three machines, each with the quality that it deserves.
    until(&mesh, "steady", "a live machine", |vm| Ok(vm["quality"] == "live")).await;
    let quiet =
        until(&mesh, "silent", "a machine without a period", |vm| Ok(vm["quality"] == "no_period")).await;
    assert_eq!(quiet["reclaimable_bytes"], 0);
    for guest in [&steady, &moving] {
        agrees_with_virsh(&mesh, guest).await.unwrap();
    }
    // Findings ride in heartbeats.
    wait_for(SOON, "the doctor to name the cure", async || {
        let url = mesh.url("gateway")?;
        let doctor = Command::new(binary("memharvest")?).args(["doctor", "--url", &url]).output()?;
        let advice = String::from_utf8_lossy(&doctor.stdout);
        ensure!(advice.contains("virsh dommemstat silent --period"), "{advice}");
        Ok(())
    })
    .await
    .unwrap();

    // Harvest appears, and its waterfall adds up.
    for name in ["steady", "moving", "silent"] {
        until(&mesh, name, "something to harvest", |vm| Ok(bytes(vm, "harvestable_bytes")? > 0)).await;
    }
    until(&mesh, "steady", "something to reclaim", |vm| Ok(bytes(vm, "reclaimable_bytes")? > 0)).await;
    for guest in [&steady, &moving, &silent] {
        for signal in ["rss", "demand"] {
            adds_up(&mesh, guest, signal).await;
        }
    }
    let fleet = mesh.get("/fleet").await.unwrap();
    assert_eq!((&fleet["hosts"], &fleet["vms"]), (&json!(1), &json!(3)));

    // A ramp breaks the forecast: a violation opens, and closes after a clean horizon.
    moving.hold(500).await.unwrap();
    let open = wait_for(SOON, "a violation to open", async || {
        let open = violations(&mesh, &moving, "open").await?;
        ensure!(!open.is_empty(), "none yet");
        Ok(open)
    })
    .await
    .unwrap();
    for violation in &open {
        assert!(violation["actual_bytes"].as_u64() > violation["predicted_bytes"].as_u64(), "{violation}");
        assert!(violation["overshoot_bytes"].as_u64().unwrap() > 0);
    }
    wait_for(HORIZON * 5, "the violations to close", async || {
        ensure!(violations(&mesh, &moving, "open").await?.is_empty(), "one is still open");
        Ok(())
    })
    .await
    .unwrap();
    let id = open[0]["id"].as_str().unwrap();
    let closed = mesh.get(&format!("/violations/{id}")).await.unwrap();
    assert_eq!(closed["state"], "closed");
    assert!(closed["closed_at"].as_str() > closed["opened_at"].as_str());
    assert!(violations(&mesh, &steady, "open").await.unwrap().is_empty());

    // The balloon moves, and the allocation follows.
    steady.set_memory(700).await.unwrap();
    until(&mesh, "steady", "the allocation to follow", |vm| Ok(vm["allocated_bytes"] == json!(700 * MIB)))
        .await;
    adds_up(&mesh, &steady, "rss").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stuck_guest_harms_no_neighbour_and_a_lost_libvirtd_is_found_again() {
    let mut host = RealHost::start().await.unwrap();
    let stuck = large(&host, "stuck").start().await.unwrap();
    let neighbour = large(&host, "neighbour").start().await.unwrap();
    tokio::try_join!(stuck.wait_until_balloon_alive(BOOT), neighbour.wait_until_balloon_alive(BOOT)).unwrap();
    let mesh = watch(&host).await;
    for name in ["stuck", "neighbour"] {
        until(&mesh, name, "something to harvest", |vm| Ok(bytes(vm, "harvestable_bytes")? > 0)).await;
    }
    let collector = mesh.pid("collector").unwrap();

    // Within three intervals it is stuck and yields nothing; a second more for the way to REST.
    stuck.stop_process().unwrap();
    wait_for(Duration::from_secs(4), "the guest to be told stuck", async || {
        let vm = mesh.vm("stuck").await?;
        ensure!(vm["quality"] == "stuck" && vm["harvestable_bytes"] == 0, "{vm}");
        Ok(())
    })
    .await
    .unwrap();
    // Its neighbour is sampled on time all the while: ten readings in a row, none more than two intervals old.
    let seen = std::cell::RefCell::new(std::collections::BTreeSet::new());
    wait_for(SOON, "ten readings of the neighbour", async || {
        let vm = mesh.vm("neighbour").await?;
        let read_at = vm["read_at"].as_str().context("read_at")?.to_owned();
        let age = jiff::Timestamp::now().duration_since(read_at.parse()?).as_secs_f64();
        assert!(age < 2.5, "a neighbour of a stuck guest was read {age} s ago");
        assert_eq!(vm["quality"], "live");
        seen.borrow_mut().insert(read_at);
        let count = seen.borrow().len();
        ensure!(count >= 10, "{count} so far");
        Ok(())
    })
    .await
    .unwrap();
    stuck.continue_process().unwrap();
    until(&mesh, "stuck", "the guest to heal", |vm| Ok(vm["quality"] == "live")).await;

    // libvirtd dies and comes back: so do the readings, within ten seconds, from the same collector.
    host.restart_daemon().await.unwrap();
    let back = jiff::Timestamp::now();
    wait_for(Duration::from_secs(10), "readings to resume", async || {
        let vm = mesh.vm("neighbour").await?;
        let read_at: jiff::Timestamp = vm["read_at"].as_str().context("read_at")?.parse()?;
        ensure!(read_at > back && vm["quality"] == "live", "{vm}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(mesh.pid("collector").unwrap(), collector);
    mesh.signal("up", Signal::TERM).unwrap();
}
