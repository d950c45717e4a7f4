-- Requests that the registry has not acknowledged yet, oldest first.
CREATE TABLE outbox (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    INTEGER NOT NULL, -- 1: RecordViolationsRequest, 2: RecordHarvestRequest
    payload BLOB    NOT NULL
);

-- Requests that the registry will never take, kept for a person to look at.
CREATE TABLE refused (
    id      INTEGER PRIMARY KEY,
    kind    INTEGER NOT NULL,
    payload BLOB    NOT NULL,
    reason  TEXT    NOT NULL
);

-- Violations that are open, so that a restart can close what it can no longer judge.
CREATE TABLE open_violation (
    violation_id TEXT PRIMARY KEY,
    payload      BLOB NOT NULL
) WITHOUT ROWID;

-- The boundaries as last heard from the registry, so that a restart without it knows them.
CREATE TABLE boundary (
    scope    TEXT    PRIMARY KEY,
    payload  BLOB    NOT NULL
) WITHOUT ROWID;

CREATE TABLE boundary_revision (
    one      INTEGER PRIMARY KEY CHECK (one = 1),
    revision INTEGER NOT NULL
);
