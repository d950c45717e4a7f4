//! Every field out of its range is refused by name, and nothing is written.

use crate::records::{
    T0, at, batch_of, closed, coverage, harvest, host_window, lasting, registration, violation, vm_window,
};
use crate::server::{TestRegistry, database, wrong_fields};
use memharvest_proto::registry::v1::{
    AcknowledgeViolationRequest, Agent, BoundaryValues, CoverageRollup, ExplainViolationRequest,
    GetViolationRequest, HostHarvest, HostRollup, ListAuditEventsRequest, ListLatestRequest,
    ListViolationsRequest, RecordHarvestRequest, RecordViolationsRequest, RegisterAgentRequest,
    SetBoundaryRequest, UpdateAgentRequest, Violation, ViolationPoint, VmRollup,
};
use tonic::Code;

#[tokio::test]
async fn agents() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let good = || registration("h", "a");
    let long = "x".repeat(1000);
    let many = (0..100).map(|i| (format!("l{i}"), String::new())).collect();
    for (bad, field) in [
        (RegisterAgentRequest { agent_id: String::new(), ..good() }, "agent_id"),
        (RegisterAgentRequest { agent_id: "x".repeat(129), ..good() }, "agent_id"),
        (RegisterAgentRequest { agent_id: "a/b".into(), ..good() }, "agent_id"),
        (RegisterAgentRequest { agent_id: "ä".into(), ..good() }, "agent_id"),
        (RegisterAgentRequest { kind: 0, ..good() }, "kind"),
        (RegisterAgentRequest { kind: 99, ..good() }, "kind"),
        (RegisterAgentRequest { instance_id: String::new(), ..good() }, "instance_id"),
        (RegisterAgentRequest { name: long.clone(), ..good() }, "name"),
        (RegisterAgentRequest { address: long.clone(), ..good() }, "address"),
        (RegisterAgentRequest { name: "x\0".into(), ..good() }, "name"),
        (RegisterAgentRequest { labels: many, ..good() }, "labels"),
        (RegisterAgentRequest { labels: [("a=b".into(), "c".into())].into(), ..good() }, "labels[a=b]"),
        (RegisterAgentRequest { labels: [("a".into(), "\n".into())].into(), ..good() }, "labels[a]"),
        (RegisterAgentRequest { interval: lasting(0), ..good() }, "interval"),
        (RegisterAgentRequest { interval: lasting(-1), ..good() }, "interval"),
        (RegisterAgentRequest { interval: lasting(i64::MAX), ..good() }, "interval"),
        (RegisterAgentRequest { capabilities: vec![long.clone()], ..good() }, "capabilities"),
    ] {
        assert_eq!(wrong_fields(&registry.agents().register_agent(bad).await.unwrap_err()), [field]);
    }
    let unknown = memharvest_proto::registry::v1::GetAgentRequest { agent_id: "h".into() };
    assert_eq!(
        registry.agents().get_agent(unknown).await.unwrap_err().code(),
        Code::NotFound,
        "nothing was written"
    );
    let update = |paths: &[&str]| UpdateAgentRequest {
        agent: Some(Agent { agent_id: "h".into(), ..Agent::default() }),
        update_mask: Some(prost_types::FieldMask { paths: paths.iter().map(ToString::to_string).collect() }),
    };
    for (paths, field) in
        [(vec![], "update_mask"), (vec!["name"], "update_mask"), (vec!["interval"], "agent.interval")]
    {
        assert_eq!(wrong_fields(&registry.agents().update_agent(update(&paths)).await.unwrap_err()), [field]);
    }
    registry.stop().await;
}

