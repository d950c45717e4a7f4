-- What predictors have learned of each machine: the newest snapshot of each.
CREATE TABLE model_snapshots (
    vm_id         BLOB NOT NULL PRIMARY KEY,     -- the UUID's 16 bytes
    host_id       TEXT NOT NULL,
    model_version TEXT NOT NULL,
    taken_at      INTEGER NOT NULL,
    state         BLOB NOT NULL,
    checksum      BLOB NOT NULL                  -- SHA-256 of the state
) STRICT;
CREATE INDEX model_snapshots_by_host ON model_snapshots (host_id, vm_id);
CREATE INDEX model_snapshots_by_age ON model_snapshots (taken_at);
