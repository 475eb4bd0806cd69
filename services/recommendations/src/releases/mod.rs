//! Releases: which recipe serves, how a better one is found on the platform's own histories, what must hold before
//! it serves, and how the one before comes back. A release is a recipe and no fitted model: each fit is of the
//! histories as they are, so that rolling back brings nobody back who was erased.

mod compare;
mod draw;
mod drift;
mod gates;
mod job;
mod judge;
mod recipe;
mod report;
mod search;
mod service;
#[cfg(feature = "mlflow")]
mod tracking;
mod train;

use std::sync::Arc;
#[cfg(feature = "mlflow")]
use std::sync::OnceLock;

use arc_swap::ArcSwap;
use echotune_model::{ErrorKind, Release, ReleaseState};

#[cfg(feature = "mlflow")]
pub use self::tracking::Tracking;
pub(crate) use self::{
    draw::Materials,
    drift::{Facts, Window},
    job::Jobs,
};
pub use self::{
    drift::report_drift,
    recipe::{Recipe, RecipeError},
};
use crate::store::{RecommendationStore, RecommendationStoreError};

/// What a release must hold to before it serves.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ReleaseLimits {
    /// Listeners that must be judged for a comparison to say anything: 100 at least.
    pub min_listeners: usize,
    /// By what share of NDCG@10 a candidate may be worse than what serves, at the lower end of the 95 % interval.
    pub quality_margin: f64,
    /// How long 99 of 100 lists may take at the most, in milliseconds.
    pub latency_p99_ms: f64,
    /// How many times as long as by the recipe that serves, where that is more than a millisecond.
    pub latency_ratio: f64,
    /// Effective impressions that an estimate from the log needs.
    pub min_impressions: u32,
    /// Whether a release needs that estimate, so that too few impressions do not let it pass.
    pub require_impressions: bool,
}

impl Default for ReleaseLimits {
    fn default() -> Self {
        Self {
            min_listeners: 100,
            quality_margin: 0.01,
            latency_p99_ms: 20.0,
            latency_ratio: 2.0,
            min_impressions: 100,
            require_impressions: false,
        }
    }
}

/// The recipe that serves.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Serving {
    pub(crate) version: String,
    pub(crate) recipe: Recipe,
    /// Whether it is what serves where nothing was released.
    pub(crate) is_built_in: bool,
}

impl Default for Serving {
    fn default() -> Self {
        Self::built_in(0.0)
    }
}

impl Serving {
    fn built_in(trending: f64) -> Self {
        let recipe = Recipe::built_in(trending);
        Self { version: recipe.version(), recipe, is_built_in: true }
    }

    /// By a recipe that is tried.
    fn of(recipe: Recipe) -> Self {
        Self { version: recipe.version(), recipe, is_built_in: false }
    }

    /// As a release that serves.
    fn release(&self) -> Release {
        let (version, recipe) = (self.version.clone(), self.recipe.to_string());
        Release { version, recipe, state: ReleaseState::Serving, made_at_ms: 0, training: None }
    }
}

/// What serving knows of releases.
pub(crate) struct Releases {
    built_in: Arc<Serving>,
    serving: ArcSwap<Serving>,
    limits: ReleaseLimits,
    pub(crate) jobs: Jobs,
    pub(crate) window: Window,
    /// Where releases are told.
    #[cfg(feature = "mlflow")]
    tracking: OnceLock<Tracking>,
}

impl Releases {
    /// From what a store holds; `trending` is the configured weight of popularity.
    pub(crate) async fn load(
        store: &dyn RecommendationStore,
        trending: f64,
        limits: ReleaseLimits,
    ) -> Result<Self, RecommendationStoreError> {
        let built_in = Arc::new(Serving::built_in(trending));
        let releases = Self {
            serving: ArcSwap::new(Arc::clone(&built_in)),
            built_in,
            limits,
            jobs: Jobs::default(),
            window: Window::default(),
            #[cfg(feature = "mlflow")]
            tracking: OnceLock::new(),
        };
        let all = store.releases().await?;
        if let Some(release) = all.iter().find(|one| one.state == ReleaseState::Serving) {
            releases.serve(releases.read(release)?);
        }
        Ok(releases)
    }

    pub(crate) fn serving(&self) -> Arc<Serving> {
        self.serving.load_full()
    }

    fn serve(&self, serving: Serving) {
        self.serving.store(Arc::new(serving));
    }

    /// The recipe of a release.
    fn read(&self, release: &Release) -> Result<Serving, RecommendationStoreError> {
        let unreadable = |cause: RecipeError| {
            let message = format!("release {} was made by another program: {cause}", release.version);
            RecommendationStoreError { kind: ErrorKind::DataLoss, message }
        };
        let (version, recipe) = (release.version.clone(), Recipe::parse(&release.recipe).map_err(unreadable)?);
        let is_built_in = version == self.built_in.version;
        Ok(Serving { version, recipe, is_built_in })
    }
}
