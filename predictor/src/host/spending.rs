//! What a reading spends of the error budgets that its machines are under.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use memharvest_proto::predictor::v1 as pb;

use super::limits::Budget;
use crate::budget::{Budgets, Standing};
use crate::domain::Seconds;
use crate::violation::{Change, Kind};

/// The budgets that were met in a reading.
#[derive(Debug)]
pub(super) struct Spending<'a> {
    budgets: &'a Mutex<Budgets>,
    at: Seconds,
    scopes: BTreeMap<String, Spent>,
}

#[derive(Debug)]
struct Spent {
    standing: Standing,
    vm_seconds: f64,
    violations: u64,
}

impl<'a> Spending<'a> {
    /// Nothing yet.
    pub(super) const fn new(budgets: &'a Mutex<Budgets>, at: Seconds) -> Self {
        Self { budgets, at, scopes: BTreeMap::new() }
    }

    /// Whether a budget is spent.
    pub(super) fn is_spent(&mut self, budget: &Budget) -> bool {
        self.of(budget).standing.is_spent()
    }

    /// Counts a machine that was watched for a time, and the promises that it broke just now.
    pub(super) fn count(&mut self, budget: &Budget, vm_seconds: f64, changes: &[Change]) {
        let broken =
            |change: &&Change| matches!(change, Change::Opened(episode) if episode.kind == Kind::Promise);
        let spent = self.of(budget);
        spent.vm_seconds += vm_seconds;
        spent.violations += changes.iter().filter(broken).count() as u64;
    }

    /// Brings what was counted home, and says where the budgets stood.
    pub(super) fn settle(self) -> Vec<pb::ErrorBudget> {
        let mut budgets = lock(self.budgets);
        let told = self.scopes.into_iter().map(|(scope, spent)| {
            budgets.count(&scope, self.at, spent.vm_seconds, spent.violations);
            pb::ErrorBudget {
                scope,
                violations: spent.standing.violations + spent.violations,
                allowed: spent.standing.allowed,
                remaining_ratio: spent.standing.remaining_ratio(),
            }
        });
        told.collect()
    }

    fn of(&mut self, budget: &Budget) -> &mut Spent {
        let Self { budgets, at, scopes } = self;
        scopes.entry(budget.scope.clone()).or_insert_with(|| Spent {
            standing: lock(budgets).standing(&budget.scope, *at, budget.per_1000_vm_days),
            vm_seconds: 0.0,
            violations: 0,
        })
    }
}

fn lock(budgets: &Mutex<Budgets>) -> MutexGuard<'_, Budgets> {
    budgets.lock().unwrap_or_else(PoisonError::into_inner)
}
