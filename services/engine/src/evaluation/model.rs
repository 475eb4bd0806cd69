use thiserror::Error;

use super::{EachUser, Fold, LinearScorer, Scorer, Training, measure, rank};
use crate::{GraphOptions, InputError, ItemGraph, LinearModel, ShapeError, dense::Matrix};

/// Why a model cannot be fitted.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum FitError {
    /// The data lacks something.
    #[error("the model needs {0}, which this data does not have")]
    Needs(&'static str),
    /// The parts of the model do not fit together.
    #[error(transparent)]
    Shape(#[from] ShapeError),
    /// A matrix cannot be made of the data.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Anything else, as the model puts it.
    #[error("{0}")]
    Failed(String),
}

/// Hyper-parameters by name, in the order they are reported.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings(pub Vec<(&'static str, f64)>);

impl Settings {
    /// The value of a name, or what stands for it.
    pub fn get(&self, name: &str, otherwise: f64) -> f64 {
        self.0.iter().find(|(known, _)| *known == name).map_or(otherwise, |(_, value)| *value)
    }

    /// [`Self::get`] in the numbers of most models.
    #[expect(clippy::cast_possible_truncation, reason = "hyper-parameters are short numbers")]
    pub fn get_f32(&self, name: &str, otherwise: f32) -> f32 {
        self.get(name, otherwise.into()) as f32
    }

    /// These with another value of a name.
    #[must_use]
    pub fn with(&self, name: &'static str, value: f64) -> Self {
        let mut all = self.clone();
        match all.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, before)) => *before = value,
            None => all.0.push((name, value)),
        }
        all
    }

    /// Every combination of the values of some names, the last name changing first.
    pub fn grid(axes: &[(&'static str, &[f64])]) -> Vec<Self> {
        axes.iter().fold(vec![Self::default()], |found, (name, values)| {
            let longer = |one: Self| {
                values.iter().map(move |value| {
                    let mut one = one.clone();
                    one.0.push((*name, *value));
                    one
                })
            };
            found.into_iter().flat_map(longer).collect()
        })
    }
}

/// Told the share of a long work that is done, 0 to 1.
pub type Progress<'p> = &'p (dyn Fn(f64) + Sync);

/// What the evaluator measures.
pub trait Model: Sync {
    /// Name in the report and on the command line.
    fn name(&self) -> &'static str;

    /// Hyper-parameters to choose among on validation; the first are the default.
    fn candidates(&self) -> Vec<Settings> {
        vec![Settings::default()]
    }

    /// Fits on training data alone. Deterministic for a seed.
    ///
    /// # Errors
    /// Data the model cannot be fitted on.
    fn fit<'d>(
        &self,
        training: &Training<'d>,
        settings: &Settings,
        seed: u64,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Scorer + 'd>, FitError>;

    /// The hyper-parameters with the best NDCG at `at` on a validation task; of equals the first. A model that
    /// can compare candidates without fitting each anew does it in its own way.
    ///
    /// # Errors
    /// As [`Self::fit`].
    fn choose(&self, fold: &Fold<'_>, at: usize, seed: u64, progress: Progress<'_>) -> Result<Settings, FitError> {
        let candidates = self.candidates();
        let mut best = (f64::NEG_INFINITY, candidates.first().cloned().unwrap_or_default());
        if candidates.len() < 2 || fold.judged().is_empty() {
            return Ok(best.1);
        }
        let mut done = 0.0;
        #[expect(clippy::cast_precision_loss, reason = "there are few candidates")]
        let step = 1.0 / candidates.len() as f64;
        for settings in candidates {
            let scorer = self.fit(&fold.training, &settings, seed, &|share| progress(done + step * share))?;
            let found = measure(fold, &[at], &rank(fold, at, scorer.as_ref(), &|_| {})).ndcg[0];
            if found > best.0 {
                best = (found, settings);
            }
            done += step;
            progress(done);
        }
        Ok(best.1)
    }
}

/// The same list for everybody: how many listeners know an item.
pub struct Popularity;

impl Model for Popularity {
    fn name(&self) -> &'static str {
        "popularity"
    }

    fn fit<'d>(
        &self,
        training: &Training<'d>,
        _: &Settings,
        _: u64,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Scorer + 'd>, FitError> {
        let scores = degrees(training);
        progress(1.0);
        Ok(Box::new(EachUser(move |_, to: &mut Vec<f32>| to.clone_from(&scores))))
    }
}

#[expect(clippy::cast_precision_loss, reason = "degrees above 2^24 need not be exact")]
fn degrees(training: &Training<'_>) -> Vec<f32> {
    training.interactions.item_degrees().into_iter().map(|degree| degree as f32).collect()
}

/// The same list for everybody: how many listeners met an item in the last `window` of the time span of
/// training, a share of it; then how many know it.
pub struct Trending;

