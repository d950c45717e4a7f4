//! Readiness: a process is ready when every part that it waits for has said so.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Who is waited for. Clones share the same state.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, bool>>>);

impl Readiness {
    /// Adds a part that is not ready yet.
    #[must_use]
    pub fn part(&self, name: &str) -> Part {
        self.set(name, false);
        Part { all: self.clone(), name: name.to_owned() }
    }

    /// The parts that are not ready, sorted; empty means ready.
    #[must_use]
    pub fn waiting_for(&self) -> Vec<String> {
        let parts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter(|(_, ready)| !**ready).map(|(name, _)| name.clone()).collect()
    }

    fn set(&self, name: &str, ready: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), ready);
    }
}

/// A part's own say in whether the process is ready.
#[derive(Debug)]
pub struct Part {
    all: Readiness,
    name: String,
}

impl Part {
    /// The part can do its work.
    pub fn ready(&self) {
        self.all.set(&self.name, true);
    }

    /// The part cannot do its work for now.
    pub fn not_ready(&self) {
        self.all.set(&self.name, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_for_every_part_and_again_when_one_falls_back() {
        let readiness = Readiness::default();
        assert!(readiness.waiting_for().is_empty());
        let (store, predictor) = (readiness.part("store"), readiness.part("predictor"));
        assert_eq!(readiness.waiting_for(), ["predictor", "store"]);
        store.ready();
        predictor.ready();
        assert!(readiness.waiting_for().is_empty());
        predictor.not_ready();
        assert_eq!(readiness.waiting_for(), ["predictor"]);
    }
}
