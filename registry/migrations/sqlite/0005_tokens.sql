-- Static secrets of callers, as hashes: who reads this table cannot use one.
CREATE TABLE tokens (
    token_key    INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, -- in the order of their making
    token_id     TEXT NOT NULL UNIQUE,
    name         TEXT NOT NULL,
    role         INTEGER NOT NULL,
    secret_hash  BLOB NOT NULL UNIQUE,           -- SHA-256 of the secret
    created_at   INTEGER NOT NULL,
    expires_at   INTEGER,
    last_used_at INTEGER,                        -- written in batches
    revoked_at   INTEGER
) STRICT;
