//! Which agents are heard. Heartbeats stay in memory and are written down in batches; pure, times are given.
//!
//! Silence counts only while a registry listens: after a restart an agent is as late as it was when the registry went away. Several
//! registries may share a store: what this one heard is completed by what the others have written down.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use memharvest_proto::collector::v1::{Finding, Severity};
use memharvest_proto::registry::v1::{Agent, AgentState};

use crate::store::{SignOfLife, StoredAgent};
use crate::time::{instant_from_ns, instant_to_ns};

/// Heartbeats that an agent may miss before it is late.
const MISSED: i64 = 3;

/// When an agent counts as late and as lost.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How often agents send a heartbeat.
    pub heartbeat_interval: Duration,
    /// How long an agent may be silent before it is lost.
    pub lost_after: Duration,
}

impl Timing {
    fn late_after_ns(self) -> i64 {
        nanoseconds(self.heartbeat_interval).saturating_mul(MISSED)
    }
}

fn nanoseconds(length: Duration) -> i64 {
    i64::try_from(length.as_nanos()).unwrap_or(i64::MAX)
}

/// How a heartbeat was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heartbeat {
    /// The agent lives; it may have been told how often to sample, in nanoseconds.
    Heard {
        /// What an operator ordered.
        ordered_interval_ns: Option<i64>,
    },
    /// Nobody by this id and instance has registered.
    Unknown,
    /// An operator took it out of service.
    Decommissioned,
}

/// When a process was heard here.
#[derive(Clone, Copy, Debug, Default)]
struct Sign {
    last_seen_ns: i64,
    unwritten: bool,
}

/// What was heard of one agent.
#[derive(Debug, Default)]
struct Heard {
    /// The process that holds the id: the one that registered last.
    instance_id: String,
    /// All processes that use the id.
    signs: BTreeMap<String, Sign>,
    /// Before this, silence does not count.
    listening_since_ns: i64,
    /// What the process that holds the id found; `None` until it has told this registry.
    findings: Option<Vec<Finding>>,
    findings_unwritten: bool,
    ordered_interval_ns: Option<i64>,
    decommissioned: bool,
}

impl Heard {
    /// Takes over what the store knows.
    fn learn(&mut self, stored: &StoredAgent) {
        if self.instance_id != stored.agent.instance_id {
            self.instance_id.clone_from(&stored.agent.instance_id);
            self.findings = None;
            self.findings_unwritten = false;
        }
        self.ordered_interval_ns = stored.ordered_interval_ns;
        self.decommissioned = stored.agent.state() == AgentState::Decommissioned;
        let holder = (&stored.agent.instance_id, last_seen_ns(&stored.agent));
        for (instance, seen) in stored.others.iter().map(|(other, seen)| (other, *seen)).chain([holder]) {
            let sign = self.signs.entry(instance.clone()).or_default();
            sign.last_seen_ns = sign.last_seen_ns.max(seen);
        }
    }

    fn hear(&mut self, instance_id: &str, now_ns: i64) {
        let sign = self.signs.entry(instance_id.to_owned()).or_default();
        *sign = Sign { last_seen_ns: sign.last_seen_ns.max(now_ns), unwritten: true };
    }
}

fn last_seen_ns(agent: &Agent) -> i64 {
    agent.last_seen_at.as_ref().and_then(instant_to_ns).unwrap_or(0)
}

/// What was heard of all agents.
#[derive(Debug)]
pub struct Presence {
    timing: Timing,
    agents: HashMap<String, Heard>,
}

impl Presence {
    /// Starts from what is stored. `listened_until_ns` is when the last registry stopped listening, 0 where there was none.
    #[must_use]
    pub fn restore(timing: Timing, agents: &[StoredAgent], listened_until_ns: i64, now_ns: i64) -> Self {
        let mut presence = Self { timing, agents: HashMap::with_capacity(agents.len()) };
        presence.learn(agents, now_ns);
        for stored in agents {
            if let Some(heard) = presence.agents.get_mut(&stored.agent.agent_id) {
                let silence = listened_until_ns.saturating_sub(last_seen_ns(&stored.agent)).max(0);
                heard.listening_since_ns = now_ns.saturating_sub(silence);
            }
        }
        presence
    }

