//! `memharvest boundaries`.

use http::Method;
use http::header::ETAG;
use jiff::Timestamp;
use serde_json::Value;

use super::{Context, print, print_json, query};
use crate::Failure;
use crate::client::{Change, path};
use crate::format::{ABSENT, bytes, percent, relative};
use crate::table::{Cell, Table, Tone};

mod simulate;
mod values;

use values::{FIELDS, Values};

/// What operators allow: how much headroom is kept, what is never harvested
///
/// Scopes, the most specific wins field by field: vm:UUID, host:ID, group:LABEL=VALUE, fleet
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct BoundariesArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// One scope, in full
    scope: Option<String>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Change fields of a scope; all others stay as they are
    Set(Box<SetArgs>),
    /// Remove what was set at a scope; its versions stay
    Delete(DeleteArgs),
    /// All versions of a scope, newest first
    Versions(ScopeArgs),
    /// What holds for a scope, and where each value comes from
    Effective(ScopeArgs),
    /// What changed fields of a scope would have gained and cost on stored history; changes nothing
    Simulate(Box<simulate::SimulateArgs>),
}

#[derive(Debug, clap::Args)]
struct ScopeArgs {
    /// vm:UUID, host:ID, group:LABEL=VALUE or fleet
    scope: String,
}

#[derive(Debug, clap::Args)]
struct DeleteArgs {
    /// vm:UUID, host:ID, group:LABEL=VALUE or fleet
    scope: String,
    /// Why
    #[arg(long)]
    reason: Option<String>,
    /// Who
    #[arg(long, env = "USER", hide_env_values = true)]
    author: Option<String>,
}

#[derive(Debug, clap::Args)]
struct SetArgs {
    /// vm:UUID, host:ID, group:LABEL=VALUE or fleet
    scope: String,
    #[command(flatten)]
    values: Values,
    /// Why
    #[arg(long)]
    reason: String,
    /// Who
    #[arg(long, env = "USER", hide_env_values = true)]
    author: Option<String>,
}

/// Shows or changes boundaries.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context, args: &BoundariesArgs) -> Result<(), Failure> {
    match (&args.action, &args.scope) {
        (Some(Action::Set(args)), _) => set(context, args).await,
        (Some(Action::Delete(args)), _) => delete(context, args).await,
        (Some(Action::Versions(args)), _) => {
            let path = path(&["boundaries", &args.scope, "versions"]);
            list(context, &path, "versions", "was never set").await
        }
        (Some(Action::Effective(args)), _) => effective(context, &args.scope).await,
        (Some(Action::Simulate(args)), _) => simulate::run(context, args).await,
        (None, Some(scope)) => {
            let body = context.gateway.get(&path(&["boundaries", scope]), &[]).await?.body;
            show_one(context, &body)
        }
        (None, None) => {
            list(context, "/boundaries", "boundaries", "no boundaries: the defaults hold everywhere").await
        }
    }
}

async fn list(context: &Context, path: &str, plural: &'static str, empty: &str) -> Result<(), Failure> {
    let show = |boundaries: &[Value]| table(boundaries);
    context.show_list(path, plural, &[], empty, show).await
}

/// Reads the scope as it is, changes what was asked for, and sends it back on condition that nobody was faster.
async fn set(context: &Context, args: &SetArgs) -> Result<(), Failure> {
    let path = path(&["boundaries", &args.scope]);
    let (before, etag) = match context.gateway.get(&path, &[]).await {
        Ok(reply) => {
            let etag = etag_of(&reply.headers, &reply.body);
            (reply.body, etag)
        }
        Err(error) if error.is_not_found() => (Value::Null, None),
        Err(error) => return Err(error.into()),
    };
    let mut body = args.values.in_place_of(&before).ok_or(Failure::NothingToChange)?;
    body.insert("reason".into(), args.reason.as_str().into());
    let change = Change {
        method: Method::PUT,
        path: &path,
        if_match: etag.as_deref(),
        author: args.author.as_deref(),
        body: Some(Value::Object(body)),
        ..Change::default()
    };
    let stored = context.gateway.send(change).await?.body;
    show_one(context, &stored)
}

async fn delete(context: &Context, args: &DeleteArgs) -> Result<(), Failure> {
    let path = path(&["boundaries", &args.scope]);
    let reply = context.gateway.get(&path, &[]).await?;
    let etag = etag_of(&reply.headers, &reply.body);
    let change = Change {
        method: Method::DELETE,
        path: &path,
        query: query([("reason", args.reason.clone())]),
        if_match: etag.as_deref(),
        author: args.author.as_deref(),
        ..Change::default()
    };
    let stored = context.gateway.send(change).await?.body;
    if context.out.json && !stored.is_null() {
        return print_json(&stored);
    }
    print(&format!("removed the boundary of {}\n", args.scope))
}

