//! Readings from a recorded trace, as if they happened now.

use std::collections::BTreeMap;

use jiff::Timestamp;
use memharvest_trace::{Replay, Trace};

use super::traced::{position, reading};
use super::{Hypervisor, SampleError, Tick};
use crate::reading::HostReading;

/// A trace that is replayed on the mesh clock.
pub struct ReplayHypervisor {
    replay: Replay,
    begins: Timestamp,
    labels: BTreeMap<String, String>,
}

impl ReplayHypervisor {
    /// Spreads `trace` over `hosts` and begins it at the mesh time `begins`.
    #[must_use]
    pub fn new(trace: Trace, hosts: usize, begins: Timestamp, labels: BTreeMap<String, String>) -> Self {
        Self { replay: Replay::new(trace, hosts), begins, labels }
    }
}

impl Hypervisor for ReplayHypervisor {
    fn sample(&mut self, tick: Tick) -> Result<Vec<HostReading>, SampleError> {
        let position = position(self.begins, tick);
        if self.replay.finished(position) {
            return Err(SampleError::Ended);
        }
        let samples = self.replay.at(position);
        Ok(samples.iter().map(|sample| reading(sample, &self.labels, self.begins, tick)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memharvest_trace::TraceFile;

    use super::*;
    use crate::reading::Quality;

    const CSV: &str = "vm_id,t_seconds,allocated_bytes,used_bytes,rss_bytes\n\
                       web,0,1000,400,500\nweb,60,1000,450,600\nmute,60,1000,,700\nweb,120,1000,460,600\n";

    fn tick(second: i64) -> Tick {
        let interval = Duration::from_mins(1);
        Tick { at: Timestamp::from_second(1_800_000_000 + second).unwrap(), interval, budget: interval }
    }

    fn source() -> ReplayHypervisor {
        let trace = Trace::read(TraceFile::from_reader("test", CSV.as_bytes()).unwrap()).unwrap();
        ReplayHypervisor::new(trace, 1, tick(0).at, BTreeMap::new())
    }

    #[test]
    fn rows_are_read_at_their_time_on_the_mesh_clock() {
        let mut source = source();
        let first = source.sample(tick(0)).unwrap().remove(0);
        assert_eq!(first.host.id, "replay-1");
        assert_eq!(first.vms.len(), 1);
        let second = source.sample(tick(61)).unwrap().remove(0);
        assert_eq!(second.read_at, tick(61).at);
        let web = second.vms.iter().find(|vm| vm.name == "web").unwrap();
        assert_eq!((web.rss, web.guest.available, web.quality), (Some(600), Some(550), Quality::Live));
        assert_eq!(web.stats_age(second.read_at), Some(Duration::from_secs(1)));
        let mute = second.vms.iter().find(|vm| vm.name == "mute").unwrap();
        assert_eq!((mute.rss, mute.guest.available, mute.quality), (Some(700), None, Quality::NoBalloon));
    }

    #[test]
    fn a_trace_has_an_end() {
        assert_eq!(source().sample(tick(180)), Err(SampleError::Ended));
    }
}
