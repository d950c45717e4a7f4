//! `memharvest.collector.v1.CollectorService`.

use std::pin::Pin;
use std::sync::Arc;

use futures::{Stream, StreamExt};
use memharvest_proto::collector::v1::collector_service_server::CollectorService;
use memharvest_proto::collector::v1::{
    DiagnoseRequest, DiagnoseResponse, GetReadingRequest, GetReadingResponse, WatchReadingsRequest,
    WatchReadingsResponse,
};
use memharvest_services::rpc_error::{ErrorCode, invalid_field};
use tokio_stream::wrappers::BroadcastStream;
use tonic::{Request, Response, Status};

use crate::doctor::Doctor;
use crate::latest::Latest;
use crate::reading::HostReading;

/// Answers from what was read last.
#[derive(Debug)]
pub struct CollectorRpc {
    /// Readings.
    pub latest: Latest,
    /// Findings.
    pub doctor: Doctor,
}

impl CollectorRpc {
    fn newest(&self, host_id: &str) -> Result<Arc<HostReading>, Status> {
        if let Some(reading) = self.latest.get(host_id) {
            return Ok(reading);
        }
        match (host_id, self.latest.all().len()) {
            (_, 0) => {
                Err(ErrorCode::Unavailable
                    .status("no reading has been taken yet; try again in a few seconds"))
            }
            ("", hosts) => {
                Err(invalid_field("host_id", format!("name the host: this collector speaks for {hosts}")))
            }
            _ => Err(ErrorCode::NotFound.status(format!("this collector does not speak for host {host_id}"))),
        }
    }
}

#[tonic::async_trait]
impl CollectorService for CollectorRpc {
    async fn get_reading(
        &self,
        request: Request<GetReadingRequest>,
    ) -> Result<Response<GetReadingResponse>, Status> {
        let reading = self.newest(&request.get_ref().host_id)?;
        Ok(Response::new(GetReadingResponse { reading: Some(reading.as_ref().into()) }))
    }

    type WatchReadingsStream = Pin<Box<dyn Stream<Item = Result<WatchReadingsResponse, Status>> + Send>>;

    async fn watch_readings(
        &self,
        request: Request<WatchReadingsRequest>,
    ) -> Result<Response<Self::WatchReadingsStream>, Status> {
        let host_id = request.into_inner().host_id;
        let (now, news) = self.latest.watch();
        // A watcher that falls behind misses readings; the next one tells all that it needs.
        let news = BroadcastStream::new(news).filter_map(|reading| async { reading.ok() });
        let readings = futures::stream::iter(now)
            .chain(news)
            .filter(move |reading| {
                let wanted = host_id.is_empty() || reading.host.id == host_id;
                async move { wanted }
            })
            .map(|reading| Ok(WatchReadingsResponse { reading: Some(reading.as_ref().into()) }));
        Ok(Response::new(readings.boxed()))
    }

    async fn diagnose(
        &self,
        request: Request<DiagnoseRequest>,
    ) -> Result<Response<DiagnoseResponse>, Status> {
        Ok(Response::new(DiagnoseResponse { findings: self.doctor.findings(&request.get_ref().host_id) }))
    }
}
