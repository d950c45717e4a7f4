//! What a mesh is fed with, and on which clock it runs. Pure, apart from reading a trace's outline.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use memharvest_trace::{TraceFile, TraceFileError};

/// What a mesh is fed with.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Source {
    /// The machines of a hypervisor.
    Libvirt {
        /// Its connection URI.
        uri: String,
    },
    /// A recorded trace; without a file the one that comes with the program.
    Trace {
        /// The CSV file.
        file: Option<PathBuf>,
    },
    /// Invented machines.
    Simulation {
        /// How many.
        shape: Shape,
        /// The same seed invents the same machines.
        seed: Option<u64>,
    },
}

/// Whose time a mesh's history is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Real machines in real time.
    Live,
    /// A recorded trace.
    Replay,
    /// Invented machines.
    Simulation,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Live, Self::Replay, Self::Simulation];

    /// One word for files and scripts.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Replay => "replay",
            Self::Simulation => "simulation",
        }
    }

    /// The kind that a word stands for.
    pub(crate) fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }

    /// For use in a sentence.
    pub(crate) fn article(self) -> &'static str {
        match self {
            Self::Live => "live machines",
            Self::Replay => "a replay",
            Self::Simulation => "a simulation",
        }
    }
}

/// How many hosts are invented, and how many machines on each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    /// Hosts, 1 or more.
    pub(crate) hosts: u32,
    /// Machines on each host, 1 or more.
    pub(crate) vms: u32,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once(['x', 'X']);
        let parsed =
            parts.and_then(|(hosts, vms)| Some((hosts.trim().parse().ok()?, vms.trim().parse().ok()?)));
        match parsed {
            Some((hosts @ 1.., vms @ 1..)) => Ok(Self { hosts, vms }),
            _ => Err("write HOSTSxVMS, such as 2x5 for two hosts with five machines each".to_owned()),
        }
    }
}

impl std::fmt::Display for Shape {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}x{}", self.hosts, self.vms)
    }
}

impl Source {
    /// Whose time it is in.
    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Libvirt { .. } => Kind::Live,
            Self::Trace { .. } => Kind::Replay,
            Self::Simulation { .. } => Kind::Simulation,
        }
    }
}

/// Where live machines are looked for when nothing was asked for.
pub(crate) const SYSTEM_URI: &str = "qemu:///system";

/// What to do when nothing was asked for: live machines where some run, otherwise the bundled trace. Says why.
pub(crate) fn by_default(running: &Result<u64, String>) -> (Source, String) {
    let replay = Source::Trace { file: None };
    match running {
        Ok(0) => (replay, format!("no virtual machine runs on {SYSTEM_URI}, so a recorded trace is shown")),
        Ok(_) => (Source::Libvirt { uri: SYSTEM_URI.to_owned() }, String::new()),
        Err(cause) => {
            (replay, format!("{SYSTEM_URI} cannot be used ({cause}), so a recorded trace is shown"))
        }
    }
}

/// How fast a mesh runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pace {
    /// Mesh seconds in a wall second.
    pub(crate) factor: f64,
    /// Mesh time between two readings.
    pub(crate) interval: Duration,
    /// History that a machine needs before anything is harvested from it; absent: the predictor's default.
    pub(crate) cold_start: Option<Duration>,
}

/// The bundled trace has a row every five minutes and spans five days: at this speed a row a second, 24 minutes in all.
const DEMO_SPEED: f64 = 300.0;
const LIVE_INTERVAL: Duration = Duration::from_secs(5);
/// Twelve rows of the bundled trace: something is harvested after as many seconds.
const DEMO_COLD_START: Duration = Duration::from_hours(1);
/// Invented machines in real time: something to see within half a minute.
const SIMULATED_COLD_START: Duration = Duration::from_secs(20);

