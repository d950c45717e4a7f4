//! A page of which only what is selected is written.

use memharvest_services::page_writer::{MetricType, PageWriter, Value};

use super::selector::{Narrowed, Selector};
use crate::fleet_metrics::SeriesPage;

/// More labels than any series has.
const LABELS: usize = 8;

/// Writes the chosen series. A metric of which nothing was chosen leaves no trace.
pub(super) struct Selected<'a> {
    page: PageWriter,
    selectors: &'a [Selector],
    narrowed: Option<Narrowed<'a>>,
    header: Option<Header>,
    at_ms: i64,
}

/// What is written before the first sample.
struct Header {
    name: String,
    help: String,
    kind: MetricType,
}

impl<'a> Selected<'a> {
    pub(super) fn new(selectors: &'a [Selector]) -> Self {
        Self { page: PageWriter::default(), selectors, narrowed: None, header: None, at_ms: 0 }
    }

    /// The time of the samples from here on, in milliseconds since 1970.
    pub(super) fn at(&mut self, at_ms: i64) {
        self.at_ms = at_ms;
    }

    /// Starts a metric, or goes on with one; false where none of its series can be chosen.
    pub(super) fn family(&mut self, name: &str, help: &str, kind: MetricType, goes_on: bool) -> bool {
        self.narrowed = Narrowed::new(self.selectors, name);
        self.header = None;
        if goes_on {
            self.page.resume(name);
        } else if self.narrowed.is_some() {
            self.header = Some(Header { name: name.to_owned(), help: help.to_owned(), kind });
        }
        self.narrowed.is_some()
    }

    /// Length of what is written so far, in bytes.
    pub(super) fn len(&self) -> usize {
        self.page.len()
    }

    pub(super) fn finish(self) -> String {
        self.page.finish()
    }

    /// Writes a sample, if it is chosen.
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) {
        if !self.narrowed.as_ref().is_some_and(|narrowed| narrowed.fits(labels)) {
            return;
        }
        if let Some(Header { name, help, kind }) = self.header.take() {
            self.page.header(&name, &help, kind);
        }
        // As Prometheus does: whoever honours the labels must not put his own instance in this place, or two gateways
        // would seem to tell of two fleets.
        let mut all = [("", ""); LABELS];
        all[0] = ("instance", "");
        let length = labels.len().min(LABELS - 1);
        all[1..=length].copy_from_slice(&labels[..length]);
        self.page.sample_at(&all[..=length], value, self.at_ms);
    }
}

impl SeriesPage for Selected<'_> {
    fn metric(&mut self, name: &str, help: &str, kind: MetricType) {
        self.family(name, help, kind, false);
    }

    fn sample(&mut self, labels: &[(&str, &str)], value: Value) {
        Selected::sample(self, labels, value);
    }
}
