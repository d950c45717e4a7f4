//! What the predictor last said of every host.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;
use memharvest_proto::predictor::v1::{Host, HostUpdate, Vm};
use memharvest_services::proto_time::from_proto;
use uuid::Uuid;

/// The newest answer for every host. Clones share the same state.
#[derive(Debug, Clone, Default)]
pub struct Forecasts(Arc<Mutex<BTreeMap<String, Arc<HostForecast>>>>);

/// What is said of a host and its machines.
#[derive(Debug, Clone, Default)]
pub struct HostForecast {
    /// The host.
    pub host: Host,
    vms: Vec<Vm>,
    /// Where a machine is in the list. Made when it is first asked for: answers come more often than scrapes.
    places: OnceLock<HashMap<Uuid, usize>>,
}

impl HostForecast {
    /// What is said of a machine.
    #[must_use]
    pub fn vm(&self, id: &Uuid) -> Option<&Vm> {
        let places = self.places.get_or_init(|| {
            let machines = self.vms.iter().enumerate();
            machines.filter_map(|(place, vm)| Some((vm.vm_id.parse().ok()?, place))).collect()
        });
        self.vms.get(*places.get(id)?)
    }
}

impl Forecasts {
    /// Takes in an answer; one without a host says nothing.
    pub fn put(&self, update: HostUpdate) {
        let Some(host) = update.host else { return };
        let id = host.host_id.clone();
        let forecast = HostForecast { host, vms: update.vms, places: OnceLock::new() };
        self.lock().insert(id, Arc::new(forecast));
    }

    /// What was last said of a host.
    #[must_use]
    pub fn get(&self, host_id: &str) -> Option<Arc<HostForecast>> {
        self.lock().get(host_id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<HostForecast>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether a forecast may still be relied on. One without an end never may.
#[must_use]
pub fn is_valid(valid_until: Option<&prost_types::Timestamp>, now: Timestamp) -> bool {
    valid_until.and_then(|until| from_proto(until).ok()).is_some_and(|until| now <= until)
}

#[cfg(test)]
mod tests {
    use super::*;
    use memharvest_services::proto_time::to_proto;

    #[test]
    fn a_forecast_ends_with_its_validity() {
        let at = |second| Timestamp::from_second(second).unwrap();
        let until = to_proto(at(10));
        assert!(is_valid(Some(&until), at(10)));
        assert!(!is_valid(Some(&until), at(11)));
        assert!(!is_valid(None, at(0)));
    }

    #[test]
    fn the_newest_answer_counts() {
        let forecasts = Forecasts::default();
        for harvestable in [1, 2] {
            let host = Host { host_id: "h".into(), harvestable_bytes: Some(harvestable), ..Host::default() };
            forecasts.put(HostUpdate { host: Some(host), vms: vec![] });
        }
        forecasts.put(HostUpdate::default());
        assert_eq!(forecasts.get("h").unwrap().host.harvestable_bytes, Some(2));
        assert!(forecasts.get("x").is_none());
    }
}
