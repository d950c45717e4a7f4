//! Keeps what the registry knows of agents, violations and lost hosts at hand.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use memharvest_proto::registry::v1::{
    Agent, AgentState, HostRollup, ListAgentsRequest, ListLatestRequest, ListViolationsRequest, VmRollup,
};
use memharvest_services::readiness::Part;
use memharvest_services::shutdown::Stop;
use tokio::time::Instant;
use tonic::Status;

use super::{Live, Records};
use crate::upstream::Upstream;

/// How often roll-ups are looked at: they are written every 5 minutes.
const ROLLUPS_EVERY: Duration = Duration::from_secs(30);
const PAGE: i32 = 1000;

/// Asks the registry, again and again.
pub(crate) struct RegistryMirror {
    pub(crate) live: Live,
    pub(crate) upstream: Upstream,
    pub(crate) every: Duration,
    /// Ready once the registry was asked for the first time, whatever it said: live state is shown without it.
    pub(crate) asked: Part,
}

impl RegistryMirror {
    /// Asks until the process stops.
    pub(crate) async fn run(self, stop: Stop) {
        let mut records = Records::default();
        let mut rollups_at: Option<Instant> = None;
        let mut away = false;
        loop {
            let refreshed = tokio::select! {
                refreshed = self.refresh(&mut records, &mut rollups_at) => refreshed,
                () = stop.requested() => return,
            };
            match &refreshed {
                Ok(()) if away => tracing::info!("the registry is back"),
                Err(status) if !away => tracing::warn!(
                    "no records from the registry: {}; trying again every {:?}",
                    status.message(),
                    self.every
                ),
                _ => {}
            }
            away = refreshed.is_err();
            if away {
                records.violations = None;
            }
            self.live.change(|state, now| state.set_records(records.clone(), now));
            self.live.publish_once();
            self.asked.ready();
            tokio::select! {
                () = tokio::time::sleep(self.every) => {}
                () = stop.requested() => return,
            }
        }
    }

    async fn refresh(&self, records: &mut Records, rollups_at: &mut Option<Instant>) -> Result<(), Status> {
        records.agents = Some(Arc::new(self.agents().await?));
        let request = ListViolationsRequest { page_size: 1, ..ListViolationsRequest::default() };
        let page = self.upstream.violations().list_violations(request).await?.into_inner();
        records.violations = Some(page.counts);
        if rollups_at.is_none_or(|at| at.elapsed() >= ROLLUPS_EVERY) {
            self.rollups(records).await?;
            *rollups_at = Some(Instant::now());
        }
        Ok(())
    }

    async fn agents(&self) -> Result<BTreeMap<String, Agent>, Status> {
        let states = [AgentState::Live, AgentState::Late, AgentState::Lost, AgentState::Decommissioned];
        let mut agents = BTreeMap::new();
        let mut page_token = String::new();
        loop {
            let request = ListAgentsRequest {
                page_size: PAGE,
                page_token,
                kinds: Vec::new(),
                states: states.map(i32::from).to_vec(),
            };
            let page = self.upstream.agents().list_agents(request).await?.into_inner();
            agents.extend(page.agents.into_iter().map(|agent| (agent.agent_id.clone(), agent)));
            if page.next_page_token.is_empty() {
                return Ok(agents);
            }
            page_token = page.next_page_token;
        }
    }

    /// Machines are read only as long as some host is known to the registry alone: the others are live.
    async fn rollups(&self, records: &mut Records) -> Result<(), Status> {
        let mut hosts: Vec<HostRollup> = Vec::new();
        let mut vms: Vec<VmRollup> = Vec::new();
        let mut request = ListLatestRequest { page_size: PAGE, ..ListLatestRequest::default() };
        loop {
            let page = self.upstream.harvest().list_latest(request.clone()).await?.into_inner();
            if request.page_token.is_empty() {
                records.coverage = page.coverage;
                hosts = page.hosts;
            }
            vms.extend(page.vms);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || !self.some_are_lost(&hosts) {
                break;
            }
        }
        records.set_rollups(hosts, vms);
        Ok(())
    }

    fn some_are_lost(&self, hosts: &[HostRollup]) -> bool {
        let snapshot = self.live.snapshot();
        let live: BTreeSet<&str> = snapshot
            .hosts
            .iter()
            .filter(|view| view.predictor.is_some())
            .map(|view| view.host.host_id.as_str())
            .collect();
        hosts.iter().any(|host| !live.contains(host.host_id.as_str()))
    }
}
