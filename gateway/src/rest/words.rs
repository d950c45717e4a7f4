//! The words that JSON has for the contract's enums, and its spans of time.

use std::fmt;
use std::time::Duration;

use memharvest_proto::{collector::v1 as collector, predictor::v1 as predictor, registry::v1 as registry};
use memharvest_services::settings::duration;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::schema::{Schema, Type};
use utoipa::openapi::{ObjectBuilder, RefOr};
use utoipa::{PartialSchema, ToSchema};

/// A lower-case enum of JSON that stands for one of the contract; what the contract leaves unsaid is absent.
macro_rules! words {
    ($($(#[doc = $doc:literal])* $name:ident = $wire:path { $($variant:ident $word:literal),* $(,)? })*) => {$(
        $(#[doc = $doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $(#[doc = concat!("`", $word, "`")] #[serde(rename = $word)] $variant,)*
        }

        impl $name {
            /// The word for a value of a message; `None` where the message does not say.
            #[must_use]
            pub fn of(value: i32) -> Option<Self> {
                use $wire as Wire;
                match Wire::try_from(value) {
                    $(Ok(Wire::$variant) => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The value for a message.
            #[must_use]
            pub fn wire(self) -> $wire {
                use $wire as Wire;
                match self {
                    $(Self::$variant => Wire::$variant,)*
                }
            }

            /// The word.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $word,)*
                }
            }
        }

        impl PartialSchema for $name {
            fn schema() -> RefOr<Schema> {
                ObjectBuilder::new()
                    .schema_type(Type::String)
                    .description(Some(concat!($($doc),*).trim()))
                    .enum_values(Some([$($word),*]))
                    .into()
            }
        }

        impl ToSchema for $name {}

        impl std::str::FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($word => Ok(Self::$variant),)*
                    _ => Err(format!("must be one of {}", [$($word),*].join(", "))),
                }
            }
        }
    )*};
}

words! {
    /// What is measured and forecast.
    Signal = collector::Signal { Rss "rss", Demand "demand" }
    /// What a machine is doing.
    VmState = collector::VmState {
        Running "running", Paused "paused", Shutdown "shutdown", Crashed "crashed", Suspended "suspended",
        Migrating "migrating",
    }
    /// How far a machine's figures can be trusted, worst first.
    Quality = collector::Quality {
        Stuck "stuck", Unknown "unknown", Paused "paused", Migrating "migrating", Stale "stale",
        Hugepages "hugepages", PrivateMemory "private_memory", NoBalloon "no_balloon", NoPeriod "no_period",
        Live "live",
    }
    /// How much a finding costs.
    Severity = collector::Severity { Info "info", Warning "warning", Error "error" }
    /// Whether a host's figures are fresh.
    HostState = predictor::HostState { Live "live", Stale "stale", Lost "lost" }
    /// Where a host's circuit breaker stands.
    BreakerState = predictor::BreakerState { Closed "closed", Open "open", HalfOpen "half_open" }
    /// A step of a waterfall.
    TermName = predictor::TermName {
        Predicted "predicted", Headroom "headroom", Growth "growth", Floor "floor", ColdStart "cold_start",
        Quality "quality", Backoff "backoff", Budget "budget", Breaker "breaker", Cap "cap", Excluded "excluded",
        SlowRaise "slow_raise", Quantum "quantum",
    }
    /// What limits a harvest.
    LimitedBy = predictor::LimitedBy {
        Prediction "prediction", HeadroomRatio "headroom_ratio", HeadroomBytes "headroom_bytes", Growth "growth",
        Floor "floor", Cold "cold", Warming "warming", Stuck "stuck", Unknown "unknown", Paused "paused",
        Migrating "migrating", Stale "stale", Hugepages "hugepages", PrivateMemory "private_memory",
        NoBalloon "no_balloon", NoPeriod "no_period", Pinned "pinned", SwapUnknown "swap_unknown",
        ViolationRate "violation_rate", BrokenPromise "broken_promise", ErrorBudget "error_budget",
        HostViolationRate "host_violation_rate", HostPressure "host_pressure", HostSwapIn "host_swap_in",
        HostReserve "host_reserve", MaxHarvestRatio "max_harvest_ratio", Excluded "excluded", Signal "signal",
        SlowRaise "slow_raise", Quantum "quantum",
    }
    /// What was broken.
    ViolationKind = registry::ViolationKind { Forecast "forecast", Promise "promise", Boundary "boundary" }
    /// Where an episode stands.
    ViolationState = registry::ViolationState { Open "open", Closed "closed" }
    /// How a target violation rate is shared.
    Fairness = registry::Fairness { PerVm "per_vm", Capped "capped", Fleet "fleet" }
    /// What a host's harvest is made of.
    HostBasis = registry::HostBasis { Sum "sum", Pooled "pooled" }
    /// Where a lease stands.
    LeaseState = registry::LeaseState {
        Live "live", Revoking "revoking", Revoked "revoked", Released "released", Expired "expired",
    }
    /// Which process of the mesh an agent is.
    AgentKind = registry::AgentKind {
        Collector "collector", Predictor "predictor", Gateway "gateway", Registry "registry",
    }
    /// Whether an agent is heard.
    AgentState = registry::AgentState {
        Live "live", Late "late", Lost "lost", Decommissioned "decommissioned",
    }
    /// What a token allows.
    Role = registry::Role { Viewer "viewer", Operator "operator", Admin "admin" }
}

