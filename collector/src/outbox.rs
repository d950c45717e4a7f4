//! Readings on their way to the predictor. Bounded: while it is away the oldest are dropped, and counted.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use memharvest_services::metrics::QueueMetrics;
use tokio::sync::Notify;

use crate::reading::HostReading;

/// Readings that may be under way without an answer; a predictor that falls behind is not buried.
const UNANSWERED: usize = 1024;

/// Readings that wait, and those that were sent and are not answered yet. Clones share the same state.
#[derive(Debug, Clone)]
pub struct Outbox {
    queues: Arc<Mutex<Queues>>,
    changed: Arc<Notify>,
    metrics: QueueMetrics,
    limit: usize,
}

#[derive(Debug, Default)]
struct Queues {
    waiting: VecDeque<Arc<HostReading>>,
    sent: VecDeque<Arc<HostReading>>,
    weight: usize,
}

impl Outbox {
    /// An outbox for `limit` readings of machines.
    #[must_use]
    pub fn new(limit: usize, metrics: QueueMetrics) -> Self {
        Self { queues: Arc::default(), changed: Arc::default(), metrics, limit }
    }

    /// Adds the readings of one tick. Beyond the limit the oldest readings make room, but never those of this tick: the
    /// newest of every host is kept whatever the limit.
    pub fn push(&self, readings: &[Arc<HostReading>]) {
        let mut queues = self.lock();
        let mut dropped = 0;
        queues.weight += readings.iter().map(weight).sum::<usize>();
        queues.waiting.extend(readings.iter().cloned());
        while queues.weight > self.limit {
            let oldest = match queues.sent.pop_front() {
                Some(oldest) => oldest,
                None if queues.waiting.len() > readings.len() => match queues.waiting.pop_front() {
                    Some(oldest) => oldest,
                    None => break,
                },
                None => break,
            };
            queues.weight -= weight(&oldest);
            dropped += 1;
        }
        self.metrics.dropped(dropped);
        self.measure(&queues);
        drop(queues);
        self.changed.notify_waiters();
    }

    /// Waits for the next reading to send. It stays here until it is answered.
    pub async fn next(&self) -> Arc<HostReading> {
        loop {
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            if let Some(reading) = self.try_next() {
                return reading;
            }
            changed.await;
        }
    }

    /// The reading of a host has been answered, and those of it that were sent before.
    pub fn answered(&self, host_id: &str, read_at: Timestamp) {
        let mut queues = self.lock();
        let done = |reading: &Arc<HostReading>| reading.host.id == host_id && reading.read_at <= read_at;
        let gone: usize = queues.sent.iter().filter(|reading| done(reading)).map(weight).sum();
        queues.sent.retain(|reading| !done(reading));
        queues.weight -= gone;
        self.measure(&queues);
        drop(queues);
        self.changed.notify_waiters();
    }

    /// The connection is lost: what was sent and not answered is sent again.
    pub fn rewind(&self) {
        let mut queues = self.lock();
        while let Some(reading) = queues.sent.pop_back() {
            queues.waiting.push_front(reading);
        }
    }

    fn try_next(&self) -> Option<Arc<HostReading>> {
        let mut queues = self.lock();
        if queues.sent.len() >= UNANSWERED {
            return None;
        }
        let reading = queues.waiting.pop_front()?;
        queues.sent.push_back(Arc::clone(&reading));
        Some(reading)
    }

    fn measure(&self, queues: &Queues) {
        self.metrics.set_depth(queues.waiting.len() + queues.sent.len());
    }

    fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a reading counts towards the limit: its machines, and one for the host.
fn weight(reading: &Arc<HostReading>) -> usize {
    reading.vms.len() + 1
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use memharvest_services::Service;
    use memharvest_services::metrics::Metrics;

    use super::*;
    use crate::reading::{Host, HostMemory};

    fn reading(host: &str, second: i64) -> Arc<HostReading> {
        Arc::new(HostReading {
            host: Host { id: host.into(), ..Host::default() },
            read_at: at(second),
            interval: Duration::from_secs(5),
            memory: HostMemory::default(),
            vms: Vec::new(),
            traceparent: String::new(),
        })
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn outbox(limit: usize) -> (Outbox, Metrics) {
        let metrics = Metrics::new(&Service::new("memharvest-collector", "0")).unwrap();
        (Outbox::new(limit, metrics.queue("outbox")), metrics)
    }

    fn waiting(outbox: &Outbox) -> Vec<i64> {
        std::iter::from_fn(|| outbox.try_next()).map(|reading| reading.read_at.as_second()).collect()
    }

    #[test]
    fn the_oldest_make_room_and_are_counted() {
        let (outbox, metrics) = outbox(3);
        for second in 1..=5 {
            outbox.push(&[reading("a", second)]);
        }
        assert!(metrics.render().unwrap().contains("memharvest_queue_dropped_total{queue=\"outbox\"} 2"));
        assert!(metrics.render().unwrap().contains("memharvest_queue_depth{queue=\"outbox\"} 3"));
        assert_eq!(waiting(&outbox), [3, 4, 5]);
    }

    #[test]
    fn one_tick_is_kept_whatever_the_limit() {
        let (outbox, _) = outbox(1);
        outbox.push(&[reading("a", 1), reading("b", 1)]);
        outbox.push(&[reading("a", 2), reading("b", 2)]);
        assert_eq!(waiting(&outbox), [2, 2]);
    }

    #[test]
    fn what_was_not_answered_is_sent_again_in_order() {
        let (outbox, _) = outbox(100);
        for second in 1..=4 {
            outbox.push(&[reading("a", second)]);
        }
        outbox.push(&[reading("b", 1)]);
        assert_eq!(waiting(&outbox), [1, 2, 3, 4, 1]);
        outbox.answered("a", at(2));
        outbox.rewind();
        assert_eq!(waiting(&outbox), [3, 4, 1]);
        outbox.answered("a", at(4));
        outbox.answered("b", at(1));
        outbox.rewind();
        assert!(waiting(&outbox).is_empty());
    }

    #[tokio::test]
    async fn whoever_waits_is_woken() {
        let (outbox, _) = outbox(10);
        let pushed = outbox.clone();
        let (reading, ()) = tokio::join!(outbox.next(), async move { pushed.push(&[reading("a", 7)]) });
        assert_eq!(reading.read_at, at(7));
    }
}
