//! What is done to a SQLite file as a whole: a copy of one moment, its way back, and a look for damage.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};

use super::{APPLICATION_ID, BUSY_TIMEOUT, MIGRATIONS, OpenError, lock, open_error, parent};

/// Why a file was not copied, restored or checked; each tells its cure.
#[derive(Debug, thiserror::Error)]
pub enum MaintenanceError {
    /// There is no file.
    #[error("there is no file {}; check the path, or pass --database", .0.display())]
    Missing(PathBuf),
    /// The file that would be written is there.
    #[error("{} exists already; choose another name, or move it away", .0.display())]
    Exists(PathBuf),
    /// There is a database in the place that a backup would take.
    #[error("there is a database at {}; pass --force to replace it with the backup", .0.display())]
    InTheWay(PathBuf),
    /// The file cannot be used as a database of ours.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// The file is damaged.
    #[error("{} is damaged: {what}; use another backup", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What SQLite says.
        what: String,
    },
    /// The system refuses.
    #[error("cannot {what} {}: {source}", path.display())]
    System {
        /// What was to be done.
        what: &'static str,
        /// To which file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

type Result<T> = std::result::Result<T, MaintenanceError>;

/// What [`check`] found.
#[derive(Debug)]
pub struct Findings {
    /// The newest migration that the file has.
    pub migration: i64,
    /// The newest migration that this program has.
    pub newest_migration: i64,
    /// What is wrong, a line each.
    pub faults: Vec<String>,
    counts: BTreeMap<&'static str, i64>,
}

impl Findings {
    /// How many rows a table has.
    #[must_use]
    pub fn count(&self, table: &str) -> i64 {
        self.counts.get(table).copied().unwrap_or(0)
    }
}

/// Tables that are counted.
const COUNTED: [&str; 8] =
    ["vms", "hosts", "boundaries", "violations", "leases", "model_snapshots", "tokens", "audit_events"];

/// Rows that have lost what they belong to, and counters that have fallen behind: what it is, and how many.
const ORPHANS: [(&str, &str); 9] = [
    ("machines of an unknown host", "SELECT count(*) FROM vms WHERE host_key NOT IN (SELECT host_key FROM hosts)"),
    (
        "roll-ups of an unknown machine",
        "SELECT count(*) FROM vm_rollups WHERE vm_key NOT IN (SELECT vm_key FROM vms)",
    ),
    (
        "roll-ups of an unknown host",
        "SELECT count(*) FROM host_rollups WHERE host_key NOT IN (SELECT host_key FROM hosts)",
    ),
    (
        "harvests of an unknown host",
        "SELECT count(*) FROM host_harvests WHERE host_key NOT IN (SELECT host_key FROM hosts)",
    ),
    (
        "series of an unknown violation",
        "SELECT count(*) FROM violation_series WHERE violation_key NOT IN (SELECT violation_key FROM violations)",
    ),
    (
        "boundaries without a version that holds",
        "SELECT count(*) FROM boundaries b LEFT JOIN boundary_versions v ON v.revision = b.revision AND v.scope = b.scope
         WHERE v.deleted IS NOT FALSE",
    ),
    (
        "versions of boundaries that their counter does not know",
        "SELECT count(*) FROM boundary_versions WHERE revision > (SELECT value FROM counters WHERE name = 'boundary_revision')",
    ),
    (
        "violations that their counter does not know",
        "SELECT count(*) FROM violations WHERE sequence > (SELECT value FROM counters WHERE name = 'violation_sequence')",
    ),
    (
        "leases that their counter does not know",
        "SELECT count(*) FROM leases WHERE sequence > (SELECT value FROM counters WHERE name = 'lease_sequence')",
    ),
];

/// Writes a copy of a database as it is at one moment, also while a registry works on it; returns its size in bytes. The copy is checked
/// and on the disk before it gets its name.
///
/// # Errors
/// See [`MaintenanceError`]. What was written of the copy is removed.
pub async fn backup(database: &Path, target: &Path) -> Result<u64> {
    if target.exists() {
        return Err(MaintenanceError::Exists(target.to_owned()));
    }
    let mut source = open_to_read(database).await?;
    let part = beside(target, ".part");
    remove(&part)?;
    let written = write_copy(&mut source, database, &part).await;
    // Nothing was changed through it: how closing it ends does not matter.
    let _ = source.close().await;
    let bytes = match written {
        Ok(bytes) => bytes,
        Err(error) => {
            let _ = std::fs::remove_file(&part);
            return Err(error);
        }
    };
    rename(&part, target)?;
    Ok(bytes)
}

async fn write_copy(source: &mut SqliteConnection, database: &Path, part: &Path) -> Result<u64> {
    let name = part.display().to_string();
    sqlx::query("VACUUM INTO $1")
        .bind(name)
        .execute(source)
        .await
        .map_err(|error| open_error(database, &error))?;
    check_whole(part).await?;
    let file = File::open(part).map_err(system("read", part))?;
    file.sync_all().map_err(system("write", part))?;
    Ok(file.metadata().map_err(system("read", part))?.len())
}

/// Puts a backup in the place of a database. The backup is checked first, and takes its place in one step.
///
/// # Errors
/// See [`MaintenanceError`]; a registry that works on the database is [`OpenError::InUse`].
pub async fn restore(backup: &Path, database: &Path, force: bool) -> Result<()> {
    check_whole(backup).await?;
    if !parent(database).is_dir() {
        return Err(OpenError::NoFolder(database.to_owned()).into());
    }
    let _lock = lock(database)?;
    if database.exists() && !force {
        return Err(MaintenanceError::InTheWay(database.to_owned()));
    }
    let part = beside(database, ".part");
    let copied = std::fs::copy(backup, &part).map_err(system("write", &part)).and_then(|_| {
        File::options()
            .write(true)
            .open(&part)
            .and_then(|file| file.sync_all())
            .map_err(system("write", &part))
    });
    if let Err(error) = copied {
        let _ = std::fs::remove_file(&part);
        return Err(error);
    }
    // The former database's log must not be read into the new one.
    remove(&beside(database, "-wal"))?;
    remove(&beside(database, "-shm"))?;
    rename(&part, database)
}

/// Looks for damage, orphaned rows and a version that this program does not know. Reads only.
///
/// # Errors
/// The file is not there or is no database of ours.
pub async fn check(database: &Path) -> Result<Findings> {
    let mut connection = open_to_read(database).await?;
    let failed = |error: sqlx::Error| open_error(database, &error);
    let mut faults = Vec::new();
    for row in sqlx::query("PRAGMA integrity_check").fetch_all(&mut connection).await.map_err(failed)? {
        let line: String = row.try_get(0).map_err(failed)?;
        if line != "ok" {
            faults.push(format!("damage: {line}"));
        }
    }
    for row in sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut connection).await.map_err(failed)? {
        let table: String = row.try_get(0).map_err(failed)?;
        faults.push(format!("orphan: a row of {table} refers to one that is not there"));
    }
    let newest_migration = newest_migration();
    let migration = migration(&mut connection).await.map_err(failed)?;
    let mut counts = BTreeMap::new();
    if migration > newest_migration {
        faults.push(format!(
            "version: a newer memharvest-registry has written it (migration {migration}, this program knows {newest_migration})"
        ));
    }
    if migration < newest_migration {
        faults.push(format!(
            "version: it is of migration {migration}, this program has {newest_migration}; start the registry once to bring it up to date"
        ));
    } else {
        for (what, sql) in ORPHANS {
            let count: i64 = sqlx::query_scalar(sql).fetch_one(&mut connection).await.map_err(failed)?;
            if count > 0 {
                faults.push(format!("orphan: {count} {what}"));
            }
        }
        for table in COUNTED {
            let sql = sqlx::AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
            counts.insert(table, sqlx::query_scalar(sql).fetch_one(&mut connection).await.map_err(failed)?);
        }
    }
    Ok(Findings { migration, newest_migration, faults, counts })
}

