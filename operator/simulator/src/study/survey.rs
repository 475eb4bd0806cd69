//! What a plan takes of a trace, looked at before anything is replayed: so that a bad line is told at once, and not
//! after hours, and with what should be known to judge the result.

use std::collections::BTreeMap;

use super::{Class, Plan};
use crate::{
    sim::Setting,
    trace::{Arrivals, Service, Trace, TraceError},
};

/// Calls of one interval at the most: their times are in memory at once, 8 bytes each and thread.
const INTERVAL_CALLS: u64 = 1 << 24;
/// Calls that may wait at once: each takes 24 bytes and thread.
const WAITING_CALLS: f64 = 33_554_432.0;
/// As many calls take minutes on any machine.
const MANY_CALLS: u64 = 1_000_000_000;
/// In less the beginning decides what a policy costs.
const SHORT_US: u64 = 1_800_000_000;
/// Calls of a log are looked at by the minute.
const MINUTE_US: u64 = 60_000_000;

/// What is replayed of one class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share {
    /// Services.
    pub services: u64,
    /// Their calls.
    pub calls: u64,
    /// How long the longest lasts, in microseconds.
    pub longest_us: u64,
}

/// What a plan takes of a trace.
#[derive(Debug, Clone, Default)]
pub struct Survey {
    /// By class.
    pub taken: BTreeMap<Class, Share>,
    /// Services that are left out because they are rare, and no class was asked for.
    pub rare: u64,
    /// What should be known to judge the result: a sentence each.
    pub notes: Vec<String>,
    /// Why it cannot be replayed: a sentence for the first service of which that is so, with the way out.
    pub fault: Option<String>,
}

/// What a service asks of pods, whatever scales them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Demand {
    /// Calls of the fullest interval.
    fullest: u64,
    /// Pods that are busy all the time in the busiest interval.
    pods: f64,
    /// Calls that wait at the most even if all pods that are allowed are there.
    waiting: f64,
}

impl Survey {
    /// Replays under each policy and seed.
    pub fn replays(&self, plan: &Plan) -> u64 {
        let services: u64 = self.taken.values().map(|share| share.services).sum();
        services.saturating_mul(plan.policies.len() as u64).saturating_mul(plan.seeds)
    }

    pub(super) fn of(plan: &Plan, trace: &Trace) -> Result<Self, TraceError> {
        let mut survey = Self::default();
        let mut lacking: Option<(f64, String, u64)> = None;
        let mut unscaled = false;
        for sorted in plan.sorted(trace) {
            let (index, class, service, takes) = sorted?;
            if !takes {
                survey.rare += u64::from(class == Class::Rare && plan.class.is_none() && plan.part.takes(index));
                continue;
            }
            let share = survey.taken.entry(class).or_default();
            share.services += 1;
            share.calls += service.arrivals.calls();
            share.longest_us = share.longest_us.max(service.arrivals.end_us());
            unscaled |= matches!(service.arrivals, Arrivals::Times { .. });
            let demand = Demand::of(&service, &plan.setting);
            survey.fault = survey.fault.take().or_else(|| demand.fault(&service.name, &plan.setting));
            if demand.pods > f64::from(plan.setting.most_pods) {
                let (most, name, count) = lacking.unwrap_or_default();
                let name = if demand.pods > most { service.name } else { name };
                lacking = Some((most.max(demand.pods), name, count + 1));
            }
        }
        survey.note(plan, lacking, unscaled);
        survey.notes.extend(trace.told());
        Ok(survey)
    }

    #[expect(clippy::float_cmp, reason = "1 is what nobody asked for")]
    fn note(&mut self, plan: &Plan, lacking: Option<(f64, String, u64)>, unscaled: bool) {
        let notes = &mut self.notes;
        for (class, Share { services, calls, longest_us }) in &self.taken {
            let lasts = span(*longest_us);
            notes.push(format!("{}: {services} services with {calls} calls in {lasts} at the longest", class.name()));
            if *longest_us < SHORT_US {
                notes.push(format!(
                    "{} lasts {lasts}, in which what runs at the beginning decides; half an hour is little",
                    class.name()
                ));
            }
            if *calls == 0 {
                notes.push(format!("{} has no call at all", class.name()));
            }
        }
        if self.rare > 0 {
            let rare = self.rare;
            notes.push(format!("{rare} services with fewer than 10 calls a day are left out; --class rare takes them"));
        }
        if unscaled && plan.scale != 1.0 {
            notes.push("--scale multiplies counts, and leaves a time per call as it is".into());
        }
        if let Some((pods, name, count)) = lacking {
            let most = plan.setting.most_pods;
            notes.push(format!(
                "'{name}' needs {pods:.0} pods in its busiest interval, and --most-pods allows {most}: calls pile up \
                 under any policy ({count} services in all)"
            ));
        }
        let calls: u64 = self.taken.values().map(|share| share.calls).sum();
        let all = calls.saturating_mul(plan.policies.len() as u64).saturating_mul(plan.seeds);
        if all > MANY_CALLS {
            notes.push(format!(
                "{all} calls are replayed in all, which takes long; --seeds, --policy, --days, --limit and --part make \
                 them fewer"
            ));
        }
    }
}

