//! Releases, jobs and drift.

use std::path::Path;

use echotune_model::{Drift, GateReport, Measure, ModelJob, Release, ReleaseDecision};
use serde_json::{Value, json};

use super::{accounts::moment, print_json, printable, say, table};
use crate::commands::Output;

fn measure_json(one: &Measure) -> Value {
    json!({
        "metric": one.metric, "candidate": one.candidate, "serving": one.serving, "low": one.low, "high": one.high,
        "listeners": one.listeners,
    })
}

fn gate_json(one: &GateReport) -> Value {
    json!({
        "gate": one.gate, "outcome": one.outcome.name(), "measured": one.measured, "bound": one.bound,
        "reason": one.reason,
    })
}

fn decision_json(one: &ReleaseDecision) -> Value {
    json!({
        "at_ms": one.at_ms, "action": one.action.name(), "version": one.version, "replaced": one.replaced,
        "by": one.by, "forced": one.forced, "reason": one.reason,
    })
}

fn release_json(one: &Release) -> Value {
    let training = one.training.as_ref();
    json!({
        "version": one.version, "state": one.state.name(), "made_at_ms": one.made_at_ms,
        "built_in": training.is_none(),
        "trials": training.map_or(0, |training| training.trials),
        "took_ms": training.map_or(0, |training| training.took_ms),
        "seed": training.map_or(0, |training| training.seed),
        "listeners": training.map_or(0, |training| training.listeners),
        "compared_with": training.map_or("", |training| training.compared_with.as_str()),
    })
}

/// How a job ended.
pub(crate) fn model_job(job: &ModelJob, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&json!({
            "id": job.id, "kind": job.kind.name(), "state": job.state.name(), "progress": job.progress,
            "message": job.message, "version": job.version, "began_at_ms": job.began_at_ms,
            "ended_at_ms": job.ended_at_ms,
        }));
    }
    say(printable(&job.message))
}

/// Releases, that which serves first, and the newest decisions.
pub(crate) fn releases(releases: &[Release], decisions: &[ReleaseDecision], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&json!({
            "releases": releases.iter().map(release_json).collect::<Vec<_>>(),
            "decisions": decisions.iter().map(decision_json).collect::<Vec<_>>(),
        }));
    }
    let mut shown = table(&["release", "state", "made", "recipes tried", "beside what served"]);
    for one in releases {
        let made = if one.made_at_ms == 0 { "built in".to_owned() } else { moment(one.made_at_ms) };
        let training = one.training.as_ref();
        let trials = training.map_or_else(String::new, |training| training.trials.to_string());
        let measures = training.map_or_else(String::new, |training| measures_told(&training.measures));
        shown.add_row([one.version.clone(), one.state.name().to_owned(), made, trials, measures]);
    }
    say(shown)?;
    if decisions.is_empty() { Ok(()) } else { say(decisions_table(decisions)) }
}

fn measures_told(measures: &[Measure]) -> String {
    let told = |one: &Measure| format!("{}: {:.4}, {:.4}", one.metric, one.candidate, one.serving);
    measures.iter().map(told).collect::<Vec<_>>().join("\n")
}

fn decisions_table(decisions: &[ReleaseDecision]) -> comfy_table::Table {
    let mut shown = table(&["decided", "what", "release", "before", "by", "reason"]);
    for one in decisions {
        let action = if one.forced { format!("{}, forced", one.action.name()) } else { one.action.name().to_owned() };
        let (version, replaced) = (one.version.clone(), one.replaced.clone());
        shown.add_row([moment(one.at_ms), action, version, replaced, one.by.clone(), printable(&one.reason)]);
    }
    shown
}

