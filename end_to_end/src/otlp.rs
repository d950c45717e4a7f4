//! A receiver of traces, as any OTLP collector is one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::any_value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// A span that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Its identity within its trace.
    pub id: Vec<u8>,
    /// The span that it is part of; empty: it begins its trace.
    pub parent: Vec<u8>,
    /// What was done.
    pub name: String,
    /// The program that did it.
    pub service: String,
}

type Traces = Arc<Mutex<BTreeMap<Vec<u8>, Vec<Span>>>>;

/// A receiver of traces on a port of its own; it ends when it is dropped.
#[derive(Debug)]
pub struct OtlpReceiver {
    /// Where it listens: a setting of every process.
    pub endpoint: String,
    traces: Traces,
    _server: JoinSet<()>,
}

impl OtlpReceiver {
    /// Listens.
    ///
    /// # Errors
    /// When no port is free.
    pub async fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let endpoint = format!("http://{}", listener.local_addr()?);
        let traces = Traces::default();
        let service = TraceServiceServer::new(Collecting(Arc::clone(&traces)));
        let mut server = JoinSet::new();
        server.spawn(async move {
            let incoming = TcpListenerStream::new(listener);
            // An end of it shows as spans that do not come.
            let _ = Server::builder().add_service(service).serve_with_incoming(incoming).await;
        });
        Ok(Self { endpoint, traces, _server: server })
    }

    /// The spans that have arrived so far, by trace.
    #[must_use]
    pub fn traces(&self) -> Vec<Vec<Span>> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }
}

struct Collecting(Traces);

#[tonic::async_trait]
impl TraceService for Collecting {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let mut traces = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for batch in request.into_inner().resource_spans {
            let attributes = batch.resource.unwrap_or_default().attributes;
            let service = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let Some(any_value::Value::StringValue(service)) = service.and_then(|named| named.value?.value)
            else {
                return Err(Status::invalid_argument("spans without a service.name"));
            };
            for span in batch.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                traces.entry(span.trace_id).or_default().push(Span {
                    id: span.span_id,
                    parent: span.parent_span_id,
                    name: span.name,
                    service: service.clone(),
                });
            }
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}
