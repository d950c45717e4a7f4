//! Where error budgets stand: how many promises may be broken within thirty days, and how many were. Pure.
//!
//! A budget of b violations per 1,000 VM-days allows b × VM-days / 1,000 within the window, as in Beyer et al. 2016, "Site Reliability
//! Engineering", chapter 3. A window that is not full yet counts as many VM-days as it will have if as many machines go on as before; a
//! budget would else be spent by the first violation of a young fleet.

use std::collections::BTreeMap;

use memharvest_proto::registry::v1::{Boundary, ErrorBudgetStanding};
use uuid::Uuid;

use crate::scope::{self, Scope};

/// Length of the window, in seconds.
pub const WINDOW_S: i64 = 30 * DAY_S;

const DAY_S: i64 = 86_400;

/// How many machines there are is not known better than by an hour of records.
const LEAST_SPAN_S: i64 = 3600;

/// How long machines ran on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MachineTime {
    /// The host.
    pub host_id: String,
    /// Their seconds, summed.
    pub vm_seconds: i64,
    /// When the first of the windows that were counted began, in seconds since 1970.
    pub since_s: i64,
}

/// How often the promises to a machine were broken on a host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BrokenPromises {
    /// The machine.
    pub vm: Uuid,
    /// The host.
    pub host_id: String,
    /// How often.
    pub count: u64,
}

/// What the last thirty days have seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The end of the window, in seconds since 1970.
    pub now_s: i64,
    /// By host.
    pub time: Vec<MachineTime>,
    /// By machine and host.
    pub broken: Vec<BrokenPromises>,
    /// Seconds of the machines whose own boundary sets a budget, and the host they were last on.
    pub of_machines: BTreeMap<Uuid, (Option<String>, i64)>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    vm_seconds: i64,
    since_s: Option<i64>,
    violations: u64,
}

/// Where every budget stands. `boundaries` are all that are set, `labels` those of the hosts.
#[must_use]
pub fn standings(
    boundaries: &[Boundary],
    labels: &BTreeMap<String, BTreeMap<String, String>>,
    seen: &Seen,
) -> Vec<ErrorBudgetStanding> {
    let budget_of = |boundary: &Boundary| boundary.values.as_ref()?.error_budget_per_1000_vm_days;
    let budgets: BTreeMap<&str, (&Boundary, f64)> = boundaries
        .iter()
        .filter_map(|boundary| Some((boundary.scope.as_str(), (boundary, budget_of(boundary)?))))
        .collect();
    let nobody = BTreeMap::new();
    let spends = |vm: Option<Uuid>, host: &str| -> Option<String> {
        let layers = scope::layers(vm, Some(host), labels.get(host).unwrap_or(&nobody));
        layers.iter().map(Scope::to_string).find(|scope| budgets.contains_key(scope.as_str()))
    };
    let mut sums: BTreeMap<String, Sum> = BTreeMap::new();
    for time in &seen.time {
        let Some(scope) = spends(None, &time.host_id) else { continue };
        let sum = sums.entry(scope).or_default();
        sum.vm_seconds += time.vm_seconds;
        sum.since_s = Some(sum.since_s.map_or(time.since_s, |since| since.min(time.since_s)));
    }
    for (vm, (host, vm_seconds)) in &seen.of_machines {
        // What a machine spends by itself it does not spend with its host.
        if let Some(sum) =
            host.as_deref().and_then(|host| spends(None, host)).and_then(|scope| sums.get_mut(&scope))
        {
            sum.vm_seconds = (sum.vm_seconds - vm_seconds).max(0);
        }
        let sum = sums.entry(Scope::Vm(*vm).to_string()).or_default();
        sum.vm_seconds += vm_seconds;
        sum.since_s = Some(seen.now_s - (*vm_seconds).clamp(0, WINDOW_S));
    }
    for broken in &seen.broken {
        if let Some(scope) = spends(Some(broken.vm), &broken.host_id) {
            sums.entry(scope).or_default().violations += broken.count;
        }
    }
    let standing = |(scope, (boundary, budget)): (&str, (&Boundary, f64))| {
        let sum = sums.get(scope).copied().unwrap_or_default();
        let span_s = (seen.now_s - sum.since_s.unwrap_or(seen.now_s)).clamp(LEAST_SPAN_S, WINDOW_S);
        let vm_days = real(sum.vm_seconds) / real(DAY_S);
        let allowed = budget * vm_days * real(WINDOW_S) / real(span_s) / 1000.0;
        ErrorBudgetStanding {
            scope: scope.to_owned(),
            version: boundary.version,
            per_1000_vm_days: budget,
            vm_days,
            violations: sum.violations,
            allowed,
            remaining_ratio: remaining(sum.violations, allowed),
        }
    };
    budgets.into_iter().map(standing).collect()
}

