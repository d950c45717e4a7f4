//! The predictor's small durable file (SQLite): what the registry has not acknowledged yet, which violations are
//! open, and the boundaries as last heard. Everything in it survives a `kill -9` as soon as a call has returned.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use memharvest_proto::registry::v1::{
    Boundary, RecordHarvestRequest, RecordViolationsRequest, Violation, ViolationState,
};
use prost::Message;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Row, Sqlite, Transaction};

/// Why the state file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateFileError {
    /// It cannot be opened or created, or it is no state file of this version.
    #[error(
        "cannot open the state file {path}: {source}; check that the folder exists and is writable, or pass --data-dir"
    )]
    Open {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: sqlx::Error,
    },
    /// It was written by a newer program, or by another one.
    #[error(
        "the state file {path} cannot be brought to this version: {source}; move it away to start afresh"
    )]
    Migrate {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: sqlx::migrate::MigrateError,
    },
    /// A read or a write failed.
    #[error("state file: {0}")]
    Sql(#[from] sqlx::Error),
    /// A row cannot be read back.
    #[error("state file: a stored message cannot be read: {0}")]
    Decode(#[from] prost::DecodeError),
}

/// A request that waits for the registry.
#[derive(Clone, Debug, PartialEq)]
pub enum Pending {
    /// Violations.
    Violations(RecordViolationsRequest),
    /// Roll-ups, host harvest, coverage.
    Harvest(RecordHarvestRequest),
}

const VIOLATIONS: i64 = 1;
const HARVEST: i64 = 2;

impl Pending {
    const fn kind(&self) -> i64 {
        match self {
            Self::Violations(_) => VIOLATIONS,
            Self::Harvest(_) => HARVEST,
        }
    }

    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Violations(request) => request.encode_to_vec(),
            Self::Harvest(request) => request.encode_to_vec(),
        }
    }

    fn decode(kind: i64, payload: &[u8]) -> Result<Self, prost::DecodeError> {
        Ok(match kind {
            VIOLATIONS => Self::Violations(RecordViolationsRequest::decode(payload)?),
            _ => Self::Harvest(RecordHarvestRequest::decode(payload)?),
        })
    }
}

/// The open file. Clones share it.
#[derive(Clone, Debug)]
pub struct StateFile {
    pool: SqlitePool,
    limit_bytes: u64,
    size: std::sync::Arc<Size>,
}

#[derive(Debug, Default)]
struct Size {
    rows: AtomicU64,
    bytes: AtomicU64,
}

impl StateFile {
    /// Opens or creates the file. `limit_bytes` bounds the outbox: beyond it the oldest roll-ups are dropped and
    /// counted; violations are never dropped.
    ///
    /// # Errors
    /// When the file cannot be opened, created or migrated.
    pub async fn open(path: &Path, limit_bytes: u64) -> Result<Self, StateFileError> {
        let open = |source| StateFileError::Open { path: path.to_owned(), source };
        // NORMAL with a write-ahead log loses nothing to a kill -9; a power cut may lose the last instants, which
        // were then not acknowledged by the registry either.
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .busy_timeout(std::time::Duration::from_secs(5));
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await.map_err(open)?;
        sqlx::migrate!("./migrations")
            .run(&pool)
            .await
            .map_err(|source| StateFileError::Migrate { path: path.to_owned(), source })?;
        let row = sqlx::query("SELECT count(*), coalesce(sum(length(payload)), 0) FROM outbox")
            .fetch_one(&pool)
            .await
            .map_err(open)?;
        let size = Size::default();
        size.rows.store(row.get::<i64, _>(0).unsigned_abs(), Ordering::Relaxed);
        size.bytes.store(row.get::<i64, _>(1).unsigned_abs(), Ordering::Relaxed);
        Ok(Self { pool, limit_bytes, size: std::sync::Arc::new(size) })
    }

    /// Requests that wait.
    #[must_use]
    pub fn depth(&self) -> u64 {
        self.size.rows.load(Ordering::Relaxed)
    }

    /// Stores requests, all or none, and remembers which violations are open. Answers how many old requests had to
    /// be dropped for it, because the registry was away for too long.
    ///
    /// # Errors
    /// When the file cannot be written; nothing is stored then.
    pub async fn append(&self, requests: &[Pending]) -> Result<usize, StateFileError> {
        if requests.is_empty() {
            return Ok(0);
        }
        let mut transaction = self.pool.begin().await?;
        let (mut rows, mut bytes) = (0, 0);
        for request in requests {
            let payload = request.encode();
            rows += 1;
            bytes += payload.len() as u64;
            sqlx::query("INSERT INTO outbox (kind, payload) VALUES ($1, $2)")
                .bind(request.kind())
                .bind(payload)
                .execute(&mut *transaction)
                .await?;
            if let Pending::Violations(request) = request {
                for violation in &request.violations {
                    remember(&mut transaction, violation).await?;
                }
            }
        }
        transaction.commit().await?;
        self.size.rows.fetch_add(rows, Ordering::Relaxed);
        let now = self.size.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if now > self.limit_bytes { self.drop_oldest(now - self.limit_bytes).await } else { Ok(0) }
    }

