//! `memharvest violations`.

use http::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::{Context, print, print_json, query};
use crate::Failure;
use crate::api::Violation;
use crate::client::{Change, path};
use crate::format::{ABSENT, bytes, percent, relative, span};
use crate::table::{Cell, Table, Tone};

/// The ledger of broken forecasts, promises and boundaries
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct ViolationsArgs {
    #[command(subcommand)]
    action: Option<Action>,
    /// One violation, in full
    id: Option<String>,
    /// Only those in this state
    #[arg(long, value_parser = ["open", "closed"], conflicts_with = "id")]
    state: Option<String>,
    /// Only those of this kind
    #[arg(long, value_parser = ["forecast", "promise", "boundary"], conflicts_with = "id")]
    kind: Option<String>,
    /// Only those on this host
    #[arg(long, conflicts_with = "id")]
    host: Option<String>,
    /// Only those of this machine (UUID)
    #[arg(long, conflicts_with = "id")]
    vm: Option<String>,
    /// Only those that opened since then: a time (RFC 3339) or how long ago, such as 1h
    #[arg(long, value_name = "TIME", conflicts_with = "id", value_parser = since)]
    since: Option<Since>,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Say that you have seen it
    Acknowledge(NoteArgs),
    /// Say why it happened
    Explain(NoteArgs),
}

#[derive(Debug, clap::Args)]
struct NoteArgs {
    /// Its id
    id: String,
    /// What there is to say
    #[arg(long)]
    note: String,
    /// Who says it
    #[arg(long, env = "USER", hide_env_values = true)]
    author: Option<String>,
}

/// A moment, or how long before now it was.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Since {
    At(Timestamp),
    Ago(SignedDuration),
}

fn since(text: &str) -> Result<Since, String> {
    if let Ok(at) = text.parse() {
        return Ok(Since::At(at));
    }
    let ago = humantime::parse_duration(text).ok().and_then(|ago| SignedDuration::try_from(ago).ok());
    ago.map(Since::Ago)
        .ok_or_else(|| "write a time such as 2026-01-31T12:00:00Z, or how long ago, such as 1h".into())
}

/// Shows or annotates violations.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context, args: &ViolationsArgs) -> Result<(), Failure> {
    match (&args.action, &args.id) {
        (Some(Action::Acknowledge(note)), _) => annotate(context, note, "acknowledge").await,
        (Some(Action::Explain(note)), _) => annotate(context, note, "explain").await,
        (None, Some(id)) => {
            let path = path(&["violations", id]);
            let body = context.gateway.get(&path, &[]).await?.body;
            show_one(context, &path, body).await
        }
        (None, None) => list(context, args).await,
    }
}

async fn list(context: &Context, args: &ViolationsArgs) -> Result<(), Failure> {
    let now = context.mesh_now().await?;
    let since = args.since.map(|since| match since {
        Since::At(at) => at,
        Since::Ago(ago) => now.saturating_sub(ago).unwrap_or(Timestamp::MIN),
    });
    let filters = query([
        ("state", args.state.clone()),
        ("kind", args.kind.clone()),
        ("host", args.host.clone()),
        ("vm", args.vm.clone()),
        ("since", since.map(|at| at.to_string())),
    ]);
    let show = |violations: &[Violation]| table(violations, now);
    context.show_list("/violations", "violations", &filters, "no violations", show).await
}

async fn annotate(context: &Context, args: &NoteArgs, verb: &str) -> Result<(), Failure> {
    let path = path(&["violations", &args.id, verb]);
    let body = Some(json!({ "note": args.note }));
    let author = args.author.as_deref();
    let change = Change { method: Method::POST, path: &path, author, body, ..Change::default() };
    let body = context.gateway.send(change).await?.body;
    show_one(context, &path, body).await
}

async fn show_one(context: &Context, path: &str, body: serde_json::Value) -> Result<(), Failure> {
    if context.out.json {
        return print_json(&body);
    }
    let violation: Violation = context.read(path, body)?;
    let now = context.mesh_now().await?;
    print(&details(&violation, now).render(context.out.coloured))
}

