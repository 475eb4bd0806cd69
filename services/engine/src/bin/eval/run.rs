use std::time::Instant;

use echotune_engine::{
    Random,
    evaluation::{Dataset, FitError, Fold, Metrics, Model, Scorer, Settings, measure, rank, rank_one},
};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

/// Listeners by whom hyper-parameters are chosen, at the most.
pub(crate) const TUNING_USERS: usize = 2_000;
/// Lists whose times are taken, one after the other.
const TIMED_LISTS: usize = 1_000;
/// Steps of a progress bar.
const STEPS: u64 = 1_000;

/// One model on one split.
#[derive(Debug, Clone)]
pub(crate) struct Run {
    pub(crate) model: String,
    pub(crate) seed: u64,
    pub(crate) metrics: Metrics,
    /// Seconds of the last fit.
    pub(crate) fit: f64,
    pub(crate) chosen: Value,
    /// Milliseconds to make one list, by one caller: median and 99th percentile.
    pub(crate) list: Option<[f64; 2]>,
}

/// One split on which models are measured.
pub(crate) struct Measure<'m> {
    pub(crate) dataset: &'m Dataset,
    pub(crate) at: &'m [usize],
    pub(crate) seed: u64,
    pub(crate) seeds: u64,
}

impl Measure<'_> {
    /// Chooses, fits and judges.
    pub(crate) fn model(&self, model: &dyn Model) -> Result<Run, FitError> {
        let tuning = self.tuning();
        let bar = self.bar(model.name());
        bar.set_message("choosing");
        let settings = model.choose(&tuning, self.at[0], self.seed, &|share| advance(&bar, share))?;
        drop(tuning);
        let fold = self.dataset.testing();
        bar.set_message("fitting");
        bar.set_position(0);
        let start = Instant::now();
        let scorer = model.fit(&fold.training, &settings, self.seed, &|share| advance(&bar, share))?;
        let fit = start.elapsed().as_secs_f64();
        bar.set_message("ranking");
        bar.set_length(fold.judged().len() as u64);
        bar.set_position(0);
        let lists = rank(&fold, self.longest(), scorer.as_ref(), &|users| bar.inc(users as u64));
        bar.finish_and_clear();
        let list = Some(percentiles(self.list_times(&fold, scorer.as_ref())));
        let metrics = measure(&fold, self.at, &lists);
        let chosen = described(&settings);
        Ok(Run { model: model.name().to_owned(), seed: self.seed, metrics, fit, chosen, list })
    }

    /// The task on which hyper-parameters are chosen, the same for every model.
    pub(crate) fn tuning(&self) -> Fold<'_> {
        self.dataset.tuning().sampled(TUNING_USERS, self.seed)
    }

    pub(crate) fn longest(&self) -> usize {
        self.at.iter().copied().max().unwrap_or(0)
    }

    pub(crate) fn bar(&self, name: &str) -> ProgressBar {
        let bar = ProgressBar::new(STEPS);
        let style = ProgressStyle::with_template("{prefix} {msg} [{bar:30}] {percent}% {elapsed}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        bar.set_prefix(format!("seed {}/{} {name}", self.seed, self.seeds));
        bar
    }

    /// Milliseconds of single lists.
    fn list_times(&self, fold: &Fold<'_>, scorer: &dyn Scorer) -> Vec<f64> {
        let time = |user: usize| {
            let start = Instant::now();
            std::hint::black_box(rank_one(fold, user, self.longest(), scorer));
            start.elapsed().as_secs_f64() * 1e3
        };
        timed_users(fold, self.seed).into_iter().map(time).collect()
    }
}

/// The listeners whose single lists are timed, the same for every model and peer.
pub(crate) fn timed_users(fold: &Fold<'_>, seed: u64) -> Vec<usize> {
    let mut users = fold.judged();
    Random::new(seed).shuffle(&mut users);
    users.truncate(TIMED_LISTS);
    users
}

/// Median and 99th percentile, by the nearest rank.
pub(crate) fn percentiles(mut values: Vec<f64>) -> [f64; 2] {
    values.sort_by(f64::total_cmp);
    let at = |percent: usize| {
        let rank = (values.len() * percent).div_ceil(100);
        values.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
    };
    [at(50), at(99)]
}

#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share")]
fn advance(bar: &ProgressBar, share: f64) {
    bar.set_position((share.clamp(0.0, 1.0) * STEPS as f64) as u64);
}

/// Hyper-parameters as an object.
pub(crate) fn described(settings: &Settings) -> Value {
    let number = |value: f64| {
        #[expect(clippy::cast_possible_truncation, reason = "whole and small")]
        if value.fract() == 0.0 && value.abs() < 1e15 { json!(value as i64) } else { json!(value) }
    };
    Value::Object(settings.0.iter().map(|(name, value)| ((*name).to_owned(), number(*value))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_by_the_nearest_rank() {
        assert_eq!(percentiles((1..=200_u8).rev().map(f64::from).collect()), [100.0, 198.0]);
        assert_eq!((percentiles(vec![7.0]), percentiles(vec![])), ([7.0; 2], [0.0; 2]));
    }
}
