//! What is remembered of a domain between two samples. Pure.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use super::record::DomainRecord;
use crate::hypervisor::Tick;
use crate::reading::{Definition, Monitor, VmState};

/// Samples in a row without an answer after which a monitor counts as silent: another client's call, or
/// one of ours that was given up a moment too early, may hold the domain for a moment.
const SILENT_AFTER: u32 = 2;

/// How old a definition may grow while all that it says is borne out.
const REFRESH: Duration = Duration::from_mins(10);

/// How old a definition may grow while a running guest's figures do not move: its period may have been set since.
const REFRESH_IN_DOUBT: Duration = Duration::from_mins(1);

/// A resident set of at least this share of the allocation is all of it. One that becomes so at once may have been pinned, by
/// a device of the host that was plugged in.
const WHOLE: f64 = 0.98;

/// What is remembered of one domain, for as long as its process lives.
#[derive(Clone, Debug)]
pub(super) struct Track {
    /// libvirt's number of the process.
    pub(super) domain_id: u32,
    /// Whether its monitor answers.
    pub(super) monitor: Monitor,
    /// What its XML says.
    pub(super) definition: Option<Definition>,
    /// When its resident set was last read.
    pub(super) rss_read_at: Option<Timestamp>,
    unanswered: u32,
    resets: u32,
    /// Made once for every reset.
    generation: Option<u64>,
    minor_faults: Option<u64>,
    last_update: Option<Timestamp>,
    moved_at: Option<Timestamp>,
    running: bool,
    resident_whole: Option<bool>,
    defined_at: Option<Timestamp>,
    redefine: bool,
}

impl Track {
    pub(super) fn new(domain_id: u32) -> Self {
        Self {
            domain_id,
            monitor: Monitor::Answered,
            definition: None,
            rss_read_at: None,
            unanswered: 0,
            resets: 0,
            generation: None,
            minor_faults: None,
            last_update: None,
            moved_at: None,
            running: false,
            resident_whole: None,
            defined_at: None,
            redefine: false,
        }
    }

    /// Takes in a sample.
    pub(super) fn observe(&mut self, record: &DomainRecord, now: Timestamp) {
        self.unanswered = if record.monitor_answered() { 0 } else { self.unanswered.saturating_add(1) };
        self.monitor = match self.unanswered {
            0 => Monitor::Answered,
            SILENT_AFTER.. => Monitor::Silent,
            _ => Monitor::Busy,
        };
        self.running = record.vm_state() == VmState::Running;
        if let (Some(rss), Some(allocated)) = (record.rss, record.allocated) {
            #[expect(clippy::cast_precision_loss, reason = "a share")]
            let whole = rss as f64 >= WHOLE * allocated as f64;
            self.redefine |= whole && self.resident_whole == Some(false);
            self.resident_whole = Some(whole);
        }
        if let Some(faults) = record.guest.minor_faults {
            // The guest's kernel counts since its boot: a count that falls is a new kernel in the same process.
            if self.minor_faults.is_some_and(|before| faults < before) {
                self.resets += 1;
                self.generation = None;
            }
            self.minor_faults = Some(faults);
        }
        if let Some(update) = record.guest.last_update {
            if self.last_update.is_some_and(|before| update != before) {
                self.moved_at = Some(now);
                // Figures that move without a period: it has just been set.
                self.redefine |= self.definition.is_some_and(|definition| definition.stats_period.is_none());
            }
            self.last_update = Some(update);
        }
    }

    /// Takes in what the XML says.
    pub(super) fn define(&mut self, definition: Definition, now: Timestamp) {
        self.definition = Some(definition);
        self.defined_at = Some(now);
        self.redefine = false;
    }

    /// A number that differs between two processes of the machine, and between two boots of its guest.
    pub(super) fn generation(&mut self, host_boot: &str, uuid: Uuid) -> u64 {
        *self.generation.get_or_insert_with(|| {
            let name = format!("{}/{}/{}", host_boot.trim(), self.domain_id, self.resets);
            Uuid::new_v5(&uuid, name.as_bytes()).as_u64_pair().0
        })
    }

    fn in_doubt(&self, tick: Tick) -> bool {
        let patience = self
            .definition
            .and_then(|definition| definition.stats_period)
            .map(|period| period.max(tick.interval) * 3);
        let moves =
            patience.zip(self.moved_at).is_some_and(|(patience, at)| elapsed(at, tick.at) <= patience);
        self.running && !moves
    }

    /// How overdue the definition is; absent: it is not.
    fn overdue(&self, uuid: Uuid, tick: Tick) -> Option<Duration> {
        let Some(defined_at) = self.defined_at else { return Some(Duration::MAX) };
        let refresh = if self.in_doubt(tick) { REFRESH_IN_DOUBT } else { REFRESH };
        // Domains that were first seen together are read again at different times.
        let spread = 0.75 + f64::from(uuid.as_bytes()[15]) / 1024.0;
        let age = elapsed(defined_at, tick.at);
        // One that began to move need not wait, but is not read at every tick either.
        let limit = if self.redefine { tick.interval } else { refresh.mul_f64(spread) };
        age.checked_sub(limit)
    }
}

