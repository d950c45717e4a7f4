//! Figures of several rounds.

use std::fmt;

/// The figures of several rounds, shown as `median (least–greatest)`.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    sorted: Vec<f64>,
    digits: usize,
    unit: &'static str,
}

impl Spread {
    /// Figures, in `unit`, that are shown with so many digits after the point.
    ///
    /// # Panics
    /// Without any figure.
    pub(crate) fn new(figures: impl IntoIterator<Item = f64>, digits: usize, unit: &'static str) -> Self {
        let mut sorted: Vec<f64> = figures.into_iter().collect();
        assert!(!sorted.is_empty(), "a spread of nothing");
        sorted.sort_unstable_by(f64::total_cmp);
        Self { sorted, digits, unit }
    }

    /// The figure in the middle; of an even number the mean of the two.
    pub(crate) fn median(&self) -> f64 {
        let (low, high) = (self.sorted[(self.sorted.len() - 1) / 2], self.sorted[self.sorted.len() / 2]);
        f64::midpoint(low, high)
    }

    /// The greatest figure.
    pub(crate) fn greatest(&self) -> f64 {
        self.sorted[self.sorted.len() - 1]
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { digits, unit, .. } = self;
        write!(f, "{:.digits$}{unit}", self.median())?;
        write!(f, " ({:.digits$}–{:.digits$})", self.sorted[0], self.greatest())
    }
}
