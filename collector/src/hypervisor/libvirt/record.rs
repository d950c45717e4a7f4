//! What libvirt says of one domain in one call, in bytes. Pure.

use jiff::Timestamp;
use uuid::Uuid;
use virt::sys;

use crate::reading::{GuestMemory, VmState};

/// One domain as libvirt listed it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DomainRecord {
    /// Identity of the machine.
    pub(super) uuid: Uuid,
    /// Identity of its process: new with every start.
    pub(super) id: u32,
    /// Its name.
    pub(super) name: String,
    /// libvirt's number for what it is doing.
    state: Option<u64>,
    /// libvirt's number for why.
    reason: Option<u64>,
    /// Size of the balloon.
    pub(super) allocated: Option<u64>,
    /// Size it was defined with.
    pub(super) maximum: Option<u64>,
    /// Resident set; only there when the monitor could be asked.
    pub(super) rss: Option<u64>,
    /// The guest's own view.
    pub(super) guest: GuestMemory,
}

impl DomainRecord {
    pub(super) fn new(uuid: Uuid, id: u32, name: String) -> Self {
        Self { uuid, id, name, ..Self::default() }
    }

    /// Takes over one parameter of the bulk call; one that is not known is passed over.
    pub(super) fn set(&mut self, field: &str, value: u64) {
        let bytes = value.checked_mul(1024);
        match field {
            "state.state" => self.state = Some(value),
            "state.reason" => self.reason = Some(value),
            "balloon.current" => self.allocated = bytes,
            "balloon.maximum" => self.maximum = bytes,
            "balloon.rss" => self.rss = bytes,
            "balloon.available" => self.guest.total = bytes,
            "balloon.unused" => self.guest.free = bytes,
            "balloon.usable" => self.guest.available = bytes,
            "balloon.disk_caches" => self.guest.disk_cache = bytes,
            "balloon.swap_in" => self.guest.swap_in = bytes,
            "balloon.swap_out" => self.guest.swap_out = bytes,
            "balloon.major_fault" => self.guest.major_faults = Some(value),
            "balloon.minor_fault" => self.guest.minor_faults = Some(value),
            "balloon.last-update" => self.guest.last_update = last_update(value),
            _ => {}
        }
    }

    /// Takes over one figure of the call for a single domain.
    pub(super) fn set_single(&mut self, tag: u32, value: u64) {
        let field = match tag {
            sys::VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON => "balloon.current",
            sys::VIR_DOMAIN_MEMORY_STAT_RSS => "balloon.rss",
            sys::VIR_DOMAIN_MEMORY_STAT_AVAILABLE => "balloon.available",
            sys::VIR_DOMAIN_MEMORY_STAT_UNUSED => "balloon.unused",
            sys::VIR_DOMAIN_MEMORY_STAT_USABLE => "balloon.usable",
            sys::VIR_DOMAIN_MEMORY_STAT_DISK_CACHES => "balloon.disk_caches",
            sys::VIR_DOMAIN_MEMORY_STAT_SWAP_IN => "balloon.swap_in",
            sys::VIR_DOMAIN_MEMORY_STAT_SWAP_OUT => "balloon.swap_out",
            sys::VIR_DOMAIN_MEMORY_STAT_MAJOR_FAULT => "balloon.major_fault",
            sys::VIR_DOMAIN_MEMORY_STAT_MINOR_FAULT => "balloon.minor_fault",
            sys::VIR_DOMAIN_MEMORY_STAT_LAST_UPDATE => "balloon.last-update",
            _ => return,
        };
        self.set(field, value);
    }

    /// Whether the call said anything that comes from the monitor or the process.
    pub(super) fn monitor_answered(&self) -> bool {
        self.rss.is_some() || self.guest != GuestMemory::default()
    }