fn etag_of(headers: &http::HeaderMap, body: &Value) -> Option<String> {
    let header = headers.get(ETAG).and_then(|value| value.to_str().ok());
    header.or_else(|| body.get("etag")?.as_str()).map(str::to_owned)
}

async fn effective(context: &Context, scope: &str) -> Result<(), Failure> {
    let body = context.gateway.get(&path(&["boundaries", scope, "effective"]), &[]).await?.body;
    if context.out.json {
        return print_json(&body);
    }
    print(&effective_table(&body).render(context.out.coloured))
}

fn show_one(context: &Context, boundary: &Value) -> Result<(), Failure> {
    if context.out.json {
        return print_json(boundary);
    }
    let mut table = Table::new(&["FIELD", "VALUE"]);
    for field in ["scope", "version"].iter().chain(&FIELDS).chain(&["author", "reason", "updated_at"]) {
        if let Some(value) = boundary.get(field).filter(|value| !value.is_null()) {
            table.row(vec![(*field).into(), told(field, value).into()]);
        }
    }
    print(&table.render(context.out.coloured))
}

fn table(boundaries: &[Value]) -> Table {
    let mut table = Table::new(&["SCOPE", ">VERSION", "VALUES", "AUTHOR", "REASON", "UPDATED"]);
    for boundary in boundaries {
        let text = |name: &str| boundary.get(name).map_or(ABSENT.to_owned(), |value| told(name, value));
        let values: Vec<String> = FIELDS
            .iter()
            .filter_map(|field| Some((field, boundary.get(field).filter(|value| !value.is_null())?)))
            .map(|(field, value)| format!("{field}={}", told(field, value)))
            .collect();
        let deleted = boundary.get("deleted").and_then(Value::as_bool) == Some(true);
        let values = if deleted { Cell::toned("removed", Tone::Warn) } else { values.join(" ").into() };
        table.row(vec![
            text("scope").into(),
            text("version").into(),
            values,
            text("author").into(),
            text("reason").into(),
            text("updated_at").into(),
        ]);
    }
    table
}

fn effective_table(body: &Value) -> Table {
    let mut table = Table::new(&["FIELD", "VALUE", "SET BY"]);
    let no_sources = Vec::new();
    let sources = body.get("sources").and_then(Value::as_array).unwrap_or(&no_sources);
    for field in FIELDS {
        let value = body.get(field).or_else(|| body.get("values")?.get(field)).unwrap_or(&Value::Null);
        let source = sources.iter().find(|source| source.get("field").and_then(Value::as_str) == Some(field));
        let scope = source.and_then(|source| source.get("scope")?.as_str()).filter(|scope| !scope.is_empty());
        let version = source.and_then(|source| source.get("version")?.as_u64());
        let set_by = match (scope, version) {
            (Some(scope), Some(version)) => format!("{scope}, version {version}"),
            (Some(scope), None) => scope.to_owned(),
            (None, _) => "default".to_owned(),
        };
        table.row(vec![field.into(), told(field, value).into(), set_by.into()]);
    }
    table
}

/// A value as people read it: bytes in units, shares in per cent.
fn told(field: &str, value: &Value) -> String {
    match value {
        Value::Null => ABSENT.to_owned(),
        Value::String(text) if text.is_empty() => ABSENT.to_owned(),
        // Boundaries are set on the wall's clock, in a replay too.
        Value::String(text) if field == "updated_at" => relative(text.parse().ok(), Timestamp::now()),
        Value::String(text) => text.clone(),
        value if field.ends_with("_bytes") => bytes(value.as_u64()),
        value if field.ends_with("_ratio") || field.ends_with("_rate") => percent(value.as_f64(), 1),
        value => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_told_with_their_units_and_their_origin() {
        let body = json!({"scope": "vm:x", "headroom_ratio": 0.05, "floor_bytes": 1 << 30,
            "sources": [{"field": "floor_bytes", "scope": "fleet", "version": 2}]});
        let shown = effective_table(&body).render(false);
        let line = |name: &str| shown.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
        assert!(line("floor_bytes").contains("1.0 GiB") && line("floor_bytes").ends_with("fleet, version 2"));
        assert!(line("headroom_ratio").contains("5.0 %") && line("headroom_ratio").ends_with("default"));
        assert!(line("upper_usage_bytes").ends_with("-        default"), "{shown}");
    }
}
