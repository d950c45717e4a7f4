//! Where the error budgets stand, from what the store has recorded.

use std::collections::BTreeMap;

use memharvest_proto::registry::v1::{AgentKind, ErrorBudgetStanding};

use crate::error_budget::{Seen, WINDOW_S, standings};
use crate::scope::Scope;
use crate::store::{Range, Result, Store, StoreError};

/// Agents read at once.
const AGENTS: u32 = 1000;

/// More windows than thirty days can have of one machine.
const WINDOWS: usize = 100_000;

/// All budgets as of a second since 1970 of the mesh clock.
pub(super) async fn list(store: &impl Store, now_s: i64) -> Result<Vec<ErrorBudgetStanding>> {
    let (_, mut boundaries) = store.boundary_snapshot().await?;
    boundaries.retain(|boundary| {
        boundary.values.as_ref().is_some_and(|values| values.error_budget_per_1000_vm_days.is_some())
    });
    if boundaries.is_empty() {
        return Ok(Vec::new());
    }
    let from_s = now_s - WINDOW_S;
    let mut seen = Seen {
        now_s,
        time: store.machine_time(from_s).await?,
        broken: store.broken_promises(from_s.saturating_mul(1_000_000_000)).await?,
        of_machines: BTreeMap::new(),
    };
    for boundary in &boundaries {
        let Ok(Scope::Vm(vm)) = boundary.scope.parse() else { continue };
        let range = Range { from_s, to_s: now_s, limit: WINDOWS };
        let windows = match store.vm_history(vm, range).await {
            Err(StoreError::NotFound(_)) => Vec::new(),
            windows => windows?,
        };
        let seconds =
            windows.iter().filter_map(|window| window.window.as_ref()).map(|window| window.seconds).sum();
        seen.of_machines.insert(vm, (store.host_of(vm).await?, seconds));
    }
    Ok(standings(&boundaries, &labels(store).await?, &seen))
}

/// The labels of all hosts.
async fn labels(store: &impl Store) -> Result<BTreeMap<String, BTreeMap<String, String>>> {
    let mut labels = BTreeMap::new();
    let mut after = String::new();
    loop {
        let page = store.agents(&after, &[AgentKind::Collector], AGENTS).await?;
        let Some(last) = page.last() else { return Ok(labels) };
        after.clone_from(&last.agent.agent_id);
        labels.extend(page.into_iter().map(|stored| (stored.agent.agent_id, stored.agent.labels)));
    }
}
