//! Experiments, and what they found.

use comfy_table::Table;
use echotune_model::{
    Decision, Evidence, Experiment, ExperimentKind, ExperimentSpec, ExperimentState, Finding, PARTS, PolicyChange,
    Verdict,
};
use serde_json::{Value, json};

use super::{accounts::moment, print_json, printable, say, table};
use crate::commands::Output;

/// What a variant changes, as the command takes it.
fn change_text(change: &PolicyChange) -> String {
    let PolicyChange { trending_weight, max_per_artist, exploration_slots, model, diversity_weight } = change;
    let parts = [
        trending_weight.map(|weight| format!("trending_weight={weight}")),
        max_per_artist.map(|most| format!("max_per_artist={most}")),
        exploration_slots.map(|slots| format!("exploration_slots={slots}")),
        model.map(|model| format!("model={}", model.name())),
        diversity_weight.map(|weight| format!("diversity_weight={weight}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(",")
}

/// What is said of an experiment; that nothing is said yet, where it was not looked at.
fn decision_of(experiment: &Experiment) -> Decision {
    let open =
        || Decision { verdict: Verdict::Continue, variant: String::new(), reason: String::new(), decided_at_ms: 0 };
    experiment.decision.clone().unwrap_or_else(open)
}

fn experiment_json(experiment: &Experiment) -> Value {
    let spec = &experiment.spec;
    let variants = spec
        .variants
        .iter()
        .map(|one| json!({"name": one.name, "weight": one.weight, "change": change_text(&one.change)}));
    let guardrails = spec
        .guardrails
        .iter()
        .map(|one| json!({"metric": one.metric.name(), "margin": one.margin}))
        .collect::<Vec<_>>();
    let Decision { verdict, variant, reason, decided_at_ms } = decision_of(experiment);
    json!({
        "name": spec.name, "hypothesis": spec.hypothesis, "kind": spec.kind.name(), "state": experiment.state.name(),
        "variants": variants.collect::<Vec<_>>(), "share": spec.share, "primary": spec.primary.name(),
        "guardrails": guardrails, "alpha": spec.alpha,
        "min_listeners": spec.min_listeners, "max_listeners": spec.max_listeners,
        "min_duration_ms": spec.min_duration_ms, "max_duration_ms": spec.max_duration_ms,
        "slow_list_ms": spec.slow_list_ms, "window_ms": spec.window_ms, "auto_stop": spec.auto_stop,
        "started_at_ms": experiment.started_at_ms, "stopped_at_ms": experiment.stopped_at_ms,
        "decision": {
            "verdict": verdict.name(), "variant": variant, "reason": reason, "decided_at_ms": decided_at_ms,
        },
    })
}

fn evidence_json(evidence: &Evidence) -> Value {
    let arms = evidence.arms.iter().map(|arm| {
        json!({
            "variant": arm.variant, "listeners": arm.listeners, "impressions": arm.impressions, "items": arm.items,
            "accepted": arm.accepted, "refused": arm.refused, "lists": arm.lists, "empty_lists": arm.empty_lists,
            "slow_lists": arm.slow_lists,
        })
    });
    let findings = evidence.findings.iter().map(|one| {
        json!({
            "variant": one.variant, "metric": one.metric.name(), "control": one.control, "treated": one.treated,
            "low": one.low, "high": one.high, "margin": one.margin.unwrap_or(0.0), "goal": one.margin.is_none(),
        })
    });
    json!({
        "arms": arms.collect::<Vec<_>>(), "findings": findings.collect::<Vec<_>>(),
        "ratio_p_value": evidence.ratio_p_value,
    })
}

/// An experiment that has begun.
pub(crate) fn experiment_begun(experiment: &Experiment, served: bool, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&experiment_json(experiment));
    }
    let name = &experiment.spec.name;
    let when = if served { "now" } else { "as soon as `echotune up` runs" };
    say(format_args!(
        "experiment {name} takes part in lists {when}; `echotune experiment status {name}` tells what it finds"
    ))
}

/// Experiments, the newest first.
pub(crate) fn experiments(experiments: &[Experiment], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&json!({"experiments": experiments.iter().map(experiment_json).collect::<Vec<_>>()}));
    }
    if experiments.is_empty() {
        return say("There are no experiments yet; `echotune experiment create --help` tells how to begin one.");
    }
    let mut shown = table(&["experiment", "kind", "state", "began", "verdict", "hypothesis"]);
    for one in experiments {
        let verdict = one.decision.as_ref().map_or("", |decision| decision.verdict.name());
        shown.add_row([
            one.spec.name.clone(),
            one.spec.kind.name().to_owned(),
            one.state.name().to_owned(),
            moment(one.started_at_ms),
            verdict.to_owned(),
            printable(&one.spec.hypothesis),
        ]);
    }
    say(shown)
}

