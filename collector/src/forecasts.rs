//! What the predictor last said of every host, kept as it came until somebody asks.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;
use memharvest_proto::predictor::v1::{Host, HostUpdate, Vm};
use memharvest_services::proto_time::from_proto;
use prost::Message;
use prost::bytes::Bytes;
use uuid::Uuid;

/// The newest answer for every host. Clones share the same state.
#[derive(Debug, Clone, Default)]
pub struct Forecasts(Arc<Mutex<BTreeMap<String, Arc<Said>>>>);

/// An encoded `HostUpdate`, and what it says once somebody has asked.
#[derive(Debug)]
struct Said {
    encoded: Bytes,
    read: OnceLock<Option<Arc<HostForecast>>>,
}

/// What is said of a host and its machines.
#[derive(Debug, Clone, Default)]
pub struct HostForecast {
    /// The host.
    pub host: Host,
    vms: Vec<Vm>,
    places: HashMap<Uuid, usize>,
}

impl Said {
    fn read(&self) -> Option<Arc<HostForecast>> {
        let read = || match HostUpdate::decode(self.encoded.clone()) {
            Ok(update) => Some(Arc::new(HostForecast::of(update.host?, update.vms))),
            Err(error) => {
                tracing::warn!(%error, "what the predictor said cannot be read");
                None
            }
        };
        self.read.get_or_init(read).clone()
    }
}

impl HostForecast {
    /// What is said of a machine.
    #[must_use]
    pub fn vm(&self, id: &Uuid) -> Option<&Vm> {
        self.vms.get(*self.places.get(id)?)
    }

    fn of(host: Host, vms: Vec<Vm>) -> Self {
        let machines = vms.iter().enumerate();
        let places = machines.filter_map(|(place, vm)| Some((vm.vm_id.parse().ok()?, place))).collect();
        Self { host, vms, places }
    }
}

impl Forecasts {
    /// Takes in an encoded `HostUpdate`.
    pub fn put(&self, host_id: &str, encoded: Bytes) {
        let said = Arc::new(Said { encoded, read: OnceLock::new() });
        let mut all = self.lock();
        match all.get_mut(host_id) {
            Some(known) => *known = said,
            None => drop(all.insert(host_id.to_owned(), said)),
        }
    }

    /// What was last said of a host.
    #[must_use]
    pub fn get(&self, host_id: &str) -> Option<Arc<HostForecast>> {
        let said = self.lock().get(host_id).cloned()?;
        said.read()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Said>>> {
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
            forecasts.put("h", HostUpdate { host: Some(host), vms: vec![] }.encode_to_vec().into());
        }
        assert_eq!(forecasts.get("h").unwrap().host.harvestable_bytes, Some(2));
        assert!(forecasts.get("x").is_none());
        forecasts.put("broken", Bytes::from_static(b"\xff"));
        assert!(forecasts.get("broken").is_none());
    }
}
