//! `/sd/prometheus`: where the metrics of every process are, for Prometheus' HTTP service discovery.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use http::StatusCode;
use memharvest_proto::registry::v1::{Agent, AgentState};
use serde::Serialize;

use crate::rest::App;
use crate::rest::problem::Problem;
use crate::rest::words::AgentKind;

/// One process as Prometheus' HTTP service discovery writes it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct TargetGroup {
    targets: Vec<String>,
    labels: BTreeMap<&'static str, String>,
}

/// The processes that are in service. While the registry was never reached there is no list, and Prometheus keeps its last one.
pub(crate) async fn targets(State(app): State<App>) -> Result<Json<Vec<TargetGroup>>, Problem> {
    let snapshot = app.live.snapshot();
    let agents = snapshot.records.agents.as_ref().ok_or_else(|| {
        Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the registry, which knows the processes, was not reached yet",
        )
    })?;
    Ok(Json(groups(agents.values())))
}

/// One group an address: a replaying collector speaks for many hosts at one.
fn groups<'a>(agents: impl Iterator<Item = &'a Agent>) -> Vec<TargetGroup> {
    let decommissioned = i32::from(AgentState::Decommissioned);
    let mut groups: BTreeMap<&str, TargetGroup> = BTreeMap::new();
    for agent in agents.filter(|agent| agent.state != decommissioned && !agent.admin_address.is_empty()) {
        let kind = AgentKind::of(agent.kind).map_or("unknown", AgentKind::as_str);
        groups.entry(&agent.admin_address).or_insert_with(|| TargetGroup {
            targets: vec![agent.admin_address.clone()],
            labels: BTreeMap::from([
                ("job", format!("memharvest-{kind}")),
                ("__meta_memharvest_kind", kind.to_owned()),
                ("__meta_memharvest_agent", agent.agent_id.clone()),
                ("__meta_memharvest_name", agent.name.clone()),
            ]),
        });
    }
    groups.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_target_an_address_and_none_that_is_out_of_service() {
        let agent = |id: &str, address: &str, state: AgentState| Agent {
            agent_id: id.into(),
            kind: AgentKind::Collector.wire().into(),
            admin_address: address.into(),
            state: state.into(),
            ..Agent::default()
        };
        let agents = [
            agent("a", "10.0.0.1:9403", AgentState::Live),
            agent("b", "10.0.0.1:9403", AgentState::Live),
            agent("c", "10.0.0.2:9403", AgentState::Lost),
            agent("d", "10.0.0.3:9403", AgentState::Decommissioned),
            agent("e", "", AgentState::Live),
        ];
        let groups = groups(agents.iter());
        let targets: Vec<&str> = groups.iter().map(|group| group.targets[0].as_str()).collect();
        assert_eq!(targets, ["10.0.0.1:9403", "10.0.0.2:9403"]);
        assert_eq!(groups[0].labels["job"], "memharvest-collector");
        assert_eq!(groups[0].labels["__meta_memharvest_agent"], "a");
    }
}
