//! `memharvest leases`.

use http::Method;
use serde_json::{Value, json};

use super::{Context, print, print_json, query};
use crate::Failure;
use crate::client::{Change, path};
use crate::format::{ABSENT, bytes, parse_bytes, relative};
use crate::table::{Cell, Table, Tone};

/// Leases on harvested memory: who has reserved how much on which host, and until when
///
/// A lease keeps its bytes of a host's harvest from being given away twice, until its consumer uses them, it is released, or it runs out.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct LeasesArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// Only on this host
    #[arg(long)]
    host: Option<String>,
    /// Only in this state
    #[arg(long, value_parser = ["live", "revoking", "revoked", "released", "expired"])]
    state: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show leases, newest first, as without a verb
    List {
        /// Only on this host
        #[arg(long)]
        host: Option<String>,
        /// Only in this state
        #[arg(long, value_parser = ["live", "revoking", "revoked", "released", "expired"])]
        state: Option<String>,
    },
    /// Reserve memory on a host
    Reserve(ReserveArgs),
    /// Extend a lease, from now on
    Renew(RenewArgs),
    /// Give a lease back
    Release(ReleaseArgs),
}

#[derive(Debug, clap::Args)]
struct ReserveArgs {
    /// The host
    host: String,
    /// How much, such as 4GiB
    #[arg(value_name = "BYTES", value_parser = parse_bytes)]
    bytes: u64,
    /// For how long, such as 1h [default: 15m]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Who holds it
    #[arg(long, env = "USER", hide_env_values = true)]
    holder: String,
    /// The same key is the same lease: a retry takes no more memory
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// The machine that will use it (UUID)
    #[arg(long, value_name = "VM")]
    consumer: Option<String>,
}

#[derive(Debug, clap::Args)]
struct RenewArgs {
    /// Its id
    id: String,
    /// From now for this long, such as 1h [default: 15m]
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// Who holds it; refused if somebody else does
    #[arg(long)]
    holder: Option<String>,
    /// The machine that uses it (UUID), where it was not named before
    #[arg(long, value_name = "VM")]
    consumer: Option<String>,
}

#[derive(Debug, clap::Args)]
struct ReleaseArgs {
    /// Its id
    id: String,
    /// Who holds it; refused if somebody else does
    #[arg(long)]
    holder: Option<String>,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// Who gives it back
    #[arg(long, env = "USER", hide_env_values = true)]
    author: Option<String>,
}

/// Shows or changes leases.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context, args: &LeasesArgs) -> Result<(), Failure> {
    match &args.action {
        None => list(context, args.host.as_ref(), args.state.as_ref()).await,
        Some(Action::List { host, state }) => list(context, host.as_ref(), state.as_ref()).await,
        Some(Action::Reserve(args)) => {
            let body = without_nulls(json!({
                "host": args.host,
                "bytes": args.bytes,
                "ttl": args.ttl,
                "holder": args.holder,
                "idempotency_key": args.idempotency_key,
                "consumer_vm": args.consumer,
            }));
            change(context, Method::POST, "/leases", body).await
        }
        Some(Action::Renew(args)) => {
            let body = without_nulls(json!({
                "ttl": args.ttl,
                "holder": args.holder,
                "consumer_vm": args.consumer,
            }));
            change(context, Method::PATCH, &path(&["leases", &args.id]), body).await
        }
        Some(Action::Release(args)) => release(context, args).await,
    }
}

async fn list(context: &Context, host: Option<&String>, state: Option<&String>) -> Result<(), Failure> {
    let filters = query([("host", host.cloned()), ("state", state.cloned())]);
    context.show_list("/leases", "leases", &filters, "no leases", table).await
}

async fn change(context: &Context, method: Method, path: &str, body: Value) -> Result<(), Failure> {
    let change = Change { method, path, body: Some(body), ..Change::default() };
    let lease = context.gateway.send(change).await?.body;
    if context.out.json {
        return print_json(&lease);
    }
    print(&table(&[lease]).render(context.out.coloured))
}

async fn release(context: &Context, args: &ReleaseArgs) -> Result<(), Failure> {
    let change = Change {
        method: Method::DELETE,
        path: &path(&["leases", &args.id]),
        query: query([("holder", args.holder.clone()), ("reason", args.reason.clone())]),
        author: args.author.as_deref(),
        ..Change::default()
    };
    context.gateway.send(change).await?;
    print(&format!("released lease {}\n", args.id))
}

/// Only what was given.
fn without_nulls(body: Value) -> Value {
    match body {
        Value::Object(fields) => fields.into_iter().filter(|(_, value)| !value.is_null()).collect(),
        other => other,
    }
}

fn table(leases: &[Value]) -> Table {
    // Leases run on the wall's clock, in a replay too.
    let now = jiff::Timestamp::now();
    let mut table =
        Table::new(&["LEASE", "HOST", "CONSUMER", ">BYTES", ">HELD BACK", "STATE", "HOLDER", "EXPIRES"]);
    for lease in leases {
        let text = |name: &str| lease.get(name).and_then(Value::as_str).unwrap_or(ABSENT);
        let figure = |name: &str| lease.get(name).and_then(Value::as_u64);
        let state = match text("state") {
            "revoking" => Cell::toned(format!("revoking: {}", text("revoke_reason")), Tone::Warn),
            state => state.into(),
        };
        table.row(vec![
            text("id").into(),
            text("host").into(),
            text("consumer_vm").into(),
            bytes(figure("bytes")).into(),
            bytes(figure("held_back_bytes")).into(),
            state,
            text("holder").into(),
            relative(text("expires_at").parse().ok(), now).into(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_given_is_sent() {
        assert_eq!(without_nulls(json!({"ttl": null, "holder": "ann"})), json!({"holder": "ann"}));
    }

    #[test]
    fn a_lease_under_notice_says_why() {
        let lease = json!({"id": "l", "host": "h", "consumer_vm": null, "bytes": 1_u64 << 30, "held_back_bytes": 0,
            "state": "revoking", "revoke_reason": "the host is decommissioned", "holder": "ann", "expires_at": null});
        let shown = table(&[lease]).render(false);
        assert!(
            shown.contains("revoking: the host is decommissioned") && shown.contains("1.0 GiB"),
            "{shown}"
        );
    }
}
