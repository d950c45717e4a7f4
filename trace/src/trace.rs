//! A whole trace in memory, sorted by time: 40 bytes a reading.

mod step;
mod ticks;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::trace_file::{TraceFile, TraceFileError, TraceProblem, TraceRow};
pub use ticks::Ticks;

/// What stands for "no reading" in a [`Stored`]: a byte count that [`TraceFile`] refuses.
const ABSENT: u64 = u64::MAX;

/// A trace: its VMs, and all their readings in the order of time.
pub struct Trace {
    vms: Vec<TraceVm>,
    readings: Vec<Stored>,
    step: Duration,
}

/// A VM of a trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceVm {
    /// The VM, see [`vm_uuid`](crate::vm_uuid).
    pub vm: Uuid,
    /// `vm_id` as it first stands in the file.
    pub name: Arc<str>,
    /// The largest allocation of all its readings.
    pub maximum_bytes: u64,
    /// Whether any of its readings has `used_bytes`.
    pub reports_used: bool,
}

/// One reading, with its VM as an index into [`Trace::vms`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TraceReading {
    /// Index of the VM.
    pub vm: usize,
    /// Seconds on the file's own time line.
    pub t_seconds: f64,
    /// What the guest holds.
    pub allocated_bytes: u64,
    /// What the guest itself needs (the signal `demand`), where it was read.
    pub used_bytes: Option<u64>,
    /// What the host backs with memory (the signal `rss`), where it was read.
    pub rss_bytes: Option<u64>,
}

struct Stored {
    t_seconds: f64,
    allocated: u64,
    used: u64,
    rss: u64,
    vm: u32,
    /// Line of the file, for the message about a reading given twice.
    line: u32,
}

impl Trace {
    /// Reads a trace file, plain or gzipped.
    ///
    /// # Errors
    /// When [`TraceFile`] refuses a row, or a VM has two readings at one time.
    pub fn load(path: &Path) -> Result<Self, TraceFileError> {
        Self::read(TraceFile::open(path)?)
    }

    /// Reads what is left of an opened trace file.
    ///
    /// # Errors
    /// As [`Trace::load`].
    pub fn read(mut file: TraceFile) -> Result<Self, TraceFileError> {
        let mut rows = Rows::default();
        while let Some(row) = file.next() {
            rows.push(row?, file.line().unwrap_or(0));
        }
        let name = file.name().to_owned();
        rows.finish().map_err(|(line, problem)| TraceFileError::new(&name, line, problem))
    }

    /// A trace of rows that come from elsewhere than a file; `source` stands for it in messages, and a row's number for its line.
    ///
    /// # Errors
    /// When there is no row, a row is such that no file could hold it, or a VM has two readings at one time.
    pub fn from_rows(
        source: &str,
        given: impl IntoIterator<Item = TraceRow>,
    ) -> Result<Self, TraceFileError> {
        let mut rows = Rows::default();
        for (row, number) in given.into_iter().zip(1..) {
            row.check().map_err(|problem| TraceFileError::new(source, Some(number), problem))?;
            rows.push(row, number);
        }
        rows.finish().map_err(|(line, problem)| TraceFileError::new(source, line, problem))
    }

    /// The VMs, in the order in which the file names them first.
    #[must_use]
    pub fn vms(&self) -> &[TraceVm] {
        &self.vms
    }

    /// How many readings there are; at least one.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "a trace is never empty")]
    pub fn len(&self) -> usize {
        self.readings.len()
    }

    /// The reading with this index, in the order of [`Trace::readings`].
    ///
    /// # Panics
    /// When there are no more than `index` readings.
    #[must_use]
    pub fn reading(&self, index: usize) -> TraceReading {
        self.readings[index].unpacked()
    }

    /// All readings by time, and those of one time by VM index.
    pub fn readings(&self) -> impl ExactSizeIterator<Item = TraceReading> + '_ {
        self.readings.iter().map(Stored::unpacked)
    }

    /// Time of the first reading on the file's own time line.
    #[must_use]
    pub fn start_seconds(&self) -> f64 {
        self.readings.first().map_or(0.0, |reading| reading.t_seconds)
    }

    /// From the first reading to the last.
    #[must_use]
    pub fn duration(&self) -> Duration {
        let end = self.readings.last().map_or(0.0, |reading| reading.t_seconds);
        Duration::from_secs_f64((end - self.start_seconds()).max(0.0))
    }

    /// The sampling interval: each VM's median interval, and the median of those. 5 s where no VM has two readings.
    #[must_use]
    pub fn step(&self) -> Duration {
        self.step
    }

    /// Groups the readings into instants, one a [`Trace::step`].
    #[must_use]
    pub fn ticks(&self) -> Ticks {
        Ticks::of(self)
    }
}

impl Stored {
    fn unpacked(&self) -> TraceReading {
        let present = |bytes: u64| (bytes != ABSENT).then_some(bytes);
        TraceReading {
            vm: self.vm as usize,
            t_seconds: self.t_seconds,
            allocated_bytes: self.allocated,
            used_bytes: present(self.used),
            rss_bytes: present(self.rss),
        }
    }
}

/// Rows on their way to becoming a trace.
#[derive(Default)]
struct Rows {
    vms: Vec<TraceVm>,
    index: HashMap<Uuid, u32>,
    readings: Vec<Stored>,
}

impl Rows {
    fn push(&mut self, row: TraceRow, line: u64) {
        let vm = *self.index.entry(row.vm).or_insert_with(|| {
            self.vms.push(TraceVm { vm: row.vm, name: row.name, maximum_bytes: 0, reports_used: false });
            u32::try_from(self.vms.len() - 1).expect("four billion VMs do not fit into memory")
        });
        let known = &mut self.vms[vm as usize];
        known.maximum_bytes = known.maximum_bytes.max(row.allocated_bytes);
        known.reports_used |= row.used_bytes.is_some();
        self.readings.push(Stored {
            t_seconds: row.t_seconds,
            allocated: row.allocated_bytes,
            used: row.used_bytes.unwrap_or(ABSENT),
            rss: row.rss_bytes.unwrap_or(ABSENT),
            vm,
            line: u32::try_from(line).unwrap_or(u32::MAX),
        });
    }

    fn finish(self) -> Result<Trace, (Option<u64>, TraceProblem)> {
        let Self { vms, mut readings, .. } = self;
        readings.shrink_to_fit();
        // The line comes last, so that of two equal readings the second one is blamed.
        readings.sort_unstable_by(|a, b| {
            a.t_seconds.total_cmp(&b.t_seconds).then_with(|| (a.vm, a.line).cmp(&(b.vm, b.line)))
        });
        let twice = readings.windows(2).find(|pair| pair[0].vm == pair[1].vm && same(&pair[0], &pair[1]));
        if let Some([first, second]) = twice {
            let problem = TraceProblem::Duplicate {
                vm: vms[first.vm as usize].name.to_string(),
                t_seconds: first.t_seconds,
                first_line: first.line.into(),
            };
            return Err((Some(second.line.into()), problem));
        }
        if readings.is_empty() {
            return Err((None, TraceProblem::NoRows));
        }
        let step = step::estimate(
            vms.len(),
            readings.iter().map(|reading| (reading.vm as usize, reading.t_seconds)),
        );
        Ok(Trace { vms, readings, step })
    }
}

fn same(a: &Stored, b: &Stored) -> bool {
    a.t_seconds.total_cmp(&b.t_seconds).is_eq()
}
