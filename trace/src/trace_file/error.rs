//! What can be wrong with a trace file: each message names the place, the value and the cure.

use std::fmt;
use std::io;
use std::sync::Arc;

use thiserror::Error;

/// A trace file that cannot be used: which file, which line, what is wrong.
#[derive(Debug, Error)]
pub struct TraceFileError {
    /// The file, as it was named by the caller.
    pub file: Arc<str>,
    /// The line, counted from 1, where there is one to blame.
    pub line: Option<u64>,
    /// What is wrong.
    pub problem: TraceProblem,
}

impl TraceFileError {
    pub(crate) fn new(file: &str, line: Option<u64>, problem: TraceProblem) -> Self {
        Self { file: file.into(), line, problem }
    }
}

impl fmt::Display for TraceFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}: line {line}: {}", self.file, self.problem),
            None => write!(f, "{}: {}", self.file, self.problem),
        }
    }
}

/// What is wrong with a trace file.
#[derive(Debug, Error)]
pub enum TraceProblem {
    /// The file cannot be opened.
    #[error("cannot open the trace file: {0}")]
    Open(io::Error),
    /// Reading failed midway.
    #[error("cannot read the trace file: {0}")]
    Read(io::Error),
    /// The gzip stream stops before its end.
    #[error("the gzip stream ends too early, the file is cut off: copy or download it again")]
    Truncated,
    /// The gzip stream is damaged.
    #[error("the gzip stream is damaged ({0}): copy or download the file again")]
    Damaged(io::Error),
    /// There is nothing in the file.
    #[error(
        "the trace file is empty: it needs a header (vm_id,t_seconds,allocated_bytes,used_bytes[,rss_bytes]) and rows"
    )]
    Empty,
    /// There is a header and nothing below it.
    #[error("the trace file has a header and no rows: it needs at least one reading")]
    NoRows,
    /// A needed column is not in the header.
    #[error(
        "column {column} is missing, found {found}: the header must name vm_id, t_seconds, allocated_bytes, \
         used_bytes and may name rss_bytes, separated by commas"
    )]
    MissingColumn {
        /// The column.
        column: &'static str,
        /// The header as it is, shortened.
        found: String,
    },
    /// The header names a column twice.
    #[error("column {column} is named twice in the header: leave one")]
    ColumnTwice {
        /// The column.
        column: &'static str,
    },
    /// A row has more or fewer cells than the header.
    #[error(
        "the row has {cells} cells and the header {columns}: every row needs one cell a column, and quotation marks come in pairs"
    )]
    Cells {
        /// Cells of the row.
        cells: usize,
        /// Columns of the header.
        columns: usize,
    },
    /// A cell's value cannot be used.
    #[error("{column} is {value:?}, {needed}")]
    Value {
        /// The column.
        column: &'static str,
        /// The cell, shortened.
        value: String,
        /// What is needed there.
        needed: &'static str,
    },
    /// The same VM has two readings at the same time.
    #[error(
        "vm_id {vm:?} has a second reading at t_seconds {t_seconds}, the first is in line {first_line}: leave one of them"
    )]
    Duplicate {
        /// The VM's name.
        vm: String,
        /// The time that both share.
        t_seconds: f64,
        /// Where the first reading stands.
        first_line: u64,
    },
}

impl TraceProblem {
    pub(super) fn from_csv(error: csv::Error) -> Self {
        Self::from_io(io_error(error))
    }

    pub(super) fn from_io(cause: io::Error) -> Self {
        match cause.kind() {
            io::ErrorKind::UnexpectedEof => Self::Truncated,
            io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => Self::Damaged(cause),
            _ => Self::Read(cause),
        }
    }

    pub(super) fn value(column: &'static str, cell: &[u8], needed: &'static str) -> Self {
        Self::Value { column, value: shortened(cell), needed }
    }
}

/// The input or output error that a CSV error stands for, with its own kind.
pub(crate) fn io_error(error: csv::Error) -> io::Error {
    match error.into_kind() {
        csv::ErrorKind::Io(cause) => cause,
        other => io::Error::other(format!("{other:?}")),
    }
}

/// A cell for an error message: a value of a mile's length must not bury the message.
pub(super) fn shortened(cell: &[u8]) -> String {
    const LONGEST: usize = 60;
    let text = String::from_utf8_lossy(&cell[..cell.len().min(LONGEST)]).into_owned();
    if cell.len() > LONGEST { text + "…" } else { text }
}
