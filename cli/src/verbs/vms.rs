//! `memharvest vms`.

use jiff::Timestamp;

use super::{Context, print, print_json, query};
use crate::Failure;
use crate::api::{Vm, Waterfall};
use crate::client::path;
use crate::format::{ABSENT, bytes, relative};
use crate::table::{Cell, Table, Tone};

/// Virtual machines: what they hold, use and need, what can be harvested, and why
#[derive(Debug, clap::Args)]
pub(crate) struct VmsArgs {
    /// One machine, in full: its UUID, or its name where that is unique
    vm: Option<String>,
    /// Only machines of this host
    #[arg(long)]
    host: Option<String>,
    /// Only machines of this quality, such as `no_period`
    #[arg(long, conflicts_with = "vm")]
    quality: Option<String>,
    /// Show step by step why so much can be harvested and no more
    #[arg(long, requires = "vm")]
    explain: bool,
    /// What to explain: rss (harvestable) or demand (reclaimable)
    #[arg(long, requires = "explain", value_parser = ["rss", "demand", "used"], default_value = "rss")]
    signal: String,
}

/// Shows machines.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context, args: &VmsArgs) -> Result<(), Failure> {
    let Some(vm) = &args.vm else {
        let filters = query([("host", args.host.clone()), ("quality", args.quality.clone())]);
        let now = context.mesh_now().await?;
        let show = |vms: &[Vm]| table(vms, now);
        return context.show_list("/vms", "vms", &filters, "no virtual machines", show).await;
    };
    let id = identify(context, vm, args.host.as_ref()).await?;
    if args.explain { explain(context, &id, &args.signal).await } else { one(context, &id).await }
}

/// The UUID that was meant: given as such, or as a machine's name.
async fn identify(context: &Context, text: &str, host: Option<&String>) -> Result<String, Failure> {
    if let Ok(id) = uuid::Uuid::try_parse(text) {
        return Ok(id.to_string());
    }
    let found = context.gateway.list("/vms", "vms", &query([("host", host.cloned())])).await?;
    let vms: Vec<Vm> = context.read_all("/vms", found)?;
    let named: Vec<&Vm> = vms.iter().filter(|vm| vm.name == text).collect();
    match named.as_slice() {
        [vm] => Ok(vm.vm.clone()),
        [] => Err(Failure::NoSuchMachine(text.to_owned())),
        several => {
            let list = several.iter().map(|vm| format!("{} on {}", vm.vm, vm.host)).collect::<Vec<_>>();
            Err(Failure::Ambiguous { name: text.to_owned(), machines: list.join(", ") })
        }
    }
}

async fn one(context: &Context, id: &str) -> Result<(), Failure> {
    let path = path(&["vms", id]);
    let reply = context.gateway.get(&path, &[]).await?;
    if context.out.json {
        return print_json(&reply.body);
    }
    let vm: Vm = context.read(&path, reply.body)?;
    let now = context.mesh_now().await?;
    print(&details(&vm, now).render(context.out.coloured))
}

async fn explain(context: &Context, id: &str, signal: &str) -> Result<(), Failure> {
    let path = path(&["vms", id, "explain"]);
    let signal = if signal == "used" { "demand" } else { signal };
    let reply = context.gateway.get(&path, &[("signal", signal.to_owned())]).await?;
    if context.out.json {
        return print_json(&reply.body);
    }
    let waterfall: Waterfall = context.read(&path, reply.body)?;
    let mut text = explanation(&waterfall).render(context.out.coloured);
    if let Some(warm_at) = waterfall.warm_at {
        let now = context.mesh_now().await?;
        text =
            format!("{text}\nsomething can be harvested {} at the earliest\n", relative(Some(warm_at), now));
    }
    print(&text)
}

fn table(vms: &[Vm], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "NAME",
        "VM",
        "HOST",
        "QUALITY",
        ">ALLOCATED",
        ">RSS",
        ">PREDICTED",
        ">HARVESTABLE",
        ">RECLAIMABLE",
        "READ",
        "LIMITED BY",
    ]);
    for vm in vms {
        table.row(vec![
            vm.name.as_str().into(),
            vm.vm.as_str().into(),
            vm.host.as_str().into(),
            quality(vm),
            bytes(vm.allocated_bytes).into(),
            bytes(vm.rss_bytes).into(),
            bytes(vm.predicted_rss_bytes).into(),
            bytes(vm.harvestable_bytes).into(),
            bytes(vm.reclaimable_bytes).into(),
            relative(vm.read_at, now).into(),
            limited_by(vm, now).into(),
        ]);
    }
    table
}

