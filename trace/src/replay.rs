//! Shows a trace as hosts with guests, at any position of its own time.

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::sample::{GuestSample, GuestStats, HostSample, host_total_bytes};
use crate::trace::{Ticks, Trace, TraceReading};

/// A trace, spread over hosts. It has no position of its own: what [`Replay::at`] shows depends on the position alone, so that a
/// replay may be resumed, repeated and read by several at once.
///
/// - A guest without a reading in a tick is absent in it (a gap), and gone after its last row. There is no loop: at the end
///   [`Replay::finished`] says so.
/// - `used_bytes` becomes guest statistics with total = allocated (or used, where that is more) and available = total − used, such
///   that demand is used. A VM that never reports it counts as one without a balloon.
/// - A VM's host follows from its UUID and the number of hosts. A host's memory is its guests' largest sum of allocations ÷ 0.8,
///   rounded up to GiB; available is what RSS leaves of it (`used` where RSS is absent, the allocation where both are).
pub struct Replay {
    trace: Trace,
    ticks: Ticks,
    /// Per VM: its host, and the tick of its first reading.
    placed: Vec<Placed>,
    hosts: Vec<Host>,
}

struct Placed {
    host: usize,
    first_tick: u64,
}

struct Host {
    id: Arc<str>,
    total_bytes: u64,
}

impl Replay {
    /// Spreads a trace over this many hosts, named `replay-1` and so on; 0 means 1.
    #[must_use]
    pub fn new(trace: Trace, hosts: usize) -> Self {
        let hosts = hosts.max(1);
        let ticks = trace.ticks();
        let mut placed: Vec<Placed> = trace
            .vms()
            .iter()
            .map(|vm| Placed { host: host_of(vm.vm, hosts), first_tick: u64::MAX })
            .collect();
        let mut largest = vec![0_u64; hosts];
        for (tick, readings) in ticks.iter() {
            let mut sums = vec![0_u64; hosts];
            for reading in latest(&trace, readings) {
                let at = &mut placed[reading.vm];
                at.first_tick = at.first_tick.min(tick);
                sums[at.host] = sums[at.host].saturating_add(reading.allocated_bytes);
            }
            for (largest, sum) in largest.iter_mut().zip(sums) {
                *largest = sum.max(*largest);
            }
        }
        let hosts = largest.into_iter().zip(1..).map(|(allocated, number)| Host {
            id: format!("replay-{number}").into(),
            total_bytes: host_total_bytes(allocated),
        });
        let hosts = hosts.collect();
        Self { trace, ticks, placed, hosts }
    }

    /// The trace that is shown.
    #[must_use]
    pub fn trace(&self) -> &Trace {
        &self.trace
    }

    /// How far apart, in trace time, the states are; see [`Trace::step`].
    #[must_use]
    pub fn step(&self) -> Duration {
        self.trace.step()
    }

    /// How long the replay shows something, in trace time: through the tick of the last reading.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.start_of(self.ticks.last() + 1)
    }

    /// Whether this position is past the end.
    #[must_use]
    pub fn finished(&self, position: Duration) -> bool {
        self.tick(position) > self.ticks.last()
    }

    /// All hosts at this position (trace time since the first reading): the state of the tick in which it falls.
    #[must_use]
    pub fn at(&self, position: Duration) -> Vec<HostSample> {
        let tick = self.tick(position);
        let mut hosts: Vec<HostSample> = self.hosts.iter().map(Host::empty).collect();
        for reading in latest(&self.trace, self.ticks.get(tick)) {
            let guest = self.guest(&reading, tick);
            let host = &mut hosts[guest.host];
            let occupied = reading.rss_bytes.or(reading.used_bytes).unwrap_or(reading.allocated_bytes);
            host.available_bytes = host.available_bytes.saturating_sub(occupied);
            host.guests.push(guest);
        }
        hosts
    }

    fn guest(&self, reading: &TraceReading, tick: u64) -> GuestSample {
        let vm = &self.trace.vms()[reading.vm];
        let placed = &self.placed[reading.vm];
        let guest = reading.used_bytes.map(|used| {
            let total_bytes = reading.allocated_bytes.max(used);
            GuestStats {
                total_bytes,
                free_bytes: None,
                available_bytes: Some(total_bytes - used),
                disk_cache_bytes: None,
                last_update: self.start_of(tick),
            }
        });
        let period = u32::try_from(self.step().as_secs()).unwrap_or(u32::MAX).max(1);
        GuestSample {
            vm: vm.vm,
            name: Arc::clone(&vm.name),
            host: placed.host,
            allocated_bytes: reading.allocated_bytes,
            maximum_bytes: vm.maximum_bytes,
            rss_bytes: reading.rss_bytes,
            guest,
            has_balloon: vm.reports_used,
            stats_period_seconds: vm.reports_used.then_some(period),
            uptime: self.start_of(tick - placed.first_tick),
            boots: 0,
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a quotient of durations; a cast saturates, and then it is past every trace's end"
    )]
    fn tick(&self, position: Duration) -> u64 {
        // A position that arithmetic leaves a hair before its tick belongs to it.
        (position.as_secs_f64() / self.step().as_secs_f64() + 1e-6).floor() as u64
    }

    fn start_of(&self, tick: u64) -> Duration {
        #[expect(clippy::cast_precision_loss, reason = "ticks of a trace stay far below 2^53")]
        Duration::from_secs_f64(self.step().as_secs_f64() * tick as f64)
    }
}

impl Host {
    fn empty(&self) -> HostSample {
        HostSample {
            id: Arc::clone(&self.id),
            name: Arc::clone(&self.id),
            total_bytes: self.total_bytes,
            available_bytes: self.total_bytes,
            guests: Vec::new(),
        }
    }
}

/// The readings of one tick by VM, the last one of each.
fn latest(trace: &Trace, readings: impl Iterator<Item = usize>) -> Vec<TraceReading> {
    let mut readings: Vec<TraceReading> = readings.map(|index| trace.reading(index)).collect();
    readings.sort_by_key(|reading| std::cmp::Reverse(reading.vm)); // stable: by time within a VM
    readings.reverse(); // ascending VM, and the last reading of each first
    readings.dedup_by_key(|reading| reading.vm);
    readings
}

/// UUIDs may be counted rather than random, so their bits are mixed before the division.
fn host_of(vm: Uuid, hosts: usize) -> usize {
    let (high, low) = vm.as_u64_pair();
    let mixed = crate::generator::mix(high ^ crate::generator::mix(low));
    #[expect(clippy::cast_possible_truncation, reason = "the remainder is below `hosts`")]
    let host = (mixed % hosts as u64) as usize;
    host
}
