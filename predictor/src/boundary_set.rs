//! All boundaries of the fleet as this predictor knows them, and what they come to for one machine.

use std::collections::BTreeMap;

use memharvest_proto::registry::v1 as pb;

use crate::boundary::{Boundary, Effective, Fairness, HostBasis, Source};
use crate::convert;

/// Boundaries by scope. Until they are known nothing may be harvested: an operator may have excluded anything.
#[derive(Clone, Debug, Default)]
pub struct BoundarySet {
    known: bool,
    revision: u64,
    by_scope: BTreeMap<String, pb::Boundary>,
}

impl BoundarySet {
    /// The set as of a revision.
    #[must_use]
    pub fn new(revision: u64, boundaries: Vec<pb::Boundary>) -> Self {
        let mut set = Self { known: true, revision, by_scope: BTreeMap::new() };
        for boundary in boundaries {
            set.put(boundary);
        }
        set
    }

    /// Whether the registry has been heard, now or in an earlier life.
    #[must_use]
    pub const fn is_known(&self) -> bool {
        self.known
    }

    /// The registry's revision that this set stands at; 0 before the first.
    #[must_use]
    pub const fn revision(&self) -> u64 {
        self.revision
    }

    /// The boundaries, ordered by scope.
    pub fn iter(&self) -> impl Iterator<Item = &pb::Boundary> {
        self.by_scope.values()
    }

    /// The same set with other values at a scope, in place of all that is set there.
    #[must_use]
    pub fn with(&self, scope: &str, values: pb::BoundaryValues) -> Self {
        let mut set = self.clone();
        let values = Some(values);
        set.put(pb::Boundary { scope: scope.to_owned(), values, ..pb::Boundary::default() });
        set
    }

    /// Takes one change.
    pub fn apply(&mut self, revision: u64, boundary: pb::Boundary) {
        self.apply_revision(revision);
        self.put(boundary);
    }

    /// Notes that the set stands at a revision.
    pub fn apply_revision(&mut self, revision: u64) {
        self.revision = self.revision.max(revision);
    }

    fn put(&mut self, boundary: pb::Boundary) {
        if boundary.deleted {
            self.by_scope.remove(&boundary.scope);
        } else {
            self.by_scope.insert(boundary.scope.clone(), boundary);
        }
    }

    /// What holds for a machine, and the versions that it rests on (`fleet@3 host:a@1`, or `default`). Of two
    /// groups that set the same field, the one whose label comes first by name wins, as the registry resolves it.
    #[must_use]
    pub fn effective(
        &self,
        vm_id: &str,
        host_id: &str,
        labels: &BTreeMap<String, String>,
    ) -> (Effective, String) {
        if self.by_scope.is_empty() {
            return (Effective::default(), "default".to_owned());
        }
        let found: Vec<_> = self
            .found(vm_id, host_id, labels)
            .map(|(source, stored)| (source, stored, values(stored.values.as_ref())))
            .collect();
        if found.is_empty() {
            return (Effective::default(), "default".to_owned());
        }
        let effective = Effective::merged(found.iter().map(|(source, _, values)| (*source, values)));
        let versions: Vec<_> =
            found.iter().map(|(_, stored, _)| format!("{}@{}", stored.scope, stored.version)).collect();
        (effective, versions.join(" "))
    }

    /// The scope whose error budget a machine spends; `None` where no budget is set for it.
    #[must_use]
    pub fn budget_scope(
        &self,
        vm_id: &str,
        host_id: &str,
        labels: &BTreeMap<String, String>,
    ) -> Option<String> {
        let budget = |stored: &pb::Boundary| stored.values.as_ref()?.error_budget_per_1000_vm_days;
        self.found(vm_id, host_id, labels)
            .filter(|(_, stored)| budget(stored).is_some_and(|budget| budget.is_finite() && budget >= 0.0))
            .last()
            .map(|(_, stored)| stored.scope.clone())
    }

