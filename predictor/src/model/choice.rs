//! Which model forecasts, as people write it: `cqd`, `max_24h`, `n_sigma_2h:5`.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    labels::Label,
    model::{
        Forecast, Model, Prices, Sample, Terms,
        anchors::{
            Anchor, Rule, aci::Aci, autopilot::Autopilot, esx::Esx, fixed::Fixed, google_max::GoogleMax,
            koordinator::Koordinator, last::Last, mom::Mom, n_sigma::NSigma, oracle::Oracle,
            percentile::Percentile, recent_max::RecentMax, tracker::Tracker, vpa::Vpa,
        },
        cqd::Cqd,
    },
};

/// A model and its margin. As text: the name, and for an anchor with a margin `:` and that; the name alone stands for
/// the published margin.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Choice {
    name: Name,
    margin: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Cqd,
    Fixed,
    Last,
    Mom,
    Esx,
    NSigma2h,
    NSigma10h,
    NSigma24h,
    RcP95,
    RcP99,
    GoogleMax,
    Max15Min,
    Max1h,
    Max6h,
    Max24h,
    Max7d,
    Vpa,
    Koordinator,
    AutopilotP98,
    AutopilotMax,
    Aci,
    Tracker,
    Oracle,
}

/// What the number after the colon is, with its published default.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Margin {
    /// There is none.
    None,
    /// A share of the allocation that stands for usage.
    Share(f64),
    /// A share of what the anchor predicts, added to it.
    Added(f64),
    /// A share of the allocation, added to what the anchor predicts.
    OfAllocation(f64),
    /// A count of deviations.
    Deviations(f64),
}

const SHARES: &[f64] = &[0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98];
const ADDED: &[f64] = &[
    -0.6, -0.4, -0.25, -0.15, -0.1, -0.05, -0.02, 0.0, 0.005, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.45, 0.7,
    1.0, 1.5, 2.5, 4.0, 7.0, 12.0, 20.0,
];
const OF_ALLOCATION: &[f64] =
    &[0.0, 0.002, 0.005, 0.01, 0.02, 0.035, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.45, 0.65];
const DEVIATIONS: &[f64] = &[0.0, 0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0, 11.0, 15.0, 22.0, 32.0];

impl Margin {
    const fn published(self) -> f64 {
        match self {
            Self::None => 0.0,
            Self::Share(value) | Self::Added(value) | Self::OfAllocation(value) | Self::Deviations(value) => {
                value
            }
        }
    }

    /// Margins from far too small to far too large.
    const fn sweep(self) -> &'static [f64] {
        match self {
            Self::None => &[0.0],
            Self::Share(_) => SHARES,
            Self::Added(_) => ADDED,
            Self::OfAllocation(_) => OF_ALLOCATION,
            Self::Deviations(_) => DEVIATIONS,
        }
    }

    /// The smallest and the largest that makes sense.
    const fn bounds(self) -> (f64, f64) {
        match self {
            Self::None => (0.0, 0.0),
            Self::Share(_) | Self::OfAllocation(_) => (0.0, 1.0),
            Self::Added(_) => (-0.99, 1000.0),
            Self::Deviations(_) => (0.0, 1000.0),
        }
    }
}

/// Every model by its name, the default first.
const NAMES: [(&str, Name, Margin); 23] = [
    ("cqd", Name::Cqd, Margin::None),
    ("fixed", Name::Fixed, Margin::Share(0.9)),
    ("last", Name::Last, Margin::Added(0.2)),
    ("mom", Name::Mom, Margin::OfAllocation(0.2)),
    ("esx", Name::Esx, Margin::Added(0.0)),
    ("n_sigma_2h", Name::NSigma2h, Margin::Deviations(5.0)),
    ("n_sigma_10h", Name::NSigma10h, Margin::Deviations(5.0)),
    ("n_sigma_24h", Name::NSigma24h, Margin::Deviations(5.0)),
    ("rc_p95", Name::RcP95, Margin::Added(0.0)),
    ("rc_p99", Name::RcP99, Margin::Added(0.0)),
    ("google_max", Name::GoogleMax, Margin::Deviations(5.0)),
    ("max_15min", Name::Max15Min, Margin::Added(0.15)),
    ("max_1h", Name::Max1h, Margin::Added(0.15)),
    ("max_6h", Name::Max6h, Margin::Added(0.15)),
    ("max_24h", Name::Max24h, Margin::Added(0.15)),
    ("max_7d", Name::Max7d, Margin::Added(0.15)),
    ("vpa", Name::Vpa, Margin::Added(0.15)),
    ("koordinator", Name::Koordinator, Margin::Added(0.1)),
    ("autopilot_p98", Name::AutopilotP98, Margin::Added(0.1)),
    ("autopilot_max", Name::AutopilotMax, Margin::Added(0.1)),
    ("aci", Name::Aci, Margin::None),
    ("tracker", Name::Tracker, Margin::None),
    ("oracle", Name::Oracle, Margin::None),
];

