//! `/agents`: the processes of the mesh. `/audit`: who changed what.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use memharvest_proto::registry::v1 as wire;
use memharvest_services::proto_time::to_proto;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::hosts::Finding;
use super::problem::Problem;
use super::query::{Page, Query};
use super::text;
use super::words::{AgentKind, AgentState, Span};
use super::{App, Problems};
use crate::wire::{span, time};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_agents)).routes(routes!(list_audit_events))
}

/// A process of the mesh as the registry knows it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Agent {
    /// Its identity; a collector's is its host's.
    id: String,
    /// Which process it is.
    kind: Option<AgentKind>,
    /// Name of the host.
    name: Option<String>,
    /// Labels of the host.
    labels: BTreeMap<String, String>,
    /// Whether it is heard.
    state: Option<AgentState>,
    version: Option<String>,
    /// Identity of the running process: tells a clone from a restart.
    instance_id: Option<String>,
    /// Where its gRPC listens.
    address: Option<String>,
    /// Where its metrics and probes are.
    admin_address: Option<String>,
    registered_at: Option<Timestamp>,
    last_seen_at: Option<Timestamp>,
    /// How often it samples.
    interval: Option<Span>,
    /// What keeps its machines from being measured well.
    findings: Vec<Finding>,
    /// Another live process that uses the same identity; null: none.
    duplicate_instance_id: Option<String>,
    /// What it can do, such as `libvirt`.
    capabilities: Vec<String>,
}

impl From<wire::Agent> for Agent {
    fn from(agent: wire::Agent) -> Self {
        Self {
            id: agent.agent_id,
            kind: AgentKind::of(agent.kind),
            name: text(&agent.name),
            labels: agent.labels,
            state: AgentState::of(agent.state),
            version: text(&agent.version),
            instance_id: text(&agent.instance_id),
            address: text(&agent.address),
            admin_address: text(&agent.admin_address),
            registered_at: time(agent.registered_at.as_ref()),
            last_seen_at: time(agent.last_seen_at.as_ref()),
            interval: span(agent.interval.as_ref()).map(Span),
            findings: agent.findings.iter().map(Finding::from).collect(),
            duplicate_instance_id: text(&agent.duplicate_instance_id),
            capabilities: agent.capabilities,
        }
    }
}

/// A page of agents.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AgentList {
    /// The agents, ordered by identity.
    agents: Vec<Agent>,
    /// Empty: this was the last page.
    next_page_token: String,
}

/// One change.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEvent {
    /// Grows with time.
    id: u64,
    at: Option<Timestamp>,
    author: String,
    /// What was done, such as `boundary.set`.
    action: String,
    /// To what, such as a scope.
    subject: String,
    reason: Option<String>,
    /// As it was before; null: it was not there.
    #[schema(value_type = Option<Object>)]
    before: Option<serde_json::Value>,
    /// As it is after; null: it is gone.
    #[schema(value_type = Option<Object>)]
    after: Option<serde_json::Value>,
}

impl From<wire::AuditEvent> for AuditEvent {
    fn from(event: wire::AuditEvent) -> Self {
        let json = |stored: &str| {
            text(stored)
                .map(|stored| serde_json::from_str(&stored).unwrap_or(serde_json::Value::String(stored)))
        };
        Self {
            id: event.event_id,
            at: time(event.at.as_ref()),
            before: json(&event.before_json),
            after: json(&event.after_json),
            author: event.author,
            action: event.action,
            subject: event.subject,
            reason: text(&event.reason),
        }
    }
}

/// A page of changes.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AuditEventList {
    /// The changes, newest first.
    events: Vec<AuditEvent>,
    /// Empty: this was the last page.
    next_page_token: String,
}

/// Processes of the mesh, ordered by identity
#[utoipa::path(get, path = "/agents", tag = "agents",
    params(
        Page,
        ("kind" = Option<AgentKind>, Query, description = "Only of this kind"),
        ("state" = Option<AgentState>, Query, description = "Only in this state; by default all but the decommissioned"),
    ),
    responses((status = 200, description = "As asked", body = AgentList), Problems))]
async fn list_agents(State(app): State<App>, mut query: Query) -> Result<Json<AgentList>, Problem> {
    let page = query.page();
    let kind: Option<AgentKind> = query.one("kind");
    let state: Option<AgentState> = query.one("state");
    query.finish()?;
    let request = wire::ListAgentsRequest {
        page_size: page.wire_size(),
        page_token: page.token,
        kinds: kind.into_iter().map(|kind| kind.wire().into()).collect(),
        states: state.into_iter().map(|state| state.wire().into()).collect(),
    };
    let found = app.upstream.agents().list_agents(request).await?.into_inner();
    let agents = found.agents.into_iter().map(Agent::from).collect();
    Ok(Json(AgentList { agents, next_page_token: found.next_page_token }))
}

/// Who changed what, when and why; newest first
#[utoipa::path(get, path = "/audit", tag = "audit",
    params(
        Page,
        ("subject" = Option<String>, Query, description = "Only changes of this subject, such as a scope"),
        ("author" = Option<String>, Query, description = "Only changes by this author"),
        ("action" = Option<String>, Query, description = "Only this action, such as `boundary.set`, or all of a family, such as `boundary`"),
        ("since" = Option<Timestamp>, Query, description = "Only at or after this time"),
        ("until" = Option<Timestamp>, Query, description = "Only before this time"),
    ),
    responses((status = 200, description = "As asked", body = AuditEventList), Problems))]
async fn list_audit_events(
    State(app): State<App>,
    mut query: Query,
) -> Result<Json<AuditEventList>, Problem> {
    let page = query.page();
    let request = wire::ListAuditEventsRequest {
        page_size: page.wire_size(),
        page_token: page.token,
        subject: query.one("subject").unwrap_or_default(),
        since: query.time("since").map(to_proto),
        author: query.one("author").unwrap_or_default(),
        action: query.one("action").unwrap_or_default(),
        until: query.time("until").map(to_proto),
    };
    query.finish()?;
    let found = app.upstream.audit().list_audit_events(request).await?.into_inner();
    let events = found.events.into_iter().map(AuditEvent::from).collect();
    Ok(Json(AuditEventList { events, next_page_token: found.next_page_token }))
}
