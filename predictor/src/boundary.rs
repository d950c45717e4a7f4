//! What an operator may set, and what results for one VM: defaults, overlaid field by field by
//! fleet < group < host < vm, each value with the scope that it came from.

use serde::{Deserialize, Serialize};

use crate::domain::{MIB, Seconds, Signal};

/// No host has more: an exbibyte.
const MOST_BYTES: u64 = 1 << 60;

/// The narrowest scope that set a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// Nobody: it is built in.
    Default,
    /// The whole fleet.
    Fleet,
    /// A group of hosts.
    Group,
    /// One host.
    Host,
    /// One VM.
    Vm,
    /// A lease that the VM consumes.
    Lease,
}

impl Source {
    /// The lower-case word used on every surface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Fleet => "fleet",
            Self::Group => "group",
            Self::Host => "host",
            Self::Vm => "vm",
            Self::Lease => "lease",
        }
    }
}

/// Over whom the target violation rate is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Fairness {
    /// Every VM at its target.
    PerVm,
    /// The fleet's mean at the target, no VM above twice it.
    Capped,
    /// The fleet's mean only.
    Fleet,
}

impl Fairness {
    /// The lower-case word used on every surface.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::PerVm => "per_vm",
            Self::Capped => "capped",
            Self::Fleet => "fleet",
        }
    }
}

/// What a host's leases draw on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HostBasis {
    /// The sum of its VMs' harvest.
    Sum,
    /// A forecast of the host's summed usage.
    Pooled,
}

/// One scope's settings; `None` leaves a field to the wider scope.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Boundary {
    /// Headroom as a share of the prediction, 0..=10.
    pub headroom_ratio: Option<f64>,
    /// Headroom is at least this many bytes.
    pub headroom_bytes: Option<u64>,
    /// Never leave the VM less than this many bytes.
    pub floor_bytes: Option<u64>,
    /// Harvest at most this share of the allocation, 0..=1.
    pub max_harvest_ratio: Option<f64>,
    /// Usage above this many bytes is a boundary violation.
    pub upper_usage_bytes: Option<u64>,
    /// Usage below this many bytes is a boundary violation.
    pub lower_usage_bytes: Option<u64>,
    /// Share of raw forecasts that may be exceeded, above 0 and at most 0.5.
    pub target_violation_rate: Option<f64>,
    /// Over whom the target is kept.
    pub fairness: Option<Fairness>,
    /// How far forecasts look ahead.
    pub horizon: Option<Seconds>,
    /// Only this signal is harvested; the band above watches it.
    pub signal: Option<Signal>,
    /// Never harvest.
    pub excluded: Option<bool>,
    /// What the host's leases draw on.
    pub host_basis: Option<HostBasis>,
    /// Promise violations allowed in 1,000 VM-days.
    pub error_budget_per_1000_vm_days: Option<f64>,
}

/// A value that is refused, by the field's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field} {message}")]
pub struct Problem {
    /// The field as operators write it.
    pub field: &'static str,
    /// What is wrong with it and what would be right.
    pub message: String,
}

