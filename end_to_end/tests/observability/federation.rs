//! A second Prometheus that asks the gateway alone sees what one sees that scrapes the collectors.

use std::collections::BTreeSet;

use anyhow::ensure;
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::prometheus::{Prometheus, escaped};
use memharvest_end_to_end::wait::wait_for;
use memharvest_end_to_end::web;

use super::{SOON, text_of};

/// Two hosts with five machines each.
const FLEET: [&str; 6] = ["--simulate", "2x5", "--seed", "1", "--speed", "60"];

/// Series that are told per host or machine.
const OWN: &str = r#"{__name__=~"memharvest_(host|vm)_.+"}"#;

/// What identifies the series of an instant query, wherever they were scraped.
async fn series(prometheus: &Prometheus, query: &str) -> anyhow::Result<BTreeSet<String>> {
    let found = prometheus.query(query).await?;
    Ok(found
        .into_iter()
        .map(|mut series| {
            if let Some(labels) = series["metric"].as_object_mut() {
                labels.remove("job");
                labels.remove("instance");
            }
            series["metric"].to_string()
        })
        .collect())
}

/// Names and labels of a federation page's series, without where they come from.
fn identities(page: &str) -> BTreeSet<String> {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, rest) = line.split_once('{').unwrap();
            let (labels, _) = rest.rsplit_once('}').unwrap();
            let own: BTreeSet<&str> = labels
                .split("\",")
                .map(|label| label.trim_end_matches('"'))
                .filter(|label| !label.starts_with("job=") && !label.starts_with("instance="))
                .collect();
            format!("{name}{own:?}")
        })
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn both_layouts_tell_the_same_and_together_count_once() {
    let mesh = Mesh::up(&FLEET).await.unwrap();
    let gateway = mesh.address("gateway").unwrap();
    let scrape = format!(
        "- {{job_name: mesh, http_sd_configs: [{{url: 'http://{gateway}/sd/prometheus', refresh_interval: 1s}}]}}\n\
         - {{job_name: fleet, static_configs: [{{targets: ['{gateway}']}}]}}\n"
    );
    let federate = format!(
        "- {{job_name: federate, honor_labels: true, metrics_path: /federate, \
            params: {{'match[]': ['{{__name__=~\"memharvest_.+\"}}']}}, static_configs: [{{targets: ['{gateway}']}}]}}\n"
    );
    let rules = [text_of("observability/prometheus/recording_rules.yml")];
    let first = Prometheus::start(&scrape).await.unwrap();
    let second = Prometheus::start(&federate).await.unwrap();
    let both = Prometheus::with_rules(&format!("{scrape}{federate}"), &rules, None).await.unwrap();
    wait_for(SOON, "both to know the same series of hosts and machines", async || {
        let (scraped, federated) = (series(&first, OWN).await?, series(&second, OWN).await?);
        ensure!(scraped.len() > 150, "{} series yet", scraped.len());
        let missing: Vec<_> = scraped.symmetric_difference(&federated).collect();
        ensure!(missing.is_empty(), "{missing:?}");
        Ok(())
    })
    .await
    .unwrap();
    // Whoever does both, and writes rules as the shipped ones are, counts nothing twice.
    wait_for(SOON, "the machines' allocations to be counted once", async || {
        let once = "sum(memharvest:vm_memory_allocated_bytes:max) == sum(memharvest:fleet_memory_allocated_bytes:max) \
                    and on () sum(memharvest_vm_memory_allocated_bytes) == 2 * sum(memharvest:vm_memory_allocated_bytes:max)";
        ensure!(both.query(once).await?.len() == 1, "counted otherwise");
        Ok(())
    })
    .await
    .unwrap();

    // The selectors mean what they mean to Prometheus itself.
    let host = mesh.get("/hosts").await.unwrap()["hosts"][0]["host"].as_str().unwrap().to_owned();
    for selectors in [
        vec!["memharvest_vm_info".to_owned()],
        vec![format!("{{host=\"{host}\",__name__=~\"memharvest_vm_.+\"}}")],
        vec![
            "memharvest_vm_quality{class!=\"live\"}".into(),
            "memharvest_host_vms{state=~\"run|running\"}".into(),
        ],
        vec!["memharvest_vm_predicted_peak_bytes{signal!~\"dem.*\"}".into()],
        vec!["memharvest_host_memory_total_bytes{vm=\"\"}".into()],
        vec!["memharvest_host_memory_total_bytes{vm!=\"\"}".into()],
        vec!["memharvest_host_info{name=~'.*[0-9]'}".into(), "up_or_down".into()],
    ] {
        let query: Vec<String> = selectors.iter().map(|one| format!("match[]={}", escaped(one))).collect();
        let query = query.join("&");
        wait_for(SOON, &format!("the same choice by {selectors:?}"), async || {
            let theirs = web::get(&format!("{}/federate?{query}", first.url())).await?.text;
            let ours = web::get(&format!("http://{gateway}/federate?{query}")).await?.text;
            let (theirs, ours) = (identities(&theirs), identities(&ours));
            let differing: Vec<_> = theirs.symmetric_difference(&ours).collect();
            ensure!(differing.is_empty(), "{differing:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
    for wrong in ["{a}", "{a=b}", "-x", "x{a=\"b\"", "{a=~\"(\"}", "x[5m]"] {
        for url in [first.url(), &format!("http://{gateway}")] {
            let url = format!("{url}/federate?match[]={}", escaped(wrong));
            let answer = web::send(http::Method::GET, &url, &[], "").await.unwrap();
            assert_eq!(answer.status, 400, "{url}");
        }
    }
}
