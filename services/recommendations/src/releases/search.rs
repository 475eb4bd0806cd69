//! The search for a better recipe: one option at a time, on listens held out from the training part.

use std::time::{Duration, Instant};

use echotune_model::Fault;
use tokio_util::sync::CancellationToken;

use super::{
    Recipe, Serving,
    compare::{fitted, quality},
    draw::Part,
};

/// Values tried of an option.
type Axis = (&'static str, &'static [f64]);

/// In the order they are tried: what moved validation on HetRec 2011 most comes first.
const AXES: [Axis; 13] = [
    ("blend.filter", &[0.0, 0.1, 0.2, 0.35, 0.5, 1.0, 2.5]),
    ("ease.dropout", &[0.2, 0.3, 0.5, 0.7]),
    ("ease.lambda", &[25.0, 50.0, 100.0, 200.0, 400.0]),
    ("ease.target", &[0.0, 0.1, 0.2, 0.3, 0.4]),
    ("filter.target", &[0.1, 0.25, 0.4, 0.5]),
    ("follows.weight", &[0.0, 0.1, 0.25, 0.5, 1.0]),
    ("friends.weight", &[0.0, 0.05, 0.1, 0.2, 0.4]),
    ("blend.tags", &[0.0, 1.0, 3.0, 6.0]),
    ("content.weight", &[0.0, 0.1, 0.2, 0.5, 1.0]),
    ("filter.source", &[0.5, 0.75, 1.0]),
    ("filter.user", &[0.5, 0.75, 1.0]),
    ("follows.target", &[0.0, 0.25, 0.5]),
    ("trending.weight", &[0.0, 0.001, 0.01, 0.1, 0.3]),
];

/// When to stop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub(super) until: Instant,
    pub(super) whole: Duration,
    pub(super) trials: u32,
}

impl Budget {
    fn is_spent(&self, trials: u32) -> bool {
        trials >= self.trials || Instant::now() >= self.until
    }

    /// The share that is spent: 0 to 1.
    fn spent(&self, trials: u32) -> f64 {
        let left = self.until.saturating_duration_since(Instant::now()).as_secs_f64();
        let time = 1.0 - left / self.whole.as_secs_f64().max(f64::MIN_POSITIVE);
        time.max(f64::from(trials) / f64::from(self.trials.max(1))).clamp(0.0, 1.0)
    }
}

/// What a search found.
pub(super) struct Found {
    /// The best recipe tried; the start where nothing was better.
    pub(super) recipe: Recipe,
    pub(super) trials: u32,
}

/// Tries the values of each option in turn beside what is best so far, round after round, until a round finds
/// nothing, the budget is spent or `stop` is cancelled. Options that are `fixed` stay. Between two looks at the
/// budget is one fit.
///
/// # Errors
/// Too few listeners can be judged.
pub(super) fn search(
    part: &Part,
    start: Recipe,
    (fixed, least, seed): (&[(String, f64)], usize, u64),
    budget: Budget,
    stop: &CancellationToken,
    tell: &dyn Fn(f64, &str),
) -> Result<Found, Fault> {
    let judge = |recipe: &Recipe| quality(&fitted(part, &Serving::of(recipe.clone()))?, part, least, seed);
    let mut best = judge(&start)?;
    let mut found = Found { recipe: start, trials: 1 };
    loop {
        let before = best;
        for (name, values) in AXES.iter().filter(|(name, _)| fixed.iter().all(|(one, _)| one != name)) {
            let before = found.recipe.get(name);
            for value in values.iter().copied().filter(|value| before != Some(*value)) {
                if budget.is_spent(found.trials) || stop.is_cancelled() {
                    return Ok(found);
                }
                let mut candidate = found.recipe.clone();
                if candidate.set(name, value).is_err() || candidate == found.recipe {
                    continue;
                }
                let quality = judge(&candidate)?;
                found.trials += 1;
                if quality > best {
                    (best, found.recipe) = (quality, candidate);
                }
                let trials = found.trials;
                tell(budget.spent(trials), &format!("{trials} recipes tried, the best has NDCG@10 {best:.4}"));
            }
        }
        if best <= before {
            return Ok(found);
        }
    }
}
