//! Every query of every dashboard, on a real Prometheus that scrapes the real mesh on a replayed trace. Grafana itself is not
//! started: what it would ask is asked here, and the files' structure is checked.

use std::collections::BTreeSet;

use anyhow::ensure;
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::prometheus::Prometheus;
use memharvest_end_to_end::wait::wait_for;
use serde_json::Value;

use super::{SOON, text_of};

const DASHBOARDS: [&str; 4] = ["fleet", "host", "vm", "mesh"];

/// Queries that give nothing on a replayed trace: a part of the query, and why.
const NOTHING_HERE: &[(&str, &str)] = &[
    ("memharvest:host_memory_pressure:rate5m", "a replayed host has no /proc/pressure; real ones are tested"),
    ("memharvest_vm_memory_guest_free_bytes", "a trace tells what a guest uses, not what is free in it"),
    ("memharvest_vm_memory_disk_cache_bytes", "a trace tells nothing of the page cache"),
    ("memharvest_vm_swap_", "a trace tells nothing of the guest's swap"),
    ("memharvest_vm_major_faults_total", "a trace tells nothing of the guest's faults"),
    ("ALERTS", "nothing is wrong with this mesh"),
    ("> on (host, vm)", "marks are there only where a promise or forecast was broken"),
];

/// The kinds of panels that are used: a wrong word would give an empty rectangle.
const PANELS: [&str; 4] = ["stat", "timeseries", "bargauge", "table"];

fn dashboard(name: &str) -> Value {
    serde_json::from_str(&text_of(&format!("observability/grafana/dashboards/{name}.json"))).unwrap()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Every query: those of panels and of annotations.
fn queries(dashboard: &Value) -> Vec<String> {
    let panels = list(&dashboard["panels"]).flat_map(|panel| list(&panel["targets"]));
    let all = panels.chain(list(&dashboard["annotations"]["list"]));
    all.map(|query| query["expr"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn the_files_are_what_grafana_reads() {
    let mut ids = BTreeSet::new();
    for name in DASHBOARDS {
        let dashboard = dashboard(name);
        assert!(ids.insert(dashboard["uid"].as_str().unwrap().to_owned()), "{name} has another's uid");
        assert!(dashboard["schemaVersion"].as_u64() >= Some(39) && dashboard["title"].is_string(), "{name}");
        let mut panels = BTreeSet::new();
        let mut taken = BTreeSet::new();
        for panel in list(&dashboard["panels"]) {
            let title = panel["title"].as_str().unwrap();
            assert!(panels.insert(panel["id"].as_u64().unwrap()), "{name}: {title} has another's id");
            assert!(PANELS.contains(&panel["type"].as_str().unwrap()), "{name}: {title}");
            assert!(list(&panel["targets"]).count() > 0, "{name}: {title} asks nothing");
            let place = |key: &str| panel["gridPos"][key].as_u64().unwrap();
            for column in place("x")..place("x") + place("w") {
                for row in place("y")..place("y") + place("h") {
                    assert!(column < 24 && taken.insert((column, row)), "{name}: {title} lies on another");
                }
            }
            for target in list(&panel["targets"]) {
                assert_eq!(target["datasource"]["uid"], "${datasource}", "{name}: {title}");
            }
        }
        // A variable that no list defines would be sent as it is written.
        let known: Vec<&str> = list(&dashboard["templating"]["list"])
            .map(|variable| variable["name"].as_str().unwrap())
            .collect();
        for query in queries(&dashboard) {
            for used in query.split('$').skip(1) {
                let used: String =
                    used.chars().take_while(|letter| letter.is_alphanumeric() || *letter == '_').collect();
                assert!(
                    used == "__rate_interval" || known.contains(&used.as_str()),
                    "{name}: ${used} in {query}"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_query_gives_series() {
    // The bundled trace, a minute of it in a second.
    let mesh = Mesh::up(&["--speed=60", "--cold-start=2m"]).await.unwrap();
    let budget = r#"{"error_budget_per_1000_vm_days": 10}"#;
    assert_eq!(mesh.send(http::Method::PUT, "/boundaries/fleet", &[], budget).await.unwrap().status, 201);
    let gateway = mesh.address("gateway").unwrap();
    let rules =
        ["recording_rules", "alerts"].map(|name| text_of(&format!("observability/prometheus/{name}.yml")));
    let prometheus = Prometheus::with_rules(
        &format!(
            "- {{job_name: memharvest, http_sd_configs: [{{url: 'http://{gateway}/sd/prometheus', refresh_interval: 1s}}]}}\n\
             - {{job_name: memharvest-fleet, static_configs: [{{targets: ['{gateway}']}}]}}\n"
        ),
        &rules,
        None,
    )
    .await
    .unwrap();
    let vm = wait_for(SOON, "a machine with a forecast", async || {
        let vms = mesh.get("/vms?page_size=1000").await?;
        let warm =
            list(&vms["vms"]).find(|vm| vm["predicted_rss_bytes"].is_u64() && vm["demand_bytes"].is_u64());
        warm.cloned().ok_or_else(|| anyhow::anyhow!("{vms}"))
    })
    .await
    .unwrap();
    let fill = |query: &str| {
        let vm =
            query.replace("$host", vm["host"].as_str().unwrap()).replace("$vm", vm["vm"].as_str().unwrap());
        vm.replace("$__rate_interval", "10s")
    };
    for name in DASHBOARDS {
        for query in queries(&dashboard(name)) {
            let filled = fill(&query);
            if NOTHING_HERE.iter().any(|(part, _)| query.contains(part)) {
                // It must be well formed all the same.
                prometheus.query(&filled).await.unwrap();
                continue;
            }
            wait_for(SOON, &format!("{name}: {filled}"), async || {
                ensure!(!prometheus.query(&filled).await?.is_empty(), "it gives nothing");
                Ok(())
            })
            .await
            .unwrap();
        }
    }
    for (part, _) in NOTHING_HERE {
        assert!(
            DASHBOARDS.iter().any(|name| queries(&dashboard(name)).iter().any(|query| query.contains(part))),
            "{part}"
        );
    }
}
