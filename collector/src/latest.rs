//! The newest reading of every host, for all that look rather than follow.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast;

use crate::reading::HostReading;

/// Readings that a slow watcher may fall behind before it misses some.
const BACKLOG: usize = 256;

/// The newest reading of every host. Clones share the same state.
#[derive(Debug, Clone)]
pub struct Latest {
    readings: Arc<Mutex<BTreeMap<String, Arc<HostReading>>>>,
    news: broadcast::Sender<Arc<HostReading>>,
}

impl Default for Latest {
    fn default() -> Self {
        Self { readings: Arc::default(), news: broadcast::Sender::new(BACKLOG) }
    }
}

impl Latest {
    /// Takes in a reading and tells those who watch.
    pub fn put(&self, reading: Arc<HostReading>) {
        self.lock().insert(reading.host.id.clone(), Arc::clone(&reading));
        // Nobody watches most of the time.
        let _ = self.news.send(reading);
    }

    /// All readings, by host.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<HostReading>> {
        self.lock().values().cloned().collect()
    }

    /// The reading of a host; an empty name means the only host there is.
    #[must_use]
    pub fn get(&self, host_id: &str) -> Option<Arc<HostReading>> {
        let readings = self.lock();
        match (host_id, readings.len()) {
            ("", 1) => readings.values().next().cloned(),
            _ => readings.get(host_id).cloned(),
        }
    }

    /// All readings of now, and every one from now on.
    #[must_use]
    pub fn watch(&self) -> (Vec<Arc<HostReading>>, broadcast::Receiver<Arc<HostReading>>) {
        let readings = self.lock();
        (readings.values().cloned().collect(), self.news.subscribe())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<HostReading>>> {
        self.readings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
