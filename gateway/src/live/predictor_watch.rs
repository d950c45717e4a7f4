//! Follows one predictor's live state, again and again.

use std::time::Duration;

use memharvest_proto::predictor::v1::WatchForecastsRequest;
use memharvest_proto::predictor::v1::watch_forecasts_response::Event;
use memharvest_services::readiness::Part;
use memharvest_services::rpc_client::Backoff;
use memharvest_services::shutdown::Stop;
use prometheus::IntGauge;
use tonic::Status;

use super::Live;
use crate::upstream::Upstream;

/// One predictor to follow.
pub(crate) struct PredictorWatch {
    pub(crate) live: Live,
    pub(crate) upstream: Upstream,
    /// Its place in the settings.
    pub(crate) place: usize,
    pub(crate) url: String,
    /// 1 while its snapshot is complete and its stream open.
    pub(crate) connected: IntGauge,
    /// Ready once the predictor was asked for the first time, whatever it said: without it the fleet is shown as the registry knows it.
    pub(crate) asked: Part,
}

impl PredictorWatch {
    /// Follows until the process stops. Hosts of a stream that broke stay until they are stale; the next stream's
    /// snapshot replaces them.
    pub(crate) async fn run(self, stop: Stop) {
        let shortest = Duration::from_millis(100);
        let mut pauses =
            Backoff::<rand::rngs::StdRng>::new(shortest, Duration::from_secs(5), rand::make_rng());
        let mut away = false;
        loop {
            let outcome = tokio::select! {
                outcome = self.follow() => outcome,
                () = stop.requested() => return,
            };
            if self.connected.get() == 1 {
                self.connected.set(0);
                pauses.reset();
                away = false;
            }
            self.asked.ready();
            if !away {
                let reason = outcome
                    .err()
                    .map_or("it ended the stream".to_owned(), |status| status.message().to_owned());
                tracing::warn!(
                    predictor = self.url,
                    "no live state from predictor {}: {reason}; trying again",
                    self.url
                );
            }
            away = true;
            tokio::select! {
                () = tokio::time::sleep(pauses.next().unwrap_or(shortest)) => {}
                () = stop.requested() => return,
            }
        }
    }

    async fn follow(&self) -> Result<(), Status> {
        let mut client =
            self.upstream.predictor(self.place).ok_or_else(|| Status::internal("no such predictor"))?;
        let mut events = client.watch_forecasts(WatchForecastsRequest {}).await?.into_inner();
        self.live.change(|state, _| state.snapshot_begins(self.place));
        while let Some(message) = events.message().await? {
            match message.event {
                Some(Event::Update(update)) => {
                    self.live.change(|state, now| state.update(self.place, update, now));
                }
                Some(Event::Gone(gone)) => {
                    self.live.change(|state, now| state.gone(self.place, &gone.host_id, now));
                }
                Some(Event::SnapshotComplete(complete)) => {
                    self.live.change(|state, now| state.snapshot_complete(self.place, now));
                    self.live.publish_once();
                    self.connected.set(1);
                    self.asked.ready();
                    tracing::info!(
                        predictor = self.url,
                        hosts = complete.hosts,
                        "live state of predictor {} is complete",
                        self.url
                    );
                }
                None => {}
            }
        }
        Ok(())
    }
}
