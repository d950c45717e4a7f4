-- One index for both: the newest violations of a kind, and the counts by kind and state.
DROP INDEX violations_count;
CREATE INDEX violations_by_kind ON violations (kind, opened_at, violation_id, state);