fn table(violations: &[Violation], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "ID",
        "KIND",
        "SIGNAL",
        "STATE",
        "MACHINE",
        "HOST",
        "OPENED",
        "LASTED",
        ">PREDICTED",
        ">PEAK",
        ">OVER",
        "SEEN BY",
    ]);
    for violation in violations {
        table.row(vec![
            violation.id.as_str().into(),
            violation.kind.as_str().into(),
            violation.signal.as_str().into(),
            state(violation),
            violation.machine().into(),
            violation.host.as_str().into(),
            relative(violation.opened_at, now).into(),
            lasted(violation, now).into(),
            bytes(violation.predicted_bytes).into(),
            bytes(violation.actual_bytes).into(),
            bytes(violation.overshoot_bytes).into(),
            said(violation.acknowledged_by.as_deref()).into(),
        ]);
    }
    table
}

fn details(violation: &Violation, now: Timestamp) -> Table {
    let mut table = Table::new(&["FIELD", "VALUE"]);
    let rows: [(&str, Cell); 20] = [
        ("id", violation.id.as_str().into()),
        ("kind", violation.kind.as_str().into()),
        ("signal", violation.signal.as_str().into()),
        ("state", state(violation)),
        ("machine", violation.machine().into()),
        ("vm", violation.vm.as_str().into()),
        ("host", violation.host.as_str().into()),
        ("opened", relative(violation.opened_at, now).into()),
        ("lasted", lasted(violation, now).into()),
        ("closed because", said(violation.close_reason.as_deref()).into()),
        ("predicted", bytes(violation.predicted_bytes).into()),
        ("peak", bytes(violation.actual_bytes).into()),
        ("over", bytes(violation.overshoot_bytes).into()),
        ("over, of allocation", percent(violation.overshoot_ratio, 1).into()),
        ("model", said(violation.model_version.as_deref()).into()),
        ("boundaries", said(violation.boundary_version.as_deref()).into()),
        ("seen by", said(violation.acknowledged_by.as_deref()).into()),
        ("note", said(violation.note.as_deref()).into()),
        ("explained by", said(violation.explained_by.as_deref()).into()),
        ("explanation", said(violation.explanation.as_deref()).into()),
    ];
    for (field, value) in rows {
        table.row(vec![field.into(), value]);
    }
    table
}

fn state(violation: &Violation) -> Cell {
    let tone = if violation.state == "open" { Tone::Bad } else { Tone::Plain };
    Cell::toned(violation.state.clone(), tone)
}

fn lasted(violation: &Violation, now: Timestamp) -> String {
    violation.opened_at.map_or(ABSENT.to_owned(), |opened| {
        span(violation.closed_at.unwrap_or_else(|| now.max(opened)).duration_since(opened))
    })
}

fn said(text: Option<&str>) -> &str {
    text.filter(|text| !text.is_empty()).unwrap_or(ABSENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_takes_a_time_or_a_while() {
        assert_eq!(since("1h"), Ok(Since::Ago(SignedDuration::from_hours(1))));
        assert_eq!(since("2026-01-31T12:00:00Z"), Ok(Since::At("2026-01-31T12:00:00Z".parse().unwrap())));
        assert!(since("yesterday").unwrap_err().contains("1h"));
    }

    #[test]
    fn an_open_violation_lasts_until_now() {
        let now: Timestamp = "2026-01-01T12:00:00Z".parse().unwrap();
        let json = json!({"id": "v1", "vm": "a", "state": "open", "opened_at": "2026-01-01T11:00:00Z",
            "overshoot_bytes": 1024});
        let violation: Violation = serde_json::from_value(json).unwrap();
        assert_eq!(lasted(&violation, now), "60 min");
        let shown = table(&[violation], now).render(false);
        assert!(shown.contains("1.0 KiB") && shown.contains("60 min ago"), "{shown}");
    }
}
