//! Records as predictors send them.

use memharvest_proto::collector::v1::{Quality, Signal};
use memharvest_proto::registry::v1::{
    AgentKind, CoverageRollup, HostHarvest, HostRollup, RecordHarvestRequest, RegisterAgentRequest,
    Violation, ViolationKind, ViolationPoint, ViolationState, VmRollup,
};
use prost_types::{Duration, Timestamp};
use uuid::Uuid;

/// A whole hour, so that windows fall into hours as the tests expect: 2025-10-09T08:00:00Z.
pub(crate) const T0: i64 = 1_760_000_400;

#[expect(clippy::unnecessary_wraps, reason = "as messages hold it")]
pub(crate) fn at(seconds: i64) -> Option<Timestamp> {
    Some(Timestamp { seconds, nanos: 0 })
}

#[expect(clippy::unnecessary_wraps, reason = "as messages hold it")]
pub(crate) fn lasting(seconds: i64) -> Option<Duration> {
    Some(Duration { seconds, nanos: 0 })
}

pub(crate) fn vm_id(number: u128) -> String {
    Uuid::from_u128(number).to_string()
}

/// A window of machine `number` on host `h`, with figures of its own.
pub(crate) fn vm_window(number: u128, start: i64) -> VmRollup {
    let figure = u64::try_from(start).unwrap() * 1024;
    VmRollup {
        vm_id: vm_id(number),
        vm_name: format!("vm-{number}"),
        host_id: "h".to_owned(),
        window_start: at(start),
        window: lasting(300),
        readings: 60,
        quality: Quality::Live.into(),
        allocated_bytes: Some(4 << 30),
        rss_max_bytes: Some(figure),
        rss_mean_bytes: Some(figure / 2),
        predicted_rss_bytes: Some(figure * 2),
        harvestable_bytes: Some(0),
        maximum_bytes: Some(8 << 30),
        ..VmRollup::default()
    }
}

pub(crate) fn host_window(host: &str, start: i64) -> HostRollup {
    HostRollup {
        host_id: host.to_owned(),
        host_name: format!("{host}.example"),
        window_start: at(start),
        window: lasting(300),
        readings: 60,
        vms_running: 3,
        total_bytes: Some(64 << 30),
        available_min_bytes: Some(9 << 30),
        harvestable_bytes: Some(5 << 30),
        ..HostRollup::default()
    }
}

pub(crate) fn harvest(host: &str, read_at: i64, bytes: u64) -> HostHarvest {
    HostHarvest {
        host_id: host.to_owned(),
        read_at: at(read_at),
        harvestable_bytes: bytes,
        valid_until: at(read_at + 15),
        breaker_open: false,
    }
}

pub(crate) fn coverage(host: &str, start: i64, judged: u64, held: u64) -> CoverageRollup {
    CoverageRollup {
        host_id: host.to_owned(),
        signal: Signal::Rss.into(),
        horizon: lasting(900),
        target_violation_rate: 0.01,
        window_start: at(start),
        judged,
        held,
    }
}

pub(crate) fn batch_of(vms: Vec<VmRollup>) -> RecordHarvestRequest {
    RecordHarvestRequest { predictor_id: "p".to_owned(), vms, ..RecordHarvestRequest::default() }
}

/// An open promise violation; a later `revision` says more.
pub(crate) fn violation(id: &str, number: u128, opened: i64, revision: u64) -> Violation {
    Violation {
        violation_id: id.to_owned(),
        vm_id: vm_id(number),
        vm_name: format!("vm-{number}"),
        host_id: "h".to_owned(),
        kind: ViolationKind::Promise.into(),
        signal: Signal::Rss.into(),
        state: ViolationState::Open.into(),
        opened_at: Some(Timestamp { seconds: opened, nanos: 123_456_789 }),
        predicted_bytes: 100,
        actual_bytes: 100 + revision,
        overshoot_bytes: revision,
        overshoot_ratio: 0.25,
        allocated_bytes: 4 << 30,
        horizon: lasting(900),
        target_violation_rate: 0.01,
        model_version: "peaks@1".to_owned(),
        boundary_version: "default".to_owned(),
        series: vec![ViolationPoint { at: at(opened), actual_bytes: 100 + revision, predicted_bytes: None }],
        revision,
        ..Violation::default()
    }
}

pub(crate) fn closed(mut violation: Violation, at_s: i64) -> Violation {
    violation.set_state(ViolationState::Closed);
    violation.closed_at = at(at_s);
    "clean".clone_into(&mut violation.close_reason);
    violation
}

pub(crate) fn registration(agent_id: &str, instance_id: &str) -> RegisterAgentRequest {
    RegisterAgentRequest {
        agent_id: agent_id.to_owned(),
        kind: AgentKind::Collector.into(),
        name: format!("{agent_id}.example"),
        labels: [("rack".to_owned(), "a1".to_owned())].into(),
        version: "0.1.0".to_owned(),
        instance_id: instance_id.to_owned(),
        address: "127.0.0.1:7403".to_owned(),
        admin_address: "127.0.0.1:9403".to_owned(),
        interval: lasting(5),
        capabilities: vec!["replay".to_owned()],
    }
}
