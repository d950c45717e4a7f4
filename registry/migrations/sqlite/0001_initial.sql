-- Instants are nanoseconds since 1970 (UTC), lengths of time are nanoseconds, except in the tables of history, which count
-- seconds to stay small. Figures of memory are bytes. NULL is "not known", never zero.

-- Named numbers that only grow: revisions that watches resume from, and how far the registry has listened to agents.
CREATE TABLE counters (
    name  TEXT NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counters (name, value) VALUES ('boundary_revision', 0), ('violation_sequence', 0), ('listened_until', 0);

CREATE TABLE agents (
    agent_id             TEXT NOT NULL PRIMARY KEY,
    kind                 INTEGER NOT NULL,
    name                 TEXT NOT NULL,
    version              TEXT NOT NULL,
    instance_id          TEXT NOT NULL,
    address              TEXT NOT NULL,
    admin_address        TEXT NOT NULL,
    capabilities         TEXT NOT NULL,          -- JSON array
    labels               TEXT NOT NULL,          -- JSON object, as the agent reports them
    ordered_labels       TEXT,                   -- JSON object, as an operator ordered them; wins where set
    interval_ns          INTEGER,
    ordered_interval_ns  INTEGER,
    registered_at        INTEGER NOT NULL,
    last_seen_at         INTEGER NOT NULL,       -- written in batches: see the checkpoint
    decommissioned_at    INTEGER,
    generation           INTEGER NOT NULL        -- grows with every change but last_seen_at; makes the etag
) STRICT, WITHOUT ROWID;

-- Every version of every boundary, in the order of the changes. The newest of a scope is what holds there.
CREATE TABLE boundary_versions (
    revision   INTEGER NOT NULL PRIMARY KEY,
    scope      TEXT NOT NULL,
    version    INTEGER NOT NULL,
    fields     TEXT NOT NULL,                    -- JSON object
    author     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    deleted    INTEGER NOT NULL,
    UNIQUE (scope, version)
) STRICT;

CREATE TABLE boundaries (
    scope    TEXT NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL REFERENCES boundary_versions (revision)
) STRICT, WITHOUT ROWID;

CREATE TRIGGER boundary_versions_no_update BEFORE UPDATE ON boundary_versions
BEGIN SELECT RAISE(ABORT, 'versions of boundaries are only ever appended'); END;
CREATE TRIGGER boundary_versions_no_delete BEFORE DELETE ON boundary_versions
BEGIN SELECT RAISE(ABORT, 'versions of boundaries are only ever appended'); END;

-- Hosts and machines that history speaks of; their small keys keep its rows small.
CREATE TABLE hosts (
    host_key INTEGER NOT NULL PRIMARY KEY,
    host_id  TEXT NOT NULL UNIQUE,
    name     TEXT NOT NULL,
    latest_s INTEGER                             -- start of its newest window
) STRICT;

CREATE TABLE vms (
    vm_key   INTEGER NOT NULL PRIMARY KEY,
    vm_id    BLOB NOT NULL UNIQUE,               -- the UUID's 16 bytes
    name     TEXT NOT NULL,
    host_key INTEGER NOT NULL,                   -- where its newest window was
    latest_s INTEGER NOT NULL                    -- start of its newest window
) STRICT;
CREATE INDEX vms_by_host ON vms (host_key, vm_id);

-- A window begins at hour * 3600 + offset_s. Keyed by hour first: an hour's rows lie together, so that recording touches few
-- pages however long the history is, a machine's history is one short range an hour, and old hours are pruned from the front.
CREATE TABLE vm_rollups (
    hour             INTEGER NOT NULL,
    vm_key           INTEGER NOT NULL,
    offset_s         INTEGER NOT NULL,
    window_s         INTEGER,                    -- NULL: 300, the usual length
    host_key         INTEGER NOT NULL,
    readings         INTEGER NOT NULL,
    quality          INTEGER NOT NULL,
    allocated        INTEGER,
    maximum          INTEGER,
    rss_max          INTEGER,
    rss_mean         INTEGER,
    demand_max       INTEGER,
    demand_mean      INTEGER,
    predicted_rss    INTEGER,
    predicted_demand INTEGER,
    harvestable      INTEGER,
    reclaimable      INTEGER,
    PRIMARY KEY (hour, vm_key, offset_s)
) STRICT, WITHOUT ROWID;

CREATE TABLE host_rollups (
    hour               INTEGER NOT NULL,
    host_key           INTEGER NOT NULL,
    offset_s           INTEGER NOT NULL,
    window_s           INTEGER,                  -- NULL: 300
    readings           INTEGER NOT NULL,
    vms_running        INTEGER NOT NULL,
    total              INTEGER,
    available_min      INTEGER,
    allocated          INTEGER,
    rss_max            INTEGER,
    harvestable        INTEGER,
    pooled_harvestable INTEGER,
    reclaimable        INTEGER,
    PRIMARY KEY (hour, host_key, offset_s)
) STRICT, WITHOUT ROWID;

CREATE TABLE host_harvests (
    host_key     INTEGER NOT NULL PRIMARY KEY,
    read_at      INTEGER NOT NULL,
    harvestable  INTEGER NOT NULL,
    valid_until  INTEGER NOT NULL,
    breaker_open INTEGER NOT NULL
) STRICT;

CREATE TABLE coverage (
    start_s               INTEGER NOT NULL,
    host_key              INTEGER NOT NULL,
    signal                INTEGER NOT NULL,
    horizon_ns            INTEGER NOT NULL,
    target_violation_rate REAL NOT NULL,
    judged                INTEGER NOT NULL,
    held                  INTEGER NOT NULL,
    PRIMARY KEY (start_s, host_key, signal, horizon_ns, target_violation_rate)
) STRICT, WITHOUT ROWID;

CREATE TABLE violations (
    violation_key         INTEGER NOT NULL PRIMARY KEY,
    violation_id          TEXT NOT NULL UNIQUE,
    sequence              INTEGER NOT NULL UNIQUE,   -- the newest change of this violation among all changes
    revision              INTEGER NOT NULL,          -- the predictor's count of changes of this episode
    predictor_id          TEXT NOT NULL,
    vm_id                 BLOB NOT NULL,
    vm_name               TEXT NOT NULL,
    host_id               TEXT NOT NULL,
    kind                  INTEGER NOT NULL,
    signal                INTEGER NOT NULL,
    state                 INTEGER NOT NULL,
    opened_at             INTEGER NOT NULL,
    closed_at             INTEGER,
    predicted             INTEGER NOT NULL,
    actual                INTEGER NOT NULL,
    overshoot             INTEGER NOT NULL,
    overshoot_ratio       REAL NOT NULL,
    allocated             INTEGER NOT NULL,
    horizon_ns            INTEGER,
    target_violation_rate REAL NOT NULL,
    model_version         TEXT NOT NULL,
    boundary_version      TEXT NOT NULL,
    close_reason          TEXT NOT NULL,
    traceparent           TEXT NOT NULL,
    acknowledged_by       TEXT NOT NULL DEFAULT '',
    acknowledged_at       INTEGER,
    note                  TEXT NOT NULL DEFAULT '',
    explained_by          TEXT NOT NULL DEFAULT '',
    explained_at          INTEGER,
    explanation           TEXT NOT NULL DEFAULT ''
) STRICT;
CREATE INDEX violations_newest ON violations (opened_at, violation_id);
CREATE INDEX violations_open ON violations (opened_at, violation_id) WHERE state = 1;
CREATE INDEX violations_by_vm ON violations (vm_id, opened_at, violation_id);
CREATE INDEX violations_by_host ON violations (host_id, opened_at, violation_id);
CREATE INDEX violations_count ON violations (kind, state);

-- The readings around a violation, apart from it so that lists stay quick.
CREATE TABLE violation_series (
    violation_key INTEGER NOT NULL PRIMARY KEY REFERENCES violations (violation_key),
    points        BLOB NOT NULL                  -- a memharvest.registry.v1.Violation with nothing but its series
) STRICT;

CREATE TABLE audit_events (
    event_id    INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at          INTEGER NOT NULL,
    author      TEXT NOT NULL,
    action      TEXT NOT NULL,
    subject     TEXT NOT NULL,
    reason      TEXT NOT NULL,
    before_json TEXT NOT NULL,
    after_json  TEXT NOT NULL
) STRICT;
CREATE INDEX audit_events_by_subject ON audit_events (subject, event_id);

CREATE TRIGGER audit_events_no_update BEFORE UPDATE ON audit_events
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever appended to'); END;
CREATE TRIGGER audit_events_no_delete BEFORE DELETE ON audit_events
BEGIN SELECT RAISE(ABORT, 'the audit log is only ever appended to'); END;