impl Demand {
    #[expect(clippy::cast_precision_loss, reason = "calls and microseconds of a trace")]
    fn of(service: &Service, setting: &Setting) -> Self {
        let limit_us = setting.call_limit_ms.max(1) as f64 * 1e3;
        let mean_us = service.durations.as_ref().map_or(setting.call_mean_ms as f64 * 1e3, |one| one.mean_us(limit_us));
        let mean_us = mean_us.clamp(1.0, limit_us);
        let by_pod = f64::from(setting.concurrency) / mean_us;
        let by_all = by_pod * f64::from(setting.most_pods);
        let (mut found, mut waiting, mut end_us) = (Self::default(), 0.0_f64, 0);
        let mut look = |begin_us: u64, width_us: u64, calls: u64| {
            let idle_us = begin_us.saturating_sub(end_us) as f64;
            waiting = (waiting - by_all * idle_us).max(0.0);
            waiting = (waiting + calls as f64 - by_all * width_us as f64).max(0.0);
            end_us = begin_us + width_us;
            found.fullest = found.fullest.max(calls);
            found.pods = found.pods.max(calls as f64 / (by_pod * width_us as f64));
            found.waiting = found.waiting.max(waiting);
        };
        match &service.arrivals {
            Arrivals::Counts { bin_ms, counts } => {
                let width_us = bin_ms * 1_000;
                for (at, calls) in (0_u64..).zip(counts) {
                    look(at * width_us, width_us, u64::from(*calls));
                }
            }
            Arrivals::Times { us, .. } => {
                for minute in us.chunk_by(|one, next| one / MINUTE_US == next / MINUTE_US) {
                    look(minute[0] / MINUTE_US * MINUTE_US, MINUTE_US, minute.len() as u64);
                }
                // They are in memory anyway.
                found.fullest = 0;
            }
        }
        found
    }

    fn fault(self, name: &str, setting: &Setting) -> Option<String> {
        if self.fullest > INTERVAL_CALLS {
            return Some(format!(
                "'{name}' has {} calls in one interval, and {INTERVAL_CALLS} fit; --scale 0.01 makes them fewer",
                self.fullest
            ));
        }
        (self.waiting > WAITING_CALLS).then(|| {
            format!(
                "'{name}' needs {:.0} pods and has {}, so that {:.0} calls would wait, and {WAITING_CALLS} fit; \
                 --most-pods and --concurrency make room for more, --scale and --days make them fewer",
                self.pods, setting.most_pods, self.waiting
            )
        })
    }
}

/// A time for people.
#[expect(clippy::cast_precision_loss, reason = "three digits of it are told")]
fn span(us: u64) -> String {
    let seconds = us as f64 / 1e6;
    let (unit, seconds_of_it) = [("days", 86_400.0), ("hours", 3_600.0), ("minutes", 60.0)]
        .into_iter()
        .find(|(_, length)| seconds >= 2.0 * length)
        .unwrap_or(("s", 1.0));
    format!("{:.1} {unit}", seconds / seconds_of_it)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Durations;

    fn service(arrivals: Arrivals) -> Service {
        Service { name: "one".into(), arrivals, durations: None, series: false }
    }

    fn counts(counts: Vec<u32>) -> Service {
        service(Arrivals::Counts { bin_ms: 60_000, counts })
    }

    #[test]
    fn what_pods_are_needed_is_that_of_the_busiest_interval() {
        // 480 calls a minute of half a second each keep four places busy, which one pod has.
        let setting = Setting { most_pods: 2, ..Setting::default() };
        let near = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-6, "{found}, not {expected}");
        let found = Demand::of(&counts(vec![480, 1_920, 480, 0]), &setting);
        assert_eq!(found.fullest, 1_920);
        near(found.pods, 4.0);
        near(found.waiting, 960.0);
        let longer = Service { durations: Durations::seen(vec![1e6]).map(Into::into), ..counts(vec![480]) };
        near(Demand::of(&longer, &setting).pods, 2.0);
        let us = (0..960).map(|at| 120_000_000 + at * 10_000).chain([400_000_000]).collect();
        let found = Demand::of(&service(Arrivals::Times { us, end_us: None }), &setting);
        near(found.pods, 2.0);
        near(found.waiting, 0.0);
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_way_out() {
        let setting = Setting::default();
        let fault = |service: &Service| Demand::of(service, &setting).fault(&service.name, &setting);
        assert!(fault(&counts(vec![20_000_000])).unwrap().contains("--scale"));
        let busy = counts(vec![1_000_000; 1_440]);
        assert!(fault(&busy).unwrap().contains("--most-pods"));
        let enough = Setting { most_pods: 3_000, ..setting };
        assert!(Demand::of(&busy, &enough).fault("busy", &enough).is_none());
        assert!(fault(&counts(vec![12_956; 1_440])).is_none());
    }

    #[test]
    fn times_are_told_in_their_own_size() {
        let told = [5_500_000, 300_000_000, 7_200_000_000, 864_000_000_000].map(span);
        assert_eq!(told, ["5.5 s", "5.0 minutes", "2.0 hours", "10.0 days"]);
    }
}
