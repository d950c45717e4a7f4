//! Reads trace CSV, plain or gzipped, one row at a time.
//!
//! Columns, in any order: `vm_id,t_seconds,allocated_bytes,used_bytes[,rss_bytes]`. `demand_bytes` is another name for
//! `used_bytes`; further columns are ignored, as are blank lines. Rows may come in any order. An empty cell of `used_bytes` or
//! `rss_bytes` means that there was no reading of it, which is not zero. Spaces around a cell are no part of it.

mod columns;
mod error;

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::path::Path;
use std::sync::Arc;

use csv::{ByteRecord, Reader, ReaderBuilder, Terminator};
use flate2::read::MultiGzDecoder;
use uuid::Uuid;

use columns::Columns;
pub(crate) use error::io_error;
pub use error::{TraceFileError, TraceProblem};

/// The namespace of the UUIDs (version 5) that stand for a `vm_id` which is no UUID itself.
pub const VM_NAMESPACE: Uuid = Uuid::from_u128(0x229a_574f_702d_4d87_8bdd_a55d_f10e_3dc8);

/// The UUID that a trace's `vm_id` stands for: the one it spells, or a UUID version 5 of it in [`VM_NAMESPACE`].
#[must_use]
pub fn vm_uuid(name: &str) -> Uuid {
    Uuid::try_parse(name).unwrap_or_else(|_| Uuid::new_v5(&VM_NAMESPACE, name.as_bytes()))
}

/// One reading of one VM, as a trace file has it.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceRow {
    /// The VM, see [`vm_uuid`].
    pub vm: Uuid,
    /// `vm_id` as it stands in the file.
    pub name: Arc<str>,
    /// Seconds since whatever moment the file counts from: finite, 0 or more.
    pub t_seconds: f64,
    /// What the guest holds, never 0.
    pub allocated_bytes: u64,
    /// What the guest itself needs (the signal `demand`), where it was read.
    pub used_bytes: Option<u64>,
    /// What the host backs with memory (the signal `rss`), where it was read.
    pub rss_bytes: Option<u64>,
}

impl TraceRow {
    /// Whether a trace file may hold this row: its time and its byte counts are within bounds.
    pub(crate) fn check(&self) -> Result<(), TraceProblem> {
        columns::check(self)
    }
}

/// A trace file being read: an iterator over its rows, in the file's order.
///
/// The first error is the last item. What takes all rows to see (a reading given twice) is found by
/// [`Trace`](crate::Trace).
pub struct TraceFile {
    file: Arc<str>,
    csv: Reader<Box<dyn Read + Send>>,
    columns: Columns,
    record: ByteRecord,
    names: HashMap<Box<[u8]>, (Uuid, Arc<str>)>,
    /// Where the row that came last stands; none before the first row.
    line: Option<u64>,
    ended: bool,
}

impl TraceFile {
    /// Opens the file and reads its header.
    ///
    /// # Errors
    /// When the file cannot be opened or read, is empty, or lacks a column.
    pub fn open(path: &Path) -> Result<Self, TraceFileError> {
        let name = path.display().to_string();
        match File::open(path) {
            Ok(file) => Self::from_reader(&name, file),
            Err(cause) => Err(TraceFileError::new(&name, None, TraceProblem::Open(cause))),
        }
    }

    /// Reads a trace from anything; `name` stands for the file in error messages.
    ///
    /// # Errors
    /// When it cannot be read, is empty, or lacks a column.
    pub fn from_reader(name: &str, reader: impl Read + Send + 'static) -> Result<Self, TraceFileError> {
        Self::start(name, Box::new(reader))
            .map_err(|(line, problem)| TraceFileError::new(name, line, problem))
    }

