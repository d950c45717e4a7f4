//! One signal of one VM: its model, the judges of its forecasts and promises, its trust, its harvest.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    backoff::{Backoff, Cause},
    boundary::Effective,
    coverage::{Coverage, Judged},
    domain::{Seconds, Signal, real, whole},
    guard::{Closed, History, Inputs, Raised, TermName, VALID_INTERVALS, Waterfall},
    judge::{Judge, OpenBounds, Scene},
    labels::Labels,
    model::{Forecast, Model, Prices, Sample, Terms},
    violation::{Change, Closing, Episode, Kind, Recent},
    vm::{HostContext, change_point::ChangePoint},
};

/// History is not counted further than this.
const LONGEST_HISTORY: Seconds = 7.0 * 86_400.0;

/// Shorter gaps than this are no pause, however fast the sampling.
const NO_PAUSE: Seconds = 60.0;

/// A VM that used more than this share of a smaller allocation may have been held back by it.
pub(crate) const HELD_BACK: f64 = 0.9;

/// The circumstances of a reading.
#[derive(Clone, Copy, Debug)]
pub struct Moment<'a> {
    /// When.
    pub at: Seconds,
    /// How often this signal is sampled.
    pub interval: Seconds,
    /// What the VM holds.
    pub allocated: u64,
    /// What operators set.
    pub effective: &'a Effective,
    /// What the host adds.
    pub host: &'a HostContext,
}

impl Moment<'_> {
    const fn terms(&self, signal: Signal) -> Terms {
        Terms {
            signal,
            horizon: self.effective.horizon.value,
            target: self.effective.target_violation_rate.value,
            fairness: self.effective.fairness.value,
        }
    }
}

/// The newest value of a signal.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Latest {
    at: Seconds,
    bytes: u64,
    allocated: u64,
}

/// See the module. Kept small, because every machine has two.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Track<M> {
    signal: Signal,
    model: M,
    labels: Labels,
    coverage: Coverage,
    backoff: Backoff,
    forecasts: OpenBounds,
    promises: OpenBounds,
    forecast_judge: Judge,
    promise_judge: Judge,
    /// Judges of the operator's band, upper edge first, where there is one.
    band: Option<Box<[Judge; 2]>>,
    promise_told: Option<Seconds>,
    recent: Recent,
    forecast: Option<Forecast>,
    latest: Option<Latest>,
    slope: f64,
    age: Seconds,
    readings: u32,
    highest: u64,
    headroom: u64,
    raised: Raised,
    horizon: Seconds,
}

impl<M: Model> Track<M> {
    /// A track without history.
    #[must_use]
    pub fn of(signal: Signal, model: M) -> Self {
        let judge = |kind| Judge::of(kind, signal);
        Self {
            signal,
            model,
            labels: Labels::default(),
            coverage: Coverage::default(),
            backoff: Backoff::default(),
            forecasts: OpenBounds::default(),
            promises: OpenBounds::default(),
            forecast_judge: judge(Kind::Forecast),
            promise_judge: judge(Kind::Promise),
            band: None,
            promise_told: None,
            recent: Recent::default(),
            forecast: None,
            latest: None,
            slope: 0.0,
            age: 0.0,
            readings: 0,
            highest: 0,
            headroom: 0,
            raised: Raised::default(),
            horizon: 0.0,
        }
    }

    /// The forecast in force.
    #[must_use]
    pub const fn forecast(&self) -> Option<Forecast> {
        self.forecast
    }

    /// How its raw forecasts fared.
    #[must_use]
    pub const fn coverage(&self) -> &Coverage {
        &self.coverage
    }