impl Pace {
    /// What was asked for, and what suits the source in place of the rest.
    pub(crate) fn of(
        source: &Source,
        speed: Option<f64>,
        interval: Option<Duration>,
        cold_start: Option<Duration>,
    ) -> Self {
        let (default_speed, default_cold_start) = match source {
            Source::Libvirt { .. } | Source::Trace { file: Some(_) } => (1.0, None),
            Source::Trace { file: None } => (DEMO_SPEED, Some(DEMO_COLD_START)),
            Source::Simulation { .. } => (1.0, Some(SIMULATED_COLD_START)),
        };
        let factor = speed.unwrap_or(default_speed);
        // Faster than life, a reading a second of wall time is plenty.
        let a_wall_second = Duration::try_from_secs_f64(factor).unwrap_or(Duration::MAX);
        let default_interval = if factor > 1.0 { LIVE_INTERVAL.max(a_wall_second) } else { LIVE_INTERVAL };
        Self {
            factor,
            interval: interval.unwrap_or(default_interval),
            cold_start: cold_start.or(default_cold_start),
        }
    }

    /// How long a span of mesh time takes for the one who waits.
    pub(crate) fn wall(&self, mesh: Duration) -> Duration {
        Duration::try_from_secs_f64(mesh.as_secs_f64() / self.factor).unwrap_or(Duration::MAX)
    }
}

/// What is in a trace.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Outline {
    /// Machines.
    pub(crate) vms: usize,
    /// From the first row to the last.
    pub(crate) spans: Duration,
}

impl Outline {
    /// Reads a whole trace once; none given: the bundled one.
    ///
    /// # Errors
    /// At the first line that is wrong, which is named.
    pub(crate) fn read(file: Option<&Path>) -> Result<Self, TraceFileError> {
        let rows = match file {
            Some(path) => TraceFile::open(path)?,
            None => TraceFile::from_reader("the bundled trace", memharvest_trace::demo())?,
        };
        let mut vms = std::collections::HashSet::new();
        let (mut first, mut last) = (f64::INFINITY, f64::NEG_INFINITY);
        for row in rows {
            let row = row?;
            vms.insert(row.vm);
            first = first.min(row.t_seconds);
            last = last.max(row.t_seconds);
        }
        let spans = Duration::try_from_secs_f64(last - first).unwrap_or_default();
        Ok(Self { vms: vms.len(), spans })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_machines_come_first_and_a_trace_is_shown_with_the_reason() {
        assert_eq!(by_default(&Ok(3)).0, Source::Libvirt { uri: SYSTEM_URI.into() });
        let (source, why) = by_default(&Ok(0));
        assert_eq!(source, Source::Trace { file: None });
        assert!(why.contains("no virtual machine runs"), "{why}");
        let (source, why) = by_default(&Err("permission denied".into()));
        assert_eq!(source, Source::Trace { file: None });
        assert!(why.contains("permission denied"), "{why}");
    }

    #[test]
    fn shapes_are_read_and_nonsense_is_refused_with_an_example() {
        assert_eq!("2x5".parse(), Ok(Shape { hosts: 2, vms: 5 }));
        for wrong in ["", "2", "x", "0x5", "2x0", "2x-1", "2x5x1", "axb", "99999999999x1"] {
            assert!(wrong.parse::<Shape>().unwrap_err().contains("2x5"), "{wrong}");
        }
    }

    #[test]
    fn the_bundled_trace_shows_itself_within_half_an_hour_and_a_harvest_within_twenty_seconds() {
        let outline = Outline::read(None).unwrap();
        let pace = Pace::of(&Source::Trace { file: None }, None, None, None);
        assert_eq!(outline.vms, 24);
        assert!(outline.spans.as_secs_f64() / pace.factor < 1800.0);
        assert!(pace.cold_start.unwrap().as_secs_f64() / pace.factor <= 20.0);
        assert!((pace.interval.as_secs_f64() / pace.factor - 1.0).abs() < 1e-9);
    }

    #[test]
    fn live_machines_and_own_traces_run_in_real_time_unless_asked() {
        let live = Pace::of(&Source::Libvirt { uri: SYSTEM_URI.into() }, None, None, None);
        assert_eq!(live, Pace { factor: 1.0, interval: LIVE_INTERVAL, cold_start: None });
        let own = Source::Trace { file: Some("a.csv".into()) };
        assert_eq!(Pace::of(&own, None, None, None).interval, LIVE_INTERVAL);
        let fast = Pace::of(&own, Some(60.0), None, Some(Duration::ZERO));
        assert_eq!((fast.interval, fast.cold_start), (Duration::from_mins(1), Some(Duration::ZERO)));
    }
}