#[tokio::test]
async fn boundaries() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.boundaries();
    let good = || SetBoundaryRequest {
        scope: "fleet".into(),
        values: Some(BoundaryValues::default()),
        ..SetBoundaryRequest::default()
    };
    let values = |values| SetBoundaryRequest { values: Some(values), ..good() };
    let none = BoundaryValues::default;
    for (bad, field) in [
        (SetBoundaryRequest { scope: "planet".into(), ..good() }, "scope"),
        (SetBoundaryRequest { scope: "vm:x".into(), ..good() }, "scope"),
        (SetBoundaryRequest { scope: format!("host:{}", "x".repeat(200)), ..good() }, "scope"),
        (SetBoundaryRequest { values: None, ..good() }, "values"),
        (SetBoundaryRequest { author: "x".repeat(1000), ..good() }, "author"),
        (SetBoundaryRequest { reason: "x".repeat(10_000), ..good() }, "reason"),
        (SetBoundaryRequest { reason: "x".repeat(10 << 20), ..good() }, "reason"),
        (SetBoundaryRequest { reason: "x\0".into(), ..good() }, "reason"),
        (values(BoundaryValues { headroom_ratio: Some(-0.1), ..none() }), "values.headroom_ratio"),
        (values(BoundaryValues { headroom_ratio: Some(f64::INFINITY), ..none() }), "values.headroom_ratio"),
        (
            values(BoundaryValues { target_violation_rate: Some(0.51), ..none() }),
            "values.target_violation_rate",
        ),
        (values(BoundaryValues { horizon: lasting(86_401), ..none() }), "values.horizon"),
        (values(BoundaryValues { fairness: Some(7), ..none() }), "values.fairness"),
        (values(BoundaryValues { floor_bytes: Some(u64::MAX), ..none() }), "values.floor_bytes"),
    ] {
        assert_eq!(wrong_fields(&client.set_boundary(bad).await.unwrap_err()), [field]);
    }
    let both = SetBoundaryRequest {
        scope: "planet".into(),
        ..values(BoundaryValues { lower_usage_bytes: Some(2), upper_usage_bytes: Some(1), ..none() })
    };
    assert_eq!(
        wrong_fields(&client.set_boundary(both).await.unwrap_err()),
        ["scope", "values.lower_usage_bytes"]
    );
    let events =
        registry.audit().list_audit_events(ListAuditEventsRequest::default()).await.unwrap().into_inner();
    assert!(events.events.is_empty(), "nothing was written");
    registry.stop().await;
}

fn vm(change: fn(&mut VmRollup)) -> RecordHarvestRequest {
    let mut window = vm_window(1, T0);
    change(&mut window);
    batch_of(vec![vm_window(2, T0), window])
}

fn host(change: fn(&mut HostRollup)) -> RecordHarvestRequest {
    let mut window = host_window("h", T0);
    change(&mut window);
    RecordHarvestRequest { hosts: vec![window], ..batch_of(vec![]) }
}

fn host_harvest(change: fn(&mut HostHarvest)) -> RecordHarvestRequest {
    let mut harvest = harvest("h", T0, 1);
    change(&mut harvest);
    RecordHarvestRequest { harvests: vec![harvest], ..batch_of(vec![]) }
}

fn judged(change: fn(&mut CoverageRollup)) -> RecordHarvestRequest {
    let mut coverage = coverage("h", T0, 2, 1);
    change(&mut coverage);
    RecordHarvestRequest { coverage: vec![coverage], ..batch_of(vec![]) }
}

#[tokio::test]
async fn history() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.harvest();
    for (bad, field) in [
        (RecordHarvestRequest { predictor_id: String::new(), ..batch_of(vec![]) }, "predictor_id"),
        (vm(|v| v.vm_id = "web-1".into()), "vms[1].vm_id"),
        (vm(|v| v.host_id = String::new()), "vms[1].host_id"),
        (vm(|v| v.vm_name = "x".repeat(1000)), "vms[1].vm_name"),
        (vm(|v| v.window_start = None), "vms[1].window_start"),
        (vm(|v| v.window_start = at(-300)), "vms[1].window_start"),
        (vm(|v| v.window_start = at(i64::MAX)), "vms[1].window_start"),
        (
            vm(|v| v.window_start = Some(prost_types::Timestamp { seconds: T0, nanos: 1 })),
            "vms[1].window_start",
        ),
        (vm(|v| v.window = None), "vms[1].window"),
        (vm(|v| v.window = lasting(0)), "vms[1].window"),
        (vm(|v| v.quality = 99), "vms[1].quality"),
        (vm(|v| v.rss_max_bytes = Some(u64::MAX)), "vms[1].rss_max_bytes"),
        (vm(|v| v.harvestable_bytes = Some(u64::MAX)), "vms[1].harvestable_bytes"),
        (host(|h| h.host_id = "a b".into()), "hosts[0].host_id"),
        (host(|h| h.total_bytes = Some(u64::MAX)), "hosts[0].total_bytes"),
        (host_harvest(|h| h.read_at = None), "harvests[0].read_at"),
        (host_harvest(|h| h.harvestable_bytes = u64::MAX), "harvests[0].harvestable_bytes"),
        (judged(|c| c.signal = 0), "coverage[0].signal"),
        (judged(|c| c.held = 3), "coverage[0].held"),
        (judged(|c| c.target_violation_rate = f64::NAN), "coverage[0].target_violation_rate"),
        (judged(|c| c.horizon = None), "coverage[0].horizon"),
    ] {
        assert_eq!(wrong_fields(&client.record_harvest(bad).await.unwrap_err()), [field]);
    }
    let too_many = batch_of((0..20_001).map(|i| vm_window(i, T0)).collect());
    assert_eq!(wrong_fields(&client.record_harvest(too_many).await.unwrap_err()), ["vms"]);
    let latest = client.list_latest(ListLatestRequest::default()).await.unwrap().into_inner();
    assert!(latest.vms.is_empty() && latest.hosts.is_empty(), "nothing was written");
    registry.stop().await;
}

