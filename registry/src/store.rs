//! The seam between the RPCs and the database: what a store must do, one trait a family.
//!
//! Records are the contract's own messages, checked by [`crate::check`] before they come here. Every change and its audit event are one
//! transaction, and a method that has returned has made its change durable. Times are given by the caller, in nanoseconds since 1970.

use std::collections::BTreeMap;

use memharvest_proto::collector::v1::Finding;
use memharvest_proto::registry::v1::{
    Agent, AgentKind, AuditEvent, Boundary, BoundaryValues, CoverageRollup, HostHarvest, HostRollup, Lease,
    LeaseState, ModelSnapshot, RecordHarvestRequest, RegisterAgentRequest, Role, Token, Violation,
    ViolationCount, ViolationKind, ViolationState, VmRollup,
};
use memharvest_services::shutdown::Stop;
use tokio::sync::watch;
use uuid::Uuid;

use crate::lease::{Moment, Refusal, Reservation};
use crate::scope::Scope;

pub mod postgres;
pub mod sqlite;

mod failure;
mod hints;

/// Why a store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// There is no such thing.
    #[error("{0} is not known")]
    NotFound(String),
    /// Somebody else has changed it in between.
    #[error("{subject} has changed since it was read: its etag is {current}, not {given}; read it again")]
    Stale {
        /// What was to change.
        subject: String,
        /// The etag that it has now, or the word `none`.
        current: String,
        /// The etag that was given.
        given: String,
    },
    /// A change that must say which state it rests on does not.
    #[error("{subject} exists: a change must carry the etag that it rests on, {current} now")]
    EtagMissing {
        /// What was to change.
        subject: String,
        /// The etag that it has now.
        current: String,
    },
    /// An operator took the agent out of service.
    #[error("agent {0} is decommissioned; a restart of it brings it back")]
    Decommissioned(String),
    /// A lease is not made or changed.
    #[error(transparent)]
    Lease(#[from] Refusal),
    /// More rows than one answer may hold.
    #[error("more than {0} points: give a longer step or a shorter range")]
    TooMany(usize),
    /// Busy, locked, or closing: the same call may pass later.
    #[error("the database is busy: {0}; try again")]
    Unavailable(String),
    /// No room is left on the disk.
    #[error("the database's disk is full; free some space")]
    Full,
    /// Anything else: damaged, unreadable, or a mistake of ours.
    #[error("the database failed: {0}")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// What a store answers.
pub type Result<T> = std::result::Result<T, StoreError>;

/// Who asks for a change, and why.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// Who.
    pub author: String,
    /// Why; may be empty.
    pub reason: String,
    /// When, in nanoseconds since 1970.
    pub at_ns: i64,
}

/// An agent as stored, and what an operator ordered.
#[derive(Clone, Debug)]
pub struct StoredAgent {
    /// With the labels and interval that hold. Its state is `DECOMMISSIONED` or not said: whether it is heard is not stored.
    pub agent: Agent,
    /// How often an operator told it to sample, in nanoseconds.
    pub ordered_interval_ns: Option<i64>,
    /// Other processes that used its id, and when each was last heard, in nanoseconds since 1970.
    pub others: BTreeMap<String, i64>,
    /// A collector's older namesake in service: its host may have been reinstalled.
    pub namesake: Option<String>,
}

/// When a process was heard under the id of an agent.
#[derive(Clone, Debug, PartialEq)]
pub struct SignOfLife {
    /// The agent.
    pub agent_id: String,
    /// The process.
    pub instance_id: String,
    /// When, in nanoseconds since 1970.
    pub last_seen_ns: i64,
    /// What it found, where that is to be written down as well.
    pub findings: Option<Vec<Finding>>,
}

