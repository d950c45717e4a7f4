//! The machines of a host: in the order in which they were first read, which is nearly always the order in which the
//! next reading names them, so that a machine is found by looking where it was.

use std::collections::HashMap;

use memharvest_proto::collector::v1::HostReading;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::limits::Limits;
use super::pooled::{Peaks, day_of_peaks};
use super::{FORGOTTEN_AFTER, Refusal};
use crate::domain::Seconds;
use crate::guard::Inputs;
use crate::model::choice::Choice;
use crate::rollup::{VmWindow, Whose};
use crate::vm::VmState;

/// One machine.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) vm_id: String,
    pub(super) kept: KeptVm,
    /// What each harvest followed from at the last reading, `rss` first.
    pub(super) explained: Option<[Inputs; 2]>,
    pub(super) limits: Option<Limits>,
    pub(super) running: bool,
}

/// What is remembered of a machine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct KeptVm {
    pub(super) name: String,
    pub(super) state: VmState,
    /// What it held when it last said so.
    pub(super) allocated: Option<u64>,
    pub(super) window: VmWindow,
    /// Its own peaks, for the share of them that the host's sum reaches.
    pub(super) peaks: Peaks,
    pub(super) read_at: Seconds,
}

impl KeptVm {
    /// A machine of which nothing is known.
    fn of(model: Choice) -> Self {
        Self {
            name: String::new(),
            state: VmState::of(model.build(), model.build()),
            allocated: None,
            window: VmWindow::default(),
            peaks: day_of_peaks(),
            read_at: 0.0,
        }
    }
}

impl Entry {
    pub(super) fn of(vm_id: &str, kept: KeptVm) -> Self {
        Self { vm_id: vm_id.to_owned(), kept, explained: None, limits: None, running: false }
    }

    pub(super) fn whose<'a>(&'a self, host_id: &'a str) -> Whose<'a> {
        Whose { vm_id: &self.vm_id, name: &self.kept.name, host_id }
    }

    /// The boundary versions in force.
    pub(super) fn version(&self) -> &str {
        self.limits.as_ref().map_or("default", |limits| limits.version.as_str())
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Machines {
    /// What forecasts for those that are not known yet.
    model: Choice,
    entries: Vec<Entry>,
    places: HashMap<String, usize>,
}

impl Machines {
    /// None yet, whom this model will forecast.
    pub(super) fn forecast_by(model: Choice) -> Self {
        Self { model, ..Self::default() }
    }

    /// What forecasts for them.
    pub(super) const fn model(&self) -> Choice {
        self.model
    }

    /// The machine, a new one where it is not known; `hint` is where it probably is.
    pub(super) fn entry(&mut self, vm_id: &str, hint: usize) -> &mut Entry {
        let place =
            self.place(vm_id, hint).unwrap_or_else(|| self.insert(Entry::of(vm_id, KeptVm::of(self.model))));
        &mut self.entries[place]
    }

    /// The machine, where it is known.
    pub(super) fn get(&self, vm_id: &str) -> Option<&Entry> {
        self.entries.get(*self.places.get(vm_id)?)
    }

    /// Takes a machine in, in place of one with the same identity.
    pub(super) fn insert(&mut self, entry: Entry) -> usize {
        if let Some(place) = self.places.get(&entry.vm_id) {
            let place = *place;
            self.entries[place] = entry;
            return place;
        }
        self.places.insert(entry.vm_id.clone(), self.entries.len());
        self.entries.push(entry);
        self.entries.len() - 1
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Entry> {
        self.entries.iter()
    }

    pub(super) fn iter_mut(&mut self) -> std::slice::IterMut<'_, Entry> {
        self.entries.iter_mut()
    }

    /// Lets go of machines that were not read for a day.
    pub(super) fn forget(&mut self, at: Seconds) {
        let before = self.entries.len();
        self.entries.retain(|entry| at - entry.kept.read_at <= FORGOTTEN_AFTER);
        if self.entries.len() < before {
            self.places =
                self.entries.iter().enumerate().map(|(place, entry)| (entry.vm_id.clone(), place)).collect();
        }
    }

    /// Checks who a reading speaks of, and writes every UUID in its usual form.
    pub(super) fn identify(&self, reading: &mut HostReading) -> Result<(), Refusal> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        let host_id = &reading.host_id;
        if !(1..=128).contains(&host_id.len()) || !host_id.bytes().all(plain) {
            return Err(Refusal::HostId(host_id.clone()));
        }
        for (hint, vm) in reading.vms.iter_mut().enumerate() {
            if self.entries.get(hint).is_some_and(|known| known.vm_id == vm.vm_id) {
                continue;
            }
            let usual = vm.vm_id.len() == 36 && !vm.vm_id.bytes().any(|byte| byte.is_ascii_uppercase());
            let Ok(uuid) = Uuid::try_parse(&vm.vm_id) else {
                return Err(Refusal::VmId { vm_id: vm.vm_id.clone(), name: vm.name.clone() });
            };
            if !usual {
                vm.vm_id = uuid.to_string();
            }
        }
        Ok(())
    }

    fn place(&self, vm_id: &str, hint: usize) -> Option<usize> {
        if self.entries.get(hint).is_some_and(|entry| entry.vm_id == vm_id) {
            return Some(hint);
        }
        self.places.get(vm_id).copied()
    }
}
