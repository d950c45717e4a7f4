//! One trace, from a reading to its record.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use memharvest_end_to_end::mesh::Mesh;
use memharvest_end_to_end::otlp::{OtlpReceiver, Span};
use memharvest_end_to_end::wait::wait_for;

/// Processes send their spans every five seconds.
const SOON: Duration = Duration::from_secs(45);

/// What happens to the last reading of a roll-up, in order, each step within the one before: program and span.
const STEPS: [(&str, &str); 3] = [
    ("memharvest-collector", "sample"),
    ("memharvest-predictor", "observe"),
    ("memharvest-registry", "store harvest"),
];

#[tokio::test(flavor = "multi_thread")]
async fn one_trace_reaches_from_a_reading_to_its_record() {
    let receiver = OtlpReceiver::start().await.unwrap();
    let flags = ["--simulate", "1x2", "--speed", "300", "--otlp-endpoint", &receiver.endpoint];
    let _mesh = Mesh::up(&flags).await.unwrap();
    let names = wait_for(SOON, "a trace that crosses collector, predictor and registry", || async {
        let traces = receiver.traces();
        let whole = traces.iter().find_map(|trace| way_to_the_record(trace));
        whole.with_context(|| format!("{} traces, the longest: {:?}", traces.len(), longest(&traces)))
    })
    .await
    .unwrap();
    let steps: Vec<(&str, &str)> =
        names.iter().map(|(service, name)| (service.as_str(), name.as_str())).collect();
    assert_eq!(steps, STEPS);
}

/// The spans from the beginning of a trace to what the registry stored, each the parent of the next.
fn way_to_the_record(trace: &[Span]) -> Option<Vec<(String, String)>> {
    let by_id: BTreeMap<&[u8], &Span> = trace.iter().map(|span| (span.id.as_slice(), span)).collect();
    let mut span = trace.iter().find(|span| (span.service.as_str(), span.name.as_str()) == STEPS[2])?;
    let mut way = vec![(span.service.clone(), span.name.clone())];
    while !span.parent.is_empty() {
        // Not there: it is still on its way here.
        span = by_id.get(span.parent.as_slice())?;
        way.push((span.service.clone(), span.name.clone()));
    }
    way.reverse();
    Some(way)
}

fn longest(traces: &[Vec<Span>]) -> Option<&Vec<Span>> {
    traces.iter().max_by_key(|trace| trace.len())
}