/// Agents.
pub trait AgentStore: Send + Sync + 'static {
    /// Makes an agent known or known again; the etag changes only where something else did. What an operator ordered stays.
    ///
    /// Errors: [`StoreError::Decommissioned`] for the very process that was decommissioned.
    fn register_agent(
        &self,
        agent: &RegisterAgentRequest,
        at_ns: i64,
    ) -> impl Future<Output = Result<StoredAgent>> + Send;

    /// One agent.
    fn agent(&self, agent_id: &str) -> impl Future<Output = Result<StoredAgent>> + Send;

    /// Agents with an id after `after`, ordered by id. Empty `kinds`: all.
    fn agents(
        &self,
        after: &str,
        kinds: &[AgentKind],
        limit: u32,
    ) -> impl Future<Output = Result<Vec<StoredAgent>>> + Send;

    /// Orders labels or an interval (nanoseconds); `None` leaves what is. Audited.
    fn update_agent(
        &self,
        agent_id: &str,
        etag: &str,
        labels: Option<&BTreeMap<String, String>>,
        interval_ns: Option<i64>,
        change: &Change,
    ) -> impl Future<Output = Result<StoredAgent>> + Send;

    /// Takes an agent out of service. Audited; doing it again changes nothing.
    fn decommission_agent(
        &self,
        agent_id: &str,
        change: &Change,
    ) -> impl Future<Output = Result<StoredAgent>> + Send;

    /// Writes down when agents were last heard, and until when the registry has listened; what is written already and newer stays.
    fn checkpoint_agents(
        &self,
        heard: &[SignOfLife],
        listened_until_ns: i64,
    ) -> impl Future<Output = Result<()>> + Send;

    /// Until when a registry has listened to agents, in nanoseconds since 1970; 0: never.
    fn listened_until_ns(&self) -> impl Future<Output = Result<i64>> + Send;
}

/// Boundaries.
pub trait BoundaryStore: Send + Sync + 'static {
    /// Sets all fields of a scope. An empty etag: the scope must be new. Audited.
    fn set_boundary(
        &self,
        scope: &Scope,
        values: &BoundaryValues,
        etag: &str,
        change: &Change,
    ) -> impl Future<Output = Result<Boundary>> + Send;

    /// Removes what is set at a scope; returns the version that removed it. Audited.
    fn delete_boundary(
        &self,
        scope: &Scope,
        etag: &str,
        change: &Change,
    ) -> impl Future<Output = Result<Boundary>> + Send;

    /// What is set at a scope.
    fn boundary(&self, scope: &Scope) -> impl Future<Output = Result<Boundary>> + Send;

    /// What is set at each of these scopes, where something is, in their order.
    fn boundaries_at(&self, scopes: &[Scope]) -> impl Future<Output = Result<Vec<Boundary>>> + Send;

    /// Boundaries with a scope after `after`, ordered by scope.
    fn boundaries(&self, after: &str, limit: u32) -> impl Future<Output = Result<Vec<Boundary>>> + Send;

    /// Versions of a scope below `before`, newest first, removals included.
    fn boundary_versions(
        &self,
        scope: &Scope,
        before: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Boundary>>> + Send;

    /// All boundaries, and the revision of the whole set that they are: one consistent view.
    fn boundary_snapshot(&self) -> impl Future<Output = Result<(u64, Vec<Boundary>)>> + Send;

    /// Versions after a revision, each with its own, in order, none left out.
    fn boundary_changes(
        &self,
        after: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<(u64, Boundary)>>> + Send;

    /// Wakes when the revision grows. Only a hint: read the changes from the store.
    fn boundary_revision(&self) -> watch::Receiver<u64>;
}

/// The machines or the host that history is asked for, over `[from_s, to_s)` in seconds since 1970.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// From this second.
    pub from_s: i64,
    /// Until before this one.
    pub to_s: i64,
    /// More windows than this are refused.
    pub limit: usize,
}

/// How much history is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Machines known.
    pub vms: u64,
    /// Hosts known.
    pub hosts: u64,
    /// Bytes of the database on disk, log included.
    pub bytes: u64,
}

