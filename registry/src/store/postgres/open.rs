//! Making sure, before anything is served, that the database can be used; a refusal tells its cure.

use std::time::Duration;

use sqlx::migrate::MigrateError;
use sqlx::{ConnectOptions, Connection, PgConnection};

use super::{Address, counter};
use crate::store::failure::sql_state;

/// How long a server may take to answer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// The oldest version that it is tested with, as the server numbers it.
const OLDEST: i32 = 130_000;

/// While tables are brought up to date: other registries do so one after the other, and a large table takes its time.
const MIGRATING: &str =
    "SELECT set_config('lock_timeout', '60000', false), set_config('statement_timeout', '0', false),
    set_config('client_min_messages', 'warning', false)";

/// Why a database cannot be used; each tells its cure.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Nobody answers.
    #[error("cannot reach {address}: {cause}; check that the server runs there, or pass --database")]
    Unreachable {
        /// Where.
        address: Address,
        /// What the system says.
        cause: String,
    },
    /// The server does not let us in.
    #[error(
        "{address} refuses the connection: {cause}; check user, password (PGPASSWORD) and the server's pg_hba.conf"
    )]
    Refused {
        /// Where.
        address: Address,
        /// What the server says.
        cause: String,
    },
    /// There is no such database.
    #[error("there is no database {} at {address}; create it: CREATE DATABASE {} OWNER {}", .address.database(), .address.database(), .address.user())]
    NoDatabase {
        /// Where.
        address: Address,
    },
    /// The server is too old.
    #[error("{address} is PostgreSQL {version}; use version 13 or later")]
    TooOld {
        /// Where.
        address: Address,
        /// Its version.
        version: String,
    },
    /// The database cannot hold every text.
    #[error("database {} at {address} has the encoding {encoding}; create it with ENCODING 'UTF8'", .address.database())]
    Encoding {
        /// Where.
        address: Address,
        /// Its encoding.
        encoding: String,
    },
    /// The server takes no changes.
    #[error("{0} is a standby and only reads; pass --database with the address of the primary")]
    Standby(Address),
    /// The user may not make tables.
    #[error("user {} may not make tables at {address}: {cause}; make it the owner: ALTER DATABASE {} OWNER TO {}", .address.user(), .address.database(), .address.user())]
    NoRights {
        /// Where.
        address: Address,
        /// What the server says.
        cause: String,
    },
    /// A newer registry has changed the tables in a way that this one cannot work with.
    #[error(
        "{address}: a newer memharvest-registry has changed the tables (migration {migration}); run that version or restore a backup"
    )]
    TooNew {
        /// Where.
        address: Address,
        /// The migration that this program does not know.
        migration: u64,
    },
    /// A program that never was released has made the tables.
    #[error(
        "{address}: another build of memharvest-registry has made the tables (migration {migration} differs); run that build or pass --database"
    )]
    Altered {
        /// Where.
        address: Address,
        /// The migration that is another one here.
        migration: i64,
    },
    /// Anything else.
    #[error("cannot use {address}: {cause}")]
    Failed {
        /// Where.
        address: Address,
        /// What the server says.
        cause: String,
    },
}

impl OpenError {
    pub(super) fn of(address: &Address, error: &sqlx::Error) -> Self {
        let address = address.clone();
        let said = error.as_database_error().map(|error| error.message().to_owned());
        let cause = said.unwrap_or_else(|| error.to_string());
        match (error, sql_state(error)) {
            (_, Some("28000" | "28P01")) => Self::Refused { address, cause },
            (_, Some("3D000")) => Self::NoDatabase { address },
            // insufficient_privilege; invalid_schema_name: none that the user may see
            (_, Some("42501" | "3F000")) => Self::NoRights { address, cause },
            (sqlx::Error::Io(cause), _) => Self::Unreachable { address, cause: cause.to_string() },
            (sqlx::Error::Tls(_) | sqlx::Error::PoolTimedOut, _) => Self::Unreachable { address, cause },
            _ => Self::Failed { address, cause },
        }
    }
}

/// Looks at the server and brings the tables up to date.
pub(super) async fn prepare(address: &Address) -> Result<(), OpenError> {
    let connecting = tokio::time::timeout(CONNECT_TIMEOUT, address.options().connect()).await;
    let mut connection = connecting
        .map_err(|_| OpenError::Unreachable {
            address: address.clone(),
            cause: format!("no answer within {} s", CONNECT_TIMEOUT.as_secs()),
        })?
        .map_err(|error| OpenError::of(address, &error))?;
    let outcome = bring_up_to_date(address, &mut connection).await;
    // Its locks go with it, whatever happened.
    let _ = connection.close().await;
    outcome
}

async fn bring_up_to_date(address: &Address, connection: &mut PgConnection) -> Result<(), OpenError> {
    let failed = |error: sqlx::Error| OpenError::of(address, &error);
    let (number, version, encoding, standby): (i32, String, String, bool) = sqlx::query_as(
        "SELECT current_setting('server_version_num')::int, current_setting('server_version'),
                current_setting('server_encoding'), pg_is_in_recovery()",
    )
    .fetch_one(&mut *connection)
    .await
    .map_err(failed)?;
    let address = address.clone();
    if number < OLDEST {
        return Err(OpenError::TooOld { address, version });
    }
    if encoding != "UTF8" {
        return Err(OpenError::Encoding { address, encoding });
    }
    if standby {
        return Err(OpenError::Standby(address));
    }
    sqlx::query(MIGRATING).execute(&mut *connection).await.map_err(failed)?;
    let mut migrations = sqlx::migrate!("migrations/postgres");
    let newest = migrations.iter().map(|migration| migration.version).max().unwrap_or(0);
    // Migrations of a newer version that only add something are no hindrance: see the first one.
    migrations.set_ignore_missing(true);
    migrations.run(&mut *connection).await.map_err(|error| match error {
        MigrateError::VersionMismatch(migration) => {
            OpenError::Altered { address: address.clone(), migration }
        }
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(error),
        error => OpenError::Failed { address: address.clone(), cause: error.to_string() },
    })?;
    let needs = counter(&mut *connection, "needs_migration").await.map_err(failed)?;
    if i64::try_from(needs).is_ok_and(|needs| needs <= newest) {
        Ok(())
    } else {
        Err(OpenError::TooNew { address, migration: needs })
    }
}