/// A span of time such as `15m` or `1h30m`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (self.0.subsec_millis().into(), "ms"),
        ];
        let mut empty = true;
        for (number, unit) in parts.into_iter().filter(|(number, _)| *number > 0) {
            write!(formatter, "{number}{unit}")?;
            empty = false;
        }
        if empty { formatter.write_str("0s") } else { Ok(()) }
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        duration(&text).map(Self).map_err(serde::de::Error::custom)
    }
}

impl PartialSchema for Span {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .description(Some("A span of time: numbers with the units h, m, s and ms."))
            .pattern(Some("^([0-9]{1,9}(ms|s|m|h)){1,4}$"))
            .examples([serde_json::json!("15m")])
            .into()
    }
}

impl ToSchema for Span {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_they_are_written() {
        for (text, seconds) in [("15m", 900), ("1h30m", 5400), ("5s", 5), ("24h", 86_400), ("0s", 0)] {
            let span: Span = serde_json::from_value(text.into()).unwrap();
            assert_eq!((span.0.as_secs(), span.to_string().as_str()), (seconds, text));
        }
        assert_eq!(Span(Duration::from_millis(1500)).to_string(), "1s500ms");
        assert!(serde_json::from_value::<Span>("soon".into()).is_err());
    }

    #[test]
    fn words_stand_for_what_the_contract_says() {
        assert_eq!(Quality::of(collector::Quality::PrivateMemory.into()), Some(Quality::PrivateMemory));
        assert_eq!(serde_json::to_value(LimitedBy::HostSwapIn).unwrap(), "host_swap_in");
        assert_eq!(HostState::of(0), None);
        assert_eq!("closed".parse(), Ok(ViolationState::Closed));
        assert_eq!("gone".parse::<HostState>().unwrap_err(), "must be one of live, stale, lost");
        assert_eq!(Role::Admin.wire(), registry::Role::Admin);
    }

    #[test]
    fn every_value_of_the_contract_has_its_word() {
        for value in 1..=30 {
            let word = LimitedBy::of(value).unwrap();
            let name = word.wire().as_str_name().strip_prefix("LIMITED_BY_").unwrap();
            assert_eq!(word.as_str(), name.to_lowercase());
        }
        for value in 1..=13 {
            let word = TermName::of(value).unwrap();
            let name = word.wire().as_str_name().strip_prefix("TERM_NAME_").unwrap();
            assert_eq!(word.as_str(), name.to_lowercase());
        }
    }
}
