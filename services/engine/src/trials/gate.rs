//! Whether a candidate may be released: what was measured of it, held to thresholds. What was not measured has
//! not passed.

use super::{Interval, InvalidInput, ensure, ope, real};

/// Gates of one kind at the most.
pub const GATES: usize = 256;

/// What is asked of a candidate. A gate is passed when its worst end is: the lower end of an interval.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Thresholds {
    /// Offline quality.
    pub quality: Vec<QualityGate>,
    /// The value of its policy on logged traffic, if asked for.
    pub policy: Option<PolicyGate>,
    /// Latency.
    pub latency: Vec<LatencyGate>,
}

/// At least so good on a metric for which more is better.
#[derive(Debug, Clone, PartialEq)]
pub struct QualityGate {
    /// The metric's name.
    pub metric: String,
    /// For the lower end of its interval.
    pub minimum: f64,
}

/// At least as valuable as the log, less a margin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PolicyGate {
    /// By how much per row it may be worth less than what was logged: 0 at least.
    pub margin: f64,
}

/// At most so slow.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LatencyGate {
    /// Which quantile: between 0 and 1.
    pub quantile: f64,
    /// At most, in milliseconds.
    pub maximum: f64,
}

/// What was measured of a candidate.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// Offline quality by metric.
    pub quality: Vec<(String, Interval)>,
    /// Its policy on logged traffic.
    pub policy: Option<ope::Evaluation>,
    /// Latency.
    pub latency: Vec<Latency>,
}

/// A measured quantile of latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Latency {
    /// Which quantile: between 0 and 1.
    pub quantile: f64,
    /// In milliseconds.
    pub milliseconds: f64,
    /// Of how many requests.
    pub requests: u64,
}

/// Which gate.
#[derive(Debug, Clone, PartialEq)]
pub enum Kind {
    /// Offline quality on this metric.
    Quality(String),
    /// Off-policy value.
    Policy,
    /// Latency at this quantile.
    Latency(f64),
}

/// How a gate came out.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// It holds.
    Passed,
    /// It was measured and does not hold.
    Failed,
    /// It was not measured.
    Missing,
    /// The policy's value is unreliable, for these reasons.
    Unreliable(Vec<ope::Doubt>),
    /// The quantile is of too few requests: fewer than 10 lie beyond it. So many would do.
    TooFew(u64),
}

/// One gate with its evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Gate {
    /// Which.
    pub kind: Kind,
    /// How it came out.
    pub outcome: Outcome,
    /// What was held to the bound, if measured: the lower end of an interval, or milliseconds.
    pub measured: Option<f64>,
    /// The bound: a minimum, for latency a maximum. None where it is that of a log which is missing.
    pub bound: Option<f64>,
}

/// All gates.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Quality, policy, latency, in the order of the thresholds.
    pub gates: Vec<Gate>,
}

impl Report {
    /// Whether every gate is passed, and there is one.
    pub fn is_passed(&self) -> bool {
        !self.gates.is_empty() && self.gates.iter().all(|gate| gate.outcome == Outcome::Passed)
    }
}

/// Requests beyond a quantile at the least, for its sample quantile to mean it.
const BEYOND: f64 = 10.0;

/// Holds a candidate to thresholds.
///
/// # Errors
/// A threshold that is not finite, a margin below 0, a quantile outside of (0, 1), or more than [`GATES`] of a
/// kind. A measurement that is no number has not passed.
pub fn judge(thresholds: &Thresholds, measured: &Measured) -> Result<Report, InvalidInput> {
    validate(thresholds)?;
    let quality = thresholds.quality.iter().map(|gate| quality(gate, measured));
    let policy = thresholds.policy.iter().map(|gate| policy(gate, measured));
    let latency = thresholds.latency.iter().map(|gate| latency(gate, measured));
    Ok(Report { gates: quality.chain(policy).chain(latency).collect() })
}

const fn held(passed: bool) -> Outcome {
    if passed { Outcome::Passed } else { Outcome::Failed }
}