impl Model for Trending {
    fn name(&self) -> &'static str {
        "trending"
    }

    fn candidates(&self) -> Vec<Settings> {
        Settings::grid(&[("window", &[0.02, 0.01, 0.05, 0.1, 0.25])])
    }

    fn fit<'d>(
        &self,
        training: &Training<'d>,
        settings: &Settings,
        _: u64,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Scorer + 'd>, FitError> {
        let times = training.times.ok_or(FitError::Needs("a time in every row"))?;
        let all = || times.iter().flatten().copied();
        let (first, last) = (all().min().unwrap_or(0), all().max().unwrap_or(0));
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "a moment need not be exact")]
        let window = ((i128::from(last) - i128::from(first)) as f64 * settings.get("window", 0.02)) as i64;
        let from = last.saturating_sub(window);
        let mut scores = degrees(training);
        let most = scores.iter().copied().fold(1.0, f32::max);
        scores.iter_mut().for_each(|score| *score /= 2.0 * most);
        for (user, times) in times.iter().enumerate() {
            for (item, time) in training.interactions.row(user).iter().zip(times) {
                scores[*item as usize] += if *time >= from { 1.0 } else { 0.0 };
            }
        }
        progress(1.0);
        Ok(Box::new(EachUser(move |_, to: &mut Vec<f32>| to.clone_from(&scores))))
    }
}

/// [`ItemGraph`], scored from histories weighted by `ln(1 + weight)` as serving does.
pub struct ItemGraphModel;

impl Model for ItemGraphModel {
    fn name(&self) -> &'static str {
        "item-graph"
    }

    fn candidates(&self) -> Vec<Settings> {
        let served = GraphOptions::default();
        let served = [("user", served.user), ("source", served.source), ("target", served.target)];
        let served = Settings(served.into_iter().map(|(name, value)| (name, value.into())).collect());
        let grid = [("user", &[0.5, 1.0][..]), ("source", &[0.5, 0.75, 1.0]), ("target", &[0.0, 0.25, 0.5])];
        let others = Settings::grid(&grid).into_iter().filter(|one| *one != served);
        std::iter::once(served.clone()).chain(others).collect()
    }

    fn fit<'d>(
        &self,
        training: &Training<'d>,
        settings: &Settings,
        _: u64,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Scorer + 'd>, FitError> {
        let served = GraphOptions::default();
        let options = GraphOptions {
            user: settings.get_f32("user", served.user),
            source: settings.get_f32("source", served.source),
            target: settings.get_f32("target", served.target),
            ..served
        };
        let graph = ItemGraph::fit(training.interactions, options);
        let none = || Matrix::zeros(graph.item_count(), 0);
        let (from, to) = (none(), none());
        let model = LinearModel::new(graph, from, to)?;
        progress(1.0);
        let histories = training.interactions.reweighted(|_, _, weight| weight.ln_1p());
        Ok(Box::new(LinearScorer { model, histories }))
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{
            events::tests::events,
            random,
            split::{carved, temporal},
        },
        *,
    };

    /// Two groups of listeners, each with items of its own; item 0 is known to all.
    fn groups() -> Vec<(u32, u32)> {
        let of = |user: u32| (0..10).map(move |item| (user, if item == 0 { 0 } else { 1 + user % 2 * 20 + item }));
        (0..40).flat_map(of).collect()
    }

    fn quality(model: &dyn Model, fold: &Fold<'_>, settings: &Settings) -> f64 {
        let scorer = model.fit(&fold.training, settings, 1, &|_| {}).expect("a model");
        measure(fold, &[5], &rank(fold, 5, scorer.as_ref(), &|_| {})).ndcg[0]
    }

    #[test]
    fn the_graph_finds_the_group_of_a_listener_and_popularity_does_not() {
        let set = random(&events(&groups()), 1);
        let fold = set.testing();
        let settings = ItemGraphModel.choose(&set.tuning(), 5, 1, &|_| {}).expect("settings");
        let graph = quality(&ItemGraphModel, &fold, &settings);
        let popular = quality(&Popularity, &fold, &Settings::default());
        assert!(graph > 0.9 && graph > popular + 0.1, "{graph} {popular}");
    }

    #[test]
    fn the_best_candidate_on_validation_is_chosen() {
        let set = random(&events(&groups()), 1);
        let fold = set.tuning();
        let chosen = ItemGraphModel.choose(&fold, 5, 1, &|_| {}).expect("settings");
        let of_chosen = quality(&ItemGraphModel, &fold, &chosen);
        let candidates = ItemGraphModel.candidates();
        assert!(candidates.iter().all(|one| quality(&ItemGraphModel, &fold, one) <= of_chosen));
        assert_eq!((candidates.len(), candidates.contains(&chosen)), (18, true));
    }

    #[test]
    fn trending_lists_what_is_new_and_needs_times() {
        // Everybody met 0 and 1 long ago; 2 came late to three of them.
        let mut given: Vec<(u32, u32, i64)> = (0..20).flat_map(|user| [(user, 0, 1), (user, 1, 2)]).collect();
        given.extend([(0, 2, 900), (1, 2, 901), (2, 2, 902), (3, 3, 950), (4, 2, 990), (5, 2, 995), (6, 2, 1_000)]);
        let mut events = events(&given.iter().map(|row| (row.0, row.1)).collect::<Vec<_>>());
        events.rows.iter_mut().zip(&given).for_each(|(row, given)| row.time = given.2);
        let untimed = carved(&events, &[], 1);
        let refused = Trending.fit(&untimed.testing().training, &Settings::default(), 1, &|_| {}).err();
        assert_eq!(refused, Some(FitError::Needs("a time in every row")));
        events.timed = true;
        let set = temporal(&events).expect("a split");
        let scorer =
            Trending.fit(&set.testing().training, &Settings(vec![("window", 0.1)]), 1, &|_| {}).expect("fitted");
        let mut scores = vec![0.0; 4];
        scorer.score(&[0], &mut scores);
        assert!(scores[2] > scores[0] && scores[0] >= scores[1], "{scores:?}");
    }
}
