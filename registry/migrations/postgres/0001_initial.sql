-- The same figures as in the tables of SQLite: instants are nanoseconds since 1970 (UTC), lengths of time are nanoseconds, except in the
-- tables of history, which count hours and seconds to stay small. Figures of memory are bytes. NULL is "not known", never zero.
-- Texts that are sorted by are sorted byte by byte (collation C), as SQLite does.
--
-- A migration only adds what the former version can live without (expand), so that both run side by side while an upgrade goes from
-- replica to replica. One that takes away what the former version needs (contract) sets the counter `needs_migration` to its own number:
-- a program that does not know that migration refuses to start.

-- Named numbers that only grow: revisions that watches resume from, and how far a registry has listened to agents.
CREATE TABLE counters (
    name  TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value BIGINT NOT NULL
);

INSERT INTO counters (name, value)
VALUES ('boundary_revision', 0), ('violation_sequence', 0), ('listened_until', 0), ('needs_migration', 1);

CREATE TABLE agents (
    agent_id             TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind                 INTEGER NOT NULL,
    name                 TEXT NOT NULL,
    version              TEXT NOT NULL,
    instance_id          TEXT NOT NULL,
    address              TEXT NOT NULL,
    admin_address        TEXT NOT NULL,
    capabilities         TEXT NOT NULL,               -- JSON array
    labels               TEXT NOT NULL,               -- JSON object, as the agent reports them
    ordered_labels       TEXT,                        -- JSON object, as an operator ordered them; wins where set
    interval_ns          BIGINT,
    ordered_interval_ns  BIGINT,
    registered_at        BIGINT NOT NULL,
    last_seen_at         BIGINT NOT NULL,             -- written in batches: see the checkpoint
    decommissioned_at    BIGINT,
    generation           BIGINT NOT NULL,             -- grows with every change but last_seen_at; makes the etag
    findings             BYTEA NOT NULL DEFAULT ''    -- a memharvest.registry.v1.Agent with nothing but its findings
) WITH (fillfactor = 70);
CREATE INDEX agents_by_name ON agents (name, kind, registered_at);

-- Processes that used the id of an agent without holding it, or no longer.
CREATE TABLE other_instances (
    agent_id     TEXT COLLATE "C" NOT NULL,
    instance_id  TEXT COLLATE "C" NOT NULL,
    last_seen_at BIGINT NOT NULL,
    PRIMARY KEY (agent_id, instance_id)
);

-- Every version of every boundary, in the order of the changes. The newest of a scope is what holds there.
CREATE TABLE boundary_versions (
    revision   BIGINT NOT NULL PRIMARY KEY,
    scope      TEXT COLLATE "C" NOT NULL,
    version    BIGINT NOT NULL,
    fields     TEXT NOT NULL,                         -- JSON object
    author     TEXT NOT NULL,
    reason     TEXT NOT NULL,
    updated_at BIGINT NOT NULL,
    deleted    BOOLEAN NOT NULL,
    UNIQUE (scope, version)
);

CREATE TABLE boundaries (
    scope    TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    revision BIGINT NOT NULL REFERENCES boundary_versions (revision)
);

CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION '% is only ever appended to', TG_TABLE_NAME; END $$;
CREATE TRIGGER boundary_versions_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON boundary_versions
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();

-- Hosts and machines that history speaks of; their small keys keep its rows small.
CREATE TABLE hosts (
    host_key INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    host_id  TEXT COLLATE "C" NOT NULL UNIQUE,
    name     TEXT NOT NULL,
    latest_s BIGINT                                   -- start of its newest window
) WITH (fillfactor = 70);

CREATE TABLE vms (
    vm_key   INTEGER GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    vm_id    BYTEA NOT NULL UNIQUE,                   -- the UUID's 16 bytes
    name     TEXT NOT NULL,
    host_key INTEGER NOT NULL,                        -- where its newest window was
    latest_s BIGINT NOT NULL                          -- start of its newest window
) WITH (fillfactor = 70);
CREATE INDEX vms_by_host ON vms (host_key, vm_id);

-- Windows as they were recorded, a partition a day: `vm_rollups_20370` is the 20,370th day since 1970. A window begins at
-- hour * 3600 + offset_s. Keyed by hour first: an hour's rows lie together, so that recording touches few pages however long the
-- history is. Once a day is old it is merged to hourly windows, and its partition dropped.
CREATE TABLE vm_rollups (
    hour             INTEGER NOT NULL,
    vm_key           INTEGER NOT NULL,
    offset_s         INTEGER NOT NULL,
    window_s         INTEGER,                         -- NULL: 300, the usual length
    host_key         INTEGER NOT NULL,
    quality          INTEGER NOT NULL,
    readings         BIGINT NOT NULL,
    allocated        BIGINT,
    maximum          BIGINT,
    rss_max          BIGINT,
    rss_mean         BIGINT,
    demand_max       BIGINT,
    demand_mean      BIGINT,
    predicted_rss    BIGINT,
    predicted_demand BIGINT,
    harvestable      BIGINT,
    reclaimable      BIGINT,
    PRIMARY KEY (hour, vm_key, offset_s)
) PARTITION BY RANGE (hour);

