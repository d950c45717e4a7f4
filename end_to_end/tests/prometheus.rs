//! The five metric pages, promtool, and a real Prometheus that scrapes them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use http::Method;
use memharvest_end_to_end::mesh::{Mesh, PROCESSES};
use memharvest_end_to_end::prometheus::{Prometheus, lint};
use memharvest_end_to_end::wait::wait_for;
use memharvest_end_to_end::web;

const SOON: Duration = Duration::from_secs(45);

/// The mesh under scrape: two hosts with five machines each, and a forecast judged every three seconds.
const FLEET: [&str; 6] = ["--simulate", "2x5", "--seed", "1", "--speed", "300"];

/// Every metric of the contract that a simulated mesh has, and how many series of it: `n` exactly, or `n+` at least.
const SERIES: &[(&str, &str)] = &[
    ("memharvest_vm_memory_allocated_bytes", "10"),
    ("memharvest_vm_memory_maximum_bytes", "10"),
    ("memharvest_vm_memory_rss_bytes", "10"),
    // Machines without a balloon driver have no view of their own.
    ("memharvest_vm_memory_guest_total_bytes", "1+"),
    ("memharvest_vm_memory_guest_free_bytes", "1+"),
    ("memharvest_vm_memory_guest_available_bytes", "1+"),
    ("memharvest_vm_memory_disk_cache_bytes", "1+"),
    ("memharvest_vm_stats_age_seconds", "1+"),
    ("memharvest_vm_predicted_peak_bytes{signal=\"rss\"}", "10"),
    ("memharvest_vm_predicted_peak_bytes{signal=\"demand\"}", "1+"),
    ("memharvest_vm_harvestable_bytes", "10"),
    ("memharvest_vm_reclaimable_bytes", "10"),
    ("memharvest_vm_quality", "10"),
    ("memharvest_vm_info", "10"),
    ("memharvest_host_memory_total_bytes", "2"),
    ("memharvest_host_memory_available_bytes", "2"),
    ("memharvest_host_memory_committed_bytes", "2"),
    ("memharvest_host_memory_harvestable_bytes", "2"),
    ("memharvest_host_memory_reclaimable_bytes", "2"),
    ("memharvest_host_memory_leased_bytes", "2"),
    ("memharvest_host_vms{state=\"running\"}", "2"),
    ("memharvest_violations_total", "3"),
    ("memharvest_violations_open", "1"),
    ("memharvest_prediction_coverage_ratio", "2"),
    ("memharvest_prediction_promised_ratio", "2"),
    ("memharvest_error_budget_remaining_ratio{scope=\"fleet\"}", "1"),
    ("memharvest_agents", "4"),
    ("memharvest_build_info", "4"),
    ("memharvest_rpc_server_requests_total", "1+"),
    ("memharvest_rpc_server_duration_seconds_bucket", "1+"),
    ("memharvest_rpc_client_requests_total", "1+"),
    ("memharvest_rpc_client_duration_seconds_count", "1+"),
    ("memharvest_queue_depth", "1+"),
    ("memharvest_queue_dropped_total", "1+"),
    ("process_resident_memory_bytes", "4"),
    ("process_cpu_seconds_total", "4"),
    ("process_open_fds", "4"),
];

/// Metrics of the contract that this mesh cannot have, and why not. One that appears belongs above.
const NOT_HERE: &[(&str, &str)] = &[(
    "memharvest_host_memory_pressure_seconds_total",
    "a simulated host has no /proc/pressure; real ones are tested",
)];