#[tokio::test]
async fn violations() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let mut client = registry.violations();
    let good = || violation("v", 1, T0, 1);
    for (bad, field) in [
        (Violation { violation_id: String::new(), ..good() }, "violation_id"),
        (Violation { violation_id: "a b".into(), ..good() }, "violation_id"),
        (Violation { vm_id: "x".into(), ..good() }, "vm_id"),
        (Violation { host_id: String::new(), ..good() }, "host_id"),
        (Violation { kind: 0, ..good() }, "kind"),
        (Violation { signal: 0, ..good() }, "signal"),
        (Violation { state: 0, ..good() }, "state"),
        (Violation { opened_at: None, ..good() }, "opened_at"),
        (Violation { closed_at: at(T0 + 1), ..good() }, "closed_at"),
        (Violation { closed_at: None, ..closed(good(), T0 + 9) }, "closed_at"),
        (closed(good(), T0 - 9), "closed_at"),
        (Violation { actual_bytes: u64::MAX, ..good() }, "actual_bytes"),
        (Violation { overshoot_ratio: -1.0, ..good() }, "overshoot_ratio"),
        (Violation { target_violation_rate: 2.0, ..good() }, "target_violation_rate"),
        (Violation { model_version: "x".repeat(1000), ..good() }, "model_version"),
        (Violation { series: vec![ViolationPoint::default()], ..good() }, "series[0].at"),
    ] {
        let request = RecordViolationsRequest { predictor_id: "p".into(), violations: vec![bad] };
        let refused = client.record_violations(request).await.unwrap_err();
        assert_eq!(wrong_fields(&refused), [format!("violations[0].{field}")]);
    }
    let list = client.list_violations(ListViolationsRequest::default()).await.unwrap().into_inner();
    assert!(list.violations.is_empty() && list.counts.is_empty(), "nothing was written");

    let request = RecordViolationsRequest { predictor_id: "p".into(), violations: vec![good()] };
    client.record_violations(request).await.unwrap();
    let acknowledge = |id: &str, note: String| AcknowledgeViolationRequest {
        violation_id: id.into(),
        author: "ann".into(),
        note,
    };
    let long = client.acknowledge_violation(acknowledge("v", "x".repeat(4097))).await.unwrap_err();
    assert_eq!(wrong_fields(&long), ["note"]);
    let huge = client.acknowledge_violation(acknowledge("v", "x".repeat(10 << 20))).await.unwrap_err();
    assert_eq!(wrong_fields(&huge), ["note"], "10 MB");
    let unknown = client.acknowledge_violation(acknowledge("w", String::new())).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let silent = ExplainViolationRequest { violation_id: "v".into(), ..Default::default() };
    assert_eq!(wrong_fields(&client.explain_violation(silent).await.unwrap_err()), ["explanation"]);
    let stored =
        client.get_violation(GetViolationRequest { violation_id: "v".into() }).await.unwrap().into_inner();
    assert_eq!(stored.violation.unwrap(), good(), "no note was written");
    for (bad, field) in [
        (ListViolationsRequest { state: 9, ..Default::default() }, "state"),
        (ListViolationsRequest { kind: 9, ..Default::default() }, "kind"),
        (ListViolationsRequest { vm_id: "x".into(), ..Default::default() }, "vm_id"),
        (ListViolationsRequest { host_id: "a b".into(), ..Default::default() }, "host_id"),
        (ListViolationsRequest { since: at(-1), ..Default::default() }, "since"),
    ] {
        assert_eq!(wrong_fields(&client.list_violations(bad).await.unwrap_err()), [field]);
    }
    registry.stop().await;
}
