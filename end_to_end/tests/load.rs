//! `memharvest simulate` loads a real predictor, and the mesh knows its hosts.

use std::process::Stdio;
use std::time::Duration;

use memharvest_end_to_end::mesh::{Mesh, binary};
use memharvest_end_to_end::wait::wait_for;
use serde_json::Value;
use tokio::process::Command;

#[tokio::test(flavor = "multi_thread")]
async fn invented_hosts_are_answered_and_registered() {
    let mesh = Mesh::up(&["--simulate", "1x2", "--interval", "1s"]).await.unwrap();
    let url = |process| format!("http://{}", mesh.address(process).unwrap());
    let child = Command::new(binary("memharvest").unwrap())
        .args([
            "simulate",
            "--hosts",
            "3",
            "--vms",
            "10",
            "--interval",
            "500ms",
            "--duration",
            "8s",
            "--json",
        ])
        .args(["--predictor", &url("predictor"), "--registry", &url("registry")])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    wait_for(Duration::from_mins(1), "the invented hosts at the gateway", async || {
        for host in ["load-1", "load-2", "load-3"] {
            let host = mesh.get(&format!("/hosts/{host}")).await?;
            anyhow::ensure!(host["vms_running"] == 10 && host["state"] == "live", "{host}");
        }
        Ok(())
    })
    .await
    .unwrap();

    let output = child.wait_with_output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> = String::from_utf8(output.stdout)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let whole = lines.last().unwrap();
    assert_eq!((&whole["whole_run"], &whole["refused"]), (&true.into(), &0.into()), "{whole}");
    assert!(whole["answered"].as_u64().unwrap() >= 15, "{whole}");
    let laps: u64 = lines[..lines.len() - 1].iter().map(|lap| lap["answered"].as_u64().unwrap()).sum();
    assert!(laps <= whole["answered"].as_u64().unwrap() && lines.len() >= 3, "{lines:?}");
}

#[tokio::test]
async fn a_predictor_that_never_answers_is_named() {
    let output = Command::new(binary("memharvest").unwrap())
        .args(["simulate", "--hosts", "1", "--vms", "1", "--interval", "100ms", "--duration", "1s"])
        .args(["--predictor", "http://127.0.0.1:1"])
        .output()
        .await
        .unwrap();
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{told}");
    assert!(
        told.contains("no reading was answered by http://127.0.0.1:1") && told.lines().count() == 1,
        "{told}"
    );
}
