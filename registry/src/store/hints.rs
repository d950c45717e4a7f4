//! Who waits for changes is woken: each kind of change has a counter, and a hint of how far it has grown.

use tokio::sync::watch;

/// The counter of changes of boundaries.
pub(super) const BOUNDARY_REVISION: &str = "boundary_revision";

/// The counter of changes of violations.
pub(super) const VIOLATION_SEQUENCE: &str = "violation_sequence";

/// The counter of changes of leases.
pub(super) const LEASE_SEQUENCE: &str = "lease_sequence";

/// All counters that can be followed.
pub(super) const FOLLOWED: [&str; 3] = [BOUNDARY_REVISION, VIOLATION_SEQUENCE, LEASE_SEQUENCE];

/// How far each counter has grown, as far as this process has heard.
#[derive(Debug)]
pub(super) struct Hints([watch::Sender<u64>; FOLLOWED.len()]);

impl Default for Hints {
    fn default() -> Self {
        Self(FOLLOWED.map(|_| watch::Sender::new(0)))
    }
}

impl Hints {
    fn of(&self, counter: &str) -> Option<&watch::Sender<u64>> {
        FOLLOWED.iter().zip(&self.0).find(|(name, _)| **name == counter).map(|(_, sender)| sender)
    }

    /// Wakes those who follow a counter where it has grown; another counter is passed over.
    pub(super) fn tell(&self, counter: &str, value: u64) {
        if let Some(sender) = self.of(counter) {
            sender.send_if_modified(|known| {
                let grown = value > *known;
                *known = value.max(*known);
                grown
            });
        }
    }

    /// Follows a counter. One that nobody ever tells of never wakes.
    pub(super) fn follow(&self, counter: &str) -> watch::Receiver<u64> {
        self.of(counter).map_or_else(|| watch::Sender::new(0).subscribe(), watch::Sender::subscribe)
    }
}
