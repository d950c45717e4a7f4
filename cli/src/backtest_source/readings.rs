//! Readings on their way from a source to a trace.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use memharvest_trace::{Trace, TraceFileError, TraceRow, vm_uuid};

/// What is read of a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantity {
    /// What it holds. A reading without it is none.
    Allocated,
    /// What the guest itself needs.
    Used,
    /// What the host backs with memory.
    Rss,
}

/// A machine as a source names it: by itself, and by where it ran. One that moves keeps its name; two of one name that
/// run at the same time are two.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Machine {
    /// Its name.
    pub(super) name: String,
    /// What told of it; empty where names are unique.
    pub(super) place: String,
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    machine: usize,
    at: i64,
    allocated: u64,
    used: Option<u64>,
    rss: Option<u64>,
}

/// What is known of a machine at a time.
#[derive(Debug, Default, Clone, Copy)]
struct Figures {
    allocated: Option<u64>,
    used: Option<u64>,
    rss: Option<u64>,
}

/// All that was read so far.
#[derive(Debug, Default)]
pub(super) struct Readings {
    machines: Vec<Machine>,
    known: HashMap<Machine, usize>,
    closed: Vec<Reading>,
    /// The readings of the span that is being read, by machine and time.
    open: HashMap<(usize, i64), Figures>,
}

impl Readings {
    /// Whether nothing is known.
    pub(super) fn is_empty(&self) -> bool {
        self.closed.is_empty()
    }

    /// The machine's number, for [`Readings::add`].
    pub(super) fn machine(&mut self, machine: Machine) -> usize {
        *self.known.entry(machine).or_insert_with_key(|machine| {
            self.machines.push(machine.clone());
            self.machines.len() - 1
        })
    }

    /// Takes one figure, at a Unix second.
    pub(super) fn add(&mut self, machine: usize, at: i64, quantity: Quantity, bytes: u64) {
        let figures = self.open.entry((machine, at)).or_default();
        let figure = match quantity {
            Quantity::Allocated => &mut figures.allocated,
            Quantity::Used => &mut figures.used,
            Quantity::Rss => &mut figures.rss,
        };
        *figure = Some(bytes);
    }

    /// Ends a span: no more figures come of the times that were told. Those without an allocation or without usage are
    /// dropped.
    pub(super) fn close(&mut self) {
        let told = self.open.drain().filter_map(|((machine, at), Figures { allocated, used, rss })| {
            let allocated = allocated.filter(|bytes| *bytes > 0)?;
            used.or(rss)?;
            Some(Reading { machine, at, allocated, used, rss })
        });
        self.closed.extend(told);
    }

    /// The trace; `source` stands for it in messages.
    ///
    /// # Errors
    /// When the figures are such that no trace could hold them.
    pub(super) fn into_trace(mut self, source: &str) -> Result<Trace, TraceFileError> {
        let name_of = |reading: &Reading| self.machines[reading.machine].name.as_str();
        self.closed.sort_by(|a, b| (name_of(a), a.at, a.machine).cmp(&(name_of(b), b.at, b.machine)));
        let same = |pair: &[Reading]| pair[0].at == pair[1].at && name_of(&pair[0]) == name_of(&pair[1]);
        let ambiguous: HashSet<&str> =
            self.closed.windows(2).filter(|pair| same(pair)).map(|pair| name_of(&pair[0])).collect();
        let names: Vec<Arc<str>> = self
            .machines
            .iter()
            .map(
                |Machine { name, place }| {
                    if ambiguous.contains(name.as_str()) { format!("{name}@{place}") } else { name.clone() }
                },
            )
            .map(Into::into)
            .collect();
        let uuids: Vec<_> = names.iter().map(|name| vm_uuid(name)).collect();
        let rows = self.closed.iter().map(|reading| TraceRow {
            vm: uuids[reading.machine],
            name: names[reading.machine].clone(),
            #[expect(clippy::cast_precision_loss, reason = "seconds of the epoch are far below 2^53")]
            t_seconds: reading.at as f64,
            allocated_bytes: reading.allocated,
            used_bytes: reading.used,
            rss_bytes: reading.rss,
        });
        Trace::from_rows(source, rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(name: &str, place: &str) -> Machine {
        Machine { name: name.to_owned(), place: place.to_owned() }
    }

    #[test]
    fn one_that_moves_stays_itself_and_namesakes_stay_apart() {
        let mut readings = Readings::default();
        let told =
            [("mover", "a", 0), ("mover", "b", 300), ("twin", "a", 0), ("twin", "b", 0), ("twin", "b", 300)];
        for (name, place, at) in told {
            let number = readings.machine(machine(name, place));
            readings.add(number, at, Quantity::Allocated, 8);
            readings.add(number, at, Quantity::Rss, 4);
        }
        readings.close();
        let trace = readings.into_trace("here").unwrap();
        let mut names: Vec<&str> = trace.vms().iter().map(|vm| &*vm.name).collect();
        names.sort_unstable();
        assert_eq!(names, ["mover", "twin@a", "twin@b"]);
        assert_eq!(trace.len(), 5);
    }

    #[test]
    fn what_is_incomplete_is_dropped() {
        let mut readings = Readings::default();
        let number = readings.machine(machine("a", ""));
        readings.add(number, 0, Quantity::Allocated, 8);
        readings.add(number, 300, Quantity::Used, 4);
        readings.add(number, 600, Quantity::Allocated, 0);
        readings.add(number, 600, Quantity::Used, 4);
        readings.close();
        assert!(readings.is_empty());
        readings.add(number, 900, Quantity::Allocated, 8);
        readings.add(number, 900, Quantity::Used, 4);
        readings.close();
        let trace = readings.into_trace("here").unwrap();
        let reading = trace.reading(0);
        assert_eq!((trace.len(), reading.used_bytes, reading.rss_bytes), (1, Some(4), None));
    }
}
