//! Sends what the state file holds to the registry, oldest first, until it is acknowledged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::violation_service_client::ViolationServiceClient;
use memharvest_proto::registry::v1::{RecordHarvestRequest, RecordViolationsRequest};
use memharvest_services::metrics::QueueMetrics;
use memharvest_services::rpc_client::{Backoff, RpcChannel, is_transient};
use rand::rngs::StdRng;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::state_file::{Pending, StateFile, StateFileError};

/// Requests merged into one call at most; a host's five minutes are one request.
const REQUESTS_A_CALL: u32 = 64;
/// Records merged into one call at most.
const RECORDS_A_CALL: usize = 5_000;

/// The sending side of the state file.
#[derive(Clone, Debug)]
pub struct Recorder {
    file: StateFile,
    wake: Arc<Notify>,
    violations: ViolationServiceClient<RpcChannel>,
    harvest: HarvestServiceClient<RpcChannel>,
    queue: QueueMetrics,
}

impl Recorder {
    /// A recorder that sends to `registry`.
    #[must_use]
    pub fn new(file: StateFile, registry: RpcChannel, queue: QueueMetrics) -> Self {
        let recorder = Self {
            file,
            wake: Arc::default(),
            violations: ViolationServiceClient::new(registry.clone()),
            harvest: HarvestServiceClient::new(registry),
            queue,
        };
        // An earlier process may have left some behind.
        recorder.show_depth();
        recorder
    }

    /// Stores requests durably; they are on their way when this returns.
    ///
    /// # Errors
    /// When the state file cannot be written.
    pub async fn append(&self, requests: &[Pending]) -> Result<(), StateFileError> {
        let dropped = self.file.append(requests).await?;
        self.queue.dropped(dropped);
        self.show_depth();
        self.wake.notify_one();
        Ok(())
    }

    /// Sends until told that nothing more comes, and once more then.
    pub async fn run(mut self, end: CancellationToken) {
        let mut pauses =
            Backoff::new(Duration::from_millis(100), Duration::from_secs(10), rand::make_rng::<StdRng>());
        loop {
            let ended = end.is_cancelled();
            let wait = match self.send_all().await {
                Ok(()) => None,
                Err(error) => {
                    let wait = pauses.next().unwrap_or_default();
                    tracing::warn!(%error, waiting = self.file.depth(), retry_in_seconds = wait.as_secs_f64(), "registry does not take records");
                    Some(wait)
                }
            };
            if ended {
                return;
            }
            match wait {
                None => {
                    pauses.reset();
                    tokio::select! { () = self.wake.notified() => {} () = end.cancelled() => {} }
                }
                Some(wait) => {
                    tokio::select! { () = tokio::time::sleep(wait) => {} () = end.cancelled() => {} }
                }
            }
        }
    }

    fn show_depth(&self) {
        self.queue.set_depth(usize::try_from(self.file.depth()).unwrap_or(usize::MAX));
    }

    async fn send_all(&mut self) -> Result<(), RecordError> {
        loop {
            let waiting = self.file.oldest(REQUESTS_A_CALL).await?;
            if waiting.is_empty() {
                return Ok(());
            }
            for batch in batches(waiting) {
                match self.send(&batch).await {
                    Ok(()) => self.file.acknowledge(&batch.ids).await?,
                    Err(status) if is_transient(&status) => return Err(status.into()),
                    Err(status) => self.send_one_by_one(batch, &status).await?,
                }
                self.show_depth();
            }
        }
    }

    /// One bad record must not hold up all others.
    async fn send_one_by_one(&mut self, batch: Batch, status: &Status) -> Result<(), RecordError> {
        if let [id] = batch.ids[..] {
            tracing::error!(id, %status, "registry refused a record; it is set aside in the state file");
            return Ok(self.file.set_aside(id, &status.to_string()).await?);
        }
        for (id, request) in batch.parts {
            let part = Batch::from((id, request));
            match self.send(&part).await {
                Ok(()) => self.file.acknowledge(&part.ids).await?,
                Err(status) if is_transient(&status) => return Err(status.into()),
                Err(status) => {
                    tracing::error!(id, %status, "registry refused a record; it is set aside in the state file");
                    self.file.set_aside(id, &status.to_string()).await?;
                }
            }
        }
        Ok(())
    }

