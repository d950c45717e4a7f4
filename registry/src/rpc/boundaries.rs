//! `BoundaryService`: what operators allow.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};
use memharvest_proto::registry::v1::boundary_service_server::BoundaryService;
use memharvest_proto::registry::v1::{
    BoundaryValues, DeleteBoundaryRequest, DeleteBoundaryResponse, GetBoundaryRequest, GetBoundaryResponse,
    GetEffectiveBoundaryRequest, GetEffectiveBoundaryResponse, ListBoundariesRequest, ListBoundariesResponse,
    ListBoundaryVersionsRequest, ListBoundaryVersionsResponse, SetBoundaryRequest, SetBoundaryResponse,
    WatchBoundariesRequest, WatchBoundariesResponse,
};
use memharvest_services::rpc_error::invalid_field;
use tokio::sync::watch;
use tonic::{Request, Response, Status};

use super::{CHANGES, changed, now_ns};
use crate::boundary;
use crate::check::{Check, MAX_TEXT};
use crate::page::Page;
use crate::scope::{self, Scope};
use crate::store::{Store, StoreError};

/// Serves boundaries from a store.
#[derive(Debug)]
pub struct BoundaryRpc<S> {
    store: Arc<S>,
}

impl<S: Store> BoundaryRpc<S> {
    /// Serves the boundaries of `store`.
    pub fn new(store: Arc<S>) -> Self {
        Self { store }
    }

    /// The scopes that speak for `scope`, most specific first.
    async fn layers(&self, scope: &Scope, host_id: &str) -> Result<Vec<Scope>, StoreError> {
        let host = match scope {
            Scope::Fleet => None,
            Scope::Group { .. } => return Ok(vec![scope.clone(), Scope::Fleet]),
            Scope::Host(host) => Some(host.clone()),
            Scope::Vm(_) if !host_id.is_empty() => Some(host_id.to_owned()),
            Scope::Vm(vm) => self.store.host_of(*vm).await?,
        };
        let labels = match &host {
            None => BTreeMap::new(),
            Some(host) => match self.store.agent(host).await {
                Ok(stored) => stored.agent.labels,
                Err(StoreError::NotFound(_)) => BTreeMap::new(),
                Err(error) => return Err(error),
            },
        };
        let vm = if let Scope::Vm(vm) = scope { Some(*vm) } else { None };
        Ok(scope::layers(vm, host.as_deref(), &labels))
    }
}

fn parse(scope: &str) -> Result<Scope, Status> {
    scope.parse().map_err(|error: scope::ScopeError| invalid_field("scope", error.to_string()))
}

/// Notes a scope that is none; the rest of the request is still looked at.
fn check_scope(check: &mut Check, scope: &str) -> Option<Scope> {
    scope.parse().map_err(|error: scope::ScopeError| check.wrong.add("scope", error.to_string())).ok()
}

/// One watch: what it has to send, and from where it reads on.
struct Watch<S> {
    store: Arc<S>,
    hint: watch::Receiver<u64>,
    ready: VecDeque<WatchBoundariesResponse>,
    after: u64,
    snapshot_complete: bool,
}

impl<S: Store> Watch<S> {
    /// Reads the next changes, or waits for some. Every version is read from the store by its revision, so that none can be missed
    /// however late the hint comes.
    async fn read_on(&mut self) -> Result<(), StoreError> {
        self.hint.borrow_and_update();
        let changes = self.store.boundary_changes(self.after, CHANGES).await?;
        for (revision, boundary) in changes {
            self.after = revision;
            self.ready.push_back(WatchBoundariesResponse {
                boundary: Some(boundary),
                revision,
                snapshot_complete: false,
            });
        }
        if !self.ready.is_empty() {
            return Ok(());
        }
        if self.snapshot_complete {
            changed(&mut self.hint).await;
        } else {
            self.snapshot_complete = true;
            self.ready.push_back(WatchBoundariesResponse {
                boundary: None,
                revision: self.after,
                snapshot_complete: true,
            });
        }
        Ok(())
    }

    async fn next(mut self) -> Result<Option<(WatchBoundariesResponse, Self)>, Status> {
        loop {
            if let Some(response) = self.ready.pop_front() {
                return Ok(Some((response, self)));
            }
            self.read_on().await?;
        }
    }
}

#[tonic::async_trait]
impl<S: Store> BoundaryService for BoundaryRpc<S> {
    async fn get_boundary(
        &self,
        request: Request<GetBoundaryRequest>,
    ) -> Result<Response<GetBoundaryResponse>, Status> {
        let scope = parse(&request.into_inner().scope)?;
        let boundary = self.store.boundary(&scope).await?;
        Ok(Response::new(GetBoundaryResponse { boundary: Some(boundary) }))
    }

    async fn list_boundaries(
        &self,
        request: Request<ListBoundariesRequest>,
    ) -> Result<Response<ListBoundariesResponse>, Status> {
        let request = request.into_inner();
        let page = Page::of("boundaries".to_owned(), request.page_size, &request.page_token)?;
        let after = page.cursor.clone().unwrap_or_default();
        let mut boundaries = self.store.boundaries(&after, page.limit()).await?;
        let next_page_token = page.cut(&mut boundaries, |boundary| boundary.scope.clone());
        Ok(Response::new(ListBoundariesResponse { boundaries, next_page_token }))
    }

