use memharvest_services::rpc_server::Limits;
use memharvest_services::trace_context::{current_traceparent, set_parent_from};
use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::Instrument;
use tracing_subscriber::layer::SubscriberExt;

use crate::support::{PATIENCE, TestServer, ask};

fn trace_id(traceparent: &str) -> &str {
    traceparent.split('-').nth(1).unwrap()
}

// One thread, so that the server's tasks see the subscriber too.
#[tokio::test(flavor = "current_thread")]
async fn a_trace_crosses_from_client_to_server_and_through_a_message() {
    let provider = SdkTracerProvider::builder().build();
    let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
    let _subscriber = tracing::subscriber::set_default(tracing_subscriber::registry().with(layer));
    assert_eq!(current_traceparent(), None);

    let server = TestServer::start(Limits::default(), PATIENCE);
    let outer = tracing::info_span!("reading");
    let (ours, theirs) = async {
        let ours = current_traceparent().unwrap();
        let answer = server.client().get_reading(ask("traceparent")).await.unwrap().into_inner();
        (ours, answer.reading.unwrap().host_id)
    }
    .instrument(outer)
    .await;
    assert_eq!(trace_id(&ours), trace_id(&theirs));
    assert_ne!(ours, theirs, "the server has a span of its own");

    let recorded = tracing::info_span!("record");
    set_parent_from(&recorded, &theirs);
    let continued = recorded.in_scope(|| current_traceparent().unwrap());
    assert_eq!(trace_id(&continued), trace_id(&ours));

    for nonsense in ["", "00-xyz", "00-00000000000000000000000000000000-0000000000000000-01"] {
        let span = tracing::info_span!("fresh");
        set_parent_from(&span, nonsense);
        let fresh = span.in_scope(|| current_traceparent().unwrap());
        assert_ne!(trace_id(&fresh), trace_id(&ours), "{nonsense}");
    }
}
