//! `/leases`: harvested memory that is spent.

use axum::Json;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use memharvest_proto::registry::v1 as wire;
use memharvest_services::proto_time::duration_to_proto;
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};
use utoipa::ToSchema;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::author::{AUTHOR_HEADER, author_of};
use super::body::JsonBody;
use super::problem::Problem;
use super::query::{Page, Query};
use super::text;
use super::words::{LeaseState, Span};
use super::{App, Problems};
use crate::access::CALLER_HEADER;
use crate::wire::time;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_leases, reserve_memory))
        .routes(routes!(renew_lease, release_lease))
}

/// Bytes of a host's harvest that are spent.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Lease {
    id: String,
    /// The host.
    host: String,
    /// The machine that uses the memory; null: not named.
    consumer_vm: Option<String>,
    /// How much.
    bytes: u64,
    /// Where it stands.
    state: Option<LeaseState>,
    /// Who holds it.
    holder: String,
    /// When it runs out, by the store's clock.
    expires_at: Option<Timestamp>,
    /// The key that it was reserved with.
    idempotency_key: Option<String>,
    created_at: Option<Timestamp>,
    /// What it still holds back: bytes minus the consumer's resident set, never below 0.
    held_back_bytes: u64,
    /// Why it is or was revoked.
    revoke_reason: Option<String>,
    /// When the notice ends.
    revoke_at: Option<Timestamp>,
    /// When it ended; null: it holds.
    ended_at: Option<Timestamp>,
}

impl From<wire::Lease> for Lease {
    fn from(lease: wire::Lease) -> Self {
        Self {
            id: lease.lease_id,
            host: lease.host_id,
            consumer_vm: text(&lease.consumer_vm_id),
            bytes: lease.bytes,
            state: LeaseState::of(lease.state),
            holder: lease.holder,
            expires_at: time(lease.expires_at.as_ref()),
            idempotency_key: text(&lease.idempotency_key),
            created_at: time(lease.created_at.as_ref()),
            held_back_bytes: lease.held_back_bytes,
            revoke_reason: text(&lease.revoke_reason),
            revoke_at: time(lease.revoke_at.as_ref()),
            ended_at: time(lease.ended_at.as_ref()),
        }
    }
}

/// A page of leases.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LeaseList {
    /// The leases, newest first.
    leases: Vec<Lease>,
    /// Empty: this was the last page.
    next_page_token: String,
}

/// Memory to reserve.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Reservation {
    /// The host.
    host: String,
    /// How much.
    #[schema(minimum = 1)]
    bytes: u64,
    /// For how long, from 1s to 30 days; null: 15m.
    ttl: Option<Span>,
    /// Who holds it.
    holder: String,
    /// The same key is the same lease; null: a retry is another lease.
    idempotency_key: Option<String>,
    /// The machine that will use it.
    consumer_vm: Option<String>,
}

/// A lease to extend.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Renewal {
    /// From now for this long, from 1s to 30 days; null: 15m.
    ttl: Option<Span>,
    /// Who holds it; null: not compared.
    holder: Option<String>,
    /// Names the consumer where it was not known before.
    consumer_vm: Option<String>,
}

/// Leases, newest first
#[utoipa::path(get, path = "/leases", tag = "leases",
    params(
        Page,
        ("host" = Option<String>, Query, description = "Only on this host"),
        ("state" = Option<LeaseState>, Query, description = "Only in this state"),
    ),
    responses((status = 200, description = "As asked", body = LeaseList), Problems))]
async fn list_leases(State(app): State<App>, mut query: Query) -> Result<Json<LeaseList>, Problem> {
    let page = query.page();
    let state: Option<LeaseState> = query.one("state");
    let request = wire::ListLeasesRequest {
        page_size: page.wire_size(),
        page_token: page.token,
        host_id: query.one("host").unwrap_or_default(),
        state: state.map_or(0, |state| state.wire().into()),
    };
    query.finish()?;
    let found = app.upstream.leases().list_leases(request).await?.into_inner();
    let leases = found.leases.into_iter().map(Lease::from).collect();
    Ok(Json(LeaseList { leases, next_page_token: found.next_page_token }))
}

/// Reserves memory on a host
///
/// 409 where its harvest does not suffice or it takes no lease now, and where the key was used for another request.
#[utoipa::path(post, path = "/leases", tag = "leases", request_body = Reservation,
    params(("x-memharvest-author" = Option<String>, Header, description = "Who reserves it; its holder by default")),
    responses((status = 201, description = "It is made", body = Lease), Problems))]
