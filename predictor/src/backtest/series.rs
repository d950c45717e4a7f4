//! One signal of a trace, by machine and by time.

use std::ops::Range;
use std::sync::Arc;

use memharvest_trace::Trace;

use super::BacktestError;
use crate::domain::{Seconds, Signal};

/// A reading of the signal.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Row {
    /// On the trace's own time line.
    pub at: Seconds,
    /// What the machine holds, above zero.
    pub allocated: u64,
    /// What is judged: at most the allocation.
    pub usage: u64,
}

/// A machine and where its rows are.
#[derive(Clone, Debug, PartialEq)]
pub struct VmSeries {
    /// As the trace names it.
    pub name: Arc<str>,
    /// Its rows in [`Series::rows`], in the order of time.
    pub rows: Range<usize>,
}

/// One signal of a trace: 28 bytes a reading.
#[derive(Clone, Debug)]
pub struct Series {
    signal: Signal,
    interval: Seconds,
    vms: Vec<VmSeries>,
    rows: Vec<Row>,
    /// Rows and their machines in the order of time, and of machines within one time.
    order: Vec<u32>,
}

impl Series {
    /// The readings of `signal` in a trace; machines without any are left out. `interval` is how often the trace was
    /// sampled; `None` is [`Trace::step`].
    ///
    /// # Errors
    /// When no reading has the signal, or there are more than 2³² of them.
    pub fn of(trace: &Trace, signal: Signal, interval: Option<Seconds>) -> Result<Self, BacktestError> {
        let usage = |reading: &memharvest_trace::TraceReading| match signal {
            Signal::Rss => reading.rss_bytes,
            Signal::Demand => reading.used_bytes,
        };
        let mut of_vm: Vec<Vec<Row>> = vec![Vec::new(); trace.vms().len()];
        for reading in trace.readings() {
            if let Some(bytes) = usage(&reading) {
                let allocated = reading.allocated_bytes;
                let row = Row { at: reading.t_seconds, allocated, usage: bytes.min(allocated) };
                of_vm[reading.vm].push(row);
            }
        }
        let named = trace.vms().iter().map(|vm| Arc::clone(&vm.name)).zip(of_vm).collect();
        Self::new(signal, interval.unwrap_or(trace.step().as_secs_f64()), named)
    }

    /// A series of rows that are at hand, by machine, each machine's in the order of time.
    ///
    /// # Errors
    /// When there is no row, or there are more than 2³² of them.
    pub fn new(
        signal: Signal,
        interval: Seconds,
        machines: Vec<(Arc<str>, Vec<Row>)>,
    ) -> Result<Self, BacktestError> {
        let (mut vms, mut rows) = (Vec::new(), Vec::new());
        for (name, mut of_vm) in machines {
            if !of_vm.is_empty() {
                vms.push(VmSeries { name, rows: rows.len()..rows.len() + of_vm.len() });
                rows.append(&mut of_vm);
            }
        }
        if rows.is_empty() {
            return Err(BacktestError::NoSignal(signal));
        }
        let count = u32::try_from(rows.len()).map_err(|_| BacktestError::TooLong)?;
        let mut order: Vec<u32> = (0..count).collect();
        // Rows are by machine, so rows of one time stay in the order of machines.
        order.sort_by(|a, b| rows[*a as usize].at.total_cmp(&rows[*b as usize].at));
        Ok(Self { signal, interval, vms, rows, order })
    }

    /// The same readings of some of the machines.
    ///
    /// # Errors
    /// When no machine is left.
    pub fn select(&self, mut keep: impl FnMut(&str) -> bool) -> Result<Self, BacktestError> {
        let kept = self.vms.iter().filter(|vm| keep(&vm.name));
        let machines = kept.map(|vm| (Arc::clone(&vm.name), self.rows[vm.rows.clone()].to_vec())).collect();
        Self::new(self.signal, self.interval, machines)
    }

    /// Whose usage it is.
    #[must_use]
    pub const fn signal(&self) -> Signal {
        self.signal
    }

    /// How often it was sampled.
    #[must_use]
    pub const fn interval(&self) -> Seconds {
        self.interval
    }

    /// The machines, each with at least one row.
    #[must_use]
    pub fn vms(&self) -> &[VmSeries] {
        &self.vms
    }

    /// All rows, by machine.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The indices of all rows in the order of time, and of machines within one time.
    #[must_use]
    pub fn in_time(&self) -> impl ExactSizeIterator<Item = usize> + '_ {
        self.order.iter().map(|row| *row as usize)
    }

    /// The machine of each row.
    #[must_use]
    pub fn machines(&self) -> Vec<u32> {
        let mut of_row = Vec::with_capacity(self.rows.len());
        for (vm, series) in (0u32..).zip(&self.vms) {
            of_row.resize(series.rows.end, vm);
        }
        of_row
    }

    /// From the first to the last reading of the machine that was followed for the median time.
    #[must_use]
    pub fn median_span(&self) -> Seconds {
        let span = |vm: &VmSeries| self.rows[vm.rows.end - 1].at - self.rows[vm.rows.start].at;
        let mut spans: Vec<Seconds> = self.vms.iter().map(span).collect();
        let middle = spans.len() / 2;
        *spans.select_nth_unstable_by(middle, f64::total_cmp).1
    }
}
