//! The cases of `kedacore/keda` `pkg/scaling/executor/scale_scaledobjects_test.go` (August 2026) that write a scale or
//! decide not to, each by its name there, and the cooldown, which upstream has no case for.
//!
//! Left out: those of events, of conditions and of the health of the HPA, none of which the port has.

use echotune_simulator::rule::keda::{Scaler, Spec};

const NOW: u64 = 100_000_000;

fn scaler(spec: Spec) -> Scaler {
    Scaler { spec, ..Scaler::default() }
}

#[test]
fn scales_that_are_written() {
    let min = |min| Spec { min: Some(min), ..Spec::default() };
    let idle = || Spec { idle: Some(0), ..min(5) };
    let cases = [
        ("TestScaleToMinReplicasWhenNotActive", min(0), 10, false, Some(0)),
        ("TestScaleToMinReplicasFromLowerInitialReplicaCount", min(5), 1, false, Some(5)),
        ("TestScaleFromMinReplicasWhenActive", min(0), 0, true, Some(1)),
        ("TestScaleToIdleReplicasWhenNotActive", idle(), 10, false, Some(0)),
        ("TestScaleFromIdleToMinReplicasWhenActive", idle(), 0, true, Some(5)),
        ("TestScaleToPausedReplicasCount", Spec { paused: true, ..Spec::default() }, 2, true, None),
        ("TestEventWitTriggerInfo", idle(), 2, true, Some(5)),
        ("TestNoScaleToMinReplicas…PauseScaleIn", Spec { scale_in_paused: true, ..min(0) }, 10, false, None),
        ("TestNoScaleToIdleReplicas…PauseScaleIn", Spec { scale_in_paused: true, ..idle() }, 10, false, None),
        ("TestScaleFromMinReplicasWhenActivationForced", Spec { forced: true, ..min(0) }, 0, false, Some(1)),
        ("TestNoScaleFromMinReplicas…PausedScaleOut", Spec { scale_out_paused: true, ..min(0) }, 0, true, None),
        ("TestNoScaleFromIdleReplicas…PausedScaleOut", Spec { scale_out_paused: true, ..idle() }, 0, true, None),
    ];
    for (name, spec, replicas, active, expected) in cases {
        let mut scaler = scaler(spec);
        assert_eq!(scaler.request(NOW, replicas, active, false), expected, "{name}");
        let activated = (active || scaler.spec.forced) && expected.is_some();
        assert_eq!(scaler.last_active, activated.then_some(NOW), "{name}");
    }
}

#[test]
fn errors_of_triggers_scale_nothing_down() {
    for fallback in [None, Some(3)] {
        let mut scaler = scaler(Spec { fallback, ..Spec::default() });
        assert_eq!(scaler.request(NOW, 4, false, true), None, "{fallback:?}");
    }
}

#[test]
fn zero_comes_after_the_cooldown() {
    let mut scaler = scaler(Spec::default());
    assert_eq!(scaler.request(NOW, 1, true, false), None);
    assert_eq!(scaler.request(NOW + 300_000, 1, false, false), None);
    assert_eq!(scaler.request(NOW + 300_001, 1, false, false), Some(0));
}
