//! One host's stream to the predictor, opened again whenever it ends.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use memharvest_proto::predictor::v1::ObserveRequest;
use memharvest_proto::predictor::v1::predictor_service_client::PredictorServiceClient;
use memharvest_services::rpc_client::{Backoff, RpcChannel};
use memharvest_services::shutdown::Stop;
use memharvest_trace::Simulation;
use rand::rngs::StdRng;
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::reading::reading;
use super::tally::Tally;

/// Readings of a host that may wait for their answers; those after them are left out, and counted.
const IN_FLIGHT: usize = 4;

/// The answer about a host of ten thousand machines is larger than what is taken by default.
const LARGEST: usize = 64 << 20;

/// Longest pause before a stream is opened again.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct Sender {
    /// Who it reports as.
    pub(super) id: String,
    /// Which of the simulation's hosts that is.
    pub(super) index: usize,
    /// The hosts.
    pub(super) simulation: Arc<Simulation>,
    /// When they began.
    pub(super) begins: Timestamp,
    /// How often it is read.
    pub(super) interval: Duration,
    /// How long until it is read first.
    pub(super) first: Duration,
    /// Where it is counted.
    pub(super) tally: Arc<Tally>,
}

impl Sender {
    /// Sends until told to stop.
    pub(super) async fn run(self, predictor: RpcChannel, stop: Stop) {
        let mut ticks = interval_at(Instant::now() + self.first, self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let mut pauses = Backoff::new(Duration::from_millis(250), LONGEST_PAUSE, rand::make_rng::<StdRng>());
        loop {
            let ended = tokio::select! {
                ended = self.stream(&predictor, &mut ticks, &mut pauses) => ended,
                () = stop.requested() => return,
            };
            self.tally.broken(&ended);
            let pause = pauses.next().unwrap_or(LONGEST_PAUSE);
            tokio::select! { () = tokio::time::sleep(pause) => {} () = stop.requested() => return }
        }
    }

    /// One stream, until it ends.
    async fn stream(
        &self,
        predictor: &RpcChannel,
        ticks: &mut Interval,
        pauses: &mut Backoff<StdRng>,
    ) -> Status {
        let (requests, waiting) = mpsc::channel(IN_FLIGHT);
        let mut client = PredictorServiceClient::new(predictor.clone()).max_decoding_message_size(LARGEST);
        let mut answers = match client.observe(ReceiverStream::new(waiting)).await {
            Ok(answers) => answers.into_inner(),
            Err(status) => return status,
        };
        let mut sent: VecDeque<Instant> = VecDeque::with_capacity(IN_FLIGHT);
        loop {
            tokio::select! {
                _ = ticks.tick() => {
                    if sent.len() >= IN_FLIGHT {
                        self.tally.left_out();
                    } else if let Some(request) = self.request() {
                        sent.push_back(Instant::now());
                        if requests.send(request).await.is_err() {
                            return Status::unavailable("the predictor ended the stream");
                        }
                    }
                }
                answer = answers.message() => match answer {
                    Ok(Some(answer)) => {
                        pauses.reset();
                        let took = sent.pop_front().map_or(Duration::ZERO, |sent| sent.elapsed());
                        let machines = answer.update.map_or(0, |update| update.vms.len());
                        self.tally.answered(took, machines, &answer.refused_reason);
                    }
                    Ok(None) => return Status::unavailable("the predictor ended the stream"),
                    Err(status) => return status,
                },
            }
        }
    }

    fn request(&self) -> Option<ObserveRequest> {
        let now = Timestamp::now();
        let elapsed = Duration::try_from(now.duration_since(self.begins)).unwrap_or_default();
        let sample = self.simulation.host_at(self.index, elapsed)?;
        Some(ObserveRequest { reading: Some(reading(&self.id, &sample, self.begins, now, self.interval)) })
    }
}
