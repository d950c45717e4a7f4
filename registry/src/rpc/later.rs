//! Services of the contract that this version does not have yet. They are registered so that callers hear what is missing.

use futures::stream::BoxStream;
use memharvest_proto::registry::v1::lease_service_server::LeaseService;
use memharvest_proto::registry::v1::model_service_server::ModelService;
use memharvest_proto::registry::v1::token_service_server::TokenService;
use memharvest_proto::registry::v1::{
    CreateTokenRequest, CreateTokenResponse, GetSnapshotsRequest, GetSnapshotsResponse, ListLeasesRequest,
    ListLeasesResponse, ListTokensRequest, ListTokensResponse, PutSnapshotsRequest, PutSnapshotsResponse,
    ReleaseLeaseRequest, ReleaseLeaseResponse, RenewLeaseRequest, RenewLeaseResponse, ReserveMemoryRequest,
    ReserveMemoryResponse, RevokeTokenRequest, RevokeTokenResponse, WatchLeasesRequest, WatchLeasesResponse,
};
use memharvest_services::rpc_error::ErrorCode;
use tonic::{Request, Response, Status};

const NO_LEASES: &str = "this version of the registry keeps no leases yet";
const NO_SNAPSHOTS: &str =
    "this version of the registry keeps no model snapshots yet: a predictor warms up by itself";
const NO_TOKENS: &str =
    "this version of the registry keeps no tokens yet: listen on loopback, or protect the network";

/// Leases, snapshots and tokens: not yet.
#[derive(Clone, Copy, Debug)]
pub struct Later;

macro_rules! later {
    ($($method:ident($request:ty) -> $response:ty: $message:expr;)*) => {$(
        fn $method<'life0, 'async_trait>(
            &'life0 self,
            _request: Request<$request>,
        ) -> std::pin::Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(ErrorCode::Unimplemented.status($message)) })
        }
    )*};
}

impl LeaseService for Later {
    later! {
        reserve_memory(ReserveMemoryRequest) -> ReserveMemoryResponse: NO_LEASES;
        renew_lease(RenewLeaseRequest) -> RenewLeaseResponse: NO_LEASES;
        release_lease(ReleaseLeaseRequest) -> ReleaseLeaseResponse: NO_LEASES;
        list_leases(ListLeasesRequest) -> ListLeasesResponse: NO_LEASES;
        watch_leases(WatchLeasesRequest) -> Self::WatchLeasesStream: NO_LEASES;
    }

    type WatchLeasesStream = BoxStream<'static, Result<WatchLeasesResponse, Status>>;
}

impl ModelService for Later {
    later! {
        put_snapshots(PutSnapshotsRequest) -> PutSnapshotsResponse: NO_SNAPSHOTS;
        get_snapshots(GetSnapshotsRequest) -> Self::GetSnapshotsStream: NO_SNAPSHOTS;
    }

    type GetSnapshotsStream = BoxStream<'static, Result<GetSnapshotsResponse, Status>>;
}

impl TokenService for Later {
    later! {
        create_token(CreateTokenRequest) -> CreateTokenResponse: NO_TOKENS;
        list_tokens(ListTokensRequest) -> ListTokensResponse: NO_TOKENS;
        revoke_token(RevokeTokenRequest) -> RevokeTokenResponse: NO_TOKENS;
    }
}
