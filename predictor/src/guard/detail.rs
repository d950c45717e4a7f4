//! The sentences of a waterfall, written only when somebody asks.

use super::{Closed, Inputs, LimitedBy, QUANTUM, RAISE_PER_MINUTE};
use crate::{
    boundary::Source,
    breaker,
    domain::{Quality, Signal, human_bytes, human_span},
};

pub(super) fn sentence(reason: LimitedBy, inputs: &Inputs) -> String {
    let effective = &inputs.effective;
    let signal = inputs.signal.name();
    match reason {
        LimitedBy::Prediction => format!(
            "{signal} is expected to stay within {} for the next {}",
            human_bytes(inputs.predicted.unwrap_or(0)),
            human_span(effective.horizon.value)
        ),
        LimitedBy::HeadroomRatio => format!(
            "headroom of {} % of the prediction{}",
            effective.headroom_ratio.value * 100.0,
            set_by(effective.headroom_ratio.source)
        ),
        LimitedBy::HeadroomBytes => format!(
            "headroom of at least {}{}",
            human_bytes(effective.headroom_bytes.value),
            set_by(effective.headroom_bytes.source)
        ),
        LimitedBy::Growth => format!(
            "{signal} grows, and would reach {} within the horizon if it went on so",
            human_bytes(inputs.growing_to)
        ),
        LimitedBy::Floor => format!(
            "the vm is never left with less than {}{}",
            human_bytes(effective.floor_bytes.value),
            set_by(effective.floor_bytes.source)
        ),
        LimitedBy::Cold => format!(
            "{} of history in {} readings is too little; the first harvest can come in {}",
            human_span(inputs.history.age),
            inputs.history.readings,
            human_span(inputs.history.wait)
        ),
        LimitedBy::Warming => format!(
            "{} of history allow {:.0} % of the harvest",
            human_span(inputs.history.age),
            inputs.history.allowance * 100.0
        ),
        LimitedBy::Quality(quality) => because_of(quality, inputs),
        LimitedBy::Pinned => "the vm's memory is pinned, out of a balloon's reach".to_owned(),
        LimitedBy::SwapUnknown => {
            "the host swaps, and how much of this vm is in swap is not known".to_owned()
        }
        LimitedBy::ViolationRate => format!(
            "its forecasts failed more than twice as often as the target of {} %; harvested again in {}",
            effective.target_violation_rate.value * 100.0,
            backoff_left(inputs)
        ),
        LimitedBy::BrokenPromise => format!(
            "a promise was broken by more than its headroom again within 24 h; harvested again in {}",
            backoff_left(inputs)
        ),
        LimitedBy::ErrorBudget => format!(
            "the error budget of {} promise violations in 1,000 vm-days is spent{}",
            effective.error_budget_per_1000_vm_days.value.unwrap_or(0.0),
            set_by(effective.error_budget_per_1000_vm_days.source)
        ),
        LimitedBy::Host(trip) => format!("no harvest on this host may rise: {}", host_trouble(trip)),
        LimitedBy::MaxHarvestRatio => format!(
            "at most {} % of the allocation is harvested{}",
            effective.max_harvest_ratio.value * 100.0,
            set_by(effective.max_harvest_ratio.source)
        ),
        LimitedBy::Excluded if effective.excluded.source == Source::Lease => {
            "it consumes a lease: memory that was harvested once is not harvested again while the lease holds"
                .to_owned()
        }
        LimitedBy::Excluded => format!("excluded from harvesting{}", set_by(effective.excluded.source)),
        LimitedBy::Signal => {
            let only = effective.signal.value.map_or("the other signal", Signal::name);
            format!("only {only} is harvested{}", set_by(effective.signal.source))
        }
        LimitedBy::SlowRaise => {
            format!("a harvest rises by at most {} % of the allocation a minute", RAISE_PER_MINUTE * 100.0)
        }
        LimitedBy::Quantum => format!("rounded down to a multiple of {}", human_bytes(QUANTUM)),
    }
}

fn set_by(source: Source) -> String {
    match source {
        Source::Default => String::new(),
        source => format!(", set for the {}", source.name()),
    }
}

fn because_of(quality: Quality, inputs: &Inputs) -> String {
    if inputs.closed == Some(Closed::StaleStatistics) {
        return "the guest has not refreshed its statistics for three periods".to_owned();
    }
    match quality {
        Quality::Stuck => "the vm's monitor does not answer".to_owned(),
        Quality::Unknown => format!("the vm's state or its {} is not known", inputs.signal.name()),
        Quality::Paused => "the vm is paused".to_owned(),
        Quality::Migrating => "the vm is being migrated".to_owned(),
        Quality::Stale => "there has been no reading for three intervals".to_owned(),
        Quality::Hugepages => {
            "the vm is backed by hugepages, which the resident set does not count".to_owned()
        }
        Quality::PrivateMemory => {
            "the vm uses private memory, which the resident set does not count".to_owned()
        }
        Quality::NoBalloon => "no balloon driver answers in the guest".to_owned(),
        Quality::NoPeriod => "the balloon's statistics period is not set".to_owned(),
        Quality::Live => "the figures are not complete".to_owned(),
    }
}

fn backoff_left(inputs: &Inputs) -> String {
    human_span(inputs.backoff.map_or(0.0, |(_, until)| (until - inputs.at).max(0.0)))
}

const fn host_trouble(trip: breaker::Trip) -> &'static str {
    match trip {
        breaker::Trip::ViolationRate => "its forecasts failed more than three times as often as the target",
        breaker::Trip::Pressure => "tasks wait for memory",
        breaker::Trip::SwapIn => "it keeps swapping in",
        breaker::Trip::Reserve => "less memory is available than its reserve",
    }
}
