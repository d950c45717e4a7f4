//! Agents: registered, heard, ordered about, listed.

use memharvest_proto::collector::v1::Finding;
use memharvest_proto::registry::v1::{
    Agent, AgentKind, AgentState, DecommissionAgentRequest, GetAgentRequest, HeartbeatRequest,
    ListAgentsRequest, ListAuditEventsRequest, ListBoundariesRequest, ListBoundaryVersionsRequest,
    ListLatestRequest, ListViolationsRequest, UpdateAgentRequest,
};
use tonic::Code;

use crate::records::{lasting, registration};
use crate::server::{TestRegistry, database, eventually, wrong_fields};

fn beat(agent_id: &str, instance_id: &str) -> HeartbeatRequest {
    HeartbeatRequest { agent_id: agent_id.to_owned(), instance_id: instance_id.to_owned(), findings: vec![] }
}

async fn agent(registry: &TestRegistry, agent_id: &str) -> Agent {
    let request = GetAgentRequest { agent_id: agent_id.to_owned() };
    registry.agents().get_agent(request).await.unwrap().into_inner().agent.unwrap()
}

async fn register(registry: &TestRegistry, agent_id: &str, instance_id: &str) -> Agent {
    let answer = registry.agents().register_agent(registration(agent_id, instance_id)).await.unwrap();
    answer.into_inner().agent.unwrap()
}

#[tokio::test]
async fn an_agent_is_live_then_late_then_lost_and_live_again() {
    let (_folder, path) = database();
    let registry =
        TestRegistry::start(&path, &["--heartbeat-interval", "100ms", "--lost-after", "600ms"]).await;
    let unknown = registry.agents().heartbeat(beat("h", "a")).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains("register first"));

    let answer = registry.agents().register_agent(registration("h", "a")).await.unwrap().into_inner();
    assert_eq!(answer.heartbeat_interval, Some(prost_types::Duration { seconds: 0, nanos: 100_000_000 }));
    assert_eq!(answer.agent.unwrap().state(), AgentState::Live);
    for wanted in [AgentState::Late, AgentState::Lost] {
        eventually("the next state", async || (agent(&registry, "h").await.state() == wanted).then_some(()))
            .await;
    }
    let finding = Finding { code: "no_period".to_owned(), ..Finding::default() };
    let request = HeartbeatRequest { findings: vec![finding.clone()], ..beat("h", "a") };
    registry.agents().heartbeat(request).await.unwrap();
    let heard = agent(&registry, "h").await;
    assert_eq!((heard.state(), heard.findings), (AgentState::Live, vec![finding]));
    assert_eq!(agent(&registry, "registry").await.kind(), AgentKind::Registry);
    registry.stop().await;
}

#[tokio::test]
async fn a_restart_of_the_registry_makes_nobody_lost() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    register(&registry, "h", "a").await;
    registry.agents().heartbeat(beat("h", "a")).await.unwrap();
    let before = agent(&registry, "h").await;
    registry.stop().await;
    let registry = TestRegistry::start(&path, &[]).await;
    let after = agent(&registry, "h").await;
    assert_eq!((after.state(), &after.last_seen_at), (AgentState::Live, &before.last_seen_at));
    registry.agents().heartbeat(beat("h", "a")).await.unwrap();
    registry.stop().await;
}

#[tokio::test]
async fn two_processes_with_one_id_are_reported() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    assert_eq!(register(&registry, "h", "a").await.duplicate_instance_id, "");
    assert_eq!(register(&registry, "h", "b").await.duplicate_instance_id, "a");
    registry.agents().heartbeat(beat("h", "a")).await.unwrap();
    assert_eq!(agent(&registry, "h").await.duplicate_instance_id, "a");
    assert_eq!(registry.agents().heartbeat(beat("h", "c")).await.unwrap_err().code(), Code::NotFound);
    registry.stop().await;
}

#[tokio::test]
async fn an_operator_orders_an_interval() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    let known = register(&registry, "h", "a").await;
    let request = UpdateAgentRequest {
        agent: Some(Agent { interval: lasting(30), ..known.clone() }),
        update_mask: Some(prost_types::FieldMask { paths: vec!["interval".to_owned()] }),
    };
    let updated = registry.agents().update_agent(request.clone()).await.unwrap().into_inner().agent.unwrap();
    assert_eq!((&updated.interval, &updated.labels), (&lasting(30), &known.labels));
    assert_eq!(registry.agents().update_agent(request).await.unwrap_err().code(), Code::Aborted);
    let told = registry.agents().heartbeat(beat("h", "a")).await.unwrap().into_inner();
    assert_eq!(told.interval, lasting(30));
    registry.stop().await;
}

