//! Boundaries: a version for every change, and a pointer to the newest of each scope.

use memharvest_proto::registry::v1::{Boundary, BoundaryValues};
use sqlx::{QueryBuilder, Row as _};
use tokio::sync::watch;

use super::{Connection, Database, Row, SqlStore, counter, fields, raise_counter};
use crate::boundary;
use crate::scope::Scope;
use crate::store::hints::BOUNDARY_REVISION;
use crate::store::{BoundaryStore, Change, Result, StoreError, check_etag, etag};
use crate::time::instant_from_ns;

/// By their names, never `*`: a column that a newer registry adds must not change what this one's prepared statements return.
const COLUMNS: &str = "v.revision, v.scope, v.version, v.fields, v.author, v.reason, v.updated_at, v.deleted";

/// Current versions alone.
fn select_current() -> QueryBuilder<Database> {
    QueryBuilder::new(format!(
        "SELECT {COLUMNS} FROM boundaries b JOIN boundary_versions v ON v.revision = b.revision"
    ))
}

fn get_boundary(row: &Row) -> sqlx::Result<Boundary> {
    let version = fields::get_count(row, "version")?;
    let json: String = row.try_get("fields")?;
    let values = boundary::from_json(&json).map_err(|error| sqlx::Error::Decode(Box::new(error)))?;
    Ok(Boundary {
        scope: row.try_get("scope")?,
        values: Some(values),
        version,
        etag: etag(version),
        author: row.try_get("author")?,
        reason: row.try_get("reason")?,
        updated_at: fields::get_instant(row, "updated_at")?,
        deleted: row.try_get("deleted")?,
        diff: Vec::new(),
    })
}

fn get_change(row: &Row) -> sqlx::Result<(u64, Boundary)> {
    Ok((fields::get_count(row, "revision")?, get_boundary(row)?))
}

/// The newest version of a scope, be it one that removed the boundary.
async fn newest(connection: &mut Connection, scope: &str) -> Result<Option<Boundary>> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!(
        "SELECT {COLUMNS} FROM boundary_versions v WHERE scope = $1 ORDER BY version DESC LIMIT 1"
    )))
    .bind(scope)
    .fetch_optional(connection)
    .await?;
    Ok(row.as_ref().map(get_boundary).transpose()?)
}