impl Default for Choice {
    fn default() -> Self {
        Self::of(Name::Cqd)
    }
}

impl Choice {
    /// Every model with its published margin, ours first.
    #[must_use]
    pub fn all() -> impl ExactSizeIterator<Item = Self> {
        NAMES.iter().map(|(_, name, _)| Self::of(*name))
    }

    /// This model with margins from far too small to far too large, rising, the published one among them: what a
    /// comparison in hindsight draws. Only itself where there is no margin to turn.
    #[must_use]
    pub fn sweep(self) -> impl ExactSizeIterator<Item = Self> {
        self.kind().sweep().iter().map(move |margin| Self { margin: *margin, ..self })
    }

    /// The name without the margin.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.entry().0
    }

    /// The margin, `None` where there is none to turn.
    #[must_use]
    pub fn margin(self) -> Option<f64> {
        (self.kind() != Margin::None).then_some(self.margin)
    }

    /// Whether it aims at the target violation rate: then a comparison sweeps targets instead of margins.
    #[must_use]
    pub const fn follows_target(self) -> bool {
        matches!(self.name, Name::Cqd | Name::Aci | Name::Tracker)
    }

    /// Whether it has to be told the future, see [`Oracle::knowing`].
    #[must_use]
    pub const fn needs_future(self) -> bool {
        matches!(self.name, Name::Oracle)
    }

    /// Name and margin, as violations record it.
    #[must_use]
    pub fn label(self) -> Cow<'static, str> {
        if self.kind() == Margin::None { self.name().into() } else { self.to_string().into() }
    }

    /// A model that has seen nothing. An oracle that is made here knows no future and forecasts the allocation.
    #[must_use]
    pub fn build(self) -> AnyModel {
        const HOUR: i64 = 12;
        let margin = self.margin;
        match self.name {
            Name::Cqd => AnyModel::Cqd(Cqd::default()),
            Name::Fixed => AnyModel::Fixed(Box::new(self.anchor(Fixed::of(margin)))),
            Name::Last => AnyModel::Last(Box::new(self.anchor(Last::of(margin)))),
            Name::Mom => AnyModel::Mom(Box::new(self.anchor(Mom::of(margin)))),
            Name::Esx => AnyModel::Esx(Box::new(self.anchor(Esx::of(margin)))),
            Name::NSigma2h => AnyModel::NSigma(Box::new(self.anchor(NSigma::of(margin, 2 * HOUR)))),
            Name::NSigma10h => AnyModel::NSigma(Box::new(self.anchor(NSigma::of(margin, 10 * HOUR)))),
            Name::NSigma24h => AnyModel::NSigma(Box::new(self.anchor(NSigma::of(margin, 24 * HOUR)))),
            Name::RcP95 => {
                AnyModel::Percentile(Box::new(self.anchor(Percentile::of(margin, 0.95, 10 * HOUR))))
            }
            Name::RcP99 => {
                AnyModel::Percentile(Box::new(self.anchor(Percentile::of(margin, 0.99, 10 * HOUR))))
            }
            Name::GoogleMax => AnyModel::GoogleMax(Box::new(self.anchor(GoogleMax::of(margin)))),
            Name::Max15Min => AnyModel::RecentMax(Box::new(self.anchor(RecentMax::of(margin, HOUR / 4)))),
            Name::Max1h => AnyModel::RecentMax(Box::new(self.anchor(RecentMax::of(margin, HOUR)))),
            Name::Max6h => AnyModel::RecentMax(Box::new(self.anchor(RecentMax::of(margin, 6 * HOUR)))),
            Name::Max24h => AnyModel::RecentMax(Box::new(self.anchor(RecentMax::of(margin, 24 * HOUR)))),
            Name::Max7d => AnyModel::RecentMax(Box::new(self.anchor(RecentMax::of(margin, 7 * 24 * HOUR)))),
            Name::Vpa => AnyModel::Vpa(Box::new(self.anchor(Vpa::of(margin)))),
            Name::Koordinator => AnyModel::Koordinator(Box::new(self.anchor(Koordinator::of(margin)))),
            Name::AutopilotP98 => AnyModel::Autopilot(Box::new(self.anchor(Autopilot::p98(margin)))),
            Name::AutopilotMax => AnyModel::Autopilot(Box::new(self.anchor(Autopilot::max(margin)))),
            Name::Aci => AnyModel::Aci(Box::new(self.anchor(Aci::default()))),
            Name::Tracker => AnyModel::Tracker(Box::new(self.anchor(Tracker::default()))),
            Name::Oracle => AnyModel::Oracle(Box::default()),
        }
    }

    fn of(name: Name) -> Self {
        let published = Self { name, margin: 0.0 };
        Self { margin: published.kind().published(), ..published }
    }

    fn anchor<R: Rule>(self, rule: R) -> Anchor<R> {
        Anchor::new(self, rule)
    }

    fn kind(self) -> Margin {
        self.entry().2
    }

    fn entry(self) -> &'static (&'static str, Name, Margin) {
        // The table is in the order of the enum; a test holds it to that.
        &NAMES[self.name as usize]
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        self.margin().map_or(Ok(()), |margin| write!(f, ":{margin}"))
    }
}