    /// What is set for a machine, widest scope first.
    fn found(
        &self,
        vm_id: &str,
        host_id: &str,
        labels: &BTreeMap<String, String>,
    ) -> impl Iterator<Item = (Source, &pb::Boundary)> {
        std::iter::once((Source::Fleet, "fleet".to_owned()))
            .chain(
                labels.iter().rev().map(|(label, value)| (Source::Group, format!("group:{label}={value}"))),
            )
            .chain([(Source::Host, format!("host:{host_id}")), (Source::Vm, format!("vm:{vm_id}"))])
            .filter_map(|(source, scope)| Some((source, self.by_scope.get(&scope)?)))
    }
}

/// A scope's values in the core's words; what was left unsaid or is not known stays with the wider scope.
#[must_use]
pub fn values(values: Option<&pb::BoundaryValues>) -> Boundary {
    let Some(values) = values else { return Boundary::default() };
    Boundary {
        headroom_ratio: values.headroom_ratio,
        headroom_bytes: values.headroom_bytes,
        floor_bytes: values.floor_bytes,
        max_harvest_ratio: values.max_harvest_ratio,
        upper_usage_bytes: values.upper_usage_bytes,
        lower_usage_bytes: values.lower_usage_bytes,
        target_violation_rate: values.target_violation_rate,
        fairness: values.fairness.and_then(|_| match values.fairness() {
            pb::Fairness::Unspecified => None,
            pb::Fairness::PerVm => Some(Fairness::PerVm),
            pb::Fairness::Capped => Some(Fairness::Capped),
            pb::Fairness::Fleet => Some(Fairness::Fleet),
        }),
        horizon: values.horizon.as_ref().map(convert::span),
        signal: values.signal.and_then(|_| convert::signal(values.signal())),
        excluded: values.excluded,
        host_basis: values.host_basis.and_then(|_| match values.host_basis() {
            pb::HostBasis::Unspecified => None,
            pb::HostBasis::Sum => Some(HostBasis::Sum),
            pb::HostBasis::Pooled => Some(HostBasis::Pooled),
        }),
        error_budget_per_1000_vm_days: values.error_budget_per_1000_vm_days,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn boundary(scope: &str, version: u64, headroom_bytes: u64) -> pb::Boundary {
        let values =
            pb::BoundaryValues { headroom_bytes: Some(headroom_bytes), ..pb::BoundaryValues::default() };
        pb::Boundary { scope: scope.into(), version, values: Some(values), ..pb::Boundary::default() }
    }

    #[test]
    fn the_narrowest_scope_that_fits_wins_and_every_version_is_named() {
        let mut set = BoundarySet::new(
            5,
            vec![
                boundary("fleet", 1, 1),
                boundary("group:rack=a", 2, 2),
                boundary("group:rack=b", 3, 3),
                boundary("host:h", 4, 4),
            ],
        );
        let labels = BTreeMap::from([("rack".to_owned(), "a".to_owned())]);
        let (effective, versions) = set.effective("v", "other", &labels);
        assert_eq!((effective.headroom_bytes.value, versions.as_str()), (2, "fleet@1 group:rack=a@2"));
        assert_eq!(set.effective("v", "h", &labels).0.headroom_bytes.value, 4);

        let both = BTreeMap::from([("rack".to_owned(), "a".to_owned()), ("tier".to_owned(), "1".to_owned())]);
        set.apply(5, boundary("group:tier=1", 1, 9));
        assert_eq!(set.effective("v", "other", &both).0.headroom_bytes.value, 2, "rack comes before tier");

        set.apply(6, pb::Boundary { deleted: true, ..boundary("host:h", 5, 0) });
        assert_eq!(set.effective("v", "h", &labels).0.headroom_bytes.value, 2);
        assert_eq!(set.revision(), 6);
        assert_eq!(BoundarySet::default().effective("v", "h", &labels).1, "default");
    }
}