fn limited_by(vm: &Vm, now: Timestamp) -> String {
    match (vm.warm_at, &vm.limited_by) {
        (Some(warm_at), _) => format!("cold, warm {}", relative(Some(warm_at), now)),
        (None, Some(reason)) => reason.clone(),
        (None, None) => ABSENT.to_owned(),
    }
}

fn details(vm: &Vm, now: Timestamp) -> Table {
    let mut table = Table::new(&["FIELD", "VALUE"]);
    let rows: [(&str, Cell); 18] = [
        ("vm", vm.vm.as_str().into()),
        ("name", vm.name.as_str().into()),
        ("host", vm.host.as_str().into()),
        ("state", vm.state.as_str().into()),
        ("quality", quality(vm)),
        ("allocated", bytes(vm.allocated_bytes).into()),
        ("maximum", bytes(vm.maximum_bytes).into()),
        ("rss", bytes(vm.rss_bytes).into()),
        ("predicted rss", bytes(vm.predicted_rss_bytes).into()),
        ("harvestable", bytes(vm.harvestable_bytes).into()),
        ("demand", bytes(vm.demand_bytes).into()),
        ("predicted demand", bytes(vm.predicted_demand_bytes).into()),
        ("reclaimable", bytes(vm.reclaimable_bytes).into()),
        ("limited by", limited_by(vm, now).into()),
        ("open violations", vm.violations_open.map_or(ABSENT.to_owned(), |open| open.to_string()).into()),
        (
            "guest statistics",
            vm.stats_age_seconds.map_or(ABSENT.to_owned(), |age| format!("{age:.0} s old")).into(),
        ),
        ("read", relative(vm.read_at, now).into()),
        ("counts until", relative(vm.valid_until, now).into()),
    ];
    for (field, value) in rows {
        table.row(vec![field.into(), value]);
    }
    table
}

fn quality(vm: &Vm) -> Cell {
    let tone = match vm.quality.as_str() {
        "live" => Tone::Good,
        "no_balloon" | "no_period" | "paused" | "migrating" => Tone::Warn,
        _ => Tone::Bad,
    };
    Cell::toned(vm.quality.clone(), tone)
}

/// The waterfall from top to bottom, with what is left after every step.
fn explanation(waterfall: &Waterfall) -> Table {
    let (start, result) = if waterfall.signal == "demand" {
        ("resident and allocated", "reclaimable")
    } else {
        ("allocated", "harvestable")
    };
    let mut table = Table::new(&["STEP", ">BYTES", ">LEFT", "LIMITED BY", "WHY"]);
    table.row(vec![start.into(), "".into(), bytes(Some(waterfall.start_bytes)).into(), "".into(), "".into()]);
    let mut left = waterfall.start_bytes;
    for term in &waterfall.terms {
        left = left.saturating_sub(term.bytes);
        let taken = if term.bytes == 0 { bytes(Some(0)) } else { format!("-{}", bytes(Some(term.bytes))) };
        table.row(vec![
            term.name.replace('_', " ").into(),
            taken.into(),
            bytes(Some(left)).into(),
            term.limited_by.as_deref().unwrap_or_default().into(),
            term.detail.as_deref().unwrap_or_default().into(),
        ]);
    }
    let tone = if waterfall.result_bytes > 0 { Tone::Good } else { Tone::Warn };
    let total = Cell::toned(bytes(Some(waterfall.result_bytes)), tone);
    table.row(vec![result.into(), "".into(), total, "".into(), "".into()]);
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Term;

    #[test]
    fn a_waterfall_is_shown_with_what_is_left_after_every_step() {
        let term = |name: &str, bytes, limited_by: Option<&str>| Term {
            name: name.into(),
            bytes,
            limited_by: limited_by.map(str::to_owned),
            detail: limited_by.map(|_| "because".to_owned()),
        };
        let waterfall = Waterfall {
            signal: "rss".into(),
            start_bytes: 4 << 30,
            terms: vec![
                term("predicted", 1 << 30, Some("prediction")),
                term("headroom", 64 << 20, Some("headroom_bytes")),
                term("cold_start", 0, None),
            ],
            result_bytes: (3 << 30) - (64 << 20),
            warm_at: None,
        };
        let shown = explanation(&waterfall).render(false);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["allocated", "4.0", "GiB"]);
        assert!(lines[2].starts_with("predicted") && lines[2].contains("-1.0 GiB"), "{shown}");
        assert!(lines[2].contains("3.0 GiB") && lines[2].ends_with("because"), "{shown}");
        assert!(lines[4].starts_with("cold start") && lines[4].contains("0 B"), "{shown}");
        assert!(lines[5].starts_with("harvestable") && lines[5].ends_with("2.9 GiB"), "{shown}");
    }
}
