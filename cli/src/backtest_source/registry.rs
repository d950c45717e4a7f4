//! Recorded usage from the registry's history.

use std::time::Duration;

use memharvest_proto::DESCRIPTORS;
use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::query_history_request::Subject;
use memharvest_proto::registry::v1::{ListLatestRequest, QueryHistoryRequest, VmRollup};
use memharvest_services::metrics::Metrics;
use memharvest_services::rpc_client::{ClientOptions, RpcChannel, connect_lazy};
use memharvest_services::tls::MeshTls;
use memharvest_services::tls::identity::Role;
use prost_types::Timestamp;
use tonic::Status;

use super::readings::{Machine, Quantity, Readings};
use super::{Address, Asked, SourceError};

/// Windows of history that one answer may hold, at the five minutes that are recorded.
const MOST_SECONDS: i64 = 11_000 * 300;
/// Machines on a page.
const PAGE: i32 = 1000;

const PATIENCE: Duration = Duration::from_mins(1);
const CONNECT_PATIENCE: Duration = Duration::from_secs(5);

/// Reads the windows of every machine that the registry knows. A window is a reading at its end: the allocation then,
/// and the highest usage in it. A registry that asks for certificates tells its history to predictors and gateways.
///
/// # Errors
/// When it does not answer, or refuses.
pub(super) async fn read(
    address: &Address,
    mesh: Option<&MeshTls>,
    asked: &Asked,
    progress: &(dyn Fn(u64) + Sync),
) -> Result<Readings, SourceError> {
    let url = address.to_string();
    let refused = |status: Status| failure(&url, &status);
    let mut client = connect(&url, mesh)?;
    let machines = machines(&mut client).await.map_err(refused)?;
    let mut readings = Readings::default();
    for (number, vm_id) in machines.iter().enumerate() {
        let machine = readings.machine(Machine { name: vm_id.clone(), place: String::new() });
        let mut begin = asked.seconds.start;
        while begin < asked.seconds.end {
            let end = asked.seconds.end.min(begin.saturating_add(MOST_SECONDS));
            let request = QueryHistoryRequest {
                subject: Some(Subject::VmId(vm_id.clone())),
                from: Some(Timestamp { seconds: begin, nanos: 0 }),
                to: Some(Timestamp { seconds: end, nanos: 0 }),
                step: None,
            };
            let history = client.query_history(request).await.map_err(refused)?.into_inner();
            history.vms.iter().for_each(|window| take(&mut readings, machine, window));
            readings.close();
            begin = end;
        }
        progress((number as u64 + 1) * 100 / machines.len() as u64);
    }
    Ok(readings)
}

fn connect(url: &str, mesh: Option<&MeshTls>) -> Result<HarvestServiceClient<RpcChannel>, SourceError> {
    const PROGRAM: memharvest_services::Service =
        memharvest_services::Service::new("memharvest", env!("CARGO_PKG_VERSION"));
    let unreachable = |cause: String| SourceError::Unreachable { url: url.to_owned(), cause };
    let metrics = Metrics::new(&PROGRAM).map_err(|error| unreachable(error.to_string()))?;
    let options =
        ClientOptions::new(&metrics, DESCRIPTORS).map_err(|error| unreachable(error.to_string()))?;
    let mut options = options.mesh(mesh).to(Role::Registry);
    (options.unary_deadline, options.connect_timeout) = (PATIENCE, CONNECT_PATIENCE);
    let channel = connect_lazy(url, &options).map_err(|error| unreachable(error.to_string()))?;
    Ok(HarvestServiceClient::new(channel))
}

async fn machines(client: &mut HarvestServiceClient<RpcChannel>) -> Result<Vec<String>, Status> {
    let (mut found, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = ListLatestRequest { page_size: PAGE, page_token, host_id: String::new() };
        let page = client.list_latest(request).await?.into_inner();
        found.extend(page.vms.into_iter().map(|vm| vm.vm_id));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok(found);
        }
    }
}

fn take(readings: &mut Readings, machine: usize, window: &VmRollup) {
    let seconds = |start: &Timestamp| start.seconds;
    let length = window.window.as_ref().map_or(0, |length| length.seconds);
    let (Some(start), Some(allocated)) = (window.window_start.as_ref().map(seconds), window.allocated_bytes)
    else {
        return;
    };
    let at = start.saturating_add(length);
    readings.add(machine, at, Quantity::Allocated, allocated);
    for (quantity, bytes) in
        [(Quantity::Used, window.demand_max_bytes), (Quantity::Rss, window.rss_max_bytes)]
    {
        if let Some(bytes) = bytes {
            readings.add(machine, at, quantity, bytes);
        }
    }
}

fn failure(url: &str, status: &Status) -> SourceError {
    match status.code() {
        tonic::Code::Unavailable => {
            let told = status.message();
            let cause = told.strip_prefix(&format!("cannot reach {url}: ")).unwrap_or(told).to_owned();
            SourceError::Unreachable { url: url.to_owned(), cause }
        }
        _ => SourceError::Refused { url: url.to_owned(), message: status.message().to_owned() },
    }
}
