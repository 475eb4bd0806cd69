//! How fast an HPA may grow and shrink, and how long it looks back.
//!
//! Upstream: `kubernetes/kubernetes` `pkg/controller/podautoscaler/horizontal.go`.

use super::Ms;

/// Which of several policies counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The one that allows the greatest change.
    Max,
    /// The one that allows the smallest.
    Min,
    /// None: this direction is off.
    Disabled,
}

/// How much may change within a period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Amount {
    /// That many pods.
    Pods(i32),
    /// That part of the replicas at the beginning of the period, in percent.
    Percent(i32),
}

/// One policy of a direction.
#[derive(Debug, Clone, Copy)]
pub struct Policy {
    /// How much.
    pub amount: Amount,
    /// Within how many seconds.
    pub period_s: u32,
}

/// The rules of one direction.
#[derive(Debug, Clone)]
pub struct Rules {
    /// `stabilizationWindowSeconds`.
    pub stabilization_s: Option<u32>,
    /// `selectPolicy`.
    pub select: Select,
    /// `policies`.
    pub policies: Vec<Policy>,
}

/// Both directions.
#[derive(Debug, Clone)]
pub struct Behavior {
    /// Growth.
    pub up: Rules,
    /// Shrinking.
    pub down: Rules,
}

impl Default for Behavior {
    /// What the API fills in where `behavior` names a direction only in part.
    fn default() -> Self {
        let percent = Policy { amount: Amount::Percent(100), period_s: 15 };
        let pods = Policy { amount: Amount::Pods(4), period_s: 15 };
        Self {
            up: Rules { stabilization_s: Some(0), select: Select::Max, policies: vec![pods, percent] },
            down: Rules { stabilization_s: None, select: Select::Max, policies: vec![percent] },
        }
    }
}

/// What bounded a decision: the reason of the condition `ScalingLimited`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// Nothing.
    DesiredWithinRange,
    /// `minReplicas`.
    TooFewReplicas,
    /// `maxReplicas`.
    TooManyReplicas,
    /// The rate of growth.
    ScaleUpLimit,
    /// The rate of shrinking.
    ScaleDownLimit,
}

/// A change that was made. Upstream marks those no policy looks at, and uses their places again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event {
    /// Replicas more or fewer.
    pub change: i32,
    /// When.
    pub at: Ms,
    /// Whether its place may be used again.
    pub outdated: bool,
}

/// What the controller remembers of one HPA.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// What metrics proposed, before any limit, and when.
    pub proposals: Vec<(u32, Ms)>,
    /// Growth.
    pub ups: Vec<Event>,
    /// Shrinking.
    pub downs: Vec<Event>,
}

const fn before(at: Ms, now: Ms, window_ms: Ms) -> bool {
    at + window_ms < now
}

const fn within(at: Ms, now: Ms, window_ms: Ms) -> bool {
    at + window_ms > now
}

fn replace_or_push<T>(list: &mut Vec<T>, place: Option<usize>, value: T) {
    match place {
        Some(place) => list[place] = value,
        None => list.push(value),
    }
}

impl History {
    /// What is there when the controller first sees an HPA. Upstream: `recordInitialRecommendation`.
    pub fn begin(&mut self, now: Ms, replicas: u32) {
        if self.proposals.is_empty() {
            self.proposals.push((replicas, now));
        }
    }

    /// The highest proposal of the last `window_ms`. Upstream: `stabilizeRecommendation`.
    pub fn stabilize(&mut self, now: Ms, window_ms: Ms, proposed: u32) -> u32 {
        let recent = self.proposals.iter().filter(|(_, at)| !before(*at, now, window_ms));
        let highest = recent.map(|(replicas, _)| *replicas).fold(proposed, u32::max);
        let old = self.proposals.iter().rposition(|(_, at)| before(*at, now, window_ms));
        replace_or_push(&mut self.proposals, old, (proposed, now));
        highest
    }

    /// The current replicas, brought between the lowest proposal of the window of growth and the highest of that of
    /// shrinking. Upstream: `stabilizeRecommendationWithBehaviors`.
    pub fn stabilize_both(
        &mut self,
        now: Ms,
        behavior: &Behavior,
        default_down_ms: Ms,
        replicas: u32,
        proposed: u32,
    ) -> u32 {
        let up_ms = behavior.up.stabilization_s.map_or(0, |seconds| Ms::from(seconds) * 1_000);
        let down_ms = behavior.down.stabilization_s.map_or(default_down_ms, |seconds| Ms::from(seconds) * 1_000);
        let (mut lowest, mut highest, mut old) = (proposed, proposed, None);
        for (place, &(earlier, at)) in self.proposals.iter().enumerate() {
            if within(at, now, up_ms) {
                lowest = lowest.min(earlier);
            }
            if within(at, now, down_ms) {
                highest = highest.max(earlier);
            }
            if before(at, now, up_ms) && before(at, now, down_ms) {
                old = Some(place);
            }
        }
        replace_or_push(&mut self.proposals, old, (proposed, now));
        replicas.max(lowest).min(highest)
    }