    /// What the machine is doing. A machine that libvirt paused for a migration is migrating.
    pub(super) fn vm_state(&self) -> VmState {
        let number = |value: Option<u64>| value.and_then(|value| u32::try_from(value).ok());
        let Some(state) = number(self.state) else { return VmState::Unknown };
        match (state, number(self.reason).unwrap_or_default()) {
            (
                sys::VIR_DOMAIN_RUNNING,
                sys::VIR_DOMAIN_RUNNING_POSTCOPY | sys::VIR_DOMAIN_RUNNING_POSTCOPY_FAILED,
            )
            | (
                sys::VIR_DOMAIN_PAUSED,
                sys::VIR_DOMAIN_PAUSED_MIGRATION
                | sys::VIR_DOMAIN_PAUSED_POSTCOPY
                | sys::VIR_DOMAIN_PAUSED_POSTCOPY_FAILED,
            ) => VmState::Migrating,
            (sys::VIR_DOMAIN_RUNNING | sys::VIR_DOMAIN_BLOCKED, _) => VmState::Running,
            (sys::VIR_DOMAIN_PAUSED, _) => VmState::Paused,
            (sys::VIR_DOMAIN_SHUTDOWN, _) => VmState::Shutdown,
            (sys::VIR_DOMAIN_CRASHED, _) => VmState::Crashed,
            (sys::VIR_DOMAIN_PMSUSPENDED, _) => VmState::Suspended,
            _ => VmState::Unknown,
        }
    }
}

/// libvirt says 0 for a guest that never reported.
fn last_update(seconds: u64) -> Option<Timestamp> {
    i64::try_from(seconds).ok().filter(|&seconds| seconds > 0).and_then(|at| Timestamp::from_second(at).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(state: u32, reason: u32) -> VmState {
        let mut record = DomainRecord::default();
        record.set("state.state", state.into());
        record.set("state.reason", reason.into());
        record.vm_state()
    }

    #[test]
    fn figures_become_bytes_and_the_rest_is_absent() {
        let mut record = DomainRecord::default();
        record.set("balloon.current", 2);
        record.set("balloon.major_fault", 7);
        record.set("balloon.last-update", 627_319_920);
        record.set("balloon.something-new", 9);
        assert_eq!(record.allocated, Some(2048));
        assert_eq!(record.guest.major_faults, Some(7));
        assert_eq!(record.guest.last_update, Some(Timestamp::from_second(627_319_920).unwrap()));
        assert_eq!(record.rss, None);
        assert_eq!(record.guest.total, None);
    }

    #[test]
    fn a_guest_that_never_reported_has_no_last_update() {
        let mut record = DomainRecord::default();
        record.set("balloon.last-update", 0);
        assert_eq!(record.guest.last_update, None);
    }

    #[test]
    fn only_the_monitor_makes_an_answer() {
        let mut record = DomainRecord::default();
        record.set("balloon.current", 2);
        record.set("balloon.maximum", 2);
        record.set("balloon.last-update", 0);
        assert!(!record.monitor_answered());
        record.set("balloon.rss", 5);
        assert!(record.monitor_answered());
    }

    #[test]
    fn states_by_number_and_reason() {
        assert_eq!(state(sys::VIR_DOMAIN_RUNNING, 1), VmState::Running);
        assert_eq!(state(sys::VIR_DOMAIN_BLOCKED, 0), VmState::Running);
        assert_eq!(state(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_USER), VmState::Paused);
        assert_eq!(state(sys::VIR_DOMAIN_PAUSED, sys::VIR_DOMAIN_PAUSED_MIGRATION), VmState::Migrating);
        assert_eq!(state(sys::VIR_DOMAIN_RUNNING, sys::VIR_DOMAIN_RUNNING_POSTCOPY), VmState::Migrating);
        assert_eq!(state(sys::VIR_DOMAIN_PMSUSPENDED, 0), VmState::Suspended);
        assert_eq!(state(99, 0), VmState::Unknown);
        assert_eq!(DomainRecord::default().vm_state(), VmState::Unknown);
    }
}
