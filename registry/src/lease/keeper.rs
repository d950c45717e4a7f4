//! What happens to leases by itself: they run out, and on evidence they are taken back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use memharvest_proto::registry::v1::{
    AgentKind, AgentState, Boundary, HostHarvest, Lease, ViolationKind, ViolationState,
};
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::shutdown::Stop;

use super::revocation::{Evidence, excess, taken_back};
use super::{Moment, under_notice};
use crate::boundary;
use crate::scope::{self, Scope};
use crate::store::{Change, Result, Store, StoreError, ViolationFilter};
use crate::time::{instant_to_ns, now_to_ns};

/// How often leases are looked at.
const EVERY: Duration = Duration::from_secs(1);

/// How often leases that ended long ago are removed.
const PRUNE_EVERY: Duration = Duration::from_mins(5);

/// How long a lease is kept after its end, in nanoseconds: 30 days.
const KEPT_NS: i64 = 30 * 86_400 * 1_000_000_000;

/// How long after a change of a boundary a shortage counts as its consequence, in nanoseconds. The predictor hears of a change within
/// seconds and tells the cut at once.
const CUT_COUNTS_NS: i64 = 10 * 60 * 1_000_000_000;

/// Most changes of boundaries that are looked through for the cause of a shortage.
const CHANGES: u32 = 500;

/// Agents read at once.
const AGENTS: u32 = 1000;

/// Keeps the leases of one store.
#[derive(Debug)]
pub struct LeaseKeeper<S> {
    /// The store.
    pub store: Arc<S>,
    /// What harvest runs on.
    pub clock: MeshClock,
    /// From the notice of a revocation to its end.
    pub notice: Duration,
    /// Who this registry is, for the audit log.
    pub author: String,
}

/// What is known of a host's agent.
#[derive(Clone, Debug, Default)]
struct Host {
    labels: BTreeMap<String, String>,
    decommissioned: bool,
}

impl<S: Store> LeaseKeeper<S> {
    /// Looks after the leases until it is told to stop.
    pub async fn run(self, stop: Stop) {
        let mut pruned_at: Option<tokio::time::Instant> = None;
        let mut failing = false;
        while !stop.is_requested() {
            let mut kept = self.look(Timestamp::now()).await.map(drop);
            if kept.is_ok() && pruned_at.is_none_or(|at| at.elapsed() >= PRUNE_EVERY) {
                kept = self.prune().await;
                pruned_at = Some(tokio::time::Instant::now());
            }
            if let Err(error) = &kept
                && !failing
            {
                tracing::warn!(%error, "leases cannot be looked after: {error}; trying again every {EVERY:?}");
            }
            failing = kept.is_err();
            tokio::select! {
                () = stop.requested() => {}
                () = tokio::time::sleep(EVERY) => {}
            }
        }
    }

    async fn prune(&self) -> Result<()> {
        let before = self.store.clock_ns().await?.saturating_sub(KEPT_NS);
        while self.store.prune_leases(before).await? > 0 {}
        Ok(())
    }

    /// Looks once: ends what is over, and gives notice where there is evidence. `wall` is the process's clock, from which the mesh clock
    /// follows. Returns how many leases ended and how many were given notice.
    ///
    /// # Errors
    /// What the store says.
    pub async fn look(&self, wall: Timestamp) -> Result<(u64, u64)> {
        let now =
            Moment { store_ns: self.store.clock_ns().await?, mesh_ns: now_to_ns(self.clock.mesh_of(wall)) };
        let ended = self.store.end_leases(now, &self.author).await?;
        let (_, leases) = self.store.holding_leases(now).await?;
        if leases.is_empty() {
            return Ok((ended, 0));
        }
        let mut by_host: BTreeMap<String, Vec<Lease>> = BTreeMap::new();
        for lease in leases {
            by_host.entry(lease.host_id.clone()).or_default().push(lease);
        }
        let harvests: BTreeMap<String, HostHarvest> = self
            .store
            .leased_harvests()
            .await?
            .into_iter()
            .map(|harvest| (harvest.host_id.clone(), harvest))
            .collect();
        let hosts = self.hosts(&by_host).await?;
        let (_, boundaries) = self.store.boundary_snapshot().await?;
        let mut noticed = 0;
        for (host_id, leases) in &by_host {
            let host = hosts.get(host_id).cloned().unwrap_or_default();
            let harvest = harvests.get(host_id).filter(|harvest| is_valid(harvest, now));
            let Some((evidence, bytes)) =
                self.evidence(host_id, &host, leases, harvest, &boundaries, now).await?
            else {
                continue;
            };
            for lease in taken_back(leases, &evidence, bytes) {
                self.give_notice(lease, &evidence, now).await?;
                noticed += 1;
            }
        }
        Ok((ended, noticed))
    }

