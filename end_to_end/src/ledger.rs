//! What the registry holds, read as any client can, and what must hold of it from one look to the next.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use jiff::Timestamp;
use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::query_history_request::Subject;
use memharvest_proto::registry::v1::violation_service_client::ViolationServiceClient;
use memharvest_proto::registry::v1::{
    ListLatestRequest, ListViolationsRequest, QueryHistoryRequest, Violation, ViolationState, VmRollup,
};
use memharvest_services::proto_time::to_proto;
use tonic::transport::Channel;

/// Length of a window of history, in seconds.
pub const WINDOW_S: i64 = 300;

const PAGE: i32 = 1000;

/// Everything that clients may rely on.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// Violations by their id.
    pub violations: BTreeMap<String, Violation>,
    /// Windows by machine and by their begin in Unix seconds.
    pub windows: BTreeMap<String, BTreeMap<i64, VmRollup>>,
}

impl Ledger {
    /// Reads all of it from the registry at this URL.
    ///
    /// # Errors
    /// When the registry does not answer, or holds anything twice.
    pub async fn read(registry: &str) -> anyhow::Result<Self> {
        let channel = Channel::from_shared(registry.to_owned())?.connect().await?;
        let violations = violations(channel.clone()).await?;
        let mut harvest = HarvestServiceClient::new(channel);
        let mut windows = BTreeMap::new();
        for vm in machines(&mut harvest).await? {
            let request = QueryHistoryRequest {
                subject: Some(Subject::VmId(vm.clone())),
                from: Some(to_proto(Timestamp::from_second(1)?)),
                // Whatever mesh clock the registry goes by.
                to: Some(to_proto(Timestamp::now() + Duration::from_hours(10 * 365 * 24))),
                ..QueryHistoryRequest::default()
            };
            let history = harvest.query_history(request).await?.into_inner().vms;
            let mut of_vm = BTreeMap::new();
            for window in history {
                let start = window.window_start.as_ref().context("a window without begin")?.seconds;
                let twice = of_vm.insert(start, window);
                ensure!(twice.is_none(), "window {start} of {vm} is there twice: {twice:?}");
            }
            windows.insert(vm, of_vm);
        }
        Ok(Self { violations, windows })
    }

    /// Whether this, read later, still holds all of `earlier`: unchanged, or brought forward.
    ///
    /// # Errors
    /// Names the first record that is lost, changed or gone back.
    pub fn keeps(&self, earlier: &Self) -> anyhow::Result<()> {
        for (id, before) in &earlier.violations {
            let now = self.violations.get(id).with_context(|| format!("violation lost: {before:?}"))?;
            went_forward(before, now).with_context(|| format!("was {before:?}, is {now:?}"))?;
        }
        for (vm, windows) in &earlier.windows {
            for (start, before) in windows {
                let now = self.windows.get(vm).and_then(|windows| windows.get(start));
                let now = now.with_context(|| format!("window lost: {before:?}"))?;
                let grew = now.readings > before.readings && now.rss_max_bytes >= before.rss_max_bytes;
                ensure!(grew || now == before, "a window went back: was {before:?}, is {now:?}");
            }
        }
        Ok(())
    }

    /// Violations that are open.
    pub fn open(&self) -> impl Iterator<Item = &Violation> {
        self.violations.values().filter(|violation| violation.state() == ViolationState::Open)
    }

    /// The begin of the newest window that every machine has, in Unix seconds; `None` before that.
    #[must_use]
    pub fn recorded_until(&self) -> Option<i64> {
        let newest = self.windows.values().map(|windows| windows.keys().next_back().copied());
        newest.min().flatten()
    }

    /// Whether the windows of every machine, from the one that begins at `from` through the newest, hold all readings
    /// that there must be: `each` in a window, without those that the collector says it did not take, and at most
    /// `lost` that it knows nothing of.
    ///
    /// # Errors
    /// Names a machine that lacks readings, and where.
    pub fn is_complete(&self, from: i64, each: u32, skipped: u32, lost: u32) -> anyhow::Result<()> {
        let to = self.recorded_until().context("nothing is recorded")?;
        ensure!(to > from, "nothing is recorded after {from}");
        let length = u32::try_from((to - from) / WINDOW_S)? + 1;
        for (vm, windows) in &self.windows {
            let readings: u32 = windows.range(from..=to).map(|(_, window)| window.readings).sum();
            // The first and the last tick may fall to either side of an edge.
            let wanted = (length * each).saturating_sub(skipped + lost + 2);
            let holes = self.holes(vm, from);
            ensure!(
                readings >= wanted,
                "{vm} has {readings} readings instead of {wanted} in the {length} windows of {from} to {to}; \
                 windows that are missing: {holes:?}"
            );
        }
        Ok(())
    }

