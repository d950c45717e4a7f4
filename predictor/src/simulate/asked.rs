//! What a simulation is asked for, checked.

use memharvest_proto::collector::v1::Signal;
use memharvest_proto::predictor::v1::SimulateBoundaryRequest;
use memharvest_proto::registry::v1::{BoundaryValues, Fairness, HostBasis, VmRollup};
use memharvest_services::rpc_error::FieldViolations;
use tonic::Status;

use crate::boundary_set;
use crate::convert;
use crate::domain::Seconds;

const DAY: Seconds = 86_400.0;

/// How far back where nothing is asked: the time for which the registry keeps windows of five minutes.
const USUAL: Seconds = 7.0 * DAY;

/// The longest time.
const LONGEST: Seconds = 400.0 * DAY;

/// Machines in the answer where nothing is asked, and at most.
const VMS: (usize, usize) = (100, 10_000);

/// A request that makes sense.
#[derive(Clone, Debug)]
pub struct Asked {
    /// As it was written; the registry knows what it stands for.
    pub scope: String,
    /// What would be set there.
    pub values: BoundaryValues,
    /// Windows count that end after this time.
    pub from: Seconds,
    /// And until this time.
    pub to: Seconds,
    /// Machines in the answer at most.
    pub max_vms: usize,
    /// Windows in place of stored history.
    pub windows: Vec<VmRollup>,
}

impl Asked {
    /// Checks a request at a time.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT` that names every field which is wrong.
    pub fn of(request: SimulateBoundaryRequest, now: Seconds) -> Result<Self, Status> {
        let mut wrong = FieldViolations::default();
        if request.scope.is_empty() {
            wrong.add("scope", "is empty; give vm:<uuid>, host:<id>, group:<label>=<value> or fleet");
        }
        let values = request.values.unwrap_or_default();
        check_values(&request.scope, &values, &mut wrong);
        let max_vms = match usize::try_from(request.max_vms) {
            Ok(0) => VMS.0,
            Ok(count) => count.min(VMS.1),
            Err(_) => {
                wrong.add("max_vms", "is negative; give 1 to 10000, or 0 for 100");
                VMS.0
            }
        };
        let ends = ends_of(&request.windows, &mut wrong);
        let lookback = request.lookback.as_ref().map(convert::span);
        if lookback.is_some_and(|lookback| !(lookback > 0.0 && lookback <= LONGEST)) {
            wrong.add("lookback", "must be above 0 and at most 400 days");
        }
        let last = ends.map_or(now, |(_, last)| last);
        let to = request.to.as_ref().map_or(last, convert::seconds);
        let from = match (&request.from, ends) {
            (Some(from), _) => convert::seconds(from),
            (None, Some((first, _))) if lookback.is_none() => first - 1.0,
            (None, _) => to - lookback.unwrap_or(USUAL),
        };
        if request.from.is_some() && lookback.is_some() {
            wrong.add("lookback", "says the same as from; give one of them");
        }
        if from >= to {
            wrong.add("from", "must be before to");
        } else if to - from > LONGEST + 1.0 {
            wrong.add("from", "must be at most 400 days before to");
        }
        wrong.into_result()?;
        Ok(Self { scope: request.scope, values, from, to, max_vms, windows: request.windows })
    }
}

impl Asked {
    /// Whether it brings windows of its own, and none of them with a forecast.
    #[must_use]
    pub fn is_unforecast(&self) -> bool {
        let forecast = |window: &VmRollup| {
            window.predicted_rss_bytes.is_some() || window.predicted_demand_bytes.is_some()
        };
        !self.windows.is_empty() && !self.windows.iter().any(forecast)
    }
}