/// Makes sure that a file is a whole database of ours, of a version that this program knows.
async fn check_whole(path: &Path) -> Result<()> {
    let mut connection = open_to_read(path).await?;
    let failed = |error: sqlx::Error| open_error(path, &error);
    let found: String =
        sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_one(&mut connection).await.map_err(failed)?;
    let migration = migration(&mut connection).await.map_err(failed)?;
    let _ = connection.close().await;
    if found != "ok" {
        return Err(MaintenanceError::Damaged { path: path.to_owned(), what: found.replace('\n', " ") });
    }
    if migration > newest_migration() {
        return Err(OpenError::TooNew { path: path.to_owned(), migration }.into());
    }
    Ok(())
}

/// Opens a file that must be a database of ours, without changing anything.
async fn open_to_read(path: &Path) -> Result<SqliteConnection> {
    if !path.exists() {
        return Err(MaintenanceError::Missing(path.to_owned()));
    }
    if path.is_dir() {
        return Err(OpenError::Directory(path.to_owned()).into());
    }
    let options = SqliteConnectOptions::new().filename(path).read_only(true).busy_timeout(BUSY_TIMEOUT);
    let failed = |error: sqlx::Error| open_error(path, &error);
    let mut connection = SqliteConnection::connect_with(&options).await.map_err(failed)?;
    let found: i32 =
        sqlx::query_scalar("PRAGMA application_id").fetch_one(&mut connection).await.map_err(failed)?;
    if found != APPLICATION_ID {
        return Err(OpenError::Foreign(path.to_owned()).into());
    }
    Ok(connection)
}

/// The newest migration that this program has.
pub(super) fn newest_migration() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// The newest migration that a database has.
pub(super) async fn migration(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations WHERE success")
        .fetch_one(connection)
        .await
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

fn system(what: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> MaintenanceError {
    let path = path.to_owned();
    move |source| MaintenanceError::System { what, path, source }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(system("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Gives a file its name, for good: the folder is written as well.
fn rename(from: &Path, to: &Path) -> Result<()> {
    std::fs::rename(from, to).map_err(system("write", to))?;
    let folder = parent(to);
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(system("write", folder))
}