    /// When agents count as late and as lost.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Takes over what the store knows of these agents: what operators ordered, who holds an id, and what other registries heard.
    pub fn learn(&mut self, agents: &[StoredAgent], now_ns: i64) {
        let lost_after = nanoseconds(self.timing.lost_after);
        for stored in agents {
            let heard = self.agents.entry(stored.agent.agent_id.clone()).or_default();
            heard.learn(stored);
            let holder = &heard.instance_id;
            heard.signs.retain(|instance, sign| {
                instance == holder || sign.unwritten || now_ns.saturating_sub(sign.last_seen_ns) < lost_after
            });
        }
    }

    /// Notes that an agent has registered here, and that it lives.
    pub fn register(&mut self, stored: &StoredAgent, now_ns: i64) {
        self.learn(std::slice::from_ref(stored), now_ns);
        if let Some(heard) = self.agents.get_mut(&stored.agent.agent_id) {
            heard.hear(&stored.agent.instance_id, now_ns);
        }
    }

    /// Takes a heartbeat. `Unknown` is final only where the store does not know the process either: see [`Presence::learn`].
    pub fn heartbeat(
        &mut self,
        agent_id: &str,
        instance_id: &str,
        findings: Vec<Finding>,
        now_ns: i64,
    ) -> Heartbeat {
        let Some(heard) = self.agents.get_mut(agent_id) else { return Heartbeat::Unknown };
        let holds_id = heard.instance_id == instance_id;
        if heard.decommissioned {
            return if holds_id { Heartbeat::Decommissioned } else { Heartbeat::Unknown };
        }
        if !heard.signs.contains_key(instance_id) {
            return Heartbeat::Unknown;
        }
        heard.hear(instance_id, now_ns);
        if holds_id {
            heard.findings_unwritten |= heard.findings.as_ref() != Some(&findings);
            heard.findings = Some(findings);
        }
        Heartbeat::Heard { ordered_interval_ns: heard.ordered_interval_ns }
    }

    /// Completes a stored agent by what was heard of it: its state, last sign of life, findings and duplicate.
    #[must_use]
    pub fn complete(&self, stored: StoredAgent, now_ns: i64) -> Agent {
        let StoredAgent { mut agent, mut others, namesake, .. } = stored;
        let nobody = Heard::default();
        let heard = self.agents.get(&agent.agent_id).unwrap_or(&nobody);
        for (instance, sign) in &heard.signs {
            let seen = others.entry(instance.clone()).or_default();
            *seen = sign.last_seen_ns.max(*seen);
        }
        let written_ns = last_seen_ns(&agent);
        let heard_ns = others.remove(&agent.instance_id).unwrap_or(0);
        let seen_ns = heard_ns.max(written_ns);
        agent.last_seen_at = Some(instant_from_ns(seen_ns));
        if let Some(findings) = &heard.findings
            && heard.instance_id == agent.instance_id
            && heard_ns >= written_ns
        {
            agent.findings.clone_from(findings);
        }
        let late_after = self.timing.late_after_ns();
        let duplicate = others.into_iter().find(|(_, seen)| now_ns.saturating_sub(*seen) < late_after);
        agent.duplicate_instance_id = duplicate.map(|(instance, _)| instance).unwrap_or_default();
        let silence = now_ns.saturating_sub(seen_ns.max(heard.listening_since_ns));
        let state = if agent.state() == AgentState::Decommissioned {
            AgentState::Decommissioned
        } else if silence < late_after {
            AgentState::Live
        } else if silence < nanoseconds(self.timing.lost_after) {
            AgentState::Late
        } else {
            AgentState::Lost
        };
        agent.set_state(state);
        agent.findings.extend(namesake.map(|namesake| reinstalled(&agent, &namesake)));
        agent
    }