    /// Windows that a machine lacks between `from` and the newest, by their begin in Unix seconds.
    #[must_use]
    pub fn holes(&self, vm: &str, from: i64) -> Vec<i64> {
        let Some(windows) = self.windows.get(vm) else { return Vec::new() };
        let Some((to, _)) = windows.last_key_value() else { return Vec::new() };
        let starts = std::iter::successors(Some(from), |start| Some(start + WINDOW_S));
        starts.take_while(|start| start < to).filter(|start| !windows.contains_key(start)).collect()
    }
}

async fn violations(channel: Channel) -> anyhow::Result<BTreeMap<String, Violation>> {
    let mut client = ViolationServiceClient::new(channel);
    let (mut found, mut episodes, mut page_token) = (BTreeMap::new(), BTreeMap::new(), String::new());
    loop {
        let request =
            ListViolationsRequest { page_size: PAGE, page_token, ..ListViolationsRequest::default() };
        let page = client.list_violations(request).await?.into_inner();
        for violation in page.violations {
            let opened = violation.opened_at.map(|at| (at.seconds, at.nanos));
            let episode = (violation.vm_id.clone(), violation.kind, violation.signal, opened);
            if let Some(other) = episodes.insert(episode, violation.violation_id.clone()) {
                bail!("one episode, two violations: {other} and {violation:?}");
            }
            let twice = found.insert(violation.violation_id.clone(), violation);
            ensure!(twice.is_none(), "two violations of one id: {twice:?}");
        }
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

async fn machines(client: &mut HarvestServiceClient<Channel>) -> anyhow::Result<Vec<String>> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListLatestRequest { page_size: PAGE, page_token, host_id: String::new() };
        let page = client.list_latest(request).await?.into_inner();
        found.extend(page.vms.into_iter().map(|vm| vm.vm_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

/// An episode keeps what it is about; it may get worse and close, and is done then.
fn went_forward(before: &Violation, now: &Violation) -> anyhow::Result<()> {
    let identity = |violation: &Violation| {
        let names = (violation.vm_id.clone(), violation.host_id.clone());
        (names, violation.kind, violation.signal, violation.opened_at)
    };
    ensure!(identity(before) == identity(now), "it is about something else");
    ensure!(now.revision >= before.revision, "its revision went back");
    ensure!(now.revision > before.revision || now == before, "it changed without a new revision");
    ensure!(before.state() == ViolationState::Open || now == before, "it was closed and changed");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger() -> Ledger {
        let window = |readings| VmRollup { readings, rss_max_bytes: Some(9), ..VmRollup::default() };
        let windows = (0..10).map(|nth| (nth * WINDOW_S, window(5))).collect();
        let open = Violation { revision: 2, state: ViolationState::Open.into(), ..Violation::default() };
        Ledger {
            violations: BTreeMap::from([("a".to_owned(), open)]),
            windows: BTreeMap::from([("vm".to_owned(), windows)]),
        }
    }

    fn changed(change: impl Fn(&mut Violation, &mut BTreeMap<i64, VmRollup>)) -> Ledger {
        let mut ledger = ledger();
        let violation = ledger.violations.get_mut("a").unwrap();
        change(violation, ledger.windows.get_mut("vm").unwrap());
        ledger
    }

    #[test]
    fn records_may_go_forward_and_in_no_other_direction() {
        let before = ledger();
        before.keeps(&before).unwrap();
        let closed = changed(|violation, _| {
            violation.set_state(ViolationState::Closed);
            violation.revision += 1;
        });
        closed.keeps(&before).unwrap();
        before.keeps(&closed).unwrap_err();
        changed(|violation, _| violation.actual_bytes += 1).keeps(&before).unwrap_err();
        changed(|violation, _| violation.kind += 1).keeps(&before).unwrap_err();
        changed(|_, windows| windows.get_mut(&0).unwrap().readings += 1).keeps(&before).unwrap();
        changed(|_, windows| windows.get_mut(&0).unwrap().readings -= 1).keeps(&before).unwrap_err();
        changed(|_, windows| windows.get_mut(&0).unwrap().rss_max_bytes = None).keeps(&before).unwrap_err();
        changed(|_, windows| windows.retain(|start, _| *start > 0)).keeps(&before).unwrap_err();
        Ledger { windows: before.windows.clone(), ..Ledger::default() }.keeps(&before).unwrap_err();
    }

    #[test]
    fn a_window_that_is_missing_is_noticed_unless_it_is_accounted_for() {
        ledger().is_complete(0, 5, 0, 0).unwrap();
        let torn = changed(|_, windows| windows.retain(|start, _| *start != 600));
        let said = torn.is_complete(0, 5, 0, 0).unwrap_err().to_string();
        assert!(said.contains("[600]"), "{said}");
        torn.is_complete(0, 5, 3, 0).unwrap();
        torn.is_complete(900, 5, 0, 0).unwrap();
        Ledger::default().is_complete(0, 5, 0, 0).unwrap_err();
    }
}
