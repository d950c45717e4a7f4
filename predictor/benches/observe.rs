//! How many readings a predictor takes: through the core alone, and over gRPC with the senders beside it.
//!
//! `cargo bench -p memharvest-predictor --bench observe -- [HOSTS] [MACHINES] [SECONDS]`, 4, 1000 and 20 if not said.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a bench fails loudly and tells what it found")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use clap::Parser;
use futures::StreamExt;
use memharvest_predictor::boundary_set::BoundarySet;
use memharvest_predictor::host::{Context, HostState};
use memharvest_predictor::lease_set::LeaseSet;
use memharvest_predictor::model::Prices;
use memharvest_predictor::state_file::StateFile;
use memharvest_predictor::{Settings, convert, start};
use memharvest_proto::collector::v1::{GuestMemory, HostMemory, HostReading, Quality, VmReading, VmState};
use memharvest_proto::predictor::v1::ObserveRequest;
use memharvest_proto::predictor::v1::predictor_service_client::PredictorServiceClient;
use memharvest_services::shutdown::Stop;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

const GIB: u64 = 1 << 30;
const INTERVAL: f64 = 5.0;
/// Readings of a stream that are on their way at a time.
const IN_FLIGHT: usize = 4;

/// Counts what is allocated.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "an allocator cannot be written without it")]
// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: see above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: see above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A host whose machines wander.
struct Host {
    reading: HostReading,
    at: f64,
    chance: StdRng,
}

impl Host {
    fn new(number: u64, machines: u64, at: f64) -> Self {
        let vm = |machine: u64| VmReading {
            vm_id: uuid::Uuid::from_u64_pair(number, machine).to_string(),
            name: format!("machine-{number}-{machine}"),
            state: VmState::Running.into(),
            quality: Quality::Live.into(),
            allocated_bytes: Some(8 * GIB),
            maximum_bytes: Some(8 * GIB),
            rss_bytes: Some(GIB + machine % 4 * GIB),
            swap_bytes: Some(0),
            guest: Some(GuestMemory { total_bytes: Some(8 * GIB), ..GuestMemory::default() }),
            stats_period: Some(convert::duration(INTERVAL)),
            generation: 1,
            ..VmReading::default()
        };
        let reading = HostReading {
            host_id: format!("host-{number}"),
            host_name: format!("host-{number}"),
            interval: Some(convert::duration(INTERVAL)),
            memory: Some(HostMemory {
                total_bytes: Some(16 * GIB * machines),
                available_bytes: Some(8 * GIB * machines),
                ..HostMemory::default()
            }),
            vms: (0..machines).map(vm).collect(),
            ..HostReading::default()
        };
        Self { reading, at, chance: StdRng::seed_from_u64(number) }
    }

