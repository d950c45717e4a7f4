use proptest::prelude::*;

use super::*;
use crate::boundary::{Boundary, Source};

const GIB: u64 = 1 << 30;

/// A warm, quiet VM of 16 GiB that may be harvested.
fn calm() -> Inputs {
    Inputs {
        signal: Signal::Rss,
        at: 1000.0,
        interval: 5.0,
        allocated: 16 * GIB,
        start: 16 * GIB,
        predicted: Some(4 * GIB),
        growing_to: 3 * GIB,
        effective: Effective::default(),
        history: History { age: 1e6, readings: 1000, allowance: 1.0, wait: 0.0 },
        closed: None,
        backoff: None,
        budget_spent: false,
        breaker: breaker::State::Closed,
        raised: Raised { at: Some(995.0), bytes: 16 * GIB },
    }
}

fn set(boundary: &Boundary) -> Effective {
    Effective::merged([(Source::Host, boundary)])
}

#[test]
fn prediction_and_headroom_are_left_to_a_calm_vm() {
    let waterfall = Waterfall::of(calm());
    assert_eq!(waterfall.term(TermName::Predicted).bytes, 4 * GIB);
    assert_eq!(waterfall.term(TermName::Headroom).bytes, whole(0.05 * real(4 * GIB)));
    assert_eq!(waterfall.term(TermName::Headroom).limited_by, Some(LimitedBy::HeadroomRatio));
    let exact = 12 * GIB - whole(0.05 * real(4 * GIB));
    assert_eq!(waterfall.result, exact - exact % QUANTUM);
    assert_eq!(waterfall.promise(), Some(16 * GIB - waterfall.result));
    assert_eq!(
        waterfall.detail(TermName::Predicted),
        "rss is expected to stay within 4.00 GiB for the next 15 min"
    );
    assert_eq!(waterfall.detail(TermName::Floor), "");
    let tiny = Waterfall::of(Inputs { predicted: Some(MIB), growing_to: 0, ..calm() });
    assert_eq!(tiny.term(TermName::Headroom).limited_by, Some(LimitedBy::HeadroomBytes));
    assert_eq!(tiny.term(TermName::Headroom).bytes, 64 * MIB);
}

/// Which step takes something once the calm VM is changed, by what, and what is left.
#[test]
fn each_hindrance_takes_its_own_step() {
    use TermName as T;
    let boundary = |boundary| Inputs { effective: set(&boundary), ..calm() };
    let free = Waterfall::of(calm()).result;
    let cases: Vec<(Inputs, TermName, LimitedBy, u64)> = vec![
        (
            Inputs { growing_to: 5 * GIB, ..calm() },
            T::Growth,
            LimitedBy::Growth,
            16 * GIB - 5 * GIB - 256 * MIB,
        ),
        (
            boundary(Boundary { floor_bytes: Some(8 * GIB), ..Boundary::default() }),
            T::Floor,
            LimitedBy::Floor,
            8 * GIB,
        ),
        (
            Inputs { history: History { age: 1.0, readings: 1, allowance: 0.0, wait: 7199.0 }, ..calm() },
            T::ColdStart,
            LimitedBy::Cold,
            0,
        ),
        (
            Inputs { history: History { age: 43_200.0, readings: 99, allowance: 0.5, wait: 0.0 }, ..calm() },
            T::ColdStart,
            LimitedBy::Warming,
            6016 * MIB,
        ),
        (Inputs { closed: Some(Closed::SwapUnknown), ..calm() }, T::Quality, LimitedBy::SwapUnknown, 0),
        (
            Inputs { predicted: None, growing_to: 0, ..calm() },
            T::Quality,
            LimitedBy::Quality(Quality::Unknown),
            0,
        ),
        (
            Inputs { backoff: Some((backoff::Cause::BrokenPromise, 1900.0)), ..calm() },
            T::Backoff,
            LimitedBy::BrokenPromise,
            0,
        ),
        (Inputs { budget_spent: true, ..calm() }, T::Budget, LimitedBy::ErrorBudget, 0),
        (
            Inputs {
                breaker: breaker::State::Open(breaker::Trip::Pressure),
                raised: Raised { at: Some(0.0), bytes: GIB },
                ..calm()
            },
            T::Breaker,
            LimitedBy::Host(breaker::Trip::Pressure),
            GIB,
        ),
        (
            boundary(Boundary { max_harvest_ratio: Some(0.25), ..Boundary::default() }),
            T::Cap,
            LimitedBy::MaxHarvestRatio,
            4 * GIB,
        ),
        (
            boundary(Boundary { excluded: Some(true), ..Boundary::default() }),
            T::Excluded,
            LimitedBy::Excluded,
            0,
        ),
        (
            boundary(Boundary { signal: Some(Signal::Demand), ..Boundary::default() }),
            T::Excluded,
            LimitedBy::Signal,
            0,
        ),
        (
            Inputs { raised: Raised { at: Some(995.0), bytes: GIB }, ..calm() },
            T::SlowRaise,
            LimitedBy::SlowRaise,
            GIB + 64 * MIB,
        ),
        (calm(), T::Quantum, LimitedBy::Quantum, free),
    ];
    for (inputs, name, limited_by, result) in cases {
        let waterfall = Waterfall::of(inputs);
        let term = waterfall.term(name);
        assert_eq!((term.limited_by, waterfall.result), (Some(limited_by), result), "{}", name.name());
        assert!(!waterfall.detail(name).is_empty());
    }
}

