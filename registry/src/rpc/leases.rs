//! `LeaseService`: how a scheduler spends harvested memory.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use jiff::Timestamp;
use memharvest_proto::registry::v1::lease_service_server::LeaseService;
use memharvest_proto::registry::v1::{
    LeaseState, ListLeasesRequest, ListLeasesResponse, ReleaseLeaseRequest, ReleaseLeaseResponse,
    RenewLeaseRequest, RenewLeaseResponse, ReserveMemoryRequest, ReserveMemoryResponse, WatchLeasesRequest,
    WatchLeasesResponse,
};
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::rpc_error::invalid_field;
use tokio::sync::watch;
use tonic::{Request, Response, Status};
use uuid::Uuid;

use super::{CHANGES, changed};
use crate::check::{Check, MAX_BYTES, MAX_TEXT};
use crate::lease::{self, LONGEST_TTL_S, Moment, Reservation, USUAL_TTL_NS};
use crate::page::Page;
use crate::store::{LeaseFilter, Store, StoreError};
use crate::time::now_to_ns;

/// Longest holder and idempotency key, in bytes.
const MAX_NAME: usize = 128;

/// Serves leases from a store.
#[derive(Debug)]
pub struct LeaseRpc<S> {
    store: Arc<S>,
    clock: MeshClock,
}

async fn moment(store: &impl Store, clock: MeshClock) -> Result<Moment, StoreError> {
    Ok(Moment { store_ns: store.clock_ns().await?, mesh_ns: now_to_ns(clock.mesh_of(Timestamp::now())) })
}

impl<S: Store> LeaseRpc<S> {
    /// `clock` is what harvest runs on; leases run on the store's own.
    pub fn new(store: Arc<S>, clock: MeshClock) -> Self {
        Self { store, clock }
    }

    async fn now(&self) -> Result<Moment, StoreError> {
        moment(self.store.as_ref(), self.clock).await
    }
}

fn check_lease_id(check: &mut Check, lease_id: &str) {
    check.that(!lease_id.is_empty(), "lease_id", "must be given");
    check.text("lease_id", lease_id, MAX_NAME);
}

fn check_ttl(check: &mut Check, ttl: Option<&prost_types::Duration>) -> i64 {
    check.duration_or_none("ttl", ttl, 1, LONGEST_TTL_S).unwrap_or(USUAL_TTL_NS)
}

fn check_consumer(check: &mut Check, vm_id: &str) -> Option<Uuid> {
    if vm_id.is_empty() { None } else { check.vm("consumer_vm_id", vm_id) }
}

/// Who makes a change: its holder, where nobody else is named.
fn author<'a>(author: &'a str, holder: &'a str) -> &'a str {
    if author.is_empty() { holder } else { author }
}

fn check_reservation(request: &ReserveMemoryRequest) -> Result<Reservation, Status> {
    let mut check = Check::default();
    check.id("host_id", &request.host_id);
    check.that((1..=MAX_BYTES).contains(&request.bytes), "bytes", "must be from 1 byte to 1 EiB");
    let ttl_ns = check_ttl(&mut check, request.ttl.as_ref());
    check.that(!request.holder.is_empty(), "holder", "must be given: who reserves");
    check.text("holder", &request.holder, MAX_NAME);
    check.text("author", &request.author, MAX_NAME);
    check.text("idempotency_key", &request.idempotency_key, MAX_NAME);
    let consumer = check_consumer(&mut check, &request.consumer_vm_id);
    check.done()?;
    Ok(Reservation {
        lease_id: Uuid::now_v7().to_string(),
        host_id: request.host_id.clone(),
        bytes: request.bytes,
        ttl_ns,
        holder: request.holder.clone(),
        author: author(&request.author, &request.holder).to_owned(),
        idempotency_key: request.idempotency_key.clone(),
        consumer,
    })
}

/// One watch: what it has to send, and from where it reads on.
struct Watch<S> {
    store: Arc<S>,
    clock: MeshClock,
    hint: watch::Receiver<u64>,
    ready: VecDeque<WatchLeasesResponse>,
    after: u64,
    host_id: String,
}

impl<S: Store> Watch<S> {
    /// Reads the next changes, or waits for some. They are read by their place in the sequence of changes, so that none can be missed.
    async fn read_on(&mut self) -> Result<(), StoreError> {
        self.hint.borrow_and_update();
        let now = moment(self.store.as_ref(), self.clock).await?;
        let changes = self.store.lease_changes(self.after, CHANGES, now).await?;
        if changes.is_empty() {
            changed(&mut self.hint).await;
        }
        for (revision, lease) in changes {
            self.after = revision;
            if self.host_id.is_empty() || self.host_id == lease.host_id {
                self.ready.push_back(WatchLeasesResponse {
                    lease: Some(lease),
                    revision,
                    snapshot_complete: false,
                });
            }
        }
        Ok(())
    }

