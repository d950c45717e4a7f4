//! Agents: what they said of themselves, and what operators ordered.

use std::collections::BTreeMap;

use memharvest_proto::registry::v1::{Agent, AgentKind, AgentState, RegisterAgentRequest};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::sqlite::SqliteRow;
use sqlx::{QueryBuilder, Row, SqliteConnection};

use super::{SqliteStore, counter, fields};
use crate::store::{AgentStore, Change, Result, StoreError, StoredAgent, check_etag, etag};
use crate::time::duration_to_ns;

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(Box::new(error)))
}

fn from_json<T: DeserializeOwned>(json: &str) -> sqlx::Result<T> {
    serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn get_agent(row: &SqliteRow) -> sqlx::Result<StoredAgent> {
    let ordered_labels: Option<String> = row.try_get("ordered_labels")?;
    let labels = ordered_labels.map_or_else(|| row.try_get("labels"), Ok)?;
    let ordered_interval_ns: Option<i64> = row.try_get("ordered_interval_ns")?;
    let interval = if ordered_interval_ns.is_some() { "ordered_interval_ns" } else { "interval_ns" };
    let decommissioned_at: Option<i64> = row.try_get("decommissioned_at")?;
    let state =
        if decommissioned_at.is_some() { AgentState::Decommissioned } else { AgentState::Unspecified };
    let agent = Agent {
        agent_id: row.try_get("agent_id")?,
        kind: row.try_get("kind")?,
        name: row.try_get("name")?,
        labels: from_json(&labels)?,
        version: row.try_get("version")?,
        instance_id: row.try_get("instance_id")?,
        address: row.try_get("address")?,
        admin_address: row.try_get("admin_address")?,
        state: state.into(),
        registered_at: fields::get_instant(row, "registered_at")?,
        last_seen_at: fields::get_instant(row, "last_seen_at")?,
        interval: fields::get_duration(row, interval)?,
        findings: Vec::new(),
        duplicate_instance_id: String::new(),
        etag: etag(fields::get_count(row, "generation")?),
        capabilities: from_json(row.try_get("capabilities")?)?,
    };
    Ok(StoredAgent { agent, ordered_interval_ns })
}

async fn find(connection: &mut SqliteConnection, agent_id: &str) -> Result<Option<StoredAgent>> {
    let row = sqlx::query("SELECT * FROM agents WHERE agent_id = $1")
        .bind(agent_id)
        .fetch_optional(connection)
        .await?;
    Ok(row.as_ref().map(get_agent).transpose()?)
}

async fn find_known(connection: &mut SqliteConnection, agent_id: &str) -> Result<StoredAgent> {
    find(connection, agent_id).await?.ok_or_else(|| StoreError::NotFound(format!("agent {agent_id}")))
}

/// What operators may change, for the audit log.
#[derive(Serialize)]
struct Ordered<'a> {
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    interval_ns: Option<i64>,
    state: &'static str,
}

fn audited(agent: &Agent) -> Result<String> {
    let decommissioned = agent.state() == AgentState::Decommissioned;
    to_json(&Ordered {
        labels: &agent.labels,
        interval_ns: agent.interval.as_ref().and_then(duration_to_ns),
        state: if decommissioned { "decommissioned" } else { "in_service" },
    })
}

