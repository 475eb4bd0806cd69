//! Hyper-parameters of the blend, chosen on validation term by term.

use rayon::prelude::*;

use super::{EachUser, FitError, Fold, Progress, Scorer, Settings, measure, rank};
use crate::{
    blend::{BlendOptions, fit_ease, unit_of},
    ease::EaseOptions,
    filter::{FilterOptions, GraphFilter},
    spectral::Singular,
};

/// Listeners of validation that candidates are judged by at the most.
const JUDGED: usize = 3000;

/// Items of EASE's head; twice those of the default, as evaluation has time.
const HEAD: usize = 8192;
/// Links kept per item; twice those of the default.
const LINKS: usize = 512;

/// Values tried of one hyper-parameter.
pub(super) type Axis = (&'static str, &'static [f64]);

/// Of the filter, in the order they are tried.
const FILTER: [Axis; 7] = [
    ("target", &[0.2, 0.3, 0.4, 0.5]),
    ("low_pass", &[0.0, 0.05, 0.1, 0.2, 0.3]),
    ("sharpening", &[0.0, 0.5, 1.0]),
    ("user", &[0.5, 0.75, 1.0]),
    ("source", &[0.4, 0.5, 0.75, 1.0]),
    ("target", &[0.25, 0.3, 0.35, 0.4]),
    ("low_pass", &[0.05, 0.1, 0.15, 0.2, 0.25]),
];
/// Of EASE.
const EASE: [Axis; 4] = [
    ("lambda", &[50.0, 100.0, 200.0, 400.0]),
    ("dropout", &[0.2, 0.3, 0.4, 0.5]),
    ("tags", &[0.0, 1.0, 3.0, 6.0]),
    ("ease_target", &[0.0, 0.1, 0.2, 0.3]),
];
/// Weight of the filter beside EASE, which counts 1.
const FILTER_WEIGHT: [f64; 10] = [0.1, 0.2, 0.35, 0.5, 0.75, 1.0, 1.5, 2.5, 4.0, 8.0];

/// Blend options of settings; what is not named is the default.
pub(super) fn options(settings: &Settings, seed: u64) -> BlendOptions {
    let default = BlendOptions::default();
    let (filter, ease) = (FilterOptions::default(), default.ease);
    BlendOptions {
        filter: FilterOptions {
            user: settings.get_f32("user", filter.user),
            source: settings.get_f32("source", filter.source),
            target: settings.get_f32("target", filter.target),
            low_pass: settings.get_f32("low_pass", filter.low_pass),
            sharpening: settings.get_f32("sharpening", filter.sharpening),
            seed,
            ..filter
        },
        filter_weight: settings.get_f32("filter_weight", default.filter_weight),
        ease: EaseOptions {
            head: HEAD,
            lambda: settings.get_f32("lambda", ease.lambda),
            dropout: settings.get_f32("dropout", ease.dropout),
            target: settings.get_f32("ease_target", ease.target),
        },
        ease_weight: settings.get_f32("ease_weight", default.ease_weight),
        tags: settings.get_f32("tags", default.tags),
        links: LINKS,
        whole: default.whole,
    }
}

/// The terms' scores of the judged listeners, one row after another.
pub(super) type Rows = Vec<f32>;

pub(super) struct Search<'f, 'd> {
    pub(super) fold: Fold<'d>,
    pub(super) histories: Vec<Vec<(u32, f32)>>,
    at: usize,
    seed: u64,
    done: f64,
    progress: Progress<'f>,
}

impl<'f, 'd> Search<'f, 'd> {
    pub(super) fn new(fold: &Fold<'d>, at: usize, seed: u64, progress: Progress<'f>) -> Self {
        let judged = fold.judged();
        let step = judged.len().div_ceil(JUDGED).max(1);
        let sample: Vec<usize> = judged.into_iter().step_by(step).collect();
        let known = fold.training.interactions;
        let of = |user: &usize| known.entries(*user).map(|(item, weight)| (item, weight.ln_1p())).collect();
        let histories = sample.iter().map(of).collect();
        Self { fold: Fold { sample: Some(sample), ..fold.clone() }, histories, at, seed, done: 0.0, progress }
    }

    fn items(&self) -> usize {
        self.fold.held.item_count()
    }

    /// The geometric mean of recall and NDCG of rows of scores: neither is bought with the other.
    pub(super) fn quality(&self, rows: &[f32]) -> f64 {
        let sample = self.fold.sample.as_deref().unwrap_or_default();
        let items = self.items();
        let scorer = EachUser(|user: usize, to: &mut Vec<f32>| {
            to.clear();
            if let Ok(at) = sample.binary_search(&user) {
                to.extend_from_slice(&rows[at * items..(at + 1) * items]);
            }
        });
        let scorer: &dyn Scorer = &scorer;
        let found = measure(&self.fold, &[self.at], &rank(&self.fold, self.at, scorer, &|_| {}));
        (found.recall[0] * found.ndcg[0]).sqrt()
    }

    fn rows(&self, add: impl Fn(&[Vec<(u32, f32)>], &mut [f32]) + Sync) -> Rows {
        self.rows_of(&self.histories, add)
    }

    /// Scores of histories of the judged listeners.
    pub(super) fn rows_of(
        &self,
        histories: &[Vec<(u32, f32)>],
        add: impl Fn(&[Vec<(u32, f32)>], &mut [f32]) + Sync,
    ) -> Rows {
        let mut rows = vec![0.0; histories.len() * self.items()];
        let parts = rows.par_chunks_mut((32 * self.items()).max(1)).zip(histories.par_chunks(32));
        parts.for_each(|(out, histories)| add(histories, out));
        rows
    }

