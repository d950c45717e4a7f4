//! Agents: what they said of themselves, and what operators ordered.

use std::collections::BTreeMap;

use memharvest_proto::registry::v1::{Agent, AgentKind, AgentState, RegisterAgentRequest};
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::{QueryBuilder, Row as _};

use super::{Connection, Database, Row, SqlStore, counter, fields};
use crate::store::{AgentStore, Change, Result, SignOfLife, StoreError, StoredAgent, check_etag, etag};
use crate::time::duration_to_ns;

/// By their names, never `*`: a column that a newer registry adds must not change what this one's prepared statements return.
const COLUMNS: &str = "agent_id, kind, name, version, instance_id, address, admin_address, capabilities, labels, ordered_labels, interval_ns,
    ordered_interval_ns, registered_at, last_seen_at, decommissioned_at, generation, findings";

/// Signs of life in one statement.
const SIGNS: usize = 500;

/// How long a process that used another one's id is remembered, in nanoseconds: a day.
const REMEMBERED_NS: i64 = 86_400_000_000_000;

fn to_json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed(Box::new(error)))
}

fn from_json<T: DeserializeOwned>(json: &str) -> sqlx::Result<T> {
    serde_json::from_str(json).map_err(|error| sqlx::Error::Decode(Box::new(error)))
}

fn get_agent(row: &Row) -> sqlx::Result<StoredAgent> {
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
        findings: Agent::decode(row.try_get::<&[u8], _>("findings")?)
            .map_err(|error| sqlx::Error::Decode(Box::new(error)))?
            .findings,
        duplicate_instance_id: String::new(),
        etag: etag(fields::get_count(row, "generation")?),
        capabilities: from_json(row.try_get("capabilities")?)?,
    };
    Ok(StoredAgent { agent, ordered_interval_ns, others: BTreeMap::new(), namesake: None })
}

fn by_id<'a>(agents: &'a mut [StoredAgent], agent_id: &str) -> Option<&'a mut StoredAgent> {
    let at = agents.binary_search_by(|stored| stored.agent.agent_id.as_str().cmp(agent_id)).ok()?;
    agents.get_mut(at)
}

/// Adds to agents, which are ordered by id, who else uses their ids and names.
async fn add_likenesses(connection: &mut Connection, agents: &mut [StoredAgent]) -> sqlx::Result<()> {
    let (Some(first), Some(last)) = (agents.first(), agents.last()) else { return Ok(()) };
    let (first, last) = (first.agent.agent_id.clone(), last.agent.agent_id.clone());
    let others = sqlx::query(
        "SELECT agent_id, instance_id, last_seen_at FROM other_instances WHERE agent_id >= $1 AND agent_id <= $2",
    )
    .bind(&first)
    .bind(&last)
    .fetch_all(&mut *connection)
    .await?;
    // An older agent with the same name: a host that was reinstalled comes back under a new id.
    let namesakes = sqlx::query(
        "SELECT agent_id, namesake FROM
             (SELECT a.agent_id, (SELECT b.agent_id FROM agents b WHERE b.name = a.name AND b.kind = a.kind
                 AND b.registered_at < a.registered_at AND b.decommissioned_at IS NULL
                 ORDER BY b.registered_at DESC LIMIT 1) AS namesake
              FROM agents a WHERE a.agent_id >= $1 AND a.agent_id <= $2 AND a.kind = $3 AND a.name <> '') AS found
         WHERE namesake IS NOT NULL",
    )
    .bind(&first)
    .bind(&last)
    .bind(i32::from(AgentKind::Collector))
    .fetch_all(connection)
    .await?;
    for row in others {
        if let Some(stored) = by_id(agents, row.try_get("agent_id")?) {
            stored.others.insert(row.try_get("instance_id")?, row.try_get("last_seen_at")?);
        }
    }
    for row in namesakes {
        if let Some(stored) = by_id(agents, row.try_get("agent_id")?) {
            stored.namesake = row.try_get("namesake")?;
        }
    }
    Ok(())
}

async fn find(connection: &mut Connection, agent_id: &str) -> Result<Option<StoredAgent>> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM agents WHERE agent_id = $1")))
        .bind(agent_id)
        .fetch_optional(&mut *connection)
        .await?;
    Ok(row.as_ref().map(get_agent).transpose()?)
}

/// Notes when a process was heard that does not hold the id, or no longer.
async fn note_other(connection: &mut Connection, agent: &Agent, keeps_id: &str) -> sqlx::Result<()> {
    sqlx::query("DELETE FROM other_instances WHERE agent_id = $1 AND instance_id = $2")
        .bind(&agent.agent_id)
        .bind(keeps_id)
        .execute(&mut *connection)
        .await?;
    if agent.instance_id == keeps_id {
        return Ok(());
    }
    sqlx::query(
        "INSERT INTO other_instances (agent_id, instance_id, last_seen_at) VALUES ($1, $2, $3)
         ON CONFLICT (agent_id, instance_id) DO UPDATE SET last_seen_at = excluded.last_seen_at",
    )
    .bind(&agent.agent_id)
    .bind(&agent.instance_id)
    .bind(fields::instant_or_null(agent.last_seen_at.as_ref()))
    .execute(connection)
    .await?;
    Ok(())
}

