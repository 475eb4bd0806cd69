//! From sums to a verdict: pure.

use echotune_engine::trials::{
    InvalidInput,
    guardrail::{self, Better, Comparison, Observations, Summary, Watched},
    interleave::Preferences,
};
use echotune_model::{Arm, Decision, Evidence, Experiment, ExperimentKind, ExperimentSpec, Finding, Metric, Verdict};

use crate::store::{ArmSums, Shares};

/// Listeners of each variant before intervals are told.
const START: u64 = 100;
/// The chance that a sound experiment is called off for its ratio.
const RATIO_ALPHA: f64 = 0.001;
/// For how many listeners intervals are narrowest when no number is planned.
const PLANNED: u64 = 10_000;

/// What can be said at a time.
pub(super) struct Judged {
    pub(super) decision: Decision,
    pub(super) evidence: Evidence,
}

/// Says what the sums of an experiment say at `now_ms`.
///
/// # Errors
/// The sums are not those of the experiment.
pub(super) fn judge(experiment: &Experiment, sums: &[ArmSums], now_ms: u64) -> Result<Judged, InvalidInput> {
    match experiment.spec.kind {
        ExperimentKind::Split => judge_split(experiment, sums, now_ms),
        ExperimentKind::Interleaving => judge_interleaving(experiment, sums, now_ms),
    }
}

fn judge_split(experiment: &Experiment, sums: &[ArmSums], now_ms: u64) -> Result<Judged, InvalidInput> {
    let spec = &experiment.spec;
    let watched = |metric: Metric, margin| Watched {
        metric: place(metric),
        better: if metric.more_is_better() { Better::Higher } else { Better::Lower },
        margin,
    };
    let plan = guardrail::Experiment {
        weights: spec.variants.iter().map(|variant| variant.weight).collect(),
        control: 0,
        goal: watched(spec.primary, 0.0),
        guardrails: spec.guardrails.iter().map(|one| watched(one.metric, one.margin)).collect(),
        alpha: spec.alpha,
        ratio_alpha: RATIO_ALPHA,
        start: START,
        planned: planned(spec),
        // The end is told by those who count, not by those who have come.
        budget: u64::MAX,
    };
    let of = |metric: Metric| {
        let moments = |arm: &ArmSums| arm.metrics[place(metric)].moments().map(Summary::Numbers);
        sums.iter().map(moments).collect::<Result<Vec<_>, InvalidInput>>()
    };
    let seen = Observations {
        units: sums.iter().map(|arm| arm.listeners).collect(),
        metrics: Metric::ALL.into_iter().map(of).collect::<Result<_, _>>()?,
        expired: is_over(experiment, sums.iter().map(|arm| arm.metrics[place(spec.primary)].count).sum(), now_ms),
    };
    let decided = guardrail::decide(&plan, &seen)?;
    let findings = decided.comparisons.iter().map(|one| finding(spec, &seen, one)).collect();
    let ratio_p_value = decided.ratio.p_value;
    let evidence = Evidence { arms: arms(spec, sums), findings, ratio_p_value };
    let ready = is_ready(experiment, seen.units.iter().sum(), now_ms);
    let said = match decided.verdict {
        guardrail::Verdict::InvalidSampleRatio => (Verdict::BadRatio, String::new(), ratio_reason(&evidence)),
        guardrail::Verdict::StopForHarm(harmed) => {
            let worst = &evidence.findings[harmed[0]];
            (Verdict::Harm, worst.variant.clone(), told(worst, "is worse than borne"))
        }
        guardrail::Verdict::ShipWinner(variant) if ready => {
            let name = &spec.variants[variant].name;
            let goal = evidence.findings.iter().find(|one| one.variant == *name && one.margin.is_none());
            let reason = goal.map_or_else(String::new, |goal| told(goal, "is better and every guardrail holds"));
            (Verdict::Better, name.clone(), reason)
        }
        guardrail::Verdict::Inconclusive => (Verdict::Inconclusive, String::new(), OVER.to_owned()),
        guardrail::Verdict::ShipWinner(_) => (Verdict::Continue, String::new(), EARLY.to_owned()),
        guardrail::Verdict::Continue => (Verdict::Continue, String::new(), UNCLEAR.to_owned()),
    };
    Ok(judged(said, evidence, now_ms))
}

const OVER: &str = "it ran to its end, and no difference is certain";
const EARLY: &str = "a variant looks better; the least time or number of listeners is not reached";
const UNCLEAR: &str = "no difference is certain yet";

