//! How many raw forecasts of a host were judged and held, by signal, horizon and target.

use std::collections::BTreeMap;

use memharvest_proto::predictor::v1 as pb;
use memharvest_proto::registry::v1::CoverageRollup;
use serde::{Deserialize, Serialize};

use crate::boundary::Effective;
use crate::convert::{duration, signal_to_proto, timestamp};
use crate::coverage::{Coverage, Judged};
use crate::domain::{Seconds, Signal};
use crate::rollup::window_start;

/// Horizon and target by their bits: they are compared only for being the same.
type Key = (Signal, u64, u64);

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
struct Ledger {
    coverage: Coverage,
    window: Judged,
    /// What this reading judged.
    now: Judged,
}

/// The ledgers of a host, and the window that is being filled.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Held {
    ledgers: BTreeMap<Key, Ledger>,
    start: Seconds,
}

impl Held {
    /// Begins a reading: answers the window before, where this reading begins another.
    pub(super) fn begin(&mut self, host_id: &str, at: Seconds) -> Vec<CoverageRollup> {
        let start = window_start(at);
        let finished = if start > self.start { self.finish(host_id) } else { Vec::new() };
        if start > self.start {
            self.start = start;
            for ledger in self.ledgers.values_mut() {
                ledger.window = Judged::default();
            }
        }
        for ledger in self.ledgers.values_mut() {
            ledger.coverage.observe(at, &Judged::default());
            ledger.now = Judged::default();
        }
        finished
    }

    /// Counts what was judged of one machine.
    pub(super) fn add(&mut self, at: Seconds, signal: Signal, effective: &Effective, judged: &Judged) {
        if judged.forecasts == 0 {
            return;
        }
        let key =
            (signal, effective.horizon.value.to_bits(), effective.target_violation_rate.value.to_bits());
        let ledger = self.ledgers.entry(key).or_default();
        ledger.coverage.observe(at, judged);
        ledger.window.merge(judged);
        ledger.now.merge(judged);
    }

    /// The window so far, for the registry.
    pub(super) fn finish(&self, host_id: &str) -> Vec<CoverageRollup> {
        let judged = self.ledgers.iter().filter(|(_, ledger)| ledger.window.forecasts > 0);
        judged
            .map(|(key, ledger)| CoverageRollup {
                host_id: host_id.to_owned(),
                signal: signal_to_proto(key.0).into(),
                horizon: Some(duration(f64::from_bits(key.1))),
                target_violation_rate: f64::from_bits(key.2),
                window_start: Some(timestamp(self.start)),
                judged: ledger.window.forecasts,
                held: ledger.window.held,
            })
            .collect()
    }

    /// The last 24 hours.
    pub(super) fn day(&self) -> Vec<pb::Coverage> {
        self.of(|ledger| ledger.coverage.day())
    }

    /// This reading.
    pub(super) fn now(&self) -> Vec<pb::Coverage> {
        self.of(|ledger| ledger.now)
    }

    fn of(&self, span: impl Fn(&Ledger) -> Judged) -> Vec<pb::Coverage> {
        let judged = self.ledgers.iter().map(|(key, ledger)| (key, span(ledger)));
        judged
            .filter(|(_, judged)| judged.forecasts > 0)
            .map(|(key, judged)| pb::Coverage {
                signal: signal_to_proto(key.0).into(),
                horizon: Some(duration(f64::from_bits(key.1))),
                target_violation_rate: f64::from_bits(key.2),
                judged: judged.forecasts,
                held: judged.held,
            })
            .collect()
    }
}
