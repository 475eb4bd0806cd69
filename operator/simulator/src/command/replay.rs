//! `replay`: policies as they are.

use serde_json::{Value, json};

use super::{
    Studied,
    arguments::{Asked, Output},
    chart::{Chart, Mark, Panel},
    say, studied,
    table::{difference, table, told},
};
use crate::{
    sim::{Figures, Measures, Setting},
    study::{Class, Found, Interval, Policy, interval, paired},
    trace::Trace,
};

pub(super) fn run(asked: &Asked) -> anyhow::Result<()> {
    let plan = asked.demand.plan(asked.policy.clone(), asked.seeds)?;
    let trace = Trace::open(&asked.demand.trace)?;
    let Studied { found, notes } = studied(&plan, &trace, asked.threads)?;
    match asked.output {
        Output::Table => tables(&plan.policies, &found),
        Output::Json => {
            let classes = as_json(&plan.policies, &found);
            say(format_args!(
                "{:#}",
                json!({ "setting": setting_json(&plan.setting), "notes": notes, "classes": classes })
            ))
        }
        Output::Svg => say(charted(&plan.policies, &found).render()),
    }
}

/// One figure by seed.
fn by_seed(measured: &[Measures], of: impl Fn(&Figures) -> f64) -> Vec<f64> {
    measured.iter().map(|measures| of(&measures.figures())).collect()
}

fn mean(measured: &[Measures], of: impl Fn(&Figures) -> f64) -> Option<Interval> {
    interval(&by_seed(measured, of))
}

fn coverage(measured: &[Measures]) -> Option<Interval> {
    let held: Option<Vec<f64>> = measured.iter().map(|measures| measures.figures().coverage_percent).collect();
    interval(&held?)
}

pub(super) fn heading(class: Class, measured: &[Measures]) -> String {
    let one = measured.first().cloned().unwrap_or_default();
    let (services, calls, seeds) = (one.services, one.calls, measured.len());
    format!("{class}: {services} services, {calls} calls, {seeds} seeds, means and 95 % intervals")
}

fn tables(policies: &[Policy], found: &Found) -> anyhow::Result<()> {
    for (class, measured) in found {
        say(heading(*class, &measured[0]))?;
        let mut rows = table(&[
            "policy",
            "slow %",
            "pod-hours",
            "p50 ms",
            "p99 ms",
            "cold %",
            "actions",
            "sessions killed",
            "calls killed",
            "covered %",
        ]);
        for (policy, of) in policies.iter().zip(measured) {
            rows.add_row([
                policy.to_string(),
                told(mean(of, |one| one.slow_percent)),
                told(mean(of, |one| one.pod_hours)),
                told(mean(of, |one| one.wait_p50_ms)),
                told(mean(of, |one| one.wait_p99_ms)),
                told(mean(of, |one| one.cold_percent)),
                told(mean(of, |one| one.actions)),
                told(mean(of, |one| one.sessions_killed)),
                told(mean(of, |one| one.calls_killed)),
                told(coverage(of)),
            ]);
        }
        say(rows)?;
        differences(policies, measured)?;
    }
    Ok(())
}

/// The first policy less each other, seed by seed.
fn differences(policies: &[Policy], measured: &[Vec<Measures>]) -> anyhow::Result<()> {
    if policies.len() < 2 {
        return Ok(());
    }
    let first = &measured[0];
    let mut rows = table(&[&format!("{} less", policies[0]), "slow %", "pod-hours", "actions"]);
    for (policy, of) in policies.iter().zip(measured).skip(1) {
        let less = |figure: fn(&Figures) -> f64| difference(paired(&by_seed(first, figure), &by_seed(of, figure)));
        rows.add_row([
            policy.to_string(),
            less(|one| one.slow_percent),
            less(|one| one.pod_hours),
            less(|one| one.actions),
        ]);
    }
    say(rows)
}

pub(super) fn setting_json(setting: &Setting) -> Value {
    json!({
        "start_delay_ms": setting.start_delay_ms,
        "start_tail": setting.start_tail,
        "concurrency": setting.concurrency,
        "most_pods": setting.most_pods,
        "call_mean_ms": setting.call_mean_ms,
        "call_limit_ms": setting.call_limit_ms,
        "slow_ms": setting.slow_ms,
        "session_calls": setting.session_calls,
    })
}

fn as_json(policies: &[Policy], found: &Found) -> Vec<Value> {
    let classes = found.iter().map(|(class, measured)| {
        let policies = policies.iter().zip(measured).map(|(policy, of)| {
            let figures: Vec<Figures> = of.iter().map(Measures::figures).collect();
            let less = |figure: fn(&Figures) -> f64| paired(&by_seed(&measured[0], figure), &by_seed(of, figure));
            json!({
                "policy": policy.to_string(),
                "slow_percent": mean(of, |one| one.slow_percent),
                "pod_hours": mean(of, |one| one.pod_hours),
                "wait_p50_ms": mean(of, |one| one.wait_p50_ms),
                "wait_p99_ms": mean(of, |one| one.wait_p99_ms),
                "cold_percent": mean(of, |one| one.cold_percent),
                "actions": mean(of, |one| one.actions),
                "sessions_killed": mean(of, |one| one.sessions_killed),
                "calls_killed": mean(of, |one| one.calls_killed),
                "coverage_percent": coverage(of),
                "first_less_this": {
                    "slow_percent": less(|one| one.slow_percent),
                    "pod_hours": less(|one| one.pod_hours),
                    "actions": less(|one| one.actions),
                },
                "by_seed": figures,
            })
        });
        let first = measured[0].first().cloned().unwrap_or_default();
        json!({
            "class": class.name(),
            "services": first.services,
            "calls": first.calls,
            "policies": policies.collect::<Vec<_>>(),
        })
    });
    classes.collect()
}

fn charted(policies: &[Policy], found: &Found) -> Chart {
    let panels = found.iter().map(|(class, measured)| {
        let marks = policies.iter().zip(measured).map(|(policy, of)| {
            let (hours, slow) = (mean(of, |one| one.pod_hours), mean(of, |one| one.slow_percent));
            (policy.to_string(), vec![Mark::new(policy.to_string(), hours, slow, true)])
        });
        Panel { title: heading(*class, &measured[0]), curves: marks.collect() }
    });
    Chart { panels: panels.collect() }
}
