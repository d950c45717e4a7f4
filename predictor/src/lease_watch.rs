//! Follows the registry's leases: a machine that uses leased memory is not harvested again while its lease holds.

use std::sync::Arc;
use std::time::Duration;

use memharvest_proto::registry::v1::WatchLeasesRequest;
use memharvest_proto::registry::v1::lease_service_client::LeaseServiceClient;
use memharvest_services::rpc_client::{Backoff, RpcChannel};
use memharvest_services::shutdown::Stop;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tonic::Status;

use crate::lease_set::LeaseSet;

/// Follows the registry until told to stop. Every connection begins with all leases that hold, so nothing is missed.
pub async fn run(registry: RpcChannel, known: watch::Sender<Arc<LeaseSet>>, stop: Stop) {
    let mut client = LeaseServiceClient::new(registry);
    let mut pauses =
        Backoff::new(Duration::from_millis(100), Duration::from_secs(10), rand::make_rng::<StdRng>());
    loop {
        let followed = tokio::select! {
            followed = follow(&mut client, &known, &mut pauses) => followed,
            () = stop.requested() => return,
        };
        let wait = pauses.next().unwrap_or_default();
        if let Err(status) = followed {
            tracing::warn!(
                code = %status.code(),
                retry_in_seconds = wait.as_secs_f64(),
                "leases cannot be followed: {}; the last ones known hold",
                status.message()
            );
        }
        tokio::select! { () = tokio::time::sleep(wait) => {} () = stop.requested() => return }
    }
}

async fn follow(
    client: &mut LeaseServiceClient<RpcChannel>,
    known: &watch::Sender<Arc<LeaseSet>>,
    pauses: &mut Backoff<StdRng>,
) -> Result<(), Status> {
    let request = WatchLeasesRequest { include_live: true, ..WatchLeasesRequest::default() };
    let mut events = client.watch_leases(request).await?.into_inner();
    let mut snapshot = Some(LeaseSet::complete());
    while let Some(event) = events.message().await? {
        let Some(mut set) = snapshot.take() else {
            if let Some(lease) = &event.lease {
                let mut set = LeaseSet::clone(&known.borrow());
                set.apply(lease);
                known.send_replace(Arc::new(set));
            }
            continue;
        };
        if let Some(lease) = &event.lease {
            set.apply(lease);
        }
        if event.snapshot_complete {
            pauses.reset();
            known.send_replace(Arc::new(set));
        } else {
            snapshot = Some(set);
        }
    }
    Ok(())
}