    async fn send(&mut self, batch: &Batch) -> Result<(), Status> {
        match &batch.merged {
            Pending::Violations(request) => {
                self.violations.record_violations(request.clone()).await?;
            }
            Pending::Harvest(request) => {
                self.harvest.record_harvest(request.clone()).await?;
            }
        }
        Ok(())
    }
}

#[derive(Debug, thiserror::Error)]
enum RecordError {
    #[error(transparent)]
    File(#[from] StateFileError),
    #[error("{}: {}", .0.code(), .0.message())]
    Call(#[from] Status),
}

/// Requests of one kind that travel in one call.
#[derive(Debug)]
struct Batch {
    ids: Vec<i64>,
    merged: Pending,
    parts: Vec<(i64, Pending)>,
}

impl From<(i64, Pending)> for Batch {
    fn from((id, request): (i64, Pending)) -> Self {
        Self { ids: vec![id], merged: request.clone(), parts: vec![(id, request)] }
    }
}

/// Neighbours of one kind merged, order kept.
fn batches(waiting: Vec<(i64, Pending)>) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for (id, request) in waiting {
        if let Some(last) = batches.last_mut()
            && merge(&mut last.merged, &request)
        {
            last.ids.push(id);
            last.parts.push((id, request));
        } else {
            batches.push(Batch::from((id, request)));
        }
    }
    batches
}

fn merge(into: &mut Pending, from: &Pending) -> bool {
    match (into, from) {
        (Pending::Violations(into), Pending::Violations(from)) => merge_violations(into, from),
        (Pending::Harvest(into), Pending::Harvest(from)) => merge_harvest(into, from),
        _ => false,
    }
}

fn merge_violations(into: &mut RecordViolationsRequest, from: &RecordViolationsRequest) -> bool {
    let ids: BTreeSet<_> = into.violations.iter().map(|violation| &violation.violation_id).collect();
    // Two states of one episode travel in two calls, so that each call stands for itself.
    let fits = into.violations.len() + from.violations.len() <= RECORDS_A_CALL
        && !from.violations.iter().any(|violation| ids.contains(&violation.violation_id));
    if fits {
        into.violations.extend(from.violations.iter().cloned());
    }
    fits
}

fn merge_harvest(into: &mut RecordHarvestRequest, from: &RecordHarvestRequest) -> bool {
    let fits = into.vms.len() + from.vms.len() <= RECORDS_A_CALL;
    if fits {
        into.vms.extend(from.vms.iter().cloned());
        into.hosts.extend(from.hosts.iter().cloned());
        into.harvests.extend(from.harvests.iter().cloned());
        into.coverage.extend(from.coverage.iter().cloned());
        into.traceparent.clone_from(&from.traceparent);
    }
    fits
}

#[cfg(test)]
mod tests {
    use super::*;
    use memharvest_proto::registry::v1::{HostHarvest, Violation};

    fn violation(id: &str) -> Pending {
        let violations = vec![Violation { violation_id: id.into(), ..Violation::default() }];
        Pending::Violations(RecordViolationsRequest { predictor_id: "p".into(), violations })
    }

    fn harvest() -> Pending {
        let harvests = vec![HostHarvest::default()];
        Pending::Harvest(RecordHarvestRequest { harvests, ..RecordHarvestRequest::default() })
    }

    #[test]
    fn neighbours_of_a_kind_travel_together_and_order_is_kept() {
        let waiting = vec![
            (1, violation("a")),
            (2, violation("b")),
            (3, violation("a")),
            (4, harvest()),
            (5, harvest()),
        ];
        let ids: Vec<_> = batches(waiting).into_iter().map(|batch| batch.ids).collect();
        assert_eq!(ids, [vec![1, 2], vec![3], vec![4, 5]]);
    }
}
