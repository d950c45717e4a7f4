//! What networks learn from: recorded usage of one signal of one machine.

use memharvest_trace::Trace;

use super::chance;
use crate::{
    domain::{Seconds, Signal},
    model::cqd::levels::STEP,
};

/// Usage of one signal of one machine, by rising time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// The machine's name in its trace; splits go by it.
    pub name: String,
    /// Which signal.
    pub signal: Signal,
    /// What the machine holds, above zero.
    pub allocated: u64,
    /// Time of each reading and its bytes, at most `allocated`.
    pub readings: Vec<(Seconds, u64)>,
}

/// Which machines of a trace: all, or a part that depends on nothing but their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Split {
    /// Every machine.
    All,
    /// One half of them.
    First,
    /// The other half.
    Second,
}

impl Split {
    /// Whether a machine belongs to this part.
    #[must_use]
    pub fn holds(self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::First => chance::hash(name) % 2 == 1,
            Self::Second => chance::hash(name).is_multiple_of(2),
        }
    }

    /// The machines that this part leaves out; none where it is all.
    #[must_use]
    pub const fn rest(self) -> Option<Self> {
        match self {
            Self::All => None,
            Self::First => Some(Self::Second),
            Self::Second => Some(Self::First),
        }
    }

    /// The word for it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::First => "first half",
            Self::Second => "second half",
        }
    }
}

impl Series {
    /// Both signals of every machine of a trace, where there are readings.
    #[must_use]
    pub fn of(trace: &Trace) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for vm in trace.vms() {
            all.extend(Signal::ALL.map(|signal| Self {
                name: vm.name.to_string(),
                signal,
                allocated: vm.maximum_bytes,
                readings: Vec::new(),
            }));
        }
        for reading in trace.readings() {
            let of_vm = all.iter_mut().skip(Signal::ALL.len() * reading.vm);
            for (series, bytes) in of_vm.zip([reading.rss_bytes, reading.used_bytes]) {
                let taken = bytes.map(|bytes| (reading.t_seconds, bytes.min(series.allocated)));
                series.readings.extend(taken);
            }
        }
        all.retain(|series| !series.readings.is_empty());
        all
    }

    /// The usual time between readings: the median; `None` where there are fewer than two.
    #[must_use]
    pub fn interval(&self) -> Option<Seconds> {
        let mut gaps: Vec<Seconds> = self.readings.windows(2).map(|pair| pair[1].0 - pair[0].0).collect();
        let middle = gaps.len() / 2;
        (!gaps.is_empty()).then(|| *gaps.select_nth_unstable_by(middle, Seconds::total_cmp).1)
    }

    /// The largest reading of every span of `cell` seconds that has one, `shift` later, as if a span were one step:
    /// what the live model makes of fast readings where `cell` is a step, and a machine that lives faster where it is more.
    #[must_use]
    pub fn in_cells(&self, cell: Seconds, shift: Seconds) -> Self {
        let mut readings: Vec<(Seconds, u64)> = Vec::new();
        for (at, bytes) in &self.readings {
            let at = ((at + shift) / cell).floor() * STEP;
            match readings.last_mut() {
                Some(last) if last.0 >= at => last.1 = last.1.max(*bytes),
                _ => readings.push((at, *bytes)),
            }
        }
        Self { readings, name: self.name.clone(), ..*self }
    }

    /// Some readings in a row.
    #[must_use]
    pub fn stretch(&self, from: usize, count: usize) -> Self {
        let readings = self.readings.iter().skip(from).take(count).copied().collect();
        Self { readings, name: self.name.clone(), ..*self }
    }
}