#[test]
fn small_vms_rise_though_each_step_is_less_than_a_quantum() {
    let mut inputs = Inputs { allocated: GIB, start: GIB, predicted: Some(GIB / 4), growing_to: 0, ..calm() };
    inputs.raised = Raised::default();
    let mut last = 0;
    for step in 0..300u32 {
        inputs.at = f64::from(step) * 5.0;
        let waterfall = Waterfall::of(inputs.clone());
        assert!(waterfall.result >= last && waterfall.result - last <= QUANTUM);
        last = waterfall.result;
        inputs.raised = waterfall.raised();
    }
    assert_eq!(last, 704 * MIB);
}

#[test]
fn an_open_breaker_lets_nothing_rise_and_everything_fall() {
    let open = Inputs { breaker: breaker::State::Open(breaker::Trip::Reserve), ..calm() };
    let held = Waterfall::of(Inputs { raised: Raised { at: Some(0.0), bytes: 2 * GIB }, ..open.clone() });
    assert_eq!(held.result, 2 * GIB);
    let fallen = Waterfall::of(Inputs { predicted: Some(15 * GIB), ..open });
    assert!(fallen.result < GIB);
}

prop_compose! {
    fn any_inputs()(
        sizes in prop::array::uniform5(prop_oneof![any::<u64>(), 0..64 * GIB]),
        predicted in prop::option::of(any::<u64>()),
        ratios in prop::array::uniform3(prop_oneof![0.0..2.0f64, prop::num::f64::ANY]),
        times in prop::array::uniform3(prop_oneof![0.0..1e6f64, prop::num::f64::ANY]),
        closed in prop::option::of(prop::sample::select(Quality::ALL.to_vec())),
        flags in prop::array::uniform4(any::<bool>()),
    ) -> Inputs {
        let [allocated, start, growing_to, floor, raised] = sizes;
        let boundary = Boundary {
            headroom_ratio: Some(ratios[0]),
            headroom_bytes: Some(floor),
            floor_bytes: Some(floor),
            max_harvest_ratio: Some(ratios[1]),
            excluded: Some(flags[0]),
            ..Boundary::default()
        };
        let trip = breaker::Trip::Pressure;
        Inputs {
            allocated,
            start: start.min(allocated),
            growing_to,
            predicted,
            at: times[0],
            interval: times[1],
            effective: set(&boundary),
            history: History { age: times[2], readings: 3, allowance: ratios[2], wait: times[2] },
            closed: closed.filter(|_| flags[1]).map(Closed::Quality),
            backoff: flags[2].then_some((backoff::Cause::ViolationRate, times[1])),
            budget_spent: flags[3],
            breaker: if flags[3] { breaker::State::Open(trip) } else { breaker::State::HalfOpen(trip) },
            raised: Raised { at: Some(times[1]), bytes: raised },
            ..calm()
        }
    }
}

proptest! {
    #[test]
    fn terms_add_up_under_any_inputs(inputs in any_inputs()) {
        let waterfall = Waterfall::of(inputs.clone());
        let taken: u128 = waterfall.terms.iter().map(|term| u128::from(term.bytes)).sum();
        prop_assert_eq!(u128::from(waterfall.start) - taken, u128::from(waterfall.result));
        prop_assert_eq!(waterfall.terms.map(|term| term.name), TermName::ALL);
        prop_assert_eq!(waterfall.result % QUANTUM, 0);
        for term in &waterfall.terms {
            prop_assert_eq!(term.bytes > 0, term.limited_by.is_some());
            prop_assert_eq!(term.bytes > 0, !waterfall.detail(term.name).is_empty());
        }
        let nothing = inputs.closed.is_some()
            || inputs.predicted.is_none()
            || inputs.backoff.is_some()
            || inputs.budget_spent
            || inputs.effective.excluded.value;
        if nothing {
            prop_assert_eq!(waterfall.result, 0);
        }
    }
}