#[tokio::test(flavor = "multi_thread")]
async fn the_five_pages_are_clean_and_each_series_has_one_home() {
    let mesh = Mesh::up(&FLEET).await.unwrap();
    wait_until_judged(&mesh).await.unwrap();
    let mut homes: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let mut pages = vec![("fleet", mesh.url("gateway").unwrap())];
    pages.extend(PROCESSES.map(|process| (process, mesh.admin_url(process).unwrap())));
    for (owner, url) in pages {
        let page = web::get(&format!("{url}/metrics")).await.unwrap().text;
        assert_eq!(lint(&page).unwrap(), "", "promtool on the page of {owner}:\n{page}");
        for name in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()) {
            homes.entry(name.to_owned()).or_default().push(owner);
        }
    }
    for (name, owners) in &homes {
        let expected = match name.trim_start_matches("memharvest_").split('_').next().unwrap_or_default() {
            "vm" | "host" | "collector" => vec!["collector"],
            "fleet" | "violations" | "prediction" | "agents" | "error" => vec!["fleet"],
            "predictor" | "forecasts" | "pooled" | "snapshots" => vec!["predictor"],
            "registry" => vec!["registry"],
            "gateway" | "http" => vec!["gateway"],
            // What every process tells of itself.
            "build" | "rpc" | "queue" | "process" => {
                assert!(!owners.contains(&"fleet"), "{name} is a process's own, not the fleet's");
                continue;
            }
            _ => panic!("{name} on {owners:?} belongs to no family of the contract"),
        };
        assert_eq!(*owners, expected, "the home of {name}");
    }
    for owner in ["build_info", "rpc_client_requests_total"] {
        assert!(homes.contains_key(&format!("memharvest_{owner}")), "{homes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_finds_scrapes_and_answers() {
    let mesh = Mesh::up(&FLEET).await.unwrap();
    let budget = r#"{"error_budget_per_1000_vm_days": 10}"#;
    assert_eq!(mesh.send(Method::PUT, "/boundaries/fleet", &[], budget).await.unwrap().status, 201);
    let gateway = mesh.address("gateway").unwrap();
    let prometheus = Prometheus::start(&format!(
        "- {{job_name: mesh, http_sd_configs: [{{url: 'http://{gateway}/sd/prometheus', refresh_interval: 1s}}]}}\n\
         - {{job_name: fleet, static_configs: [{{targets: ['{gateway}']}}]}}\n"
    ))
    .await
    .unwrap();
    wait_for(SOON, "all five targets to be up", || async {
        let up = prometheus.query("up").await?;
        let jobs: Vec<&str> = up.iter().filter_map(|series| series["metric"]["job"].as_str()).collect();
        let all_up = up.iter().all(|series| series["value"][1] == "1");
        ensure!(up.len() == 5 && all_up, "{jobs:?}: {:?}", prometheus.targets().await?);
        for process in PROCESSES {
            ensure!(jobs.contains(&format!("memharvest-{process}").as_str()), "no {process} in {jobs:?}");
        }
        Ok(())
    })
    .await
    .unwrap();
    for (query, expected) in SERIES {
        wait_for(SOON, query, || async {
            let found = prometheus.query(query).await?.len();
            let least = expected.strip_suffix('+');
            let count: usize = least.unwrap_or(expected).parse()?;
            ensure!(
                if least.is_some() { found >= count } else { found == count },
                "{found} series, not {expected}"
            );
            Ok(())
        })
        .await
        .unwrap();
    }
    for (query, reason) in NOT_HERE {
        let found = prometheus.query(query).await.unwrap();
        assert!(found.is_empty(), "{query} is there now, though {reason}: move it to the table above");
    }
    // Counted once: the sum over collectors is what the gateway tells of the fleet.
    wait_for(SOON, "the fleet's sum to be that of its machines", || async {
        let same =
            "sum(memharvest_vm_memory_allocated_bytes) == sum(memharvest_fleet_memory_allocated_bytes)";
        prometheus.query(same).await?.pop().context("they differ")
    })
    .await
    .unwrap();
}

async fn wait_until_judged(mesh: &Mesh) -> anyhow::Result<()> {
    wait_for(SOON, "forecasts to be judged", || async {
        let fleet = mesh.get("/fleet").await?;
        ensure!(fleet["vms"] == 10 && fleet["coverage"].is_f64(), "{fleet}");
        Ok(())
    })
    .await
}
