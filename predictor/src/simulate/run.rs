//! A simulation from the request to the answer: which machines lie at the scope, their history as the registry streams
//! it, some machines at a time on every core.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use memharvest_proto::predictor::v1::{
    SimulateBoundaryRequest, SimulateBoundaryResponse, SimulatedEffect, SimulatedPoint,
};
use memharvest_proto::registry::v1::agent_service_client::AgentServiceClient;
use memharvest_proto::registry::v1::boundary_service_client::BoundaryServiceClient;
use memharvest_proto::registry::v1::harvest_service_client::HarvestServiceClient;
use memharvest_proto::registry::v1::{
    AgentKind, GetEffectiveBoundaryRequest, ListAgentsRequest, ListLatestRequest, StreamHistoryRequest,
    StreamHistoryResponse, VmRollup,
};
use memharvest_services::mesh_clock::MeshClock;
use memharvest_services::rpc_client::RpcChannel;
use memharvest_services::rpc_server::MAX_MESSAGE_BYTES;
use tokio::sync::{Semaphore, watch};
use tonic::{Code, Status};

use super::asked::Asked;
use super::{Course, Effect, Machine, Terms, Window, simulate};
use crate::boundary_set::BoundarySet;
use crate::cold_start::ColdStart;
use crate::convert::timestamp;
use crate::domain::{Seconds, whole};
use crate::model::choice::Choice;

/// Machines that are fetched and simulated together. A price that is shared by fairness is shared among so many.
const TOGETHER: usize = 32;

/// Entries of a page.
const PAGE: i32 = 1000;

/// Labels of hosts by their ids.
type Labels = BTreeMap<String, BTreeMap<String, String>>;

/// Simulates boundaries on the registry's history. Clones take turns: one simulation has all cores.
#[derive(Clone, Debug)]
pub struct Simulator {
    registry: RpcChannel,
    boundaries: watch::Receiver<Arc<BoundarySet>>,
    clock: MeshClock,
    cold_start: Duration,
    model: Choice,
    turn: Arc<Semaphore>,
}

/// What holds for the machines of a simulation.
struct Rules {
    before: Arc<BoundarySet>,
    after: BoundarySet,
    labels: Labels,
    terms: Terms,
}

/// What the machines simulated so far come to.
struct Sum {
    effects: Vec<Effect>,
    course: Course,
    windows: u64,
    made_anew: bool,
}

impl Simulator {
    /// Simulates as this predictor forecasts.
    #[must_use]
    pub fn new(
        registry: RpcChannel,
        boundaries: watch::Receiver<Arc<BoundarySet>>,
        clock: MeshClock,
        cold_start: Duration,
        model: Choice,
    ) -> Self {
        Self { registry, boundaries, clock, cold_start, model, turn: Arc::new(Semaphore::new(1)) }
    }

    /// Simulates what is asked for.
    ///
    /// # Errors
    /// Wrong fields; a scope without machines that have history; a registry that does not answer.
    pub async fn simulate(
        &self,
        request: SimulateBoundaryRequest,
    ) -> Result<SimulateBoundaryResponse, Status> {
        let asked = Asked::of(request, self.clock.now().as_duration().as_secs_f64())?;
        let before = self.boundaries.borrow().clone();
        if !before.is_known() {
            return Err(Status::unavailable("the registry has not told the boundaries yet; try again"));
        }
        let _turn =
            self.turn.acquire().await.map_err(|_| Status::unavailable("the predictor is stopping"))?;
        let scope = self.canonical(&asked.scope).await?;
        let rules = Arc::new(Rules {
            after: before.with(&scope, asked.values),
            before,
            labels: self.labels().await?,
            terms: Terms {
                from: asked.from,
                to: asked.to,
                cold_start: self.cold_start.as_secs_f64(),
                model: self.model,
                unforecast: asked.is_unforecast(),
            },
        });
        let sum = if asked.windows.is_empty() {
            let vms = self.vms_at(&scope, &rules.labels).await?;
            self.on_history(vms, &rules).await?
        } else {
            on_windows(&scope, asked.windows, &rules).await?
        };
        answer(sum, asked.max_vms).ok_or_else(|| {
            Status::not_found(format!(
                "no machine at {scope} has history in that time; check the scope, or go further back"
            ))
        })
    }

    /// The scope as the registry writes it.
    async fn canonical(&self, scope: &str) -> Result<String, Status> {
        let request =
            GetEffectiveBoundaryRequest { scope: scope.to_owned(), ..GetEffectiveBoundaryRequest::default() };
        let mut client = BoundaryServiceClient::new(self.registry.clone());
        Ok(client.get_effective_boundary(request).await?.into_inner().scope)
    }

