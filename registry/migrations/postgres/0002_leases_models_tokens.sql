-- Leases. Those that have ended are kept for a while, so that a late retry of a reservation hears what became of it.
CREATE TABLE leases (
    lease_key       BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- in the order of the reservations
    lease_id        TEXT COLLATE "C" NOT NULL UNIQUE,
    sequence        BIGINT NOT NULL UNIQUE,          -- the newest change of this lease among all changes
    host_id         TEXT COLLATE "C" NOT NULL,
    consumer_vm     BYTEA,                           -- the UUID's 16 bytes
    bytes           BIGINT NOT NULL,
    state           INTEGER NOT NULL,
    holder          TEXT NOT NULL,
    idempotency_key TEXT COLLATE "C" UNIQUE,         -- NULL: without one
    request         TEXT NOT NULL,                   -- JSON of the reservation as it was asked for
    created_at      BIGINT NOT NULL,
    expires_at      BIGINT NOT NULL,
    revoke_reason   TEXT NOT NULL DEFAULT '',
    revoke_at       BIGINT,
    ended_at        BIGINT
) WITH (fillfactor = 70);
-- States 1 and 2 hold memory back: live and revoking.
CREATE INDEX leases_holding ON leases (host_id, lease_key) WHERE state IN (1, 2);
CREATE INDEX leases_of_consumers ON leases (consumer_vm, lease_key) WHERE state IN (1, 2);
CREATE INDEX leases_by_host ON leases (host_id, lease_key);
CREATE INDEX leases_ended ON leases (ended_at) WHERE ended_at IS NOT NULL;

INSERT INTO counters (name, value) VALUES ('lease_sequence', 0);

-- What predictors have learned of each machine: the newest snapshot of each.
CREATE TABLE model_snapshots (
    vm_id         BYTEA NOT NULL PRIMARY KEY,        -- the UUID's 16 bytes
    host_id       TEXT COLLATE "C" NOT NULL,
    model_version TEXT NOT NULL,
    taken_at      BIGINT NOT NULL,
    state         BYTEA NOT NULL,
    checksum      BYTEA NOT NULL                     -- SHA-256 of the state
);
CREATE INDEX model_snapshots_by_host ON model_snapshots (host_id, vm_id);
CREATE INDEX model_snapshots_by_age ON model_snapshots (taken_at);

-- Static secrets of callers, as hashes: who reads this table cannot use one.
CREATE TABLE tokens (
    token_key    BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY, -- in the order of their making
    token_id     TEXT COLLATE "C" NOT NULL UNIQUE,
    name         TEXT NOT NULL,
    role         INTEGER NOT NULL,
    secret_hash  BYTEA NOT NULL UNIQUE,              -- SHA-256 of the secret
    created_at   BIGINT NOT NULL,
    expires_at   BIGINT,
    last_used_at BIGINT,                             -- written in batches
    revoked_at   BIGINT
) WITH (fillfactor = 70);
