//! What an error of either database means to a caller.

use sqlx::error::DatabaseError;
use sqlx::postgres::PgDatabaseError;
use sqlx::sqlite::SqliteError;

use super::StoreError;

/// SQLite's primary result code of a database error.
pub(super) fn sqlite_code(error: &sqlx::Error) -> Option<i32> {
    let error = error.as_database_error()?.try_downcast_ref::<SqliteError>()?;
    let extended: i32 = error.code()?.parse().ok()?;
    Some(extended & 0xff)
}

/// The SQLSTATE of an error of PostgreSQL.
pub(super) fn sql_state(error: &sqlx::Error) -> Option<&str> {
    Some(error.as_database_error()?.try_downcast_ref::<PgDatabaseError>()?.code())
}

pub(super) const SQLITE_BUSY: i32 = 5;
pub(super) const SQLITE_LOCKED: i32 = 6;
const SQLITE_FULL: i32 = 13;

fn of_sqlite(code: i32) -> Option<StoreError> {
    match code {
        SQLITE_BUSY | SQLITE_LOCKED => Some(StoreError::Unavailable("locked by another process".to_owned())),
        SQLITE_FULL => Some(StoreError::Full),
        _ => None,
    }
}

/// By the classes of SQLSTATE (appendix A of PostgreSQL's manual).
fn of_postgres(state: &str) -> Option<StoreError> {
    let busy = |what: &str| Some(StoreError::Unavailable(what.to_owned()));
    match state {
        "53100" => Some(StoreError::Full),
        "53300" => busy("the server has no connection left"),
        // serialization_failure, deadlock_detected
        "40001" | "40P01" => Some(StoreError::Conflict),
        "55P03" | "57014" => busy("a statement took too long"),
        "25006" => busy("this server only reads, as a standby does"),
        "57P01" | "57P02" | "57P03" => busy("the server is stopping or starting"),
        _ if state.starts_with("08") => busy("the connection broke"),
        _ => None,
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        let known =
            sqlite_code(&error).and_then(of_sqlite).or_else(|| sql_state(&error).and_then(of_postgres));
        if let Some(known) = known {
            return known;
        }
        match &error {
            sqlx::Error::PoolTimedOut => Self::Unavailable("no connection to it is free".to_owned()),
            sqlx::Error::PoolClosed => Self::Unavailable("it is being closed".to_owned()),
            sqlx::Error::Io(cause) => Self::Unavailable(format!("the connection broke: {cause}")),
            // What is left of an answer when a connection breaks in the middle of it.
            sqlx::Error::Protocol(_) | sqlx::Error::Tls(_) => {
                Self::Unavailable("the connection broke in the middle of an answer".to_owned())
            }
            // SQLite says so in words alone where a temporary file does not fit.
            sqlx::Error::Database(database) if database.message().contains("disk is full") => Self::Full,
            _ => Self::Failed(Box::new(error)),
        }
    }
}
