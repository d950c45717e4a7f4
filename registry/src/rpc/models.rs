//! `ModelService`: what predictors have learned.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use memharvest_proto::registry::v1::model_service_server::ModelService;
use memharvest_proto::registry::v1::{
    GetSnapshotsRequest, GetSnapshotsResponse, ModelSnapshot, PutSnapshotsRequest, PutSnapshotsResponse,
};
use memharvest_services::rpc_error::invalid_field;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use crate::check::{Check, MAX_TEXT};
use crate::snapshot;
use crate::store::Store;

/// Most snapshots of one request, and most machines that one may name.
const MAX_SNAPSHOTS: usize = 2000;

/// Largest state, in bytes.
const MAX_STATE: usize = 1 << 20;

/// Fields that are wrong are told up to here.
const MAX_WRONG: usize = 20;

/// Machines read at once.
const AT_ONCE: usize = 32;

/// Serves snapshots from a store.
#[derive(Debug)]
pub struct ModelRpc<S> {
    store: Arc<S>,
}

impl<S: Store> ModelRpc<S> {
    /// Serves the snapshots of `store`.
    pub fn new(store: Arc<S>) -> Self {
        Self { store }
    }
}

fn check_snapshot(check: &mut Check, snapshot: &ModelSnapshot) {
    check.vm("vm_id", &snapshot.vm_id);
    check.id("host_id", &snapshot.host_id);
    check.that(!snapshot.model_version.is_empty(), "model_version", "must be given");
    check.text("model_version", &snapshot.model_version, MAX_TEXT);
    check.instant("taken_at", snapshot.taken_at.as_ref());
    check.that((1..=MAX_STATE).contains(&snapshot.state.len()), "state", "must be from 1 byte to 1 MiB");
    check.that(
        snapshot.state.len() > MAX_STATE || snapshot::checksum(&snapshot.state) == snapshot.checksum[..],
        "checksum",
        "must be the SHA-256 of the state: it was damaged on its way",
    );
}

/// What is still to be read.
enum Rest {
    OfHost { host_id: String, after: Option<Uuid> },
    Named(VecDeque<Uuid>),
}

struct Reading<S> {
    store: Arc<S>,
    rest: Rest,
}

impl<S: Store> Reading<S> {
    async fn next(mut self) -> Result<Option<(GetSnapshotsResponse, Self)>, Status> {
        loop {
            let snapshots = match &mut self.rest {
                Rest::OfHost { host_id, after } => {
                    let limit = u32::try_from(AT_ONCE).unwrap_or(u32::MAX);
                    let found = self.store.snapshots_of_host(host_id, *after, limit).await?;
                    let Some(last) = found.last() else { return Ok(None) };
                    *after = Uuid::try_parse(&last.vm_id).ok();
                    found
                }
                Rest::Named(vms) if vms.is_empty() => return Ok(None),
                Rest::Named(vms) => {
                    let some: Vec<Uuid> = vms.drain(..vms.len().min(AT_ONCE)).collect();
                    self.store.snapshots_of(&some).await?
                }
            };
            if !snapshots.is_empty() {
                return Ok(Some((GetSnapshotsResponse { snapshots }, self)));
            }
        }
    }
}

#[tonic::async_trait]
impl<S: Store> ModelService for ModelRpc<S> {
    async fn put_snapshots(
        &self,
        request: Request<PutSnapshotsRequest>,
    ) -> Result<Response<PutSnapshotsResponse>, Status> {
        let snapshots = request.into_inner().snapshots;
        let mut check = Check::default();
        check.that(
            snapshots.len() <= MAX_SNAPSHOTS,
            "snapshots",
            "must be at most 2000 in one request; send them in parts",
        );
        for (i, snapshot) in snapshots.iter().take(MAX_SNAPSHOTS).enumerate() {
            if check.wrong.as_slice().len() >= MAX_WRONG {
                break;
            }
            check.nested(|| format!("snapshots[{i}]"), |own| check_snapshot(own, snapshot));
        }
        check.done()?;
        let passed_over_vm_ids = self.store.put_snapshots(&snapshots).await?;
        let stored = (snapshots.len() - passed_over_vm_ids.len()) as u64;
        Ok(Response::new(PutSnapshotsResponse { stored, passed_over_vm_ids }))
    }

    type GetSnapshotsStream = BoxStream<'static, Result<GetSnapshotsResponse, Status>>;

    async fn get_snapshots(
        &self,
        request: Request<GetSnapshotsRequest>,
    ) -> Result<Response<Self::GetSnapshotsStream>, Status> {
        let request = request.into_inner();
        let rest = if request.host_id.is_empty() {
            if request.vm_ids.is_empty() {
                return Err(invalid_field("host_id", "or vm_ids must be given"));
            }
            let mut check = Check::default();
            check.that(request.vm_ids.len() <= MAX_SNAPSHOTS, "vm_ids", "must be at most 2000; ask in parts");
            let mut vms = VecDeque::new();
            for (i, vm_id) in request.vm_ids.iter().take(MAX_SNAPSHOTS).enumerate() {
                vms.extend(check.vm(&format!("vm_ids[{i}]"), vm_id));
            }
            check.done()?;
            Rest::Named(vms)
        } else {
            let mut check = Check::default();
            check.id("host_id", &request.host_id);
            check.that(request.vm_ids.is_empty(), "vm_ids", "must be empty where a host is named");
            check.done()?;
            Rest::OfHost { host_id: request.host_id, after: None }
        };
        let reading = Reading { store: Arc::clone(&self.store), rest };
        Ok(Response::new(stream::try_unfold(reading, Reading::next).boxed()))
    }
}
