//! A training: a better recipe on the platform's own histories, with what speaks for it.

use std::time::{Duration, Instant};

use echotune_model::{Fault, TrainingRecord, TrainingSpec};
use tokio_util::sync::CancellationToken;

use super::{
    Recipe, ReleaseLimits, Serving,
    compare::{compare, fitted, too_few},
    draw::{Draw, Materials},
    search::{Budget, search},
};

/// How long is searched when nothing is said.
const BUDGET: Duration = Duration::from_secs(60);
/// The longest search.
pub(super) const MAX_BUDGET: Duration = Duration::from_secs(24 * 3_600);
/// Options that can be given at the most.
pub(super) const MAX_OPTIONS: usize = 64;

/// What a training found.
pub(super) struct Trained {
    /// None when nothing is better than what serves.
    pub(super) recipe: Option<Recipe>,
    pub(super) record: TrainingRecord,
    /// Fitted by the recipe, without what it was compared on.
    #[cfg(feature = "mlflow")]
    pub(super) model: Option<crate::model::Model>,
}

/// What a training may ask; the recipe that it starts from.
///
/// # Errors
/// A budget that is too long, or an option that is none.
pub(super) fn check(spec: &TrainingSpec, serving: &Serving) -> Result<Recipe, Fault> {
    let longest = MAX_BUDGET.as_millis();
    if u128::from(spec.budget_ms) > longest {
        return Err(Fault::invalid(format!("budget_ms is {}; it is {longest} at the most, a day", spec.budget_ms)));
    }
    if spec.options.len() > MAX_OPTIONS {
        return Err(Fault::invalid(format!(
            "{} options are given; give {MAX_OPTIONS} at the most",
            spec.options.len()
        )));
    }
    let mut recipe = serving.recipe.clone();
    for (name, value) in &spec.options {
        recipe.set(name, *value).map_err(|cause| Fault::invalid(cause.to_string()))?;
    }
    Ok(recipe)
}

/// Searches, and compares what is best with what serves on a part that the search has not seen. Runs for the
/// budget, and three fits longer.
///
/// # Errors
/// Too few listeners, or an option that is none.
pub(super) fn train(
    materials: &Materials,
    serving: &Serving,
    spec: &TrainingSpec,
    limits: &ReleaseLimits,
    stop: &CancellationToken,
    tell: &dyn Fn(f64, &str),
) -> Result<Trained, Fault> {
    let (began, start) = (Instant::now(), check(spec, serving)?);
    let listeners = materials.training.people.len();
    let least = limits.min_listeners;
    if listeners < least {
        return Err(too_few(listeners, least));
    }
    let whole = if spec.budget_ms == 0 { BUDGET } else { Duration::from_millis(spec.budget_ms) };
    let trials = if spec.max_trials == 0 { u32::MAX } else { spec.max_trials };
    let draw = Draw::new(materials, spec.seed);
    let budget = Budget { until: began + whole, whole, trials };
    let searching = |share: f64, message: &str| tell(0.9 * share, message);
    let given = (spec.options.as_slice(), least, spec.seed);
    let found = search(&draw.tuning, start, given, budget, stop, &searching)?;
    tell(0.9, "the best recipe is compared with the one that serves");
    let is_new = found.recipe != serving.recipe;
    let ours = if is_new && !stop.is_cancelled() {
        Some(fitted(&draw.testing, &Serving::of(found.recipe.clone()))?)
    } else {
        None
    };
    let measures = match &ours {
        Some(ours) => compare(ours, &fitted(&draw.testing, serving)?, &draw.testing, least, spec.seed)?,
        None => Vec::new(),
    };
    let record = TrainingRecord {
        seed: spec.seed,
        trials: found.trials,
        took_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        listeners: listeners as u64,
        compared_with: serving.version.clone(),
        measures,
    };
    Ok(Trained {
        recipe: is_new.then_some(found.recipe),
        record,
        #[cfg(feature = "mlflow")]
        model: ours,
    })
}
