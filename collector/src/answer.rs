//! The predictor's answers, read no further than they are needed.

use memharvest_proto::predictor::v1::ObserveRequest;
use memharvest_services::rpc_client::RpcChannel;
use memharvest_services::rpc_server::MAX_MESSAGE_BYTES;
use prost::bytes::Bytes;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::{GrpcMethod, IntoStreamingRequest, Status, Streaming};
use tonic_prost::ProstCodec;

const SERVICE: &str = "memharvest.predictor.v1.PredictorService";
const METHOD: &str = "Observe";
const PATH: &str = "/memharvest.predictor.v1.PredictorService/Observe";

/// An `ObserveResponse` whose update is left as it came: answers come at every tick, and only a scrape reads them.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// The host.
    #[prost(string, tag = "1")]
    pub host_id: String,
    /// The reading that this answers.
    #[prost(message, optional, tag = "2")]
    pub read_at: Option<prost_types::Timestamp>,
    /// An encoded `HostUpdate`.
    #[prost(bytes = "bytes", optional, tag = "3")]
    pub update: Option<Bytes>,
    /// Why the reading was passed over; empty: it was not.
    #[prost(string, tag = "4")]
    pub refused_reason: String,
}

/// Opens a stream of readings to the predictor.
///
/// # Errors
/// The predictor cannot be reached, or does not want to talk.
pub async fn observe(
    predictor: RpcChannel,
    readings: impl IntoStreamingRequest<Message = ObserveRequest>,
) -> Result<Streaming<Answer>, Status> {
    let mut client = tonic::client::Grpc::new(predictor).max_decoding_message_size(MAX_MESSAGE_BYTES);
    client
        .ready()
        .await
        .map_err(|error| Status::unavailable(format!("the channel is not ready: {error}")))?;
    let mut request = readings.into_streaming_request();
    request.extensions_mut().insert(GrpcMethod::new(SERVICE, METHOD));
    let codec = ProstCodec::<ObserveRequest, Answer>::default();
    Ok(client.streaming(request, PathAndQuery::from_static(PATH), codec).await?.into_inner())
}

#[cfg(test)]
mod tests {
    use memharvest_proto::predictor::v1::{Host, HostUpdate, ObserveResponse, Vm};
    use prost::Message;

    use super::*;

    #[test]
    fn it_reads_what_the_predictor_writes() {
        let update = HostUpdate {
            host: Some(Host { host_id: "h".into(), ..Host::default() }),
            vms: vec![Vm { vm_id: "v".into(), ..Vm::default() }],
        };
        let written = ObserveResponse {
            host_id: "h".into(),
            read_at: Some(prost_types::Timestamp { seconds: 7, nanos: 1 }),
            update: Some(update.clone()),
            refused_reason: "late".into(),
        };
        let read = Answer::decode(written.encode_to_vec().as_slice()).unwrap();
        assert_eq!((read.host_id.as_str(), read.refused_reason.as_str()), ("h", "late"));
        assert_eq!(read.read_at, written.read_at);
        assert_eq!(HostUpdate::decode(read.update.unwrap()).unwrap(), update);
        assert_eq!(PATH, format!("/{SERVICE}/{METHOD}"));
    }
}