/// History.
pub trait HarvestStore: Send + Sync + 'static {
    /// Stores a batch whole or not at all; returns how many records were stored.
    fn record_harvest(&self, batch: &RecordHarvestRequest) -> impl Future<Output = Result<u64>> + Send;

    /// Windows of a machine, oldest first. [`StoreError::NotFound`] for one that was never recorded.
    fn vm_history(&self, vm: Uuid, range: Range) -> impl Future<Output = Result<Vec<VmRollup>>> + Send;

    /// Windows of a host, oldest first. [`StoreError::NotFound`] for one that was never recorded.
    fn host_history(
        &self,
        host_id: &str,
        range: Range,
    ) -> impl Future<Output = Result<Vec<HostRollup>>> + Send;

    /// The newest window of machines with an id after `after`, ordered by id. Empty host: all.
    fn latest_vms(
        &self,
        after: Option<Uuid>,
        host_id: &str,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<VmRollup>>> + Send;

    /// The newest window of every host, ordered by id. Empty host: all.
    fn latest_hosts(&self, host_id: &str) -> impl Future<Output = Result<Vec<HostRollup>>> + Send;

    /// Coverage of windows from `since_s` on, summed by signal, horizon and target. Empty host: all.
    fn coverage(
        &self,
        host_id: &str,
        since_s: i64,
    ) -> impl Future<Output = Result<Vec<CoverageRollup>>> + Send;

    /// The host that a machine was last recorded on.
    fn host_of(&self, vm: Uuid) -> impl Future<Output = Result<Option<String>>> + Send;

    /// Makes room for the windows that come next.
    fn prepare_history(&self, now_s: i64) -> impl Future<Output = Result<()>> + Send;

    /// Merges a step of the windows before a second to hourly ones; returns how many were merged. 0: nothing is left to merge.
    fn fold_history(&self, before_s: i64) -> impl Future<Output = Result<u64>> + Send;

    /// Removes a small step of the history before a second; returns how many records went. 0: nothing is left to remove.
    fn prune_history(&self, before_s: i64) -> impl Future<Output = Result<u64>> + Send;

    /// How much is stored.
    fn stored(&self) -> impl Future<Output = Result<Stored>> + Send;
}

/// Which violations a list holds. `None` and empty: all.
#[derive(Clone, Debug, Default)]
pub struct ViolationFilter {
    /// Only in this state.
    pub state: Option<ViolationState>,
    /// Only of this kind.
    pub kind: Option<ViolationKind>,
    /// Only on this host.
    pub host_id: String,
    /// Only of this machine.
    pub vm: Option<Uuid>,
    /// Only those that opened at or after this time, in nanoseconds since 1970.
    pub since_ns: Option<i64>,
    /// Only acknowledged ones, or only those that are not.
    pub acknowledged: Option<bool>,
    /// Only those older than this one: its opening (nanoseconds) and its id.
    pub older_than: Option<(i64, String)>,
}

