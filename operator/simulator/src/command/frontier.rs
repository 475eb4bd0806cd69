//! `frontier`: each policy over its whole range, against the frontier of another.

use serde_json::{Value, json};

use super::{
    Fault, Studied,
    arguments::{Asked, Output},
    chart::{Chart, Mark, Panel},
    replay::{heading, setting_json},
    say, studied,
    table::{difference, digits, table},
};
use crate::{
    sim::Measures,
    study::{Class, Curve, Family, Point, Policy, against, interval, pareto},
    trace::Trace,
};

/// One class: its heading and the curves of the families.
struct Swept {
    class: Class,
    title: String,
    curves: Vec<Curve>,
    /// Of the curve whose frontier all are compared with.
    reference: usize,
}

pub(super) fn run(asked: &Asked) -> anyhow::Result<()> {
    let Some(reference) = asked.policy.iter().position(|policy| policy.family != Family::Ours) else {
        return Err(Fault::Usage(
            "--policy names only ours; a frontier to compare it with is needed, such as kpa".into(),
        )
        .into());
    };
    let sweeps: Vec<Vec<Policy>> = asked.policy.iter().map(Policy::sweep).collect();
    let mut policies: Vec<Policy> = Vec::new();
    for policy in sweeps.iter().flatten() {
        if !policies.contains(policy) {
            policies.push(*policy);
        }
    }
    let plan = asked.demand.plan(policies, asked.seeds)?;
    let trace = Trace::open(&asked.demand.trace)?;
    let Studied { found, notes } = studied(&plan, &trace, asked.threads)?;
    let swept = found.iter().map(|(class, measured)| {
        let point = |policy: &Policy| {
            let place = plan.policies.iter().position(|one| one == policy).expect("each that is swept is replayed");
            Point::new(*policy, &measured[place])
        };
        let curve =
            |(name, sweep): (&Policy, &Vec<Policy>)| Curve { name: *name, points: sweep.iter().map(point).collect() };
        let curves = asked.policy.iter().zip(&sweeps).map(curve).collect();
        Swept {
            class: *class,
            title: heading(*class, measured.first().map_or(&[] as &[Measures], |one| one)),
            curves,
            reference,
        }
    });
    let swept: Vec<Swept> = swept.collect();
    match asked.output {
        Output::Table => swept.iter().try_for_each(Swept::tables),
        Output::Json => {
            let classes: Vec<Value> = swept.iter().map(Swept::as_json).collect();
            let setting = setting_json(&plan.setting);
            say(format_args!("{:#}", json!({ "setting": setting, "notes": notes, "classes": classes })))
        }
        Output::Svg => say(Chart { panels: swept.iter().map(Swept::panel).collect() }.render()),
    }
}

impl Swept {
    fn tables(&self) -> anyhow::Result<()> {
        let reference = &self.curves[self.reference];
        let frontier = pareto(&reference.points);
        say(&self.title)?;
        let than = format!("against the frontier of {}", reference.name);
        let mut rows =
            table(&["policy", "", "slow %", "pod-hours", "pod-hours at its slow %", "slow at its pod-hours"]);
        for curve in &self.curves {
            let best = pareto(&curve.points);
            for point in &curve.points {
                let is_default = point.policy == curve.name;
                if !is_default && !best.iter().any(|one| one.policy == point.policy) {
                    continue;
                }
                let (hours, slow) = point.means();
                let compared = against(point, &frontier);
                let percent = |told: String| if told == "–" { told } else { format!("{told} %") };
                let cells = [
                    point.policy.to_string(),
                    if is_default { "as it is".into() } else { String::new() },
                    digits(slow),
                    digits(hours),
                    percent(difference(compared.hours)),
                    percent(difference(compared.slow)),
                ];
                rows.add_row(cells);
            }
        }
        say(rows)?;
        say(format_args!(
            "The last two columns are {than}, paired by seed, with 95 % intervals; – where it does not reach.\n"
        ))
    }

    fn as_json(&self) -> Value {
        let reference = &self.curves[self.reference];
        let frontier = pareto(&reference.points);
        let curves = self.curves.iter().map(|curve| {
            let best = pareto(&curve.points);
            let points = curve.points.iter().map(|point| {
                let compared = against(point, &frontier);
                json!({
                    "policy": point.policy.to_string(),
                    "as_it_is": point.policy == curve.name,
                    "on_frontier": best.iter().any(|one| one.policy == point.policy),
                    "slow_percent": interval(&point.slow),
                    "pod_hours": interval(&point.hours),
                    "pod_hours_percent_at_slow": compared.hours,
                    "slow_percent_at_pod_hours": compared.slow,
                    "by_seed": { "slow_percent": point.slow, "pod_hours": point.hours },
                })
            });
            json!({ "swept": curve.name.to_string(), "points": points.collect::<Vec<_>>() })
        });
        json!({
            "class": self.class.name(),
            "title": self.title,
            "compared_with": reference.name.to_string(),
            "curves": curves.collect::<Vec<_>>(),
        })
    }

    fn panel(&self) -> Panel {
        let curves = self.curves.iter().map(|curve| {
            let mut points = pareto(&curve.points);
            let default = curve.points.iter().find(|point| point.policy == curve.name);
            if let Some(default) = default.filter(|one| !points.iter().any(|point| point.policy == one.policy)) {
                // Off its own frontier: shown, and not joined.
                points.push(default);
            }
            let mark = |point: &&Point| {
                let (hours, slow) = (interval(&point.hours), interval(&point.slow));
                Mark::new(point.policy.to_string(), hours, slow, point.policy == curve.name)
            };
            (curve.name.to_string(), points.iter().map(mark).collect())
        });
        Panel { title: self.title.clone(), curves: curves.collect() }
    }
}