impl AgentStore for SqliteStore {
    async fn register_agent(&self, agent: &RegisterAgentRequest, at_ns: i64) -> Result<StoredAgent> {
        let mut transaction = self.begin().await?;
        let before = find(&mut transaction, &agent.agent_id).await?;
        if let Some(before) = &before
            && before.agent.state() == AgentState::Decommissioned
            && before.agent.instance_id == agent.instance_id
        {
            return Err(StoreError::Decommissioned(agent.agent_id.clone()));
        }
        sqlx::query(
            "INSERT INTO agents (agent_id, kind, name, version, instance_id, address, admin_address, capabilities, labels,
                                 interval_ns, registered_at, last_seen_at, generation)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $11, 1)
             ON CONFLICT (agent_id) DO UPDATE SET
                 kind = excluded.kind, name = excluded.name, version = excluded.version,
                 instance_id = excluded.instance_id, address = excluded.address, admin_address = excluded.admin_address,
                 capabilities = excluded.capabilities, labels = excluded.labels, interval_ns = excluded.interval_ns,
                 last_seen_at = max(excluded.last_seen_at, agents.last_seen_at), decommissioned_at = NULL,
                 generation = generation + ((agents.kind, agents.name, agents.version, agents.instance_id, agents.address,
                     agents.admin_address, agents.capabilities, agents.labels, coalesce(agents.interval_ns, -1),
                     agents.decommissioned_at IS NULL)
                  <> (excluded.kind, excluded.name, excluded.version, excluded.instance_id, excluded.address,
                     excluded.admin_address, excluded.capabilities, excluded.labels, coalesce(excluded.interval_ns, -1), 1))",
        )
        .bind(&agent.agent_id)
        .bind(agent.kind)
        .bind(&agent.name)
        .bind(&agent.version)
        .bind(&agent.instance_id)
        .bind(&agent.address)
        .bind(&agent.admin_address)
        .bind(to_json(&agent.capabilities)?)
        .bind(to_json(&agent.labels)?)
        .bind(fields::duration_or_null(agent.interval.as_ref()))
        .bind(at_ns)
        .execute(&mut *transaction)
        .await?;
        let stored = find_known(&mut transaction, &agent.agent_id).await?;
        if let Some(before) = before
            && before.agent.state() == AgentState::Decommissioned
        {
            let change =
                Change { author: agent.agent_id.clone(), reason: "it was started again".to_owned(), at_ns };
            let (before, after) = (audited(&before.agent)?, audited(&stored.agent)?);
            fields::audit(&mut transaction, &change, "agent.recommission", &agent.agent_id, &before, &after)
                .await?;
        }
        transaction.commit().await?;
        Ok(stored)
    }

    async fn agent(&self, agent_id: &str) -> Result<StoredAgent> {
        let mut connection = self.reader.acquire().await?;
        find_known(&mut connection, agent_id).await
    }

    async fn agents(&self, after: &str, kinds: &[AgentKind], limit: u32) -> Result<Vec<StoredAgent>> {
        let mut query = QueryBuilder::new("SELECT * FROM agents WHERE agent_id > ");
        query.push_bind(after);
        if !kinds.is_empty() {
            query.push(" AND kind IN (");
            let mut list = query.separated(", ");
            for kind in kinds {
                list.push_bind(i32::from(*kind));
            }
            query.push(")");
        }
        query.push(" ORDER BY agent_id LIMIT ").push_bind(limit);
        let rows = query.build().fetch_all(&self.reader).await?;
        Ok(rows.iter().map(get_agent).collect::<sqlx::Result<_>>()?)
    }

    async fn update_agent(
        &self,
        agent_id: &str,
        given: &str,
        labels: Option<&BTreeMap<String, String>>,
        interval_ns: Option<i64>,
        change: &Change,
    ) -> Result<StoredAgent> {
        let mut transaction = self.begin().await?;
        let before = find_known(&mut transaction, agent_id).await?;
        check_etag(&format!("agent {agent_id}"), &before.agent.etag, given)?;
        sqlx::query(
            "UPDATE agents SET ordered_labels = coalesce($2, ordered_labels),
                 ordered_interval_ns = coalesce($3, ordered_interval_ns), generation = generation + 1
             WHERE agent_id = $1",
        )
        .bind(agent_id)
        .bind(labels.map(to_json).transpose()?)
        .bind(interval_ns)
        .execute(&mut *transaction)
        .await?;
        let stored = find_known(&mut transaction, agent_id).await?;
        let (old, new) = (audited(&before.agent)?, audited(&stored.agent)?);
        fields::audit(&mut transaction, change, "agent.update", agent_id, &old, &new).await?;
        transaction.commit().await?;
        Ok(stored)
    }

    async fn decommission_agent(&self, agent_id: &str, change: &Change) -> Result<StoredAgent> {
        let mut transaction = self.begin().await?;
        let before = find_known(&mut transaction, agent_id).await?;
        if before.agent.state() == AgentState::Decommissioned {
            return Ok(before);
        }
        sqlx::query(
            "UPDATE agents SET decommissioned_at = $2, generation = generation + 1 WHERE agent_id = $1",
        )
        .bind(agent_id)
        .bind(change.at_ns)
        .execute(&mut *transaction)
        .await?;
        let stored = find_known(&mut transaction, agent_id).await?;
        let (old, new) = (audited(&before.agent)?, audited(&stored.agent)?);
        fields::audit(&mut transaction, change, "agent.decommission", agent_id, &old, &new).await?;
        transaction.commit().await?;
        Ok(stored)
    }

    async fn checkpoint_agents(&self, heard: &[(String, i64)], listened_until_ns: i64) -> Result<()> {
        let mut transaction = self.begin().await?;
        for (agent_id, last_seen_ns) in heard {
            sqlx::query("UPDATE agents SET last_seen_at = $2 WHERE agent_id = $1 AND last_seen_at < $2")
                .bind(agent_id)
                .bind(last_seen_ns)
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query("UPDATE counters SET value = $1 WHERE name = 'listened_until'")
            .bind(listened_until_ns)
            .execute(&mut *transaction)
            .await?;
        transaction.commit().await?;
        Ok(())
    }

    async fn listened_until_ns(&self) -> Result<i64> {
        Ok(fields::figure(counter(&self.reader, "listened_until").await?))
    }
}