    /// The processes heard since this was last asked, with when; they are to be written down.
    pub fn take_unwritten(&mut self) -> Vec<SignOfLife> {
        let mut unwritten = Vec::new();
        for (agent_id, heard) in &mut self.agents {
            for (instance_id, sign) in heard.signs.iter_mut().filter(|(_, sign)| sign.unwritten) {
                sign.unwritten = false;
                let changed = heard.findings_unwritten && *instance_id == heard.instance_id;
                unwritten.push(SignOfLife {
                    agent_id: agent_id.clone(),
                    instance_id: instance_id.clone(),
                    last_seen_ns: sign.last_seen_ns,
                    findings: heard.findings.clone().filter(|_| changed),
                });
            }
            heard.findings_unwritten = false;
        }
        unwritten.sort_by(|a, b| (&a.agent_id, &a.instance_id).cmp(&(&b.agent_id, &b.instance_id)));
        unwritten
    }

    /// What [`Presence::take_unwritten`] gave could not be written down: it is to be tried again.
    pub fn put_back(&mut self, unwritten: &[SignOfLife]) {
        for sign in unwritten {
            let Some(heard) = self.agents.get_mut(&sign.agent_id) else { continue };
            heard.findings_unwritten |= sign.findings.is_some() && heard.instance_id == sign.instance_id;
            if let Some(known) = heard.signs.get_mut(&sign.instance_id) {
                known.unwritten = true;
            }
        }
    }
}

