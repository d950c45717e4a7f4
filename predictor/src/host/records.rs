//! What the registry is to keep of a reading.

use memharvest_proto::registry::v1::{RecordHarvestRequest, RecordViolationsRequest, Violation};

use super::{Context, show};
use crate::rollup::Whose;
use crate::state_file::Pending;
use crate::violation::Change;

/// Records in the making.
#[derive(Debug, Default)]
pub(super) struct Records {
    violations: Vec<Violation>,
    /// Roll-ups, harvest and coverage.
    pub(super) harvest: RecordHarvestRequest,
}

impl Records {
    /// Adds what happened to a machine's violations under the boundaries of `version`.
    pub(super) fn add(&mut self, whose: Whose<'_>, version: &str, changes: &[Change], context: &Context<'_>) {
        for change in changes {
            let violation = show::violation(whose, change.episode(), version, context.traceparent);
            match change {
                Change::Opened(_) => tracing::info!(
                    violation = violation.violation_id,
                    vm = violation.vm_id,
                    overshoot_bytes = violation.overshoot_bytes,
                    "violation opened"
                ),
                Change::Closed(_) => tracing::info!(
                    violation = violation.violation_id,
                    vm = violation.vm_id,
                    reason = violation.close_reason,
                    "violation closed"
                ),
                Change::Updated(_) => {}
            }
            self.violations.push(violation);
        }
    }

    /// The requests that they make.
    pub(super) fn pending(mut self, context: &Context<'_>) -> Vec<Pending> {
        let mut pending = Vec::new();
        if !self.violations.is_empty() {
            pending.push(Pending::Violations(RecordViolationsRequest {
                predictor_id: context.predictor_id.to_owned(),
                violations: self.violations,
            }));
        }
        let harvest = &mut self.harvest;
        let empty = harvest.vms.is_empty()
            && harvest.hosts.is_empty()
            && harvest.harvests.is_empty()
            && harvest.coverage.is_empty();
        if !empty {
            context.predictor_id.clone_into(&mut harvest.predictor_id);
            context.traceparent.clone_into(&mut harvest.traceparent);
            pending.push(Pending::Harvest(self.harvest));
        }
        pending
    }
}