#[tokio::test]
async fn an_operator_takes_an_agent_out_of_service() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    register(&registry, "h", "a").await;
    let request = DecommissionAgentRequest {
        agent_id: "h".to_owned(),
        author: "ann".to_owned(),
        reason: "sold".to_owned(),
    };
    let gone = registry.agents().decommission_agent(request).await.unwrap().into_inner().agent.unwrap();
    assert_eq!(gone.state(), AgentState::Decommissioned);
    for refused in [
        registry.agents().heartbeat(beat("h", "a")).await.unwrap_err(),
        registry.agents().register_agent(registration("h", "a")).await.unwrap_err(),
    ] {
        assert_eq!(refused.code(), Code::FailedPrecondition);
    }
    let list = registry.agents().list_agents(ListAgentsRequest::default()).await.unwrap().into_inner();
    assert_eq!(list.agents.iter().map(|one| one.agent_id.as_str()).collect::<Vec<_>>(), ["registry"]);
    let request = ListAgentsRequest { states: vec![AgentState::Decommissioned.into()], ..Default::default() };
    assert_eq!(registry.agents().list_agents(request).await.unwrap().into_inner().agents.len(), 1);
    let request = ListAuditEventsRequest { subject: "h".to_owned(), ..Default::default() };
    let events = registry.audit().list_audit_events(request).await.unwrap().into_inner().events;
    let told: Vec<_> =
        events.iter().map(|e| (e.action.as_str(), e.author.as_str(), e.reason.as_str())).collect();
    assert_eq!(told, [("agent.decommission", "ann", "sold")]);
    registry.stop().await;
}

#[tokio::test]
async fn agents_come_in_pages() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    for i in 0..7 {
        register(&registry, &format!("h{i}"), "a").await;
    }
    let mut request =
        ListAgentsRequest { page_size: 3, kinds: vec![AgentKind::Collector.into()], ..Default::default() };
    let mut pages = Vec::new();
    loop {
        let page = registry.agents().list_agents(request.clone()).await.unwrap().into_inner();
        pages.push(page.agents.into_iter().map(|one| one.agent_id).collect::<Vec<_>>().join(" "));
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    assert_eq!(pages, ["h0 h1 h2", "h3 h4 h5", "h6"]);
    registry.stop().await;
}

#[tokio::test]
async fn a_token_of_another_list_is_refused_by_every_list() {
    let (_folder, path) = database();
    let registry = TestRegistry::start(&path, &[]).await;
    register(&registry, "h", "a").await;
    let one = ListAgentsRequest { page_size: 1, ..Default::default() };
    let page_token = registry.agents().list_agents(one).await.unwrap().into_inner().next_page_token;
    assert_ne!(page_token, "");
    let token = || page_token.clone();

    let filtered = ListAgentsRequest {
        kinds: vec![AgentKind::Gateway.into()],
        page_token: token(),
        ..Default::default()
    };
    let garbage = ListAgentsRequest { page_token: "x".to_owned(), ..Default::default() };
    let violations = ListViolationsRequest { page_token: token(), ..Default::default() };
    let boundaries = ListBoundariesRequest { page_token: token(), ..Default::default() };
    let versions =
        ListBoundaryVersionsRequest { scope: "fleet".to_owned(), page_token: token(), ..Default::default() };
    let latest = ListLatestRequest { page_token: token(), ..Default::default() };
    let audit = ListAuditEventsRequest { page_token: token(), ..Default::default() };
    for refused in [
        registry.agents().list_agents(filtered).await.unwrap_err(),
        registry.agents().list_agents(garbage).await.unwrap_err(),
        registry.violations().list_violations(violations).await.unwrap_err(),
        registry.boundaries().list_boundaries(boundaries).await.unwrap_err(),
        registry.boundaries().list_boundary_versions(versions).await.unwrap_err(),
        registry.harvest().list_latest(latest).await.unwrap_err(),
        registry.audit().list_audit_events(audit).await.unwrap_err(),
    ] {
        assert_eq!(wrong_fields(&refused), ["page_token"]);
    }
    let negative = ListAgentsRequest { page_size: -1, ..Default::default() };
    assert_eq!(wrong_fields(&registry.agents().list_agents(negative).await.unwrap_err()), ["page_size"]);
    registry.stop().await;
}