    async fn labels(&self) -> Result<Labels, Status> {
        let mut client =
            AgentServiceClient::new(self.registry.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let (mut labels, mut page_token) = (Labels::new(), String::new());
        loop {
            let kinds = vec![AgentKind::Collector.into()];
            let request = ListAgentsRequest { page_size: PAGE, page_token, kinds, states: Vec::new() };
            let page = client.list_agents(request).await?.into_inner();
            labels.extend(page.agents.into_iter().map(|agent| (agent.agent_id, agent.labels)));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(labels);
            }
        }
    }

    /// The machines at a scope that were ever recorded.
    async fn vms_at(&self, scope: &str, labels: &Labels) -> Result<Vec<String>, Status> {
        if let Some(vm_id) = scope.strip_prefix("vm:") {
            return Ok(vec![vm_id.to_owned()]);
        }
        let mut client = self.harvest();
        let host_id = scope.strip_prefix("host:").unwrap_or_default();
        let (mut vms, mut page_token) = (Vec::new(), String::new());
        loop {
            let request = ListLatestRequest { page_size: PAGE, page_token, host_id: host_id.to_owned() };
            let page = client.list_latest(request).await?.into_inner();
            let covered = page.vms.into_iter().filter(|vm| is_at(scope, &vm.vm_id, &vm.host_id, labels));
            vms.extend(covered.map(|vm| vm.vm_id));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                return Ok(vms);
            }
        }
    }

    fn harvest(&self) -> HarvestServiceClient<RpcChannel> {
        HarvestServiceClient::new(self.registry.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES)
    }

    /// Fetches and simulates; while some machines are simulated the next are on their way.
    async fn on_history(&self, vms: Vec<String>, rules: &Arc<Rules>) -> Result<Sum, Status> {
        let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let parts: Vec<Vec<String>> = vms.chunks(TOGETHER).map(<[String]>::to_vec).collect();
        let work = stream::iter(parts).map(|vm_ids| async move {
            let machines = self.fetch(vm_ids, rules).await?;
            on_a_core(machines, rules).await
        });
        let sum = Sum::nothing(&rules.terms);
        work.buffered(cores + 1).try_fold(sum, |sum, part| async move { Ok(sum.and(part)) }).await
    }

    async fn fetch(&self, vm_ids: Vec<String>, rules: &Rules) -> Result<Vec<Machine>, Status> {
        // What it takes until all of a machine's memory may be harvested.
        let lead = ColdStart::first_harvest_after(rules.terms.cold_start, 1.0).full;
        let request = StreamHistoryRequest {
            vm_ids,
            from: Some(timestamp((rules.terms.from - lead).max(0.0).floor())),
            to: Some(timestamp(rules.terms.to.ceil())),
        };
        let mut found =
            self.harvest().stream_history(request).await.map_err(of_an_older_registry)?.into_inner();
        let mut machines = Vec::new();
        while let Some(history) = found.message().await? {
            machines.extend(rules.machine(&history));
        }
        Ok(machines)
    }
}

/// A registry that is still of the version before says so in words that help.
fn of_an_older_registry(status: Status) -> Status {
    match status.code() {
        Code::Unimplemented => Status::unavailable(
            "the registry is of an older version and cannot stream history yet; bring it up to date",
        ),
        _ => status,
    }
}

/// Whether a machine lies at a scope.
fn is_at(scope: &str, vm_id: &str, host_id: &str, labels: &Labels) -> bool {
    if let Some(group) = scope.strip_prefix("group:") {
        let Some((label, value)) = group.split_once('=') else { return false };
        return labels.get(host_id).and_then(|labels| labels.get(label)).is_some_and(|found| found == value);
    }
    match scope.split_once(':') {
        Some(("vm", vm)) => vm == vm_id,
        Some(("host", host)) => host == host_id,
        _ => scope == "fleet",
    }
}

impl Rules {
    /// A machine with its history up to the end; `None` where nothing of it counts.
    fn machine(&self, history: &StreamHistoryResponse) -> Option<Machine> {
        let mut windows: Vec<Window> = history.windows.iter().filter_map(Window::of).collect();
        windows.retain(|window| window.end <= self.terms.to);
        windows.sort_by(|a, b| a.end.total_cmp(&b.end));
        windows.last().filter(|window| window.end > self.terms.from)?;
        let none = BTreeMap::new();
        let labels = self.labels.get(&history.host_id).unwrap_or(&none);
        let under = |set: &BoundarySet| set.effective(&history.vm_id, &history.host_id, labels).0;
        Some(Machine {
            vm_id: history.vm_id.clone(),
            name: history.vm_name.clone(),
            host_id: history.host_id.clone(),
            windows,
            before: under(&self.before),
            after: under(&self.after),
        })
    }
}

