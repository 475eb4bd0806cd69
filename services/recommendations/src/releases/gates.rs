//! What must hold before a release serves: quality beside what serves, an estimate from the impressions logged
//! where there are enough, and how long lists take. Measuring is here, judging is in the engine.

use std::{collections::HashSet, time::Instant};

use echotune_api::{MAX_LIMIT, RecommendQuery};
use echotune_engine::trials::{
    InvalidInput,
    gate::{self, Kind, Latency, LatencyGate, Measured, Outcome, PolicyGate, QualityGate, Thresholds},
    ope,
};
use echotune_model::{ErrorKind, Fault, GateOutcome, GateReport, ItemKind, Measure, UserId};

use super::{ReleaseLimits, compare::intervals};
use crate::{RecommendationsService, model::Model, rank::Ranking, store::Explored, what_if::Without};

/// The quantile of latency that is held to a bound.
const QUANTILE: f64 = 0.99;
/// Lists made to measure it, by each recipe.
const LISTS: usize = 1_000;
/// Length of these lists.
const LENGTH: u32 = 10;
/// Milliseconds below which a list is fast, however much faster it was before.
const FAST_MS: f64 = 1.0;
/// By how much less than the log a policy may be worth per item shown.
const POLICY_MARGIN: f64 = 0.0;

/// How long lists take, by a candidate and by what serves.
pub(super) struct Latencies {
    pub(super) candidate_ms: f64,
    pub(super) serving_ms: f64,
    pub(super) lists: usize,
}

/// What is measured before it is judged.
pub(super) struct Seen {
    /// None where too few listeners can be judged; the fault says how many there are.
    pub(super) measures: Result<Vec<Measure>, Fault>,
    pub(super) logged: Vec<ope::Logged>,
    pub(super) latencies: Latencies,
}

/// Every gate with its evidence.
///
/// # Errors
/// Limits without meaning.
pub(super) fn judge(seen: &Seen, limits: &ReleaseLimits) -> Result<Vec<GateReport>, Fault> {
    let meaningless = |cause: InvalidInput| Fault::new(ErrorKind::Internal, format!("the gates: {cause}"));
    let minimum = -limits.quality_margin;
    let measures = seen.measures.as_deref().unwrap_or_default();
    let quality = measures.iter().map(|one| QualityGate { metric: one.metric.clone(), minimum });
    let Latencies { candidate_ms, serving_ms, lists } = seen.latencies;
    let maximum = limits.latency_p99_ms.min((limits.latency_ratio * serving_ms).max(FAST_MS));
    let thresholds = Thresholds {
        quality: quality.collect(),
        policy: Some(PolicyGate { margin: POLICY_MARGIN }),
        latency: vec![LatencyGate { quantile: QUANTILE, maximum }],
    };
    let policy = estimate(&seen.logged, limits).map_err(meaningless)?;
    let measured = Measured {
        quality: intervals(measures),
        policy: policy.clone(),
        latency: vec![Latency { quantile: QUANTILE, milliseconds: candidate_ms, requests: lists as u64 }],
    };
    let report = gate::judge(&thresholds, &measured).map_err(meaningless)?;
    let told = |gate: gate::Gate| {
        let reason = match &gate.kind {
            Kind::Quality(metric) => measures.iter().find(|one| one.metric == *metric).map(quality_told),
            Kind::Policy => Some(policy_told(policy.as_ref(), seen.logged.len(), limits)),
            Kind::Latency(_) => Some(format!(
                "{candidate_ms:.2} ms, {serving_ms:.2} ms by what serves, of {lists} lists of {LENGTH} each"
            )),
        };
        reported(gate, reason.unwrap_or_default(), limits)
    };
    // Without anybody to judge it by nothing is known of its quality, and that has not passed.
    let unjudged = seen.measures.as_ref().err().map(|fault| GateReport {
        gate: "ndcg@10".to_owned(),
        outcome: GateOutcome::Missing,
        measured: None,
        bound: Some(minimum),
        reason: fault.message.clone(),
    });
    Ok(unjudged.into_iter().chain(report.gates.into_iter().map(told)).collect())
}