/// A host that was installed anew has a new id; its old agent stays, and is lost for good until somebody says so.
fn reinstalled(agent: &Agent, namesake: &str) -> Finding {
    Finding {
        host_id: agent.agent_id.clone(),
        code: "namesake".to_owned(),
        severity: Severity::Info.into(),
        cause: format!("agent {namesake} has the same host name {} and registered earlier", agent.name),
        cure: format!(
            "decommission {namesake} if the host was installed anew; give one of them another name if these are two hosts"
        ),
        since: agent.registered_at,
        ..Finding::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const TIMING: Timing =
        Timing { heartbeat_interval: Duration::from_secs(10), lost_after: Duration::from_mins(5) };

    fn stored(instance_id: &str, last_seen_ns: i64) -> StoredAgent {
        let agent = Agent {
            agent_id: "h".to_owned(),
            instance_id: instance_id.to_owned(),
            last_seen_at: Some(instant_from_ns(last_seen_ns)),
            ..Agent::default()
        };
        StoredAgent { agent, ordered_interval_ns: None, others: BTreeMap::new(), namesake: None }
    }

    fn seen(presence: &Presence, at_s: i64) -> Agent {
        presence.complete(stored("a", 0), at_s * SECOND)
    }

    fn state(presence: &Presence, at_s: i64) -> AgentState {
        seen(presence, at_s).state()
    }

    fn heard(result: Heartbeat) -> bool {
        matches!(result, Heartbeat::Heard { .. })
    }

    #[test]
    fn an_agent_goes_from_live_to_late_to_lost_and_comes_back() {
        let mut presence = Presence::restore(TIMING, &[], 0, 0);
        assert_eq!(presence.heartbeat("h", "a", vec![], 0), Heartbeat::Unknown);
        presence.register(&stored("a", 0), 0);
        assert_eq!(state(&presence, 29), AgentState::Live);
        assert_eq!(state(&presence, 30), AgentState::Late);
        assert_eq!(state(&presence, 299), AgentState::Late);
        assert_eq!(state(&presence, 300), AgentState::Lost);
        assert!(heard(presence.heartbeat("h", "a", vec![Finding::default()], 301 * SECOND)));
        assert_eq!(state(&presence, 302), AgentState::Live);
        assert_eq!(seen(&presence, 302).findings.len(), 1);
        let written = presence.take_unwritten();
        assert_eq!(written.iter().map(|sign| sign.last_seen_ns).collect::<Vec<_>>(), [301 * SECOND]);
        assert_eq!(written[0].findings.as_ref().map(Vec::len), Some(1));
        assert!(presence.take_unwritten().is_empty());
        presence.put_back(&written);
        assert_eq!(presence.take_unwritten(), written);
        assert!(heard(presence.heartbeat("h", "a", vec![Finding::default()], 311 * SECOND)));
        assert_eq!(presence.take_unwritten()[0].findings, None, "nothing new was found");
    }

    #[test]
    fn time_in_which_nobody_listened_is_no_silence() {
        let hour = 3600;
        let presence = Presence::restore(TIMING, &[stored("a", 10 * SECOND)], 15 * SECOND, hour * SECOND);
        assert_eq!(state(&presence, hour), AgentState::Live);
        assert_eq!(state(&presence, hour + 25), AgentState::Late, "5 s before the restart and 25 s after it");
        let presence = Presence::restore(TIMING, &[stored("a", 10 * SECOND)], 400 * SECOND, hour * SECOND);
        assert_eq!(state(&presence, hour), AgentState::Lost, "it was lost before the restart");
    }

    #[test]
    fn two_processes_with_one_id_are_told_apart_until_one_falls_silent() {
        let mut presence = Presence::restore(TIMING, &[], 0, 0);
        presence.register(&stored("a", 0), 0);
        presence.register(&stored("b", SECOND), SECOND);
        let seen = |presence: &Presence, at_s: i64| presence.complete(stored("b", SECOND), at_s * SECOND);
        assert_eq!(seen(&presence, 2).duplicate_instance_id, "a");
        assert!(heard(presence.heartbeat("h", "a", vec![Finding::default()], 20 * SECOND)));
        assert!(heard(presence.heartbeat("h", "b", vec![], 25 * SECOND)));
        assert_eq!(seen(&presence, 49).duplicate_instance_id, "a");
        assert!(seen(&presence, 49).findings.is_empty(), "only what the process found that holds the id");
        assert_eq!(seen(&presence, 50).duplicate_instance_id, "");
        assert_eq!(presence.heartbeat("h", "c", vec![], 50 * SECOND), Heartbeat::Unknown);
        let written = presence.take_unwritten();
        assert_eq!(written.iter().map(|sign| sign.instance_id.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    }

    #[test]
    fn what_other_registries_wrote_down_counts_as_heard() {
        let presence = Presence::restore(TIMING, &[], 0, 0);
        let mut elsewhere = stored("a", 100 * SECOND);
        elsewhere.agent.findings = vec![Finding::default()];
        elsewhere.others.insert("b".to_owned(), 90 * SECOND);
        elsewhere.namesake = Some("g".to_owned());
        let agent = presence.complete(elsewhere.clone(), 110 * SECOND);
        assert_eq!((agent.state(), agent.duplicate_instance_id.as_str()), (AgentState::Live, "b"));
        assert_eq!(agent.findings.iter().map(|one| one.code.as_str()).collect::<Vec<_>>(), ["", "namesake"]);
        assert_eq!(presence.complete(elsewhere.clone(), 130 * SECOND).state(), AgentState::Late);

        let mut presence = presence;
        assert_eq!(presence.heartbeat("h", "a", vec![], 111 * SECOND), Heartbeat::Unknown);
        presence.learn(std::slice::from_ref(&elsewhere), 111 * SECOND);
        assert!(heard(presence.heartbeat("h", "a", vec![], 111 * SECOND)));
        assert!(heard(presence.heartbeat("h", "b", vec![], 112 * SECOND)));
        let agent = presence.complete(elsewhere.clone(), 113 * SECOND);
        assert_eq!(agent.last_seen_at, Some(instant_from_ns(111 * SECOND)));
        assert_eq!(agent.findings.len(), 1, "heard here later than it was written there");
        elsewhere.agent.last_seen_at = Some(instant_from_ns(120 * SECOND));
        assert_eq!(presence.complete(elsewhere, 121 * SECOND).findings.len(), 2, "heard there since");
    }

    #[test]
    fn what_is_decommissioned_stays_so_until_it_is_started_again() {
        let mut presence = Presence::restore(TIMING, &[], 0, 0);
        presence.register(&stored("a", 0), 0);
        let mut gone = stored("a", 0);
        gone.agent.set_state(AgentState::Decommissioned);
        presence.learn(std::slice::from_ref(&gone), 1);
        assert_eq!(presence.complete(gone, SECOND).state(), AgentState::Decommissioned);
        assert_eq!(presence.heartbeat("h", "a", vec![], SECOND), Heartbeat::Decommissioned);
        presence.register(&stored("b", 0), 2 * SECOND);
        assert_eq!(state(&presence, 3), AgentState::Live);
    }
}