    async fn next(mut self) -> Result<Option<(WatchLeasesResponse, Self)>, Status> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(Some((response, self)));
            }
            self.read_on().await?;
        }
    }
}

#[tonic::async_trait]
impl<S: Store> LeaseService for LeaseRpc<S> {
    async fn reserve_memory(
        &self,
        request: Request<ReserveMemoryRequest>,
    ) -> Result<Response<ReserveMemoryResponse>, Status> {
        let reservation = check_reservation(&request.into_inner())?;
        let lease = self.store.reserve(&reservation, self.now().await?).await?;
        Ok(Response::new(ReserveMemoryResponse { lease: Some(lease) }))
    }

    async fn renew_lease(
        &self,
        request: Request<RenewLeaseRequest>,
    ) -> Result<Response<RenewLeaseResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check_lease_id(&mut check, &request.lease_id);
        check.text("holder", &request.holder, MAX_TEXT);
        let ttl_ns = check_ttl(&mut check, request.ttl.as_ref());
        let consumer = check_consumer(&mut check, &request.consumer_vm_id);
        let now = self.now().await?;
        let change = check.change(author(&request.author, &request.holder), "", now.store_ns);
        check.done()?;
        let lease = self
            .store
            .change_lease(&request.lease_id, now, "lease.renew", &change, |lease| {
                lease::renewed(lease, &request.holder, ttl_ns, consumer, now.store_ns).map(Some)
            })
            .await?;
        Ok(Response::new(RenewLeaseResponse { lease: Some(lease) }))
    }

    async fn release_lease(
        &self,
        request: Request<ReleaseLeaseRequest>,
    ) -> Result<Response<ReleaseLeaseResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check_lease_id(&mut check, &request.lease_id);
        check.text("holder", &request.holder, MAX_TEXT);
        let now = self.now().await?;
        let change = check.change(author(&request.author, &request.holder), &request.reason, now.store_ns);
        check.done()?;
        let lease = self
            .store
            .change_lease(&request.lease_id, now, "lease.release", &change, |lease| {
                lease::released(lease, &request.holder, now.store_ns)
            })
            .await?;
        Ok(Response::new(ReleaseLeaseResponse { lease: Some(lease) }))
    }

    async fn list_leases(
        &self,
        request: Request<ListLeasesRequest>,
    ) -> Result<Response<ListLeasesResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.id_or_empty("host_id", &request.host_id);
        let state = LeaseState::try_from(request.state).ok();
        check.that(state.is_some(), "state", "must be live, revoking, revoked, released or expired");
        check.done()?;
        let list = format!("leases {:?} {}", state, request.host_id);
        let page = Page::of(list, request.page_size, &request.page_token)?;
        let filter = LeaseFilter {
            host_id: request.host_id,
            state: state.filter(|state| *state != LeaseState::Unspecified),
            older_than: page.cursor_as()?,
        };
        let mut leases = self.store.leases(&filter, page.limit(), self.now().await?).await?;
        let next_page_token = page.cut(&mut leases, |(number, _)| number.to_string());
        let leases = leases.into_iter().map(|(_, lease)| lease).collect();
        Ok(Response::new(ListLeasesResponse { leases, next_page_token }))
    }

    type WatchLeasesStream = BoxStream<'static, Result<WatchLeasesResponse, Status>>;

    async fn watch_leases(
        &self,
        request: Request<WatchLeasesRequest>,
    ) -> Result<Response<Self::WatchLeasesStream>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        check.id_or_empty("host_id", &request.host_id);
        check.done()?;
        let hint = self.store.lease_sequence();
        let (revision, leases) = self.store.holding_leases(self.now().await?).await?;
        if request.after_revision > revision {
            let message = format!(
                "is ahead of this registry, which is at {revision}; watch with include_live and replace what you hold"
            );
            return Err(invalid_field("after_revision", message));
        }
        let resumes = request.after_revision > 0;
        let mut watch = Watch {
            store: Arc::clone(&self.store),
            clock: self.clock,
            hint,
            ready: VecDeque::new(),
            after: if resumes { request.after_revision } else { revision },
            host_id: request.host_id,
        };
        if request.include_live && !resumes {
            // No revision yet: a caller that loses the stream before the mark must begin anew.
            let fits = |host_id: &str| watch.host_id.is_empty() || watch.host_id == host_id;
            let live: VecDeque<_> = leases
                .into_iter()
                .filter(|lease| fits(&lease.host_id))
                .map(|lease| WatchLeasesResponse { lease: Some(lease), ..Default::default() })
                .collect();
            watch.ready = live;
            watch.ready.push_back(WatchLeasesResponse { lease: None, revision, snapshot_complete: true });
        }
        Ok(Response::new(stream::try_unfold(watch, Watch::next).boxed()))
    }
}
