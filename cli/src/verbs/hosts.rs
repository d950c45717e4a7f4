//! `memharvest hosts`.

use jiff::Timestamp;

use super::{Context, print, print_json, query};
use crate::Failure;
use crate::api::Host;
use crate::client::path;
use crate::format::{ABSENT, bytes, relative};
use crate::table::{Cell, Table, Tone};

/// Hosts: what they hold, what can be harvested from them
#[derive(Debug, clap::Args)]
pub(crate) struct HostsArgs {
    /// One host, in full
    host: Option<String>,
    /// Only hosts with this label; may be repeated
    #[arg(long, value_name = "KEY=VALUE", conflicts_with = "host")]
    label: Vec<String>,
    /// Only hosts in this state: live, stale or lost
    #[arg(long, conflicts_with = "host", value_parser = ["live", "stale", "lost"])]
    state: Option<String>,
}

/// Shows hosts.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context, args: &HostsArgs) -> Result<(), Failure> {
    if let Some(host) = &args.host {
        return one(context, host).await;
    }
    let mut filters = query([("state", args.state.clone())]);
    filters.extend(args.label.iter().map(|label| ("label", label.clone())));
    let now = context.mesh_now().await?;
    context.show_list("/hosts", "hosts", &filters, "no hosts", |hosts| table(hosts, now)).await
}

async fn one(context: &Context, host: &str) -> Result<(), Failure> {
    let path = path(&["hosts", host]);
    let reply = context.gateway.get(&path, &[]).await?;
    if context.out.json {
        return print_json(&reply.body);
    }
    let host: Host = context.read(&path, reply.body)?;
    let now = context.mesh_now().await?;
    print(&details(&host, now).render(context.out.coloured))
}

fn table(hosts: &[Host], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "HOST",
        "NAME",
        "STATE",
        ">VMS",
        ">TOTAL",
        ">AVAILABLE",
        ">ALLOCATED",
        ">RSS",
        ">HARVESTABLE",
        ">RECLAIMABLE",
        "READ",
    ]);
    for host in hosts {
        table.row(vec![
            host.host.as_str().into(),
            host.name.as_str().into(),
            state(host),
            host.vms_running.map_or(ABSENT.to_owned(), |vms| vms.to_string()).into(),
            bytes(host.total_bytes).into(),
            bytes(host.available_bytes).into(),
            bytes(host.allocated_bytes).into(),
            bytes(host.rss_bytes).into(),
            bytes(host.harvestable_bytes).into(),
            bytes(host.reclaimable_bytes).into(),
            relative(host.read_at, now).into(),
        ]);
    }
    table
}

fn details(host: &Host, now: Timestamp) -> Table {
    let mut table = Table::new(&["FIELD", "VALUE"]);
    let labels: Vec<String> = host.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let breaker = match (&host.breaker, &host.breaker_reason) {
        (Some(breaker), Some(reason)) => format!("{breaker} ({reason})"),
        (Some(breaker), None) => breaker.clone(),
        (None, _) => ABSENT.to_owned(),
    };
    let rows: [(&str, Cell); 15] = [
        ("host", host.host.as_str().into()),
        ("name", host.name.as_str().into()),
        ("state", state(host)),
        ("labels", if labels.is_empty() { ABSENT.to_owned() } else { labels.join(" ") }.into()),
        ("machines", host.vms_running.map_or(ABSENT.to_owned(), |vms| vms.to_string()).into()),
        ("total", bytes(host.total_bytes).into()),
        ("available", bytes(host.available_bytes).into()),
        ("allocated", bytes(host.allocated_bytes).into()),
        ("rss", bytes(host.rss_bytes).into()),
        ("harvestable", bytes(host.harvestable_bytes).into()),
        ("pooled harvestable", bytes(host.pooled_harvestable_bytes).into()),
        ("reclaimable", bytes(host.reclaimable_bytes).into()),
        ("leased", bytes(host.leased_bytes).into()),
        ("breaker", breaker.into()),
        ("read", relative(host.read_at, now).into()),
    ];
    for (field, value) in rows {
        table.row(vec![field.into(), value]);
    }
    table
}

fn state(host: &Host) -> Cell {
    let tone = match host.state.as_str() {
        "live" => Tone::Good,
        "stale" => Tone::Warn,
        _ => Tone::Bad,
    };
    Cell::toned(host.state.clone(), tone)
}