    fn next(&mut self) -> HostReading {
        self.at += INTERVAL;
        let at = convert::timestamp(self.at);
        self.reading.read_at = Some(at);
        for vm in &mut self.reading.vms {
            let rss = vm.rss_bytes.unwrap();
            let grown = if self.chance.random_ratio(1, 200) { rss + (1 << 24) } else { rss };
            vm.rss_bytes = Some(grown.min(6 * GIB));
            if let Some(guest) = &mut vm.guest {
                guest.available_bytes = Some(8 * GIB - rss / 2 - self.chance.random_range(0..GIB / 8));
                guest.last_update = Some(at);
            }
        }
        self.reading.clone()
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// What was spent so far.
#[derive(Clone, Copy)]
struct Spent {
    wall: Instant,
    /// Time on a processor, of all threads: what other processes take is not in it.
    processor: Duration,
    allocations: u64,
}

impl Spent {
    fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
        let fields = stat.rsplit_once(") ").unwrap().1.split(' ').skip(11).take(2);
        let ticks: u64 = fields.map(|field| field.parse::<u64>().unwrap()).sum();
        Self {
            wall: Instant::now(),
            processor: Duration::from_millis(ticks * 10),
            allocations: ALLOCATIONS.load(Ordering::Relaxed),
        }
    }

    /// Tells what was spent since on so many readings of machines.
    fn tell(self, what: &str, readings: u64) {
        let (after, took) = (Self::now(), self.wall.elapsed());
        let each = f64::from(u32::try_from(readings).unwrap_or(u32::MAX));
        let allocations = u32::try_from(after.allocations - self.allocations).unwrap_or(u32::MAX);
        println!(
            "{what}: {:.0} VM-readings/s; each {:.0} ns of a processor and {:.2} allocations ({readings} in {:.1} s)",
            each / took.as_secs_f64(),
            after.processor.saturating_sub(self.processor).as_secs_f64() * 1e9 / each,
            f64::from(allocations) / each,
            took.as_secs_f64(),
        );
    }
}

/// One core, no network, no file: a host's readings through the core.
fn core(machines: u64) {
    let (boundaries, leases) = (BoundarySet::new(1, Vec::new()), LeaseSet::default());
    let (mut prices, budgets) = (Prices::default(), std::sync::Mutex::default());
    let (mut host, mut state) = (Host::new(0, machines, now() - 72_000.0), HostState::default());
    let readings: Vec<_> = (0..60_000 / machines).map(|_| host.next()).collect();
    let spent = Spent::now();
    let mut taken = 0;
    for reading in readings {
        let context = Context {
            predictor_id: "bench",
            boundaries: &boundaries,
            leases: &leases,
            cold_start: 60.0,
            now: now(),
            tolerance: 5.0,
            traceparent: "",
            budgets: &budgets,
        };
        state.observe(reading, &context, &mut prices).unwrap();
        taken += machines;
    }
    spent.tell("core, one thread", taken);
}

/// The whole service, with senders in the same process.
async fn grpc(hosts: u64, machines: u64, span: Duration) {
    let folder = tempfile::tempdir().unwrap();
    // Known boundaries, none set: a predictor that has not heard of any harvests nothing.
    let file = StateFile::open(&folder.path().join("predictor.db"), 1 << 30).await.unwrap();
    file.save_boundaries(1, []).await.unwrap();
    file.close().await;
    let data_dir = folder.path().to_str().unwrap();
    let settings = Settings::parse_from([
        "memharvest-predictor",
        "--listen=127.0.0.1:0",
        "--admin-listen=127.0.0.1:0",
        "--registry=http://127.0.0.1:1",
        "--cold-start=60s",
        &format!("--data-dir={data_dir}"),
    ]);
    let stop = Stop::new();
    let running = start(settings, stop.clone()).await.unwrap();
    let address = running.address;
    let mut served = JoinSet::new();
    served.spawn(running.finished());

    let started = now() - 72_000.0;
    let mut senders = JoinSet::new();
    for number in 0..hosts {
        senders.spawn(send(Host::new(number, machines, started), format!("http://{address}"), span));
    }
    let spent = Spent::now();
    let readings = senders.join_all().await.into_iter().sum();
    spent.tell(&format!("gRPC, {hosts} streams of {machines} machines, senders included"), readings);
    stop.request();
    served.join_all().await.into_iter().for_each(Result::unwrap);
}

async fn send(mut host: Host, url: String, span: Duration) -> u64 {
    let endpoint = tonic::transport::Endpoint::from_shared(url).unwrap();
    let limit = 64 << 20;
    let mut client = PredictorServiceClient::new(endpoint.connect().await.unwrap())
        .max_decoding_message_size(limit)
        .max_encoding_message_size(limit);
    let (requests, waiting) = mpsc::channel(IN_FLIGHT);
    let mut answers = client.observe(ReceiverStream::new(waiting)).await.unwrap().into_inner();
    let until = Instant::now() + span;
    let (mut in_flight, mut readings) = (0, 0);
    loop {
        while in_flight < IN_FLIGHT && Instant::now() < until {
            requests.send(ObserveRequest { reading: Some(host.next()) }).await.unwrap();
            in_flight += 1;
        }
        if in_flight == 0 {
            return readings;
        }
        let answer = answers.next().await.unwrap().unwrap();
        assert_eq!(answer.refused_reason, "");
        readings += answer.update.unwrap().vms.len() as u64;
        in_flight -= 1;
    }
}

fn main() {
    let mut said = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let mut number = |default| said.next().unwrap_or(default);
    let (hosts, machines, seconds) = (number(4), number(1000), number(20));
    let span = Duration::from_secs(seconds);
    core(machines);
    tokio::runtime::Runtime::new().unwrap().block_on(grpc(hosts, machines, span));
}
