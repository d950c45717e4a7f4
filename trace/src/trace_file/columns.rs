//! Where the columns stand in the header, and how a cell becomes a number.

use csv::ByteRecord;

use super::TraceRow;
use super::error::{TraceProblem, shortened};

/// Column names, the first of each being the one that messages use.
const VM_ID: &[&str] = &["vm_id"];
const T_SECONDS: &[&str] = &["t_seconds"];
const ALLOCATED: &[&str] = &["allocated_bytes"];
const USED: &[&str] = &["used_bytes", "demand_bytes"];
const RSS: &[&str] = &["rss_bytes"];

/// 3,000 years: beyond it, somebody has written milliseconds.
const LATEST_SECONDS: f64 = 1e11;
/// What a byte count may reach: 8 EiB, as far as every consumer of it can count.
const MOST_BYTES: u64 = i64::MAX as u64;

/// 2^53: above it, a float no longer tells one byte from the next.
const MOST_EXACT: f64 = 9_007_199_254_740_992.0;

const NEED_NAME: &str = "the name or UUID of a VM is needed, in UTF-8";
const NEED_SECONDS: &str =
    "a number of seconds from 0 to 1e11 is needed (milliseconds are to be divided by 1000)";
const NEED_ALLOCATED: &str = "a whole number of bytes above 0 is needed";
const NEED_BYTES: &str = "a whole number of bytes is needed, or nothing where there was no reading";

/// Index of each column.
pub(super) struct Columns {
    vm_id: usize,
    t_seconds: usize,
    allocated: usize,
    used: usize,
    rss: Option<usize>,
    count: usize,
}

impl Columns {
    pub(super) fn of(header: &ByteRecord) -> Result<Self, TraceProblem> {
        let needed = |names: &'static [&'static str]| {
            find(header, names)?.ok_or_else(|| TraceProblem::MissingColumn {
                column: names[0],
                found: format!("{:?}", shortened(&header.iter().collect::<Vec<_>>().join(&b","[..]))),
            })
        };
        Ok(Self {
            vm_id: needed(VM_ID)?,
            t_seconds: needed(T_SECONDS)?,
            allocated: needed(ALLOCATED)?,
            used: needed(USED)?,
            rss: find(header, RSS)?,
            count: header.len(),
        })
    }

    pub(super) fn cells<'r>(&self, record: &'r ByteRecord) -> Result<Cells<'r>, TraceProblem> {
        if record.len() != self.count {
            return Err(TraceProblem::Cells { cells: record.len(), columns: self.count });
        }
        let cell = |index: usize| record[index].trim_ascii();
        Ok(Cells {
            vm_id: cell(self.vm_id),
            t_seconds: cell(self.t_seconds),
            allocated: cell(self.allocated),
            used: cell(self.used),
            rss: self.rss.map_or(b"", cell),
        })
    }
}

fn find(header: &ByteRecord, names: &'static [&'static str]) -> Result<Option<usize>, TraceProblem> {
    let mut found = header
        .iter()
        .enumerate()
        .filter(|(_, cell)| names.iter().any(|name| cell.trim_ascii().eq_ignore_ascii_case(name.as_bytes())));
    let first = found.next().map(|(index, _)| index);
    match found.next() {
        Some(_) => Err(TraceProblem::ColumnTwice { column: names[0] }),
        None => Ok(first),
    }
}

/// The cells of one row, trimmed.
pub(super) struct Cells<'r> {
    pub(super) vm_id: &'r [u8],
    t_seconds: &'r [u8],
    allocated: &'r [u8],
    used: &'r [u8],
    rss: &'r [u8],
}

impl<'r> Cells<'r> {
    pub(super) fn vm_name(&self) -> Result<&'r str, TraceProblem> {
        std::str::from_utf8(self.vm_id)
            .ok()
            .filter(|name| !name.is_empty())
            .ok_or_else(|| TraceProblem::value(VM_ID[0], self.vm_id, NEED_NAME))
    }

    pub(super) fn t_seconds(&self) -> Result<f64, TraceProblem> {
        number(self.t_seconds)
            .filter(|t| (0.0..=LATEST_SECONDS).contains(t))
            // -0.0 is in the range; it must equal 0.
            .map(f64::abs)
            .ok_or_else(|| TraceProblem::value(T_SECONDS[0], self.t_seconds, NEED_SECONDS))
    }

    pub(super) fn allocated_bytes(&self) -> Result<u64, TraceProblem> {
        bytes(self.allocated)
            .filter(|bytes| *bytes > 0)
            .ok_or_else(|| TraceProblem::value(ALLOCATED[0], self.allocated, NEED_ALLOCATED))
    }

    pub(super) fn used_bytes(&self) -> Result<Option<u64>, TraceProblem> {
        optional(USED[0], self.used)
    }

    pub(super) fn rss_bytes(&self) -> Result<Option<u64>, TraceProblem> {
        optional(RSS[0], self.rss)
    }
}

/// What a cell may not say, a row from elsewhere may not say either.
pub(super) fn check(row: &TraceRow) -> Result<(), TraceProblem> {
    let wrong = |names: &[&'static str], value: String, needed| {
        Err(TraceProblem::value(names[0], value.as_bytes(), needed))
    };
    if !(0.0..=LATEST_SECONDS).contains(&row.t_seconds) {
        return wrong(T_SECONDS, row.t_seconds.to_string(), NEED_SECONDS);
    }
    if !(1..=MOST_BYTES).contains(&row.allocated_bytes) {
        return wrong(ALLOCATED, row.allocated_bytes.to_string(), NEED_ALLOCATED);
    }
    for (names, bytes) in [(USED, row.used_bytes), (RSS, row.rss_bytes)] {
        if let Some(bytes) = bytes.filter(|bytes| *bytes > MOST_BYTES) {
            return wrong(names, bytes.to_string(), NEED_BYTES);
        }
    }
    Ok(())
}

fn optional(column: &'static str, cell: &[u8]) -> Result<Option<u64>, TraceProblem> {
    if cell.is_empty() {
        return Ok(None);
    }
    bytes(cell).map(Some).ok_or_else(|| TraceProblem::value(column, cell, NEED_BYTES))
}

fn number(cell: &[u8]) -> Option<f64> {
    std::str::from_utf8(cell).ok()?.parse().ok()
}

/// A whole number of bytes. Tools that know only floating point write `1073741824.0` or `1.5e9`, which is whole as well.
fn bytes(cell: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(cell).ok()?;
    if let Ok(whole) = text.parse::<u64>() {
        return Some(whole).filter(|bytes| *bytes <= MOST_BYTES);
    }
    let float = number(cell)?;
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked: whole, and 0 to 2^53"
    )]
    ((0.0..=MOST_EXACT).contains(&float) && float.fract() == 0.0).then_some(float as u64)
}