    /// Holds a decision to the rates and to `min` and `max`. Upstream: `convertDesiredReplicasWithBehaviorRate`.
    pub fn within_rates(
        &self,
        now: Ms,
        behavior: &Behavior,
        replicas: u32,
        desired: u32,
        min: u32,
        max: u32,
    ) -> (u32, Limit) {
        let signed = i32::try_from(replicas).unwrap_or(i32::MAX);
        if desired > replicas {
            let limit = self.up_limit(now, signed, &behavior.up).max(signed);
            let limit = u32::try_from(limit).unwrap_or(0);
            let (most, reason) = if max > limit { (limit, Limit::ScaleUpLimit) } else { (max, Limit::TooManyReplicas) };
            if desired > most {
                return (most, reason);
            }
        } else if desired < replicas {
            let limit = self.down_limit(now, signed, &behavior.down).min(signed);
            let (least, reason) = match u32::try_from(limit) {
                Ok(limit) if limit > min => (limit, Limit::ScaleDownLimit),
                _ => (min, Limit::TooFewReplicas),
            };
            if desired < least {
                return (least, reason);
            }
        }
        (desired, Limit::DesiredWithinRange)
    }

    /// Upstream: `calculateScaleUpLimitWithScalingRules`.
    #[expect(clippy::cast_possible_truncation, reason = "as upstream: a float that is cut to 32 bits")]
    pub fn up_limit(&self, now: Ms, replicas: i32, rules: &Rules) -> i32 {
        let proposed = rules.policies.iter().map(|policy| {
            let start = self.at_period_start(now, replicas, policy.period_s);
            match policy.amount {
                Amount::Pods(pods) => start.saturating_add(pods),
                Amount::Percent(percent) => (f64::from(start) * (1.0 + f64::from(percent) / 100.0)).ceil() as i32,
            }
        });
        match rules.select {
            Select::Disabled => replicas,
            Select::Min => proposed.min().unwrap_or(i32::MAX),
            Select::Max => proposed.max().unwrap_or(i32::MIN),
        }
    }

    /// Upstream: `calculateScaleDownLimitWithBehaviors`.
    #[expect(clippy::cast_possible_truncation, reason = "as upstream: a float that is cut to 32 bits")]
    pub fn down_limit(&self, now: Ms, replicas: i32, rules: &Rules) -> i32 {
        let proposed = rules.policies.iter().map(|policy| {
            let start = self.at_period_start(now, replicas, policy.period_s);
            match policy.amount {
                Amount::Pods(pods) => start.saturating_sub(pods),
                Amount::Percent(percent) => (f64::from(start) * (1.0 - f64::from(percent) / 100.0)) as i32,
            }
        });
        match rules.select {
            Select::Disabled => replicas,
            Select::Min => proposed.max().unwrap_or(i32::MIN),
            Select::Max => proposed.min().unwrap_or(i32::MAX),
        }
    }

    fn at_period_start(&self, now: Ms, replicas: i32, period_s: u32) -> i32 {
        replicas - changed(&self.ups, now, period_s) + changed(&self.downs, now, period_s)
    }

    /// Remembers a change. Upstream: `storeScaleEvent`.
    pub fn store(&mut self, now: Ms, behavior: &Behavior, from: u32, to: u32) {
        let (events, rules) = if to > from { (&mut self.ups, &behavior.up) } else { (&mut self.downs, &behavior.down) };
        let longest = rules.policies.iter().map(|policy| policy.period_s).max().unwrap_or(0);
        for event in events.iter_mut() {
            event.outdated |= before(event.at, now, Ms::from(longest) * 1_000);
        }
        let place = events.iter().rposition(|event| event.outdated);
        let change = i32::try_from(to.abs_diff(from)).unwrap_or(i32::MAX);
        replace_or_push(events, place, Event { change, at: now, outdated: false });
    }
}

/// Replicas that changed within a period. Upstream: `getReplicasChangePerPeriod`.
pub fn changed(events: &[Event], now: Ms, period_s: u32) -> i32 {
    let recent = events.iter().filter(|event| within(event.at, now, Ms::from(period_s) * 1_000));
    recent.map(|event| event.change).sum()
}

/// Holds a decision to `min`, `max` and the growth of an HPA without `behavior`: twice as many, or four.
///
/// Upstream: `convertDesiredReplicasWithRules`, `calculateScaleUpLimit`.
pub fn within_rules(replicas: u32, desired: u32, min: u32, max: u32) -> (u32, Limit) {
    let limit = replicas.saturating_mul(2).max(4);
    let (most, reason) = if max > limit { (limit, Limit::ScaleUpLimit) } else { (max, Limit::TooManyReplicas) };
    if desired < min {
        (min, Limit::TooFewReplicas)
    } else if desired > most {
        (most, reason)
    } else {
        (desired, Limit::DesiredWithinRange)
    }
}
