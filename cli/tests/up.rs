//! `memharvest up` as a person runs it: the real four programs, which `cargo build --workspace` puts beside this one.
#![expect(clippy::unwrap_used, reason = "a test fails where it is surprised")]

#[path = "up/mesh.rs"]
mod mesh;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use mesh::{MEMHARVEST, Mesh, Signal, command, eventually, is_gone, run};
use serde_json::Value;

#[tokio::test]
async fn a_simulated_mesh_answers_every_verb() {
    let mesh = Mesh::start(&["--simulate", "2x5"]).await;
    eventually("ten machines", async || {
        mesh.json(&["vms"]).await["vms"].as_array().map(Vec::len) == Some(10)
    })
    .await;

    let hosts = mesh.json(&["hosts"]).await;
    assert_eq!(hosts["hosts"].as_array().unwrap().len(), 2, "{hosts}");
    let host = hosts["hosts"][0]["host"].as_str().unwrap();
    let one = mesh.text(&["hosts", host]).await;
    assert!(one.contains(host) && one.contains("live"), "{one}");

    let vm = mesh.json(&["vms", "--host", host]).await["vms"][0].clone();
    let (id, name) = (vm["vm"].as_str().unwrap(), vm["name"].as_str().unwrap());
    assert!(mesh.text(&["vms", id]).await.contains(name));
    let why = mesh.json(&["vms", id, "--explain"]).await;
    let terms: u64 =
        why["terms"].as_array().unwrap().iter().map(|term| term["bytes"].as_u64().unwrap()).sum();
    assert_eq!(why["start_bytes"].as_u64().unwrap() - terms, why["result_bytes"].as_u64().unwrap(), "{why}");
    assert!(mesh.text(&["vms", id, "--explain", "--signal", "demand"]).await.contains("reclaimable"));

    eventually("all agents", async || {
        let agents = mesh.json(&["agents"]).await;
        let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
        for agent in agents["agents"].as_array().unwrap() {
            *kinds.entry(agent["kind"].as_str().unwrap().to_owned()).or_default() += 1;
        }
        let count = |kind: &str| kinds.get(kind).copied().unwrap_or(0);
        count("collector") == 2 && count("predictor") == 1 && count("gateway") == 1
    })
    .await;
    assert!(mesh.text(&["violations", "--since", "1h"]).await.contains("violation"));
    assert!(mesh.text(&["doctor"]).await.contains("on 2 hosts"));
    let csv = mesh.text(&["report", "--format", "csv"]).await;
    assert_eq!(csv.lines().count(), 4, "a title, two hosts and the fleet: {csv}");
    assert!(mesh.text(&["report", "--format", "html"]).await.contains("<table>"));
    assert_eq!(mesh.json(&["report"]).await["fleet"]["vms"], 10);
}

#[tokio::test]
async fn boundaries_are_set_field_by_field_on_condition_of_their_etag() {
    let mesh = Mesh::start(&["--simulate", "1x1"]).await;
    mesh.text(&["boundaries", "set", "fleet", "--headroom-ratio", "0.2", "--reason", "caution"]).await;
    mesh.text(&["boundaries", "set", "fleet", "--floor-bytes", "1GiB", "--reason", "more caution"]).await;
    let fleet = mesh.json(&["boundaries", "fleet"]).await;
    assert_eq!(
        (&fleet["headroom_ratio"], &fleet["floor_bytes"]),
        (&Value::from(0.2), &Value::from(1_u64 << 30))
    );
    assert_eq!(fleet["version"], 2);
    let unset = ["boundaries", "set", "fleet", "--unset", "floor-bytes", "--reason", "enough"];
    assert!(mesh.text(&unset).await.contains("20.0 %"));
    assert_eq!(mesh.json(&["boundaries", "fleet"]).await["floor_bytes"], Value::Null);
    assert_eq!(
        mesh.json(&["boundaries", "versions", "fleet"]).await["versions"].as_array().unwrap().len(),
        3
    );
    assert!(mesh.text(&["boundaries", "effective", "fleet"]).await.contains("fleet, version 3"));

    let (code, _, said) =
        mesh.verb(&["boundaries", "set", "fleet", "--headroom-ratio", "99", "--reason", "x"]).await;
    assert!(code == 1 && said.contains("headroom_ratio") && said.lines().count() == 1, "{code}: {said}");
    let (code, _, said) = mesh.verb(&["boundaries", "simulate", "vm:x", "--excluded"]).await;
    assert!(code == 1 && said.contains("scope") && said.lines().count() == 1, "{code}: {said}");
    mesh.text(&["boundaries", "delete", "fleet", "--reason", "over"]).await;
    let (code, _, said) = mesh.verb(&["boundaries", "fleet"]).await;
    assert!(code == 1 && said.contains("404"), "{code}: {said}");
}