    /// The oldest requests that wait, with their row ids.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn oldest(&self, limit: u32) -> Result<Vec<(i64, Pending)>, StateFileError> {
        let rows = sqlx::query("SELECT id, kind, payload FROM outbox ORDER BY id LIMIT $1")
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        rows.iter()
            .map(|row| Ok((row.get(0), Pending::decode(row.get(1), row.get::<&[u8], _>(2))?)))
            .collect()
    }

    /// Forgets requests that the registry has acknowledged.
    ///
    /// # Errors
    /// When the file cannot be written; they are then sent again, which does no harm.
    pub async fn acknowledge(&self, ids: &[i64]) -> Result<(), StateFileError> {
        let mut transaction = self.pool.begin().await?;
        let mut bytes = 0;
        for id in ids {
            bytes += delete(&mut transaction, *id).await?;
        }
        transaction.commit().await?;
        self.shrink(ids.len() as u64, bytes);
        Ok(())
    }

    /// Sets aside a request that the registry will never take.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub async fn set_aside(&self, id: i64, reason: &str) -> Result<(), StateFileError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("INSERT INTO refused SELECT id, kind, payload, $2 FROM outbox WHERE id = $1")
            .bind(id)
            .bind(reason)
            .execute(&mut *transaction)
            .await?;
        let bytes = delete(&mut transaction, id).await?;
        transaction.commit().await?;
        self.shrink(1, bytes);
        Ok(())
    }

    /// Violations that were open when the process last ran.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn open_violations(&self) -> Result<Vec<Violation>, StateFileError> {
        let rows = sqlx::query("SELECT payload FROM open_violation").fetch_all(&self.pool).await?;
        rows.iter().map(|row| Ok(Violation::decode(row.get::<&[u8], _>(0))?)).collect()
    }

    /// The boundaries as last heard and the revision they stand at; `None` before the first time.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub async fn boundaries(&self) -> Result<Option<(u64, Vec<Boundary>)>, StateFileError> {
        let Some(row) =
            sqlx::query("SELECT revision FROM boundary_revision").fetch_optional(&self.pool).await?
        else {
            return Ok(None);
        };
        let revision = row.get::<i64, _>(0).unsigned_abs();
        let rows = sqlx::query("SELECT payload FROM boundary").fetch_all(&self.pool).await?;
        let boundaries = rows
            .iter()
            .map(|row| Ok(Boundary::decode(row.get::<&[u8], _>(0))?))
            .collect::<Result<_, StateFileError>>()?;
        Ok(Some((revision, boundaries)))
    }

    /// Replaces the boundaries.
    ///
    /// # Errors
    /// When the file cannot be written; the old ones stay then.
    pub async fn save_boundaries(
        &self,
        revision: u64,
        boundaries: impl IntoIterator<Item = &Boundary>,
    ) -> Result<(), StateFileError> {
        let mut transaction = self.pool.begin().await?;
        sqlx::query("DELETE FROM boundary").execute(&mut *transaction).await?;
        for boundary in boundaries {
            sqlx::query("INSERT INTO boundary (scope, payload) VALUES ($1, $2)")
                .bind(&boundary.scope)
                .bind(boundary.encode_to_vec())
                .execute(&mut *transaction)
                .await?;
        }
        sqlx::query(
            "INSERT INTO boundary_revision (one, revision) VALUES (1, $1)
             ON CONFLICT (one) DO UPDATE SET revision = excluded.revision",
        )
        .bind(i64::try_from(revision).unwrap_or(i64::MAX))
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(())
    }

    /// Closes the file; what was stored stays.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    async fn drop_oldest(&self, excess: u64) -> Result<usize, StateFileError> {
        let rows =
            sqlx::query("SELECT id, length(payload) FROM outbox WHERE kind = $1 ORDER BY id LIMIT 1000")
                .bind(HARVEST)
                .fetch_all(&self.pool)
                .await?;
        let mut transaction = self.pool.begin().await?;
        let (mut freed, mut count) = (0, 0);
        for row in &rows {
            if freed >= excess {
                break;
            }
            freed += delete(&mut transaction, row.get(0)).await?;
            count += 1;
        }
        transaction.commit().await?;
        self.shrink(count as u64, freed);
        tracing::warn!(count, "outbox is full: the oldest roll-ups were dropped; is the registry reachable?");
        Ok(count)
    }

    fn shrink(&self, rows: u64, bytes: u64) {
        self.size.rows.fetch_sub(rows, Ordering::Relaxed);
        self.size.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

async fn remember(
    transaction: &mut Transaction<'_, Sqlite>,
    violation: &Violation,
) -> Result<(), StateFileError> {
    if violation.state() == ViolationState::Open {
        sqlx::query(
            "INSERT INTO open_violation (violation_id, payload) VALUES ($1, $2)
             ON CONFLICT (violation_id) DO UPDATE SET payload = excluded.payload",
        )
        .bind(&violation.violation_id)
        .bind(violation.encode_to_vec())
        .execute(&mut **transaction)
        .await?;
    } else {
        sqlx::query("DELETE FROM open_violation WHERE violation_id = $1")
            .bind(&violation.violation_id)
            .execute(&mut **transaction)
            .await?;
    }
    Ok(())
}

async fn delete(transaction: &mut Transaction<'_, Sqlite>, id: i64) -> Result<u64, StateFileError> {
    let row = sqlx::query("DELETE FROM outbox WHERE id = $1 RETURNING length(payload)")
        .bind(id)
        .fetch_optional(&mut **transaction)
        .await?;
    Ok(row.map_or(0, |row| row.get::<i64, _>(0).unsigned_abs()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use memharvest_proto::registry::v1::HostHarvest;

    fn violation(id: &str, state: ViolationState) -> Pending {
        Pending::Violations(RecordViolationsRequest {
            predictor_id: "p".into(),
            violations: vec![Violation {
                violation_id: id.into(),
                state: state.into(),
                ..Violation::default()
            }],
        })
    }

    fn harvest(bytes: usize) -> Pending {
        Pending::Harvest(RecordHarvestRequest {
            harvests: vec![HostHarvest { host_id: "h".repeat(bytes), ..HostHarvest::default() }],
            ..RecordHarvestRequest::default()
        })
    }

    #[tokio::test]
    async fn what_was_appended_survives_until_it_is_acknowledged() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        let file = StateFile::open(&path, 1 << 20).await.unwrap();
        file.append(&[violation("a", ViolationState::Open), harvest(1)]).await.unwrap();
        file.append(&[violation("b", ViolationState::Open), violation("a", ViolationState::Closed)])
            .await
            .unwrap();
        file.close().await;

        let file = StateFile::open(&path, 1 << 20).await.unwrap();
        assert_eq!(file.depth(), 4);
        let waiting = file.oldest(10).await.unwrap();
        assert_eq!(waiting[0].1, violation("a", ViolationState::Open));
        assert_eq!(waiting[3].1, violation("a", ViolationState::Closed));
        let open: Vec<_> =
            file.open_violations().await.unwrap().into_iter().map(|v| v.violation_id).collect();
        assert_eq!(open, ["b"]);

        file.acknowledge(&[waiting[0].0, waiting[1].0]).await.unwrap();
        file.set_aside(waiting[2].0, "no such host").await.unwrap();
        assert_eq!(file.oldest(10).await.unwrap(), waiting[3..]);
        assert_eq!(file.depth(), 1);
    }

    #[tokio::test]
    async fn a_full_outbox_drops_the_oldest_roll_ups_and_no_violation() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::open(&folder.path().join("state.db"), 1000).await.unwrap();
        file.append(&[violation("a", ViolationState::Open), harvest(600)]).await.unwrap();
        assert_eq!(file.append(&[harvest(601)]).await.unwrap(), 1);
        let waiting: Vec<_> =
            file.oldest(10).await.unwrap().into_iter().map(|(_, request)| request).collect();
        assert_eq!(waiting, [violation("a", ViolationState::Open), harvest(601)]);
        assert_eq!(file.depth(), 2);
    }

    #[tokio::test]
    async fn boundaries_are_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::open(&folder.path().join("state.db"), 1000).await.unwrap();
        assert_eq!(file.boundaries().await.unwrap(), None);
        let fleet = Boundary { scope: "fleet".into(), ..Boundary::default() };
        file.save_boundaries(7, [&fleet]).await.unwrap();
        assert_eq!(file.boundaries().await.unwrap(), Some((7, vec![fleet])));
        file.save_boundaries(8, []).await.unwrap();
        assert_eq!(file.boundaries().await.unwrap(), Some((8, vec![])));
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.db");
        std::fs::write(&path, "this is a text file, and a long one, not a database at all".repeat(30))
            .unwrap();
        let error = StateFile::open(&path, 1000).await.unwrap_err().to_string();
        assert!(error.contains("state.db") && error.contains("--data-dir"), "{error}");
    }
}
