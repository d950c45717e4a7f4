//! What a host remembers, as snapshots and back.

use std::collections::BTreeMap;

use memharvest_proto::registry::v1::{ModelSnapshot, Violation};

use super::machines::{Entry, KeptVm};
use super::{FORGOTTEN_AFTER, HostState, Kept, show};
use crate::convert::timestamp;
use crate::domain::{Seconds, Signal};
use crate::model::{Model as _, choice::Choice};
use crate::snapshot::{self, SnapshotError};
use crate::violation::Episode;
use crate::vm::VmState;

/// The clock may have been set back by this much since.
const CLOCK: Seconds = 5.0;

/// A host as it came back.
#[derive(Debug, Default)]
pub struct Restored {
    /// The host.
    pub host: HostState,
    /// Machines that came back.
    pub machines: usize,
    /// Machines that did not, by their ids, and why; the host itself has an empty id.
    pub refused: Vec<(String, SnapshotError)>,
}

impl HostState {
    /// Everything that is remembered, the host itself first; to be sealed. Empty before the first reading.
    #[must_use]
    pub fn snapshots(&self) -> Vec<ModelSnapshot> {
        let Some(read_at) = self.kept.read_at else { return Vec::new() };
        let host_id = &self.kept.host_id;
        let one = |vm_id: &str, model_version: String, at: Seconds, state| match state {
            Ok(state) => Some(ModelSnapshot {
                vm_id: vm_id.to_owned(),
                host_id: host_id.clone(),
                model_version,
                taken_at: Some(timestamp(at)),
                state,
                checksum: Vec::new(),
            }),
            Err(error) => {
                tracing::error!(host = host_id, vm = vm_id, %error, "a state cannot be written");
                None
            }
        };
        let host = one("", version(self.machines.model()), read_at, snapshot::encode(&self.kept));
        let machines = self.machines.iter().filter_map(|entry| {
            let model = model_version(&entry.kept.state);
            one(&entry.vm_id, model, entry.kept.read_at, snapshot::encode(&entry.kept))
        });
        host.into_iter().chain(machines).collect()
    }

    /// A host from sealed snapshots, forecast by `model`. What is refused is left out, so that it starts cold.
    #[must_use]
    pub fn restore(host_id: &str, snapshots: &[ModelSnapshot], model: Choice, now: Seconds) -> Restored {
        let mut restored = Restored { host: Self::forecast_by(model), ..Restored::default() };
        let wanted = version(model);
        for snapshot in snapshots {
            if let Err(error) = restored.host.take(host_id, snapshot, &wanted, now) {
                restored.refused.push((snapshot.vm_id.clone(), error));
            }
        }
        host_id.clone_into(&mut restored.host.kept.host_id);
        restored.machines = restored.host.machines.iter().count();
        // A host whose own part is lost was read when its machines were: what is older is passed over.
        let newest = restored.host.machines.iter().map(|entry| entry.kept.read_at).fold(0.0, f64::max);
        let read_at = &mut restored.host.kept.read_at;
        *read_at = read_at.or((newest > 0.0).then_some(newest));
        restored
    }

    /// Brings what is open in line with the ledger, which may know more: episodes that it does not have open are over,
    /// those that it has got worse are as bad here. Takes the episodes that go on out of `open`.
    pub fn reconcile(&mut self, open: &mut BTreeMap<String, Violation>) {
        for entry in self.machines.iter_mut() {
            let vm_id = &entry.vm_id;
            entry.kept.state.retain_open(|episode: &mut Episode| {
                let Some(told) = open.remove(&show::violation_id(vm_id, episode)) else { return false };
                episode.revision = episode.revision.max(told.revision);
                if told.overshoot_bytes > episode.overshoot_bytes {
                    episode.overshoot_bytes = told.overshoot_bytes;
                    episode.actual_bytes = told.actual_bytes;
                }
                true
            });
        }
    }

    /// When it was read last.
    #[must_use]
    pub const fn read_at(&self) -> Option<Seconds> {
        self.kept.read_at
    }

    fn take(
        &mut self,
        host_id: &str,
        snapshot: &ModelSnapshot,
        wanted: &str,
        now: Seconds,
    ) -> Result<(), SnapshotError> {
        if snapshot.host_id != host_id {
            return Err(SnapshotError::Other(format!("host {}", snapshot.host_id)));
        }
        if snapshot.vm_id.is_empty() {
            let kept: Kept = snapshot::unseal(snapshot, wanted)?;
            self.kept = fresh(kept, now, |kept| kept.read_at.unwrap_or(0.0))?;
        } else {
            let kept: KeptVm = snapshot::unseal(snapshot, wanted)?;
            let kept = fresh(kept, now, |kept| kept.read_at)?;
            self.machines.insert(Entry::of(&snapshot.vm_id, kept));
        }
        Ok(())
    }
}

/// A model as it names itself.
fn version(model: Choice) -> String {
    model.build().version().into_owned()
}

/// The model of a machine; both signals have the same.
fn model_version(state: &VmState) -> String {
    state.track(Signal::Rss).model_version().into_owned()
}

fn fresh<T>(kept: T, now: Seconds, read_at: impl Fn(&T) -> Seconds) -> Result<T, SnapshotError> {
    if (-CLOCK..=FORGOTTEN_AFTER).contains(&(now - read_at(&kept))) {
        Ok(kept)
    } else {
        Err(SnapshotError::TooOld)
    }
}