fn reported(gate: gate::Gate, reason: String, limits: &ReleaseLimits) -> GateReport {
    let outcome = match (&gate.kind, &gate.outcome) {
        (_, Outcome::Passed) => GateOutcome::Passed,
        (_, Outcome::Failed) => GateOutcome::Failed,
        (Kind::Policy, _) if !limits.require_impressions => GateOutcome::Waived,
        _ => GateOutcome::Missing,
    };
    let name = match gate.kind {
        Kind::Quality(metric) => metric,
        Kind::Policy => "impressions".to_owned(),
        Kind::Latency(_) => "latency p99".to_owned(),
    };
    let told = |number: Option<f64>| number.filter(|number| number.is_finite());
    GateReport { gate: name, outcome, measured: told(gate.measured), bound: told(gate.bound), reason }
}

fn quality_told(one: &Measure) -> String {
    let Measure { candidate, serving, low, high, listeners, .. } = one;
    let (low, high) = (100.0 * low, 100.0 * high);
    format!("{candidate:.4}, {serving:.4} by what serves: {low:+.2} % to {high:+.2} %, {listeners} listeners")
}

/// What the log says of the candidate; none when it is too short for any estimate.
fn estimate(logged: &[ope::Logged], limits: &ReleaseLimits) -> Result<Option<ope::Evaluation>, InvalidInput> {
    if logged.len() < limits.min_impressions as usize || logged.is_empty() {
        return Ok(None);
    }
    let mut options = ope::Options::default();
    options.limits.effective = f64::from(limits.min_impressions);
    // A deterministic list beside 32 candidates: weights of some hundreds are what is expected.
    options.clip = 500.0;
    options.limits.heaviest = 0.2;
    ope::evaluate(logged, &options).map(Some)
}

fn policy_told(estimate: Option<&ope::Evaluation>, rows: usize, limits: &ReleaseLimits) -> String {
    let needed = limits.min_impressions;
    let Some(seen) = estimate else {
        return format!("not enough impressions: {rows} of {needed} that were explored with a known chance");
    };
    let effective = seen.weights.effective;
    if !seen.is_reliable() {
        let doubts: Vec<String> = seen.doubts.iter().map(|doubt| format!("{doubt:?}")).collect();
        return format!(
            "not enough impressions: {effective:.0} of {needed} effective, from {rows} rows ({})",
            doubts.join(", ")
        );
    }
    let value = seen.best().map_or(f64::NAN, |value| value.estimate);
    format!("{value:.4} accepted of what is shown, {:.4} in the log, {effective:.0} effective", seen.logged.estimate)
}

/// Of two numbers of one listener that never are those of another.
fn unit(user: UserId) -> u64 {
    let wide = user.0.as_u128();
    let halves = [wide >> 64, wide & u128::from(u64::MAX)].map(|half| u64::try_from(half).unwrap_or(0));
    halves[0].rotate_left(32) ^ halves[1]
}

impl RecommendationsService {
    /// What the log of explored items says of a candidate: at each place that was explored, whether the candidate
    /// would have shown the item that was. Lists are made as the listener's history is now, without what was
    /// shown. Private listeners are left out. Blocks; time O(impressions × list).
    pub(super) fn logged(&self, candidate: &Model, trending: f64, log: &[Explored]) -> Vec<ope::Logged> {
        log.iter().flat_map(|shown| self.logged_of(candidate, trending, shown)).collect()
    }