fn quality(gate: &QualityGate, measured: &Measured) -> Gate {
    let low = measured.quality.iter().find(|(metric, _)| *metric == gate.metric).map(|(_, interval)| interval.low);
    let outcome = low.map_or(Outcome::Missing, |low| held(low >= gate.minimum));
    Gate { kind: Kind::Quality(gate.metric.clone()), outcome, measured: low, bound: Some(gate.minimum) }
}

fn policy(gate: &PolicyGate, measured: &Measured) -> Gate {
    let Some(evaluation) = &measured.policy else {
        return Gate { kind: Kind::Policy, outcome: Outcome::Missing, measured: None, bound: None };
    };
    let bound = evaluation.logged.estimate - gate.margin;
    let low = evaluation.best().map(|value| value.low);
    let outcome = match low {
        _ if !evaluation.is_reliable() => Outcome::Unreliable(evaluation.doubts.clone()),
        Some(low) => held(low >= bound),
        None => Outcome::Missing,
    };
    Gate { kind: Kind::Policy, outcome, measured: low, bound: Some(bound) }
}

fn latency(gate: &LatencyGate, measured: &Measured) -> Gate {
    let found = measured.latency.iter().find(|one| (one.quantile - gate.quantile).abs() < 1e-9);
    let outcome = match found {
        None => Outcome::Missing,
        Some(one) if real(one.requests) * (1.0 - gate.quantile) < BEYOND - 1e-6 => {
            Outcome::TooFew(needed(gate.quantile))
        }
        Some(one) => held(one.milliseconds <= gate.maximum),
    };
    let kind = Kind::Latency(gate.quantile);
    Gate { kind, outcome, measured: found.map(|one| one.milliseconds), bound: Some(gate.maximum) }
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count; it saturates")]
fn needed(quantile: f64) -> u64 {
    (BEYOND / (1.0 - quantile) - 1e-6).ceil() as u64
}

fn validate(thresholds: &Thresholds) -> Result<(), InvalidInput> {
    let most = thresholds.quality.len().max(thresholds.latency.len());
    ensure(most <= GATES, "the number of gates of a kind", most, "256 at most")?;
    for gate in &thresholds.quality {
        let what = format!("the minimum of '{}'", gate.metric);
        ensure(gate.minimum.is_finite(), what, gate.minimum, "a finite number")?;
    }
    if let Some(PolicyGate { margin }) = thresholds.policy {
        ensure(margin.is_finite() && margin >= 0.0, "the policy's margin", margin, "a finite number, 0 at least")?;
    }
    for gate in &thresholds.latency {
        let within = gate.quantile > 0.0 && gate.quantile < 1.0;
        ensure(within, "a quantile of latency", gate.quantile, "between 0 and 1, both excluded")?;
        let what = format!("the maximum at quantile {}", gate.quantile);
        ensure(gate.maximum.is_finite(), what, gate.maximum, "a finite number")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn thresholds() -> Thresholds {
        Thresholds {
            quality: vec![
                QualityGate { metric: "recall@20".into(), minimum: 0.19 },
                QualityGate { metric: "ndcg@20".into(), minimum: 0.15 },
            ],
            policy: Some(PolicyGate { margin: 0.01 }),
            latency: vec![LatencyGate { quantile: 0.99, maximum: 20.0 }],
        }
    }

    fn interval(low: f64) -> Interval {
        Interval { estimate: low + 0.01, low, high: low + 0.02 }
    }

    /// An evaluation of `value` against a log that earns 0.5 on average.
    fn policy(value: f64) -> ope::Evaluation {
        let row = |unit: u64| ope::Logged {
            unit,
            reward: f64::from(u8::from(unit.is_multiple_of(2))),
            propensity: 0.5,
            target: if unit.is_multiple_of(2) { value / 2.0 } else { (2.0 - value) / 2.0 },
            model: None,
        };
        let options = ope::Options { resamples: 50, ..ope::Options::default() };
        ope::evaluate(&(0..4_000).map(row).collect::<Vec<_>>(), &options).expect("rows")
    }

    fn measured() -> Measured {
        Measured {
            quality: vec![("ndcg@20".into(), interval(0.155)), ("recall@20".into(), interval(0.19))],
            policy: Some(policy(1.2)),
            latency: vec![Latency { quantile: 0.99, milliseconds: 20.0, requests: 1_000 }],
        }
    }

    fn outcomes(change: impl FnOnce(&mut Measured)) -> (bool, Vec<Outcome>) {
        let mut measured = measured();
        change(&mut measured);
        let report = judge(&thresholds(), &measured).expect("thresholds");
        (report.is_passed(), report.gates.into_iter().map(|gate| gate.outcome).collect())
    }

    #[test]
    fn a_candidate_passes_when_each_gate_does_and_the_evidence_is_told() {
        let report = judge(&thresholds(), &measured()).expect("thresholds");
        assert!(report.is_passed(), "{report:?}");
        let told: Vec<_> = report.gates.iter().map(|gate| (gate.kind.clone(), gate.measured, gate.bound)).collect();
        assert_eq!(told[0], (Kind::Quality("recall@20".into()), Some(0.19), Some(0.19)));
        assert_eq!(told[1], (Kind::Quality("ndcg@20".into()), Some(0.155), Some(0.15)));
        assert_eq!((&told[2].0, told[2].2), (&Kind::Policy, Some(0.49)));
        assert!(told[2].1.is_some_and(|low| low > 0.55 && low < 0.6));
        assert_eq!(told[3], (Kind::Latency(0.99), Some(20.0), Some(20.0)));
    }

    #[test]
    fn each_gate_can_fail_by_itself() {
        use Outcome::{Failed, Missing, Passed, TooFew, Unreliable};
        let (passed, of) = outcomes(|seen| seen.quality[1].1.low = 0.1899);
        assert_eq!((passed, of), (false, vec![Failed, Passed, Passed, Passed]));
        let (_, of) = outcomes(|seen| seen.quality[0].1.low = f64::NAN);
        assert_eq!(of, [Passed, Failed, Passed, Passed]);
        let (_, of) = outcomes(|seen| seen.quality.clear());
        assert_eq!(of, [Missing, Missing, Passed, Passed]);
        let (_, of) = outcomes(|seen| seen.policy = Some(policy(0.9)));
        assert_eq!(of, [Passed, Passed, Failed, Passed]);
        let doubts = vec![ope::Doubt::FewEffective(3.0)];
        let (_, of) = outcomes(|seen| seen.policy.as_mut().expect("one").doubts = doubts.clone());
        assert_eq!(of, [Passed, Passed, Unreliable(doubts), Passed]);
        assert_eq!(outcomes(|seen| seen.policy = None).1, [Passed, Passed, Missing, Passed]);
        assert_eq!(outcomes(|seen| seen.latency[0].milliseconds = 20.1).1, [Passed, Passed, Passed, Failed]);
        assert_eq!(outcomes(|seen| seen.latency[0].milliseconds = f64::NAN).1, [Passed, Passed, Passed, Failed]);
        assert_eq!(outcomes(|seen| seen.latency[0].requests = 999).1, [Passed, Passed, Passed, TooFew(1_000)]);
        assert_eq!(outcomes(|seen| seen.latency[0].quantile = 0.95).1, [Passed, Passed, Passed, Missing]);
    }

    #[test]
    fn no_gate_is_no_passing_and_thresholds_without_meaning_are_refused() {
        assert!(!judge(&Thresholds::default(), &measured()).expect("nothing").is_passed());
        let refused = |change: &dyn Fn(&mut Thresholds)| {
            let mut thresholds = thresholds();
            change(&mut thresholds);
            judge(&thresholds, &measured()).expect_err("refused").to_string()
        };
        assert!(refused(&|of| of.quality[0].minimum = f64::NAN).starts_with("the minimum of 'recall@20' is NaN"));
        assert!(refused(&|of| of.policy = Some(PolicyGate { margin: -1.0 })).starts_with("the policy's margin is -1"));
        assert!(refused(&|of| of.latency[0].quantile = 1.0).starts_with("a quantile of latency is 1"));
        assert!(refused(&|of| of.latency[0].maximum = f64::INFINITY).starts_with("the maximum at quantile 0.99"));
        assert!(refused(&|of| of.latency = vec![of.latency[0]; 257]).starts_with("the number of gates"));
    }
}
