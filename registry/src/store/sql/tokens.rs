//! Tokens: their hashes, and what became of them.

use memharvest_proto::registry::v1::Token;
use sqlx::Row as _;

use super::{Connection, Row, SqlStore, fields};
use crate::store::{Change, NewToken, Result, StoreError, TokenStore};
use crate::token::audit_json;

/// By their names, never `*`: a column that a newer registry adds must not change what this one's prepared statements return.
const COLUMNS: &str = "token_key, token_id, name, role, created_at, expires_at, last_used_at, revoked_at";

fn get_token(row: &Row) -> sqlx::Result<Token> {
    Ok(Token {
        token_id: row.try_get("token_id")?,
        name: row.try_get("name")?,
        role: row.try_get("role")?,
        created_at: fields::get_instant(row, "created_at")?,
        expires_at: fields::get_instant(row, "expires_at")?,
        last_used_at: fields::get_instant(row, "last_used_at")?,
        revoked_at: fields::get_instant(row, "revoked_at")?,
    })
}

async fn find(connection: &mut Connection, token_id: &str) -> Result<Token> {
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM tokens WHERE token_id = $1")))
        .bind(token_id)
        .fetch_optional(connection)
        .await?
        .ok_or_else(|| StoreError::NotFound(format!("token {token_id}")))?;
    Ok(get_token(&row)?)
}

impl TokenStore for SqlStore {
    async fn create_token(&self, token: &NewToken, change: &Change) -> Result<Token> {
        let mut transaction = self.begin().await?;
        sqlx::query(
            "INSERT INTO tokens (token_id, name, role, secret_hash, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(&token.token_id)
        .bind(&token.name)
        .bind(i32::from(token.role))
        .bind(token.secret_hash.as_slice())
        .bind(change.at_ns)
        .bind(token.expires_ns)
        .execute(&mut *transaction)
        .await?;
        let stored = find(&mut transaction, &token.token_id).await?;
        let after = audit_json(&stored);
        fields::audit(&mut transaction, change, "token.create", &token.token_id, "", &after).await?;
        transaction.commit().await?;
        Ok(stored)
    }

    async fn revoke_token(&self, token_id: &str, change: &Change) -> Result<Token> {
        let mut transaction = self.begin().await?;
        let before = find(&mut transaction, token_id).await?;
        if before.revoked_at.is_some() {
            return Ok(before);
        }
        sqlx::query("UPDATE tokens SET revoked_at = $2 WHERE token_id = $1")
            .bind(token_id)
            .bind(change.at_ns)
            .execute(&mut *transaction)
            .await?;
        let stored = find(&mut transaction, token_id).await?;
        let (old, new) = (audit_json(&before), audit_json(&stored));
        fields::audit(&mut transaction, change, "token.revoke", token_id, &old, &new).await?;
        transaction.commit().await?;
        Ok(stored)
    }

    async fn tokens(&self, before: u64, limit: u32) -> Result<Vec<(u64, Token)>> {
        let rows = sqlx::query(sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM tokens WHERE token_key < $1 ORDER BY token_key DESC LIMIT $2"
        )))
        .bind(fields::figure(before))
        .bind(i64::from(limit))
        .fetch_all(&self.reader)
        .await?;
        let get = |row: &Row| Ok((fields::get_count(row, "token_key")?, get_token(row)?));
        Ok(rows.iter().map(get).collect::<sqlx::Result<_>>()?)
    }

    async fn token_by_hash(&self, secret_hash: &[u8; 32]) -> Result<Option<Token>> {
        let row =
            sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {COLUMNS} FROM tokens WHERE secret_hash = $1")))
                .bind(secret_hash.as_slice())
                .fetch_optional(&self.reader)
                .await?;
        Ok(row.as_ref().map(get_token).transpose()?)
    }

    async fn tokens_used(&self, used: &[(String, i64)]) -> Result<()> {
        if used.is_empty() {
            return Ok(());
        }
        let mut transaction = self.begin().await?;
        for (token_id, at_ns) in used {
            sqlx::query(
                "UPDATE tokens SET last_used_at = $2 WHERE token_id = $1 AND coalesce(last_used_at, 0) < $2",
            )
            .bind(token_id)
            .bind(at_ns)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}
