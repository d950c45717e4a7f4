//! Hearing of what other registries change.

use std::time::Duration;

use memharvest_services::shutdown::Stop;
use sqlx::postgres::PgListener;

use super::{CHANNEL, PostgresStore};

/// Before another try.
const PAUSE: Duration = Duration::from_secs(1);

/// A connection on which nothing was heard for so long is asked whether it still lives.
const QUIET: Duration = Duration::from_secs(20);

/// How long it may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

impl PostgresStore {
    /// Listens until `stop` is requested.
    pub(super) async fn listen(&self, stop: Stop) {
        while !stop.is_requested() {
            let ended = tokio::select! {
                () = stop.requested() => return,
                ended = self.listen_once() => ended,
            };
            if let Err(error) = ended {
                // Whoever watches looks at the tables by himself meanwhile, less often.
                tracing::warn!(%error, "cannot listen to the database's notifications: {error}");
            }
            tokio::select! {
                () = stop.requested() => {}
                () = tokio::time::sleep(PAUSE) => {}
            }
        }
    }

    /// Listens until the connection is lost.
    async fn listen_once(&self) -> sqlx::Result<()> {
        let mut listener = PgListener::connect_with(&self.reader).await?;
        listener.eager_reconnect(false);
        listener.listen(CHANNEL).await?;
        // What changed before anybody listened is known once this is read: first listen, then look.
        self.read_counters().await?;
        loop {
            match tokio::time::timeout(QUIET, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => {
                    if let Some((name, value)) = parse(notification.payload()) {
                        self.hints.tell(name, value);
                    }
                }
                Ok(Ok(None)) => return Err(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()),
                Ok(Err(error)) => return Err(error),
                Err(_) => {
                    let asked =
                        tokio::time::timeout(PATIENCE, sqlx::Executor::execute(&mut listener, "SELECT 1"));
                    asked.await.map_err(|_| std::io::Error::from(std::io::ErrorKind::TimedOut))??;
                }
            }
        }
    }
}

fn parse(payload: &str) -> Option<(&str, u64)> {
    let (name, value) = payload.split_once(' ')?;
    Some((name, value.parse().ok()?))
}
