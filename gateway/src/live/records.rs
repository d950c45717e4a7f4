//! What the registry knows, and how a host looks that nobody but the registry knows. Pure.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use memharvest_proto::collector::v1::{Finding, Quality};
use memharvest_proto::predictor::v1::{Coverage, Host, HostState, Vm};
use memharvest_proto::registry::v1::{
    Agent, AgentKind, AgentState, CoverageRollup, HostRollup, ViolationCount, ViolationState, VmRollup,
};
use memharvest_services::proto_time::to_proto;

use super::view::HostView;
use crate::wire::{span, time};

/// The registry's newest answers. Empty until it was reached once.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// Every agent, decommissioned ones too, by id. `None`: the registry was not reached yet.
    pub agents: Option<Arc<BTreeMap<String, Agent>>>,
    /// Violations by kind and state. `None`: the registry is away.
    pub violations: Option<Vec<ViolationCount>>,
    /// Coverage of the last 24 hours.
    pub coverage: Vec<CoverageRollup>,
    /// Hosts by id, with the newest roll-ups of their machines.
    pub rollups: Arc<BTreeMap<String, RolledUp>>,
}

/// The newest roll-ups of a host and its machines.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RolledUp {
    /// The host's own.
    pub host: HostRollup,
    /// Those of its machines.
    pub vms: Vec<VmRollup>,
}

impl Records {
    /// Sets hosts and machines from the pages of `ListLatest`. A machine whose newest window is older than its host's is
    /// gone, and one without a host's roll-up cannot be placed: both are left out.
    pub fn set_rollups(&mut self, hosts: Vec<HostRollup>, vms: Vec<VmRollup>) {
        let mut rollups: BTreeMap<String, RolledUp> = hosts
            .into_iter()
            .map(|host| (host.host_id.clone(), RolledUp { host, vms: Vec::new() }))
            .collect();
        for vm in vms {
            if let Some(rolled) = rollups.get_mut(&vm.host_id)
                && time(vm.window_start.as_ref()) >= time(rolled.host.window_start.as_ref())
            {
                rolled.vms.push(vm);
            }
        }
        self.rollups = Arc::new(rollups);
    }

    /// Whether an operator took the host out of service.
    #[must_use]
    pub fn decommissioned(&self, host_id: &str) -> bool {
        self.agent(host_id).is_some_and(|agent| agent.state == i32::from(AgentState::Decommissioned))
    }

    /// Ids of all hosts that the registry knows.
    pub fn host_ids(&self) -> impl Iterator<Item = &String> {
        let collectors = self
            .agents
            .iter()
            .flat_map(|agents| agents.iter())
            .filter(|(_, agent)| agent.kind == i32::from(AgentKind::Collector));
        self.rollups.keys().chain(collectors.map(|(id, _)| id))
    }

    /// The host as the registry alone knows it: lost, its last known figures, nothing harvestable.
    pub(crate) fn lost_host(&self, host_id: &str, now: Timestamp) -> Option<HostView> {
        let agent = self.agent(host_id).filter(|agent| agent.kind == i32::from(AgentKind::Collector));
        let rolled = self.rollups.get(host_id);
        if (agent.is_none() && rolled.is_none()) || self.decommissioned(host_id) {
            return None;
        }
        let mut host = Host { host_id: host_id.to_owned(), state: HostState::Lost.into(), ..Host::default() };
        let mut vms = Vec::new();
        if let Some(RolledUp { host: rollup, vms: machines }) = rolled {
            host.name.clone_from(&rollup.host_name);
            host.vms_running = rollup.vms_running;
            host.total_bytes = rollup.total_bytes;
            host.available_bytes = rollup.available_min_bytes;
            host.allocated_bytes = rollup.allocated_bytes;
            host.rss_bytes = rollup.rss_max_bytes;
            host.harvestable_bytes = rollup.harvestable_bytes.map(|_| 0);
            host.pooled_harvestable_bytes = rollup.pooled_harvestable_bytes.map(|_| 0);
            host.reclaimable_bytes = rollup.reclaimable_bytes.map(|_| 0);
            host.read_at =
                window_end(rollup.window_start.as_ref(), rollup.window.as_ref(), now).map(to_proto);
            host.valid_until = host.read_at;
            vms = machines.iter().map(|vm| Arc::new(lost_vm(vm, now))).collect();
            vms.sort_by(|a: &Arc<Vm>, b| a.vm_id.cmp(&b.vm_id));
        }
        if let Some(agent) = agent {
            host.name.clone_from(&agent.name);
            host.labels.clone_from(&agent.labels);
            host.interval = agent.interval;
        }
        Some(HostView { host, vms, predictor: None, expires: None })
    }

    /// Violations that are open; `None`: the registry is away.
    #[must_use]
    pub fn violations_open(&self) -> Option<u64> {
        let open = i32::from(ViolationState::Open);
        let counts = self.violations.as_ref()?;
        Some(counts.iter().filter(|count| count.state == open).map(|count| count.count).sum())
    }

    /// Coverage in the words of the live state.
    pub(crate) fn coverage(&self) -> impl Iterator<Item = Coverage> {
        self.coverage.iter().map(|rollup| Coverage {
            signal: rollup.signal,
            horizon: rollup.horizon,
            target_violation_rate: rollup.target_violation_rate,
            judged: rollup.judged,
            held: rollup.held,
        })
    }

    /// What keeps a host's machines from being measured well, worst first; `None`: the registry was not reached yet.
    #[must_use]
    pub fn findings(&self, host_id: &str) -> Option<Vec<Finding>> {
        let agents = self.agents.as_ref()?;
        let mut findings: Vec<Finding> = agents
            .values()
            .flat_map(|agent| agent.findings.iter().map(move |finding| (agent, finding)))
            .filter(|(agent, finding)| {
                let host = if finding.host_id.is_empty() { &agent.agent_id } else { &finding.host_id };
                host == host_id
            })
            .map(|(_, finding)| finding.clone())
            .collect();
        findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
        Some(findings)
    }

    fn agent(&self, id: &str) -> Option<&Agent> {
        self.agents.as_ref()?.get(id)
    }
}

fn lost_vm(rollup: &VmRollup, now: Timestamp) -> Vm {
    let read_at = window_end(rollup.window_start.as_ref(), rollup.window.as_ref(), now).map(to_proto);
    Vm {
        vm_id: rollup.vm_id.clone(),
        name: rollup.vm_name.clone(),
        host_id: rollup.host_id.clone(),
        quality: rollup.quality.clamp(0, Quality::Stale.into()),
        allocated_bytes: rollup.allocated_bytes,
        maximum_bytes: rollup.maximum_bytes,
        rss_bytes: rollup.rss_max_bytes,
        demand_bytes: rollup.demand_max_bytes,
        predicted_rss_bytes: rollup.predicted_rss_bytes,
        predicted_demand_bytes: rollup.predicted_demand_bytes,
        harvestable_bytes: rollup.harvestable_bytes.map(|_| 0),
        reclaimable_bytes: rollup.reclaimable_bytes.map(|_| 0),
        read_at,
        valid_until: read_at,
        ..Vm::default()
    }
}

/// The latest time that a reading of the window can have.
fn window_end(
    start: Option<&prost_types::Timestamp>,
    window: Option<&prost_types::Duration>,
    now: Timestamp,
) -> Option<Timestamp> {
    let end = time(start)?.checked_add(span(window)?).ok()?;
    Some(end.min(now))
}