    /// The model's name and version.
    #[must_use]
    pub fn model_version(&self) -> Cow<'static, str> {
        self.model.version()
    }

    /// The violations that are open.
    pub fn open_violations(&self) -> impl Iterator<Item = &Episode> {
        let band = self.band.iter().flat_map(|band| band.iter());
        [&self.forecast_judge, &self.promise_judge].into_iter().chain(band).filter_map(Judge::open)
    }

    /// Makes void what a change point makes meaningless.
    pub(crate) fn interrupt(&mut self, change: ChangePoint, at: Seconds, violations: &mut Vec<Change>) {
        self.labels.void();
        self.forecasts.clear();
        self.promises.clear();
        self.slope = 0.0;
        for judge in [&mut self.forecast_judge, &mut self.promise_judge] {
            violations.extend(judge.close(at, Closing::Voided));
        }
        let held_back = |from: u64| real(self.highest) >= HELD_BACK * real(from);
        match change {
            ChangePoint::Restarted => self.begin_anew(),
            // Peaks that touched the old ceiling say little about what the VM does with a higher one.
            ChangePoint::Resized { from, to } if to > from && held_back(from) => self.begin_anew(),
            ChangePoint::Resized { .. } | ChangePoint::Interrupted => {}
        }
    }

    /// Takes a new value of the signal, or learns that there is none; says what was judged.
    pub(crate) fn take(
        &mut self,
        moment: &Moment<'_>,
        usage: Option<u64>,
        prices: &mut Prices,
        violations: &mut Vec<Change>,
    ) -> Judged {
        let mut judged = Judged::default();
        let terms = moment.terms(self.signal);
        if (terms.horizon - self.horizon).abs() > f64::EPSILON {
            self.labels.void();
            self.forecasts.clear();
            self.promises.clear();
            self.horizon = terms.horizon;
        }
        if let Some(bytes) = usage {
            let sample =
                Sample { at: moment.at, interval: moment.interval, bytes, allocated: moment.allocated };
            self.hold_to_account(moment, bytes, violations);
            let model = &mut self.model;
            self.labels.observe(&sample, |label| {
                judged.add(label);
                model.learn(label, &terms, prices);
            });
            self.note(&sample, terms.horizon);
            self.model.observe(&sample);
            self.forecast = self.model.forecast(&terms, prices);
            if let Some(forecast) = &self.forecast {
                self.labels.push(forecast, &sample);
                self.forecasts.push(moment.at, forecast.predicted_bytes);
            }
        }
        self.coverage.observe(moment.at, &judged);
        if judged.any_missed() && self.coverage.exceeds(2.0, terms.target) {
            self.backoff.trigger(moment.at, Cause::ViolationRate, terms.horizon);
        }
        judged
    }

    /// Works out the harvest and opens the promise that it makes.
    pub(crate) fn publish(&mut self, moment: &Moment<'_>, start: u64, closed: Option<Closed>) -> Waterfall {
        let cold = &moment.host.cold_start;
        let waterfall = Waterfall::of(Inputs {
            signal: self.signal,
            at: moment.at,
            interval: moment.interval,
            allocated: moment.allocated,
            start,
            predicted: self.forecast.map(|forecast| forecast.predicted_bytes.min(moment.allocated)),
            growing_to: self.growing_to(moment.effective.horizon.value),
            effective: moment.effective.clone(),
            history: History {
                age: self.age,
                readings: self.readings,
                allowance: cold.allowance(self.age, self.readings),
                wait: cold.wait(self.age, self.readings, moment.interval),
            },
            closed,
            backoff: self.backoff.running(moment.at),
            budget_spent: moment.host.budget_spent,
            breaker: moment.host.breaker,
            raised: self.raised,
        });
        self.raised = waterfall.raised();
        self.headroom = waterfall.term(TermName::Headroom).bytes;
        if let Some(promise) = waterfall.promise() {
            self.promises.push(moment.at, promise);
        }
        waterfall
    }

    /// Closes every open violation.
    pub(crate) fn close_all(&mut self, at: Seconds, closing: Closing, violations: &mut Vec<Change>) {
        for judge in self.judges() {
            violations.extend(judge.close(at, closing));
        }
    }

    fn judges(&mut self) -> impl Iterator<Item = &mut Judge> {
        let band = self.band.iter_mut().flat_map(|band| band.iter_mut());
        [&mut self.forecast_judge, &mut self.promise_judge].into_iter().chain(band)
    }

    /// Lets go of open violations, untold, unless `keep` says so.
    pub(crate) fn retain_open(&mut self, mut keep: impl FnMut(&mut Episode) -> bool) {
        for judge in self.judges() {
            judge.retain(&mut keep);
        }
    }

    fn begin_anew(&mut self) {
        self.model.reset();
        self.forecast = None;
        self.latest = None;
        self.age = 0.0;
        self.readings = 0;
        self.highest = 0;
        self.raised = Raised::default();
    }

    /// Judges a reading against everything that is open, before anything new opens.
    fn hold_to_account(&mut self, moment: &Moment<'_>, bytes: u64, violations: &mut Vec<Change>) {
        let terms = moment.terms(self.signal);
        let scene = Scene {
            at: moment.at,
            actual_bytes: bytes,
            allocated_bytes: moment.allocated,
            horizon: terms.horizon,
            target: terms.target,
            model_version: self.model.version(),
            recent: &self.recent,
        };
        self.forecasts.expire(moment.at, terms.horizon);
        self.promises.expire(moment.at, terms.horizon);
        violations.extend(self.forecast_judge.observe(&scene, self.forecasts.lowest()));
        violations.extend(self.promise_judge.observe(&scene, self.promises.lowest()));

        let watched = moment.effective.signal.value.unwrap_or(Signal::Rss) == self.signal;
        let edges = [moment.effective.upper_usage_bytes.value, moment.effective.lower_usage_bytes.value]
            .map(|edge| edge.filter(|_| watched));
        if edges.iter().any(Option::is_some) && self.band.is_none() {
            let judges = [Kind::BoundaryUpper, Kind::BoundaryLower].map(|kind| Judge::of(kind, self.signal));
            self.band = Some(Box::new(judges));
        }
        for (judge, edge) in self.band.iter_mut().flat_map(|band| band.iter_mut()).zip(edges) {
            match edge {
                Some(edge) => violations.extend(judge.observe(&scene, Some(edge))),
                None => violations.extend(judge.close(moment.at, Closing::Voided)),
            }
        }
        if edges == [None; 2] {
            self.band = None;
        }
        self.recent.push(moment.at, bytes);

        // Once an episode: when it first exceeds the promise by more than the headroom that was kept.
        if let Some(broken) = self.promise_judge.open()
            && broken.overshoot_bytes > self.headroom
            && self.promise_told != Some(broken.opened_at)
        {
            self.promise_told = Some(broken.opened_at);
            self.backoff.promise_broken_badly(moment.at, &terms);
        }
    }

    /// Counts history and follows the slope. A pause in the readings takes as much history away as it lasted.
    fn note(&mut self, sample: &Sample, horizon: Seconds) {
        if let Some(before) = self.latest {
            let passed = sample.at - before.at;
            if passed > (VALID_INTERVALS * sample.interval).max(NO_PAUSE) {
                self.age = (self.age - passed).max(0.0);
                self.readings = if self.age > 0.0 { self.readings } else { 0 };
                self.slope = 0.0;
            } else {
                self.age = (self.age + passed).min(LONGEST_HISTORY);
                let share = 1.0 - (-passed / horizon).exp();
                self.slope += share * ((real(sample.bytes) - real(before.bytes)) / passed - self.slope);
            }
        }
        self.readings = self.readings.saturating_add(1);
        self.highest = self.highest.max(sample.bytes);
        self.latest = Some(Latest { at: sample.at, bytes: sample.bytes, allocated: sample.allocated });
    }

    /// Usage at the end of the horizon if it went on as in the horizon before, but never below usage now.
    fn growing_to(&self, horizon: Seconds) -> u64 {
        let Some(latest) = self.latest else { return 0 };
        latest.bytes.saturating_add(whole((self.slope * horizon).max(0.0))).min(latest.allocated)
    }
}