    async fn set_boundary(
        &self,
        request: Request<SetBoundaryRequest>,
    ) -> Result<Response<SetBoundaryResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        let scope = check_scope(&mut check, &request.scope);
        check.that(request.values.is_some(), "values", "must be given");
        check.text("etag", &request.etag, MAX_TEXT);
        let values = request.values.unwrap_or_default();
        boundary::check(&values, &mut check.wrong);
        if let Some(scope) = &scope {
            boundary::check_at(scope, &values, &mut check.wrong);
        }
        let change = check.change(&request.author, &request.reason, now_ns());
        check.done()?;
        let scope = scope.map_or_else(|| parse(&request.scope), Ok)?;
        let boundary = self.store.set_boundary(&scope, &values, &request.etag, &change).await?;
        Ok(Response::new(SetBoundaryResponse { boundary: Some(boundary) }))
    }

    async fn delete_boundary(
        &self,
        request: Request<DeleteBoundaryRequest>,
    ) -> Result<Response<DeleteBoundaryResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        let scope = check_scope(&mut check, &request.scope);
        check.text("etag", &request.etag, MAX_TEXT);
        let change = check.change(&request.author, &request.reason, now_ns());
        check.done()?;
        let scope = scope.map_or_else(|| parse(&request.scope), Ok)?;
        let boundary = self.store.delete_boundary(&scope, &request.etag, &change).await?;
        Ok(Response::new(DeleteBoundaryResponse { boundary: Some(boundary) }))
    }

    async fn get_effective_boundary(
        &self,
        request: Request<GetEffectiveBoundaryRequest>,
    ) -> Result<Response<GetEffectiveBoundaryResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        let scope = check_scope(&mut check, &request.scope);
        check.id_or_empty("host_id", &request.host_id);
        check.done()?;
        let scope = scope.map_or_else(|| parse(&request.scope), Ok)?;
        let layers = self.layers(&scope, &request.host_id).await?;
        let (values, sources) = boundary::effective(&self.store.boundaries_at(&layers).await?);
        let scope = scope.to_string();
        Ok(Response::new(GetEffectiveBoundaryResponse { scope, values: Some(values), sources }))
    }

    async fn list_boundary_versions(
        &self,
        request: Request<ListBoundaryVersionsRequest>,
    ) -> Result<Response<ListBoundaryVersionsResponse>, Status> {
        let request = request.into_inner();
        let scope = parse(&request.scope)?;
        let page = Page::of(format!("versions {scope}"), request.page_size, &request.page_token)?;
        let before = page.cursor_as()?.unwrap_or(u64::MAX);
        let mut boundaries = self.store.boundary_versions(&scope, before, page.limit()).await?;
        // The record beyond the page is the version before its last one.
        let before: Vec<Option<BoundaryValues>> =
            boundaries.iter().skip(1).map(|boundary| boundary.values).chain([None]).collect();
        for (boundary, before) in boundaries.iter_mut().zip(&before) {
            let diff = boundary::diff(before.as_ref(), &boundary.values.unwrap_or_default());
            boundary.diff = diff.map_err(|error| StoreError::Failed(Box::new(error)))?;
        }
        let next_page_token = page.cut(&mut boundaries, |boundary| boundary.version.to_string());
        Ok(Response::new(ListBoundaryVersionsResponse { boundaries, next_page_token }))
    }

    type WatchBoundariesStream = BoxStream<'static, Result<WatchBoundariesResponse, Status>>;

    async fn watch_boundaries(
        &self,
        request: Request<WatchBoundariesRequest>,
    ) -> Result<Response<Self::WatchBoundariesStream>, Status> {
        let after = request.into_inner().after_revision;
        let hint = self.store.boundary_revision();
        let (revision, boundaries) = self.store.boundary_snapshot().await?;
        if after > revision {
            let message = format!(
                "is ahead of this registry, which is at {revision}; watch from 0 and replace what you hold"
            );
            return Err(invalid_field("after_revision", message));
        }
        let mut watch = Watch {
            store: Arc::clone(&self.store),
            hint,
            ready: VecDeque::new(),
            after,
            snapshot_complete: false,
        };
        if after == 0 {
            // No revision yet: a caller that loses the stream before the mark must begin anew.
            let snapshot = boundaries.into_iter().map(|boundary| WatchBoundariesResponse {
                boundary: Some(boundary),
                revision: 0,
                snapshot_complete: false,
            });
            watch.ready.extend(snapshot);
            watch.ready.push_back(WatchBoundariesResponse {
                boundary: None,
                revision,
                snapshot_complete: true,
            });
            watch.snapshot_complete = true;
            watch.after = revision;
        }
        Ok(Response::new(stream::try_unfold(watch, Watch::next).boxed()))
    }
}
