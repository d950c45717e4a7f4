//! The store in one SQLite file.
//!
//! One connection writes and several read, so that writers never wait for each other inside SQLite and readers never wait at all. The log
//! is written ahead (WAL) and synced at every commit (`synchronous=FULL`): with `NORMAL` a killed process would lose nothing either,
//! but a power cut would take the commits since the last checkpoint, which have been acknowledged by then.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use memharvest_services::shutdown::Stop;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, SqliteConnection, Transaction};

use crate::store::failure::{SQLITE_BUSY, SQLITE_LOCKED, sqlite_code};
use crate::store::hints::{FOLLOWED, Hints};
use crate::store::{Result, Store};
use crate::time::now_to_ns;

// What both databases understand alike is one text, compiled for each; it knows its database by these names.
type SqlStore = SqliteStore;
type Database = Sqlite;
type Connection = SqliteConnection;
type Row = sqlx::sqlite::SqliteRow;

#[path = "sql/agents.rs"]
mod agents;
#[path = "sql/audit.rs"]
mod audit;
#[path = "sql/boundaries.rs"]
mod boundaries;
#[path = "sql/budgets.rs"]
mod budgets;
#[path = "sql/fields.rs"]
mod fields;
mod fold;
mod harvest;
mod history;
#[path = "sql/leases.rs"]
mod leases;
pub mod maintenance;
#[path = "sql/models.rs"]
mod models;
#[path = "sql/rollups.rs"]
mod rollups;
#[path = "sql/tokens.rs"]
mod tokens;
#[path = "sql/violations.rs"]
mod violations;

/// The windows of hosts, hourly ones included.
const HOST_WINDOWS: &str = "host_rollups";

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// Marks the file as ours (`PRAGMA application_id`): the letters `mhrv`.
const APPLICATION_ID: i32 = 0x6d68_7276;

/// How long a statement waits for another process's lock, and a caller for the writing connection.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Rows that the thread of a connection reads ahead of their reader, whom it wakes no oftener: a month of a machine has 8,640.
const ROWS_AHEAD: usize = 1000;
const READERS: u32 = 4;

/// A transaction that writes waits for its turn before its first statement, not in the middle.
const BEGIN: &str = "BEGIN IMMEDIATE";

/// Why a database cannot be used; each tells its cure.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder is not there.
    #[error("cannot open database {}: its folder {} does not exist; create it or pass --database", .0.display(), parent(.0).display())]
    NoFolder(PathBuf),
    /// Another registry works on the file.
    #[error("cannot open database {}: another registry is using it; stop that one or pass --database", .0.display())]
    InUse(PathBuf),
    /// There is a folder in the file's place.
    #[error("cannot open database {}: it is a directory; pass --database with the path of a file, such as {}", .0.display(), .0.join("memharvest.db").display())]
    Directory(PathBuf),
    /// The file is something else.
    #[error("cannot open database {}: it is not a SQLite database; move it away or pass --database", .0.display())]
    NoDatabase(PathBuf),
    /// The file is a database of another program.
    #[error("cannot open database {}: it belongs to another program; pass --database with a file of its own", .0.display())]
    Foreign(PathBuf),
    /// The registry that works on the file is of another version.
    #[error("cannot open database {}: a registry of another version is using it; use the program of that version", .0.display())]
    OtherVersion(PathBuf),
    /// A newer registry has written it.
    #[error("cannot open database {}: a newer memharvest-registry has written it (migration {}); run that version or restore a backup", path.display(), migration)]
    TooNew {
        /// The file.
        path: PathBuf,
        /// The migration that this program does not know.
        migration: i64,
    },
    /// A program that never was released has written it.
    #[error("cannot open database {}: another build of memharvest-registry has written it (migration {} differs); run that build or pass --database", path.display(), migration)]
    Altered {
        /// The file.
        path: PathBuf,
        /// The migration that is another one here.
        migration: i64,
    },
    /// The system refuses the file.
    #[error("cannot open database {}: {cause}; check that {} can be written by this user, or pass --database", path.display(), parent(path).display())]
    System {
        /// The file.
        path: PathBuf,
        /// What the system says.
        cause: String,
    },
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// A store in one file. Dropping it does not wait; [`SqliteStore::close`] does.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    writer: SqlitePool,
    pub(super) reader: SqlitePool,
    hints: Hints,
    /// Held as long as the store is open; the system lets go of it when the process ends, however it ends. `None` beside a registry.
    _lock: Option<File>,
}

