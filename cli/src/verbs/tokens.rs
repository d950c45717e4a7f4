//! `memharvest tokens`.

use http::Method;
use serde_json::{Value, json};

use super::{Context, print, print_json, query};
use crate::Failure;
use crate::client::{Change, path};
use crate::format::{ABSENT, relative};
use crate::table::{Cell, Table, Tone};

/// Who may use the gateway with a static secret; the secrets themselves are never shown again
#[derive(Debug, clap::Args)]
pub(crate) struct TokensArgs {
    #[command(subcommand)]
    action: Option<Action>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show tokens, newest first, as without a verb
    List,
    /// Make a token; its secret is written to standard output, this once
    Create {
        /// What it is for
        name: String,
        /// What it allows
        #[arg(long, value_parser = ["viewer", "operator", "admin"])]
        role: String,
        /// How long it lives, such as 90days [default: for ever]
        #[arg(long, value_name = "DURATION")]
        ttl: Option<String>,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// Who makes it
        #[arg(long, env = "USER", hide_env_values = true)]
        author: Option<String>,
    },
    /// End a token
    Revoke {
        /// Its id
        id: String,
        /// Why
        #[arg(long)]
        reason: Option<String>,
        /// Who ends it
        #[arg(long, env = "USER", hide_env_values = true)]
        author: Option<String>,
    },
}

/// Shows, makes or ends tokens.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context, args: &TokensArgs) -> Result<(), Failure> {
    match &args.action {
        None | Some(Action::List) => context.show_list("/tokens", "tokens", &[], "no tokens", table).await,
        Some(Action::Create { name, role, ttl, reason, author }) => {
            let all = json!({"name": name, "role": role, "ttl": ttl, "reason": reason});
            let Value::Object(all) = all else { return Ok(()) };
            let body = all.into_iter().filter(|(_, value)| !value.is_null()).collect();
            let author = author.as_deref();
            let change = Change {
                method: Method::POST,
                path: "/tokens",
                author,
                body: Some(body),
                ..Change::default()
            };
            let made = context.gateway.send(change).await?.body;
            if context.out.json {
                return print_json(&made);
            }
            print(&format!("{}\n", made.get("secret").and_then(Value::as_str).unwrap_or(ABSENT)))
        }
        Some(Action::Revoke { id, reason, author }) => {
            let change = Change {
                method: Method::DELETE,
                path: &path(&["tokens", id]),
                query: query([("reason", reason.clone())]),
                author: author.as_deref(),
                ..Change::default()
            };
            context.gateway.send(change).await?;
            print(&format!("ended token {id}\n"))
        }
    }
}

fn table(tokens: &[Value]) -> Table {
    // Tokens live on the wall's clock, in a replay too.
    let now = jiff::Timestamp::now();
    let mut table = Table::new(&["TOKEN", "NAME", "ROLE", "CREATED", "EXPIRES", "LAST USED", "STATE"]);
    for token in tokens {
        let text = |name: &str| token.get(name).and_then(Value::as_str).unwrap_or(ABSENT);
        let at = |name: &str| text(name).parse::<jiff::Timestamp>().ok();
        let state = if at("revoked_at").is_some() {
            Cell::toned("revoked", Tone::Warn)
        } else if at("expires_at").is_some_and(|at| at <= now) {
            Cell::toned("expired", Tone::Warn)
        } else {
            "holds".into()
        };
        table.row(vec![
            text("id").into(),
            text("name").into(),
            text("role").into(),
            relative(at("created_at"), now).into(),
            relative(at("expires_at"), now).into(),
            relative(at("last_used_at"), now).into(),
            state,
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_opens_nothing_says_so() {
        let token = |name: &str, expires: Value, revoked: Value| {
            json!({"id": "t", "name": name, "role": "viewer", "created_at": "2026-01-01T00:00:00Z",
                "expires_at": expires, "last_used_at": null, "revoked_at": revoked})
        };
        let past = || json!("2020-01-01T00:00:00Z");
        let shown = table(&[
            token("fresh", Value::Null, Value::Null),
            token("aged", past(), Value::Null),
            token("gone", Value::Null, past()),
        ])
        .render(false);
        let state = |name: &str| {
            let line = shown.lines().find(|line| line.contains(name)).unwrap();
            line.split_whitespace().last().unwrap().to_owned()
        };
        assert_eq!(["fresh", "aged", "gone"].map(state), ["holds", "expired", "revoked"]);
    }
}
