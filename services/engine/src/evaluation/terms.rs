//! The graph filter, EASE, iALS and the blend as models of the evaluator.

use super::{FitError, Fold, Model, Progress, Scorer, Settings, Training, beside, search};
use crate::{
    Interactions,
    blend::{BlendOptions, add_links, fit_ease},
    dense::{Block, Matrix, multiply_block},
    ease::EaseError,
    filter::GraphFilter,
    ials,
    terms::content::{self, ContentOptions},
};

impl From<EaseError> for FitError {
    fn from(cause: EaseError) -> Self {
        Self::Failed(cause.to_string())
    }
}

impl From<ials::Error> for FitError {
    fn from(cause: ials::Error) -> Self {
        Self::Failed(cause.to_string())
    }
}

/// Histories weighted as serving does.
fn weighted(training: &Training<'_>) -> Interactions {
    training.interactions.reweighted(|_, _, weight| weight.ln_1p())
}

/// Histories scored a batch at a time.
struct Histories<F> {
    histories: Interactions,
    add: F,
}

impl<F: Fn(&[Vec<(u32, f32)>], &mut [f32]) + Sync> Scorer for Histories<F> {
    fn score(&self, users: &[usize], scores: &mut [f32]) {
        let histories: Vec<Vec<(u32, f32)>> =
            users.iter().map(|user| self.histories.entries(*user).collect()).collect();
        scores.fill(0.0);
        (self.add)(&histories, scores);
    }
}

/// [`GraphFilter`], whole.
pub struct GraphFilterModel;

impl Model for GraphFilterModel {
    fn name(&self) -> &'static str {
        "graph-filter"
    }

    fn choose(&self, fold: &Fold<'_>, at: usize, seed: u64, progress: Progress<'_>) -> Result<Settings, FitError> {
        search::choose_filter(fold, at, seed, progress)
    }

    fn fit<'d>(
        &self,
        training: &Training<'d>,
        settings: &Settings,
        seed: u64,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Scorer + 'd>, FitError> {
        let filter = GraphFilter::fit(training.interactions, search::options(settings, seed).filter);
        progress(1.0);
        let add = move |histories: &[Vec<(u32, f32)>], out: &mut [f32]| filter.add_scores(histories, 1.0, out);
        Ok(Box::new(Histories { histories: weighted(training), add }))
    }
}

/// [`Ease`](crate::ease::Ease) on the head of the catalogue, with tags as listeners where there are any.
pub struct EaseModel;

impl Model for EaseModel {
    fn name(&self) -> &'static str {
        "ease"
    }

    fn choose(&self, fold: &Fold<'_>, at: usize, seed: u64, progress: Progress<'_>) -> Result<Settings, FitError> {
        search::choose_ease(fold, at, seed, progress)
    }

    fn fit<'d>(
        &self,
        training: &Training<'d>,
        settings: &Settings,
        seed: u64,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Scorer + 'd>, FitError> {
        let options = search::options(settings, seed);
        let ease = fit_ease(training.interactions, Some(&training.tags), &options)?;
        progress(1.0);
        let add = move |histories: &[Vec<(u32, f32)>], out: &mut [f32]| {
            if let Some(ease) = &ease {
                ease.add_scores(histories, 1.0, out);
            }
        };
        Ok(Box::new(Histories { histories: weighted(training), add }))
    }
}

/// [`content::neighbours`] alone: items that few know, by their tags.
pub struct ContentModel;