/// Whether more listeners accepted more of the second list than of the first: half of those who decide do
/// when both are as good.
fn judge_interleaving(experiment: &Experiment, sums: &[ArmSums], now_ms: u64) -> Result<Judged, InvalidInput> {
    let spec = &experiment.spec;
    let (listeners, decided) = sums.get(1).map_or((0, Shares::default()), |arm| (arm.listeners, arm.preference));
    let won = decided.whole().min(decided.count);
    let seen = Preferences { a: decided.count - won, b: won, ties: listeners.saturating_sub(decided.count) };
    let share = seen.judge(spec.alpha)?.share;
    let finding = Finding {
        variant: spec.variants[1].name.clone(),
        metric: spec.primary,
        control: 1.0 - share.estimate,
        treated: share.estimate,
        // Both shares sum to 1, so that their difference is 2 p - 1.
        low: 2.0 * share.low - 1.0,
        high: 2.0 * share.high - 1.0,
        margin: None,
    };
    let counted = sums.get(1).map_or(0, |arm| arm.metrics[place(Metric::Acceptance)].count);
    let over = is_over(experiment, counted, now_ms);
    let name = finding.variant.clone();
    let said = match (finding.low > 0.0, finding.high < 0.0) {
        (_, true) => (Verdict::Harm, name, told(&finding, "is worse")),
        (true, _) if is_ready(experiment, listeners, now_ms) => (Verdict::Better, name, told(&finding, "is better")),
        _ if over => (Verdict::Inconclusive, String::new(), OVER.to_owned()),
        (true, _) => (Verdict::Continue, String::new(), EARLY.to_owned()),
        _ => (Verdict::Continue, String::new(), UNCLEAR.to_owned()),
    };
    let evidence = Evidence { arms: arms(spec, sums), findings: vec![finding], ratio_p_value: 1.0 };
    Ok(judged(said, evidence, now_ms))
}

fn judged((verdict, variant, reason): (Verdict, String, String), evidence: Evidence, now_ms: u64) -> Judged {
    Judged { decision: Decision { verdict, variant, reason, decided_at_ms: now_ms }, evidence }
}

fn place(metric: Metric) -> usize {
    Metric::ALL.iter().position(|one| *one == metric).expect("every metric is among all")
}

const fn planned(spec: &ExperimentSpec) -> u64 {
    if spec.max_listeners == 0 { PLANNED } else { spec.max_listeners }
}

/// Whether the time is over, or as many listeners count as were wanted.
const fn is_over(experiment: &Experiment, counted: u64, now_ms: u64) -> bool {
    let (longest, most) = (experiment.spec.max_duration_ms, experiment.spec.max_listeners);
    (longest > 0 && now_ms.saturating_sub(experiment.started_at_ms) >= longest) || (most > 0 && counted >= most)
}

const fn is_ready(experiment: &Experiment, listeners: u64, now_ms: u64) -> bool {
    let runs_for = now_ms.saturating_sub(experiment.started_at_ms);
    listeners >= experiment.spec.min_listeners && runs_for >= experiment.spec.min_duration_ms
}

fn arms(spec: &ExperimentSpec, sums: &[ArmSums]) -> Vec<Arm> {
    let arm = |(variant, sums): (&echotune_model::Variant, &ArmSums)| Arm {
        variant: variant.name.clone(),
        listeners: sums.listeners,
        impressions: sums.impressions,
        items: sums.items,
        accepted: sums.accepted,
        refused: sums.refused,
        lists: sums.lists,
        empty_lists: sums.empty_lists,
        slow_lists: sums.slow_lists,
    };
    spec.variants.iter().zip(sums).map(arm).collect()
}

fn finding(spec: &ExperimentSpec, seen: &Observations, one: &Comparison) -> Finding {
    let mean = |variant: usize| match &seen.metrics[one.watched.metric][variant] {
        Summary::Numbers(moments) => moments.mean(),
        Summary::Successes(proportion) => proportion.share(),
    };
    let difference = if one.watched.better == Better::Higher { one.gain } else { one.gain.negated() };
    Finding {
        variant: spec.variants[one.variant].name.clone(),
        metric: Metric::ALL[one.watched.metric],
        control: mean(0),
        treated: mean(one.variant),
        // Shares differ by no more.
        low: difference.low.max(-1.0),
        high: difference.high.min(1.0),
        margin: (!one.goal).then_some(one.watched.margin),
    }
}

fn told(finding: &Finding, what: &str) -> String {
    let Finding { variant, metric, control, treated, low, high, margin } = finding;
    let borne = margin.map_or_else(String::new, |margin| format!(", of which {margin} is borne"));
    let metric = metric.name();
    format!("'{variant}' {what}: {metric} {treated:.4} against {control:.4}, {low:+.4} to {high:+.4}{borne}")
}

fn ratio_reason(evidence: &Evidence) -> String {
    let counts: Vec<String> = evidence.arms.iter().map(|arm| format!("{} {}", arm.variant, arm.listeners)).collect();
    let p = evidence.ratio_p_value;
    format!(
        "listeners did not arrive in the ratio of the weights ({}; p {p:.2e}): look for the fault",
        counts.join(", ")
    )
}

