//! What was answered, and how soon.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;
use tonic::Status;

/// What the columns of [`line`] are.
pub(super) const HEAD: &str =
    "  READINGS/S  MACHINES/S  MEDIAN ANSWER  99TH ANSWER  REFUSED  LEFT OUT  BROKEN STREAMS\n";

/// Counts of a span of time.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    /// How long it was.
    pub(super) span: Duration,
    /// Readings that were answered, refused ones among them.
    pub(super) answered: u64,
    /// Machines in those answers.
    pub(super) machines: u64,
    /// Readings that the predictor passed over.
    pub(super) refused: u64,
    /// Readings that were not sent, as too many waited for their answers.
    pub(super) left_out: u64,
    /// Streams that ended, or were not opened.
    pub(super) broken: u64,
    /// Why the latest reading was refused, or the latest stream ended.
    pub(super) trouble: Option<String>,
    /// Half of the answers took at most this; `None` where there was none.
    pub(super) median: Option<Duration>,
    /// 99 of a hundred took at most this. Of the whole run both are those of the worst lap.
    pub(super) p99: Option<Duration>,
}

/// Counts of all hosts, lap by lap.
#[derive(Debug)]
pub(super) struct Tally(Mutex<Laps>);

#[derive(Debug)]
struct Laps {
    began: Instant,
    lap_began: Instant,
    lap: Counts,
    took: Vec<Duration>,
    total: Counts,
}

impl Default for Tally {
    fn default() -> Self {
        let now = Instant::now();
        let (lap, total) = (Counts::default(), Counts::default());
        Self(Mutex::new(Laps { began: now, lap_began: now, lap, took: Vec::new(), total }))
    }
}

impl Tally {
    /// Counts an answer about so many machines; a reason says why the reading was passed over.
    pub(super) fn answered(&self, took: Duration, machines: usize, refused: &str) {
        let mut laps = self.laps();
        laps.took.push(took);
        laps.lap.answered += 1;
        laps.lap.machines += machines as u64;
        if !refused.is_empty() {
            laps.lap.refused += 1;
            laps.lap.trouble = Some(refused.to_owned());
        }
    }

    /// Counts a reading that was not sent.
    pub(super) fn left_out(&self) {
        self.laps().lap.left_out += 1;
    }

    /// Counts a stream that ended.
    pub(super) fn broken(&self, status: &Status) {
        let mut laps = self.laps();
        laps.lap.broken += 1;
        laps.lap.trouble = Some(status.message().to_owned());
    }

    /// What was counted since the last lap.
    pub(super) fn lap(&self) -> Counts {
        let mut laps = self.laps();
        let mut took = std::mem::take(&mut laps.took);
        took.sort_unstable();
        let at = |percent: usize| took.get(took.len().saturating_sub(1) * percent / 100).copied();
        let mut lap = std::mem::take(&mut laps.lap);
        (lap.median, lap.p99) = (at(50), at(99));
        lap.span = laps.lap_began.elapsed();
        laps.lap_began = Instant::now();
        let total = &mut laps.total;
        total.answered += lap.answered;
        total.machines += lap.machines;
        total.refused += lap.refused;
        total.left_out += lap.left_out;
        total.broken += lap.broken;
        total.median = total.median.max(lap.median);
        total.p99 = total.p99.max(lap.p99);
        if lap.trouble.is_some() {
            total.trouble.clone_from(&lap.trouble);
        }
        lap
    }

    /// All laps together; times are those of the slowest lap.
    pub(super) fn total(&self) -> Counts {
        self.lap();
        let laps = self.laps();
        Counts { span: laps.began.elapsed(), ..laps.total.clone() }
    }

    fn laps(&self) -> MutexGuard<'_, Laps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A span as a line below [`HEAD`], or as a JSON object of one line.
pub(super) fn line(counts: &Counts, as_json: bool, whole: bool) -> String {
    let seconds = counts.span.as_secs_f64().max(1e-3);
    #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
    let rate = |count: u64| count as f64 / seconds;
    let milliseconds = |took: Option<Duration>| {
        took.map_or("-".to_owned(), |took| format!("{:.1} ms", took.as_secs_f64() * 1000.0))
    };
    let (readings, machines) = (rate(counts.answered), rate(counts.machines));
    let (median, p99) = (milliseconds(counts.median), milliseconds(counts.p99));
    if as_json {
        let object = json!({
            "whole_run": whole,
            "span_seconds": counts.span.as_secs_f64(),
            "readings_per_second": readings,
            "machines_per_second": machines,
            "median_answer_seconds": counts.median.map(|took| took.as_secs_f64()),
            "p99_answer_seconds": counts.p99.map(|took| took.as_secs_f64()),
            "answered": counts.answered,
            "refused": counts.refused,
            "left_out": counts.left_out,
            "broken_streams": counts.broken,
            "trouble": counts.trouble,
        });
        return format!("{object}\n");
    }
    let Counts { refused, left_out, broken, .. } = counts;
    let trouble = counts.trouble.as_ref().map_or(String::new(), |trouble| format!("  {trouble}"));
    let title = if whole {
        format!(
            "in {}, the slowest five seconds:\n",
            humantime::format_duration(Duration::from_secs(counts.span.as_secs()))
        )
    } else {
        String::new()
    };
    format!(
        "{title}{readings:>12.1}{machines:>12.0}{median:>15}{p99:>13}{refused:>9}{left_out:>10}{broken:>16}{trouble}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn laps_add_up_and_lines_stand_below_their_heads() {
        let tally = Tally::default();
        for took in 1..=100u64 {
            tally.answered(Duration::from_millis(took), 30, if took == 1 { "too old" } else { "" });
        }
        tally.left_out();
        let lap = tally.lap();
        assert_eq!((lap.answered, lap.machines, lap.refused, lap.left_out), (100, 3000, 1, 1));
        assert_eq!((lap.median, lap.p99), (Some(Duration::from_millis(50)), Some(Duration::from_millis(99))));
        tally.answered(Duration::from_millis(5), 30, "");
        tally.broken(&Status::unavailable("gone"));
        let total = tally.total();
        assert_eq!((total.answered, total.broken, total.p99), (101, 1, Some(Duration::from_millis(99))));
        assert_eq!(total.trouble.as_deref(), Some("gone"));

        let told = line(&Counts { trouble: None, ..lap }, false, false);
        assert_eq!(told.len(), HEAD.len(), "{told}{HEAD}");
        let object: serde_json::Value = serde_json::from_str(&line(&total, true, true)).unwrap();
        assert_eq!((object["answered"].as_u64(), object["trouble"].as_str()), (Some(101), Some("gone")));
        let idle: serde_json::Value = serde_json::from_str(&line(&tally.lap(), true, false)).unwrap();
        assert!(idle["p99_answer_seconds"].is_null(), "{idle}");
    }
}