    fn start(name: &str, reader: Box<dyn Read + Send>) -> Result<Self, (Option<u64>, TraceProblem)> {
        let text = text_of(reader).map_err(|cause| (None, TraceProblem::from_io(cause)))?;
        // Only a line feed ends a line, and every line has one: else the reader's count of lines depends on how they end.
        let text: Box<dyn Read + Send> = Box::new(text.chain(&b"\n"[..]));
        let mut csv = ReaderBuilder::new()
            .has_headers(false)
            .flexible(true)
            .terminator(Terminator::Any(b'\n'))
            .from_reader(text);
        let mut header = ByteRecord::new();
        let line = next_record(&mut csv, &mut header).map_err(|problem| (None, problem))?;
        if line.is_none() {
            return Err((None, TraceProblem::Empty));
        }
        let columns = Columns::of(&header).map_err(|problem| (line, problem))?;
        Ok(Self {
            file: name.into(),
            csv,
            columns,
            record: ByteRecord::new(),
            names: HashMap::new(),
            line: None,
            ended: false,
        })
    }

    /// The file's name in error messages.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.file
    }

    /// The line, counted from 1, at which the row that came last stands; none before the first row.
    #[must_use]
    pub fn line(&self) -> Option<u64> {
        self.line
    }

    fn row(&mut self) -> Result<Option<TraceRow>, TraceProblem> {
        let Some(line) = next_record(&mut self.csv, &mut self.record)? else {
            return if self.line.is_none() { Err(TraceProblem::NoRows) } else { Ok(None) };
        };
        self.line = Some(line);
        let cells = self.columns.cells(&self.record)?;
        let (vm, name) = if let Some(known) = self.names.get(cells.vm_id) {
            known.clone()
        } else {
            let name = cells.vm_name()?;
            let known = (vm_uuid(name), Arc::from(name));
            self.names.insert(cells.vm_id.into(), known.clone());
            known
        };
        Ok(Some(TraceRow {
            vm,
            name,
            t_seconds: cells.t_seconds()?,
            allocated_bytes: cells.allocated_bytes()?,
            used_bytes: cells.used_bytes()?,
            rss_bytes: cells.rss_bytes()?,
        }))
    }
}

impl Iterator for TraceFile {
    type Item = Result<TraceRow, TraceFileError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let row = self.row().transpose();
        if !matches!(row, Some(Ok(_))) {
            self.ended = true;
        }
        row.map(|row| row.map_err(|problem| TraceFileError::new(&self.file, self.line, problem)))
    }
}

/// The next record that is no blank line, and the line at which it starts; none at the end.
fn next_record(
    csv: &mut Reader<Box<dyn Read + Send>>,
    record: &mut ByteRecord,
) -> Result<Option<u64>, TraceProblem> {
    while csv.read_byte_record(record).map_err(TraceProblem::from_csv)? {
        if record.len() == 1 && record[0].trim_ascii().is_empty() {
            continue;
        }
        // A record's own position may be that of blank lines before it; where the reader is now is the line after it.
        let within = record.as_slice().split(|byte| *byte == b'\n').count() as u64 - 1;
        // The line feed at the very end is part of the record only if a quotation mark was left open.
        let ended = u64::from(!record.as_slice().ends_with(b"\n"));
        return Ok(Some(csv.position().line().saturating_sub(within + ended)));
    }
    Ok(None)
}

/// Unpacks what starts with gzip's magic bytes, and leaves out a byte order mark.
fn text_of(reader: Box<dyn Read + Send>) -> io::Result<Box<dyn Read + Send>> {
    let (magic, rest) = split(reader, 2)?;
    let packed = magic == [0x1f, 0x8b];
    let whole = Cursor::new(magic).chain(rest);
    let text: Box<dyn Read + Send> =
        if packed { Box::new(MultiGzDecoder::new(whole)) } else { Box::new(whole) };
    // The CSV reader knows a mark only if its first read happens to bring all of it and more.
    let (mark, rest) = split(text, 3)?;
    Ok(if mark == b"\xef\xbb\xbf" { rest } else { Box::new(Cursor::new(mark).chain(rest)) })
}

/// The first bytes, fewer only where there are no more, and what follows them.
fn split(mut reader: Box<dyn Read + Send>, bytes: u64) -> io::Result<(Vec<u8>, Box<dyn Read + Send>)> {
    let mut first = Vec::new();
    reader.by_ref().take(bytes).read_to_end(&mut first)?;
    Ok((first, reader))
}