impl Boundary {
    /// Everything that is out of range, contradicts itself or leaves no margin, by the rules of the registry; empty when
    /// the boundary can be used.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Vec::new();
        let mut wrong = |field: &'static str, is_wrong: bool, message: String| {
            if is_wrong {
                found.push(Problem { field, message });
            }
        };
        let beyond = |value: Option<f64>, fits: fn(f64) -> bool| value.is_some_and(|value| !fits(value));
        wrong(
            "headroom_ratio",
            beyond(self.headroom_ratio, |v| (0.0..=10.0).contains(&v)),
            "must be from 0 to 10".to_owned(),
        );
        wrong(
            "max_harvest_ratio",
            beyond(self.max_harvest_ratio, |v| (0.0..=1.0).contains(&v)),
            "must be from 0 to 1".to_owned(),
        );
        wrong(
            "target_violation_rate",
            beyond(self.target_violation_rate, |v| v > 0.0 && v <= 0.5),
            "must be above 0 and at most 0.5".to_owned(),
        );
        wrong(
            "horizon",
            beyond(self.horizon, |v| (1.0..=86_400.0).contains(&v)),
            "must be from one second to 24 hours".to_owned(),
        );
        wrong(
            "error_budget_per_1000_vm_days",
            beyond(self.error_budget_per_1000_vm_days, |v| (0.0..=1e6).contains(&v)),
            "must be from 0 to 1000000".to_owned(),
        );
        for (field, value) in [
            ("headroom_bytes", self.headroom_bytes),
            ("floor_bytes", self.floor_bytes),
            ("upper_usage_bytes", self.upper_usage_bytes),
            ("lower_usage_bytes", self.lower_usage_bytes),
        ] {
            let too_large = value.is_some_and(|value| value > MOST_BYTES);
            wrong(field, too_large, format!("must be at most {MOST_BYTES} bytes"));
        }
        if let Some(upper) = self.upper_usage_bytes {
            let above = |value: Option<u64>| value.is_some_and(|value| value > upper);
            let message = format!("must not be above upper_usage_bytes, {upper}");
            wrong("lower_usage_bytes", above(self.lower_usage_bytes), message.clone());
            wrong("floor_bytes", above(self.floor_bytes), message);
        }
        let none = self.headroom_ratio == Some(0.0) && self.headroom_bytes == Some(0);
        let message = "must be above 0 where headroom_ratio is 0: without any headroom every error of a forecast is a broken promise";
        wrong("headroom_bytes", none, message.to_owned());
        found
    }
}

/// A value and the scope that set it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sourced<T> {
    /// The value in force.
    pub value: T,
    /// Who set it.
    pub source: Source,
}

impl<T> Sourced<T> {
    const fn default(value: T) -> Self {
        Self { value, source: Source::Default }
    }
}

/// What is in force for one VM: every field of [`Boundary`] with its source.
#[derive(Clone, Debug, PartialEq)]
pub struct Effective {
    /// Default 0.05.
    pub headroom_ratio: Sourced<f64>,
    /// Default 64 MiB.
    pub headroom_bytes: Sourced<u64>,
    /// Default 0.
    pub floor_bytes: Sourced<u64>,
    /// Default 1.
    pub max_harvest_ratio: Sourced<f64>,
    /// Default none.
    pub upper_usage_bytes: Sourced<Option<u64>>,
    /// Default none.
    pub lower_usage_bytes: Sourced<Option<u64>>,
    /// Default 0.01.
    pub target_violation_rate: Sourced<f64>,
    /// Default per VM.
    pub fairness: Sourced<Fairness>,
    /// Default 15 minutes.
    pub horizon: Sourced<Seconds>,
    /// Default none: both are harvested, and the band watches `rss`.
    pub signal: Sourced<Option<Signal>>,
    /// Default false.
    pub excluded: Sourced<bool>,
    /// Default the sum.
    pub host_basis: Sourced<HostBasis>,
    /// Default none: no budget.
    pub error_budget_per_1000_vm_days: Sourced<Option<f64>>,
}

impl Default for Effective {
    fn default() -> Self {
        Self {
            headroom_ratio: Sourced::default(0.05),
            headroom_bytes: Sourced::default(64 * MIB),
            floor_bytes: Sourced::default(0),
            max_harvest_ratio: Sourced::default(1.0),
            upper_usage_bytes: Sourced::default(None),
            lower_usage_bytes: Sourced::default(None),
            target_violation_rate: Sourced::default(0.01),
            fairness: Sourced::default(Fairness::PerVm),
            horizon: Sourced::default(900.0),
            signal: Sourced::default(None),
            excluded: Sourced::default(false),
            host_basis: Sourced::default(HostBasis::Sum),
            error_budget_per_1000_vm_days: Sourced::default(None),
        }
    }
}

