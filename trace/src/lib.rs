//! Trace files, their replay, and the seeded generator of guests. Pure: no libvirt, no clock, no global randomness; time is
//! passed in.
//!
//! - [`trace_file`] reads the CSV, row by row; [`mod@write`] writes it.
//! - [`trace`] holds a whole file, sorted by time; [`replay`] shows it as hosts with guests.
//! - [`generator`] invents hosts with guests out of a seed.
//! - [`sample`] is what replay and generator have in common: the state of hosts and guests at one moment.
//! - [`bundled`] carries two small extracts of real traces.

pub mod bundled;
pub mod generator;
pub mod replay;
pub mod sample;
pub mod trace;
pub mod trace_file;
pub mod write;

pub use bundled::demo;
pub use generator::{Profile, Simulation};
pub use replay::Replay;
pub use sample::{GuestSample, GuestStats, HostSample};
pub use trace::{Trace, TraceReading, TraceVm};
pub use trace_file::{TraceFile, TraceFileError, TraceProblem, TraceRow, vm_uuid};
pub use write::TraceWriter;
