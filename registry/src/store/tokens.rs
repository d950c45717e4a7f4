//! What a store does with tokens.

use memharvest_proto::registry::v1::{Role, Token};

use crate::store::{Change, Result};

/// A token to make.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its id.
    pub token_id: String,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// When it ends, in nanoseconds since 1970; `None`: never.
    pub expires_ns: Option<i64>,
}

/// Tokens.
pub trait TokenStore: Send + Sync + 'static {
    /// Makes a token. Audited, without anything of its secret.
    fn create_token(&self, token: &NewToken, change: &Change) -> impl Future<Output = Result<Token>> + Send;

    /// Ends a token; doing it again changes nothing. Audited.
    fn revoke_token(&self, token_id: &str, change: &Change) -> impl Future<Output = Result<Token>> + Send;

    /// Tokens, newest first, each with a number that grows with their making. `before`: only smaller numbers.
    fn tokens(&self, before: u64, limit: u32) -> impl Future<Output = Result<Vec<(u64, Token)>>> + Send;

    /// The token of a secret, be it ended or not.
    fn token_by_hash(&self, secret_hash: &[u8; 32]) -> impl Future<Output = Result<Option<Token>>> + Send;

    /// Writes down when tokens were last used (id, nanoseconds since 1970).
    fn tokens_used(&self, used: &[(String, i64)]) -> impl Future<Output = Result<()>> + Send;
}