/// Appends a version; `values` are `None` for one that removes the boundary. Returns it with its revision.
async fn append(
    connection: &mut Connection,
    scope: &str,
    before: Option<&Boundary>,
    values: Option<&BoundaryValues>,
    change: &Change,
) -> Result<(u64, Boundary)> {
    let stored = values.copied().unwrap_or_default();
    let json = boundary::to_json(&stored).map_err(|error| StoreError::Failed(Box::new(error)))?;
    let standing = before.filter(|before| !before.deleted).and_then(|before| before.values.as_ref());
    let before_json =
        standing.map(boundary::to_json).transpose().map_err(|error| StoreError::Failed(Box::new(error)))?;
    let version = before.map_or(0, |before| before.version) + 1;
    let deleted = values.is_none();
    let revision = raise_counter(connection, BOUNDARY_REVISION, 1).await?;
    sqlx::query(
        "INSERT INTO boundary_versions (revision, scope, version, fields, author, reason, updated_at, deleted)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(revision)
    .bind(scope)
    .bind(fields::figure(version))
    .bind(&json)
    .bind(&change.author)
    .bind(&change.reason)
    .bind(change.at_ns)
    .bind(deleted)
    .execute(&mut *connection)
    .await?;
    let pointer = if deleted {
        "DELETE FROM boundaries WHERE scope = $1 AND revision < $2"
    } else {
        "INSERT INTO boundaries (scope, revision) VALUES ($1, $2) ON CONFLICT (scope) DO UPDATE SET revision = excluded.revision"
    };
    sqlx::query(pointer).bind(scope).bind(revision).execute(&mut *connection).await?;
    let (action, after_json) =
        if deleted { ("boundary.delete", "") } else { ("boundary.set", json.as_str()) };
    fields::audit(connection, change, action, scope, before_json.as_deref().unwrap_or_default(), after_json)
        .await?;
    let boundary = Boundary {
        scope: scope.to_owned(),
        values: Some(stored),
        version,
        etag: etag(version),
        author: change.author.clone(),
        reason: change.reason.clone(),
        updated_at: Some(instant_from_ns(change.at_ns)),
        deleted,
        diff: Vec::new(),
    };
    Ok((fields::count(revision), boundary))
}

impl BoundaryStore for SqlStore {
    async fn set_boundary(
        &self,
        scope: &Scope,
        values: &BoundaryValues,
        given: &str,
        change: &Change,
    ) -> Result<Boundary> {
        let scope = scope.to_string();
        let mut transaction = self.begin_alone(BOUNDARY_REVISION).await?;
        let before = newest(&mut transaction, &scope).await?;
        match before.as_ref().filter(|before| !before.deleted) {
            Some(standing) => check_etag(&scope, &standing.etag, given)?,
            None if given.is_empty() => {}
            None => {
                return Err(StoreError::Stale {
                    subject: scope,
                    current: "none".to_owned(),
                    given: given.to_owned(),
                });
            }
        }
        let (revision, boundary) =
            append(&mut transaction, &scope, before.as_ref(), Some(values), change).await?;
        transaction.commit().await?;
        self.hints.tell(BOUNDARY_REVISION, revision);
        Ok(boundary)
    }

    async fn delete_boundary(&self, scope: &Scope, given: &str, change: &Change) -> Result<Boundary> {
        let scope = scope.to_string();
        let mut transaction = self.begin_alone(BOUNDARY_REVISION).await?;
        let before = newest(&mut transaction, &scope).await?;
        let Some(standing) = before.as_ref().filter(|before| !before.deleted) else {
            return Err(StoreError::NotFound(format!("a boundary of {scope}")));
        };
        check_etag(&scope, &standing.etag, given)?;
        let (revision, boundary) = append(&mut transaction, &scope, before.as_ref(), None, change).await?;
        transaction.commit().await?;
        self.hints.tell(BOUNDARY_REVISION, revision);
        Ok(boundary)
    }

    async fn boundary(&self, scope: &Scope) -> Result<Boundary> {
        let found = self.boundaries_at(std::slice::from_ref(scope)).await?.pop();
        found.ok_or_else(|| StoreError::NotFound(format!("a boundary of {scope}")))
    }

    async fn boundaries_at(&self, scopes: &[Scope]) -> Result<Vec<Boundary>> {
        let mut query = select_current();
        query.push(" WHERE b.scope IN (");
        let mut list = query.separated(", ");
        for scope in scopes {
            list.push_bind(scope.to_string());
        }
        query.push(")");
        let rows = query.build().fetch_all(&self.reader).await?;
        let found = rows.iter().map(get_boundary).collect::<sqlx::Result<Vec<_>>>()?;
        let at = |scope: &Scope| {
            let scope = scope.to_string();
            found.iter().find(|boundary| boundary.scope == scope).cloned()
        };
        Ok(scopes.iter().filter_map(at).collect())
    }

    async fn boundaries(&self, after: &str, limit: u32) -> Result<Vec<Boundary>> {
        let mut query = select_current();
        query.push(" WHERE b.scope > ").push_bind(after);
        query.push(" ORDER BY b.scope LIMIT ").push_bind(i64::from(limit));
        let rows = query.build().fetch_all(&self.reader).await?;
        Ok(rows.iter().map(get_boundary).collect::<sqlx::Result<_>>()?)
    }

    async fn boundary_versions(&self, scope: &Scope, before: u64, limit: u32) -> Result<Vec<Boundary>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM boundary_versions v WHERE scope = $1 AND version < $2 ORDER BY version DESC LIMIT $3")))
        .bind(scope.to_string())
        .bind(fields::figure(before))
        .bind(i64::from(limit))
        .fetch_all(&self.reader)
        .await?;
        Ok(rows.iter().map(get_boundary).collect::<sqlx::Result<_>>()?)
    }

    async fn boundary_snapshot(&self) -> Result<(u64, Vec<Boundary>)> {
        // The revision must be that of these boundaries.
        let mut transaction = self.begin_view().await?;
        let revision = counter(&mut *transaction, BOUNDARY_REVISION).await?;
        let mut query = select_current();
        query.push(" ORDER BY b.scope");
        let rows = query.build().fetch_all(&mut *transaction).await?;
        transaction.commit().await?;
        Ok((revision, rows.iter().map(get_boundary).collect::<sqlx::Result<_>>()?))
    }

    async fn boundary_changes(&self, after: u64, limit: u32) -> Result<Vec<(u64, Boundary)>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM boundary_versions v WHERE revision > $1 ORDER BY revision LIMIT $2"
        )))
        .bind(fields::figure(after))
        .bind(i64::from(limit))
        .fetch_all(&self.reader)
        .await?;
        Ok(rows.iter().map(get_change).collect::<sqlx::Result<_>>()?)
    }

    fn boundary_revision(&self) -> watch::Receiver<u64> {
        self.hints.follow(BOUNDARY_REVISION)
    }
}
