//! Readings of invented hosts.

use std::collections::BTreeMap;

use jiff::Timestamp;
use memharvest_trace::Simulation;

use super::traced::{position, reading};
use super::{Hypervisor, SampleError, Tick};
use crate::reading::HostReading;
use crate::settings::Shape;

/// Invented hosts that live on the mesh clock.
pub struct SimulatedHypervisor {
    simulation: Simulation,
    begins: Timestamp,
    labels: BTreeMap<String, String>,
}

impl SimulatedHypervisor {
    /// Invents hosts out of `seed`; they begin at the mesh time `begins`.
    #[must_use]
    pub fn new(seed: u64, shape: Shape, begins: Timestamp, labels: BTreeMap<String, String>) -> Self {
        let simulation = Simulation::new(seed, shape.hosts as usize, shape.vms as usize);
        Self { simulation, begins, labels }
    }
}

impl Hypervisor for SimulatedHypervisor {
    fn sample(&mut self, tick: Tick) -> Result<Vec<HostReading>, SampleError> {
        let samples = self.simulation.at(position(self.begins, tick));
        Ok(samples.iter().map(|sample| reading(sample, &self.labels, self.begins, tick)).collect())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::reading::Quality;

    fn source() -> SimulatedHypervisor {
        SimulatedHypervisor::new(7, Shape { hosts: 2, vms: 10 }, Timestamp::UNIX_EPOCH, BTreeMap::new())
    }

    fn tick() -> Tick {
        let interval = Duration::from_secs(5);
        Tick { at: Timestamp::from_second(3600).unwrap(), interval, budget: interval }
    }

    #[test]
    fn the_same_seed_invents_the_same_hosts() {
        let readings = source().sample(tick()).unwrap();
        assert_eq!(readings, source().sample(tick()).unwrap());
        assert_eq!(readings.iter().map(|reading| reading.vms.len()).collect::<Vec<_>>(), [10, 10]);
    }

    #[test]
    fn machines_of_every_kind_are_there() {
        let readings = source().sample(tick()).unwrap();
        for class in [Quality::NoBalloon, Quality::NoPeriod, Quality::Live] {
            assert!(readings[0].vms.iter().any(|vm| vm.quality == class), "{class:?}");
        }
    }
}
