//! `token`: what can be done about tokens on the registry's own machine, such as making the first one.

use std::time::Duration;

use jiff::Timestamp;
use memharvest_proto::registry::v1::Role;
use memharvest_services::settings::duration;
use uuid::Uuid;

use super::{print, remark};
use crate::settings::{Database, RegistrySettings};
use crate::store::postgres::PostgresStore;
use crate::store::sqlite::SqliteStore;
use crate::store::{Change, NewToken, Store, TokenStore};
use crate::time::{instant_to_ns, now_to_ns};
use crate::token::{self, LONGEST_TTL_S};

/// Tokens listed at once.
const AT_ONCE: u32 = 1000;

#[derive(Debug, clap::Subcommand)]
pub(super) enum TokenCommand {
    /// Make a token; its secret, and nothing else, is written to standard output, this once
    Create {
        /// What it allows
        #[arg(long, value_enum)]
        role: RoleWord,
        /// What it is for
        #[arg(long, default_value = "made on the registry's machine", value_parser = name)]
        name: String,
        /// How long it lives, such as 90d [default: for ever]
        #[arg(long, value_name = "DURATION", value_parser = ttl)]
        ttl: Option<Duration>,
        /// Who makes it, for the audit log
        #[arg(long, env = "USER", hide_env_values = true, default_value = "local")]
        author: String,
    },
    /// List tokens, newest first, without their secrets
    List,
    /// End a token
    Revoke {
        /// Its id
        id: String,
        /// Why
        #[arg(long, default_value = "")]
        reason: String,
        /// Who ends it, for the audit log
        #[arg(long, env = "USER", hide_env_values = true, default_value = "local")]
        author: String,
    },
}

/// What a token allows.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
pub(super) enum RoleWord {
    /// Reads
    Viewer,
    /// Sets boundaries, answers violations, leases memory
    Operator,
    /// Manages tokens and agents
    Admin,
}

impl From<RoleWord> for Role {
    fn from(word: RoleWord) -> Self {
        match word {
            RoleWord::Viewer => Self::Viewer,
            RoleWord::Operator => Self::Operator,
            RoleWord::Admin => Self::Admin,
        }
    }
}

fn name(text: &str) -> Result<String, String> {
    if (1..=128).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text.to_owned())
    } else {
        Err("write 1 to 128 bytes without control characters".to_owned())
    }
}

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = duration(text)?;
    let most = Duration::from_secs(LONGEST_TTL_S.unsigned_abs());
    if (Duration::from_secs(1)..=most).contains(&ttl) {
        Ok(ttl)
    } else {
        Err("must be from 1s to ten years".to_owned())
    }
}

pub(super) async fn run(command: TokenCommand, settings: &RegistrySettings) -> anyhow::Result<()> {
    match settings.database()? {
        Database::Sqlite(path) => run_on(SqliteStore::open_beside(&path).await?, command).await,
        Database::Postgres(address) => run_on(PostgresStore::open(&address).await?, command).await,
    }
}

async fn run_on(store: impl Store, command: TokenCommand) -> anyhow::Result<()> {
    let done = match command {
        TokenCommand::Create { role, name, ttl, author } => create(&store, role, &name, ttl, &author).await,
        TokenCommand::List => list(&store).await,
        TokenCommand::Revoke { id, reason, author } => {
            let change = Change { author, reason, at_ns: now_to_ns(Timestamp::now()) };
            let revoked = store.revoke_token(&id, &change).await;
            revoked.map(|_| remark(&format!("token {id} is ended"))).map_err(Into::into)
        }
    };
    store.close().await;
    done
}

async fn create(
    store: &impl TokenStore,
    role: RoleWord,
    name: &str,
    ttl: Option<Duration>,
    author: &str,
) -> anyhow::Result<()> {
    let at_ns = now_to_ns(Timestamp::now());
    let secret = token::new_secret();
    let ttl_ns = ttl.map(|ttl| i64::try_from(ttl.as_nanos()).unwrap_or(i64::MAX));
    let new = NewToken {
        token_id: Uuid::now_v7().to_string(),
        name: name.to_owned(),
        role: role.into(),
        secret_hash: token::hash(&secret),
        expires_ns: ttl_ns.map(|ttl| at_ns.saturating_add(ttl)),
    };
    let change =
        Change { author: author.to_owned(), reason: "made by the command token create".to_owned(), at_ns };
    let made = store.create_token(&new, &change).await?;
    remark(&format!(
        "token {} ({}); its secret is shown this once:",
        made.token_id,
        token::role_word(made.role())
    ));
    print(&secret)
}

async fn list(store: &impl TokenStore) -> anyhow::Result<()> {
    let now = now_to_ns(Timestamp::now());
    let mut before = u64::MAX;
    loop {
        let page = store.tokens(before, AT_ONCE).await?;
        let Some((last, _)) = page.last() else { return Ok(()) };
        before = *last;
        for (_, one) in page {
            let at = |at: Option<&prost_types::Timestamp>| {
                let ns = at.and_then(instant_to_ns).map(i128::from);
                let at = ns.and_then(|ns| Timestamp::from_nanosecond(ns).ok());
                at.map_or_else(|| "never".to_owned(), |at| format!("{at:.0}"))
            };
            print(&format!(
                "{}  {:8}  {:7}  expires {}  used {}  {}",
                one.token_id,
                token::role_word(one.role()),
                token::flaw(&one, now).map_or("holds", |flaw| flaw.rsplit(' ').next().unwrap_or(flaw)),
                at(one.expires_at.as_ref()),
                at(one.last_used_at.as_ref()),
                one.name
            ))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_lifetimes_have_their_limits() {
        assert!(name("ci").is_ok() && name("").is_err() && name("a\nb").is_err());
        assert!(ttl("90d").is_ok() && ttl("0s").is_err() && ttl("11years").is_err() && ttl("soon").is_err());
    }
}