/// The ledger of violations.
pub trait ViolationStore: Send + Sync + 'static {
    /// Stores episodes or brings them forward, whole or not at all; returns how many changed.
    fn record_violations(
        &self,
        predictor_id: &str,
        violations: &[Violation],
    ) -> impl Future<Output = Result<u64>> + Send;

    /// Violations without their series, newest first.
    fn violations(
        &self,
        filter: &ViolationFilter,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<Violation>>> + Send;

    /// How many violations there are, by kind and state.
    fn violation_counts(&self) -> impl Future<Output = Result<Vec<ViolationCount>>> + Send;

    /// One violation with its series.
    fn violation(&self, violation_id: &str) -> impl Future<Output = Result<Violation>> + Send;

    /// Notes that a person has seen it. Audited.
    fn acknowledge_violation(
        &self,
        violation_id: &str,
        note: &str,
        change: &Change,
    ) -> impl Future<Output = Result<Violation>> + Send;

    /// Notes why it happened. Audited.
    fn explain_violation(
        &self,
        violation_id: &str,
        explanation: &str,
        change: &Change,
    ) -> impl Future<Output = Result<Violation>> + Send;

    /// The open violations, and the sequence of changes that they are: one consistent view.
    fn open_violations(&self) -> impl Future<Output = Result<(u64, Vec<Violation>)>> + Send;

    /// Violations that changed after a sequence, as they are now, in the order of their newest change.
    fn violation_changes(
        &self,
        after: u64,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<(u64, Violation)>>> + Send;

    /// Wakes when the sequence grows. Only a hint: read the changes from the store.
    fn violation_sequence(&self) -> watch::Receiver<u64>;
}

/// Which leases a list holds. `None` and empty: all.
#[derive(Clone, Debug, Default)]
pub struct LeaseFilter {
    /// Only on this host.
    pub host_id: String,
    /// Only in this state.
    pub state: Option<LeaseState>,
    /// Only those older than this one, by the number that comes with it.
    pub older_than: Option<u64>,
}

/// Leases. What each holds back is worked out when it is read, from the newest window of its consumer.
pub trait LeaseStore: Send + Sync + 'static {
    /// The store's clock, in nanoseconds since 1970: leases run on it, whichever registry looks.
    fn clock_ns(&self) -> impl Future<Output = Result<i64>> + Send;

    /// Makes a lease where the host's harvest suffices, or gives the one that the same request made before. Audited.
    ///
    /// Errors: [`StoreError::Lease`].
    fn reserve(&self, reservation: &Reservation, now: Moment) -> impl Future<Output = Result<Lease>> + Send;

    /// Changes a lease by a pure function of it, which gives `None` to leave it as it is. Audited as `action`.
    ///
    /// Errors: [`StoreError::NotFound`], or the refusal of the function.
    fn change_lease(
        &self,
        lease_id: &str,
        now: Moment,
        action: &'static str,
        change: &Change,
        function: impl Fn(&Lease) -> std::result::Result<Option<Lease>, Refusal> + Send + Sync,
    ) -> impl Future<Output = Result<Lease>> + Send;

    /// Leases, newest first, each with a number that grows with the reservations.
    fn leases(
        &self,
        filter: &LeaseFilter,
        limit: u32,
        now: Moment,
    ) -> impl Future<Output = Result<Vec<(u64, Lease)>>> + Send;

    /// All leases that hold memory back, newest first, and the sequence of changes that they are: one consistent view.
    fn holding_leases(&self, now: Moment) -> impl Future<Output = Result<(u64, Vec<Lease>)>> + Send;

    /// Leases that changed after a sequence, as they are now, in the order of their newest change.
    fn lease_changes(
        &self,
        after: u64,
        limit: u32,
        now: Moment,
    ) -> impl Future<Output = Result<Vec<(u64, Lease)>>> + Send;

    /// Wakes when the sequence grows. Only a hint: read the changes from the store.
    fn lease_sequence(&self) -> watch::Receiver<u64>;

    /// Ends the leases whose time is over; returns how many. Audited in the name of `author`.
    fn end_leases(&self, now: Moment, author: &str) -> impl Future<Output = Result<u64>> + Send;

    /// The harvest of every host that a lease holds memory back on, as told last.
    fn leased_harvests(&self) -> impl Future<Output = Result<Vec<HostHarvest>>> + Send;

    /// Removes some leases that ended before a time; returns how many went. 0: nothing is left to remove.
    fn prune_leases(&self, before_ns: i64) -> impl Future<Output = Result<u64>> + Send;
}

/// Snapshots of models.
pub trait ModelStore: Send + Sync + 'static {
    /// Stores snapshots whole or not at all; returns the machines whose stored snapshot is newer.
    fn put_snapshots(&self, snapshots: &[ModelSnapshot]) -> impl Future<Output = Result<Vec<String>>> + Send;

    /// Snapshots of a host's machines with an id after `after`, ordered by id.
    fn snapshots_of_host(
        &self,
        host_id: &str,
        after: Option<Uuid>,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<ModelSnapshot>>> + Send;

    /// Snapshots of these machines, where there is one.
    fn snapshots_of(&self, vms: &[Uuid]) -> impl Future<Output = Result<Vec<ModelSnapshot>>> + Send;

    /// Removes some snapshots that were taken before a time; returns how many went. 0: nothing is left to remove.
    fn prune_snapshots(&self, before_ns: i64) -> impl Future<Output = Result<u64>> + Send;
}