    fn filter(&self, settings: &Settings, singular: Option<&Singular>) -> (Rows, Singular) {
        let options = options(settings, self.seed).filter;
        let filter = GraphFilter::fit_with(self.fold.training.interactions, options, singular);
        (self.rows(|histories, out| filter.add_scores(histories, 1.0, out)), filter.into_singular())
    }

    fn ease(&self, settings: &Settings) -> Result<Rows, FitError> {
        let options = options(settings, self.seed);
        let training = &self.fold.training;
        let ease = fit_ease(training.interactions, Some(&training.tags), &options)?;
        Ok(self.rows(|histories, out| {
            if let Some(ease) = &ease {
                ease.add_scores(histories, 1.0, out);
            }
        }))
    }

    /// Tries the values of each axis in turn beside what is best so far; once along all.
    pub(super) fn descend<T>(
        &mut self,
        axes: &[Axis],
        share: f64,
        mut settings: Settings,
        mut try_out: impl FnMut(&Self, &Settings) -> Result<(f64, T), FitError>,
    ) -> Result<(Settings, T), FitError> {
        #[expect(clippy::cast_precision_loss, reason = "there are few candidates")]
        let step = share / axes.iter().map(|(_, values)| values.len()).sum::<usize>().max(1) as f64;
        let (mut best, mut kept) = try_out(self, &settings)?;
        for (name, values) in axes {
            let before = settings.get(name, f64::NAN);
            for value in values.iter().filter(|value| **value != before) {
                let candidate = settings.with(name, *value);
                let (quality, made) = try_out(self, &candidate)?;
                if quality > best {
                    (best, kept, settings) = (quality, made, candidate);
                }
                self.advance(step);
            }
        }
        Ok((settings, kept))
    }

    fn advance(&mut self, by: f64) {
        self.done += by;
        (self.progress)(self.done.min(1.0));
    }
}

/// The filter's settings of the best quality at `at`.
pub(super) fn choose_filter(
    fold: &Fold<'_>,
    at: usize,
    seed: u64,
    progress: Progress<'_>,
) -> Result<Settings, FitError> {
    let mut search = Search::new(fold, at, seed, progress);
    Ok(filter(&mut search, 1.0)?.0)
}

fn filter(search: &mut Search<'_, '_>, share: f64) -> Result<(Settings, Rows), FitError> {
    let default = FilterOptions::default();
    let start = [
        ("user", default.user),
        ("source", default.source),
        ("target", default.target),
        ("low_pass", default.low_pass),
        ("sharpening", default.sharpening),
    ];
    let start = Settings(start.into_iter().map(|(name, value)| (name, rounded(value))).collect());
    let mut singular = None;
    search.descend(&FILTER, share, start, |search, settings| {
        let (rows, found) = search.filter(settings, singular.as_ref());
        singular.get_or_insert(found);
        Ok((search.quality(&rows), rows))
    })
}

/// EASE's settings of the best quality at `at`.
pub(super) fn choose_ease(fold: &Fold<'_>, at: usize, seed: u64, progress: Progress<'_>) -> Result<Settings, FitError> {
    let mut search = Search::new(fold, at, seed, progress);
    Ok(ease(&mut search, 1.0)?.0)
}

fn ease(search: &mut Search<'_, '_>, share: f64) -> Result<(Settings, Rows), FitError> {
    let default = BlendOptions::default();
    let has_tags = !search.fold.training.tags.is_empty();
    let start = [
        ("lambda", default.ease.lambda),
        ("dropout", default.ease.dropout),
        ("tags", if has_tags { default.tags } else { 0.0 }),
        ("ease_target", default.ease.target),
    ];
    let start = Settings(start.into_iter().map(|(name, value)| (name, rounded(value))).collect());
    let axes: Vec<Axis> = EASE.into_iter().filter(|(name, _)| has_tags || *name != "tags").collect();
    search.descend(&axes, share, start, |search, settings| {
        let rows = search.ease(settings)?;
        Ok((search.quality(&rows), rows))
    })
}

/// The blend's settings: first each term alone, then the weight of the filter beside EASE.
pub(super) fn choose_blend(
    fold: &Fold<'_>,
    at: usize,
    seed: u64,
    progress: Progress<'_>,
) -> Result<Settings, FitError> {
    let mut search = Search::new(fold, at, seed, progress);
    let (mut settings, filter_rows) = filter(&mut search, 0.3)?;
    let (of_ease, ease_rows) = ease(&mut search, 0.6)?;
    settings.0.extend(of_ease.0);
    let (filter_unit, ease_unit) = (unit(&filter_rows), unit(&ease_rows));
    let mixed = |filter: f64, ease: f64| -> Rows {
        #[expect(clippy::cast_possible_truncation, reason = "weights are f32")]
        let (filter, ease) = (filter as f32 * filter_unit, ease as f32 * ease_unit);
        filter_rows.par_iter().zip(&ease_rows).map(|(f, e)| filter * f + ease * e).collect()
    };
    let mut best = (search.quality(&mixed(1.0, 0.0)), 1.0, 0.0);
    for weight in std::iter::once(0.0).chain(FILTER_WEIGHT) {
        let quality = search.quality(&mixed(weight, 1.0));
        if quality > best.0 {
            best = (quality, weight, 1.0);
        }
        search.advance(0.01);
    }
    settings.0.extend([("filter_weight", best.1), ("ease_weight", best.2)]);
    Ok(settings)
}

/// One over the root mean square.
fn unit(rows: &[f32]) -> f32 {
    let parts: Vec<f64> =
        rows.par_chunks(1 << 16).map(|part| part.iter().map(|score| f64::from(*score).powi(2)).sum()).collect();
    unit_of(parts.iter().sum(), rows.len())
}

/// The short decimal that an option was written as.
fn rounded(value: f32) -> f64 {
    (f64::from(value) * 1e6).round() / 1e6
}