#[tokio::test]
async fn the_bundled_trace_shows_harvest_within_a_minute() {
    let mesh = Mesh::start(&["--speed", "300"]).await;
    eventually("a harvest", async || {
        let fleet = &mesh.json(&["report"]).await["fleet"];
        fleet["vms"].as_u64() == Some(24)
            && fleet["harvestable_bytes"].as_u64().is_some_and(|bytes| bytes > 0)
    })
    .await;
    // What a boundary would have done to that harvest, on the roll-ups that came of it.
    let careful = ["boundaries", "simulate", "fleet", "--max-harvest-ratio", "0.05", "--from", "1d"];
    let mut simulated = Value::Null;
    eventually("a harvest that is recorded", async || {
        simulated = mesh.json(&careful).await;
        simulated["total"]["harvest_before_bytes"].as_u64() > Some(0)
    })
    .await;
    let total = &simulated["total"];
    assert!(total["harvest_after_bytes"].as_u64() < total["harvest_before_bytes"].as_u64(), "{simulated}");
    assert_eq!((&simulated["vms_simulated"], &simulated["forecasts_made_anew"]), (&24.into(), &false.into()));
    assert!(mesh.text(&careful).await.contains("all 24"));
}

#[tokio::test]
async fn each_process_that_is_killed_is_started_again() {
    let mesh = Mesh::start(&["--simulate", "2x5"]).await;
    for process in ["registry", "predictor", "gateway", "collector"] {
        let before = mesh.state()["processes"][process]["pid"].as_i64().unwrap();
        mesh::signal(before, Signal::KILL);
        eventually(&format!("{process} is back"), async || {
            let entry = mesh.state()["processes"][process].clone();
            let restarted = entry["restarts"] == 1 && entry["pid"].as_i64().is_some_and(|pid| pid != before);
            restarted && mesh::is_ready(entry["admin_url"].as_str().unwrap()).await
        })
        .await;
    }
    eventually("ten live machines", async || {
        let (code, out, _) = mesh.verb(&["vms", "--json", "--quality", "live"]).await;
        code == 0
            && serde_json::from_str::<Value>(&out).unwrap()["vms"]
                .as_array()
                .is_some_and(|vms| !vms.is_empty())
    })
    .await;
}

#[tokio::test]
async fn ctrl_c_ends_all_in_order_and_leaves_nothing_behind() {
    nothing_is_left_after(Signal::INT, Some(0)).await;
}

#[tokio::test]
async fn kill_9_leaves_nothing_behind_either() {
    nothing_is_left_after(Signal::KILL, None).await;
}

async fn nothing_is_left_after(signal: Signal, wanted_code: Option<i32>) {
    let temporary = tempfile::tempdir().unwrap();
    let mut mesh = Mesh::start_in_temporary(&["--simulate", "1x2"], temporary.path()).await;
    let pids = mesh.pids();
    assert_eq!(pids.len(), 6, "up, the keeper and four processes: {pids:?}");
    mesh.signal(signal);
    assert_eq!(mesh.wait().await.code(), wanted_code);
    eventually("all processes are gone", async || pids.iter().all(|pid| is_gone(*pid))).await;
    eventually("all files are gone", async || fs::read_dir(temporary.path()).unwrap().next().is_none()).await;
}