async fn reserve_memory(
    State(app): State<App>,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Reservation>,
) -> Result<(StatusCode, Json<Lease>), Problem> {
    query.finish()?;
    let request = wire::ReserveMemoryRequest {
        author: author_for(&headers, &body.holder)?,
        host_id: body.host,
        bytes: body.bytes,
        ttl: body.ttl.map(|Span(ttl)| duration_to_proto(ttl)),
        holder: body.holder,
        idempotency_key: body.idempotency_key.unwrap_or_default(),
        consumer_vm_id: body.consumer_vm.unwrap_or_default(),
    };
    let made = app.upstream.leases().reserve_memory(request).await.map_err(conflict)?;
    Ok((StatusCode::CREATED, answer(made.into_inner().lease)?))
}

/// Extends a lease
#[utoipa::path(patch, path = "/leases/{id}", tag = "leases",
    params(
        ("id" = String, Path, description = "Identity of the lease"),
        ("x-memharvest-author" = Option<String>, Header, description = "Who extends it; its holder by default"),
    ),
    request_body = Renewal, responses((status = 200, description = "As asked", body = Lease), Problems))]
async fn renew_lease(
    State(app): State<App>,
    Path(id): Path<String>,
    query: Query,
    headers: HeaderMap,
    JsonBody(body): JsonBody<Renewal>,
) -> Result<Json<Lease>, Problem> {
    query.finish()?;
    let holder = body.holder.unwrap_or_default();
    let request = wire::RenewLeaseRequest {
        lease_id: id,
        ttl: body.ttl.map(|Span(ttl)| duration_to_proto(ttl)),
        author: author_for(&headers, &holder)?,
        holder,
        consumer_vm_id: body.consumer_vm.unwrap_or_default(),
    };
    answer(app.upstream.leases().renew_lease(request).await.map_err(conflict)?.into_inner().lease)
}

/// Gives a lease back
#[utoipa::path(delete, path = "/leases/{id}", tag = "leases",
    params(
        ("id" = String, Path, description = "Identity of the lease"),
        ("holder" = Option<String>, Query, description = "Who holds it; by default not compared"),
        ("reason" = Option<String>, Query, description = "Why"),
        ("x-memharvest-author" = Option<String>, Header, description = "Who gives it back; its holder by default"),
    ),
    responses((status = 204, description = "It is given back"), Problems))]
async fn release_lease(
    State(app): State<App>,
    Path(id): Path<String>,
    mut query: Query,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    let holder: String = query.one("holder").unwrap_or_default();
    let reason = query.one("reason").unwrap_or_default();
    query.finish()?;
    let author = author_for(&headers, &holder)?;
    let request = wire::ReleaseLeaseRequest { lease_id: id, holder, author, reason };
    app.upstream.leases().release_lease(request).await.map_err(conflict)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Who is written down for a change of a lease: the caller who is known or names himself, whatever holder he gives; of others it is
/// the holder's.
fn author_for(headers: &HeaderMap, holder: &str) -> Result<String, Problem> {
    let known = headers.contains_key(CALLER_HEADER) || headers.contains_key(AUTHOR_HEADER);
    if known || holder.is_empty() { author_of(headers, None) } else { Ok(String::new()) }
}

/// A host that has nothing left or takes no lease now, and a lease that is over, are conflicts with the state of things: 409.
fn conflict(status: Status) -> Problem {
    match status.code() {
        Code::FailedPrecondition | Code::ResourceExhausted => {
            Problem::new(StatusCode::CONFLICT, status.message())
        }
        _ => status.into(),
    }
}

fn answer(lease: Option<wire::Lease>) -> Result<Json<Lease>, Problem> {
    let lease = lease.ok_or_else(|| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the registry answered without a lease")
    })?;
    Ok(Json(lease.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_who_is_known_is_the_author_whatever_holder_he_gives() {
        let mut headers = HeaderMap::new();
        assert_eq!(author_for(&headers, "bob").unwrap(), "", "the holder's, as the registry knows him");
        assert_eq!(author_for(&headers, "").unwrap(), "anonymous");
        headers.insert(AUTHOR_HEADER, "cat".parse().unwrap());
        assert_eq!(author_for(&headers, "bob").unwrap(), "cat");
        headers.insert(CALLER_HEADER, "ann".parse().unwrap());
        assert_eq!(author_for(&headers, "bob").unwrap(), "ann");
    }
}
