//! An alert on its whole way: a process of the real mesh falls silent, Prometheus sees it, Alertmanager tells a webhook, and
//! tells it again when it is over.

use anyhow::{Context, ensure};
use memharvest_end_to_end::alertmanager::{Alertmanager, Webhook};
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::prometheus::Prometheus;
use memharvest_end_to_end::wait::wait_for;
use rustix::process::Signal;
use serde_json::Value;

use super::{SOON, text_of};

/// The shipped alerts, without the time that they wait.
fn impatient_alerts() -> String {
    let alerts = text_of("observability/prometheus/alerts.yml");
    let lines: Vec<&str> = alerts.lines().filter(|line| !line.trim().starts_with("for:")).collect();
    lines.join("\n")
}

async fn told(webhook: &Webhook, status: &str) -> Value {
    wait_for(SOON * 2, &format!("the webhook to be told that it is {status}"), async || {
        let alerts = webhook.alerts();
        let found = alerts.iter().find(|alert| {
            alert["labels"]["alertname"] == "MemharvestRegistryAway" && alert["status"] == status
        });
        found.cloned().with_context(|| format!("{alerts:?}"))
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_that_falls_silent_reaches_a_webhook() {
    let mesh = Mesh::up(&["--simulate", "1x3", "--seed", "1"]).await.unwrap();
    let webhook = Webhook::listen().await.unwrap();
    let alertmanager = Alertmanager::start(&webhook).await.unwrap();
    let gateway = mesh.address("gateway").unwrap();
    let prometheus = Prometheus::with_rules(
        &format!("- {{job_name: memharvest-fleet, static_configs: [{{targets: ['{gateway}']}}]}}\n"),
        &[text_of("observability/prometheus/recording_rules.yml"), impatient_alerts()],
        Some(&alertmanager.address),
    )
    .await
    .unwrap();
    wait_for(SOON, "a fleet without alerts", async || {
        ensure!(prometheus.query("memharvest_violations_open").await?.len() == 1, "no violations yet");
        let firing =
            prometheus.query("ALERTS{alertname=\"MemharvestRegistryAway\",alertstate=\"firing\"}").await?;
        ensure!(firing.is_empty(), "{firing:?}");
        Ok(())
    })
    .await
    .unwrap();

    mesh.signal("registry", Signal::STOP).unwrap();
    let alert = told(&webhook, "firing").await;
    assert_eq!(alert["labels"]["severity"], "critical");
    assert_eq!(alert["annotations"]["runbook"], "docs/runbooks/registry_away.md");
    mesh.signal("registry", Signal::CONT).unwrap();
    told(&webhook, "resolved").await;
}
