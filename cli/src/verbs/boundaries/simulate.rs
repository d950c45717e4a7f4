//! `memharvest boundaries simulate`.

use std::fmt::Write;

use http::Method;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use super::Values;
use crate::Failure;
use crate::client::{Change, path};
use crate::format::{ABSENT, bytes, count};
use crate::table::{Cell, Table, Tone};
use crate::verbs::{Context, print, print_json};
use crate::when::When;

#[derive(Debug, clap::Args)]
pub(super) struct SimulateArgs {
    /// vm:UUID, host:ID, group:LABEL=VALUE or fleet
    scope: String,
    #[command(flatten)]
    values: Values,
    /// History from here: a time (RFC 3339), a day, or how long ago, such as 30d
    #[arg(long, value_name = "TIME", default_value = "7d")]
    from: When,
    /// Until here
    #[arg(long, value_name = "TIME", default_value = "now")]
    to: When,
    /// Machines to show: those for which most changes
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    vms: u16,
}

#[derive(Debug, Deserialize)]
struct Simulated {
    total: Effect,
    vms: Vec<Effect>,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
    #[serde(rename = "vms_simulated")]
    machines: u64,
    forecasts_made_anew: bool,
}

#[derive(Debug, Deserialize)]
struct Effect {
    vm: Option<String>,
    name: Option<String>,
    harvest_before_bytes: u64,
    harvest_after_bytes: u64,
    reclaimable_before_bytes: u64,
    reclaimable_after_bytes: u64,
    violations_before: u64,
    violations_after: u64,
    boundary_violations_before: u64,
    boundary_violations_after: u64,
    vm_days: f64,
    judged_vm_days: f64,
}

/// Asks what the scope would have done with these fields changed.
///
/// # Errors
/// When nothing is to be changed, or the gateway does not answer or refuses.
pub(super) async fn run(context: &Context, args: &SimulateArgs) -> Result<(), Failure> {
    let scope = path(&["boundaries", &args.scope]);
    let before = match context.gateway.get(&scope, &[]).await {
        Ok(reply) => reply.body,
        Err(error) if error.is_not_found() => Value::Null,
        Err(error) => return Err(error.into()),
    };
    let mut body = args.values.in_place_of(&before).ok_or(Failure::NothingToChange)?;
    // A replay runs ahead of the clock on the wall.
    let now = context.mesh_now().await?;
    body.insert("from".into(), args.from.before(now).to_string().into());
    body.insert("to".into(), args.to.before(now).to_string().into());
    body.insert("max_vms".into(), args.vms.into());
    let path = path(&["boundaries", &args.scope, "simulate"]);
    let change =
        Change { method: Method::POST, path: &path, body: Some(Value::Object(body)), ..Change::default() };
    let answer = context.gateway.send(change).await?.body;
    if context.out.json {
        return print_json(&answer);
    }
    let simulated: Simulated = context.read(&path, answer)?;
    let table = table(&simulated).render(context.out.coloured);
    print(&format!("{table}{}", remarks(&simulated)))
}

fn table(simulated: &Simulated) -> Table {
    let mut table = Table::new(&[
        "MACHINE",
        ">HARVEST",
        ">WOULD BE",
        ">RECLAIMABLE",
        ">WOULD BE",
        ">VIOLATIONS",
        ">WOULD BE",
    ]);
    for effect in std::iter::once(&simulated.total).chain(&simulated.vms) {
        let machine = match (&effect.name, &effect.vm) {
            (Some(name), _) => name.clone(),
            (None, Some(vm)) => vm.clone(),
            (None, None) => format!("all {}", simulated.machines),
        };
        let before = effect.violations_before + effect.boundary_violations_before;
        let after = effect.violations_after + effect.boundary_violations_after;
        let tone = match after.cmp(&before) {
            std::cmp::Ordering::Less => Tone::Good,
            std::cmp::Ordering::Equal => Tone::Plain,
            std::cmp::Ordering::Greater => Tone::Bad,
        };
        table.row(vec![
            machine.into(),
            bytes(Some(effect.harvest_before_bytes)).into(),
            bytes(Some(effect.harvest_after_bytes)).into(),
            bytes(Some(effect.reclaimable_before_bytes)).into(),
            bytes(Some(effect.reclaimable_after_bytes)).into(),
            before.to_string().into(),
            Cell::toned(after.to_string(), tone),
        ]);
    }
    table
}

/// What one should know about the figures.
fn remarks(simulated: &Simulated) -> String {
    let time = |at: Option<Timestamp>| at.map_or(ABSENT.to_owned(), |at| format!("{at:.0}"));
    let total = &simulated.total;
    let mut text = format!(
        "{} of {}, from {} to {}: mean harvest, and violations of promises and of the band",
        count(simulated.machines, "machine"),
        format_args!("{:.1} machine-days", total.vm_days),
        time(simulated.from),
        time(simulated.to)
    );
    if total.judged_vm_days < total.vm_days {
        // Writing to a text never fails.
        let _ = write!(
            text,
            "\nviolations are counted on {:.1} machine-days: older history is kept by the hour, too coarse to hold a promise to account",
            total.judged_vm_days
        );
    }
    if simulated.forecasts_made_anew {
        text += "\nforecasts were made anew from five-minute windows, because the change asks for others than were recorded";
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn effect(vm: Option<&str>) -> Value {
        json!({"vm": vm, "name": null, "harvest_before_bytes": 1_u64 << 30, "harvest_after_bytes": 1_u64 << 31,
            "reclaimable_before_bytes": 0, "reclaimable_after_bytes": 0, "violations_before": 1, "violations_after": 3,
            "boundary_violations_before": 0, "boundary_violations_after": 0, "vm_days": 30.0, "judged_vm_days": 7.0})
    }

    #[test]
    fn gain_and_cost_stand_side_by_side() {
        let answer = json!({"total": effect(None), "vms": [effect(Some("one"))], "from": "2026-11-01T00:00:00Z",
            "to": "2026-12-01T00:00:00Z", "vms_simulated": 2, "forecasts_made_anew": true});
        let simulated: Simulated = serde_json::from_value(answer).unwrap();
        let shown = table(&simulated).render(false);
        let all = shown.lines().find(|line| line.starts_with("all 2")).unwrap();
        assert!(all.contains("1.0 GiB") && all.contains("2.0 GiB") && all.ends_with('3'), "{shown}");
        assert!(shown.lines().any(|line| line.starts_with("one")));
        let told = remarks(&simulated);
        assert!(told.contains("from 2026-11-01T00:00:00Z to 2026-12-01T00:00:00Z"), "{told}");
        assert!(told.contains("7.0 machine-days") && told.contains("made anew"), "{told}");
    }
}
