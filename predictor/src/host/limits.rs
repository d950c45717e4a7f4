//! The boundary in force for a machine or a host, worked out again only when something that it rests on changed.

use std::collections::BTreeMap;

use crate::boundary::{Effective, Source, Sourced};
use crate::boundary_set::BoundarySet;

/// What is in force, until the set changes.
#[derive(Debug)]
pub(super) struct Limits {
    revision: (bool, u64, bool),
    /// What is in force.
    pub(super) effective: Effective,
    /// The boundary versions that it rests on.
    pub(super) version: String,
    /// The scope whose error budget it spends.
    pub(super) budget: Option<Budget>,
}

/// A scope's error budget.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Budget {
    /// The scope that set it.
    pub(super) scope: String,
    /// Promise violations allowed in 1,000 VM-days.
    pub(super) per_1000_vm_days: f64,
}

/// Whose limits are asked for; an empty machine means the host itself.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    pub(super) vm_id: &'a str,
    pub(super) host_id: &'a str,
    pub(super) labels: &'a BTreeMap<String, String>,
    /// Whether the machine uses memory that was leased for it.
    pub(super) consumes: bool,
}

impl Limits {
    /// The limits, from `cached` where they still hold.
    pub(super) fn of<'a>(
        cached: &'a mut Option<Self>,
        boundaries: &BoundarySet,
        place: &Place<'_>,
    ) -> &'a Self {
        let revision = (boundaries.is_known(), boundaries.revision(), place.consumes);
        cached.take_if(|cached| cached.revision != revision);
        cached.get_or_insert_with(|| {
            let Place { vm_id, host_id, labels, consumes } = *place;
            let (mut effective, version) = boundaries.effective(vm_id, host_id, labels);
            // An operator may have excluded it: until the boundaries are known, nothing is harvested.
            effective.excluded.value |= !boundaries.is_known();
            if consumes && !effective.excluded.value {
                effective.excluded = Sourced { value: true, source: Source::Lease };
            }
            let budget = effective.error_budget_per_1000_vm_days.value.and_then(|per_1000_vm_days| {
                let scope = boundaries.budget_scope(vm_id, host_id, labels)?;
                Some(Budget { scope, per_1000_vm_days })
            });
            Self { revision, effective, version, budget }
        })
    }

    /// Whether the boundaries that it rests on have been heard.
    pub(super) const fn known(&self) -> bool {
        self.revision.0
    }
}