/// A release with what was measured and decided.
pub(crate) fn release(release: &Release, decisions: &[ReleaseDecision], output: Output) -> anyhow::Result<()> {
    let measures = release.training.as_ref().map_or(&[][..], |training| &training.measures);
    let options = release.recipe.lines().filter_map(|line| line.split_once('='));
    if output == Output::Json {
        let number = |value: &str| value.parse::<f64>().unwrap_or(f64::NAN);
        let mut shown = release_json(release);
        shown["options"] =
            options.map(|(name, value)| json!({"name": name, "value": number(value)})).collect::<Vec<_>>().into();
        shown["measures"] = measures.iter().map(measure_json).collect::<Vec<_>>().into();
        let with_gates = decisions.iter().map(|one| {
            let mut shown = decision_json(one);
            shown["gates"] = one.gates.iter().map(gate_json).collect::<Vec<_>>().into();
            shown
        });
        shown["decisions"] = with_gates.collect::<Vec<_>>().into();
        return print_json(&shown);
    }
    say(format_args!("release {}: {}", release.version, release.state.name()))?;
    let mut shown = table(&["option", "value"]);
    options.for_each(|(name, value)| {
        shown.add_row([printable(name), printable(value)]);
    });
    say(shown)?;
    if let Some(training) = &release.training {
        let (trials, listeners, with) = (training.trials, training.listeners, &training.compared_with);
        say(format_args!("the best of {trials} recipes on {listeners} listeners, compared with {with}:"))?;
        say(measures_table(measures))?;
    }
    decisions.iter().try_for_each(|one| {
        say(decisions_table(std::slice::from_ref(one)))?;
        if one.gates.is_empty() { Ok(()) } else { say(gates_table(&one.gates)) }
    })
}

fn measures_table(measures: &[Measure]) -> comfy_table::Table {
    let mut shown = table(&["metric", "release", "what served", "difference at 95%", "listeners"]);
    for one in measures {
        let interval = format!("{:+.2} % to {:+.2} %", 100.0 * one.low, 100.0 * one.high);
        let (candidate, serving) = (format!("{:.4}", one.candidate), format!("{:.4}", one.serving));
        shown.add_row([one.metric.clone(), candidate, serving, interval, one.listeners.to_string()]);
    }
    shown
}

fn gates_table(gates: &[GateReport]) -> comfy_table::Table {
    let mut shown = table(&["gate", "outcome", "measured", "bound", "figures"]);
    let number = |number: Option<f64>| number.map_or_else(String::new, |number| format!("{number:.4}"));
    for one in gates {
        let (gate, outcome) = (one.gate.clone(), one.outcome.name().to_owned());
        shown.add_row([gate, outcome, number(one.measured), number(one.bound), printable(&one.reason)]);
    }
    shown
}

/// A model card.
pub(crate) fn model_card(card: &str, output: Output) -> anyhow::Result<()> {
    if output == Output::Json { print_json(&json!({"card": card})) } else { say(card.trim_end()) }
}

/// A model that was written.
pub(crate) fn model_export(path: &Path, bytes: usize, output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        return print_json(&json!({"path": path, "bytes": bytes}));
    }
    say(format_args!("{bytes} bytes in {}", path.display()))
}

/// How far serving is from the fit.
pub(crate) fn drift(drift: &[Drift], output: Output) -> anyhow::Result<()> {
    if output == Output::Json {
        let row = |one: &Drift| {
            json!({
                "feature": one.feature, "kind": one.kind, "index": one.index, "divergence": one.divergence,
                "shift": one.shift, "fitted": one.fitted, "served": one.served,
            })
        };
        return print_json(&json!({"drift": drift.iter().map(row).collect::<Vec<_>>()}));
    }
    if drift.is_empty() {
        return say("No list was made since the start; there is nothing to compare with the fit.");
    }
    let mut shown = table(&["lists of", "feature", "index", "divergence", "shift", "fitted", "served"]);
    for one in drift {
        let numbers = [format!("{:.4}", one.index), format!("{:.4}", one.divergence)];
        let counts = [one.fitted.to_string(), one.served.to_string()];
        let named = [one.kind.clone(), one.feature.clone()];
        shown.add_row(named.into_iter().chain(numbers).chain([one.shift.clone()]).chain(counts));
    }
    say(shown)
}
