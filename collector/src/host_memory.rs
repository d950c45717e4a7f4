//! The host's own memory, from `/proc`: parsers without I/O, and one small reader.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::reading::{HostMemory, Pressure, Stall};

/// Reads a host's memory from a `/proc` tree. Its files stay open: to find and open them costs more than to read them.
#[derive(Debug)]
pub struct HostMemoryReader {
    meminfo: Option<File>,
    pressure: Option<File>,
    vmstat: Option<File>,
    page_bytes: u64,
    swapped_in: Option<u64>,
}

impl HostMemoryReader {
    /// A reader of the tree at `proc`, normally `/proc`. A file that is not there leaves its figures absent: an old
    /// kernel has no pressure file, and a sandbox may hide any of them.
    #[must_use]
    pub fn new(proc: &Path) -> Self {
        let open = |name| File::open(proc.join(name)).ok();
        Self {
            meminfo: open("meminfo"),
            pressure: open("pressure/memory"),
            vmstat: open("vmstat"),
            page_bytes: rustix::param::page_size() as u64,
            swapped_in: None,
        }
    }

    /// The host's memory now.
    pub fn read(&mut self) -> HostMemory {
        let mut memory = text(self.meminfo.as_ref()).map(|text| parse_meminfo(&text)).unwrap_or_default();
        memory.pressure = text(self.pressure.as_ref()).and_then(|text| parse_pressure(&text));
        // The dearest of the files. Nothing comes back from a swap space that holds nothing.
        if self.swapped_in.is_none() || memory.swap_used() != Some(0) {
            self.swapped_in = text(self.vmstat.as_ref())
                .and_then(|text| parse_swapped_in_pages(&text))
                .and_then(|pages| pages.checked_mul(self.page_bytes));
        }
        memory.swapped_in = self.swapped_in;
        memory
    }
}

/// Longer than any of the files. The kernel counts anew for every piece that is asked for, so they are read in one.
const ENOUGH: usize = 16 * 1024;

/// What the file says now; absent where it cannot be read.
fn text(file: Option<&File>) -> Option<String> {
    let mut text = vec![0; ENOUGH];
    let mut length = 0;
    loop {
        match file?.read_at(&mut text[length..], length as u64).ok()? {
            0 => break,
            more => length += more,
        }
    }
    text.truncate(length);
    String::from_utf8(text).ok()
}

/// Reads totals out of the text of `/proc/meminfo`.
#[must_use]
pub fn parse_meminfo(text: &str) -> HostMemory {
    let mut memory = HostMemory::default();
    for line in text.lines() {
        let Some((name, rest)) = line.split_once(':') else { continue };
        let field = match name {
            "MemTotal" => &mut memory.total,
            "MemAvailable" => &mut memory.available,
            "SwapTotal" => &mut memory.swap_total,
            "SwapFree" => &mut memory.swap_free,
            _ => continue,
        };
        *field = parse_kib(rest);
    }
    memory
}

/// Reads the text of `/proc/pressure/memory`; absent unless both of its lines can be read.
#[must_use]
pub fn parse_pressure(text: &str) -> Option<Pressure> {
    let stall = |kind: &str| {
        let line = text.lines().find(|line| line.split_whitespace().next() == Some(kind))?;
        let field = |key: &str| line.split_whitespace().find_map(|word| word.strip_prefix(key)?.parse().ok());
        let percent: f64 = field("avg10=")?;
        let microseconds: f64 = field("total=")?;
        Some(Stall { avg10: percent / 100.0, total_seconds: microseconds / 1e6 })
    };
    Some(Pressure { some: stall("some")?, full: stall("full")? })
}

/// Reads the pages swapped in since boot out of the text of `/proc/vmstat`.
#[must_use]
pub fn parse_swapped_in_pages(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("pswpin ")?.trim().parse().ok())
}

/// Reads an amount such as `  123 kB` as bytes.
pub(crate) fn parse_kib(text: &str) -> Option<u64> {
    text.trim().strip_suffix("kB")?.trim_end().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const MEMINFO: &str = "MemTotal:       24589404 kB\nMemFree:  1 kB\nMemAvailable:   23100000 kB\n\
                           SwapCached:            0 kB\nSwapTotal:       1048572 kB\nSwapFree:        1048000 kB\n";

    #[test]
    fn meminfo_is_read_in_bytes() {
        let memory = parse_meminfo(MEMINFO);
        assert_eq!(memory.total, Some(24_589_404 * 1024));
        assert_eq!(memory.available, Some(23_100_000 * 1024));
        assert_eq!(memory.swap_used(), Some(572 * 1024));
    }

    #[test]
    fn what_meminfo_does_not_say_is_absent() {
        assert_eq!(parse_meminfo(""), HostMemory::default());
        assert_eq!(parse_meminfo("MemTotal: many kB\nMemAvailable: 5\n"), HostMemory::default());
        assert_eq!(parse_meminfo("SwapTotal: 18446744073709551615 kB\n").swap_total, None);
    }

    #[test]
    fn pressure_is_read_as_ratio_and_seconds() {
        let text = "some avg10=1.50 avg60=0.20 avg300=0.00 total=2500000\n\
                    full avg10=0.10 avg60=0.00 avg300=0.00 total=1000000\n";
        let pressure = parse_pressure(text).unwrap();
        assert!((pressure.some.avg10 - 0.015).abs() < 1e-12);
        assert!((pressure.some.total_seconds - 2.5).abs() < 1e-12);
        assert!((pressure.full.avg10 - 0.001).abs() < 1e-12);
        assert!((pressure.full.total_seconds - 1.0).abs() < 1e-12);
    }

    #[test]
    fn pressure_that_cannot_be_read_is_absent() {
        assert_eq!(parse_pressure(""), None);
        assert_eq!(parse_pressure("some avg10=0.00 total=0\n"), None);
        assert_eq!(parse_pressure("some avg10=x total=0\nfull avg10=0 total=0\n"), None);
    }

    #[test]
    fn swap_in_is_counted_in_pages() {
        assert_eq!(parse_swapped_in_pages("pgpgin 4\npswpin 17\npswpout 3\n"), Some(17));
        assert_eq!(parse_swapped_in_pages("pgpgin 4\n"), None);
    }

    #[test]
    fn a_tree_without_pressure_leaves_it_absent() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("meminfo"), MEMINFO).unwrap();
        fs::write(tree.path().join("vmstat"), "pswpin 2\n").unwrap();
        let memory = HostMemoryReader::new(tree.path()).read();
        assert_eq!(memory.total, Some(24_589_404 * 1024));
        assert_eq!(memory.swapped_in, Some(2 * rustix::param::page_size() as u64));
        assert_eq!(memory.pressure, None);
    }

    #[test]
    fn swap_in_is_read_again_only_while_something_is_swapped_out() {
        let tree = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(tree.path().join(name), text).unwrap();
        let pages = |count: u64| Some(count * rustix::param::page_size() as u64);
        write("meminfo", "SwapTotal: 8 kB\nSwapFree: 8 kB\n");
        write("vmstat", "pswpin 2\n");
        let mut reader = HostMemoryReader::new(tree.path());
        assert_eq!(reader.read().swapped_in, pages(2));
        write("vmstat", "pswpin 9\n");
        assert_eq!(reader.read().swapped_in, pages(2));
        write("meminfo", "SwapTotal: 8 kB\nSwapFree: 4 kB\n");
        assert_eq!(reader.read().swapped_in, pages(9));
    }
}