/// Simulates the machines of a trace that lie at a scope.
async fn on_windows(scope: &str, windows: Vec<VmRollup>, rules: &Arc<Rules>) -> Result<Sum, Status> {
    let mut histories: BTreeMap<String, StreamHistoryResponse> = BTreeMap::new();
    for window in windows {
        if is_at(scope, &window.vm_id.to_ascii_lowercase(), &window.host_id, &rules.labels) {
            let history = histories.entry(window.vm_id.to_ascii_lowercase()).or_default();
            history.vm_name.clone_from(&window.vm_name);
            history.host_id.clone_from(&window.host_id);
            history.windows.push(window);
        }
    }
    let complete = |(vm_id, history)| StreamHistoryResponse { vm_id, ..history };
    let machines: Vec<Machine> =
        histories.into_iter().map(complete).filter_map(|history| rules.machine(&history)).collect();
    let mut sum = Sum::nothing(&rules.terms);
    for part in machines.chunks(TOGETHER) {
        sum = sum.and(on_a_core(part.to_vec(), rules).await?);
    }
    Ok(sum)
}

/// Simulates machines beside the threads that serve.
async fn on_a_core(machines: Vec<Machine>, rules: &Arc<Rules>) -> Result<Sum, Status> {
    let terms = rules.terms;
    let work = move || {
        let (effects, course) = simulate(&machines, &terms);
        Sum {
            effects,
            course,
            windows: machines.iter().map(|machine| machine.windows.len() as u64).sum(),
            made_anew: machines.iter().any(|machine| machine.is_forecast_anew(&terms)),
        }
    };
    tokio::task::spawn_blocking(work).await.map_err(|_| Status::internal("the simulation broke off"))
}

impl Sum {
    fn nothing(terms: &Terms) -> Self {
        Self { effects: Vec::new(), course: Course::over(terms), windows: 0, made_anew: false }
    }

    fn and(mut self, other: Self) -> Self {
        self.effects.extend(other.effects);
        self.course.absorb(&other.course);
        self.windows += other.windows;
        self.made_anew |= other.made_anew;
        self
    }
}

/// The answer; `None` where nothing was observed.
fn answer(mut sum: Sum, max_vms: usize) -> Option<SimulateBoundaryResponse> {
    let (from, to) = sum.course.observed()?;
    let mut total = Effect::default();
    for effect in &sum.effects {
        total.absorb(effect);
    }
    let simulated = sum.effects.len();
    sum.effects.sort_by(|a, b| {
        let ((moved_a, counted_a), (moved_b, counted_b)) = (a.change(), b.change());
        moved_b.total_cmp(&moved_a).then(counted_b.cmp(&counted_a)).then_with(|| a.vm_id.cmp(&b.vm_id))
    });
    let points = sum.course.points().map(|(at, [before, after])| SimulatedPoint {
        at: Some(timestamp(at)),
        harvest_before_bytes: whole(before.round()),
        harvest_after_bytes: whole(after.round()),
    });
    Some(SimulateBoundaryResponse {
        total: Some(told(&total, to - from)),
        points: points.collect(),
        vms: sum.effects.iter().take(max_vms).map(|effect| told(effect, effect.seconds)).collect(),
        from: Some(timestamp(from)),
        to: Some(timestamp(to)),
        vms_simulated: u32::try_from(simulated).unwrap_or(u32::MAX),
        windows: sum.windows,
        forecasts_made_anew: sum.made_anew,
    })
}

/// A mean over a time, rounded.
fn mean(sum: f64, over: Seconds) -> u64 {
    if over > 0.0 { whole((sum / over).round()) } else { 0 }
}

fn told(effect: &Effect, over: Seconds) -> SimulatedEffect {
    let [vm_days, judged_vm_days] = effect.days();
    SimulatedEffect {
        vm_id: effect.vm_id.clone(),
        vm_name: effect.name.clone(),
        host_id: effect.host_id.clone(),
        harvest_before_bytes: mean(effect.harvest[0], over),
        harvest_after_bytes: mean(effect.harvest[1], over),
        violations_before: effect.promises_broken[0],
        violations_after: effect.promises_broken[1],
        reclaimable_before_bytes: mean(effect.reclaimable[0], over),
        reclaimable_after_bytes: mean(effect.reclaimable[1], over),
        boundary_violations_before: effect.band_left[0],
        boundary_violations_after: effect.band_left[1],
        vm_days,
        judged_vm_days,
    }
}