/// The share that is left. A budget that was not touched is whole, however small.
fn remaining(violations: u64, allowed: f64) -> f64 {
    match violations {
        0 => 1.0,
        spent => {
            (1.0 - real(i64::try_from(spent).unwrap_or(i64::MAX)) / allowed.max(f64::MIN_POSITIVE)).max(0.0)
        }
    }
}

#[expect(clippy::cast_precision_loss, reason = "shares and days need no more than 53 bits")]
fn real(whole: i64) -> f64 {
    whole as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use memharvest_proto::registry::v1::BoundaryValues;

    const NOW: i64 = 1_760_000_400;

    fn budget(scope: &str, per_1000: f64) -> Boundary {
        let values = BoundaryValues { error_budget_per_1000_vm_days: Some(per_1000), ..Default::default() };
        Boundary { scope: scope.to_owned(), version: 3, values: Some(values), ..Default::default() }
    }

    fn time(host: &str, vms: i64, days: i64) -> MachineTime {
        let since_s = NOW - days * DAY_S;
        MachineTime { host_id: host.to_owned(), vm_seconds: vms * days * DAY_S, since_s }
    }

    fn broken(vm: u128, host: &str, count: u64) -> BrokenPromises {
        BrokenPromises { vm: Uuid::from_u128(vm), host_id: host.to_owned(), count }
    }

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() < 1e-9
    }

    #[test]
    fn a_full_window_allows_what_its_machine_days_allow() {
        let seen = Seen {
            now_s: NOW,
            time: vec![time("h", 100, 30)],
            broken: vec![broken(1, "h", 2), broken(2, "h", 1)],
            ..Seen::default()
        };
        let all = standings(&[budget("fleet", 4.0)], &BTreeMap::new(), &seen);
        let [one] = &all[..] else { panic!("{all:?}") };
        assert_eq!((one.scope.as_str(), one.version, one.violations), ("fleet", 3, 3));
        assert!(close(one.vm_days, 3000.0) && close(one.allowed, 12.0), "{one:?}");
        assert!(close(one.remaining_ratio, 0.75), "{one:?}");
    }

    #[test]
    fn a_young_fleet_is_given_the_days_that_it_will_have() {
        let seen = Seen { now_s: NOW, time: vec![time("h", 100, 3)], ..Seen::default() };
        let all = standings(&[budget("fleet", 4.0)], &BTreeMap::new(), &seen);
        assert!(close(all[0].vm_days, 300.0) && close(all[0].allowed, 12.0), "{all:?}");
        assert!(close(all[0].remaining_ratio, 1.0));
        let none =
            standings(&[budget("fleet", 4.0)], &BTreeMap::new(), &Seen { now_s: NOW, ..Seen::default() });
        assert!(close(none[0].allowed, 0.0) && close(none[0].remaining_ratio, 1.0), "not touched is whole");
    }

    #[test]
    fn every_machine_spends_one_budget_the_most_specific() {
        let vm = Uuid::from_u128(7);
        let scopes =
            ["fleet", "group:rack=a", "host:i", &format!("vm:{vm}")].map(|scope| budget(scope, 1000.0));
        let labels = ["h", "i"]
            .map(|host| (host.to_owned(), BTreeMap::from([("rack".to_owned(), "a".to_owned())])))
            .into();
        let seen = Seen {
            now_s: NOW,
            time: vec![time("h", 2, 30), time("i", 3, 30), time("elsewhere", 4, 30)],
            broken: vec![broken(1, "h", 1), broken(2, "i", 2), broken(3, "elsewhere", 3), broken(7, "h", 4)],
            of_machines: BTreeMap::from([(vm, (Some("h".to_owned()), 30 * DAY_S))]),
        };
        let told: Vec<_> = standings(&scopes, &labels, &seen)
            .into_iter()
            .map(|one| (one.scope, one.vm_days, one.violations))
            .collect();
        let expected = [("fleet", 120.0, 3), ("group:rack=a", 30.0, 1), ("host:i", 90.0, 2)]
            .map(|(scope, days, violations)| (scope.to_owned(), days, violations));
        assert_eq!(told[..3], expected);
        assert_eq!(told[3], (format!("vm:{vm}"), 30.0, 4));
    }
}