/// Begins a statement on signs of life, as a table `heard`.
fn with_heard(signs: &[SignOfLife]) -> QueryBuilder<Database> {
    let mut query = QueryBuilder::new("WITH heard (agent_id, instance_id, at, findings) AS (");
    query.push_values(signs, |mut row, sign| {
        let findings =
            sign.findings.clone().map(|findings| Agent { findings, ..Agent::default() }.encode_to_vec());
        row.push_bind(sign.agent_id.clone())
            .push_bind(sign.instance_id.clone())
            .push_bind(sign.last_seen_ns)
            .push_bind(findings);
    });
    query.push(") ");
    query
}

async fn find_known(connection: &mut Connection, agent_id: &str) -> Result<StoredAgent> {
    let found = find(connection, agent_id).await?;
    let mut found = [found.ok_or_else(|| StoreError::NotFound(format!("agent {agent_id}")))?];
    add_likenesses(connection, &mut found).await?;
    let [found] = found;
    Ok(found)
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

impl AgentStore for SqlStore {
    async fn register_agent(&self, agent: &RegisterAgentRequest, at_ns: i64) -> Result<StoredAgent> {
        let mut transaction = self.begin_alone(&agent.agent_id).await?;
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
                 last_seen_at = CASE WHEN excluded.last_seen_at > agents.last_seen_at THEN excluded.last_seen_at
                     ELSE agents.last_seen_at END,
                 findings = CASE WHEN excluded.instance_id = agents.instance_id THEN agents.findings ELSE excluded.findings END,
                 decommissioned_at = NULL,
                 generation = agents.generation + CASE WHEN agents.decommissioned_at IS NULL
                     AND (agents.kind, agents.name, agents.version, agents.instance_id, agents.address,
                         agents.admin_address, agents.capabilities, agents.labels, coalesce(agents.interval_ns, -1))
                       = (excluded.kind, excluded.name, excluded.version, excluded.instance_id, excluded.address,
                         excluded.admin_address, excluded.capabilities, excluded.labels, coalesce(excluded.interval_ns, -1))
                     THEN 0 ELSE 1 END",
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
        if let Some(before) = &before {
            note_other(&mut transaction, &before.agent, &agent.instance_id).await?;
        }
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
        find_known(&mut *self.reader.acquire().await?, agent_id).await
    }

    async fn agents(&self, after: &str, kinds: &[AgentKind], limit: u32) -> Result<Vec<StoredAgent>> {
        let mut query =
            QueryBuilder::<Database>::new(format!("SELECT {COLUMNS} FROM agents WHERE agent_id > "));
        query.push_bind(after);
        if !kinds.is_empty() {
            query.push(" AND kind IN (");
            let mut list = query.separated(", ");
            for kind in kinds {
                list.push_bind(i32::from(*kind));
            }
            query.push(")");
        }
        query.push(" ORDER BY agent_id LIMIT ").push_bind(i64::from(limit));
        let mut connection = self.reader.acquire().await?;
        let rows = query.build().fetch_all(&mut *connection).await?;
        let mut agents = rows.iter().map(get_agent).collect::<sqlx::Result<Vec<_>>>()?;
        add_likenesses(&mut connection, &mut agents).await?;
        Ok(agents)
    }

    async fn update_agent(
        &self,
        agent_id: &str,
        given: &str,
        labels: Option<&BTreeMap<String, String>>,
        interval_ns: Option<i64>,
        change: &Change,
    ) -> Result<StoredAgent> {
        let mut transaction = self.begin_alone(agent_id).await?;
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
        let mut transaction = self.begin_alone(agent_id).await?;
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

    async fn checkpoint_agents(&self, heard: &[SignOfLife], listened_until_ns: i64) -> Result<()> {
        let mut transaction = self.begin_alone("heartbeats").await?;
        for signs in heard.chunks(SIGNS) {
            // Another registry may have heard the agent later than this one.
            let mut query = with_heard(signs);
            query.push(
                "UPDATE agents SET last_seen_at = heard.at, findings = coalesce(heard.findings, agents.findings) FROM heard
                 WHERE agents.agent_id = heard.agent_id AND agents.instance_id = heard.instance_id
                     AND agents.last_seen_at < heard.at",
            );
            query.build().persistent(false).execute(&mut *transaction).await?;
            let mut query = with_heard(signs);
            query.push(
                "INSERT INTO other_instances (agent_id, instance_id, last_seen_at)
                 SELECT heard.agent_id, heard.instance_id, heard.at FROM heard
                 JOIN agents ON agents.agent_id = heard.agent_id WHERE agents.instance_id <> heard.instance_id
                 ON CONFLICT (agent_id, instance_id) DO UPDATE SET last_seen_at = excluded.last_seen_at
                 WHERE excluded.last_seen_at > other_instances.last_seen_at",
            );
            query.build().persistent(false).execute(&mut *transaction).await?;
        }
        sqlx::query("DELETE FROM other_instances WHERE last_seen_at < $1")
            .bind(listened_until_ns.saturating_sub(REMEMBERED_NS))
            .execute(&mut *transaction)
            .await?;
        sqlx::query("UPDATE counters SET value = $1 WHERE name = 'listened_until' AND value < $1")
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