-- Hourly windows, a partition for 30 days: `vm_hours_679` is the 679th such span since 1970.
CREATE TABLE vm_hours (
    hour             INTEGER NOT NULL,
    vm_key           INTEGER NOT NULL,
    window_s         INTEGER NOT NULL,
    host_key         INTEGER NOT NULL,
    quality          INTEGER NOT NULL,
    readings         BIGINT NOT NULL,
    allocated        BIGINT,
    maximum          BIGINT,
    rss_max          BIGINT,
    rss_mean         BIGINT,
    demand_max       BIGINT,
    demand_mean      BIGINT,
    predicted_rss    BIGINT,
    predicted_demand BIGINT,
    harvestable      BIGINT,
    reclaimable      BIGINT,
    PRIMARY KEY (vm_key, hour)
) PARTITION BY RANGE (hour);

CREATE TABLE host_rollups (
    hour               INTEGER NOT NULL,
    host_key           INTEGER NOT NULL,
    offset_s           INTEGER NOT NULL,
    window_s           INTEGER,                       -- NULL: 300
    readings           BIGINT NOT NULL,
    vms_running        BIGINT NOT NULL,
    total              BIGINT,
    available_min      BIGINT,
    allocated          BIGINT,
    rss_max            BIGINT,
    harvestable        BIGINT,
    pooled_harvestable BIGINT,
    reclaimable        BIGINT,
    PRIMARY KEY (hour, host_key, offset_s)
) PARTITION BY RANGE (hour);

CREATE TABLE host_hours (
    hour               INTEGER NOT NULL,
    host_key           INTEGER NOT NULL,
    window_s           INTEGER NOT NULL,
    readings           BIGINT NOT NULL,
    vms_running        BIGINT NOT NULL,
    total              BIGINT,
    available_min      BIGINT,
    allocated          BIGINT,
    rss_max            BIGINT,
    harvestable        BIGINT,
    pooled_harvestable BIGINT,
    reclaimable        BIGINT,
    PRIMARY KEY (host_key, hour)
) PARTITION BY RANGE (hour);

CREATE TABLE host_harvests (
    host_key     INTEGER NOT NULL PRIMARY KEY,
    read_at      BIGINT NOT NULL,
    harvestable  BIGINT NOT NULL,
    valid_until  BIGINT NOT NULL,
    breaker_open BOOLEAN NOT NULL
) WITH (fillfactor = 70);

-- A partition for 30 days.
CREATE TABLE coverage (
    start_s               BIGINT NOT NULL,
    host_key              INTEGER NOT NULL,
    signal                INTEGER NOT NULL,
    horizon_ns            BIGINT NOT NULL,
    target_violation_rate DOUBLE PRECISION NOT NULL,
    judged                BIGINT NOT NULL,
    held                  BIGINT NOT NULL,
    PRIMARY KEY (start_s, host_key, signal, horizon_ns, target_violation_rate)
) PARTITION BY RANGE (start_s);

CREATE TABLE violations (
    violation_key         BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    violation_id          TEXT COLLATE "C" NOT NULL UNIQUE,
    sequence              BIGINT NOT NULL UNIQUE,     -- the newest change of this violation among all changes
    revision              BIGINT NOT NULL,            -- the predictor's count of changes of this episode
    predictor_id          TEXT NOT NULL,
    vm_id                 BYTEA NOT NULL,
    vm_name               TEXT NOT NULL,
    host_id               TEXT COLLATE "C" NOT NULL,
    kind                  INTEGER NOT NULL,
    signal                INTEGER NOT NULL,
    state                 INTEGER NOT NULL,
    opened_at             BIGINT NOT NULL,
    closed_at             BIGINT,
    predicted             BIGINT NOT NULL,
    actual                BIGINT NOT NULL,
    overshoot             BIGINT NOT NULL,
    overshoot_ratio       DOUBLE PRECISION NOT NULL,
    allocated             BIGINT NOT NULL,
    horizon_ns            BIGINT,
    target_violation_rate DOUBLE PRECISION NOT NULL,
    model_version         TEXT NOT NULL,
    boundary_version      TEXT NOT NULL,
    close_reason          TEXT NOT NULL,
    traceparent           TEXT NOT NULL,
    acknowledged_by       TEXT NOT NULL DEFAULT '',
    acknowledged_at       BIGINT,
    note                  TEXT NOT NULL DEFAULT '',
    explained_by          TEXT NOT NULL DEFAULT '',
    explained_at          BIGINT,
    explanation           TEXT NOT NULL DEFAULT ''
);
CREATE INDEX violations_newest ON violations (opened_at, violation_id);
CREATE INDEX violations_open ON violations (opened_at, violation_id) WHERE state = 1;
CREATE INDEX violations_by_vm ON violations (vm_id, opened_at, violation_id);
CREATE INDEX violations_by_host ON violations (host_id, opened_at, violation_id);
CREATE INDEX violations_by_kind ON violations (kind, opened_at, violation_id, state);

-- The readings around a violation, apart from it so that lists stay quick.
CREATE TABLE violation_series (
    violation_key BIGINT NOT NULL PRIMARY KEY REFERENCES violations (violation_key),
    points        BYTEA NOT NULL                      -- a memharvest.registry.v1.Violation with nothing but its series
);

CREATE TABLE audit_events (
    event_id    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at          BIGINT NOT NULL,
    author      TEXT COLLATE "C" NOT NULL,
    action      TEXT COLLATE "C" NOT NULL,
    subject     TEXT COLLATE "C" NOT NULL,
    reason      TEXT NOT NULL,
    before_json TEXT NOT NULL,
    after_json  TEXT NOT NULL
);
CREATE INDEX audit_events_by_subject ON audit_events (subject, event_id);
CREATE TRIGGER audit_events_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit_events
FOR EACH STATEMENT EXECUTE FUNCTION refuse_change();
