//! A host's harvest as the registry is told it: cuts at once, raises when they matter.

use memharvest_proto::predictor::v1::Host;
use memharvest_proto::registry::v1::HostHarvest;
use serde::{Deserialize, Serialize};

use crate::boundary::HostBasis;
use crate::breaker::{self, RESERVE};
use crate::convert::{seconds, timestamp};
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
    /// The record to send, where there is something to tell: the sum of the machines' harvest, or where an operator
    /// said so what the forecast of their sum yields, if that is more. No more than the host's available memory above
    /// its reserve is told, and nothing where that is not known. It holds until the next one is due, and no longer than
    /// the host's figures do after that: every cut in between is told.
    pub(super) fn tell(
        &mut self,
        at: Seconds,
        host: &Host,
        basis: HostBasis,
        breaker_open: bool,
    ) -> Option<HostHarvest> {
        let spendable =
            breaker::spendable(host.total_bytes, host.available_bytes, RESERVE).unwrap_or_default();
        let pooled = host.pooled_harvestable_bytes.filter(|_| basis == HostBasis::Pooled).unwrap_or_default();
        let bytes = host.harvestable_bytes.unwrap_or_default().max(pooled).min(spendable);
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
                valid_until: host.valid_until.as_ref().map(|until| timestamp(seconds(until) + PATIENCE)),
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
            reported.tell(at, &host, HostBasis::Sum, false).map(|told| told.harvestable_bytes)
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
    fn what_was_told_holds_until_the_next_is_due() {
        let mut reported = Reported::default();
        let mut told_at = |at: Seconds| {
            let valid_until = Some(timestamp(at + 15.0));
            let host = Host {
                total_bytes: Some(100_000),
                available_bytes: Some(50_000),
                harvestable_bytes: Some(1000),
                valid_until,
                ..Host::default()
            };
            reported
                .tell(at, &host, HostBasis::Sum, false)
                .and_then(|told| told.valid_until)
                .map(|until| seconds(&until))
        };
        let mut valid_until = 0.0;
        for step in 0..100_u8 {
            let at = f64::from(step) * 5.0;
            valid_until = told_at(at).unwrap_or(valid_until);
            assert!(valid_until > at, "nothing to lease at {at}, though the host is well");
        }
    }

    #[test]
    fn a_host_whose_memory_is_not_known_has_nothing_to_spend() {
        let host = Host { harvestable_bytes: Some(7), ..Host::default() };
        let told = Reported::default().tell(0.0, &host, HostBasis::Sum, false).unwrap();
        assert_eq!(told.harvestable_bytes, 0);
    }

    #[test]
    fn leases_draw_on_the_pool_only_where_an_operator_said_so() {
        let host = Host {
            total_bytes: Some(1000),
            available_bytes: Some(500),
            harvestable_bytes: Some(100),
            pooled_harvestable_bytes: Some(300),
            ..Host::default()
        };
        let told =
            |basis, host: &Host| Reported::default().tell(0.0, host, basis, false).unwrap().harvestable_bytes;
        assert_eq!((told(HostBasis::Sum, &host), told(HostBasis::Pooled, &host)), (100, 300));
        let short = Host { available_bytes: Some(250), ..host };
        assert_eq!(told(HostBasis::Pooled, &short), 200, "never more than is available above the reserve");
    }
}
