-- Leases. Those that have ended are kept for a while, so that a late retry of a reservation hears what became of it.
CREATE TABLE leases (
    lease_key       INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- in the order of the reservations
    lease_id        TEXT NOT NULL UNIQUE,
    sequence        INTEGER NOT NULL UNIQUE,     -- the newest change of this lease among all changes
    host_id         TEXT NOT NULL,
    consumer_vm     BLOB,                        -- the UUID's 16 bytes
    bytes           INTEGER NOT NULL,
    state           INTEGER NOT NULL,
    holder          TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,                 -- NULL: without one
    request         TEXT NOT NULL,               -- JSON of the reservation as it was asked for
    created_at      INTEGER NOT NULL,
    expires_at      INTEGER NOT NULL,
    revoke_reason   TEXT NOT NULL DEFAULT '',
    revoke_at       INTEGER,
    ended_at        INTEGER
) STRICT;
-- States 1 and 2 hold memory back: live and revoking.
CREATE INDEX leases_holding ON leases (host_id, lease_key) WHERE state IN (1, 2);
CREATE INDEX leases_of_consumers ON leases (consumer_vm, lease_key) WHERE state IN (1, 2);
CREATE INDEX leases_by_host ON leases (host_id, lease_key);
CREATE INDEX leases_ended ON leases (ended_at) WHERE ended_at IS NOT NULL;

INSERT INTO counters (name, value) VALUES ('lease_sequence', 0);
