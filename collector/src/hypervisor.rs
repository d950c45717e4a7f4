//! The seam: where readings come from.
//!
//! Everything above it knows readings only; everything below blocks, and runs on a thread of its own.

use std::time::Duration;

use jiff::Timestamp;

use crate::reading::HostReading;

pub mod libvirt;
pub mod replay;
pub mod simulated;
mod traced;

/// A source of readings.
pub trait Hypervisor: Send {
    /// Samples all hosts that this source speaks for. Blocks, for no longer than the tick's budget.
    ///
    /// # Errors
    /// When nothing could be sampled; the next tick tries again.
    fn sample(&mut self, tick: Tick) -> Result<Vec<HostReading>, SampleError>;

    /// Calls that hang at the moment; none in a source that makes no calls.
    fn hung_calls(&mut self) -> usize {
        0
    }
}

/// When and how long to sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tick {
    /// Time of the sample, in mesh time.
    pub at: Timestamp,
    /// Until the next one, in mesh time.
    pub interval: Duration,
    /// How long the sample may take, in wall time.
    pub budget: Duration,
}

/// Why a sample failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SampleError {
    /// The hypervisor's daemon is not there; it may come back.
    #[error("libvirt cannot be reached: {0}")]
    Unreachable(String),
    /// The hypervisor can never be reached in the way that was asked for.
    #[error("libvirt cannot be used: {0}; correct --libvirt-uri, such as qemu:///system")]
    Unusable(String),
    /// Calls hang, and no more of them may be started.
    #[error("libvirt does not answer in time: {hung} calls hang")]
    Overrun {
        /// Calls that hang.
        hung: usize,
    },
    /// The source has no more readings: a trace is at its end.
    #[error("the source has come to its end")]
    Ended,
}
