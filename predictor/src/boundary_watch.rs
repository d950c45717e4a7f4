//! Follows the registry's boundaries and keeps a copy in the state file, so that a restart without the registry
//! still knows what operators forbade.

use std::sync::Arc;
use std::time::Duration;

use memharvest_proto::registry::v1::WatchBoundariesRequest;
use memharvest_proto::registry::v1::boundary_service_client::BoundaryServiceClient;
use memharvest_services::rpc_client::{Backoff, RpcChannel};
use memharvest_services::shutdown::Stop;
use rand::rngs::StdRng;
use tokio::sync::watch;
use tonic::Status;

use crate::boundary_set::BoundarySet;
use crate::state_file::{StateFile, StateFileError};

/// The boundaries as last heard, in this life or the one before.
///
/// # Errors
/// When the state file cannot be read.
pub async fn remembered(file: &StateFile) -> Result<BoundarySet, StateFileError> {
    Ok(file
        .boundaries()
        .await?
        .map_or_else(BoundarySet::default, |(revision, boundaries)| BoundarySet::new(revision, boundaries)))
}

/// Follows the registry until told to stop. Every connection begins with the whole set, so nothing is missed.
pub async fn run(registry: RpcChannel, file: StateFile, known: watch::Sender<Arc<BoundarySet>>, stop: Stop) {
    let mut client = BoundaryServiceClient::new(registry);
    let mut pauses =
        Backoff::new(Duration::from_millis(100), Duration::from_secs(10), rand::make_rng::<StdRng>());
    loop {
        let followed = tokio::select! {
            followed = follow(&mut client, &file, &known, &mut pauses) => followed,
            () = stop.requested() => return,
        };
        let wait = pauses.next().unwrap_or_default();
        if let Err(error) = followed {
            tracing::warn!(%error, retry_in_seconds = wait.as_secs_f64(), "boundaries cannot be followed; the last ones known hold");
        }
        tokio::select! { () = tokio::time::sleep(wait) => {} () = stop.requested() => return }
    }
}

#[derive(Debug, thiserror::Error)]
enum WatchError {
    #[error("{}: {}", .0.code(), .0.message())]
    Call(#[from] Status),
    #[error(transparent)]
    File(#[from] StateFileError),
}

async fn follow(
    client: &mut BoundaryServiceClient<RpcChannel>,
    file: &StateFile,
    known: &watch::Sender<Arc<BoundarySet>>,
    pauses: &mut Backoff<StdRng>,
) -> Result<(), WatchError> {
    let mut events =
        client.watch_boundaries(WatchBoundariesRequest { after_revision: 0 }).await?.into_inner();
    let mut snapshot = Some(BoundarySet::new(0, Vec::new()));
    while let Some(event) = events.message().await? {
        let revision = event.revision;
        if let Some(mut set) = snapshot.take() {
            if let Some(boundary) = event.boundary {
                set.apply(revision, boundary);
            }
            if event.snapshot_complete {
                set.apply_revision(revision);
                pauses.reset();
                publish(file, known, set).await?;
            } else {
                snapshot = Some(set);
            }
        } else if let Some(boundary) = event.boundary {
            tracing::info!(scope = boundary.scope, version = boundary.version, revision, "boundary changed");
            let mut set = BoundarySet::clone(&known.borrow());
            set.apply(revision, boundary);
            publish(file, known, set).await?;
        }
    }
    Ok(())
}

async fn publish(
    file: &StateFile,
    known: &watch::Sender<Arc<BoundarySet>>,
    set: BoundarySet,
) -> Result<(), StateFileError> {
    file.save_boundaries(set.revision(), set.iter()).await?;
    known.send_replace(Arc::new(set));
    Ok(())
}