impl Model for ContentModel {
    fn name(&self) -> &'static str {
        "content"
    }

    fn candidates(&self) -> Vec<Settings> {
        Settings::grid(&[("neighbours", &[64.0, 16.0, 32.0, 128.0, 256.0, 512.0])])
    }

    fn fit<'d>(
        &self,
        training: &Training<'d>,
        settings: &Settings,
        _: u64,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Scorer + 'd>, FitError> {
        if training.tags.is_empty() {
            return Err(FitError::Needs("tags"));
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole and small")]
        let neighbours = settings.get("neighbours", 64.0) as usize;
        let options = ContentOptions { neighbours, ..ContentOptions::default() };
        let links = content::neighbours(&training.tags, &training.interactions.item_degrees(), options)?;
        let add = move |histories: &[Vec<(u32, f32)>], out: &mut [f32]| add_links(&links, histories, 1.0, out);
        progress(1.0);
        Ok(Box::new(Histories { histories: weighted(training), add }))
    }
}

/// [`ials::Model`], of a number of factors.
pub struct IalsModel {
    /// Name in the report.
    pub name: &'static str,
    /// Dimensions of the factors.
    pub factors: usize,
}

impl Model for IalsModel {
    fn name(&self) -> &'static str {
        self.name
    }

    fn candidates(&self) -> Vec<Settings> {
        Settings::grid(&[("regularization", &[0.003, 0.001, 0.01]), ("unobserved", &[0.01, 0.02, 0.05])])
    }

    fn fit<'d>(
        &self,
        training: &Training<'d>,
        settings: &Settings,
        seed: u64,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Scorer + 'd>, FitError> {
        let default = ials::Options::default();
        let options = ials::Options {
            factors: self.factors,
            regularization: settings.get("regularization", default.regularization),
            unobserved: settings.get("unobserved", default.unobserved),
            seed,
            ..default
        };
        let binary = training.interactions.reweighted(|_, _, _| 1.0);
        let tell = |step: ials::Progress| {
            #[expect(clippy::cast_precision_loss, reason = "there are few iterations")]
            progress(step.iteration as f64 / step.iterations.max(1) as f64);
        };
        let model = ials::Model::fit(&binary, &options, &tell)?;
        Ok(Box::new(Factors { users: model.users().clone(), items: model.items().clone() }))
    }
}

/// Products of factors.
struct Factors {
    users: Matrix,
    items: Matrix,
}

impl Scorer for Factors {
    fn score(&self, users: &[usize], scores: &mut [f32]) {
        let (rank, items) = (self.items.columns(), self.items.rows());
        let mut rows = Matrix::zeros(users.len(), rank);
        for (at, user) in users.iter().enumerate() {
            rows.row_mut(at).copy_from_slice(self.users.row(*user));
        }
        let out = Block { data: scores, rows: users.len(), columns: items, stride: items };
        multiply_block(1.0, rows.view(), self.items.view().t(), 0.0, out);
    }
}

/// [`Blend`](crate::blend::Blend), compiled, with its default options, and the terms beside it: what Recommend
/// serves.
pub struct ServedModel;

impl Model for ServedModel {
    fn name(&self) -> &'static str {
        "blend-default"
    }

    fn fit<'d>(
        &self,
        training: &Training<'d>,
        _: &Settings,
        _: u64,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Scorer + 'd>, FitError> {
        beside::fit(training, BlendOptions::default(), beside::Options::default(), progress)
    }
}

/// [`Blend`](crate::blend::Blend), compiled, and the terms beside it, with options chosen on validation.
pub struct BlendModel;

impl Model for BlendModel {
    fn name(&self) -> &'static str {
        "blend"
    }

    fn choose(&self, fold: &Fold<'_>, at: usize, seed: u64, progress: Progress<'_>) -> Result<Settings, FitError> {
        let settings = search::choose_blend(fold, at, seed, &|share| progress(0.8 * share))?;
        beside::choose(fold, at, seed, settings, &|share| progress(0.8 + 0.2 * share))
    }

    fn fit<'d>(
        &self,
        training: &Training<'d>,
        settings: &Settings,
        seed: u64,
        progress: Progress<'_>,
    ) -> Result<Box<dyn Scorer + 'd>, FitError> {
        beside::fit(training, search::options(settings, seed), beside::Options::of(settings), progress)
    }
}
