//! What makes yesterday's promises meaningless: a restart, a resize, an interruption.

use crate::domain::{Quality, Reading, Seconds};

/// What interrupted a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangePoint {
    /// The VM's process is a new one, or the guest has booted anew: its history begins again.
    Restarted,
    /// The allocation changed, by a balloon or a resize: what is open is void, the history in bytes stays.
    Resized {
        /// Before.
        from: u64,
        /// Now.
        to: u64,
    },
    /// It was paused, migrated or lost, or resumed from that: what is open is void.
    Interrupted,
}

/// What tells one life of a VM from the next.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    allocated: Option<u64>,
    generation: Option<u64>,
    uptime: Option<Seconds>,
    guest_counter: Option<u64>,
    quality: Quality,
}

impl Identity {
    /// As of a reading.
    #[must_use]
    pub const fn of(reading: &Reading) -> Self {
        Self {
            allocated: reading.allocated,
            generation: reading.generation,
            uptime: reading.uptime,
            guest_counter: reading.guest_counter,
            quality: reading.quality,
        }
    }

    /// What changed from here to the next reading, the gravest first.
    #[must_use]
    pub fn changed(&self, next: &Reading) -> Option<ChangePoint> {
        let regenerated = matches!((self.generation, next.generation), (Some(a), Some(b)) if a != b);
        let younger = matches!((self.uptime, next.uptime), (Some(a), Some(b)) if b < a);
        let counts_anew = matches!((self.guest_counter, next.guest_counter), (Some(a), Some(b)) if b < a);
        if regenerated || younger || counts_anew {
            return Some(ChangePoint::Restarted);
        }
        if self.quality.interrupts() != next.quality.interrupts() {
            return Some(ChangePoint::Interrupted);
        }
        match (self.allocated, next.allocated) {
            (Some(from), Some(to)) if from != to => Some(ChangePoint::Resized { from, to }),
            _ => None,
        }
    }
}
