//! `memharvest agents`.

use jiff::Timestamp;

use super::Context;
use crate::Failure;
use crate::api::Agent;
use crate::format::{ABSENT, relative};
use crate::table::{Cell, Table, Tone};

/// Shows the processes of the mesh as the registry knows them.
///
/// # Errors
/// When the gateway does not answer or refuses.
pub(crate) async fn run(context: &Context) -> Result<(), Failure> {
    // Heartbeats are on the wall's clock, in a replay too.
    let now = Timestamp::now();
    context.show_list("/agents", "agents", &[], "no agents", |agents: &[Agent]| table(agents, now)).await
}

fn table(agents: &[Agent], now: Timestamp) -> Table {
    let mut table = Table::new(&[
        "AGENT",
        "KIND",
        "NAME",
        "STATE",
        "VERSION",
        "ADDRESS",
        "METRICS",
        "HEARD",
        ">FINDINGS",
    ]);
    let or_absent =
        |text: &Option<String>| text.clone().filter(|text| !text.is_empty()).unwrap_or(ABSENT.to_owned());
    for agent in agents {
        let duplicated = agent.duplicate_instance_id.as_ref().is_some_and(|other| !other.is_empty());
        let state = match agent.state.as_str() {
            _ if duplicated => Cell::toned(format!("{}, used twice", agent.state), Tone::Bad),
            "live" => Cell::toned("live", Tone::Good),
            "late" => Cell::toned("late", Tone::Warn),
            other => Cell::toned(other, Tone::Bad),
        };
        table.row(vec![
            agent.id.as_str().into(),
            agent.kind.as_str().into(),
            agent.name.as_str().into(),
            state,
            or_absent(&agent.version).into(),
            or_absent(&agent.address).into(),
            or_absent(&agent.admin_address).into(),
            relative(agent.last_seen_at, now).into(),
            agent.findings.len().to_string().into(),
        ]);
    }
    table
}