/// The ends of the first and of the last window; `None` where there is none.
fn ends_of(windows: &[VmRollup], wrong: &mut FieldViolations) -> Option<(Seconds, Seconds)> {
    let mut ends: Option<(Seconds, Seconds)> = None;
    for (index, rollup) in windows.iter().enumerate() {
        let window = super::Window::of(rollup).filter(|window| window.end.is_finite());
        let Some(window) = window.filter(|_| uuid::Uuid::try_parse(&rollup.vm_id).is_ok()) else {
            wrong.add(
                format!("windows[{index}]"),
                "must name a machine by its UUID, and have a window_start and a window above 0",
            );
            return None;
        };
        let (first, last) = ends.unwrap_or((window.end, window.end));
        ends = Some((first.min(window.end), last.max(window.end)));
    }
    ends
}

fn check_values(scope: &str, values: &BoundaryValues, wrong: &mut FieldViolations) {
    let mut refuse = |field: &str, message: &str| wrong.add(format!("values.{field}"), message);
    for problem in boundary_set::values(Some(values)).problems() {
        refuse(problem.field, &problem.message);
    }
    if values.fairness.is_some() && values.fairness() == Fairness::Unspecified {
        refuse("fairness", "must be per_vm, capped or fleet");
    }
    if values.signal.is_some() && values.signal() == Signal::Unspecified {
        refuse("signal", "must be rss or demand");
    }
    if values.host_basis.is_some() && values.host_basis() == HostBasis::Unspecified {
        refuse("host_basis", "must be sum or pooled");
    }
    if values.host_basis.is_some() && scope.starts_with("vm:") {
        refuse("host_basis", "is a matter of hosts: set it at a host, a group or the fleet");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::{duration, timestamp};

    const NOW: Seconds = 1_795_000_000.0;

    fn refused(request: SimulateBoundaryRequest) -> Vec<String> {
        let status = Asked::of(request, NOW).unwrap_err();
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        FieldViolations::of(&status).as_slice().iter().map(|one| one.field.clone()).collect()
    }

    fn fleet() -> SimulateBoundaryRequest {
        SimulateBoundaryRequest { scope: "fleet".to_owned(), ..SimulateBoundaryRequest::default() }
    }

    #[test]
    fn without_a_time_it_is_the_last_week() {
        let asked = Asked::of(fleet(), NOW).unwrap();
        assert_eq!((asked.to.to_bits(), asked.max_vms), (NOW.to_bits(), 100));
        assert!((asked.to - asked.from - USUAL).abs() < 1e-6);
        let request = SimulateBoundaryRequest { lookback: Some(duration(3600.0)), ..fleet() };
        assert!((Asked::of(request, NOW).unwrap().from - (NOW - 3600.0)).abs() < 1e-6);
    }

    #[test]
    fn everything_that_is_wrong_is_named() {
        let values = BoundaryValues {
            headroom_ratio: Some(f64::NAN),
            max_harvest_ratio: Some(1.5),
            target_violation_rate: Some(0.0),
            horizon: Some(duration(0.0)),
            floor_bytes: Some(u64::MAX),
            fairness: Some(0),
            host_basis: Some(99),
            ..BoundaryValues::default()
        };
        let request = SimulateBoundaryRequest {
            scope: "vm:x".to_owned(),
            values: Some(values),
            lookback: Some(duration(-1.0)),
            max_vms: -1,
            windows: vec![VmRollup::default()],
            ..SimulateBoundaryRequest::default()
        };
        let fields = refused(request);
        for field in [
            "values.headroom_ratio",
            "values.max_harvest_ratio",
            "values.target_violation_rate",
            "values.horizon",
            "values.floor_bytes",
            "values.fairness",
            "values.host_basis",
            "lookback",
            "max_vms",
            "windows[0]",
        ] {
            assert!(fields.iter().any(|found| found == field), "{field} in {fields:?}");
        }
        assert_eq!(refused(SimulateBoundaryRequest::default()), ["scope"]);
        let backwards = SimulateBoundaryRequest { from: Some(timestamp(NOW + 1.0)), ..fleet() };
        assert_eq!(refused(backwards), ["from"]);
    }
}
