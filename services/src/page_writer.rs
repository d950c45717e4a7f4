//! Prometheus' text format, written straight from state: for pages with thousands of series that come and go.

use std::fmt::Write;

/// Kind of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricType {
    /// Only rises; the name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
}

/// A sample's value. Whole numbers keep all their digits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    /// A count or a number of bytes.
    Whole(u64),
    /// Anything else; one that is not finite is left out, since absent stays absent.
    Float(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<u32> for Value {
    fn from(value: u32) -> Self {
        Self::Whole(value.into())
    }
}

impl From<usize> for Value {
    fn from(value: usize) -> Self {
        Self::Whole(value as u64)
    }
}

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Self::Whole(value.into())
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Float(value)
    }
}

/// Writes one page. Call [`PageWriter::header`] once for each metric, then its samples.
#[derive(Debug, Default)]
pub struct PageWriter {
    page: String,
    metric: String,
}

impl PageWriter {
    /// Starts a metric.
    pub fn header(&mut self, name: &str, help: &str, kind: MetricType) {
        debug_assert!(is_metric_name(name), "{name} is no metric name");
        debug_assert!(
            kind != MetricType::Counter || name.ends_with("_total"),
            "counter {name} must end in _total"
        );
        let kind = match kind {
            MetricType::Counter => "counter",
            MetricType::Gauge => "gauge",
        };
        self.page.push_str("# HELP ");
        self.page.push_str(name);
        self.page.push(' ');
        escape(&mut self.page, help, false);
        self.page.push_str("\n# TYPE ");
        self.page.push_str(name);
        self.page.push(' ');
        self.page.push_str(kind);
        self.page.push('\n');
        name.clone_into(&mut self.metric);
    }

    /// Goes on with a metric that another page has started.
    pub fn resume(&mut self, name: &str) {
        name.clone_into(&mut self.metric);
    }

    /// Writes a sample of the metric that was started last. Nothing is written for a value that is not finite.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) {
        self.write(labels, value.into(), None);
    }

    /// As [`PageWriter::sample`], taken at this time: milliseconds since 1970.
    pub fn sample_at(&mut self, labels: &[(&str, &str)], value: impl Into<Value>, at_ms: i64) {
        self.write(labels, value.into(), Some(at_ms));
    }

    fn write(&mut self, labels: &[(&str, &str)], value: Value, at_ms: Option<i64>) {
        debug_assert!(!self.metric.is_empty(), "a sample needs a header before it");
        if matches!(value, Value::Float(number) if !number.is_finite()) {
            return;
        }
        self.page.push_str(&self.metric);
        for (i, (name, text)) in labels.iter().enumerate() {
            self.page.push(if i == 0 { '{' } else { ',' });
            self.page.push_str(name);
            self.page.push_str("=\"");
            escape(&mut self.page, text, true);
            self.page.push('"');
        }
        if !labels.is_empty() {
            self.page.push('}');
        }
        // Writing to a string cannot fail.
        let _ = match value {
            Value::Whole(number) => write!(self.page, " {number}"),
            Value::Float(number) => write!(self.page, " {number}"),
        };
        if let Some(at_ms) = at_ms {
            let _ = write!(self.page, " {at_ms}");
        }
        self.page.push('\n');
    }

    /// Length of the page so far, in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.page.len()
    }

    /// Whether nothing is written yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.page.is_empty()
    }

    /// The page so far.
    #[must_use]
    pub fn finish(self) -> String {
        self.page
    }

    /// Adds text that is in the format already.
    pub(crate) fn append(&mut self, text: &str) {
        self.page.push_str(text);
    }
}

fn is_metric_name(name: &str) -> bool {
    !name.starts_with(|first: char| first.is_ascii_digit())
        && !name.is_empty()
        && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == ':')
}

fn escape(page: &mut String, text: &str, quotes: bool) {
    if !text.contains(['\\', '\n', '"']) {
        page.push_str(text);
        return;
    }
    for c in text.chars() {
        match c {
            '\\' => page.push_str("\\\\"),
            '\n' => page.push_str("\\n"),
            '"' if quotes => page.push_str("\\\""),
            c => page.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_the_text_format() {
        let mut page = PageWriter::default();
        page.header("memharvest_vm_info", "A VM's \\ name.", MetricType::Gauge);
        page.sample(&[("vm", "1"), ("name", "a \"b\"\nc\\")], true);
        page.header("memharvest_host_memory_total_bytes", "Memory.", MetricType::Gauge);
        page.sample(&[], u64::MAX);
        page.sample(&[("host", "h")], 0.25);
        page.sample(&[("host", "gone")], f64::NAN);
        page.sample_at(&[("host", "h")], 1_u64, -5);
        let expected = r#"# HELP memharvest_vm_info A VM's \\ name.
# TYPE memharvest_vm_info gauge
memharvest_vm_info{vm="1",name="a \"b\"\nc\\"} 1
# HELP memharvest_host_memory_total_bytes Memory.
# TYPE memharvest_host_memory_total_bytes gauge
memharvest_host_memory_total_bytes 18446744073709551615
memharvest_host_memory_total_bytes{host="h"} 0.25
memharvest_host_memory_total_bytes{host="h"} 1 -5
"#;
        assert_eq!(page.finish(), expected);
    }
}