#[cfg(test)]
mod tests {
    use echotune_model::{ExperimentState, Guardrail, PolicyChange, Variant};

    use super::*;

    fn experiment() -> Experiment {
        let variant = |name: &str| Variant { name: name.into(), weight: 5_000, change: PolicyChange::default() };
        let spec = ExperimentSpec {
            name: "one".into(),
            hypothesis: "why".into(),
            kind: ExperimentKind::Split,
            variants: vec![variant("control"), variant("other")],
            share: 10_000,
            primary: Metric::Acceptance,
            guardrails: vec![Guardrail { metric: Metric::Refusal, margin: 0.05 }],
            alpha: 0.05,
            min_listeners: 500,
            max_listeners: 20_000,
            min_duration_ms: 1_000,
            max_duration_ms: 9_000,
            slow_list_ms: 100,
            window_ms: 0,
            auto_stop: true,
        };
        let (state, first_slot) = (ExperimentState::Running, 0);
        Experiment { spec, state, first_slot, started_at_ms: 0, stopped_at_ms: 0, decision: None }
    }

    /// Listeners of whom a part in ten accepts everything, and the others nothing.
    fn shares(count: u64, tenths: u64) -> Shares {
        let ones = u128::from(count * tenths / 10);
        Shares { count, sum: ones << 32, squares: ones << 64 }
    }

    fn arm(count: u64, accepted: u64, refused: u64) -> ArmSums {
        let none = shares(count, 0);
        let metrics = [shares(count, accepted), shares(count, refused), none, none];
        ArmSums { listeners: count, metrics, ..ArmSums::default() }
    }

    fn said(sums: &[ArmSums], now_ms: u64) -> (Verdict, String) {
        let judged = judge(&experiment(), sums, now_ms).expect("judged");
        (judged.decision.verdict, judged.decision.variant)
    }

    #[test]
    fn verdicts_come_in_the_order_of_what_must_not_be_believed_first() {
        let control = arm(4_000, 3, 2);
        assert_eq!(said(&[control, arm(4_000, 3, 2)], 2_000).0, Verdict::Continue);
        assert_eq!(said(&[control, arm(4_000, 3, 2)], 9_000).0, Verdict::Inconclusive);
        assert_eq!(said(&[arm(9_999, 3, 2), arm(10_001, 3, 2)], 2_000).0, Verdict::Inconclusive, "as many as wanted");
        let open = ArmSums { listeners: 90_000, ..control };
        assert_eq!(said(&[open, open], 2_000).0, Verdict::Continue, "most have come and do not count yet");
        assert_eq!(said(&[control, arm(4_000, 5, 2)], 2_000), (Verdict::Better, "other".into()));
        assert_eq!(said(&[control, arm(4_000, 5, 2)], 500).0, Verdict::Continue, "the least time is not reached");
        assert_eq!(said(&[control, arm(4_000, 1, 2)], 500), (Verdict::Harm, "other".into()));
        assert_eq!(said(&[control, arm(4_000, 5, 4)], 500), (Verdict::Harm, "other".into()), "a guardrail breaks");
        assert_eq!(said(&[control, arm(3_000, 5, 4)], 500), (Verdict::BadRatio, String::new()));
        assert_eq!(said(&[arm(50, 0, 0), arm(50, 10, 0)], 2_000).0, Verdict::Continue, "too few");
    }

    #[test]
    fn findings_tell_the_difference_in_the_direction_of_the_metric() {
        let judged = judge(&experiment(), &[arm(4_000, 3, 2), arm(4_000, 5, 1)], 2_000).expect("judged");
        let [goal, refusal] = judged.evidence.findings.as_slice() else { panic!("{:?}", judged.evidence) };
        assert_eq!((goal.metric, goal.margin, refusal.metric), (Metric::Acceptance, None, Metric::Refusal));
        assert!(goal.low > 0.1 && goal.low < 0.2 && goal.high > 0.2, "{goal:?}");
        assert!(refusal.low < -0.1 && refusal.high < 0.0 && refusal.margin == Some(0.05), "{refusal:?}");
        assert!((goal.control - 0.3).abs() < 1e-9 && (goal.treated - 0.5).abs() < 1e-9);
    }

    #[test]
    fn what_is_drawn_from_either_list_is_compared_with_one_half() {
        let mut one = experiment();
        one.spec.kind = ExperimentKind::Interleaving;
        one.spec.guardrails.clear();
        let said = |tenths: u64| {
            let second = ArmSums { listeners: 2_000, preference: shares(2_000, tenths), ..ArmSums::default() };
            judge(&one, &[ArmSums::default(), second], 2_000).expect("judged").decision.verdict
        };
        assert_eq!([said(7), said(5), said(3)], [Verdict::Better, Verdict::Continue, Verdict::Harm]);
    }
}
