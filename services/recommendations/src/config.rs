//! What fitting, lists and releases can be told.

use std::{path::Path, time::Duration};

use echotune_api::MAX_LIMIT;
use echotune_kit::config::{Period, Size};
use serde::{Deserialize, Serialize};

use crate::{Fitting, LEAST_FIT_BYTES, Policy, ReleaseLimits, candidate};

/// Folder of the model files in a data folder.
const MODELS: &str = "models/recommendations";

/// The sections of this part, with `defaults.toml` beside this file as reference. To be flattened into a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FittingConfig {
    /// Fitting and lists.
    pub recommendations: RecommendationsConfig,
    /// Releases of models.
    pub models: ModelsConfig,
}

impl FittingConfig {
    /// What is wrong: the key at fault and why.
    pub fn faults(&self) -> Vec<(&'static str, String)> {
        self.recommendations.faults().chain(self.models.faults()).collect()
    }
}

/// Fitting and lists.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RecommendationsConfig {
    /// How long new listens are gathered before a refit.
    pub refit_debounce: Period,
    /// What the most popular item gains beside co-listening.
    pub trending_weight: f64,
    /// Tracks of one artist in a list at the most; 0 for no limit.
    pub max_per_artist: u32,
    /// What calibration adds to an item at the most, as a share of the best score.
    pub diversity_weight: f64,
    /// What a fit may allocate.
    pub fit_memory_max: Size,
    /// Share of the requests whose listeners' lists are audited at the next fit.
    pub audit_share: f64,
}

/// Releases of models.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ModelsConfig {
    /// Listeners that must be judged for a comparison to say anything.
    pub min_listeners: usize,
    /// By what share of NDCG@10 a release may be worse than what serves.
    pub quality_margin: f64,
    /// How long 99 of 100 lists may take at the most.
    pub latency_p99: Period,
    /// How many times as long as by what serves.
    pub latency_ratio: f64,
    /// Effective impressions that an estimate from the log needs.
    pub min_impressions: u32,
    /// Whether a release needs that estimate.
    pub require_impressions: bool,
}

impl RecommendationsConfig {
    /// By what lists are made.
    pub fn policy(&self) -> Policy {
        let Self { trending_weight, max_per_artist, diversity_weight, .. } = *self;
        Policy { trending_weight, max_per_artist, diversity_weight, ..Policy::default() }
    }

    /// What is wrong: the key at fault and why.
    fn faults(&self) -> impl Iterator<Item = (&'static str, String)> {
        let share = |key, share: f64| ((0.0..=1.0).contains(&share), key, format!("{share} is not between 0 and 1"));
        let (memory, least) = (self.fit_memory_max, Size(LEAST_FIT_BYTES));
        let checks = [
            (
                self.refit_debounce.0 > Duration::ZERO,
                "recommendations.refit_debounce",
                "must be longer than 0s".to_owned(),
            ),
            share("recommendations.trending_weight", self.trending_weight),
            share("recommendations.diversity_weight", self.diversity_weight),
            share("recommendations.audit_share", self.audit_share),
            (
                self.max_per_artist <= MAX_LIMIT,
                "recommendations.max_per_artist",
                format!("{} is more than {MAX_LIMIT}", self.max_per_artist),
            ),
            (
                memory.0 >= LEAST_FIT_BYTES,
                "recommendations.fit_memory_max",
                format!("{memory} is less than {least}, what a fit is given at the least"),
            ),
        ];
        checks.into_iter().filter(|(holds, ..)| !holds).map(|(_, key, why)| (key, why))
    }

    /// How models are fitted, and where in a data folder they are kept.
    pub fn fitting(&self, folder: &Path) -> Fitting {
        Fitting {
            models: Some(folder.join(MODELS)),
            candidates: Some(folder.join(candidate::FOLDER)),
            memory_max: self.fit_memory_max.0,
            audit_share: self.audit_share,
        }
    }
}

impl ModelsConfig {
    /// What a release is held to.
    pub fn limits(&self) -> ReleaseLimits {
        let Self { min_listeners, quality_margin, latency_ratio, min_impressions, require_impressions, .. } = *self;
        let latency_p99_ms = self.latency_p99.0.as_secs_f64() * 1e3;
        ReleaseLimits {
            min_listeners,
            quality_margin,
            latency_p99_ms,
            latency_ratio,
            min_impressions,
            require_impressions,
        }
    }

    /// What is wrong: the key at fault and why.
    fn faults(&self) -> impl Iterator<Item = (&'static str, String)> {
        let Self { min_listeners, quality_margin, latency_ratio, min_impressions, .. } = *self;
        let between = |value: &dyn std::fmt::Display, least: &str, most: &str| {
            format!("{value} is not between {least} and {most}")
        };
        let checks = [
            (
                (100..=1_000_000).contains(&min_listeners),
                "models.min_listeners",
                between(&min_listeners, "100", "1000000"),
            ),
            ((0.0..=1.0).contains(&quality_margin), "models.quality_margin", between(&quality_margin, "0", "1")),
            (self.latency_p99.0 > Duration::ZERO, "models.latency_p99", "must be longer than 0s".to_owned()),
            ((1.0..=1_000.0).contains(&latency_ratio), "models.latency_ratio", between(&latency_ratio, "1", "1000")),
            (
                (1..=1_000_000).contains(&min_impressions),
                "models.min_impressions",
                between(&min_impressions, "1", "1000000"),
            ),
        ];
        checks.into_iter().filter(|(holds, ..)| !holds).map(|(_, key, why)| (key, why))
    }
}