#[tokio::test]
async fn a_mesh_can_follow_at_once_on_one_that_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let flags = ["--libvirt-uri", "test:///default"];
    let mut first = Mesh::start_with_data(&flags, &data).await;
    first.signal(Signal::KILL);
    first.wait().await;
    let second = Mesh::start_with_data(&flags, &data).await;
    eventually("the test driver's machine", async || {
        second.json(&["vms"]).await["vms"].as_array().is_some_and(|vms| vms.len() == 1)
    })
    .await;
}

#[tokio::test]
async fn a_second_mesh_on_the_same_data_is_refused_with_the_pid_of_the_first() {
    let mesh = Mesh::start(&["--simulate", "1x1"]).await;
    let (code, _, said) =
        run(&["up", "--simulate", "1x1", "--ephemeral-ports", "--data-dir", mesh.data()]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("pid {}", mesh.id())) && said.contains("--data-dir"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[tokio::test]
async fn what_cannot_be_started_is_told_in_one_line_with_its_cure() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let broken = path("broken.csv");
    fs::write(&broken, "vm_id,t_seconds,allocated_bytes,used_bytes\na,0,100,50\na,1,many,50\n").unwrap();
    let used = path("used");
    fs::create_dir(&used).unwrap();
    fs::write(Path::new(&used).join("registry.db"), "").unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();

    let nowhere = "qemu+unix:///system?socket=/nowhere/libvirt-sock";
    let cases: [(&[&str], i32, &[&str]); 8] = [
        (&["--listen", "0.0.0.0:8080"], 64, &["0.0.0.0:8080", "--insecure"]),
        (&["--trace", &broken], 1, &["broken.csv", "line 3", "many"]),
        (&["--trace", "/nowhere/a.csv"], 1, &["/nowhere/a.csv"]),
        (&["--simulate", "1x1", "--data-dir", &used], 64, &["history", "--data-dir"]),
        (&["--libvirt-uri", nowhere], 1, &["/nowhere/libvirt-sock", "--libvirt-uri"]),
        (&["--libvirt-uri", "nonsense"], 1, &["nonsense", "qemu:///system"]),
        (&["--simulate", "1x1", "--data-dir", "/proc/no"], 1, &["/proc/no", "--data-dir"]),
        (&["--simulate", "1x1", "--log-filter", "[["], 64, &["log-filter"]),
    ];
    for (flags, wanted_code, words) in cases {
        let flags: Vec<&str> = [&["up", "--ephemeral-ports"], flags].concat();
        refused(&flags, wanted_code, words).await;
    }
    let listen = taken.to_string();
    refused(
        &["up", "--simulate", "1x1", "--ephemeral-ports", "--listen", &listen],
        1,
        &[&format!("port {}", taken.port()), "in use", "--listen"],
    )
    .await;
}

async fn refused(args: &[&str], wanted_code: i32, words: &[&str]) {
    let (code, _, said) = run(args).await;
    assert_eq!(code, wanted_code, "{args:?}: {said}");
    assert_eq!(said.lines().count(), 1, "{args:?}: {said}");
    for word in words {
        assert!(said.contains(word), "{args:?}: {word} in {said}");
    }
}

#[tokio::test]
async fn programs_that_are_missing_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let alone = folder.path().join("memharvest");
    fs::copy(MEMHARVEST, &alone).unwrap();
    let output = command(&alone).args(["up", "--simulate", "1x1"]).output().await.unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    for word in ["memharvest-collector", "memharvest-registry", "cargo build --workspace"] {
        assert!(said.contains(word), "{said}");
    }
}

#[tokio::test]
async fn a_gateway_that_is_not_there_is_told_with_a_cure() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{free}");
    let (code, _, said) = run(&["hosts", "--url", &url]).await;
    assert_eq!(code, 1, "{said}");
    assert_eq!(
        said.trim(),
        format!(
            "memharvest: cannot reach the gateway at {url}: connection refused; is `memharvest up` running? or pass --url"
        )
    );
    let output = command(Path::new(MEMHARVEST))
        .args(["hosts"])
        .env("MEMHARVEST_URL", "nowhere")
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert_eq!(output.status.code(), Some(2));
}
