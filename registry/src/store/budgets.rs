//! What a store tells of error budgets.

use crate::error_budget::{BrokenPromises, MachineTime};
use crate::store::Result;

/// What error budgets are worked out from.
pub trait BudgetStore: Send + Sync + 'static {
    /// Promise violations that opened at or after a time, by machine and host.
    fn broken_promises(&self, since_ns: i64) -> impl Future<Output = Result<Vec<BrokenPromises>>> + Send;

    /// How long machines ran on each host in the windows of the hour of a second and later.
    fn machine_time(&self, since_s: i64) -> impl Future<Output = Result<Vec<MachineTime>>> + Send;
}