    fn logged_of(&self, model: &Model, trending: f64, shown: &Explored) -> Vec<ope::Logged> {
        let list = self.with_scores(|scores| {
            self.read(|state| {
                let person = state.by_id(shown.user).filter(|person| !person.private)?;
                let (kind, _) = state.item(*shown.items.first()?)?;
                let without: HashSet<_> = shown.items.iter().copied().collect();
                let history = Without::of(state, person, kind, &without).history;
                let policy = self.0.trials.base().with_trending(trending);
                let ranking = Ranking { state, model, person, policy: &policy, kind, history };
                let limit = u32::try_from(shown.items.len()).unwrap_or(MAX_LIMIT).clamp(1, MAX_LIMIT);
                let query = RecommendQuery { kind, limit, include_known: true };
                Some(ranking.list(&query, scores, None).items)
            })
        });
        let Some(list) = list else { return Vec::new() };
        let row = |(place, propensity, accepted): &(u16, f64, bool)| {
            let place = usize::from(*place);
            let same = list.get(place).map(|item| item.id) == shown.items.get(place).copied();
            let (reward, target) = (f64::from(u8::from(*accepted)), f64::from(u8::from(same)));
            ope::Logged { unit: unit(shown.user), reward, propensity: *propensity, target, model: None }
        };
        shown.explored.iter().map(row).collect()
    }

    /// How long lists take by two models that were fitted on the same, in turns, for listeners drawn from
    /// `people`. Blocks.
    pub(super) fn latencies(
        &self,
        (candidate, candidate_trending): (&Model, f64),
        (serving, serving_trending): (&Model, f64),
        people: &[UserId],
    ) -> Latencies {
        let current = self.0.model.load_full();
        let models = [
            (candidate.with_popularity_of(&current), candidate_trending),
            (serving.with_popularity_of(&current), serving_trending),
        ];
        let mut took = [Vec::with_capacity(LISTS), Vec::with_capacity(LISTS)];
        for turn in 0..LISTS.min(people.len() * LISTS) {
            // Spread over everybody there is.
            let user = people[turn * people.len().div_ceil(LISTS).max(1) % people.len()];
            let kind = if turn % 2 == 0 { ItemKind::Artist } else { ItemKind::Track };
            // Whoever is first finds colder caches.
            for at in if turn % 4 < 2 { [0, 1] } else { [1, 0] } {
                let (model, trending) = &models[at];
                if let Some(ms) = self.time_list(model, *trending, user, kind) {
                    took[at].push(ms);
                }
            }
        }
        let lists = took[0].len().min(took[1].len());
        let [candidate_ms, serving_ms] = took.map(quantile);
        Latencies { candidate_ms, serving_ms, lists }
    }

    /// Milliseconds that a list takes; none when the listener has gone.
    fn time_list(&self, model: &Model, trending: f64, user: UserId, kind: ItemKind) -> Option<f64> {
        let query = RecommendQuery { kind, limit: LENGTH, include_known: false };
        let policy = self.0.trials.base().with_trending(trending);
        let began = Instant::now();
        self.with_scores(|scores| {
            self.read(|state| {
                let person = state.by_id(user)?;
                let history = person.history(kind).to_vec();
                let ranking = Ranking { state, model, person, policy: &policy, kind, history };
                Some(ranking.list(&query, scores, None))
            })
        })?;
        Some(began.elapsed().as_secs_f64() * 1e3)
    }
}

