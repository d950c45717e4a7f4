//! Which agents are heard. Heartbeats stay in memory and are written down in batches; pure, times are given.
//!
//! Silence counts only while a registry listens: after a restart an agent is as late as it was when the registry went away.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use memharvest_proto::collector::v1::Finding;
use memharvest_proto::registry::v1::{Agent, AgentState};

use crate::store::StoredAgent;
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

/// What was heard of one agent.
#[derive(Debug, Default)]
struct Heard {
    instance_id: String,
    /// From when silence counts.
    silent_since_ns: i64,
    last_seen_ns: i64,
    findings: Vec<Finding>,
    ordered_interval_ns: Option<i64>,
    decommissioned: bool,
    /// Other processes that registered with the same id, and when each was heard.
    others: BTreeMap<String, i64>,
    unwritten: bool,
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
        let restored = agents.iter().map(|stored| {
            let last_seen_ns = stored.agent.last_seen_at.as_ref().and_then(instant_to_ns).unwrap_or(0);
            let silence = listened_until_ns.saturating_sub(last_seen_ns).max(0);
            let heard = Heard {
                instance_id: stored.agent.instance_id.clone(),
                silent_since_ns: now_ns.saturating_sub(silence),
                last_seen_ns,
                ordered_interval_ns: stored.ordered_interval_ns,
                decommissioned: stored.agent.state() == AgentState::Decommissioned,
                ..Heard::default()
            };
            (stored.agent.agent_id.clone(), heard)
        });
        Self { timing, agents: restored.collect() }
    }

    /// When agents count as late and as lost.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// Notes that an agent has registered, and that it lives.
    pub fn register(&mut self, stored: &StoredAgent, now_ns: i64) {
        let late_after = self.timing.late_after_ns();
        let heard = self.agents.entry(stored.agent.agent_id.clone()).or_default();
        let instance = &stored.agent.instance_id;
        if !heard.instance_id.is_empty() && heard.instance_id != *instance {
            let former = std::mem::take(&mut heard.instance_id);
            heard.others.insert(former, heard.last_seen_ns);
        }
        heard.others.retain(|other, seen| other != instance && now_ns.saturating_sub(*seen) < late_after);
        heard.instance_id.clone_from(instance);
        heard.last_seen_ns = heard.last_seen_ns.max(now_ns);
        heard.silent_since_ns = now_ns;
        heard.decommissioned = false;
        heard.ordered_interval_ns = stored.ordered_interval_ns;
    }

    /// Notes what an operator changed of an agent.
    pub fn update(&mut self, stored: &StoredAgent) {
        if let Some(heard) = self.agents.get_mut(&stored.agent.agent_id) {
            heard.ordered_interval_ns = stored.ordered_interval_ns;
            heard.decommissioned = stored.agent.state() == AgentState::Decommissioned;
        }
    }

    /// Takes a heartbeat.
    pub fn heartbeat(
        &mut self,
        agent_id: &str,
        instance_id: &str,
        findings: Vec<Finding>,
        now_ns: i64,
    ) -> Heartbeat {
        let Some(heard) = self.agents.get_mut(agent_id) else { return Heartbeat::Unknown };
        if heard.decommissioned {
            return if heard.instance_id == instance_id {
                Heartbeat::Decommissioned
            } else {
                Heartbeat::Unknown
            };
        }
        if heard.instance_id == instance_id {
            heard.findings = findings;
            heard.last_seen_ns = heard.last_seen_ns.max(now_ns);
            heard.silent_since_ns = now_ns;
            heard.unwritten = true;
        } else if let Some(seen) = heard.others.get_mut(instance_id) {
            *seen = now_ns;
        } else {
            return Heartbeat::Unknown;
        }
        Heartbeat::Heard { ordered_interval_ns: heard.ordered_interval_ns }
    }

    /// Completes a stored agent by what was heard of it: its state, last sign of life, findings and duplicate.
    pub fn complete(&self, agent: &mut Agent, now_ns: i64) {
        let Some(heard) = self.agents.get(&agent.agent_id) else { return };
        agent.last_seen_at = Some(instant_from_ns(heard.last_seen_ns));
        agent.findings.clone_from(&heard.findings);
        let late_after = self.timing.late_after_ns();
        let duplicate = heard.others.iter().find(|(_, seen)| now_ns.saturating_sub(**seen) < late_after);
        agent.duplicate_instance_id = duplicate.map(|(instance, _)| instance.clone()).unwrap_or_default();
        let silence = now_ns.saturating_sub(heard.silent_since_ns);
        let state = if heard.decommissioned {
            AgentState::Decommissioned
        } else if silence < late_after {
            AgentState::Live
        } else if silence < nanoseconds(self.timing.lost_after) {
            AgentState::Late
        } else {
            AgentState::Lost
        };
        agent.set_state(state);
    }

    /// The agents heard since this was last asked, with when; they are to be written down.
    pub fn take_unwritten(&mut self) -> Vec<(String, i64)> {
        let unwritten = self.agents.iter_mut().filter(|(_, heard)| heard.unwritten);
        unwritten
            .map(|(agent_id, heard)| {
                heard.unwritten = false;
                (agent_id.clone(), heard.last_seen_ns)
            })
            .collect()
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
        StoredAgent { agent, ordered_interval_ns: None }
    }

    fn seen(presence: &Presence, at_s: i64) -> Agent {
        let mut agent = stored("a", 0).agent;
        presence.complete(&mut agent, at_s * SECOND);
        agent
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
        assert_eq!(presence.take_unwritten(), [("h".to_owned(), 301 * SECOND)]);
        assert!(presence.take_unwritten().is_empty());
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
        presence.register(&stored("b", 0), SECOND);
        assert_eq!(seen(&presence, 2).duplicate_instance_id, "a");
        assert!(heard(presence.heartbeat("h", "a", vec![], 20 * SECOND)));
        assert!(heard(presence.heartbeat("h", "b", vec![], 25 * SECOND)));
        assert_eq!(seen(&presence, 49).duplicate_instance_id, "a");
        assert_eq!(seen(&presence, 50).duplicate_instance_id, "");
        assert_eq!(presence.heartbeat("h", "c", vec![], 50 * SECOND), Heartbeat::Unknown);
    }

    #[test]
    fn what_is_decommissioned_stays_so_until_it_is_started_again() {
        let mut presence = Presence::restore(TIMING, &[], 0, 0);
        presence.register(&stored("a", 0), 0);
        let mut gone = stored("a", 0);
        gone.agent.set_state(AgentState::Decommissioned);
        presence.update(&gone);
        assert_eq!(state(&presence, 1), AgentState::Decommissioned);
        assert_eq!(presence.heartbeat("h", "a", vec![], SECOND), Heartbeat::Decommissioned);
        presence.register(&stored("b", 0), 2 * SECOND);
        assert_eq!(state(&presence, 3), AgentState::Live);
    }
}