/// Why a text names no model.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ChoiceError {
    /// Nothing is called that.
    #[error("there is no model `{given}`; use one of {}", names())]
    Unknown {
        /// What was asked for.
        given: String,
    },
    /// A margin where there is none to turn.
    #[error("`{name}` takes no margin; leave out what follows the name")]
    NoMargin {
        /// The model.
        name: &'static str,
    },
    /// A margin that is no number, or makes no sense.
    #[error(
        "the margin of `{name}` is a number from {least} to {most}, as in `{name}:{published}`; `{given}` is not"
    )]
    Margin {
        /// The model.
        name: &'static str,
        /// What was asked for.
        given: String,
        /// The smallest that is taken.
        least: f64,
        /// The largest.
        most: f64,
        /// The published one.
        published: f64,
    },
}

fn names() -> String {
    NAMES.map(|(name, ..)| name).join(", ")
}

impl FromStr for Choice {
    type Err = ChoiceError;

    fn from_str(text: &str) -> Result<Self, ChoiceError> {
        let (name, margin) = match text.split_once(':') {
            Some((name, margin)) => (name, Some(margin)),
            None => (text, None),
        };
        let Some((name, id, kind)) = NAMES.iter().find(|(known, ..)| *known == name) else {
            return Err(ChoiceError::Unknown { given: name.to_owned() });
        };
        let published = Self::of(*id);
        let Some(margin) = margin else { return Ok(published) };
        if *kind == Margin::None {
            return Err(ChoiceError::NoMargin { name });
        }
        let (least, most) = kind.bounds();
        match margin.parse() {
            Ok(value) if (least..=most).contains(&value) => Ok(Self { margin: value, ..published }),
            _ => {
                let (given, published) = (margin.to_owned(), kind.published());
                Err(ChoiceError::Margin { name, given, least, most, published })
            }
        }
    }
}

impl From<Choice> for String {
    fn from(choice: Choice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for Choice {
    type Error = ChoiceError;

    fn try_from(text: String) -> Result<Self, ChoiceError> {
        text.parse()
    }
}

/// Makes [`AnyModel`] out of its variants, so that each is named once.
macro_rules! any_model {
    ($($(#[$doc:meta])* $variant:ident($model:ty),)*) => {
        /// The model that was chosen, dispatched without a table of functions. Anchors are boxed: one that is not in
        /// use costs no room.
        #[derive(Clone, Debug, Serialize, Deserialize)]
        #[expect(clippy::large_enum_variant, reason = "the large one is ours, and the one that is used")]
        pub enum AnyModel {
            $($(#[$doc])* $variant($model),)*
        }

        impl Model for AnyModel {
            fn version(&self) -> Cow<'static, str> {
                match self { $(Self::$variant(model) => model.version(),)* }
            }

            fn observe(&mut self, sample: &Sample) {
                match self { $(Self::$variant(model) => model.observe(sample),)* }
            }

            fn learn(&mut self, label: &Label, terms: &Terms, prices: &mut Prices) {
                match self { $(Self::$variant(model) => model.learn(label, terms, prices),)* }
            }

            fn forecast(&mut self, terms: &Terms, prices: &Prices) -> Option<Forecast> {
                match self { $(Self::$variant(model) => model.forecast(terms, prices),)* }
            }

            fn reset(&mut self) {
                match self { $(Self::$variant(model) => model.reset(),)* }
            }
        }
    };
}

any_model! {
    /// Ours.
    Cqd(Cqd),
    /// See [`Fixed`].
    Fixed(Box<Anchor<Fixed>>),
    /// See [`Last`].
    Last(Box<Anchor<Last>>),
    /// See [`Mom`].
    Mom(Box<Anchor<Mom>>),
    /// See [`Esx`].
    Esx(Box<Anchor<Esx>>),
    /// See [`NSigma`].
    NSigma(Box<Anchor<NSigma>>),
    /// See [`Percentile`].
    Percentile(Box<Anchor<Percentile>>),
    /// See [`GoogleMax`].
    GoogleMax(Box<Anchor<GoogleMax>>),
    /// See [`RecentMax`].
    RecentMax(Box<Anchor<RecentMax>>),
    /// See [`Vpa`].
    Vpa(Box<Anchor<Vpa>>),
    /// See [`Koordinator`].
    Koordinator(Box<Anchor<Koordinator>>),
    /// See [`Autopilot`].
    Autopilot(Box<Anchor<Autopilot>>),
    /// See [`Aci`].
    Aci(Box<Anchor<Aci>>),
    /// See [`Tracker`].
    Tracker(Box<Anchor<Tracker>>),
    /// See [`Oracle`].
    Oracle(Box<Oracle>),
}

impl Default for AnyModel {
    fn default() -> Self {
        Choice::default().build()
    }
}

#[cfg(test)]
mod tests;
