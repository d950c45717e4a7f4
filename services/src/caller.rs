//! Who calls, where the mesh asks for certificates; and what is made of those who are refused.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tonic::Status;

use crate::metrics::Metrics;
use crate::tls::identity::{Identity, Role};

/// The same refusal is told this often at most.
const TOLD_EVERY: Duration = Duration::from_mins(1);
/// Refusals that are told within that time at most; all of them are counted.
const TOLD_AT_MOST: usize = 200;

/// The member of the mesh that makes a call, in the extensions of its request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(crate) identity: Identity,
    pub(crate) method: String,
    pub(crate) refusals: Refusals,
}

impl Caller {
    fn refuse(&self, why: String) -> Status {
        let (who, what) = (self.identity.to_string(), self.method.clone());
        self.refusals.note(Stage::Call, Refusal { who, what, why: why.clone() });
        Status::permission_denied(why)
    }
}

/// Refuses a caller that speaks for an agent (a host, where it is a collector) other than itself. Where nobody is asked who he is,
/// everybody may.
///
/// # Errors
/// `PERMISSION_DENIED`; it is told and counted.
pub fn check_agent(caller: Option<&Caller>, agent_id: &str) -> Result<(), Status> {
    match caller {
        Some(caller) if !caller.identity.is_agent(agent_id) => {
            let identity = &caller.identity;
            Err(caller.refuse(format!("{identity} does not speak for `{}`", shortened(agent_id))))
        }
        _ => Ok(()),
    }
}

/// Refuses a caller that says it is something else than its certificate does.
///
/// # Errors
/// As [`check_agent`].
pub fn check_role(caller: Option<&Caller>, role: Option<Role>) -> Result<(), Status> {
    match caller {
        Some(caller) if role != Some(caller.identity.role()) => {
            let said = role.map_or("something else", Role::as_str);
            Err(caller.refuse(format!("{} is no {said}", caller.identity)))
        }
        _ => Ok(()),
    }
}

/// What a caller wrote, short enough for a log.
fn shortened(text: &str) -> String {
    text.chars().take(128).flat_map(char::escape_debug).collect()
}

/// A caller that was refused.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Refusal {
    /// Its identity, or its address where it has shown none.
    pub who: String,
    /// The method that it called, or `handshake`.
    pub what: String,
    /// Why it may not.
    pub why: String,
}

/// How far a caller came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Its certificate was not accepted.
    Handshake,
    /// It may not make this call.
    Call,
}

/// Counts refusals and tells of them: in the log, and to whoever listens.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    metrics: Metrics,
    listener: Option<mpsc::Sender<Refusal>>,
    told: Arc<Mutex<HashMap<Refusal, Instant>>>,
}

impl Refusals {
    pub(crate) fn new(metrics: &Metrics, listener: Option<mpsc::Sender<Refusal>>) -> Self {
        Self { metrics: metrics.clone(), listener, told: Arc::default() }
    }

    pub(crate) fn note(&self, stage: Stage, refusal: Refusal) {
        self.metrics.refused(match stage {
            Stage::Handshake => "handshake",
            Stage::Call => "call",
        });
        if !self.is_news(&refusal) {
            return;
        }
        let Refusal { who, what, why } = &refusal;
        tracing::warn!(who, what, why, "refused {who}: {why}");
        if let Some(listener) = &self.listener {
            // A listener that does not keep up misses some; the counter has them all.
            let _ = listener.try_send(refusal);
        }
    }

    fn is_news(&self, refusal: &Refusal) -> bool {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.retain(|_, at| at.elapsed() < TOLD_EVERY);
        if told.contains_key(refusal) || told.len() >= TOLD_AT_MOST {
            return false;
        }
        told.insert(refusal.clone(), Instant::now());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICE: crate::Service = crate::Service::new("memharvest-test", "0.0.0");

    fn calls_as(identity: &str, listener: mpsc::Sender<Refusal>) -> Caller {
        let metrics = Metrics::new(&SERVICE).unwrap();
        Caller {
            identity: identity.parse().unwrap(),
            method: "/a.B/C".into(),
            refusals: Refusals::new(&metrics, Some(listener)),
        }
    }

    #[test]
    fn whoever_speaks_for_another_is_refused_and_told_of_once() {
        let (listener, mut heard) = mpsc::channel(8);
        let caller = calls_as("memharvest://collector/h1", listener);
        assert!(check_agent(Some(&caller), "h1").is_ok());
        assert!(check_role(Some(&caller), Some(Role::Collector)).is_ok());
        for _ in 0..2 {
            let status = check_agent(Some(&caller), "h2\n").unwrap_err();
            assert_eq!(status.code(), tonic::Code::PermissionDenied);
        }
        let told = heard.try_recv().unwrap();
        assert_eq!((told.who.as_str(), told.what.as_str()), ("memharvest://collector/h1", "/a.B/C"));
        assert!(told.why.ends_with(r"does not speak for `h2\n`"), "{}", told.why);
        assert!(heard.try_recv().is_err(), "the same is not told again at once");
        let counted = caller.refusals.metrics.render().unwrap();
        assert!(counted.contains("memharvest_refused_callers_total{stage=\"call\"} 2"), "{counted}");
        for role in [Some(Role::Predictor), None] {
            assert!(check_role(Some(&caller), role).is_err());
        }
    }

    #[test]
    fn where_nobody_is_asked_everybody_may() {
        assert!(check_agent(None, "h2").is_ok());
        assert!(check_role(None, None).is_ok());
    }

    #[test]
    fn many_refusals_are_counted_but_not_all_told() {
        let (listener, mut heard) = mpsc::channel(2 * TOLD_AT_MOST);
        let caller = calls_as("memharvest://collector/h1", listener);
        for number in 0..2 * TOLD_AT_MOST {
            assert!(check_agent(Some(&caller), &format!("other{number}")).is_err());
        }
        assert_eq!(std::iter::from_fn(|| heard.try_recv().ok()).count(), TOLD_AT_MOST);
    }
}
