//! Writes trace rows as CSV, such that reading them gives the same rows.

use std::io::Write;

use crate::trace_file::{TraceRow, io_error, vm_uuid};

/// Writes the columns `vm_id,t_seconds,allocated_bytes,used_bytes,rss_bytes`; an absent value is an empty cell.
pub struct TraceWriter<W: Write> {
    csv: csv::Writer<W>,
}

impl<W: Write> TraceWriter<W> {
    /// Writes the header.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn new(output: W) -> std::io::Result<Self> {
        let mut csv = csv::Writer::from_writer(output);
        csv.write_record(["vm_id", "t_seconds", "allocated_bytes", "used_bytes", "rss_bytes"])
            .map_err(io_error)?;
        Ok(Self { csv })
    }

    /// Writes one row. `vm_id` is the row's name where its UUID follows from that, else the UUID.
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn write(&mut self, row: &TraceRow) -> std::io::Result<()> {
        let vm_id = if vm_uuid(&row.name) == row.vm { row.name.to_string() } else { row.vm.to_string() };
        let cell = |bytes: Option<u64>| bytes.map(|bytes| bytes.to_string()).unwrap_or_default();
        self.csv
            .write_record([
                vm_id,
                row.t_seconds.to_string(),
                row.allocated_bytes.to_string(),
                cell(row.used_bytes),
                cell(row.rss_bytes),
            ])
            .map_err(io_error)
    }

    /// Flushes, and gives the output back (a gzip encoder wants finishing by its owner).
    ///
    /// # Errors
    /// When the output cannot be written.
    pub fn finish(self) -> std::io::Result<W> {
        self.csv.into_inner().map_err(csv::IntoInnerError::into_error)
    }
}