impl SqliteStore {
    /// Opens the database, making it or bringing it up to date where needed.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(path: &Path) -> std::result::Result<Self, OpenError> {
        if !parent(path).is_dir() {
            return Err(OpenError::NoFolder(path.to_owned()));
        }
        if path.is_dir() {
            return Err(OpenError::Directory(path.to_owned()));
        }
        let lock = lock(path)?;
        Self::connect(path, Some(lock)).await
    }

    /// Opens the database for a command: like [`SqliteStore::open`], but where a registry works on the file, beside it. Nothing that the
    /// registry keeps in memory may be changed so.
    ///
    /// # Errors
    /// See [`OpenError`]; beside a registry of another version, [`OpenError::OtherVersion`].
    pub async fn open_beside(path: &Path) -> std::result::Result<Self, OpenError> {
        match Self::open(path).await {
            Err(OpenError::InUse(_)) => Self::connect(path, None).await,
            opened => opened,
        }
    }

    async fn connect(path: &Path, lock: Option<File>) -> std::result::Result<Self, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT)
            .foreign_keys(true)
            .row_buffer_size(ROWS_AHEAD)
            .pragma("wal_autocheckpoint", "2000");
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .acquire_timeout(BUSY_TIMEOUT)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(|error| open_error(path, &error))?;
        if lock.is_some() {
            claim(path, &writer).await?;
            migrate(path, &writer).await?;
        } else {
            check_version(path, &writer).await?;
        }
        let reader = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(BUSY_TIMEOUT)
            .connect_with(options.read_only(true).create_if_missing(false))
            .await
            .map_err(|error| open_error(path, &error))?;
        let hints = Hints::default();
        for name in FOLLOWED {
            hints.tell(name, counter(&reader, name).await.map_err(|error| open_error(path, &error))?);
        }
        Ok(Self { path: path.to_owned(), writer, reader, hints, _lock: lock })
    }

    /// A transaction that may write, from its first statement on.
    async fn begin(&self) -> Result<Transaction<'static, Sqlite>> {
        match self.writer.begin_with(BEGIN).await {
            // On a full disk SQLite gives up a transaction by itself, and the connection goes on to believe that it is within one: another
            // takes its place.
            Err(sqlx::Error::InvalidSavePointStatement) => {
                self.writer.acquire().await?.close().await?;
                Ok(self.writer.begin_with(BEGIN).await?)
            }
            begun => Ok(begun?),
        }
    }

    /// A transaction of which no other with the same `subject` runs at the same time: here no other at all.
    async fn begin_alone(&self, _subject: &str) -> Result<Transaction<'static, Sqlite>> {
        self.begin().await
    }

    /// A transaction that reads one consistent view.
    async fn begin_view(&self) -> Result<Transaction<'static, Sqlite>> {
        Ok(self.reader.begin().await?)
    }

    /// The clock that leases run on: one process works on the file, and its clock is the store's.
    #[expect(clippy::unused_async, reason = "another database has to be asked")]
    async fn database_clock_ns(&self) -> Result<i64> {
        Ok(now_to_ns(jiff::Timestamp::now()))
    }
}

impl Store for SqliteStore {
    /// Nobody else changes the file.
    async fn follow(&self, _stop: Stop) {}

    /// Folds the log into the database as well.
    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

/// Takes the lock that keeps a second registry away from the file: what agents and watchers are told lives in one process.
fn lock(path: &Path) -> std::result::Result<File, OpenError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let system =
        |error: &std::io::Error| OpenError::System { path: path.to_owned(), cause: error.to_string() };
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(name)
        .map_err(|error| system(&error))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => Err(OpenError::InUse(path.to_owned())),
        Err(std::fs::TryLockError::Error(error)) => Err(system(&error)),
    }
}

/// Makes sure that the file is ours, or nobody's yet.
async fn claim(path: &Path, pool: &SqlitePool) -> std::result::Result<(), OpenError> {
    let failed = |error: sqlx::Error| open_error(path, &error);
    let found: i32 = sqlx::query_scalar("PRAGMA application_id").fetch_one(pool).await.map_err(failed)?;
    if found == APPLICATION_ID {
        return Ok(());
    }
    let tables: i64 =
        sqlx::query_scalar("SELECT count(*) FROM sqlite_schema").fetch_one(pool).await.map_err(failed)?;
    if found != 0 || tables != 0 {
        return Err(OpenError::Foreign(path.to_owned()));
    }
    let claim = format!("PRAGMA application_id = {APPLICATION_ID}");
    sqlx::query(sqlx::AssertSqlSafe(claim)).execute(pool).await.map_err(failed)?;
    Ok(())
}

/// Makes sure that the registry which works on the file is of this version.
async fn check_version(path: &Path, pool: &SqlitePool) -> std::result::Result<(), OpenError> {
    let failed = |error: sqlx::Error| open_error(path, &error);
    let mut connection = pool.acquire().await.map_err(failed)?;
    if maintenance::migration(&mut connection).await.map_err(failed)? == maintenance::newest_migration() {
        Ok(())
    } else {
        Err(OpenError::OtherVersion(path.to_owned()))
    }
}

async fn migrate(path: &Path, pool: &SqlitePool) -> std::result::Result<(), OpenError> {
    MIGRATIONS.run(pool).await.map_err(|error| match error {
        MigrateError::VersionMissing(migration) | MigrateError::VersionTooNew(migration, _) => {
            OpenError::TooNew { path: path.to_owned(), migration }
        }
        MigrateError::VersionMismatch(migration) => OpenError::Altered { path: path.to_owned(), migration },
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => open_error(path, &error),
        error => OpenError::System { path: path.to_owned(), cause: error.to_string() },
    })
}

const NOT_A_DATABASE: i32 = 26;

fn open_error(path: &Path, error: &sqlx::Error) -> OpenError {
    match sqlite_code(error) {
        Some(NOT_A_DATABASE) => OpenError::NoDatabase(path.to_owned()),
        Some(SQLITE_BUSY | SQLITE_LOCKED) => OpenError::InUse(path.to_owned()),
        _ => {
            let cause = error
                .as_database_error()
                .map_or_else(|| error.to_string(), |error| error.message().to_owned());
            OpenError::System { path: path.to_owned(), cause }
        }
    }
}

/// Reads a named counter.
async fn counter<'c>(
    connection: impl sqlx::Executor<'c, Database = Sqlite>,
    name: &str,
) -> sqlx::Result<u64> {
    let value: i64 = sqlx::query_scalar("SELECT value FROM counters WHERE name = $1")
        .bind(name)
        .fetch_one(connection)
        .await?;
    Ok(fields::count(value))
}

/// Raises a named counter and returns its new value.
async fn raise_counter(connection: &mut SqliteConnection, name: &str, by: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar("UPDATE counters SET value = value + $2 WHERE name = $1 RETURNING value")
        .bind(name)
        .bind(by)
        .fetch_one(connection)
        .await
}
