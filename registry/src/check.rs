//! Checks of requests: every field that is wrong is named, all of them at once.

use std::collections::BTreeMap;

use memharvest_services::rpc_error::FieldViolations;
use tonic::Status;
use uuid::Uuid;

use crate::identifier;
use crate::time::{duration_to_ns, instant_to_ns};

/// Largest number of bytes that any field may say: an exbibyte. Sums of many stay within 64 bits.
pub const MAX_BYTES: u64 = 1 << 60;

/// Longest name, address, author or version, in bytes.
pub const MAX_TEXT: usize = 512;

/// Longest note, explanation or reason, in bytes.
pub const MAX_NOTE: usize = 4096;

/// Most labels of a host.
const MAX_LABELS: usize = 64;

/// The years 1970 to 2200, in nanoseconds: what a time may be.
const LATEST_NS: i64 = 7_258_118_400_000_000_000;

/// Who is written down where a request does not say who asks.
const NOBODY: &str = "anonymous";

/// Collects what is wrong with a request.
#[derive(Debug, Default)]
pub(crate) struct Check {
    pub(crate) wrong: FieldViolations,
}

impl Check {
    /// The request may pass, or the status that names all its wrong fields.
    pub(crate) fn done(self) -> Result<(), Status> {
        self.wrong.into_result()
    }

    /// Notes a field unless `holds`.
    pub(crate) fn that(&mut self, holds: bool, field: &str, message: &str) {
        if !holds {
            self.wrong.add(field, message);
        }
    }

    /// Looks at a part of the request by itself; what is wrong with it is noted under `path`.
    pub(crate) fn nested(&mut self, path: impl FnOnce() -> String, look: impl FnOnce(&mut Self)) {
        let mut own = Self::default();
        look(&mut own);
        if own.wrong.as_slice().is_empty() {
            return;
        }
        let path = path();
        for wrong in own.wrong.as_slice() {
            self.wrong.add(format!("{path}.{}", wrong.field), wrong.message.clone());
        }
    }

    /// An agent's or host's id.
    pub(crate) fn id(&mut self, field: &str, id: &str) {
        self.that(identifier::is_id(id), field, "must be 1 to 128 characters of A-Z a-z 0-9 . _ -");
    }

    /// A host's id that may be empty.
    pub(crate) fn id_or_empty(&mut self, field: &str, id: &str) {
        if !id.is_empty() {
            self.id(field, id);
        }
    }

    /// A violation's id.
    pub(crate) fn violation_id(&mut self, field: &str, id: &str) {
        self.that(
            identifier::is_violation_id(id),
            field,
            "must be 1 to 128 characters of A-Z a-z 0-9 . _ : -",
        );
    }

    /// A machine's id.
    pub(crate) fn vm(&mut self, field: &str, id: &str) -> Option<Uuid> {
        let uuid = Uuid::try_parse(id).ok();
        self.that(uuid.is_some(), field, "must be a UUID");
        uuid
    }

    /// A text of at most `longest` bytes; may be empty.
    pub(crate) fn text(&mut self, field: &str, text: &str, longest: usize) {
        if text.len() > longest {
            self.wrong.add(field, format!("must be at most {longest} bytes, not {}", text.len()));
        }
        // PostgreSQL keeps none, and nobody could read one.
        self.that(!text.contains('\0'), field, "must not hold a NUL character");
    }

    /// A figure in bytes.
    pub(crate) fn bytes(&mut self, field: &str, bytes: Option<u64>) {
        if bytes.is_some_and(|bytes| bytes > MAX_BYTES) {
            self.wrong.add(field, format!("must be at most {MAX_BYTES} bytes"));
        }
    }

    /// A share or rate that must be a number within a range.
    pub(crate) fn within(&mut self, field: &str, value: f64, least: f64, most: f64) {
        if !(least..=most).contains(&value) {
            self.wrong.add(field, format!("must be from {least} to {most}"));
        }
    }

    /// A time that must be there, in nanoseconds since 1970.
    pub(crate) fn instant(&mut self, field: &str, at: Option<&prost_types::Timestamp>) -> Option<i64> {
        if at.is_none() {
            self.wrong.add(field, "must be given");
        }
        self.instant_or_none(field, at)
    }

    /// A time that may be absent, in nanoseconds since 1970.
    pub(crate) fn instant_or_none(
        &mut self,
        field: &str,
        at: Option<&prost_types::Timestamp>,
    ) -> Option<i64> {
        let ns = instant_to_ns(at?).filter(|ns| (0..=LATEST_NS).contains(ns));
        self.that(ns.is_some(), field, "must be a time from 1970 to 2199");
        ns
    }

    /// A length of time that may be absent, in nanoseconds, within a range in seconds.
    pub(crate) fn duration_or_none(
        &mut self,
        field: &str,
        length: Option<&prost_types::Duration>,
        least_s: i64,
        most_s: i64,
    ) -> Option<i64> {
        let range = least_s * 1_000_000_000..=most_s * 1_000_000_000;
        let ns = duration_to_ns(length?).filter(|ns| range.contains(ns));
        if ns.is_none() {
            self.wrong.add(field, format!("must be from {least_s} s to {most_s} s"));
        }
        ns
    }

    /// Labels of a host.
    pub(crate) fn labels(&mut self, field: &str, labels: &BTreeMap<String, String>) {
        if labels.len() > MAX_LABELS {
            self.wrong.add(field, format!("must be at most {MAX_LABELS} labels"));
        }
        for (name, value) in labels.iter().take(MAX_LABELS) {
            let shown: String = name.chars().take(63).collect();
            if !identifier::is_label_name(name) {
                self.wrong.add(
                    format!("{field}[{shown}]"),
                    "the name must be 1 to 63 characters of A-Z a-z 0-9 . _ - /",
                );
            }
            if !identifier::is_label_value(value) {
                self.wrong.add(
                    format!("{field}[{shown}]"),
                    "the value must be at most 253 bytes without control characters",
                );
            }
        }
    }

    /// Who asks, and why. Without authentication a caller may leave the author out; it is written down as `anonymous`.
    pub(crate) fn change(&mut self, author: &str, reason: &str, at_ns: i64) -> crate::store::Change {
        self.text("author", author, MAX_TEXT);
        self.text("reason", reason, MAX_NOTE);
        let author = if author.is_empty() { NOBODY } else { author };
        crate::store::Change { author: author.to_owned(), reason: reason.to_owned(), at_ns }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wrong_fields_are_told_at_once() {
        let mut check = Check::default();
        check.id("agent_id", "a b");
        check.vm("vm_id", "web");
        check.bytes("bytes", Some(u64::MAX));
        check.within("ratio", f64::NAN, 0.0, 1.0);
        check.instant("at", None);
        check.instant("at", Some(&prost_types::Timestamp { seconds: -1, nanos: 0 }));
        check.duration_or_none("step", Some(&prost_types::Duration { seconds: 0, nanos: 0 }), 1, 2);
        check.text("note", "ab", 1);
        check.labels("labels", &BTreeMap::from([("a b".to_owned(), "\n".to_owned())]));
        assert_eq!(check.wrong.as_slice().len(), 10);
        assert_eq!(check.done().unwrap_err().code(), tonic::Code::InvalidArgument);
    }

    #[test]
    fn a_good_request_passes() {
        let mut check = Check::default();
        check.id("agent_id", "host-1.example_a");
        check.id_or_empty("host_id", "");
        check.violation_id("violation_id", "v:1");
        assert_eq!(check.duration_or_none("step", None, 1, 2), None);
        assert_eq!(check.change("", "", 7).author, "anonymous");
        assert!(check.done().is_ok());
    }
}