/// A token to make.
#[derive(Clone, Debug)]
pub struct NewToken {
    /// Its id.
    pub token_id: String,
    /// What it is for.
    pub name: String,
    /// What it allows.
    pub role: Role,
    /// SHA-256 of its secret.
    pub secret_hash: [u8; 32],
    /// When it ends, in nanoseconds since 1970; `None`: never.
    pub expires_ns: Option<i64>,
}

/// Tokens.
pub trait TokenStore: Send + Sync + 'static {
    /// Makes a token. Audited, without anything of its secret.
    fn create_token(&self, token: &NewToken, change: &Change) -> impl Future<Output = Result<Token>> + Send;

    /// Ends a token; doing it again changes nothing. Audited.
    fn revoke_token(&self, token_id: &str, change: &Change) -> impl Future<Output = Result<Token>> + Send;

    /// Tokens, newest first, each with a number that grows with their making. `before`: only smaller numbers.
    fn tokens(&self, before: u64, limit: u32) -> impl Future<Output = Result<Vec<(u64, Token)>>> + Send;

    /// The token of a secret, be it ended or not.
    fn token_by_hash(&self, secret_hash: &[u8; 32]) -> impl Future<Output = Result<Option<Token>>> + Send;

    /// Writes down when tokens were last used (id, nanoseconds since 1970).
    fn tokens_used(&self, used: &[(String, i64)]) -> impl Future<Output = Result<()>> + Send;
}

/// Which events of the audit log a list holds. `None` and empty: all.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only on this subject.
    pub subject: String,
    /// Only by this author.
    pub author: String,
    /// Only this action, or all whose name begins with it and a dot.
    pub action: String,
    /// Only at or after this time, in nanoseconds since 1970.
    pub since_ns: Option<i64>,
    /// Only before this time, in nanoseconds since 1970.
    pub until_ns: Option<i64>,
    /// Only with an id below this one.
    pub before: Option<u64>,
}

/// The audit log.
pub trait AuditStore: Send + Sync + 'static {
    /// Events, newest first.
    fn audit_events(
        &self,
        filter: &AuditFilter,
        limit: u32,
    ) -> impl Future<Output = Result<Vec<AuditEvent>>> + Send;

    /// Notes that a caller was refused: `change` says who, why and when, `subject` what it tried.
    fn note_refusal(&self, subject: &str, change: &Change) -> impl Future<Output = Result<()>> + Send;
}

/// A whole store.
pub trait Store:
    AgentStore + BoundaryStore + HarvestStore + ViolationStore + LeaseStore + ModelStore + TokenStore + AuditStore
{
    /// Hears of what other registries on the same database change, and wakes who waits for it, until `stop` is requested.
    fn follow(&self, stop: Stop) -> impl Future<Output = ()> + Send;

    /// Finishes what is running and lets go of the database.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// The etag of a thing that counts its changes: the text of the HTTP header, quotes included. The count goes on when the thing is removed
/// and made again, so that no etag ever stands for two states.
#[must_use]
pub fn etag(version: u64) -> String {
    format!("\"{version}\"")
}

/// Compares the etag that a change rests on with the one that holds.
fn check_etag(subject: &str, current: &str, given: &str) -> Result<()> {
    if given.is_empty() {
        return Err(StoreError::EtagMissing { subject: subject.to_owned(), current: current.to_owned() });
    }
    if given != current {
        return Err(StoreError::Stale {
            subject: subject.to_owned(),
            current: current.to_owned(),
            given: given.to_owned(),
        });
    }
    Ok(())
}