    /// Labels and standing of the hosts with leases.
    async fn hosts(&self, leased: &BTreeMap<String, Vec<Lease>>) -> Result<BTreeMap<String, Host>> {
        let mut hosts = BTreeMap::new();
        let mut after = String::new();
        loop {
            let page = self.store.agents(&after, &[AgentKind::Collector], AGENTS).await?;
            let Some(last) = page.last() else { return Ok(hosts) };
            after.clone_from(&last.agent.agent_id);
            for stored in page {
                let agent = stored.agent;
                if leased.contains_key(&agent.agent_id) {
                    let decommissioned = agent.state() == AgentState::Decommissioned;
                    hosts.insert(agent.agent_id, Host { labels: agent.labels, decommissioned });
                }
            }
        }
    }

    /// What speaks for taking leases of a host back, and how much can be harvested there. Without a harvest that counts only an
    /// operator's word on the whole host does: silence is no evidence.
    async fn evidence(
        &self,
        host_id: &str,
        host: &Host,
        leases: &[Lease],
        harvest: Option<&HostHarvest>,
        boundaries: &[Boundary],
        now: Moment,
    ) -> Result<Option<(Evidence, u64)>> {
        if host.decommissioned {
            return Ok(Some((Evidence::Decommissioned, 0)));
        }
        let layers = scope::layers(None, Some(host_id), &host.labels);
        if let Some(scope) = excluded_by(&layers, boundaries) {
            return Ok(Some((Evidence::Excluded(scope), 0)));
        }
        let Some(harvest) = harvest else { return Ok(None) };
        let bytes = harvest.harvestable_bytes;
        if harvest.breaker_open {
            return Ok(Some((Evidence::Pressure, bytes)));
        }
        if excess(leases, bytes) == 0 {
            return Ok(None);
        }
        let broken = ViolationFilter {
            state: Some(ViolationState::Open),
            kind: Some(ViolationKind::Promise),
            host_id: host_id.to_owned(),
            ..ViolationFilter::default()
        };
        if let Some(violation) = self.store.violations(&broken, 1).await?.pop() {
            return Ok(Some((Evidence::BrokenPromise(violation.violation_id), bytes)));
        }
        let cut = self.recent_cut(host_id, &layers, now).await?;
        Ok(cut.map(|scope| (Evidence::Cut(scope), bytes)))
    }

    /// The scope of a boundary that speaks for the host or one of its machines and has changed of late.
    async fn recent_cut(&self, host_id: &str, layers: &[Scope], now: Moment) -> Result<Option<String>> {
        let newest = *self.store.boundary_revision().borrow();
        let after = newest.saturating_sub(u64::from(CHANGES));
        let mut seen = BTreeSet::new();
        for (_, boundary) in self.store.boundary_changes(after, CHANGES).await?.into_iter().rev() {
            let at = boundary.updated_at.as_ref().and_then(instant_to_ns).unwrap_or(i64::MIN);
            if at < now.store_ns.saturating_sub(CUT_COUNTS_NS) {
                return Ok(None);
            }
            if !seen.insert(boundary.scope.clone()) {
                continue;
            }
            let Ok(scope) = boundary.scope.parse::<Scope>() else { continue };
            let speaks = match &scope {
                Scope::Vm(vm) => self.store.host_of(*vm).await?.as_deref() == Some(host_id),
                other => layers.contains(other),
            };
            if speaks {
                return Ok(Some(boundary.scope));
            }
        }
        Ok(None)
    }

    async fn give_notice(&self, lease: &Lease, evidence: &Evidence, now: Moment) -> Result<()> {
        let notice = i64::try_from(self.notice.as_nanos()).unwrap_or(i64::MAX);
        let revoke_at = now.store_ns.saturating_add(notice);
        let reason = evidence.reason();
        let change = Change { author: self.author.clone(), reason: reason.clone(), at_ns: now.store_ns };
        let given = self
            .store
            .change_lease(&lease.lease_id, now, "lease.notice", &change, |lease| {
                Ok(under_notice(lease, &reason, revoke_at))
            })
            .await;
        match given {
            Ok(_) => {
                tracing::info!(
                    lease = lease.lease_id,
                    host = lease.host_id,
                    reason,
                    "lease {} is being revoked: {reason}",
                    lease.lease_id
                );
                Ok(())
            }
            Err(StoreError::NotFound(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

fn is_valid(harvest: &HostHarvest, now: Moment) -> bool {
    harvest.valid_until.as_ref().and_then(instant_to_ns).is_some_and(|until| until >= now.mesh_ns)
}

/// The scope that excludes a host from harvesting, if one does: the most specific that says anything.
fn excluded_by(layers: &[Scope], boundaries: &[Boundary]) -> Option<String> {
    let speak: Vec<Boundary> = layers
        .iter()
        .filter_map(|layer| {
            let scope = layer.to_string();
            boundaries.iter().find(|boundary| boundary.scope == scope).cloned()
        })
        .collect();
    let (values, sources) = boundary::effective(&speak);
    let source = sources.into_iter().find(|source| source.field == "excluded")?;
    (values.excluded == Some(true)).then_some(source.scope)
}
