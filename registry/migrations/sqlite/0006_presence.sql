-- What an agent last found, and which other processes used its id: written in batches with the heartbeats.
ALTER TABLE agents ADD COLUMN findings BLOB NOT NULL DEFAULT x'';   -- a memharvest.registry.v1.Agent with nothing but its findings
CREATE INDEX agents_by_name ON agents (name, kind, registered_at);

CREATE TABLE other_instances (
    agent_id     TEXT NOT NULL,
    instance_id  TEXT NOT NULL,
    last_seen_at INTEGER NOT NULL,
    PRIMARY KEY (agent_id, instance_id)
) STRICT, WITHOUT ROWID;

-- The hour from which on windows may still have to be merged to hourly ones.
INSERT INTO counters (name, value) VALUES ('vms_folded_until', 0), ('hosts_folded_until', 0);