/// An experiment, what it found, and what that says.
pub(crate) fn experiment(experiment: &Experiment, evidence: &Evidence, output: Output) -> anyhow::Result<()> {
    let spec = &experiment.spec;
    if output == Output::Json {
        let mut shown = experiment_json(experiment);
        shown["evidence"] = evidence_json(evidence);
        return print_json(&shown);
    }
    let (name, kind, began) = (&spec.name, spec.kind.name(), moment(experiment.started_at_ms));
    let time = match experiment.state {
        ExperimentState::Running => format!("running since {began}"),
        ExperimentState::Stopped => format!("ran from {began} to {}", moment(experiment.stopped_at_ms)),
    };
    let share = 100.0 * f64::from(spec.share) / f64::from(PARTS);
    say(format_args!("{name}: {}\n{kind} over {share}% of listeners, {time}", printable(&spec.hypothesis)))?;
    say(arms_table(spec, evidence))?;
    say(findings_table(spec, evidence))?;
    if spec.kind == ExperimentKind::Split {
        say(format_args!("ratio of listeners: p {:.3}", evidence.ratio_p_value))?;
    }
    let Decision { verdict, reason, .. } = decision_of(experiment);
    say(format_args!("verdict: {} – {}", verdict.name(), printable(&reason)))
}

fn arms_table(spec: &ExperimentSpec, evidence: &Evidence) -> Table {
    let mut arms =
        table(&["variant", "changes", "listeners", "shown", "items", "accepted", "refused", "lists", "empty", "slow"]);
    for (arm, variant) in evidence.arms.iter().zip(&spec.variants) {
        let counts = [
            arm.listeners,
            arm.impressions,
            arm.items,
            arm.accepted,
            arm.refused,
            arm.lists,
            arm.empty_lists,
            arm.slow_lists,
        ];
        let change = change_text(&variant.change).replace(',', "\n");
        arms.add_row([arm.variant.clone(), change].into_iter().chain(counts.map(|count| count.to_string())));
    }
    arms
}

fn findings_table(spec: &ExperimentSpec, evidence: &Evidence) -> Table {
    let level = 100.0 * (1.0 - spec.alpha);
    let interval = format!("difference at {level}%");
    let mut findings = table(&["variant", "metric", "control", "variant's", interval.as_str(), "may lose"]);
    evidence.findings.iter().for_each(|one| {
        findings.add_row(finding_row(one));
    });
    findings
}

fn finding_row(finding: &Finding) -> [String; 6] {
    let Finding { variant, metric, control, treated, low, high, margin } = finding;
    let known = *low > -1.0 || *high < 1.0;
    let interval = if known { format!("{low:+.4} to {high:+.4}") } else { "not known yet".to_owned() };
    let margin = margin.map_or_else(|| "nothing: it decides".to_owned(), |margin| margin.to_string());
    [variant.clone(), metric.name().to_owned(), format!("{control:.4}"), format!("{treated:.4}"), interval, margin]
}