/// The sample quantile at [`QUANTILE`]; no number without a sample.
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place")]
fn quantile(mut took: Vec<f64>) -> f64 {
    took.sort_unstable_by(f64::total_cmp);
    let place = (QUANTILE * took.len() as f64).ceil() as usize;
    took.get(place.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen() -> Seen {
        let measure = Measure {
            metric: "ndcg@10 of artists".into(),
            candidate: 0.22,
            serving: 0.2,
            low: 0.05,
            high: 0.15,
            listeners: 500,
        };
        let latencies = Latencies { candidate_ms: 3.0, serving_ms: 2.0, lists: 1_000 };
        Seen { measures: Ok(vec![measure]), logged: Vec::new(), latencies }
    }

    fn outcomes(seen: &Seen, limits: &ReleaseLimits) -> Vec<GateOutcome> {
        judge(seen, limits).expect("judged").into_iter().map(|gate| gate.outcome).collect()
    }

    /// So many explored items, of which the candidate would have shown a half; all are accepted.
    fn log(rows: u64) -> Vec<ope::Logged> {
        let row = |unit| ope::Logged {
            unit,
            reward: f64::from(u8::from(unit % 2 == 0)),
            propensity: 0.5,
            target: f64::from(u8::from(unit % 2 == 0)),
            model: None,
        };
        (0..rows).map(row).collect()
    }

    #[test]
    fn each_gate_holds_by_itself_and_tells_its_figures() {
        use GateOutcome::{Failed, Missing, Passed, Waived};
        let limits = ReleaseLimits::default();
        let gates = judge(&seen(), &limits).expect("judged");
        let told: Vec<_> = gates.iter().map(|gate| (gate.gate.as_str(), gate.outcome, gate.bound)).collect();
        let expected = [
            ("ndcg@10 of artists", Passed, Some(-0.01)),
            ("impressions", Waived, None),
            ("latency p99", Passed, Some(4.0)),
        ];
        assert_eq!(told, expected);
        assert!(gates[0].reason.contains("+5.00 % to +15.00 %, 500 listeners"), "{}", gates[0].reason);
        assert!(gates[1].reason.contains("not enough impressions: 0 of 100"), "{}", gates[1].reason);
        assert!(gates[2].reason.contains("3.00 ms, 2.00 ms by what serves"), "{}", gates[2].reason);
        let strict = ReleaseLimits { require_impressions: true, ..limits };
        assert_eq!(outcomes(&seen(), &strict), [Passed, Missing, Passed]);
        let mut worse = seen();
        worse.measures.as_mut().expect("measured")[0].low = -0.02;
        assert_eq!(outcomes(&worse, &limits)[0], Failed);
        let unjudged = Seen { measures: Err(super::super::compare::too_few(9, 100)), ..seen() };
        let gates = judge(&unjudged, &limits).expect("judged");
        assert_eq!(gates[0].outcome, Missing, "nobody to judge it by");
        assert!(gates[0].reason.starts_with("9 listeners have enough"), "{}", gates[0].reason);
        let mut slow = seen();
        slow.latencies.candidate_ms = 4.1;
        assert_eq!(outcomes(&slow, &limits)[2], Failed, "more than twice as slow");
        slow.latencies = Latencies { candidate_ms: 0.9, serving_ms: 0.1, lists: 1_000 };
        assert_eq!(outcomes(&slow, &limits)[2], Passed, "below a millisecond everything is fast");
        slow.latencies = Latencies { candidate_ms: 21.0, serving_ms: 20.0, lists: 1_000 };
        assert_eq!(outcomes(&slow, &limits)[2], Failed, "longer than is borne at all");
        slow.latencies.lists = 900;
        assert_eq!(outcomes(&slow, &limits)[2], Missing, "too few lists for this quantile");
    }

    #[test]
    fn enough_impressions_speak_and_too_few_do_not() {
        let limits = ReleaseLimits::default();
        let with = |logged| Seen { logged, ..seen() };
        let gates = judge(&with(log(4_000)), &limits).expect("judged");
        assert_eq!(gates[1].outcome, GateOutcome::Passed, "{}", gates[1].reason);
        assert!(gates[1].measured.is_some_and(|low| low > 0.9), "{gates:?}");
        // The candidate shows what nobody accepted.
        let refused = log(4_000).into_iter().map(|row| ope::Logged { target: 1.0 - row.target, ..row }).collect();
        assert_eq!(outcomes(&with(refused), &limits)[1], GateOutcome::Failed);
        let few = judge(&with(log(120)), &limits).expect("judged");
        assert_eq!(few[1].outcome, GateOutcome::Waived);
        assert!(few[1].reason.contains("not enough impressions: 60 of 100 effective"), "{}", few[1].reason);
    }
}
