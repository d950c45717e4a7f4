//! A host's harvest as the registry is told it: cuts at once, raises when they matter.

use memharvest_proto::predictor::v1::Host;
use memharvest_proto::registry::v1::HostHarvest;
use serde::{Deserialize, Serialize};

use crate::breaker::{self, RESERVE};
use crate::convert::timestamp;
use crate::domain::{Seconds, real};

/// A raise below this share waits.
const RAISE: f64 = 0.05;
/// But no longer than this.
const PATIENCE: Seconds = 60.0;

/// What was told last.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub(super) struct Reported {
    told: Option<(Seconds, u64, bool)>,
}

impl Reported {
    /// The record to send, where there is something to tell. No more than the host's available memory above its
    /// reserve is told, and nothing where that is not known.
    pub(super) fn tell(&mut self, at: Seconds, host: &Host, breaker_open: bool) -> Option<HostHarvest> {
        let spendable =
            breaker::spendable(host.total_bytes, host.available_bytes, RESERVE).unwrap_or_default();
        let bytes = host.harvestable_bytes.unwrap_or_default().min(spendable);
        let due = self.told.is_none_or(|(told_at, told, open)| {
            bytes < told
                || open != breaker_open
                || real(bytes) > real(told) * (1.0 + RAISE)
                || at - told_at >= PATIENCE
        });
        due.then(|| {
            self.told = Some((at, bytes, breaker_open));
            HostHarvest {
                host_id: host.host_id.clone(),
                read_at: Some(timestamp(at)),
                harvestable_bytes: bytes,
                valid_until: host.valid_until,
                breaker_open,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cuts_are_told_at_once_and_small_raises_after_a_minute() {
        let mut reported = Reported::default();
        let mut tell = |at, bytes| {
            let host = Host {
                total_bytes: Some(100_000),
                available_bytes: Some(50_000),
                harvestable_bytes: Some(bytes),
                ..Host::default()
            };
            reported.tell(at, &host, false).map(|told| told.harvestable_bytes)
        };
        assert_eq!(tell(0.0, 1000), Some(1000));
        assert_eq!(tell(5.0, 1049), None);
        assert_eq!(tell(10.0, 1051), Some(1051));
        assert_eq!(tell(15.0, 1050), Some(1050));
        assert_eq!(tell(20.0, 1051), None);
        assert_eq!(tell(75.0, 1051), Some(1051));
        assert_eq!(tell(80.0, 90_000), Some(45_000), "never more than is available above the reserve");
    }

    #[test]
    fn a_host_whose_memory_is_not_known_has_nothing_to_spend() {
        let host = Host { harvestable_bytes: Some(7), ..Host::default() };
        assert_eq!(Reported::default().tell(0.0, &host, false).unwrap().harvestable_bytes, 0);
    }
}
