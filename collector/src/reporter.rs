//! Readings to the predictor, forecasts back: one stream, opened again whenever it ends.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt};
use memharvest_proto::predictor::v1::ObserveRequest;
use memharvest_services::proto_time::from_proto;
use memharvest_services::rpc_client::Backoff;
use memharvest_services::shutdown::Stop;
use rand::rngs::StdRng;
use tonic::Status;

use crate::answer::{self, Answer};
use crate::collector_metrics::CollectorMetrics;
use crate::forecasts::Forecasts;
use crate::outbox::Outbox;
use crate::predictors::Predictors;

/// Reports to one predictor at a time.
#[derive(Debug)]
pub struct Reporter {
    /// The predictors to choose from.
    pub predictors: Predictors,
    /// Readings to send.
    pub outbox: Outbox,
    /// Where answers are kept.
    pub forecasts: Forecasts,
    /// Counters.
    pub metrics: CollectorMetrics,
}

impl Reporter {
    /// Reports until told to stop.
    pub async fn run(mut self, rng: StdRng, stop: Stop) {
        let mut pauses = Backoff::new(Duration::from_millis(250), Duration::from_secs(10), rng);
        let mut refusals = Refusals::default();
        let mut told = false;
        loop {
            let outcome = tokio::select! {
                outcome = self.stream(&mut refusals, &mut pauses, &mut told) => outcome,
                () = stop.requested() => return,
            };
            self.metrics.predictor_up(false);
            self.outbox.rewind();
            if !std::mem::replace(&mut told, true) {
                let (code, error) = (outcome.code(), outcome.message());
                tracing::warn!(?code, error, "no stream to the predictor, readings are kept");
            }
            let pause = pauses.next().unwrap_or(Duration::from_secs(10));
            tokio::select! { () = tokio::time::sleep(pause) => {} () = stop.requested() => return }
        }
    }

    /// One stream, until it ends.
    async fn stream(
        &mut self,
        refusals: &mut Refusals,
        pauses: &mut Backoff<StdRng>,
        told: &mut bool,
    ) -> Status {
        let Some((url, predictor)) = self.predictors.settle().await else {
            return Status::internal("no predictor is set");
        };
        let readings = Requests::out_of(self.outbox.clone());
        let mut answers = match answer::observe(predictor, readings).await {
            Ok(answers) => answers,
            Err(status) => return status,
        };
        let moved = self.predictors.moved();
        tokio::pin!(moved);
        loop {
            let message = tokio::select! {
                message = answers.message() => message,
                () = &mut moved => return Status::unavailable(format!("leaving {url} for another predictor")),
            };
            match message {
                Ok(Some(answer)) => {
                    if std::mem::take(told) {
                        tracing::info!("the predictor answers again");
                    }
                    pauses.reset();
                    self.metrics.predictor_up(true);
                    self.take_in(answer, refusals);
                }
                Ok(None) => return Status::unavailable("the predictor ended the stream"),
                Err(status) => return status,
            }
        }
    }

    fn take_in(&self, answer: Answer, refusals: &mut Refusals) {
        if let Some(read_at) = answer.read_at.as_ref().and_then(|at| from_proto(at).ok()) {
            self.outbox.answered(&answer.host_id, read_at);
        }
        if !answer.refused_reason.is_empty() {
            self.metrics.refused();
        }
        refusals.note(&answer);
        if let Some(update) = answer.update {
            self.forecasts.put(&answer.host_id, update);
        }
    }
}

/// Readings as they are there to be sent. A type of its own, since the compiler cannot prove of a bare boxed stream that a
/// call which holds it may move between threads.
struct Requests(BoxStream<'static, ObserveRequest>);

impl Requests {
    fn out_of(outbox: Outbox) -> Self {
        let next = |outbox: Outbox| async move {
            let reading = outbox.next().await;
            Some((ObserveRequest { reading: Some(reading.as_ref().into()) }, outbox))
        };
        Self(futures::stream::unfold(outbox, next).boxed())
    }
}

impl Stream for Requests {
    type Item = ObserveRequest;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ObserveRequest>> {
        self.0.as_mut().poll_next(context)
    }
}

/// Says once why readings are refused, until another reason comes up.
#[derive(Debug, Default)]
struct Refusals(String);

impl Refusals {
    fn note(&mut self, answer: &Answer) {
        let reason = &answer.refused_reason;
        if !reason.is_empty() && *reason != self.0 {
            tracing::warn!(
                host = answer.host_id,
                reason,
                "the predictor passes over readings of {}",
                answer.host_id
            );
        }
        reason.clone_into(&mut self.0);
    }
}
