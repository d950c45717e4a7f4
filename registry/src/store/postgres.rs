//! The store in a PostgreSQL database, which several registries may share.
//!
//! What must not happen at the same time is kept apart by locks that last as long as a transaction, taken first and in one order, so that
//! the counters which watches follow grow in the order of the commits: who has read up to a number has missed nothing below it. Other
//! registries hear of a change by NOTIFY, which is sent at the commit; it is only a hint, the changes are read from the tables.
//!
//! Some connections write and others read, so that a flood of records cannot keep readers from their turn.

use std::time::Duration;

use memharvest_services::shutdown::Stop;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{PgConnection, Postgres, Transaction};

use crate::store::hints::{FOLLOWED, Hints};
use crate::store::{Result, Store};

// What both databases understand alike is one text, compiled for each; it knows its database by these names.
type SqlStore = PostgresStore;
type Database = Postgres;
type Connection = PgConnection;
type Row = sqlx::postgres::PgRow;

mod address;
#[expect(clippy::duplicate_mod, reason = "one text for both databases")]
#[path = "sql/agents.rs"]
mod agents;
#[expect(clippy::duplicate_mod, reason = "one text for both databases")]
#[path = "sql/audit.rs"]
mod audit;
#[expect(clippy::duplicate_mod, reason = "one text for both databases")]
#[path = "sql/boundaries.rs"]
mod boundaries;
#[expect(clippy::duplicate_mod, reason = "one text for both databases")]
#[path = "sql/budgets.rs"]
mod budgets;
#[expect(clippy::duplicate_mod, reason = "one text for both databases")]
#[path = "sql/fields.rs"]
mod fields;
mod fold;
mod harvest;
mod history;
mod import;
#[expect(clippy::duplicate_mod, reason = "one text for both databases")]
#[path = "sql/leases.rs"]
mod leases;
mod listen;
#[expect(clippy::duplicate_mod, reason = "one text for both databases")]
#[path = "sql/models.rs"]
mod models;
mod open;
mod partitions;
#[expect(clippy::duplicate_mod, reason = "one text for both databases")]
#[path = "sql/rollups.rs"]
mod rollups;
#[expect(clippy::duplicate_mod, reason = "one text for both databases")]
#[path = "sql/tokens.rs"]
mod tokens;
#[expect(clippy::duplicate_mod, reason = "one text for both databases")]
#[path = "sql/violations.rs"]
mod violations;

pub use address::{Address, AddressError};
pub use import::ImportError;
pub use open::OpenError;
use partitions::Partitions;

/// Connections of each kind. A server's usual limit of 100 is enough for five registries.
const CONNECTIONS: u32 = 8;

/// How long a caller waits for a connection; after that it hears that the database is away.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// What holds for every connection, in milliseconds. A commit must have reached the disk before it is acknowledged, whatever the server's
/// own setting; a stronger one (a replica's disk) stays.
const SESSION: &str = "SELECT set_config('statement_timeout', '30000', false), set_config('lock_timeout', '5000', false),
    set_config('idle_in_transaction_session_timeout', '60000', false), set_config('jit', 'off', false),
    set_config('client_min_messages', 'warning', false),
    set_config('synchronous_commit',
        CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END, false)";

/// The windows of hosts, hourly ones included.
const HOST_WINDOWS: &str = "(SELECT host_key, hour, window_s, vms_running FROM host_rollups
    UNION ALL SELECT host_key, hour, window_s, vms_running FROM host_hours)";

/// The channel of the hints; what is told is the counter and its value.
const CHANNEL: &str = "memharvest";

/// A store on a server. Dropping it does not wait; [`Store::close`] does.
#[derive(Debug)]
pub struct PostgresStore {
    writer: PgPool,
    reader: PgPool,
    hints: Hints,
    partitions: Partitions,
}

impl PostgresStore {
    /// Connects, and brings the tables up to date where needed. Several registries may do so at the same time.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(address: &Address) -> std::result::Result<Self, OpenError> {
        open::prepare(address).await?;
        let store = Self {
            writer: pool(address.options(), CONNECTIONS),
            // One of them listens.
            reader: pool(address.options(), CONNECTIONS + 1),
            hints: Hints::default(),
            partitions: Partitions::default(),
        };
        store.read_counters().await.map_err(|error| OpenError::of(address, &error))?;
        Ok(store)
    }

    async fn read_counters(&self) -> sqlx::Result<()> {
        for name in FOLLOWED {
            self.hints.tell(name, counter(&self.reader, name).await?);
        }
        Ok(())
    }

    /// A transaction that may write.
    async fn begin(&self) -> Result<Transaction<'static, Postgres>> {
        Ok(self.writer.begin().await?)
    }

    /// A transaction of which no other with the same `subject` runs at the same time, in whichever registry.
    async fn begin_alone(&self, subject: &str) -> Result<Transaction<'static, Postgres>> {
        let mut transaction = self.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtextextended('memharvest ' || $1, 0))")
            .bind(subject)
            .execute(&mut *transaction)
            .await?;
        Ok(transaction)
    }

    /// A transaction that reads one consistent view.
    async fn begin_view(&self) -> Result<Transaction<'static, Postgres>> {
        Ok(self.reader.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?)
    }

    /// The clock that leases run on: the server's, which all registries share.
    async fn database_clock_ns(&self) -> Result<i64> {
        let sql = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8 * 1000";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.reader).await?)
    }
}

impl Store for PostgresStore {
    async fn follow(&self, stop: Stop) {
        self.listen(stop).await;
    }

    async fn close(&self) {
        self.reader.close().await;
        self.writer.close().await;
    }
}

fn pool(options: PgConnectOptions, connections: u32) -> PgPool {
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        .after_connect(|connection, _| {
            Box::pin(async move { sqlx::query(SESSION).execute(connection).await.map(drop) })
        })
        .connect_lazy_with(options)
}

/// Reads a named counter.
async fn counter<'c>(
    connection: impl sqlx::Executor<'c, Database = Postgres>,
    name: &str,
) -> sqlx::Result<u64> {
    let value: i64 = sqlx::query_scalar("SELECT value FROM counters WHERE name = $1")
        .bind(name)
        .fetch_one(connection)
        .await?;
    Ok(fields::count(value))
}

/// Raises a named counter, tells who listens, at the commit, and returns its new value.
async fn raise_counter(connection: &mut PgConnection, name: &str, by: i64) -> sqlx::Result<i64> {
    sqlx::query_scalar(
        "WITH raised AS (UPDATE counters SET value = value + $2 WHERE name = $1 RETURNING name, value)
         SELECT value, pg_notify($3, name || ' ' || value) FROM raised",
    )
    .bind(name)
    .bind(by)
    .bind(CHANNEL)
    .fetch_one(connection)
    .await
}