/// Domains whose XML is to be read now, the most overdue first: all that were never read, and of the others so few
/// that no tick is much longer than the next.
pub(super) fn due_definitions(tracks: &HashMap<Uuid, Track>, tick: Tick) -> Vec<Uuid> {
    let mut due: Vec<_> =
        tracks.iter().filter_map(|(&uuid, track)| Some((track.overdue(uuid, tick)?, uuid))).collect();
    due.sort_unstable_by(|a, b| b.cmp(a));
    let new = due.iter().take_while(|(overdue, _)| *overdue == Duration::MAX).count();
    due.truncate(new + (tracks.len() / 12).max(4));
    due.into_iter().map(|(_, uuid)| uuid).collect()
}

fn elapsed(since: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(since)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(5);

    fn tick(second: i64) -> Tick {
        Tick {
            at: Timestamp::from_second(1_800_000_000 + second).unwrap(),
            interval: INTERVAL,
            budget: INTERVAL,
        }
    }

    fn answered() -> DomainRecord {
        let mut record = DomainRecord::new(Uuid::from_u128(7), 1, "web".into());
        record.set("state.state", 1);
        record.set("balloon.rss", 4);
        record
    }

    fn unanswered() -> DomainRecord {
        let mut record = DomainRecord::new(Uuid::from_u128(7), 1, "web".into());
        record.set("state.state", 1);
        record
    }

    fn monitor_after(samples: &[DomainRecord]) -> Monitor {
        let mut track = Track::new(1);
        for record in samples {
            track.observe(record, tick(0).at);
        }
        track.monitor
    }

    #[test]
    fn a_monitor_is_silent_the_second_time() {
        assert_eq!(monitor_after(&[answered()]), Monitor::Answered);
        assert_eq!(monitor_after(&[unanswered()]), Monitor::Busy);
        assert_eq!(monitor_after(&[unanswered(), unanswered()]), Monitor::Silent);
        assert_eq!(monitor_after(&[unanswered(), answered(), unanswered()]), Monitor::Busy);
        assert_eq!(monitor_after(&[unanswered(), unanswered(), answered()]), Monitor::Answered);
    }

    fn with_faults(faults: u64) -> DomainRecord {
        let mut record = answered();
        record.set("balloon.minor_fault", faults);
        record
    }

    #[test]
    fn a_new_process_and_a_guest_that_boots_again_are_new_generations() {
        let uuid = Uuid::from_u128(7);
        let mut track = Track::new(1);
        track.observe(&with_faults(100), tick(0).at);
        let first = track.generation("boot", uuid);
        track.observe(&with_faults(200), tick(5).at);
        track.observe(&unanswered(), tick(10).at);
        assert_eq!(track.generation("boot", uuid), first);
        track.observe(&with_faults(50), tick(15).at);
        assert_ne!(track.generation("boot", uuid), first);
        assert_ne!(Track::new(2).generation("boot", uuid), first);
        assert_ne!(Track::new(1).generation("other boot", uuid), first);
    }

    fn with_update(second: u64) -> DomainRecord {
        let mut record = answered();
        record.set("balloon.last-update", 1_800_000_000 + second);
        record
    }

    fn due(track: &Track, second: i64) -> bool {
        let tracks = HashMap::from([(Uuid::from_u128(0), track.clone())]);
        !due_definitions(&tracks, tick(second)).is_empty()
    }

    #[test]
    fn a_definition_is_read_once_and_then_rarely() {
        let mut track = Track::new(1);
        assert!(due(&track, 0));
        let period = Some(Duration::from_secs(2));
        track.define(Definition { balloon: true, stats_period: period, ..Definition::default() }, tick(0).at);
        track.observe(&with_update(0), tick(0).at);
        track.observe(&with_update(40), tick(40).at);
        assert!(!due(&track, 50));
        // The guest's figures stopped: its period may have been taken away.
        assert!(due(&track, 60));
    }

    #[test]
    fn figures_that_begin_to_move_have_the_definition_read_at_once() {
        let mut track = Track::new(1);
        track.define(Definition { balloon: true, ..Definition::default() }, tick(0).at);
        track.observe(&with_update(0), tick(0).at);
        assert!(!due(&track, 10));
        track.observe(&with_update(9), tick(10).at);
        assert!(due(&track, 10));
    }

    #[test]
    fn a_machine_that_is_suddenly_resident_as_a_whole_has_its_definition_read_again() {
        let sample = |rss: u64| {
            let mut record = answered();
            record.set("balloon.current", 1000);
            record.set("balloon.rss", rss);
            record
        };
        let mut track = Track::new(1);
        track.define(Definition::default(), tick(0).at);
        track.observe(&sample(400), tick(0).at);
        track.observe(&sample(900), tick(5).at);
        assert!(!due(&track, 10));
        track.observe(&sample(1010), tick(10).at);
        assert!(due(&track, 10));
        track.define(Definition::default(), tick(10).at);
        track.observe(&sample(1010), tick(15).at);
        assert!(!due(&track, 20), "once");
    }

    #[test]
    fn new_domains_are_all_read_and_old_ones_a_few_at_a_time() {
        let mut tracks: HashMap<_, _> = (0..100).map(|n| (Uuid::from_u128(n), Track::new(1))).collect();
        assert_eq!(due_definitions(&tracks, tick(0)).len(), 100);
        for track in tracks.values_mut() {
            track.define(Definition::default(), tick(0).at);
        }
        assert_eq!(due_definitions(&tracks, tick(100)).len(), 0);
        assert_eq!(due_definitions(&tracks, tick(4000)).len(), 8);
    }
}