impl Effective {
    /// Overlays the defaults with boundaries, widest scope first. Where two groups set the same field the later one
    /// given wins, so the caller orders them.
    pub fn merged<'a>(layers: impl IntoIterator<Item = (Source, &'a Boundary)>) -> Self {
        let mut effective = Self::default();
        for (source, boundary) in layers {
            effective.overlay(source, boundary);
        }
        effective
    }

    fn overlay(&mut self, source: Source, boundary: &Boundary) {
        fn set<T: Copy>(field: &mut Sourced<T>, value: Option<T>, source: Source) {
            if let Some(value) = value {
                *field = Sourced { value, source };
            }
        }
        // A ratio that is no number, or a rate of zero, would poison every figure downstream.
        let finite = |value: Option<f64>| value.filter(|value| value.is_finite() && *value >= 0.0);
        let positive = |value: Option<f64>| finite(value).filter(|value| *value > 0.0);
        set(&mut self.headroom_ratio, finite(boundary.headroom_ratio), source);
        set(&mut self.headroom_bytes, boundary.headroom_bytes, source);
        set(&mut self.floor_bytes, boundary.floor_bytes, source);
        set(&mut self.max_harvest_ratio, finite(boundary.max_harvest_ratio), source);
        set(&mut self.upper_usage_bytes, boundary.upper_usage_bytes.map(Some), source);
        set(&mut self.lower_usage_bytes, boundary.lower_usage_bytes.map(Some), source);
        set(&mut self.target_violation_rate, positive(boundary.target_violation_rate), source);
        set(&mut self.fairness, boundary.fairness, source);
        set(&mut self.horizon, positive(boundary.horizon), source);
        set(&mut self.signal, boundary.signal.map(Some), source);
        set(&mut self.excluded, boundary.excluded, source);
        set(&mut self.host_basis, boundary.host_basis, source);
        set(
            &mut self.error_budget_per_1000_vm_days,
            finite(boundary.error_budget_per_1000_vm_days).map(Some),
            source,
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_narrowest_scope_wins_field_by_field() {
        let fleet = Boundary { headroom_ratio: Some(0.1), floor_bytes: Some(1), ..Boundary::default() };
        let host = Boundary { floor_bytes: Some(2), ..Boundary::default() };
        let vm = Boundary { excluded: Some(true), ..Boundary::default() };
        let effective =
            Effective::merged([(Source::Fleet, &fleet), (Source::Host, &host), (Source::Vm, &vm)]);
        assert_eq!(effective.headroom_ratio, Sourced { value: 0.1, source: Source::Fleet });
        assert_eq!(effective.floor_bytes, Sourced { value: 2, source: Source::Host });
        assert_eq!(effective.excluded, Sourced { value: true, source: Source::Vm });
        assert_eq!(effective.horizon, Sourced { value: 900.0, source: Source::Default });
    }

    #[test]
    fn dangerous_values_are_named_and_never_take_effect() {
        let boundary = Boundary {
            headroom_ratio: Some(f64::NAN),
            max_harvest_ratio: Some(1.5),
            target_violation_rate: Some(0.0),
            horizon: Some(-1.0),
            lower_usage_bytes: Some(11),
            upper_usage_bytes: Some(10),
            ..Boundary::default()
        };
        let fields: Vec<_> = boundary.problems().into_iter().map(|problem| problem.field).collect();
        assert_eq!(
            fields,
            ["headroom_ratio", "max_harvest_ratio", "target_violation_rate", "horizon", "lower_usage_bytes"]
        );
        let effective = Effective::merged([(Source::Vm, &boundary)]);
        assert!((effective.headroom_ratio.value - 0.05).abs() < 1e-12);
        assert!((effective.target_violation_rate.value - 0.01).abs() < 1e-12);
        assert!((effective.horizon.value - 900.0).abs() < 1e-12);
    }
}
